/* SPDX-License-Identifier: MIT */
/* What takes longer than a loop thread may: checking an object against its hash, making a
 * rendition, measuring peaks. One thread of the server does it, in the order asked for; equal tasks
 * that wait or run are done once, for everybody who asked. Requests are pending meanwhile. */
#ifndef AU_API_MEDIA_H
#define AU_API_MEDIA_H

#include "base/buf.h"
#include "db/writer.h"
#include "http/http.h"
#include "jobs/catalog.h"
#include "store/store.h"

typedef struct au_media au_media;

/* Texts are borrowed for the call, the rest as long as the au_media lives. */
typedef struct au_media_config {
    const char *db_url;
    au_writer *writer;
    au_store *store;
    uint64_t min_free_disk; /* nothing is stored below: AU_NOSPACE */
} au_media_config;

enum {
    AU_MEDIA_QUEUE = 64,            /* tasks that wait; beyond: 503 */
    AU_MEDIA_VERIFY_MAX = 64 << 20, /* larger objects are sent unchecked: it would take too long */
    AU_MEDIA_MIN_RATE = 8000,       /* of a resampled WAV or FLAC */
    AU_MEDIA_MAX_RATE = 192000,
};

AU_MUST_CHECK au_status au_media_new(au_media **out, const au_media_config *config, au_err *err);
/* From now on tasks that have not begun fail (503), so that a long queue does not hold up the end
 * of the server. */
void au_media_drain(au_media *m);
/* Ends the thread after the task it is at. No request may wait any more: the HTTP server has been
 * stopped. NULL is fine. */
void au_media_free(au_media **m);

typedef enum au_media_kind {
    AU_MEDIA_VERIFY,    /* the object store_key has `bytes` bytes and the hash sha256 */
    AU_MEDIA_RENDITION, /* sample_id in `format` at rate_hz */
    AU_MEDIA_PEAKS,     /* of sample_id, into its row */
} au_media_kind;
typedef struct au_media_task {
    au_media_kind kind;
    const char *sample_id;
    const char *store_key, *sha256; /* of a check */
    const char *format;             /* of a rendition, as in jobs/renditions.h */
    int rate_hz;
} au_media_task;

/* Makes the request pending and calls `then` on its loop thread when the task is over, however it
 * ended: au_media_failed says. Or sets a 503. For handlers that keep nothing else with
 * au_http_set_data. */
au_http_result au_media_ask(au_media *m, au_http_request *rq, const au_media_task *task,
                            au_http_handler then);
/* True where a task of this request failed (or the request asked in vain too often): then the
 * problem has been set. */
bool au_media_failed(au_http_request *rq);

/* Whether the file was found equal to `sha256` in this process, and has not changed since by its
 * inode, size and times. Any thread. */
bool au_media_verified(au_media *m, int fd, const char *sha256);

/* ---- Audio (api_audio.c) ---- */

typedef struct au_audio_want {
    const char *extension; /* "wav" ...; NULL: as stored */
    int rate_hz;           /* 0: the sample's own; else wav or flac is resampled to it */
    bool bare;             /* a WAV without tags, for who must not know what it is */
    const char *etag;      /* NULL: of the file's hash. Another for who must not know the hash */
    const char *cache_control; /* NULL: private, for ever */
    const char *disposition;   /* Content-Disposition; NULL: none */
} au_audio_want;
/* Replies with the audio of a sample, ranges and all. What has to be made or checked first makes
 * the request pending; then `again` is called, which finds the sample anew and calls this again. */
au_http_result au_audio_reply(au_http_request *rq, const au_sample *s, const au_audio_want *want,
                              au_http_handler again);

/* "attachment; filename=..." of a sample as a file with that extension: title or the beginning of
 * the prompt, adapter, seed; in ASCII, and in UTF-8 where that differs (RFC 6266, RFC 8187).
 * Appends. */
void au_audio_disposition(au_buf *out, const au_sample *s, const char *extension);

#endif
