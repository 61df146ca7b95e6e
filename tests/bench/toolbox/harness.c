/* SPDX-License-Identifier: MIT */
/* The main of every peer. */
#include "tests/bench/toolbox/harness.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GIVE_UP_S = 60 };

void harness_die(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    exit(EXIT_FAILURE);
}

int64_t harness_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void *harness_shared(size_t bytes)
{
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    NEED(memory != MAP_FAILED);
    return memory;
}

/* --- histogram ------------------------------------------------------------------------------- */

static unsigned step_of(uint64_t ns)
{
    if (ns < 16)
        return (unsigned)ns;
    unsigned power = 63u - (unsigned)__builtin_clzll(ns);
    return (power - 2) * 8 + (unsigned)(ns >> (power - 3) & 7);
}

/* The middle of a step. */
static double step_ns(unsigned step)
{
    if (step < 16)
        return step;
    return ((double)(step % 8) + 8.5) * (double)((uint64_t)1 << (step / 8 - 1));
}

void harness_waited(struct histogram *waits, int64_t ns)
{
    waits->counts[step_of(ns < 0 ? 0 : (uint64_t)ns)]++;
}

/* The wait that this part of all waits does not exceed. */
static double percentile(const struct histogram *waits, double part)
{
    uint64_t all = 0, seen = 0;
    unsigned step = 0;

    for (unsigned i = 0; i < 64 * 8; i++)
        all += waits->counts[i];
    for (unsigned i = 0; i < 64 * 8 && all > 0; i++) {
        seen += waits->counts[i];
        if (waits->counts[i])
            step = i;
        if ((double)seen >= part * (double)all)
            break;
    }
    return all ? step_ns(step) : 0;
}

/* --- workers --------------------------------------------------------------------------------- */

static void *idle(void *nothing)
{
    for (;;)
        pause();
    return nothing;
}

void harness_idler(void)
{
    pthread_t thread;

    NEED(pthread_create(&thread, NULL, idle, NULL) == 0);
}

static void pin(unsigned index, unsigned cpus)
{
    cpu_set_t all, one;
    unsigned wanted = cpus ? index % cpus : 0;

    NEED(sched_getaffinity(0, sizeof all, &all) == 0);
    for (size_t cpu = 0; cpus && cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && wanted-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof one, &one);
        }
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void count_cost_of(struct worker *worker, int whom, int sign)
{
    struct rusage used;

    getrusage(whom, &used);
    worker->cpu_s += sign * (seconds_of(used.ru_utime) + seconds_of(used.ru_stime));
    worker->switches += (uint64_t)(sign * used.ru_nvcsw);
    worker->preemptions += (uint64_t)(sign * used.ru_nivcsw);
}

/* A worker who is alone also answers for what it starts: threads, processes, a pool. */
static void count_cost(struct worker *worker, int sign)
{
    if (worker->run->workers > 1) {
        count_cost_of(worker, RUSAGE_THREAD, sign);
        return;
    }
    count_cost_of(worker, RUSAGE_SELF, sign);
    count_cost_of(worker, RUSAGE_CHILDREN, sign);
}

void harness_begin(struct worker *worker)
{
    pin(worker->index, worker->run->cpus);
    atomic_fetch_add(&worker->run->ready, 1);
    while (!atomic_load(&worker->run->go))
        usleep(50);
    count_cost(worker, -1);
    worker->began = harness_now();
}

void harness_end(struct worker *worker)
{
    worker->ended = harness_now();
    count_cost(worker, 1);
}

struct thread_start {
    void (*work)(struct worker *worker);
    struct worker *worker;
};

static void *thread_main(void *argument)
{
    struct thread_start *start = argument;

    start->work(start->worker);
    return NULL;
}

int harness_fork(void)
{
    pid_t parent = getpid(), pid;

    fflush(NULL);
    pid = fork();
    NEED(pid >= 0);
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_FAILURE);
    alarm(GIVE_UP_S);
    return 0;
}

void harness_reap(int pid)
{
    int status = 0;

    NEED(waitpid(pid, &status, 0) == pid);
    NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void harness_kill(int pid)
{
    NEED(pid > 0);
    kill(pid, SIGKILL);
}

void harness_bury(int pid)
{
    NEED(waitpid(pid, NULL, 0) == pid);
}

static pid_t start_process(struct worker *worker, void (*work)(struct worker *worker))
{
    int pid = harness_fork();

    if (pid != 0)
        return pid;
    harness_idler();
    work(worker);
    _exit(EXIT_SUCCESS);
}

static void let_work(struct run *run)
{
    struct timespec time = {.tv_sec = run->ms / 1000, .tv_nsec = run->ms % 1000 * 1000000L};

    while (atomic_load(&run->ready) < run->workers)
        usleep(50);
    atomic_store(&run->go, 1);
    nanosleep(&time, NULL);
    atomic_store(&run->stop, 1);
}

void harness_workers(struct run *run, void (*work)(struct worker *worker))
{
    struct thread_start starts[WORKERS_MAX];
    pthread_t threads[WORKERS_MAX];
    pid_t pids[WORKERS_MAX];

    for (unsigned i = 0; i < run->workers; i++) {
        starts[i] = (struct thread_start){work, &run->all[i]};
        if (run->processes)
            pids[i] = start_process(&run->all[i], work);
        else
            NEED(pthread_create(&threads[i], NULL, thread_main, &starts[i]) == 0);
    }
    let_work(run);
    for (unsigned i = 0; i < run->workers; i++)
        if (run->processes)
            harness_reap(pids[i]);
        else
            NEED(pthread_join(threads[i], NULL) == 0);
}

/* --- result ---------------------------------------------------------------------------------- */

/* Everything of all workers; the waits too, in the first one's histogram. */
static void add_up(struct run *run, struct worker *sum, uint64_t *least, uint64_t *most)
{
    *sum = run->all[0];
    *least = *most = run->all[0].ops;
    for (unsigned i = 1; i < run->workers; i++) {
        struct worker *worker = &run->all[i];

        *least = worker->ops < *least ? worker->ops : *least;
        *most = worker->ops > *most ? worker->ops : *most;
        sum->began = worker->began < sum->began ? worker->began : sum->began;
        sum->ended = worker->ended > sum->ended ? worker->ended : sum->ended;
        sum->ops += worker->ops;
        sum->put_sum += worker->put_sum;
        sum->got_sum += worker->got_sum;
        sum->cpu_s += worker->cpu_s;
        sum->switches += worker->switches;
        sum->preemptions += worker->preemptions;
        for (unsigned step = 0; step < 64 * 8; step++)
            sum->waits.counts[step] += worker->waits.counts[step];
    }
}

static void print_result(struct run *run)
{
    static struct worker sum;
    uint64_t least, most;

    add_up(run, &sum, &least, &most);
    NEED(sum.put_sum == sum.got_sum);
    printf(
        "{\"ops\": %llu, \"seconds\": %.9f, \"cpu_s\": %.6f, \"switches\": %llu, "
        "\"preemptions\": %llu, \"least\": %llu, \"most\": %llu, \"p50_ns\": %.0f, "
        "\"p99_ns\": %.0f, \"max_ns\": %.0f, \"bytes_each\": %.1f, \"kernel_bytes_each\": %.1f}\n",
        (unsigned long long)sum.ops, (double)(sum.ended - sum.began) / 1e9, sum.cpu_s,
        (unsigned long long)sum.switches, (unsigned long long)sum.preemptions,
        (unsigned long long)least, (unsigned long long)most, percentile(&sum.waits, 0.5),
        percentile(&sum.waits, 0.99), percentile(&sum.waits, 1), run->bytes_each,
        run->kernel_bytes_each);
}

/* --- command line ---------------------------------------------------------------------------- */

static const struct job *find_job(const char *load, const char *what)
{
    for (const struct job *job = peer_jobs; job->load; job++)
        if (strcmp(job->load, load) == 0 && strcmp(job->what, what) == 0)
            return job;
    return NULL;
}

static void parse(struct run *run, const char *word)
{
    struct {
        const char *name;
        unsigned *value;
    } names[] = {{"workers=", &run->workers},     {"ms=", &run->ms},
                 {"work=", &run->work},           {"cpus=", &run->cpus},
                 {"producers=", &run->producers}, {"consumers=", &run->consumers},
                 {"capacity=", &run->capacity},   {"item=", &run->item},
                 {"count=", &run->count}};

    if (strcmp(word, "scope=process") == 0)
        run->processes = true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strncmp(word, names[i].name, strlen(names[i].name)) == 0)
            *names[i].value = (unsigned)strtoul(strchr(word, '=') + 1, NULL, 10);
}

int main(int argc, char **argv)
{
    struct run *run = harness_shared(sizeof *run);
    const struct job *job = argc > 2 ? find_job(argv[1], argv[2]) : NULL;

    if (!job) {
        fprintf(stderr, "%s: no such job\n", argv[0]);
        return EXIT_NOT_HERE;
    }
    alarm(GIVE_UP_S);
    run->load = job->load;
    run->what = job->what;
    run->workers = 1;
    run->ms = 100;
    run->item = 8;
    for (int i = 3; i < argc; i++)
        parse(run, argv[i]);
    if (run->producers)
        run->workers = run->producers + run->consumers;
    NEED(run->workers >= 1 && run->workers <= WORKERS_MAX);
    run->producing = run->producers;
    for (unsigned i = 0; i < run->workers; i++) {
        run->all[i].run = run;
        run->all[i].index = i;
    }
    harness_idler();
    job->run(run);
    print_result(run);
    return 0;
}
