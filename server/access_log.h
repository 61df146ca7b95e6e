/* SPDX-License-Identifier: MIT */
/* Access logs: a line an answer, in the formats that log readers know, with one write(2) each, so
 * that all processes of a listener append to one file. What came from the peer is escaped: a line
 * never holds a control character, and JSON stays JSON.
 *
 * Safe from: write and reopen any thread, any process that inherited it; open and close the master.
 */
#ifndef SERVER_ACCESS_LOG_H
#define SERVER_ACCESS_LOG_H

#include "net/service.h"
#include "server/config.h"

struct access_log;

/* path: a file, "stdout" or "stderr"; borrowed. Returns NULL with a sentence in why. */
struct access_log *access_log_open(const char *path, enum config_log_format format, char *why,
                                   size_t why_size);
void access_log_close(struct access_log *log);
/* As log_reopen(). NULL is allowed. */
int access_log_reopen(struct access_log *log);
/* For struct service's note: arg is the struct access_log. */
void access_log_write(void *arg, const struct exchange_record *record);
/* The line for a record with its newline, in buffer. Returns its length; for tests too. */
size_t access_log_line(enum config_log_format format, const struct exchange_record *record,
                       long long unix_s, char *buffer, size_t size);

#endif
