/* SPDX-License-Identifier: MIT */
/* Reads the .npy files of the fixtures: version 1, little-endian, C order, float32 or int64. Aborts
 * the test on anything else. */
#ifndef AU_TESTS_NPY_H
#define AU_TESTS_NPY_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct npy {
    char *file; /* owned */
    int rank;
    int64_t shape[8];
    size_t n;
    const float *f32; /* one of these */
    const int64_t *i64;
} npy;

static inline int npy_read(npy *a, const char *path)
{
    memset(a, 0, sizeof *a);
    FILE *f = fopen(path, "rb");
    if (!f)
        return 0;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    a->file = calloc(1, (size_t)size + 1);
    if (!a->file || fread(a->file, 1, (size_t)size, f) != (size_t)size ||
        memcmp(a->file, "\x93NUMPY\x01", 7) != 0)
        abort();
    fclose(f);
    uint16_t header_len;
    memcpy(&header_len, a->file + 8, 2);
    const char *data = a->file + 10 + header_len;
    char *header = calloc(1, (size_t)header_len + 1);
    memcpy(header, a->file + 10, header_len);
    int wide = strstr(header, "<i8") != NULL;
    const char *p = strchr(strstr(header, "shape"), '(') + 1;
    a->n = 1;
    while (*p && *p != ')') {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p)
            break;
        a->shape[a->rank++] = v;
        a->n *= (size_t)v;
        p = end;
        while (*p == ',' || *p == ' ')
            p++;
    }
    free(header);
    if (a->file + size != data + a->n * (wide ? 8 : 4))
        abort();
    if (wide)
        a->i64 = (const int64_t *)data;
    else
        a->f32 = (const float *)data;
    return 1;
}

static inline void npy_free(npy *a)
{
    free(a->file);
    memset(a, 0, sizeof *a);
}

#endif
