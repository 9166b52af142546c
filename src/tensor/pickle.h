/* SPDX-License-Identifier: MIT */
/* Internal to tensor/: the value that a pickle of tensors describes. Nothing is executed: of the
 * globals that a pickle can name, the few that a PyTorch state dict needs have a meaning here, any
 * other is refused. */
#ifndef AU_TENSOR_PICKLE_H
#define AU_TENSOR_PICKLE_H

#include "tensor/tensor.h"

typedef enum au_pickle_type {
    AU_PICKLE_NONE,
    AU_PICKLE_BOOL,
    AU_PICKLE_INT,
    AU_PICKLE_FLOAT, /* the value is not kept: no state dict needs it */
    AU_PICKLE_TEXT,
    AU_PICKLE_GLOBAL,
    AU_PICKLE_LIST,
    AU_PICKLE_TUPLE,
    AU_PICKLE_DICT,    /* items: key, value, key, value ... */
    AU_PICKLE_STORAGE, /* items of its persistent id: "storage", type, key, location, count */
    AU_PICKLE_TENSOR,  /* arguments of _rebuild_tensor_v2: storage, offset, shape, strides ... */
    AU_PICKLE_MARK,
} au_pickle_type;

typedef enum au_pickle_global {
    AU_PICKLE_ORDERED_DICT,
    AU_PICKLE_REBUILD_TENSOR,
    AU_PICKLE_REBUILD_PARAMETER,
    AU_PICKLE_STORAGE_TYPE, /* + au_dtype */
} au_pickle_global;

typedef struct au_pickle_object au_pickle_object;

typedef struct au_pickle_value {
    au_pickle_type type;
    uint32_t len; /* TEXT: bytes */
    union {
        int64_t i;        /* BOOL, INT, GLOBAL */
        const char *text; /* TEXT: borrowed from the pickle */
        au_pickle_object *object;
    };
} au_pickle_value;

struct au_pickle_object {
    au_pickle_object *next; /* all objects of a pickle, for freeing */
    au_pickle_value *items;
    size_t n, cap;
};

typedef struct au_pickle {
    au_pickle_value root;
    au_pickle_object *objects;
} au_pickle;

/* `data` must outlive the pickle. The graph may share objects and, from a hostile file, contain
 * cycles. */
AU_MUST_CHECK au_status au_pickle_read(au_pickle *p, const unsigned char *data, size_t len,
                                       const char *what, au_err *err);
void au_pickle_close(au_pickle *p);

#endif
