/* SPDX-License-Identifier: MIT */
/*
 * Future: the answer to a question that somebody else works on, to be waited for by anybody, as
 * often as they like.
 *
 * States: pending -> running -> done | failed; or pending -> cancelled. The last three are ends:
 * nothing changes any more, and everything about it can be read without waiting.
 *
 *     struct modus_future *future;
 *     modus_pool_submit(pool, &future, &task, MODUS_FOREVER);
 *     rc = modus_future_result(future, modus_ms(200), &square, sizeof square);
 *     if (rc < 0)
 *         log_error("%s: %s", modus_strresult(rc), modus_future_text(future));
 *     modus_future_put(future);
 *
 * A future is counted: who gets one from a pool has one reference, and gives it back with
 * modus_future_put whether it has ended or not.
 *
 * Order of an end: the callbacks run, on the thread that ends it; then it is seen to have ended,
 * its waiters wake, and armed doorbells ring. So who has waited finds the callbacks done.
 *
 * A thread of a pool that waits for a task of the same pool that is still queued runs that task
 * itself, and one that would wait for itself, also by way of other threads of pools, gets -EDEADLK. So
 * does one that waits for any of several if none of them could end; but who waits for several is not
 * seen by others that come to wait for it.
 *
 * Futures are of thread scope. After a fork the child can read those that had ended; the wait for
 * another is -ECHILD.
 */
#ifndef CONCURRENCY_FUTURE_H
#define CONCURRENCY_FUTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/doorbell.h"
#include "concurrency/result.h"

enum modus_future_state {
    MODUS_FUTURE_PENDING,
    MODUS_FUTURE_RUNNING,
    MODUS_FUTURE_DONE,
    MODUS_FUTURE_FAILED,
    MODUS_FUTURE_CANCELLED,
};

struct modus_future;

/* One reference more, or one less; with the last the future is gone. NULL is legal.
 * Safe from: any thread. */
struct modus_future *modus_future_get(struct modus_future *future);
void modus_future_put(struct modus_future *future);

/* Wait up to ns nanoseconds (MODUS_FOREVER: without end, 0: only look) until it has ended, in
 * whatever way. Returns 0, -EAGAIN (ns 0 and it has not), -ETIMEDOUT, -EDEADLK (see above), -ECHILD
 * (it is the parent's), MODUS_CANCELED (the calling coroutine is cancelled) or -EINVAL. Blocks.
 * Safe from: any thread. */
int modus_future_wait(struct modus_future *future, int64_t ns);
int modus_future_wait_until(struct modus_future *future, int64_t deadline);

/* Wait, then copy the value into result, size bytes of it at most (NULL: none). Returns what the
 * task did, 0 or below; MODUS_CANCELED (it was cancelled, or its pool terminated), MODUS_WORKERDIED
 * (modus_future_signal tells of what); or a code of modus_future_wait: who must tell a task that
 * returned -ETIMEDOUT from a wait that did, waits first. Blocks.
 * Safe from: any thread. */
int modus_future_result(struct modus_future *future, int64_t ns, void *result, size_t size);

/* --- looking; none of these blocks. Safe from: any thread, a forked child --------------------- */

enum modus_future_state modus_future_state(const struct modus_future *future);
bool modus_future_ended(const struct modus_future *future);

/* What result would return: 0 or below; -EAGAIN: it has not ended. */
int modus_future_code(const struct modus_future *future);

/* The value and its size, in the future's memory; NULL unless it is done. */
const void *modus_future_value(const struct modus_future *future, size_t *size);

/* What went wrong in words, in the future's memory; "" when there are none. */
const char *modus_future_text(const struct modus_future *future);

/* With MODUS_WORKERDIED: the signal that ended the worker; 0: it ended by itself. */
int modus_future_signal(const struct modus_future *future);

/* --- acting ---------------------------------------------------------------------------------- */

/* Cancel it unless it has begun. Returns 0, -EBUSY (it runs), -EALREADY (it has ended) or -ECHILD.
 * Its callbacks run here. Safe from: any thread, while its pool is there. */
int modus_future_cancel(struct modus_future *future);

/* Have run called at its end, with the future borrowed, in the order of these calls; at once, here,
 * when it has ended. run must not block for long: it holds up a worker. Returns 0, -ENOMEM, or
 * -ECHILD. Safe from: any thread. */
int modus_future_then(struct modus_future *future,
                      void (*run)(struct modus_future *future, void *context), void *context);

/* Ring bell at its end, until disarmed; look at the future after arming. Returns 0, -EINVAL,
 * -EOVERFLOW (64 bells already) or -ENOMEM. Does not block. Safe from: any thread. */
int modus_future_arm(struct modus_future *future, struct modus_doorbell *bell);
void modus_future_disarm(struct modus_future *future, struct modus_doorbell *bell);

/* --- many ------------------------------------------------------------------------------------ */

/* Wait until all of them have ended. Returns 0 or what modus_future_wait does. Blocks.
 * Safe from: any thread. */
int modus_future_wait_all(struct modus_future *const *futures, size_t n, int64_t ns);

/* Wait until one of them has ended; *index, unless NULL, says which. Returns 0, what modus_future_wait
 * does, -EINVAL (also n 0) or -ENOMEM. Blocks. Safe from: any thread. */
int modus_future_wait_first(struct modus_future *const *futures, size_t n, int64_t ns,
                            size_t *index);

/*
 * As completed: an iterator over futures in the order in which they end.
 *
 *     modus_completed_new(&completed, futures, n);
 *     while (modus_completed_next(completed, MODUS_FOREVER, &future) == 0)
 *         use(future);
 *     modus_completed_free(completed);
 */
struct modus_completed;

/* Takes a reference to each of the futures. Returns 0, -ENOMEM or -ECHILD. Does not block.
 * Safe from: any thread. */
int modus_completed_new(struct modus_completed **completed, struct modus_future *const *futures,
                        size_t n);

/* The next that has ended, borrowed from the iterator. Returns 0; MODUS_EMPTY: they have all been
 * given; -EAGAIN (ns 0), -ETIMEDOUT, -EDEADLK (none of them can end while the caller waits),
 * MODUS_CANCELED (a cancelled coroutine) or -EINVAL. Blocks. Safe from: one thread at a time. */
int modus_completed_next(struct modus_completed *completed, int64_t ns,
                         struct modus_future **future);

/* End the iterator; the futures go on. NULL is legal. Safe from: the one thread that uses it. */
void modus_completed_free(struct modus_completed *completed);

/* --- for whoever answers ---------------------------------------------------------------------- */

/* Make a pending future with room for a value of size bytes, and one reference. Who makes it ends
 * it, and keeps a reference until then. Returns 0 or -ENOMEM. */
int modus_future_new(struct modus_future **future, size_t size);

/* Pending -> running. Returns 0, or MODUS_CANCELED: somebody has cancelled it, nothing is to be
 * done. Safe from: the one that answers. */
int modus_future_begin(struct modus_future *future);

/* End it, once, and from pending only if nobody can cancel it. code 0: done, with a copy of the
 * value of size bytes (as much as there is room for; NULL: none); below: failed, with a copy of
 * text (NULL: none). Does not block, but for the callbacks. Safe from: the one that answers. */
void modus_future_end(struct modus_future *future, int code, const void *value, size_t size,
                      const char *text);

#endif
