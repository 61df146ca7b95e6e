/* SPDX-License-Identifier: MIT */
/* The status of a running server, as the lab needs it: asked by the command, since that knows how to
 * find it by its configuration file. */
#ifndef SERVER_LAB_STATUS_H
#define SERVER_LAB_STATUS_H

#include <stddef.h>

struct json;

/* What `modus status --json -c config` prints, to be freed with json_free; NULL with why: a line of
 * that command, which begins with "modus: ", or a sentence. Blocks for some milliseconds, at most 4 s. */
struct json *lab_status(const char *config, char *why, size_t why_size);

/* In which line of the file the listener with this address begins; 0: it can't be read, or has none.
 * Blocks. */
int lab_status_line(const char *config, const char *address);

#endif
