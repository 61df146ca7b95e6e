/* SPDX-License-Identifier: MIT */
/* Titles of processes: see server/title.h.
 *
 * The kernel shows the bytes between the addresses where it put argv, and if the last of them is no
 * longer zero, goes on into the environment that lies behind it, to the first zero. So a title may
 * be longer than the command line was, if the environment's strings are elsewhere by then.
 * Rejected: prctl(PR_SET_MM), which would leave them alone, but wants a privilege or a kernel with
 * checkpointing. */
#include "server/title.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TITLE_SIZE = 256 };

static struct {
    char *at;
    size_t command; /* bytes of argv */
    size_t room;    /* and of what lies behind it */
} area;

/* Strings that lie one behind the other, from end on. Returns where they end. */
static char *end_of(char **strings, char *end)
{
    for (; *strings && *strings == end; strings++)
        end += strlen(end) + 1;
    return end;
}

/* A copy of the environment elsewhere, which lives as long as the process, in one piece: what is
 * taken out of it later stays where it is. NULL: no memory. */
static char **copy_environment(void)
{
    static char **kept;
    size_t n = 0, size = 0;
    for (; environ[n]; n++)
        size += strlen(environ[n]) + 1;
    kept = malloc((n + 1) * sizeof *kept + size);
    char *to = kept ? (char *)(kept + n + 1) : NULL;
    for (size_t i = 0; kept && i < n; i++) {
        size_t len = strlen(environ[i]) + 1;
        kept[i] = memcpy(to, environ[i], len);
        to += len;
    }
    if (kept)
        kept[n] = NULL;
    return kept;
}

void title_init(int argc, char **argv)
{
    static char name[] = "modus"; /* else these point into what will be overwritten */
    program_invocation_name = program_invocation_short_name = name;
    if (argc < 1)
        return;
    char *end = end_of(argv, argv[0]);
    area.at = argv[0];
    area.command = area.room = (size_t)(end - argv[0]);
    char **elsewhere = environ ? copy_environment() : NULL;
    if (!elsewhere)
        return;
    area.room = (size_t)(end_of(environ, end) - argv[0]);
    environ = elsewhere;
}

void title_set(const char *format, ...)
{
    char text[TITLE_SIZE] = "modus: ";
    size_t prefix = strlen(text);
    va_list args;
    if (!area.at)
        return;
    va_start(args, format);
    vsnprintf(text + prefix, sizeof text - prefix, format, args);
    va_end(args);
    size_t len = strnlen(text, area.room - 1);
    memcpy(area.at, text, len);
    memset(area.at + len, 0, len < area.command ? area.command - len : 1);
}
