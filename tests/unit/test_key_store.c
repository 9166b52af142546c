/* SPDX-License-Identifier: MIT */
/* Keys, sessions and links: their texts, their rows, what they open and when they end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "api/auth.h"
#include "base/clock.h"
#include "jobs_fixture.h"

static void test_key_texts(void **state)
{
    (void)state;
    char text[AU_KEY_TEXT], other[AU_KEY_TEXT];
    au_key_text_new(text);
    au_key_text_new(other);
    assert_int_equal(strlen(text), AU_KEY_TEXT - 1);
    assert_memory_equal(text, "aulos_", 6);
    assert_true(au_key_text_valid(text, strlen(text)));
    assert_string_not_equal(text, other);
    /* Every single slip is noticed, and so is what is too short or too long. */
    for (size_t i = 0; i < AU_KEY_TEXT - 1; i++) {
        static const char swaps[] = "abcz27_A~ ";
        for (size_t k = 0; k < sizeof swaps; k++) {
            memcpy(other, text, sizeof text);
            other[i] = swaps[k];
            assert_int_equal(au_key_text_valid(other, AU_KEY_TEXT - 1), swaps[k] == text[i]);
        }
    }
    assert_false(au_key_text_valid(text, AU_KEY_TEXT - 2));
    assert_false(au_key_text_valid(text, AU_KEY_TEXT));
    assert_false(au_key_text_valid("", 0));
}

static void test_scopes(void **state)
{
    (void)state;
    assert_int_equal(au_scope_parse("read"), AU_SCOPE_READ);
    assert_int_equal(au_scope_parse("admin"), AU_SCOPE_ADMIN);
    assert_int_equal(au_scope_parse("Write"), 0);
    assert_int_equal(au_scope_parse(""), 0);
    static const unsigned all[] = {AU_SCOPE_READ, AU_SCOPE_WRITE, AU_SCOPE_ADMIN};
    for (int held = 0; held < 3; held++) {
        assert_int_equal(au_scope_parse(au_scope_name(all[held])), all[held]);
        assert_false(au_scopes_allow(0, all[held]));
        for (int wanted = 0; wanted < 3; wanted++)
            assert_int_equal(au_scopes_allow(all[held], all[wanted]), held >= wanted);
    }
    assert_true(au_scopes_allow(AU_SCOPE_READ | AU_SCOPE_WRITE, AU_SCOPE_WRITE));
    assert_false(au_scopes_allow(AU_SCOPE_READ | AU_SCOPE_WRITE, AU_SCOPE_ADMIN));
}

typedef struct keyed {
    unsigned char secret[AU_SECRET_BYTES];
    char id[AU_UUID_TEXT], text[AU_KEY_TEXT], hash[AU_KEYED_HASH_TEXT];
} keyed;

static void make_key(fixture *f, keyed *k, unsigned scopes, int64_t expires_at)
{
    TX(au_server_secret(k->secret, f->db, &f->err));
    TX(au_key_create(f->db, k->secret, "studio", scopes, expires_at, k->id, k->text, &f->err));
    au_key_hash(k->hash, k->secret, k->text);
}

static au_key_match match(fixture *f, au_key_by by, const char *value)
{
    au_key_match m;
    OK(au_key_match_by(&m, f->db, by, value, &f->err));
    return m;
}

static void test_the_secret_is_made_once(void **state)
{
    (void)state;
    fixture fx, *f = &fx;
    unsigned char a[AU_SECRET_BYTES], b[AU_SECRET_BYTES];
    fixture_open(f);
    TX(au_server_secret(a, f->db, &f->err));
    TX(au_server_secret(b, f->db, &f->err));
    assert_memory_equal(a, b, sizeof a);
    TX(au_db_exec(f->db, NULL, &f->err, "UPDATE settings SET value = 'x'", ""));
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_server_secret(a, f->db, &f->err), AU_CORRUPT);
    au_db_rollback(f->db);
    fixture_close(f);
}

static void test_keys_open_until_revoked(void **state)
{
    (void)state;
    fixture fx, *f = &fx;
    keyed k = {0};
    bool revoked;
    int64_t n;
    fixture_open(f);
    make_key(f, &k, AU_SCOPE_READ | AU_SCOPE_WRITE, 0);
    /* The database does not know the text. */
    OK(au_db_int(&n, f->db, -1, &f->err,
                 "SELECT COUNT(*) FROM api_keys WHERE hash = ?1 AND prefix = substr(?2, 1, 8) AND "
                 "instr(hash || name || scopes, ?2) = 0",
                 "tt", k.hash, k.text));
    assert_int_equal(n, 1);
    au_key_match m = match(f, AU_KEY_BY_HASH, k.hash);
    assert_true(m.found);
    assert_string_equal(m.id, k.id);
    assert_int_equal(m.scopes, AU_SCOPE_READ | AU_SCOPE_WRITE);
    assert_true(match(f, AU_KEY_BY_ID, k.id).found);
    assert_false(match(f, AU_KEY_BY_HASH, k.text).found);
    assert_false(match(f, AU_KEY_BY_SESSION, k.hash).found);
    OK(au_key_count(&n, f->db, &f->err));
    assert_int_equal(n, 1);
    TX(au_key_note_use(f->db, k.id, &f->err));
    assert_true(match(f, AU_KEY_BY_HASH, k.hash).last_used_at > 0);
    TX(au_key_revoke(f->db, k.id, &revoked, &f->err));
    assert_true(revoked);
    assert_false(match(f, AU_KEY_BY_HASH, k.hash).found);
    assert_false(match(f, AU_KEY_BY_ID, k.id).found);
    OK(au_key_count(&n, f->db, &f->err));
    assert_int_equal(n, 0);
    TX(au_key_revoke(f->db, k.id, &revoked, &f->err));
    assert_false(revoked);
    au_key *key;
    OK(au_key_get(f->db, &f->arena, k.id, &key, &f->err));
    assert_true(key->revoked_at > 0);
    TX(au_keys_purge(f->db, key->revoked_at, &f->err));
    OK(au_key_get(f->db, &f->arena, k.id, &key, &f->err));
    TX(au_keys_purge(f->db, key->revoked_at + 1, &f->err));
    assert_int_equal(au_key_get(f->db, &f->arena, k.id, &key, &f->err), AU_NOT_FOUND);
    fixture_close(f);
}

static void test_keys_end_at_their_time(void **state)
{
    (void)state;
    fixture fx, *f = &fx;
    keyed past = {0}, future = {0};
    int64_t n, now = au_time_ms();
    fixture_open(f);
    make_key(f, &past, AU_SCOPE_ADMIN, now - 1);
    make_key(f, &future, AU_SCOPE_ADMIN, now + 3600000);
    assert_false(match(f, AU_KEY_BY_HASH, past.hash).found);
    assert_true(match(f, AU_KEY_BY_HASH, future.hash).found);
    assert_int_equal(match(f, AU_KEY_BY_HASH, future.hash).expires_at, now + 3600000);
    OK(au_key_count(&n, f->db, &f->err));
    assert_int_equal(n, 1);
    fixture_close(f);
}

static void test_lists_are_pages(void **state)
{
    (void)state;
    fixture fx, *f = &fx;
    keyed k[5] = {0};
    bool revoked, more;
    au_key **keys;
    size_t n;
    fixture_open(f);
    for (size_t i = 0; i < 5; i++)
        make_key(f, &k[i], AU_SCOPE_READ, 0);
    TX(au_key_revoke(f->db, k[2].id, &revoked, &f->err));
    OK(au_key_list(f->db, &f->arena, NULL, 2, &keys, &n, &more, &f->err));
    assert_int_equal(n, 2);
    assert_true(more);
    assert_string_equal(keys[0]->id, k[4].id);
    OK(au_key_list(f->db, &f->arena, keys[1]->id, 2, &keys, &n, &more, &f->err));
    assert_int_equal(n, 2);
    assert_false(more);
    assert_string_equal(keys[0]->id, k[1].id);
    assert_string_equal(keys[1]->id, k[0].id);
    fixture_close(f);
}

static void test_sessions_live_within_their_key(void **state)
{
    (void)state;
    fixture fx, *f = &fx;
    keyed k = {0};
    bool revoked;
    char token[AU_TOKEN_TEXT], hash[AU_KEYED_HASH_TEXT], other[AU_TOKEN_TEXT];
    int64_t n, now = au_time_ms();
    fixture_open(f);
    make_key(f, &k, AU_SCOPE_WRITE, now + 5000000);
    TX(au_session_create(f->db, k.secret, k.id, now + 1000000, token, &f->err));
    assert_true(au_session_hash(hash, k.secret, token, strlen(token)));
    au_key_match m = match(f, AU_KEY_BY_SESSION, hash);
    assert_true(m.found);
    assert_string_equal(m.id, k.id);
    assert_int_equal(m.expires_at, now + 1000000);
    /* A token has one form, and none of another is looked for. */
    assert_false(au_session_hash(hash, k.secret, token, strlen(token) - 1));
    memcpy(other, token, sizeof token);
    other[5] = 'A';
    assert_false(au_session_hash(hash, k.secret, other, strlen(other)));
    /* A session that outlives its key, and one that is over. */
    TX(au_session_create(f->db, k.secret, k.id, now + 9000000, other, &f->err));
    au_session_hash(hash, k.secret, other, strlen(other));
    assert_int_equal(match(f, AU_KEY_BY_SESSION, hash).expires_at, now + 5000000);
    TX(au_session_create(f->db, k.secret, k.id, now - 1, other, &f->err));
    au_session_hash(hash, k.secret, other, strlen(other));
    assert_false(match(f, AU_KEY_BY_SESSION, hash).found);
    TX(au_keys_purge(f->db, 0, &f->err));
    OK(au_db_int(&n, f->db, -1, &f->err, "SELECT COUNT(*) FROM browser_sessions", ""));
    assert_int_equal(n, 2);
    /* There may be many, not any number. */
    for (int i = 0; i < AU_SESSIONS_PER_KEY; i++)
        TX(au_session_create(f->db, k.secret, k.id, now + 1000000, other, &f->err));
    OK(au_db_int(&n, f->db, -1, &f->err, "SELECT COUNT(*) FROM browser_sessions", ""));
    assert_int_equal(n, AU_SESSIONS_PER_KEY);
    au_session_hash(hash, k.secret, other, strlen(other));
    assert_true(match(f, AU_KEY_BY_SESSION, hash).found);
    TX(au_session_delete(f->db, hash, &f->err));
    assert_false(match(f, AU_KEY_BY_SESSION, hash).found);
    TX(au_key_revoke(f->db, k.id, &revoked, &f->err));
    OK(au_db_int(&n, f->db, -1, &f->err, "SELECT COUNT(*) FROM browser_sessions", ""));
    assert_int_equal(n, 0);
    fixture_close(f);
}

static void test_links(void **state)
{
    (void)state;
    unsigned char secret[AU_SECRET_BYTES] = {1}, foreign[AU_SECRET_BYTES] = {2};
    static const char id[] = "0197ffff-0000-7000-8000-000000000000";
    static const char other[] = "0197ffff-0000-7000-8000-000000000001";
    const int64_t now = INT64_C(1800000000000), at = now + 1000;
    char good[AU_KEYED_HASH_TEXT], bad[AU_KEYED_HASH_TEXT], expires[32];
    snprintf(expires, sizeof expires, "%lld", (long long)at);
    au_link_sign(good, secret, id, at);
    assert_true(au_link_check(secret, id, expires, good, now));
    assert_true(au_link_check(secret, id, expires, good, at - 1));
    assert_false(au_link_check(secret, id, expires, good, at));
    assert_false(au_link_check(secret, other, expires, good, now));
    assert_false(au_link_check(foreign, id, expires, good, now));
    assert_false(au_link_check(secret, "x", expires, good, now));
    assert_false(au_link_check(secret, id, NULL, good, now));
    assert_false(au_link_check(secret, id, expires, NULL, now));
    assert_false(au_link_check(secret, id, "", good, now));
    assert_false(au_link_check(secret, id, "1e15", good, now));
    assert_false(au_link_check(secret, id, expires, "", now));
    snprintf(expires, sizeof expires, "%lld", (long long)at + 1);
    assert_false(au_link_check(secret, id, expires, good, now));
    snprintf(expires, sizeof expires, "%lld", (long long)at);
    for (size_t i = 0; i < AU_KEYED_HASH_TEXT - 1; i++) {
        memcpy(bad, good, sizeof good);
        bad[i] = bad[i] == '0' ? '1' : '0';
        assert_false(au_link_check(secret, id, expires, bad, now));
    }
    /* A clock that was put back does not make a link last longer than links may, but for a minute.
     */
    const int64_t day = INT64_C(86400000);
    assert_true(au_link_check(secret, id, expires, good, at - day - 60000));
    assert_false(au_link_check(secret, id, expires, good, at - day - 60001));
    au_link_sign(good, secret, id, INT64_MAX);
    assert_false(au_link_check(secret, id, "9223372036854775807", good, now));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_texts),
        cmocka_unit_test(test_scopes),
        cmocka_unit_test(test_the_secret_is_made_once),
        cmocka_unit_test(test_keys_open_until_revoked),
        cmocka_unit_test(test_keys_end_at_their_time),
        cmocka_unit_test(test_lists_are_pages),
        cmocka_unit_test(test_sessions_live_within_their_key),
        cmocka_unit_test(test_links),
    };
    return cmocka_run_group_tests_name("key_store", tests, NULL, NULL);
}
