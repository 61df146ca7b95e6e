/* SPDX-License-Identifier: MIT */
/* What a tree of processes costs, and whether the machine is at rest, read from /proc.
 *
 * Times of processes that have ended are in the parent that has reaped them, so the sums hold for a
 * server that makes a process for each connection, too; its switches are lost with them.
 *
 * Safe from: one thread.
 */
#ifndef SERVER_LAB_COSTS_H
#define SERVER_LAB_COSTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Sums over a process and all that descend from it. */
struct lab_tree {
    double cpu_us;               /* user and system, since each began; reaped children too */
    double delay_us;             /* ready to run, and waiting for a CPU; of threads that live */
    double switches;             /* the same */
    unsigned processes, threads; /* now */
};

/* Of the machine, since it was started, but for load1. */
struct lab_machine_sample {
    double load1;
    double busy, steal, all;  /* seconds, of all CPUs */
    double cpu_busy, cpu_all; /* of one CPU: that of the loader */
};

/* Returns 0, or -ESRCH when pid has gone. */
int lab_tree_read(pid_t pid, struct lab_tree *tree);
/* Memory that it would give back, shared pages by halves and thirds (PSS), in KiB; -1: not to be
 * read. Takes about a millisecond a process. */
double lab_tree_pss_kib(pid_t pid);
/* Let all of its threads run on one CPU, or (-1) on all that we had when this was first called; new
 * ones inherit that. */
void lab_tree_pin(pid_t pid, int cpu);
/* Send a signal to all of its processes. */
void lab_tree_signal(pid_t pid, int signal);
/* cpu: whose cpu_busy; -1: none. */
void lab_machine_read(struct lab_machine_sample *sample, int cpu);

#endif
