/* SPDX-License-Identifier: MIT */
/*
 * The list is the kernel's interface, not glibc's choice: a ring through the mutexes, from a head that
 * it was told of when the thread began. A mark in the lowest bit of a pointer is none of its address.
 */
#include "concurrency/robust.h"
#include "concurrency/result.h"

#include <linux/futex.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct robust_list *unmarked(const struct robust_list *at)
{
    return (const struct robust_list *)((uintptr_t)at & ~(uintptr_t)1);
}

bool modus_robust_between(const void *from, const void *to)
{
    struct robust_list_head *head = NULL;
    int saved = errno;
    size_t size;

    if (syscall(SYS_get_robust_list, 0, &head, &size) < 0) {
        errno = saved;
        return false;
    }
    if (!head)
        return false;
    for (const struct robust_list *at = unmarked(head->list.next); at != &head->list;
         at = unmarked(at->next))
        if ((uintptr_t)at >= (uintptr_t)from && (uintptr_t)at < (uintptr_t)to)
            return true;
    return false;
}
