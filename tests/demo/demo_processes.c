/* SPDX-License-Identifier: MIT */
/* Processes: how they begin, what they share, and how they end: P1 to P21, but for pools and pipes. */
#include "tests/demo/demo.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concurrency/arena.h"
#include "concurrency/event.h"
#include "concurrency/lock.h"
#include "concurrency/process.h"
#include "concurrency/thread.h"

enum { MOST = 100 };

/* Start n children that run the same, each with its number. */
struct child {
    struct demo *row;
    int number;
    void *shared;
};

static struct modus_process *start_one(struct demo *d, const struct modus_process_attr *attr,
                                       int (*run)(void *argument), void *argument)
{
    struct modus_process *process = NULL;
    DEMO_CHECK(d, modus_process_new(&process, attr, run, argument) == 0);
    DEMO_CHECK(d, modus_process_start(process) == 0);
    return process;
}

static int join_one(struct demo *d, struct modus_process *process)
{
    int code = -1000;
    DEMO_CHECK(d, modus_process_join(process, modus_seconds(50), &code) == 0);
    modus_process_put(process);
    return code;
}

static void run_children(struct demo *d, int n, int (*run)(void *argument), void *shared)
{
    struct modus_process *all[MOST];
    for (int i = 0; i < n; i++) {
        struct child child = {d, i, shared};
        all[i] = start_one(d, NULL, run, &child);
    }
    for (int i = 0; i < n; i++)
        DEMO_CHECK(d, join_one(d, all[i]) == 0);
}

/* R, S, Z ... of /proc/PID/stat; ' ' when there is no such process. */
static char state_of(pid_t pid)
{
    char path[64], state = ' ';
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return ' ';
    if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
        state = ' ';
    fclose(f);
    return state;
}

static bool becomes(pid_t pid, char state)
{
    double end = demo_now() + 10;
    while (state_of(pid) != state && demo_now() < end)
        demo_pause(0.001);
    return state_of(pid) == state;
}

/* --- P1, P2: fork ------------------------------------------------------------------------------------ */

static void p1(struct demo *d)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        demo_print(d, "I am child process (%d) and my parent is %d.", getpid(), getppid());
        _exit(getppid() == parent ? 0 : 1);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    demo_print(d, "I (%d) just created a child process (%d).", parent, pid);
    char line[80];
    snprintf(line, sizeof line, "I am child process (%d) and my parent is %d.", pid, parent);
    DEMO_CHECK(d, demo_count(d, line) == 1);
    DEMO_CHECK(d, WIFEXITED(status) && WEXITSTATUS(status) == 0);
    demo_saw(d,
             "one call, two returns: %d in the parent, 0 in the child, which knows its parent %d",
             pid, parent);
}

static int run_child_test(void *argument)
{
    const struct child *child = argument;
    demo_print(child->row, "Run child process test (%d)...", getpid());
    return 0;
}

static void p2(struct demo *d)
{
    struct modus_process *process;
    struct child child = {.row = d};
    char expected[256];
    demo_print(d, "Parent process %d.", getpid());
    modus_process_new(&process, &(struct modus_process_attr){.name = "test"}, run_child_test,
                      &child);
    demo_print(d, "Child process will start.");
    modus_process_start(process);
    pid_t pid = modus_process_pid(process);
    DEMO_CHECK(d, modus_process_start(process) == -EALREADY);
    DEMO_CHECK(d, join_one(d, process) == 0);
    demo_print(d, "Child process end.");
    snprintf(expected, sizeof expected,
             "Parent process %d.\nChild process will start.\nRun child process test (%d)...\n"
             "Child process end.\n",
             getpid(), pid);
    DEMO_CHECK(d, pid != getpid() && strcmp(demo_printed(d), expected) == 0);
    demo_saw(d, "the notes' four lines, in their order");
}

/* --- P8, P9: what a child changes is its own ------------------------------------------------------------ */

static int n = 10;

static int take_one(void *argument)
{
    const struct child *child = argument;
    n -= 1;
    demo_print(child->row, "%d", n);
    atomic_fetch_sub((atomic_int *)child->shared, 1);
    return 0;
}

static void p8(struct demo *d)
{
    struct modus_arena *arena;
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 1 << 20, 1) == 0))
        return;
    atomic_int *shared = modus_arena_alloc(arena, sizeof *shared, 0);
    atomic_store(shared, 10);
    run_children(d, 10, take_one, shared);
    demo_print(d, "%d", n);
    DEMO_CHECK(d, demo_count(d, "9") == 10 && demo_count(d, "10") == 1 && n == 10);
    DEMO_CHECK(d, atomic_load(shared) == 0);
    demo_saw(d, "ten times 9, then 10 in the parent; what lies in shared memory is %d",
             atomic_load(shared));
    modus_arena_close(arena);
}

static struct {
    struct modus_lock lock;
    int items[10], length;
} list = {.lock = MODUS_LOCK_INIT};

static void append(struct demo *d, int item, const char *by)
{
    char text[80];
    int at = snprintf(text, sizeof text, "%s [", by);
    modus_lock_acquire(&list.lock, MODUS_FOREVER);
    list.items[list.length++] = item;
    for (int i = 0; i < list.length; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%s%d", i ? ", " : "", list.items[i]);
    demo_print(d, "%s]", text);
    modus_lock_release(&list.lock);
}

static int append_in_process(void *argument)
{
    const struct child *child = argument;
    append(child->row, child->number, "process");
    return 0;
}

static void *append_in_thread(void *argument)
{
    const struct child *child = argument;
    append(child->row, child->number, "thread");
    return NULL;
}

static void p9(struct demo *d)
{
    run_children(d, 10, append_in_process, NULL);
    for (int i = 0; i < 10; i++) {
        struct child child = {d, i, NULL};
        struct modus_thread *thread;
        modus_thread_new(&thread, NULL, append_in_thread, &child);
        modus_thread_start(thread);
        modus_thread_join(thread, MODUS_FOREVER, NULL);
        modus_thread_put(thread);
        char line[32];
        snprintf(line, sizeof line, "process [%d]", i);
        DEMO_CHECK(d, demo_count(d, line) == 1);
    }
    DEMO_CHECK(d, demo_count(d, "thread [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]") == 1);
    demo_saw(d, "ten processes print [0] to [9], ten threads a list that grows to ten");
}

/* --- P10: daemons ------------------------------------------------------------------------------------------ */

static int daemon_pauses(void *argument)
{
    const struct child *child = argument;
    struct modus_process *own;
    modus_process_new(&own, NULL, run_child_test, argument);
    DEMO_CHECK(child->row, modus_process_start(own) == -EPERM);
    modus_process_put(own);
    modus_event_set(child->shared);
    demo_pause(30);
    demo_print(child->row, "daemon ends");
    return 0;
}

static int other_ends(void *argument)
{
    const struct child *child = argument;
    demo_pause(0.2);
    demo_print(child->row, "other ends");
    return 0;
}

static struct child of_program;

static int program_with_daemon(int argc, char **argv)
{
    struct demo *d = of_program.row;
    (void)argc;
    (void)argv;
    struct modus_process *daemon = start_one(
        d, &(struct modus_process_attr){.daemon = MODUS_DAEMON_YES}, daemon_pauses, &of_program);
    DEMO_CHECK(d, modus_process_set_daemon(daemon, false) == -EBUSY);
    modus_process_put(start_one(d, NULL, other_ends, &of_program));
    modus_event_wait(of_program.shared, modus_seconds(20));
    modus_process_put(daemon);
    demo_print(d, "main ends");
    return 0;
}

static void p10(struct demo *d)
{
    struct modus_arena *arena;
    int status = 0;
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 1 << 20, 1) == 0))
        return;
    struct modus_event *begun = modus_arena_alloc(arena, sizeof *begun, 0);
    modus_event_init(begun, MODUS_PROCESS);
    of_program = (struct child){d, 0, begun};
    double start = demo_now();
    pid_t pid = fork();
    if (pid == 0)
        modus_main(program_with_daemon, 0, NULL);
    waitpid(pid, &status, 0);
    double took = demo_now() - start;
    DEMO_CHECK(d, WIFEXITED(status) && WEXITSTATUS(status) == 0);
    DEMO_CHECK(d, demo_count(d, "main ends") == 1 && demo_count(d, "other ends") == 1);
    DEMO_CHECK(d, demo_count(d, "daemon ends") == 0);
    demo_expect_time(d, took < 10, "the daemon's pause of 30 s is not waited for");
    demo_saw(d,
             "when main ends the daemon is terminated, then the other one awaited; %.2f s; a "
             "daemon has no children",
             took);
    modus_arena_close(arena);
}

/* --- P11: zombies -------------------------------------------------------------------------------------------- */

static int end_at_once(void *argument)
{
    (void)argument;
    return 0;
}

/* A child that makes one of its own and ends; whose child is that then? */
static int leave_an_orphan(void *argument)
{
    const struct child *child = argument;
    pid_t me = getpid();
    if (fork() == 0) {
        while (getppid() == me)
            demo_pause(0.001);
        demo_print(child->row, "the orphan has a new parent");
        modus_event_set(child->shared);
        _exit(0);
    }
    return 0;
}

static void p11(struct demo *d)
{
    enum { CHILDREN = 2000 };
    struct modus_arena *arena;
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans come here instead of to init */
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    DEMO_CHECK(d, becomes(pid, 'Z'));
    demo_print(d, "child %d has ended and nobody has waited: state %c", pid, state_of(pid));
    waitpid(pid, NULL, 0);
    DEMO_CHECK(d, state_of(pid) == ' ');
    for (int i = 0; i < CHILDREN; i += MOST) /* by handles: all reaped */
        run_children(d, MOST, end_at_once, NULL);
    DEMO_CHECK(d, waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 1 << 20, 1) == 0))
        return;
    struct modus_event *found = modus_arena_alloc(arena, sizeof *found, 0);
    modus_event_init(found, MODUS_PROCESS);
    struct child child = {d, 0, found};
    DEMO_CHECK(d, join_one(d, start_one(d, NULL, leave_an_orphan, &child)) == 0);
    DEMO_CHECK(d, modus_event_wait(found, modus_seconds(20)) == 0);
    DEMO_CHECK(d, waitpid(-1, NULL, 0) > 0); /* its new parent reaps it */
    modus_arena_close(arena);
    demo_saw(d,
             "a zombie is a child that ended and was not waited for (state Z, gone after it); %d "
             "children leave none; one whose parent ended first is an orphan, which the notes call "
             "a zombie",
             CHILDREN);
}

/* --- P12: four ends ------------------------------------------------------------------------------------------- */

static int end_in_a_way(void *argument)
{
    const struct child *child = argument;
    switch (child->number) {
    case 0:
        return 0;
    case 1:
        return 3;
    case 2:
        signal(SIGILL, SIG_DFL);
        __builtin_trap();
    default:
        for (;;)
            pause();
    }
}

static void p12(struct demo *d)
{
    static const int wanted[] = {0, 3, -SIGILL, -SIGKILL};
    int codes[4];
    for (int i = 0; i < 4; i++) {
        struct child child = {d, i, NULL};
        struct modus_process *process = start_one(d, NULL, end_in_a_way, &child);
        if (i == 3)
            DEMO_CHECK(d, modus_process_kill(process) == 0);
        codes[i] = join_one(d, process);
        demo_expect(d, codes[i] == wanted[i], "the way that it ended");
    }
    demo_saw(d, "normal %d, error %d, illegal instruction %d, killed %d", codes[0], codes[1],
             codes[2], codes[3]);
}

/* --- P13: states ------------------------------------------------------------------------------------------------ */

static int run_or_wait(void *argument)
{
    const struct child *child = argument;
    bool runs = child->number == 0;
    for (double end = demo_now() + 60; demo_now() < end;) { /* until it is terminated */
        if (runs)
            demo_add(1000);
        else
            demo_pause(0.01);
    }
    return 0;
}

static void switches_of(pid_t pid, long *voluntary, long *forced)
{
    char path[64], line[128];
    *voluntary = *forced = -1;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        sscanf(line, "voluntary_ctxt_switches: %ld", voluntary);
        sscanf(line, "nonvoluntary_ctxt_switches: %ld", forced);
    }
    if (f)
        fclose(f);
}

static void p13(struct demo *d)
{
    struct modus_process *both[2];
    long voluntary[2], forced[2];
    for (int i = 0; i < 2; i++) {
        struct child child = {d, i, NULL};
        both[i] = start_one(d, NULL, run_or_wait, &child);
    }
    demo_pause(0.5);
    DEMO_CHECK(d, becomes(modus_process_pid(both[0]), 'R'));
    DEMO_CHECK(d, becomes(modus_process_pid(both[1]), 'S'));
    for (int i = 0; i < 2; i++) {
        switches_of(modus_process_pid(both[i]), &voluntary[i], &forced[i]);
        DEMO_CHECK(d, modus_process_terminate(both[i]) == 0);
        DEMO_CHECK(d, join_one(d, both[i]) == -SIGTERM);
    }
    demo_expect_time(d, voluntary[1] > 10 && voluntary[1] > voluntary[0],
                     "who waits gives its CPU away");
    demo_saw(d,
             "one that computes is R (ready or running), %ld switches of its own will and %ld "
             "forced; one that waits is S: %ld and %ld",
             voluntary[0], forced[0], voluntary[1], forced[1]);
}

/* --- P14, P16: waiting at the same time ------------------------------------------------------------------------- */

static int pause_two(void *argument)
{
    (void)argument;
    demo_pause(2);
    return 0;
}

static void *pause_two_in_thread(void *argument)
{
    demo_pause(2);
    return argument;
}

static void p14(struct demo *d)
{
    static struct modus_thread *threads[MOST];
    double begun = demo_now();
    run_children(d, MOST, pause_two, NULL);
    double processes = demo_now() - begun;
    begun = demo_now();
    for (int i = 0; i < MOST; i++) {
        modus_thread_new(&threads[i], NULL, pause_two_in_thread, NULL);
        DEMO_CHECK(d, modus_thread_start(threads[i]) == 0);
    }
    for (int i = 0; i < MOST; i++) {
        modus_thread_join(threads[i], MODUS_FOREVER, NULL);
        modus_thread_put(threads[i]);
    }
    double in_threads = demo_now() - begun;
    demo_expect_seconds(d, processes, 2);
    demo_expect_seconds(d, in_threads, 2);
    demo_saw(d, "processes %.2f s (notes 7.26, on Windows), threads %.2f s (notes 2.03)", processes,
             in_threads);
}

static int square(void *argument)
{
    const struct child *child = argument;
    demo_pause(1);
    demo_print(child->row, "%d", child->number * child->number);
    return 0;
}

static void p16(struct demo *d)
{
    double begun = demo_now();
    run_children(d, 10, square, NULL);
    double took = demo_now() - begun;
    for (int i = 0; i < 10; i++) {
        char line[8];
        snprintf(line, sizeof line, "%d", i * i);
        DEMO_CHECK(d, demo_count(d, line) == 1);
    }
    demo_expect_seconds(d, took, 1);
    demo_saw(d, "all ten squares in %.2f s (one after the other: 10 s)", took);
}

/* --- P17: what starting costs --------------------------------------------------------------------------------------- */

static void *nothing(void *argument)
{
    return argument;
}

static void p17(struct demo *d)
{
    enum { ROUNDS = 200 };
    double begun = demo_now();
    for (int i = 0; i < ROUNDS; i++) {
        struct modus_thread *thread;
        modus_thread_new(&thread, NULL, nothing, NULL);
        modus_thread_start(thread);
        modus_thread_join(thread, MODUS_FOREVER, NULL);
        modus_thread_put(thread);
    }
    double thread_us = (demo_now() - begun) * 1e6 / ROUNDS;
    begun = demo_now();
    for (int i = 0; i < ROUNDS; i++)
        join_one(d, start_one(d, NULL, end_at_once, NULL));
    double process_us = (demo_now() - begun) * 1e6 / ROUNDS;
    demo_expect_time(d, thread_us * 2 < process_us, "a thread starts far sooner");
    demo_saw(d, "start and join: thread %.0f us, process %.0f us", thread_us, process_us);
}

/* --- P21: ways to start ------------------------------------------------------------------------------------------------ */

static int in_memory = 1;

static int add_to_memory(void *argument)
{
    int by = 0;
    memcpy(&by, argument, sizeof by);
    return in_memory + by; /* a copy of the parent's memory, or a fresh one? */
}

MODUS_PROCESS_FUNCTION(add_to_memory)

static void p21(struct demo *d)
{
    int ten = 10;
    in_memory = 2;
    int forked = join_one(d, start_one(d, NULL, add_to_memory, &ten));
    int spawned = join_one(
        d,
        start_one(d, &(struct modus_process_attr){.start = MODUS_START_SPAWN, .size = sizeof ten},
                  add_to_memory, &ten));
    DEMO_CHECK(d, forked == 12);
    DEMO_CHECK(d, spawned == 11);
    demo_saw(d,
             "fork copies the parent's memory (2 + 10 = %d), spawn begins the program anew (1 + 10 "
             "= %d), as Windows does",
             forked, spawned);
}

const struct demo_row demo_processes[] = {
    {"P1", "fork returns twice", p1},
    {"P2", "a process, started and joined", p2},
    {"P8", "10 processes do n -= 1", p8},
    {"P9", "a list in processes and in threads", p9},
    {"P10", "daemon processes", p10},
    {"P11", "zombies and orphans", p11},
    {"P12", "four ways to end", p12},
    {"P13", "running, ready, blocked", p13},
    {"P14", "100 that sleep 2 s", p14},
    {"P16", "10 processes of 1 s", p16},
    {"P17", "a thread starts sooner than a process", p17},
    {"P21", "fork and spawn", p21},
    {0},
};
