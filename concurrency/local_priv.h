/* SPDX-License-Identifier: MIT */
/* What the scheduler of coroutines tells local.c: where the running coroutine's values are. */
#ifndef CONCURRENCY_LOCAL_PRIV_H
#define CONCURRENCY_LOCAL_PRIV_H

struct modus_locals;

/* The place of the running coroutine's values; NULL outside of coroutines. Set by the scheduler. */
extern _Thread_local struct modus_locals **modus_locals_instead
    __attribute__((tls_model("initial-exec")));

/* The calling coroutine ends: destroy its values. May wait as the destructors do. */
void modus_locals_end(struct modus_locals **place);

#endif
