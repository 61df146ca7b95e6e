/* SPDX-License-Identifier: MIT */
/* The jobs of peer_modus that are in files of their own, by what they measure. */
#ifndef TESTS_BENCH_TOOLBOX_PEER_MODUS_H
#define TESTS_BENCH_TOOLBOX_PEER_MODUS_H

#include "tests/bench/toolbox/harness.h"

/* peer_modus_co.c */
void peer_modus_switches(struct run *run);
void peer_modus_yields(struct run *run);
void peer_modus_creates(struct run *run);
void peer_modus_sleepers(struct run *run);

/* peer_modus_pool.c */
void peer_modus_process(struct run *run);
void peer_modus_tasks(struct run *run);
void peer_modus_task(struct run *run);
void peer_modus_tasks_process(struct run *run);
void peer_modus_task_process(struct run *run);

#endif
