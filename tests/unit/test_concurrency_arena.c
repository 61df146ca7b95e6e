/* SPDX-License-Identifier: MIT */
/* The arena and its participants: blocks, sharing, cheap forks, identities and burials. */
#include "test_concurrency.h"

#include "concurrency/arena_priv.h"
#include "concurrency/barrier.h"
#include "concurrency/cond.h"
#include "concurrency/event.h"
#include "concurrency/fault.h"
#include "concurrency/once.h"
#include "concurrency/rwlock.h"
#include "concurrency/sem.h"
#include "concurrency/value.h"

#include <sys/mman.h>
#include <sys/resource.h>

static struct modus_arena *arena;

static bool zeroed(const unsigned char *memory, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (memory[i] != 0)
            return false;
    return true;
}

static void test_arguments(void **state)
{
    struct modus_arena *other = NULL;
    int here;
    (void)state;

    assert_int_equal(modus_arena_open(&other, 0, 1), -EINVAL);
    assert_int_equal(modus_arena_open(&other, 4096, 0), -EINVAL);
    assert_int_equal(modus_arena_open(&other, 4096, 32768), -EINVAL);
    assert_int_equal(modus_arena_open(&other, (size_t)1 << 40, 1), -EINVAL);
    assert_null(other);
    assert_int_equal(modus_arena_close(NULL), 0);
    assert_null(modus_arena_alloc(NULL, 8, 0));
    assert_null(modus_arena_alloc(arena, 0, 0));
    assert_null(modus_arena_alloc(arena, 64, 3));
    assert_null(modus_arena_alloc(arena, 64, 8192));
    assert_null(modus_arena_alloc(arena, (size_t)1 << 40, 0));
    assert_int_equal(modus_arena_free(arena, NULL, 5), 0);
    assert_int_equal(modus_arena_free(arena, &here, sizeof here), -EINVAL);
    assert_null(modus_arena_of(&here));
    assert_ptr_equal(modus_arena_of(arena), arena);
}

/* What lies outside of every arena, or in a closed one, is no process's but one's own. */
static void test_process_scope_lies_in_an_arena(void **state)
{
    static struct {
        struct modus_lock lock;
        struct modus_rlock rlock;
        struct modus_cond cond;
        struct modus_event event;
        struct modus_sem sem;
        struct modus_barrier barrier;
        struct modus_value value;
        struct modus_once once;
        struct modus_rwlock rwlock;
    } own;
    struct modus_sem_attr sem = {.scope = MODUS_PROCESS, .arena = arena};
    struct modus_barrier_attr barrier = {.scope = MODUS_PROCESS, .parties = 2, .arena = arena};
    struct modus_lock *lock = modus_arena_alloc(arena, sizeof *lock, 0);
    (void)state;

    assert_int_equal(modus_lock_init(&own.lock, MODUS_PROCESS), -EINVAL);
    assert_int_equal(modus_rlock_init(&own.rlock, MODUS_PROCESS), -EINVAL);
    assert_int_equal(modus_event_init(&own.event, MODUS_PROCESS), -EINVAL);
    assert_int_equal(modus_sem_init(&own.sem, &sem), -EINVAL);
    assert_int_equal(modus_barrier_init(&own.barrier, &barrier), -EINVAL);
    assert_int_equal(modus_value_init(&own.value, MODUS_PROCESS, 1), -EINVAL);
    assert_int_equal(modus_once_init(&own.once, MODUS_PROCESS), -EINVAL);
    assert_int_equal(modus_rwlock_init(&own.rwlock, MODUS_PROCESS), -EINVAL);
    assert_int_equal(modus_lock_init(lock, MODUS_PROCESS), 0);
    assert_int_equal(modus_cond_init(&own.cond, lock), -EINVAL);
    assert_int_equal(modus_lock_acquire(&own.lock, 0), -EINVAL);
    modus_lock_fini(lock);
    modus_arena_free(arena, lock, sizeof *lock);
}

static void test_blocks(void **state)
{
    static const size_t sizes[] = {1, 64, 65, 100, 1000, 4096, 5000, 20000, 65536, 100000, 3000000};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *first = modus_arena_alloc(arena, sizes[i], 0);
        unsigned char *second = modus_arena_alloc(arena, sizes[i], 0);

        assert_non_null(first);
        assert_non_null(second);
        assert_true(first + sizes[i] <= second || second + sizes[i] <= first);
        assert_int_equal((uintptr_t)first % 64, 0);
        memset(first, 0xab, sizes[i]);
        memset(second, 0xcd, sizes[i]);
        assert_int_equal(first[sizes[i] - 1], 0xab);
        assert_int_equal(modus_arena_free(arena, first, sizes[i] * 5 + 64), -EINVAL);
        assert_int_equal(modus_arena_free(arena, first + 64, sizes[i]), -EINVAL);
        assert_int_equal(modus_arena_free(arena, first, sizes[i]), 0);
        assert_int_equal(modus_arena_free(arena, first, sizes[i]), -EINVAL);
        unsigned char *again = modus_arena_alloc(arena, sizes[i], 0);
        assert_ptr_equal(again, first);
        assert_true(zeroed(again, sizes[i]));
        assert_int_equal(second[0], 0xcd);
        assert_int_equal(modus_arena_free(arena, again, sizes[i]), 0);
        assert_int_equal(modus_arena_free(arena, second, sizes[i]), 0);
    }
}

static void test_alignment(void **state)
{
    (void)state;
    for (size_t align = 1; align <= 4096; align *= 2) {
        void *memory = modus_arena_alloc(arena, 10, align);

        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % align, 0);
        assert_int_equal(modus_arena_free(arena, memory, 10), 0);
    }
}

static void test_full(void **state)
{
    struct modus_arena *small;
    void *blocks[64];
    int n = 0;
    (void)state;

    assert_int_equal(modus_arena_open(&small, (size_t)1 << 20, 1), 0);
    while (n < 64 && (blocks[n] = modus_arena_alloc(small, 65536, 0)) != NULL)
        n++;
    assert_in_range(n, 15, 16);
    assert_null(modus_arena_alloc(small, 65536, 0));
    assert_int_equal(modus_arena_free(small, blocks[3], 65536), 0);
    assert_ptr_equal(modus_arena_alloc(small, 65536, 0), blocks[3]);
    assert_int_equal(modus_arena_close(small), 0);
    assert_null(modus_arena_of(blocks[3]));
}

/* The pages of a big block are gone after the free. */
static void test_pages_go_back(void **state)
{
    size_t size = (size_t)4 << 20;
    unsigned char *memory = modus_arena_alloc(arena, size, 0), present = 0;
    (void)state;

    memset(memory, 1, size);
    assert_int_equal(mincore(memory, 4096, &present), 0);
    assert_true(present & 1);
    assert_int_equal(modus_arena_free(arena, memory, size), 0);
    assert_int_equal(mincore(memory, 4096, &present), 0);
    assert_false(present & 1);
}

/* Several GiB are legal, and a fork does not copy what is in use of them. */
static int do_nothing(void *argument)
{
    (void)argument;
    return 0;
}

static void test_large_and_cheap_to_fork(void **state)
{
    struct modus_arena *large;
    (void)state;

    assert_int_equal(modus_arena_open(&large, (size_t)8 << 30, 256), 0);
    size_t size = (size_t)64 << 20;
    unsigned char *memory = modus_arena_alloc(large, size, 0);
    assert_non_null(modus_arena_alloc(large, (size_t)5 << 30, 0));
    memset(memory, 1, size);
    int64_t best = INT64_MAX;
    for (int i = 0; i < 10; i++) {
        int64_t start = modus_now_ns();

        assert_int_equal(reap(start_child(do_nothing, NULL)), 0);
        int64_t took = modus_now_ns() - start;
        best = took < best ? took : best;
    }
    /* Copying the page tables of 64 MiB alone takes more than 1 ms; slack for a busy machine. */
    assert_true(best < modus_ms(SLOW ? 200 : 20));
    assert_int_equal(modus_arena_close(large), 0);
}

/* --- many at a time -------------------------------------------------------------------------- */

enum { KEPT = 32 };

struct scribbling {
    int rounds;
    enum modus_fault_point point;
    unsigned passing;
    _Atomic int overlaps;
};

/* Allocate, sign, and find the signature unharmed before freeing. */
static void scribble(struct scribbling *scribbling, uint64_t me)
{
    struct {
        uint64_t *memory;
        size_t size;
    } kept[KEPT] = {0};
    uint64_t random = me;

    for (int i = 0; i < scribbling->rounds + KEPT; i++) {
        int at = i % KEPT;

        if (kept[at].memory) {
            if (kept[at].memory[0] != me || kept[at].memory[kept[at].size / 8 - 1] != me)
                atomic_fetch_add(&scribbling->overlaps, 1);
            CHECK_INT(modus_arena_free(arena, kept[at].memory, kept[at].size), 0);
            kept[at].memory = NULL;
        }
        if (i >= scribbling->rounds)
            continue;
        random = random * 6364136223846793005u + 1442695040888963407u;
        kept[at].size = (size_t)64 << (random >> 60) % 6;
        kept[at].memory = modus_arena_alloc(arena, kept[at].size, 0);
        CHECK(kept[at].memory);
        CHECK(zeroed((unsigned char *)kept[at].memory, kept[at].size));
        kept[at].memory[0] = kept[at].memory[kept[at].size / 8 - 1] = me;
    }
}

static void *scribble_thread(void *argument)
{
    scribble(argument, (uint64_t)gettid());
    return NULL;
}

static int scribble_child(void *argument)
{
    struct scribbling *scribbling = argument;

    modus_fault_plan(scribbling->point, MODUS_FAULT_DIE, scribbling->passing);
    scribble(scribbling, (uint64_t)getpid());
    return 0;
}

static void test_threads_and_processes_allocate(void **state)
{
    struct scribbling *scribbling = modus_arena_alloc(arena, sizeof *scribbling, 0);
    pthread_t threads[3];
    pid_t pids[3];
    (void)state;

    scribbling->rounds = SLOW ? 2000 : 20000;
    for (int i = 0; i < 3; i++)
        pids[i] = start_child(scribble_child, scribbling);
    for (int i = 0; i < 3; i++)
        threads[i] = start_thread(scribble_thread, scribbling);
    for (int i = 0; i < 3; i++) {
        join_thread(threads[i]);
        assert_int_equal(reap(pids[i]), 0);
    }
    assert_int_equal(scribbling->overlaps, 0);
}

/* Killed inside alloc or free: nobody hangs, nothing overlaps. */
static void test_allocator_dies(void **state)
{
    static const enum modus_fault_point points[] = {
        MODUS_FAULT_ALLOC_POPPED, MODUS_FAULT_ALLOC_CARVED, MODUS_FAULT_FREE_MARKED};
    struct scribbling *scribbling = modus_arena_alloc(arena, sizeof *scribbling, 0);
    (void)state;

    scribbling->rounds = 500;
    for (size_t i = 0; i < 3; i++)
        for (unsigned passing = 1; passing <= 3; passing++) {
            pid_t pids[3];

            scribbling->point = points[i];
            scribbling->passing = passing;
            for (int p = 0; p < 3; p++)
                pids[p] = start_child(scribble_child, scribbling);
            scribble(scribbling, 7);
            for (int p = 0; p < 3; p++) {
                int end = reap(pids[p]);

                /* Not every one must carve a page. */
                assert_true(end == -SIGKILL || (end == 0 && points[i] == MODUS_FAULT_ALLOC_CARVED));
            }
        }
    assert_int_equal(scribbling->overlaps, 0);
}

static int pop_slowly(void *argument)
{
    unsigned char **blocks = argument;

    modus_fault_plan(MODUS_FAULT_ALLOC_READ, MODUS_FAULT_STOP, 1);
    blocks[2] = modus_arena_alloc(arena, 1 << 15, 0);
    return blocks[2] ? 0 : 1;
}

/* Stopped between reading the top of a free list and taking it; meanwhile the top is taken, the
 * next one too, and the top given back (ABA). Must hold: the next one is not given out twice. */
static void test_top_comes_back(void **state)
{
    unsigned char **blocks = modus_arena_alloc(arena, 4 * sizeof *blocks, 0);
    (void)state;

    for (int i = 0; i < 2; i++)
        blocks[i] = modus_arena_alloc(arena, 1 << 15, 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(modus_arena_free(arena, blocks[i], 1 << 15), 0);
    pid_t pid = start_child(pop_slowly, blocks);
    AWAIT(state_of(pid) == 'T');
    assert_ptr_equal(modus_arena_alloc(arena, 1 << 15, 0), blocks[1]);
    assert_ptr_equal(modus_arena_alloc(arena, 1 << 15, 0), blocks[0]);
    assert_int_equal(modus_arena_free(arena, blocks[1], 1 << 15), 0);
    kill(pid, SIGCONT);
    assert_int_equal(reap(pid), 0);
    blocks[3] = modus_arena_alloc(arena, 1 << 15, 0);
    assert_ptr_not_equal(blocks[2], blocks[0]);
    assert_ptr_not_equal(blocks[3], blocks[0]);
    assert_ptr_not_equal(blocks[3], blocks[2]);
}

/* --- participants ---------------------------------------------------------------------------- */

static void *join_and_leave(void *ids)
{
    int id = modus_participant_join(arena);

    CHECK(id > 0);
    CHECK_INT(modus_participant_join(arena), id);
    CHECK_INT(modus_participant_self(arena), id);
    CHECK(modus_participant_alive(arena, id));
    atomic_fetch_add((_Atomic int *)ids, 1);
    AWAIT(atomic_load((_Atomic int *)ids) == 3);
    CHECK_INT(modus_participant_leave(arena), 0);
    CHECK_INT(modus_participant_leave(arena), -EPERM);
    CHECK_INT(modus_participant_self(arena), -EPERM);
    return NULL;
}

static void test_join_and_leave(void **state)
{
    struct modus_participant before, after;
    struct modus_doorbell bell;
    _Atomic int ids = 0;
    pthread_t threads[3];
    (void)state;

    assert_int_equal(modus_participant_self(arena), -EPERM);
    assert_int_equal(modus_participant_look(arena, 0, &before), -EINVAL);
    assert_int_equal(modus_participant_look(arena, 999, &before), -EINVAL);
    assert_int_equal(modus_participant_look(arena, 1, &before), -EAGAIN);
    for (int i = 0; i < 3; i++)
        threads[i] = start_thread(join_and_leave, &ids);
    for (int i = 0; i < 3; i++)
        join_thread(threads[i]);
    int id = modus_participant_join(arena);
    assert_int_equal(modus_participant_set_bell(arena, &bell), 0);
    assert_int_equal(modus_participant_look(arena, id, &before), 0);
    assert_int_equal(before.pid, getpid());
    assert_int_equal(before.tid, gettid());
    assert_ptr_equal(before.bell, &bell);
    assert_int_equal(modus_participant_leave(arena), 0);
    assert_false(modus_participant_alive(arena, id));
    assert_int_equal(modus_participant_set_bell(arena, &bell), -EPERM);
    assert_int_equal(modus_participant_join(arena), id);
    assert_int_equal(modus_participant_look(arena, id, &after), 0);
    assert_int_equal(after.generation, before.generation + 1);
    assert_null(after.bell);
    assert_int_equal(modus_participant_leave(arena), 0);
}

static int use_identity(void *parents_id)
{
    CHECK_INT(modus_participant_self(arena), -ECHILD);
    CHECK_INT(modus_participant_leave(arena), -ECHILD);
    int id = modus_participant_join(arena);
    CHECK(id > 0 && id != *(int *)parents_id);
    CHECK(modus_participant_alive(arena, *(int *)parents_id));
    CHECK_INT(modus_participant_leave(arena), 0);
    CHECK_INT(modus_participant_self(arena), -EPERM);
    return 0;
}

static void test_child_has_no_identity(void **state)
{
    int id = modus_participant_join(arena);
    (void)state;

    assert_true(id > 0);
    assert_int_equal(reap(start_child(use_identity, &id)), 0);
    assert_int_equal(modus_participant_self(arena), id);
    assert_int_equal(modus_participant_leave(arena), 0);
}

static int join_and_end(void *argument)
{
    (void)argument;
    CHECK(modus_participant_join(arena) > 0);
    return 0;
}

/* The table fills with the dead, is swept by the next join, and is full only of the living. */
static int join_and_stay(void *ready)
{
    CHECK(modus_participant_join(arena) > 0);
    atomic_fetch_add((_Atomic int *)ready, 1);
    for (;;)
        pause();
}

/* There is memory, but no place in the process's table. */
static void test_too_many_arenas(void **state)
{
    struct modus_arena *arenas[MODUS_ARENAS_MAX], *one_more = NULL;
    int n = 0, rc;
    (void)state;

    while ((rc = modus_arena_open(&arenas[n], 4096, 1)) == 0)
        n++;
    assert_int_equal(rc, -EUSERS);
    assert_in_range(n, MODUS_ARENAS_MAX - 2, MODUS_ARENAS_MAX - 1); /* the test's own */
    assert_int_equal(modus_arena_close(arenas[--n]), 0);
    assert_int_equal(modus_arena_open(&one_more, 4096, 1), 0);
    assert_int_equal(modus_arena_close(one_more), 0);
    while (n > 0)
        assert_int_equal(modus_arena_close(arenas[--n]), 0);
}

static void test_table_full(void **state)
{
    _Atomic int *ready = modus_arena_alloc(arena, sizeof *ready, 0);
    pid_t pids[8], dead[8];
    (void)state;

    for (int i = 0; i < 8; i++)
        dead[i] = start_child(join_and_end, NULL);
    for (int i = 0; i < 8; i++)
        assert_int_equal(reap(dead[i]), 0);
    for (int i = 0; i < 8; i++)
        pids[i] = start_child(join_and_stay, ready);
    AWAIT(atomic_load(ready) == 8);
    assert_int_equal(modus_participant_join(arena), -EUSERS);
    for (int i = 0; i < 8; i++)
        assert_true(modus_participant_alive(arena, i + 1));
    kill_child(pids[5]);
    int id = modus_participant_join(arena);
    assert_true(id > 0);
    assert_int_equal(modus_participant_leave(arena), 0);
    for (int i = 0; i < 8; i++)
        if (i != 5)
            kill_child(pids[i]);
    assert_int_equal(modus_participant_bury(arena, 0), 7);
    assert_int_equal(modus_participant_bury(arena, 0), 0);
}

/* A thread that ends without leaving is dead too, though its process lives. */
static void *join_and_forget(void *argument)
{
    (void)argument;
    CHECK(modus_participant_join(arena) > 0);
    return NULL;
}

static void test_thread_ends(void **state)
{
    (void)state;
    join_thread(start_thread(join_and_forget, NULL));
    assert_int_equal(modus_participant_bury(arena, getpid()), 1);
}

static void *hold_first_slot(void *argument)
{
    _Atomic int *step = argument;

    CHECK_INT(pthread_mutex_trylock(&arena->slots[0].live), EOWNERDEAD);
    atomic_store(step, 1);
    AWAIT(atomic_load(step) == 2);
    pthread_mutex_consistent(&arena->slots[0].live);
    pthread_mutex_unlock(&arena->slots[0].live);
    return NULL;
}

/* That a participant is dead is a fact, whoever else has just asked after it: the supervisor asks
 * once. Here another thread has the dead one's mutex. */
static void test_dead_for_all(void **state)
{
    pid_t pid = start_child(join_and_end, NULL);
    struct modus_participant dead;
    _Atomic int step = 0;
    (void)state;

    assert_int_equal(reap(pid), 0);
    assert_int_equal(modus_participant_look(arena, 1, &dead), 0);
    assert_int_equal(dead.pid, pid);
    pthread_t other = start_thread(hold_first_slot, &step);
    AWAIT(atomic_load(&step) == 1);
    assert_false(modus_participant_alive(arena, 1));
    assert_int_equal(modus_participant_bury(arena, pid), 1);
    assert_int_equal(modus_participant_look(arena, 1, &dead), -EAGAIN);
    atomic_store(&step, 2);
    join_thread(other);
}

static int die_in_table(void *argument)
{
    const unsigned *plan = argument;

    modus_fault_plan((enum modus_fault_point)plan[0], MODUS_FAULT_DIE, plan[1]);
    for (;;) {
        CHECK(modus_participant_join(arena) > 0);
        CHECK_INT(modus_participant_leave(arena), 0);
        modus_participant_bury(arena, 0);
    }
}

/* Killed at every point of joining, leaving and burying (the first passing, and one with a dead
 * participant to bury): the table stays whole. */
static void test_dies_in_the_table(void **state)
{
    static const unsigned points[] = {MODUS_FAULT_JOIN_HELD,     MODUS_FAULT_JOIN_LIVE,
                                      MODUS_FAULT_LEAVE_MARKED,  MODUS_FAULT_BURY_FOUND,
                                      MODUS_FAULT_BURY_SCRUBBED, MODUS_FAULT_BURY_MOVED};
    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        for (unsigned passing = 1; passing <= 2; passing++) {
            unsigned plan[2] = {points[i], passing};
            pid_t pids[3];

            /* One dead participant for each burial that shall be passed. */
            for (unsigned dead = 0; dead < passing; dead++)
                pids[dead] = start_child(join_and_end, NULL);
            for (unsigned dead = 0; dead < passing; dead++)
                assert_int_equal(reap(pids[dead]), 0);
            pid_t dier = start_child(die_in_table, plan);
            assert_int_equal(reap(dier), -SIGKILL);
            modus_participant_bury(arena, 0);
            for (int id = 1; id <= 8; id++)
                assert_false(modus_participant_alive(arena, id));
            assert_true(modus_participant_join(arena) > 0);
            assert_int_equal(modus_participant_leave(arena), 0);
        }
}

static void *stay_joined(void *argument)
{
    _Atomic int *step = argument;

    CHECK(modus_participant_join(arena) > 0);
    atomic_store(step, 1);
    AWAIT(atomic_load(step) == 2);
    CHECK_INT(modus_participant_leave(arena), 0);
    return NULL;
}

static void test_close_while_joined(void **state)
{
    _Atomic int step = 0;
    (void)state;

    pthread_t thread = start_thread(stay_joined, &step);
    AWAIT(atomic_load(&step) == 1);
    assert_int_equal(modus_arena_close(arena), -EBUSY);
    atomic_store(&step, 2);
    join_thread(thread);
}

/* Who waits for an object of one arena looks through all of them, and one may be unmapped between
 * any two steps of that: so none is read. */
static int look_without_reading(void *argument)
{
    struct modus_arena *others[2];
    (void)argument;

    for (int i = 0; i < 2; i++)
        CHECK_INT(modus_arena_open(&others[i], 4096, 1), 0);
    void *memory = modus_arena_alloc(others[1], 64, 0);
    for (int i = 0; i < 2; i++)
        CHECK_INT(mprotect(others[i], 4096, PROT_NONE), 0);
    CHECK(modus_arena_of(memory) == others[1]);
    CHECK(!modus_arena_of(&memory));
    return 0;
}

static void test_look_while_another_closes(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(look_without_reading, NULL)), 0);
}

static int open_arena(void **state)
{
    (void)state;
    return modus_arena_open(&arena, (size_t)64 << 20, 8);
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

/* Who holds a lock there can't close it: the kernel would look for the lock at the thread's end, and
 * the next one that it acquires would write into it. */
static void test_close_while_held(void **state)
{
    struct modus_arena *here, *other;
    struct modus_lock *first, *second, *elsewhere;
    (void)state;

    assert_int_equal(modus_arena_open(&here, 1 << 20, 4), 0);
    assert_int_equal(modus_arena_open(&other, 1 << 20, 4), 0);
    first = modus_arena_alloc(here, sizeof *first, 0);
    second = modus_arena_alloc(here, sizeof *second, 0);
    elsewhere = modus_arena_alloc(other, sizeof *elsewhere, 0);
    assert_int_equal(modus_lock_init(first, MODUS_PROCESS), 0);
    assert_int_equal(modus_lock_init(second, MODUS_PROCESS), 0);
    assert_int_equal(modus_lock_init(elsewhere, MODUS_PROCESS), 0);
    assert_true(modus_participant_join(here) > 0);
    assert_int_equal(modus_lock_acquire(first, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_acquire(elsewhere, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_acquire(second, MODUS_FOREVER), 0);
    assert_int_equal(modus_arena_close(here), -EBUSY);
    assert_int_equal(modus_lock_release(second), 0);
    assert_int_equal(modus_arena_close(here), -EBUSY);
    assert_true(modus_participant_self(here) > 0);
    assert_int_equal(modus_lock_release(first), 0);
    assert_int_equal(modus_arena_close(here), 0);
    assert_int_equal(modus_lock_release(elsewhere), 0);
    assert_int_equal(modus_arena_close(other), 0);
}

static int open_with_small_files(void *argument)
{
    struct rlimit limit = {1 << 20, 1 << 20};
    struct modus_arena *here;
    (void)argument;

    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_INT(modus_arena_open(&here, 4 << 20, 4), 0);
    char *large = modus_arena_alloc(here, 2 << 20, 0);
    CHECK(large != NULL);
    large[(2 << 20) - 1] = 1;
    CHECK_INT(modus_arena_free(here, large, 2 << 20), 0);
    large = modus_arena_alloc(here, 2 << 20, 0);
    CHECK(large != NULL && large[(2 << 20) - 1] == 0);
    return -modus_arena_close(here);
}

/* A process that may only write small files may have a large arena. */
static void test_small_files(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(open_with_small_files, NULL)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_arguments, watchdog),
        cmocka_unit_test_setup(test_process_scope_lies_in_an_arena, watchdog),
        cmocka_unit_test_setup(test_blocks, watchdog),
        cmocka_unit_test_setup(test_alignment, watchdog),
        cmocka_unit_test_setup(test_full, watchdog),
        cmocka_unit_test_setup(test_pages_go_back, watchdog),
        cmocka_unit_test_setup(test_large_and_cheap_to_fork, watchdog),
        cmocka_unit_test_setup(test_child_has_no_identity, watchdog),
        cmocka_unit_test_setup(test_too_many_arenas, watchdog),
        cmocka_unit_test_setup(test_table_full, watchdog),
        cmocka_unit_test_setup(test_dead_for_all, watchdog),
        cmocka_unit_test_setup(test_dies_in_the_table, watchdog),
        cmocka_unit_test_setup(test_allocator_dies, watchdog),
        cmocka_unit_test_setup(test_threads_and_processes_allocate, watchdog),
        cmocka_unit_test_setup(test_top_comes_back, watchdog),
        cmocka_unit_test_setup(test_join_and_leave, watchdog),
        cmocka_unit_test_setup(test_thread_ends, watchdog),
        cmocka_unit_test_setup(test_close_while_joined, watchdog),
        cmocka_unit_test_setup(test_close_while_held, watchdog),
        cmocka_unit_test_setup(test_small_files, watchdog),
        cmocka_unit_test_setup(test_look_while_another_closes, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
