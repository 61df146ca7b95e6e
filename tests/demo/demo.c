/* SPDX-License-Identifier: MIT */
/* demo [-v] [ROW...]: run the rows of the notes' claims and say of each what was seen. With a row's
 * name, and with -v, what it printed is shown, too. Ends with 1 if a row failed. */
#include "tests/demo/demo.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "concurrency/process.h"
#include "concurrency/result.h"

enum { PRINTED = 1 << 20, SAW = 1024, SECONDS = 60, TRIES = 3, BUSY_PERCENT = 10 };

/* Shared with the row's process and those that it makes. */
struct demo {
    atomic_size_t printed_len;
    atomic_uint failed, late; /* checks; late: of time */
    size_t saw_len;
    char saw[SAW];
    char printed[PRINTED];
};

static const struct demo_row *const groups[] = {
    demo_processes, demo_programs, demo_pools,       demo_threads,
    demo_locks,     demo_queues,   demo_interpreter, demo_coroutines,
};

/* --- what rows call -------------------------------------------------------------------------- */

void demo_print(struct demo *d, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    if (len < 0)
        return;
    size_t n = (size_t)len < sizeof line - 1 ? (size_t)len : sizeof line - 2;
    line[n++] = '\n';
    size_t at = atomic_fetch_add(&d->printed_len, n);
    if (at + n < PRINTED)
        memcpy(d->printed + at, line, n);
}

const char *demo_printed(const struct demo *d)
{
    return d->printed;
}

unsigned demo_count(const struct demo *d, const char *line)
{
    unsigned count = 0;
    size_t len = strlen(line);
    for (const char *at = d->printed; *at;) {
        const char *end = strchr(at, '\n');
        if (!end)
            break;
        count += (size_t)(end - at) == len && memcmp(at, line, len) == 0;
        at = end + 1;
    }
    return count;
}

void demo_saw(struct demo *d, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(d->saw + d->saw_len, SAW - d->saw_len, format, args);
    va_end(args);
    if (len > 0)
        d->saw_len += (size_t)len < SAW - d->saw_len ? (size_t)len : SAW - d->saw_len - 1;
}

bool demo_expect(struct demo *d, bool holds, const char *words)
{
    if (!holds) {
        atomic_fetch_add(&d->failed, 1);
        demo_print(d, "! not so: %s", words);
    }
    return holds;
}

void demo_expect_time(struct demo *d, bool holds, const char *words)
{
    if (!holds) {
        atomic_fetch_add(&d->late, 1);
        demo_print(d, "! not in time: %s", words);
    }
}

void demo_expect_seconds(struct demo *d, double seconds, double wanted)
{
    char words[80];
    snprintf(words, sizeof words, "%.3f s, wanted are %.3f", seconds, wanted);
    demo_expect(d, seconds >= wanted, words);
    demo_expect_time(d, seconds <= wanted * 1.1 + 0.05, words);
}

double demo_now(void)
{
    return (double)modus_now_ns() / 1e9;
}

void demo_pause(double seconds)
{
    struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

unsigned demo_cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

uint64_t demo_add(uint64_t n)
{
    volatile uint64_t sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum = sum + i;
    return sum;
}

/* --- what else the machine does ---------------------------------------------------------------- */

struct load {
    double at, busy,
        own; /* seconds: now; of all CPUs; of ours and our children's that are reaped */
};

static double seconds_of(const struct timeval *t)
{
    return (double)t->tv_sec + (double)t->tv_usec / 1e6;
}

static struct load look_at_load(void)
{
    struct load load = {.at = demo_now()};
    struct rusage self, children;
    unsigned long t[8] = {0}; /* user nice system idle iowait irq softirq steal */
    FILE *f = fopen("/proc/stat", "r");
    if (f) {
        if (fscanf(f, "cpu %lu %lu %lu %lu %lu %lu %lu %lu", &t[0], &t[1], &t[2], &t[3], &t[4],
                   &t[5], &t[6], &t[7]) != 8)
            memset(t, 0, sizeof t);
        fclose(f);
    }
    load.busy = (double)(t[0] + t[1] + t[2] + t[5] + t[6] + t[7]) / (double)sysconf(_SC_CLK_TCK);
    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_CHILDREN, &children);
    load.own = seconds_of(&self.ru_utime) + seconds_of(&self.ru_stime) +
               seconds_of(&children.ru_utime) + seconds_of(&children.ru_stime);
    return load;
}

/* The part of all CPUs that others have used, or a hypervisor has kept. */
static double others_since(const struct load *then)
{
    struct load now = look_at_load();
    double all = (now.at - then->at) * (double)sysconf(_SC_NPROCESSORS_ONLN);
    double others = (now.busy - then->busy) - (now.own - then->own);
    return all > 0 && others > 0 ? others / all : 0;
}

/* --- running them ---------------------------------------------------------------------------- */

static bool is_over(int pidfd)
{
    struct pollfd fd = {.fd = pidfd, .events = POLLIN};
    return poll(&fd, 1, SECONDS * 1000) == 1;
}

/* The row leads a process group: what it leaves behind is found and ended. */
static void run_once(struct demo *d, const struct demo_row *row)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        row->run(d);
        fflush(stdout);
        _exit(0);
    }
    if (pid < 0) {
        demo_expect(d, false, "no process for the row");
        return;
    }
    setpgid(pid, pid);
    siginfo_t end = {0};
    int pidfd = pidfd_open(pid, 0);
    if (!demo_expect(d, pidfd >= 0 && is_over(pidfd), "it ends within a minute"))
        kill(-pid, SIGKILL);
    /* Not reaped yet: so its group is still its own. */
    waitid(P_PID, (id_t)pid, &end, WEXITED | WNOWAIT);
    DEMO_CHECK(d, end.si_code == CLD_EXITED && end.si_status == 0);
    waitid(P_PID, (id_t)pid, &end, WEXITED);
    if (!demo_expect(d, kill(-pid, 0) != 0, "no process is left behind"))
        kill(-pid, SIGKILL);
    if (pidfd >= 0)
        close(pidfd);
}

/* A time that did not hold is judged only where it could have: on a machine that is ours. */
static bool run_row(const struct demo_row *row, bool verbose)
{
    struct demo *d =
        mmap(NULL, sizeof *d, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (d == MAP_FAILED)
        return false;
    double others = 0;
    int tries = 0;
    do {
        struct load begun = look_at_load();
        memset(d, 0, sizeof *d);
        run_once(d, row);
        others = others_since(&begun);
    } while (!d->failed && d->late && ++tries < TRIES);
    bool excused = !d->failed && d->late && others > BUSY_PERCENT / 100.0;
    bool passed = !d->failed && (!d->late || excused);
    if (verbose || !passed)
        for (char *line = strtok(d->printed, "\n"); line; line = strtok(NULL, "\n"))
            printf("  | %s\n", line);
    printf("%s %s: %s%s%s", row->id, passed ? "pass" : "fail", row->claim, d->saw_len ? ": " : "",
           d->saw);
    if (excused)
        printf(" (times not judged: others use %.0f %% of the CPUs)", others * 100);
    puts("");
    munmap(d, sizeof *d);
    return passed;
}

static bool is_wanted(const struct demo_row *row, char **names)
{
    if (!*names)
        return true;
    for (; *names; names++)
        if (strcmp(*names, row->id) == 0)
            return true;
    return false;
}

/* For who sums up several suites. */
static void tell_counts(unsigned passed, unsigned failed)
{
    const char *path = getenv("MODUS_TEST_COUNTS");
    FILE *f = path ? fopen(path, "w") : NULL;
    if (f) {
        fprintf(f, "%u %u\n", passed, failed);
        fclose(f);
    }
}

int main(int argc, char **argv)
{
    modus_process_child(argc, argv); /* a row may start this program again */
    bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
    char **names = argv + 1 + verbose;
    unsigned passed = 0, failed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++)
        for (const struct demo_row *row = groups[g]; row->id; row++)
            if (is_wanted(row, names))
                *(run_row(row, verbose || *names) ? &passed : &failed) += 1;
    if (passed + failed == 0)
        fprintf(stderr, "demo: no row of that name\n");
    printf("%u passed, %u failed\n", passed, failed);
    tell_counts(passed, failed);
    return failed || passed == 0;
}
