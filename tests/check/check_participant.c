/* SPDX-License-Identifier: MIT */
/* Participants: the dead are buried once, by whoever comes, and an id that is given anew has no
 * claims anywhere. */
#include "tests/check/check.h"

#include "concurrency/participant.h"
#include "concurrency/ring.h"

enum { CAPACITY = 2 };

struct scene {
    struct modus_queue queue;
    int puts, buried;
};

static struct scene *s;

static void setup(void)
{
    struct modus_queue_attr attr = {.scope = MODUS_PROCESS,
                                    .arena = check_arena,
                                    .capacity = CAPACITY,
                                    .item_size = sizeof(int)};

    check_join_all(3);
    s = check_memory(sizeof *s);
    MUST_INT(modus_queue_init(&s->queue, &attr), 0);
}

static void put_one(void)
{
    int item = 1;

    MUST_INT(modus_ring_process_put(&s->queue, &item, 1), 1);
    s->puts = 1;
}

static void bury(void)
{
    s->buried += modus_participant_bury(check_arena, 0);
}

static void await_and_bury(void)
{
    check_await_gone(1);
    bury();
}

/* Whether it is the dead one's id or another. */
static void join_anew(void)
{
    MUST_INT(modus_participant_leave(check_arena), 0);
    int id = modus_participant_join(check_arena);
    MUST(id > 0);
    for (uint64_t at = 0; at < CAPACITY; at++)
        MUST(ring_owner(ring_slot(&s->queue, at)->state) != id);
}

static void leave_and_join(void)
{
    join_anew();
    join_anew();
}

static void is_whole(void)
{
    int item = 0;

    MUST(modus_participant_join(check_arena) > 0);
    modus_participant_bury(check_arena, 0);
    long got = modus_ring_process_get(&s->queue, &item, 1);
    MUST(got == 1 || (got == MODUS_EMPTY && !s->puts));
    for (int i = 0; i < CAPACITY; i++)
        MUST_INT(modus_ring_process_put(&s->queue, &item, 1), 1);
    MUST_INT(modus_ring_process_put(&s->queue, &item, 1), MODUS_FULL);
}

/* The victim has ended in any case, killed or not, without leaving. Also its buriers have, and may
 * bury each other. */
static void buried_once(void)
{
    MUST(s->buried >= 1 && s->buried <= 2);
    is_whole();
}

CHECK_SCENARIO(two_buriers, .name = "participant/two-buriers", .setup = setup,
               .actors = {put_one, await_and_bury, await_and_bury}, .verify = buried_once,
               .victim = 1, .switches = 1);
CHECK_SCENARIO(new_id, .name = "participant/new-id", .setup = setup,
               .actors = {put_one, bury, leave_and_join}, .verify = is_whole, .victim = 1,
               .switches = 1);

/* --- a burier dies --------------------------------------------------------------------------- */

static void end_with_claim(void)
{
    put_one();
}

static void bury_after_burier(void)
{
    check_await_gone(1);
    bury();
    bury();
}

static void bury_first(void)
{
    check_await_gone(2);
    bury();
}

CHECK_SCENARIO(burier_dies, .name = "participant/burier-dies", .setup = setup,
               .actors = {bury_first, end_with_claim, bury_after_burier}, .verify = is_whole,
               .victim = 1);
