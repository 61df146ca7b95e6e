/* SPDX-License-Identifier: MIT */
/* What the connections of one listener need to know: limits, routes, certificates, where answers
 * are noted. Plain data, made by the server from the configuration before connections begin and not
 * changed while one lives. */
#ifndef NET_SERVICE_H
#define NET_SERVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "net/exchange.h"

struct net_gil;
struct tls_context;

/* A path prefix on whole segments, and what serves below it. */
struct route {
    struct str prefix; /* "/", or "/a" without a '/' at its end */
    const struct exchange_entry *entry;
    const void *conf; /* what exchange_conf() returns */
};

/* One answer, as an access log wants it. Strings are borrowed for the call and are raw: whoever
 * writes them escapes them. */
struct exchange_record {
    struct str peer, method, target, referer, user_agent;
    int minor;          /* HTTP/1.minor; -1: TCP, whose status is 200 */
    int status;         /* 0: cut before an answer */
    int64_t body_bytes; /* of the answer, as sent */
    int64_t duration_us;
};

/* How long a connection may stay. */
enum service_phase {
    SERVICE_OPEN,
    SERVICE_MOVING,   /* who is between two requests goes on elsewhere */
    SERVICE_LEAVING,  /* answers say "Connection: close"; who is idle may ask once more */
    SERVICE_DRAINING, /* idle connections end, too */
};

struct service {
    bool duplex;             /* a TCP listener: routes[0] serves the whole connection */
    struct tls_context *tls; /* NULL: plain */

    const struct route *routes; /* longest prefix first */
    size_t route_count;

    struct net_gil *gil; /* handlers run under it; NULL: they run as they come */

    int64_t header_timeout_ms, body_timeout_ms, handler_timeout_ms, send_timeout_ms;
    int64_t keepalive_timeout_ms;
    unsigned keepalive_requests; /* 0: no limit */
    size_t max_header_size, max_body_size;

    /* enum service_phase; may be set from any thread or process at any time, only to go on. */
    const atomic_int *phase;

    /* Called once an answer is complete; NULL: nobody wants to know. Must not wait for long. */
    void (*note)(void *arg, const struct exchange_record *record);
    void *note_arg;

    /* Called when a handler did what it must not: it failed, took longer than handler_timeout_ms,
     * gave no answer, or another number of bytes than it promised. why is a sentence, borrowed for
     * the call; NULL: nobody wants to know. Must not wait. Called from any thread that serves. */
    void (*complain)(void *arg, const struct route *route, const char *why);
    void *complain_arg;
};

#endif
