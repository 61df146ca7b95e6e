/* SPDX-License-Identifier: MIT */
/* One poller thread and T pool threads of a process. A connection that has something to do goes
 * through the bounded queue to a pool thread, which reads, handles and writes; then it waits in the
 * poller again. An idle or slow connection holds no thread. thread-pool has one such process, hybrid
 * several.
 */
#ifndef SERVER_POOL_H
#define SERVER_POOL_H

#include "server/worker.h"

/* Serve the worker's listener with plan.pool threads. shared: other workers have its listening
 * sockets too. Returns the exit status. Blocks until drained. */
int pool_run(struct worker *w, bool shared);

#endif
