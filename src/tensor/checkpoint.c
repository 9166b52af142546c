/* SPDX-License-Identifier: MIT */
/* The weights of a checkpoint folder: one file, or an index with its shards.
 *
 * An index is {"weight_map": {tensor: file}}. Just two names of index files are honoured: some
 * published repositories carry others (…index.fp32.json) whose shards are not there. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "tensor/set.h"

/* Of the largest published checkpoint: 100 kB. */
enum { MAX_INDEX_BYTES = 64 << 20 };

typedef au_status read_fn(au_tensor_set *set, au_err *err);

static const struct form {
    const char *name;
    bool index;
    const char *suffix; /* of the shards */
    read_fn *read;
} forms[] = {
    {"model.safetensors", false, ".safetensors", au_safetensors_read},
    {"model.safetensors.index.json", true, ".safetensors", au_safetensors_read},
    {"pytorch_model.bin", false, ".bin", au_torch_read},
    {"pytorch_model.bin.index.json", true, ".bin", au_torch_read},
};

static au_status read_file(au_tensor_set *set, const char *dir, const char *name, read_fn *read,
                           au_err *err)
{
    char *path = NULL;
    au_status st;
    AU_TRY(au_path_join(&path, dir, name, err));
    AU_TRY(au_tensor_set_map(set, path, err));
    AU_TRY(read(set, err));
done:
    free(path);
    return st;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct file names of the map, sorted; the array is owned by the caller, the names by the
 * map. */
static au_status list_shards(const char ***out, size_t *n, const json_t *map, const char *index,
                             const char *suffix, au_err *err)
{
    const char **names = NULL;
    size_t count = 0;
    au_status st;
    AU_TRY(au_calloc(&names, json_object_size(map), sizeof *names, err));
    for (void *it = json_object_iter((json_t *)(uintptr_t)map); it;
         it = json_object_iter_next((json_t *)(uintptr_t)map, it)) {
        const char *file = json_string_value(json_object_iter_value(it));
        AU_FAIL_IF(!file, AU_CORRUPT, "%s: the file of tensor %s is not a text", index,
                   json_object_iter_key(it));
        AU_FAIL_IF(strchr(file, '/') || file[0] == '.' || !au_str_ends(file, suffix), AU_CORRUPT,
                   "%s: tensor %s is in %.100s, expected a file of this folder ending in %s", index,
                   json_object_iter_key(it), file, suffix);
        names[count++] = file;
    }
    AU_FAIL_IF(!count, AU_CORRUPT, "%s: weight_map is empty", index);
    qsort(names, count, sizeof *names, compare_texts);
    *n = 0;
    for (size_t i = 0; i < count; i++)
        if (i == 0 || strcmp(names[i], names[*n - 1]) != 0)
            names[(*n)++] = names[i];
    *out = names;
    names = NULL;
done:
    free(names);
    return st;
}

/* Tensors [from, set->n) came from shard `file`: the index must say so of each. */
static au_status check_shard(const au_tensor_set *set, size_t from, const json_t *map,
                             const char *file, const char *index, au_err *err)
{
    for (size_t i = from; i < set->n; i++) {
        const char *said = json_string_value(json_object_get(map, set->items[i].name));
        if (!said)
            return au_fail(err, AU_CORRUPT, "%s: %s holds tensor %s, which the index does not name",
                           index, file, set->items[i].name);
        if (strcmp(said, file) != 0)
            return au_fail(err, AU_CORRUPT, "%s: tensor %s is in %s, not in %s as the index says",
                           index, set->items[i].name, file, said);
    }
    return AU_OK;
}

static au_status read_index(au_tensor_set *set, const char *dir, const char *path,
                            const struct form *form, au_err *err)
{
    json_t *index = NULL;
    const char **shards = NULL;
    size_t n_shards = 0;
    au_status st;
    AU_TRY(au_json_load(&index, path, MAX_INDEX_BYTES, err));
    json_t *map = json_object_get(index, "weight_map");
    AU_FAIL_IF(!json_is_object(map), AU_CORRUPT, "%s: weight_map is not an object", path);
    AU_TRY(list_shards(&shards, &n_shards, map, path, form->suffix, err));
    for (size_t i = 0; i < n_shards; i++) {
        size_t from = set->n;
        st = read_file(set, dir, shards[i], form->read, err);
        if (st == AU_NOT_FOUND)
            st = au_fail(err, AU_NOT_FOUND, "%s: shard %s is missing", path, shards[i]);
        AU_TRY(st);
        AU_TRY(check_shard(set, from, map, shards[i], path, err));
    }
    AU_TRY(au_tensor_set_finish(set, err));
    /* Each tensor is where the index says and none occurs twice; so equal counts leave none out. */
    if (set->n != json_object_size(map)) {
        for (void *it = json_object_iter(map); it; it = json_object_iter_next(map, it))
            AU_FAIL_IF(!au_tensor_set_find(set, json_object_iter_key(it)), AU_CORRUPT,
                       "%s: tensor %s is not in %s", path, json_object_iter_key(it),
                       json_string_value(json_object_iter_value(it)));
    }
done:
    free(shards);
    json_decref(index);
    return st;
}

au_status au_checkpoint_open(au_tensor_set **out, const char *dir, au_err *err)
{
    *out = NULL;
    char *path = NULL;
    size_t i = 0, n = sizeof forms / sizeof *forms;
    au_status st;
    for (; i < n; i++) {
        free(path);
        AU_TRY(au_path_join(&path, dir, forms[i].name, err));
        if (au_file_exists(path))
            break;
    }
    AU_FAIL_IF(i == n, AU_NOT_FOUND, "%s has no weights: looked for %s, %s, %s and %s", dir,
               forms[0].name, forms[1].name, forms[2].name, forms[3].name);
    AU_TRY(au_tensor_set_new(out, err));
    if (forms[i].index) {
        AU_TRY(read_index(*out, dir, path, &forms[i], err));
    } else {
        AU_TRY(read_file(*out, dir, forms[i].name, forms[i].read, err));
        AU_TRY(au_tensor_set_finish(*out, err));
    }
done:
    free(path);
    if (st != AU_OK)
        au_tensor_set_close(out);
    return st;
}
