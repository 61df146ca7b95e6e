/* SPDX-License-Identifier: MIT */
/* What the tests of processes share: a board that parents and children write on. */
#ifndef TESTS_UNIT_TEST_CONCURRENCY_PROCESS_H
#define TESTS_UNIT_TEST_CONCURRENCY_PROCESS_H

#include "test_concurrency_left.h"

#include "concurrency/event.h"
#include "concurrency/process.h"

#ifdef __SANITIZE_THREAD__
/* Children of a program with threads begin some, too. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

/* What parents and children tell each other; in an arena. */
struct board {
    struct modus_event gate;
    atomic_int pids[4];
    atomic_int counts[4];
};

static struct modus_arena *arena;
static struct board *board;

static unsigned threads; /* without a reaper */

static inline int open_board(void **state)
{
    if (!arena) {
        CHECK_INT(modus_arena_open(&arena, (size_t)64 << 20, 64), 0);
        board = modus_arena_alloc(arena, sizeof *board, 0);
    }
    if (!threads)
        threads = threads_at_rest();
    AWAIT(children_here() == 0 && threads_here() == threads); /* the last test's reaper has ended */
    memset(board, 0, sizeof *board);
    CHECK_INT(modus_event_init(&board->gate, MODUS_PROCESS), 0);
    return watchdog(state);
}

static inline struct modus_process *make(const struct modus_process_attr *attr, int (*run)(void *),
                                         void *argument)
{
    struct modus_process *process;

    CHECK_INT(modus_process_new(&process, attr, run, argument), 0);
    return process;
}

static inline struct modus_process *started(const struct modus_process_attr *attr,
                                            int (*run)(void *), void *argument)
{
    struct modus_process *process = make(attr, run, argument);

    CHECK_INT(modus_process_start(process), 0);
    return process;
}

/* Join, put, and return the code. */
static inline int code_of(struct modus_process *process)
{
    int code = 0;

    CHECK_INT(modus_process_join(process, MODUS_FOREVER, &code), 0);
    modus_process_put(process);
    return code;
}

static inline int give_back(void *argument)
{
    return *(int *)argument;
}

static inline int pass_gate(void *argument)
{
    alarm(WATCHDOG_SECONDS);
    CHECK_INT(modus_event_wait(&board->gate, MODUS_FOREVER), 0);
    return argument ? *(int *)argument : 0;
}

#define TEST(name) cmocka_unit_test_setup(name, open_board)

#endif
