/* SPDX-License-Identifier: MIT */
/* Whether this process tells ThreadSanitizer of its locks: see tsan.h. */
#include "concurrency/tsan.h"

#ifdef TSAN
#include <pthread.h>

#include "concurrency/forks.h"

bool modus_tsan_mute;

static void begin_child(void)
{
    modus_tsan_mute = true;
}

/* Before any handler frees a lock of the child's: the sanitizer has a lock of its own for each that it
 * was told of, and a thread that the child doesn't have may have held that one. */
MODUS_FORK_FIRST static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, begin_child);
}
#endif
