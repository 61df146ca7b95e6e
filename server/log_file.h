/* SPDX-License-Identifier: MIT */
/* What the logs write to: a file that lines are appended to, or a standard stream. One that cannot
 * take a line now (a full disk, a pipe whose reader stands still) loses the line: it never holds
 * the server up. So files are opened non-blocking, and a FIFO must have a reader. (A standard
 * stream is as whoever started the server made it, and may block.) A symbolic link is refused: the
 * master may be root, and the folder somebody else's.
 *
 * Safe from: any thread, any process.
 */
#ifndef SERVER_LOG_FILE_H
#define SERVER_LOG_FILE_H

#include <stdbool.h>
#include <stddef.h>

/* "stdout" and "stderr", which are open already, and stay. */
bool log_file_is_stream(const char *path);
/* Returns a descriptor, or -1 with one sentence in why. */
int log_file_open(const char *path, char *why, size_t why_size);
/* Have fd, which others may be writing to, mean what is at path now. A stream stays. Returns 0, or
 * -1 with one sentence in why: fd means what it meant. */
int log_file_reopen(int fd, const char *path, char *why, size_t why_size);
/* Nothing for a stream. */
void log_file_close(int fd, const char *path);

#endif
