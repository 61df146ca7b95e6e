/* SPDX-License-Identifier: MIT */
/* What scenarios ask the checker for: to wait, to let others go on, to know who sleeps or is dead. */
#define CHECK_ENGINE 1
#include "tests/check/engine.h"

void check_yield(void)
{
    static const struct check_place place = {__FILE__, __LINE__, "yields", ""};

    check_point(&place, NULL);
}

void check_wait(bool (*ready)(void *argument), void *argument)
{
    struct check_actor *current = check_current();

    while (!ready(argument)) {
        current->ready = ready;
        current->argument = argument;
        current->timed = current->patient = false;
        check_block(WAITING);
    }
}

static bool is_over(const struct check_actor *actor)
{
    return actor->state == GONE || actor->state == KILLED;
}

static bool others_moved(void *argument)
{
    const struct check_actor *actor = argument;

    return actor->others_seen != check_changes_but(actor);
}

/* Since it last came out of here: what the others did during the try is reason enough. */
void check_let_others(void)
{
    struct check_actor *current = check_current();

    check_wait(others_moved, current);
    current->others_seen = check_changes_but(current);
}

bool check_asleep(int actor)
{
    return check_actors[actor - 1].state == PARKED && !check_actors[actor - 1].woken;
}

bool check_gone(int actor)
{
    return is_over(&check_actors[actor - 1]);
}

bool check_killed(int actor)
{
    return check_actors[actor - 1].state == KILLED;
}

static bool gone(void *argument)
{
    return is_over(argument);
}

static bool asleep_or_gone(void *argument)
{
    struct check_actor *actor = argument;

    return is_over(actor) || (actor->state == PARKED && !actor->woken);
}

void check_await_asleep_or_gone(int actor)
{
    check_wait(asleep_or_gone, &check_actors[actor - 1]);
}

void check_await_gone(int actor)
{
    check_wait(gone, &check_actors[actor - 1]);
}

void check_become(int actor)
{
    check_models_be(actor);
}

void check_join_all(int actors)
{
    for (int i = 1; i <= actors; i++) {
        check_become(i);
        MUST_INT(modus_participant_join(check_arena), i);
    }
    check_become(0);
}
