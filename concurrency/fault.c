/* SPDX-License-Identifier: MIT */
/* The one planned fault of a process; its hooks stay a load and a branch. */
#include "concurrency/fault.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

_Atomic int modus_fault_planned;
static enum modus_fault_action planned_action;
static _Atomic unsigned planned_passing, passed;

void modus_fault_plan(enum modus_fault_point point, enum modus_fault_action action, unsigned n)
{
    planned_action = action;
    atomic_store(&planned_passing, n);
    atomic_store(&passed, 0);
    atomic_store(&modus_fault_planned, (int)point);
}

unsigned modus_fault_passed(void)
{
    return atomic_load(&passed);
}

const char *modus_fault_name(enum modus_fault_point point)
{
    switch (point) {
    case MODUS_FAULT_NONE:
    case MODUS_FAULT_COUNT:
        break;
#define X(name, window)                                                                            \
    case MODUS_FAULT_##name:                                                                       \
        return #name ": " window;
        MODUS_FAULTS(X)
#undef X
    }
    return "NONE";
}

void modus_fault_strike(void)
{
    struct timespec dawdle = {.tv_nsec = 2000000};

    unsigned now = atomic_fetch_add(&passed, 1) + 1, planned = atomic_load(&planned_passing);
    if (planned != 0 && now != planned)
        return;
    switch (planned_action) {
    case MODUS_FAULT_DIE:
        kill(getpid(), SIGKILL);
        pause();
        break;
    case MODUS_FAULT_STOP:
        kill(getpid(), SIGSTOP);
        break;
    case MODUS_FAULT_DELAY:
        nanosleep(&dawdle, NULL);
        break;
    }
}
