/* SPDX-License-Identifier: MIT */
/* The counters and the number of the last event that is in them are under one lock, so that two
 * scrapes at once count nothing twice. Work is done when somebody asks: a server that is not
 * scraped counts nothing. */
#include "api/metrics.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { BUCKETS = 11 };
static const double bounds[BUCKETS - 1] = {0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800};

typedef struct histogram {
    int64_t buckets[BUCKETS]; /* not summed up */
    double sum;
} histogram;

struct au_metrics {
    pthread_mutex_t lock;
    int64_t last_event;
    int64_t entered[AU_JOB_STATE_COUNT];
    int64_t samples;
    double audio_s;
    histogram waited, ran;
};

au_status au_metrics_new(au_metrics **out, au_db *db, au_err *err)
{
    au_metrics *m = NULL;
    au_status st = AU_OK;
    AU_TRY(au_calloc(&m, 1, sizeof *m, err));
    pthread_mutex_init(&m->lock, NULL);
    *out = m;
    AU_TRY(au_db_int(&m->last_event, db, 0, err, "SELECT MAX(id) FROM events", ""));
done:
    return st;
}

void au_metrics_free(au_metrics **m)
{
    if (*m)
        pthread_mutex_destroy(&(*m)->lock);
    free(*m);
    *m = NULL;
}

/* ---- Counting ---- */

static void observe(histogram *h, double seconds)
{
    int b = 0;
    while (b < BUCKETS - 1 && seconds > bounds[b])
        b++;
    h->buckets[b]++;
    h->sum += seconds;
}

static au_status count_states(au_metrics *m, au_db *db, int64_t upto, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT json_extract(data, '$.state'), COUNT(*) FROM events WHERE id > ?1 "
                       "AND id <= ?2 AND event = 'state' GROUP BY 1",
                       "ii", m->last_event, upto));
    for (bool has_row;;) {
        au_job_state state;
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        const char *name = au_rows_text(rows, 0);
        if (name && au_job_state_parse(name, &state))
            m->entered[state] += au_rows_int(rows, 1);
    }
done:
    au_rows_close(&rows);
    return st;
}

/* Jobs that ended: how long they waited for their first attempt, and ran from there. */
static au_status count_times(au_metrics *m, au_db *db, int64_t upto, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT j.created_at, j.started_at, j.finished_at FROM events e "
                       "JOIN jobs j ON j.id = e.subject "
                       "WHERE e.id > ?1 AND e.id <= ?2 AND e.event = 'done'",
                       "ii", m->last_event, upto));
    for (bool has_row;;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        int64_t created = au_rows_int(rows, 0), started = au_rows_int(rows, 1),
                finished = au_rows_int(rows, 2);
        if (started == 0) /* cancelled while it waited */
            continue;
        observe(&m->waited, started > created ? (double)(started - created) / 1000 : 0);
        observe(&m->ran, finished > started ? (double)(finished - started) / 1000 : 0);
    }
done:
    au_rows_close(&rows);
    return st;
}

static au_status count_samples(au_metrics *m, au_db *db, int64_t upto, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT COUNT(*), TOTAL(s.duration_s) FROM events e LEFT JOIN samples s "
                       "ON s.id = json_extract(e.data, '$.sample_id') "
                       "WHERE e.id > ?1 AND e.id <= ?2 AND e.event = 'sample'",
                       "ii", m->last_event, upto));
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (has_row) {
        m->samples += au_rows_int(rows, 0);
        m->audio_s += au_rows_double(rows, 1);
    }
done:
    au_rows_close(&rows);
    return st;
}

/* All or nothing: a query that fails leaves the counters as they were. */
static au_status catch_up(au_metrics *m, au_db *db, au_err *err)
{
    au_metrics before = *m;
    int64_t upto;
    au_status st = AU_OK;
    AU_TRY(au_db_int(&upto, db, 0, err, "SELECT MAX(id) FROM events", ""));
    if (upto <= m->last_event)
        return AU_OK;
    AU_TRY(count_states(m, db, upto, err));
    AU_TRY(count_times(m, db, upto, err));
    AU_TRY(count_samples(m, db, upto, err));
    m->last_event = upto;
done:
    if (st != AU_OK) {
        memcpy(m->entered, before.entered, sizeof m->entered);
        m->samples = before.samples;
        m->audio_s = before.audio_s;
        m->waited = before.waited;
        m->ran = before.ran;
    }
    return st;
}

/* ---- Writing ---- */

static void write_histogram(au_buf *out, const char *name, const char *help, const histogram *h)
{
    int64_t sum = 0;
    au_buf_printf(out, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name);
    for (int b = 0; b < BUCKETS; b++) {
        sum += h->buckets[b];
        if (b < BUCKETS - 1)
            au_buf_printf(out, "%s_bucket{le=\"%g\"} %lld\n", name, bounds[b], (long long)sum);
        else
            au_buf_printf(out, "%s_bucket{le=\"+Inf\"} %lld\n", name, (long long)sum);
    }
    au_buf_printf(out, "%s_sum %.3f\n%s_count %lld\n", name, h->sum, name, (long long)sum);
}

au_status au_metrics_write(au_metrics *m, au_db *db, au_buf *out, au_err *err)
{
    pthread_mutex_lock(&m->lock);
    au_status st = catch_up(m, db, err);
    if (st == AU_OK) {
        au_buf_str(out, "# HELP aulos_jobs_total Jobs that came to a state.\n"
                        "# TYPE aulos_jobs_total counter\n");
        for (int s = 0; s < AU_JOB_STATE_COUNT; s++)
            au_buf_printf(out, "aulos_jobs_total{state=\"%s\"} %lld\n",
                          au_job_state_name((au_job_state)s), (long long)m->entered[s]);
        au_buf_printf(out,
                      "# HELP aulos_samples_total Samples that were made.\n"
                      "# TYPE aulos_samples_total counter\naulos_samples_total %lld\n"
                      "# HELP aulos_audio_seconds_total Audio that was made.\n"
                      "# TYPE aulos_audio_seconds_total counter\naulos_audio_seconds_total %.3f\n",
                      (long long)m->samples, m->audio_s);
        write_histogram(out, "aulos_job_wait_seconds",
                        "From the submission of an ended job to its first attempt.", &m->waited);
        write_histogram(out, "aulos_job_run_seconds",
                        "From the first attempt of an ended job to its end.", &m->ran);
    }
    pthread_mutex_unlock(&m->lock);
    return st;
}
