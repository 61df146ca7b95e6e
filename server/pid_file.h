/* SPDX-License-Identifier: MIT */
/* The file that says which process the master is. It is locked as long as the master lives, so a
 * file that a killed server left behind is told from that of a living one whatever the number in it
 * means by now.
 *
 * The lock goes with the descriptor (an open file description's): a master hands it to the next one
 * by that, and forked workers close theirs. Safe from: the master.
 */
#ifndef SERVER_PID_FILE_H
#define SERVER_PID_FILE_H

#include <stddef.h>

/* Could it be taken, were no server running? Whether one is, and whose, a check must not depend on: it is
 * mostly made while one runs. Writes nothing. Returns 0, or -1 with one sentence in why. */
int pid_file_check(const char *path, char *why, size_t why_size);
/* Lock the file and write our pid. Returns a descriptor that holds it, or -1 with one sentence in
 * why: another server has it, it is something else, it cannot be written. */
int pid_file_take(const char *path, char *why, size_t why_size);
/* fd, another master's for the same file, is ours: write our pid. */
void pid_file_write(int fd);
/* Remove the file if it is still the one that we took, and close fd. */
void pid_file_give_back(const char *path, int fd);

#endif
