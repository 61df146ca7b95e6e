/* SPDX-License-Identifier: MIT */
/*
 * What ThreadSanitizer is told of our own locks: that they are mutexes, so that its deadlock detector
 * knows them and its reports can name them. Without it, nothing is compiled.
 *
 * Between BEFORE and AFTER the sanitizer is blind, so nothing may wait there; what waits says
 * afterwards, with LOCKED, that it has tried and succeeded.
 *
 * A forked child tells it nothing (tsan.c): there it is deaf to pthread's own mutexes if the parent had
 * threads, takes those for held for ever, and ours for their victims.
 *
 * For implementers: lock.c, rwlock.c, gil.c.
 */
#ifndef CONCURRENCY_TSAN_H
#define CONCURRENCY_TSAN_H

#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TSAN 1
#endif
#endif

#ifdef TSAN
#include <sanitizer/tsan_interface.h>
#include <stdbool.h>
extern bool modus_tsan_mute; /* a forked child */
#define TSAN_TELL(call)                 (modus_tsan_mute ? (void)0 : (void)(call))
#define TSAN_BEFORE_LOCK(lock, flags)   TSAN_TELL(__tsan_mutex_pre_lock(lock, flags))
#define TSAN_AFTER_LOCK(lock, flags)    TSAN_TELL(__tsan_mutex_post_lock(lock, flags, 1))
#define TSAN_BEFORE_UNLOCK(lock, flags) TSAN_TELL(__tsan_mutex_pre_unlock(lock, flags))
#define TSAN_AFTER_UNLOCK(lock, flags)  TSAN_TELL(__tsan_mutex_post_unlock(lock, flags))
#define TSAN_DESTROY(lock)              TSAN_TELL(__tsan_mutex_destroy(lock, __tsan_mutex_not_static))
#define TSAN_TRY                        __tsan_mutex_try_lock
#define TSAN_FAILED                     (__tsan_mutex_try_lock | __tsan_mutex_try_lock_failed)
#define TSAN_READ                       __tsan_mutex_read_lock
#else
#define TSAN_BEFORE_LOCK(lock, flags)   ((void)0)
#define TSAN_AFTER_LOCK(lock, flags)    ((void)0)
#define TSAN_BEFORE_UNLOCK(lock, flags) ((void)0)
#define TSAN_AFTER_UNLOCK(lock, flags)  ((void)0)
#define TSAN_DESTROY(lock)              ((void)0)
#endif

/* It has been locked, and now it is being unlocked; flags is 0 or TSAN_READ. */
#define TSAN_LOCKED(lock, flags)                                                                   \
    do {                                                                                           \
        TSAN_BEFORE_LOCK(lock, TSAN_TRY | (flags));                                                \
        TSAN_AFTER_LOCK(lock, TSAN_TRY | (flags));                                                 \
    } while (0)
#define TSAN_UNLOCKED(lock, flags)                                                                 \
    do {                                                                                           \
        TSAN_BEFORE_UNLOCK(lock, flags);                                                           \
        TSAN_AFTER_UNLOCK(lock, flags);                                                            \
    } while (0)

#endif
