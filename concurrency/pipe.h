/* SPDX-License-Identifier: MIT */
/*
 * Pipe: two connected ends that carry whole messages, between threads or between processes, in
 * order, of any length, with descriptors if need be.
 *
 *     struct modus_pipe ends[2];
 *     modus_pipe_pair(ends, NULL);                              // duplex
 *     if (fork() == 0) {
 *         modus_pipe_close(&ends[0]);
 *         for (size_t size; (size = sizeof request),
 *              modus_pipe_recv(&ends[1], &request, &size, MODUS_FOREVER) == 0;) { ... }
 *         _exit(0);                                             // MODUS_CLOSED: the parent is gone
 *     }
 *     modus_pipe_close(&ends[1]);
 *     modus_pipe_send(&ends[0], &request, sizeof request, MODUS_FOREVER);
 *
 * A handle is one end in one process. It is made before the fork, lies in each process's own memory,
 * and its copies in the children are as good. An end is closed when every process has closed it or
 * ended: so close at once what you don't use. Then the other end gets what was sent, and after that
 * MODUS_CLOSED; sending to it is MODUS_CLOSED at once, without a signal.
 *
 * Without a lock (scope 0) one may send and one receive at an end at a time. Several that send break
 * into each other's messages when these are longer than a packet; no torn message is ever delivered,
 * but one is lost, and the receiver is told so: MODUS_BROKEN. With a lock several may send and
 * several receive at either end, threads (MODUS_THREAD) or processes too (MODUS_PROCESS).
 *
 * Killed users: a message whose sender is killed inside send, or gives up because its time is over,
 * is dropped by the receiver, and the next message is whole. One whose receiver is killed inside
 * recv is lost; the next receiver gets the next one (without a lock it is told, MODUS_BROKEN). A
 * receiver whose time is over in the middle of a message loses nothing: what it has is put by (for
 * MODUS_PROCESS in the arena, which should have room for it), and the next recv goes on. With a lock
 * between processes bury who was killed (lock.h): it may have been woken, and the others sleep on.
 *
 * In a coroutine a send or recv lets others go on, also while it waits for the lock; that wait is not
 * ended by its being cancelled (coroutine.h). The lock between processes is not a fair one: a
 * coroutine that sends without a pause may keep the others of its thread from it for as long.
 *
 * How: a pair of AF_UNIX SOCK_SEQPACKET sockets, whose packets are whole whatever happens to their
 * sender. A message is cut into packets that name it and say which part of it they are. A byte
 * stream would be ruined by a sender that is killed in the middle of a message.
 */
#ifndef CONCURRENCY_PIPE_H
#define CONCURRENCY_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/arena.h"
#include "concurrency/park.h"
#include "concurrency/result.h"

enum { MODUS_PIPE_FDS_MAX = 253 }; /* descriptors in one message; the kernel's limit */

struct modus_pipe_attr {
    bool one_way;              /* ends[0] only receives, ends[1] only sends */
    enum modus_scope scope;    /* of the lock; 0: none */
    struct modus_arena *arena; /* MODUS_PROCESS: where the lock goes */
};

struct modus_pipe_shared;

/* One end. All fields are private. */
struct modus_pipe {
    uint32_t ways; /* 0: not started */
    int fd;
    uint32_t packet; /* bytes of a message in one, at most */
    struct modus_pipe_shared *shared;
};

/* A message with all that belongs to it. */
struct modus_pipe_message {
    void *data;          /* recv: NULL to have it allocated; the caller frees it */
    size_t size;         /* recv: the room at data, then the message's bytes */
    int *fds;            /* send: borrowed; recv: the caller's from then on, close-on-exec */
    unsigned fd_count;   /* recv: the room at fds, then how many lie there */
    unsigned fds_closed; /* recv: how many more came, and found no room */
};

/* Make a connected pair; attr may be NULL: duplex, no lock. Returns 0, -EINVAL, or -ENOMEM when
 * there is no memory or no descriptor left. Does not block.
 * Safe from: the one thread that makes the object. */
int modus_pipe_pair(struct modus_pipe ends[2], const struct modus_pipe_attr *attr);

/* Close this process's descriptor; the handle is not started again. Does nothing to one that is
 * not. Safe from: the one thread that still uses the handle in this process. */
void modus_pipe_close(struct modus_pipe *end);

/* Close, and for MODUS_PROCESS give the end's lock back to the arena: once, when every other
 * process has closed the end or ended. Safe from: as modus_pipe_close. */
void modus_pipe_fini(struct modus_pipe *end);

/* Send a message, waiting for room up to ns nanoseconds (MODUS_FOREVER: without end, 0: do not
 * wait; a message of more than about 200 KiB needs a receiver meanwhile). Returns 0: all of it is
 * on its way, or with nothing delivered -EAGAIN (ns 0), -ETIMEDOUT, MODUS_CLOSED, MODUS_CANCELED (a
 * coroutine), -EPERM (this end only receives), -ENOMEM, -EINVAL, or for descriptors -EOVERFLOW (too
 * many on their way). Blocks.
 * Safe from: any thread, any process that has the end, a forked child; see above for locks. */
int modus_pipe_send(struct modus_pipe *end, const void *data, size_t size, int64_t ns);
int modus_pipe_send_until(struct modus_pipe *end, const void *data, size_t size, int64_t deadline);

/* Receive a message into data, where there is room for *size bytes, waiting up to ns nanoseconds.
 * Returns 0, and *size is the message's; -EMSGSIZE when it is longer: then *size says how long, and
 * the message is still there; -EAGAIN, -ETIMEDOUT, MODUS_CLOSED (and nothing left), MODUS_CANCELED,
 * MODUS_BROKEN (a message is lost, see above, or there was no memory to put it by; go on), -EPERM
 * (this end only sends), -ENOMEM (the message is still there) or -EINVAL. Descriptors that come with it are closed. On failure what lies at data is undefined.
 * Blocks. Safe from: as modus_pipe_send. */
int modus_pipe_recv(struct modus_pipe *end, void *data, size_t *size, int64_t ns);
int modus_pipe_recv_until(struct modus_pipe *end, void *data, size_t *size, int64_t deadline);

/* The same with descriptors, and with memory that is allocated. Received descriptors beyond the
 * room are closed, and counted in fds_closed; those for which this process had no number left are -1.
 * message is untouched on failure, but for the size with -EMSGSIZE. */
int modus_pipe_send_message(struct modus_pipe *end, const struct modus_pipe_message *message,
                            int64_t ns);
int modus_pipe_send_message_until(struct modus_pipe *end, const struct modus_pipe_message *message,
                                  int64_t deadline);
int modus_pipe_recv_message(struct modus_pipe *end, struct modus_pipe_message *message, int64_t ns);
int modus_pipe_recv_message_until(struct modus_pipe *end, struct modus_pipe_message *message,
                                  int64_t deadline);

/* Wait up to ns nanoseconds until a message has begun to come in, or the other end is closed.
 * Returns 0, -EAGAIN, -ETIMEDOUT, MODUS_CANCELED, -EPERM (this end only sends) or -EINVAL. Blocks.
 * Safe from: as modus_pipe_send. */
int modus_pipe_poll(struct modus_pipe *end, int64_t ns);
int modus_pipe_poll_until(struct modus_pipe *end, int64_t deadline);

/* The descriptor, to be polled for reading (there is something to receive) and writing; not to be
 * read, written or closed. -1 when not started. Safe from: as modus_pipe_send. */
int modus_pipe_fd(const struct modus_pipe *end);

#endif
