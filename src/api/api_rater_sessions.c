/* SPDX-License-Identifier: MIT */
/* Listening tests from the rater's side: a session with its token, the next trial, votes. The token
 * in the path is the right to vote, so these routes need no key; nothing here names a sample, a job
 * or an adapter. */
#include <string.h>

#include "api/api.h"
#include "api/comparison_json.h"
#include "api/json_check.h"
#include "api/media.h"
#include "base/str.h"

enum { MAX_HEARD_S = 86400 };

static const char *const no_query[] = {NULL};

/* The session of the path's token and its comparison. False: a problem has been set. */
static bool load_session(au_http_request *rq, au_rater_session **s, au_comparison **c)
{
    au_err err;
    au_status st =
        au_rater_session_get(au_api_db(rq), au_http_arena(rq), au_http_param(rq, "token"), s, &err);
    if (st == AU_OK)
        return au_comparison_load(rq, (*s)->comparison_id, c);
    if (st == AU_NOT_FOUND) /* the token is a secret: it is not repeated */
        au_http_problem(rq, AU_PROBLEM_NOT_FOUND, "no session has this token");
    else
        au_api_failed(rq, st, &err);
    return false;
}

/* ---- Sessions ---- */

typedef struct new_session {
    const char *comparison_id, *rater;
    au_arena *arena;
    char token[AU_RATER_TOKEN_TEXT];
} new_session;

static au_status write_session(au_db *db, void *arg, au_err *err)
{
    new_session *n = arg;
    au_comparison *c;
    au_status st = AU_OK;
    AU_TRY(au_comparison_get(db, n->arena, n->comparison_id, &c, err));
    AU_FAIL_IF(c->deleted_at, AU_NOT_FOUND, "comparison %.40s was deleted", n->comparison_id);
    AU_TRY(au_rater_session_create(db, c, n->rater, n->token, err));
done:
    return st;
}

static json_t *session_json(const au_comparison *c, const au_rater_session *s, const char *token)
{
    return json_pack(
        "{s:s, s:o, s:s, s:s, s:I, s:I, s:f, s:b, s:o, s:{s:o, s:o, s:o}}", "token", token, "url",
        json_sprintf("/t#%s", token), "mode", au_comparison_mode_name(c->mode), "rater", s->rater,
        "trials", (json_int_t)s->n_trials, "votes", (json_int_t)s->n_votes, "min_listen_s",
        c->min_listen_s, "closed", c->closed_at != 0, "created_at", au_time_json(s->created_at),
        "urls", "self", json_sprintf("/v1/sessions/%s", token), "next",
        json_sprintf("/v1/sessions/%s/next", token), "votes",
        json_sprintf("/v1/sessions/%s/votes", token));
}

static au_http_result reply_session(au_http_request *rq, int status, const char *token)
{
    au_err err;
    au_rater_session *s;
    au_comparison *c;
    au_status st = au_rater_session_get(au_api_db(rq), au_http_arena(rq), token, &s, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    if (!au_comparison_load(rq, s->comparison_id, &c))
        return AU_HTTP_DONE;
    au_http_set_header(rq, "Cache-Control", "no-store");
    return au_http_reply_json(rq, status, session_json(c, s, token));
}

static au_http_result session_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const new_session *n = o->arg;
    au_comparison *c;
    if (o->status == AU_NOT_FOUND)
        return au_comparison_load(rq, n->comparison_id, &c)
                   ? au_api_not_found(rq, "comparison", n->comparison_id)
                   : AU_HTTP_DONE;
    if (o->status == AU_CONFLICT)
        return au_http_problem(rq, AU_PROBLEM_CONFLICT, "%s", o->err.message);
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    au_http_set_header(rq, "Location", "/v1/sessions/%s", n->token);
    return reply_session(rq, 201, n->token);
}

au_http_result au_post_rater_session(au_http_request *rq)
{
    static const char *const fields[] = {"rater", NULL};
    const char *id = au_api_id(rq);
    json_t *body = NULL;
    au_comparison *c;
    if (!id)
        return au_api_not_found(rq, "comparison", au_http_param(rq, "id"));
    if (!au_http_query_parse(rq, no_query) ||
        (au_http_body_len(rq) && !au_http_body_json(rq, &body)))
        return AU_HTTP_DONE;
    new_session *n = au_arena_alloc(au_http_arena(rq), sizeof *n);
    if (!n)
        return au_api_busy(rq, 1, "out of memory");
    *n = (new_session){.comparison_id = id, .rater = "", .arena = au_http_arena(rq)};
    if (body) {
        au_check check;
        au_check_init(&check, au_http_arena(rq));
        if (au_check_object(&check, body, "", fields))
            au_check_text(&check, body, "", "rater", AU_LABEL_MAX_CHARS, &n->rater);
        if (!au_check_ok(&check))
            return au_check_reply(&check, rq);
        au_check_deinit(&check);
    }
    if (!au_comparison_load(rq, id, &c))
        return AU_HTTP_DONE;
    return au_api_create(
        rq, write_session, n, session_written,
        &(au_api_creation){.status = 201, .prefix = "/v1/sessions/", .id = n->token});
}

au_http_result au_get_rater_session(au_http_request *rq)
{
    au_rater_session *s;
    au_comparison *c;
    if (!au_http_query_parse(rq, no_query) || !load_session(rq, &s, &c))
        return AU_HTTP_DONE;
    au_http_set_header(rq, "Cache-Control", "no-store");
    return au_http_reply_json(rq, 200, session_json(c, s, au_http_param(rq, "token")));
}

/* ---- Trials ---- */

static json_t *side_json(const char *token, int n, const char *side, double gain_db)
{
    return json_pack("{s:o, s:f}", "url",
                     json_sprintf("/v1/sessions/%s/trials/%d/%s.wav", token, n, side), "gain_db",
                     gain_db);
}

au_http_result au_get_next_trial(au_http_request *rq)
{
    au_rater_session *s;
    au_comparison *c;
    au_trial *t;
    au_err err;
    if (!au_http_query_parse(rq, no_query) || !load_session(rq, &s, &c))
        return AU_HTTP_DONE;
    if (c->closed_at)
        return au_http_problem(rq, AU_PROBLEM_CONFLICT, "the test is closed");
    au_status st = au_trial_next(au_api_db(rq), au_http_arena(rq), s->id, &t, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    au_http_set_header(rq, "Cache-Control", "no-store");
    if (!t)
        return au_http_reply_empty(rq, 204);
    const char *token = au_http_param(rq, "token");
    json_t *j =
        json_pack("{s:s, s:i, s:I, s:s, s:o, s:o, s:f}", "trial_id", t->id, "n", t->n, "of",
                  (json_int_t)s->n_trials, "mode", au_comparison_mode_name(c->mode), "x",
                  side_json(token, t->n, "x", t->x_gain_db), "y",
                  side_json(token, t->n, "y", t->y_gain_db), "min_listen_s", c->min_listen_s);
    if (j && c->mode == AU_COMPARE_ABX)
        json_object_set_new(
            j, "reference",
            side_json(token, t->n, "reference", t->reference_is_x ? t->x_gain_db : t->y_gain_db));
    return au_http_reply_json(rq, 200, j);
}

/* One side of a trial: the same headers but for the sound, and a tag that is not the file's hash,
 * which samples show. */
static au_http_result get_side(au_http_request *rq, const char *side, au_http_handler again)
{
    au_rater_session *s;
    au_comparison *c;
    au_trial *t;
    au_sample *sample;
    au_err err;
    uint64_t n = 0;
    if (!au_http_query_parse(rq, no_query) || !load_session(rq, &s, &c))
        return AU_HTTP_DONE;
    if (side[0] == 'r' && c->mode != AU_COMPARE_ABX)
        return au_http_problem(rq, AU_PROBLEM_NOT_FOUND,
                               "only trials of mode abx have a reference");
    bool known = au_parse_u64(au_http_param(rq, "n"), &n) && n <= s->n_trials;
    au_status st = known
                       ? au_trial_get(au_api_db(rq), au_http_arena(rq), s->id, (int)n, "", &t, &err)
                       : AU_NOT_FOUND;
    if (st == AU_NOT_FOUND)
        return au_api_not_found(rq, "trial", au_http_param(rq, "n"));
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    if (strcmp(au_http_param(rq, "ext"), "wav") != 0)
        return au_http_problem(rq, AU_PROBLEM_NOT_ACCEPTABLE,
                               "trials are heard as wav, not \"%.20s\"", au_http_param(rq, "ext"));
    bool x = side[0] == 'r' ? t->reference_is_x : side[0] == 'x';
    st = au_sample_get(au_api_db(rq), au_http_arena(rq), x ? t->sample_x : t->sample_y, &sample,
                       &err);
    if (st == AU_OK && sample->deleted_at)
        return au_http_problem(rq, AU_PROBLEM_GONE, "the audio of trial %d was deleted", t->n);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    const char *etag = au_arena_printf(au_http_arena(rq), "\"%s-%s\"", t->id, side);
    if (!etag)
        return au_api_busy(rq, 1, "out of memory");
    return au_audio_reply(
        rq, sample,
        &(au_audio_want){
            .extension = "wav", .bare = true, .etag = etag, .cache_control = "private, no-store"},
        again);
}

au_http_result au_get_trial_x(au_http_request *rq)
{
    return get_side(rq, "x", au_get_trial_x);
}

au_http_result au_get_trial_y(au_http_request *rq)
{
    return get_side(rq, "y", au_get_trial_y);
}

au_http_result au_get_trial_reference(au_http_request *rq)
{
    return get_side(rq, "reference", au_get_trial_reference);
}

/* ---- Votes ---- */

typedef struct new_vote {
    const au_rater_session *session;
    const au_trial *trial;
    au_choice choice;
    const char *choice_name;
    double heard_x_s, heard_y_s;
} new_vote;

static au_status write_vote(au_db *db, void *arg, au_err *err)
{
    const new_vote *v = arg;
    return au_vote_add(db, v->trial->id, v->choice, v->heard_x_s, v->heard_y_s, err);
}

static json_t *vote_json(const au_rater_session *s, const au_trial *t, const au_vote *v)
{
    return json_pack("{s:s, s:i, s:I, s:I, s:s, s:f, s:f, s:o}", "trial_id", t->id, "n", t->n, "of",
                     (json_int_t)s->n_trials, "remaining", (json_int_t)(s->n_trials - s->n_votes),
                     "choice", v->choice, "heard_x_s", v->heard_x_s, "heard_y_s", v->heard_y_s,
                     "created_at", au_time_json(v->created_at));
}

static au_http_result reply_vote(au_http_request *rq, int status, const char *trial_id)
{
    au_rater_session *s;
    au_comparison *c;
    au_trial *t;
    au_vote *v;
    au_err err;
    if (!load_session(rq, &s, &c))
        return AU_HTTP_DONE;
    au_status st = au_trial_get(au_api_db(rq), au_http_arena(rq), s->id, 0, trial_id, &t, &err);
    if (st == AU_OK)
        st = au_vote_get(au_api_db(rq), au_http_arena(rq), trial_id, &v, &err);
    if (st == AU_NOT_FOUND)
        return au_api_not_found(rq, "vote", trial_id);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    return au_http_reply_json(rq, status, vote_json(s, t, v));
}

static au_http_result vote_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const new_vote *v = o->arg;
    if (o->status == AU_CONFLICT)
        return au_http_problem(rq, AU_PROBLEM_CONFLICT, "%s", o->err.message);
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    au_http_set_header(rq, "Location", "/v1/sessions/%s/votes/%s", au_http_param(rq, "token"),
                       v->trial->id);
    return reply_vote(rq, 201, v->trial->id);
}

/* Seconds that a side was heard; less than the test asks for is refused. */
static void check_heard(au_check *c, const json_t *body, const char *key, double min_s, double *out)
{
    const char *pointer = au_check_at(c, "", key);
    if (!json_object_get(body, key)) {
        au_check_add(c, pointer, "missing", NULL);
        return;
    }
    if (au_check_real(c, body, "", key, 0, MAX_HEARD_S, false, out) && *out < min_s)
        au_check_add(c, pointer, "not_listened",
                     json_pack("{s:f, s:f}", "min", min_s, "missing_s", min_s - *out));
}

static void check_choice(au_check *c, const json_t *body, au_comparison_mode mode, new_vote *v)
{
    bool abx = mode == AU_COMPARE_ABX;
    if (!au_check_text(c, body, "", "choice", AU_LABEL_MAX_CHARS, &v->choice_name)) {
        if (!json_object_get(body, "choice"))
            au_check_add(c, "/choice", "missing", NULL);
    } else if (!au_choice_parse(v->choice_name, &v->choice) || (abx && v->choice > AU_CHOICE_Y)) {
        au_check_add(c, "/choice", "unknown_value",
                     abx ? json_pack("{s:[s,s]}", "known", "x", "y")
                         : json_pack("{s:[s,s,s,s]}", "known", "x", "y", "tie", "both_bad"));
    }
}

/* The trial that the body names. Another status than AU_OK: the database failed. */
static au_status check_trial(au_check *c, au_http_request *rq, const json_t *body, new_vote *v,
                             au_err *err)
{
    const char *id;
    au_trial *t;
    if (!au_check_text(c, body, "", "trial_id", AU_LABEL_MAX_CHARS, &id)) {
        if (!json_object_get(body, "trial_id"))
            au_check_add(c, "/trial_id", "missing", NULL);
        return AU_OK;
    }
    au_status st = au_trial_get(au_api_db(rq), au_http_arena(rq), v->session->id, 0, id, &t, err);
    if (st == AU_NOT_FOUND) {
        au_check_add(c, "/trial_id", "not_found", json_pack("{s:s}", "id", id));
        return AU_OK;
    }
    v->trial = st == AU_OK ? t : NULL;
    return st;
}

au_http_result au_post_vote(au_http_request *rq)
{
    static const char *const fields[] = {"trial_id", "choice", "heard_x_s", "heard_y_s", NULL};
    json_t *body;
    au_rater_session *s;
    au_comparison *comparison;
    au_err err;
    if (!au_http_query_parse(rq, no_query) || !au_http_body_json(rq, &body) ||
        !load_session(rq, &s, &comparison))
        return AU_HTTP_DONE;
    new_vote *v = au_arena_alloc(au_http_arena(rq), sizeof *v);
    const char *prefix =
        au_arena_printf(au_http_arena(rq), "/v1/sessions/%s/votes/", au_http_param(rq, "token"));
    if (!v || !prefix)
        return au_api_busy(rq, 1, "out of memory");
    *v = (new_vote){.session = s};
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    au_status st = AU_OK;
    if (au_check_object(&c, body, "", fields)) {
        check_choice(&c, body, comparison->mode, v);
        check_heard(&c, body, "heard_x_s", comparison->min_listen_s, &v->heard_x_s);
        check_heard(&c, body, "heard_y_s", comparison->min_listen_s, &v->heard_y_s);
        st = check_trial(&c, rq, body, v, &err);
    }
    if (st != AU_OK) {
        au_check_deinit(&c);
        return au_api_failed(rq, st, &err);
    }
    if (!au_check_ok(&c))
        return au_check_reply(&c, rq);
    au_check_deinit(&c);
    return au_api_create(rq, write_vote, v, vote_written,
                         &(au_api_creation){.status = 201, .prefix = prefix, .id = v->trial->id});
}

au_http_result au_get_vote(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const char *id = au_api_id(rq);
    return id ? reply_vote(rq, 200, id) : au_api_not_found(rq, "vote", au_http_param(rq, "id"));
}
