/* SPDX-License-Identifier: MIT */
/* The job state machine: names of states, the only function that changes a state, and the records
 * that go with a change (events, list of attempts, error).
 *
 * Invariants: a final state never changes; a change happens only from the state and lease token
 * that the caller saw; its event rows are in the same transaction, numbered without gaps by
 * jobs.event_seq. No state of its own; one thread at a time per connection. */
#include "jobs/job_state.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "jobs/outbox.h"

enum { MAX_BACKOFF_MS = 60000, MAX_EVENT_BYTES = 1 << 16, MAX_ATTEMPTS_BYTES = 1 << 20 };

static const char *const state_names[AU_JOB_STATE_COUNT] = {
    [AU_JOB_QUEUED] = "queued",         [AU_JOB_PROCESSING] = "processing",
    [AU_JOB_CANCELLING] = "cancelling", [AU_JOB_COMPLETED] = "completed",
    [AU_JOB_FAILED] = "failed",         [AU_JOB_CANCELLED] = "cancelled",
};

/* Which changes exist: the table of job states, rows 1 to 16. */
static const bool allowed[AU_JOB_STATE_COUNT][AU_JOB_STATE_COUNT] = {
    [AU_JOB_QUEUED] =
        {[AU_JOB_PROCESSING] = true, [AU_JOB_FAILED] = true, [AU_JOB_CANCELLED] = true},
    [AU_JOB_PROCESSING] = {[AU_JOB_QUEUED] = true,
                           [AU_JOB_CANCELLING] = true,
                           [AU_JOB_COMPLETED] = true,
                           [AU_JOB_FAILED] = true},
    [AU_JOB_CANCELLING] = {[AU_JOB_CANCELLED] = true},
};

const char *au_job_state_name(au_job_state s)
{
    AU_ASSERT((unsigned)s < AU_JOB_STATE_COUNT);
    return state_names[s];
}

bool au_job_state_parse(const char *name, au_job_state *out)
{
    for (int i = 0; i < AU_JOB_STATE_COUNT; i++) {
        if (strcmp(name, state_names[i]) == 0) {
            *out = (au_job_state)i;
            return true;
        }
    }
    return false;
}

bool au_job_state_is_final(au_job_state s)
{
    return s >= AU_JOB_COMPLETED;
}

static au_status insert_event(au_db *db, const char *job_id, int64_t seq, const char *event,
                              const char *data, au_err *err)
{
    return au_db_exec(db, NULL, err,
                      "INSERT INTO events (subject, seq, event, data, created_at) "
                      "VALUES (?1, ?2, ?3, ?4, au_now_ms())",
                      "titt", job_id, seq, event, data);
}

au_status au_job_emit(au_db *db, const char *job_id, const char *event, const char *data,
                      au_err *err)
{
    int64_t seq;
    au_status st = au_db_int(&seq, db, 0, err,
                             "UPDATE jobs SET event_seq = event_seq + 1, revision = revision + 1 "
                             "WHERE id = ?1 RETURNING event_seq",
                             "t", job_id);
    return st == AU_OK ? insert_event(db, job_id, seq, event, data, err) : st;
}

static au_status emit_state(au_db *db, const au_job_change *c, int64_t last_seq, int64_t attempt,
                            au_err *err)
{
    au_buf text;
    au_buf_init(&text, MAX_EVENT_BYTES);
    json_t *data = json_pack("{s:s, s:I, s:s*}", "state", au_job_state_name(c->to), "attempt",
                             (json_int_t)attempt, "reason", c->reason);
    au_status st = AU_OK;
    AU_FAIL_IF(!data, AU_NOMEM, "out of memory");
    au_json_dump(&text, data);
    AU_TRY(au_buf_check(&text, err));
    bool final = au_job_state_is_final(c->to);
    AU_TRY(insert_event(db, c->job_id, final ? last_seq - 1 : last_seq, "state", au_buf_cstr(&text),
                        err));
    if (final)
        AU_TRY(insert_event(db, c->job_id, last_seq, "done", au_buf_cstr(&text), err));
    AU_TRY(au_outbox_add(db, "job", c->job_id, au_job_state_name(c->to), "{}", err));
done:
    json_decref(data);
    au_buf_deinit(&text);
    return st;
}

/* percent: what finished samples are worth when an attempt begins or ends, 100 at the end. */
static const char change_sql[] =
    "UPDATE jobs SET state = ?2, revision = revision + 1, event_seq = event_seq + ?14, "
    " attempt = attempt + ?4, interruptions = interruptions + ?5, "
    " deaths = CASE WHEN ?6 < 0 THEN deaths ELSE ?6 END, alone = alone OR ?15, lease_token = "
    "lease_token + ?7, "
    " lease_owner = CASE ?2 WHEN 'processing' THEN ?8 WHEN 'cancelling' THEN lease_owner END, "
    " lease_until = CASE ?2 WHEN 'processing' THEN au_clock_ms() + ?9 "
    "                       WHEN 'cancelling' THEN lease_until ELSE 0 END, "
    " run_after = CASE ?2 WHEN 'queued' THEN au_clock_ms() + ?10 ELSE 0 END, "
    " error = CASE ?2 WHEN 'failed' THEN ?11 END, attempts = COALESCE(?12, attempts), "
    " started_at = CASE WHEN ?2 = 'processing' AND started_at = 0 THEN au_now_ms() ELSE started_at "
    "END, "
    " attempt_started = CASE ?2 WHEN 'processing' THEN au_now_ms() ELSE attempt_started END, "
    " progress_clock = CASE ?2 WHEN 'processing' THEN au_clock_ms() ELSE progress_clock END, "
    " progress_at = au_now_ms(), eta_ms = CASE ?2 WHEN 'cancelling' THEN eta_ms ELSE -1 END, "
    " stage = CASE ?2 WHEN 'processing' THEN 'load' WHEN 'cancelling' THEN stage ELSE '' END, "
    " step = CASE WHEN ?2 IN ('queued', 'processing') THEN 0 WHEN ?2 = 'completed' THEN steps "
    "        ELSE step END, "
    " percent = CASE WHEN ?2 IN ('queued', 'processing') THEN 100.0 * "
    "   (SELECT COUNT(*) FROM job_samples s WHERE s.job_id = ?1 AND s.state = 'completed') "
    "   / (num_samples * num_variants) WHEN ?2 = 'completed' THEN 100.0 ELSE percent END, "
    " finished_at = CASE WHEN ?2 IN ('completed', 'failed', 'cancelled') THEN au_now_ms() ELSE 0 "
    "END "
    "WHERE id = ?1 AND state = ?3 AND (?13 < 0 OR lease_token = ?13) "
    "RETURNING lease_token, event_seq, attempt";

au_status au_job_change_state(au_db *db, const au_job_change *c, bool *changed, int64_t *token_out,
                              au_err *err)
{
    AU_ASSERT(allowed[c->from][c->to]);
    AU_ASSERT(au_db_in_transaction(db));
    au_rows *rows = NULL;
    au_status st = AU_OK;
    *changed = false;
    AU_TRY(au_db_query(&rows, db, err, change_sql, "tttiiiitiittiii", c->job_id,
                       au_job_state_name(c->to), au_job_state_name(c->from),
                       (int64_t)c->attempt_delta + c->claim, (int64_t)c->interruptions_delta,
                       (int64_t)c->deaths, (int64_t)c->claim, c->owner, c->lease_ms, c->backoff_ms,
                       c->error, c->attempts, c->token,
                       (int64_t)(au_job_state_is_final(c->to) ? 2 : 1), (int64_t)c->alone));
    bool has_row;
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (!has_row)
        goto done;
    int64_t token = au_rows_int(rows, 0), seq = au_rows_int(rows, 1),
            attempt = au_rows_int(rows, 2);
    au_rows_close(&rows);
    AU_TRY(emit_state(db, c, seq, attempt, err));
    if (token_out)
        *token_out = token;
    *changed = true;
done:
    au_rows_close(&rows);
    return st;
}

/* ---- Ends of attempts --------------------------------------------------------------------------
 */

au_status au_job_facts_get(au_db *db, const char *job_id, au_job_facts *out, bool *found,
                           au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    *out = (au_job_facts){0};
    *found = false;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT state, lease_token, attempt, max_attempts, deaths, interruptions, "
                       "attempt_started, lease_owner, attempts FROM jobs WHERE id = ?1",
                       "t", job_id));
    AU_TRY(au_rows_next(rows, found, err));
    if (!*found)
        goto done;
    AU_FAIL_IF(!au_job_state_parse(au_rows_text(rows, 0), &out->state), AU_CORRUPT,
               "job %s has an unknown state", job_id);
    out->token = au_rows_int(rows, 1);
    out->attempt = (int)au_rows_int(rows, 2);
    out->max_attempts = (int)au_rows_int(rows, 3);
    out->deaths = (int)au_rows_int(rows, 4);
    out->interruptions = (int)au_rows_int(rows, 5);
    out->attempt_started = au_rows_int(rows, 6);
    const char *owner = au_rows_text(rows, 7);
    if (owner && strlen(owner) < sizeof out->owner)
        memcpy(out->owner, owner, strlen(owner) + 1);
    AU_TRY(au_strdup(&out->attempts, au_rows_text(rows, 8), err));
done:
    au_rows_close(&rows);
    return st;
}

void au_job_facts_deinit(au_job_facts *facts)
{
    free(facts->attempts);
    facts->attempts = NULL;
}

static const char *title_of(const char *type)
{
    static const char *const titles[][2] = {
        {"model-error", "The model could not make the audio"},
        {"out-of-memory", "The worker ran out of memory"},
        {"storage", "The audio could not be stored"},
        {"worker-died", "The worker died"},
        {"poisoned", "The job ended its worker twice in a row"},
        {"stalled", "The job made no progress"},
        {"interrupted", "The server was interrupted too often"},
        {"deadline", "The deadline has passed"},
        {"model-changed", "The model is not the one the job was made for"},
        {"adapter-missing", "The adapter cannot be read"},
        {"invalid-job", "The job cannot be run"},
    };
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++) {
        if (strcmp(type, titles[i][0]) == 0)
            return titles[i][1];
    }
    return "The job failed";
}

au_status au_job_end_texts(const au_job_facts *f, const au_job_end *end, char **error,
                           char **attempts, au_err *err)
{
    json_t *list = NULL, *problem = NULL;
    au_status st = AU_OK;
    char began[AU_TIME_TEXT], ended[AU_TIME_TEXT], type[64];
    *error = *attempts = NULL;
    AU_TRY(au_json_parse(&list, f->attempts, strlen(f->attempts), "list of attempts", err));
    if (end->counted) {
        json_t *entry = json_pack("{s:i, s:s?, s:s, s:s, s:s}", "attempt", f->attempt, "worker",
                                  f->owner[0] ? f->owner : NULL, "started_at",
                                  au_time_format(began, f->attempt_started), "ended_at",
                                  au_time_format(ended, au_time_ms()), "reason",
                                  end->reason ? end->reason : end->type);
        AU_FAIL_IF(json_array_append_new(list, entry) != 0, AU_NOMEM, "out of memory");
    }
    snprintf(type, sizeof type, "/problems/%s", end->type);
    problem =
        json_pack("{s:s, s:s, s:i, s:s, s:b, s:O}", "type", type, "title", title_of(end->type),
                  "status", strcmp(end->type, "deadline") == 0 ? 504 : 500, "detail", end->detail,
                  "retryable", end->retryable, "attempts", list);
    AU_FAIL_IF(!problem, AU_INTERNAL, "error of the job is not valid text");
    AU_TRY(au_json_text(attempts, list, MAX_ATTEMPTS_BYTES, err));
    AU_TRY(au_json_text(error, problem, MAX_ATTEMPTS_BYTES, err));
done:
    json_decref(list);
    json_decref(problem);
    if (st != AU_OK) {
        free(*attempts);
        *attempts = NULL;
    }
    return st;
}

au_status au_job_drop_samples(au_db *db, const char *job_id, int64_t *n, au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, n, err,
                      "INSERT INTO uploads (key, job_id, lease_token, created_at) "
                      "SELECT store_key, job_id, -1, au_now_ms() FROM samples WHERE job_id = ?1 "
                      "UNION ALL SELECT r.store_key, s.job_id, -1, au_now_ms() FROM samples s "
                      "JOIN renditions r ON r.sample_id = s.id WHERE s.job_id = ?1",
                      "t", job_id));
    if (*n == 0)
        goto done;
    AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM samples WHERE job_id = ?1", "t", job_id));
    AU_TRY(au_db_exec(db, NULL, err,
                      "UPDATE job_samples SET state = 'queued', sample_id = NULL WHERE job_id = ?1",
                      "t", job_id));
done:
    return st;
}

int64_t au_job_backoff_ms(const au_limits *limits, int times)
{
    int64_t ms = limits->backoff_ms;
    for (int i = 0; i < times && ms < MAX_BACKOFF_MS; i++)
        ms *= 2;
    if (ms > MAX_BACKOFF_MS)
        ms = MAX_BACKOFF_MS;
    return ms / 2 + (ms > 1 ? (int64_t)(au_random_seed() % (uint64_t)(ms - ms / 2)) : 0);
}
