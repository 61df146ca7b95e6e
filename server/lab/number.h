/* SPDX-License-Identifier: MIT */
/* A number among the words of `modus lab`, `modus load` and `modus advise`: one reader, so that the
 * three refuse the same in the same words.
 *
 * Safe from: any thread.
 */
#ifndef SERVER_LAB_NUMBER_H
#define SERVER_LAB_NUMBER_H

#include <stdbool.h>

/* False: text is none from low to high, and a line on stderr says so:
 * "modus COMMAND: --NAME wants a number from 1 to 600, not "x"". */
bool lab_number(const char *command, const char *name, const char *text, double low, double high,
                double *to);
/* The same, and no fraction: "... wants a whole number from ...". */
bool lab_whole_number(const char *command, const char *name, const char *text, double low,
                      double high, double *to);

#endif
