/* SPDX-License-Identifier: MIT */
/* A stack machine for the opcodes that torch.save writes with protocols 2 to 4 (Lib/pickletools.py
 * describes each). Objects live in one list until the pickle is closed, so that shared and cyclic
 * references need no care. Memory is bounded: every value on the stack, in the memo or in an object
 * costs the file a byte. */
#include "tensor/pickle.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* A state dict of 10 000 tensors has a pickle of about 2 MB with 60 000 objects. */
enum { MAX_BYTES = 32 << 20, MAX_OBJECTS = 1 << 20, MAX_PROTOCOL = 5 };

enum {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_POP = '0',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_BINFLOAT = 'G',
    OP_NONE = 'N',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_BINUNICODE = 'X',
    OP_APPEND = 'a',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_APPENDS = 'e',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_EMPTY_LIST = ']',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_EMPTY_TUPLE = ')',
    OP_SETITEMS = 'u',
    OP_EMPTY_DICT = '}',
    OP_PROTO = 0x80,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8a,
    OP_SHORT_BINUNICODE = 0x8c,
    OP_BINUNICODE8 = 0x8d,
    OP_STACK_GLOBAL = 0x93,
    OP_MEMOIZE = 0x94,
    OP_FRAME = 0x95,
};

static const struct {
    const char *module, *name;
    int value;
} globals[] = {
    {"collections", "OrderedDict", AU_PICKLE_ORDERED_DICT},
    {"torch._utils", "_rebuild_tensor_v2", AU_PICKLE_REBUILD_TENSOR},
    {"torch._utils", "_rebuild_parameter", AU_PICKLE_REBUILD_PARAMETER},
    {"torch", "FloatStorage", AU_PICKLE_STORAGE_TYPE + AU_F32},
    {"torch", "HalfStorage", AU_PICKLE_STORAGE_TYPE + AU_F16},
    {"torch", "BFloat16Storage", AU_PICKLE_STORAGE_TYPE + AU_BF16},
    {"torch", "DoubleStorage", AU_PICKLE_STORAGE_TYPE + AU_F64},
    {"torch", "LongStorage", AU_PICKLE_STORAGE_TYPE + AU_I64},
    {"torch", "IntStorage", AU_PICKLE_STORAGE_TYPE + AU_I32},
    {"torch", "ShortStorage", AU_PICKLE_STORAGE_TYPE + AU_I16},
    {"torch", "CharStorage", AU_PICKLE_STORAGE_TYPE + AU_I8},
    {"torch", "ByteStorage", AU_PICKLE_STORAGE_TYPE + AU_U8},
    {"torch", "BoolStorage", AU_PICKLE_STORAGE_TYPE + AU_BOOL},
};

typedef struct machine {
    const unsigned char *at, *end, *begin;
    const char *what;
    au_pickle *pickle;
    au_pickle_object *stack, *memo; /* outside the list of objects */
    size_t n_objects;
    bool stopped;
    au_err *err;
} machine;

static au_status damaged(machine *m, const char *why)
{
    return au_fail(m->err, AU_CORRUPT, "%s: the pickle is damaged near byte %zu: %s", m->what,
                   (size_t)(m->at - m->begin), why);
}

static au_status append(machine *m, au_pickle_object *o, const au_pickle_value *v, size_t n)
{
    if (n > o->cap - o->n) {
        size_t cap = o->cap ? o->cap * 2 : 4;
        while (cap - o->n < n)
            cap *= 2;
        au_pickle_value *items = realloc(o->items, cap * sizeof *items);
        if (!items)
            return au_fail(m->err, AU_NOMEM, "cannot allocate %zu pickle values", cap);
        o->items = items;
        o->cap = cap;
    }
    if (n)
        memcpy(o->items + o->n, v, n * sizeof *v);
    o->n += n;
    return AU_OK;
}

static au_status push(machine *m, au_pickle_value v)
{
    return append(m, m->stack, &v, 1);
}

static au_status push_int(machine *m, au_pickle_type type, int64_t i)
{
    return push(m, (au_pickle_value){.type = type, .i = i});
}

/* A new object of n items (copied from v), put on the stack. */
static au_status push_object(machine *m, au_pickle_type type, const au_pickle_value *v, size_t n)
{
    if (m->n_objects == MAX_OBJECTS)
        return au_fail(m->err, AU_LIMIT, "%s: the pickle has more than %d objects", m->what,
                       MAX_OBJECTS);
    au_pickle_object *o;
    au_status st = au_calloc(&o, 1, sizeof *o, m->err);
    if (st != AU_OK)
        return st;
    o->next = m->pickle->objects;
    m->pickle->objects = o;
    m->n_objects++;
    st = append(m, o, v, n);
    return st == AU_OK ? push(m, (au_pickle_value){.type = type, .object = o}) : st;
}

/* The k-th value from the top (0 is the top), NULL if there are not so many. */
static au_pickle_value *peek(machine *m, size_t k)
{
    return k < m->stack->n ? &m->stack->items[m->stack->n - 1 - k] : NULL;
}

/* Number of values above the topmost mark, SIZE_MAX without a mark. */
static size_t above_mark(machine *m)
{
    for (size_t k = 0; k < m->stack->n; k++)
        if (peek(m, k)->type == AU_PICKLE_MARK)
            return k;
    return SIZE_MAX;
}

static bool has_mark(const au_pickle_value *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (v[i].type == AU_PICKLE_MARK)
            return true;
    return false;
}

/* Replaces the n values on top (and the mark below them) by a tuple of them. */
static au_status make_tuple(machine *m, size_t n, bool mark)
{
    if (n == SIZE_MAX || n > m->stack->n)
        return damaged(m, "a tuple without its items");
    size_t from = m->stack->n - n;
    const au_pickle_value *items = n ? m->stack->items + from : NULL; /* the stack may be empty */
    if (has_mark(items, n))
        return damaged(m, "a mark inside a tuple");
    au_status st = push_object(m, AU_PICKLE_TUPLE, items, n);
    if (st != AU_OK)
        return st;
    au_pickle_value v = *peek(m, 0);
    m->stack->n = from - mark;
    return push(m, v);
}

/* The n values on top go into the container below them (and below the mark). */
static au_status add_items(machine *m, au_pickle_type type, size_t n, bool mark)
{
    if (n == SIZE_MAX || n + mark >= m->stack->n || (type == AU_PICKLE_DICT && n % 2))
        return damaged(m, "items without their container");
    size_t from = m->stack->n - n;
    au_pickle_value *container = &m->stack->items[from - mark - 1];
    if (container->type != type || has_mark(m->stack->items + from, n))
        return damaged(m, "items of a thing that is no list or dict");
    au_status st = append(m, container->object, m->stack->items + from, n);
    m->stack->n = from - mark;
    return st;
}

static au_status push_global(machine *m, const char *module, size_t module_len, const char *name,
                             size_t name_len)
{
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (strlen(globals[i].module) == module_len && strlen(globals[i].name) == name_len &&
            memcmp(globals[i].module, module, module_len) == 0 &&
            memcmp(globals[i].name, name, name_len) == 0)
            return push_int(m, AU_PICKLE_GLOBAL, globals[i].value);
    return au_fail(m->err, AU_UNSUPPORTED,
                   "%s: the pickle refers to %.*s.%.*s; only dicts of tensors are read, nothing is "
                   "executed",
                   m->what, (int)(module_len < 100 ? module_len : 100), module,
                   (int)(name_len < 100 ? name_len : 100), name);
}

/* GLOBAL: two lines of text. */
static au_status read_global(machine *m)
{
    const unsigned char *a = memchr(m->at, '\n', (size_t)(m->end - m->at));
    const unsigned char *b = a ? memchr(a + 1, '\n', (size_t)(m->end - a - 1)) : NULL;
    if (!b)
        return damaged(m, "a global without its name");
    const char *module = (const char *)m->at, *name = (const char *)a + 1;
    m->at = b + 1;
    return push_global(m, module, (size_t)(a - (const unsigned char *)module), name,
                       (size_t)(b - a - 1));
}

static au_status stack_global(machine *m)
{
    const au_pickle_value *name = peek(m, 0), *module = peek(m, 1);
    if (!module || name->type != AU_PICKLE_TEXT || module->type != AU_PICKLE_TEXT)
        return damaged(m, "a global without its name");
    m->stack->n -= 2;
    return push_global(m, module->text, module->len, name->text, name->len);
}

/* Persistent ids are how torch names the storages. */
static au_status persistent(machine *m)
{
    static const char word[] = "storage";
    const au_pickle_value *id = peek(m, 0);
    if (!id || id->type != AU_PICKLE_TUPLE)
        return damaged(m, "a persistent id that is no tuple");
    const au_pickle_value *v = id->object->items;
    if (id->object->n != 5 || v[0].type != AU_PICKLE_TEXT || v[0].len != sizeof word - 1 ||
        memcmp(v[0].text, word, sizeof word - 1) != 0 || v[1].type != AU_PICKLE_GLOBAL ||
        v[1].i < AU_PICKLE_STORAGE_TYPE || v[2].type != AU_PICKLE_TEXT ||
        v[3].type != AU_PICKLE_TEXT || v[4].type != AU_PICKLE_INT)
        return au_fail(m->err, AU_UNSUPPORTED,
                       "%s: a persistent id is not (storage, type, key, location, count)", m->what);
    m->stack->n--;
    return push_object(m, AU_PICKLE_STORAGE, v, 5);
}

/* Calls that a state dict consists of; the function and its arguments are on the stack. */
static au_status reduce(machine *m)
{
    const au_pickle_value *args = peek(m, 0), *function = peek(m, 1);
    if (!function || function->type != AU_PICKLE_GLOBAL || args->type != AU_PICKLE_TUPLE)
        return damaged(m, "a call of a thing that is no function");
    const au_pickle_value *v = args->object->items;
    size_t n = args->object->n;
    int64_t f = function->i;
    m->stack->n -= 2;
    if (f == AU_PICKLE_ORDERED_DICT && n == 0)
        return push_object(m, AU_PICKLE_DICT, NULL, 0);
    if (f == AU_PICKLE_REBUILD_TENSOR && n >= 6 && v[0].type == AU_PICKLE_STORAGE &&
        v[1].type == AU_PICKLE_INT && v[2].type == AU_PICKLE_TUPLE && v[3].type == AU_PICKLE_TUPLE)
        return push_object(m, AU_PICKLE_TENSOR, v, 4);
    if (f == AU_PICKLE_REBUILD_PARAMETER && n == 3 && v[0].type == AU_PICKLE_TENSOR)
        return push(m, v[0]);
    return au_fail(m->err, AU_UNSUPPORTED,
                   "%s: the pickle calls %s with arguments that no state dict has", m->what,
                   f >= AU_PICKLE_STORAGE_TYPE ? "a storage type" : globals[f].name);
}

/* BUILD sets attributes. An OrderedDict may have some (_metadata), which say nothing about the
 * tensors. */
static au_status build(machine *m)
{
    const au_pickle_value *state = peek(m, 0), *object = peek(m, 1);
    if (!object || object->type != AU_PICKLE_DICT || state->type != AU_PICKLE_DICT)
        return damaged(m, "attributes of a thing that is no dict");
    m->stack->n--;
    return AU_OK;
}

static au_status memo_put(machine *m, uint64_t i)
{
    const au_pickle_value *v = peek(m, 0);
    if (!v || v->type == AU_PICKLE_MARK)
        return damaged(m, "nothing to remember");
    if (i < m->memo->n) {
        m->memo->items[i] = *v;
        return AU_OK;
    }
    /* Picklers count upwards; a jump would only make the table large. */
    if (i > m->memo->n)
        return damaged(m, "a memo index out of order");
    return append(m, m->memo, v, 1);
}

static au_status memo_get(machine *m, uint64_t i)
{
    if (i >= m->memo->n)
        return damaged(m, "a memo index that was never set");
    return push(m, m->memo->items[i]);
}

/* n bytes little-endian, advanced past; false if there are not so many. n <= 8. */
static bool take(machine *m, int n, uint64_t *out)
{
    if (m->end - m->at < n)
        return false;
    *out = 0;
    for (int i = n - 1; i >= 0; i--)
        *out = *out << 8 | m->at[i];
    m->at += n;
    return true;
}

static au_status push_text(machine *m, uint64_t len)
{
    if (len > (uint64_t)(m->end - m->at))
        return damaged(m, "a text runs over the end");
    au_pickle_value v = {.type = AU_PICKLE_TEXT, .len = (uint32_t)len, .text = (const char *)m->at};
    m->at += len;
    return push(m, v);
}

/* LONG1: n bytes of two's complement. */
static au_status push_long(machine *m, uint64_t n)
{
    uint64_t v;
    if (n > 8)
        return damaged(m, "a number of more than 64 bits");
    if (!take(m, (int)n, &v))
        return damaged(m, "a number runs over the end");
    if (n && n < 8 && v >> (8 * n - 1))
        v |= UINT64_MAX << (8 * n);
    return push_int(m, AU_PICKLE_INT, (int64_t)v);
}

/* Bytes of the fixed operand of an opcode. */
static int operand_bytes(unsigned char op)
{
    switch (op) {
    case OP_BININT1:
    case OP_BINGET:
    case OP_BINPUT:
    case OP_PROTO:
    case OP_LONG1:
    case OP_SHORT_BINUNICODE:
        return 1;
    case OP_BININT2:
        return 2;
    case OP_BININT:
    case OP_BINUNICODE:
    case OP_LONG_BINGET:
    case OP_LONG_BINPUT:
        return 4;
    case OP_BINFLOAT:
    case OP_BINUNICODE8:
    case OP_FRAME:
        return 8;
    default:
        return 0;
    }
}

static au_status execute_structure(machine *m, unsigned char op)
{
    switch (op) {
    case OP_MARK:
        return push_int(m, AU_PICKLE_MARK, 0);
    case OP_EMPTY_LIST:
        return push_object(m, AU_PICKLE_LIST, NULL, 0);
    case OP_EMPTY_DICT:
        return push_object(m, AU_PICKLE_DICT, NULL, 0);
    case OP_EMPTY_TUPLE:
        return make_tuple(m, 0, false);
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        return make_tuple(m, (size_t)op - OP_TUPLE1 + 1, false);
    case OP_TUPLE:
        return make_tuple(m, above_mark(m), true);
    case OP_APPEND:
        return add_items(m, AU_PICKLE_LIST, 1, false);
    case OP_APPENDS:
        return add_items(m, AU_PICKLE_LIST, above_mark(m), true);
    case OP_SETITEM:
        return add_items(m, AU_PICKLE_DICT, 2, false);
    case OP_SETITEMS:
        return add_items(m, AU_PICKLE_DICT, above_mark(m), true);
    case OP_GLOBAL:
        return read_global(m);
    case OP_STACK_GLOBAL:
        return stack_global(m);
    case OP_BINPERSID:
        return persistent(m);
    case OP_REDUCE:
        return reduce(m);
    case OP_BUILD:
        return build(m);
    case OP_MEMOIZE:
        return memo_put(m, m->memo->n);
    default:
        return au_fail(m->err, AU_UNSUPPORTED,
                       "%s: the pickle has opcode 0x%02x at byte %zu, which no state dict needs",
                       m->what, op, (size_t)(m->at - m->begin - 1));
    }
}

static au_status execute(machine *m, unsigned char op)
{
    uint64_t v = 0;
    if (!take(m, operand_bytes(op), &v))
        return damaged(m, "it ends inside an opcode");
    switch (op) {
    case OP_PROTO:
        return v <= MAX_PROTOCOL ? AU_OK : damaged(m, "a protocol above 5");
    case OP_FRAME:
        return AU_OK; /* only a hint for buffering */
    case OP_STOP:
        m->stopped = true;
        return AU_OK;
    case OP_POP:
        if (!m->stack->n)
            return damaged(m, "nothing to take away");
        m->stack->n--;
        return AU_OK;
    case OP_NONE:
        return push_int(m, AU_PICKLE_NONE, 0);
    case OP_NEWTRUE:
    case OP_NEWFALSE:
        return push_int(m, AU_PICKLE_BOOL, op == OP_NEWTRUE);
    case OP_BININT:
        return push_int(m, AU_PICKLE_INT, (int32_t)(uint32_t)v);
    case OP_BININT1:
    case OP_BININT2:
        return push_int(m, AU_PICKLE_INT, (int64_t)v);
    case OP_LONG1:
        return push_long(m, v);
    case OP_BINFLOAT:
        return push_int(m, AU_PICKLE_FLOAT, 0);
    case OP_BINUNICODE:
    case OP_SHORT_BINUNICODE:
    case OP_BINUNICODE8:
        return push_text(m, v);
    case OP_BINPUT:
    case OP_LONG_BINPUT:
        return memo_put(m, v);
    case OP_BINGET:
    case OP_LONG_BINGET:
        return memo_get(m, v);
    default:
        return execute_structure(m, op);
    }
}

au_status au_pickle_read(au_pickle *p, const unsigned char *data, size_t len, const char *what,
                         au_err *err)
{
    au_pickle_object stack = {0}, memo = {0};
    machine m = {.at = data,
                 .begin = data,
                 .end = data + len,
                 .what = what,
                 .pickle = p,
                 .stack = &stack,
                 .memo = &memo,
                 .err = err};
    au_status st = AU_OK;
    *p = (au_pickle){0};
    AU_FAIL_IF(len > MAX_BYTES, AU_LIMIT, "%s: the pickle has %zu bytes, more than %d", what, len,
               MAX_BYTES);
    while (!m.stopped) {
        if (m.at == m.end) {
            st = damaged(&m, "it does not end");
            goto done;
        }
        unsigned char op = *m.at++;
        AU_TRY(execute(&m, op));
    }
    if (stack.n != 1 || stack.items[0].type == AU_PICKLE_MARK) {
        st = damaged(&m, "it does not leave one value");
        goto done;
    }
    p->root = stack.items[0];
done:
    free(stack.items);
    free(memo.items);
    if (st != AU_OK)
        au_pickle_close(p);
    return st;
}

void au_pickle_close(au_pickle *p)
{
    for (au_pickle_object *o = p->objects, *next; o; o = next) {
        next = o->next;
        free(o->items);
        free(o);
    }
    *p = (au_pickle){0};
}
