/* SPDX-License-Identifier: MIT */
/* Adapter files read, checked against a model's modules, and mapped to them. No model code here: a
 * model describes its modules by a list, and asks for what an adapter does to each. */
#ifndef AU_ADAPTERS_ADAPTERS_H
#define AU_ADAPTERS_ADAPTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "tensor/tensor.h"

typedef enum au_module_kind {
    AU_MODULE_LINEAR,    /* weight [out, in], maybe bias [out] */
    AU_MODULE_EMBEDDING, /* weight [n, d]: in = n, out = d */
    AU_MODULE_NORM, /* weight [out], maybe bias [out]; in = 0. Can be in modules_to_save only */
} au_module_kind;

/* One module of a model that an adapter can address. The index in the list is the model's handle
 * for it. */
typedef struct au_module {
    const char *path; /* "decoder.model.decoder.layers.0.self_attn.q_proj" */
    au_module_kind kind;
    int64_t in, out;
    bool has_bias;
    const au_tensor *weight; /* the base weight (DoRA needs it); borrowed */
    const au_tensor *bias;   /* the base bias, NULL if there is none or it is not known; borrowed */
} au_module;

/* What the adapter does to one module. All pointers are borrowed until the set is closed; tensors
 * were widened to f32, are contiguous and 64-byte aligned. Linear: y += strength * scale * B (A x)
 * [+ strength * scale * bias]; with dora, y' = magnitude * (W x + s B A x) / norm(W + s B A) by
 * output, where the caller computes the norm for its strength (au_delta_dora_factor). Embedding:
 * row n += s * sum_j A[j, n] * B[:, j] (At holds A transposed). Replaced modules: weight/bias
 * instead of the base's, whatever the strength. */
typedef struct au_delta {
    int rank;                    /* 0: no low-rank part */
    float scale;                 /* alpha / r or alpha / sqrt(r) */
    const float *a;              /* linear [rank, in]; embedding: transposed, [n, rank] */
    const float *b;              /* [out, rank] */
    const float *bias;           /* [out] or NULL: lora_bias */
    const float *magnitude;      /* [out] or NULL: DoRA */
    const float *replace_weight; /* linear [out, in], embedding [n, d], norm [out]; NULL: keep */
    const float *replace_bias;   /* [out] or NULL */
} au_delta;

typedef struct au_adapter_set au_adapter_set;

/* Reads a PEFT folder (adapter_config.json + adapter_model.safetensors or adapter_model.bin) and
 * checks it against `modules` (n of them; NULL with n = 0: read and check the files alone).
 * Problems, all of them, go to err a line each, and to the report. */
AU_MUST_CHECK au_status au_adapter_set_open(au_adapter_set **out, const char *dir,
                                            const au_module *modules, size_t n, au_err *err);
void au_adapter_set_close(au_adapter_set **set);

/* The delta for module i, NULL if the adapter leaves it alone. */
const au_delta *au_adapter_set_delta(const au_adapter_set *set, size_t module);

typedef struct au_adapter_facts {
    const char *kind; /* "lora", "dora" */
    int rank;         /* largest */
    double alpha;
    size_t targets;
    uint64_t bytes;
    char sha256[65];
} au_adapter_facts;
const au_adapter_facts *au_adapter_set_facts(const au_adapter_set *set);

/* DoRA's factor per output for a strength: magnitude[o] / ||W[o, :] + strength * scale * (B A)[o,
 * :]||, in f32 sums over f64. Embedding: norm per dimension d over all rows. factor [out]. The
 * module must have a base weight. */
AU_MUST_CHECK au_status au_delta_dora_factor(const au_delta *delta, const au_module *module,
                                             double strength, float *factor, au_err *err);

/* SHA-256 of sorted "<sha256> <file name>\n" lines of the config and the weights file. */
AU_MUST_CHECK au_status au_adapter_content_hash(char out[65], const char *dir, au_err *err);

/* The JSON object of `aulos adapter inspect`: status "ready" | "rejected", kind, rank, alpha,
 * strength-free scale, targets (module, rank, parts), matched, unmatched [], problems [], sha256,
 * bytes, base_model. A rejected adapter still gives AU_OK and a report; AU_NOT_FOUND if there is no
 * such folder. */
AU_MUST_CHECK au_status au_adapter_report_json(au_buf *out, const char *dir,
                                               const au_module *modules, size_t n, au_err *err);

#endif
