/* SPDX-License-Identifier: MIT */
/* The status of a running server: see server/lab/status.h. */
#include "server/lab/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "concurrency/subprocess.h"
#include "server/config.h"
#include "server/lab/json.h"
#include "server/program.h"

enum { MOST_SECONDS = 4 }; /* the command itself gives up after 5, and says less */

struct json *lab_status(const char *config, char *why, size_t why_size)
{
    const char *argv[] = {program_path(), "status", "--json", "-c", config, NULL};
    struct json *told = NULL;
    struct modus_ran ran;
    int rc = modus_subprocess_run(argv, NULL, NULL, 0, modus_seconds(MOST_SECONDS), &ran);
    if (rc == 0 && ran.code == 0)
        told = json_parse(ran.output.data, ran.output.size);
    if (!told && rc == 0 && ran.errors.size)
        snprintf(why, why_size, "%.*s", (int)strcspn(ran.errors.data, "\n"), ran.errors.data);
    else if (!told && rc == -ETIMEDOUT)
        snprintf(why, why_size,
                 "the server of %s has not answered within %d s: if it is stopped (T in ps), kill "
                 "-CONT lets it go on; else its log says what it does",
                 config, MOST_SECONDS);
    else if (!told)
        snprintf(why, why_size, "the server of %s cannot be asked: modus status -c %s says why",
                 config, config);
    modus_ran_free(&ran);
    return told;
}

static bool has_address(const struct config_listener *l, const char *address)
{
    for (size_t i = 0; i < l->address_count; i++)
        if (strcmp(l->addresses[i].text, address) == 0)
            return true;
    return false;
}

int lab_status_line(const char *config, const char *address)
{
    char why[300];
    struct config *c = config_read(config, why, sizeof why);
    int line = 0;
    for (size_t i = 0; c && i < c->listener_count; i++)
        if (has_address(&c->listeners[i], address))
            line = c->listeners[i].line;
    config_free(c);
    return line;
}
