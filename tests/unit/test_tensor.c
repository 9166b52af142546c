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

#include "base/buf.h"
#include "base/fs.h"
#include "tensor/tensor.h"

/* ---- Making files ---- */

static void put(au_buf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        au_buf_char(b, i < 8 ? (char)(v >> 8 * i) : 0);
}

static au_status safetensors(au_tensor_set **set, const char *json, const void *data, size_t len,
                             au_err *err)
{
    static au_buf b;
    au_buf_deinit(&b);
    au_buf_init(&b, 1 << 20);
    put(&b, strlen(json), 8);
    au_buf_str(&b, json);
    au_buf_append(&b, data, len);
    return au_safetensors_from_memory(set, b.data, b.len, "test", err);
}

/* A stored zip. Each flag makes another of the forms that writers produce. */
enum { ZIP_DESCRIPTOR = 1, ZIP_64 = 2, ZIP_PADDED = 4 };

typedef struct zip {
    au_buf out, directory;
    int flags, count;
} zip;

static void zip_init(zip *z, int flags)
{
    au_buf_init(&z->out, 1 << 20);
    au_buf_init(&z->directory, 1 << 20);
    z->flags = flags;
    z->count = 0;
}

static void zip_add(zip *z, const char *name, const void *data, size_t len)
{
    au_buf *o = &z->out, *d = &z->directory;
    size_t offset = o->len;
    bool desc = z->flags & ZIP_DESCRIPTOR, big = z->flags & ZIP_64;
    uint32_t pad = z->flags & ZIP_PADDED ? 13 : 0;
    put(o, 0x04034b50, 4);
    put(o, 20, 2);
    put(o, desc ? 8 : 0, 2);
    put(o, 0, 2 + 4 + 4); /* method, time, checksum */
    put(o, desc ? 0 : len, 4);
    put(o, desc ? 0 : len, 4);
    put(o, strlen(name), 2);
    put(o, pad, 2);
    au_buf_str(o, name);
    for (uint32_t i = 0; i < pad; i++)
        au_buf_char(o, i == 0 ? 'F' : i == 1 ? 'B' : i == 2 ? (char)(pad - 4) : i == 3 ? 0 : 'Z');
    au_buf_append(o, data, len);
    if (desc) {
        put(o, 0x08074b50, 4);
        put(o, 0, 4);
        put(o, len, big ? 8 : 4);
        put(o, len, big ? 8 : 4);
    }
    put(d, 0x02014b50, 4);
    put(d, 20, 2);
    put(d, 20, 2);
    put(d, desc ? 8 : 0, 2);
    put(d, 0, 2 + 4 + 4);
    put(d, big ? UINT32_MAX : len, 4);
    put(d, big ? UINT32_MAX : len, 4);
    put(d, strlen(name), 2);
    put(d, big ? 28 : 0, 2);
    put(d, 0, 2 + 2 + 2 + 4); /* comment, disk, attributes */
    put(d, big ? UINT32_MAX : offset, 4);
    au_buf_str(d, name);
    if (big) {
        put(d, 1, 2);
        put(d, 24, 2);
        put(d, len, 8);
        put(d, len, 8);
        put(d, offset, 8);
    }
    z->count++;
}

static void zip_end(zip *z)
{
    au_buf *o = &z->out;
    size_t offset = o->len, bytes = z->directory.len;
    au_buf_append(o, z->directory.data, bytes);
    if (z->flags & ZIP_64) {
        size_t at = o->len;
        put(o, 0x06064b50, 4);
        put(o, 44, 8);
        put(o, 45, 2);
        put(o, 45, 2);
        put(o, 0, 8);
        put(o, z->count, 8);
        put(o, z->count, 8);
        put(o, bytes, 8);
        put(o, offset, 8);
        put(o, 0x07064b50, 4);
        put(o, 0, 4);
        put(o, at, 8);
        put(o, 1, 4);
    }
    put(o, 0x06054b50, 4);
    put(o, 0, 4);
    put(o, z->flags & ZIP_64 ? 0xffff : z->count, 2);
    put(o, z->flags & ZIP_64 ? 0xffff : z->count, 2);
    put(o, z->flags & ZIP_64 ? UINT32_MAX : bytes, 4);
    put(o, z->flags & ZIP_64 ? UINT32_MAX : offset, 4);
    put(o, 0, 2);
}

static void zip_free(zip *z)
{
    au_buf_deinit(&z->out);
    au_buf_deinit(&z->directory);
}

static void text(au_buf *b, const char *s)
{
    put(b, 'X', 1);
    put(b, strlen(s), 4);
    au_buf_str(b, s);
}

static void number(au_buf *b, int64_t v)
{
    put(b, 'J', 1);
    put(b, (uint32_t)(int32_t)v, 4);
}

/* What pickle.dumps(state_dict, protocol=2) has for one entry: name, then the call that makes the
 * tensor. */
static void pickle_tensor(au_buf *b, const char *name, const char *type, const char *key,
                          int64_t count, int64_t offset, int rank, const int64_t *shape,
                          const int64_t *strides)
{
    text(b, name);
    au_buf_str(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    text(b, "storage");
    au_buf_printf(b, "ctorch\n%s\n", type);
    text(b, key);
    text(b, "cpu");
    number(b, count);
    au_buf_str(b, "tQ");
    number(b, offset);
    au_buf_str(b, "(");
    for (int i = 0; i < rank; i++)
        number(b, shape[i]);
    au_buf_str(b, "t(");
    for (int i = 0; i < rank; i++)
        number(b, strides[i]);
    au_buf_str(b, "t\x89"
                  "ccollections\nOrderedDict\n)RtR");
}

static void pickle_begin(au_buf *b)
{
    au_buf_init(b, 1 << 20);
    au_buf_append(b, "\x80\x02", 2);
    au_buf_str(b, "ccollections\nOrderedDict\n)R(");
}

/* A zip of one pickle and the storage "0" of six floats 0 ... 5. */
static au_status torch_file(au_tensor_set **set, zip *z, const void *pickle, size_t len, int flags,
                            au_err *err)
{
    static const float values[6] = {0, 1, 2, 3, 4, 5};
    zip_init(z, flags);
    zip_add(z, "archive/data.pkl", pickle, len);
    zip_add(z, "archive/byteorder", "little", 6);
    zip_add(z, "archive/data/0", values, sizeof values);
    zip_add(z, "archive/version", "3\n", 2);
    zip_end(z);
    return au_torch_from_memory(set, z->out.data, z->out.len, "test", err);
}

/* ---- dtypes ---- */

static void test_widening(void **state)
{
    (void)state;
    const uint16_t f16[] = {0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0400,
                            0x0001, 0x83ff, 0x7c00, 0xfc00, 0x7e00};
    const float want[] = {0,        -0.0f,     1,  -2, 65504, 0x1p-14f, 0x1p-24f, -1023 * 0x1p-24f,
                          INFINITY, -INFINITY, NAN};
    enum { N = sizeof want / sizeof *want };
    unsigned char unaligned[sizeof f16 + 1];
    memcpy(unaligned + 1, f16, sizeof f16);
    au_tensor t = {
        .dtype = AU_F16, .rank = 1, .shape = {N}, .data = unaligned + 1, .bytes = sizeof f16};
    float got[N];
    au_tensor_read_f32(&t, 0, N, got);
    for (int i = 0; i < N - 1; i++)
        assert_memory_equal(&got[i], &want[i], sizeof *got);
    assert_true(isnan(got[N - 1]));
    au_tensor_read_f32(&t, 3, 2, got);
    assert_true(got[0] == -2 && got[1] == 65504);

    const uint16_t bf16[] = {0x3f80, 0xbf00, 0x7f80};
    t = (au_tensor){.dtype = AU_BF16, .rank = 1, .shape = {3}, .data = bf16, .bytes = 6};
    au_tensor_read_f32(&t, 0, 3, got);
    assert_true(got[0] == 1 && got[1] == -0.5f && isinf(got[2]));
    char shape[32];
    assert_string_equal(au_tensor_shape_text(shape, sizeof shape, 2, (int64_t[]){3, 4}), "[3,4]");
    assert_string_equal(au_tensor_shape_text(shape, sizeof shape, 0, NULL), "[]");
    assert_string_equal(au_tensor_shape_text(shape, 5, 2, (int64_t[]){300, 4}), "[300");
}

/* ---- safetensors ---- */

static void test_safetensors(void **state)
{
    (void)state;
    au_tensor_set *set;
    au_err err;
    const char *json = "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F32\",\"shape\":["
                       "2],\"data_offsets\":[2,10]},"
                       "\"a\":{\"dtype\":\"I8\",\"shape\":[1,2],\"data_offsets\":[0,2]},"
                       "\"none\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[2,2]}}   ";
    char data[10] = {1, 2};
    memcpy(data + 2, (float[]){0.5f, -2}, 8);
    assert_int_equal(safetensors(&set, json, data, sizeof data, &err), AU_OK);
    assert_int_equal(au_tensor_set_count(set), 3);
    assert_string_equal(au_tensor_set_at(set, 0)->name, "a");
    const au_tensor *t = au_tensor_set_find(set, "b");
    float values[2];
    au_tensor_read_f32(t, 0, 2, values);
    assert_true(values[0] == 0.5f && values[1] == -2 && t->rank == 1 && t->shape[0] == 2);
    assert_int_equal(au_tensor_elements(au_tensor_set_find(set, "none")), 0);
    assert_null(au_tensor_set_find(set, "c"));
    assert_int_equal(au_tensor_set_file(set, 0)->header_bytes, 8 + strlen(json));
    au_tensor_set_close(&set);
    assert_null(set);
    au_tensor_set_close(&set);
    au_tensor_set_close(NULL);
}

#define T(dtype, shape, from, to)                                                                  \
    "{\"x\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}}"

static void test_safetensors_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json, *message;
        au_status status;
    } cases[] = {
        {T("Q7", "[2]", 0, 8), "dtype Q7", AU_UNSUPPORTED},
        {T("F32", "[3]", 0, 8), "has 8 bytes, expected 12", AU_CORRUPT},
        {T("F32", "[2]", 0, 16), "outside the file", AU_CORRUPT},
        {T("F32", "[2]", 8, 0), "run backwards", AU_CORRUPT},
        {T("F32", "[1]", 0, 4), "4 bytes behind the last tensor", AU_CORRUPT},
        {T("F32", "[1]", 4, 8), "4 bytes before tensor x", AU_CORRUPT},
        {T("F32", "[-2]", 0, 8), "dimension 0", AU_CORRUPT},
        {T("F32", "[2.0]", 0, 8), "dimension 0", AU_CORRUPT},
        {T("F32", "[true]", 0, 8), "dimension 0", AU_CORRUPT},
        {T("F32", "[4294967296,4294967296]", 0, 8), "overflows", AU_CORRUPT},
        {T("F32", "[9223372036854775807,3,3]", 0, 8), "overflows", AU_CORRUPT},
        {T("F32", "[1,1,1,1,1,1,1,1,2]", 0, 8), "9 dimensions", AU_UNSUPPORTED},
        {T("F32", "2", 0, 8), "no shape", AU_CORRUPT},
        {"{\"x\":{\"shape\":[2],\"data_offsets\":[0,8]}}", "no dtype", AU_CORRUPT},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2]}}", "no data_offsets", AU_CORRUPT},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", "no data_offsets",
         AU_CORRUPT},
        {"{\"x\":7}", "not an object", AU_CORRUPT},
        {"{}", "8 bytes behind", AU_CORRUPT},
        {"[]", "does not begin with {", AU_CORRUPT},
        {"{\"x\":", "not valid JSON", AU_CORRUPT},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"y\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[3,7]}}",
         "tensor y overlaps tensor x", AU_CORRUPT},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         "duplicate", AU_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        au_tensor_set *set;
        au_err err;
        assert_int_equal(safetensors(&set, cases[i].json, "12345678", 8, &err), cases[i].status);
        if (!strstr(err.message, cases[i].message))
            fail_msg("%s: %s", cases[i].json, err.message);
        assert_null(set);
    }
    au_tensor_set *set;
    au_err err;
    assert_int_equal(au_safetensors_from_memory(&set, "1234567", 7, "short", &err), AU_CORRUPT);
    assert_int_equal(
        au_safetensors_from_memory(&set, "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "huge", &err),
        AU_CORRUPT);
    assert_non_null(strstr(err.message, "18446744073709551615"));
    assert_int_equal(au_safetensors_open(&set, "/no/such/file", &err), AU_NOT_FOUND);
}

/* ---- torch ---- */

static void test_torch(void **state)
{
    (void)state;
    const int forms[] = {0, ZIP_DESCRIPTOR, ZIP_64, ZIP_64 | ZIP_DESCRIPTOR | ZIP_PADDED};
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        au_buf b;
        pickle_begin(&b);
        pickle_tensor(&b, "w", "FloatStorage", "0", 6, 0, 2, (int64_t[]){2, 3}, (int64_t[]){3, 1});
        /* A view into the same storage; the stride of a dimension of one says nothing. */
        pickle_tensor(&b, "row", "FloatStorage", "0", 6, 3, 2, (int64_t[]){1, 3},
                      (int64_t[]){77, 1});
        pickle_tensor(&b, "scalar", "FloatStorage", "0", 6, 5, 0, NULL, NULL);
        text(&b, "epoch");
        number(&b, 3);
        text(&b, "inner");
        au_buf_str(&b, "}(");
        pickle_tensor(&b, "w", "FloatStorage", "0", 6, 1, 1, (int64_t[]){2}, (int64_t[]){1});
        au_buf_str(&b, "uu}"); /* attributes, as an OrderedDict's _metadata */
        text(&b, "_metadata");
        au_buf_str(&b, "ccollections\nOrderedDict\n)Rsb.");
        au_tensor_set *set;
        au_err err;
        zip z;
        if (torch_file(&set, &z, b.data, b.len, forms[f], &err) != AU_OK)
            fail_msg("form %d: %s", forms[f], err.message);
        assert_int_equal(au_tensor_set_count(set), 4);
        const au_tensor *row = au_tensor_set_find(set, "row"), *w = au_tensor_set_find(set, "w");
        float v[6];
        au_tensor_read_f32(w, 0, 6, v);
        assert_true(v[0] == 0 && v[5] == 5 && w->rank == 2 && w->shape[0] == 2 && w->shape[1] == 3);
        au_tensor_read_f32(row, 0, 3, v);
        assert_true(v[0] == 3 && v[2] == 5);
        au_tensor_read_f32(au_tensor_set_find(set, "scalar"), 0, 1, v);
        assert_true(v[0] == 5);
        au_tensor_read_f32(au_tensor_set_find(set, "inner.w"), 0, 2, v);
        assert_true(v[0] == 1 && v[1] == 2);
        assert_int_equal(au_tensor_set_file(set, 0)->header_bytes, b.len);
        au_tensor_set_close(&set);
        zip_free(&z);
        au_buf_deinit(&b);
    }
}

/* One tensor that is wrong in one way. */
static void refuse_tensor(const char *message, au_status status, const char *type, const char *key,
                          int64_t count, int64_t offset, int rank, const int64_t *shape,
                          const int64_t *strides)
{
    au_buf b;
    au_tensor_set *set;
    au_err err;
    zip z;
    pickle_begin(&b);
    pickle_tensor(&b, "w", type, key, count, offset, rank, shape, strides);
    au_buf_str(&b, "u.");
    au_status st = torch_file(&set, &z, b.data, b.len, 0, &err);
    if (st != status || !strstr(err.message, message))
        fail_msg("expected %s, got %d: %s", message, (int)st, st ? err.message : "");
    zip_free(&z);
    au_buf_deinit(&b);
}

static void test_torch_refuses_bad_tensors(void **state)
{
    (void)state;
    const int64_t six[] = {6}, one[] = {1}, two[] = {2}, s23[] = {2, 3}, t23[] = {1, 2},
                  huge[] = {1 << 30, 1 << 30, 1 << 30};
    const int64_t hs[] = {1, 1, 1}, minus[] = {-6};
    refuse_tensor("os.system", AU_UNSUPPORTED, "FloatStorage\ncos\nsystem", "0", 6, 0, 1, six, one);
    refuse_tensor("torch.QInt8Storage", AU_UNSUPPORTED, "QInt8Storage", "0", 6, 0, 1, six, one);
    refuse_tensor("not in the file", AU_CORRUPT, "FloatStorage", "1", 6, 0, 1, six, one);
    refuse_tensor("not in the file", AU_CORRUPT, "FloatStorage", "../version", 6, 0, 1, six, one);
    refuse_tensor("24 bytes, expected 7 x 4", AU_CORRUPT, "FloatStorage", "0", 7, 0, 1, six, one);
    refuse_tensor("24 bytes, expected 6 x 8", AU_CORRUPT, "LongStorage", "0", 6, 0, 1, six, one);
    refuse_tensor("24 bytes, expected -6 x 4", AU_CORRUPT, "FloatStorage", "0", -6, 0, 1, six, one);
    refuse_tensor("takes 6 elements at 1", AU_CORRUPT, "FloatStorage", "0", 6, 1, 1, six, one);
    refuse_tensor("takes 6 elements at -1", AU_CORRUPT, "FloatStorage", "0", 6, -1, 1, six, one);
    refuse_tensor("dimension 0", AU_CORRUPT, "FloatStorage", "0", 6, 0, 1, minus, one);
    refuse_tensor("overflows", AU_CORRUPT, "FloatStorage", "0", 6, 0, 3, huge, hs);
    refuse_tensor("not contiguous", AU_UNSUPPORTED, "FloatStorage", "0", 6, 0, 2, s23, t23);
    refuse_tensor("not contiguous", AU_UNSUPPORTED, "FloatStorage", "0", 6, 0, 1, two, two);
}

static void test_torch_refuses_bad_pickles(void **state)
{
    (void)state;
#define P(s) s, sizeof(s) - 1
    static const struct {
        const char *pickle;
        size_t len;
        const char *message;
        au_status status;
    } cases[] = {
        {P(""), "does not end", AU_CORRUPT},
        {P("."), "does not leave one value", AU_CORRUPT},
        {P("(."), "does not leave one value", AU_CORRUPT},
        {P("}}."), "does not leave one value", AU_CORRUPT},
        {P("N."), "no dict of tensors", AU_UNSUPPORTED},
        {P("cposix\nsystem\n."), "posix.system", AU_UNSUPPORTED},
        {P("\x8c\x02os\x8c\x06system\x93."), "os.system", AU_UNSUPPORTED},
        {P("cposix\nsystem"), "without its name", AU_CORRUPT},
        {P("i"), "opcode 0x69", AU_UNSUPPORTED},
        {P("ctorch\nFloatStorage\n)R."), "calls a storage type", AU_UNSUPPORTED},
        {P("ctorch._utils\n_rebuild_tensor_v2\n)R."), "_rebuild_tensor_v2 with arguments",
         AU_UNSUPPORTED},
        {P(")Q."), "persistent id", AU_UNSUPPORTED},
        {P("NQ."), "persistent id", AU_CORRUPT},
        {P("NNR."), "no function", AU_CORRUPT},
        {P("R"), "no function", AU_CORRUPT},
        {P("t"), "tuple without", AU_CORRUPT},
        {P("(\x85"), "mark inside", AU_CORRUPT},
        {P("\x87"), "tuple without", AU_CORRUPT},
        {P("u"), "without their container", AU_CORRUPT},
        {P("(u"), "without their container", AU_CORRUPT},
        {P("}(Nu"), "without their container", AU_CORRUPT},
        {P("](NNu"), "no list or dict", AU_CORRUPT},
        {P("Nb"), "no dict", AU_CORRUPT},
        {P("}Nb"), "no dict", AU_CORRUPT},
        {P("0"), "nothing to take away", AU_CORRUPT},
        {P("q\x00"), "nothing to remember", AU_CORRUPT},
        {P("Nq\x05"), "out of order", AU_CORRUPT},
        {P("h\x00"), "never set", AU_CORRUPT},
        {P("J\x01"), "inside an opcode", AU_CORRUPT},
        {P("X\xff\xff\xff\xff"), "text runs over", AU_CORRUPT},
        {P("\x8a\x09"), "more than 64 bits", AU_CORRUPT},
        {P("\x80\x09"), "protocol", AU_CORRUPT},
        {P("}q\x00X\x01\x00\x00\x00xh\x00s."), "nest deeper", AU_UNSUPPORTED}, /* contains itself */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        au_tensor_set *set;
        au_err err;
        zip z;
        au_status st = torch_file(&set, &z, cases[i].pickle, cases[i].len, 0, &err);
        if (st != cases[i].status || !strstr(err.message, cases[i].message))
            fail_msg("case %zu: expected %s, got %d: %s", i, cases[i].message, (int)st,
                     st ? err.message : "");
        zip_free(&z);
    }
}

/* Dicts that share dicts grow exponentially when walked. */
static void test_torch_walk_is_bounded(void **state)
{
    (void)state;
    au_buf b;
    au_buf_init(&b, 1 << 20);
    au_buf_append(&b, "}q\x00", 3);
    for (int level = 1; level < 8; level++) {
        au_buf_str(&b, "}(");
        for (int i = 0; i < 60; i++) {
            text(&b, "k");
            au_buf_char(&b, 'h');
            au_buf_char(&b, (char)(level - 1));
        }
        au_buf_str(&b, "uq");
        au_buf_char(&b, (char)level);
    }
    au_buf_append(&b,
                  "0000000"
                  "0h\x07.",
                  11); /* only the last dict stays on the stack */
    au_tensor_set *set;
    au_err err;
    zip z;
    au_status st = torch_file(&set, &z, b.data, b.len, 0, &err);
    assert_int_equal(st, AU_LIMIT);
    assert_non_null(strstr(err.message, "too often"));
    zip_free(&z);
    au_buf_deinit(&b);
}

static void test_torch_refuses_bad_zips(void **state)
{
    (void)state;
    au_buf b;
    au_tensor_set *set;
    au_err err;
    zip z;
    pickle_begin(&b);
    pickle_tensor(&b, "w", "FloatStorage", "0", 6, 0, 1, (int64_t[]){6}, (int64_t[]){1});
    au_buf_str(&b, "u.");
    assert_int_equal(torch_file(&set, &z, b.data, b.len, 0, &err), AU_OK);
    au_tensor_set_close(&set);
    /* Cut anywhere, it is refused. */
    for (size_t len = 0; len < z.out.len; len++)
        assert_int_not_equal(au_torch_from_memory(&set, z.out.data, len, "cut", &err), AU_OK);
    /* Each byte changed: refused, or read without harm (the sanitizers watch). */
    for (size_t i = 0; i < z.out.len; i++) {
        char old = z.out.data[i];
        z.out.data[i] = (char)(old ^ 0xff);
        if (au_torch_from_memory(&set, z.out.data, z.out.len, "changed", NULL) == AU_OK)
            au_tensor_set_close(&set);
        z.out.data[i] = old;
    }
    size_t entry = z.out.len - 22 - z.directory.len;
    z.out.data[entry + 10] = 8;
    assert_int_equal(au_torch_from_memory(&set, z.out.data, z.out.len, "deflated", &err),
                     AU_UNSUPPORTED);
    assert_non_null(strstr(err.message, "compressed (method 8)"));
    zip_free(&z);

    zip_init(&z, 0);
    zip_add(&z, "archive/data.pkl", b.data, b.len);
    zip_add(&z, "archive/byteorder", "big", 3);
    zip_end(&z);
    assert_int_equal(au_torch_from_memory(&set, z.out.data, z.out.len, "big", &err),
                     AU_UNSUPPORTED);
    assert_non_null(strstr(err.message, "byte order is big"));
    zip_free(&z);

    zip_init(&z, 0);
    zip_add(&z, "archive/x", "x", 1);
    zip_add(&z, "archive/x", "x", 1);
    zip_end(&z);
    assert_int_equal(au_torch_from_memory(&set, z.out.data, z.out.len, "twice", &err), AU_CORRUPT);
    assert_non_null(strstr(err.message, "occurs twice"));
    zip_free(&z);
    au_buf_deinit(&b);

    assert_int_equal(au_torch_from_memory(&set, "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.", 15,
                                          "old", &err),
                     AU_UNSUPPORTED);
    assert_non_null(strstr(err.message, "before 1.6"));
}

/* ---- checkpoint folders ---- */

static char *fixture(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/tests/fixtures/checkpoints/%s", getenv("AULOS_SOURCE"), name);
    return path;
}

static void test_checkpoints(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t files, tensors;
        const char *tensor;
        au_dtype dtype;
    } cases[] = {
        {"mono-f32", 1, 195, "decoder.lm_heads.0.weight", AU_F32},
        {"mono-f32-bin", 1, 119, "text_encoder.encoder.embed_tokens.weight", AU_F32},
        {"mono-bf16-noproj", 1, 159, "decoder.lm_heads.0.weight", AU_BF16},
        {"stereo-f16-sharded", 3, 188, "decoder.lm_heads.7.weight", AU_F16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        au_tensor_set *set;
        au_err err;
        if (au_checkpoint_open(&set, fixture(cases[i].name), &err) != AU_OK)
            fail_msg("%s", err.message);
        assert_int_equal(au_tensor_set_files(set), cases[i].files);
        assert_int_equal(au_tensor_set_count(set), cases[i].tensors);
        const au_tensor *t = au_tensor_set_find(set, cases[i].tensor);
        assert_non_null(t);
        assert_int_equal(t->dtype, cases[i].dtype);
        for (size_t k = 1; k < au_tensor_set_count(set); k++)
            assert_true(strcmp(au_tensor_set_at(set, k - 1)->name, au_tensor_set_at(set, k)->name) <
                        0);
        au_tensor_set_close(&set);
    }
}

static char dir[64];

static void write_file(const char *name, const char *data, size_t len)
{
    char *path;
    assert_int_equal(au_path_join(&path, dir, name, NULL), AU_OK);
    assert_int_equal(au_file_write(path, data, len, true, NULL), AU_OK);
    free(path);
}

/* A file with one F32 tensor of one value. */
static void write_shard(const char *file, const char *tensor)
{
    char buf[256];
    int n = snprintf(buf + 8, sizeof buf - 8,
                     "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", tensor);
    uint64_t len = (uint64_t)n;
    memcpy(buf, &len, 8);
    memcpy(buf + 8 + n, "\0\0\0\0", 4);
    write_file(file, buf, (size_t)n + 12);
}

static void test_index(void **state)
{
    (void)state;
    static const struct {
        const char *json, *message;
        au_status status;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}", NULL, AU_OK},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\"}}", NULL, AU_OK},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-1.safetensors\"}}",
         "tensor b is not in m-1", AU_CORRUPT},
        {"{\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-2.safetensors\"}}",
         "tensor a is not in m-2", AU_CORRUPT},
        {"{\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-1.safetensors\"}}",
         "tensor a is in m-1", AU_CORRUPT},
        {"{\"weight_map\":{\"c\":\"m-1.safetensors\"}}",
         "holds tensor a, which the index does not name", AU_CORRUPT},
        {"{\"weight_map\":{\"a\":\"m-3.safetensors\"}}", "shard m-3.safetensors is missing",
         AU_NOT_FOUND},
        {"{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}", "expected a file of this folder",
         AU_CORRUPT},
        {"{\"weight_map\":{\"a\":\"m-1.bin\"}}", "expected a file of this folder", AU_CORRUPT},
        {"{\"weight_map\":{\"a\":7}}", "not a text", AU_CORRUPT},
        {"{\"weight_map\":{}}", "empty", AU_CORRUPT},
        {"{}", "not an object", AU_CORRUPT},
        {"[]", "not an object", AU_CORRUPT},
    };
    snprintf(dir, sizeof dir, "/tmp/au-test-tensor-XXXXXX");
    assert_non_null(mkdtemp(dir));
    au_tensor_set *set;
    au_err err;
    assert_int_equal(au_checkpoint_open(&set, dir, &err), AU_NOT_FOUND);
    assert_non_null(strstr(err.message, "pytorch_model.bin.index.json"));
    write_shard("m-1.safetensors", "a");
    write_shard("m-2.safetensors", "b");
    /* An index of another name is nobody's business. */
    write_file("model.safetensors.index.fp32.json", "{", 1);
    assert_int_equal(au_checkpoint_open(&set, dir, &err), AU_NOT_FOUND);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file("model.safetensors.index.json", cases[i].json, strlen(cases[i].json));
        au_status st = au_checkpoint_open(&set, dir, &err);
        if (st != cases[i].status || (st && !strstr(err.message, cases[i].message)))
            fail_msg("%s: %d %s", cases[i].json, (int)st, st ? err.message : "");
        au_tensor_set_close(&set);
    }
    /* The single file comes first. */
    write_shard("model.safetensors", "whole");
    assert_int_equal(au_checkpoint_open(&set, dir, &err), AU_OK);
    assert_non_null(au_tensor_set_find(set, "whole"));
    au_tensor_set_close(&set);
    assert_int_equal(au_remove_tree(dir, NULL), AU_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_widening),
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_safetensors_refused),
        cmocka_unit_test(test_torch),
        cmocka_unit_test(test_torch_refuses_bad_tensors),
        cmocka_unit_test(test_torch_refuses_bad_pickles),
        cmocka_unit_test(test_torch_walk_is_bounded),
        cmocka_unit_test(test_torch_refuses_bad_zips),
        cmocka_unit_test(test_checkpoints),
        cmocka_unit_test(test_index),
    };
    return cmocka_run_group_tests_name("tensor", tests, NULL, NULL);
}
