/* SPDX-License-Identifier: MIT */
/* GET /v1/comparisons/{id}/results: counts at any time (while the test is blind: after its close),
 * p-values once as many votes are there as were declared when the test was made, so that nobody
 * stops at a lucky moment. Where a figure is not defined it is null. */
#include <math.h>

#include "api/api.h"
#include "api/comparison_json.h"
#include "compare/results.h"

/* null where it is not finite. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *interval(double low, double high)
{
    return isfinite(low) && isfinite(high) ? json_pack("[f, f]", low, high) : json_null();
}

static json_t *share(int64_t k, int64_t n)
{
    return n ? json_real((double)k / (double)n) : json_null();
}

static json_t *wilson(int64_t k, int64_t n)
{
    double low, high;
    au_wilson95(k, n, &low, &high);
    return interval(low, high);
}

static json_t *arms_json(const au_comparison *c, const au_tally *t)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->n_arms; i++) {
        const au_arm_score *s = &t->arms[i];
        int64_t decided = s->wins + s->losses;
        au_list_add(&list,
                    json_pack("{s:I, s:o, s:I, s:I, s:I, s:I, s:o, s:o}", "variant", (json_int_t)i,
                              "adapter", au_arm_json(&c->arms[i]), "wins", (json_int_t)s->wins,
                              "losses", (json_int_t)s->losses, "ties", (json_int_t)s->ties,
                              "both_bad", (json_int_t)s->both_bad, "win_share",
                              share(s->wins, decided), "ci95", wilson(s->wins, decided)));
    }
    return list;
}

/* Abx: how often the side was found that is the reference; by chance that is one half. */
static json_t *abx_json(const au_tally *t, bool final)
{
    return json_pack("{s:I, s:I, s:o, s:o, s:o}", "trials", (json_int_t)t->votes, "correct",
                     (json_int_t)t->correct, "correct_share", share(t->correct, t->votes), "ci95",
                     wilson(t->correct, t->votes), "p_value",
                     final ? number(au_binomial_greater(t->correct, t->votes)) : json_null());
}

static json_t *tally_json(const au_comparison *c, const au_tally *t)
{
    if (c->mode == AU_COMPARE_ABX)
        return json_pack("{s:I, s:I, s:f}", "votes", (json_int_t)t->votes, "correct",
                         (json_int_t)t->correct, "heard_s", t->heard_s);
    return json_pack("{s:I, s:o, s:f}", "votes", (json_int_t)t->votes, "arms", arms_json(c, t),
                     "heard_s", t->heard_s);
}

static json_t *prompts_json(const au_comparison *c, const au_results *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_prompts; i++) {
        json_t *entry = tally_json(c, &r->prompts[i].tally);
        if (entry)
            json_object_set_new(
                entry, "prompt",
                json_pack("{s:s, s:s}", "id", r->prompts[i].prompt_id, "text", r->prompts[i].text));
        au_list_add(&list, entry);
    }
    return list;
}

static json_t *raters_json(const au_comparison *c, const au_results *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_raters; i++) {
        const au_rater_tally *t = &r->raters[i];
        json_t *entry = tally_json(c, &t->tally);
        if (entry) {
            json_object_set_new(entry, "rater", json_string(t->rater));
            json_object_set_new(entry, "session", json_integer(t->session));
            json_object_set_new(entry, "x_share",
                                share(t->tally.x_chosen, t->tally.x_chosen + t->tally.y_chosen));
        }
        au_list_add(&list, entry);
    }
    return list;
}

/* null for fewer than three arms, and where the model has no maximum. */
static json_t *scores_json(const au_comparison *c, const au_results *r)
{
    if (!r->has_scores)
        return json_null();
    json_t *list = json_array();
    for (size_t i = 0; i < c->n_arms; i++)
        au_list_add(&list, json_pack("{s:I, s:f, s:o}", "variant", (json_int_t)i, "score",
                                     r->scores[i].score, "ci95",
                                     interval(r->scores[i].low, r->scores[i].high)));
    return json_pack("{s:o, s:i, s:i}", "scores", list, "bootstrap_rounds", AU_BOOTSTRAP_ROUNDS,
                     "bootstrap_used", r->bootstrap_used);
}

static json_t *results_json(const au_comparison *c, const au_results *r, bool final)
{
    const au_tally *t = &r->all;
    int64_t sided = t->x_chosen + t->y_chosen;
    bool abx = c->mode == AU_COMPARE_ABX;
    double p = NAN;
    if (final && abx)
        p = au_binomial_greater(t->correct, t->votes);
    else if (final && c->n_arms == 2)
        p = au_binomial_two_sided(t->arms[0].wins, t->arms[0].wins + t->arms[0].losses);
    json_t *bias =
        json_pack("{s:o, s:o}", "x_share", share(t->x_chosen, sided), "p_value",
                  final ? number(au_binomial_two_sided(t->x_chosen, sided)) : json_null());
    return json_pack("{s:s, s:s, s:b, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "id", c->id,
                     "mode", au_comparison_mode_name(c->mode), "final", final, "votes",
                     (json_int_t)t->votes, "votes_wanted", (json_int_t)c->votes_wanted, "arms",
                     arms_json(c, t), "p_value", number(p), "side_bias", bias, "by_prompt",
                     prompts_json(c, r), "by_rater", raters_json(c, r), "bradley_terry",
                     scores_json(c, r), "abx", abx ? abx_json(t, final) : json_null());
}

au_http_result au_get_results(au_http_request *rq)
{
    static const char *const no_query[] = {NULL};
    const char *id = au_api_id(rq);
    au_comparison *c;
    au_results results;
    au_err err;
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    if (!id)
        return au_api_not_found(rq, "comparison", au_http_param(rq, "id"));
    if (!au_comparison_load(rq, id, &c))
        return AU_HTTP_DONE;
    if (c->mode == AU_COMPARE_VIEW)
        return au_http_problem(rq, AU_PROBLEM_CONFLICT,
                               "comparison %s is a view: nobody votes on it", id);
    if (au_comparison_is_hidden(c))
        return au_http_problem(rq, AU_PROBLEM_BLIND,
                               "comparison %s is blind: close it to see the results", id);
    bool final = c->votes >= c->votes_wanted;
    au_status st = au_results_get(au_api_db(rq), au_http_arena(rq), c, final, &results, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    return au_http_reply_json(rq, 200, results_json(c, &results, final));
}
