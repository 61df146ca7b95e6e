/* SPDX-License-Identifier: MIT */
/* Barrier: all or nobody, round after round. */
#include "tests/check/check.h"

#include "concurrency/barrier.h"
#include "concurrency/participant.h"

struct scene {
    struct modus_barrier barrier;
    int arrived[2], places[2][3], broken, passed;
};

static struct scene *s;

static void setup_for(enum modus_scope scope, unsigned parties)
{
    struct modus_barrier_attr attr = {.scope = scope, .parties = parties, .arena = check_arena};

    if (scope == MODUS_PROCESS)
        check_join_all(3);
    s = check_memory(sizeof *s);
    MUST_INT(modus_barrier_init(&s->barrier, &attr), 0);
}

static void setup_three(void)
{
    setup_for(MODUS_THREAD, 3);
}

static void setup_two(void)
{
    setup_for(MODUS_THREAD, 2);
}

static void setup_shared(void)
{
    setup_for(MODUS_PROCESS, 2);
}

static void meet(int round)
{
    s->arrived[round]++;
    int place = modus_barrier_wait(&s->barrier, MODUS_FOREVER);
    MUST(place >= 0 && place < (int)s->barrier.parties);
    MUST_INT(s->arrived[round], s->barrier.parties);
    MUST_INT(s->places[round][place]++, 0);
    s->passed++;
}

static void meet_once(void)
{
    meet(0);
}

static void meet_twice(void)
{
    meet(0);
    meet(1);
}

static void is_empty(void)
{
    MUST_INT(s->barrier.inside, 0);
    MUST(!modus_barrier_broken(&s->barrier));
}

/* Whoever has ended without leaving the arena is dead, so that it may be broken by now. */
static void two_rounds(void)
{
    MUST_INT(s->barrier.inside, 0);
    MUST_INT(s->passed, 4);
}

CHECK_SCENARIO(three, .name = "barrier/three", .setup = setup_three,
               .actors = {meet_once, meet_once, meet_once}, .verify = is_empty);
CHECK_SCENARIO(rounds, .name = "barrier/rounds", .setup = setup_two,
               .actors = {meet_twice, meet_twice}, .verify = is_empty);
CHECK_SCENARIO(shared, .name = "barrier/process", .setup = setup_shared,
               .actors = {meet_twice, meet_twice}, .verify = two_rounds);

/* More users than parties: two of the four wait at the door, and none of the two who leave comes back. */
static void meet_anybody(void)
{
    MUST(modus_barrier_wait(&s->barrier, MODUS_FOREVER) >= 0);
    s->passed++;
}

CHECK_SCENARIO(door, .name = "barrier/door", .setup = setup_two,
               .actors = {meet_anybody, meet_anybody, meet_anybody, meet_anybody},
               .verify = two_rounds, .switches = 1);

/* --- breaking -------------------------------------------------------------------------------- */

static void meet_or_break(int64_t deadline)
{
    int rc = modus_barrier_wait(&s->barrier, deadline);

    MUST(rc >= 0 || rc == MODUS_BROKEN || rc == -ETIMEDOUT);
    s->passed += rc >= 0;
    s->broken += rc < 0;
}

static void meet_in_time(void)
{
    meet_or_break(1000);
}

static void meet_or_be_broken(void)
{
    meet_or_break(MODUS_FOREVER);
}

static void all_or_nobody(void)
{
    MUST_INT(s->barrier.inside, 0);
    MUST(s->passed == 0 || s->passed == (int)s->barrier.parties);
    MUST_INT(modus_barrier_broken(&s->barrier), s->broken > 0);
}

CHECK_SCENARIO(race, .name = "barrier/timeout", .setup = setup_two,
               .actors = {meet_in_time, meet_or_be_broken}, .verify = all_or_nobody);

static void abort_it(void)
{
    modus_barrier_abort(&s->barrier);
}

static void nobody_inside(void)
{
    MUST_INT(s->barrier.inside, 0);
    MUST(s->passed == 0 || s->passed == 2);
    MUST(modus_barrier_broken(&s->barrier));
}

CHECK_SCENARIO(aborted, .name = "barrier/abort", .setup = setup_two,
               .actors = {meet_or_be_broken, meet_or_be_broken, abort_it}, .verify = nobody_inside);

static void reset_it(void)
{
    check_await_asleep_or_gone(1);
    modus_barrier_reset(&s->barrier);
}

static void was_reset(void)
{
    MUST_INT(s->broken, 1);
    is_empty();
}

/* Who is inside gets BROKEN, and the barrier is whole again. */
CHECK_SCENARIO(reset, .name = "barrier/reset", .setup = setup_two,
               .actors = {meet_or_be_broken, reset_it}, .verify = was_reset);

/* A party that dies in the barrier breaks it for the other; before or after it does not. */
static void bury_and_abort(void)
{
    check_await_gone(1);
    modus_participant_bury(check_arena, check_pid_of(1));
    if (check_killed(1))
        modus_barrier_abort(&s->barrier);
}

static void party_died(void)
{
    MUST_INT(modus_barrier_waiting(&s->barrier), 0);
    MUST(s->passed <= 2);
}

CHECK_SCENARIO(party_dies, .name = "barrier/party-dies", .setup = setup_shared,
               .actors = {meet_or_be_broken, meet_or_be_broken, bury_and_abort},
               .verify = party_died, .victim = 1, .switches = 1);

/* A party ends without leaving the arena, after the first round: the other does not wait for it in the
 * second, whenever the death is buried. */
static void meet_and_be_left(void)
{
    meet(0);
    MUST_INT(modus_barrier_wait(&s->barrier, MODUS_FOREVER), MODUS_BROKEN);
}

static void bury_only(void)
{
    check_await_gone(1);
    modus_participant_bury(check_arena, check_pid_of(1));
}

static void was_left(void)
{
    MUST_INT(s->passed, 2);
    MUST(modus_barrier_broken(&s->barrier));
}

CHECK_SCENARIO(party_ends, .name = "barrier/party-ends", .setup = setup_shared,
               .actors = {meet_once, meet_and_be_left, bury_only}, .verify = was_left);
