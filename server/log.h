/* SPDX-License-Identifier: MIT */
/* The error log: one line a thing worth knowing, to standard error or a file. Lines are written
 * with one write(2) to a descriptor opened for appending, so processes may share the file.
 *
 * Safe from: any thread, any process, a child after fork; not signal handlers.
 */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "server/config.h"

/* path "stderr" or a file. Returns 0, or -1 with a sentence in why; the old log stays then. */
int log_open(const char *path, enum config_level level, char *why, size_t why_size);
/* For a reload, which may fail: open another log, and go on with this one. Whoever forks meanwhile
 * gives the choice to the child. Returns 0, or -1 with a sentence in why. */
int log_prepare(const char *path, enum config_level level, char *why, size_t why_size);
/* What was prepared is the log from now on; path must stay. In a process of one thread. */
void log_take(void);
/* What was prepared is not wanted. */
void log_forget(void);
/* Open the file again by its name (it was renamed). Failing keeps the old and says so in it. Returns
 * 0 or -1. */
int log_reopen(void);
/* Hand the file to a user, so that its processes can open it again. NULL, "stdout" and "stderr" are
 * nobody's to give. */
void log_give(const char *path, unsigned uid, unsigned gid);

__attribute__((format(printf, 2, 3))) void log_line(enum config_level level, const char *format,
                                                    ...);

/* A line for who started the server: on standard error, and in the log if that is elsewhere. */
__attribute__((format(printf, 1, 2))) void log_announce(const char *format, ...);

#define log_debug(...) log_line(LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...)  log_line(LEVEL_INFO, __VA_ARGS__)
#define log_warn(...)  log_line(LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_line(LEVEL_ERROR, __VA_ARGS__)

#endif
