/* SPDX-License-Identifier: MIT */
/* How the status page asks for another model. The control socket is not for workers: they may run as
 * another user, and it can do more. So those that serve a page with `control = true` have the write
 * end of a pipe of the master's, made when there is the first such page, by which one thing can be
 * asked for: that a listener be served with another model. What comes of it is seen in the directory.
 *
 *     worker                                     master
 *     switches_ask("127.0.0.1:8080", "hybrid")   reads one request, has reload.c check and do it as
 *     (one write, whole or not at all)           for `modus model`, and only then reads the next one
 *
 * A worker is believed nothing: what it writes is looked at like a client's. The pipe holds a few
 * requests; with more the asker is told so at once. Nobody waits.
 */
#ifndef SERVER_SWITCHES_H
#define SERVER_SWITCHES_H

#include <stdbool.h>
#include <uv.h>

struct generation;
struct master;

struct switches {
    int pipe[2];     /* -1: not made */
    uv_poll_t watch; /* of its read end */
    bool started;
};

/* The models that there are, for the page; ended by NULL. */
const char *const *switches_models(void);
/* A number that nobody can guess, as text: who has it has seen a page of this start. */
const char *switches_token(void);
/* A generation is about to get its processes: if models can be switched on one of its pages, make the
 * pipe, and read from it in the master's loop. Returns 0 or -1. Safe from: the master. */
int switches_start(struct master *m, const struct generation *g);
/* In a worker of a generation just forked: keep just what it may have. Safe from: the child. */
void switches_forget(struct master *m, const struct generation *g);
/* The loop has been closed, or never was: give the pipe back. Safe from: the master. */
void switches_stop(struct master *m);
/* Of struct status_control; arg is the master as the worker has inherited it. */
int switches_ask(void *arg, const char *listener, const char *model);

#endif
