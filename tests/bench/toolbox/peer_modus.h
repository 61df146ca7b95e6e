/* SPDX-License-Identifier: MIT */
/* The jobs of peer_modus that are in files of their own, by what they measure. Pools of threads and of
 * processes come in here: jobs "tasks" and "task", of tasks_loop and task_loop (loops.h), and "start"
 * "process". */
#ifndef TESTS_BENCH_TOOLBOX_PEER_MODUS_H
#define TESTS_BENCH_TOOLBOX_PEER_MODUS_H

#include "tests/bench/toolbox/harness.h"

/* peer_modus_co.c */
void peer_modus_switches(struct run *run);
void peer_modus_yields(struct run *run);
void peer_modus_creates(struct run *run);
void peer_modus_sleepers(struct run *run);

#endif
