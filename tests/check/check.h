/* SPDX-License-Identifier: MIT */
/*
 * Check: a small exhaustive checker of interleavings.
 *
 * The sources of the primitives are compiled a second time with hooks.h in front, so that the
 * checker decides at every atomic operation, mutex and park which actor goes on. A scenario is two
 * to four actors, each a function that runs as a context (context.h) on one thread. The search runs
 * it again and again, with every choice that the bounds allow:
 *
 *     switches  at most so many times is an actor interrupted that could go on; a switch when it
 *               blocks or ends is free
 *     a death   a scenario's victim may be killed between any two of its steps, or asleep; its
 *               robust mutexes pass on, its futex sleeps end, all else stays as it left it
 *     a time    whoever waits with a deadline may find it past at any moment
 *     no reason one sleeper of a run may wake for no reason
 *     buffers   (tso) a store that is not seq_cst may be seen by others only when its actor next
 *               does something with a full fence, as on x86
 *
 * What must hold: MUST in the actors and in verify (after all are over), nobody sleeps when nobody
 * can go on, and every run ends. When something does not hold, the run is shown step by step; the
 * bounds grow from 0, so that it has the fewest switches there can be.
 *
 * Beyond the bounds there are random runs with a seed: PCT (S. Burckhardt and others, "A Randomized
 * Scheduler with Probabilistic Guarantees of Finding Bugs"). The bounded search is after M.
 * Musuvathi and S. Qadeer, "Iterative Context Bounding".
 *
 * What it cannot see: reordering that is weaker than x86's, and whatever needs more actors, more
 * operations or more switches than it is given.
 */
#ifndef TESTS_CHECK_CHECK_H
#define TESTS_CHECK_CHECK_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/arena.h"

enum { CHECK_ACTORS = 4 };

struct check_scenario {
    const char *name; /* part/what */
    void (*setup)(void);
    void (*actors[CHECK_ACTORS])(void);
    void (*verify)(void); /* NULL: nothing more */
    int victim;           /* 1: the first actor may be killed; 0: nobody */
    int64_t tick;         /* ns that pass between two looks at the clock */
    int switches;         /* bound of the short form; -1: 2 */
    struct check_scenario *next;
};

/* Make a scenario known: CHECK_SCENARIO(name, .name = "lock/exclusion", ...); */
#define CHECK_SCENARIO(identifier, ...)                                                            \
    static struct check_scenario identifier = {__VA_ARGS__};                                       \
    __attribute__((constructor)) static void identifier##_known(void)                              \
    {                                                                                              \
        check_add(&identifier);                                                                    \
    }

void check_add(struct check_scenario *scenario);

/* --- for scenarios --------------------------------------------------------------------------- */

_Noreturn void check_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            check_fail(__FILE__, __LINE__, "not so: %s", #condition);                              \
    } while (0)

#define MUST_INT(got, expected)                                                                    \
    do {                                                                                           \
        long long must_got = (long long)(got), must_expected = (long long)(expected);              \
        if (must_got != must_expected)                                                             \
            check_fail(__FILE__, __LINE__, "%s is %lld, not %lld", #got, must_got, must_expected); \
    } while (0)

/* Others may go on here. */
void check_yield(void);

/* Wait, as an actor, until ready(argument); it must not do anything itself. */
void check_wait(bool (*ready)(void *argument), void *argument);

/* Wait until somebody else has done something: between two tries of what only tries. */
void check_let_others(void);

/* Is the actor (from 1) asleep in a park? Has it ended, or been killed? Was it killed? */
bool check_asleep(int actor);
bool check_gone(int actor);
bool check_killed(int actor);
void check_await_asleep_or_gone(int actor);
void check_await_gone(int actor);
void check_await_readable(int fd); /* a doorbell's */

int check_self(void);         /* the current actor, from 1; 0 in setup and verify */
int check_pid_of(int actor);  /* what getpid says there */
void check_become(int actor); /* in setup and verify: act as that actor */

/* The arena of process-scope objects, which every actor has joined; zeroed memory in it. */
extern struct modus_arena *check_arena;
void check_join_all(int actors);
void *check_memory(size_t size);

#endif
