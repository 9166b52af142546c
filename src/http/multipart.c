/* SPDX-License-Identifier: MIT */
/* The parser of multipart/form-data. A delimiter begins with CR, and CR stands nowhere else in it,
 * so what was held back while one might have begun is always its first bytes: after a mismatch they
 * are data, and the search begins anew at the byte that did not match. One owner. */
#include "http/multipart.h"

#include <string.h>
#include <strings.h>

#include "base/str.h"

enum {
    PREAMBLE_MAX = 4096,
    /* Before the first delimiter, in a part's data, behind a delimiter, in header lines, behind the
     * last delimiter. The first delimiter needs no CR LF where the body begins with it. */
    PREAMBLE = 0,
    DATA,
    BEHIND,      /* "-": the last; CR: header lines follow; blanks are skipped */
    BEHIND_DASH, /* the second '-' */
    BEHIND_CR,
    HEADER,
    EPILOGUE,
};

/* ---- Content-Type and Content-Disposition ---- */

static bool is_token_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t");
}

/* One parameter: *p behind "; name=", its value into out (cap bytes with the NUL). A backslash
 * stands for itself except before a quote or another one: browsers do not escape it. */
static bool take_value(const char **p, char *out, size_t cap)
{
    size_t n = 0;
    const char *s = *p;
    bool quoted = *s == '"';
    s += quoted;
    while (quoted ? *s && *s != '"' : is_token_char(*s)) {
        if (quoted && *s == '\\' && (s[1] == '"' || s[1] == '\\'))
            s++;
        if (n + 1 >= cap)
            return false;
        out[n++] = *s++;
    }
    out[n] = '\0';
    if (quoted && *s++ != '"')
        return false;
    *p = s;
    return quoted || n > 0;
}

/* Moves to the next parameter: its name lies at *name, *p behind the '='. False: none is left, or
 * (*bad) the rest is not a parameter. */
static bool next_param(const char **p, const char **name, size_t *name_len, bool *bad)
{
    const char *s = skip_blanks(*p);
    if (!*s)
        return false;
    *bad = true;
    if (*s != ';')
        return false;
    s = skip_blanks(s + 1);
    if (!*s) {
        *bad = false; /* a ';' at the end is harmless */
        return false;
    }
    *name = s;
    while (is_token_char(*s))
        s++;
    *name_len = (size_t)(s - *name);
    if (*name_len == 0 || *s != '=')
        return false;
    *p = s + 1;
    *bad = false;
    return true;
}

static bool name_is(const char *name, size_t len, const char *wanted)
{
    return strlen(wanted) == len && strncasecmp(name, wanted, len) == 0;
}

static bool is_boundary(const char *s)
{
    size_t len = strlen(s);
    static const char special[] = "'()+_,-./:=? ";
    for (size_t i = 0; i < len; i++) {
        bool plain = (s[i] >= '0' && s[i] <= '9') || (s[i] >= 'A' && s[i] <= 'Z') ||
                     (s[i] >= 'a' && s[i] <= 'z') || strchr(special, s[i]);
        if (!plain)
            return false;
    }
    return len >= 1 && len <= AU_MULTIPART_BOUNDARY_MAX && s[len - 1] != ' ';
}

au_status au_multipart_init(au_multipart *m, const char *content_type,
                            const au_multipart_events *events, void *user, au_err *err)
{
    static const char form[] = "multipart/form-data";
    char boundary[AU_MULTIPART_BOUNDARY_MAX + 1] = "", other[256];
    const char *name, *p = content_type;
    size_t name_len, type_len = p ? strcspn(p, "; \t") : 0;
    bool bad = false, found = false;
    au_status st = AU_OK;
    *m = (au_multipart){.events = events, .user = user};
    AU_FAIL_IF(type_len != sizeof form - 1 || strncasecmp(p, form, type_len) != 0, AU_UNSUPPORTED,
               "Content-Type is not %s", form);
    p += type_len;
    while (next_param(&p, &name, &name_len, &bad)) {
        bool mine = name_is(name, name_len, "boundary");
        AU_FAIL_IF(mine && found, AU_INVALID, "Content-Type has two boundaries");
        AU_FAIL_IF(!take_value(&p, mine ? boundary : other, mine ? sizeof boundary : sizeof other),
                   AU_INVALID, "Content-Type has a parameter that is not valid or too long");
        found |= mine;
    }
    AU_FAIL_IF(bad || !is_boundary(boundary), AU_INVALID,
               "Content-Type has no boundary of 1 to %d allowed characters",
               (int)AU_MULTIPART_BOUNDARY_MAX);
    memcpy(m->delimiter, "\r\n--", 4);
    memcpy(m->delimiter + 4, boundary, strlen(boundary) + 1);
    m->delimiter_len = 4 + strlen(boundary);
    m->matched = 2; /* as if CR LF stood before the body */
done:
    return st;
}

typedef struct disposition {
    char name[256], file_name[AU_MULTIPART_HEADER_MAX];
    bool has_name, has_file;
} disposition;

static au_status check_text(const char *s, const char *what, au_err *err)
{
    au_status st = AU_OK;
    AU_FAIL_IF(!au_utf8_valid(s, strlen(s)), AU_INVALID, "%s of a part is not valid UTF-8", what);
    for (; *s; s++)
        AU_FAIL_IF((unsigned char)*s < 0x20 || *s == 0x7f, AU_INVALID,
                   "%s of a part holds a control character", what);
done:
    return st;
}

static au_status parse_disposition(disposition *d, const char *value, au_err *err)
{
    char other[256];
    const char *name, *p = value;
    size_t name_len, type_len = strcspn(p, "; \t");
    bool bad = false;
    au_status st = AU_OK;
    AU_FAIL_IF(!name_is(p, type_len, "form-data"), AU_CORRUPT,
               "Content-Disposition of a part is not form-data");
    p += type_len;
    while (next_param(&p, &name, &name_len, &bad)) {
        bool is_name = name_is(name, name_len, "name");
        bool is_file = name_is(name, name_len, "filename");
        AU_FAIL_IF(name_is(name, name_len, "filename*"), AU_CORRUPT,
                   "a part has filename*, expected filename (RFC 7578, section 4.2)");
        AU_FAIL_IF((is_name && d->has_name) || (is_file && d->has_file), AU_CORRUPT,
                   "Content-Disposition of a part repeats a parameter");
        char *out = is_name ? d->name : is_file ? d->file_name : other;
        size_t cap = is_name ? sizeof d->name : is_file ? sizeof d->file_name : sizeof other;
        AU_FAIL_IF(!take_value(&p, out, cap), AU_CORRUPT,
                   "Content-Disposition of a part has a parameter that is not valid or too long");
        d->has_name |= is_name;
        d->has_file |= is_file;
    }
    AU_FAIL_IF(bad, AU_CORRUPT, "Content-Disposition of a part is not valid");
    AU_FAIL_IF(!d->has_name, AU_CORRUPT, "a part has no name");
    AU_TRY(check_text(d->name, "the name", err));
    AU_TRY(check_text(d->file_name, "the file name", err));
done:
    return st;
}

static bool is_plain_coding(const char *coding)
{
    return strcasecmp(coding, "binary") == 0 || strcasecmp(coding, "8bit") == 0 ||
           strcasecmp(coding, "7bit") == 0;
}

/* One header line without its CR LF, NUL-terminated. */
static au_status header_line(disposition *d, char *line, bool *seen, au_err *err)
{
    au_status st = AU_OK;
    char *colon = strchr(line, ':');
    AU_FAIL_IF(!colon || colon == line, AU_CORRUPT, "a part has a header line without a name");
    for (const char *p = line; p < colon; p++)
        AU_FAIL_IF(!is_token_char(*p), AU_CORRUPT, "a part has a header with a name that is wrong");
    *colon = '\0';
    const char *value = skip_blanks(colon + 1);
    if (strcasecmp(line, "content-disposition") == 0) {
        AU_FAIL_IF(*seen, AU_CORRUPT, "a part has two Content-Disposition lines");
        *seen = true;
        AU_TRY(parse_disposition(d, value, err));
    } else if (strcasecmp(line, "content-transfer-encoding") == 0) {
        AU_FAIL_IF(!is_plain_coding(value), AU_CORRUPT,
                   "a part has a transfer coding other than binary");
    }
done:
    return st;
}

/* All header lines of a part are there, each with its CR LF, without the empty one. */
static au_status begin_part(au_multipart *m, au_err *err)
{
    disposition d = {.has_name = false};
    bool seen = false;
    au_status st = AU_OK;
    char *line = m->header, *end = m->header + m->header_len;
    AU_FAIL_IF(++m->n_parts > AU_MULTIPART_PARTS_MAX, AU_CORRUPT, "the body has more than %d parts",
               (int)AU_MULTIPART_PARTS_MAX);
    while (line < end) {
        char *next = memchr(line, '\n', (size_t)(end - line));
        AU_ASSERT(next && next > line && next[-1] == '\r');
        next[-1] = '\0';
        AU_FAIL_IF(strlen(line) != (size_t)(next - 1 - line), AU_INVALID,
                   "a part's header holds a NUL");
        AU_TRY(header_line(&d, line, &seen, err));
        line = next + 1;
    }
    AU_FAIL_IF(!seen, AU_CORRUPT, "a part has no Content-Disposition");
    AU_TRY(m->events->begin(m->user, d.name, d.has_file ? d.file_name : NULL, err));
done:
    return st;
}

/* ---- The states ---- */

static au_status header_byte(au_multipart *m, char c, au_err *err)
{
    au_status st = AU_OK;
    bool lf = c == '\n', after_cr = m->header_len > 0 && m->header[m->header_len - 1] == '\r';
    AU_FAIL_IF(lf != after_cr, AU_CORRUPT, "a part has a header line that does not end with CR LF");
    AU_FAIL_IF(m->header_len == AU_MULTIPART_HEADER_MAX, AU_CORRUPT,
               "a part has more than %d bytes of header lines", (int)AU_MULTIPART_HEADER_MAX);
    m->header[m->header_len++] = c;
    bool empty_line =
        lf && (m->header_len == 2 || (m->header_len > 3 && m->header[m->header_len - 3] == '\n'));
    if (!empty_line)
        goto done;
    m->header_len -= 2;
    AU_TRY(begin_part(m, err));
    m->header_len = 0;
    m->state = DATA;
done:
    return st;
}

/* Behind a delimiter: what kind it was. */
static au_status behind_byte(au_multipart *m, char c, au_err *err)
{
    au_status st = AU_OK;
    if (m->state == BEHIND_DASH) {
        AU_FAIL_IF(c != '-', AU_CORRUPT, "a boundary is followed by something else than a line");
        m->state = EPILOGUE;
    } else if (m->state == BEHIND_CR) {
        AU_FAIL_IF(c != '\n', AU_CORRUPT, "a boundary's line does not end with CR LF");
        m->state = HEADER;
    } else if (c == '-') {
        m->state = BEHIND_DASH;
    } else if (c == '\r') {
        m->state = BEHIND_CR;
    } else {
        AU_FAIL_IF(c != ' ' && c != '\t', AU_CORRUPT,
                   "a boundary is followed by something else than a line");
    }
done:
    return st;
}

static au_status give(au_multipart *m, const char *data, size_t len, au_err *err)
{
    if (len == 0)
        return AU_OK;
    if (m->state == DATA)
        return m->events->data(m->user, data, len, err);
    m->preamble += len;
    if (m->preamble > PREAMBLE_MAX)
        return au_fail(err, AU_CORRUPT, "the body does not begin with its boundary");
    return AU_OK;
}

/* Data (or the preamble) up to a delimiter or the end of what there is. *used: bytes consumed. */
static au_status take_data(au_multipart *m, const char *data, size_t len, size_t *used, au_err *err)
{
    au_status st = AU_OK;
    size_t i = 0, begin = 0;
    while (i < len && m->matched < m->delimiter_len) {
        if (data[i] == m->delimiter[m->matched]) {
            if (m->matched == 0)
                AU_TRY(give(m, data + begin, i - begin, err));
            m->matched++;
            begin = ++i;
        } else if (m->matched > 0) {
            /* Held back for nothing. The CR LF before the body was never there to be given. */
            size_t held = m->matched, skip = m->begun ? 0 : 2;
            m->matched = 0;
            m->begun = true;
            AU_TRY(give(m, m->delimiter + skip, held - skip, err));
            begin = i;
        } else {
            const char *cr = memchr(data + i, '\r', len - i);
            i = cr ? (size_t)(cr - data) : len;
        }
    }
    if (m->matched == 0)
        AU_TRY(give(m, data + begin, i - begin, err));
    if (m->matched == m->delimiter_len) {
        if (m->state == DATA)
            AU_TRY(m->events->end(m->user, err));
        m->matched = 0;
        m->begun = true;
        m->state = BEHIND;
    }
    *used = i;
done:
    return st;
}

au_status au_multipart_feed(au_multipart *m, const char *data, size_t len, au_err *err)
{
    au_status st = AU_OK;
    for (size_t i = 0, used; i < len; i += used) {
        used = 1;
        if (m->state == EPILOGUE)
            break;
        if (m->state == PREAMBLE || m->state == DATA)
            AU_TRY(take_data(m, data + i, len - i, &used, err));
        else if (m->state == HEADER)
            AU_TRY(header_byte(m, data[i], err));
        else
            AU_TRY(behind_byte(m, data[i], err));
    }
done:
    return st;
}

au_status au_multipart_finish(const au_multipart *m, au_err *err)
{
    if (m->state == EPILOGUE)
        return AU_OK;
    return au_fail(err, AU_CORRUPT, "the body ends before its last boundary");
}
