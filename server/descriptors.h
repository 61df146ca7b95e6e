/* SPDX-License-Identifier: MIT */
/* How many descriptors a process may have. A login's limit is often 1024, far below what a listener
 * may hold, while the hard limit is not; so the server takes what it may have.
 *
 * Safe from: the master before it forks.
 */
#ifndef SERVER_DESCRIPTORS_H
#define SERVER_DESCRIPTORS_H

#include "server/config.h"

/* Raise RLIMIT_NOFILE to the hard limit, and say in the log which listener may need more. */
void descriptors_raise(const struct config *c);

#endif
