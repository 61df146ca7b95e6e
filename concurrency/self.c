/* SPDX-License-Identifier: MIT */
/*
 * The fork-aware identity cache behind modus_self_tid.
 *
 * pthread_atfork alone would miss _Fork and clone, and getpid at every call costs a system call;
 * a wiped page costs one load. The stamp is a time, not the pid, because pids come back: it grows
 * along every line of descent, so a process never meets an ancestor's stamp as its own.
 */
#include "concurrency/self.h"
#include "concurrency/result.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic uint64_t unwiped; /* where there is no wiped page; an atfork handler wipes it */
_Atomic uint64_t *modus_self_process = &unwiped;
_Thread_local struct modus_self modus_self_cache = {.stamp = 1};
_Thread_local uint32_t modus_self_robust;

static void wipe(void)
{
    atomic_store_explicit(&unwiped, 0, memory_order_relaxed);
}

__attribute__((constructor)) static void map_wiped_page(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page != MAP_FAILED && madvise(page, size, MADV_WIPEONFORK) == 0) {
        modus_self_process = page;
        return;
    }
    if (page != MAP_FAILED)
        munmap(page, size);
    pthread_atfork(NULL, NULL, wipe);
}

uint64_t modus_self_stamp(void)
{
    uint64_t none = 0, stamp = atomic_load_explicit(modus_self_process, memory_order_relaxed);

    if (stamp != 0)
        return stamp;
    stamp = (uint64_t)modus_now_ns() | 2;
    if (atomic_compare_exchange_strong(modus_self_process, &none, stamp))
        return stamp;
    return none;
}

uint32_t modus_self_renew(void)
{
    uint64_t stamp = modus_self_stamp();

    if (modus_self_cache.stamp != stamp)
        modus_self_robust = 0;
    modus_self_cache.tid = (uint32_t)gettid();
    modus_self_cache.stamp = stamp;
    return modus_self_cache.tid;
}
