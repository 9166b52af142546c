/* SPDX-License-Identifier: MIT */
/* `aulos jobs list | show | watch | cancel`: jobs through a server, or in the data folder, whose
 * database is shared with a running server. Either way a job is the JSON that the API gives, so
 * what follows does not care where it came from. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"
#include "base/clock.h"
#include "base/fs.h"
#include "cli/cli.h"
#include "cli/remote.h"

enum { SHOWN = 100, WATCH_MS = 250, ARENA_BYTES = 64 << 20, PATH_BYTES = 128, BAR_WIDTH = 30 };

/* Where the jobs are: a database, or a server. */
typedef struct source {
    au_db *db; /* NULL: the server */
    const char *server, *key;
} source;

static au_status source_open(source *s, const au_options *o, au_err *err)
{
    char *path = NULL;
    au_status st = AU_OK;
    *s = (source){.server = au_options_text(o, AU_OPT_SERVER),
                  .key = au_options_text(o, AU_OPT_KEY)};
    if (s->server)
        return AU_OK;
    AU_TRY(au_path_join(&path, au_options_text(o, AU_OPT_DATA), "aulos.db", err));
    st = au_db_open(&s->db, path, NULL, err);
    if (st == AU_NOT_FOUND)
        st = au_fail(err, AU_NOT_FOUND, "%s is no data folder: there is no aulos.db in it",
                     au_options_text(o, AU_OPT_DATA));
done:
    free(path);
    return st;
}

static au_status get_local(au_db *db, const char *id, json_t **out, au_err *err)
{
    au_arena arena;
    au_job *job;
    au_status st = AU_OK;
    au_arena_init(&arena, ARENA_BYTES);
    AU_TRY(au_job_get(db, &arena, id, &job, err));
    AU_FAIL_IF(job->deleted_at, AU_NOT_FOUND, "job %.40s was deleted", id);
    *out = au_job_json(job);
    AU_FAIL_IF(!*out, AU_NOMEM, "out of memory");
done:
    au_arena_deinit(&arena);
    return st;
}

static au_status get_job(const source *s, const char *id, json_t **out, au_err *err)
{
    char path[PATH_BYTES];
    if (s->db)
        return get_local(s->db, id, out, err);
    snprintf(path, sizeof path, "/v1/jobs/%.40s", id);
    return au_remote_call(out, s->server, s->key, "GET", path, NULL, err);
}

static au_status list_local(au_db *db, json_t **out, au_err *err)
{
    const au_job_filter filter = {.limit = SHOWN};
    au_arena arena;
    au_job **jobs;
    size_t n;
    bool more;
    json_t *data = json_array();
    au_status st = AU_OK;
    au_arena_init(&arena, ARENA_BYTES);
    AU_TRY(au_job_list(db, &arena, &filter, &jobs, &n, &more, err));
    for (size_t i = 0; i < n; i++)
        au_list_add(&data, au_job_json(jobs[i]));
    *out = json_pack("{s:O, s:b}", "data", data, "has_more", more);
    AU_FAIL_IF(!*out, AU_NOMEM, "out of memory");
done:
    json_decref(data);
    au_arena_deinit(&arena);
    return st;
}

static au_status cancel_local(au_db *db, const char *id, au_err *err)
{
    au_cancel_result result;
    au_job_state state;
    au_status st = AU_OK;
    AU_TRY(au_db_begin(db, AU_DB_DURABLE, err));
    AU_TRY(au_job_cancel(db, id, &result, &state, err));
    AU_FAIL_IF(result == AU_CANCEL_TOO_LATE, AU_CONFLICT,
               "job %.40s is %s already and cannot be cancelled", id, au_job_state_name(state));
    AU_TRY(au_db_commit(db, err));
done:
    if (st != AU_OK)
        au_db_rollback(db);
    return st;
}

static au_status cancel_job(const source *s, const char *id, json_t **out, au_err *err)
{
    char path[PATH_BYTES];
    au_status st = AU_OK;
    if (!s->db) {
        snprintf(path, sizeof path, "/v1/jobs/%.40s/cancel", id);
        return au_remote_call(out, s->server, s->key, "POST", path, NULL, err);
    }
    AU_TRY(cancel_local(s->db, id, err));
    AU_TRY(get_local(s->db, id, out, err));
done:
    return st;
}

/* ---- Output ---- */

static const char *text_of(const json_t *job, const char *member)
{
    const char *text = json_string_value(json_object_get(job, member));
    return text ? text : "-";
}

static double percent_of(const json_t *job)
{
    if (strcmp(text_of(job, "state"), "completed") == 0)
        return 100;
    return json_number_value(json_object_get(json_object_get(job, "progress"), "percent"));
}

static void print_row(const json_t *job)
{
    const json_t *prompt = json_object_get(job, "prompt");
    printf("%-36s  %-10s  %5.1f  %-24s  %.60s\n", text_of(job, "id"), text_of(job, "state"),
           percent_of(job), text_of(job, "created_at"), text_of(prompt, "text"));
}

static void print_rows(const json_t *jobs)
{
    printf("%-36s  %-10s  %5s  %-24s  %s\n", "ID", "STATE", "%", "CREATED", "PROMPT");
    for (size_t i = 0; i < json_array_size(jobs); i++)
        print_row(json_array_get(jobs, i));
}

static void print_job(const json_t *job)
{
    const json_t *samples = json_object_get(job, "samples");
    print_row(job);
    for (size_t i = 0; i < json_array_size(samples); i++) {
        const json_t *s = json_array_get(samples, i);
        printf("  sample %lld of variant %lld: %s %s, seed %lld\n",
               (long long)json_integer_value(json_object_get(s, "index")),
               (long long)json_integer_value(json_object_get(s, "variant")), text_of(s, "state"),
               text_of(s, "sample_id"), (long long)json_integer_value(json_object_get(s, "seed")));
    }
    const json_t *error = json_object_get(job, "error");
    if (json_is_object(error))
        printf("  error: %s\n", text_of(error, "detail"));
}

static au_status print(const au_options *o, const json_t *j, au_err *err)
{
    const json_t *list = json_object_get(j, "data");
    if (au_options_flag(o, AU_OPT_JSON))
        return au_cli_print_json(j, err);
    if (list)
        print_rows(list);
    else
        print_job(j);
    return fflush(stdout) == 0 ? AU_OK : au_fail(err, AU_IO, "cannot write to standard output");
}

/* ---- Watching ---- */

static void draw(const json_t *job)
{
    char cells[BAR_WIDTH + 1];
    double percent = percent_of(job);
    int full = (int)(percent / 100 * BAR_WIDTH);
    for (int i = 0; i < BAR_WIDTH; i++)
        cells[i] = i < full ? '#' : '.';
    cells[BAR_WIDTH] = '\0';
    const json_t *place = json_object_get(json_object_get(job, "queue"), "position");
    fprintf(stderr, "\r[%s] %5.1f %%  %s", cells, percent, text_of(job, "state"));
    if (place)
        fprintf(stderr, ", place %lld", (long long)json_integer_value(place));
    fputs("\033[K", stderr);
    fflush(stderr);
}

/* Looks until the job is final; *out is the job then. */
static au_status watch(const source *s, const char *id, bool bar, json_t **out, au_err *err)
{
    au_status st = AU_OK;
    au_job_state state = AU_JOB_QUEUED;
    while (true) {
        AU_TRY(get_job(s, id, out, err));
        AU_FAIL_IF(!au_job_state_parse(text_of(*out, "state"), &state), AU_CORRUPT,
                   "job %.40s has the unknown state %s", id, text_of(*out, "state"));
        if (au_job_state_is_final(state))
            break;
        if (bar)
            draw(*out);
        json_decref(*out);
        *out = NULL;
        au_sleep_ms(WATCH_MS);
    }
done:
    if (bar)
        fputs("\r\033[K", stderr);
    return st;
}

static au_status run(const au_options *o, const char *what, const char *id, bool *well, au_err *err)
{
    source s = {0};
    json_t *result = NULL;
    au_status st = AU_OK;
    *well = true;
    AU_TRY(source_open(&s, o, err));
    if (strcmp(what, "list") == 0 && s.db) {
        AU_TRY(list_local(s.db, &result, err));
    } else if (strcmp(what, "list") == 0) {
        AU_TRY(au_remote_call(&result, s.server, s.key, "GET", "/v1/jobs?limit=100", NULL, err));
    } else if (strcmp(what, "show") == 0) {
        AU_TRY(get_job(&s, id, &result, err));
    } else if (strcmp(what, "cancel") == 0) {
        AU_TRY(cancel_job(&s, id, &result, err));
    } else {
        AU_TRY(watch(&s, id, !au_options_flag(o, AU_OPT_QUIET) && isatty(STDERR_FILENO), &result,
                     err));
        *well = strcmp(text_of(result, "state"), "completed") == 0;
    }
    AU_TRY(print(o, result, err));
done:
    json_decref(result);
    au_db_close(&s.db);
    return st;
}

int au_command_jobs(const au_options *o)
{
    static const char *const known[] = {"list", "show", "watch", "cancel"};
    const char *what = au_options_arg(o, 0), *id = au_options_arg(o, 1);
    size_t n = au_options_n_args(o), i = 0;
    bool well;
    au_err err = {0};
    while (what && i < 4 && strcmp(what, known[i]) != 0)
        i++;
    if (!what)
        return au_cli_usage("jobs needs list, show ID, watch ID or cancel ID");
    if (i == 4)
        return au_cli_usage("unknown subcommand jobs %s, expected list, show, watch or cancel",
                            what);
    if (n != (i == 0 ? 1u : 2u))
        return au_cli_usage("jobs %s takes %s, found %zu arguments", what,
                            i == 0 ? "no argument" : "one ID", n - 1);
    if (i > 0 && !au_uuid_valid(id))
        return au_cli_usage("\"%.60s\" is no id of a job", id);
    au_status st = run(o, what, id, &well, &err);
    if (st != AU_OK)
        return au_cli_error(&err, st == AU_INVALID ? AU_EXIT_USAGE : AU_EXIT_FAILED);
    return well ? AU_EXIT_OK : AU_EXIT_FAILED;
}
