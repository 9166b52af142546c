/* SPDX-License-Identifier: MIT */
/* Text to token ids. Immutable after opening; safe from any thread. */
#ifndef AU_TOKENIZER_TOKENIZER_H
#define AU_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct au_tokenizer au_tokenizer;

/* The SentencePiece unigram tokenizer (T5's) of a checkpoint folder: tokenizer.json if present,
 * else spiece.model. Behaves as AutoTokenizer of transformers 5 on that folder. AU_NOT_FOUND names
 * both files. */
AU_MUST_CHECK au_status au_tokenizer_open(au_tokenizer **out, const char *dir, au_err *err);
/* From one file's content: `json` true for tokenizer.json, false for spiece.model. The data is not
 * kept. */
AU_MUST_CHECK au_status au_tokenizer_from_memory(au_tokenizer **out, const void *data, size_t len,
                                                 bool json, const char *what, au_err *err);
void au_tokenizer_close(au_tokenizer **t);

/* The file that was used ("tokenizer.json"), and one past the largest id that it can give. */
const char *au_tokenizer_file(const au_tokenizer *t);
int32_t au_tokenizer_vocab(const au_tokenizer *t);

/* Ids of `text` (valid UTF-8, len bytes; AU_INVALID otherwise), the final </s> included. *ids is
 * owned by the caller (free). AU_LIMIT if more than max_ids. */
AU_MUST_CHECK au_status au_tokenizer_encode(const au_tokenizer *t, const char *text, size_t len,
                                            size_t max_ids, int32_t **ids, size_t *n_ids,
                                            au_err *err);

#endif
