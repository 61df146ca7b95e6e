/* SPDX-License-Identifier: MIT */
/* The command `modus lab`: which model for which load, measured here and now. */
#ifndef SERVER_LAB_LAB_H
#define SERVER_LAB_LAB_H

/* argv[0] is "lab". Measures, prints a table, writes results.json and report.html. Returns the exit
 * status: 0, 1 when it could not, 2 when the words are wrong. Blocks for minutes. Safe from: the main
 * thread. */
int lab_command(int argc, char **argv);

#endif
