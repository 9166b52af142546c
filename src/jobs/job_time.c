/* SPDX-License-Identifier: MIT */
/* What time and death do to jobs: attempts whose worker died, hung or stalled, deadlines,
 * interruptions (transitions 11, 12, 15, 16 and the deadline).
 *
 * Runs on the writer thread for janitor and supervisor, inside a savepoint. No state of its own.
 * Lists are read in small pages before they are acted on, so that no cursor is open while rows
 * change. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/job_state.h"

enum { PAGE = 32 };

/* ---- One attempt
 * ------------------------------------------------------------------------------------ */

/* What becomes of the job whose attempt was lost. `again` and the change's counters are set; *end
 * is why it would fail. */
static bool decide(const au_job_facts *f, au_loss loss, const char *reason, const au_limits *limits,
                   au_job_change *change, au_job_end *end)
{
    *end = (au_job_end){.reason = reason, .detail = reason, .retryable = true, .counted = true};
    switch (loss) {
    case AU_LOSS_INTERRUPTED:
        end->type = "interrupted";
        change->attempt_delta = -1;
        change->interruptions_delta = 1;
        change->deaths = -1;
        return f->interruptions + 1 <= limits->max_interruptions;
    case AU_LOSS_STALL:
        end->type = "stalled";
        change->deaths = 0;
        change->backoff_ms = au_job_backoff_ms(limits, f->attempt - 1);
        return f->attempt < f->max_attempts;
    case AU_LOSS_DEATH:
        break;
    }
    change->deaths = f->deaths + 1;
    change->backoff_ms = au_job_backoff_ms(limits, f->deaths);
    bool poisoned = change->deaths >= limits->max_deaths;
    end->type = poisoned ? "poisoned" : "worker-died";
    end->retryable = !poisoned;
    return !poisoned && f->attempt < f->max_attempts;
}

au_status au_job_lose(au_db *db, const char *job_id, int64_t token, au_loss loss,
                      const char *reason, const au_limits *limits, bool *changed, au_err *err)
{
    au_job_facts facts = {0};
    char *error = NULL, *attempts = NULL;
    au_status st = AU_OK;
    bool found;
    *changed = false;
    AU_TRY(au_job_facts_get(db, job_id, &facts, &found, err));
    if (!found || facts.token != token)
        goto done;
    if (facts.state == AU_JOB_CANCELLING) {
        AU_TRY(au_db_exec(db, NULL, err, "UPDATE jobs SET lease_until = 0 WHERE id = ?1", "t",
                          job_id));
        *changed = true;
        goto done;
    }
    if (facts.state != AU_JOB_PROCESSING)
        goto done;
    au_job_change change = {
        .job_id = job_id, .from = AU_JOB_PROCESSING, .token = token, .reason = reason};
    au_job_end end;
    bool again = decide(&facts, loss, reason, limits, &change, &end);
    AU_TRY(au_job_end_texts(&facts, &end, &error, &attempts, err));
    change.to = again ? AU_JOB_QUEUED : AU_JOB_FAILED;
    change.error = error;
    change.attempts = attempts;
    /* Which of the jobs that a worker held ended it is not known: each shows it alone. */
    change.alone = loss != AU_LOSS_INTERRUPTED;
    AU_TRY(au_job_change_state(db, &change, changed, NULL, err));
done:
    free(error);
    free(attempts);
    au_job_facts_deinit(&facts);
    return st;
}

/* ---- Many
 * ------------------------------------------------------------------------------------------- */

typedef struct held_job {
    char id[AU_UUID_TEXT];
    int64_t token;
} held_job;

/* Reads at most PAGE rows (id, lease_token) of a query with one text or no parameter. */
static au_status read_page(au_db *db, held_job page[PAGE], size_t *n, const char *sql,
                           const char *types, const char *arg, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    *n = 0;
    AU_TRY(au_db_query(&rows, db, err, sql, types, arg));
    for (bool has_row; *n < PAGE;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        snprintf(page[*n].id, sizeof page[*n].id, "%s", au_rows_text(rows, 0));
        page[*n].token = au_rows_int(rows, 1);
        (*n)++;
    }
done:
    au_rows_close(&rows);
    return st;
}

au_status au_jobs_worker_gone(au_db *db, const char *worker_id, au_loss loss, const char *reason,
                              const au_limits *limits, int *n, au_err *err)
{
    held_job page[PAGE];
    size_t found;
    au_status st = AU_OK;
    *n = 0;
    /* Those that leave the state go first; a cancelling job stays and would be read again. */
    do {
        AU_TRY(read_page(db, page, &found,
                         "SELECT id, lease_token FROM jobs WHERE lease_owner = ?1 AND "
                         "state = 'processing' LIMIT 32",
                         "t", worker_id, err));
        for (size_t i = 0; i < found; i++) {
            bool changed;
            AU_TRY(au_job_lose(db, page[i].id, page[i].token, loss, reason, limits, &changed, err));
            *n += changed;
        }
    } while (found == PAGE);
    int64_t ended;
    AU_TRY(au_db_exec(db, &ended, err,
                      "UPDATE jobs SET lease_until = 0 WHERE lease_owner = ?1 AND "
                      "state = 'cancelling'",
                      "t", worker_id));
    *n += (int)ended;
    AU_TRY(au_db_exec(db, NULL, err,
                      "UPDATE workers SET seen_at = au_now_ms(), state = 'gone', "
                      "detail = CASE state WHEN 'failed' THEN detail ELSE ?2 END WHERE id = ?1",
                      "tt", worker_id, reason));
done:
    return st;
}

static au_status pass_deadline(au_db *db, const char *job_id, int *n, au_err *err)
{
    au_job_facts facts = {0};
    char *error = NULL, *attempts = NULL;
    au_status st = AU_OK;
    bool found, changed;
    AU_TRY(au_job_facts_get(db, job_id, &facts, &found, err));
    if (!found || (facts.state != AU_JOB_QUEUED && facts.state != AU_JOB_PROCESSING))
        goto done;
    AU_TRY(au_job_end_texts(&facts,
                            &(au_job_end){.type = "deadline",
                                          .detail = "the job was not finished before its deadline",
                                          .retryable = true,
                                          .counted = facts.state == AU_JOB_PROCESSING},
                            &error, &attempts, err));
    AU_TRY(au_job_change_state(db,
                               &(au_job_change){.job_id = job_id,
                                                .from = facts.state,
                                                .to = AU_JOB_FAILED,
                                                .token = facts.token,
                                                .deaths = -1,
                                                .error = error,
                                                .attempts = attempts,
                                                .reason = "deadline"},
                               &changed, NULL, err));
    *n += changed;
done:
    free(error);
    free(attempts);
    au_job_facts_deinit(&facts);
    return st;
}

au_status au_jobs_expire(au_db *db, const au_limits *limits, int *n, au_err *err)
{
    held_job page[PAGE];
    size_t found;
    au_status st = AU_OK;
    *n = 0;
    do {
        AU_TRY(read_page(db, page, &found,
                         "SELECT id, lease_token FROM jobs WHERE state = 'processing' "
                         "AND lease_until < au_clock_ms() LIMIT 32",
                         "", NULL, err));
        for (size_t i = 0; i < found; i++) {
            bool changed;
            AU_TRY(au_job_lose(db, page[i].id, page[i].token, AU_LOSS_DEATH,
                               "the worker was silent for longer than its lease", limits, &changed,
                               err));
            *n += changed;
        }
    } while (found == PAGE);
    do {
        AU_TRY(read_page(db, page, &found,
                         "SELECT id, lease_token FROM jobs WHERE deadline_at > 0 AND state IN "
                         "('queued', 'processing') AND deadline_at <= au_now_ms() LIMIT 32",
                         "", NULL, err));
        for (size_t i = 0; i < found; i++)
            AU_TRY(pass_deadline(db, page[i].id, n, err));
    } while (found == PAGE);
done:
    return st;
}

au_status au_jobs_find_stalled(au_db *db, const au_limits *limits, au_stalled *out, bool *found,
                               au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    *found = false;
    AU_TRY(
        au_db_query(&rows, db, err,
                    "SELECT id, lease_owner, lease_token FROM jobs WHERE state IN "
                    "('processing', 'cancelling') AND lease_owner IS NOT NULL AND "
                    "lease_until >= au_clock_ms() AND progress_clock < au_clock_ms() - ?1 LIMIT 1",
                    "i", limits->stall_ms));
    AU_TRY(au_rows_next(rows, found, err));
    if (!*found)
        goto done;
    snprintf(out->job_id, sizeof out->job_id, "%s", au_rows_text(rows, 0));
    snprintf(out->worker_id, sizeof out->worker_id, "%s", au_rows_text(rows, 1));
    out->token = au_rows_int(rows, 2);
done:
    au_rows_close(&rows);
    return st;
}
