/* SPDX-License-Identifier: MIT */
/* The queue: which job is next (transition 2), how many wait, who stands where, and whether it is
 * paused.
 *
 * Order. jobs.queue_key is the time of submission less priority_step_ms for each step of priority,
 * and smaller comes first. So a job overtakes what was submitted at most (difference of priority)
 * steps before it, every waiting job reaches the head in the end, and the order of two jobs never
 * changes: the heads of the models' queues are found by one look at an index each, and positions
 * from counts of ranges of keys (table queue_counts, kept by triggers).
 *
 * No state of its own. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/job_state.h"

enum {
    PREFER_MS = 10000, /* a job for the open model may overtake one that is ahead by less */
    RECENT_JOBS = 20,
};

/* ---- Next ---- */

typedef struct candidate {
    au_job_candidate job;
    int64_t key;
    bool found;
} candidate;

/* The first of a model's queue that may start now. */
static au_status head_of(au_db *db, const char *model, candidate *out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT id, lease_token, queue_key, alone FROM jobs WHERE state = 'queued' "
                       "AND model_name = ?1 AND run_after <= au_clock_ms() "
                       "AND (deadline_at = 0 OR deadline_at > au_now_ms()) "
                       "ORDER BY queue_key, id LIMIT 1",
                       "t", model));
    AU_TRY(au_rows_next(rows, &out->found, err));
    if (!out->found)
        goto done;
    snprintf(out->job.id, sizeof out->job.id, "%s", au_rows_text(rows, 0));
    out->job.token = au_rows_int(rows, 1);
    out->key = au_rows_int(rows, 2);
    out->job.alone = au_rows_int(rows, 3) != 0;
done:
    au_rows_close(&rows);
    return st;
}

static bool is_before(const candidate *a, const candidate *b)
{
    if (a->key != b->key)
        return a->key < b->key;
    return strcmp(a->job.id, b->job.id) < 0;
}

au_status au_job_next(au_db *db, const char *const *models, size_t n_models, const char *open_model,
                      au_job_candidate *out, bool *found, au_err *err)
{
    candidate best = {.found = false}, open = {.found = false};
    au_status st = AU_OK;
    bool paused;
    *found = false;
    AU_TRY(au_queue_is_paused(db, &paused, err));
    if (paused)
        goto done;
    for (size_t i = 0; i < n_models; i++) {
        candidate head = {.found = false};
        AU_TRY(head_of(db, models[i], &head, err));
        if (!head.found)
            continue;
        if (open_model && strcmp(models[i], open_model) == 0)
            open = head;
        if (!best.found || is_before(&head, &best))
            best = head;
    }
    if (open.found && open.key < best.key + PREFER_MS)
        best = open;
    *out = best.job;
    *found = best.found;
done:
    return st;
}

au_status au_job_peek(au_db *db, const char *const *models, size_t n_models, bool *waiting,
                      au_err *err)
{
    au_job_candidate job;
    return au_job_next(db, models, n_models, NULL, &job, waiting, err);
}

au_status au_job_take(au_db *db, const char *worker_id, const au_job_candidate *job,
                      const au_limits *limits, au_lease *lease, bool *claimed, au_err *err)
{
    *lease = (au_lease){.token = 0};
    snprintf(lease->job_id, sizeof lease->job_id, "%s", job->id);
    snprintf(lease->owner, sizeof lease->owner, "%s", worker_id);
    return au_job_change_state(db,
                               &(au_job_change){.job_id = job->id,
                                                .from = AU_JOB_QUEUED,
                                                .to = AU_JOB_PROCESSING,
                                                .token = job->token,
                                                .claim = true,
                                                .owner = worker_id,
                                                .lease_ms = limits->lease_ms,
                                                .deaths = -1},
                               claimed, &lease->token, err);
}

au_status au_job_claim(au_db *db, const char *worker_id, const char *const *models, size_t n_models,
                       const char *open_model, const au_limits *limits, au_lease *lease,
                       bool *claimed, au_err *err)
{
    au_job_candidate best;
    au_status st = AU_OK;
    bool found;
    *claimed = false;
    AU_TRY(au_job_next(db, models, n_models, open_model, &best, &found, err));
    if (found)
        AU_TRY(au_job_take(db, worker_id, &best, limits, lease, claimed, err));
done:
    return st;
}

/* ---- Pause ---- */

au_status au_queue_is_paused(au_db *db, bool *paused, au_err *err)
{
    int64_t n;
    au_status st = au_db_int(&n, db, 0, err, "SELECT COUNT(*) FROM settings WHERE name = ?1", "t",
                             "queue_paused");
    *paused = n > 0;
    return st;
}

au_status au_queue_set_paused(au_db *db, bool paused, au_err *err)
{
    AU_ASSERT(au_db_in_transaction(db));
    if (!paused)
        return au_db_exec(db, NULL, err, "DELETE FROM settings WHERE name = ?1", "t",
                          "queue_paused");
    return au_db_exec(db, NULL, err,
                      "INSERT INTO settings (name, value) VALUES (?1, '1') ON CONFLICT DO NOTHING",
                      "t", "queue_paused");
}

/* ---- Counts and positions ---- */

au_status au_queue_count(au_db *db, int64_t *waiting, au_err *err)
{
    return au_db_int(waiting, db, 0, err, "SELECT SUM(waiting) FROM queue_counts WHERE level = 2",
                     "");
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The median run of the last completed jobs: among the last finished ones, so that no number of
 * failed ones makes this long. */
static au_status recent_job_ms(au_db *db, int64_t *out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    int64_t times[RECENT_JOBS];
    size_t n = 0;
    *out = -1;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT ms FROM (SELECT state, finished_at - attempt_started AS ms FROM "
                       "jobs WHERE finished_at > 0 ORDER BY finished_at DESC LIMIT 500) "
                       "WHERE state = 'completed' LIMIT 20",
                       ""));
    for (bool has_row; n < RECENT_JOBS; n++) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        times[n] = au_rows_int(rows, 0);
    }
    if (n > 0) {
        qsort(times, n, sizeof *times, by_value);
        *out = times[n / 2] > 0 ? times[n / 2] : 0; /* the wall clock may have been set back */
    }
done:
    au_rows_close(&rows);
    return st;
}

/* Until `ahead` jobs have gone through `workers` workers, the running one included. */
static int64_t wait_ms(int64_t job_ms, int64_t running_eta_ms, int64_t ahead, int64_t workers)
{
    if (job_ms < 0)
        return -1;
    int64_t first = running_eta_ms >= 0 ? running_eta_ms : job_ms / 2;
    return first + job_ms * ahead / (workers > 0 ? workers : 1);
}

static au_status running(au_db *db, int64_t *n, int64_t *eta_ms, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT COUNT(*), MIN(CASE WHEN eta_ms >= 0 THEN eta_ms END) FROM jobs "
                       "WHERE state IN ('processing', 'cancelling')",
                       ""));
    AU_TRY(au_rows_next(rows, &has_row, err));
    *n = au_rows_int(rows, 0);
    *eta_ms = *n == 0 ? 0 : au_rows_is_null(rows, 1) ? -1 : au_rows_int(rows, 1);
done:
    au_rows_close(&rows);
    return st;
}

au_status au_queue_stats_get(au_db *db, au_queue_stats *out, au_err *err)
{
    au_status st = AU_OK;
    int64_t eta_ms;
    *out = (au_queue_stats){.job_ms = -1, .drain_ms = -1};
    AU_TRY(au_queue_count(db, &out->queued, err));
    AU_TRY(au_queue_is_paused(db, &out->paused, err));
    AU_TRY(running(db, &out->processing, &eta_ms, err));
    AU_TRY(recent_job_ms(db, &out->job_ms, err));
    out->drain_ms = out->paused ? -1 : wait_ms(out->job_ms, eta_ms, 0, out->processing);
done:
    return st;
}

/* Jobs before (key, id): whole ranges of keys from the coarse to the fine, then the rows of the
 * last one. 8 = 15 - 7 = 23 - 15: a range holds 256 of the next level. */
static au_status count_before(au_db *db, int64_t key, const char *id, int64_t *out, au_err *err)
{
    return au_db_int(
        out, db, 0, err,
        "SELECT (SELECT COALESCE(SUM(waiting), 0) FROM queue_counts WHERE level = 2 AND "
        "   bucket < ?1 >> 23) "
        "+ (SELECT COALESCE(SUM(waiting), 0) FROM queue_counts WHERE level = 1 AND "
        "   bucket >= (?1 >> 23) << 8 AND bucket < ?1 >> 15) "
        "+ (SELECT COALESCE(SUM(waiting), 0) FROM queue_counts WHERE level = 0 AND "
        "   bucket >= (?1 >> 15) << 8 AND bucket < ?1 >> 7) "
        "+ (SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND queue_key >= (?1 >> 7) << 7 AND "
        "   (queue_key, id) < (?1, ?2))",
        "it", key, id);
}

/* What an estimate of a start needs. */
typedef struct outlook {
    bool paused;
    int64_t workers, eta_ms, job_ms;
} outlook;

static au_status look_out(au_db *db, outlook *out, au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(au_queue_is_paused(db, &out->paused, err));
    AU_TRY(running(db, &out->workers, &out->eta_ms, err));
    AU_TRY(recent_job_ms(db, &out->job_ms, err));
done:
    return st;
}

static int64_t start_ms(const outlook *o, int64_t position)
{
    return o->paused ? -1 : wait_ms(o->job_ms, o->eta_ms, position - 1, o->workers);
}

au_status au_queue_positions(au_db *db, au_job **jobs, size_t n, au_err *err)
{
    au_status st = AU_OK;
    outlook o;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        au_job *j = jobs[i];
        j->estimated_start_ms = -1;
        if (j->state != AU_JOB_QUEUED)
            continue;
        if (!any)
            AU_TRY(look_out(db, &o, err));
        any = true;
        AU_TRY(count_before(db, j->queue_key, j->id, &j->queue_position, err));
        j->queue_position++;
        j->estimated_start_ms = start_ms(&o, j->queue_position);
    }
done:
    return st;
}

au_status au_queue_place_of(au_db *db, int priority, const au_limits *limits, au_queue_place *out,
                            au_err *err)
{
    int64_t now;
    au_status st = AU_OK;
    outlook o;
    AU_TRY(au_db_int(&now, db, 0, err, "SELECT au_now_ms()", ""));
    AU_TRY(look_out(db, &o, err));
    /* After every id. */
    AU_TRY(count_before(db, now - priority * limits->priority_step_ms, "g", &out->position, err));
    out->position++;
    out->start_ms =
        o.workers == 0 && out->position == 1 && !o.paused ? 0 : start_ms(&o, out->position);
done:
    return st;
}

au_status au_queue_run_ms(au_db *db, const char *model, double audio_s, int64_t *out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    *out = -1;
    AU_TRY(au_db_query(
        &rows, db, err,
        "SELECT SUM(ms), SUM((SELECT SUM(duration_s) FROM samples s WHERE s.job_id = r.id)) FROM "
        "(SELECT id, ms FROM (SELECT id, state, model_name, finished_at - attempt_started AS ms "
        "FROM jobs WHERE finished_at > 0 ORDER BY finished_at DESC LIMIT 500) WHERE state = "
        "'completed' AND model_name = ?1 LIMIT 20) r",
        "t", model));
    AU_TRY(au_rows_next(rows, &has_row, err));
    double ms = has_row ? au_rows_double(rows, 0) : NAN,
           seconds = has_row ? au_rows_double(rows, 1) : NAN;
    if (ms >= 0 && seconds > 0)
        *out = (int64_t)(ms / seconds * audio_s);
done:
    au_rows_close(&rows);
    return st;
}
