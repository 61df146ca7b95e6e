/* SPDX-License-Identifier: MIT */
/*
 * A group is a list of members; all that touch it run on one thread, one at a time, so there is
 * nothing to lock. The count of the living is a word because the owner waits for it.
 */
#include "concurrency/group.h"
#include "concurrency/coroutine_priv.h"

#include <stdlib.h>

struct modus_group_member {
    struct modus_group *group;
    struct modus_group_member *next, *previous;
    struct modus_co *co;
    int (*run)(void *argument);
    void *argument;
    int *result;
};

int modus_group_open(struct modus_group *group, const struct modus_group_attr *attr)
{
    struct modus_co *self = modus_co_self();

    *group = (struct modus_group){.owner = self, .deadline = MODUS_FOREVER};
    if (attr && attr->deadline)
        group->deadline = attr->deadline;
    group->keep_going = attr && attr->keep_going;
    return self ? 0 : -EPERM;
}

static void fail(struct modus_group *group, int error)
{
    if (group->error == 0)
        group->error = error;
}

static void cancel_members(struct modus_group *group)
{
    group->cancelled = true;
    for (struct modus_group_member *member = group->members; member; member = member->next)
        modus_co_cancel(member->co);
}

static void end_by(struct modus_group *group, int error)
{
    fail(group, error);
    cancel_members(group);
}

void modus_group_cancel(struct modus_group *group)
{
    if (group->owner)
        end_by(group, MODUS_CANCELED);
}

/* --- members --------------------------------------------------------------------------------- */

static void leave(struct modus_group_member *member)
{
    struct modus_group *group = member->group;

    *(member->previous ? &member->previous->next : &group->members) = member->next;
    if (member->next)
        member->next->previous = member->previous;
    modus_co_put(member->co);
    free(member);
    if (atomic_fetch_sub(&group->live, 1) == 1)
        modus_unpark(MODUS_THREAD, &group->live, 1);
}

static int run_member(void *argument)
{
    struct modus_group_member *member = argument;
    struct modus_group *group = member->group;
    int rc = member->run(member->argument);

    if (member->result)
        *member->result = rc;
    if (rc < 0) {
        fail(group, rc);
        if (!group->keep_going && !group->cancelled)
            cancel_members(group); /* oneself too: that does no harm any more */
    }
    leave(member);
    return rc;
}

static int64_t earlier(int64_t one, int64_t other)
{
    if (one == MODUS_FOREVER || (other != MODUS_FOREVER && other < one))
        return other;
    return one;
}

/* What a member is started with: no later deadline than the group's and the caller's. */
static struct modus_co_attr attr_for(const struct modus_group *group,
                                     const struct modus_co_attr *attr)
{
    struct modus_co_attr result = attr ? *attr : (struct modus_co_attr){0};
    int64_t own = modus_co_self()->deadline;

    result.deadline =
        earlier(result.deadline ? result.deadline : own, earlier(own, group->deadline));
    return result;
}

int modus_group_start(struct modus_group *group, const struct modus_co_attr *attr,
                      int (*run)(void *argument), void *argument, int *result)
{
    if (!run)
        return -EINVAL;
    if (!group->owner || !modus_co_self() || group->owner->loop != modus_co_here)
        return -EPERM;
    if (!group->cancelled && group->deadline != MODUS_FOREVER && modus_now_ns() >= group->deadline)
        end_by(group, -ETIMEDOUT);
    if (group->cancelled)
        return MODUS_CANCELED;
    struct modus_group_member *member = malloc(sizeof *member);
    if (!member)
        return -ENOMEM;
    *member = (struct modus_group_member){
        .group = group, .run = run, .argument = argument, .result = result, .next = group->members};
    struct modus_co_attr with = attr_for(group, attr);
    int rc = modus_co_start(&member->co, &with, run_member, member);
    if (rc < 0) {
        free(member);
        return rc;
    }
    if (member->next)
        member->next->previous = member;
    group->members = member;
    atomic_fetch_add(&group->live, 1);
    return 0;
}

/* --- waiting --------------------------------------------------------------------------------- */

static void await_all(struct modus_group *group)
{
    uint32_t live;

    while ((live = atomic_load(&group->live)) != 0)
        modus_park_deaf(MODUS_THREAD, &group->live, live, MODUS_FOREVER, NULL);
}

int modus_group_wait(struct modus_group *group)
{
    uint32_t live;
    int rc = 0;

    if (!group->owner || group->owner != modus_co_self())
        return -EPERM;
    while (rc == 0 && (live = atomic_load(&group->live)) != 0)
        rc = modus_park(MODUS_THREAD, &group->live, live, group->deadline, NULL);
    if (rc < 0) {
        end_by(group, rc);
        await_all(group);
    }
    return group->error;
}

unsigned modus_group_live(const struct modus_group *group)
{
    return atomic_load(&group->live);
}

void modus_group_end(struct modus_group *group)
{
    if (!group->owner || group->owner != modus_co_self()) /* also: in a forked child */
        return;
    cancel_members(group);
    await_all(group);
    group->owner = NULL;
}
