/* SPDX-License-Identifier: MIT */
/* adapter_config.json. Fields that only matter in training are passed over; those that change what
 * the weights mean are honoured or refused by name, never ignored. Defaults are those of PEFT's
 * LoraConfig. */
#include "adapters/config.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/str.h"

static const char file[] = "adapter_config.json";

/* Far above any use; keeps every product of ranks and sizes small. */
enum { MAX_RANK = 65536 };
static const char rank_words[] = "an integer from 1 to 65536";

static bool is_rank(const json_t *j)
{
    return json_is_integer(j) && json_integer_value(j) >= 1 && json_integer_value(j) <= MAX_RANK;
}

/* Kinds of LoRA whose arithmetic is another one. */
static const char *const unsupported[] = {
    "layer_replication", "target_parameters", "trainable_token_indices",
    "megatron_config",   "use_qalora",        "alora_invocation_tokens",
    "use_bdlora",        "arrow_config",      "kasa_config",
    "velora_config",     "monteclora_config",
};

/* Fields that are read below, or that have no say in inference. */
static const char *const known[] = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
};

/* A value that switches nothing on: null, false, an empty list or object. */
static bool is_off(const json_t *j)
{
    return !j || json_is_null(j) || json_is_false(j) ||
           (json_is_array(j) && json_array_size(j) == 0) ||
           (json_is_object(j) && json_object_size(j) == 0);
}

/* The field's value as short JSON text for a message. */
static const char *value_text(char *out, size_t size, const json_t *j)
{
    au_buf b;
    au_buf_init(&b, 1 << 16);
    au_json_dump(&b, j);
    size_t n = au_utf8_prefix(au_buf_cstr(&b), 60);
    const char *dots = b.status != AU_OK || n < b.len ? "..." : "";
    snprintf(out, size, "%.*s%s", (int)n, au_buf_cstr(&b), dots);
    au_buf_deinit(&b);
    return out;
}

static bool in_list(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, list[i]) == 0)
            return true;
    return false;
}

static bool read_flag(const json_t *config, const char *name, au_problems *problems)
{
    const json_t *j = json_object_get(config, name);
    if (!j || json_is_null(j) || json_is_boolean(j))
        return json_is_true(j);
    char text[300];
    au_problem(problems, AU_INVALID, "%s: %s is %s, expected true or false", file, name,
               value_text(text, sizeof text, j));
    return false;
}

static void check_other_fields(const json_t *config, au_problems *problems)
{
    char text[300];
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)config, name, value)
    {
        if (is_off(value) || in_list(name, known, sizeof known / sizeof *known))
            continue;
        value_text(text, sizeof text, value);
        /* A switch that nobody has heard of may change the arithmetic. */
        if (in_list(name, unsupported, sizeof unsupported / sizeof *unsupported) ||
            au_str_starts(name, "use_"))
            au_problem(problems, AU_UNSUPPORTED, "%s: %s is set to %s, which is not supported",
                       file, name, text);
        else
            au_warning(problems, "%s: %s (%s) is not known and was ignored", file, name, text);
    }
}

/* Initialisations that move a part of the base weights into A and B: the adapter fits the base
 * model only if it was converted when it was saved. */
static void check_init(const json_t *config, au_problems *problems)
{
    static const char *const moving[] = {"pissa", "olora", "corda", "lora_ga", "eva", "loftq"};
    const char *init = json_string_value(json_object_get(config, "init_lora_weights"));
    for (size_t i = 0; init && i < sizeof moving / sizeof *moving; i++)
        if (au_str_starts(init, moving[i]))
            au_warning(
                problems,
                "%s: init_lora_weights is %.40s; the adapter fits the unchanged base model only "
                "if it was converted when saved",
                file, init);
}

static void read_numbers(au_adapter_config *c, au_problems *problems)
{
    char text[300];
    const json_t *r = json_object_get(c->json, "r"),
                 *alpha = json_object_get(c->json, "lora_alpha");
    c->r = 8;
    c->alpha = 8;
    if (r && !is_rank(r))
        au_problem(problems, AU_INVALID, "%s: r is %s, expected %s", file,
                   value_text(text, sizeof text, r), rank_words);
    else if (r)
        c->r = json_integer_value(r);
    if (alpha && !json_is_number(alpha))
        au_problem(problems, AU_INVALID, "%s: lora_alpha is %s, expected a number", file,
                   value_text(text, sizeof text, alpha));
    else if (alpha)
        c->alpha = json_number_value(alpha);
}

static au_status read_patterns(au_patterns *p, const json_t *config, const char *name,
                               bool integers, au_problems *problems, au_err *err)
{
    json_t *object = json_object_get(config, name), *value;
    const char *key;
    char text[300];
    if (is_off(object))
        return AU_OK;
    if (!json_is_object(object)) {
        au_problem(problems, AU_INVALID, "%s: %s is %s, expected an object", file, name,
                   value_text(text, sizeof text, object));
        return AU_OK;
    }
    json_object_foreach(object, key, value)
    {
        if (integers ? !is_rank(value) : !json_is_number(value)) {
            au_problem(problems, AU_INVALID, "%s: %s of \"%s\" is %s, expected %s", file, name, key,
                       value_text(text, sizeof text, value), integers ? rank_words : "a number");
            continue;
        }
        au_err why;
        au_status st = au_patterns_add(p, key, json_number_value(value), &why);
        if (st == AU_NOMEM)
            return au_fail(err, st, "%s", why.message);
        if (st != AU_OK)
            au_problem(problems, st, "%s: %s: %s", file, name, why.message);
        if (st == AU_LIMIT)
            break;
    }
    return AU_OK;
}

/* A list of texts, or NULL. */
static const json_t *read_texts(const json_t *config, const char *name, au_problems *problems)
{
    const json_t *list = json_object_get(config, name);
    if (is_off(list))
        return NULL;
    bool fine = json_is_array(list);
    for (size_t i = 0; fine && i < json_array_size(list); i++)
        fine = json_string_length(json_array_get(list, i)) > 0;
    if (fine)
        return list;
    char text[300];
    au_problem(problems, AU_INVALID, "%s: %s is %s, expected a list of names", file, name,
               value_text(text, sizeof text, list));
    return NULL;
}

static void read_bias(au_adapter_config *c, au_problems *problems)
{
    const json_t *j = json_object_get(c->json, "bias");
    const char *bias = json_string_value(j);
    char text[300];
    if (!j || json_is_null(j) || (bias && strcmp(bias, "none") == 0))
        return;
    if (bias && (strcmp(bias, "all") == 0 || strcmp(bias, "lora_only") == 0))
        c->base_biases = true;
    else
        au_problem(problems, AU_INVALID, "%s: bias is %s, expected none, all or lora_only", file,
                   value_text(text, sizeof text, j));
}

static bool check_type(const json_t *config, au_problems *problems)
{
    char text[300];
    if (!json_is_object(config)) {
        au_problem(problems, AU_CORRUPT, "%s is not a JSON object", file);
        return false;
    }
    const json_t *type = json_object_get(config, "peft_type");
    if (!type) {
        au_problem(problems, AU_INVALID, "%s has no peft_type, expected \"LORA\"", file);
        return false;
    }
    if (!json_is_string(type) || strcmp(json_string_value(type), "LORA") != 0) {
        au_problem(problems, AU_UNSUPPORTED,
                   "%s: peft_type is %s, which is not supported, expected \"LORA\"", file,
                   value_text(text, sizeof text, type));
        return false;
    }
    return true;
}

au_status au_adapter_config_read(au_adapter_config *c, bool *usable, const char *text, size_t len,
                                 au_problems *problems, au_err *err)
{
    au_err why;
    *usable = false;
    *c = (au_adapter_config){0};
    au_status st = au_json_parse(&c->json, text, len, file, &why);
    if (st == AU_CORRUPT)
        au_problem(problems, st, "%s", why.message);
    if (st != AU_OK)
        return st == AU_CORRUPT ? AU_OK : au_fail(err, st, "%s", why.message);
    if (!check_type(c->json, problems))
        return AU_OK;
    *usable = true;
    read_numbers(c, problems);
    c->rslora = read_flag(c->json, "use_rslora", problems);
    c->dora = read_flag(c->json, "use_dora", problems);
    c->lora_bias = read_flag(c->json, "lora_bias", problems);
    if (c->dora && c->lora_bias)
        au_problem(problems, AU_UNSUPPORTED,
                   "%s: use_dora and lora_bias together are not supported", file);
    if (read_flag(c->json, "fan_in_fan_out", problems))
        au_warning(problems,
                   "%s: fan_in_fan_out is true, which has no meaning for the linear layers of this "
                   "model family and is ignored, as PEFT does",
                   file);
    read_bias(c, problems);
    c->modules_to_save = read_texts(c->json, "modules_to_save", problems);
    const json_t *targets = json_object_get(c->json, "target_modules");
    c->target_modules =
        json_is_string(targets) ? targets : read_texts(c->json, "target_modules", problems);
    c->base_model = json_string_value(json_object_get(c->json, "base_model_name_or_path"));
    check_init(c->json, problems);
    check_other_fields(c->json, problems);
    AU_TRY(read_patterns(&c->rank_pattern, c->json, "rank_pattern", true, problems, err));
    AU_TRY(read_patterns(&c->alpha_pattern, c->json, "alpha_pattern", false, problems, err));
done:
    return st;
}

void au_adapter_config_free(au_adapter_config *c)
{
    au_patterns_free(&c->rank_pattern);
    au_patterns_free(&c->alpha_pattern);
    json_decref(c->json);
    *c = (au_adapter_config){0};
}

/* find with a problem, once, when a limit was hit. */
static const char *find(au_patterns *p, const char *name, const char *module, double *value,
                        au_problems *problems)
{
    if (p->exhausted)
        return NULL;
    const char *key = au_patterns_find(p, module, value);
    if (p->exhausted)
        au_problem(problems, AU_LIMIT, "%s: matching the keys of %s takes too many steps", file,
                   name);
    return key;
}

int64_t au_adapter_config_rank(au_adapter_config *c, const char *module, const char **pattern,
                               au_problems *problems)
{
    double value;
    *pattern = find(&c->rank_pattern, "rank_pattern", module, &value, problems);
    return *pattern ? (int64_t)value : c->r;
}

double au_adapter_config_alpha(au_adapter_config *c, const char *module, au_problems *problems)
{
    double value;
    return find(&c->alpha_pattern, "alpha_pattern", module, &value, problems) ? value : c->alpha;
}

bool au_adapter_entry_saves(const char *entry, const char *module)
{
    size_t n = strlen(entry);
    /* Where the entry's last letter may lie: at the end of the module or of a container of it. */
    for (const char *end = module + strlen(module); end;
         end = memrchr(module, '.', (size_t)(end - module)))
        if ((size_t)(end - module) >= n && memcmp(end - n, entry, n) == 0)
            return true;
    return false;
}

bool au_adapter_config_saves(const au_adapter_config *c, const char *module)
{
    for (size_t i = 0; i < json_array_size(c->modules_to_save); i++)
        if (au_adapter_entry_saves(json_string_value(json_array_get(c->modules_to_save, i)),
                                   module))
            return true;
    return false;
}
