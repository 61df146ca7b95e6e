/* SPDX-License-Identifier: MIT */
/*
 * glibc: POSIX threads and semaphores, ucontext, fork; and the bare futex, which is what nobody who
 * sleeps can be faster than.
 *
 * POSIX has no queue between threads: the one here is what books teach, a ring, a mutex and two
 * condition variables; in process scope the mutex is robust.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/bench/toolbox/loops.h"

/* --- mutex ------------------------------------------------------------------------------------ */

static void *make_mutex(struct run *run, int type, int robust, int protocol)
{
    pthread_mutex_t *mutex = harness_shared(sizeof *mutex);
    pthread_mutexattr_t attr;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, type);
    pthread_mutexattr_setpshared(&attr,
                                 run->processes ? PTHREAD_PROCESS_SHARED : PTHREAD_PROCESS_PRIVATE);
    pthread_mutexattr_setrobust(&attr, robust);
    pthread_mutexattr_setprotocol(&attr, protocol);
    NEED(pthread_mutex_init(mutex, &attr) == 0);
    return mutex;
}

static void *make_plain(struct run *run)
{
    return make_mutex(run, PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE);
}

static void *make_recursive(struct run *run)
{
    return make_mutex(run, PTHREAD_MUTEX_RECURSIVE,
                      run->processes ? PTHREAD_MUTEX_ROBUST : PTHREAD_MUTEX_STALLED,
                      PTHREAD_PRIO_NONE);
}

static void *make_robust(struct run *run)
{
    return make_mutex(run, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_NONE);
}

static void *make_robust_pi(struct run *run)
{
    return make_mutex(run, PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_INHERIT);
}

static void acquire(void *mutex)
{
    pthread_mutex_lock(mutex);
}

static void acquire_robust(void *mutex)
{
    if (pthread_mutex_lock(mutex) == EOWNERDEAD)
        pthread_mutex_consistent(mutex);
}

static void release(void *mutex)
{
    pthread_mutex_unlock(mutex);
}

static const struct lock_ops plain = {make_plain, nothing, nothing, acquire, release};
static const struct lock_ops recursive = {make_recursive, nothing, nothing, acquire_robust,
                                          release};
static const struct lock_ops robust = {make_robust, nothing, nothing, acquire_robust, release};
static const struct lock_ops robust_pi = {make_robust_pi, nothing, nothing, acquire_robust,
                                          release};
LOCK_JOB(plain_lock, plain)
LOCK_JOB(recursive_lock, recursive)
LOCK_JOB(robust_lock, robust)
LOCK_JOB(robust_pi_lock, robust_pi)

static void robust_recovery(struct run *run)
{
    recovery_run(run, &robust);
}

/* --- semaphore -------------------------------------------------------------------------------- */

static void *make_sem_of(struct run *run, unsigned value)
{
    sem_t *sem = harness_shared(sizeof *sem);

    NEED(sem_init(sem, run->processes, value) == 0);
    return sem;
}

static void *make_sem(struct run *run)
{
    return make_sem_of(run, 1);
}

static void *make_empty_sem(struct run *run)
{
    return make_sem_of(run, 0);
}

static void sem_take(void *sem)
{
    sem_wait(sem);
}

static void sem_give(void *sem)
{
    sem_post(sem);
}

static const struct lock_ops sem_lock_ops = {make_sem, nothing, nothing, sem_take, sem_give};
static const struct relay_ops sem_relay_ops = {make_empty_sem, nothing, nothing, sem_give,
                                               sem_take};
LOCK_JOB(sem_lock, sem_lock_ops)
RELAY_JOB(sem_relay, sem_relay_ops)

/* --- condition -------------------------------------------------------------------------------- */

static void make_cond_at(struct run *run, pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setpshared(&attr,
                                run->processes ? PTHREAD_PROCESS_SHARED : PTHREAD_PROCESS_PRIVATE);
    NEED(pthread_cond_init(cond, &attr) == 0);
}

struct flag {
    pthread_mutex_t *mutex;
    pthread_cond_t raised;
    bool up;
};

static void *make_flag(struct run *run)
{
    struct flag *flag = harness_shared(sizeof *flag);

    flag->mutex = run->processes ? make_robust(run) : make_plain(run);
    make_cond_at(run, &flag->raised);
    return flag;
}

static void raise_flag(void *object)
{
    struct flag *flag = object;

    pthread_mutex_lock(flag->mutex);
    flag->up = true;
    pthread_cond_signal(&flag->raised);
    pthread_mutex_unlock(flag->mutex);
}

static void await_flag(void *object)
{
    struct flag *flag = object;

    pthread_mutex_lock(flag->mutex);
    while (!flag->up)
        pthread_cond_wait(&flag->raised, flag->mutex);
    flag->up = false;
    pthread_mutex_unlock(flag->mutex);
}

static const struct relay_ops flag_ops = {make_flag, nothing, nothing, raise_flag, await_flag};
RELAY_JOB(cond_relay, flag_ops)

/* --- the bare futex --------------------------------------------------------------------------- */

struct bare {
    _Atomic uint32_t word;
    int flags;
};

static void *make_bare(struct run *run)
{
    struct bare *bare = harness_shared(sizeof *bare);

    bare->flags = run->processes ? 0 : FUTEX_PRIVATE_FLAG;
    return bare;
}

static void bare_send(void *object)
{
    struct bare *bare = object;

    atomic_store(&bare->word, 1);
    syscall(SYS_futex, &bare->word, FUTEX_WAKE | bare->flags, 1, NULL, NULL, 0);
}

static void bare_receive(void *object)
{
    struct bare *bare = object;

    while (atomic_exchange(&bare->word, 0) == 0)
        syscall(SYS_futex, &bare->word, FUTEX_WAIT | bare->flags, 0, NULL, NULL, 0);
}

static const struct relay_ops bare_ops = {make_bare, nothing, nothing, bare_send, bare_receive};
RELAY_JOB(bare_relay, bare_ops)

/* --- ring, mutex, two conditions -------------------------------------------------------------- */

struct ring {
    pthread_mutex_t *mutex;
    pthread_cond_t not_empty, not_full;
    unsigned capacity, item, first, count;
    unsigned char items[];
};

static void *make_ring(struct run *run)
{
    struct ring *ring = harness_shared(sizeof *ring + (size_t)run->capacity * run->item);

    ring->mutex = run->processes ? make_robust(run) : make_plain(run);
    make_cond_at(run, &ring->not_empty);
    make_cond_at(run, &ring->not_full);
    ring->capacity = run->capacity;
    ring->item = run->item;
    return ring;
}

static unsigned char *item_at(struct ring *ring, unsigned index)
{
    return ring->items + (size_t)(index & (ring->capacity - 1)) * ring->item;
}

static void ring_put(void *queue, const void *item)
{
    struct ring *ring = queue;

    pthread_mutex_lock(ring->mutex);
    while (ring->count == ring->capacity)
        pthread_cond_wait(&ring->not_full, ring->mutex);
    memcpy(item_at(ring, ring->first + ring->count), item, ring->item);
    ring->count++;
    pthread_cond_signal(&ring->not_empty);
    pthread_mutex_unlock(ring->mutex);
}

static void ring_get(void *queue, void *item)
{
    struct ring *ring = queue;

    pthread_mutex_lock(ring->mutex);
    while (ring->count == 0)
        pthread_cond_wait(&ring->not_empty, ring->mutex);
    memcpy(item, item_at(ring, ring->first), ring->item);
    ring->first++;
    ring->count--;
    pthread_cond_signal(&ring->not_full);
    pthread_mutex_unlock(ring->mutex);
}

static void ring_send(void *queue)
{
    uint64_t item = 1;

    ring_put(queue, &item);
}

static void ring_receive(void *queue)
{
    uint64_t item;

    ring_get(queue, &item);
}

static const struct queue_ops ring_ops = {make_ring, nothing, nothing, ring_put, ring_get};
static const struct relay_ops ring_relay_ops = {make_ring, nothing, nothing, ring_send,
                                                ring_receive};
static const struct lock_ops ring_alone_ops = {make_ring, nothing, nothing, ring_send,
                                               ring_receive};
JOB(ring_queue, queue_loop, ring_ops)
JOB(idle_queue, idle_loop, ring_ops)
JOB(ring_alone, lock_loop, ring_alone_ops)
RELAY_JOB(ring_relay, ring_relay_ops)

/* --- barrier ---------------------------------------------------------------------------------- */

static void *make_barrier(struct run *run)
{
    pthread_barrier_t *barrier = harness_shared(sizeof *barrier);
    pthread_barrierattr_t attr;

    pthread_barrierattr_init(&attr);
    pthread_barrierattr_setpshared(&attr, run->processes ? PTHREAD_PROCESS_SHARED
                                                         : PTHREAD_PROCESS_PRIVATE);
    NEED(pthread_barrier_init(barrier, &attr, run->workers) == 0);
    return barrier;
}

static void meet(void *barrier)
{
    pthread_barrier_wait(barrier);
}

static const struct barrier_ops barrier_ops = {make_barrier, nothing, nothing, meet};
JOB(barrier, barrier_loop, barrier_ops)

/* --- threads and processes -------------------------------------------------------------------- */

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
    pthread_t thread;

    (void)object;
    NEED(pthread_create(&thread, NULL, return_at_once, NULL) == 0);
    pthread_join(thread, NULL);
}

static void fork_and_wait(void *object)
{
    pid_t pid = fork();

    (void)object;
    if (pid == 0)
        _exit(0);
    harness_reap(pid);
}

static const struct once_ops thread_ops = {make_none, nothing, nothing, start_and_join};
static const struct once_ops process_ops = {make_none, nothing, nothing, fork_and_wait};
JOB(start_thread, once_loop, thread_ops)
JOB(start_process, once_loop, process_ops)

/* --- ucontext --------------------------------------------------------------------------------- */

static ucontext_t here, there;

static void come_back(void)
{
    for (;;)
        swapcontext(&there, &here);
}

static void *make_context(struct run *run)
{
    enum { STACK = 65536 };

    (void)run;
    NEED(getcontext(&there) == 0);
    there.uc_stack.ss_sp = malloc(STACK);
    there.uc_stack.ss_size = STACK;
    makecontext(&there, come_back, 0);
    return NULL;
}

static void switch_there(void *object)
{
    (void)object;
    swapcontext(&here, &there);
}

static const struct lock_ops switch_ops = {make_context, nothing, nothing, switch_there,
                                           switch_there};

/* A pair is two round trips. */
static void switch_worker(struct worker *worker)
{
    lock_alone(worker, &switch_ops);
    worker->ops *= 2;
}

static void switches(struct run *run)
{
    run->objects[0] = make_context(run);
    harness_workers(run, switch_worker);
}

/* ---------------------------------------------------------------------------------------------- */

const struct job peer_jobs[] = {
    {"lock", "plain", plain_lock},
    {"lock", "recursive", recursive_lock},
    {"lock", "robust", robust_lock},
    {"lock", "robust-pi", robust_pi_lock},
    {"lock", "sem", sem_lock},
    {"relay", "sem", sem_relay},
    {"relay", "cond", cond_relay},
    {"relay", "futex", bare_relay},
    {"relay", "queue", ring_relay},
    {"lock", "queue", ring_alone},
    {"idle", "queue", idle_queue},
    {"queue", "ring", ring_queue},
    {"barrier", "barrier", barrier},
    {"start", "thread", start_thread},
    {"start", "process", start_process},
    {"switch", "context", switches},
    {"recovery", "lock", robust_recovery},
    {NULL, NULL, NULL},
};
