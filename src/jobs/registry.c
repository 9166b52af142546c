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
#include <pthread.h>
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
#include "jobs/adapter_check.h"
#include "jobs/adapter_write.h"
#include "jobs/catalog.h"

enum { MAX_INFO_BYTES = 1 << 16, MAX_FOLDERS = 10000, MAX_NAME = 200 };
static const double SHORTEST_LIMIT_S = 30; /* a model trained on less may still be asked for 30 s */

typedef struct entry {
    char *name;
    au_model *model;
} entry;

struct au_registry {
    entry *entries;
    size_t n;
    pthread_mutex_t files; /* see au_registry_lock */
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
    au_status st = AU_OK;
    json_t *j = json_pack(
        "{s:i, s:i, s:f, s:i, s:i, s:i, s:f, s:f, s:i, s:I, s:f, s:f, s:f, s:i}", "sample_rate",
        i->sample_rate, "channels", i->channels, "frame_rate", i->frame_rate, "hop", i->hop,
        "codebooks", i->codebooks, "vocab", i->vocab, "trained_s", i->trained_s, "max_duration_s",
        au_registry_max_duration_s(m), "max_prompt_tokens", i->max_prompt_tokens, "weights_bytes",
        (json_int_t)i->weights_bytes, "hf_guidance", i->hf_guidance, "hf_temperature",
        i->hf_temperature, "hf_top_p", i->hf_top_p, "hf_top_k", i->hf_top_k);
    AU_FAIL_IF(!j, AU_INTERNAL, "model %s has values that are not finite", i->name);
    AU_TRY(au_json_text(out, j, MAX_INFO_BYTES, err));
done:
    json_decref(j);
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
    pthread_mutex_init(&r->files, NULL);
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
    pthread_mutex_destroy(&r->files);
    free(r);
    *registry = NULL;
}

void au_registry_lock(au_registry *r)
{
    pthread_mutex_lock(&r->files);
}

void au_registry_unlock(au_registry *r)
{
    pthread_mutex_unlock(&r->files);
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

typedef struct folder {
    const char *name;
    au_finding f;
} folder;

/* The row of a folder's content, or of its name's unreadable content. */
typedef struct folder_row {
    char id[AU_UUID_TEXT]; /* "": none yet */
    bool same_name;        /* false: the row has another name and keeps it */
    bool uploaded;         /* the row is an upload's, which the folder does not change */
} folder_row;

static au_status find_row(au_db *db, const folder *d, folder_row *out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    *out = (folder_row){.same_name = true};
    if (d->f.sha256[0])
        AU_TRY(au_db_query(&rows, db, err,
                           "SELECT id, name, source = 'upload' AND status <> 'rejected' FROM "
                           "adapters WHERE sha256 = ?1",
                           "t", d->f.sha256));
    else
        AU_TRY(au_db_query(&rows, db, err,
                           "SELECT id, name, 0 FROM adapters WHERE name = ?1 AND sha256 IS NULL",
                           "t", d->name));
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (!has_row)
        goto done;
    snprintf(out->id, sizeof out->id, "%s", au_rows_text(rows, 0));
    out->uploaded = au_rows_int(rows, 2);
    if (strcmp(au_rows_text(rows, 1), d->name) != 0) {
        char quoted[256];
        out->same_name = false;
        au_log(AU_LOG_WARN, "adapters", "same content under two names name=%s dir=%s",
               au_rows_text(rows, 1), au_log_quote(quoted, sizeof quoted, d->f.dir));
    }
done:
    au_rows_close(&rows);
    return st;
}

static au_status insert_row(au_db *db, const folder *d, char id[AU_UUID_TEXT], au_err *err)
{
    au_uuid7(id);
    return au_db_exec(db, NULL, err,
                      "INSERT INTO adapters (id, name, version, source, sha256, status, "
                      "created_at) SELECT ?1, ?2, 1 + COALESCE(MAX(version), 0), 'folder', ?3, "
                      "'rejected', au_now_ms() FROM adapters WHERE name = ?2",
                      "ttt", id, d->name, d->f.sha256[0] ? d->f.sha256 : NULL);
}

/* Earlier contents of this name: no longer meant by it, and forgotten where nothing names them.
 * Their objects are then without a row and swept. An upload that took the name keeps it. */
static au_status retire_others(au_db *db, const char *id, au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(au_db_exec(
        db, NULL, err,
        "UPDATE adapters SET current = (id = ?1 AND NOT EXISTS (SELECT 1 FROM adapters u WHERE "
        "u.source = 'upload' AND u.name = adapters.name AND u.current AND u.deleted_at = 0)) "
        "WHERE source = 'folder' AND name = (SELECT name FROM adapters WHERE id = ?1)",
        "t", id));
    AU_TRY(
        au_db_exec(db, NULL, err,
                   "DELETE FROM adapters WHERE source = 'folder' AND current = 0 AND id <> ?1 AND "
                   "name = (SELECT name FROM adapters WHERE id = ?1) AND "
                   "NOT EXISTS (SELECT 1 FROM job_samples s WHERE s.adapter_id = adapters.id) AND "
                   "NOT EXISTS (SELECT 1 FROM samples s WHERE s.adapter_id = adapters.id)",
                   "t", id));
done:
    return st;
}

static au_status write_folder(au_db *db, void *arg, au_err *err)
{
    const folder *d = arg;
    char key[AU_STORE_KEY];
    folder_row row;
    au_status st = AU_OK;
    snprintf(key, sizeof key, "adapters/%s/", d->f.sha256);
    AU_TRY(find_row(db, d, &row, err));
    bool is_new = !row.id[0];
    if (is_new)
        AU_TRY(insert_row(db, d, row.id, err));
    AU_TRY(au_finding_write(db, &d->f, row.id, row.uploaded, err));
    if (d->f.ready)
        AU_TRY(au_db_exec(db, NULL, err, "UPDATE adapters SET store_key = ?2 WHERE id = ?1", "tt",
                          row.id, key));
    AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM uploads WHERE key = ?1", "t", key));
    if (row.same_name && !row.uploaded)
        AU_TRY(retire_others(db, row.id, err));
    if (is_new)
        AU_TRY(au_adapter_event(db, row.id, "created", err));
done:
    return st;
}

/* Whether this content has a row and a complete copy. */
static au_status is_stored(au_db *reader, au_store *store, const au_finding *f, bool *stored,
                           au_err *err)
{
    int64_t known;
    char key[AU_STORE_KEY];
    au_status st = AU_OK;
    const char *weights = au_adapter_weights_file(f->dir);
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
    folder d = {.name = name, .f.dir = dir};
    char quoted[256], detail[512];
    au_status st = AU_OK;
    bool stored = false;
    AU_TRY(au_finding_run(&d.f, r, err));
    au_registry_lock(r);
    if (d.f.ready && d.f.sha256[0])
        st = is_stored(reader, store, &d.f, &stored, err);
    if (st == AU_OK && d.f.ready && d.f.sha256[0] && !stored)
        st = au_adapter_store(store, writer, d.f.sha256, dir, err);
    if (st == AU_OK)
        st = au_writer_run(writer, write_folder, &d, err);
    au_registry_unlock(r);
    AU_TRY(st);
    au_log(d.f.ready ? AU_LOG_INFO : AU_LOG_WARN, "adapters", "checked name=%s status=%s%s%s",
           au_log_quote(quoted, sizeof quoted, name), d.f.ready ? "ready" : "rejected",
           d.f.ready ? "" : " detail=",
           d.f.ready ? "" : au_log_quote(detail, sizeof detail, d.f.problem.message));
done:
    au_finding_deinit(&d.f);
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
    return st;
}
