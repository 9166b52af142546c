/* SPDX-License-Identifier: MIT */
/* Names of tensors in adapter files: base_model.model.<module>.<part>.
 *
 * Tools leave variants behind, all of which occur in the wild: the prefix twice (a wrapped model
 * wrapped again), the adapter's name inside (raw state dicts: lora_A.default.weight), a magnitude
 * vector with .weight, modules saved as modules_to_save.default.weight. An adapter's name cannot
 * contain a dot. Stateless. */
#include "adapters/keys.h"

#include <string.h>

#include "base/str.h"

const char *au_part_name(au_part part)
{
    static const char *const names[AU_PART_COUNT] = {
        [AU_PART_A] = "lora_A",
        [AU_PART_B] = "lora_B",
        [AU_PART_B_BIAS] = "lora_B.bias",
        [AU_PART_EMBED_A] = "lora_embedding_A",
        [AU_PART_EMBED_B] = "lora_embedding_B",
        [AU_PART_MAGNITUDE] = "lora_magnitude_vector",
        [AU_PART_WEIGHT] = "weight",
        [AU_PART_BIAS] = "bias",
    };
    return names[part];
}

/* Words that begin the part of a name. `bare`: the tensor is a parameter, without .weight or .bias.
 */
static const struct marker {
    const char *word;
    bool bare;
    au_part weight, bias; /* AU_PART_COUNT: has none */
} markers[] = {
    {"lora_A", false, AU_PART_A, AU_PART_COUNT},
    {"lora_B", false, AU_PART_B, AU_PART_B_BIAS},
    {"lora_embedding_A", true, AU_PART_EMBED_A, AU_PART_COUNT},
    {"lora_embedding_B", true, AU_PART_EMBED_B, AU_PART_COUNT},
    {"lora_magnitude_vector", true, AU_PART_MAGNITUDE, AU_PART_COUNT},
    {"modules_to_save", false, AU_PART_WEIGHT, AU_PART_BIAS},
    {"base_layer", false, AU_PART_COUNT, AU_PART_BIAS},
};

static const struct marker *find_marker(const char *word, size_t len)
{
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++)
        if (strlen(markers[i].word) == len && memcmp(markers[i].word, word, len) == 0)
            return &markers[i];
    return NULL;
}

/* The part that `marker` and the text behind it (after its dot, NULL if there is none) make. */
static bool read_tail(au_part *part, const struct marker *m, const char *tail)
{
    static const char weight[] = "weight", bias[] = "bias";
    *part = m->weight;
    if (!tail)
        return m->bare;
    const char *dot = strchr(tail, '.');
    const char *last = dot ? dot + 1 : tail;
    if (strchr(last, '.'))
        return false;
    if (strcmp(last, bias) == 0) {
        *part = m->bias;
        return m->bias != AU_PART_COUNT;
    }
    /* A bare one may end in the adapter's name, any word. */
    return m->weight != AU_PART_COUNT && (strcmp(last, weight) == 0 || (m->bare && !dot));
}

bool au_key_parse(au_key *key, const char *name)
{
    static const char prefix[] = "base_model.model.";
    while (au_str_starts(name, prefix))
        name += sizeof prefix - 1;
    key->module = name;
    /* Seen from the right: at most the marker, the adapter's name, and weight or bias. */
    const char *end = name + strlen(name), *tail = NULL;
    for (int i = 0; i < 3; i++) {
        const char *dot = memrchr(name, '.', (size_t)(end - name));
        if (!dot || dot == name)
            break;
        const struct marker *m = find_marker(dot + 1, (size_t)(end - dot - 1));
        if (m) {
            key->module_len = (size_t)(dot - name);
            return read_tail(&key->part, m, tail);
        }
        tail = dot + 1;
        end = dot;
    }
    const char *dot = strrchr(name, '.');
    if (!dot || dot == name || strstr(name, "lora_"))
        return false;
    key->module_len = (size_t)(dot - name);
    key->part = strcmp(dot + 1, "weight") == 0 ? AU_PART_WEIGHT : AU_PART_BIAS;
    return key->part == AU_PART_WEIGHT || strcmp(dot + 1, "bias") == 0;
}
