/* SPDX-License-Identifier: MIT */
/* Sessions: rows that join, advance together, are turned into audio and leave, one unit of work at
 * a time. What a row costs in memory is the family's business; that all rows stay within the limit
 * is ours. A row's arithmetic does not depend on its neighbours, so neither do its bytes.
 *
 * A complete row's audio is made a stretch at a time, between decoder steps of the others: so they
 * go on, and a cancel is seen within one unit. One thread owns a session; it has the model's pool.
 */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/engine.h"

enum { FIRST_CAP = 8, OVER_LIMIT = 4 /* times the limit: what an only row may take */ };

/* A row's work is counted in its first decoder steps, for the progress figure, which shall rise
 * with time as evenly as can be known: the text is worth two; a frame of the codec a tenth, until
 * it has been measured; a step more than the one before, once it has been measured by how much. */
static const double TEXT_SHARE = 2, CODEC_SHARE = 0.1;
enum {
    SETTLING_STEP = 12, /* the session's steps have been timed: what the rest is worth is settled */
    FADING_FRAMES = 10000,
    MIN_STEPS = 100, /* a row that is shorter teaches nothing of growth */
};
static const double STEP_WEIGHT = 0.2, GROWTH_WEIGHT = 0.3; /* of the latest in the mean */
static const double MAX_GROWTH = 0.02;

typedef struct live_row {
    au_ready_row ready;
    void *tag;
    size_t slot, steps_done;
    double done; /* work */
    double fraction;
    int64_t begun_ns, half_ns; /* of its steps, from when its work was settled */
    size_t neighbours;         /* rows of the session then */
    bool left;                 /* cancelled: goes when the unit is over */
} live_row;

struct au_session {
    au_session_options options;
    au_model *model; /* owned reference, busy with us */
    uint64_t limit;
    au_watch watch;
    au_sequence *sequence;
    live_row **rows;            /* [n], in the order of joining; each owned */
    const au_clip_spec **clips; /* [n + 1] scratch: those of rows */
    size_t n, cap;
    bool stepped;       /* a decoder step was made in this unit */
    double frames_made; /* by the codec in this unit */
    double step_s;      /* of a decoder step, a fading mean; 0: none yet */
};

/* ---- Rows made ready ---- */

static au_status tokens_of(const au_model *m, const char *text, int32_t **ids, size_t *n,
                           au_err *err)
{
    size_t max = (size_t)m->info.max_prompt_tokens;
    au_status st = au_tokenizer_encode(m->tokenizer, text, strlen(text), max, ids, n, err);
    if (st == AU_LIMIT)
        return au_fail(err, AU_INVALID, "the prompt has more than %zu tokens", max);
    /* A tokenizer may know more pieces than the table has rows (sentinels, as a rule). */
    for (size_t i = 0; st == AU_OK && i < *n; i++)
        if ((*ids)[i] >= m->info.text_vocab)
            return au_fail(
                err, AU_INVALID,
                "the prompt has token id %d, the model's text encoder knows ids below %d",
                (int)(*ids)[i], m->info.text_vocab);
    return st;
}

static au_status check_row(const au_model *m, const au_row *row, double max_duration_s, au_err *err)
{
    const char *problem = NULL;
    if (row->size < sizeof *row || !row->params || !row->prompt)
        problem = "size, prompt or params is not set";
    else if (!au_utf8_valid(row->prompt, strlen(row->prompt)))
        problem = "the prompt is not valid UTF-8";
    else if (row->negative && !au_utf8_valid(row->negative, strlen(row->negative)))
        problem = "the negative prompt is not valid UTF-8";
    else if (row->seed >> 53)
        problem = "the seed is not below 2^53";
    else if (!(row->strength >= -2 && row->strength <= 2))
        problem = "the adapter's strength is not in -2 ... 2";
    else if (row->negative && row->params->guidance == 1)
        problem = "a negative prompt has no effect with guidance 1";
    else if (row->adapter && row->adapter->model != m)
        problem = "the adapter was opened for another model";
    if (problem)
        return au_fail(err, AU_INVALID, "%s", problem);
    return au_params_check(row->params, m, max_duration_s, err);
}

au_status au_ready_row_init(au_ready_row *out, const au_model *m, const au_row *row,
                            double max_duration_s, au_err *err)
{
    au_status st = AU_OK;
    au_clip_spec *clip = &out->clip;
    *out = (au_ready_row){.steps = 0};
    AU_TRY(check_row(m, row, max_duration_s, err));
    out->params = *row->params;
    clip->params = &out->params;
    AU_TRY(tokens_of(m, row->prompt, &out->tokens, &clip->n_tokens, err));
    clip->tokens = out->tokens;
    if (row->negative) {
        AU_TRY(tokens_of(m, row->negative, &out->negative, &clip->n_negative, err));
        clip->negative = out->negative;
    }
    clip->seed = row->seed;
    clip->frames = (size_t)llround(m->info.frame_rate * row->params->duration_s);
    out->codec_share = CODEC_SHARE;
    out->steps = clip->frames + (size_t)(m->info.codebooks / m->info.channels) - 1;
done:
    if (st != AU_OK)
        au_ready_row_deinit(out);
    return st;
}

void au_ready_row_deinit(au_ready_row *row)
{
    if (row->adapter) {
        au_adapter_let_go(row->adapter, row->clip.applied);
        au_adapter_unref(&row->adapter);
    }
    free(row->tokens);
    free(row->negative);
    row->tokens = row->negative = NULL;
}

static double steps_work(const au_ready_row *row, size_t steps)
{
    return (double)steps * (1 + row->growth * (double)steps / 2);
}

double au_row_work(const au_ready_row *row)
{
    return TEXT_SHARE + steps_work(row, row->steps) + row->codec_share * (double)row->clip.frames;
}

double au_row_work_done(const au_ready_row *row, au_stage stage, size_t done, size_t of)
{
    double part = of ? (double)done / (double)of : 1;
    if (stage == AU_STAGE_TEXT)
        return TEXT_SHARE * part;
    if (stage == AU_STAGE_DECODE)
        return TEXT_SHARE + steps_work(row, done);
    return TEXT_SHARE + steps_work(row, row->steps) +
           row->codec_share * (double)row->clip.frames * part;
}

uint64_t au_default_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page / 4 : (uint64_t)1 << 30;
}

/* ---- Callbacks of the family ---- */

static live_row *row_of(const au_clip_spec *clip)
{
    return (live_row *)(void *)((char *)(uintptr_t)clip - offsetof(live_row, ready.clip));
}

static bool watch_cancelled(void *user, const au_clip_spec *clip)
{
    au_session *s = user;
    live_row *row = row_of(clip);
    if (!row->left && s->options.cancelled)
        row->left = s->options.cancelled(s->options.user, row->tag);
    return row->left;
}

/* Rows that run together are, as a rule, complete together, and their audio is made one after the
 * other: so a frame of each counts as one of all. */
static void settle_work(const au_session *s, live_row *row)
{
    const au_pace *pace = &s->model->pace;
    if (pace->growth > 0)
        row->ready.growth = pace->growth;
    if (pace->codec_frames > 0 && s->step_s > 0)
        row->ready.codec_share = (double)s->n * pace->codec_s / pace->codec_frames / s->step_s;
    row->begun_ns = au_mono_ns();
    row->neighbours = s->n;
}

/* A row has made its last step: the times of its two halves tell how steps grow. */
static void learn_growth(const au_session *s, const live_row *row)
{
    au_pace *pace = &s->model->pace;
    double half = (double)(row->ready.steps - SETTLING_STEP) / 2;
    if (row->ready.steps < MIN_STEPS || !row->half_ns || row->neighbours != s->n)
        return;
    double first_ns = (double)(row->half_ns - row->begun_ns);
    double second_ns = (double)(au_mono_ns() - row->half_ns);
    double slope = (second_ns - first_ns) / (half * half);
    double base = first_ns / half - slope * half / 2;
    double growth = slope <= 0 ? 0 : base > 0 ? slope / base : MAX_GROWTH;
    growth = growth < MAX_GROWTH ? growth : MAX_GROWTH;
    pace->growth =
        pace->growth < 0 ? growth : pace->growth + GROWTH_WEIGHT * (growth - pace->growth);
}

static void note_unit(au_session *s, live_row *row, size_t done)
{
    row->steps_done = done;
    s->stepped = true;
    if (done == SETTLING_STEP)
        settle_work(s, row);
    else if (row->begun_ns && done == SETTLING_STEP + (row->ready.steps - SETTLING_STEP) / 2)
        row->half_ns = au_mono_ns();
    else if (done == row->ready.steps)
        learn_growth(s, row);
}

static void watch_unit(void *user, const au_clip_spec *clip, au_stage stage, size_t done, size_t of)
{
    au_session *s = user;
    live_row *row = row_of(clip);
    if (stage == AU_STAGE_DECODE)
        note_unit(s, row, done);
    double work = au_row_work_done(&row->ready, stage, done, of);
    if (stage == AU_STAGE_CODEC && work > row->done)
        s->frames_made += (work - row->done) / row->ready.codec_share;
    row->done = work > row->done ? work : row->done;
    double fraction = row->done / au_row_work(&row->ready);
    row->fraction = fraction > row->fraction ? fraction : row->fraction; /* also as it settles */
    if (!s->options.on_progress)
        return;
    s->options.on_progress(s->options.user, row->tag,
                           &(au_row_progress){.stage = stage,
                                              .step = row->steps_done,
                                              .steps = row->ready.steps,
                                              .fraction = row->fraction});
}

/* ---- Joining and leaving ---- */

/* Bytes with one more clip. */
static uint64_t bytes_with(const au_session *s, const au_clip_spec *clip)
{
    for (size_t i = 0; i < s->n; i++)
        s->clips[i] = &s->rows[i]->ready.clip;
    s->clips[s->n] = clip;
    return s->model->family->session_bytes(s->model->net, s->clips, s->n + 1,
                                           au_pool_threads(s->model->pool));
}

static au_status check_room(const au_session *s, const au_clip_spec *clip, au_err *err)
{
    const au_clip_spec *only[] = {clip};
    uint64_t bytes = bytes_with(s, clip);
    if (bytes <= s->limit)
        return AU_OK;
    bytes =
        s->model->family->session_bytes(s->model->net, only, 1, au_pool_threads(s->model->pool));
    if (bytes / OVER_LIMIT > s->limit)
        return au_fail(err, AU_LIMIT, "needs %llu bytes of session memory, the limit is %llu",
                       (unsigned long long)bytes, (unsigned long long)s->limit);
    return s->n == 0 ? AU_OK : au_fail(err, AU_AGAIN, "no room beside %zu rows", s->n);
}

au_status au_session_fits(const au_session *s, const au_row *row, au_err *err)
{
    au_ready_row ready;
    au_status st = au_ready_row_init(&ready, s->model, row, s->options.max_duration_s, err);
    if (st != AU_OK)
        return st;
    ready.clip.alone = true; /* without its adapter nothing is known of what it shares */
    st = check_room(s, &ready.clip, err);
    au_ready_row_deinit(&ready);
    return st;
}

static au_status reserve(au_session *s, au_err *err)
{
    au_status st = AU_OK;
    if (s->n + 1 < s->cap)
        goto done;
    size_t cap = s->cap ? 2 * s->cap : FIRST_CAP;
    live_row **rows = realloc(s->rows, cap * sizeof *rows);
    AU_FAIL_IF(!rows, AU_NOMEM, "cannot allocate a list of %zu rows", cap);
    s->rows = rows;
    const au_clip_spec **clips = realloc(s->clips, cap * sizeof *clips);
    AU_FAIL_IF(!clips, AU_NOMEM, "cannot allocate a list of %zu rows", cap);
    s->clips = clips;
    s->cap = cap;
done:
    return st;
}

au_status au_session_add(au_session *s, const au_row *row, void *tag, au_err *err)
{
    au_status st = AU_OK;
    live_row *live = NULL;
    AU_TRY(au_calloc(&live, 1, sizeof *live, err));
    AU_TRY(au_ready_row_init(&live->ready, s->model, row, s->options.max_duration_s, err));
    live->tag = tag;
    if (row->adapter) {
        au_adapter_trim(row->adapter);
        AU_TRY(au_adapter_at(row->adapter, row->strength, &live->ready.clip.applied, err));
        live->ready.adapter = au_adapter_ref(row->adapter);
    }
    AU_TRY(check_room(s, &live->ready.clip, err));
    AU_TRY(reserve(s, err));
    if (s->options.trace && !s->watch.trace) {
        s->watch.trace = s->options.trace;
        s->watch.traced = &live->ready.clip;
    }
    AU_TRY(s->model->family->join(s->sequence, &live->ready.clip, &live->slot, err));
    s->rows[s->n++] = live;
done:
    if (st != AU_OK && live) {
        au_ready_row_deinit(&live->ready);
        free(live);
    }
    return st;
}

static void remove_row(au_session *s, size_t i)
{
    live_row *row = s->rows[i];
    s->model->family->leave(s->sequence, row->slot);
    if (s->watch.traced == &row->ready.clip)
        s->watch.traced = NULL;
    s->n--;
    memmove(&s->rows[i], &s->rows[i + 1], (s->n - i) * sizeof *s->rows);
    au_ready_row_deinit(&row->ready);
    free(row);
}

/* Rows that were found cancelled in the unit that is over. */
static void let_leave(au_session *s)
{
    for (size_t i = s->n; i-- > 0;) {
        void *tag = s->rows[i]->tag;
        if (!s->rows[i]->left)
            continue;
        remove_row(s, i);
        if (s->options.on_left)
            s->options.on_left(s->options.user, tag);
    }
}

/* ---- Work ---- */

/* A stretch of the first complete row's audio. */
static au_status render(au_session *s, au_err *err)
{
    const au_family *f = s->model->family;
    const au_model_info *info = &s->model->info;
    const float *frames = NULL;
    size_t i = 0;
    while (i < s->n && !f->complete(s->sequence, s->rows[i]->slot))
        i++;
    if (i == s->n)
        return AU_OK;
    const live_row *row = s->rows[i];
    (void)f->render(s->sequence, row->slot, &frames);
    if (!frames)
        return AU_OK;
    const au_audio audio = {.frames = frames,
                            .n_frames = (uint64_t)row->ready.clip.frames * (uint64_t)info->hop,
                            .channels = info->channels,
                            .sample_rate = info->sample_rate};
    au_status st = s->options.on_audio(s->options.user, row->tag, &audio, err);
    remove_row(s, i);
    return st;
}

static void note_codec(au_session *s, double seconds)
{
    au_pace *pace = &s->model->pace;
    if (s->frames_made <= 0)
        return;
    pace->codec_s += seconds;
    pace->codec_frames += s->frames_made;
    if (pace->codec_frames > FADING_FRAMES) {
        pace->codec_s /= 2;
        pace->codec_frames /= 2;
    }
}

static void note_step(au_session *s, double seconds)
{
    if (s->stepped)
        s->step_s = s->step_s > 0 ? s->step_s + STEP_WEIGHT * (seconds - s->step_s) : seconds;
}

au_status au_session_step(au_session *s, au_err *err)
{
    const au_family *f = s->model->family;
    au_status st = AU_OK;
    s->stepped = false;
    s->frames_made = 0;
    if (!f->encode(s->sequence)) {
        int64_t begun = au_mono_ns();
        st = render(s, err);
        let_leave(s);
        int64_t rendered = au_mono_ns();
        note_codec(s, (double)(rendered - begun) / 1e9);
        if (st == AU_OK)
            f->step(s->sequence);
        note_step(s, (double)(au_mono_ns() - rendered) / 1e9);
    }
    let_leave(s);
    return st;
}

size_t au_session_rows(const au_session *s)
{
    return s->n;
}

/* ---- Opening and closing ---- */

au_status au_session_open(const au_session_options *options, au_session **out, au_err *err)
{
    au_session *s = NULL;
    au_status st = AU_OK;
    *out = NULL;
    if (options->size < sizeof *options)
        return au_fail(err, AU_INVALID, "au_session_options.size is %zu, expected %zu",
                       options->size, sizeof *options);
    if (!options->model || !options->on_audio)
        return au_fail(err, AU_INVALID, "au_session_options: model and on_audio must be set");
    if (!(options->max_duration_s >= 0))
        return au_fail(err, AU_INVALID, "max_duration_s is %g, expected 0 or more",
                       options->max_duration_s);
    if (atomic_flag_test_and_set(&options->model->busy))
        return au_fail(err, AU_CONFLICT, "another request runs on this model");
    au_model *model = au_model_ref(options->model);
    AU_TRY(au_calloc(&s, 1, sizeof *s, err));
    s->options = *options;
    s->limit = options->memory_bytes ? options->memory_bytes : au_default_memory();
    s->watch = (au_watch){.cancelled = watch_cancelled,
                          .unit_done = watch_unit,
                          .trace_user = options->user,
                          .user = s};
    s->model = model;
    AU_TRY(reserve(s, err));
    AU_TRY(model->family->session_open(&s->sequence, model->net, &model->nn, &s->watch, err));
    *out = s;
    return AU_OK;
done:
    if (s) {
        free(s->rows);
        free(s->clips);
        free(s);
    }
    atomic_flag_clear(&model->busy);
    au_model_unref(&model);
    return st;
}

void au_session_close(au_session **session)
{
    au_session *s = *session;
    *session = NULL;
    if (!s)
        return;
    while (s->n > 0)
        remove_row(s, s->n - 1);
    s->model->family->session_close(&s->sequence);
    atomic_flag_clear(&s->model->busy);
    au_model_unref(&s->model);
    free(s->rows);
    free(s->clips);
    free(s);
}
