/* SPDX-License-Identifier: MIT */
/* The exchange as net/ sees it: exchange.c is the handler's side of it, conn.c the connection's.
 *
 * With a step entry both sides are one thread and nothing is locked. With a run entry the handler
 * may be on another thread: the fields marked (shared) are then under x->lock, the atomics aside.
 *
 *   stage      set by           meaning
 *   READING    connection       head understood, body being collected or dropped
 *   OPEN       connection       a step entry has begun, or a run entry was offered (WANT_SERVE)
 *   SERVED     exchange_serve   a run handler is at work
 *   RETURNED   connection       the handler has given its whole answer (or was given up); only
 *              exchange_finish  sending is left, and no event comes any more
 */
#ifndef NET_EXCHANGE_PRIV_H
#define NET_EXCHANGE_PRIV_H

#include <stdatomic.h>

#include "concurrency/event.h"
#include "concurrency/lock.h"
#include "net/conn.h"
#include "net/exchange.h"
#include "net/http1.h"
#include "net/service.h"

enum {
    EXCHANGE_PIPE_SIZE = 64 * 1024, /* unread body, and unsent answer, that a handler may pile up */
    EXCHANGE_SPARES = 64,
    EXCHANGE_SIZE = 4096, /* of struct exchange: a page */
    INLINE_MEMORY = 416,
};

enum exchange_stage { EXCHANGE_READING, EXCHANGE_OPEN, EXCHANGE_SERVED, EXCHANGE_RETURNED };

/* A part of an answer's body, in order. */
struct exchange_piece {
    struct exchange_piece *next;
    const char *at; /* bytes, or NULL for a part of a file */
    size_t len;     /* left to send */
    size_t room;    /* behind at + len, owned by this piece; more writes may be added there */
    int fd;
    bool counted; /* its bytes count against EXCHANGE_PIPE_SIZE */
    bool framed;  /* its chunk header is out: it can't grow any more */
    int64_t offset;
};

struct exchange_block {
    struct exchange_block *next;
};

struct exchange_deferred {
    struct exchange_deferred *next;
    void (*release)(void *arg);
    void *arg;
};

struct exchange {
    /* --- zeroed for each exchange, down to `request` --- */
    struct exchange *next_spare;
    struct conn *conn;
    const struct service *service;
    const struct exchange_entry *entry;
    const struct route *route;
    const char *head; /* inline_head, or a block of its own */
    char *head_block;
    struct str path, query, target;
    unsigned method;
    int64_t (*clock_us)(void);
    int64_t begun_us;
    int64_t offered_us, served_us;
    int64_t body_ms;     /* when body bytes last came */
    int64_t deadline_ms; /* handler_timeout; INT64_MAX none */
    int64_t timer_ms;    /* exchange_timer; 0 none */
    int64_t looked_ms;   /* when exchange_cancelled() last looked at the peer */
    _Atomic enum exchange_stage stage;
    atomic_bool cancel;
    int cancel_status; /* what a cancelled request is answered with, if it still can; set before */
    bool write_short;  /* step: owed an EXCHANGE_ROOM */
    bool body_seen;    /* step: told of all body bytes there are */
    bool endless;      /* step: the answer has no end of its own */
    bool told_leaving; /* step: EXCHANGE_LEAVING was sent */
    bool is_http;
    bool continued; /* "100 Continue" was said, or is not wanted */
    bool held;      /* counted as begun in an earlier step */
    int refusal;    /* answered with this status without asking a handler; 0 none */

    struct http1_chunks chunks;
    int64_t body_left;      /* of a Content-Length body, not yet read */
    int64_t body_got;       /* decoded bytes so far */
    struct conn_bytes body; /* (shared) decoded, unread */
    size_t body_room;       /* capacity of body.at */
    bool body_complete;     /* (shared) no more will come */
    bool body_cut;          /* (shared) it will never be whole: the peer's end came first */

    int status;
    int64_t length;     /* of the answer's body; -1 unknown */
    bool begun;         /* (shared) status and fields are fixed */
    bool ended;         /* (shared) no more pieces will come */
    atomic_bool failed; /* what was promised can't be kept: cut the connection */
    bool head_sent;
    bool tail_sent;
    bool chunked_out;
    bool bodyless;                               /* HEAD, 204, 304: what is promised is not sent */
    int64_t promised;                            /* (shared) body bytes given by the handler */
    int64_t body_bytes;                          /* of the answer, handed to the transport */
    struct exchange_piece *pieces, **pieces_end; /* (shared) */
    struct exchange_piece own_piece; /* the first, so that a plain reply allocates nothing */
    bool own_piece_used;
    size_t unsent;      /* (shared) bytes in pieces that count against EXCHANGE_PIPE_SIZE */
    atomic_uint news;   /* bumped by the connection whenever the handler may go on */
    unsigned news_read; /* the handler's last look */
    atomic_bool kicked; /* a kick is under way */

    char *fields; /* "Name: value\r\n"..., inline_fields or allocated */
    size_t fields_len, fields_size;
    void *state;
    struct exchange_deferred *deferred;
    struct exchange_block *blocks;
    size_t inline_used;

    /* --- not zeroed --- */
    struct http1_request request;
    struct modus_lock lock;
    struct modus_event event; /* for hosts whose handlers wait on another thread */
    char peer[64];
    char inline_fields[256];
    char inline_head[1024];
    _Alignas(16) char inline_memory[INLINE_MEMORY];
};

_Static_assert(sizeof(struct exchange) == EXCHANGE_SIZE,
               "an exchange is a page: adapt INLINE_MEMORY");

/* A clean exchange of c, or NULL when memory is out. exchange_put gives it back: runs what was
 * deferred and frees what it holds. */
struct exchange *exchange_get(struct net_thread *t, struct conn *c);
void exchange_put(struct net_thread *t, struct exchange *x);
void exchange_free_spares(struct net_thread *t);
/* Have one more ready. alignment: a cache line's, or EXCHANGE_SIZE for one that lies on one page,
 * which leaves a hole behind it. Returns 0 or -ENOMEM. */
int exchange_add_spare(struct net_thread *t, size_t alignment);

/* Append decoded body bytes. Returns 0 or -ENOMEM. */
int exchange_body_append(struct exchange *x, const char *at, size_t len);
/* Does the body go through the pipe? On a TCP listener it always does. */
bool exchange_is_streamed(const struct exchange *x);
/* How many more body bytes the pipe takes now. */
size_t exchange_body_space(const struct exchange *x);
/* The body has ended (or will never be whole). */
void exchange_body_end(struct exchange *x, bool cut);
/* Cancel, and let the handler know. */
void exchange_cancel(struct exchange *x);
/* Tell the handler that something changed. */
void exchange_wake(struct exchange *x);
/* Give up: an answer not begun becomes an error answer, a begun one is cut. */
void exchange_fail(struct exchange *x, int status);
/* exchange_complain() of a code that the handler returned. */
void exchange_complain_of(const struct exchange *x, int code);

void exchange_hold(struct exchange *x);
void exchange_let(struct exchange *x);

/* The standard phrase for a status ("Not Found"), never NULL. */
const char *http_phrase(int status);

#endif
