/* SPDX-License-Identifier: MIT */
/* /v1/samples: list and read. Changes are in api_samples_change.c, their sound in api_audio.c. */
#include "api/api.h"

static const char *const no_query[] = {NULL};

enum { LIST_MAX = 100, ROWS_MAX = 500 };

/* ---- Lists ---- */

/* The letters of the orders in cursors: of what was searched for in another row, since such a list
 * is ordered by document. */
static char order_letter(const au_sample_filter *f)
{
    static const char plain[] = "norls", found[] = "NOrls";
    return f->words ? found[f->sort] : plain[f->sort];
}

static bool order_is_real(const au_sample_filter *f)
{
    return f->sort == AU_SORT_LONGEST || f->sort == AU_SORT_SHORTEST;
}

static bool parse_what(au_http_request *rq, au_sample_filter *f)
{
    bool starred = false;
    const char *rating = au_http_query(rq, "min_rating");
    if (!au_query_words(rq, &f->words) || !au_query_uuid(rq, "job_id", &f->job_id) ||
        !au_query_uuid(rq, "prompt_id", &f->prompt_id) ||
        !au_query_uuid(rq, "adapter_id", &f->adapter_id) ||
        !au_query_bool(rq, "starred", &starred) ||
        !au_query_times(rq, &f->created_after, &f->created_before))
        return false;
    f->starred = !au_http_query(rq, "starred") ? 0 : starred ? 1 : -1;
    f->model_name = au_http_query(rq, "model");
    f->tag = au_http_query(rq, "tag");
    if (rating && (rating[0] < '1' || rating[0] > '5' || rating[1]))
        return au_query_refuse(rq, "min_rating", "an integer from 1 to 5");
    f->min_rating = rating ? rating[0] - '0' : 0;
    return true;
}

static bool parse_how(au_http_request *rq, au_sample_filter *f, bool *total)
{
    static const char *const sorts[] = {"newest", "oldest", "rating", "longest", "shortest", NULL};
    static const char *const fields[] = {"row", NULL};
    int sort = AU_SORT_NEWEST, row = -1;
    if (!au_query_choice(rq, "sort", sorts, "newest, oldest, rating, longest or shortest", &sort) ||
        !au_query_choice(rq, "fields", fields, "row", &row) || !au_query_bool(rq, "total", total) ||
        !au_query_limit(rq, row >= 0 ? ROWS_MAX : LIST_MAX, &f->limit))
        return false;
    f->sort = (au_sample_sort)sort;
    f->rows = row >= 0;
    return au_query_place(rq, order_letter(f), order_is_real(f), &f->after);
}

au_http_result au_list_samples(au_http_request *rq)
{
    static const char *const query[] = {
        "q",    "job_id",  "prompt_id",  "adapter_id",    "model",
        "tag",  "starred", "min_rating", "created_after", "created_before",
        "sort", "fields",  "total",      "limit",         "cursor",
        NULL};
    au_sample_filter filter = {0};
    au_err err;
    bool want_total = false, more;
    int64_t total = -1;
    au_sample **samples;
    size_t n;
    if (!au_http_query_parse(rq, query) || !parse_what(rq, &filter) ||
        !parse_how(rq, &filter, &want_total))
        return AU_HTTP_DONE;
    au_db *db = au_api_db(rq);
    au_status st = au_sample_list(db, au_http_arena(rq), &filter, &samples, &n, &more, &err);
    if (st == AU_OK && want_total)
        st = au_sample_count(db, &filter, &total, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&data,
                    filter.rows ? au_sample_row_json(samples[i]) : au_sample_json(samples[i]));
    char cursor[AU_CURSOR_TEXT];
    if (more) {
        au_place place = au_sample_place(&filter, samples[n - 1]);
        au_place_cursor(cursor, order_letter(&filter), order_is_real(&filter), &place);
    }
    return au_page_reply_at(rq, data, more ? cursor : NULL, total);
}

/* ---- One ---- */

const au_sample *au_api_sample(au_http_request *rq)
{
    au_err err;
    au_sample *sample;
    const char *id = au_api_id(rq);
    if (!id) {
        au_api_not_found(rq, "sample", au_http_param(rq, "id"));
        return NULL;
    }
    au_status st = au_sample_get(au_api_db(rq), au_http_arena(rq), id, &sample, &err);
    if (st == AU_OK && !sample->deleted_at)
        return sample;
    if (st == AU_OK)
        au_api_gone(rq, "sample", id);
    else if (st == AU_NOT_FOUND)
        au_api_not_found(rq, "sample", id);
    else
        au_api_failed(rq, st, &err);
    return NULL;
}

au_http_result au_get_sample(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const au_sample *sample = au_api_sample(rq);
    return sample ? au_http_reply_json(rq, 200, au_sample_json(sample)) : AU_HTTP_DONE;
}
