/* SPDX-License-Identifier: MIT */
/*
 * Group: coroutines that end before the block does in which they were started.
 *
 * A coroutine that is merely started may outlive who started it, with pointers to what is gone, and
 * its failure is nobody's. The members of a group are waited for, whatever way the block is left:
 *
 *     MODUS_GROUP(group, NULL);
 *     modus_group_start(&group, NULL, fetch, &first, &first_result);
 *     modus_group_start(&group, NULL, fetch, &second, &second_result);
 *     int rc = modus_group_wait(&group);       // 0, or what failed first
 *
 * The first member whose function returns a negative code cancels the rest (unless keep_going), and
 * that code is the group's. A group is also cancelled when who waits for it is, or when its deadline
 * or that of who waits is over. What is cancelled is told at its next wait and may clean up, under a
 * shield if that has to wait (coroutine.h); the group waits until it has ended. So it lasts as long
 * as its slowest member: one that computes and never waits is not ended by anything.
 *
 * States: open (members come and go; a wait finds it empty) -> ended. The group lies in the memory of
 * the block, on one loop: all members run on its thread, and may start further ones.
 *
 * After N. J. Smith's nurseries (Trio) and M. Sústrik's structured concurrency (libdill).
 */
#ifndef CONCURRENCY_GROUP_H
#define CONCURRENCY_GROUP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/coroutine.h"
#include "concurrency/result.h"

struct modus_group_attr {
    int64_t
        deadline;    /* absolute CLOCK_MONOTONIC ns, of all waits of its members; 0: the caller's */
    bool keep_going; /* a failure cancels nobody; it is the group's result nevertheless */
};

struct modus_group_member;

/* All fields are private. */
struct modus_group {
    struct modus_co *owner;
    struct modus_group_member *members;
    _Atomic uint32_t live;
    int64_t deadline;
    bool keep_going, cancelled;
    int error; /* the first */
};

/* Open an empty group. attr may be NULL. Returns 0, or -EPERM when the caller is no coroutine. Does
 * not wait. Safe from: a coroutine. */
int modus_group_open(struct modus_group *group, const struct modus_group_attr *attr);

/* Start a member. attr (may be NULL) is as for modus_co_start; its deadline counts if it is the
 * earlier one. *result, unless NULL, becomes what the function returned, before the group's wait
 * returns. Returns 0, -EINVAL, -ENOMEM, -EPERM (not open, or not of this thread) or MODUS_CANCELED:
 * the group is being ended, and the function will not run. Does not wait.
 * Safe from: the owner and the members. */
int modus_group_start(struct modus_group *group, const struct modus_co_attr *attr,
                      int (*run)(void *argument), void *argument, int *result);

/* Wait until all members have ended. Returns 0, or the first error: a member's, MODUS_CANCELED or
 * -ETIMEDOUT when the caller was cancelled or came to its deadline, -ETIMEDOUT when the group came to
 * its own, or MODUS_CANCELED after modus_group_cancel. May be called again. -EPERM when the caller is
 * not the owner. Waits.
 * Safe from: the owner. */
int modus_group_wait(struct modus_group *group);

/* Cancel all members, and those that have not begun. Does not wait. Without effect on a group that
 * is not open. Safe from: the owner and the members. */
void modus_group_cancel(struct modus_group *group);

/* How many members run. */
unsigned modus_group_live(const struct modus_group *group);

/* Cancel whoever is left, wait, and end the group. Does nothing to one that is not open. Waits.
 * Safe from: the owner. */
void modus_group_end(struct modus_group *group);

/* A group until the end of the block, on every path out of it. */
#define MODUS_GROUP(name, ...)                                                                     \
    struct modus_group name __attribute__((cleanup(modus_group_end)));                             \
    modus_group_open(&name, __VA_ARGS__)

#endif
