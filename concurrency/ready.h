/* SPDX-License-Identifier: MIT */
/*
 * Ready: wait for any of several descriptors, on a thread or in a coroutine.
 *
 * poll(2) with the toolbox's time and results. Who waits for one has modus_park_fd (park.h).
 *
 * For implementers: pipes.c.
 */
#ifndef CONCURRENCY_READY_H
#define CONCURRENCY_READY_H

#include <poll.h>
#include <stdint.h>

#include "concurrency/result.h"

/* Wait until at least one of n descriptors is ready, or until deadline (absolute CLOCK_MONOTONIC ns,
 * or MODUS_FOREVER; one that is past looks once). Negative descriptors are left out; revents are set
 * as by poll. Returns 0, -ETIMEDOUT, -ENOMEM, and in a coroutine MODUS_CANCELED, -EMFILE or
 * -ENFILE. Blocks; a coroutine lets others go on. Signals do not surface.
 * Safe from: any thread and coroutine; a forked child. */
int modus_ready(struct pollfd *fds, unsigned n, int64_t deadline);

#endif
