/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "adapters/adapters.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"

/* ---- A model's modules, as far as its tensors show them ---- */

enum { MAX_MODULES = 400 };

typedef struct model {
    au_tensor_set *tensors;
    au_module modules[MAX_MODULES];
    char paths[MAX_MODULES][160];
    size_t n;
} model;

static void add_module(model *m, const au_tensor *t)
{
    const char *path = m->paths[m->n];
    size_t len = strlen(t->name) - strlen(".weight");
    char bias[180];
    snprintf(m->paths[m->n], sizeof m->paths[0], "%.*s", (int)len, t->name);
    snprintf(bias, sizeof bias, "%s.bias", path);
    bool embedding = strstr(path, "embed_tokens") || strstr(path, "shared");
    au_module x = {.path = path, .weight = t, .bias = au_tensor_set_find(m->tensors, bias)};
    x.has_bias = x.bias != NULL;
    x.kind = t->rank == 1 ? AU_MODULE_NORM : embedding ? AU_MODULE_EMBEDDING : AU_MODULE_LINEAR;
    x.out = embedding ? t->shape[1] : t->shape[0];
    x.in = t->rank == 1 ? 0 : embedding ? t->shape[0] : t->shape[1];
    m->modules[m->n++] = x;
}

static const char *fixtures(const char *a, const char *b)
{
    static char paths[4][4096];
    static int turn;
    char *p = paths[turn++ % 4];
    snprintf(p, sizeof paths[0], "%s/tests/fixtures/%s/%s", getenv("AULOS_SOURCE"), a, b);
    return p;
}

static void open_model(model *m, const char *name)
{
    au_err err;
    m->n = 0;
    if (au_checkpoint_open(&m->tensors, fixtures("checkpoints", name), &err) != AU_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < au_tensor_set_count(m->tensors); i++) {
        const au_tensor *t = au_tensor_set_at(m->tensors, i);
        if (au_str_ends(t->name, ".weight") && !au_str_starts(t->name, "audio_encoder.") &&
            !strstr(t->name, "relative_attention_bias"))
            add_module(m, t);
    }
}

static const au_delta *delta_of(const model *m, const au_adapter_set *set, const char *path)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->paths[i], path) == 0)
            return au_adapter_set_delta(set, i);
    fail_msg("no module %s", path);
    return NULL;
}

static const au_module *module_of(const model *m, const char *path)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->paths[i], path) == 0)
            return &m->modules[i];
    return NULL;
}

static model base; /* mono-f32 */

static int open_base(void **state)
{
    (void)state;
    open_model(&base, "mono-f32");
    return 0;
}

static int close_base(void **state)
{
    (void)state;
    au_tensor_set_close(&base.tensors);
    return 0;
}

static au_adapter_set *open_good(const model *m, const char *name)
{
    au_adapter_set *set;
    au_err err;
    if (au_adapter_set_open(&set, fixtures("adapters", name), m->modules, m->n, &err) != AU_OK)
        fail_msg("%s: %s", name, err.message);
    return set;
}

/* ---- Adapters made with PEFT ---- */

#define L "decoder.model.decoder.layers."

static void test_plain(void **state)
{
    (void)state;
    au_adapter_set *set = open_good(&base, "mono-f32/plain/"); /* a slash at the end is fine */
    const au_adapter_facts *f = au_adapter_set_facts(set);
    assert_string_equal(f->kind, "lora");
    assert_int_equal(f->rank, 4);
    assert_true(f->alpha == 8);
    assert_int_equal(strlen(f->sha256), 64);
    const au_delta *d = delta_of(&base, set, L "0.self_attn.q_proj");
    assert_int_equal(d->rank, 4);
    assert_true(d->scale == 2);
    assert_true((uintptr_t)d->a % 64 == 0 && (uintptr_t)d->b % 64 == 0);
    assert_true(!d->bias && !d->magnitude && !d->replace_weight && !d->replace_bias);
    assert_null(delta_of(&base, set, "decoder.lm_heads.0"));
    assert_null(au_adapter_set_delta(set, base.n));

    au_tensor_set *file;
    assert_int_equal(
        au_safetensors_open(&file, fixtures("adapters", "mono-f32/plain/adapter_model.safetensors"),
                            NULL),
        AU_OK);
    const au_tensor *a =
        au_tensor_set_find(file, "base_model.model." L "0.self_attn.q_proj.lora_A.weight");
    assert_memory_equal(d->a, a->data, a->bytes);
    assert_int_equal(f->targets * 2, au_tensor_set_count(file));
    au_tensor_set_close(&file);
    au_adapter_set_close(&set);
    assert_null(set);
    au_adapter_set_close(&set);
}

/* The same adapter as other tools leave it: the same deltas. */
static void test_repackaged(void **state)
{
    (void)state;
    const char *names[] = {"mono-f32/plain-bin", "mono-f32/plain-wrapped-twice",
                           "mono-f32/plain-named-default"};
    au_adapter_set *plain = open_good(&base, "mono-f32/plain");
    for (int k = 0; k < 3; k++) {
        au_adapter_set *set = open_good(&base, names[k]);
        for (size_t i = 0; i < base.n; i++) {
            const au_delta *x = au_adapter_set_delta(plain, i), *y = au_adapter_set_delta(set, i);
            assert_true(!x == !y);
            if (!x)
                continue;
            assert_true(x->rank == y->rank && x->scale == y->scale);
            assert_memory_equal(x->a, y->a, (size_t)(x->rank * base.modules[i].in) * sizeof(float));
            assert_memory_equal(x->b, y->b,
                                (size_t)(x->rank * base.modules[i].out) * sizeof(float));
        }
        assert_string_not_equal(au_adapter_set_facts(plain)->sha256,
                                au_adapter_set_facts(set)->sha256);
        au_adapter_set_close(&set);
    }
    au_adapter_set_close(&plain);
}

static void test_patterns(void **state)
{
    (void)state;
    au_adapter_set *set = open_good(&base, "mono-f32/rslora-patterns");
    const struct {
        const char *path;
        int rank;
        double alpha;
    } cases[] = {
        {L "0.self_attn.q_proj", 2, 6},
        {L "1.self_attn.q_proj", 4, 6},
        {L "1.fc1", 7, 12},
        {L "2.fc2", 1, 6},
        {"decoder.lm_heads.1", 4, 2},
        {L "1.self_attn.v_proj", 4, 3},
        {L "1.encoder_attn.v_proj", 4, 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const au_delta *d = delta_of(&base, set, cases[i].path);
        if (!d)
            continue; /* fewer layers */
        assert_int_equal(d->rank, cases[i].rank);
        assert_true(d->scale == (float)(cases[i].alpha / sqrt(cases[i].rank)));
    }
    assert_int_equal(au_adapter_set_facts(set)->rank, 7);
    au_adapter_set_close(&set);
}

static void test_embeddings_are_transposed(void **state)
{
    (void)state;
    au_adapter_set *set = open_good(&base, "mono-f32/dreambooth");
    const char *path = "decoder.model.decoder.embed_tokens.2";
    const au_delta *d = delta_of(&base, set, path);
    const au_module *m = module_of(&base, path);
    assert_int_equal(m->kind, AU_MODULE_EMBEDDING);
    au_tensor_set *file;
    assert_int_equal(
        au_safetensors_open(
            &file, fixtures("adapters", "mono-f32/dreambooth/adapter_model.safetensors"), NULL),
        AU_OK);
    const au_tensor *a = au_tensor_set_find(
        file, "base_model.model.decoder.model.decoder.embed_tokens.2.lora_embedding_A");
    for (int64_t n = 0; n < m->in; n++)
        for (int j = 0; j < d->rank; j++) {
            float v;
            au_tensor_read_f32(a, (size_t)(j * m->in + n), 1, &v);
            assert_true(d->a[n * d->rank + j] == v);
        }
    au_tensor_set_close(&file);
    au_adapter_set_close(&set);
}

/* The factor of a linear layer and of an embedding against the definition, all in double. */
static void check_factor(const au_adapter_set *set, const char *path, double strength)
{
    const au_module *m = module_of(&base, path);
    const au_delta *d = delta_of(&base, set, path);
    assert_non_null(d->magnitude);
    float *factor = malloc((size_t)m->out * sizeof *factor);
    assert_int_equal(au_delta_dora_factor(d, m, strength, factor, NULL), AU_OK);
    bool embedding = m->kind == AU_MODULE_EMBEDDING;
    for (int64_t o = 0; o < m->out; o++) {
        double sum = 0;
        for (int64_t i = 0; i < m->in; i++) {
            float w;
            double v = 0;
            for (int j = 0; j < d->rank; j++)
                v += (double)d->b[o * d->rank + j] *
                     (double)(embedding ? d->a[i * d->rank + j] : d->a[j * m->in + i]);
            au_tensor_read_f32(m->weight, (size_t)(embedding ? i * m->out + o : o * m->in + i), 1,
                               &w);
            v = (double)w + strength * (double)d->scale * v;
            sum += v * v;
        }
        double want = (double)d->magnitude[o] / sqrt(sum);
        assert_true(fabs((double)factor[o] - want) < 1e-6 * want);
    }
    free(factor);
}

static void test_dora(void **state)
{
    (void)state;
    au_adapter_set *set = open_good(&base, "mono-f32/dora");
    assert_string_equal(au_adapter_set_facts(set)->kind, "dora");
    for (int k = 0; k < 3; k++) {
        check_factor(set, L "0.fc1", k - 0.5);
        check_factor(set, L "1.self_attn.q_proj", k - 0.5);
        check_factor(set, "decoder.model.decoder.embed_tokens.2", k - 0.5);
    }
    au_adapter_set_close(&set);
}

static void test_other_good_ones(void **state)
{
    (void)state;
    au_adapter_set *set = open_good(&base, "mono-f32/modules-to-save");
    const au_delta *d = delta_of(&base, set, "enc_to_dec_proj");
    assert_true(d->rank == 0 && d->replace_weight && d->replace_bias);
    d = delta_of(&base, set, "decoder.model.decoder.layer_norm");
    assert_true(d->replace_weight && d->replace_bias);
    d = delta_of(&base, set, "decoder.lm_heads.3");
    assert_true(d->replace_weight && !d->replace_bias);
    au_adapter_set_close(&set);

    set = open_good(&base, "mono-f32/regex-bias");
    assert_non_null(delta_of(&base, set, L "0.encoder_attn.q_proj")->bias);
    assert_null(delta_of(&base, set, L "1.encoder_attn.q_proj"));
    au_adapter_set_close(&set);

    set = open_good(&base, "mono-f32/text-encoder");
    assert_int_equal(
        delta_of(&base, set, "text_encoder.encoder.block.0.layer.0.SelfAttention.q")->rank, 3);
    au_adapter_set_close(&set);

    static model other;
    open_model(&other, "mono-bf16-noproj");
    set = open_good(&other, "mono-bf16-noproj/half");
    au_adapter_set_close(&set);
    au_tensor_set_close(&other.tensors);
    open_model(&other, "stereo-f16-sharded");
    set = open_good(&other, "stereo-f16-sharded/dreambooth");
    assert_non_null(delta_of(&other, set, "decoder.lm_heads.7"));
    au_adapter_set_close(&set);
    au_tensor_set_close(&other.tensors);
}

static void test_bad_ones(void **state)
{
    (void)state;
    static const struct {
        const char *name, *message;
    } cases[] = {
        {"unknown-target", "which the model does not have"},
        {"unmatched-tensor", "layers.99"},
        {"wrong-shape-a", "lora_A.weight has shape"},
        {"wrong-shape-b", "lora_B.weight has shape"},
        {"rank-mismatch", "disagree about the rank"},
        {"missing-b", "has a lora_A without its lora_B"},
        {"not-finite", "is not finite: it holds NaN"},
        {"other-model", "made for another model?"},
        {"truncated", "outside the file"},
        {"truncated-header", "the header says it has"},
        {"header-too-big", "the header says it has"},
        {"header-overflow", "18446744073709551615"},
        {"offsets-outside", "outside the file"},
        {"offsets-backward", "run backwards"},
        {"shape-overflow", "overflows"},
        {"unknown-dtype", "dtype Q7"},
        {"config-not-json", "not valid JSON"},
        {"config-no-type", "has no peft_type"},
        {"rank-pattern-lies", "expected 9 (rank_pattern \"q_proj\""},
        {"layer-replication", "layer_replication is set"},
        {"ia3", "peft_type is \"IA3\""},
    };
    json_t *bad;
    assert_int_equal(au_json_load(&bad, fixtures("adapters/bad", "bad.json"), 1 << 20, NULL),
                     AU_OK);
    const json_t *list = json_object_get(bad, "adapters");
    assert_int_equal(json_array_size(list), sizeof cases / sizeof *cases);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(list, i), "name")),
                   *message = NULL;
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
            if (strcmp(name, cases[k].name) == 0)
                message = cases[k].message;
        assert_non_null(message);
        au_adapter_set *set;
        au_err err;
        assert_int_not_equal(
            au_adapter_set_open(&set, fixtures("adapters/bad", name), base.modules, base.n, &err),
            AU_OK);
        assert_null(set);
        if (!strstr(err.message, message) || strchr(err.message, '/'))
            fail_msg("%s: %s", name, err.message);
    }
    json_decref(bad);
}

/* ---- Adapters made here ---- */

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/au-test-adapters-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return au_remove_tree(dir, NULL) == AU_OK ? 0 : -1;
}

/* The items below leave out what is 0 or NULL. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

/* A tensor to write: its values are `fill` everywhere, or copied. */
typedef struct item {
    const char *name;
    int64_t rows, cols; /* cols 0: a vector; rows < 0: three dimensions */
    float fill;
    const au_tensor *copy;
    const float *values;
} item;

#define P "base_model.model."
#define Q P L "0.self_attn.q_proj"

static void write_in_dir(const char *name, const void *data, size_t len)
{
    char *path;
    assert_int_equal(au_path_join(&path, dir, name, NULL), AU_OK);
    assert_int_equal(au_file_write(path, data, len, true, NULL), AU_OK);
    free(path);
}

static void write_adapter(const char *config, const item *items, size_t n)
{
    au_buf head, data;
    au_buf_init(&head, 1 << 20);
    au_buf_init(&data, 1 << 24);
    au_buf_append(&head, "12345678{", 9);
    for (size_t i = 0; i < n; i++) {
        int64_t rows = items[i].rows < 0 ? -items[i].rows : items[i].rows;
        int64_t cols = items[i].cols;
        size_t from = data.len;
        for (int64_t k = 0; k < rows * (cols ? cols : 1); k++) {
            float v = items[i].values ? items[i].values[k] : items[i].fill;
            if (items[i].copy)
                au_tensor_read_f32(items[i].copy, (size_t)k, 1, &v);
            au_buf_append(&data, &v, sizeof v);
        }
        au_buf_printf(&head, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%lld", i ? "," : "",
                      items[i].name, (long long)rows);
        if (cols)
            au_buf_printf(&head, ",%lld", (long long)cols);
        au_buf_printf(&head, "%s],\"data_offsets\":[%zu,%zu]}", items[i].rows < 0 ? ",1" : "", from,
                      data.len);
    }
    au_buf_char(&head, '}');
    uint64_t len = head.len - 8;
    memcpy(head.data, &len, 8);
    au_buf_append(&head, data.data, data.len);
    write_in_dir("adapter_model.safetensors", head.data, head.len);
    write_in_dir("adapter_config.json", config, strlen(config));
    au_buf_deinit(&head);
    au_buf_deinit(&data);
}

/* Opens what was written; message NULL: it must open (the set is returned), else it must be refused
 * so. */
static au_adapter_set *try_adapter(const char *config, const item *items, size_t n,
                                   const char *message)
{
    au_adapter_set *set;
    au_err err;
    write_adapter(config, items, n);
    au_status st = au_adapter_set_open(&set, dir, base.modules, base.n, &err);
    if (!message && st != AU_OK)
        fail_msg("%s: %s", config, err.message);
    if (message && st == AU_OK)
        fail_msg("%s: accepted, expected: %s", config, message);
    if (message && !strstr(err.message, message))
        fail_msg("%s: %s, expected: %s", config, err.message, message);
    return set;
}

static void accept(const char *config, const item *items, size_t n)
{
    au_adapter_set *set = try_adapter(config, items, n, NULL);
    au_adapter_set_close(&set);
}

static void refuse(const char *config, const item *items, size_t n, const char *message)
{
    assert_null(try_adapter(config, items, n, message));
}

#define N(items) (sizeof(items) / sizeof *(items))
#define CONFIG(more) "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4" more "}"

static void test_config_fields(void **state)
{
    (void)state;
    int64_t d = module_of(&base, L "0.self_attn.q_proj")->in;
    const item pair[] = {{Q ".lora_A.weight", 2, d, 1}, {Q ".lora_B.weight", d, 2, 1}};
    accept(CONFIG(""), pair, 2);
    accept(CONFIG(",\"layer_replication\":null,\"target_parameters\":[],\"loftq_config\":{},\"use_"
                  "qalora\":false"),
           pair, 2);
    accept(CONFIG(",\"fan_in_fan_out\":true,\"init_lora_weights\":\"pissa\",\"some_new_field\":3"),
           pair, 2);
    static const struct {
        const char *config, *message;
    } cases[] = {
        {"[]", "not a JSON object"},
        {"{\"peft_type\":\"LOHA\"}", "peft_type is \"LOHA\""},
        {"{\"peft_type\":7}", "peft_type is 7"},
        {"{\"peft_type\":\"LORA\",\"r\":0}", "r is 0, expected an integer from 1 to 65536"},
        {"{\"peft_type\":\"LORA\",\"r\":2.5}", "r is 2.5"},
        {"{\"peft_type\":\"LORA\",\"r\":4294967298}", "r is 4294967298"},
        {"{\"peft_type\":\"LORA\",\"r\":4}", "has rank 2, expected 4 (r of"},
        {CONFIG(",\"lora_alpha\":\"x\""), "duplicate"},
        {"{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":\"x\"}", "lora_alpha is \"x\""},
        {"{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":1e300}",
         "alpha 1e+300 is not a usable number"},
        {"{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":0}", "would change nothing"},
        {CONFIG(",\"use_rslora\":1"), "use_rslora is 1, expected true or false"},
        {CONFIG(",\"bias\":\"some\""), "bias is \"some\""},
        {CONFIG(",\"target_parameters\":[\"a\"]"), "target_parameters is set to [\"a\"]"},
        {CONFIG(",\"trainable_token_indices\":[1]"), "trainable_token_indices is set"},
        {CONFIG(",\"megatron_config\":{\"a\":1}"), "megatron_config is set"},
        {CONFIG(",\"use_qalora\":true"), "use_qalora is set"},
        {CONFIG(",\"alora_invocation_tokens\":[1]"), "alora_invocation_tokens is set"},
        {CONFIG(",\"use_something_new\":true"), "use_something_new is set"},
        {CONFIG(",\"use_dora\":true"), "has no lora_magnitude_vector"},
        {CONFIG(",\"lora_bias\":true"), "has no lora_B.bias"},
        {CONFIG(",\"use_dora\":true,\"lora_bias\":true"), "use_dora and lora_bias together"},
        {CONFIG(",\"rank_pattern\":{\"q_proj\":0}"), "rank_pattern of \"q_proj\" is 0"},
        {CONFIG(",\"rank_pattern\":{\"(\":2}"), "is not a regular expression"},
        {CONFIG(",\"rank_pattern\":[1]"), "rank_pattern is [1]"},
        {CONFIG(",\"alpha_pattern\":{\"q_proj\":\"x\"}"), "alpha_pattern of \"q_proj\""},
        {CONFIG(",\"rank_pattern\":{\"(.*)*(.*)*(.*)*(.*)*[^a-z]\":2}"), "takes too many steps"},
        {CONFIG(",\"target_modules\":[\"q_proj\",\"lm_heads\"]"), "decoder.lm_heads, a container"},
        {CONFIG(",\"target_modules\":[\"embed_tokens\"]"), "embed_tokens, a container"},
        {CONFIG(",\"target_modules\":7"), "target_modules is 7"},
        {CONFIG(",\"modules_to_save\":[\"lm_heads.0\"]"), "but its weight is not in the file"},
    };
    for (size_t i = 0; i < N(cases); i++)
        refuse(cases[i].config, pair, 2, cases[i].message);
}

static void test_pattern_semantics(void **state)
{
    (void)state;
    int64_t d = module_of(&base, L "0.self_attn.q_proj")->in;
    const item pair[] = {{Q ".lora_A.weight", 2, d, 1}, {Q ".lora_B.weight", d, 2, 1}};
    static const struct {
        const char *alpha_pattern;
        float scale;
    } cases[] = {
        {"{\"q_proj\":6}", 3},
        {"{\"proj\":6}", 2}, /* not a whole last component */
        {"{\"self_attn.q_proj\":6}", 3},
        {"{\"" L "0.self_attn.q_proj\":6}", 3},
        {"{\"self_attn\":6}", 2},              /* must match at the end */
        {"{\"[qk]_proj\":6,\"q_proj\":8}", 3}, /* the first key wins */
        {"{\"zzz\":6,\"q_proj\":8}", 4},
        {"{\"k_proj|q_proj\":6}", 3},
    };
    for (size_t i = 0; i < N(cases); i++) {
        char config[400];
        snprintf(config, sizeof config, CONFIG(",\"alpha_pattern\":%s"), cases[i].alpha_pattern);
        au_adapter_set *set = try_adapter(config, pair, 2, NULL);
        assert_true(delta_of(&base, set, L "0.self_attn.q_proj")->scale == cases[i].scale);
        au_adapter_set_close(&set);
    }
}

static void test_tensor_problems(void **state)
{
    (void)state;
    int64_t d = module_of(&base, L "0.self_attn.q_proj")->in,
            v = module_of(&base, "decoder.lm_heads.0")->out;
    int64_t n = module_of(&base, "decoder.model.decoder.embed_tokens.0")->in;
    const char *e = P "decoder.model.decoder.embed_tokens.0";
    char ea[200], eb[200];
    snprintf(ea, sizeof ea, "%s.lora_embedding_A", e);
    snprintf(eb, sizeof eb, "%s.lora_embedding_B", e);
    const item a = {Q ".lora_A.weight", 2, d, 1}, b = {Q ".lora_B.weight", d, 2, 1};

    refuse(CONFIG(""), NULL, 0, "holds no tensors");
    refuse(CONFIG(""), (item[]){b}, 1, "has a lora_B without its lora_A");
    refuse(CONFIG(""), (item[]){a, b, {Q ".lora_A.default.weight", 2, d, 1}}, 3,
           "are both the lora_A of module");
    refuse(CONFIG(""), (item[]){a, b, {Q ".lora_C.weight", 2, d, 1}}, 3, "no part of a LoRA");
    refuse(CONFIG(""), (item[]){a, b, {Q ".base_layer.weight", d, d, 1}}, 3, "no part of a LoRA");
    refuse(CONFIG(""), (item[]){a, b, {Q ".lora_magnitude_vector", d, 0, 1}}, 3,
           "but use_dora is not true");
    refuse(CONFIG(""), (item[]){a, b, {Q ".lora_B.bias", d, 0, 1}}, 3, "but lora_bias is not true");
    refuse(CONFIG(""), (item[]){a, b, {Q ".weight", d, d, 1}}, 3,
           "modules_to_save does not name its module");
    refuse(CONFIG(",\"modules_to_save\":[\"layers.0.self_attn.q_proj\"]"),
           (item[]){a, b, {Q ".weight", d, d, 1}}, 3, "expected one of the two");
    refuse(CONFIG(""), (item[]){{Q ".lora_A.weight", -2, d, 1}, b}, 2,
           "convolutions is not supported");
    refuse(CONFIG(""),
           (item[]){a, b, {P "audio_encoder.decoder.layers.0.conv.lora_A.weight", -2, 7, 1}}, 3,
           "it looks like a convolution");
    refuse(CONFIG(""),
           (item[]){{P "decoder.model.decoder.layer_norm.lora_A.weight", 2, d, 1},
                    {P "decoder.model.decoder.layer_norm.lora_B.weight", d, 2, 1}},
           2, "is a norm");
    refuse(
        CONFIG(""),
        (item[]){{ea, 2, n, 1}, {P "decoder.model.decoder.embed_tokens.0.lora_A.weight", 2, n, 1}},
        2, "of a linear layer and of an embedding");
    refuse(CONFIG(""), (item[]){{Q ".lora_embedding_A", 2, d, 1}, {Q ".lora_embedding_B", d, 2, 1}},
           2, "those of an embedding");
    refuse(CONFIG(""),
           (item[]){{P "decoder.model.decoder.embed_tokens.0.lora_A.weight", 2, n, 1},
                    {P "decoder.model.decoder.embed_tokens.0.lora_B.weight", d, 2, 1}},
           2, "those of a linear layer");
    refuse(CONFIG(""), (item[]){{Q ".lora_A.weight", 2, d, INFINITY}, b}, 2, "an infinity");
    refuse(CONFIG(",\"modules_to_save\":[\"lm_heads.0\"]"),
           (item[]){a, b, {P "decoder.lm_heads.0.weight", v, d + 1, 1}}, 3, "has shape");
    refuse(
        CONFIG(",\"modules_to_save\":[\"lm_heads.0\"]"),
        (item[]){
            a, b, {P "decoder.lm_heads.0.weight", v, d, 1}, {P "decoder.lm_heads.0.bias", v, 0, 1}},
        4, "has no bias");
    refuse(CONFIG(",\"modules_to_save\":[\"decoder.layer_norm\"]"),
           (item[]){a, b, {P "decoder.model.decoder.layer_norm.weight", d, 0, 3}}, 3,
           "but its bias is not in the file");
    /* Every problem is listed. */
    refuse(CONFIG(",\"use_qalora\":true"),
           (item[]){{Q ".lora_A.weight", 2, d, NAN}, {P "x.lora_A.weight", 2, 3, 1}}, 2,
           "use_qalora");
    au_adapter_set *set;
    au_err err;
    assert_int_not_equal(au_adapter_set_open(&set, dir, base.modules, base.n, &err), AU_OK);
    assert_non_null(strstr(err.message, "NaN"));
    assert_non_null(strstr(err.message, "module x, which the model does not have"));
    assert_non_null(strstr(err.message, "without its lora_B"));

    accept(CONFIG(""), (item[]){{ea, 2, n, 1}, {eb, d, 2, 1}}, 2);
    /* Other spellings: another adapter's name, no prefix, the prefix three times. */
    accept(CONFIG(""),
           (item[]){{P P P L "0.self_attn.q_proj.lora_A.my-name.weight", 2, d, 1},
                    {L "0.self_attn.q_proj.lora_B.my-name.weight", d, 2, 1}},
           2);
    accept(CONFIG(""),
           (item[]){{P "decoder.model.decoder.embed_tokens.0.lora_embedding_A.v2", 2, n, 1},
                    {P "decoder.model.decoder.embed_tokens.0.lora_embedding_B.v2", d, 2, 1}},
           2);
    accept(CONFIG(",\"modules_to_save\":[\"lm_heads.0\"]"),
           (item[]){{P "decoder.lm_heads.0.modules_to_save.default.weight", v, d, 1}}, 1);
    const char *const magnitudes[] = {Q ".lora_magnitude_vector", Q ".lora_magnitude_vector.weight",
                                      Q ".lora_magnitude_vector.default",
                                      Q ".lora_magnitude_vector.default.weight"};
    for (size_t i = 0; i < N(magnitudes); i++)
        accept(CONFIG(",\"use_dora\":true"), (item[]){a, b, {magnitudes[i], d, 0, 1}}, 3);
    /* PEFT's plain suffix: "layer_norm" names every norm whose path ends so. */
    refuse(CONFIG(",\"modules_to_save\":[\"layer_norm\"]"), (item[]){a, b}, 2,
           "self_attn_layer_norm (by \"layer_norm\")");
}

static void test_base_biases(void **state)
{
    (void)state;
    const au_module *m = module_of(&base, "enc_to_dec_proj");
    const item bias = {P "enc_to_dec_proj.bias", m->out, 0, 0.25f};
    refuse(CONFIG(""), &bias, 1, "neither modules_to_save nor bias says so");
    const char *const kinds[] = {CONFIG(",\"bias\":\"all\""), CONFIG(",\"bias\":\"lora_only\"")};
    for (int i = 0; i < 2; i++) {
        au_adapter_set *set = try_adapter(kinds[i], &bias, 1, NULL);
        const au_delta *d = delta_of(&base, set, "enc_to_dec_proj");
        assert_true(d->replace_bias[0] == 0.25f && !d->replace_weight);
        au_adapter_set_close(&set);
    }
    accept(kinds[0], (item[]){{P "enc_to_dec_proj.base_layer.bias", m->out, 0, 0.25f}}, 1);
    refuse(kinds[0], (item[]){{bias.name, m->out, 0, 0, m->bias}}, 1, "would change nothing");
    refuse(kinds[0], (item[]){bias, {P "audio_encoder.decoder.layers.0.conv.bias", 8, 0, 1}}, 2,
           "audio_encoder.decoder.layers.0.conv, which the model does not have");
}

static void test_adapters_that_change_nothing(void **state)
{
    (void)state;
    const char *nothing = "would change nothing";
    const au_module *q = module_of(&base, L "0.self_attn.q_proj"),
                    *h = module_of(&base, "decoder.lm_heads.0");
    int64_t d = q->in, n = module_of(&base, "decoder.model.decoder.embed_tokens.0")->in;
    const item a = {Q ".lora_A.weight", 2, d, 1}, b = {Q ".lora_B.weight", d, 2, 0};
    const item bias = {Q ".lora_B.bias", d, 0, 1}, zero_bias = {Q ".lora_B.bias", d, 0, 0};
    refuse(CONFIG(""), (item[]){a, b}, 2, nothing);
    refuse(CONFIG(",\"lora_bias\":true"), (item[]){a, b, zero_bias}, 3, nothing);
    accept(CONFIG(",\"lora_bias\":true"), (item[]){a, b, bias}, 3);
    const char *ea = P "decoder.model.decoder.embed_tokens.0.lora_embedding_A";
    const char *eb = P "decoder.model.decoder.embed_tokens.0.lora_embedding_B";
    refuse(CONFIG(""), (item[]){{ea, 2, n, 0}, {eb, d, 2, 1}}, 2, nothing);
    refuse(CONFIG(""), (item[]){{ea, 2, n, 1}, {eb, d, 2, 0}}, 2, nothing);
    /* One module that acts is enough. */
    accept(CONFIG(""), (item[]){a, b, {ea, 2, n, 1}, {eb, d, 2, 1}}, 4);
    /* A and B are not zero, their product is: A has its first row only, B its second column only.
     */
    float half_a[2 * 64] = {0}, half_b[64 * 2] = {0};
    assert_true(d <= 64);
    for (int64_t i = 0; i < d; i++)
        half_a[i] = half_b[2 * i + 1] = 1;
    refuse(CONFIG(""), (item[]){{a.name, 2, d, 0, NULL, half_a}, {b.name, d, 2, 0, NULL, half_b}},
           2, nothing);

    const char *save = CONFIG(",\"modules_to_save\":[\"lm_heads.0\"]");
    refuse(save, (item[]){{P "decoder.lm_heads.0.weight", h->out, h->in, 0, h->weight}}, 1,
           nothing);
    accept(save, (item[]){{P "decoder.lm_heads.0.weight", h->out, h->in, 0}}, 1);

    /* DoRA: the magnitudes of a fresh adapter are the norms of W. */
    const char *dora = CONFIG(",\"use_dora\":true");
    float norms[64];
    for (int64_t o = 0; o < d; o++) {
        double sum = 0;
        for (int64_t i = 0; i < d; i++) {
            float w;
            au_tensor_read_f32(q->weight, (size_t)(o * d + i), 1, &w);
            sum += (double)w * (double)w;
        }
        norms[o] = (float)sqrt(sum);
    }
    refuse(dora, (item[]){a, b, {Q ".lora_magnitude_vector", d, 0, 0, NULL, norms}}, 3, nothing);
    norms[3] *= 1.01f;
    accept(dora, (item[]){a, b, {Q ".lora_magnitude_vector", d, 0, 0, NULL, norms}}, 3);
}

static void test_missing_files(void **state)
{
    (void)state;
    au_adapter_set *set;
    au_err err;
    char hash[65];
    assert_int_equal(au_adapter_set_open(&set, "/no/such/folder", base.modules, base.n, &err),
                     AU_NOT_FOUND);
    assert_int_equal(au_adapter_set_open(&set, dir, base.modules, base.n, &err), AU_NOT_FOUND);
    assert_non_null(strstr(err.message, "cannot open adapter_config.json"));
    assert_non_null(strstr(err.message, "neither adapter_model.safetensors nor adapter_model.bin"));
    assert_int_equal(au_adapter_content_hash(hash, dir, &err), AU_NOT_FOUND);
    write_in_dir("adapter_config.json", "{}", 2);
    write_in_dir("adapter_model.bin", "x", 1);
    assert_int_equal(au_adapter_content_hash(hash, dir, &err), AU_OK);
    /* sha256 of "<sha256 of x> adapter_model.bin\n<sha256 of {}> adapter_config.json\n" */
    assert_string_equal(hash, "516eda633c6194d8fcdcb3abaaa5f19c83b2f74b03cc4a88a6ef0e9c521f5488");
}

/* ---- The report ---- */

static json_t *report(const char *path, const au_module *modules, size_t n)
{
    au_buf b;
    au_err err;
    json_t *j;
    au_buf_init(&b, 1 << 20);
    if (au_adapter_report_json(&b, path, modules, n, &err) != AU_OK)
        fail_msg("%s", err.message);
    assert_int_equal(au_json_parse(&j, b.data, b.len, "report", NULL), AU_OK);
    au_buf_deinit(&b);
    return j;
}

static void test_report(void **state)
{
    (void)state;
    json_t *j = report(fixtures("adapters", "mono-f32/dora"), base.modules, base.n);
    assert_string_equal(json_string_value(json_object_get(j, "status")), "ready");
    assert_string_equal(json_string_value(json_object_get(j, "kind")), "dora");
    assert_int_equal(json_integer_value(json_object_get(j, "rank")), 4);
    assert_true(json_real_value(json_object_get(j, "scale")) == 1);
    assert_true(json_array_size(json_object_get(j, "targets")) > 10);
    assert_int_equal(json_array_size(json_object_get(j, "problems")), 0);
    char hash[65];
    assert_int_equal(au_adapter_content_hash(hash, fixtures("adapters", "mono-f32/dora/"), NULL),
                     AU_OK);
    assert_string_equal(json_string_value(json_object_get(j, "sha256")), hash);
    json_decref(j);

    j = report(fixtures("adapters", "bad/unmatched-tensor"), base.modules, base.n);
    assert_string_equal(json_string_value(json_object_get(j, "status")), "rejected");
    assert_int_equal(json_array_size(json_object_get(j, "unmatched")), 2);
    assert_int_equal(json_array_size(json_object_get(j, "problems")), 1);
    json_decref(j);

    /* Without a model only the files are checked. */
    j = report(fixtures("adapters", "bad/unmatched-tensor"), NULL, 0);
    assert_string_equal(json_string_value(json_object_get(j, "status")), "ready");
    assert_true(json_is_false(json_object_get(j, "checked_against_model")));
    json_decref(j);
    j = report(fixtures("adapters", "bad/not-finite"), NULL, 0);
    assert_string_equal(json_string_value(json_object_get(j, "status")), "rejected");
    json_decref(j);
    j = report(fixtures("adapters", "bad/config-not-json"), base.modules, base.n);
    assert_string_equal(json_string_value(json_object_get(j, "status")), "rejected");
    json_decref(j);

    au_buf b;
    au_buf_init(&b, 1 << 20);
    assert_int_equal(au_adapter_report_json(&b, "/no/such/folder", NULL, 0, NULL), AU_NOT_FOUND);
    au_buf_deinit(&b);
}

static void test_warnings(void **state)
{
    (void)state;
    int64_t d = module_of(&base, L "0.self_attn.q_proj")->in;
    write_adapter(
        CONFIG(",\"init_lora_weights\":\"pissa_niter_4\",\"fan_in_fan_out\":true,\"new\":1,"
               "\"modules_to_save\":[\"nobody\"]"),
        (item[]){{Q ".lora_A.weight", 2, d, 1}, {Q ".lora_B.weight", d, 2, 1}}, 2);
    json_t *j = report(dir, base.modules, base.n);
    assert_string_equal(json_string_value(json_object_get(j, "status")), "ready");
    assert_int_equal(json_array_size(json_object_get(j, "warnings")), 4);
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_repackaged),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_embeddings_are_transposed),
        cmocka_unit_test(test_dora),
        cmocka_unit_test(test_other_good_ones),
        cmocka_unit_test(test_bad_ones),
        cmocka_unit_test_setup_teardown(test_config_fields, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_pattern_semantics, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_tensor_problems, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_base_biases, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_adapters_that_change_nothing, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_missing_files, make_dir, remove_dir),
        cmocka_unit_test(test_report),
        cmocka_unit_test_setup_teardown(test_warnings, make_dir, remove_dir),
    };
    return cmocka_run_group_tests_name("adapters", tests, open_base, close_base);
}
