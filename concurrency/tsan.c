/* SPDX-License-Identifier: MIT */
/* Whether this process tells ThreadSanitizer of its locks: see tsan.h. */
#include "concurrency/tsan.h"

#ifdef TSAN
#include <pthread.h>

bool modus_tsan_mute;

static void begin_child(void)
{
    modus_tsan_mute = true;
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, begin_child);
}
#endif
