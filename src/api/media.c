/* SPDX-License-Identifier: MIT */
/* The thread behind audio. Tasks are a list in the order asked for; the first one is being worked
 * on and stays in the list until it is over, so that equal requests join it. The thread owns its
 * database connection; the list, its waiters and the table of verified files are under `lock`. A
 * waiter lives in the arena of its pending request and is touched last by au_http_resume. */
#include "api/media.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/api.h"
#include "audio/audio.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/renditions.h"

enum {
    VERIFIED = 1024, /* files remembered, by inode */
    ARENA_BYTES = 4 << 20,
    READ_BYTES = 1 << 16,
    ASKS_MAX = 4, /* of one request: a rendition, its check, and once more for bad luck */
    NICENESS = 5,
};

typedef struct waiter {
    struct waiter *next;
    au_http_request *rq;
    au_http_handler then;
    int asks;
    au_status status;
    au_err err;
    char sample_id[AU_UUID_TEXT];
} waiter;

typedef struct task {
    struct task *next;
    au_media_kind kind;
    char sample_id[AU_UUID_TEXT];
    char store_key[AU_STORE_KEY], sha256[AU_SHA256_TEXT], format[16];
    int rate_hz;
    waiter *waiters;
} task;

/* A file as stat sees it, and the beginning of the hash that it was found to have. */
typedef struct file_mark {
    uint64_t dev, ino, size, hash;
    int64_t mtime_ns, ctime_ns;
} file_mark;

struct au_media {
    au_media_config config;
    au_db *db; /* of the thread */
    pthread_t thread;
    bool thread_started;
    pthread_mutex_t lock; /* of the following */
    pthread_cond_t wake;
    bool draining, stopping;
    task *tasks;
    size_t n_tasks;
    file_mark verified[VERIFIED];
};

/* ---- Files that are known to be right ---- */

static bool mark_of(file_mark *out, int fd, const char *sha256)
{
    struct stat s;
    if (fstat(fd, &s) != 0)
        return false;
    *out = (file_mark){.dev = s.st_dev,
                       .ino = s.st_ino,
                       .size = (uint64_t)s.st_size,
                       .mtime_ns = s.st_mtim.tv_sec * INT64_C(1000000000) + s.st_mtim.tv_nsec,
                       .ctime_ns = s.st_ctim.tv_sec * INT64_C(1000000000) + s.st_ctim.tv_nsec};
    for (int i = 0; i < 16; i++) /* hexadecimal */
        out->hash = out->hash << 4 | ((unsigned char)sha256[i] % 32 + 9) % 25;
    return true;
}

bool au_media_verified(au_media *m, int fd, const char *sha256)
{
    file_mark mark;
    if (!mark_of(&mark, fd, sha256))
        return false;
    pthread_mutex_lock(&m->lock);
    bool same = memcmp(&m->verified[mark.ino % VERIFIED], &mark, sizeof mark) == 0;
    pthread_mutex_unlock(&m->lock);
    return same;
}

/* fd at its beginning, where it is again afterwards. AU_CORRUPT: another hash. */
static au_status check_hash(au_media *m, int fd, const char *sha256, const char *key, au_err *err)
{
    char block[READ_BYTES], hex[AU_SHA256_TEXT];
    file_mark before, after;
    au_sha256 hash;
    off_t at = 0;
    ssize_t n;
    bool marked = mark_of(&before, fd, sha256);
    au_sha256_init(&hash);
    while ((n = pread(fd, block, sizeof block, at)) > 0) {
        au_sha256_update(&hash, block, (size_t)n);
        at += n;
    }
    if (n < 0)
        return au_fail(err, AU_IO, "object %s cannot be read", key);
    au_sha256_final_hex(&hash, hex);
    if (strcmp(hex, sha256) != 0) {
        au_log(AU_LOG_ERROR, "media", "object differs from its record key=%s sha256=%s expected=%s",
               key, hex, sha256);
        return au_fail(err, AU_CORRUPT, "object %s has the hash %.16s..., its record says %.16s...",
                       key, hex, sha256);
    }
    if (marked && mark_of(&after, fd, sha256) && memcmp(&before, &after, sizeof after) == 0) {
        pthread_mutex_lock(&m->lock);
        m->verified[after.ino % VERIFIED] = after;
        pthread_mutex_unlock(&m->lock);
    }
    return AU_OK;
}

static au_status verify(au_media *m, const task *t, au_err *err)
{
    int fd = -1;
    uint64_t size;
    au_status st = AU_OK;
    AU_TRY(au_store_open_read(m->config.store, t->store_key, &fd, &size, err));
    AU_TRY(check_hash(m, fd, t->sha256, t->store_key, err));
done:
    if (fd >= 0)
        close(fd);
    return st;
}

/* ---- A sample's sound ---- */

typedef struct sound {
    au_arena arena;
    au_sample *sample;
    int fd;
    float *frames;
    au_clip clip;
} sound;

static void sound_deinit(sound *s)
{
    if (s->fd >= 0)
        close(s->fd);
    free(s->frames);
    au_arena_deinit(&s->arena);
}

/* The record, and the frames of its object, whose hash is right. */
static au_status open_sound(sound *s, au_media *m, const char *sample_id, au_err *err)
{
    au_status st = AU_OK;
    uint64_t size;
    *s = (sound){.fd = -1};
    au_arena_init(&s->arena, ARENA_BYTES);
    AU_TRY(au_sample_get(m->db, &s->arena, sample_id, &s->sample, err));
    AU_TRY(au_store_open_read(m->config.store, s->sample->store_key, &s->fd, &size, err));
    if (!au_media_verified(m, s->fd, s->sample->sha256))
        AU_TRY(check_hash(m, s->fd, s->sample->sha256, s->sample->store_key, err));
    st = au_audio_decode(&s->frames, &s->clip, s->fd, err);
    if (st == AU_CORRUPT) /* the bytes are right, so it is not the object's fault */
        st = au_fail(err, AU_UNSUPPORTED, "%s of sample %s cannot be read back", s->sample->format,
                     sample_id);
done:
    return st;
}

/* ---- Renditions ---- */

typedef struct rendition_write {
    au_rendition r;
    bool kept;
} rendition_write;

static au_status begin(au_db *db, void *arg, au_err *err)
{
    rendition_write *w = arg;
    return au_rendition_begin(db, w->r.store_key, err);
}

static au_status commit(au_db *db, void *arg, au_err *err)
{
    rendition_write *w = arg;
    return au_rendition_commit(db, &w->r, &w->kept, err);
}

static au_status drop(au_db *db, void *arg, au_err *err)
{
    rendition_write *w = arg;
    return au_upload_drop(db, w->r.store_key, err);
}

/* The object, then its row; nothing is left of what was not kept. */
static au_status store(au_media *m, rendition_write *w, const void *file, au_err *err)
{
    au_status st = AU_OK;
    uint64_t free_bytes;
    AU_TRY(au_store_free_bytes(m->config.store, &free_bytes, err));
    AU_FAIL_IF(free_bytes < m->config.min_free_disk, AU_NOSPACE,
               "%" PRIu64 " bytes are free for objects, expected %" PRIu64, free_bytes,
               m->config.min_free_disk);
    AU_TRY(au_writer_run(m->config.writer, begin, w, err));
    st = au_store_put(m->config.store, w->r.store_key, file, (size_t)w->r.bytes, err);
    if (st == AU_OK)
        st = au_writer_run(m->config.writer, commit, w, err);
    if (!w->kept && (au_store_delete(m->config.store, w->r.store_key, NULL) != AU_OK ||
                     au_writer_run(m->config.writer, drop, w, NULL) != AU_OK))
        au_log(AU_LOG_WARN, "media", "object is left to the next start key=%s", w->r.store_key);
done:
    return st;
}

/* Changes the clip's rate where another was asked for. */
static au_status change_rate(sound *s, int rate_hz, au_err *err)
{
    au_status st = AU_OK;
    float *frames;
    uint64_t n;
    if (rate_hz == s->clip.sample_rate)
        return AU_OK;
    AU_TRY(au_audio_resample(&frames, &n, &s->clip, rate_hz, err));
    free(s->frames);
    s->frames = frames;
    s->clip = (au_clip){frames, n, s->clip.channels, rate_hz};
done:
    return st;
}

/* The tags are the recipe, as in the sample's own file. *json holds their texts. */
static au_status read_recipe(au_recipe *out, json_t **json, char **params, const au_sample *s,
                             au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(au_json_parse(json, s->recipe, strlen(s->recipe), "recipe", err));
    *out = (au_recipe){.prompt = s->prompt_text,
                       .negative = s->negative_text,
                       .model_fingerprint = s->model_fingerprint,
                       .adapter_sha256 = s->adapter_sha256,
                       .strength = s->strength,
                       .seed = s->seed,
                       .numerics = json_string_value(json_object_get(*json, "numerics"))};
    AU_TRY(au_json_text(params, json_object_get(*json, "params"), 1 << 20, err));
    out->params_json = *params;
done:
    return st;
}

static au_status make_rendition(au_media *m, const task *t, au_err *err)
{
    au_status st = AU_OK;
    sound s = {.fd = -1};
    json_t *json = NULL;
    char *params = NULL, id[AU_UUID_TEXT], key[AU_STORE_KEY];
    void *file = NULL;
    size_t len = 0;
    au_recipe recipe;
    au_clip_stats stats;
    au_format format;
    au_rendition *there;
    bool bare = strcmp(t->format, AU_RENDITION_BARE) == 0;
    AU_FAIL_IF(!au_format_parse(bare ? "wav" : t->format, &format), AU_UNSUPPORTED,
               "format %s is not known", t->format);
    AU_TRY(open_sound(&s, m, t->sample_id, err));
    AU_TRY(au_rendition_get(m->db, &s.arena, t->sample_id, t->format, t->rate_hz, &there, err));
    if (there) /* made between the request's look and this one */
        goto done;
    AU_TRY(change_rate(&s, t->rate_hz, err));
    AU_TRY(read_recipe(&recipe, &json, &params, s.sample, err));
    AU_TRY(au_audio_encode(&s.clip, format, bare ? NULL : &recipe, &file, &len, &stats, err));
    au_uuid7(id);
    AU_TRY(au_store_sample_key(key, id, au_format_extension(format), err));
    rendition_write w = {.r = {.sample_id = t->sample_id,
                               .format = t->format,
                               .store_key = key,
                               .sha256 = stats.sha256,
                               .sample_rate = t->rate_hz,
                               .bytes = (int64_t)len}};
    AU_TRY(store(m, &w, file, err));
    au_log(AU_LOG_INFO, "media", "rendition made sample=%s format=%s rate_hz=%d bytes=%zu",
           t->sample_id, t->format, t->rate_hz, len);
done:
    sound_deinit(&s);
    json_decref(json);
    free(params);
    free(file);
    return st;
}

/* ---- Peaks ---- */

typedef struct peaks_write {
    const char *sample_id;
    char *packed, mini[AU_PEAKS_MINI_TEXT];
} peaks_write;

static au_status set_peaks(au_db *db, void *arg, au_err *err)
{
    peaks_write *w = arg;
    return au_sample_set_peaks(db, w->sample_id, w->packed, w->mini, err);
}

static au_status measure_peaks(au_media *m, const task *t, au_err *err)
{
    au_status st = AU_OK;
    sound s = {.fd = -1};
    peaks_write w = {.sample_id = t->sample_id};
    AU_TRY(open_sound(&s, m, t->sample_id, err));
    AU_TRY(au_peaks_of_clip(&w.packed, w.mini, &s.clip, err));
    AU_TRY(au_writer_run(m->config.writer, set_peaks, &w, err));
done:
    sound_deinit(&s);
    free(w.packed);
    return st;
}

/* ---- The thread ---- */

static au_status run_task(au_media *m, const task *t, au_err *err)
{
    switch (t->kind) {
    case AU_MEDIA_VERIFY:
        return verify(m, t, err);
    case AU_MEDIA_RENDITION:
        return make_rendition(m, t, err);
    case AU_MEDIA_PEAKS:
        return measure_peaks(m, t, err);
    }
    AU_ASSERT(false && "a kind of task");
    return AU_INTERNAL;
}

static void *media_main(void *arg)
{
    au_media *m = arg;
    /* Listening goes before making. Of this thread alone, on Linux. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS);
    pthread_mutex_lock(&m->lock);
    while (true) {
        while (!m->tasks && !m->stopping)
            pthread_cond_wait(&m->wake, &m->lock);
        if (m->stopping)
            break;
        task *t = m->tasks;
        bool draining = m->draining;
        pthread_mutex_unlock(&m->lock);
        au_err err = {0};
        au_status st = draining ? au_fail(&err, AU_AGAIN, "the server is shutting down")
                                : run_task(m, t, &err);
        pthread_mutex_lock(&m->lock);
        m->tasks = t->next;
        m->n_tasks--;
        pthread_mutex_unlock(&m->lock);
        for (waiter *w = t->waiters, *next; w; w = next) {
            next = w->next;
            w->status = st;
            w->err = err;
            au_http_resume(w->rq, w->then);
        }
        free(t);
        pthread_mutex_lock(&m->lock);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

static bool is_same(const task *t, const au_media_task *other)
{
    return t->kind == other->kind && strcmp(t->sample_id, other->sample_id) == 0 &&
           (t->kind != AU_MEDIA_VERIFY || strcmp(t->store_key, other->store_key) == 0) &&
           (t->kind != AU_MEDIA_RENDITION ||
            (strcmp(t->format, other->format) == 0 && t->rate_hz == other->rate_hz));
}

static task *new_task(const au_media_task *from)
{
    task *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->kind = from->kind;
    t->rate_hz = from->rate_hz;
    snprintf(t->sample_id, sizeof t->sample_id, "%s", from->sample_id);
    snprintf(t->store_key, sizeof t->store_key, "%s", from->store_key ? from->store_key : "");
    snprintf(t->sha256, sizeof t->sha256, "%s", from->sha256 ? from->sha256 : "");
    snprintf(t->format, sizeof t->format, "%s", from->format ? from->format : "");
    return t;
}

/* Under the lock. False: the queue is full, or there is no memory. */
static bool join(au_media *m, const au_media_task *what, waiter *w)
{
    task **end = &m->tasks;
    while (*end && !is_same(*end, what))
        end = &(*end)->next;
    if (!*end) {
        if (m->n_tasks >= AU_MEDIA_QUEUE || !(*end = new_task(what)))
            return false;
        m->n_tasks++;
        pthread_cond_signal(&m->wake);
    }
    w->next = (*end)->waiters;
    (*end)->waiters = w;
    return true;
}

au_http_result au_media_ask(au_media *m, au_http_request *rq, const au_media_task *what,
                            au_http_handler then)
{
    waiter *w = au_http_data(rq);
    if (!w) {
        w = au_arena_alloc(au_http_arena(rq), sizeof *w);
        if (!w)
            return au_api_busy(rq, 1, "out of memory");
        w->asks = 0;
    }
    w->rq = rq;
    w->then = then;
    w->asks++;
    w->status = AU_OK;
    snprintf(w->sample_id, sizeof w->sample_id, "%s", what->sample_id);
    au_http_set_data(rq, w);
    pthread_mutex_lock(&m->lock);
    bool joined = join(m, what, w);
    pthread_mutex_unlock(&m->lock);
    return joined ? AU_HTTP_PENDING : au_api_busy(rq, 2, "too much audio waits to be made");
}

bool au_media_failed(au_http_request *rq)
{
    const waiter *w = au_http_data(rq);
    if (!w || (w->status == AU_OK && w->asks < ASKS_MAX))
        return false;
    switch (w->status) {
    case AU_NOT_FOUND:
        au_http_problem(rq, AU_PROBLEM_OBJECT_MISSING,
                        "the audio of sample %s is missing in the object store", w->sample_id);
        return true;
    case AU_CORRUPT:
        au_http_problem(rq, AU_PROBLEM_OBJECT_CORRUPT,
                        "the audio of sample %s is not what was stored: its hash differs",
                        w->sample_id);
        return true;
    case AU_UNSUPPORTED:
    case AU_INVALID:
    case AU_LIMIT:
        au_http_problem(rq, AU_PROBLEM_NOT_ACCEPTABLE, "it cannot be made of sample %s: %s",
                        w->sample_id, w->err.message);
        return true;
    case AU_NOSPACE:
        au_http_problem(rq, AU_PROBLEM_NO_SPACE, "no space is left for another form of the audio");
        return true;
    case AU_OK: /* it changes faster than it can be checked */
    case AU_IO:
        au_api_busy(rq, 5, "the object store does not answer");
        return true;
    case AU_AGAIN:
        au_api_busy(rq, 1, w->err.message);
        return true;
    default:
        au_api_failed(rq, w->status, &w->err);
        return true;
    }
}

/* ---- Life ---- */

au_status au_media_new(au_media **out, const au_media_config *config, au_err *err)
{
    au_status st = AU_OK;
    au_media *m = NULL;
    AU_TRY(au_calloc(&m, 1, sizeof *m, err));
    m->config = *config;
    m->config.db_url = NULL;
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->wake, NULL);
    AU_TRY(au_db_open(&m->db, config->db_url, &(au_db_options){.read_only = true}, err));
    m->thread_started = pthread_create(&m->thread, NULL, media_main, m) == 0;
    AU_FAIL_IF(!m->thread_started, AU_NOMEM, "no thread for audio can be started");
    *out = m;
    m = NULL;
done:
    au_media_free(&m);
    return st;
}

void au_media_drain(au_media *m)
{
    pthread_mutex_lock(&m->lock);
    m->draining = true;
    pthread_mutex_unlock(&m->lock);
}

void au_media_free(au_media **media)
{
    au_media *m = *media;
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    m->stopping = true;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
    if (m->thread_started)
        pthread_join(m->thread, NULL);
    while (m->tasks) {
        task *next = m->tasks->next;
        AU_ASSERT(!m->tasks->waiters);
        free(m->tasks);
        m->tasks = next;
    }
    au_db_close(&m->db);
    pthread_cond_destroy(&m->wake);
    pthread_mutex_destroy(&m->lock);
    free(m);
    *media = NULL;
}
