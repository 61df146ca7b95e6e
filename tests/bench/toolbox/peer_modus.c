/* SPDX-License-Identifier: MIT */
/* Modus' own toolbox. */
#include <sched.h>
#include <unistd.h>

#include "concurrency/arena.h"
#include "concurrency/barrier.h"
#include "concurrency/cond.h"
#include "concurrency/event.h"
#include "concurrency/fault.h"
#include "concurrency/lock.h"
#include "concurrency/participant.h"
#include "concurrency/queue.h"
#include "concurrency/rlock.h"
#include "concurrency/sem.h"
#include "concurrency/thread.h"
#include "tests/bench/toolbox/loops.h"
#include "tests/bench/toolbox/peer_modus.h"

/* Objects of both scopes lie in it. */
static struct modus_arena *arena;

static enum modus_scope scope_of(struct run *run)
{
    return run->processes ? MODUS_PROCESS : MODUS_THREAD;
}

static void *shared(size_t bytes)
{
    if (!arena)
        NEED(modus_arena_open(&arena, (size_t)1 << 28, 128) == 0);
    void *memory = modus_arena_alloc(arena, bytes, 128);
    NEED(memory);
    return memory;
}

static void join(struct run *run)
{
    if (run->processes)
        NEED(modus_participant_join(arena) > 0);
}

static void leave(struct run *run)
{
    if (run->processes)
        modus_participant_leave(arena);
}

/* --- locks ------------------------------------------------------------------------------------ */

static void *make_lock(struct run *run)
{
    struct modus_lock *lock = shared(sizeof *lock);

    NEED(modus_lock_init(lock, scope_of(run)) == 0);
    return lock;
}

static void acquire(void *lock)
{
    modus_lock_acquire(lock, MODUS_FOREVER);
}

static void acquire_from_the_dead(void *lock)
{
    if (modus_lock_acquire(lock, MODUS_FOREVER) == MODUS_OWNERDEAD)
        modus_lock_consistent(lock);
}

static void release(void *lock)
{
    modus_lock_release(lock);
}

static void *make_rlock(struct run *run)
{
    struct modus_rlock *lock = shared(sizeof *lock);

    NEED(modus_rlock_init(lock, scope_of(run)) == 0);
    return lock;
}

static void racquire(void *lock)
{
    modus_rlock_acquire(lock, MODUS_FOREVER);
}

static void rrelease(void *lock)
{
    modus_rlock_release(lock);
}

static const struct lock_ops lock_ops = {make_lock, nothing, nothing, acquire, release};
static const struct lock_ops recovered = {make_lock, nothing, nothing, acquire_from_the_dead,
                                          release};
static const struct lock_ops rlock_ops = {make_rlock, nothing, nothing, racquire, rrelease};
LOCK_JOB(lock, lock_ops)
LOCK_JOB(rlock, rlock_ops)

static void lock_recovery(struct run *run)
{
    recovery_run(run, &recovered);
}

/* --- semaphore -------------------------------------------------------------------------------- */

static void *make_sem_of(struct run *run, unsigned value, bool accounted)
{
    struct modus_sem *sem = shared(sizeof *sem);
    struct modus_sem_attr attr = {.scope = scope_of(run), .value = value, .accounted = accounted};

    NEED(modus_sem_init(sem, &attr) == 0);
    return sem;
}

static void *make_sem(struct run *run)
{
    return make_sem_of(run, 1, false);
}

static void *make_empty_sem(struct run *run)
{
    return make_sem_of(run, 0, false);
}

static void *make_accounted(struct run *run)
{
    return make_sem_of(run, 1, true);
}

static void sem_take(void *sem)
{
    modus_sem_acquire(sem, MODUS_FOREVER);
}

static void sem_give(void *sem)
{
    modus_sem_release(sem, 1);
}

static const struct lock_ops sem_ops = {make_sem, nothing, nothing, sem_take, sem_give};
static const struct lock_ops accounted_ops = {make_accounted, join, leave, sem_take, sem_give};
static const struct relay_ops sem_relay_ops = {make_empty_sem, nothing, nothing, sem_give,
                                               sem_take};
LOCK_JOB(sem, sem_ops)
LOCK_JOB(accounted, accounted_ops)
RELAY_JOB(sem_relay, sem_relay_ops)

/* --- event and condition ---------------------------------------------------------------------- */

static void *make_event(struct run *run)
{
    struct modus_event *event = shared(sizeof *event);

    NEED(modus_event_init(event, scope_of(run)) == 0);
    return event;
}

static void event_send(void *event)
{
    modus_event_set(event);
}

static void event_receive(void *event)
{
    modus_event_wait(event, MODUS_FOREVER);
    modus_event_clear(event);
}

struct flag {
    struct modus_lock lock;
    struct modus_cond raised;
    bool up;
};

static void *make_flag(struct run *run)
{
    struct flag *flag = shared(sizeof *flag);

    NEED(modus_lock_init(&flag->lock, scope_of(run)) == 0);
    NEED(modus_cond_init(&flag->raised, &flag->lock) == 0);
    return flag;
}

static void raise_flag(void *object)
{
    struct flag *flag = object;

    modus_lock_acquire(&flag->lock, MODUS_FOREVER);
    flag->up = true;
    modus_cond_notify(&flag->raised, 1);
    modus_lock_release(&flag->lock);
}

static void await_flag(void *object)
{
    struct flag *flag = object;

    modus_lock_acquire(&flag->lock, MODUS_FOREVER);
    while (!flag->up)
        modus_cond_wait(&flag->raised, MODUS_FOREVER);
    flag->up = false;
    modus_lock_release(&flag->lock);
}

static const struct lock_ops event_ops = {make_event, nothing, nothing, event_send, event_receive};
static const struct relay_ops event_relay_ops = {make_event, nothing, nothing, event_send,
                                                 event_receive};
static const struct relay_ops flag_ops = {make_flag, nothing, nothing, raise_flag, await_flag};
LOCK_JOB(event, event_ops)
RELAY_JOB(event_relay, event_relay_ops)
RELAY_JOB(cond_relay, flag_ops)

/* --- queue ------------------------------------------------------------------------------------ */

static void *make_queue(struct run *run)
{
    struct modus_queue *queue = shared(sizeof *queue);
    struct modus_queue_attr attr = {.scope = scope_of(run),
                                    .arena = run->processes ? arena : NULL,
                                    .capacity = run->capacity,
                                    .item_size = run->item};

    NEED(modus_queue_init(queue, &attr) == 0);
    return queue;
}

static void put(void *queue, const void *item)
{
    modus_queue_put(queue, item, MODUS_FOREVER);
}

static void get(void *queue, void *item)
{
    modus_queue_get(queue, item, MODUS_FOREVER);
}

/* As others use a ring that cannot wait. */
static void put_yielding(void *queue, const void *item)
{
    while (modus_queue_try_put(queue, item) == MODUS_FULL)
        sched_yield();
}

static void get_yielding(void *queue, void *item)
{
    while (modus_queue_try_get(queue, item) == MODUS_EMPTY)
        sched_yield();
}

static void queue_send(void *queue)
{
    uint64_t item = 1;

    put(queue, &item);
}

static void queue_receive(void *queue)
{
    uint64_t item;

    get(queue, &item);
}

static const struct queue_ops queue_ops = {make_queue, join, leave, put, get};
/* Whoever leaves wakes all who sleep in the arena: here nobody does, so that only what idling costs
 * is counted. */
static const struct queue_ops idle_ops = {make_queue, join, nothing, put, get};
static const struct queue_ops yielding_ops = {make_queue, join, leave, put_yielding, get_yielding};
static const struct relay_ops queue_relay_ops = {make_queue, join, leave, queue_send,
                                                 queue_receive};
JOB(queue, queue_loop, queue_ops)
static const struct lock_ops queue_alone_ops = {make_queue, join, leave, queue_send, queue_receive};
JOB(yielding, queue_loop, yielding_ops)
JOB(idle_queue, idle_loop, idle_ops)
JOB(queue_alone, lock_loop, queue_alone_ops)
RELAY_JOB(queue_relay, queue_relay_ops)

/* --- recovery of claims ----------------------------------------------------------------------- */

/* Claims other than a lock's come back when the supervisor, having reaped the dead, buries it. Here
 * that is the thread which waits for what the dead had, so what is timed is the end of the process,
 * the burial and the operation. hold and take are a child's and ours. */
static void recover(struct run *run, void (*hold)(void *object, _Atomic int64_t *killed),
                    void (*take)(void *object))
{
    struct worker *worker = &run->all[0];
    _Atomic int64_t *killed = harness_shared(sizeof *killed);

    atomic_store(&run->go, 1);
    harness_begin(worker);
    join(run);
    for (unsigned i = 0; i < run->count; i++) {
        int holder = harness_fork();

        if (holder == 0) {
            join(run);
            hold(run->objects[0], killed);
        }
        harness_bury(holder);
        modus_participant_bury(arena, holder);
        take(run->objects[0]);
        harness_waited(&worker->waits, harness_now() - atomic_load(killed));
    }
    leave(run);
    harness_end(worker);
    worker->ops = run->count;
}

static void die_putting(void *queue, _Atomic int64_t *killed)
{
    modus_fault_plan(MODUS_FAULT_PUT_CLAIMED, MODUS_FAULT_DIE, 1);
    atomic_store(killed, harness_now());
    queue_send(queue);
}

static void put_and_get(void *queue)
{
    queue_send(queue);
    queue_receive(queue);
}

static void queue_recovery(struct run *run)
{
    run->objects[0] = make_queue(run);
    recover(run, die_putting, put_and_get);
}

static void die_holding(void *sem, _Atomic int64_t *killed)
{
    sem_take(sem);
    atomic_store(killed, harness_now());
    harness_kill(getpid());
}

static void take_and_give(void *sem)
{
    sem_take(sem);
    sem_give(sem);
}

static void sem_recovery(struct run *run)
{
    run->objects[0] = make_accounted(run);
    recover(run, die_holding, take_and_give);
}

/* --- barrier ---------------------------------------------------------------------------------- */

static void *make_barrier(struct run *run)
{
    struct modus_barrier *barrier = shared(sizeof *barrier);
    struct modus_barrier_attr attr = {
        .scope = scope_of(run), .parties = run->workers, .arena = run->processes ? arena : NULL};

    NEED(modus_barrier_init(barrier, &attr) == 0);
    return barrier;
}

static void meet(void *barrier)
{
    modus_barrier_wait(barrier, MODUS_FOREVER);
}

static const struct barrier_ops barrier_ops = {make_barrier, join, leave, meet};
JOB(barrier, barrier_loop, barrier_ops)

/* --- threads ---------------------------------------------------------------------------------- */

static void *make_none(struct run *run)
{
    return run;
}

static void *return_at_once(void *argument)
{
    return argument;
}

static void start_and_join(void *object)
{
    struct modus_thread *thread;

    (void)object;
    NEED(modus_thread_new(&thread, NULL, return_at_once, NULL) == 0);
    NEED(modus_thread_start(thread) == 0);
    modus_thread_join(thread, MODUS_FOREVER, NULL);
    modus_thread_put(thread);
}

static const struct once_ops thread_ops = {make_none, nothing, nothing, start_and_join};
JOB(start_thread, once_loop, thread_ops)

/* --- how fast is this machine? ---------------------------------------------------------------- */

/* CALIBRATE_TURNS of bench_toolbox.py. */
static void compute(void *object)
{
    (void)object;
    spend(100000);
}

static const struct once_ops compute_ops = {make_none, nothing, nothing, compute};
JOB(calibrate, once_loop, compute_ops)

/* ---------------------------------------------------------------------------------------------- */

const struct job peer_jobs[] = {
    {"lock", "lock", lock},
    {"lock", "rlock", rlock},
    {"lock", "sem", sem},
    {"lock", "accounted", accounted},
    {"lock", "event", event},
    {"relay", "sem", sem_relay},
    {"relay", "event", event_relay},
    {"relay", "cond", cond_relay},
    {"relay", "queue", queue_relay},
    {"lock", "queue", queue_alone},
    {"idle", "queue", idle_queue},
    {"queue", "queue", queue},
    {"queue", "yielding", yielding},
    {"barrier", "barrier", barrier},
    {"start", "thread", start_thread},
    {"start", "process", peer_modus_process},
    {"tasks", "pool", peer_modus_tasks},
    {"task", "pool", peer_modus_task},
    {"tasks", "processes", peer_modus_tasks_process},
    {"task", "processes", peer_modus_task_process},
    {"switch", "context", peer_modus_switches},
    {"switch", "yield", peer_modus_yields},
    {"switch", "create", peer_modus_creates},
    {"sleepers", "coroutine", peer_modus_sleepers},
    {"recovery", "lock", lock_recovery},
    {"recovery", "queue", queue_recovery},
    {"recovery", "sem", sem_recovery},
    {"calibrate", "work", calibrate},
    {NULL, NULL, NULL},
};
