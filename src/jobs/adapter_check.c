/* SPDX-License-Identifier: MIT */
/* Adapters against models. Models are checked by the engine alone (aulos.h); here are the loop over
 * them, the choice of the verdict that counts, and the copy into the store. No state. */
#include "jobs/adapter_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"

enum { MAX_REPORT_BYTES = 1 << 20 };

void au_finding_deinit(au_finding *f)
{
    for (size_t i = 0; f->verdicts && i < f->n_models; i++)
        free(f->verdicts[i].report);
    free(f->verdicts);
    f->verdicts = NULL;
}

static au_status dump(char **out, json_t *j, au_err *err)
{
    au_status st = AU_OK;
    AU_FAIL_IF(!j, AU_INTERNAL, "the adapter's problem is not valid text");
    AU_TRY(au_json_text(out, j, MAX_REPORT_BYTES, err));
done:
    json_decref(j);
    return st;
}

/* A report where even the folder's files could not be read, or the whole one is too long to keep.
 */
static au_status problem_report(char **out, const au_err *problem, au_err *err)
{
    return dump(out,
                json_pack("{s:s, s:[], s:[s]}", "status", "rejected", "unmatched", "problems",
                          problem->message),
                err);
}

/* Messages quote what files hold and are cut at their size: the last character may be half there.
 */
static void make_valid(au_err *problem)
{
    char *text = problem->message;
    size_t len = strlen(text);
    for (size_t cut = 0; cut < 4 && cut < len; cut++) {
        if (au_utf8_valid(text, len - cut)) {
            text[len - cut] = '\0';
            return;
        }
    }
    for (; *text; text++) {
        if ((unsigned char)*text >= 0x80)
            *text = '?';
    }
}

static void take_facts(au_finding *f, const au_registry *r, size_t i, const au_adapter *adapter)
{
    const au_adapter_info *info = au_adapter_get_info(adapter);
    f->chosen = i;
    f->ready = true;
    f->family = au_model_get_info(au_registry_model(r, i))->family;
    f->base_model = au_registry_name(r, i);
    snprintf(f->kind, sizeof f->kind, "%s", info->kind);
    f->rank = info->rank;
    f->targets = info->targets;
    f->alpha = info->alpha;
    f->bytes = (int64_t)info->bytes;
}

static au_status judge_model(au_finding *f, const au_registry *r, size_t i, au_err *err)
{
    au_verdict *v = &f->verdicts[i];
    au_model *model = au_registry_model(r, i);
    au_adapter *adapter = NULL;
    au_err problem = {0};
    char *report = NULL;
    au_status st = AU_OK;
    bool counts = !f->wanted || strcmp(f->wanted, au_registry_name(r, i)) == 0;
    v->fingerprint = au_model_get_info(model)->fingerprint;
    v->ready = au_adapter_open(model, f->dir, &adapter, &problem) == AU_OK;
    make_valid(&problem);
    if (v->ready && counts && !f->ready)
        take_facts(f, r, i, adapter);
    if (!v->ready && counts && f->chosen == f->n_models) {
        f->chosen = i;
        f->problem = problem;
    }
    st = au_adapter_report(model, f->dir, &report, NULL);
    if (st == AU_OK && strlen(report) < MAX_REPORT_BYTES)
        AU_TRY(au_strdup(&v->report, report, err));
    else
        AU_TRY(problem_report(&v->report, &problem, err));
done:
    au_text_free(report);
    au_adapter_unref(&adapter);
    return st;
}

au_status au_finding_run(au_finding *f, const au_registry *r, au_err *err)
{
    au_status st = AU_OK;
    f->n_models = f->chosen = au_registry_count(r);
    AU_TRY(au_calloc(&f->verdicts, f->n_models, sizeof *f->verdicts, err));
    if (au_adapter_hash(f->dir, f->sha256, &f->problem) != AU_OK)
        f->sha256[0] = 0;
    for (size_t i = 0; i < f->n_models; i++)
        AU_TRY(judge_model(f, r, i, err));
    if (f->chosen == f->n_models)
        (void)au_fail(&f->problem, AU_NOT_FOUND, "no model named %s is served here", f->wanted);
    make_valid(&f->problem);
done:
    /* Some checks read weights, which are not wanted in memory here. */
    for (size_t i = 0; i < f->n_models; i++)
        au_model_rest(au_registry_model(r, i));
    return st;
}

const char *au_finding_report(const au_finding *f)
{
    return f->chosen < f->n_models ? f->verdicts[f->chosen].report : "{}";
}

au_status au_finding_error(char **out, const au_finding *f, au_err *err)
{
    *out = NULL;
    if (f->ready)
        return AU_OK;
    return dump(out,
                json_pack("{s:s, s:s, s:i, s:s}", "type", "/problems/adapter-rejected", "title",
                          "The adapter cannot be used", "status", 422, "detail",
                          f->problem.message),
                err);
}

au_status au_finding_write(au_db *db, const au_finding *f, const char *id, bool fits_only,
                           au_err *err)
{
    char *error = NULL;
    au_status st = AU_OK;
    AU_TRY(au_finding_error(&error, f, err));
    if (!fits_only)
        AU_TRY(au_db_exec(
            db, NULL, err,
            "UPDATE adapters SET family = ?2, base_model = COALESCE(?3, base_model), kind = ?4, "
            "rank = ?5, alpha = ?6, targets = ?7, bytes = ?8, status = ?9, report = ?10, "
            "error = ?11 WHERE id = ?1",
            "ttttidiittt", id, f->family ? f->family : "", f->base_model, f->kind, (int64_t)f->rank,
            f->alpha, (int64_t)f->targets, f->bytes, f->ready ? "ready" : "rejected",
            au_finding_report(f), error));
    for (size_t i = 0; i < f->n_models; i++)
        AU_TRY(
            au_db_exec(db, NULL, err,
                       "INSERT INTO adapter_models (adapter_id, model_fingerprint, status, report) "
                       "VALUES (?1, ?2, ?3, ?4) ON CONFLICT (adapter_id, model_fingerprint) "
                       "DO UPDATE SET status = excluded.status, report = excluded.report",
                       "tttt", id, f->verdicts[i].fingerprint,
                       f->verdicts[i].ready ? "ready" : "rejected", f->verdicts[i].report));
done:
    free(error);
    return st;
}

/* ---- Into the store ---- */

const char *au_adapter_weights_file(const char *dir)
{
    static const char *const names[] = {"adapter_model.safetensors", "adapter_model.bin"};
    char path[4096];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int n = snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        if (n > 0 && (size_t)n < sizeof path && au_file_exists(path))
            return names[i];
    }
    return NULL;
}

static au_status copy_file(au_store *store, const char *sha256, const char *dir, const char *name,
                           au_err *err)
{
    char key[AU_STORE_KEY];
    char *path = NULL;
    au_status st = AU_OK;
    AU_TRY(au_store_adapter_key(key, sha256, name, err));
    AU_TRY(au_path_join(&path, dir, name, err));
    AU_TRY(au_store_put_file(store, key, path, err));
done:
    free(path);
    return st;
}

static au_status announce_copy(au_db *db, void *arg, au_err *err)
{
    const char *sha256 = arg;
    char key[AU_STORE_KEY];
    snprintf(key, sizeof key, "adapters/%s/", sha256);
    return au_db_exec(db, NULL, err,
                      "INSERT INTO uploads (key, created_at) SELECT ?1, au_now_ms() WHERE NOT "
                      "EXISTS (SELECT 1 FROM adapters WHERE store_key = ?1) "
                      "ON CONFLICT (key) DO UPDATE SET job_id = NULL, lease_token = -1",
                      "t", key);
}

au_status au_adapter_store(au_store *store, au_writer *writer, const char *sha256, const char *dir,
                           au_err *err)
{
    char prefix[AU_STORE_KEY], found[AU_SHA256_TEXT];
    char *local = NULL;
    au_status st = AU_OK;
    const char *weights = au_adapter_weights_file(dir);
    AU_FAIL_IF(!weights, AU_NOT_FOUND, "adapter %s has no weights file", dir);
    AU_TRY(au_writer_run(writer, announce_copy, (void *)(uintptr_t)sha256, err));
    AU_TRY(copy_file(store, sha256, dir, "adapter_config.json", err));
    AU_TRY(copy_file(store, sha256, dir, weights, err));
    snprintf(prefix, sizeof prefix, "adapters/%s", sha256);
    AU_TRY(au_store_local_path(store, &local, prefix, err));
    AU_TRY(au_adapter_hash(local, found, err));
    AU_FAIL_IF(strcmp(found, sha256) != 0, AU_AGAIN, "adapter %s changed while it was copied", dir);
done:
    free(local);
    return st;
}
