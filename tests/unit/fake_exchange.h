/* SPDX-License-Identifier: MIT */
/* An exchange without a connection, for tests of handlers: a request made by hand, and the answer
 * kept whole.
 *
 *     struct exchange *x = fake_new(&handler_text.entry, &conf, EXCHANGE_GET, "/a?b=c", "/");
 *     fake_header(x, "Range", "bytes=0-9");
 *     assert_int_equal(fake_serve(x), 0);
 *     assert_int_equal(x->status, 206);
 *     fake_free(x);
 *
 * It holds the bodies of the exchange_ functions too, so it is included by exactly one file of a
 * program, which must not link net/exchange.c.
 */
#ifndef TESTS_FAKE_EXCHANGE_H
#define TESTS_FAKE_EXCHANGE_H

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concurrency/result.h"
#include "net/exchange.h"

enum { FAKE_HEADERS = 64, FAKE_BLOCKS = 256 };

struct fake_field {
    char *name, *value;
};

struct fake_deferred {
    void (*release)(void *arg);
    void *arg;
};

struct exchange {
    const struct exchange_entry *entry;
    const void *conf;
    enum exchange_method method;
    char *target, *path;
    struct str query;
    size_t prefix_len;
    struct fake_field request[FAKE_HEADERS];
    size_t request_count;

    const char *body; /* of the request; arrived of body_len bytes can be peeked at */
    size_t body_len, arrived, consumed;

    int status; /* of the answer; 0: none yet */
    char *type;
    struct fake_field fields[FAKE_HEADERS];
    size_t field_count;
    int64_t length; /* as announced, -1 unknown */
    char *out;
    size_t out_len;
    bool begun, ended;
    bool cut; /* a file was shorter than promised */

    size_t room;      /* what try_write takes in all until the next ROOM; SIZE_MAX: no limit */
    size_t room_step; /* room given at each ROOM */
    bool wants_room;
    bool endless;
    int64_t timer_ms;    /* as last set; 0: it was not */
    char complaint[200]; /* the last one */
    size_t events;       /* calls of step */
    int64_t slept_ms;
    int cancel_after;    /* calls of exchange_cancelled until it says yes; -1: never */
    size_t add_failures; /* exchange_add calls that were refused */

    void *state;
    size_t state_size;
    void *blocks[FAKE_BLOCKS];
    size_t block_count;
    struct fake_deferred deferred[FAKE_HEADERS];
    size_t deferred_count;
};

/* --- for tests -------------------------------------------------------------------------------- */

/* target is "/path?query", the path as if decoded already; route is the prefix that matched. */
static inline struct exchange *fake_new(const struct exchange_entry *entry, const void *conf,
                                        enum exchange_method method, const char *target,
                                        const char *route)
{
    struct exchange *x = calloc(1, sizeof *x);
    const char *mark = strchr(target, '?');
    x->entry = entry;
    x->conf = conf;
    x->method = method;
    x->target = strdup(target);
    x->path = strndup(target, mark ? (size_t)(mark - target) : strlen(target));
    x->query = mark ? str_of(strchr(x->target, '?') + 1) : STR("");
    x->prefix_len = strcmp(route, "/") == 0 ? 0 : strlen(route);
    x->length = -1;
    x->room = x->room_step = SIZE_MAX;
    x->cancel_after = -1;
    return x;
}

static inline void fake_header(struct exchange *x, const char *name, const char *value)
{
    x->request[x->request_count++] = (struct fake_field){strdup(name), strdup(value)};
}

/* Serve until the handler has nothing left to wait for. Returns its last code. */
static inline int fake_serve(struct exchange *x)
{
    if (x->entry->run)
        return x->entry->run(x);
    x->arrived = x->body_len;
    x->events = 1;
    int rc = x->entry->step(x, EXCHANGE_BEGUN);
    while (rc == 0 && x->wants_room && x->events < 100000) {
        x->wants_room = false;
        x->room = x->room_step;
        x->events++;
        rc = x->entry->step(x, EXCHANGE_ROOM);
    }
    return rc;
}

/* The answer's header of that name, or NULL. */
static inline const char *fake_answer(const struct exchange *x, const char *name)
{
    for (size_t i = 0; i < x->field_count; i++)
        if (strcasecmp(x->fields[i].name, name) == 0)
            return x->fields[i].value;
    return NULL;
}

static inline void fake_free(struct exchange *x)
{
    while (x->deferred_count) {
        struct fake_deferred *d = &x->deferred[--x->deferred_count];
        d->release(d->arg);
    }
    for (size_t i = 0; i < x->request_count; i++) {
        free(x->request[i].name);
        free(x->request[i].value);
    }
    for (size_t i = 0; i < x->field_count; i++) {
        free(x->fields[i].name);
        free(x->fields[i].value);
    }
    for (size_t i = 0; i < x->block_count; i++)
        free(x->blocks[i]);
    free(x->target);
    free(x->path);
    free(x->type);
    free(x->out);
    free(x);
}

/* --- the request ------------------------------------------------------------------------------ */

enum exchange_method exchange_method(const struct exchange *x)
{
    return x->method;
}

struct str exchange_path(const struct exchange *x)
{
    return str_of(x->path);
}

struct str exchange_rest(const struct exchange *x)
{
    return str_of(x->path + x->prefix_len);
}

struct str exchange_query(const struct exchange *x)
{
    return x->query;
}

struct str exchange_target(const struct exchange *x)
{
    return str_of(x->target);
}

struct str exchange_query_value(const struct exchange *x, const char *name)
{
    const char *at = x->query.at, *end = at + x->query.len;
    size_t len = strlen(name);
    while (at < end) {
        const char *stop = memchr(at, '&', (size_t)(end - at));
        stop = stop ? stop : end;
        if ((size_t)(stop - at) > len && at[len] == '=' && memcmp(at, name, len) == 0)
            return (struct str){at + len + 1, (size_t)(stop - at) - len - 1};
        at = stop + 1;
    }
    return (struct str){0};
}

bool exchange_header_at(const struct exchange *x, size_t index, struct str *name, struct str *value)
{
    if (index >= x->request_count)
        return false;
    *name = str_of(x->request[index].name);
    *value = str_of(x->request[index].value);
    return true;
}

struct str exchange_header(const struct exchange *x, const char *name)
{
    for (size_t i = 0; i < x->request_count; i++)
        if (strcasecmp(x->request[i].name, name) == 0)
            return str_of(x->request[i].value);
    return (struct str){0};
}

struct str exchange_body(const struct exchange *x)
{
    return (struct str){x->body, x->body_len};
}

struct str exchange_peer(const struct exchange *x)
{
    (void)x;
    return STR("127.0.0.1");
}

const void *exchange_conf(const struct exchange *x)
{
    return x->conf;
}

void *exchange_alloc(struct exchange *x, size_t size)
{
    assert(x->block_count < FAKE_BLOCKS);
    return x->blocks[x->block_count++] = malloc(size ? size : 1);
}

void *exchange_state(struct exchange *x, size_t size)
{
    if (!x->state) {
        x->state = memset(exchange_alloc(x, size), 0, size);
        x->state_size = size;
    }
    assert(x->state_size == size);
    return x->state;
}

int exchange_defer(struct exchange *x, void (*release)(void *arg), void *arg)
{
    assert(x->deferred_count < FAKE_HEADERS);
    x->deferred[x->deferred_count++] = (struct fake_deferred){release, arg};
    return 0;
}

bool exchange_cancelled(struct exchange *x)
{
    return x->cancel_after >= 0 && x->cancel_after-- == 0;
}

/* --- the answer ------------------------------------------------------------------------------- */

static inline bool fake_is_value(struct str value)
{
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.at[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

int exchange_add(struct exchange *x, const char *name, struct str value)
{
    if (x->begun || !fake_is_value(value)) {
        x->add_failures++;
        return x->begun ? -EALREADY : -EINVAL;
    }
    assert(x->field_count < FAKE_HEADERS);
    x->fields[x->field_count++] =
        (struct fake_field){strdup(name), strndup(value.at ? value.at : "", value.len)};
    return 0;
}

int exchange_headers_add(struct exchange_headers *h, const char *name, struct str value)
{
    if (!fake_is_value(value))
        return -EINVAL;
    int len = snprintf(h->text + h->len, sizeof h->text - h->len, "%s: %.*s\r\n", name,
                       (int)value.len, value.at);
    assert(len > 0 && (size_t)len < sizeof h->text - h->len);
    h->len += (size_t)len;
    return 0;
}

int exchange_add_headers(struct exchange *x, const struct exchange_headers *h)
{
    char text[sizeof h->text + 1], *at = text, *name;
    int rc = 0;
    memcpy(text, h->text, h->len);
    text[h->len] = '\0';
    while (rc == 0 && (name = strsep(&at, "\r")) != NULL && *name) {
        char *value = strchr(name, ':');
        *value = '\0';
        rc = exchange_add(x, name, str_of(value + 2));
        at++; /* the newline */
    }
    return rc;
}

static inline void fake_put(struct exchange *x, const char *bytes, size_t len)
{
    x->out = realloc(x->out, x->out_len + len + 1);
    if (len)
        memcpy(x->out + x->out_len, bytes, len);
    x->out_len += len;
    x->out[x->out_len] = '\0';
}

int exchange_begin(struct exchange *x, int status, const char *type, int64_t length)
{
    if (x->begun)
        return -EALREADY;
    x->begun = true;
    x->status = status;
    x->type = type ? strdup(type) : NULL;
    x->length = length;
    fake_put(x, "", 0);
    return 0;
}

int exchange_reply_static(struct exchange *x, int status, const char *type, struct str body)
{
    int rc = exchange_begin(x, status, type, (int64_t)body.len);
    if (rc < 0)
        return rc;
    fake_put(x, body.at, body.len);
    return exchange_end(x);
}

int exchange_reply(struct exchange *x, int status, const char *type, struct str body)
{
    return exchange_reply_static(x, status, type, body);
}

int exchange_reply_error(struct exchange *x, int status)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%d\n", status);
    return exchange_reply(x, status, "text/plain", (struct str){text, (size_t)len});
}

int exchange_send_file(struct exchange *x, int fd, int64_t offset, int64_t length)
{
    assert(x->begun && !x->ended);
    while (length > 0) {
        char bytes[4096];
        size_t want = length < (int64_t)sizeof bytes ? (size_t)length : sizeof bytes;
        ssize_t n = pread(fd, bytes, want, offset);
        if (n <= 0) {
            x->cut = true;
            return 0;
        }
        fake_put(x, bytes, (size_t)n);
        offset += n;
        length -= n;
    }
    return 0;
}

int exchange_end(struct exchange *x)
{
    assert(x->begun && !x->ended);
    x->ended = true;
    return 0;
}

bool exchange_begun(const struct exchange *x)
{
    return x->begun;
}

ssize_t exchange_try_write(struct exchange *x, const void *bytes, size_t len)
{
    assert(x->begun && !x->ended);
    size_t taken = len < x->room ? len : x->room;
    fake_put(x, bytes, taken);
    if (x->room != SIZE_MAX)
        x->room -= taken;
    x->wants_room = taken < len;
    return (ssize_t)taken;
}

size_t exchange_peek(struct exchange *x, const char **bytes)
{
    *bytes = x->body ? x->body + x->consumed : "";
    return x->arrived - x->consumed;
}

void exchange_consume(struct exchange *x, size_t n)
{
    assert(n <= x->arrived - x->consumed);
    x->consumed += n;
}

bool exchange_body_ended(const struct exchange *x)
{
    return x->consumed == x->body_len;
}

void exchange_timer(struct exchange *x, int64_t ms)
{
    x->timer_ms = ms;
}

void exchange_endless(struct exchange *x)
{
    x->endless = true;
}

void exchange_complain(const struct exchange *x, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf((char *)(uintptr_t)x->complaint, sizeof x->complaint, format, args);
    va_end(args);
}

/* --- run only --------------------------------------------------------------------------------- */

int exchange_sleep(struct exchange *x, int64_t ms)
{
    x->slept_ms += ms;
    return exchange_cancelled(x) ? MODUS_CANCELED : 0;
}

ssize_t exchange_read(struct exchange *x, void *bytes, size_t len)
{
    size_t left = x->body_len - x->consumed, n = left < len ? left : len;
    if (n)
        memcpy(bytes, x->body + x->consumed, n);
    x->consumed += n;
    return (ssize_t)n;
}

int exchange_write(struct exchange *x, const void *bytes, size_t len)
{
    fake_put(x, bytes, len);
    return 0;
}

int exchange_flush(struct exchange *x)
{
    (void)x;
    return 0;
}

#endif
