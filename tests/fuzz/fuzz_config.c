/* SPDX-License-Identifier: MIT */
/* config.json, as a model folder could bring it, against a file without tensors. */
#include <stdint.h>
#include <string.h>

#include "base/json.h"
#include "models/musicgen/musicgen.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char empty[] = "\x08\0\0\0\0\0\0\0{}      ";
    json_t *config = NULL;
    au_tensor_set *tensors = NULL;
    const au_family *family;
    au_err err;
    if (au_json_parse(&config, (const char *)data, size, "config.json", &err) != AU_OK)
        return 0;
    if (au_family_find(&family, config, &err) == AU_OK &&
        au_safetensors_from_memory(&tensors, empty, sizeof empty - 1, "none", &err) == AU_OK) {
        const au_source source = {config, config, tensors, NULL};
        au_net *net = NULL;
        if (family->open(&net, &source, &err) == AU_OK)
            family->close(&net);
    }
    au_tensor_set_close(&tensors);
    json_decref(config);
    return 0;
}
