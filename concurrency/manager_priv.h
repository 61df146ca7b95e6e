/* SPDX-License-Identifier: MIT */
/*
 * The parts of a manager: manager.c has the connections, manager_objects.c what they are about,
 * manager_path.c where they come in. All of it belongs to the thread that serves.
 */
#ifndef CONCURRENCY_MANAGER_PRIV_H
#define CONCURRENCY_MANAGER_PRIV_H

#include <stdbool.h>
#include <stdint.h>

#include "concurrency/dict.h"
#include "concurrency/list.h"
#include "concurrency/manager.h"
#include "concurrency/manager_wire.h"
#include "concurrency/remote.h"

struct modus_conn;

/* An item of a queue, in the queue or in the hands of a connection. */
struct modus_manager_item {
    struct modus_manager_item *next;
    size_t size;
    unsigned char bytes[];
};

struct modus_manager_queue {
    struct modus_manager_item *first, **last;
    uint64_t len, capacity;
    size_t bytes;      /* that all items take */
    uint64_t in_hands; /* items sent to connections that have not said that they have them */
    bool closed;
};

struct modus_object {
    enum modus_remote_kind kind;
    uint64_t id;
    char name[MODUS_WIRE_NAME_MAX + 1];
    union {
        struct modus_dict dict;
        struct modus_list list;
        uint64_t value; /* bits */
        struct modus_manager_queue queue;
        struct {
            struct modus_conn *holder;
            bool orphaned; /* the last one died with it */
        } lock;
    };
    struct modus_conn *first, **last; /* waiting, the longest first; all for the same */
};

/* A connection and its request. */
struct modus_conn {
    int fd;
    uint32_t asked; /* what the epoll has been asked about it */
    bool dead;      /* to be closed at the end of the turn */
    bool leaving;   /* dead, once its reply is out */
    unsigned char *in, *out;
    size_t in_size, in_used;
    size_t out_size, out_used, out_sent;
    struct modus_object *waits_for; /* NULL: nothing */
    struct modus_conn *next;        /* in the object's list */
    int64_t deadline;
    struct modus_manager_item *item; /* sent, not acknowledged */
    uint64_t item_from;              /* object */
};

struct modus_manager_limits {
    size_t object_bytes, message_bytes;
};

struct modus_manager_objects {
    struct modus_object **table; /* by the low 16 bits of the id, from 1 */
    unsigned max;
    uint64_t generation; /* the rest of the id: none is ever used again */
    struct modus_manager_limits limits;
};

/* A request taken apart, and the reply to be. */
struct modus_turn {
    struct modus_conn *conn;
    struct modus_wire_request request;
    struct modus_bytes key, value;
    struct modus_wire_reply reply;
    struct modus_object *changed; /* its waiters may go on */
};

enum { MODUS_TURN_WAIT = 2 }; /* not a result: not yet */

/* Do what the request asks for; payload goes behind the header in conn's out. Returns the result,
 * or MODUS_TURN_WAIT: try again when turn->request.object has changed. */
int modus_objects_do(struct modus_manager_objects *objects, struct modus_turn *turn);

/* The object that a request is about, or NULL. */
struct modus_object *modus_objects_find(struct modus_manager_objects *objects, uint64_t id);

/* conn has the item that was sent to it, if any was. Returns the queue whose waiters may go on, or
 * NULL. */
struct modus_object *modus_objects_acknowledge(struct modus_manager_objects *objects,
                                               struct modus_conn *conn);

/* conn is gone: give back what it had. Calls changed for each object whose waiters may go on. */
void modus_objects_forget(struct modus_manager_objects *objects, struct modus_conn *conn,
                          void (*changed)(void *context, struct modus_object *object),
                          void *context);

/* Free an object that nobody waits for, or all of them. */
void modus_object_free(struct modus_manager_objects *objects, struct modus_object *object);
void modus_objects_fini(struct modus_manager_objects *objects);

/* A listening socket at that path. Returns it, or a code of modus_manager_open. */
struct sockaddr_un;
int modus_manager_listen(const struct sockaddr_un *path);

/* Room for a payload of size bytes in conn's out, or NULL. */
unsigned char *modus_conn_payload(struct modus_conn *conn, size_t size);

#endif
