/* SPDX-License-Identifier: MIT */
/*
 * What the tests of dict and list share: a change is made by processes that are killed at each
 * point of it, one after the other, and must be seen whole or not at all, with nothing lost.
 */
#ifndef TESTS_UNIT_TEST_CONCURRENCY_STORE_H
#define TESTS_UNIT_TEST_CONCURRENCY_STORE_H

#include "test_concurrency.h"

#include "concurrency/fault.h"
#include "concurrency/snapshot.h"

/* A structure in shared memory, and a change of it. */
struct subject {
    void *object;
    void (*begin)(void *object); /* init and fill it, always the same */
    void (*end)(void *object);
    int (*change)(void *object); /* 0, or another result that is always the same */
    int (*check)(void *object);
    int (*snapshot)(void *object, struct modus_snapshot *snapshot);
};

static const enum modus_fault_point store_points[] = {
    MODUS_FAULT_STORE_OWNED,   MODUS_FAULT_STORE_NOTED,     MODUS_FAULT_STORE_CHANGED,
    MODUS_FAULT_STORE_SHIFTED, MODUS_FAULT_STORE_COMMITTED, MODUS_FAULT_STORE_UNDOING};

struct plan {
    const struct subject *subject;
    enum modus_fault_point point;
    enum modus_fault_action action;
    unsigned passing;
    int expected;
};

static inline bool same(const struct modus_snapshot *a, const struct modus_snapshot *b)
{
    return a->size == b->size && (a->size == 0 || memcmp(a->memory, b->memory, a->size) == 0);
}

static inline struct modus_snapshot look_at(const struct subject *subject)
{
    struct modus_snapshot now;

    CHECK_INT(subject->check(subject->object), 0);
    CHECK_INT(subject->snapshot(subject->object, &now), 0);
    return now;
}

static inline int change_and_die(void *argument)
{
    struct plan *plan = argument;

    modus_fault_plan(plan->point, plan->action, plan->passing);
    CHECK_INT(plan->subject->change(plan->subject->object), plan->expected);
    return 0;
}

static inline int die_looking(void *argument)
{
    struct plan *plan = argument;
    struct modus_snapshot now;

    modus_fault_plan(MODUS_FAULT_STORE_UNDOING, MODUS_FAULT_DIE, plan->passing);
    CHECK_INT(plan->subject->snapshot(plan->subject->object, &now), 0);
    modus_snapshot_fini(&now);
    return 0;
}

/* The one that inherits dies too, while it puts things in order, and the next one as well. */
static inline void die_repairing(const struct plan *plan)
{
    struct plan repair = *plan;

    for (repair.passing = 1; repair.passing < 4; repair.passing++) {
        int end = reap(start_child(die_looking, &repair));

        CHECK(end == -SIGKILL || end == 0);
    }
}

/* Returns whether the change was killed. */
static inline bool kill_at(struct plan *plan, const struct modus_snapshot *old,
                           const struct modus_snapshot *new, bool repairs)
{
    const struct subject *subject = plan->subject;

    subject->begin(subject->object);
    int end = reap(start_child(change_and_die, plan));
    CHECK(end == 0 || end == -SIGKILL);
    if (repairs && end != 0)
        die_repairing(plan);
    struct modus_snapshot now = look_at(subject);
    CHECK(same(&now, old) || same(&now, new));
    if (end == 0 || plan->point == MODUS_FAULT_STORE_OWNED)
        CHECK(same(&now, end == 0 ? new : old));
    bool undone = !same(&now, new);
    modus_snapshot_fini(&now);
    if (undone) { /* it can be done again */
        CHECK_INT(subject->change(subject->object), plan->expected);
        now = look_at(subject);
        CHECK(same(&now, new));
        modus_snapshot_fini(&now);
    }
    subject->end(subject->object);
    return end != 0;
}

/* Kill the change at every passing of every point. Returns how many kills there were. */
static inline int sweep_kills(const struct subject *subject, int expected, bool repairs)
{
    struct plan plan = {.subject = subject, .action = MODUS_FAULT_DIE, .expected = expected};
    int kills = 0;

    subject->begin(subject->object);
    struct modus_snapshot old = look_at(subject);
    CHECK_INT(subject->change(subject->object), expected);
    struct modus_snapshot new = look_at(subject);
    CHECK((expected < 0) == same(&old, &new));
    subject->end(subject->object);
    for (size_t i = 0; i < sizeof store_points / sizeof *store_points; i++) {
        plan.point = store_points[i];
        for (plan.passing = 1; kill_at(&plan, &old, &new, repairs && plan.passing % 5 == 1);
             plan.passing += SLOW ? 3 : 1) {
            alarm(WATCHDOG_SECONDS);
            kills++;
        }
    }
    modus_snapshot_fini(&old);
    modus_snapshot_fini(&new);
    return kills;
}

enum { WORKERS = 4 };

/* Children work on the object; one of them is killed every ms or so, for 2 s (MODUS_CHAOS_SECONDS),
 * and the object is whole meanwhile and at the end. Returns how many kills there were. */
static inline long kill_workers(int (*work)(void *object), int (*check)(void *object), void *object)
{
    const char *seconds = getenv("MODUS_CHAOS_SECONDS");
    int64_t until = modus_now_ns() + (int64_t)((seconds ? atof(seconds) : 2) * 1e9);
    pid_t workers[WORKERS];
    long kills = 0;

    for (int i = 0; i < WORKERS; i++)
        workers[i] = start_child(work, object);
    while (modus_now_ns() < until) {
        int i = (int)(random() % WORKERS);

        usleep(200 + (useconds_t)random() % 2000);
        kill_child(workers[i]);
        if (++kills % 16 == 0)
            CHECK_INT(check(object), 0);
        workers[i] = start_child(work, object);
    }
    for (int i = 0; i < WORKERS; i++)
        kill_child(workers[i]);
    CHECK_INT(check(object), 0);
    return kills;
}

/* Words of the memory are overwritten, one at a time, by the worst that there is: use, in a child,
 * must come to an end all the same. mine is a unit that is in use. */
static inline void spoil_words(uint64_t *words, size_t n, uint64_t mine, uint64_t units,
                               int (*use)(void *object), void (*again)(void *object), void *object)
{
    const uint64_t worst[] = {0,         1,          2,          mine,      units - 1,        units,
                              units * 4, UINT32_MAX, UINT64_MAX, INT64_MAX, (uint64_t)1 << 20};

    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof worst / sizeof *worst; k++) {
            uint64_t old = words[i];

            if (SLOW && (i + k) % 4)
                continue;
            alarm(WATCHDOG_SECONDS);
            words[i] = worst[k];
            CHECK_INT(reap(start_child(use, object)), 0);
            words[i] = old;
            again(object);
        }
}

/* One is stopped inside the change, and holds up another; then it is killed, and the other goes on
 * by itself. */
static inline void kill_stopped(const struct subject *subject)
{
    struct plan first = {.subject = subject,
                         .point = MODUS_FAULT_STORE_CHANGED,
                         .action = MODUS_FAULT_STOP,
                         .passing = 3};
    struct plan second = {.subject = subject};

    subject->begin(subject->object);
    pid_t victim = start_child(change_and_die, &first);
    AWAIT(state_of(victim) == 'T');
    pid_t waiter = start_child(change_and_die, &second);
    AWAIT_ASLEEP(waiter);
    kill_child(victim);
    CHECK_INT(reap(waiter), 0);
    CHECK_INT(subject->check(subject->object), 0);
    subject->end(subject->object);
}

#endif
