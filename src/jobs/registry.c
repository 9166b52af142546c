/* SPDX-License-Identifier: MIT */
/* Models and adapter folders of a server.
 *
 * Models are opened once (headers checked, weights mapped, not read) and stay open: they check
 * requests and adapters. An adapter folder is hashed, checked against every model, copied into the
 * store under its hash, and only then becomes a row, all under an upload intent, so that a crash
 * leaves nothing that is not swept. Same hash, same row for ever; new content of a name is a new
 * row. */
#include "jobs/registry.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "jobs/catalog.h"

enum { MAX_INFO_BYTES = 1 << 16, MAX_REPORT_BYTES = 1 << 20, MAX_FOLDERS = 10000, MAX_NAME = 200 };
static const double SHORTEST_LIMIT_S = 30; /* a model trained on less may still be asked for 30 s */

typedef struct entry {
    char *name;
    au_model *model;
} entry;

struct au_registry {
    entry *entries;
    size_t n;
};

/* ---- Models
 * -------------------------------------------------------------------------------------- */

double au_registry_max_duration_s(const au_model *m)
{
    double trained = au_model_get_info(m)->trained_s;
    return trained > SHORTEST_LIMIT_S ? trained : SHORTEST_LIMIT_S;
}

static au_status model_info_json(char **out, const au_model *m, au_err *err)
{
    const au_model_info *i = au_model_get_info(m);
    au_buf text;
    au_status st = AU_OK;
    size_t len;
    au_buf_init(&text, MAX_INFO_BYTES);
    json_t *j = json_pack(
        "{s:i, s:i, s:f, s:i, s:i, s:i, s:f, s:f, s:i, s:I, s:f, s:f, s:f, s:i}", "sample_rate",
        i->sample_rate, "channels", i->channels, "frame_rate", i->frame_rate, "hop", i->hop,
        "codebooks", i->codebooks, "vocab", i->vocab, "trained_s", i->trained_s, "max_duration_s",
        au_registry_max_duration_s(m), "max_prompt_tokens", i->max_prompt_tokens, "weights_bytes",
        (json_int_t)i->weights_bytes, "hf_guidance", i->hf_guidance, "hf_temperature",
        i->hf_temperature, "hf_top_p", i->hf_top_p, "hf_top_k", i->hf_top_k);
    AU_FAIL_IF(!j, AU_INTERNAL, "model %s has values that are not finite", i->name);
    au_json_dump(&text, j);
    AU_TRY(au_buf_take(&text, out, &len, err));
done:
    json_decref(j);
    au_buf_deinit(&text);
    return st;
}

static au_status write_models(au_db *db, void *arg, au_err *err)
{
    const au_registry *r = arg;
    char *info = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, NULL, err, "UPDATE models SET active = 0, is_default = 0", ""));
    for (size_t i = 0; i < r->n; i++) {
        const au_model_info *m = au_model_get_info(r->entries[i].model);
        free(info);
        info = NULL;
        AU_TRY(model_info_json(&info, r->entries[i].model, err));
        AU_TRY(au_model_row_put(db,
                                &(au_model_row){.name = r->entries[i].name,
                                                .family = m->family,
                                                .fingerprint = m->fingerprint,
                                                .dir = m->dir,
                                                .info = info,
                                                .is_default = i == 0,
                                                .active = true},
                                err));
    }
done:
    free(info);
    return st;
}

static au_status open_model(au_registry *r, const au_model_spec *spec, au_err *err)
{
    entry *e = &r->entries[r->n];
    au_status st = AU_OK;
    /* It is never run here: one thread, and no memory for its weights once they have been checked.
     */
    const au_model_options options = {.size = sizeof options, .threads = 1};
    AU_TRY(au_model_open(spec->dir, &options, &e->model, err));
    au_model_rest(e->model);
    r->n++;
    AU_TRY(au_strdup(&e->name, spec->name ? spec->name : au_model_get_info(e->model)->name, err));
    for (entry *other = r->entries; other < e; other++)
        AU_FAIL_IF(strcmp(other->name, e->name) == 0, AU_CONFLICT,
                   "two models are named %s: %s and %s", e->name,
                   au_model_get_info(other->model)->dir, spec->dir);
done:
    return st;
}

au_status au_registry_open(au_registry **out, const au_model_spec *models, size_t n,
                           au_writer *writer, au_err *err)
{
    au_registry *r = NULL;
    au_status st = AU_OK;
    *out = NULL;
    AU_TRY(au_calloc(&r, 1, sizeof *r, err));
    AU_TRY(au_calloc(&r->entries, n, sizeof *r->entries, err));
    for (size_t i = 0; i < n; i++)
        AU_TRY(open_model(r, &models[i], err));
    AU_TRY(au_writer_run(writer, write_models, r, err));
    *out = r;
    r = NULL;
done:
    au_registry_close(&r);
    return st;
}

void au_registry_close(au_registry **registry)
{
    au_registry *r = registry ? *registry : NULL;
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++) {
        au_model_unref(&r->entries[i].model);
        free(r->entries[i].name);
    }
    free(r->entries);
    free(r);
    *registry = NULL;
}

size_t au_registry_count(const au_registry *r)
{
    return r->n;
}

const char *au_registry_name(const au_registry *r, size_t i)
{
    return r->entries[i].name;
}

au_model *au_registry_model(const au_registry *r, size_t i)
{
    return r->entries[i].model;
}

au_model *au_registry_find(const au_registry *r, const char *name)
{
    for (size_t i = 0; i < r->n; i++) {
        if (!name || strcmp(r->entries[i].name, name) == 0)
            return r->entries[i].model;
    }
    return NULL;
}

/* ---- One adapter folder
 * ---------------------------------------------------------------------------- */

typedef struct verdict {
    const char *fingerprint;
    bool ready;
    char *report; /* JSON; owned */
} verdict;

/* What the check of a folder found, and what is written of it. */
typedef struct finding {
    const char *name, *dir;
    char sha256[AU_SHA256_TEXT]; /* "": could not be computed */
    verdict *verdicts;           /* [n_models]; owned */
    size_t n_models;
    size_t first_ready; /* n_models: none */
    const char *family, *base_model;
    char kind[16];
    int rank, targets;
    double alpha;
    int64_t bytes;
    au_err problem; /* the first rejection */
} finding;

static void finding_deinit(finding *f)
{
    for (size_t i = 0; f->verdicts && i < f->n_models; i++)
        free(f->verdicts[i].report);
    free(f->verdicts);
}

/* A report where even the folder's files could not be read. */
static au_status problem_report(char **out, const au_err *problem, au_err *err)
{
    au_buf text;
    au_status st = AU_OK;
    size_t len;
    au_buf_init(&text, MAX_REPORT_BYTES);
    json_t *j = json_pack("{s:s, s:[], s:[s]}", "status", "rejected", "unmatched", "problems",
                          problem->message);
    AU_FAIL_IF(!j, AU_INTERNAL, "the adapter's problem is not valid text");
    au_json_dump(&text, j);
    AU_TRY(au_buf_take(&text, out, &len, err));
done:
    json_decref(j);
    au_buf_deinit(&text);
    return st;
}

static au_status judge_model(finding *f, const au_registry *r, size_t i, au_err *err)
{
    verdict *v = &f->verdicts[i];
    au_model *model = r->entries[i].model;
    au_adapter *adapter = NULL;
    au_err problem = {0};
    char *report = NULL;
    au_status st = AU_OK;
    v->fingerprint = au_model_get_info(model)->fingerprint;
    v->ready = au_adapter_open(model, f->dir, &adapter, &problem) == AU_OK;
    if (v->ready && f->first_ready == f->n_models) {
        const au_adapter_info *info = au_adapter_get_info(adapter);
        f->first_ready = i;
        f->family = au_model_get_info(model)->family;
        f->base_model = r->entries[i].name;
        snprintf(f->kind, sizeof f->kind, "%s", info->kind);
        f->rank = info->rank;
        f->targets = info->targets;
        f->alpha = info->alpha;
        f->bytes = (int64_t)info->bytes;
    }
    if (!v->ready && f->problem.status == AU_OK)
        f->problem = problem;
    if (au_adapter_report(model, f->dir, &report, NULL) == AU_OK)
        AU_TRY(au_strdup(&v->report, report, err));
    else
        AU_TRY(problem_report(&v->report, v->ready ? err : &problem, err));
done:
    au_text_free(report);
    au_adapter_unref(&adapter);
    return st;
}

static const char *weights_name(const char *dir)
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

static au_status copy_file(au_store *store, const finding *f, const char *name, au_err *err)
{
    char key[AU_STORE_KEY];
    char *path = NULL;
    au_status st = AU_OK;
    AU_TRY(au_store_adapter_key(key, f->sha256, name, err));
    AU_TRY(au_path_join(&path, f->dir, name, err));
    AU_TRY(au_store_put_file(store, key, path, err));
done:
    free(path);
    return st;
}

/* Copies config and weights, and makes sure that the copy is what was checked. */
static au_status copy_files(au_store *store, const finding *f, au_err *err)
{
    char prefix[AU_STORE_KEY], found[AU_SHA256_TEXT];
    char *local = NULL;
    au_status st = AU_OK;
    const char *weights = weights_name(f->dir);
    AU_FAIL_IF(!weights, AU_NOT_FOUND, "adapter %s has no weights file", f->dir);
    AU_TRY(copy_file(store, f, "adapter_config.json", err));
    AU_TRY(copy_file(store, f, weights, err));
    snprintf(prefix, sizeof prefix, "adapters/%s", f->sha256);
    AU_TRY(au_store_local_path(store, &local, prefix, err));
    AU_TRY(au_adapter_hash(local, found, err));
    AU_FAIL_IF(strcmp(found, f->sha256) != 0, AU_AGAIN, "adapter %s changed while it was copied",
               f->dir);
done:
    free(local);
    return st;
}

static au_status announce_copy(au_db *db, void *arg, au_err *err)
{
    const finding *f = arg;
    char key[AU_STORE_KEY];
    snprintf(key, sizeof key, "adapters/%s/", f->sha256);
    return au_db_exec(db, NULL, err,
                      "INSERT INTO uploads (key, created_at) VALUES (?1, au_now_ms()) "
                      "ON CONFLICT (key) DO NOTHING",
                      "t", key);
}

/* ---- Rows
 * -------------------------------------------------------------------------------------------- */

/* The row of this content, or of this name's unreadable content: its id, or "". *same_name false:
 * the row has another folder's name and keeps it. */
static au_status find_row(au_db *db, const finding *f, char id[AU_UUID_TEXT], bool *same_name,
                          au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    id[0] = 0;
    *same_name = true;
    if (f->sha256[0])
        AU_TRY(au_db_query(&rows, db, err, "SELECT id, name FROM adapters WHERE sha256 = ?1", "t",
                           f->sha256));
    else
        AU_TRY(au_db_query(&rows, db, err,
                           "SELECT id, name FROM adapters WHERE name = ?1 AND sha256 IS NULL", "t",
                           f->name));
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (!has_row)
        goto done;
    snprintf(id, AU_UUID_TEXT, "%s", au_rows_text(rows, 0));
    if (strcmp(au_rows_text(rows, 1), f->name) != 0) {
        char quoted[256];
        *same_name = false;
        au_log(AU_LOG_WARN, "adapters", "same content under two names name=%s dir=%s",
               au_rows_text(rows, 1), au_log_quote(quoted, sizeof quoted, f->dir));
    }
done:
    au_rows_close(&rows);
    return st;
}

static au_status error_json(char **out, const finding *f, au_err *err)
{
    au_buf text;
    au_status st = AU_OK;
    size_t len;
    *out = NULL;
    if (f->first_ready < f->n_models)
        return AU_OK;
    au_buf_init(&text, MAX_REPORT_BYTES);
    json_t *j =
        json_pack("{s:s, s:s, s:i, s:s}", "type", "/problems/adapter-rejected", "title",
                  "The adapter cannot be used", "status", 422, "detail", f->problem.message);
    AU_FAIL_IF(!j, AU_INTERNAL, "the adapter's problem is not valid text");
    au_json_dump(&text, j);
    AU_TRY(au_buf_take(&text, out, &len, err));
done:
    json_decref(j);
    au_buf_deinit(&text);
    return st;
}

static au_status put_row(au_db *db, const finding *f, char id[AU_UUID_TEXT], bool *same_name,
                         au_err *err)
{
    char key[AU_STORE_KEY];
    char *error = NULL;
    bool ready = f->first_ready < f->n_models;
    const char *report = f->n_models ? f->verdicts[ready ? f->first_ready : 0].report : "{}";
    au_status st = AU_OK;
    snprintf(key, sizeof key, "adapters/%s/", f->sha256);
    AU_TRY(error_json(&error, f, err));
    AU_TRY(find_row(db, f, id, same_name, err));
    if (!id[0]) {
        au_uuid7(id);
        AU_TRY(au_db_exec(
            db, NULL, err,
            "INSERT INTO adapters (id, name, version, source, sha256, status, created_at) "
            "SELECT ?1, ?2, 1 + COALESCE(MAX(version), 0), 'folder', ?3, 'rejected', "
            "au_now_ms() FROM adapters WHERE name = ?2",
            "ttt", id, f->name, f->sha256[0] ? f->sha256 : NULL));
    }
    AU_TRY(au_db_exec(
        db, NULL, err,
        "UPDATE adapters SET family = ?2, base_model = ?3, kind = ?4, rank = ?5, alpha = ?6, "
        "targets = ?7, bytes = ?8, status = ?9, store_key = COALESCE(?10, store_key), report = "
        "?11, error = ?12 WHERE id = ?1",
        "ttttidiitttt", id, f->family ? f->family : "", f->base_model ? f->base_model : "", f->kind,
        (int64_t)f->rank, f->alpha, (int64_t)f->targets, f->bytes, ready ? "ready" : "rejected",
        ready ? key : NULL, report, error));
    AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM uploads WHERE key = ?1", "t", key));
done:
    free(error);
    return st;
}

/* Earlier contents of this name: no longer meant by it, and forgotten where nothing names them.
 * Their objects are then without a row and swept. */
static au_status retire_others(au_db *db, const char *id, au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, NULL, err,
                      "UPDATE adapters SET current = (id = ?1) WHERE source = 'folder' AND "
                      "name = (SELECT name FROM adapters WHERE id = ?1)",
                      "t", id));
    AU_TRY(
        au_db_exec(db, NULL, err,
                   "DELETE FROM adapters WHERE source = 'folder' AND current = 0 AND "
                   "name = (SELECT name FROM adapters WHERE id = ?1) AND "
                   "NOT EXISTS (SELECT 1 FROM job_samples s WHERE s.adapter_id = adapters.id) AND "
                   "NOT EXISTS (SELECT 1 FROM samples s WHERE s.adapter_id = adapters.id)",
                   "t", id));
done:
    return st;
}

static au_status write_finding(au_db *db, void *arg, au_err *err)
{
    finding *f = arg;
    char id[AU_UUID_TEXT];
    au_status st = AU_OK;
    bool same_name;
    AU_TRY(put_row(db, f, id, &same_name, err));
    for (size_t i = 0; i < f->n_models; i++) {
        AU_TRY(
            au_db_exec(db, NULL, err,
                       "INSERT INTO adapter_models (adapter_id, model_fingerprint, status, report) "
                       "VALUES (?1, ?2, ?3, ?4) ON CONFLICT (adapter_id, model_fingerprint) "
                       "DO UPDATE SET status = excluded.status, report = excluded.report",
                       "tttt", id, f->verdicts[i].fingerprint,
                       f->verdicts[i].ready ? "ready" : "rejected", f->verdicts[i].report));
    }
    if (same_name)
        AU_TRY(retire_others(db, id, err));
done:
    return st;
}

/* Whether this content has a row and a complete copy. */
static au_status is_stored(au_db *reader, au_store *store, const finding *f, bool *stored,
                           au_err *err)
{
    int64_t known;
    char key[AU_STORE_KEY];
    au_status st = AU_OK;
    const char *weights = weights_name(f->dir);
    *stored = false;
    AU_TRY(au_db_int(&known, reader, 0, err,
                     "SELECT COUNT(*) FROM adapters WHERE sha256 = ?1 AND store_key IS NOT NULL",
                     "t", f->sha256));
    if (known == 0 || !weights)
        goto done;
    AU_TRY(au_store_adapter_key(key, f->sha256, weights, err));
    AU_TRY(au_store_exists(store, key, stored, err));
done:
    return st;
}

static au_status scan_one(au_registry *r, const char *dir, const char *name, au_db *reader,
                          au_writer *writer, au_store *store, au_err *err)
{
    finding f = {.name = name, .dir = dir, .n_models = r->n, .first_ready = r->n};
    au_status st = AU_OK;
    bool stored = false;
    AU_TRY(au_calloc(&f.verdicts, r->n, sizeof *f.verdicts, err));
    if (au_adapter_hash(dir, f.sha256, &f.problem) != AU_OK)
        f.sha256[0] = 0;
    for (size_t i = 0; i < r->n; i++)
        AU_TRY(judge_model(&f, r, i, err));
    if (f.first_ready < r->n && f.sha256[0]) {
        AU_TRY(is_stored(reader, store, &f, &stored, err));
        if (!stored) {
            AU_TRY(au_writer_run(writer, announce_copy, &f, err));
            AU_TRY(copy_files(store, &f, err));
        }
    }
    AU_TRY(au_writer_run(writer, write_finding, &f, err));
    char quoted[256];
    au_log(f.first_ready < r->n ? AU_LOG_INFO : AU_LOG_WARN, "adapters",
           "checked name=%s status=%s%s%s", au_log_quote(quoted, sizeof quoted, name),
           f.first_ready < r->n ? "ready" : "rejected", f.first_ready < r->n ? "" : " detail=",
           f.first_ready < r->n ? "" : au_log_quote((char[512]){0}, 512, f.problem.message));
done:
    finding_deinit(&f);
    return st;
}

/* ---- Folders
 * ------------------------------------------------------------------------------------------ */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_folder(const char *dir, const char *name)
{
    char *path = NULL;
    bool yes = au_path_join(&path, dir, name, NULL) == AU_OK && au_dir_exists(path);
    free(path);
    return yes;
}

/* Names of the subfolders, sorted. A missing folder has none. Owned by the caller. */
static au_status list_folders(const char *dir, char ***names, size_t *n, au_err *err)
{
    au_status st = AU_OK;
    *names = NULL;
    *n = 0;
    DIR *d = opendir(dir);
    if (!d && errno == ENOENT)
        return AU_OK;
    if (!d)
        return au_fail_errno(err, errno, "cannot list %s", dir);
    AU_TRY(au_calloc(names, MAX_FOLDERS, sizeof **names, err));
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (e->d_name[0] == '.' || !is_folder(dir, e->d_name))
            continue;
        if (len > MAX_NAME || !au_utf8_valid(e->d_name, len)) {
            char quoted[256];
            au_log(AU_LOG_WARN, "adapters", "name is not usable, skipped dir=%s",
                   au_log_quote(quoted, sizeof quoted, e->d_name));
            continue;
        }
        AU_FAIL_IF(*n == MAX_FOLDERS, AU_LIMIT, "%s has more than %d folders", dir,
                   (int)MAX_FOLDERS);
        AU_TRY(au_strdup(&(*names)[*n], e->d_name, err));
        (*n)++;
    }
    qsort(*names, *n, sizeof **names, by_name);
done:
    closedir(d);
    return st;
}

static au_status scan_dir(au_registry *r, const char *dir, au_db *reader, au_writer *writer,
                          au_store *store, au_err *err)
{
    char **names = NULL, *path = NULL;
    size_t n = 0;
    au_status st = AU_OK;
    AU_TRY(list_folders(dir, &names, &n, err));
    for (size_t i = 0; i < n; i++) {
        free(path);
        path = NULL;
        AU_TRY(au_path_join(&path, dir, names[i], err));
        AU_TRY(scan_one(r, path, names[i], reader, writer, store, err));
    }
done:
    free(path);
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return st;
}

au_status au_registry_scan(au_registry *r, const char *const *dirs, size_t n_dirs, au_db *reader,
                           au_writer *writer, au_store *store, au_err *err)
{
    au_status st = AU_OK;
    for (size_t i = 0; i < n_dirs; i++)
        AU_TRY(scan_dir(r, dirs[i], reader, writer, store, err));
done:
    for (size_t i = 0; i < r->n; i++)
        au_model_rest(r->entries[i].model);
    return st;
}
