/* SPDX-License-Identifier: MIT */
/* Whether this process tells ThreadSanitizer of its locks: see tsan.h. */
#include "concurrency/tsan.h"

#ifdef TSAN
#include <pthread.h>

#include "concurrency/forks.h"

bool modus_tsan_mute;

void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
void AnnotateIgnoreSyncBegin(const char *file, int line);
void AnnotateIgnoreSyncEnd(const char *file, int line);

/* What threads did that the child doesn't have is no race with what it does, and the sanitizer's own
 * locks, which atomics take, may be held by them for ever. It heeds both itself, but only when all
 * handlers have run. */
static void begin_child(void)
{
    modus_tsan_mute = true;
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
}

static void child_has_begun(void)
{
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

/* Before and after all other handlers. */
MODUS_FORK_FIRST static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, begin_child);
}

MODUS_FORK_LAST static void watch_forks_to_the_end(void)
{
    pthread_atfork(NULL, NULL, child_has_begun);
}
#endif
