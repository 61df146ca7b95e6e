/* SPDX-License-Identifier: MIT */
/*
 * What sending and receiving agree on: the packets of a message, and what the users of an end share.
 *
 * A packet is a header and up to 64 KiB of one message. Descriptors go with the last part: whoever
 * has them has the message, and a message that is never whole has never had any.
 *
 * For implementers: pipe.c, pipe_receive.c.
 */
#ifndef CONCURRENCY_PIPE_PRIV_H
#define CONCURRENCY_PIPE_PRIV_H

#include <stdatomic.h>
#include <sys/socket.h>

#include "concurrency/lock.h"
#include "concurrency/pipe.h"

enum { PIPE_SENDS = 1, PIPE_RECEIVES = 2 }; /* ways */

/* Different for any two messages that can be on their way in one pipe. */
struct pipe_message_id {
    uint64_t process;
    uint32_t thread, number;
};

struct pipe_header {
    struct pipe_message_id id;
    uint64_t total;  /* the message's bytes */
    uint64_t offset; /* this part's place in it */
    uint32_t size;   /* this part's bytes */
    uint32_t fds;    /* with the last part */
};

/* A message that is being received. */
struct pipe_assembly {
    bool begun;
    struct pipe_message_id id;
    uint64_t total, got;
    unsigned char *data;
};

/* What the users of one end have in common: in the arena, or each process's own. */
struct modus_pipe_shared {
    struct modus_lock sending, receiving; /* not started: no lock */
    enum modus_scope scope;
    struct modus_arena *arena;   /* process scope */
    _Atomic uint32_t number;     /* messages sent */
    struct pipe_assembly put_by; /* under receiving, like what follows */
    _Atomic bool has_put_by;     /* put_by is valid; stored last */
    struct pipe_message_id told; /* the last message that was told to be lost */
};

static inline bool pipe_same(const struct pipe_message_id *a, const struct pipe_message_id *b)
{
    return a->process == b->process && a->thread == b->thread && a->number == b->number;
}

static inline bool pipe_is_last(const struct pipe_header *header)
{
    return header->offset + header->size == header->total;
}

/* Room for the descriptors of one message beside a packet. */
union pipe_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(MODUS_PIPE_FDS_MAX * sizeof(int))];
};

/* May the caller go this way, with that deadline? Returns 0, -EINVAL or -EPERM. */
int modus_pipe_check(const struct modus_pipe *end, uint32_t way, int64_t deadline);

/* Wait until the descriptor is ready. Deadline 0 is that of a call that must not wait. */
int modus_pipe_wait(const struct modus_pipe *end, int events, int64_t deadline);

/* Own one of the end's locks, if it has any. Returns 0 or what modus_lock_acquire_until does below
 * 0. */
int modus_pipe_lock(struct modus_lock *lock, int64_t deadline);
void modus_pipe_unlock(struct modus_lock *lock);

/* Memory that every receiver can see. */
void *modus_pipe_alloc(struct modus_pipe_shared *shared, size_t size);
void modus_pipe_free(struct modus_pipe_shared *shared, void *memory, size_t size);

/* From a duration to a deadline, with 0 as above, and back to the result of a call with ns. */
static inline int64_t pipe_deadline(int64_t ns)
{
    return ns <= 0 ? ns : modus_deadline(ns);
}

static inline int pipe_result(int rc, int64_t ns)
{
    return rc == -ETIMEDOUT && ns == 0 ? -EAGAIN : rc;
}

#endif
