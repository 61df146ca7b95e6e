/* SPDX-License-Identifier: MIT */
/* Processes: P1 to P21. */
#include "tests/demo/demo.h"
const struct demo_row demo_processes[] = {{0}};
