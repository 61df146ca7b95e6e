/* SPDX-License-Identifier: MIT */
/* What a handler sees: one request, its answer, a bounded pipe of bytes each way, a cancel flag.
 *
 * A connection hands out exchanges; a handler serves one and knows nothing of sockets, TLS, threads
 * or models. It has one of two entries (struct exchange_entry below):
 *
 *   step  is called on events and never waits. It runs where the connection is. Return 0, or a
 *         negative code to give up: an answer not yet begun becomes a 500, a begun one is cut. Once
 *         it has given up or ended its answer, it is not called again.
 *   run   is one call from request to answer, in blocking style. It waits only through the calls
 *         marked "run only" below and through concurrency/; whoever runs it (a process, a thread, a
 *         helper of a loop) lends it a place to wait. When it returns, the exchange is over.
 *
 * A complete handler body:
 *
 *     static int hello_run(struct exchange *x)
 *     {
 *         exchange_sleep(x, 50);
 *         return exchange_reply(x, 200, "text/plain", STR("hello\n"));
 *     }
 *
 * Requests arrive checked: the path is decoded, normalised and begins with '/', lengths are sane,
 * HEAD needs no care (the body is dropped on its way out, its length is kept), and methods that the
 * entry does not list were answered 405. On a TCP listener there is no request line: method is
 * EXCHANGE_DUPLEX, the body pipes are the two directions of the connection.
 *
 * Answers: either one exchange_reply(), or exchange_begin() with exchange_write()s, or
 * exchange_send_file(). A length that is not known (-1) is sent chunked, to HTTP/1.0 clients until
 * close. Date, Server, Connection, Content-Length and Transfer-Encoding are the connection's.
 *
 * Errors are negative codes of concurrency/result.h. Strings are borrowed and live until the
 * exchange ends. Safe from: the handler's own thread while its entry runs, unless a call says more.
 */
#ifndef NET_EXCHANGE_H
#define NET_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/str.h"

struct exchange;

/* Methods as bits, so that an entry can list what it serves. */
enum exchange_method {
    EXCHANGE_GET = 1 << 0,
    EXCHANGE_HEAD = 1 << 1,
    EXCHANGE_POST = 1 << 2,
    EXCHANGE_PUT = 1 << 3,
    EXCHANGE_DELETE = 1 << 4,
    EXCHANGE_PATCH = 1 << 5,
    EXCHANGE_OPTIONS = 1 << 6, /* answered for you, unless listed */
    EXCHANGE_DUPLEX = 1 << 7,  /* a TCP listener: bytes both ways, no request line */
};

/* Why a step entry is called. */
enum exchange_event {
    EXCHANGE_BEGUN,     /* first, once: the request head is there (and the body, if COLLECT) */
    EXCHANGE_BYTES,     /* more of the body can be peeked at, or it has ended */
    EXCHANGE_ROOM,      /* an exchange_try_write() that took less than it was given may go on */
    EXCHANGE_TIMER,     /* the time set with exchange_timer() has come */
    EXCHANGE_LEAVING,   /* once, after exchange_endless(): the connection is to go, so end now */
    EXCHANGE_CANCELLED, /* last: peer gone, time up or server stopping; nothing can be sent */
};

/* What happens to a request's body. */
enum exchange_body {
    EXCHANGE_BODY_NONE,    /* read and dropped by the connection */
    EXCHANGE_BODY_COLLECT, /* whole in memory before the handler begins: exchange_body() */
    EXCHANGE_BODY_STREAM,  /* as it comes: exchange_peek() in step, exchange_read() in run */
};

/* One of step and run is set. */
struct exchange_entry {
    int (*step)(struct exchange *x, enum exchange_event event);
    int (*run)(struct exchange *x);
    unsigned methods; /* bits of enum exchange_method; 0 means GET | HEAD */
    enum exchange_body body;
    bool blocking; /* run may hold its thread for long: it computes, or waits outside the library */
};

/* --- the request ---------------------------------------------------------------------------- */

enum exchange_method exchange_method(const struct exchange *x);
/* Decoded and normalised ("/a/../b%20c" is "/b c"), always begins with '/'. Never holds NUL. */
struct str exchange_path(const struct exchange *x);
/* The part of the path below the route's prefix: for route "/files", "/files/a/b" gives "/a/b", and
 * "/files" gives "". */
struct str exchange_rest(const struct exchange *x);
/* What stands after '?', raw; empty if there is none. */
struct str exchange_query(const struct exchange *x);
/* The request target as it was sent. */
struct str exchange_target(const struct exchange *x);
/* The query's value for name ("n" in "?a=1&n=5" gives "5"), raw. at is NULL if it is not there. */
struct str exchange_query_value(const struct exchange *x, const char *name);
/* The first header of that name (case is ignored), without blanks around it; at is NULL if none. */
struct str exchange_header(const struct exchange *x, const char *name);
/* The index-th header in order of arrival. Returns false past the last. */
bool exchange_header_at(const struct exchange *x, size_t index, struct str *name,
                        struct str *value);
/* The collected body (EXCHANGE_BODY_COLLECT); empty otherwise. */
struct str exchange_body(const struct exchange *x);
/* The peer's address as text, "127.0.0.1" or "unix:". */
struct str exchange_peer(const struct exchange *x);
/* The options of the route: the struct that the handler's option table describes. */
const void *exchange_conf(const struct exchange *x);
/* Memory of this exchange for the handler's own state: zeroed at the first call, the same block at
 * each later one. NULL when memory is out. size must not change between calls. */
void *exchange_state(struct exchange *x, size_t size);
/* Memory that lives until the exchange ends, not zeroed; NULL when memory is out. */
void *exchange_alloc(struct exchange *x, size_t size);
/* Call release(arg) when the exchange ends, in reverse order of the calls. Returns 0 or -ENOMEM. */
int exchange_defer(struct exchange *x, void (*release)(void *arg), void *arg);
/* Peer gone, time up, or the server stops at once. A peer that closed looks like one that has said
 * all it had to say and waits for the answer, until something is sent to it or it resets: so where
 * a handler may wait for long, set handler_timeout. A run handler that computes asks this now and
 * then and returns early. Cheap. Safe from: any thread while the exchange lives. */
bool exchange_cancelled(struct exchange *x);
/* Say something of this request to who runs the server, unless it was cancelled: a line in the error
 * log, of which there are not more a second than somebody can read. Nothing that the peer has sent
 * belongs into it. */
__attribute__((format(printf, 2, 3))) void exchange_complain(const struct exchange *x,
                                                             const char *format, ...);

/* --- the answer ----------------------------------------------------------------------------- */

/* Add a header to the answer, before it begins; both are copied. Returns 0, -EINVAL when the name
 * or value holds what a header can't or the name is one of the connection's (see above), -EALREADY
 * when the answer has begun, -ENOMEM. */
int exchange_add(struct exchange *x, const char *name, struct str value);
/* Headers that many answers have alike, such as those of a cached file: checked and written once.
 * Zeroed memory holds none. Returns as exchange_add; -ENOBUFS when there is no room left. */
struct exchange_headers {
    size_t len;
    char text[200];
};
int exchange_headers_add(struct exchange_headers *h, const char *name, struct str value);
/* Add them all; they are copied. Returns 0, -EALREADY or -ENOMEM. */
int exchange_add_headers(struct exchange *x, const struct exchange_headers *h);
/* The whole answer. type may be NULL (no Content-Type). body is copied. Returns 0 or a code. */
int exchange_reply(struct exchange *x, int status, const char *type, struct str body);
/* The same, but body is borrowed and must stay as it is until the exchange ends (a configured
 * text, a cached file held by exchange_defer). */
int exchange_reply_static(struct exchange *x, int status, const char *type, struct str body);
/* A small standard body for that status ("404 Not Found\n"). */
int exchange_reply_error(struct exchange *x, int status);
/* Begin an answer of length bytes, or of a length not known yet (-1). Returns 0 or a code. */
int exchange_begin(struct exchange *x, int status, const char *type, int64_t length);
/* Send length bytes of fd from offset as the next part of the body; begin must have been called.
 * fd is borrowed until the exchange ends (see exchange_defer). Never waits: the connection sends it
 * after what was written before, and writes after it follow it. Returns 0 or a code. */
int exchange_send_file(struct exchange *x, int fd, int64_t offset, int64_t length);
/* The answer is complete (after begin; a run handler's return 0 does it too). */
int exchange_end(struct exchange *x);
/* Has the answer begun (so that a failure can only cut it)? */
bool exchange_begun(const struct exchange *x);

/* --- step only: never wait ------------------------------------------------------------------- */

/* Take up to len bytes of the answer's body now. Returns how many were taken (0: no room; ROOM
 * follows), or a negative code. */
ssize_t exchange_try_write(struct exchange *x, const void *bytes, size_t len);
/* Look at the body bytes that have arrived. Returns their count and sets *bytes; 0 when there are
 * none now (BYTES follows) or at the end: ask exchange_body_ended(). */
size_t exchange_peek(struct exchange *x, const char **bytes);
/* Drop n of the bytes that peek showed; makes room for more to come. */
void exchange_consume(struct exchange *x, size_t n);
/* True once the whole body has come and was consumed. */
bool exchange_body_ended(const struct exchange *x);
/* Ask for EXCHANGE_TIMER in ms milliseconds; replaces an earlier one. Coarse: up to 100 ms late. */
void exchange_timer(struct exchange *x, int64_t ms);
/* This answer has no end of its own, such as a stream of events: it is not counted as in progress,
 * nor its time as latency, handler_timeout does not end it, and EXCHANGE_LEAVING comes when the server
 * wants the connection to go (another generation serves, or the server stops). The handler then ends
 * its answer, and the connection closes behind it. Call it when the answer begins. */
void exchange_endless(struct exchange *x);

/* --- run only: may wait (in a step entry: -EINVAL) ------------------------------------------- */

/* Wait ms milliseconds. Returns 0, or MODUS_CANCELED as soon as the exchange is cancelled. */
int exchange_sleep(struct exchange *x, int64_t ms);
/* Read up to len body bytes, waiting for at least one. Returns 0 at the end, or a negative code. */
ssize_t exchange_read(struct exchange *x, void *bytes, size_t len);
/* Write all of it, waiting for room. Returns 0, MODUS_CANCELED, or another negative code. */
int exchange_write(struct exchange *x, const void *bytes, size_t len);
/* Push what was written so far towards the peer without waiting for the buffer to fill. */
int exchange_flush(struct exchange *x);

#endif
