/* SPDX-License-Identifier: MIT */
/* Condition: a notification reaches as many as it says, and a time that runs out takes none away. */
#include "tests/check/check.h"

#include "concurrency/cond.h"
#include "concurrency/participant.h"

struct scene {
    struct modus_lock lock;
    struct modus_rlock rlock;
    struct modus_cond cond;
    int tokens, taken, woken, notified, timeouts;
};

static struct scene *s;

static void setup_in(enum modus_scope scope)
{
    s = check_memory(sizeof *s);
    MUST_INT(modus_lock_init(&s->lock, scope), 0);
    MUST_INT(modus_cond_init(&s->cond, &s->lock), 0);
}

static void setup(void)
{
    setup_in(MODUS_THREAD);
}

static void setup_rlock(void)
{
    s = check_memory(sizeof *s);
    MUST_INT(modus_rlock_init(&s->rlock, MODUS_THREAD), 0);
    MUST_INT(modus_cond_init_rlock(&s->cond, &s->rlock), 0);
}

static void setup_shared(void)
{
    check_join_all(3);
    setup_in(MODUS_PROCESS);
}

static void lock(void)
{
    int rc = modus_lock_acquire(&s->lock, MODUS_FOREVER);

    if (rc == MODUS_OWNERDEAD)
        MUST_INT(modus_lock_consistent(&s->lock), 0);
    else
        MUST_INT(rc, 0);
}

static void unlock(void)
{
    MUST_INT(modus_lock_release(&s->lock), 0);
}

static bool has_token(void *unused)
{
    (void)unused;
    return s->tokens > 0;
}

static void take_token(void)
{
    lock();
    int rc = modus_cond_wait_for(&s->cond, has_token, NULL, MODUS_FOREVER);
    while (rc == MODUS_OWNERDEAD) {
        MUST_INT(modus_lock_consistent(&s->lock), 0);
        rc = modus_cond_wait_for(&s->cond, has_token, NULL, MODUS_FOREVER);
    }
    MUST_INT(rc, 0);
    MUST(s->tokens-- > 0);
    s->taken++;
    unlock();
}

static void give_one_by_one(void)
{
    for (int i = 0; i < 2; i++) {
        lock();
        s->tokens++;
        MUST(modus_cond_notify(&s->cond, 1) >= 0);
        unlock();
    }
}

static void give_to_all(void)
{
    lock();
    s->tokens += 2;
    MUST(modus_cond_notify_all(&s->cond) >= 0);
    unlock();
}

static void took_both(void)
{
    MUST_INT(s->taken, 2);
    MUST_INT(s->tokens, 0);
}

CHECK_SCENARIO(one, .name = "cond/one-by-one", .setup = setup,
               .actors = {take_token, take_token, give_one_by_one}, .verify = took_both);
CHECK_SCENARIO(all, .name = "cond/all", .setup = setup,
               .actors = {take_token, take_token, give_to_all}, .verify = took_both);
CHECK_SCENARIO(shared_one, .name = "cond/process-one-by-one", .setup = setup_shared,
               .actors = {take_token, take_token, give_one_by_one}, .verify = took_both);
CHECK_SCENARIO(shared_all, .name = "cond/process-all", .setup = setup_shared,
               .actors = {take_token, take_token, give_to_all}, .verify = took_both);

/* --- time against notification --------------------------------------------------------------- */

static void wait_in_time(void)
{
    lock();
    int rc = modus_cond_wait_until(&s->cond, 1);
    MUST(rc == 0 || rc == -ETIMEDOUT);
    s->woken += rc == 0;
    s->timeouts += rc != 0;
    unlock();
}

static void notify_one(void)
{
    lock();
    s->notified = modus_cond_notify(&s->cond, 1);
    MUST(s->notified == 0 || s->notified == 1);
    unlock();
}

/* As many were woken as it told the notifier, whatever the clocks said. */
static void agree(void)
{
    MUST_INT(s->woken + s->timeouts, 2);
    MUST_INT(s->woken, s->notified);
    MUST(!s->cond.first && !s->cond.last);
}

CHECK_SCENARIO(race, .name = "cond/timeout", .setup = setup,
               .actors = {wait_in_time, wait_in_time, notify_one}, .verify = agree);

static void wait_deep(void)
{
    MUST_INT(modus_rlock_acquire(&s->rlock, MODUS_FOREVER), 0);
    MUST_INT(modus_rlock_acquire(&s->rlock, MODUS_FOREVER), 0);
    while (s->tokens == 0)
        MUST_INT(modus_cond_wait(&s->cond, MODUS_FOREVER), 0);
    s->tokens--;
    s->taken++;
    MUST_INT(modus_rlock_depth(&s->rlock), 2);
    MUST_INT(modus_rlock_release(&s->rlock), 0);
    MUST_INT(modus_rlock_release(&s->rlock), 0);
}

static void give_deep(void)
{
    MUST_INT(modus_rlock_acquire(&s->rlock, MODUS_FOREVER), 0);
    s->tokens += 2;
    MUST(modus_cond_notify_all(&s->cond) >= 0);
    MUST_INT(modus_rlock_release(&s->rlock), 0);
}

CHECK_SCENARIO(deep, .name = "cond/rlock", .setup = setup_rlock,
               .actors = {wait_deep, wait_deep, give_deep}, .verify = took_both);

/* --- deaths ---------------------------------------------------------------------------------- */

static void give(bool all)
{
    lock();
    s->tokens++;
    MUST((all ? modus_cond_notify_all(&s->cond) : modus_cond_notify(&s->cond, 1)) >= 0);
    unlock();
}

static bool victim_is_gone_or_was_overtaken(void *unused)
{
    (void)unused;
    return check_gone(1) || (check_asleep(1) && s->tokens == 0);
}

/* The victim may die anywhere, also with the wake-up in its hands; once it is buried the other one
 * must find the token that nobody took, without another notification. */
static void give_to_the_other(void)
{
    give(false);
    check_wait(victim_is_gone_or_was_overtaken, NULL);
    if (!check_gone(1))
        give(true);
    check_await_gone(1);
    if (s->tokens == 0)
        give(false);
}

/* Nothing that the dead one used is waited for before it is buried. */
static void bury(void)
{
    check_await_gone(1);
    modus_participant_bury(check_arena, check_pid_of(1));
}

static void notify_then_die(void)
{
    lock();
    s->tokens += 2;
    MUST(modus_cond_notify_all(&s->cond) >= 0);
    unlock();
}

static void bury_only(void)
{
    check_await_gone(1);
    modus_participant_bury(check_arena, check_pid_of(1));
    lock();
    bool unsaid = s->tokens + s->taken == 0;
    unlock();
    if (unsaid)
        notify_then_die();
}

static void other_took(void)
{
    MUST(s->taken >= 1);
}

CHECK_SCENARIO(waiter_dies, .name = "cond/waiter-dies", .setup = setup_shared,
               .actors = {take_token, take_token, give_to_the_other, bury}, .verify = other_took,
               .victim = 1, .switches = 1);
CHECK_SCENARIO(notifier_dies, .name = "cond/notifier-dies", .setup = setup_shared,
               .actors = {notify_then_die, take_token, bury_only}, .verify = other_took,
               .victim = 1, .switches = 1);
