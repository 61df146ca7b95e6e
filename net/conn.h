/* SPDX-License-Identifier: MIT */
/* A connection: one state machine over a transport, whatever the concurrency model.
 *
 *     conn_open(&c, service, transport, peer, host, thread);
 *     for (;;) {
 *         unsigned wants = conn_step(&c, thread);
 *         if (wants & CONN_CLOSED)
 *             break;
 *         if (wants & CONN_WANT_SERVE) { exchange_serve(conn_exchange(&c)); continue; }
 *         if (wants & CONN_WANT_AGAIN) continue;          // or after the others had their turn
 *         wait until the descriptor can do what wants says, or conn_deadline(&c) has come;
 *     }
 *
 * A step does all that can be done now and returns what it waits for. It makes no blocking call and
 * knows no model; the time is thread->now_ms. A want for READ or WRITE means that the transport was
 * tried in that direction and refused, so edge-triggered readiness is enough; an event that was not
 * wanted may be ignored. The exception: tell conn_hang_up() of errors and hang-ups whenever they
 * are seen.
 *
 *   state       waits for                     deadline                  when it passes
 *   HANDSHAKE   TLS                           10 s in all               close
 *   IDLE        the first byte of a request   keepalive (first: header) close
 *   HEAD        the rest of its head          header_timeout in all     408
 *   SERVING     handler, body, room to write  body, send, handler       408, cut, 504
 *   LINGER      the peer's end                2 s                       close
 *   CLOSED
 *
 * Where `run` handlers go: CONN_WANT_SERVE is returned once for each exchange that a run entry
 * serves. The driver calls exchange_serve() on it, on this thread or another. Until that ends the
 * connection goes on being stepped, by its own thread only, for body bytes, room and cancellation.
 *
 * Safe from: the one thread that owns the connection at that time, except conn_hang_up().
 */
#ifndef NET_CONN_H
#define NET_CONN_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "net/exchange.h"
#include "net/service.h"
#include "net/thread.h"
#include "net/transport.h"

struct modus_event;

enum conn_want {
    CONN_WANT_READ = 1 << 0,
    CONN_WANT_WRITE = 1 << 1,
    CONN_WANT_SERVE = 1 << 2, /* an exchange waits to be served: conn_exchange() */
    CONN_WANT_AGAIN = 1 << 3, /* it has had its share of this turn: step it again soon */
    CONN_CLOSED = 1 << 4,     /* all is released, the descriptor closed: forget it */
    CONN_WANT_MOVE = 1 << 5,  /* it is to go on elsewhere: conn_carry(), or conn_stay() */
};

/* How a run handler waits and calls for its connection; the model's answer to "who waits, where".
 * Both get the host pointer of conn_open. */
struct conn_host {
    /* The handler waits until something about x changes (bytes, room, cancel) or deadline_ms
     * (monotonic; INT64_MAX none) has come. May return early. Called by exchange_serve's thread. */
    void (*wait)(void *host, struct exchange *x, int64_t deadline_ms);
    /* The handler has put out bytes or made room: the connection should be stepped soon. Called by
     * exchange_serve's thread. */
    void (*kick)(void *host, struct exchange *x);
    /* The connection has changed something that the handler may wait for. Called from a step. */
    void (*wake)(void *host, struct exchange *x);
};

/* The peer's address in little room; port 0 and family AF_UNIX for a unix socket. */
struct conn_peer {
    uint8_t address[16];
    uint16_t family, port;
};

enum conn_state {
    CONN_NONE, /* zeroed memory */
    CONN_HANDSHAKE,
    CONN_IDLE,
    CONN_HEAD,
    CONN_SERVING,
    CONN_LINGER,
    CONN_ENDED,
};

struct conn_bytes {
    char *at;
    uint32_t from, len; /* len bytes at at + from */
};

/* Shown so that drivers can embed it; all fields are private to net/. */
struct conn {
    struct transport transport;
    const struct service *service;
    const struct conn_host *host_ops;
    void *host;
    struct exchange *exchange; /* the open one, or NULL */
    struct conn_bytes in;      /* read, not yet understood */
    struct conn_bytes out;     /* ready, not yet sent */
    int64_t deadline_ms;       /* INT64_MAX: none */
    int64_t since_ms;          /* when the present state began, or last progress was made */
    uint64_t requests;
    uint32_t scanned; /* of in: lines that were found complete */
    atomic_uint gone; /* 1: hung up; set from any thread, so it stands apart from the flags below */
    struct conn_peer peer;
    uint8_t state;
    uint8_t wants;       /* what the transport refused last */
    uint8_t empty_lines; /* passed over before a request */
    bool eof : 1;
    bool reading : 1; /* input is waited for, in whichever direction the transport says */
    bool read_on : 1; /* a hang-up was seen: read past short reads to find the end */
    bool close_after : 1;
    bool peer_closes : 1; /* the peer asked for the close, so it sends nothing more */
    bool reject : 1;
    bool blocked : 1; /* the peer takes no more; since_ms says since when */
    bool retire : 1;
    bool offered : 1;      /* CONN_WANT_SERVE was returned for the open exchange */
    bool in_the_clear : 1; /* HTTP where TLS should be: it gets one answer that says so */
    bool said_end : 1;     /* the transport is shut down */
    bool roused : 1;       /* counted as active: the last step did not leave it idle */
    bool stay : 1;         /* it can't move: it leaves after its next answer */
};

/* Start on an accepted transport, which it takes (plain; with service->tls set, over TLS).
 * Returns 0, or -1 when memory is out: the transport is closed then. */
int conn_open(struct conn *c, const struct service *service, struct transport transport,
              const struct conn_peer *peer, const struct conn_host *host_ops, void *host,
              struct net_thread *t);
/* A connection on its way from one process to another, in the clear and between two requests. */
struct conn_carried {
    int fd;
    struct conn_peer peer;
    uint64_t requests;  /* that it has begun so far */
    int64_t idle_ms;    /* for so long */
    const char *unread; /* bytes that were read of what comes next; borrowed */
    size_t unread_len;
};

/* After CONN_WANT_MOVE: what is to be told of it. It goes on as it is until one of the next two. */
void conn_carry(const struct conn *c, const struct net_thread *t, struct conn_carried *carried);
/* Another process has its descriptor: close ours, and release all. The next conn_step must not be
 * called. */
void conn_gone_elsewhere(struct conn *c, struct net_thread *t);
/* It can't move: it stays until its next answer, which says "Connection: close". Then step. */
void conn_stay(struct conn *c);
/* conn_open for one that comes from another process; takes carried->fd. */
int conn_resume(struct conn *c, const struct service *service, const struct conn_carried *carried,
                const struct conn_host *host_ops, void *host, struct net_thread *t);
/* Do all that can be done now. Returns a set of enum conn_want. Never blocks. */
unsigned conn_step(struct conn *c, struct net_thread *t);
/* The exchange to serve after CONN_WANT_SERVE, or being served. */
struct exchange *conn_exchange(const struct conn *c);
/* Monotonic milliseconds by which conn_step must be called even if nothing happens. */
int64_t conn_deadline(const struct conn *c);
/* Nothing of a request has been read and nothing waits to be sent. */
bool conn_is_idle(const struct conn *c);
/* Monotonic milliseconds from which on nothing is lost if it ends: since when it has been idle, or
 * until when the first request of a new one may be on its way. INT64_MAX while it is not idle. */
int64_t conn_spare_ms(const struct conn *c);
/* Requests that it has begun so far. */
uint64_t conn_requests(const struct conn *c);
/* Bytes were read that the next step can work on without the socket becoming readable. */
bool conn_has_input(const struct conn *c);
/* Descriptor, for polling only. */
int conn_fd(const struct conn *c);
/* If it is idle at the next step, close it then (a last look for a request is taken first; a new
 * connection has a second for its first one). */
void conn_retire(struct conn *c);
/* Answer the request that waits with 503 and close: no thread came free in time. Then step. */
void conn_reject(struct conn *c);
/* The poller saw an error or a hang-up: whatever goes on is cancelled; or only the peer's end
 * (RDHUP), after which its last bytes are still read. Safe from: any thread while the connection's
 * memory lives, with only_end the owner alone. */
void conn_hang_up(struct conn *c, bool only_end);
/* Close at once whatever goes on, and release all. The exchange must not be served by another
 * thread at that time. The next conn_step must not be called. */
void conn_abort(struct conn *c, struct net_thread *t);
/* Is x being served (a run handler is at work on some thread)? */
bool conn_is_served(const struct conn *c);

/* Serve x: call its run entry and complete the answer. Blocks for as long as the handler does.
 * After it the caller must not touch x until it has told the connection's thread, which calls
 * exchange_finish(x) and steps. Safe from: one thread, once. */
void exchange_serve(struct exchange *x);
/* The served exchange is over. Safe from: the connection's thread. */
void exchange_finish(struct exchange *x);
/* Wait and cancel hooks for hosts: has anything changed since the handler last looked? */
bool exchange_has_news(const struct exchange *x);
/* May its run entry hold a thread for long (struct exchange_entry)? */
bool exchange_is_blocking(const struct exchange *x);
/* Has it been cancelled? Only looks; handlers ask exchange_cancelled(). */
bool exchange_is_cancelled(const struct exchange *x);
/* Where a host's handler may wait on another thread; only wait() and wake() use it. */
struct modus_event *exchange_event(struct exchange *x);
/* Microseconds from CONN_WANT_SERVE until exchange_serve was called. */
int64_t exchange_waited_us(const struct exchange *x);
/* The connection of x, for hosts. */
struct conn *exchange_conn(const struct exchange *x);
/* The route that it is served by; NULL: none is found yet. */
const struct route *exchange_route(const struct exchange *x);

#endif
