/* SPDX-License-Identifier: MIT */
/* A handler: what serves the requests of a route. One file a handler, holding its options table and
 * its entry, and nothing of any concurrency model. To add one, write handlers/NAME.c that defines
 * `const struct handler handler_NAME` and add a line HANDLER(NAME) to handlers/table.h.
 *
 *     #include "handlers/handler.h"
 *
 *     static int hello_run(struct exchange *x)
 *     {
 *         exchange_sleep(x, 50);
 *         return exchange_reply(x, 200, "text/plain", STR("hello\n"));
 *     }
 *
 *     const struct handler handler_hello = {
 *         .name = "hello", .summary = "waits a little, then greets", .entry = {.run = hello_run}};
 *
 * Life: the configuration fills a zeroed struct of conf_size bytes from the options, then calls
 * open() once a route in the master before it forks (also for `modus -t`), and close() when the
 * configuration goes. Processes forked in between each have their own copy; in models with threads,
 * several threads call the entry at once with the same conf: what it changes there needs a lock.
 */
#ifndef HANDLERS_HANDLER_H
#define HANDLERS_HANDLER_H

#include "handlers/option.h"
#include "net/exchange.h"

struct status_source; /* handlers/status.h */

/* What a handler may need of the server around it. */
struct handler_env {
    const struct status_source *status; /* NULL under `modus -t` */
    bool local; /* of the route's listener: all addresses are loopback or unix */
};

struct handler {
    const char *name;
    const char *summary;          /* one line for `modus handlers` */
    const struct option *options; /* ended by a NULL name; NULL: no options */
    size_t conf_size;             /* of the struct that the options describe; may hold more */
    /* Check the options against the world (does root exist?) and open what is needed. NULL: nothing
     * to do. Returns 0, or -1 with a sentence in why, which is shown behind the section's line. */
    int (*open)(void *conf, const struct handler_env *env, char *why, size_t why_size);
    void (*close)(void *conf); /* NULL: nothing to do; also called after a failed open */
    struct exchange_entry entry;
    /* Which entry a route has, where that is for its options to say; NULL: the one above. It serves the
     * same methods. */
    const struct exchange_entry *(*entry_of)(const void *conf);
};

/* By name, or NULL. */
const struct handler *handler_find(const char *name);
/* The index-th handler of the table, or NULL past the last. */
const struct handler *handler_at(size_t index);

#endif
