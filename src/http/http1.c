/* SPDX-License-Identifier: MIT */
/* HTTP/1.1 message syntax. Nothing is repaired: a head is exactly what RFC 9112 describes, or it is
 * refused and the connection ends. A head is checked byte by byte once (au_http1_scan), so the
 * parser behind it may split at CR LF and use C strings. Stateless but for au_chunked, which one
 * thread owns. */
#include "http/http1.h"

#include <string.h>
#include <strings.h>

#include "base/str.h"

/* Bytes that chunk extensions and trailers may take in all: they are read over and mean nothing
 * here. */
enum { CHUNK_OVERHEAD_MAX = 8192 };

static bool is_tchar(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

bool au_http_is_token(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!is_tchar((unsigned char)s[i]))
            return false;
    }
    return len > 0;
}

au_http_scan au_http1_scan(const char *buf, size_t len, size_t *scanned, size_t *head_len)
{
    /* A CR at the end of what has arrived is looked at again with its successor. */
    for (size_t i = *scanned; i < len; i++) {
        unsigned char c = (unsigned char)buf[i];
        if (c == '\0' || c == 0x7f)
            return AU_SCAN_BAD;
        if (c == '\n' && (i == 0 || buf[i - 1] != '\r'))
            return AU_SCAN_BAD;
        if (c == '\r') {
            if (i + 1 == len) {
                *scanned = i;
                return AU_SCAN_MORE;
            }
            if (buf[i + 1] != '\n')
                return AU_SCAN_BAD;
        }
        if (c == '\n' && i >= 3 && buf[i - 2] == '\n') {
            *scanned = i + 1;
            *head_len = i + 1;
            return AU_SCAN_DONE;
        }
    }
    *scanned = len;
    return AU_SCAN_MORE;
}

/* Cuts the next line off *cursor; its CR becomes the terminator. */
static char *next_line(char **cursor)
{
    char *line = *cursor;
    char *cr = strchr(line, '\r');
    *cr = '\0';
    *cursor = cr + 2;
    return line;
}

static au_problem bad(const char **detail, const char *text)
{
    *detail = text;
    return AU_PROBLEM_BAD_REQUEST;
}

/* "HTTP/1.1" and "HTTP/1.0"; another major version is 505, anything else 400. */
static au_problem parse_version(au_http_head *head, const char *version, const char **detail)
{
    if (strcmp(version, "HTTP/1.1") == 0 || strcmp(version, "HTTP/1.0") == 0) {
        head->minor = version[7] - '0';
        return AU_PROBLEM_NONE;
    }
    if (strlen(version) == 8 && au_str_starts(version, "HTTP/") && version[5] >= '0' &&
        version[5] <= '9' && version[6] == '.' && version[7] >= '0' && version[7] <= '9') {
        *detail = "HTTP/1.1 and HTTP/1.0 are supported";
        return AU_PROBLEM_HTTP_VERSION;
    }
    return bad(detail, "request line does not end with an HTTP version");
}

/* Origin form (/path?query) and absolute form (http://authority/path?query). */
static au_problem parse_target(au_http_head *head, char *target, au_arena *arena,
                               const char **detail)
{
    for (const char *p = target; *p; p++) {
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f || *p == '#')
            return bad(detail, "request target holds a character that must be percent-encoded");
    }
    if (strncasecmp(target, "http://", 7) == 0) {
        char *authority = target + 7;
        size_t n = strcspn(authority, "/?");
        if (n == 0)
            return bad(detail, "request target has no host");
        char *host = au_arena_strndup(arena, authority, n);
        char *rest = authority + n;
        char *path = *rest == '/' ? rest : au_arena_printf(arena, "/%s", rest);
        if (!host || !path) {
            *detail = "request head needs too much memory";
            return AU_PROBLEM_HEADERS_TOO_LARGE;
        }
        head->host = host;
        target = path;
    }
    if (*target != '/')
        return bad(detail, "request target does not begin with /");
    char *mark = strchr(target, '?');
    if (mark) {
        *mark = '\0';
        head->query = mark + 1;
    }
    head->path = target;
    return AU_PROBLEM_NONE;
}

static au_problem parse_request_line(au_http_head *head, char *line, au_arena *arena,
                                     const char **detail)
{
    char *target = strchr(line, ' ');
    char *version = target ? strchr(target + 1, ' ') : NULL;
    if (!version || !au_http_is_token(line, (size_t)(target - line)))
        return bad(detail, "request line is not \"METHOD TARGET VERSION\"");
    *target++ = '\0';
    *version++ = '\0';
    head->method = line;
    au_problem p = parse_version(head, version, detail);
    return p ? p : parse_target(head, target, arena, detail);
}

static au_problem parse_field(au_http_field *field, char *line, const char **detail)
{
    if (*line == ' ' || *line == '\t')
        return bad(detail, "header field is folded over several lines");
    char *colon = strchr(line, ':');
    if (!colon || !au_http_is_token(line, (size_t)(colon - line)))
        return bad(detail, "header field has no proper name before its colon");
    for (char *p = line; p < colon; p++) {
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p + ('a' - 'A'));
    }
    *colon = '\0';
    char *value = colon + 1;
    for (const char *p = value; *p; p++) {
        if ((unsigned char)*p < 0x20 && *p != '\t')
            return bad(detail, "header field value holds a control character");
    }
    value += strspn(value, " \t");
    size_t n = strlen(value);
    while (n && (value[n - 1] == ' ' || value[n - 1] == '\t'))
        value[--n] = '\0';
    *field = (au_http_field){line, value};
    return AU_PROBLEM_NONE;
}

const char *au_http_field_get(const au_http_head *head, const char *name, size_t *count)
{
    const char *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < head->n_fields; i++) {
        if (strcmp(head->fields[i].name, name) == 0 && n++ == 0)
            first = head->fields[i].value;
    }
    if (count)
        *count = n;
    return first;
}

/* Whether a comma-separated list names `token`, in any case. */
static bool list_has(const char *list, const char *token)
{
    size_t want = strlen(token);
    while (*list) {
        list += strspn(list, ", \t");
        size_t n = strcspn(list, ",");
        size_t m = n;
        while (m && (list[m - 1] == ' ' || list[m - 1] == '\t'))
            m--;
        if (m == want && strncasecmp(list, token, want) == 0)
            return true;
        list += n;
    }
    return false;
}

/* How long the body is; see the top of http1.h for what is refused. */
static au_problem parse_framing(au_http_head *head, const char **detail)
{
    size_t n_te, n_cl;
    const char *te = au_http_field_get(head, "transfer-encoding", &n_te);
    const char *cl = au_http_field_get(head, "content-length", &n_cl);
    if (n_te && n_cl)
        return bad(detail, "Content-Length stands beside Transfer-Encoding");
    if (n_cl > 1)
        return bad(detail, "Content-Length is repeated");
    if (n_te) {
        if (n_te > 1 || strcasecmp(te, "chunked") != 0 || head->minor == 0)
            return bad(detail, "Transfer-Encoding is not \"chunked\" alone, with HTTP/1.1");
        head->chunked = true;
    }
    if (n_cl) {
        if (!*cl || strspn(cl, "0123456789") != strlen(cl) || !au_parse_u64(cl, &head->length) ||
            head->length > INT64_MAX)
            return bad(detail, "Content-Length is not a number below 2^63");
        head->has_length = true;
    }
    return AU_PROBLEM_NONE;
}

static au_problem parse_semantics(au_http_head *head, const char **detail)
{
    size_t n_host, n_expect;
    const char *host = au_http_field_get(head, "host", &n_host);
    if (n_host > 1 || (n_host == 0 && head->minor == 1))
        return bad(detail, n_host ? "Host is repeated" : "Host is missing");
    if (!head->host)
        head->host = host;
    au_problem p = parse_framing(head, detail);
    if (p)
        return p;
    const char *expect = au_http_field_get(head, "expect", &n_expect);
    if (n_expect) {
        if (n_expect > 1 || strcasecmp(expect, "100-continue") != 0) {
            *detail = "Expect is not \"100-continue\"";
            return AU_PROBLEM_EXPECTATION;
        }
        head->expect_continue = head->minor == 1;
    }
    head->keep_alive = head->minor == 1;
    for (size_t i = 0; i < head->n_fields; i++) {
        if (strcmp(head->fields[i].name, "connection") == 0 &&
            list_has(head->fields[i].value, "close"))
            head->keep_alive = false;
    }
    return AU_PROBLEM_NONE;
}

au_problem au_http1_parse(au_http_head *head, au_arena *arena, const char *buf, size_t len,
                          const char **detail)
{
    *head = (au_http_head){0};
    size_t lines = 0;
    for (size_t i = 0; i < len; i++)
        lines += buf[i] == '\n';
    AU_ASSERT(lines >= 2); /* the request line and the empty one: found by au_http1_scan */
    size_t n_fields = lines - 2;
    if (n_fields > AU_HTTP_FIELDS_MAX) {
        *detail = "request has more than 100 header fields";
        return AU_PROBLEM_HEADERS_TOO_LARGE;
    }
    char *cursor = au_arena_strndup(arena, buf, len);
    head->fields = au_arena_alloc(arena, (n_fields + 1) * sizeof *head->fields);
    if (!cursor || !head->fields) {
        *detail = "request head needs too much memory";
        return AU_PROBLEM_HEADERS_TOO_LARGE;
    }
    char *line = next_line(&cursor);
    if (cursor - line > AU_HTTP_LINE_MAX) {
        *detail = "request line is longer than 8192 bytes";
        return AU_PROBLEM_URI_TOO_LONG;
    }
    au_problem p = parse_request_line(head, line, arena, detail);
    for (size_t i = 0; i < n_fields && !p; i++) {
        p = parse_field(&head->fields[i], next_line(&cursor), detail);
        head->n_fields += !p;
    }
    return p ? p : parse_semantics(head, detail);
}

enum {
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    TRAILER,
    TRAILER_LF,
    CHUNK_END,
};

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* One byte of a chunk's first line; false: wrong syntax. */
static bool chunk_size_byte(au_chunked *c, char ch)
{
    int digit = hex_digit(ch);
    if (digit >= 0) {
        /* 15 digits: far beyond any body, and no overflow. */
        if (++c->digits > 15)
            return false;
        c->left = c->left * 16 + (unsigned)digit;
        return true;
    }
    if (c->digits == 0)
        return false;
    if (ch == '\r')
        c->state = CHUNK_SIZE_LF;
    else if (ch == ';' || ch == ' ' || ch == '\t')
        c->state = CHUNK_EXTENSION;
    else
        return false;
    return true;
}

/* One byte that is not chunk data; false: wrong syntax. */
static bool chunk_byte(au_chunked *c, char ch)
{
    bool visible = (unsigned char)ch >= 0x20 || ch == '\t';
    switch (c->state) {
    case CHUNK_SIZE:
        return chunk_size_byte(c, ch);
    case CHUNK_EXTENSION:
        if (ch == '\r')
            c->state = CHUNK_SIZE_LF;
        else if (!visible || ++c->overhead > CHUNK_OVERHEAD_MAX)
            return false;
        return true;
    case CHUNK_SIZE_LF:
        c->state = c->left ? CHUNK_DATA : TRAILER;
        c->digits = 0;
        c->line = 0;
        return ch == '\n';
    case CHUNK_DATA_CR:
        c->state = CHUNK_DATA_LF;
        return ch == '\r';
    case CHUNK_DATA_LF:
        c->state = CHUNK_SIZE;
        return ch == '\n';
    case TRAILER:
        if (ch == '\r')
            c->state = TRAILER_LF;
        else if (!visible || ++c->overhead > CHUNK_OVERHEAD_MAX)
            return false;
        else
            c->line++;
        return true;
    default: /* TRAILER_LF */
        c->state = c->line ? TRAILER : CHUNK_END;
        c->line = 0;
        return ch == '\n';
    }
}

au_http_scan au_chunked_feed(au_chunked *c, au_buf *out, const char *buf, size_t len, size_t *used)
{
    size_t i = 0;
    au_http_scan result = AU_SCAN_MORE;
    while (i < len && result == AU_SCAN_MORE) {
        if (c->state == CHUNK_DATA) {
            size_t n = len - i < c->left ? len - i : (size_t)c->left;
            au_buf_append(out, buf + i, n);
            i += n;
            c->left -= n;
            if (c->left == 0)
                c->state = CHUNK_DATA_CR;
        } else if (!chunk_byte(c, buf[i])) {
            result = AU_SCAN_BAD;
        } else {
            i++;
            if (c->state == CHUNK_END)
                result = AU_SCAN_DONE;
        }
    }
    *used = i;
    return result;
}

char *au_http_unescape(au_arena *arena, const char *s, size_t len, bool plus)
{
    char *out = au_arena_alloc(arena, len + 1);
    if (!out)
        return NULL;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (c == '%') {
            int high = i + 2 < len ? hex_digit(s[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(s[i + 2]) : -1;
            if (low < 0)
                return NULL;
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c == '\0')
            return NULL;
        out[n++] = c;
    }
    return au_utf8_valid(out, n) ? out : NULL;
}
