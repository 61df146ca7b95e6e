/* SPDX-License-Identifier: MIT */
/* The guard before the parser: it reads a request head, and a chunked body's framing, only to find
 * a reason to reject. It gives no value to anybody, so it can't disagree with llhttp about what a
 * request means; it makes sure that whatever llhttp is linked (8.1 passes obs-fold, two Hosts,
 * doubled spaces, Transfer-Encoding on HTTP/1.0, and in its default build bare CR and wrong chunk
 * ends) only strict requests are answered. RFC 9112, sections 2.2, 3, 5, 6 and 7.
 */
#include "net/http1.h"

#include <string.h>

enum { TOKEN = 1, TARGET = 2, VALUE = 4, HEX = 8, HOST = 16, DIGIT = 32 };

/* What each byte may be part of. */
static unsigned char classes[256];

__attribute__((constructor)) static void fill_classes(void)
{
    static const char token[] = "!#$%&'*+-.^_`|~";
    static const char host[] = "-._~%!$&'()*+,;=";
    for (int c = 0x21; c < 0x7f; c++)
        classes[c] |= TARGET | VALUE;
    classes['#'] &= (unsigned char)~TARGET;
    for (int c = 0x80; c < 0x100; c++)
        classes[c] |= VALUE;
    classes[' '] |= VALUE;
    classes['\t'] |= VALUE;
    for (int c = '0'; c <= '9'; c++)
        classes[c] |= TOKEN | HEX | HOST | DIGIT;
    for (int c = 'a'; c <= 'z'; c++)
        classes[c] |= TOKEN | HOST, classes[c - 32] |= TOKEN | HOST;
    for (int c = 'a'; c <= 'f'; c++)
        classes[c] |= HEX, classes[c - 32] |= HEX;
    for (const char *c = token; *c; c++)
        classes[(unsigned char)*c] |= TOKEN;
    for (const char *c = host; *c; c++)
        classes[(unsigned char)*c] |= HOST;
}

static bool is(char c, int class)
{
    return classes[(unsigned char)c] & class;
}

/* The first byte in [at, end) that is not of the class. */
static const char *skip(const char *at, const char *end, int class)
{
    while (at < end && is(*at, class))
        at++;
    return at;
}

bool http1_is_token(struct str s)
{
    return s.len && skip(s.at, s.at + s.len, TOKEN) == s.at + s.len;
}

bool http1_is_authority(struct str s)
{
    const char *at = s.at, *end = s.at + s.len;
    if (at < end && *at == '[') {
        const char *address = ++at;
        while (at < end && (is(*at, HOST) || *at == ':'))
            at++;
        if (at == address || at == end || *at++ != ']')
            return false;
    } else {
        at = skip(at, end, HOST);
    }
    if (at < end && *at++ != ':')
        return false;
    return skip(at, end, DIGIT) == end;
}

static struct str trim(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    while (end > at && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (struct str){at, (size_t)(end - at)};
}

/* What must be counted over all header lines. */
struct seen {
    int minor;
    int hosts, lengths, encodings, lines;
    int status; /* the mildest refusal that a later line can't undo */
};

/* METHOD SP TARGET SP HTTP/1.x, with single spaces. */
static int guard_request_line(const char *at, const char *end, struct seen *seen)
{
    const char *p = skip(at, end, TOKEN);
    if (p == at || p == end || *p != ' ')
        return 400;
    const char *target = p + 1;
    p = skip(target, end, TARGET);
    if (p == target || p == end || *p != ' ')
        return 400;
    p++;
    if (end - p != 8 || memcmp(p, "HTTP/", 5) != 0 || !is(p[5], DIGIT) || p[6] != '.' ||
        !is(p[7], DIGIT))
        return 400;
    if (p[5] != '1' || (p[7] != '0' && p[7] != '1'))
        return 505;
    seen->minor = p[7] - '0';
    return 0;
}

static int guard_length(struct str value, struct seen *seen)
{
    if (seen->lengths++ || value.len == 0)
        return 400;
    if (skip(value.at, value.at + value.len, DIGIT) != value.at + value.len)
        return 400;
    /* More digits than 10^18 is no body that anyone could send, but it is well-formed. */
    return value.len > 18 ? 413 : 0;
}

/* Only "chunked" is understood. Codings that end in chunked have a known end, so 501 is right for
 * them; without it the message has none. */
static int guard_encoding(struct str value, struct seen *seen)
{
    if (seen->encodings++)
        return 400;
    if (str_is_nocase(value, STR("chunked")))
        return 0;
    if (value.len <= 7 || !str_is_nocase((struct str){value.at + value.len - 7, 7}, STR("chunked")))
        return 400;
    struct str before = trim(value.at, value.at + value.len - 7);
    if (before.len == 0 || before.at[before.len - 1] != ',' ||
        memmem(before.at, before.len, "chunked", 7))
        return 400;
    seen->status = 501;
    return 0;
}

static int guard_field(struct str name, struct str value, struct seen *seen)
{
    if (str_is_nocase(name, STR("host"))) {
        if (seen->hosts++ || !http1_is_authority(value))
            return 400;
    } else if (str_is_nocase(name, STR("content-length"))) {
        return guard_length(value, seen);
    } else if (str_is_nocase(name, STR("transfer-encoding"))) {
        return guard_encoding(value, seen);
    }
    return 0;
}

/* NAME ":" OWS VALUE OWS. A line that begins with a blank is obs-fold, and a blank before the colon
 * is an old way to smuggle: both fail as names. */
static int guard_line(const char *at, const char *end, struct seen *seen)
{
    const char *colon = skip(at, end, TOKEN);
    if (colon == at || colon == end || *colon != ':')
        return 400;
    if (skip(colon + 1, end, VALUE) != end)
        return 400;
    if (++seen->lines > HTTP1_HEADERS_MAX)
        return 431;
    size_t name_len = (size_t)(colon - at);
    if (name_len != 4 && name_len != 14 && name_len != 17)
        return 0;
    return guard_field((struct str){at, name_len}, trim(colon + 1, end), seen);
}

int http1_guard(const char *head, size_t len)
{
    struct seen seen = {0};
    const char *end = head + len;
    const char *lf = memchr(head, '\n', len);
    int status = lf && lf > head ? guard_request_line(head, lf - 1, &seen) : 400;
    for (const char *at = lf + 1; status == 0 && at < end - 2; at = lf + 1) {
        lf = memchr(at, '\n', (size_t)(end - at));
        status = lf && lf > at && lf[-1] == '\r' ? guard_line(at, lf - 1, &seen) : 400;
    }
    if (status)
        return status;
    if (seen.hosts == 0 && seen.minor == 1)
        return 400;
    if (seen.encodings && (seen.lengths || seen.minor == 0))
        return 400;
    return seen.status;
}

long http1_head_end(const char *bytes, size_t len, uint32_t *resume, size_t max)
{
    const char *line = bytes + *resume, *end = bytes + len;
    /* What is no request at all (a TLS hello, say) need not be waited for. */
    if (line == bytes) {
        const char *p = skip(bytes, end, TOKEN);
        if (p != end && (p == bytes || *p != ' '))
            return -400;
    }
    /* In this order, so that the answer does not depend on how much has come. */
    for (;;) {
        const char *lf = memchr(line, '\n', (size_t)(end - line));
        const char *to = lf ? lf + 1 : end;
        if (line == bytes && to - line > HTTP1_LINE_MAX + (lf != NULL))
            return -414;
        if ((size_t)(to - bytes) > max)
            return -431;
        if (!lf)
            break;
        if (lf == line || lf[-1] != '\r')
            return -400;
        if (lf - line == 1)
            return to - bytes;
        line = to;
    }
    *resume = (uint32_t)(line - bytes);
    return 0;
}

/* --- chunked bodies ------------------------------------------------------------------------- */

enum {
    SIZE_FIRST,
    SIZE,
    EXTENSION,
    QUOTED,
    QUOTED_PAIR,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_START,
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
    ENDED,
};
enum { CHUNK_LINE_MAX = 1024, TRAILERS_MAX = 8192 };

static unsigned hex_value(char c)
{
    return is(c, DIGIT) ? (unsigned)(c - '0') : (unsigned)((c | 32) - 'a') + 10;
}

/* The size line: hex digits, extensions, CRLF. Returns the next state, or -1. */
static int size_byte(struct http1_chunks *g, char c)
{
    if (++g->line > CHUNK_LINE_MAX)
        return -1;
    if (g->state == SIZE_FIRST || g->state == SIZE) {
        if (is(c, HEX)) {
            if (++g->digits > 15)
                return -1;
            g->left = g->left * 16 + hex_value(c);
            return SIZE;
        }
        if (g->state == SIZE_FIRST)
            return -1;
        return c == '\r' ? SIZE_LF : c == ';' ? EXTENSION : -1;
    }
    if (g->state == QUOTED_PAIR)
        return is(c, VALUE) ? QUOTED : -1;
    if (g->state == QUOTED)
        return c == '"' ? EXTENSION : c == '\\' ? QUOTED_PAIR : is(c, VALUE) ? QUOTED : -1;
    return c == '\r' ? SIZE_LF : c == '"' ? QUOTED : is(c, VALUE) ? EXTENSION : -1;
}

/* Trailer fields, then the empty line. */
static int trailer_byte(struct http1_chunks *g, char c)
{
    if (++g->line > TRAILERS_MAX)
        return -1;
    switch (g->state) {
    case TRAILER_START:
        return c == '\r' ? LAST_LF : is(c, TOKEN) ? TRAILER_NAME : -1;
    case TRAILER_NAME:
        return c == ':' ? TRAILER_VALUE : is(c, TOKEN) ? TRAILER_NAME : -1;
    case TRAILER_VALUE:
        return c == '\r' ? TRAILER_LF : is(c, VALUE) ? TRAILER_VALUE : -1;
    case TRAILER_LF:
        return c == '\n' ? TRAILER_START : -1;
    default:
        return c == '\n' ? ENDED : -1;
    }
}

static int framing_byte(struct http1_chunks *g, char c)
{
    switch (g->state) {
    case SIZE_LF:
        if (c != '\n')
            return -1;
        g->line = 0;
        return g->left ? DATA : TRAILER_START;
    case DATA_CR:
        return c == '\r' ? DATA_LF : -1;
    case DATA_LF:
        g->line = 0;
        g->digits = 0;
        return c == '\n' ? SIZE_FIRST : -1;
    default:
        return g->state < SIZE_LF ? size_byte(g, c) : trailer_byte(g, c);
    }
}

static bool is_extension(const struct http1_chunks *g, char c)
{
    return g->state == SIZE ? c == ';'
                            : g->state >= EXTENSION && g->state <= QUOTED_PAIR && c != '\r';
}

long http1_chunks_take(struct http1_chunks *g, const char *bytes, size_t len, size_t *skip,
                       bool *ended)
{
    size_t i = 0;
    *skip = 0;
    while (i < len && g->state != ENDED) {
        if (g->state == DATA) {
            size_t n = len - i < g->left ? len - i : (size_t)g->left;
            i += n;
            g->left -= n;
            if (g->left == 0)
                g->state = DATA_CR;
            continue;
        }
        bool extension = is_extension(g, bytes[i]);
        if (*skip && !extension)
            break;
        int next = framing_byte(g, bytes[i++]);
        if (next < 0)
            return -1;
        g->state = (uint8_t)next;
        *skip += extension;
    }
    *ended = g->state == ENDED;
    return (long)(i - *skip);
}
