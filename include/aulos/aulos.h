/* SPDX-License-Identifier: MIT */
/* libaulos: text to audio with neural models, on the CPU, without Python.
 *
 * 1. The parts
 *
 * A MODEL is a checkpoint folder opened for reading: weights mapped into memory, every tensor
 * checked. It never changes and may be shared by any number of threads. An ADAPTER is a LoRA folder
 * checked against one model. A REQUEST is a list of ROWS: a row is one clip to be made from a
 * prompt, an adapter or none, a seed and parameters. au_generate makes all rows of a request in as
 * few groups as its memory limit allows, reading the weights once per step for all rows of a group.
 *
 * 2. What is promised
 *
 * A row's audio depends on its model, prompt, adapter, strength, seed, parameters and length alone:
 * not on the other rows, the grouping, the number of threads, or the instruction set of the x86
 * processor (numerics class "f32").
 *
 * 3. Example (compiled and run by the tests: tests/unit/test_example.c)
 *
 *     au_err err;
 *     au_model *model = NULL;
 *     if (au_model_open("models/aulos-small", NULL, &model, &err) != AU_OK) {
 *         fprintf(stderr, "%s\n", err.message);
 *         return 1;
 *     }
 *     au_params params;
 *     au_params_init(&params, sizeof params);
 *     params.duration_s = 2.0;
 *     au_row row = {.size = sizeof row, .prompt = "a calm piano melody", .seed = 7};
 *     row.params = &params;
 *     au_request request = {.size = sizeof request, .model = model, .on_audio = save};
 *     request.rows = &row;
 *     request.n_rows = 1;
 *     if (au_generate(&request, &err) != AU_OK)
 *         fprintf(stderr, "%s\n", err.message);
 *     au_model_unref(&model);
 *
 * save(user, row, audio, err) is called with each finished clip.
 *
 * 4. Conventions
 *
 * Functions that can fail return au_status and fill *err (may be NULL); see status.h. Structs that
 * the caller makes begin with `size`, set to sizeof, so that later versions can append fields.
 * Strings are UTF-8. A *frame* is one value of each channel at one time; a *step* is one run of the
 * decoder. Shapes: S text tokens, D text width, d decoder width, K codebooks, F codec frames, V
 * vocabulary of a codebook. No promise of ABI stability before 1.0. */
#ifndef AULOS_AULOS_H
#define AULOS_AULOS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aulos/status.h"

#ifdef __cplusplus
extern "C" {
#endif

AU_API const char *au_version(void);  /* "0.1.0" */
AU_API const char *au_cpu_name(void); /* kernels in use: "c", "avx2", "avx512" */
AU_API const char *
au_numerics_class(void); /* "f32"; equal bytes are promised within one class and build */
AU_API void
au_text_free(char *text); /* frees any text that a function below gives away; NULL is fine */

/* ---- Models
 * ------------------------------------------------------------------------------------------------
 */

typedef struct au_model au_model;

typedef enum au_weights {
    AU_WEIGHTS_AUTO,
    AU_WEIGHTS_F32,
    AU_WEIGHTS_F16,
    AU_WEIGHTS_BF16
} au_weights;

typedef struct au_model_options {
    size_t size;
    int threads;        /* 0: physical cores of the affinity mask within the cgroup quota */
    au_weights weights; /* AUTO: as stored. Another type than the stored one: AU_UNSUPPORTED */
} au_model_options;

/* What a caller needs to know of a model. Borrowed until the model is closed. */
typedef struct au_model_info {
    const char *name; /* last part of the folder's path */
    const char *dir;
    const char *family;      /* "musicgen" */
    const char *fingerprint; /* 64 hexadecimal digits: identity of config, tokenizer and weights,
                                from headers and samples */
    int sample_rate;         /* Hz */
    int channels;            /* 1 or 2 */
    double frame_rate;       /* codec frames per second */
    int hop;                 /* audio frames per codec frame */
    int codebooks;           /* K */
    int vocab;               /* V */
    int text_width, width, layers; /* D, d, decoder layers */
    double trained_s;              /* longest clip the model was trained on */
    int max_prompt_tokens;
    double hf_guidance, hf_temperature,
        hf_top_p; /* the checkpoint's generation_config.json, "hf" preset */
    int hf_top_k;
    uint64_t weights_bytes; /* of all weight files */
    int text_vocab;         /* rows of the text encoder's table: token ids are below it */
} au_model_info;

/* Opens a checkpoint folder. options may be NULL. Several problems are listed together in
 * err->message, a line each. *out is owned by the caller (au_model_unref). Milliseconds for
 * headers; weights are paged in when used. */
AU_API AU_MUST_CHECK au_status au_model_open(const char *dir, const au_model_options *options,
                                             au_model **out, au_err *err);
AU_API au_model *au_model_ref(au_model *model); /* another reference; any thread */
AU_API void au_model_unref(
    au_model **model); /* closes at the last reference and clears the pointer; NULL is fine */
AU_API const au_model_info *au_model_get_info(const au_model *model);
/* Gives back the memory of weights that were paged in; they are read from their file again when
 * they are needed. For who opens models to know them rather than to run them. Any thread. */
AU_API void au_model_rest(au_model *model);

/* The JSON report of `aulos model inspect`: family, sizes, tensors, dtypes, memory needed, limits.
 * With full_hash, the SHA-256 of every weights file too (reads them whole). */
AU_API AU_MUST_CHECK au_status au_model_report(const au_model *model, bool full_hash, char **json,
                                               au_err *err);

/* Token ids of a text, the final </s> included; *ids is owned by the caller (free). The _dir form
 * needs the tokenizer file alone. */
AU_API AU_MUST_CHECK au_status au_tokenize(const au_model *model, const char *text, int32_t **ids,
                                           size_t *n_ids, au_err *err);
AU_API AU_MUST_CHECK au_status au_tokenize_dir(const char *dir, const char *text, int32_t **ids,
                                               size_t *n_ids, au_err *err);

/* ---- Adapters
 * ---------------------------------------------------------------------------------------------- */

typedef struct au_adapter au_adapter;

typedef struct au_adapter_info {
    const char *name; /* last part of the folder's path */
    const char *dir;
    const char *kind; /* "lora", "dora" */
    const char
        *sha256;    /* content hash: of sorted "<sha256> <file name>" lines of config and weights */
    int rank;       /* largest */
    double alpha;   /* default alpha */
    int targets;    /* modules changed */
    uint64_t bytes; /* of the weights file */
} au_adapter_info;

/* Opens a PEFT folder and checks every tensor against `model`, of which it keeps a reference.
 * AU_UNSUPPORTED, AU_CORRUPT or AU_INVALID list every problem: kinds that are not supported,
 * tensors that match nothing, wrong shapes, values that are not finite, an adapter that would
 * change nothing. */
AU_API AU_MUST_CHECK au_status au_adapter_open(au_model *model, const char *dir, au_adapter **out,
                                               au_err *err);
AU_API au_adapter *au_adapter_ref(au_adapter *adapter);
AU_API void au_adapter_unref(au_adapter **adapter);
AU_API const au_adapter_info *au_adapter_get_info(const au_adapter *adapter);

/* The JSON report of `aulos adapter inspect`: kind, rank, alpha, targets, matched, unmatched,
 * problems. `model` may be NULL (nothing to match against). A rejected adapter is AU_OK with
 * "status":"rejected" and its problems in the report. */
AU_API AU_MUST_CHECK au_status au_adapter_report(au_model *model, const char *dir, char **json,
                                                 au_err *err);
/* The content hash alone, without a model. */
AU_API AU_MUST_CHECK au_status au_adapter_hash(const char *dir, char out[65], au_err *err);

/* ---- Generation
 * -------------------------------------------------------------------------------------------- */

typedef enum au_preset { AU_PRESET_AUDIOCRAFT, AU_PRESET_HF } au_preset;

typedef struct au_params {
    size_t size;
    au_preset preset;  /* how top_k and top_p combine: audiocraft ignores top_k when top_p is on, hf
                          applies both */
    double duration_s; /* llround(frame_rate * duration_s) codec frames, at least 1 */
    double guidance;   /* >= 1; 1 is a single branch */
    double temperature; /* > 0 */
    int top_k;          /* 0 off; capped at V */
    double top_p;       /* 0 or 1 off */
    bool greedy;        /* arg max instead of a draw */
} au_params;

/* audiocraft's defaults: 10 s, guidance 3, temperature 1, top_k 250, top_p off. */
AU_API void au_params_init(au_params *params, size_t size);
/* Sets guidance, temperature, top_k and top_p to those of `preset` for this model. */
AU_API void au_params_preset(au_params *params, const au_model *model, au_preset preset);
/* AU_INVALID names the field, the value and what is allowed. max_duration_s 0: no limit but 300 s.
 * Checks what au_generate would. */
AU_API AU_MUST_CHECK au_status au_params_check(const au_params *params, const au_model *model,
                                               double max_duration_s, au_err *err);

typedef struct au_row {
    size_t size;
    const char *prompt;      /* may be empty, not NULL */
    const char *negative;    /* NULL: guidance against no text at all */
    au_adapter *adapter;     /* NULL: none. Borrowed for the call */
    double strength;         /* -2 ... 2, of the adapter; 0 means 0 (set it to 1) */
    uint64_t seed;           /* < 2^53 */
    const au_params *params; /* borrowed for the call */
} au_row;

typedef struct au_audio {
    const float
        *frames; /* [n_frames, channels], interleaved, not clipped; borrowed for the callback */
    uint64_t n_frames;
    int channels, sample_rate;
} au_audio;

typedef enum au_stage { AU_STAGE_TEXT, AU_STAGE_DECODE, AU_STAGE_CODEC } au_stage;

typedef struct au_progress {
    au_stage stage;
    uint64_t step, steps; /* decoder steps done and in all, over the rows that are not cancelled,
                             groups included */
    double fraction;      /* 0 ... 1 of the whole request, never falls */
    int rows_done;
} au_progress;

/* A stage of row 0 for comparison with a reference: dtype is "f32" or "i64", data [shape...]
 * row-major, borrowed. Names and shapes as in `aulos generate --trace`. */
typedef void (*au_trace_fn)(const char *stage, const char *dtype, int rank, const int64_t *shape,
                            const void *data, void *user);

typedef struct au_request {
    size_t size;
    au_model *model; /* borrowed for the call */
    const au_row *rows;
    size_t n_rows;         /* >= 1 */
    uint64_t memory_bytes; /* limit for session memory beside the weights; 0: a quarter of RAM. One
                              row always runs, if it fits in 4x the limit */
    double max_duration_s; /* 0: 300 s */
    void *user;            /* given to the callbacks, which run on the calling thread */

    /* Asked before each unit of work (a decoder step, a layer of the text encoder, a chunk of the
     * codec) for each row that takes part. True: the row leaves and gets no audio; other rows go
     * on. AU_CANCELLED is returned when every row has been cancelled. NULL: never. */
    bool (*cancelled)(void *user, size_t row);
    void (*on_progress)(void *user, const au_progress *progress); /* after each unit; NULL: none */
    /* The finished clip of a row, as soon as it is there. Another status than AU_OK ends the
     * request with it. Required. */
    au_status (*on_audio)(void *user, size_t row, const au_audio *audio, au_err *err);
    au_trace_fn trace; /* NULL: none */
} au_request;

/* Makes all rows. Everything is checked before work begins (AU_INVALID names row and field).
 * Blocks; one call at a time per model handle (AU_CONFLICT). */
AU_API AU_MUST_CHECK au_status au_generate(const au_request *request, au_err *err);

/* Bytes of session memory for rows [0, n) of the request in one group. */
AU_API AU_MUST_CHECK au_status au_request_memory(const au_request *request, uint64_t *bytes,
                                                 au_err *err);

/* ---- Sessions: rows that come and go
 * --------------------------------------------------------------------------- */

/* What au_generate is made of, for a caller whose rows are not all known at the beginning. Rows are
 * added while others are in the making; each unit of work advances all of them with one reading of
 * the weights. One thread owns a session, and its model is busy until the session is closed. */
typedef struct au_session au_session;

typedef struct au_row_progress {
    au_stage stage;
    uint64_t step, steps; /* decoder steps of the row */
    double fraction;      /* 0 ... 1 of the row, never falls */
} au_row_progress;

/* Callbacks get the tag that the row was added with, and run within au_session_step. They may not
 * call functions of the session. */
typedef struct au_session_options {
    size_t size;
    au_model *model;       /* a reference is kept */
    uint64_t memory_bytes; /* as in au_request */
    double max_duration_s; /* 0: 300 s */
    void *user;

    /* Asked before each unit of work for each row. True: the row is gone when au_session_step
     * returns, and on_left was called. NULL: never. */
    bool (*cancelled)(void *user, void *tag);
    void (*on_left)(void *user, void *tag);                                      /* NULL: none */
    void (*on_progress)(void *user, void *tag, const au_row_progress *progress); /* NULL: none */
    /* A finished clip, as soon as it is there; the row is gone afterwards. Another status than
     * AU_OK is returned by au_session_step. Required. */
    au_status (*on_audio)(void *user, void *tag, const au_audio *audio, au_err *err);
    au_trace_fn trace; /* of the first row; NULL: none */
} au_session_options;

/* AU_CONFLICT: the model has a session already. */
AU_API AU_MUST_CHECK au_status au_session_open(const au_session_options *options, au_session **out,
                                               au_err *err);
/* Drops the rows that are left, without a callback. NULL is fine. */
AU_API void au_session_close(au_session **session);
/* AU_OK if the row would be taken now (its adapter need not be open); AU_AGAIN if it must wait
 * until others are gone; AU_LIMIT if it needs more than four times the limit; AU_INVALID. An empty
 * session takes any row that is not over that. */
AU_API AU_MUST_CHECK au_status au_session_fits(const au_session *session, const au_row *row,
                                               au_err *err);
/* The row, copied. Its adapter is kept until the row is gone. Fails as au_session_fits. */
AU_API AU_MUST_CHECK au_status au_session_add(au_session *session, const au_row *row, void *tag,
                                              au_err *err);
AU_API size_t au_session_rows(const au_session *session);
/* A unit of work for all rows: one text, or a decoder step; while a row is complete, also a stretch
 * of its audio. Allocates nothing but what on_audio does. Without rows: nothing. */
AU_API AU_MUST_CHECK au_status au_session_step(au_session *session, au_err *err);

/* ---- Measuring
 * --------------------------------------------------------------------------------------------- */

/* Read bandwidth of this machine in bytes/s with `threads` threads over `bytes` of fresh memory,
 * best of several passes (for `aulos bench`). */
AU_API AU_MUST_CHECK au_status au_probe_bandwidth(int threads, size_t bytes, double *bytes_per_s,
                                                  au_err *err);

#ifdef __cplusplus
}
#endif
#endif
