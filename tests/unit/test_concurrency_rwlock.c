/* SPDX-License-Identifier: MIT */
/* The readers-writer lock: every error, who keeps whom out, time, downgrade, coroutines, and readers
 * and writers that are killed at bad moments. */
#include "test_concurrency.h"

#include "concurrency/coroutine.h"
#include "concurrency/fault.h"
#include "concurrency/rwlock.h"

#include <sched.h>

static struct modus_arena *arena;

#define EACH_SCOPE(scope)                                                                          \
    for (size_t scope##_at = 0, scope = MODUS_THREAD; scope##_at < 2;                              \
         scope = MODUS_PROCESS, scope##_at++)

/* A lock, and what the tests tell each other; in shared memory. */
struct scene {
    struct modus_rwlock lock;
    enum modus_scope scope;
    _Atomic int tid[8]; /* of who waits, by number */
    _Atomic int result[8];
    _Atomic int writers, readers, most_readers;
    _Atomic bool over, go[8];
    _Atomic long reads, writes;
    long left, right; /* equal, whenever nobody writes */
};

static struct scene *open_scene(enum modus_scope scope)
{
    struct scene *s = modus_arena_alloc(arena, sizeof *s, 0);

    CHECK(s);
    s->scope = scope;
    CHECK_INT(modus_rwlock_init(&s->lock, scope), 0);
    return s;
}

static void close_scene(struct scene *s)
{
    modus_rwlock_fini(&s->lock);
    CHECK_INT(modus_arena_free(arena, s, sizeof *s), 0);
}

/* Somebody beside us, thread or child by the scope. */
struct other {
    struct scene *scene;
    int (*run)(struct other *me);
    int number;
    pthread_t thread;
    pid_t child;
};

static int be_child(void *argument)
{
    struct other *me = argument;

    CHECK(modus_participant_join(arena) > 0);
    int rc = me->run(me);
    CHECK_INT(modus_participant_leave(arena), 0);
    return rc;
}

static void *be_thread(void *argument)
{
    struct other *me = argument;

    CHECK_INT(me->run(me), 0);
    return NULL;
}

static void start(struct other *o, struct scene *s, int number, int (*run)(struct other *me))
{
    *o = (struct other){.scene = s, .run = run, .number = number};
    if (s->scope == MODUS_THREAD)
        o->thread = start_thread(be_thread, o);
    else
        o->child = start_child(be_child, o);
}

static void finish(struct other *o)
{
    if (o->scene->scope == MODUS_THREAD)
        join_thread(o->thread);
    else
        CHECK_INT(reap(o->child), 0);
}

static void await_asleep(struct scene *s, int number)
{
    AWAIT(atomic_load(&s->tid[number]));
    AWAIT_ASLEEP(atomic_load(&s->tid[number]));
}

/* --- errors ---------------------------------------------------------------------------------- */

static void test_not_started(void **state)
{
    struct modus_rwlock lock = {0};
    (void)state;

    assert_int_equal(modus_rwlock_read(&lock, MODUS_FOREVER), -EINVAL);
    assert_int_equal(modus_rwlock_read_until(&lock, MODUS_FOREVER), -EINVAL);
    assert_int_equal(modus_rwlock_try_read(&lock), -EINVAL);
    assert_int_equal(modus_rwlock_write(&lock, MODUS_FOREVER), -EINVAL);
    assert_int_equal(modus_rwlock_write_until(&lock, MODUS_FOREVER), -EINVAL);
    assert_int_equal(modus_rwlock_try_write(&lock), -EINVAL);
    assert_int_equal(modus_rwlock_release(&lock), -EINVAL);
    assert_int_equal(modus_rwlock_downgrade(&lock), -EINVAL);
    assert_int_equal(modus_rwlock_consistent(&lock), -EINVAL);
    assert_false(modus_rwlock_mine(&lock));
    modus_rwlock_fini(&lock);
    assert_int_equal(modus_rwlock_init(&lock, (enum modus_scope)7), -EINVAL);
    assert_int_equal(modus_rwlock_init(&lock, MODUS_PROCESS), -EINVAL); /* not in an arena */
    assert_int_equal(modus_rwlock_try_read(&lock), -EINVAL);
    assert_int_equal(modus_rwlock_init(&lock, MODUS_THREAD), 0);
    assert_int_equal(modus_rwlock_set_repair(&lock, NULL, NULL), -EINVAL);
    modus_rwlock_fini(&lock);
}

static void test_errors(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct scene *s = open_scene((enum modus_scope)scope);
        struct modus_rwlock *lock = &s->lock;

        assert_int_equal(modus_rwlock_release(lock), -EPERM);
        assert_int_equal(modus_rwlock_downgrade(lock), -EPERM);
        assert_int_equal(modus_rwlock_read(lock, -2), -EINVAL);
        assert_int_equal(modus_rwlock_read_until(lock, -2), -EINVAL);
        assert_int_equal(modus_rwlock_write(lock, -2), -EINVAL);
        assert_int_equal(modus_rwlock_write_until(lock, -2), -EINVAL);
        assert_int_equal(modus_rwlock_write(lock, MODUS_FOREVER), 0);
        assert_true(modus_rwlock_mine(lock));
        assert_int_equal(modus_rwlock_write(lock, MODUS_FOREVER), -EDEADLK);
        assert_int_equal(modus_rwlock_try_write(lock), -EDEADLK);
        assert_int_equal(modus_rwlock_read(lock, MODUS_FOREVER), -EDEADLK);
        assert_int_equal(modus_rwlock_try_read(lock), -EDEADLK);
        assert_int_equal(modus_rwlock_readers(lock), 0);
        assert_int_equal(modus_rwlock_release(lock), 0);
        assert_false(modus_rwlock_mine(lock));
        assert_int_equal(modus_rwlock_release(lock), -EPERM);
        assert_int_equal(modus_rwlock_read_until(lock, 0), 0);
        assert_int_equal(modus_rwlock_readers(lock), 1);
        assert_false(modus_rwlock_mine(lock));
        if (scope == MODUS_PROCESS) {
            assert_int_equal(modus_rwlock_try_read(lock), -EDEADLK);
            assert_int_equal(modus_rwlock_read(lock, MODUS_FOREVER), -EDEADLK);
            assert_int_equal(modus_rwlock_write(lock, MODUS_FOREVER), -EDEADLK);
        }
        assert_int_equal(modus_rwlock_downgrade(lock), -EPERM);
        assert_int_equal(modus_rwlock_consistent(lock), scope == MODUS_PROCESS ? -EPERM : -EINVAL);
        assert_int_equal(modus_rwlock_release(lock), 0);
        assert_int_equal(modus_rwlock_release(lock), -EPERM);
        assert_int_equal(modus_rwlock_write_until(lock, 0), 0);
        assert_int_equal(modus_rwlock_release(lock), 0);
        close_scene(s);
    }
}

static int stranger(void *argument)
{
    struct scene *s = argument;

    /* The parent has joined, and reads. */
    CHECK_INT(modus_rwlock_try_read(&s->lock), -ECHILD);
    CHECK_INT(modus_rwlock_release(&s->lock), -ECHILD);
    CHECK_INT(modus_rwlock_try_write(&s->lock), -EAGAIN);
    return 0;
}

static void *unjoined(void *argument)
{
    struct scene *s = argument;

    CHECK_INT(modus_rwlock_try_read(&s->lock), -EPERM);
    CHECK_INT(modus_rwlock_release(&s->lock), -EPERM);
    CHECK_INT(modus_rwlock_write(&s->lock, MODUS_FOREVER), 0);
    CHECK_INT(modus_rwlock_downgrade(&s->lock), -EPERM);
    CHECK(modus_rwlock_mine(&s->lock));
    CHECK_INT(modus_rwlock_release(&s->lock), 0);
    return NULL;
}

static void test_process_identity(void **state)
{
    struct scene *s = open_scene(MODUS_PROCESS);
    (void)state;

    assert_int_equal(modus_rwlock_try_read(&s->lock), 0);
    assert_int_equal(reap(start_child(stranger, s)), 0);
    assert_int_equal(modus_rwlock_release(&s->lock), 0);
    join_thread(start_thread(unjoined, s));
    close_scene(s);
}

/* --- who keeps whom out ---------------------------------------------------------------------- */

/* Read until told to go on. */
static int read_until_told(struct other *me)
{
    struct scene *s = me->scene;

    CHECK_INT(modus_rwlock_read(&s->lock, MODUS_FOREVER), 0);
    atomic_fetch_add(&s->readers, 1);
    AWAIT(atomic_load(&s->go[me->number]));
    atomic_fetch_sub(&s->readers, 1);
    CHECK_INT(modus_rwlock_release(&s->lock), 0);
    return 0;
}

static int write_and_note(struct other *me)
{
    struct scene *s = me->scene;

    atomic_store(&s->tid[me->number], (int)modus_self_tid());
    CHECK_INT(modus_rwlock_write(&s->lock, MODUS_FOREVER), 0);
    atomic_fetch_add(&s->writers, 1);
    AWAIT(atomic_load(&s->go[me->number]));
    CHECK_INT(atomic_load(&s->readers), 0);
    CHECK_INT(modus_rwlock_release(&s->lock), 0);
    return 0;
}

/* Three read at once; a writer that comes keeps new readers out until it has written. */
static void test_writer_is_preferred(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct scene *s = open_scene((enum modus_scope)scope);
        struct other readers[2], writer, late;

        assert_int_equal(modus_rwlock_try_read(&s->lock), 0);
        for (int i = 0; i < 2; i++)
            start(&readers[i], s, i, read_until_told);
        AWAIT(atomic_load(&s->readers) == 2);
        assert_int_equal(modus_rwlock_readers(&s->lock), 3);
        assert_int_equal(modus_rwlock_release(&s->lock), 0);
        assert_int_equal(modus_rwlock_try_write(&s->lock), -EAGAIN);
        assert_int_equal(modus_rwlock_write_until(&s->lock, modus_now_ns() - 1), -ETIMEDOUT);
        start(&writer, s, 2, write_and_note);
        await_asleep(s, 2);
        assert_int_equal(modus_rwlock_try_read(&s->lock), -EAGAIN);
        assert_int_equal(modus_rwlock_try_write(&s->lock), -EAGAIN);
        int64_t begun = modus_now_ns();
        assert_int_equal(modus_rwlock_read(&s->lock, modus_ms(5)), -ETIMEDOUT);
        assert_true(modus_now_ns() - begun >= modus_ms(5));
        assert_int_equal(modus_rwlock_read_until(&s->lock, modus_now_ns() - 1), -ETIMEDOUT);
        start(&late, s, 3, read_until_told);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(atomic_load(&s->writers), 0);
            atomic_store(&s->go[i], true);
            finish(&readers[i]);
        }
        AWAIT(atomic_load(&s->writers) == 1);
        assert_int_equal(atomic_load(&s->readers), 0);
        assert_int_equal(modus_rwlock_try_read(&s->lock), -EAGAIN);
        atomic_store(&s->go[2], true);
        finish(&writer);
        AWAIT(atomic_load(&s->readers) == 1);
        atomic_store(&s->go[3], true);
        finish(&late);
        assert_int_equal(modus_rwlock_readers(&s->lock), 0);
        close_scene(s);
    }
}

static int write_in_vain(struct other *me)
{
    struct scene *s = me->scene;

    CHECK_INT(modus_rwlock_write(&s->lock, modus_ms(20)), -ETIMEDOUT);
    CHECK(!modus_rwlock_mine(&s->lock));
    return 0;
}

/* Its time is over: readers come in again, those that it kept out too. */
static void test_writer_gives_up(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct scene *s = open_scene((enum modus_scope)scope);
        struct other reader, writer;

        start(&reader, s, 0, read_until_told);
        AWAIT(atomic_load(&s->readers) == 1);
        start(&writer, s, 1, write_in_vain);
        assert_int_equal(modus_rwlock_read(&s->lock, MODUS_FOREVER), 0);
        finish(&writer);
        assert_int_equal(modus_rwlock_release(&s->lock), 0);
        assert_int_equal(modus_rwlock_try_read(&s->lock), 0);
        assert_int_equal(modus_rwlock_release(&s->lock), 0);
        atomic_store(&s->go[0], true);
        finish(&reader);
        assert_int_equal(modus_rwlock_try_write(&s->lock), 0);
        assert_int_equal(modus_rwlock_release(&s->lock), 0);
        close_scene(s);
    }
}

/* From writing to reading: other readers may come in, a writer that waits may not. */
static void test_downgrade(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct scene *s = open_scene((enum modus_scope)scope);
        struct other writer, reader;

        assert_int_equal(modus_rwlock_write(&s->lock, MODUS_FOREVER), 0);
        start(&reader, s, 1, read_until_told);
        assert_int_equal(modus_rwlock_downgrade(&s->lock), 0);
        assert_false(modus_rwlock_mine(&s->lock));
        assert_int_equal(modus_rwlock_downgrade(&s->lock), -EPERM);
        AWAIT(atomic_load(&s->readers) == 1);
        assert_int_equal(modus_rwlock_readers(&s->lock), 2);
        start(&writer, s, 0, write_and_note);
        await_asleep(s, 0);
        assert_int_equal(atomic_load(&s->writers), 0);
        assert_int_equal(modus_rwlock_release(&s->lock), 0);
        atomic_store(&s->go[1], true);
        finish(&reader);
        AWAIT(atomic_load(&s->writers) == 1);
        atomic_store(&s->go[0], true);
        finish(&writer);
        close_scene(s);
    }
}

static int write_without_pause(struct other *me)
{
    struct scene *s = me->scene;

    while (!atomic_load(&s->over)) {
        CHECK_INT(modus_rwlock_write(&s->lock, MODUS_FOREVER), 0);
        atomic_fetch_add(&s->writes, 1);
        CHECK_INT(modus_rwlock_release(&s->lock), 0);
    }
    return 0;
}

static int read_without_pause(struct other *me)
{
    struct scene *s = me->scene;

    while (!atomic_load(&s->over)) {
        CHECK_INT(modus_rwlock_read(&s->lock, MODUS_FOREVER), 0);
        sched_yield();
        atomic_fetch_add(&s->reads, 1);
        CHECK_INT(modus_rwlock_release(&s->lock), 0);
    }
    return 0;
}

/* Neither side starves: two of one kind without a pause, and one of the other. */
static void test_nobody_starves(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct scene *s = open_scene(i / 2 ? MODUS_PROCESS : MODUS_THREAD);
        struct other many[2];

        for (int k = 0; k < 2; k++)
            start(&many[k], s, k, i % 2 ? read_without_pause : write_without_pause);
        AWAIT(atomic_load(i % 2 ? &s->reads : &s->writes) > 100);
        for (int k = 0; k < 20; k++) {
            assert_int_equal(i % 2 ? modus_rwlock_write(&s->lock, MODUS_FOREVER)
                                   : modus_rwlock_read(&s->lock, MODUS_FOREVER),
                             0);
            assert_int_equal(modus_rwlock_release(&s->lock), 0);
        }
        atomic_store(&s->over, true);
        for (int k = 0; k < 2; k++)
            finish(&many[k]);
        close_scene(s);
    }
}

static int read_and_write(struct other *me)
{
    struct scene *s = me->scene;
    unsigned seed = (unsigned)me->number;
    int rounds = SLOW ? 1500 : 20000;

    for (int i = 0; i < rounds; i++) {
        int64_t ns = i % 3 == 0 ? modus_us(50) : MODUS_FOREVER;
        bool write = rand_r(&seed) % 4 == 0;
        int rc = write ? modus_rwlock_write(&s->lock, ns) : modus_rwlock_read(&s->lock, ns);

        if (rc == -ETIMEDOUT)
            continue;
        CHECK_INT(rc, 0);
        CHECK(s->left == s->right);
        if (write) {
            s->left++;
            CHECK_INT(atomic_fetch_add(&s->writers, 1), 0);
            if (i % 100 == 0)
                sched_yield();
            atomic_fetch_sub(&s->writers, 1);
            s->right++;
            atomic_fetch_add(&s->writes, 1);
        }
        if (write && i % 5 == 0) {
            CHECK_INT(modus_rwlock_downgrade(&s->lock), 0);
            CHECK(s->left == s->right);
        }
        CHECK_INT(modus_rwlock_release(&s->lock), 0);
    }
    return 0;
}

/* Provokes: all mixtures of reading, writing, downgrades and waits whose time is over, by 4 on 2
 * CPUs. Must hold: no reader sees half a write, no write is lost. */
static void test_excludes(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct scene *s = open_scene((enum modus_scope)scope);
        struct other others[4];

        for (int i = 0; i < 4; i++)
            start(&others[i], s, i, read_and_write);
        for (int i = 0; i < 4; i++)
            finish(&others[i]);
        assert_int_equal(s->left, atomic_load(&s->writes));
        assert_int_equal(modus_rwlock_readers(&s->lock), 0);
        assert_int_equal(modus_rwlock_try_write(&s->lock), 0);
        assert_int_equal(modus_rwlock_release(&s->lock), 0);
        close_scene(s);
    }
}

/* --- deaths ---------------------------------------------------------------------------------- */

static int die_at(void *argument)
{
    (void)argument;
    raise(SIGKILL);
    return 0;
}

static int read_and_die(struct other *me)
{
    CHECK_INT(modus_rwlock_read(&me->scene->lock, MODUS_FOREVER), 0);
    atomic_fetch_add(&me->scene->readers, 1);
    AWAIT(atomic_load(&me->scene->go[me->number]));
    return die_at(NULL);
}

static int write_and_die(struct other *me)
{
    struct scene *s = me->scene;

    CHECK_INT(modus_rwlock_write(&s->lock, MODUS_FOREVER), 0);
    s->left++;
    return die_at(NULL);
}

/* A dead reader that nobody has buried, one that is buried while a writer sleeps, and one that is
 * not: each time the writer goes on. */
static void test_reader_killed(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct scene *s = open_scene(MODUS_PROCESS);
        struct other reader, writer;

        start(&reader, s, 0, read_and_die);
        AWAIT(atomic_load(&s->readers) == 1);
        if (i > 0) {
            start(&writer, s, 1, write_and_note);
            await_asleep(s, 1);
            atomic_store(&s->go[1], true);
        }
        atomic_store(&s->readers, 0);
        atomic_store(&s->go[0], true);
        assert_int_equal(reap(reader.child), -SIGKILL);
        if (i == 0) {
            assert_int_equal(modus_rwlock_readers(&s->lock), 1);
            assert_int_equal(modus_rwlock_try_write(&s->lock), 0);
            assert_int_equal(modus_rwlock_release(&s->lock), 0);
        } else {
            if (i == 1)
                modus_participant_bury(arena, reader.child);
            finish(&writer);
        }
        assert_int_equal(modus_rwlock_readers(&s->lock), 0);
        modus_participant_bury(arena, 0);
        close_scene(s);
    }
}

/* Its name is noted, but it has not seen yet whether it may read. */
static int die_noted(struct other *me)
{
    modus_fault_plan(MODUS_FAULT_RWLOCK_NOTED, MODUS_FAULT_DIE, 1);
    modus_rwlock_read(&me->scene->lock, MODUS_FOREVER);
    return 1;
}

/* It keeps readers out, but has not written. */
static int die_waiting(struct other *me)
{
    modus_fault_plan(MODUS_FAULT_RWLOCK_MARKED, MODUS_FAULT_DIE, 1);
    modus_rwlock_write(&me->scene->lock, MODUS_FOREVER);
    return 1;
}

/* Asleep as a writer, until it is killed. */
static int wait_to_write(struct other *me)
{
    atomic_store(&me->scene->tid[me->number], (int)modus_self_tid());
    return modus_rwlock_write(&me->scene->lock, MODUS_FOREVER);
}

/* Deaths that leave nothing to mend. */
static void test_killed_on_the_way(void **state)
{
    int (*const ways[])(struct other *) = {die_noted, die_waiting};
    (void)state;

    for (int i = 0; i < 4; i++) {
        struct scene *s = open_scene(MODUS_PROCESS);
        struct other victim;

        start(&victim, s, 0, ways[i / 2]);
        assert_int_equal(reap(victim.child), -SIGKILL);
        if (i % 2) {
            assert_int_equal(modus_rwlock_read(&s->lock, MODUS_FOREVER), 0);
            assert_int_equal(modus_rwlock_release(&s->lock), 0);
        }
        assert_int_equal(modus_rwlock_write(&s->lock, MODUS_FOREVER), 0);
        assert_int_equal(modus_rwlock_release(&s->lock), 0);
        assert_int_equal(modus_rwlock_readers(&s->lock), 0);
        modus_participant_bury(arena, 0);
        close_scene(s);
    }
    struct scene *s = open_scene(MODUS_PROCESS);
    struct other victim, reader;
    assert_int_equal(modus_rwlock_read(&s->lock, MODUS_FOREVER), 0);
    start(&victim, s, 0, wait_to_write);
    await_asleep(s, 0);
    start(&reader, s, 1, read_until_told); /* it sleeps behind the writer */
    kill_child(victim.child);
    AWAIT(atomic_load(&s->readers) == 1);
    atomic_store(&s->go[1], true);
    finish(&reader);
    assert_int_equal(modus_rwlock_release(&s->lock), 0);
    modus_participant_bury(arena, 0);
    close_scene(s);
}

static int inherit_as_reader(struct other *me)
{
    struct scene *s = me->scene;

    atomic_store(&s->tid[me->number], (int)modus_self_tid());
    CHECK_INT(modus_rwlock_read(&s->lock, MODUS_FOREVER), MODUS_OWNERDEAD);
    CHECK(modus_rwlock_mine(&s->lock));
    CHECK(s->left == s->right + 1);
    CHECK_INT(modus_rwlock_readers(&s->lock), 0);
    s->right++;
    CHECK_INT(modus_rwlock_consistent(&s->lock), 0);
    CHECK_INT(modus_rwlock_downgrade(&s->lock), 0);
    CHECK_INT(modus_rwlock_release(&s->lock), 0);
    return 0;
}

static int hold_then_die(struct other *me)
{
    struct scene *s = me->scene;

    CHECK_INT(modus_rwlock_write(&s->lock, MODUS_FOREVER), 0);
    atomic_fetch_add(&s->writers, 1);
    s->left++;
    AWAIT(atomic_load(&s->go[me->number]));
    return die_at(NULL);
}

/* The next one, reader or writer, holds it as a writer and mends; whoever comes then sees nothing
 * of it. */
static void test_writer_killed(void **state)
{
    struct scene *s = open_scene(MODUS_PROCESS);
    struct other victim, reader;
    (void)state;

    start(&victim, s, 0, hold_then_die);
    AWAIT(atomic_load(&s->writers) == 1);
    start(&reader, s, 1, inherit_as_reader);
    await_asleep(s, 1);
    atomic_store(&s->go[0], true);
    assert_int_equal(reap(victim.child), -SIGKILL);
    finish(&reader);
    assert_int_equal(modus_rwlock_read(&s->lock, 0), 0);
    assert_int_equal(modus_rwlock_release(&s->lock), 0);

    start(&victim, s, 0, write_and_die);
    assert_int_equal(reap(victim.child), -SIGKILL);
    assert_int_equal(modus_rwlock_write(&s->lock, 0), MODUS_OWNERDEAD);
    assert_int_equal(modus_rwlock_consistent(&s->lock), 0);
    s->right++;
    assert_int_equal(modus_rwlock_release(&s->lock), 0);
    assert_false(modus_rwlock_poisoned(&s->lock));
    assert_int_equal(modus_rwlock_write(&s->lock, 0), 0);
    assert_int_equal(modus_rwlock_release(&s->lock), 0);
    modus_participant_bury(arena, 0);
    close_scene(s);
}

/* Released, or downgraded, unmended. */
static void test_poisoned(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct scene *s = open_scene(MODUS_PROCESS);
        struct other victim;

        start(&victim, s, 0, write_and_die);
        assert_int_equal(reap(victim.child), -SIGKILL);
        assert_int_equal(modus_rwlock_try_read(&s->lock), MODUS_OWNERDEAD);
        if (i == 0)
            assert_int_equal(modus_rwlock_release(&s->lock), 0);
        else
            assert_int_equal(modus_rwlock_downgrade(&s->lock), MODUS_NOTRECOVERABLE);
        assert_true(modus_rwlock_poisoned(&s->lock));
        assert_false(modus_rwlock_mine(&s->lock));
        assert_int_equal(modus_rwlock_try_read(&s->lock), MODUS_NOTRECOVERABLE);
        assert_int_equal(modus_rwlock_read(&s->lock, MODUS_FOREVER), MODUS_NOTRECOVERABLE);
        assert_int_equal(modus_rwlock_write(&s->lock, MODUS_FOREVER), MODUS_NOTRECOVERABLE);
        assert_int_equal(modus_rwlock_release(&s->lock), -EPERM);
        modus_participant_bury(arena, 0);
        close_scene(s);
    }
}

static int mend(void *context)
{
    struct scene *s = context;

    s->right = s->left;
    return atomic_load(&s->over) ? -1 : 0;
}

static void test_repair(void **state)
{
    struct scene *s = open_scene(MODUS_PROCESS);
    struct other victim;
    (void)state;

    assert_int_equal(modus_rwlock_set_repair(&s->lock, mend, s), 0);
    start(&victim, s, 0, write_and_die);
    assert_int_equal(reap(victim.child), -SIGKILL);
    assert_int_equal(modus_rwlock_read(&s->lock, MODUS_FOREVER), MODUS_OWNERDEAD);
    assert_int_equal(s->left, s->right);
    assert_int_equal(modus_rwlock_release(&s->lock), 0);
    assert_int_equal(modus_rwlock_read(&s->lock, MODUS_FOREVER), 0);
    assert_int_equal(modus_rwlock_release(&s->lock), 0);
    atomic_store(&s->over, true); /* it can't mend any more */
    start(&victim, s, 0, write_and_die);
    assert_int_equal(reap(victim.child), -SIGKILL);
    assert_int_equal(modus_rwlock_read(&s->lock, MODUS_FOREVER), MODUS_NOTRECOVERABLE);
    assert_true(modus_rwlock_poisoned(&s->lock));
    modus_participant_bury(arena, 0);
    close_scene(s);
}

static int work_until_killed(struct other *me)
{
    struct scene *s = me->scene;
    unsigned seed = (unsigned)getpid();

    for (;;) {
        bool write = rand_r(&seed) % 3 == 0;
        int rc = write ? modus_rwlock_write(&s->lock, MODUS_FOREVER)
                       : modus_rwlock_read(&s->lock, MODUS_FOREVER);

        if (rc == MODUS_OWNERDEAD) {
            s->right = s->left;
            CHECK_INT(modus_rwlock_consistent(&s->lock), 0);
        } else {
            CHECK_INT(rc, 0);
        }
        CHECK(s->left == s->right);
        if (write) {
            s->left++;
            s->right++;
        }
        CHECK_INT(modus_rwlock_release(&s->lock), 0);
        atomic_fetch_add(&s->reads, 1);
    }
}

/* Three at work, one of them killed every other moment. Must hold: the others go on, and see no
 * half write that nobody has told them of. */
static void test_chaos(void **state)
{
    struct scene *s = open_scene(MODUS_PROCESS);
    struct other others[3];
    unsigned seed = 1;
    (void)state;

    for (int i = 0; i < 3; i++)
        start(&others[i], s, i, work_until_killed);
    for (int kills = 0; kills < (SLOW ? 60 : 300); kills++) {
        struct other *victim = &others[rand_r(&seed) % 3];
        long before = atomic_load(&s->reads);

        AWAIT(atomic_load(&s->reads) > before + 3);
        usleep((useconds_t)rand_r(&seed) % 500);
        kill_child(victim->child);
        modus_participant_bury(arena, victim->child);
        start(victim, s, 0, work_until_killed);
    }
    for (int i = 0; i < 3; i++)
        kill_child(others[i].child);
    modus_participant_bury(arena, 0);
    assert_int_equal(modus_rwlock_readers(&s->lock), 0);
    int rc = modus_rwlock_write(&s->lock, 0);
    assert_true(rc == 0 || rc == MODUS_OWNERDEAD);
    modus_rwlock_consistent(&s->lock);
    assert_int_equal(modus_rwlock_release(&s->lock), 0);
    close_scene(s);
}

/* --- coroutines ------------------------------------------------------------------------------ */

static int co_reader(void *argument)
{
    struct scene *s = argument;

    CHECK_INT(modus_rwlock_read(&s->lock, MODUS_FOREVER), 0);
    int now = atomic_fetch_add(&s->readers, 1) + 1;
    if (now > atomic_load(&s->most_readers))
        atomic_store(&s->most_readers, now);
    CHECK_INT(modus_co_sleep(modus_ms(2)), 0);
    CHECK_INT(atomic_load(&s->writers), 0);
    atomic_fetch_sub(&s->readers, 1);
    CHECK_INT(modus_rwlock_release(&s->lock), 0);
    return 0;
}

static int co_writer(void *argument)
{
    struct scene *s = argument;

    CHECK_INT(modus_rwlock_write(&s->lock, MODUS_FOREVER), 0);
    CHECK_INT(atomic_fetch_add(&s->writers, 1), 0);
    CHECK_INT(atomic_load(&s->readers), 0);
    CHECK_INT(modus_co_sleep(modus_ms(2)), 0);
    atomic_fetch_sub(&s->writers, 1);
    CHECK_INT(modus_rwlock_release(&s->lock), 0);
    atomic_fetch_add(&s->writes, 1);
    return 0;
}

static int co_main(void *argument)
{
    for (int i = 0; i < 12; i++)
        CHECK_INT(modus_co_start(NULL, NULL, i % 4 == 3 ? co_writer : co_reader, argument), 0);
    return 0;
}

static void test_coroutines(void **state)
{
    struct scene *s = open_scene(MODUS_THREAD);
    (void)state;

    assert_int_equal(modus_co_run(co_main, s), 0);
    assert_int_equal(atomic_load(&s->writes), 3);
    assert_true(atomic_load(&s->most_readers) >= 3);
    assert_int_equal(modus_rwlock_readers(&s->lock), 0);
    close_scene(s);
}

static int open_arena(void **state)
{
    (void)state;
    if (modus_arena_open(&arena, 1 << 22, 16) < 0)
        return -1;
    return modus_participant_join(arena) > 0 ? 0 : -1;
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
        TEST(test_not_started),
        TEST(test_errors),
        TEST(test_process_identity),
        TEST(test_writer_is_preferred),
        TEST(test_writer_gives_up),
        TEST(test_downgrade),
        TEST(test_excludes),
        TEST(test_reader_killed),
        TEST(test_killed_on_the_way),
        TEST(test_writer_killed),
        TEST(test_poisoned),
        TEST(test_repair),
        TEST(test_chaos),
        TEST(test_nobody_starves),
        TEST(test_coroutines),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
