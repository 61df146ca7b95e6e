/* SPDX-License-Identifier: MIT */
/*
 * What the three sides of a pool of processes share: the program (pool_process.c), the nursery that
 * forks workers (pool_nursery.c) and the workers (pool_worker.c).
 *
 * All of it lies in an arena that was opened before the nursery was forked. A task is a record; the
 * two queues carry only the numbers of records. Who has a task stands in its record:
 *
 *     FREE --submit--> QUEUED --claim--> RUNNING,worker --> ANSWERED,worker --> TAKEN --> FREE
 *                      QUEUED --cancel--> CANCELLED --claim--> PASSED,worker --> TAKEN --> FREE
 *
 * Every step is one exchange of the state, which carries the record's turn, so that a number from
 * an earlier use of the record means nothing.
 *
 * An answer is told of through the queue of results, to the collector; unless a thread that waits for
 * it looks at the record itself, and says so there (watched): then that takes it. Who looks no more
 * says so and looks once more; who answers looks at watched afterwards: so one of them sees the other.
 *
 *     a worker dies after ...      leaves                      is mended by
 *     getting a number             QUEUED, the number kept     the queue, which gives it again
 *     claiming                     RUNNING,dead; number kept   the program: failed, or queued again;
 *                                                              who gets the number finds it claimed
 *     giving the number back       RUNNING,dead                the program
 *     answering                    ANSWERED,dead, nobody told  the program: it is an answer
 *
 * The queue of tasks redelivers, and a number is given back (task_done) at once after the claim, so
 * that long tasks hold up nobody. News of a death comes to the program by way of the queue of
 * results, after the death was buried and after all that the dead one had put there.
 */
#ifndef CONCURRENCY_POOL_PROCESS_PRIV_H
#define CONCURRENCY_POOL_PROCESS_PRIV_H

#include <signal.h>
#include <stdatomic.h>

#include "concurrency/arena.h"
#include "concurrency/doorbell.h"
#include "concurrency/pool_priv.h"
#include "concurrency/queue.h"

enum modus_record_kind { FREE, QUEUED, RUNNING, ANSWERED, CANCELLED, PASSED, TAKEN };

/* A task. */
struct modus_record {
    _Alignas(64) _Atomic uint64_t state; /* turn:32 | seat:16 | kind:16 */
    _Atomic uint64_t watched;            /* turn:32 | threads that look for that turn's answer:32 */
    modus_task_function *run;
    uint32_t size, answered;
    int32_t code;
    uint32_t again; /* may be run again; 0 once it was */
    uint32_t priority;
    _Atomic(const void *) owner; /* the program's alone */
    char text[MODUS_POOL_TEXT];
    _Alignas(64) unsigned char bytes[]; /* the input, then the answer */
};

enum { MODUS_NEWS_ANSWER, MODUS_NEWS_END, MODUS_NEWS_BROKEN };

/* In the queue of results. */
struct modus_news {
    uint32_t kind;
    uint32_t number; /* of the record, or the worker's seat */
    uint32_t turn;
    int32_t status; /* of the end: exit code or minus signal; 0 also: it was asked to. BROKEN: the
                     * initializer's code */
};

enum modus_seat_state {
    SEAT_FREE,
    SEAT_STARTING,
    SEAT_INITIALIZING, /* its end would be the initializer's fault */
    SEAT_READY,
    SEAT_RETIRING, /* waits for the nursery's answer, one of the next two */
    SEAT_REPLACED,
    SEAT_STAYS,
    SEAT_LEAVING, /* the queue is closed */
    SEAT_EMPTY,   /* it has ended; the program makes it FREE when it has settled its tasks */
};

/* A worker's place. */
struct modus_seat {
    _Alignas(128) _Atomic uint32_t state;
    _Atomic int32_t pid;
    int32_t code; /* of a failed initializer */
    _Atomic uint32_t busy;
    _Atomic uint64_t done;
};

/* From a worker to the nursery: look at the seats. A task may have closed the bell's descriptor, or
 * have opened something else in its place. */
#define MODUS_NURSERY_SIGNAL SIGUSR1

enum { MODUS_NURSERY_WORKS, MODUS_NURSERY_ENDS, MODUS_NURSERY_TERMINATES };

struct modus_pool_shared {
    struct modus_arena *arena;
    struct modus_queue tasks, results; /* handles; the same everywhere */
    unsigned char *records;
    size_t stride; /* from record to record */
    uint32_t record_count, input_room, output_room;
    struct modus_seat *seats;
    uint32_t seat_count;
    struct modus_pool_attr attr;
    char name[MODUS_POOL_NAME];
    struct modus_doorbell bell; /* the nursery's; workers send it a signal instead */
    int32_t nursery;            /* its pid */
    _Atomic uint32_t command;   /* the nursery's */
    _Atomic uint32_t starving;  /* the nursery waits for a free seat */
    _Atomic uint32_t failures;  /* of initializers in a row */
    _Atomic uint32_t stop;      /* what tasks look at */
    _Atomic uint32_t change;    /* counts what new waits for: ready and failed */
    _Atomic uint32_t ready;     /* workers that were, ever */
    _Atomic int32_t failed;     /* below 0: no more workers can be had */
    _Atomic uint64_t deaths, replaced;
};

static inline struct modus_record *modus_record_at(struct modus_pool_shared *shared,
                                                   uint32_t number)
{
    return (struct modus_record *)(void *)(shared->records + number * shared->stride);
}

static inline uint64_t modus_record_state(uint32_t turn, uint32_t seat, enum modus_record_kind kind)
{
    return (uint64_t)turn << 32 | (uint64_t)seat << 16 | (uint64_t)kind;
}

static inline uint32_t modus_record_turn(uint64_t state)
{
    return (uint32_t)(state >> 32);
}

static inline uint32_t modus_record_seat(uint64_t state)
{
    return (uint32_t)(state >> 16 & 0xffff);
}

static inline enum modus_record_kind modus_record_kind(uint64_t state)
{
    return (enum modus_record_kind)(state & 0xffff);
}

static inline bool modus_record_move(struct modus_record *record, uint64_t from, uint64_t to)
{
    return atomic_compare_exchange_strong(&record->state, &from, to);
}

/* Does anybody look for the answer of that turn? */
static inline bool modus_record_watched(struct modus_record *record, uint32_t turn)
{
    uint64_t watched = atomic_load(&record->watched);

    return watched >> 32 == turn && (uint32_t)watched > 0;
}

/* The nursery's main function; its exit code. */
int modus_pool_nursery(void *shared);

/* A worker's. */
struct modus_worker_place {
    struct modus_pool_shared *shared;
    uint32_t seat;
};
int modus_pool_worker(void *place);

#endif
