/* SPDX-License-Identifier: MIT */
/* An interpreter's lock, and what it does to threads: G1 to G3. */
#include "tests/demo/demo.h"
const struct demo_row demo_interpreter[] = {{0}};
