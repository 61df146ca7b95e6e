/* SPDX-License-Identifier: MIT */
/*
 * What the kernel knows of the calling thread's robust mutexes: the list that it walks when the thread
 * ends. It stands apart from lock.h, because locks of this toolbox are not the only ones in it.
 */
#ifndef CONCURRENCY_ROBUST_H
#define CONCURRENCY_ROBUST_H

#include <stdbool.h>

/* Does the calling thread, for any of its coroutines, hold one that lies between these addresses? A
 * system call; does not block. Safe from: any thread, a forked child. */
bool modus_robust_between(const void *from, const void *to);

#endif
