/* SPDX-License-Identifier: MIT */
/* /v1/samples/{id}/audio and /peaks. The audio of a sample never changes, so it may be kept for
 * ever; its tag is its hash. Forms that are not there yet, and checks of objects, are left to the
 * thread of media.c; then the handler runs again. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"
#include "api/media.h"
#include "audio/audio.h"
#include "base/str.h"
#include "jobs/renditions.h"

enum { DEFAULT_BINS = 1024, NAME_CHARS = 60 };

/* ---- The sample ---- */

/* What this loop thread read last of samples: a player asks for one file hundreds of times, and the
 * question costs as much as the rest of the reply. Held as good while the writer has committed
 * nothing. Workers commit past it, but they remove rows with their objects alone: whoever does not
 * find an object of what is kept here looks again. */
enum { RECENT = 64 };
typedef struct recent {
    uint64_t commits; /* 0: empty */
    bool used;        /* since it was read */
    au_sample sample; /* its texts are the following */
    char id[AU_UUID_TEXT], format[16], sha256[AU_SHA256_TEXT], store_key[AU_STORE_KEY];
} recent;
static _Thread_local recent recents[RECENT];

static recent *recent_of(const char *id)
{
    unsigned sum = 0;
    for (size_t i = AU_UUID_TEXT - 5; i < AU_UUID_TEXT - 1; i++)
        sum = sum * 31 + (unsigned char)id[i];
    return &recents[sum % RECENT];
}

static void remember(const au_sample *s, uint64_t commits)
{
    recent *r = recent_of(s->id);
    r->commits = 0;
    if (strlen(s->format) >= sizeof r->format || strlen(s->sha256) >= sizeof r->sha256 ||
        strlen(s->store_key) >= sizeof r->store_key)
        return;
    snprintf(r->id, sizeof r->id, "%s", s->id);
    snprintf(r->format, sizeof r->format, "%s", s->format);
    snprintf(r->sha256, sizeof r->sha256, "%s", s->sha256);
    snprintf(r->store_key, sizeof r->store_key, "%s", s->store_key);
    r->sample = *s;
    r->sample.id = r->id;
    r->sample.format = r->format;
    r->sample.sha256 = r->sha256;
    r->sample.store_key = r->store_key;
    r->commits = commits;
    r->used = false;
}

static const au_sample *recall(const char *id, uint64_t commits)
{
    recent *r = recent_of(id);
    if (r->commits != commits || strcmp(r->id, id) != 0)
        return NULL;
    r->used = true;
    return &r->sample;
}

/* True where it was answered from memory since it was read: then it is worth reading again. */
static bool forget(const char *id)
{
    recent *r = recent_of(id);
    bool worth = r->commits && r->used && strcmp(r->id, id) == 0;
    r->commits = 0;
    return worth;
}

/* The sample of {id}, in full or what its sound needs; NULL when a problem has been set. */
static const au_sample *find_sample(au_http_request *rq, bool in_full)
{
    au_err err;
    au_sample *sample;
    const char *id = au_api_id(rq);
    const uint64_t commits = au_writer_commits(au_api_of(rq)->writer);
    if (!id) {
        au_api_not_found(rq, "sample", au_http_param(rq, "id"));
        return NULL;
    }
    const au_sample *kept = in_full ? NULL : recall(id, commits);
    if (kept)
        return kept;
    au_status st = (in_full ? au_sample_get : au_sample_get_sound)(au_api_db(rq), au_http_arena(rq),
                                                                   id, &sample, &err);
    if (st == AU_OK && !sample->deleted_at) {
        if (!in_full)
            remember(sample, commits);
        return sample;
    }
    if (st == AU_OK)
        au_api_gone(rq, "sample", id);
    else if (st == AU_NOT_FOUND)
        au_api_not_found(rq, "sample", id);
    else
        au_api_failed(rq, st, &err);
    return NULL;
}

/* ---- Sending an object ---- */

typedef struct object {
    const char *store_key, *sha256, *type;
    int64_t bytes;
} object;

/* Opens an object whose bytes are known to be right, or too many to look. False: *result says what
 * was done instead. */
static bool open_object(au_http_request *rq, const au_sample *s, const object *o,
                        au_http_file *file, au_http_handler again, au_http_result *result)
{
    au_err err;
    au_api *api = au_api_of(rq);
    au_status st = au_store_open_read(api->store, o->store_key, &file->fd, &file->size, &err);
    *result = AU_HTTP_DONE;
    if (st == AU_NOT_FOUND && forget(s->id)) {
        *result = again(rq);
        return false;
    }
    if (st == AU_NOT_FOUND) {
        au_http_problem(rq, AU_PROBLEM_OBJECT_MISSING,
                        "the audio of sample %s is missing in the object store", s->id);
        return false;
    }
    if (st != AU_OK) {
        au_api_busy(rq, 5, "the object store does not answer");
        return false;
    }
    if (file->size != (uint64_t)o->bytes)
        au_http_problem(rq, AU_PROBLEM_OBJECT_CORRUPT,
                        "the audio of sample %s has %" PRIu64
                        " bytes in the object store, its record says %" PRId64,
                        s->id, file->size, o->bytes);
    else if (file->size > AU_MEDIA_VERIFY_MAX || au_media_verified(api->media, file->fd, o->sha256))
        return true;
    else
        *result = au_media_ask(api->media, rq,
                               &(au_media_task){.kind = AU_MEDIA_VERIFY,
                                                .sample_id = s->id,
                                                .store_key = o->store_key,
                                                .sha256 = o->sha256},
                               again);
    close(file->fd);
    return false;
}

static au_http_result send_object(au_http_request *rq, const au_sample *s, const object *o,
                                  const au_audio_want *want, au_http_handler again)
{
    au_http_result result;
    const char *etag =
        want->etag ? want->etag : au_arena_printf(au_http_arena(rq), "\"sha256-%s\"", o->sha256);
    if (!etag)
        return au_api_busy(rq, 1, "out of memory");
    au_http_file file = {.fd = -1,
                         .type = o->type,
                         .etag = etag,
                         .cache_control = want->cache_control
                                              ? want->cache_control
                                              : "private, max-age=31536000, immutable"};
    if (!open_object(rq, s, o, &file, again, &result))
        return result;
    if (want->disposition)
        au_http_set_header(rq, "Content-Disposition", "%s", want->disposition);
    return au_http_reply_file(rq, &file);
}

/* ---- Which object ---- */

/* The format that is meant; false: a problem has been set. */
static bool choose_format(au_http_request *rq, const au_sample *s, const au_audio_want *want,
                          au_format *format)
{
    if (!au_format_parse(s->format, format)) {
        au_http_problem(rq, AU_PROBLEM_NOT_ACCEPTABLE, "sample %s has the unknown format %.20s",
                        s->id, s->format);
        return false;
    }
    if (want->extension && strcmp(want->extension, au_format_extension(*format)) != 0 &&
        (!au_format_of_extension(want->extension, format) ||
         strcmp(want->extension, au_format_extension(*format)) != 0)) {
        au_http_problem(rq, AU_PROBLEM_NOT_ACCEPTABLE, "audio has no form called \"%.20s\"",
                        want->extension);
        return false;
    }
    return true;
}

au_http_result au_audio_reply(au_http_request *rq, const au_sample *s, const au_audio_want *want,
                              au_http_handler again)
{
    au_err err;
    au_format format;
    au_rendition *r = NULL;
    if (au_media_failed(rq) || !choose_format(rq, s, want, &format))
        return AU_HTTP_DONE;
    if (want->bare)
        format = AU_FORMAT_WAV;
    const char *name = want->bare ? AU_RENDITION_BARE : au_format_name(format);
    const int rate = want->rate_hz ? want->rate_hz : s->sample_rate;
    if (strcmp(name, s->format) == 0 && rate == s->sample_rate)
        return send_object(rq, s,
                           &(object){s->store_key, s->sha256, au_format_mime(format), s->bytes},
                           want, again);
    au_status st = au_rendition_get(au_api_db(rq), au_http_arena(rq), s->id, name, rate, &r, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    if (r)
        return send_object(rq, s,
                           &(object){r->store_key, r->sha256, au_format_mime(format), r->bytes},
                           want, again);
    return au_media_ask(
        au_api_of(rq)->media, rq,
        &(au_media_task){
            .kind = AU_MEDIA_RENDITION, .sample_id = s->id, .format = name, .rate_hz = rate},
        again);
}

/* ---- File names ---- */

/* What stands in no file name somewhere. */
static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c != 0x7f && !strchr("/\\:*?\"<>|", c);
}

/* Words of `text`, up to NAME_CHARS characters, with one blank between them. */
static void add_words(au_buf *b, const char *text)
{
    const size_t len = au_utf8_prefix(text, NAME_CHARS), begin = b->len;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (is_plain(c) && c != ' ' && !(c == '.' && b->len == begin))
            au_buf_char(b, (char)c);
        else if (b->len > begin && b->data[b->len - 1] != ' ')
            au_buf_char(b, ' ');
    }
    while (b->len > begin && b->data[b->len - 1] == ' ')
        b->data[--b->len] = '\0';
}

void au_audio_disposition(au_buf *out, const au_sample *s, const char *extension)
{
    bool ascii = true;
    au_buf name;
    au_buf_init(&name, 4096);
    add_words(&name, *s->title ? s->title : s->prompt_text);
    if (!name.len)
        au_buf_str(&name, "aulos");
    if (s->adapter_name) {
        au_buf_str(&name, " - ");
        add_words(&name, s->adapter_name);
    }
    au_buf_printf(&name, " - %" PRIu64 ".%s", s->seed, extension);
    au_buf_str(out, "attachment; filename=\"");
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.data[i];
        ascii = ascii && c < 0x80 && c != '%';
        /* One '_' a character: the bytes that continue one are left out. A '%' some decode. */
        if (c < 0x80 || c >= 0xc0)
            au_buf_char(out, c >= 0x80 || c == '%' ? '_' : (char)c);
    }
    au_buf_char(out, '"');
    if (!ascii)
        au_buf_str(out, "; filename*=UTF-8''");
    for (size_t i = 0; !ascii && i < name.len; i++) {
        unsigned char c = (unsigned char)name.data[i];
        bool token = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                     (c < 0x80 && strchr("-._~", c));
        au_buf_printf(out, token ? "%c" : "%%%02X", c);
    }
    if (name.status != AU_OK)
        out->status = name.status;
    au_buf_deinit(&name);
}

/* ---- Handlers ---- */

/* download and rate. False: a 400 has been set. */
static bool read_query(au_http_request *rq, au_audio_want *want, bool *download)
{
    static const char *const query[] = {"download", "rate", NULL};
    uint64_t rate = 0;
    if (!au_http_query_parse(rq, query))
        return false;
    const char *save = au_http_query(rq, "download"), *rate_text = au_http_query(rq, "rate");
    *download = save && strcmp(save, "1") == 0;
    if (save && !*download && strcmp(save, "0") != 0)
        return au_query_refuse(rq, "download", "0 or 1");
    if (rate_text &&
        (!au_parse_u64(rate_text, &rate) || rate < AU_MEDIA_MIN_RATE || rate > AU_MEDIA_MAX_RATE))
        return au_query_refuse(rq, "rate", "an integer from 8000 to 192000");
    want->rate_hz = (int)rate;
    return true;
}

static au_http_result get_audio(au_http_request *rq, const char *extension, au_http_handler again)
{
    au_audio_want want = {.extension = extension};
    au_format format;
    bool download;
    if (!read_query(rq, &want, &download))
        return AU_HTTP_DONE;
    const au_sample *s = find_sample(rq, download);
    if (!s || !choose_format(rq, s, &want, &format))
        return AU_HTTP_DONE;
    if (want.rate_hz && (format == AU_FORMAT_MP3 || format == AU_FORMAT_OPUS)) {
        au_query_refuse(rq, "rate", "for this form: wav and flac can be had at another rate");
        return AU_HTTP_DONE;
    }
    au_buf disposition;
    au_buf_init(&disposition, 8192);
    if (download) {
        au_audio_disposition(&disposition, s, au_format_extension(format));
        want.disposition = au_buf_cstr(&disposition);
    }
    au_http_result result = disposition.status == AU_OK ? au_audio_reply(rq, s, &want, again)
                                                        : au_api_busy(rq, 1, "out of memory");
    au_buf_deinit(&disposition);
    return result;
}

au_http_result au_get_audio(au_http_request *rq)
{
    return get_audio(rq, NULL, au_get_audio);
}

au_http_result au_get_audio_as(au_http_request *rq)
{
    return get_audio(rq, au_http_param(rq, "ext"), au_get_audio_as);
}

static json_t *numbers(const int8_t *values, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        au_list_add(&list, json_integer(values[i]));
    return list;
}

static au_http_result reply_peaks(au_http_request *rq, const char *packed, int bins)
{
    au_err err;
    au_peaks *fine = au_arena_alloc(au_http_arena(rq), sizeof *fine);
    au_peaks *few = au_arena_alloc(au_http_arena(rq), sizeof *few);
    if (!fine || !few)
        return au_api_busy(rq, 1, "out of memory");
    au_status st = au_peaks_unpack(fine, packed, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    au_peaks_reduce(few, fine, bins);
    return au_http_reply_json(rq, 200,
                              json_pack("{s:i, s:i, s:o, s:o, s:o}", "version", 1, "bins", bins,
                                        "min", numbers(few->min, bins), "max",
                                        numbers(few->max, bins), "rms", numbers(few->rms, bins)));
}

au_http_result au_get_peaks(au_http_request *rq)
{
    static const char *const query[] = {"bins", NULL};
    au_err err;
    char *packed = NULL;
    uint64_t bins = DEFAULT_BINS;
    if (!au_http_query_parse(rq, query))
        return AU_HTTP_DONE;
    const char *text = au_http_query(rq, "bins");
    if (text && (!au_parse_u64(text, &bins) || bins < 1 || bins > AU_PEAKS_MAX_BINS)) {
        au_query_refuse(rq, "bins", "an integer from 1 to 4096");
        return AU_HTTP_DONE;
    }
    const au_sample *s = find_sample(rq, false);
    if (!s || au_media_failed(rq))
        return AU_HTTP_DONE;
    au_status st = au_sample_peaks(au_api_db(rq), au_http_arena(rq), s->id, &packed, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    if (packed)
        return reply_peaks(rq, packed, (int)bins);
    return au_media_ask(au_api_of(rq)->media, rq,
                        &(au_media_task){.kind = AU_MEDIA_PEAKS, .sample_id = s->id}, au_get_peaks);
}
