/* SPDX-License-Identifier: MIT */
/*
 * Pool: workers, threads or processes, that run tasks out of one bounded queue.
 *
 * States: running -> closed (no new tasks; those inside are run) -> ended; or, from either,
 * terminated (those inside are cancelled) -> ended. A pool whose workers can't be had any more is
 * broken; it ends like a terminated one.
 *
 *     static int square(struct modus_call *call)
 *     {
 *         const long *n = call->input;
 *
 *         return modus_call_answer(call, &(long){*n * *n}, sizeof(long));
 *     }
 *
 *     modus_pool_new(&pool, &(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 4});
 *     modus_pool_submit(pool, &future,
 *                       &(struct modus_task){.run = square, .input = &n, .size = sizeof n},
 *                       MODUS_FOREVER);
 *     ...
 *     modus_pool_close(pool);
 *     modus_pool_join(pool, MODUS_FOREVER);
 *     modus_pool_free(pool);
 *
 * Tasks begin in the order in which they are submitted, or, in a pool with priorities, that of their
 * priorities; nothing keeps those of the lowest from waiting as long as there are others. Such a pool
 * has a queue with a lock inside (queue.h), which makes a task some tens of nanoseconds dearer.
 *
 * A task is a function, a few bytes of input that are copied, and a few bytes of answer; so the
 * same program runs on threads and on processes. Threads may pass pointers in those bytes.
 *
 * Thread kind. Threads are made when there are more unfinished tasks than threads, up to n, and
 * kept, unless the attribute idle_ns lets them end; then they are made again when they are needed.
 * A thread of the pool that waits for a future of its pool that is still queued runs that task
 * itself, whatever the time it wanted to wait; so tasks may wait for tasks that they submit, also in
 * a pool of one. A wait that can never end because it closes a circle of waiting threads of
 * pools is -EDEADLK. A thread of the pool that submits while the queue is full, and would wait,
 * runs its task itself. A task that ends its thread (pthread_exit) ends with MODUS_WORKERDIED, and so
 * do those that wait for it further up the same stack; another thread takes the place.
 *   Of tasks that are said to be slow at most (n + 1) / 2 run at a time, so that in a pool of two or
 * more the others always have a thread; one that a thread of the pool runs because it waits for it,
 * or because the queue is full, is not counted. A slow task whose turn comes while as many run goes
 * next when one of them ends, of several that with the highest priority. There may be as many slow
 * tasks that have not begun as may be queued.
 *
 * Process kind. Workers are forked when the pool is made, by a process of one thread (the nursery)
 * that forks their replacements too. So a pool is best made before the program has threads: tasks
 * run in copies of the program as it was then, where a lock that another thread held stays held. A
 * function is known to the workers when it was in memory then. What workers share with the program
 * later lies in an arena of its own that was open then.
 *   A worker may be killed, exit or crash at any moment. The task that it ran ends with
 * MODUS_WORKERDIED (unless it is idempotent: it is run again, once); no other is lost, and another
 * worker takes the place. Workers end with the program, however that ends. SIGINT, SIGQUIT and
 * SIGHUP, which a terminal sends to all, are ignored by them; SIGTERM ends them. They have the
 * descriptors that the program had. A task that forks need not care for the child, which exits when
 * it returns. If the nursery itself is killed, the pool is broken.
 *   Callbacks of futures run on the thread that collects the answers. What would have it wait for
 * itself is refused there: a wait for futures of the pool, a map and a join with -EDEADLK, a submit
 * without room with MODUS_FULL. An imap must not be freed there while chunks of it run.
 *
 * Idle pools cause no wake-up, but for threads that end because of it. The end of the program waits
 * for no pool: threads vanish, processes are terminated.
 */
#ifndef CONCURRENCY_POOL_H
#define CONCURRENCY_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/future.h"
#include "concurrency/result.h"

struct modus_pool;

/* What a task sees. */
struct modus_call {
    const void *input; /* aligned for anything, as output is; in a map as their arrays are */
    size_t size;       /* of the input */
    void *output;      /* room for the answer; the task may also write it here itself. NULL: nobody
                        * wants one (of a map) */
    size_t room;
    size_t answered; /* bytes of the answer; 0: none */
    /* Private. */
    char *text; /* what went wrong */
    size_t text_room;
    const _Atomic uint32_t *stop; /* not 0: terminated */
};

/* A task's function. Returns 0, or what went wrong, below 0. */
typedef int modus_task_function(struct modus_call *call);

/* Answer with a copy of size bytes, unless nobody wants it. Returns 0, or -EOVERFLOW: there is no
 * room for them. */
int modus_call_answer(struct modus_call *call, const void *answer, size_t size);

enum { MODUS_CALL_TEXT = 128 };

/* Say what went wrong, up to MODUS_CALL_TEXT - 1 bytes as by printf; returns code, for the return. */
int modus_call_fail(struct modus_call *call, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Has the pool been terminated, so that a long task of a thread should end? Processes are killed
 * instead. */
bool modus_call_cancelled(const struct modus_call *call);

struct modus_task {
    modus_task_function *run;
    const void *input; /* copied */
    size_t size;
    bool idempotent;   /* may be run again when its worker died */
    unsigned priority; /* 0 to 255, in a pool with priorities; in others 0 */
    const void *owner; /* for modus_pool_cancel_owner, and not looked at; NULL: none */
    bool slow;         /* thread kind: it waits much, for a disk, a name; see above */
};

enum modus_pool_kind {
    MODUS_POOL_THREAD = 1,
    MODUS_POOL_PROCESS = 2,
};

struct modus_pool_attr {
    enum modus_pool_kind kind;
    const char
        *name;  /* copied, up to 31 bytes; workers are called NAME-1 and so on; NULL: "pool" */
    unsigned n; /* workers, up to 1024; 0: as many as CPUs that may be used */
    unsigned
        capacity; /* tasks that may be queued, up to 2^20, rounded up to a power of two; 0: 1024 */
    bool priorities;     /* of the tasks in the queue that with the highest one is begun next */
    unsigned input_max;  /* bytes, up to 64 KiB; 0: 64 */
    unsigned output_max; /* bytes, up to 64 KiB; 0: 64 */
    unsigned tasks_max; /* that one worker runs (a chunk is one) before it is replaced; 0: no end */
    int (*initializer)(void *argument); /* run first by each worker; below 0: it failed */
    void *argument;
    int64_t grace_ns; /* terminate, process kind: from SIGTERM to SIGKILL; 0: 1 s */
    int64_t idle_ns;  /* thread kind: after so long without a task a thread ends; 0: never */
    unsigned n_min;   /* but as many stay, of those that there are; up to n */
};

/* Make a pool. With an initializer, or of processes, it returns when the first (processes: all)
 * workers are ready. Returns 0; -EINVAL, -ENOMEM, -EAGAIN (no room for threads or processes: see
 * RLIMIT_NPROC), what the initializer returned, or MODUS_WORKERDIED, when it failed or died three
 * times in a row; for processes also -EMFILE, -ENFILE, -EUSERS (each has an arena, arena.h) or
 * -EPERM (the program is a daemon, process.h).
 * Later, each worker that is to be replaced is worth three attempts; a pool with none left is
 * broken. Blocks that long.
 * Safe from: any thread; process kind: see above. */
int modus_pool_new(struct modus_pool **pool, const struct modus_pool_attr *attr);

/* Terminate it unless it has ended, join it and free it. Futures stay until they are put. NULL is
 * legal. Blocks.
 * Safe from: the one thread that still knows the object; no thread of the pool. In a forked child
 * it only frees the handle. */
void modus_pool_free(struct modus_pool *pool);

/* --- tasks. Safe from: any thread ------------------------------------------------------------- */

/* Queue a task, waiting up to ns nanoseconds for room (MODUS_FOREVER, or 0: do not wait). *future,
 * unless future is NULL, becomes the caller's reference. Returns 0; MODUS_FULL (ns 0), -ETIMEDOUT,
 * MODUS_CLOSED, MODUS_BROKEN, -EINVAL (also an input that is too large, or a priority or slowness that
 * the pool does not have), -ENOMEM, -EAGAIN (not a single thread can be had), -ECHILD (the pool is the
 * parent's) or MODUS_CANCELED (the calling coroutine is). Blocks. */
int modus_pool_submit(struct modus_pool *pool, struct modus_future **future,
                      const struct modus_task *task, int64_t ns);

/* Run a task and wait for its answer, up to ns nanoseconds in all, as by submit and
 * modus_future_result. When the time is over it is cancelled, or, if it runs, left alone. */
int modus_pool_apply(struct modus_pool *pool, const struct modus_task *task, void *answer,
                     size_t size, int64_t ns);

/* Cancel the tasks of that owner (a connection that has gone, a user who has left) that have not
 * begun, in a map its chunks; those that have are left alone. None begins afterwards of those whose
 * submit had returned. Their callbacks run here. Takes time with the tasks in the queue. Returns how
 * many, -EINVAL (NULL) or -ECHILD. Does not block. */
long modus_pool_cancel_owner(struct modus_pool *pool, const void *owner);

/* What failed in a map. */
struct modus_map_failure {
    size_t index;               /* of the item; of the first that could not be queued */
    char text[MODUS_CALL_TEXT]; /* as of modus_future_text */
};

/* Items of equal size in, answers of equal size out. */
struct modus_map {
    modus_task_function *run;
    const void *in;
    size_t n;
    size_t in_size;
    void *out;       /* n answers, in the order of the items, undefined for those that failed or
                      * were not reached; NULL: none are wanted */
    size_t out_size; /* room of each; an answer may be shorter */
    size_t chunk;    /* items a task; 0: n / (4 * workers), rounded up; imap: 1 */
    bool idempotent;
    unsigned priority; /* of the chunks, and so is */
    const void *owner;
    bool slow;
    /* NULL, or filled in by what fails first; imap: by each failure that next tells of. Borrowed as
     * out is. */
    struct modus_map_failure *failure;
};

/* Run a function on each item. Waits until every chunk has ended; an item that fails ends its chunk.
 * Returns 0, -EDEADLK (in a callback of a pool of processes), or what failed first: an item, or with a
 * code of modus_pool_submit the queueing of the rest. Blocks. */
int modus_pool_map(struct modus_pool *pool, const struct modus_map *map);

/* The same without waiting for the end: *future ends when every chunk has, with the first failure.
 * It can't be cancelled. in and out are borrowed until then. Waits for room in the queue. Returns 0,
 * or a code of modus_pool_submit when not a single chunk could be queued. */
int modus_pool_map_start(struct modus_pool *pool, struct modus_future **future,
                         const struct modus_map *map);

/*
 * imap: the answers one by one, while later items still run. No more than a few chunks are queued
 * ahead of the one that is asked for.
 *
 *     modus_imap_new(&imap, pool, &map, true);
 *     while ((rc = modus_imap_next(imap, MODUS_FOREVER, &answer, NULL)) != MODUS_EMPTY)
 *         ...
 *     modus_imap_free(imap);
 */
struct modus_imap;

/* ordered: in the order of the items; else in that in which chunks end. map->in is borrowed, out is
 * not used. Returns 0, -EINVAL or -ENOMEM. */
int modus_imap_new(struct modus_imap **imap, struct modus_pool *pool, const struct modus_map *map,
                   bool ordered);

/* The next answer into *answer (out_size bytes) and the number of its item into *index, unless
 * NULL. Returns 0; MODUS_EMPTY: that was all; -ETIMEDOUT, -EAGAIN (ns 0): ask again; below 0 else:
 * what the item failed with (and so do the others of its chunk that come after it), -EDEADLK (as
 * modus_future_wait), or a code of modus_pool_submit. Blocks. Safe from: one thread at a time. */
int modus_imap_next(struct modus_imap *imap, int64_t ns, void *answer, size_t *index);

/* End it, before its pool is freed: what is queued is cancelled, what runs is waited for. NULL is
 * legal. Blocks. Safe from: the one thread that uses it. */
void modus_imap_free(struct modus_imap *imap);

/* --- the end. Safe from: any thread ----------------------------------------------------------- */

/* No more tasks. Returns 0, also when it is closed or terminated already, or -ECHILD. Does not
 * block. */
int modus_pool_close(struct modus_pool *pool);

/* Wait until all workers have ended, up to ns nanoseconds; any number of times. Returns 0; -EINVAL
 * before close or terminate; -EAGAIN (ns 0), -ETIMEDOUT, -EDEADLK (a thread of the pool), -ECHILD
 * or MODUS_CANCELED. Blocks. */
int modus_pool_join(struct modus_pool *pool, int64_t ns);

/* No more tasks, and those inside are cancelled. Threads end what they run, which should look at
 * modus_call_cancelled; processes get SIGTERM, and SIGKILL after the grace time, and what they ran
 * ends with MODUS_CANCELED, as all futures do, at once. Returns 0 or -ECHILD. Does not block. */
int modus_pool_terminate(struct modus_pool *pool);

/* The executor's verb: close; cancel: what has not begun is cancelled; wait: join. */
int modus_pool_shutdown(struct modus_pool *pool, bool wait, bool cancel);

struct modus_pool_stats {
    unsigned workers;    /* now */
    unsigned queued;     /* tasks now, those that were cancelled in the queue included, and slow
                          * ones that wait for others */
    unsigned running;    /* now */
    unsigned high_water; /* the most that were queued */
    uint64_t done;       /* tasks that were run to their end, whatever that was */
    uint64_t deaths;     /* workers that ended unasked */
    uint64_t replaced;   /* workers that ended because of tasks_max */
    uint64_t idled;      /* threads that ended because of idle_ns */
};

/* Numbers that are old when it returns. Does not block. */
void modus_pool_stats(struct modus_pool *pool, struct modus_pool_stats *stats);

/* Processes: the pids of the workers, as many as there is room for; returns how many there are.
 * Threads: their kernel's ids. Does not block. */
unsigned modus_pool_workers(struct modus_pool *pool, int *ids, unsigned room);

#endif
