/* SPDX-License-Identifier: MIT */
/* What lock.c offers only to other files of the toolbox. */
#ifndef CONCURRENCY_LOCK_PRIV_H
#define CONCURRENCY_LOCK_PRIV_H

#include "concurrency/lock.h"

/* In a forked child: free a lock of thread scope that the parent's forking thread has acquired, in
 * the handler before the fork. */
void modus_lock_renew(struct modus_lock *lock);

#endif
