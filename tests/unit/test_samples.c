/* SPDX-License-Identifier: MIT */
/* Lists of samples and prompts: every order page by page, filters, searching, and what changes,
 * deletions and restorations do to what is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "jobs/deletion.h"
#include "jobs_fixture.h"

enum { MANY = 37 };

static char ids[MANY][AU_UUID_TEXT];

/* One sample by way of a job: its text, and how many milliseconds after the epoch it was made. */
static void add(fixture *f, char id[AU_UUID_TEXT], const char *text, int64_t created_at,
                double duration_s)
{
    au_lease lease;
    char job_id[AU_UUID_TEXT], worker[AU_UUID_TEXT];
    au_job_new job = plain_job();
    job.prompt_text = text;
    au_uuid7(worker);
    submit(f, &job, job_id);
    assert_true(claim_as(f, worker, &lease));
    assert_true(make_sample(f, &lease, 0, 0));
    memcpy(id, look(f, job_id)->samples[0].sample_id, AU_UUID_TEXT);
    TX(au_db_exec(f->db, NULL, &f->err,
                  "UPDATE samples SET created_at = ?2, duration_s = ?3 WHERE id = ?1", "tid", id,
                  created_at, duration_s));
}

/* Times and lengths with doubles among them, every third rated, every fifth with a star. */
static void add_many(fixture *f)
{
    for (int i = 0; i < MANY; i++) {
        char text[64];
        au_change change;
        snprintf(text, sizeof text, "harp number%d %s", i, i % 2 ? "Caf\xc3\xa9" : "calm");
        add(f, ids[i], text, 1000 + i / 3, (i * 7 % 11) / 4.0);
        const au_sample_edit edit = {.rating = i % 3 == 0 ? 1 + i % 5 : -1, .starred = i % 5 == 0};
        TX(au_sample_change(f->db, ids[i], &edit, 0, &change, &f->err));
        assert_int_equal(change, AU_CHANGE_DONE);
    }
}

static int64_t value_of(const au_sample *s, au_sample_sort sort)
{
    switch (sort) {
    case AU_SORT_RATING:
        return -s->rating;
    case AU_SORT_LONGEST:
        return (int64_t)(-s->duration_s * 1000);
    case AU_SORT_SHORTEST:
        return (int64_t)(s->duration_s * 1000);
    case AU_SORT_NEWEST:
        return -s->created_at;
    case AU_SORT_OLDEST:
        break;
    }
    return s->created_at;
}

/* All pages of a filter; how many there were, each once and in order. */
static size_t walk(fixture *f, au_sample_filter filter)
{
    au_sample **page;
    size_t n, total = 0;
    bool more = true;
    char seen[2 * MANY][AU_UUID_TEXT];
    int64_t last = INT64_MIN, counted;
    au_place place;
    while (more) {
        OK(au_sample_list(f->db, &f->arena, &filter, &page, &n, &more, &f->err));
        for (size_t i = 0; i < n; i++) {
            /* What is searched for comes in the order in which it was made. */
            bool by_doc = filter.words && filter.sort <= AU_SORT_OLDEST;
            int64_t value = by_doc ? (filter.sort == AU_SORT_NEWEST ? -page[i]->doc : page[i]->doc)
                                   : value_of(page[i], filter.sort);
            assert_true(value >= last);
            last = value;
            for (size_t k = 0; k < total; k++)
                assert_string_not_equal(seen[k], page[i]->id);
            memcpy(seen[total++], page[i]->id, AU_UUID_TEXT);
        }
        assert_true(n > 0 || !more);
        if (more) {
            place = au_sample_place(&filter, page[n - 1]);
            filter.after = &place;
        }
    }
    OK(au_sample_count(f->db, &filter, &counted, &f->err));
    assert_int_equal(counted, total);
    return total;
}

static void test_every_order_page_by_page(void **state)
{
    fixture *f = *state;
    char words[AU_SEARCH_WORDS];
    add_many(f);
    assert_true(au_search_words(words, "harp"));
    for (int sort = 0; sort < AU_SORT_COUNT; sort++) {
        for (int limit = 1; limit <= MANY + 1; limit += 5) {
            for (int rows = 0; rows < 2; rows++) {
                au_sample_filter filter = {
                    .sort = (au_sample_sort)sort, .limit = limit, .rows = rows};
                assert_int_equal(walk(f, filter), MANY);
                filter.words = words;
                assert_int_equal(walk(f, filter), MANY);
                filter.starred = 1;
                assert_int_equal(walk(f, filter), 8);
                filter.words = NULL;
                assert_int_equal(walk(f, filter), 8);
            }
        }
    }
}

/* A list that changes between two pages: nothing that stays is missed or seen twice. */
static void test_a_place_stays_right_when_the_list_changes(void **state)
{
    fixture *f = *state;
    au_sample **page;
    size_t n, total = 0;
    bool more = true, deleted;
    char fresh[AU_UUID_TEXT];
    au_place place;
    add_many(f);
    au_sample_filter filter = {.limit = 10};
    for (int round = 0; more; round++) {
        OK(au_sample_list(f->db, &f->arena, &filter, &page, &n, &more, &f->err));
        total += n;
        if (!more)
            break;
        place = au_sample_place(&filter, page[n - 1]);
        filter.after = &place;
        /* The very element that the place names goes, and a newer one comes. */
        TX(au_sample_delete(f->db, page[n - 1]->id, &deleted, &f->err));
        add(f, fresh, "new", 5000 + round, 1);
    }
    assert_int_equal(total, MANY);
}

static void test_filters(void **state)
{
    fixture *f = *state;
    add_many(f);
    assert_int_equal(walk(f, (au_sample_filter){.starred = 1}), 8);
    assert_int_equal(walk(f, (au_sample_filter){.starred = -1}), MANY - 8);
    assert_int_equal(walk(f, (au_sample_filter){.min_rating = 1}), 13);
    assert_int_equal(walk(f, (au_sample_filter){.min_rating = 5}), 2);
    assert_int_equal(walk(f, (au_sample_filter){.created_after = 1000}), MANY - 3);
    assert_int_equal(walk(f, (au_sample_filter){.created_before = 1000}), 0);
    assert_int_equal(walk(f, (au_sample_filter){.created_before = 1001}), 3);
    assert_int_equal(walk(f, (au_sample_filter){.created_after = 1000, .created_before = 1003}), 6);
    assert_int_equal(walk(f, (au_sample_filter){.model_name = "m", .starred = 1}), 8);
    assert_int_equal(walk(f, (au_sample_filter){.model_name = "other"}), 0);
    assert_int_equal(walk(f, (au_sample_filter){.job_id = ids[0]}), 0);
}

static size_t find(fixture *f, const char *text)
{
    char words[AU_SEARCH_WORDS];
    assert_true(au_search_words(words, text));
    return walk(f, (au_sample_filter){.words = words, .limit = 100});
}

static void test_searching(void **state)
{
    fixture *f = *state;
    add_many(f);
    assert_int_equal(find(f, "harp"), MANY);
    assert_int_equal(find(f, "HAR"), MANY);
    assert_int_equal(find(f, "arp"), 0); /* words from their beginning */
    assert_int_equal(find(f, "calm harp"), 19);
    assert_int_equal(find(f, "harp, calm!"), 19);
    assert_int_equal(find(f, "caf\xc3\xa9"), 18);
    assert_int_equal(find(f, "CAFE"), 18);
    assert_int_equal(find(f, "number7"), 1);
    assert_int_equal(find(f, "number7 calm"), 0);
    assert_int_equal(find(f, "number3"), 8); /* 3, 30 ... 36 */
    assert_int_equal(find(f, "harp \xe2\x80\x94 calm"), 19);
    assert_int_equal(find(f, "!!!"), 0);
    assert_int_equal(find(f, "\" OR harp"), 0);
    assert_int_equal(find(f, "harp NOT calm"), 0);
    assert_int_equal(find(f, "prompt:harp"), 0);
}

static void test_search_words(void **state)
{
    (void)state;
    char out[AU_SEARCH_WORDS], text[4 * AU_SEARCH_MAX_CHARS + 1];
    assert_true(au_search_words(out, "a \"b* -c"));
    assert_string_equal(out, "\"a\"* \"b\"* \"c\"*");
    assert_true(au_search_words(out, ""));
    assert_string_equal(out, "\"\"");
    assert_true(au_search_words(out, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"));
    assert_false(au_search_words(out, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17"));
    /* The longest there may be: 200 characters of four bytes. */
    for (size_t i = 0; i < AU_SEARCH_MAX_CHARS; i++)
        memcpy(text + 4 * i, "\xf0\x9f\x8e\xb5", 4);
    text[sizeof text - 1] = '\0';
    assert_true(au_search_words(out, text));
    assert_int_equal(strlen(out), sizeof text + 2);
}

static void test_what_is_found_follows_changes(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_change change;
    au_sample *s;
    bool done;
    add(f, id, "bells", 1, 1);
    assert_int_equal(find(f, "trailer"), 0);
    const au_sample_edit edit = {
        .title = "for the Trailer", .tags = "[\"a\",\"b c\"]", .rating = 4, .starred = 1};
    OK(au_sample_get(f->db, &f->arena, id, &s, &f->err));
    int64_t revision = s->revision;
    TX(au_sample_change(f->db, id, &edit, revision + 1, &change, &f->err));
    assert_int_equal(change, AU_CHANGE_STALE);
    TX(au_sample_change(f->db, id, &edit, revision, &change, &f->err));
    assert_int_equal(change, AU_CHANGE_DONE);
    OK(au_sample_get(f->db, &f->arena, id, &s, &f->err));
    assert_int_equal(s->revision, revision + 1);
    assert_int_equal(s->rating, 4);
    assert_true(s->starred);
    assert_string_equal(s->tags, "[\"a\",\"b c\"]");
    assert_int_equal(find(f, "trailer"), 1);
    assert_int_equal(find(f, "bells trailer"), 1);
    assert_int_equal(walk(f, (au_sample_filter){.tag = "b c"}), 1);
    assert_int_equal(walk(f, (au_sample_filter){.tag = "b"}), 0);
    /* What is not named stays. */
    const au_sample_edit less = {.rating = 0, .starred = -1, .tags = "[\"a\"]"};
    TX(au_sample_change(f->db, id, &less, 0, &change, &f->err));
    OK(au_sample_get(f->db, &f->arena, id, &s, &f->err));
    assert_int_equal(s->rating, 0);
    assert_true(s->starred);
    assert_string_equal(s->title, "for the Trailer");
    assert_int_equal(walk(f, (au_sample_filter){.tag = "b c"}), 0);
    assert_int_equal(walk(f, (au_sample_filter){.tag = "a"}), 1);
    TX(au_sample_delete(f->db, id, &done, &f->err));
    assert_int_equal(find(f, "bells"), 0);
    assert_int_equal(walk(f, (au_sample_filter){.tag = "a"}), 0);
    assert_int_equal(walk(f, (au_sample_filter){0}), 0);
    TX(au_sample_change(f->db, id, &edit, 0, &change, &f->err));
    assert_int_equal(change, AU_CHANGE_GONE);
    TX(au_sample_restore(f->db, id, &done, &f->err));
    assert_int_equal(find(f, "bells trailer"), 1);
    assert_int_equal(walk(f, (au_sample_filter){.tag = "a"}), 1);
    TX(au_db_exec(f->db, NULL, &f->err, "DELETE FROM samples WHERE id = ?1", "t", id));
    assert_int_equal(find(f, "bells"), 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM sample_docs"), 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM sample_tags"), 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM sample_words"), 0);
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_sample_change(f->db, id, &edit, 0, &change, &f->err), AU_NOT_FOUND);
    au_db_rollback(f->db);
}

/* ---- Prompts ---- */

static size_t prompts(fixture *f, au_prompt_filter filter)
{
    au_prompt **page;
    size_t n, total = 0;
    bool more = true;
    int64_t counted;
    au_place place;
    filter.limit = 2;
    while (more) {
        OK(au_prompt_list(f->db, &f->arena, &filter, &page, &n, &more, &f->err));
        total += n;
        if (more) {
            place = au_prompt_place(&filter, page[n - 1]);
            filter.after = &place;
        }
    }
    OK(au_prompt_count(f->db, &filter, &counted, &f->err));
    assert_int_equal(counted, total);
    return total;
}

static size_t find_prompts(fixture *f, const char *text)
{
    char words[AU_SEARCH_WORDS];
    assert_true(au_search_words(words, text));
    size_t n = prompts(f, (au_prompt_filter){.words = words});
    assert_int_equal(prompts(f, (au_prompt_filter){.words = words, .oldest_first = true}), n);
    return n;
}

static size_t with(fixture *f, const char *attributes)
{
    return prompts(f, (au_prompt_filter){.attributes = attributes});
}

static void test_prompts_by_word_and_attribute(void **state)
{
    fixture *f = *state;
    static const char *const attributes[] = {
        "{\"mood\":\"calm\",\"tempo_bpm\":80,\"instruments\":[\"harp\",\"flute\"]}",
        "{\"mood\":\"calm\",\"tempo_bpm\":80.0,\"live\":true}",
        "{\"mood\":[\"wild\",\"calm\",\"wild\"],\"tempo_bpm\":80.5}",
        "{\"mood\":null,\"deep\":{\"mood\":\"calm\"},\"list\":[[1],null,{}]}",
        "{}",
    };
    enum { N = sizeof attributes / sizeof *attributes };
    char id[N][AU_UUID_TEXT];
    au_change change;
    au_prompt *p;
    for (size_t i = 0; i < N; i++)
        TX(au_prompt_create(f->db, i % 2 ? "quick drums" : "slow harp", NULL, attributes[i], "t",
                            id[i], &f->err));
    assert_int_equal(prompts(f, (au_prompt_filter){0}), N);
    assert_int_equal(prompts(f, (au_prompt_filter){.oldest_first = true}), N);
    assert_int_equal(with(f, "{\"mood\":\"calm\"}"), 3);
    assert_int_equal(with(f, "{\"mood\":\"wild\"}"), 1);
    assert_int_equal(with(f, "{\"mood\":\"calm\",\"tempo_bpm\":80}"), 2);
    assert_int_equal(with(f, "{\"tempo_bpm\":80.5}"), 1);
    assert_int_equal(with(f, "{\"tempo_bpm\":\"80\"}"), 0);
    assert_int_equal(with(f, "{\"instruments\":\"flute\",\"mood\":\"calm\"}"), 1);
    assert_int_equal(with(f, "{\"live\":true}"), 1);
    assert_int_equal(with(f, "{\"list\":1}"), 0);
    assert_int_equal(find_prompts(f, "harp"), 3);
    assert_int_equal(find_prompts(f, "flute"), 1);
    assert_int_equal(find_prompts(f, "slow wild"), 1);

    OK(au_prompt_get(f->db, &f->arena, id[0], &p, &f->err));
    TX(au_prompt_change(f->db, id[0], "Overture", "{\"mood\":\"grim\"}", p, &change, &f->err));
    assert_int_equal(change, AU_CHANGE_DONE);
    TX(au_prompt_change(f->db, id[0], "Again", NULL, p, &change, &f->err));
    assert_int_equal(change, AU_CHANGE_STALE);
    assert_int_equal(with(f, "{\"mood\":\"calm\"}"), 2);
    assert_int_equal(with(f, "{\"mood\":\"grim\"}"), 1);
    assert_int_equal(find_prompts(f, "overture slow"), 1);
    assert_int_equal(find_prompts(f, "flute"), 0);

    TX(au_prompt_delete(f->db, id[0], p, &change, &f->err));
    assert_int_equal(change, AU_CHANGE_STALE);
    TX(au_prompt_delete(f->db, id[0], NULL, &change, &f->err));
    assert_int_equal(change, AU_CHANGE_DONE);
    assert_int_equal(with(f, "{\"mood\":\"grim\"}"), 0);
    assert_int_equal(find_prompts(f, "overture"), 0);
    TX(au_prompt_restore(f->db, id[0], &change, &f->err));
    assert_int_equal(change, AU_CHANGE_DONE);
    TX(au_prompt_restore(f->db, id[0], &change, &f->err));
    assert_int_equal(change, AU_CHANGE_NOTHING);
    assert_int_equal(with(f, "{\"mood\":\"grim\"}"), 1);
    assert_int_equal(find_prompts(f, "overture"), 1);
    TX(au_db_exec(f->db, NULL, &f->err, "DELETE FROM prompts WHERE id = ?1", "t", id[0]));
    assert_int_equal(with(f, "{\"mood\":\"grim\"}"), 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM prompt_docs"), N - 1);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM prompt_words"), N - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_order_page_by_page, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_place_stays_right_when_the_list_changes,
                                        fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_filters, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_searching, fixture_setup, fixture_teardown),
        cmocka_unit_test(test_search_words),
        cmocka_unit_test_setup_teardown(test_what_is_found_follows_changes, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_prompts_by_word_and_attribute, fixture_setup,
                                        fixture_teardown),
    };
    return cmocka_run_group_tests_name("samples", tests, NULL, NULL);
}
