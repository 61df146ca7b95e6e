/* SPDX-License-Identifier: MIT */
/* What keeps a page up to date: a stream of events (text/event-stream), one a second, for as long as
 * the peer wants it.
 *
 *     event: page       <main> of the page anew, when more than figures has changed
 *     (message)         the figures, as ?format=json has them
 *
 * Between two events nobody waits: a timer calls the step entry. A peer that takes no more gets no
 * newer event before it has taken the last one, so what is kept for it is bounded. When the
 * connection is to go (EXCHANGE_LEAVING) the stream ends, and the page asks for another one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "handlers/handler.h"
#include "handlers/status_priv.h"

enum { EVERY_MS = 1000 };

struct stream {
    struct page events; /* not yet taken */
    size_t taken;
    uint64_t shape; /* of the page at the other end */
};

static void release(void *arg)
{
    struct stream *s = arg;
    page_fini(&s->events);
}

/* Each line of an event's data is a field of its own. */
static void put_event(struct page *to, const char *name, const struct page *data)
{
    const char *at = data->bytes, *end = data->bytes + data->len;
    if (name)
        page_format(to, "event: %s\n", name);
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        line_end = line_end ? line_end : end;
        page_puts(to, "data: ");
        page_put(to, (struct str){at, (size_t)(line_end - at)});
        page_puts(to, "\n");
        at = line_end + 1;
    }
    page_puts(to, "\n");
    to->failed |= data->failed;
}

static void put_events(struct stream *s, const struct status_snapshot *snapshot,
                       const struct status_control *control)
{
    struct page figures = {0}, body = {0};
    uint64_t shape = status_page_shape(snapshot, control);
    if (shape != s->shape) {
        status_page_main(&body, snapshot, control);
        put_event(&s->events, "page", &body);
        page_fini(&body);
    }
    status_json(&figures, snapshot);
    put_event(&s->events, NULL, &figures);
    page_fini(&figures);
    if (!s->events.failed)
        s->shape = shape;
}

/* Give the peer what it takes of the events. */
static int push(struct exchange *x, struct stream *s)
{
    ssize_t n = exchange_try_write(x, s->events.bytes + s->taken, s->events.len - s->taken);
    if (n < 0)
        return (int)n;
    s->taken += (size_t)n;
    if (s->taken == s->events.len) {
        page_fini(&s->events);
        s->taken = 0;
    }
    return 0;
}

/* What cannot be shown now may be in a second. */
static int tick(struct exchange *x, struct stream *s)
{
    const struct status_conf *conf = exchange_conf(x);
    struct status_snapshot snapshot = {0};
    exchange_timer(x, EVERY_MS);
    if (s->events.len || conf->source->snapshot(conf->source->arg, &snapshot) < 0)
        return 0;
    put_events(s, &snapshot, conf->control ? &conf->source->control : NULL);
    conf->source->release(&snapshot);
    if (!s->events.failed)
        return push(x, s);
    page_fini(&s->events);
    return 0;
}

static int begin(struct exchange *x, struct stream *s)
{
    const struct status_conf *conf = exchange_conf(x);
    struct str shape = exchange_query_value(x, "shape");
    char text[17] = "";
    if (!conf->source)
        return exchange_reply_error(x, 503);
    if (shape.at && shape.len < sizeof text) {
        memcpy(text, shape.at, shape.len);
        s->shape = strtoull(text, NULL, 16);
    }
    int rc = exchange_defer(x, release, s);
    if (rc == 0)
        rc = exchange_begin(x, 200, "text/event-stream", -1);
    if (rc < 0)
        return rc;
    if (exchange_method(x) == EXCHANGE_HEAD)
        return exchange_end(x);
    exchange_endless(x);
    page_puts(&s->events, "retry: 1000\n\n");
    rc = push(x, s);
    return rc < 0 ? rc : tick(x, s);
}

int status_stream_step(struct exchange *x, enum exchange_event event)
{
    struct stream *s = exchange_state(x, sizeof *s);
    if (!s)
        return -ENOMEM;
    switch (event) {
    case EXCHANGE_BEGUN:
        return begin(x, s);
    case EXCHANGE_TIMER:
        return tick(x, s);
    case EXCHANGE_ROOM:
        return s->events.len ? push(x, s) : 0;
    case EXCHANGE_LEAVING:
        return exchange_end(x);
    case EXCHANGE_BYTES:
    case EXCHANGE_CANCELLED:
        break;
    }
    return 0;
}
