/* SPDX-License-Identifier: MIT */
/* Costs of processes: see server/lab/costs.h. */
#include "server/lab/costs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT = 8192, MOST_DEEP = 8 };

static bool read_text(const char *path, char text[TEXT])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, TEXT - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* --- one process ----------------------------------------------------------------------------- */

static double tick_us(void)
{
    return 1e6 / (double)sysconf(_SC_CLK_TCK);
}

/* The times of its threads that live are known to the nanosecond, those of all, and of children that
 * were reaped, in ticks: fields 14 to 17 of stat, behind the name, which may hold anything but ends with
 * the last ")". */
static bool add_cpu(pid_t pid, double threads_us, struct lab_tree *tree)
{
    char path[64], text[TEXT];
    unsigned long long user, system, user_reaped, system_reaped;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (!read_text(path, text))
        return false;
    const char *end = strrchr(text, ')');
    if (!end || sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu",
                       &user, &system, &user_reaped, &system_reaped) != 4)
        return false;
    double own_us = (double)(user + system) * tick_us();
    tree->cpu_us += own_us > threads_us ? own_us : threads_us;
    tree->cpu_us += (double)(user_reaped + system_reaped) * tick_us();
    return true;
}

static double number_after(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? strtod(at + strlen(name), NULL) : 0;
}

/* The name of each entry that is a number, as an argument of each. */
static void each_number(const char *path, void (*each)(const char *name, void *arg), void *arg)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder && (entry = readdir(folder)) != NULL)
        if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
            each(entry->d_name, arg);
    if (folder)
        closedir(folder);
}

struct walk {
    pid_t pid;
    struct lab_tree *tree;
    double *pss;
    const cpu_set_t *cpus; /* not NULL: to run there from now on */
    int signal;            /* 0: none */
    unsigned deep;
    double threads_us;
};

static bool walk(const struct walk *w);

static void add_thread(const char *tid, void *arg)
{
    struct walk *w = arg;
    char path[96], text[TEXT];
    if (w->cpus)
        sched_setaffinity(atoi(tid), sizeof *w->cpus, w->cpus);
    if (w->tree) {
        snprintf(path, sizeof path, "/proc/%d/task/%.16s/status", w->pid, tid);
        if (read_text(path, text)) {
            w->tree->threads++;
            w->tree->switches += number_after(text, "\nvoluntary_ctxt_switches:") +
                                 number_after(text, "\nnonvoluntary_ctxt_switches:");
        }
        snprintf(path, sizeof path, "/proc/%d/task/%.16s/schedstat", w->pid, tid);
        if (read_text(path, text)) {
            char *delay;
            w->threads_us += strtod(text, &delay) / 1e3;
            w->tree->delay_us += strtod(delay, NULL) / 1e3;
        }
    }
    snprintf(path, sizeof path, "/proc/%d/task/%.16s/children", w->pid, tid);
    FILE *children = fopen(path, "re");
    int pid;
    while (children && fscanf(children, "%d", &pid) == 1)
        walk(&(struct walk){.pid = pid,
                            .tree = w->tree,
                            .pss = w->pss,
                            .cpus = w->cpus,
                            .signal = w->signal,
                            .deep = w->deep + 1});
    if (children)
        fclose(children);
}

static void add_pss(pid_t pid, double *pss)
{
    char path[64], text[TEXT];
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    if (read_text(path, text))
        *pss += number_after(text, "\nPss:");
}

/* Returns whether the process is there. */
static bool walk(const struct walk *w)
{
    struct walk own = *w;
    char path[64];
    if (w->deep > MOST_DEEP)
        return true;
    if (w->pss)
        add_pss(w->pid, w->pss);
    if (w->signal)
        kill(w->pid, w->signal);
    snprintf(path, sizeof path, "/proc/%d/task", w->pid);
    each_number(path, add_thread, &own);
    if (w->tree && !add_cpu(w->pid, own.threads_us, w->tree))
        return false;
    if (w->tree)
        w->tree->processes++;
    return true;
}

int lab_tree_read(pid_t pid, struct lab_tree *tree)
{
    *tree = (struct lab_tree){0};
    return walk(&(struct walk){.pid = pid, .tree = tree}) ? 0 : -ESRCH;
}

double lab_tree_pss_kib(pid_t pid)
{
    double kib = 0;
    walk(&(struct walk){.pid = pid, .pss = &kib});
    return kib > 0 ? kib : -1;
}

void lab_tree_pin(pid_t pid, int cpu)
{
    static cpu_set_t ours; /* before anybody was pinned */
    cpu_set_t one;
    if (CPU_COUNT(&ours) == 0)
        sched_getaffinity(0, sizeof ours, &ours);
    CPU_ZERO(&one);
    if (cpu >= 0)
        CPU_SET((size_t)cpu, &one);
    walk(&(struct walk){.pid = pid, .cpus = cpu < 0 ? &ours : &one});
}

void lab_tree_signal(pid_t pid, int signal)
{
    walk(&(struct walk){.pid = pid, .signal = signal});
}

/* --- the machine ----------------------------------------------------------------------------- */

/* A line "cpuN user nice system idle iowait irq softirq steal ..." of /proc/stat. */
static bool add_times(const char *text, const char *name, double *busy, double *steal, double *all)
{
    unsigned long long t[8];
    const char *line = strstr(text, name);
    if (!line || sscanf(line + strlen(name), " %llu %llu %llu %llu %llu %llu %llu %llu", &t[0],
                        &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]) != 8)
        return false;
    double tick = tick_us() / 1e6, sum = 0;
    for (int i = 0; i < 8; i++)
        sum += (double)t[i] * tick;
    *all = sum;
    *busy = sum - (double)(t[3] + t[4]) * tick;
    if (steal)
        *steal = (double)t[7] * tick;
    return true;
}

void lab_machine_read(struct lab_machine_sample *sample, int cpu)
{
    char text[TEXT], name[24];
    *sample = (struct lab_machine_sample){0};
    if (read_text("/proc/loadavg", text))
        sample->load1 = strtod(text, NULL);
    FILE *stat = fopen("/proc/stat", "re");
    if (!stat)
        return;
    snprintf(name, sizeof name, "cpu%d ", cpu);
    while (fgets(text, sizeof text, stat)) { /* its line of interrupts may be long */
        if (strncmp(text, "cpu ", 4) == 0)
            add_times(text, "cpu ", &sample->busy, &sample->steal, &sample->all);
        else if (cpu >= 0 && strncmp(text, name, strlen(name)) == 0)
            add_times(text, name, &sample->cpu_busy, NULL, &sample->cpu_all);
    }
    fclose(stat);
}
