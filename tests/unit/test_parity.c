/* SPDX-License-Identifier: MIT */
/* The engine against transformers, stage by stage, on every case of tests/fixtures/cases (formats
 * and limits: the README there). Writes the table of errors and compares it with docs/parity.md;
 * AULOS_UPDATE_DOCS=1 replaces that file instead. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "aulos/aulos.h"
#include "base/buf.h"
#include "base/fs.h"
#include "base/json.h"
#include "npy.h"
#include "sample/delay.h"

enum { STAGES = 6 };
static const char *const stage_names[STAGES] = {"token_ids", "text_states", "encoder_states",
                                                "logits",    "codes",       "audio"};

typedef struct stage {
    int rank;
    int64_t shape[4];
    void *data;
    size_t n;
    bool wide;
} stage;

typedef struct outcome {
    stage stages[STAGES];
    float *audio[16];
    size_t audio_n[16];
} outcome;

static char fixtures[512];
static au_buf table;

static void on_trace(const char *name, const char *dtype, int rank, const int64_t *shape,
                     const void *data, void *user)
{
    outcome *o = user;
    for (int i = 0; i < STAGES; i++) {
        if (strcmp(name, stage_names[i]) != 0)
            continue;
        stage *s = &o->stages[i];
        s->rank = rank;
        s->n = 1;
        for (int r = 0; r < rank; r++) {
            s->shape[r] = shape[r];
            s->n *= (size_t)shape[r];
        }
        s->wide = strcmp(dtype, "i64") == 0;
        size_t bytes = s->n * (s->wide ? 8 : 4);
        s->data = malloc(bytes);
        memcpy(s->data, data, bytes);
        return;
    }
    fail_msg("unknown stage %s", name);
}

static au_status on_audio(void *user, size_t row, const au_audio *audio, au_err *err)
{
    (void)err;
    outcome *o = user;
    assert_true(row < 16);
    o->audio_n[row] = (size_t)audio->n_frames * (size_t)audio->channels;
    o->audio[row] = malloc(o->audio_n[row] * sizeof(float));
    memcpy(o->audio[row], audio->frames, o->audio_n[row] * sizeof(float));
    return AU_OK;
}

static void free_outcome(outcome *o)
{
    for (int i = 0; i < STAGES; i++)
        free(o->stages[i].data);
    for (int i = 0; i < 16; i++)
        free(o->audio[i]);
    memset(o, 0, sizeof *o);
}

static json_t *load(const char *dir, const char *name)
{
    char path[2200];
    json_t *j = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (au_json_load(&j, path, 1 << 20, NULL) != AU_OK)
        return NULL;
    return j;
}

static double worst(const float *got, const float *want, size_t n, double *std)
{
    double sum = 0, squares = 0, max = 0;
    for (size_t i = 0; i < n; i++) {
        sum += want[i];
        squares += (double)want[i] * want[i];
        double e = fabs((double)got[i] - want[i]);
        max = e > max || isnan(e) ? e : max;
    }
    *std = sqrt(fmax(squares / (double)n - sum / (double)n * (sum / (double)n), 0));
    return max;
}

static double relative(const float *got, const float *want, size_t n)
{
    double std, max = worst(got, want, n, &std);
    return std > 0 ? max / std : max;
}

/* Error of a whole f32 stage; fails if the shape differs. NAN where the case has no such file. */
static double compare_stage(const outcome *o, int index, const char *dir)
{
    char path[2200];
    npy want;
    snprintf(path, sizeof path, "%s/%s.npy", dir, stage_names[index]);
    if (!npy_read(&want, path))
        return NAN;
    const stage *got = &o->stages[index];
    size_t n = want.n, got_n = got->n;
    if (index == 1 ||
        index == 2) { /* rows of a batch are padded: our text is as long as its tokens */
        assert_true(got_n <= n);
        n = got_n;
    }
    assert_int_equal(got_n, n);
    double e = relative(got->data, want.f32, n);
    npy_free(&want);
    return e;
}

static void compare_exact(const outcome *o, int index, const char *dir)
{
    char path[2200];
    npy want;
    snprintf(path, sizeof path, "%s/%s.npy", dir, stage_names[index]);
    assert_true(npy_read(&want, path));
    const stage *got = &o->stages[index];
    const int64_t *ids = got->data;
    assert_true(got->n <= want.n);
    for (size_t i = 0; i < got->n; i++)
        if (ids[i] != want.i64[i])
            fail_msg("%s: element %zu is %lld, expected %lld", path, i, (long long)ids[i],
                     (long long)want.i64[i]);
    for (size_t i = got->n; i < want.n; i++) /* padding of a batch */
        assert_int_equal(want.i64[i], 0);
    npy_free(&want);
}

/* Logits by column, over the cells that the delay pattern leaves free; those past column 500 apart.
 */
static void compare_logits(const outcome *o, const json_t *spec, const char *dir, double *near,
                           double *far)
{
    char path[2200];
    npy want;
    *near = *far = NAN;
    snprintf(path, sizeof path, "%s/logits.npy", dir);
    if (!npy_read(&want, path))
        return;
    const stage *got = &o->stages[3];
    const json_t *columns = json_object_get(spec, "columns");
    size_t K = (size_t)want.shape[1], V = (size_t)want.shape[2];
    const au_delay delay = {K, (size_t)json_integer_value(json_object_get(spec, "channels")),
                            (size_t)json_integer_value(json_object_get(spec, "frames"))};
    assert_int_equal(got->shape[1], K);
    assert_int_equal(got->shape[2], V);
    for (size_t i = 0; i < json_array_size(columns); i++) {
        size_t column = (size_t)json_integer_value(json_array_get(columns, i)), frame;
        const float *g = (const float *)got->data + (column - 1) * K * V, *w = want.f32 + i * K * V;
        double max = 0, std, whole;
        whole = worst(g, w, K * V, &std);
        (void)whole;
        for (size_t k = 0; k < K; k++)
            if (au_delay_frame(&delay, k, column, &frame)) {
                double unused, e = worst(g + k * V, w + k * V, V, &unused);
                max = fmax(max, e);
            }
        double *to = column > 500 ? far : near;
        *to = isnan(*to) ? max / std : fmax(*to, max / std);
    }
    npy_free(&want);
}

/* Audio against the stored windows. `got` is [channels, n] if planar, else [n, channels]. */
static double compare_audio(const float *got, size_t total, bool planar, const json_t *spec,
                            const char *dir)
{
    char path[2200];
    npy want;
    snprintf(path, sizeof path, "%s/audio.npy", dir);
    if (!npy_read(&want, path))
        return NAN;
    size_t channels = (size_t)want.shape[0], stored = (size_t)want.shape[1], n = total / channels;
    const json_t *windows = json_object_get(spec, "audio_windows");
    assert_int_equal(n, json_integer_value(json_object_get(spec, "audio_samples")));
    float *picked = malloc(want.n * sizeof *picked);
    size_t at = 0;
    for (size_t w = 0; w < json_array_size(windows); w++) {
        size_t from = (size_t)json_integer_value(json_array_get(json_array_get(windows, w), 0));
        size_t to = (size_t)json_integer_value(json_array_get(json_array_get(windows, w), 1));
        for (size_t i = from; i < to; i++, at++)
            for (size_t c = 0; c < channels; c++)
                picked[c * stored + at] = planar ? got[c * n + i] : got[i * channels + c];
    }
    assert_int_equal(at, stored);
    double e = relative(picked, want.f32, want.n);
    free(picked);
    npy_free(&want);
    return e;
}

static const char *cell(char *buf, size_t size, double e)
{
    if (isnan(e))
        snprintf(buf, size, "–");
    else
        snprintf(buf, size, "%.1e", e);
    return buf;
}

static double fraction_of(const json_t *spec, const char *key, double absent)
{
    const json_t *v = json_object_get(spec, key);
    return v ? json_number_value(v) : absent;
}

static void fill_row(au_row *row, au_params *params, const json_t *spec, const char *prompt,
                     au_adapter *adapter, const au_model *model)
{
    const au_model_info *info = au_model_get_info(model);
    au_params_init(params, sizeof *params);
    params->greedy = true;
    params->guidance = fraction_of(spec, "guidance", 3);
    params->duration_s =
        (double)json_integer_value(json_object_get(spec, "frames")) / info->frame_rate;
    *row = (au_row){.size = sizeof *row,
                    .prompt = prompt,
                    .adapter = adapter,
                    .strength = fraction_of(spec, "strength", 1),
                    .params = params};
}

static au_model *open_model(const char *name)
{
    char path[2200];
    au_err err;
    au_model *model;
    snprintf(path, sizeof path, "%s/checkpoints/%s", fixtures, name);
    if (au_model_open(path, NULL, &model, &err) != AU_OK)
        fail_msg("%s", err.message);
    return model;
}

static au_adapter *open_adapter(au_model *model, const json_t *spec)
{
    const char *name = json_string_value(json_object_get(spec, "adapter"));
    char path[2200];
    au_err err;
    au_adapter *adapter;
    if (!name)
        return NULL;
    snprintf(path, sizeof path, "%s/%s", fixtures, name);
    if (au_adapter_open(model, path, &adapter, &err) != AU_OK)
        fail_msg("%s", err.message);
    return adapter;
}

static void run_case(const char *checkpoint, const char *name, const char *dir)
{
    json_t *spec = load(dir, "case.json");
    assert_non_null(spec);
    au_model *model = open_model(checkpoint);
    au_adapter *adapter = open_adapter(model, spec);
    au_row row;
    au_params params;
    outcome o = {0};
    au_err err;
    fill_row(&row, &params, spec, json_string_value(json_object_get(spec, "prompt")), adapter,
             model);
    const au_request q = {.size = sizeof q,
                          .model = model,
                          .rows = &row,
                          .n_rows = 1,
                          .user = &o,
                          .on_audio = on_audio,
                          .trace = on_trace};
    if (au_generate(&q, &err) != AU_OK)
        fail_msg("%s", err.message);
    /* Some cases repeat another one's arrays. */
    char other[2048];
    const char *same = json_string_value(json_object_get(spec, "same_as"));
    if (same) {
        snprintf(other, sizeof other, "%s/%s", fixtures, same);
        dir = other;
        json_decref(spec);
        spec = load(dir, "case.json");
    }
    double near, far, text, encoder, audio;
    char c[5][32];
    compare_exact(&o, 0, dir);
    text = compare_stage(&o, 1, dir);
    encoder = compare_stage(&o, 2, dir);
    compare_logits(&o, spec, dir, &near, &far);
    compare_exact(&o, 4, dir);
    audio = compare_audio(o.stages[5].data, o.stages[5].n, true, spec, dir);
    au_buf_printf(&table, "| %s | %s | %zu | equal | %s | %s | %s | %s | %lld equal | %s |\n",
                  checkpoint, name, o.stages[0].n, cell(c[0], 32, text), cell(c[1], 32, encoder),
                  cell(c[2], 32, near), cell(c[3], 32, far), (long long)o.stages[4].n,
                  cell(c[4], 32, audio));
    print_message("%s/%s: text %s, encoder %s, logits %s, far %s, audio %s\n", checkpoint, name,
                  c[0], c[1], c[2], c[3], c[4]);
    assert_true(isnan(text) || text <= 1e-4);
    assert_true(isnan(encoder) || encoder <= 1e-4);
    assert_true(isnan(near) || near <= 1e-4);
    assert_true(isnan(far) || far <= 3e-4);
    assert_true(audio <= 1e-4);
    json_decref(spec);
    free_outcome(&o);
    au_adapter_unref(&adapter);
    au_model_unref(&model);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names in a folder, sorted; the caller frees. */
static char **list(const char *dir, size_t *n)
{
    char **names = calloc(256, sizeof *names);
    DIR *d = opendir(dir);
    *n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) && *n < 256;)
        if (e->d_name[0] != '.')
            names[(*n)++] = strdup(e->d_name);
    closedir(d);
    qsort(names, *n, sizeof *names, by_name);
    return names;
}

static void free_list(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

static void each_case(void (*fn)(const char *checkpoint, const char *name, const char *dir),
                      const char *file)
{
    char cases[600], dir[1600], path[2200];
    size_t n, m, ran = 0;
    snprintf(cases, sizeof cases, "%s/cases", fixtures);
    char **checkpoints = list(cases, &n);
    for (size_t i = 0; i < n; i++) {
        snprintf(dir, sizeof dir, "%s/%s", cases, checkpoints[i]);
        char **names = list(dir, &m);
        for (size_t j = 0; j < m; j++) {
            snprintf(dir, sizeof dir, "%s/%s/%s", cases, checkpoints[i], names[j]);
            snprintf(path, sizeof path, "%s/%s", dir, file);
            if (!au_file_exists(path))
                continue;
            fn(checkpoints[i], names[j], dir);
            ran++;
        }
        free_list(names, m);
    }
    free_list(checkpoints, n);
    assert_true(ran > 0);
}

static void test_every_stage_of_every_case(void **state)
{
    (void)state;
    au_buf_str(&table, "| checkpoint | case | tokens | ids | text states | encoder states | "
                       "logits, columns 1, 2, 50 | logits past column 500 "
                       "| greedy codes | audio |\n|---|---|---|---|---|---|---|---|---|---|\n");
    each_case(run_case, "case.json");
}

/* The rows of a batch in one request: each must be what the reference says, and the bits of its
 * solo run. */
static void run_batch(const char *checkpoint, const char *name, const char *dir)
{
    json_t *batch = load(dir, "batch.json");
    const json_t *rows = json_object_get(batch, "rows");
    size_t n = json_array_size(rows);
    au_model *model = open_model(checkpoint);
    au_row row[16];
    au_params params[16];
    json_t *specs[16];
    char want_dir[16][2048];
    outcome all = {0}, alone = {0};
    au_err err;
    assert_in_range(n, 2, 16);
    for (size_t i = 0; i < n; i++) {
        const json_t *r = json_array_get(rows, i);
        if (json_is_string(r)) { /* a folder of its own, prompt beside */
            snprintf(want_dir[i], sizeof want_dir[i], "%s/%s", dir, json_string_value(r));
            specs[i] = load(want_dir[i], "case.json");
            fill_row(&row[i], &params[i], specs[i],
                     json_string_value(json_object_get(specs[i], "prompt")),
                     open_adapter(model, specs[i]), model);
        } else { /* a row with its adapter, and the case it must equal */
            snprintf(want_dir[i], sizeof want_dir[i], "%s/%s", fixtures,
                     json_string_value(json_object_get(r, "expect")));
            specs[i] = load(want_dir[i], "case.json");
            fill_row(&row[i], &params[i], r, json_string_value(json_object_get(r, "prompt")),
                     open_adapter(model, r), model);
        }
    }
    au_request q = {.size = sizeof q,
                    .model = model,
                    .rows = row,
                    .n_rows = n,
                    .user = &all,
                    .on_audio = on_audio};
    if (au_generate(&q, &err) != AU_OK)
        fail_msg("%s", err.message);
    double max = 0;
    for (size_t i = 0; i < n; i++) {
        max = fmax(max, compare_audio(all.audio[i], all.audio_n[i], false, specs[i], want_dir[i]));
        au_request solo = q;
        solo.rows = &row[i];
        solo.n_rows = 1;
        solo.user = &alone;
        assert_int_equal(au_generate(&solo, &err), AU_OK);
        assert_int_equal(alone.audio_n[0], all.audio_n[i]);
        assert_memory_equal(alone.audio[0], all.audio[i], all.audio_n[i] * sizeof(float));
        free_outcome(&alone);
    }
    char text[32];
    au_buf_printf(&table, "| %s | %s | %zu | %s |\n", checkpoint, name, n,
                  cell(text, sizeof text, max));
    assert_true(max <= 1e-4);
    /* A limit that forces groups of 1, 2 and 3 rows shows in nothing. */
    uint64_t one;
    q.n_rows = 1;
    assert_int_equal(au_request_memory(&q, &one, &err), AU_OK);
    q.n_rows = n;
    for (uint64_t group = 1; group <= 3; group++) {
        outcome grouped = {0};
        q.memory_bytes = one * group;
        q.user = &grouped;
        assert_int_equal(au_generate(&q, &err), AU_OK);
        for (size_t i = 0; i < n; i++)
            assert_memory_equal(grouped.audio[i], all.audio[i], all.audio_n[i] * sizeof(float));
        free_outcome(&grouped);
    }
    for (size_t i = 0; i < n; i++) {
        au_adapter_unref(&row[i].adapter);
        json_decref(specs[i]);
    }
    free_outcome(&all);
    json_decref(batch);
    au_model_unref(&model);
}

static void test_batches_equal_solo_runs(void **state)
{
    (void)state;
    au_buf_str(&table, "\nBatches: several rows in one request. Each row's audio has the bits of "
                       "its solo run; against the reference:\n\n"
                       "| checkpoint | batch | rows | audio |\n|---|---|---|---|\n");
    each_case(run_batch, "batch.json");
}

static void test_the_page_shows_these_figures(void **state)
{
    (void)state;
    static const char intro[] =
        "# Parity with the reference implementation\n\n"
        "The engine beside `transformers` 5.24 and `peft` 0.21 on the checkpoints, adapters and "
        "cases of `tests/fixtures` (its README "
        "describes them): greedy, f32, stage by stage. Token ids and greedy codes are equal; the "
        "other figures are the largest absolute "
        "error over the standard deviation of the reference array. The limit is 1e-4 (3e-4 for "
        "logits past column 500, where the angles of the "
        "positions are large). Written by `tests/unit/test_parity.c`; `AULOS_UPDATE_DOCS=1 meson "
        "test test_parity` replaces this page, and the "
        "test fails where it is out of date.\n\n";
    char path[600];
    char *page = NULL;
    size_t len = 0;
    au_buf text;
    au_buf_init(&text, 1 << 20);
    au_buf_str(&text, intro);
    au_buf_str(&text, au_buf_cstr(&table));
    snprintf(path, sizeof path, "%s/docs/parity.md", getenv("AULOS_SOURCE"));
    if (getenv("AULOS_UPDATE_DOCS"))
        assert_int_equal(au_file_write(path, text.data, text.len, true, NULL), AU_OK);
    assert_int_equal(au_file_read(&page, &len, path, 1 << 20, NULL), AU_OK);
    assert_string_equal(page, au_buf_cstr(&text));
    free(page);
    au_buf_deinit(&text);
    au_buf_deinit(&table);
}

int main(void)
{
    const char *source = getenv("AULOS_SOURCE");
    if (!source) {
        fprintf(stderr, "AULOS_SOURCE must name the source folder\n");
        return 1;
    }
    snprintf(fixtures, sizeof fixtures, "%s/tests/fixtures", source);
    au_buf_init(&table, 1 << 20);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_stage_of_every_case),
        cmocka_unit_test(test_batches_equal_solo_runs),
        cmocka_unit_test(test_the_page_shows_these_figures),
    };
    return cmocka_run_group_tests_name("parity", tests, NULL, NULL);
}
