/* SPDX-License-Identifier: MIT */
/* What the lab has found, for a terminal: a block for each load, a line for each server, and below
 * it what to choose and why. 80 columns, plain text in UTF-8.
 */
#ifndef SERVER_LAB_TABLE_H
#define SERVER_LAB_TABLE_H

#include <stdio.h>

#include "server/lab/choice.h"

/* Blocks as writing does; the caller looks at ferror(to). */
void lab_table(const struct lab_findings *f, FILE *to);

/* What a load is looked at by, over its connections: requests a second, unless it is about another. */
enum lab_measure lab_shown(const struct lab_load *load);

#endif
