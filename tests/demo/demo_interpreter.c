/* SPDX-License-Identifier: MIT */
/* An interpreter's lock, and what it does to threads: P15, G1 to G3. C has no such lock; gil.h is
 * CPython's, for the comparison. */
#include "tests/demo/demo.h"

#include <stdatomic.h>
#include <string.h>

#include "concurrency/gil.h"
#include "concurrency/process.h"
#include "concurrency/thread.h"

enum { TASKS = 4, MOST = 16, STEP = 1000, ADDITIONS = 200 * 1000 * 1000 };

static struct modus_gil gil = MODUS_GIL_INIT;
static bool with_gil; /* for the row that runs */

/* --- two kinds of work, both as an interpreter would run them ---------------------------------------- */

static void compute(int additions)
{
    if (with_gil)
        modus_gil_acquire(&gil, MODUS_FOREVER);
    for (int i = 0; i < additions; i += STEP) {
        demo_add(STEP);
        if (with_gil)
            modus_gil_checkpoint(&gil);
    }
    if (with_gil)
        modus_gil_release(&gil);
}

static void wait_for_io(double seconds)
{
    if (with_gil)
        modus_gil_acquire(&gil, MODUS_FOREVER);
    MODUS_GIL_RELEASED(&gil)
    {
        demo_pause(seconds);
    }
    if (with_gil)
        modus_gil_release(&gil);
}

static void *compute_in_thread(void *argument)
{
    compute(ADDITIONS);
    return argument;
}

static void *wait_in_thread(void *argument)
{
    wait_for_io(0.2);
    return argument;
}

static int compute_in_process(void *argument)
{
    (void)argument;
    compute(ADDITIONS);
    return 0;
}

static int wait_in_process(void *argument)
{
    (void)argument;
    wait_for_io(0.2);
    return 0;
}

/* --- how long n of them take ---------------------------------------------------------------------------- */

static double in_threads(struct demo *d, int n, bool gil_too, void *(*run)(void *argument))
{
    struct modus_thread *threads[MOST];
    double begun = demo_now();
    with_gil = gil_too;
    for (int i = 0; i < n; i++) {
        modus_thread_new(&threads[i], NULL, run, NULL);
        DEMO_CHECK(d, modus_thread_start(threads[i]) == 0);
    }
    for (int i = 0; i < n; i++) {
        DEMO_CHECK(d, modus_thread_join(threads[i], modus_seconds(50), NULL) == 0);
        modus_thread_put(threads[i]);
    }
    return demo_now() - begun;
}

static double in_processes(struct demo *d, int n, bool gil_too, int (*run)(void *argument))
{
    struct modus_process *all[MOST];
    double begun = demo_now();
    with_gil = gil_too; /* each has its own */
    for (int i = 0; i < n; i++) {
        modus_process_new(&all[i], NULL, run, NULL);
        DEMO_CHECK(d, modus_process_start(all[i]) == 0);
    }
    for (int i = 0; i < n; i++) {
        DEMO_CHECK(d, modus_process_join(all[i], modus_seconds(50), NULL) == 0);
        modus_process_put(all[i]);
    }
    return demo_now() - begun;
}

/* --- P15: four that compute ------------------------------------------------------------------------------- */

static void p15(struct demo *d)
{
    double serial = 0, processes = in_processes(d, TASKS, false, compute_in_process);
    double threads = in_threads(d, TASKS, false, compute_in_thread);
    double locked = in_threads(d, TASKS, true, compute_in_thread);
    for (int i = 0; i < TASKS; i++)
        serial += in_threads(d, 1, false, compute_in_thread);
    if (demo_cpus() >= 2) {
        demo_expect_time(d, processes < serial * 0.7 && threads < serial * 0.7,
                         "half the serial time");
        demo_expect_time(d, locked > threads * 1.6, "an interpreter's lock makes threads serial");
    }
    demo_saw(d,
             "one after the other %.2f s, processes %.2f s (notes 2.23), threads %.2f s, threads "
             "under an interpreter's lock %.2f s (notes 4.48)",
             serial, processes, threads, locked);
}

/* --- G1, G2 --------------------------------------------------------------------------------------------------- */

static void g1(struct demo *d)
{
    double waiting = in_threads(d, 10, true, wait_in_thread);
    struct modus_gil_stats before = modus_gil_stats(&gil);
    double computing = in_threads(d, 2, true, compute_in_thread),
           one = in_threads(d, 1, true, compute_in_thread);
    struct modus_gil_stats after = modus_gil_stats(&gil);
    demo_expect_seconds(d, waiting, 0.2);
    demo_expect_time(d, computing > one * 1.6, "one computes at a time");
    DEMO_CHECK(d, after.forced > before.forced);
    demo_saw(d,
             "it is given up in a wait: ten waits of 0.2 s take %.2f s; two that compute take %.2f "
             "times as long as one",
             waiting, computing / one);
}

static void g2(struct demo *d)
{
    struct modus_gil_stats before = modus_gil_stats(&gil);
    double took = in_threads(d, 2, true, compute_in_thread);
    struct modus_gil_stats after = modus_gil_stats(&gil);
    double forced = (double)(after.forced - before.forced);
    DEMO_CHECK(d, forced > 5);
    double interval_ms = took * 1e3 / forced;
    demo_expect(d, interval_ms >= 4.9, "not before 5 ms");
    demo_expect_time(d, interval_ms < 8, "about 5 ms");
    demo_saw(d,
             "handed over every %.1f ms: since Python 3.2 it is time that counts, 5 ms, not 100 "
             "bytecodes as the notes have it",
             interval_ms);
}

/* --- G3: what for what ------------------------------------------------------------------------------------------ */

static void g3(struct demo *d)
{
    double cpu_threads = in_threads(d, TASKS, false, compute_in_thread);
    double cpu_processes = in_processes(d, TASKS, false, compute_in_process);
    double cpu_threads_gil = in_threads(d, TASKS, true, compute_in_thread);
    double cpu_processes_gil = in_processes(d, TASKS, true, compute_in_process);
    double io_threads = in_threads(d, TASKS, false, wait_in_thread);
    double io_processes = in_processes(d, TASKS, false, wait_in_process);
    double io_threads_gil = in_threads(d, TASKS, true, wait_in_thread);
    double io_processes_gil = in_processes(d, TASKS, true, wait_in_process);
    demo_print(d, "%-24s %10s %10s", "", "threads", "processes");
    demo_print(d, "%-24s %8.2f s %8.2f s", "computing", cpu_threads, cpu_processes);
    demo_print(d, "%-24s %8.2f s %8.2f s", "computing, with the lock", cpu_threads_gil,
               cpu_processes_gil);
    demo_print(d, "%-24s %8.2f s %8.2f s", "waiting", io_threads, io_processes);
    demo_print(d, "%-24s %8.2f s %8.2f s", "waiting, with the lock", io_threads_gil,
               io_processes_gil);
    if (demo_cpus() >= 2) {
        demo_expect_time(d, cpu_threads_gil > cpu_processes_gil * 1.6,
                         "with the lock, compute in processes");
        demo_expect_time(d, cpu_threads < cpu_processes * 1.3, "without it, threads do as well");
    }
    demo_expect_seconds(d, io_threads_gil, 0.2);
    demo_expect_seconds(d, io_threads, 0.2);
    demo_expect_seconds(d, io_processes, 0.2);
    demo_saw(d,
             "computing: threads %.2f s, processes %.2f s, with the lock %.2f and %.2f; waiting: "
             "%.2f, %.2f, %.2f, %.2f: the notes' rule is the lock's",
             cpu_threads, cpu_processes, cpu_threads_gil, cpu_processes_gil, io_threads,
             io_processes, io_threads_gil, io_processes_gil);
}

const struct demo_row demo_interpreter[] = {
    {"P15", "4 loops (of 2 x 10^8; the notes: 10^7)", p15},
    {"G1", "one thread runs at a time, unless it waits", g1},
    {"G2", "how often the lock is handed over", g2},
    {"G3", "compute in processes, wait in threads?", g3},
    {0},
};
