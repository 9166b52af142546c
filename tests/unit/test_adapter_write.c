/* SPDX-License-Identifier: MIT */
/* Rows of adapters: what an upload becomes, names and versions, deletion; and the intake that
 * checks them against a model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "jobs/adapter_check.h"
#include "jobs/adapter_write.h"
#include "jobs/intake.h"
#include "jobs_fixture.h"

static const au_adapter_row *row(fixture *f, const char *id)
{
    au_adapter_row *r;
    OK(au_adapter_row_get(f->db, &f->arena, id, &r, &f->err));
    return r;
}

/* An upload of content `letter` under a name; its id. */
static const char *put(fixture *f, char letter, const char *name, bool replace,
                       au_upload_outcome want)
{
    au_upload u = {.name = name, .replace = replace, .bytes = 5};
    memset(u.sha256, letter, AU_SHA256_TEXT - 1);
    TX(au_upload_put(f->db, &u, &f->err));
    assert_int_equal(u.outcome, want);
    return au_arena_strdup(&f->arena, u.id);
}

static void end_check(fixture *f, const char *id, bool ready)
{
    char drop[AU_STORE_KEY];
    au_finding found = {.ready = ready, .base_model = ready ? "m" : NULL, .family = "f"};
    (void)au_fail(&found.problem, AU_INVALID, "no good");
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    OK(au_finding_write(f->db, &found, id, false, &f->err));
    OK(au_upload_checked(f->db, id, drop, &f->err));
    OK(au_db_commit(f->db, &f->err));
    assert_int_equal(drop[0] != '\0', !ready);
}

static const char *meant(fixture *f, const char *name)
{
    au_adapter_row *r;
    return au_adapter_row_by_name(f->db, &f->arena, name, &r, &f->err) == AU_OK ? r->id : "";
}

static void test_content_decides(void **state)
{
    fixture *f = *state;
    const char *a = put(f, 'a', "one", false, AU_UPLOAD_NEW);
    assert_string_equal(row(f, a)->status, "validating");
    assert_string_equal(put(f, 'a', "one", false, AU_UPLOAD_KNOWN), a);
    assert_string_equal(put(f, 'a', "two", false, AU_UPLOAD_KNOWN), a);
    assert_string_equal(put(f, 'b', "one", false, AU_UPLOAD_NAME_TAKEN), a);
    end_check(f, a, true);
    assert_string_equal(row(f, a)->status, "ready");
    assert_string_equal(row(f, a)->base_model, "m");
    assert_string_equal(put(f, 'b', "one", false, AU_UPLOAD_NAME_TAKEN), a);
    const char *b = put(f, 'b', "one", true, AU_UPLOAD_NEW);
    assert_int_equal(row(f, b)->version, 2);
    assert_string_equal(meant(f, "one"), a); /* until it is ready */
    end_check(f, b, true);
    assert_string_equal(meant(f, "one"), b);
    assert_false(row(f, a)->current);
    /* The earlier content again: known as it is, the current one where that is asked for. */
    assert_string_equal(put(f, 'a', "one", false, AU_UPLOAD_KNOWN), a);
    assert_string_equal(put(f, 'a', "one", true, AU_UPLOAD_NEW), a);
    end_check(f, a, true);
    assert_string_equal(meant(f, "one"), a);
    assert_int_equal(row(f, a)->version, 1);
}

static void test_rejected(void **state)
{
    fixture *f = *state;
    const char *a = put(f, 'a', "one", false, AU_UPLOAD_NEW);
    end_check(f, a, false);
    assert_string_equal(row(f, a)->status, "rejected");
    assert_null(row(f, a)->store_key);
    assert_non_null(strstr(row(f, a)->error, "no good"));
    assert_int_equal(count(f, "SELECT COUNT(*) FROM uploads"), 1); /* its files are to be removed */
    /* It keeps neither its name nor, for ever, its state. */
    const char *b = put(f, 'b', "one", false, AU_UPLOAD_NEW);
    end_check(f, b, true);
    assert_string_equal(meant(f, "one"), b);
    assert_string_equal(put(f, 'a', "one", false, AU_UPLOAD_NAME_TAKEN), b);
    assert_string_equal(put(f, 'a', "other", false, AU_UPLOAD_NEW), a);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM uploads"), 0);
    assert_string_equal(row(f, a)->name, "other");
    assert_int_equal(row(f, a)->version, 1);
}

static void test_deletion(void **state)
{
    fixture *f = *state;
    bool changed;
    const char *a = put(f, 'a', "one", false, AU_UPLOAD_NEW);
    end_check(f, a, true);
    TX(au_adapter_row_delete(f->db, a, &changed, &f->err));
    assert_true(changed);
    TX(au_adapter_row_delete(f->db, a, &changed, &f->err));
    assert_false(changed);
    assert_string_equal(meant(f, "one"), "");
    TX(au_adapter_row_restore(f->db, a, &changed, &f->err));
    assert_true(changed);
    assert_string_equal(meant(f, "one"), a);
    TX(au_adapter_row_restore(f->db, a, &changed, &f->err));
    assert_false(changed);
    TX(au_adapter_row_delete(f->db, a, &changed, &f->err));
    const char *b = put(f, 'b', "one", false, AU_UPLOAD_NEW);
    end_check(f, b, true);
    TX(au_adapter_row_restore(f->db, a, &changed, &f->err));
    assert_true(changed && !row(f, a)->current);
    assert_string_equal(meant(f, "one"), b);
    /* Deleted while it was checked: it takes the name from nobody. */
    const char *c = put(f, 'c', "one", true, AU_UPLOAD_NEW);
    TX(au_adapter_row_delete(f->db, c, &changed, &f->err));
    end_check(f, c, true);
    assert_string_equal(meant(f, "one"), b);
    assert_string_equal(put(f, 'c', "three", false, AU_UPLOAD_NEW), c);
    assert_int_equal(row(f, c)->deleted_at, 0);
}

static void test_patch(void **state)
{
    fixture *f = *state;
    const char *a = put(f, 'a', "one", false, AU_UPLOAD_NEW);
    end_check(f, a, true);
    const char *b = put(f, 'b', "two", false, AU_UPLOAD_NEW);
    end_check(f, b, true);
    TX(au_adapter_row_patch(f->db, a, NULL, "words", &f->err));
    assert_string_equal(row(f, a)->description, "words");
    TX(au_adapter_row_patch(f->db, a, "one", NULL, &f->err)); /* its own name */
    assert_int_equal(row(f, a)->version, 1);
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_adapter_row_patch(f->db, a, "two", NULL, &f->err), AU_EXISTS);
    assert_string_equal(f->err.message, b);
    assert_int_equal(au_adapter_row_patch(f->db, "nothing", NULL, NULL, &f->err), AU_NOT_FOUND);
    au_db_rollback(f->db);
    TX(au_adapter_row_patch(f->db, b, "three", NULL, &f->err));
    TX(au_adapter_row_patch(f->db, a, "two", "", &f->err));
    assert_string_equal(meant(f, "two"), a);
    assert_string_equal(row(f, a)->description, "");
    assert_int_equal(count(f, "SELECT COUNT(*) FROM events WHERE kind = 'adapter'"), 4 + 4);
}

/* ---- The intake ---- */

typedef struct bench {
    fixture f;
    au_writer *writer;
    au_registry *registry;
    au_intake_config config;
    char adapters[512];
} bench;

static int setup_bench(void **state)
{
    bench *b = calloc(1, sizeof *b);
    fixture *f = &b->f;
    char model_dir[512];
    const char *root = getenv("AULOS_SOURCE");
    assert_non_null(root);
    fixture_open(f);
    snprintf(model_dir, sizeof model_dir, "%s/tests/fixtures/checkpoints/mono-f32", root);
    snprintf(b->adapters, sizeof b->adapters, "%s/tests/fixtures/adapters", root);
    OK(au_writer_new(&b->writer, f->db_path, 0, &f->err));
    const au_model_spec model = {.dir = model_dir};
    OK(au_registry_open(&b->registry, &model, 1, b->writer, &f->err));
    b->config = (au_intake_config){f->db_path, b->registry, b->writer, f->store};
    *state = b;
    return 0;
}

static int teardown_bench(void **state)
{
    bench *b = *state;
    au_registry_close(&b->registry);
    au_writer_free(&b->writer);
    fixture_close(&b->f);
    free(b);
    return 0;
}

/* Stored and with a row, as an upload leaves it before its check; its id. */
static const char *upload_folder(bench *b, const char *folder, const char *name)
{
    fixture *f = &b->f;
    char dir[600];
    au_upload u = {.name = name, .bytes = 1};
    snprintf(dir, sizeof dir, "%s/%s", b->adapters, folder);
    OK(au_adapter_hash(dir, u.sha256, &f->err));
    OK(au_adapter_store(f->store, b->writer, u.sha256, dir, &f->err));
    assert_int_equal(count(f, "SELECT COUNT(*) FROM uploads"), 1);
    TX(au_upload_put(f->db, &u, &f->err));
    assert_int_equal(count(f, "SELECT COUNT(*) FROM uploads"), 0);
    return au_arena_strdup(&f->arena, u.id);
}

static void test_check(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    const char *good = upload_folder(b, "mono-f32/plain", "good");
    const char *bad = upload_folder(b, "bad/wrong-shape-a", "bad");
    const char *lost = upload_folder(b, "mono-f32/dora", "lost");
    char key[AU_STORE_KEY];
    assert_int_equal(objects(f), 6);
    OK(au_store_adapter_key(key, row(f, lost)->sha256, "adapter_model.safetensors", &f->err));
    OK(au_store_delete(f->store, key, &f->err));
    OK(au_intake_check(&b->config, f->db, good, &f->err));
    OK(au_intake_check(&b->config, f->db, bad, &f->err));
    OK(au_intake_check(&b->config, f->db, lost, &f->err));
    assert_string_equal(row(f, good)->status, "ready");
    assert_string_equal(row(f, bad)->status, "rejected");
    assert_string_equal(row(f, lost)->status, "rejected");
    assert_string_equal(row(f, good)->base_model, "mono-f32");
    assert_true(row(f, good)->rank > 0);
    assert_int_equal(objects(f), 2); /* those of the good one */
    assert_int_equal(count(f, "SELECT COUNT(*) FROM uploads"), 0);
    /* Checked again as a ready one, nothing but the table of models is written. */
    OK(au_intake_check(&b->config, f->db, good, &f->err));
    assert_int_equal(count(f, "SELECT COUNT(*) FROM adapter_models WHERE status = 'ready'"), 1);
}

static void note(void *arg)
{
    *(int *)arg += 1;
}

typedef struct discard {
    au_intake *intake;
    const char *sha256;
    atomic_int done;
} discard;

static void run_discard(void *arg)
{
    discard *d = arg;
    au_intake_discard(d->intake, d->sha256);
    atomic_store(&d->done, 1);
}

static void discard_copy(fixture *f, au_intake *intake, const char *sha256)
{
    discard d = {.intake = intake, .sha256 = sha256};
    OK(au_intake_run(intake, run_discard, &d, &f->err));
    while (!atomic_load(&d.done))
        au_sleep_ms(2);
}

static void test_thread(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    au_intake *intake;
    int noted = 0;
    const char *left = upload_folder(b, "mono-f32/plain", "left by a crash");
    OK(au_intake_new(&intake, &b->config, &f->err));
    for (int i = 0; i < 6000 && strcmp(row(f, left)->status, "validating") == 0; i++)
        au_sleep_ms(10);
    assert_string_equal(row(f, left)->status, "ready");
    /* A copy that no row came to own goes, one that has a row stays. */
    char dir[600], sha256[AU_SHA256_TEXT];
    snprintf(dir, sizeof dir, "%s/mono-f32/dora", b->adapters);
    OK(au_adapter_hash(dir, sha256, &f->err));
    OK(au_adapter_store(f->store, b->writer, sha256, dir, &f->err));
    assert_int_equal(objects(f), 4);
    discard_copy(f, intake, sha256);
    discard_copy(f, intake, row(f, left)->sha256);
    assert_int_equal(objects(f), 2);
    for (int i = 0; i < 10; i++)
        OK(au_intake_run(intake, note, &noted, &f->err));
    au_intake_free(&intake);
    assert_int_equal(noted, 10); /* what was ordered is done before the end */
    assert_null(intake);
    au_intake_free(&intake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_content_decides, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_rejected, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_deletion, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_patch, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_check, setup_bench, teardown_bench),
        cmocka_unit_test_setup_teardown(test_thread, setup_bench, teardown_bench),
    };
    return cmocka_run_group_tests_name("adapter_write", tests, NULL, NULL);
}
