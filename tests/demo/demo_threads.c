/* SPDX-License-Identifier: MIT */
/* Threads: what the notes show of them, T1 to T11. Pauses are a tenth of theirs where the claim says
 * "at 1/10". */
#include "tests/demo/demo.h"

#include <ctype.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concurrency/event.h"
#include "concurrency/lock.h"
#include "concurrency/queue.h"
#include "concurrency/sem.h"
#include "concurrency/thread.h"

/* Start n threads that run the same, each with the row. */
static void start_all(struct demo *d, struct modus_thread **threads, int n,
                      void *(*run)(void *argument), void *argument)
{
    for (int i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        DEMO_CHECK(d, modus_thread_new(&threads[i], &(struct modus_thread_attr){.name = name}, run,
                                       argument) == 0);
        DEMO_CHECK(d, modus_thread_start(threads[i]) == 0);
    }
}

static void join_all(struct demo *d, struct modus_thread **threads, int n)
{
    for (int i = 0; i < n; i++) {
        DEMO_CHECK(d, modus_thread_join(threads[i], MODUS_FOREVER, NULL) == 0);
        modus_thread_put(threads[i]);
    }
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* --- T1: names --------------------------------------------------------------------------------- */

static const char *my_name(void)
{
    return modus_thread_name(modus_thread_self());
}

static void *loop(void *row)
{
    demo_print(row, "thread %s is running...", my_name());
    for (int n = 1; n <= 5; n++) {
        demo_print(row, "thread %s >>> %d", my_name(), n);
        demo_pause(0.1);
    }
    demo_print(row, "thread %s ended.", my_name());
    return NULL;
}

static void t1(struct demo *d)
{
    struct modus_thread *thread;
    double begun = demo_now();
    demo_print(d, "thread %s is running...", my_name());
    modus_thread_new(&thread, &(struct modus_thread_attr){.name = "LoopThread"}, loop, d);
    modus_thread_start(thread);
    modus_thread_join(thread, MODUS_FOREVER, NULL);
    modus_thread_put(thread);
    demo_print(d, "thread %s ended.", my_name());
    double took = demo_now() - begun;
    demo_expect(d,
                strcmp(demo_printed(d), "thread MainThread is running...\n"
                                        "thread LoopThread is running...\n"
                                        "thread LoopThread >>> 1\nthread LoopThread >>> 2\n"
                                        "thread LoopThread >>> 3\nthread LoopThread >>> 4\n"
                                        "thread LoopThread >>> 5\nthread LoopThread ended.\n"
                                        "thread MainThread ended.\n") == 0,
                "the nine lines of the notes");
    demo_expect_seconds(d, took, 0.5);
    demo_saw(d, "the notes' nine lines, %.2f s", took);
}

/* --- T2: an object whose start calls its run ---------------------------------------------------- */

struct my_thread {
    struct demo *row;
    const char *name;
    bool f_called, g_called;
};

static void *my_thread_run(void *argument)
{
    struct my_thread *m = argument;
    demo_print(m->row, "start() of thread %s calls run() by itself", m->name);
    m->f_called = true;
    m->g_called = true;
    return m;
}

static void t2(struct demo *d)
{
    struct my_thread m = {.row = d, .name = "ziawang"};
    struct modus_thread *thread;
    void *result = NULL;
    modus_thread_new(&thread, &(struct modus_thread_attr){.name = m.name}, my_thread_run, &m);
    modus_thread_start(thread);
    modus_thread_join(thread, MODUS_FOREVER, &result);
    modus_thread_put(thread);
    DEMO_CHECK(d, result == &m && m.f_called && m.g_called);
    DEMO_CHECK(d, demo_count(d, "start() of thread ziawang calls run() by itself") == 1);
    demo_saw(d, "run, f and g were called, and join gave the object back");
}

/* --- T3: threads share what they count ----------------------------------------------------------- */

struct shared_count {
    struct demo *row;
    struct modus_lock lock;
    int n;
};

static void *count_down(void *argument)
{
    struct shared_count *s = argument;
    demo_print(s->row, "%s running ....", my_name());
    modus_lock_acquire(&s->lock, MODUS_FOREVER);
    s->n -= 1;
    modus_lock_release(&s->lock);
    return NULL;
}

static void t3(struct demo *d)
{
    struct shared_count s = {.row = d, .n = 10};
    struct modus_thread *threads[10];
    modus_lock_init(&s.lock, MODUS_THREAD);
    start_all(d, threads, 10, count_down, &s);
    join_all(d, threads, 10);
    for (int i = 0; i < 10; i++) {
        char line[32];
        snprintf(line, sizeof line, "%d running ....", i);
        DEMO_CHECK(d, demo_count(d, line) == 1);
    }
    DEMO_CHECK(d, s.n == 0);
    demo_saw(d, "threads \"0\" to \"9\" took 10 down to %d", s.n);
}

/* --- T4: one process, many threads ---------------------------------------------------------------- */

struct identity {
    pid_t pid;
    int tid;
};

static void *tell_identity(void *argument)
{
    struct identity *me = argument;
    *me = (struct identity){getpid(), modus_thread_tid(modus_thread_self())};
    return NULL;
}

static void t4(struct demo *d)
{
    struct identity a, b;
    struct modus_thread *threads[2];
    start_all(d, threads, 1, tell_identity, &a);
    start_all(d, threads + 1, 1, tell_identity, &b);
    join_all(d, threads, 2);
    DEMO_CHECK(d, a.pid == getpid() && b.pid == getpid());
    DEMO_CHECK(d, a.tid != b.tid && a.tid != getpid() && b.tid != getpid());
    demo_saw(d, "getpid is the process's in both, their own numbers differ");
}

/* --- T5: what is measured without join -------------------------------------------------------------- */

static void *pause_half(void *argument)
{
    (void)argument;
    demo_pause(0.5);
    return NULL;
}

static void *no_pause(void *argument)
{
    return argument;
}

static void t5(struct demo *d)
{
    struct modus_thread *threads[5];
    double begun = demo_now();
    start_all(d, threads, 5, pause_half, NULL);
    double started = demo_now() - begun;
    join_all(d, threads, 5);
    double joined = demo_now() - begun;
    begun = demo_now();
    start_all(d, threads, 5, no_pause, NULL);
    join_all(d, threads, 5);
    double nothing = demo_now() - begun;
    demo_expect_time(d, started < 0.05, "starting five takes no time");
    demo_expect_seconds(d, joined, 0.5);
    demo_expect_time(d, nothing < 0.05, "five that do nothing take none");
    demo_saw(
        d,
        "not joined %.4f s (notes 0.0020), joined %.3f s (0.502), without a pause %.4f s (0.0025)",
        started, joined, nothing);
}

/* --- T6: daemons are not waited for ------------------------------------------------------------------- */

static void *daemon_prints(void *row)
{
    demo_print(row, "daemon begins");
    demo_pause(20);
    demo_print(row, "daemon ends");
    return NULL;
}

static void *other_prints(void *row)
{
    demo_pause(0.2);
    demo_print(row, "other ends");
    return NULL;
}

static struct demo *row_of_program;

static int program_with_daemon(int argc, char **argv)
{
    struct modus_thread *daemon, *other;
    (void)argc;
    (void)argv;
    modus_thread_new(&daemon, &(struct modus_thread_attr){.daemon = MODUS_DAEMON_YES},
                     daemon_prints, row_of_program);
    modus_thread_new(&other, NULL, other_prints, row_of_program);
    modus_thread_start(daemon);
    modus_thread_start(other);
    modus_thread_put(daemon);
    modus_thread_put(other);
    demo_print(row_of_program, "main ends");
    return 7;
}

static void t6(struct demo *d)
{
    int status = 0;
    row_of_program = d;
    double begun = demo_now();
    pid_t pid = fork();
    if (pid == 0)
        modus_main(program_with_daemon, 0, NULL);
    waitpid(pid, &status, 0);
    double took = demo_now() - begun;
    DEMO_CHECK(d, WIFEXITED(status) && WEXITSTATUS(status) == 7);
    DEMO_CHECK(d, demo_count(d, "other ends") == 1);
    DEMO_CHECK(d, demo_count(d, "daemon ends") == 0);
    demo_expect_time(d, took < 5, "the daemon's pause of 20 s is not waited for");
    demo_saw(d, "main returned, the other thread finished, the daemon vanished; %.2f s", took);
}

/* --- T7, T9: threads compute at the same time ----------------------------------------------------------- */

enum { ADDITIONS = 1000 * 1000 * 1000 };

static void *add_some(void *argument)
{
    (void)argument;
    demo_add(ADDITIONS);
    return NULL;
}

static void t7(struct demo *d)
{
    struct modus_thread *threads[2];
    double begun = demo_now();
    demo_add(ADDITIONS);
    demo_add(ADDITIONS);
    double serial = demo_now() - begun;
    begun = demo_now();
    start_all(d, threads, 2, add_some, NULL);
    join_all(d, threads, 2);
    double parallel = demo_now() - begun;
    if (demo_cpus() >= 2)
        demo_expect_time(d, parallel < serial * 0.7, "two threads need about half the time");
    demo_saw(d,
             "one after the other %.2f s (notes 16.04), two threads %.2f s (notes 16.30: one "
             "interpreter lock; row G1)",
             serial, parallel);
}

static atomic_bool stop_flipping;

static void *flip(void *argument)
{
    volatile unsigned x = 0;
    (void)argument;
    while (!atomic_load_explicit(&stop_flipping, memory_order_relaxed))
        x = x ^ 1;
    return NULL;
}

static void t9(struct demo *d)
{
    unsigned n = demo_cpus() < 64 ? demo_cpus() : 64;
    struct modus_thread *threads[64];
    atomic_store(&stop_flipping, false);
    double cpu = cpu_seconds(), begun = demo_now();
    start_all(d, threads, (int)n, flip, NULL);
    demo_pause(0.5);
    double used = (cpu_seconds() - cpu) / (demo_now() - begun);
    atomic_store(&stop_flipping, true);
    join_all(d, threads, (int)n);
    demo_expect_time(d, used > 0.9 * n, "every CPU is busy");
    demo_saw(d, "%u threads of x ^= 1 use %.0f %% of a CPU (under the notes' lock: 100 %%)", n,
             used * 100);
}

/* --- T8: a pipeline of three threads ---------------------------------------------------------------------- */

struct pipeline {
    struct demo *row;
    struct modus_queue raw, upper;
    FILE *file;
};

struct pipeline_line {
    char text[32];
};

static const char *const inputs[] = {"the quick", "brown fox", "jumps over", "the lazy dog"};

static void *read_input(void *argument)
{
    struct pipeline *p = argument;
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        struct pipeline_line line = {""};
        snprintf(line.text, sizeof line.text, "%s", inputs[i]);
        demo_pause(0.05); /* somebody types */
        modus_queue_put(&p->raw, &line, MODUS_FOREVER);
    }
    modus_queue_close(&p->raw, MODUS_CLOSE_DRAIN);
    return NULL;
}

static void *make_upper(void *argument)
{
    struct pipeline *p = argument;
    struct pipeline_line line;
    while (modus_queue_get(&p->raw, &line, MODUS_FOREVER) == 0) {
        for (char *c = line.text; *c; c++)
            *c = (char)toupper((unsigned char)*c);
        modus_queue_put(&p->upper, &line, MODUS_FOREVER);
    }
    modus_queue_close(&p->upper, MODUS_CLOSE_DRAIN);
    return NULL;
}

static void *write_file(void *argument)
{
    struct pipeline *p = argument;
    struct pipeline_line line;
    while (modus_queue_get(&p->upper, &line, MODUS_FOREVER) == 0)
        fprintf(p->file, "%s\n", line.text);
    fflush(p->file);
    return NULL;
}

static void t8(struct demo *d)
{
    void *(*const stages[])(void *) = {read_input, make_upper, write_file};
    struct pipeline p = {.row = d, .file = tmpfile()};
    struct modus_queue_attr attr = {
        .scope = MODUS_THREAD, .capacity = 8, .item_size = sizeof(struct pipeline_line)};
    struct modus_thread *threads[3];
    char text[128] = "";
    if (!DEMO_CHECK(d, p.file != NULL))
        return;
    modus_queue_init(&p.raw, &attr);
    modus_queue_init(&p.upper, &attr);
    double cpu = cpu_seconds();
    for (int i = 0; i < 3; i++)
        start_all(d, threads + i, 1, stages[i], &p);
    join_all(d, threads, 3);
    double used = cpu_seconds() - cpu;
    rewind(p.file);
    text[fread(text, 1, sizeof text - 1, p.file)] = '\0';
    fclose(p.file);
    modus_queue_fini(&p.raw);
    modus_queue_fini(&p.upper);
    DEMO_CHECK(d, strcmp(text, "THE QUICK\nBROWN FOX\nJUMPS OVER\nTHE LAZY DOG\n") == 0);
    demo_expect_time(d, used < 0.05, "waiting costs nothing");
    demo_saw(d,
             "in order, a clean end, %.1f ms of CPU time in 0.2 s (the notes' loops that ask again "
             "and again use all of it, and take the newest first)",
             used * 1e3);
}

/* --- T10: threads and processes, point by point -------------------------------------------------------------- */

static int ten = 10;

static void *write_eleven(void *argument)
{
    (void)argument;
    ten = 11;
    return NULL;
}

static void t10(struct demo *d)
{
    struct modus_thread *thread;
    int ends[2], status;
    char said = 0;
    pid_t pid = fork();
    if (pid == 0) {
        ten = 12; /* in a copy */
        _exit(0);
    }
    waitpid(pid, &status, 0);
    DEMO_CHECK(d, ten == 10); /* 1: own address space */
    start_all(d, &thread, 1, write_eleven, NULL);
    join_all(d, &thread, 1);
    DEMO_CHECK(d, ten == 11); /* 1: a shared one */
    DEMO_CHECK(d, pipe(ends) == 0);
    pid = fork();
    if (pid == 0) {
        (void)!write(ends[1], "x", 1); /* 2: processes need a way between them */
        pause();
        _exit(0);
    }
    DEMO_CHECK(d, read(ends[0], &said, 1) == 1 && said == 'x');
    DEMO_CHECK(d, pid > 1 && kill(pid, SIGKILL) == 0); /* 4: a child can be ended, and we live */
    DEMO_CHECK(d, waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    close(ends[0]);
    close(ends[1]);
    demo_saw(d, "a process writes to its copy, a thread to ours; processes talk by a pipe and can "
                "be killed alone (3, what starting costs: row P17)");
}

/* --- T11: not without limit -------------------------------------------------------------------------------------- */

struct crowd {
    struct modus_sem places;
    struct modus_event leave;
    atomic_uint in, most;
};

static void *come_in(void *argument)
{
    struct crowd *c = argument;
    if (modus_sem_acquire(&c->places, MODUS_FOREVER) != 0)
        return NULL;
    unsigned in = atomic_fetch_add(&c->in, 1) + 1, most = atomic_load(&c->most);
    while (in > most && !atomic_compare_exchange_weak(&c->most, &most, in))
        ;
    modus_event_wait(&c->leave, modus_ms(1));
    atomic_fetch_sub(&c->in, 1);
    modus_sem_release(&c->places, 1);
    return NULL;
}

/* As many as the system gives, or as `most`. */
static int start_many(struct modus_thread **threads, int most, int *error)
{
    int n = 0;
    for (*error = 0; n < most && *error == 0; n += *error == 0) {
        modus_thread_new(&threads[n], &(struct modus_thread_attr){.stack = 256 * 1024}, pause_half,
                         NULL);
        *error = modus_thread_start(threads[n]);
        if (*error)
            modus_thread_put(threads[n]);
    }
    return n;
}

static void t11(struct demo *d)
{
    enum { ALL = 64, PLACES = 8, MANY = 2000, MEMORY = 256 << 20 };
    static struct modus_thread *threads[MANY];
    struct crowd c = {.in = 0};
    struct rlimit old, little = {MEMORY, MEMORY};
    int error;
    modus_sem_init(&c.places,
                   &(struct modus_sem_attr){MODUS_THREAD, .value = PLACES, .max = PLACES});
    modus_event_init(&c.leave, MODUS_THREAD);
    start_all(d, threads, ALL, come_in, &c);
    join_all(d, threads, ALL);
    DEMO_CHECK(d, c.most <= PLACES && c.most > 1);
    getrlimit(RLIMIT_AS, &old);
    little.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_AS, &little);
    int n = start_many(threads, MANY, &error);
    setrlimit(RLIMIT_AS, &old);
    DEMO_CHECK(d, n > 0 && n < MANY && (error == -EAGAIN || error == -ENOMEM));
    join_all(d, threads, n);
    demo_saw(d,
             "a semaphore of %d lets %u of %d in at once; in 256 MiB thread %d is refused with a "
             "result, nobody crashes (servers: the tests of max_connections)",
             PLACES, c.most, ALL, n + 1);
}

const struct demo_row demo_threads[] = {
    {"T1", "LoopThread counts to 5, at 1/10", t1},
    {"T2", "a thread as an object: start calls run", t2},
    {"T3", "threads share n", t3},
    {"T4", "getpid in a thread, and its own number", t4},
    {"T5", "five threads of 0.5 s", t5},
    {"T6", "daemon threads", t6},
    {"T7", "two times 10^9 additions (the notes: 10^8)", t7},
    {"T8", "input, upper case, file: three threads", t8},
    {"T9", "as many endless loops as CPUs", t9},
    {"T10", "threads and processes compared", t10},
    {"T11", "not without limit", t11},
    {0},
};
