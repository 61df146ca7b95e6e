/* SPDX-License-Identifier: MIT */
/*
 * Remote objects: the dicts, lists, values, queues and locks of a manager (manager.h), as its
 * clients use them.
 *
 *     struct modus_client *client;
 *     struct modus_remote hits;
 *
 *     modus_client_open(&client, &(struct modus_client_attr){.path = "/run/me/shared"});
 *     modus_remote_open(&hits, client, MODUS_REMOTE_DICT, "hits", 0);
 *     modus_remote_dict_put(&hits, modus_str("/"), modus_bytes(&n, sizeof n));
 *     modus_remote_dict_update(&hits, modus_str("/"), sizeof n, add_one, NULL);
 *     modus_client_close(client);
 *
 * A client is a connection. Each thread has its own, best: a second one that calls waits for the
 * first's call to end, and locks belong to the connection. A forked child opens its own (-ECHILD).
 *
 * An object begins to exist when the first client opens its name, and stays when that one goes;
 * modus_remote_drop ends it for all.
 *
 * Besides what they say, all calls return: MODUS_CLOSED, the server is gone, or has not answered in
 * time (attr's patience), or has thrown this client out; what was asked for last may have been done
 * or not, and all calls from then on say the same. -ENOENT, the object has been dropped; -EINVAL,
 * not open, or an object of another kind, or a negative time; -ERANGE, more than a message can hold
 * (manager.h); -ECHILD; -ENOMEM, here or there; in a coroutine that is cancelled MODUS_CANCELED,
 * and then the connection is gone too. All of them block until the answer comes; a coroutine lets
 * others go on.
 *
 * Safe from: any thread of the process that opened the client; not signal handlers.
 */
#ifndef CONCURRENCY_REMOTE_H
#define CONCURRENCY_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/bytes.h"
#include "concurrency/dict.h"
#include "concurrency/result.h"
#include "concurrency/snapshot.h"

struct modus_client;

struct modus_client_attr {
    const char *path;
    int64_t patience; /* ns that the server may take for an answer, beyond the time of the call; 0:
                       * 30 s; MODUS_FOREVER */
};

/* Connect. Returns 0, MODUS_CLOSED (no server there, or none that answers), -EACCES (not for this
 * user, or another user's server), -EPROTO (it speaks another version) or what is said above. */
int modus_client_open(struct modus_client **client, const struct modus_client_attr *attr);

/* Disconnect; locks that it holds are free. In a child: only free the memory. NULL is legal.
 * Safe from: one thread. */
void modus_client_close(struct modus_client *client);

enum modus_remote_kind {
    MODUS_REMOTE_DICT = 1,
    MODUS_REMOTE_LIST,
    MODUS_REMOTE_VALUE, /* 0 at first */
    MODUS_REMOTE_QUEUE,
    MODUS_REMOTE_LOCK,
};

/* A handle, to be copied freely. All fields are private. */
struct modus_remote {
    struct modus_client *client; /* borrowed */
    uint64_t id;
};

/* Find or make the object of that name (1 to 255 bytes). capacity: of a queue that is made, items;
 * else 0. Returns 0, -EEXIST (it is of another kind) or -ENOMEM (as many objects as there may be).
 */
int modus_remote_open(struct modus_remote *remote, struct modus_client *client,
                      enum modus_remote_kind kind, const char *name, size_t capacity);

/* End the object for everybody; who waits for it gets MODUS_CLOSED. */
int modus_remote_drop(struct modus_remote *remote);

/* Of a dict, list or queue. */
long modus_remote_len(struct modus_remote *remote);
int modus_remote_clear(struct modus_remote *remote);

/* Of a dict or list; -ERANGE when it is larger than a message. */
int modus_remote_snapshot(struct modus_remote *remote, struct modus_snapshot *snapshot);

/* As modus_dict_put and so on. An update's function runs here, not in the server: it is called
 * again with the new value if another has changed it meanwhile. */
int modus_remote_dict_put(struct modus_remote *remote, struct modus_bytes key,
                          struct modus_bytes value);
int modus_remote_dict_put_if(struct modus_remote *remote, struct modus_bytes key,
                             struct modus_bytes value, uint64_t version);
long modus_remote_dict_get(struct modus_remote *remote, struct modus_bytes key, void *memory,
                           size_t room, uint64_t *version);
long modus_remote_dict_take(struct modus_remote *remote, struct modus_bytes key, void *memory,
                            size_t room);
int modus_remote_dict_remove(struct modus_remote *remote, struct modus_bytes key);
int modus_remote_dict_update(struct modus_remote *remote, struct modus_bytes key, size_t room,
                             modus_update *update, void *context);

/* As modus_list_append and so on. */
int modus_remote_list_append(struct modus_remote *remote, struct modus_bytes value);
int modus_remote_list_insert(struct modus_remote *remote, long index, struct modus_bytes value);
int modus_remote_list_set(struct modus_remote *remote, long index, struct modus_bytes value);
int modus_remote_list_set_if(struct modus_remote *remote, long index, struct modus_bytes value,
                             uint64_t version);
long modus_remote_list_get(struct modus_remote *remote, long index, void *memory, size_t room,
                           uint64_t *version);
long modus_remote_list_pop(struct modus_remote *remote, long index, void *memory, size_t room);
/* If values move meanwhile it is the one that is at index then. */
int modus_remote_list_update(struct modus_remote *remote, long index, size_t room,
                             modus_update *update, void *context);

/* A number: whole, or real (0 is 0.0). Each returns 0 or a code. load, exchange and add put what
 * was there, or the sum, into *number; compare_exchange returns -ESTALE when it was not *expected,
 * which becomes what is there. */
int modus_remote_value_load(struct modus_remote *remote, int64_t *number);
int modus_remote_value_store(struct modus_remote *remote, int64_t number);
int modus_remote_value_exchange(struct modus_remote *remote, int64_t *number);
int modus_remote_value_add(struct modus_remote *remote, int64_t *number);
int modus_remote_value_compare_exchange(struct modus_remote *remote, int64_t *expected,
                                        int64_t number);
int modus_remote_value_load_real(struct modus_remote *remote, double *number);
int modus_remote_value_store_real(struct modus_remote *remote, double number);
int modus_remote_value_add_real(struct modus_remote *remote, double *number);

/* Put an item, waiting for room up to ns nanoseconds (MODUS_FOREVER: without end, 0: do not wait).
 * Returns 0, MODUS_FULL (ns 0), -ETIMEDOUT, or MODUS_CLOSED (the queue is closed, too: see
 * modus_client_alive). */
int modus_remote_queue_put(struct modus_remote *remote, struct modus_bytes item, int64_t ns);

/* Get the oldest item, waiting up to ns nanoseconds for one. Returns how long it is (if that is more
 * than room, it stays where it is), MODUS_EMPTY (ns 0), -ETIMEDOUT or MODUS_CLOSED (closed, and
 * nothing left, nor in the hands of one that is inside of this call). One that dies inside of it
 * loses no item: another gets it. */
long modus_remote_queue_get(struct modus_remote *remote, void *memory, size_t room, int64_t ns);

/* No more puts; what is inside can still be got. Returns 0. */
int modus_remote_queue_close(struct modus_remote *remote);

/* Own the lock, waiting up to ns nanoseconds. Returns 0; MODUS_OWNERDEAD (1): owned, but the last
 * owner died; -EAGAIN (ns 0), -ETIMEDOUT or -EDEADLK (this connection owns it). It is owned by the
 * connection until it releases it or ends. */
int modus_remote_lock_acquire(struct modus_remote *remote, int64_t ns);
int modus_remote_lock_release(struct modus_remote *remote); /* 0 or -EPERM */

/* Is the connection as good as it was? It may have ended since. Does not block. */
bool modus_client_alive(const struct modus_client *client);

#endif
