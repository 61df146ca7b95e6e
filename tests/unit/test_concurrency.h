/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the toolbox share: threads and children with a watchdog, and waiting for a
 * condition instead of for a time.
 *
 * cmocka's assertions work only in the main thread of the test's own process; CHECK works anywhere,
 * and ends the process (a child's end is seen by reap_ok).
 */
#ifndef TESTS_UNIT_TEST_CONCURRENCY_H
#define TESTS_UNIT_TEST_CONCURRENCY_H

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "concurrency/arena.h"
#include "concurrency/participant.h"
#include "concurrency/result.h"
#include "concurrency/self.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#else
#define SLOW 0
#endif

/* What hangs, not what is slow: a sanitizer on a busy machine is some ten times slower. */
enum { WATCHDOG_SECONDS = SLOW ? 120 : 30 };

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_INT(got, expected)                                                                   \
    do {                                                                                           \
        long long got_ = (got), expected_ = (expected);                                            \
        if (got_ != expected_) {                                                                   \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #got, got_,       \
                    expected_);                                                                    \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Look until it is so; the watchdog ends what never is. */
#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        while (!(condition))                                                                       \
            usleep(200);                                                                           \
    } while (0)

/* A hang ends the program with SIGALRM. Use as the setup of every test. */
static inline int watchdog(void **state)
{
    (void)state;
    alarm(WATCHDOG_SECONDS);
    return 0;
}

static inline pthread_t start_thread(void *(*run)(void *), void *argument)
{
    pthread_t thread;

    CHECK_INT(pthread_create(&thread, NULL, run, argument), 0);
    return thread;
}

static inline void join_thread(pthread_t thread)
{
    CHECK_INT(pthread_join(thread, NULL), 0);
}

/* Fork a child that runs the function and ends with its result; it ends with us, and on a hang. */
static inline pid_t start_child(int (*run)(void *), void *argument)
{
    pid_t parent = getpid(), pid;

    fflush(NULL);
    pid = fork();
    CHECK(pid >= 0);
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(99);
    alarm(WATCHDOG_SECONDS);
    _exit(run(argument));
}

/* Wait for a child; returns its exit code, or minus the signal that ended it. */
static inline int reap(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0)
        CHECK(errno == EINTR);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* For a function that an object calls while it is held: fork a child that returns from it as well, and
 * wait for its end, which is at end_forked: it must have been told that it is a child. Returns whether
 * this is the child. */
static inline bool fork_in_callback(void)
{
    fflush(NULL);
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid > 0)
        CHECK_INT(reap(pid), 0);
    return pid == 0;
}

static inline void end_forked(pid_t home, long rc)
{
    if (getpid() != home)
        _exit(rc == -ECHILD ? 0 : 1);
}

/* The state letter of a thread (R running, S asleep, T stopped, Z zombie); 0 if there is none. */
static inline char state_of(int tid)
{
    char path[64], line[512], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", tid);
    FILE *file = fopen(path, "r");

    if (!file)
        return 0;
    if (fgets(line, sizeof line, file) && strrchr(line, ')'))
        state = strrchr(line, ')')[2];
    fclose(file);
    return state;
}

/* How often the thread has gone to sleep. */
static inline long sleeps_of(int tid)
{
    char path[64], line[128];
    long sleeps = -1;

    snprintf(path, sizeof path, "/proc/%d/status", tid);
    FILE *file = fopen(path, "r");
    CHECK(file);
    while (fgets(line, sizeof line, file))
        sscanf(line, "voluntary_ctxt_switches: %ld", &sleeps);
    fclose(file);
    return sleeps;
}

/* Wait until the thread (or single-threaded child) sleeps and nothing wakes it for ms milliseconds:
 * what is woken more often than that never comes to it. */
static inline void await_idle(int tid, unsigned ms)
{
    long before;

    do {
        before = sleeps_of(tid);
        usleep(ms * 1000);
    } while (sleeps_of(tid) != before || state_of(tid) != 'S');
}

/* Wait until it has come to where it sleeps: a single look could find it asleep on its way there, at
 * a lock that another holds for a moment. It says its tid itself, first. */
#define AWAIT_ASLEEP(tid) await_idle((int)(tid), 1)

/* Kill a child and reap it. */
static inline void kill_child(pid_t pid)
{
    kill(pid, SIGKILL);
    CHECK_INT(reap(pid), -SIGKILL);
}

/* The same, and bury it: who else waits for what it used would wait for ever, had it been woken. */
static inline void kill_user(pid_t pid)
{
    kill_child(pid);
    modus_participant_bury_everywhere(pid, true);
}

static inline void storm_yields(int signal)
{
    (void)signal;
    sched_yield();
}

/* From now on a signal comes every so many us and lets others run, wherever we are. It ends with the
 * process, so use it in a child. */
static inline void start_storm(long us)
{
    struct sigaction action = {.sa_handler = storm_yields, .sa_flags = SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec often = {{0, us * 1000}, {0, us * 1000}};
    timer_t timer;

    CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_INT(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_INT(timer_settime(timer, 0, &often, NULL), 0);
}

#endif
