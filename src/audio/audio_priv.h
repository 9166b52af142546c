/* SPDX-License-Identifier: MIT */
/* The steps of encoding. Private to this folder. */
#ifndef AU_AUDIO_AUDIO_PRIV_H
#define AU_AUDIO_AUDIO_PRIV_H

#include <sndfile.h>

#include "audio/audio.h"
#include "base/buf.h"

/* A FLAC comment block holds 16 MiB; prompts are far shorter. */
enum { AU_TITLE_CHARS = 80, AU_COMMENT_BYTES = 1 << 20, AU_MAX_CHANNELS = 2, AU_MAX_RATE = 384000 };

/* A file in memory for libsndfile. A failed allocation is sticky. */
typedef struct au_mem_file {
    unsigned char *data; /* owned */
    size_t len, cap, pos;
    bool failed;
} au_mem_file;
SF_VIRTUAL_IO au_mem_file_io(void);
/* At the position, growing the file; false when memory is exhausted. */
bool au_mem_file_write(au_mem_file *f, const void *data, size_t n);

/* Appends the title (may stay empty) and the comment. */
AU_MUST_CHECK au_status au_audio_tags(au_buf *title, au_buf *comment, const au_recipe *recipe,
                                      au_err *err);

/* Appends the two as a WAV's LIST INFO chunk (INAM, ICMT). */
void au_audio_info_chunk(au_buf *chunk, const au_buf *title, const au_buf *comment);

/* Appends the two as an ID3v2.4 tag in UTF-8 (TIT2, COMM). LAME's own tag would be Latin-1. */
void au_audio_id3_tag(au_buf *tag, const au_buf *title, const au_buf *comment);

/* Replaces the serial number of an Ogg stream, which the encoder drew at random, by one made from
 * the stream's bytes, and the checksums of its pages with it: then equal content is equal bytes.
 * AU_CORRUPT: the bytes are not whole Ogg pages of one stream. */
AU_MUST_CHECK au_status au_audio_ogg_seal(unsigned char *data, size_t len, au_err *err);

/* Peak, loudness and true peak of the frames as they are, before any clipping. All samples are
 * finite. */
AU_MUST_CHECK au_status au_audio_measure(au_clip_stats *stats, const au_clip *clip, au_err *err);

#endif
