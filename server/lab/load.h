/* SPDX-License-Identifier: MIT */
/* The command `modus load`: see server/lab/loader.h for what it does. */
#ifndef SERVER_LAB_LOAD_H
#define SERVER_LAB_LOAD_H

/* argv[0] is "load". Prints what was measured. Returns the exit status: 0, 1 when nothing was answered
 * or the server could not be found, 2 when the words are wrong. Blocks. Safe from: the main thread. */
int load_command(int argc, char **argv);

#endif
