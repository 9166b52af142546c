/* SPDX-License-Identifier: MIT */
/* Webhooks: which addresses and URLs are targets, signatures, patterns of events, and the outbox.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>

#include "jobs/outbox.h"
#include "jobs_fixture.h"
#include "webhooks/address.h"
#include "webhooks/sign.h"

static bool is_public(const char *text)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    struct sockaddr_in four = {.sin_family = AF_INET};
    if (inet_pton(AF_INET, text, &four.sin_addr) == 1)
        return au_address_is_public((const struct sockaddr *)(const void *)&four);
    assert_int_equal(inet_pton(AF_INET6, text, &six.sin6_addr), 1);
    return au_address_is_public((const struct sockaddr *)(const void *)&six);
}

static void test_addresses(void **state)
{
    (void)state;
    static const char *const open[] = {
        "1.1.1.1",         "9.255.255.255",   "11.0.0.0",    "100.63.1.1",     "100.128.0.0",
        "172.15.255.255",  "172.32.0.0",      "192.167.0.1", "192.169.0.1",    "198.17.0.1",
        "223.255.255.255", "2606:4700::1111", "2a00::1",     "::ffff:8.8.8.8", "64:ff9b::808:808",
        "169.253.0.1",     "2001:200::1"};
    static const char *const closed[] = {"0.0.0.0",
                                         "0.1.2.3",
                                         "10.0.0.1",
                                         "10.255.255.255",
                                         "100.64.0.1",
                                         "127.0.0.1",
                                         "127.255.255.255",
                                         "169.254.169.254",
                                         "172.16.0.1",
                                         "172.31.255.255",
                                         "192.0.0.8",
                                         "192.0.2.1",
                                         "192.168.1.1",
                                         "198.18.0.1",
                                         "198.19.255.255",
                                         "198.51.100.7",
                                         "203.0.113.9",
                                         "224.0.0.1",
                                         "239.1.1.1",
                                         "240.0.0.1",
                                         "255.255.255.255",
                                         "::",
                                         "::1",
                                         "fe80::1",
                                         "fc00::1",
                                         "fd12::1",
                                         "ff02::1",
                                         "::ffff:127.0.0.1",
                                         "::ffff:10.0.0.1",
                                         "64:ff9b::7f00:1",
                                         "2002:7f00:1::",
                                         "2001:db8::1",
                                         "2001::1",
                                         "::127.0.0.1",
                                         "64:ff9b:1::1",
                                         "fd00:ec2::254",
                                         "3fff::1"};
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
        if (!is_public(open[i]))
            fail_msg("%s is public", open[i]);
    }
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        if (is_public(closed[i]))
            fail_msg("%s is not public", closed[i]);
    }
    struct sockaddr other = {.sa_family = AF_UNIX};
    assert_false(au_address_is_public(&other));
}

static void test_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        au_status public_only, any;
    } cases[] = {
        {"https://example.com/hook?a=b", AU_OK, AU_OK},
        {"http://example.com:8080/", AU_OK, AU_OK},
        {"https://1.1.1.1/", AU_OK, AU_OK},
        {"https://[2606:4700::1111]/", AU_OK, AU_OK},
        {"http://127.0.0.1:9/x", AU_UNSUPPORTED, AU_OK},
        {"http://2130706433/", AU_UNSUPPORTED, AU_OK},
        {"http://0x7f.1/", AU_UNSUPPORTED, AU_OK},
        {"http://017700000001/", AU_UNSUPPORTED, AU_OK},
        {"http://127.1/", AU_UNSUPPORTED, AU_OK},
        {"http://169.254.169.254/latest/meta-data/", AU_UNSUPPORTED, AU_OK},
        {"http://[::1]/", AU_UNSUPPORTED, AU_OK},
        {"http://[::ffff:10.0.0.1]/", AU_UNSUPPORTED, AU_OK},
        {"http://localhost/", AU_UNSUPPORTED, AU_OK},
        {"http://LOCALHOST./", AU_UNSUPPORTED, AU_OK},
        {"http://a.localhost:1/", AU_UNSUPPORTED, AU_OK},
        {"http://notlocalhost/", AU_OK, AU_OK},
        {"ftp://example.com/", AU_INVALID, AU_INVALID},
        {"file:///etc/passwd", AU_INVALID, AU_INVALID},
        {"example.com", AU_INVALID, AU_INVALID},
        {"", AU_INVALID, AU_INVALID},
        {"http://", AU_INVALID, AU_INVALID},
        {"https://user@example.com/", AU_INVALID, AU_INVALID},
        {"https://user:word@example.com/", AU_INVALID, AU_INVALID},
        {"https://example.com/#x", AU_INVALID, AU_INVALID},
        {"https://example.com/a b", AU_INVALID, AU_INVALID},
        {"https://example.com/\n", AU_INVALID, AU_INVALID},
        {"https://example.com:99999/", AU_INVALID, AU_INVALID},
    };
    au_err err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        au_status st = au_webhook_url_check(cases[i].url, false, &err);
        if (st != cases[i].public_only)
            fail_msg("%s: %s", cases[i].url, au_status_text(st));
        st = au_webhook_url_check(cases[i].url, true, &err);
        if (st != cases[i].any)
            fail_msg("%s with private ones: %s", cases[i].url, au_status_text(st));
    }
}

static void test_signatures(void **state)
{
    (void)state;
    /* The example of the specification of Standard Webhooks. */
    char signature[AU_WEBHOOK_SIGNATURE_TEXT], secret[AU_WEBHOOK_SECRET_TEXT];
    assert_true(au_webhook_sign(signature, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                                "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
                                "{\"test\": 2432232314}"));
    assert_string_equal(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    au_webhook_secret_make(secret);
    assert_true(au_webhook_secret_valid(secret));
    assert_true(au_webhook_secret_valid("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")); /* 24 bytes */
    static const char *const wrong[] = {"",
                                        "whsec_",
                                        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                                        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS=",
                                        "whsec_!!!!",
                                        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw "};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(au_webhook_secret_valid(wrong[i]));
    assert_false(au_webhook_sign(signature, "whsec_", "m", 1, "x"));
}

static void test_patterns(void **state)
{
    (void)state;
    static const char *const right[] = {"*",   "job.*",         "*.deleted",
                                        "*.*", "job.completed", "comparison.updated"};
    static const char *const wrong[] = {
        "",      "job",    "job.", ".completed",     "jobs.completed",
        "job.c", "job.**", "**",   "job.completed.x"};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++)
        assert_true(au_webhook_pattern_valid(right[i]));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(au_webhook_pattern_valid(wrong[i]));
}

static void add_webhook(fixture *f, const char *events, char id[AU_UUID_TEXT])
{
    au_webhook w = {
        .url = "https://example.com/", .secret = "whsec_x", .events = events, .description = ""};
    TX(au_webhook_create(f->db, &w, id, &f->err));
}

static size_t take(fixture *f, int limit, au_delivery ***list)
{
    size_t n;
    TX(au_delivery_take(f->db, &f->arena, limit, 60000, list, &n, &f->err));
    return n;
}

static void test_outbox(void **state)
{
    fixture *f = *state;
    char all[AU_UUID_TEXT], ends[AU_UUID_TEXT], job[AU_UUID_TEXT], again[AU_UUID_TEXT];
    au_job_new new = plain_job();
    au_cancel_result cancelled;
    au_job_state now;
    au_delivery **list;
    int64_t due;
    bool more, deleted;
    size_t n;
    submit(f, &new, job); /* nobody to tell */
    OK(au_delivery_due_ms(f->db, &due, &f->err));
    assert_int_equal(due, -1);
    add_webhook(f, "[\"*\"]", all);
    add_webhook(f, "[\"job.cancelled\", \"adapter.*\"]", ends);
    submit(f, &new, job);
    TX(au_job_cancel(f->db, job, &cancelled, &now, &f->err));
    OK(au_delivery_due_ms(f->db, &due, &f->err));
    assert_int_equal(due, 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM deliveries"), 3);
    assert_int_equal(take(f, 10, &list), 3);
    assert_int_equal(take(f, 10, &list), 0); /* held */
    OK(au_delivery_due_ms(f->db, &due, &f->err));
    assert_true(due > 50000);
    OK(au_delivery_list(f->db, &f->arena, ends, NULL, NULL, 10, &list, &n, &more, &f->err));
    assert_int_equal(n, 1);
    assert_string_equal(list[0]->event, "job.cancelled");
    assert_non_null(strstr(list[0]->payload, "\"state\":\"cancelled\""));
    assert_non_null(strstr(list[0]->payload, job));
    /* An attempt that fails is due again later; the last one ends it; the payload can be sent anew.
     */
    const char *id = list[0]->id;
    TX(au_delivery_finish(
        f->db,
        &(au_delivery_end){.id = id, .status = 500, .error = "answered 500", .retry_ms = 7000},
        &f->err));
    au_delivery *d;
    OK(au_delivery_get(f->db, &f->arena, ends, id, &d, &f->err));
    assert_string_equal(d->state, "pending");
    assert_int_equal(d->attempts, 1);
    assert_int_equal(d->last_status, 500);
    TX(au_delivery_finish(f->db, &(au_delivery_end){.id = id, .error = "x", .retry_ms = -1},
                          &f->err));
    OK(au_delivery_get(f->db, &f->arena, ends, id, &d, &f->err));
    assert_string_equal(d->state, "failed");
    TX(au_delivery_finish(f->db, &(au_delivery_end){.id = id, .ok = true, .error = ""}, &f->err));
    OK(au_delivery_get(f->db, &f->arena, ends, id, &d, &f->err));
    assert_string_equal(d->state, "failed"); /* an end is an end */
    TX(au_delivery_repeat(f->db, ends, id, again, &f->err));
    assert_int_equal(take(f, 10, &list), 1);
    assert_string_equal(list[0]->id, again);
    assert_string_equal(list[0]->payload, d->payload);
    /* 410: no more of it. */
    TX(au_delivery_finish(
        f->db,
        &(au_delivery_end){.id = again, .gone = true, .status = 410, .error = "", .retry_ms = -1},
        &f->err));
    submit(f, &new, job);
    TX(au_job_cancel(f->db, job, &cancelled, &now, &f->err));
    OK(au_delivery_list(f->db, &f->arena, ends, NULL, NULL, 10, &list, &n, &more, &f->err));
    assert_int_equal(n, 2);
    TX(au_webhook_delete(f->db, all, &deleted, &f->err));
    assert_true(deleted);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM deliveries WHERE state = 'pending'"), 0);
    TX(au_webhook_delete(f->db, all, &deleted, &f->err));
    assert_false(deleted);
    TX(au_delivery_purge(f->db, INT64_MAX, &f->err));
    assert_int_equal(count(f, "SELECT COUNT(*) FROM deliveries"), 0);
}

/* What is rolled back was never told. */
static void test_outbox_is_of_the_transaction(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new new = plain_job();
    au_submit_result r;
    add_webhook(f, "[\"*\"]", id);
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    OK(au_job_submit(f->db, &new, &f->limits, &r, &f->err));
    au_db_rollback(f->db);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM deliveries"), 0);
    for (int i = 1; i < AU_WEBHOOKS_MAX; i++)
        add_webhook(f, "[\"*\"]", id);
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    au_webhook w = {
        .url = "https://example.com/", .secret = "s", .events = "[]", .description = ""};
    assert_int_equal(au_webhook_create(f->db, &w, id, &f->err), AU_LIMIT);
    au_db_rollback(f->db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_signatures),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test_setup_teardown(test_outbox, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_outbox_is_of_the_transaction, fixture_setup,
                                        fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
