/* SPDX-License-Identifier: MIT */
/* Event and doorbell: a set that comes while somebody waits reaches it, even if it is cleared at
 * once; and a loop that hears and then looks misses nothing. */
#include "tests/check/check.h"

#include "concurrency/doorbell.h"
#include "concurrency/event.h"
#include "concurrency/participant.h"

struct scene {
    struct modus_event event;
    struct modus_doorbell bell;
    int data, seen, timeouts;
    _Atomic int late; /* written without a fence: in a store buffer for a while */
};

static struct scene *s;

static void setup(void)
{
    s = check_memory(sizeof *s);
    MUST_INT(modus_event_init(&s->event, MODUS_THREAD), 0);
}

static void setup_shared(void)
{
    check_join_all(3);
    s = check_memory(sizeof *s);
    MUST_INT(modus_event_init(&s->event, MODUS_PROCESS), 0);
}

static void await(void)
{
    MUST_INT(modus_event_wait(&s->event, MODUS_FOREVER), 0);
    MUST_INT(s->data, 1);
    s->seen++;
}

static void await_in_time(void)
{
    int rc = modus_event_wait_until(&s->event, 1);

    MUST(rc == 0 || rc == -ETIMEDOUT);
    s->seen += rc == 0;
    s->timeouts += rc != 0;
}

static void set(void)
{
    s->data = 1;
    modus_event_set(&s->event);
}

static void pulse_when_both_sleep(void)
{
    check_await_asleep_or_gone(1);
    check_await_asleep_or_gone(2);
    set();
    modus_event_clear(&s->event);
}

static void both_saw(void)
{
    MUST_INT(s->seen + s->timeouts, 2);
}

CHECK_SCENARIO(sets, .name = "event/set", .setup = setup, .actors = {await, await, set},
               .verify = both_saw, .switches = 3);
CHECK_SCENARIO(pulse, .name = "event/pulse", .setup = setup,
               .actors = {await, await, pulse_when_both_sleep}, .verify = both_saw, .switches = 3);
CHECK_SCENARIO(race, .name = "event/timeout", .setup = setup, .actors = {await_in_time, await, set},
               .verify = both_saw, .switches = 3);
CHECK_SCENARIO(shared, .name = "event/process", .setup = setup_shared,
               .actors = {await, await, pulse_when_both_sleep}, .verify = both_saw);

/* One waits, clears and looks for what was written before a set: either the flag is seen, or what
 * was written. Also when the flag was set already. */
static void set_again(void)
{
    modus_event_set(&s->event);
    atomic_store_explicit(&s->late, 1, memory_order_relaxed);
    modus_event_set(&s->event);
}

static void clear_and_look(void)
{
    do {
        MUST_INT(modus_event_wait(&s->event, MODUS_FOREVER), 0);
        modus_event_clear(&s->event);
    } while (atomic_load(&s->late) == 0);
}

CHECK_SCENARIO(again, .name = "event/clear-and-look", .setup = setup,
               .actors = {clear_and_look, set_again}, .switches = 3);

/* --- deaths ---------------------------------------------------------------------------------- */

/* The setter may die between the flag and the wake-up. */
static void bury_then_set(void)
{
    check_await_gone(1);
    modus_participant_bury(check_arena, check_pid_of(1));
    if (!modus_event_is_set(&s->event))
        set();
}

static void one_saw(void)
{
    MUST(s->seen >= 1);
}

CHECK_SCENARIO(setter_dies, .name = "event/setter-dies", .setup = setup_shared,
               .actors = {set, await, bury_then_set}, .verify = one_saw, .victim = 1);
CHECK_SCENARIO(waiter_dies, .name = "event/waiter-dies", .setup = setup_shared,
               .actors = {await, await, set}, .verify = one_saw, .victim = 1);

/* --- doorbell -------------------------------------------------------------------------------- */

static void setup_bell(void)
{
    setup();
    MUST_INT(modus_doorbell_init(&s->bell), 0);
}

/* A loop: arms, looks, and sleeps in poll. */
static void poll_for_it(void)
{
    MUST_INT(modus_event_arm(&s->event, &s->bell), 0);
    while (!modus_event_is_set(&s->event)) {
        check_await_readable(modus_doorbell_fd(&s->bell));
        modus_doorbell_hear(&s->bell);
    }
    modus_event_clear(&s->event);
    while (s->data < 3) {
        check_await_readable(modus_doorbell_fd(&s->bell));
        modus_doorbell_hear(&s->bell);
        modus_event_clear(&s->event);
    }
    modus_event_disarm(&s->event, &s->bell);
}

static void count_and_set(void)
{
    s->data++;
    modus_event_set(&s->event);
}

static void count_twice(void)
{
    count_and_set();
    count_and_set();
}

CHECK_SCENARIO(bell, .name = "event/doorbell", .setup = setup_bell,
               .actors = {poll_for_it, count_twice, count_and_set});

static void setup_shared_bell(void)
{
    setup_shared();
    MUST_INT(modus_doorbell_init(&s->bell), 0);
}

static void poll_until_set(void)
{
    MUST_INT(modus_event_arm(&s->event, &s->bell), 0);
    while (!modus_event_is_set(&s->event)) {
        check_await_readable(modus_doorbell_fd(&s->bell));
        modus_doorbell_hear(&s->bell);
    }
    s->seen++;
}

/* The setter may die between its claim to ring and the write. */
CHECK_SCENARIO(ringer_dies, .name = "event/ringer-dies", .setup = setup_shared_bell,
               .actors = {set, poll_until_set, bury_then_set}, .verify = one_saw, .victim = 1,
               .switches = 1);
