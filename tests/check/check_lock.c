/* SPDX-License-Identifier: MIT */
/* Lock and recursive lock: one owner at a time, and nobody sleeps beside a free lock. */
#include "tests/check/check.h"

#include "concurrency/lock.h"
#include "concurrency/participant.h"
#include "concurrency/rlock.h"

enum { STARVING = 2000000 }; /* a tick that makes every second wait an heir's */

static struct {
    struct modus_lock lock;
    struct modus_rlock rlock;
    struct modus_lock *shared; /* process scope */
    int inside, entries, timeouts, inherited, torn;
} s;

static void setup(void)
{
    memset(&s, 0, sizeof s);
    MUST_INT(modus_lock_init(&s.lock, MODUS_THREAD), 0);
    MUST_INT(modus_rlock_init(&s.rlock, MODUS_THREAD), 0);
}

static void be_inside(void)
{
    MUST_INT(++s.inside, 1);
    check_yield();
    s.inside--;
    s.entries++;
}

static void pass(void)
{
    MUST_INT(modus_lock_acquire(&s.lock, MODUS_FOREVER), 0);
    be_inside();
    MUST_INT(modus_lock_release(&s.lock), 0);
}

static void pass_twice(void)
{
    pass();
    pass();
}

/* One that gives up must take no wake-up with it. */
static void pass_in_time(void)
{
    int rc = modus_lock_acquire_until(&s.lock, 1);

    if (rc == -ETIMEDOUT) {
        s.timeouts++;
        return;
    }
    MUST_INT(rc, 0);
    be_inside();
    MUST_INT(modus_lock_release(&s.lock), 0);
}

static void is_free(void)
{
    MUST_INT(s.lock.word, 0);
    MUST_INT(s.lock.heir, 0);
}

static void three_entered(void)
{
    is_free();
    MUST_INT(s.entries + s.timeouts, 3);
}

static void four_entered(void)
{
    is_free();
    MUST_INT(s.entries + s.timeouts, 4);
}

CHECK_SCENARIO(exclusion, .name = "lock/exclusion", .setup = setup, .actors = {pass, pass, pass},
               .verify = three_entered, .switches = 3);
CHECK_SCENARIO(twice, .name = "lock/twice", .setup = setup, .actors = {pass_twice, pass_twice},
               .verify = four_entered, .switches = 3);
CHECK_SCENARIO(timeout, .name = "lock/timeout", .setup = setup,
               .actors = {pass, pass_in_time, pass}, .verify = three_entered, .switches = 3);
CHECK_SCENARIO(heir, .name = "lock/heir", .setup = setup, .actors = {pass_twice, pass, pass},
               .verify = four_entered, .tick = STARVING, .switches = 3);
CHECK_SCENARIO(heir_timeout, .name = "lock/heir-timeout", .setup = setup,
               .actors = {pass_twice, pass_in_time, pass}, .verify = four_entered, .tick = STARVING,
               .switches = 3);

/* --- recursion ------------------------------------------------------------------------------- */

static void pass_deep(void)
{
    MUST_INT(modus_rlock_acquire(&s.rlock, MODUS_FOREVER), 0);
    MUST_INT(modus_rlock_acquire(&s.rlock, MODUS_FOREVER), 0);
    be_inside();
    MUST_INT(modus_rlock_release(&s.rlock), 0);
    be_inside();
    MUST_INT(modus_rlock_release(&s.rlock), 0);
    MUST_INT(modus_rlock_release(&s.rlock), -EPERM);
}

static void was_deep(void)
{
    MUST_INT(s.rlock.lock.word, 0);
    MUST_INT(s.entries, 4);
}

CHECK_SCENARIO(recursion, .name = "rlock/recursion", .setup = setup,
               .actors = {pass_deep, pass_deep}, .verify = was_deep, .switches = 3);

/* --- between processes ----------------------------------------------------------------------- */

static void setup_shared(void)
{
    memset(&s, 0, sizeof s);
    s.shared = check_memory(sizeof *s.shared);
    MUST_INT(modus_lock_init(s.shared, MODUS_PROCESS), 0);
}

/* torn is what a death inside leaves behind. */
static void pass_shared(void)
{
    int rc = modus_lock_acquire(s.shared, MODUS_FOREVER);

    if (rc == MODUS_OWNERDEAD) {
        s.inherited++;
        s.torn = 0;
        MUST_INT(modus_lock_consistent(s.shared), 0);
    } else {
        MUST_INT(rc, 0);
    }
    MUST_INT(s.torn, 0);
    s.torn = 1;
    check_yield();
    s.torn = 0;
    s.entries++;
    MUST_INT(modus_lock_release(s.shared), 0);
}

static void passed_shared(void)
{
    MUST(!modus_lock_poisoned(s.shared));
    MUST(s.inherited <= (check_killed(1) ? 1 : 0));
    MUST(s.entries >= (check_killed(1) ? 2 : 3));
}

/* Whoever supervises buries: that wakes sleepers whose wake-up died with its carrier. */
static void bury_the_first(void)
{
    check_await_gone(1);
    modus_participant_bury(check_arena, check_pid_of(1));
}

CHECK_SCENARIO(owner_dies, .name = "lock/owner-dies", .setup = setup_shared,
               .actors = {pass_shared, pass_shared, pass_shared, bury_the_first},
               .verify = passed_shared, .victim = 1, .switches = 1);

static void pass_poisoning(void)
{
    int rc = modus_lock_acquire(s.shared, MODUS_FOREVER);

    if (rc != MODUS_NOTRECOVERABLE)
        MUST_INT(modus_lock_release(s.shared), 0);
    s.inherited += rc == MODUS_OWNERDEAD;
    s.timeouts += rc == MODUS_NOTRECOVERABLE;
}

/* Whoever inherits and mends nothing poisons the lock, for all and at once. */
static void is_poisoned(void)
{
    MUST(s.inherited <= 1);
    if (s.inherited)
        MUST(modus_lock_poisoned(s.shared));
    else
        MUST_INT(s.timeouts, 0);
}

CHECK_SCENARIO(poison, .name = "lock/poison", .setup = setup_shared,
               .actors = {pass_poisoning, pass_poisoning, pass_poisoning, bury_the_first},
               .verify = is_poisoned, .victim = 1, .switches = 1);
