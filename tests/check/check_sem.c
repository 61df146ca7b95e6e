/* SPDX-License-Identifier: MIT */
/* Semaphore: never more holders than permits, no permit lost, nobody asleep beside a free one. */
#include "tests/check/check.h"

#include "concurrency/participant.h"
#include "concurrency/sem.h"

struct scene {
    struct modus_sem sem;
    struct modus_doorbell bell;
    int holding, most, taken, timeouts;
};

static struct scene *s;

static void setup_with(struct modus_sem_attr attr)
{
    s = check_memory(sizeof *s);
    s->most = (int)attr.value;
    MUST_INT(modus_sem_init(&s->sem, &attr), 0);
}

static void setup_none(void)
{
    setup_with((struct modus_sem_attr){.scope = MODUS_THREAD});
}

static void setup_one(void)
{
    setup_with((struct modus_sem_attr){.scope = MODUS_THREAD, .value = 1, .max = 1});
}

static void setup_two(void)
{
    setup_with((struct modus_sem_attr){.scope = MODUS_THREAD, .value = 2, .max = 2});
}

static void setup_shared(void)
{
    check_join_all(3);
    setup_with((struct modus_sem_attr){.scope = MODUS_PROCESS, .value = 1, .max = 1});
}

static void setup_accounted(void)
{
    check_join_all(3);
    setup_with(
        (struct modus_sem_attr){.scope = MODUS_PROCESS, .value = 1, .max = 1, .accounted = true});
}

static void hold(void)
{
    MUST(++s->holding <= s->most);
    check_yield();
    s->holding--;
    s->taken++;
    MUST_INT(modus_sem_release(&s->sem, 1), 0);
}

static void pass(void)
{
    MUST_INT(modus_sem_acquire(&s->sem, MODUS_FOREVER), 0);
    hold();
}

static void pass_in_time(void)
{
    int rc = modus_sem_acquire_until(&s->sem, 1);

    if (rc == 0)
        hold();
    else
        MUST_INT(rc, -ETIMEDOUT);
    s->timeouts += rc != 0;
}

static void all_back(void)
{
    MUST_INT(modus_sem_value(&s->sem), s->most);
    MUST_INT(modus_sem_release(&s->sem, 1), -EOVERFLOW);
    MUST_INT(s->taken + s->timeouts, 3);
}

CHECK_SCENARIO(one, .name = "sem/one", .setup = setup_one, .actors = {pass, pass, pass},
               .verify = all_back);
CHECK_SCENARIO(two, .name = "sem/two", .setup = setup_two, .actors = {pass, pass, pass},
               .verify = all_back);
CHECK_SCENARIO(race, .name = "sem/timeout", .setup = setup_one,
               .actors = {pass_in_time, pass, pass}, .verify = all_back);
CHECK_SCENARIO(shared, .name = "sem/process", .setup = setup_shared, .actors = {pass, pass, pass},
               .verify = all_back);

/* Two sleep, and two permits come at once, or one after the other. */
static void take(void)
{
    MUST_INT(modus_sem_acquire(&s->sem, MODUS_FOREVER), 0);
    s->taken++;
}

static void give_two(void)
{
    MUST_INT(modus_sem_release(&s->sem, 2), 0);
}

static void give_twice(void)
{
    MUST_INT(modus_sem_release(&s->sem, 1), 0);
    MUST_INT(modus_sem_release(&s->sem, 1), 0);
}

static void take_and_give(void)
{
    take();
    MUST_INT(modus_sem_release(&s->sem, 1), 0);
}

static void both_took(void)
{
    MUST_INT(s->taken, 2);
    MUST_INT(modus_sem_value(&s->sem), 0);
}

static void passed_on(void)
{
    MUST_INT(s->taken, 3);
    MUST_INT(modus_sem_value(&s->sem), 1);
}

CHECK_SCENARIO(both, .name = "sem/two-at-once", .setup = setup_none,
               .actors = {take, take, give_two}, .verify = both_took, .switches = 3);
CHECK_SCENARIO(by_turns, .name = "sem/one-by-one", .setup = setup_none,
               .actors = {take, take, give_twice}, .verify = both_took, .switches = 3);
CHECK_SCENARIO(relay, .name = "sem/relay", .setup = setup_none,
               .actors = {take_and_give, take_and_give, take, give_twice}, .verify = passed_on);

/* --- doorbell -------------------------------------------------------------------------------- */

static void setup_bell(void)
{
    setup_none();
    MUST_INT(modus_doorbell_init(&s->bell), 0);
}

static void poll_for_two(void)
{
    MUST_INT(modus_sem_arm(&s->sem, &s->bell), 0);
    for (;;) {
        while (modus_sem_try(&s->sem) == 0)
            s->taken++;
        if (s->taken == 2)
            break;
        check_await_readable(modus_doorbell_fd(&s->bell));
        modus_doorbell_hear(&s->bell);
    }
    modus_sem_disarm(&s->sem, &s->bell);
}

CHECK_SCENARIO(bell, .name = "sem/doorbell", .setup = setup_bell,
               .actors = {poll_for_two, give_twice}, .verify = both_took, .switches = 3);

/* --- accounted ------------------------------------------------------------------------------- */

/* The victim may die with the permit, without it, or on the way. */
static void pass_counted(void)
{
    MUST_INT(modus_sem_acquire(&s->sem, MODUS_FOREVER), 0);
    check_yield();
    MUST_INT(modus_sem_release(&s->sem, 1), 0);
}

static void bury(void)
{
    check_await_gone(1);
    modus_participant_bury(check_arena, check_pid_of(1));
    pass_counted();
}

static void refunded(void)
{
    MUST_INT(modus_sem_value(&s->sem), 1);
    for (int id = 1; id <= 3; id++)
        MUST_INT(modus_sem_held(&s->sem, id), 0);
}

CHECK_SCENARIO(holder_dies, .name = "sem/holder-dies", .setup = setup_accounted,
               .actors = {pass_counted, pass_counted, bury}, .verify = refunded, .victim = 1,
               .switches = 1);

/* --- plain, between processes ---------------------------------------------------------------- */

static void setup_shared_none(void)
{
    check_join_all(3);
    setup_with((struct modus_sem_attr){.scope = MODUS_PROCESS});
}

static bool victim_is_gone_or_was_overtaken(void *unused)
{
    (void)unused;
    return check_gone(1) || (check_asleep(1) && s->sem.word / 2 == 0);
}

/* The victim may die with the wake-up in its hands, before it has the permit. Then the other one
 * must find that, without another release. */
static void give_and_bury(void)
{
    MUST_INT(modus_sem_release(&s->sem, 1), 0);
    check_wait(victim_is_gone_or_was_overtaken, NULL);
    if (!check_gone(1))
        MUST_INT(modus_sem_release(&s->sem, 1), 0);
    check_await_gone(1);
    modus_participant_bury(check_arena, check_pid_of(1));
    if (modus_sem_value(&s->sem) == 0)
        MUST_INT(modus_sem_release(&s->sem, 1), 0);
}

static void other_took(void)
{
    MUST(s->taken >= 1);
}

CHECK_SCENARIO(waiter_dies, .name = "sem/waiter-dies", .setup = setup_shared_none,
               .actors = {take, take, give_and_bury}, .verify = other_took, .victim = 1);
