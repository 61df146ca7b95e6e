/* SPDX-License-Identifier: MIT */
/* Recursive lock, condition and barrier: every error of theirs, the order of waking, time, and in
 * process scope what a death leaves behind. */
#include "test_concurrency.h"

#include "concurrency/barrier.h"
#include "concurrency/cond.h"
#include "concurrency/coroutine.h"
#include "concurrency/fault.h"
#include "concurrency/rlock.h"

#ifdef __SANITIZE_THREAD__ /* children have proxies of their own, which it does not like */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

static struct modus_arena *arena;
static const enum modus_scope scopes[] = {MODUS_THREAD, MODUS_PROCESS};

#define EACH_SCOPE(scope)                                                                          \
    for (size_t scope##_at = 0, scope = MODUS_THREAD; scope##_at < 2;                              \
         scope = MODUS_PROCESS, scope##_at++)

static void *shared(size_t size)
{
    void *memory = modus_arena_alloc(arena, size, 0);

    CHECK(memory);
    return memory;
}

/* --- recursive lock -------------------------------------------------------------------------- */

static void *rlock_foreign(void *argument)
{
    struct modus_rlock *lock = argument;

    CHECK_INT(modus_rlock_try(lock), -EAGAIN);
    CHECK_INT(modus_rlock_acquire(lock, modus_ms(5)), -ETIMEDOUT);
    CHECK_INT(modus_rlock_acquire_until(lock, modus_now_ns() - 1), -ETIMEDOUT);
    CHECK_INT(modus_rlock_release(lock), -EPERM);
    CHECK_INT(modus_rlock_release_all(lock), -EPERM);
    CHECK_INT(modus_rlock_depth(lock), 0);
    return NULL;
}

static void test_rlock(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct modus_rlock *lock = shared(sizeof *lock);

        assert_int_equal(modus_rlock_acquire(lock, MODUS_FOREVER), -EINVAL);
        assert_int_equal(modus_rlock_release(lock), -EINVAL);
        assert_int_equal(modus_rlock_init(lock, 9), -EINVAL);
        assert_int_equal(modus_rlock_init(lock, (enum modus_scope)scope), 0);
        assert_int_equal(modus_rlock_release(lock), -EPERM);
        assert_int_equal(modus_rlock_acquire(lock, -2), -EINVAL);
        for (uint32_t i = 1; i <= 3; i++) {
            assert_int_equal(
                i == 2 ? modus_rlock_try(lock) : modus_rlock_acquire(lock, MODUS_FOREVER), 0);
            assert_int_equal(modus_rlock_depth(lock), i);
        }
        join_thread(start_thread(rlock_foreign, lock));
        assert_int_equal(modus_rlock_release(lock), 0);
        assert_int_equal(modus_rlock_release_all(lock), 2);
        assert_int_equal(modus_rlock_depth(lock), 0);
        assert_int_equal(modus_rlock_restore(lock, 2), 0);
        assert_int_equal(modus_rlock_depth(lock), 2);
        lock->depth = UINT32_MAX;
        assert_int_equal(modus_rlock_try(lock), -EOVERFLOW);
        lock->depth = 2;
        assert_int_equal(modus_rlock_release(lock), 0);
        assert_int_equal(modus_rlock_release(lock), 0);
        assert_int_equal(modus_rlock_release(lock), -EPERM);
        modus_rlock_fini(lock);
        assert_int_equal(modus_rlock_try(lock), -EINVAL);
    }
}

static int die_deep(void *argument)
{
    struct modus_rlock *lock = argument;

    CHECK_INT(modus_rlock_acquire(lock, MODUS_FOREVER), 0);
    CHECK_INT(modus_rlock_acquire(lock, MODUS_FOREVER), 0);
    raise(SIGKILL);
    return 0;
}

static void test_rlock_inherits_once(void **state)
{
    struct modus_rlock *lock = shared(sizeof *lock);
    (void)state;

    assert_int_equal(modus_rlock_init(lock, MODUS_PROCESS), 0);
    assert_int_equal(reap(start_child(die_deep, lock)), -SIGKILL);
    assert_int_equal(modus_rlock_acquire(lock, MODUS_FOREVER), MODUS_OWNERDEAD);
    assert_int_equal(modus_rlock_depth(lock), 1);
    assert_int_equal(modus_rlock_consistent(lock), 0);
    assert_int_equal(modus_rlock_release(lock), 0);
    assert_false(modus_rlock_poisoned(lock));
    assert_int_equal(reap(start_child(die_deep, lock)), -SIGKILL);
    assert_int_equal(modus_rlock_acquire(lock, MODUS_FOREVER), MODUS_OWNERDEAD);
    assert_int_equal(modus_rlock_release(lock), 0);
    assert_true(modus_rlock_poisoned(lock));
    assert_int_equal(modus_rlock_acquire(lock, MODUS_FOREVER), MODUS_NOTRECOVERABLE);
    modus_rlock_fini(lock);
}

static int co_rlock_second(void *argument)
{
    CHECK_INT(modus_rlock_acquire(argument, modus_ms(5)), -ETIMEDOUT);
    CHECK_INT(modus_rlock_try(argument), -EAGAIN);
    CHECK_INT(modus_rlock_depth(argument), 0);
    CHECK_INT(modus_rlock_release(argument), -EPERM);
    return 0;
}

static int co_rlock_first(void *argument)
{
    struct modus_co *co;

    CHECK_INT(modus_rlock_acquire(argument, MODUS_FOREVER), 0);
    CHECK_INT(modus_co_start(&co, NULL, co_rlock_second, argument), 0);
    CHECK_INT(modus_co_join(co, MODUS_FOREVER, NULL), 0);
    modus_co_put(co);
    CHECK_INT(modus_rlock_depth(argument), 1);
    CHECK_INT(modus_rlock_release(argument), 0);
    return 0;
}

/* To the kernel, two coroutines of a thread are one: the second must not take the first one's lock
 * for its own. */
static void test_rlock_of_coroutines(void **state)
{
    struct modus_rlock *lock = shared(sizeof *lock);
    (void)state;

    assert_int_equal(modus_rlock_init(lock, MODUS_PROCESS), 0);
    assert_int_equal(modus_co_run(co_rlock_first, lock), 0);
    modus_rlock_fini(lock);
}

/* --- condition ------------------------------------------------------------------------------- */

/* A place that somebody waits at; in shared memory. */
struct meeting {
    struct modus_lock lock;
    struct modus_rlock rlock;
    struct modus_cond cond;
    bool recursive;
    bool kill_first;    /* guest 0 dies when it is woken */
    _Atomic int tid[8]; /* of who waits, by number */
    _Atomic int waiting, woken;
    _Atomic int order[8]; /* who has been woken, in order */
    _Atomic int result;
    bool flag; /* under lock */
};

struct guest {
    struct meeting *meeting;
    int number;
};

static struct meeting *meet(enum modus_scope scope, bool recursive)
{
    struct meeting *m = shared(sizeof *m);

    m->recursive = recursive;
    CHECK_INT(modus_lock_init(&m->lock, scope), 0);
    CHECK_INT(modus_rlock_init(&m->rlock, scope), 0);
    CHECK_INT(recursive ? modus_cond_init_rlock(&m->cond, &m->rlock)
                        : modus_cond_init(&m->cond, &m->lock),
              0);
    return m;
}

static void part(struct meeting *m)
{
    modus_cond_fini(&m->cond);
    modus_lock_fini(&m->lock);
    modus_rlock_fini(&m->rlock);
    CHECK_INT(modus_arena_free(arena, m, sizeof *m), 0);
}

static int own(struct meeting *m)
{
    return m->recursive ? modus_rlock_acquire(&m->rlock, MODUS_FOREVER)
                        : modus_lock_acquire(&m->lock, MODUS_FOREVER);
}

static void disown(struct meeting *m)
{
    CHECK_INT(m->recursive ? modus_rlock_release(&m->rlock) : modus_lock_release(&m->lock), 0);
}

static int be_guest(void *argument)
{
    struct guest *g = argument;
    struct meeting *m = g->meeting;

    if (m->kill_first && g->number == 0)
        modus_fault_plan(MODUS_FAULT_WAKE_PASSED, MODUS_FAULT_DIE, 1);
    own(m);
    if (m->recursive)
        own(m);
    atomic_store(&m->tid[g->number], (int)modus_self_tid());
    atomic_fetch_add(&m->waiting, 1);
    CHECK_INT(modus_cond_wait(&m->cond, MODUS_FOREVER), 0);
    if (m->recursive) {
        CHECK_INT(modus_rlock_depth(&m->rlock), 2);
        disown(m);
    }
    atomic_store(&m->order[atomic_load(&m->woken)], g->number);
    atomic_fetch_add(&m->woken, 1);
    disown(m);
    return 0;
}

static void *guest_thread(void *argument)
{
    be_guest(argument);
    return NULL;
}

/* Who waits, asleep, one after the other so that their order is known. */
struct crowd {
    struct guest guests[8];
    pthread_t threads[8];
    pid_t children[8];
    int count;
};

static void gather(struct crowd *c, struct meeting *m, enum modus_scope scope, int count)
{
    c->count = count;
    for (int i = 0; i < count; i++) {
        c->guests[i] = (struct guest){m, i};
        if (scope == MODUS_THREAD)
            c->threads[i] = start_thread(guest_thread, &c->guests[i]);
        else
            c->children[i] = start_child(be_guest, &c->guests[i]);
        AWAIT(atomic_load(&m->waiting) == i + 1);
        AWAIT_ASLEEP(atomic_load(&m->tid[i]));
    }
}

static void disperse(struct crowd *c, enum modus_scope scope)
{
    for (int i = 0; i < c->count; i++)
        if (scope == MODUS_THREAD)
            join_thread(c->threads[i]);
        else if (c->children[i] > 0)
            CHECK_INT(reap(c->children[i]), 0);
}

static void test_cond_errors(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct modus_cond cond = {0};
        struct modus_lock none = {0};
        struct meeting *m = meet((enum modus_scope)scope, false);

        assert_int_equal(modus_cond_init(&cond, &none), -EINVAL);
        assert_int_equal(modus_cond_wait(&cond, 0), -EINVAL);
        assert_int_equal(modus_cond_notify(&cond, 1), -EINVAL);
        assert_int_equal(modus_cond_wait(&m->cond, MODUS_FOREVER), -EPERM);
        assert_int_equal(modus_cond_notify(&m->cond, 1), -EPERM);
        assert_int_equal(modus_cond_notify_all(&m->cond), -EPERM);
        own(m);
        assert_int_equal(modus_cond_wait(&m->cond, -2), -EINVAL);
        assert_int_equal(modus_cond_wait_until(&m->cond, -2), -EINVAL);
        assert_int_equal(modus_cond_notify(&m->cond, 1), 0); /* lost: nobody waits */
        int64_t start = modus_now_ns();
        assert_int_equal(modus_cond_wait(&m->cond, modus_ms(10)), -ETIMEDOUT);
        assert_true(modus_now_ns() - start >= modus_ms(10));
        assert_int_equal(modus_cond_wait(&m->cond, 0), -ETIMEDOUT);
        assert_true(modus_lock_mine(&m->lock));
        disown(m);
        part(m);
    }
}

static void test_cond_wakes_the_longest_waiting(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        enum modus_scope scope = scopes[i / 2];
        struct meeting *m = meet(scope, i % 2);
        struct crowd crowd = {0};

        gather(&crowd, m, scope, 5);
        for (int n = 1; n <= 2; n++) {
            int before = atomic_load(&m->woken);
            own(m);
            assert_int_equal(modus_cond_notify(&m->cond, (uint32_t)n), n);
            disown(m);
            AWAIT(atomic_load(&m->woken) == before + n);
        }
        assert_int_equal(m->order[0], 0);
        assert_int_equal(m->order[1] + m->order[2], 3);
        for (int g = 3; g < 5; g++)
            AWAIT_ASLEEP(atomic_load(&m->tid[g]));
        assert_int_equal(atomic_load(&m->woken), 3);
        own(m);
        assert_int_equal(modus_cond_notify_all(&m->cond), 2);
        disown(m);
        disperse(&crowd, scope);
        assert_int_equal(atomic_load(&m->woken), 5);
        own(m);
        assert_int_equal(modus_cond_notify_all(&m->cond), 0);
        disown(m);
        part(m);
    }
}

static bool flag_is_set(void *context)
{
    return ((struct meeting *)context)->flag;
}

static int wait_for_flag(void *argument)
{
    struct meeting *m = argument;

    own(m);
    atomic_store(&m->tid[0], (int)modus_self_tid());
    int rc = modus_cond_wait_for(&m->cond, flag_is_set, m, MODUS_FOREVER);
    CHECK(rc != 0 || m->flag);
    atomic_store(&m->result, rc);
    if (rc == MODUS_OWNERDEAD)
        CHECK_INT(modus_lock_consistent(&m->lock), 0);
    disown(m);
    return 0;
}

static void *wait_for_flag_thread(void *argument)
{
    wait_for_flag(argument);
    return NULL;
}

static void test_cond_wait_for(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct meeting *m = meet((enum modus_scope)scope, false);

        own(m);
        assert_int_equal(modus_cond_wait_for(&m->cond, flag_is_set, m, 0), -ETIMEDOUT);
        assert_int_equal(modus_cond_wait_for(&m->cond, flag_is_set, m, modus_ms(5)), -ETIMEDOUT);
        m->flag = true;
        assert_int_equal(modus_cond_wait_for(&m->cond, flag_is_set, m, 0), 0);
        m->flag = false;
        disown(m);
        assert_int_equal(modus_cond_wait_for(&m->cond, flag_is_set, m, 0), -EPERM);
        pthread_t thread = start_thread(wait_for_flag_thread, m);
        AWAIT(atomic_load(&m->tid[0]));
        AWAIT_ASLEEP(atomic_load(&m->tid[0]));
        own(m);
        assert_int_equal(modus_cond_notify(&m->cond, 1), 1); /* but nothing has changed */
        disown(m);
        AWAIT_ASLEEP(atomic_load(&m->tid[0]));
        own(m);
        m->flag = true;
        modus_cond_notify(&m->cond, 1);
        disown(m);
        join_thread(thread);
        assert_int_equal(atomic_load(&m->result), 0);
        part(m);
    }
}

/* The one who is notified dies before it can act: once it is buried the next one goes on, and the
 * notifier hangs in no case. */
static void test_cond_waiter_killed(void **state)
{
    struct meeting *m = meet(MODUS_PROCESS, false);
    struct crowd crowd = {0};
    (void)state;

    m->kill_first = true;
    gather(&crowd, m, MODUS_PROCESS, 2);
    own(m);
    assert_int_equal(modus_cond_notify(&m->cond, 1), 1);
    disown(m);
    assert_int_equal(reap(crowd.children[0]), -SIGKILL);
    crowd.children[0] = 0;
    AWAIT_ASLEEP(atomic_load(&m->tid[1]));
    modus_participant_bury(arena, 0);
    disperse(&crowd, MODUS_PROCESS);
    assert_int_equal(atomic_load(&m->order[0]), 1);
    for (int i = 0; i < 3; i++) {
        own(m);
        assert_int_equal(modus_cond_notify(&m->cond, 1), 0);
        disown(m);
    }
    part(m);
}

static int die_notifying(void *argument)
{
    struct meeting *m = argument;

    own(m);
    m->flag = true;
    modus_fault_plan(MODUS_FAULT_WAKE_CLAIMED, MODUS_FAULT_DIE, 1);
    modus_cond_notify(&m->cond, 1);
    return 0;
}

static int die_holding(void *argument)
{
    own(argument);
    raise(SIGKILL);
    return 0;
}

/* It dies after the change, holding the lock, before anybody is woken. */
static void test_cond_notifier_killed(void **state)
{
    struct meeting *m = meet(MODUS_PROCESS, false);
    (void)state;

    pid_t waiter = start_child(wait_for_flag, m);
    AWAIT(atomic_load(&m->tid[0]));
    AWAIT_ASLEEP(waiter);
    assert_int_equal(reap(start_child(die_notifying, m)), -SIGKILL);
    modus_participant_bury(arena, 0);
    assert_int_equal(reap(waiter), 0);
    assert_int_equal(atomic_load(&m->result), MODUS_OWNERDEAD);
    assert_false(modus_lock_poisoned(&m->lock));
    part(m);
}

/* Whoever waits comes back to a lock that nobody can own any more. */
static void test_cond_lock_lost(void **state)
{
    struct meeting *m = meet(MODUS_PROCESS, false);
    (void)state;

    pid_t waiter = start_child(wait_for_flag, m);
    AWAIT(atomic_load(&m->tid[0]));
    AWAIT_ASLEEP(waiter);
    assert_int_equal(reap(start_child(die_holding, m)), -SIGKILL);
    assert_int_equal(own(m), MODUS_OWNERDEAD);
    modus_cond_notify(&m->cond, 1);
    disown(m); /* unmended */
    AWAIT(atomic_load(&m->result) == MODUS_NOTRECOVERABLE);
    assert_int_not_equal(reap(waiter), 0); /* its release failed: it owned nothing */
    part(m);
}

/* Nobody is lost: as many turns as there are notifications, with timeouts among the waits. */
struct rounds {
    struct modus_lock lock;
    struct modus_cond cond;
    int tokens, taken, wanted; /* under lock */
};

static bool has_token(void *context)
{
    struct rounds *r = context;
    return r->tokens > 0 || r->taken >= r->wanted;
}

static int take_tokens(void *argument)
{
    struct rounds *r = argument;

    for (unsigned i = 1;; i++) {
        CHECK_INT(modus_lock_acquire(&r->lock, MODUS_FOREVER), 0);
        int rc = modus_cond_wait_for(&r->cond, has_token, r, i % 3 ? MODUS_FOREVER : modus_us(50));
        CHECK(rc == 0 || rc == -ETIMEDOUT);
        if (r->tokens > 0) {
            r->tokens--;
            r->taken++;
        }
        bool over = r->taken >= r->wanted;
        if (over)
            modus_cond_notify_all(&r->cond);
        modus_lock_release(&r->lock);
        if (over)
            return 0;
    }
}

static void *take_tokens_thread(void *argument)
{
    take_tokens(argument);
    return NULL;
}

static void test_cond_stress(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct rounds *r = shared(sizeof *r);
        pthread_t threads[4];
        pid_t children[4];

        CHECK_INT(modus_lock_init(&r->lock, (enum modus_scope)scope), 0);
        CHECK_INT(modus_cond_init(&r->cond, &r->lock), 0);
        r->wanted = SLOW ? 2000 : 20000;
        for (int i = 0; i < 4; i++)
            if (scope == MODUS_THREAD)
                threads[i] = start_thread(take_tokens_thread, r);
            else
                children[i] = start_child(take_tokens, r);
        for (int i = 0; i < r->wanted; i++) {
            CHECK_INT(modus_lock_acquire(&r->lock, MODUS_FOREVER), 0);
            r->tokens++;
            modus_cond_notify(&r->cond, 1);
            modus_lock_release(&r->lock);
        }
        for (int i = 0; i < 4; i++)
            if (scope == MODUS_THREAD)
                join_thread(threads[i]);
            else
                assert_int_equal(reap(children[i]), 0);
        assert_int_equal(r->taken, r->wanted);
        assert_int_equal(r->tokens, 0);
    }
}

/* --- barrier --------------------------------------------------------------------------------- */

struct hall {
    struct modus_barrier barrier;
    _Atomic int inside[5], runs, fail, results[4], tids[4];
    _Atomic bool stay; /* who has come once does not go home yet */
    int64_t ns;
};

struct party {
    struct hall *hall;
    int number;
};

static int count_run(void *context)
{
    struct hall *h = context;

    atomic_fetch_add(&h->runs, 1);
    return atomic_load(&h->fail);
}

static struct hall *build_for(enum modus_scope scope, unsigned parties, struct modus_arena *whose)
{
    struct hall *h = shared(sizeof *h);

    CHECK_INT(modus_barrier_init(&h->barrier, &(struct modus_barrier_attr){.scope = scope,
                                                                           .parties = parties,
                                                                           .action = count_run,
                                                                           .context = h,
                                                                           .arena = whose}),
              0);
    h->ns = MODUS_FOREVER;
    return h;
}

static struct hall *build(enum modus_scope scope, unsigned parties)
{
    return build_for(scope, parties, arena);
}

static void raze(struct hall *h)
{
    modus_barrier_fini(&h->barrier);
    CHECK_INT(modus_arena_free(arena, h, sizeof *h), 0);
}

static int come_once(void *argument)
{
    struct party *p = argument;
    struct hall *h = p->hall;

    if (h->barrier.table)
        CHECK(modus_participant_join(h->barrier.arena) > 0);
    atomic_store(&h->tids[p->number], (int)modus_self_tid());
    atomic_store(&h->results[p->number], modus_barrier_wait(&h->barrier, h->ns) + 1000);
    AWAIT(!atomic_load(&h->stay));
    return 0;
}

static void *come_once_thread(void *argument)
{
    come_once(argument);
    return NULL;
}

/* All leave a round before anybody is in the one after the next. */
static int come_often(void *argument)
{
    struct party *p = argument;
    struct hall *h = p->hall;

    if (h->barrier.table)
        CHECK(modus_participant_join(arena) > 0);
    for (int round = 0; round < 500; round++) {
        atomic_fetch_add(&h->inside[round % 5], 1);
        int place = modus_barrier_wait(&h->barrier, MODUS_FOREVER);
        CHECK(place >= 0 && place < 4);
        CHECK_INT(atomic_load(&h->inside[round % 5]), 4 * (round / 5 + 1));
        CHECK_INT(atomic_load(&h->runs) - round, atomic_load(&h->runs) == round + 1 ? 1 : 2);
    }
    return 0;
}

static void *come_often_thread(void *argument)
{
    come_often(argument);
    return NULL;
}

static void test_barrier_errors(void **state)
{
    struct modus_barrier barrier = {0};
    (void)state;

    assert_int_equal(modus_barrier_wait(&barrier, 0), -EINVAL);
    modus_barrier_abort(&barrier);
    modus_barrier_reset(&barrier);
    modus_barrier_fini(&barrier);
    assert_false(modus_barrier_broken(&barrier));
    assert_int_equal(modus_barrier_waiting(&barrier), 0);
    assert_int_equal(
        modus_barrier_init(&barrier, &(struct modus_barrier_attr){.scope = MODUS_THREAD}), -EINVAL);
    assert_int_equal(modus_barrier_init(&barrier, &(struct modus_barrier_attr){.parties = 1}),
                     -EINVAL);
    assert_int_equal(
        modus_barrier_init(&barrier,
                           &(struct modus_barrier_attr){.scope = MODUS_PROCESS, .parties = 1}),
        -EINVAL);
    struct hall *h = build(MODUS_PROCESS, 1);
    assert_int_equal(modus_barrier_wait(&h->barrier, 0), -EPERM); /* not joined */
    raze(h);
    h = build(MODUS_THREAD, 1);
    assert_int_equal(modus_barrier_wait(&h->barrier, -2), -EINVAL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(modus_barrier_wait(&h->barrier, 0), 0); /* alone, no wait */
    atomic_store(&h->fail, -77);
    assert_int_equal(modus_barrier_wait(&h->barrier, 0), -77);
    assert_true(modus_barrier_broken(&h->barrier));
    assert_int_equal(modus_barrier_wait(&h->barrier, 0), MODUS_BROKEN);
    modus_barrier_reset(&h->barrier);
    atomic_store(&h->fail, 0);
    assert_int_equal(modus_barrier_wait(&h->barrier, 0), 0);
    raze(h);
}

static void test_barrier_rounds(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct hall *h = build((enum modus_scope)scope, 4);
        struct party parties[4];
        pthread_t threads[4];
        pid_t children[4];

        for (int i = 0; i < 4; i++) {
            parties[i] = (struct party){h, i};
            if (scope == MODUS_THREAD)
                threads[i] = start_thread(come_often_thread, &parties[i]);
            else
                children[i] = start_child(come_often, &parties[i]);
        }
        for (int i = 0; i < 4; i++)
            if (scope == MODUS_THREAD)
                join_thread(threads[i]);
            else
                assert_int_equal(reap(children[i]), 0);
        assert_int_equal(atomic_load(&h->runs), 500);
        raze(h);
    }
}

/* Three of four have come and sleep; then something happens. */
static void gather_three(struct hall *h, struct party *parties, pthread_t *threads, pid_t *children)
{
    for (int i = 0; i < 3; i++) {
        parties[i] = (struct party){h, i};
        if (children)
            children[i] = start_child(come_once, &parties[i]);
        else
            threads[i] = start_thread(come_once_thread, &parties[i]);
        AWAIT(modus_barrier_waiting(&h->barrier) == (unsigned)i + 1);
        AWAIT_ASLEEP(atomic_load(&h->tids[i]));
    }
}

static void test_barrier_breaks(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct hall *h = build(MODUS_THREAD, 4);
        struct party parties[3];
        pthread_t threads[3];

        gather_three(h, parties, threads, NULL);
        if (how == 0) {
            assert_int_equal(modus_barrier_wait(&h->barrier, modus_ms(1)), 3);
            assert_false(modus_barrier_broken(&h->barrier));
        } else if (how == 1) {
            modus_barrier_abort(&h->barrier);
            assert_true(modus_barrier_broken(&h->barrier));
        } else {
            modus_barrier_reset(&h->barrier);
        }
        for (int i = 0; i < 3; i++) {
            join_thread(threads[i]);
            assert_int_equal(atomic_load(&h->results[i]) - 1000, how == 0 ? i : MODUS_BROKEN);
        }
        if (how == 2) {
            assert_false(modus_barrier_broken(&h->barrier));
            assert_int_equal(modus_barrier_waiting(&h->barrier), 0);
        }
        raze(h);
    }
}

static void test_barrier_time(void **state)
{
    struct hall *h = build(MODUS_THREAD, 4);
    struct party parties[3];
    pthread_t threads[3];
    (void)state;

    h->ns = modus_seconds(20);
    gather_three(h, parties, threads, NULL);
    h->barrier.parties = 5; /* so that one more waits too */
    assert_int_equal(modus_barrier_wait(&h->barrier, modus_ms(2)), -ETIMEDOUT);
    for (int i = 0; i < 3; i++) {
        join_thread(threads[i]);
        assert_int_equal(atomic_load(&h->results[i]) - 1000, MODUS_BROKEN);
    }
    assert_true(modus_barrier_broken(&h->barrier));
    raze(h);
}

/* A party is killed while it waits: the others do not wait for ever, and after a reset a new one
 * makes it whole. */
static void test_barrier_death(void **state)
{
    struct hall *h = build(MODUS_PROCESS, 4);
    struct party parties[4];
    pid_t children[4];
    (void)state;

    gather_three(h, parties, NULL, children);
    kill_child(children[1]);
    modus_participant_bury(arena, children[1]);
    assert_int_equal(reap(children[0]), 0);
    assert_int_equal(reap(children[2]), 0);
    assert_int_equal(atomic_load(&h->results[0]) - 1000, MODUS_BROKEN);
    assert_int_equal(atomic_load(&h->results[2]) - 1000, MODUS_BROKEN);
    assert_true(modus_barrier_broken(&h->barrier));
    modus_participant_bury(arena, 0);
    modus_barrier_reset(&h->barrier);
    assert_false(modus_barrier_broken(&h->barrier));
    gather_three(h, parties, NULL, children);
    parties[3] = (struct party){h, 3};
    children[3] = start_child(come_once, &parties[3]);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(reap(children[i]), 0);
        assert_int_equal(atomic_load(&h->results[i]) - 1000, i);
    }
    raze(h);
}

/* The parties are another arena's participants than the one that the barrier lies in. */
static void test_barrier_of_another_arena(void **state)
{
    struct modus_arena *other;
    struct party parties[4];
    pid_t children[4];
    (void)state;

    assert_int_equal(modus_arena_open(&other, 1 << 20, 8), 0);
    struct hall *h = build_for(MODUS_PROCESS, 4, other);
    gather_three(h, parties, NULL, children);
    kill_child(children[1]);
    assert_int_equal(modus_participant_bury(other, children[1]), 1);
    assert_int_equal(reap(children[0]), 0);
    assert_int_equal(reap(children[2]), 0);
    assert_int_equal(atomic_load(&h->results[0]) - 1000, MODUS_BROKEN);
    assert_int_equal(atomic_load(&h->results[2]) - 1000, MODUS_BROKEN);
    raze(h);
    assert_int_equal(modus_arena_close(other), 0);
}

static int fork_in_action(void *context)
{
    return fork_in_callback() ? 0 : count_run(context);
}

/* The child that returns from the action too leaves its parent's barrier alone. */
static void test_barrier_action_forks(void **state)
{
    struct hall *h = build(MODUS_PROCESS, 1);
    pid_t home = getpid();
    (void)state;

    h->barrier.action = fork_in_action;
    assert_true(modus_participant_join(arena) > 0);
    for (int round = 1; round <= 2; round++) {
        int rc = modus_barrier_wait(&h->barrier, MODUS_FOREVER);
        end_forked(home, rc);
        assert_int_equal(rc, 0);
        assert_int_equal(atomic_load(&h->runs), round);
    }
    assert_int_equal(modus_participant_leave(arena), 0);
    raze(h);
}

static int use_in_action(void *context)
{
    struct hall *h = context;

    CHECK_INT(modus_barrier_wait(&h->barrier, MODUS_FOREVER), -EDEADLK);
    modus_barrier_abort(&h->barrier);
    modus_barrier_reset(&h->barrier);
    CHECK(!modus_barrier_broken(&h->barrier));
    CHECK_INT(modus_barrier_waiting(&h->barrier), 0);
    CHECK(modus_lock_mine(&h->barrier.lock)); /* still */
    return count_run(context);
}

/* The action has the barrier's lock already. */
static void test_barrier_used_in_action(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct hall *h = build((enum modus_scope)scope, 1);

        h->barrier.action = use_in_action;
        assert_true(modus_participant_join(arena) > 0);
        for (int round = 1; round <= 2; round++) {
            assert_int_equal(modus_barrier_wait(&h->barrier, MODUS_FOREVER), 0);
            assert_int_equal(atomic_load(&h->runs), round);
        }
        assert_int_equal(modus_participant_leave(arena), 0);
        raze(h);
    }
}

static int die_in_action(void *context)
{
    (void)context;
    raise(SIGKILL);
    return 0;
}

/* The last party dies in the action, with the barrier's lock. */
static void test_barrier_death_in_action(void **state)
{
    struct hall *h = build(MODUS_PROCESS, 4);
    struct party parties[4];
    pid_t children[4];
    (void)state;

    gather_three(h, parties, NULL, children);
    h->barrier.action = die_in_action;
    parties[3] = (struct party){h, 3};
    assert_int_equal(reap(start_child(come_once, &parties[3])), -SIGKILL);
    modus_participant_bury(arena, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(reap(children[i]), 0);
        assert_int_equal(atomic_load(&h->results[i]) - 1000, MODUS_BROKEN);
    }
    modus_participant_bury(arena, 0);
    modus_barrier_reset(&h->barrier);
    assert_false(modus_barrier_broken(&h->barrier));
    assert_int_equal(modus_barrier_waiting(&h->barrier), 0);
    raze(h);
}

/* Reset, and aborted before who was inside has gone: the abort is not lost. */
static void test_barrier_abort_after_reset(void **state)
{
    struct hall *h = build(MODUS_THREAD, 4);
    struct party parties[3];
    pthread_t threads[3];
    (void)state;

    gather_three(h, parties, threads, NULL);
    modus_barrier_reset(&h->barrier);
    modus_barrier_abort(&h->barrier);
    assert_true(modus_barrier_broken(&h->barrier));
    for (int i = 0; i < 3; i++)
        join_thread(threads[i]);
    assert_true(modus_barrier_broken(&h->barrier));
    assert_int_equal(modus_barrier_wait(&h->barrier, MODUS_FOREVER), MODUS_BROKEN);
    modus_barrier_reset(&h->barrier);
    assert_false(modus_barrier_broken(&h->barrier));
    raze(h);
}

static void stop_child(pid_t pid)
{
    kill(pid, SIGSTOP);
    AWAIT(state_of((int)pid) == 'T');
}

/* A party that the reset has found inside is killed before it has gone: a reset forgets those who
 * were dead by then, and no others. */
static void test_barrier_death_after_reset(void **state)
{
    struct hall *h = build(MODUS_PROCESS, 4);
    struct party parties[3];
    pid_t children[3];
    (void)state;

    gather_three(h, parties, NULL, children);
    stop_child(children[1]);
    modus_barrier_reset(&h->barrier);
    assert_int_equal(reap(children[0]), 0);
    assert_int_equal(reap(children[2]), 0);
    modus_participant_bury(arena, 0); /* they end without leaving: now they are forgotten */
    modus_barrier_reset(&h->barrier);
    assert_false(modus_barrier_broken(&h->barrier));
    kill_child(children[1]);
    modus_participant_bury(arena, children[1]);
    assert_true(modus_barrier_broken(&h->barrier));
    modus_barrier_reset(&h->barrier);
    assert_false(modus_barrier_broken(&h->barrier));
    raze(h);
}

/* Whose time is over before the last round has been left breaks the next one, where the others
 * would wait for it. */
static void test_barrier_time_at_the_door(void **state)
{
    struct hall *h = build(MODUS_PROCESS, 4);
    struct party parties[3];
    pid_t children[3];
    (void)state;

    CHECK(modus_participant_join(arena) > 0);
    atomic_store(&h->stay, true);
    gather_three(h, parties, NULL, children);
    stop_child(children[1]);
    assert_int_equal(modus_barrier_wait(&h->barrier, MODUS_FOREVER), 3);
    assert_int_equal(modus_barrier_wait(&h->barrier, modus_ms(1)), -ETIMEDOUT);
    assert_true(modus_barrier_broken(&h->barrier));
    kill(children[1], SIGCONT);
    atomic_store(&h->stay, false);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(reap(children[i]), 0);
        assert_int_equal(atomic_load(&h->results[i]) - 1000, i); /* their round was whole */
    }
    assert_int_equal(modus_barrier_wait(&h->barrier, MODUS_FOREVER), MODUS_BROKEN);
    raze(h);
    CHECK_INT(modus_participant_leave(arena), 0);
}

static int come_as_coroutine(void *argument)
{
    struct party *p = argument;

    for (int round = 0; round < 3; round++)
        CHECK(modus_barrier_wait(&p->hall->barrier, MODUS_FOREVER) >= 0);
    atomic_store(&p->hall->results[p->number], 1);
    return 0;
}

static int come_as_coroutines(void *argument)
{
    struct party *parties = argument;

    for (int i = 0; i < 2; i++)
        CHECK_INT(modus_co_start(NULL, NULL, come_as_coroutine, &parties[i]), 0);
    return 0;
}

static int run_two_coroutines(void *argument)
{
    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_co_run(come_as_coroutines, argument), 0);
    CHECK_INT(modus_participant_leave(arena), 0);
    return 0;
}

/* Each coroutine that comes is one of the parties, also where the thread is the participant. */
static void test_barrier_of_coroutines(void **state)
{
    struct hall *h = build(MODUS_PROCESS, 4);
    struct party parties[4];
    pid_t children[2];
    (void)state;

    for (int i = 0; i < 4; i++)
        parties[i] = (struct party){h, i};
    for (int i = 0; i < 2; i++)
        children[i] = start_child(run_two_coroutines, &parties[2 * i]);
    for (int i = 0; i < 2; i++)
        assert_int_equal(reap(children[i]), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(atomic_load(&h->results[i]), 1);
    assert_int_equal(atomic_load(&h->runs), 3);
    raze(h);
}

static int open_arena(void **state)
{
    (void)state;
    return modus_arena_open(&arena, 1 << 22, 32);
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_rlock),
        TEST(test_rlock_inherits_once),
        TEST(test_rlock_of_coroutines),
        TEST(test_cond_errors),
        TEST(test_cond_wakes_the_longest_waiting),
        TEST(test_cond_wait_for),
        TEST(test_cond_waiter_killed),
        TEST(test_cond_notifier_killed),
        TEST(test_cond_lock_lost),
        TEST(test_cond_stress),
        TEST(test_barrier_errors),
        TEST(test_barrier_rounds),
        TEST(test_barrier_breaks),
        TEST(test_barrier_time),
        TEST(test_barrier_death),
        TEST(test_barrier_of_another_arena),
        TEST(test_barrier_action_forks),
        TEST(test_barrier_used_in_action),
        TEST(test_barrier_death_in_action),
        TEST(test_barrier_abort_after_reset),
        TEST(test_barrier_death_after_reset),
        TEST(test_barrier_time_at_the_door),
        TEST(test_barrier_of_coroutines),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
