/* SPDX-License-Identifier: MIT */
/*
 * What a manager and its clients say to each other.
 *
 * A request is a header, key_size bytes of key and the rest of size bytes of value; a reply is a
 * header and size bytes. Both ends are on one machine, so numbers are in its own order. A client
 * has one request open at a time, and every one gets a reply but ACK.
 *
 * ACK: a client says it when it has the item of a GET in its hands. If it dies before, the item
 * goes back to the head of the queue.
 *
 * For implementers: manager*.c, client.c, remote.c.
 */
#ifndef CONCURRENCY_MANAGER_WIRE_H
#define CONCURRENCY_MANAGER_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "concurrency/bytes.h"

enum { MODUS_WIRE_VERSION = 2, MODUS_WIRE_NAME_MAX = 255 };

/* Verb, and what key, value, a and b are. */
#define MODUS_WIRE_VERBS(X)                                                                        \
    X(HELLO)    /* is anybody there? */                                                            \
    X(OPEN)     /* key name, a kind, b capacity -> number: object */                               \
    X(DROP)     /* the object, for everybody */                                                    \
    X(LEN)      /* -> number */                                                                    \
    X(CLEAR)    /* */                                                                              \
    X(SNAPSHOT) /* -> packed */                                                                    \
    X(GET)      /* key or a index, b room -> value if it fits, number: its size, version */        \
    X(TAKE)     /* the same, and remove it */                                                      \
    X(PUT)      /* key or a index, value */                                                        \
    X(PUT_IF)   /* the same, b version */                                                          \
    X(INSERT)   /* a index, value */                                                               \
    X(REMOVE)   /* key */                                                                          \
    X(LOAD)     /* -> number */                                                                    \
    X(EXCHANGE) /* a number -> number: the old one */                                              \
    X(ADD)      /* a number -> number: the sum */                                                  \
    X(ADD_REAL) /* a bits -> number: bits of the sum */                                            \
    X(COMPARE)  /* a expected, b number -> number: what was there */                               \
    X(PUSH)     /* queue: value, ns */                                                             \
    X(PULL)     /* queue: b room, ns -> value if it fits, number: its size */                      \
    X(ACK)      /* no reply */                                                                     \
    X(CLOSE)    /* queue */                                                                        \
    X(ACQUIRE)  /* lock: ns */                                                                     \
    X(RELEASE)  /* lock */

enum modus_wire_verb {
#define X(name) MODUS_WIRE_##name,
    MODUS_WIRE_VERBS(X)
#undef X
        MODUS_WIRE_VERB_COUNT,
};

struct modus_wire_request {
    uint32_t size;    /* bytes after the header */
    uint16_t version; /* here in every version */
    uint16_t verb;
    uint32_t key_size;
    uint32_t zero;
    uint64_t object;
    int64_t a, b;
    int64_t ns;
};

struct modus_wire_reply {
    uint32_t size; /* bytes after the header */
    uint16_t version;
    uint16_t zero;
    int32_t result;
    int32_t more; /* ACQUIRE: the holder before died */
    int64_t number;
    uint64_t value_version;
};

#endif
