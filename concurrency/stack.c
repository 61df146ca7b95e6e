/* SPDX-License-Identifier: MIT */
/*
 * One class of stacks for each power of two. A class reserves slabs of 16 MiB and cuts them; what
 * is put goes to a list of the thread's own, and from there, when that is long, to a common one.
 * The links of the lists lie in the topmost word of the free stacks, a page that was in use anyway.
 *
 * Guards: MADV_GUARD_INSTALL makes a page trap without splitting the mapping. Where the kernel does
 * not know it, mprotect does, and splits.
 */
#include "concurrency/stack.h"
#include "concurrency/forks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

enum { PAGE = MODUS_STACK_GUARD, SLAB = 16 << 20, KEPT = 256, CLASSES = 10 };

/* In the topmost bytes of a free stack. */
struct free_stack {
    struct free_stack *next;
};

struct list {
    struct free_stack *first;
    unsigned count;
};

/* All slabs there are, for who asks what an address is. */
struct slab {
    struct slab *next;
    char *low;
    size_t bytes, stack_bytes;
};

static _Atomic(struct slab *) slabs;

/* A plain mutex: one that parks could become a suspended coroutine's, while the loop that should
 * resume it waits for the same one to return a stack.
 * The common lists, and what is left of each class's last slab. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct list common[CLASSES];
static char *fresh[CLASSES], *fresh_end[CLASSES];

static _Thread_local struct list own[CLASSES];
static _Thread_local bool known; /* the thread's end gives its list to the others */
static pthread_key_t key;

static size_t class_bytes(unsigned class)
{
    return (size_t)MODUS_STACK_LEAST << class;
}

static unsigned class_of(size_t size)
{
    unsigned class = 0;

    while (class_bytes(class) < size)
        class ++;
    return class;
}

static struct free_stack *link_of(void *low, size_t size)
{
    return (struct free_stack *)(void *)((char *)low + size) - 1;
}

static void *low_of(struct free_stack *link, size_t size)
{
    return (char *)(link + 1) - size;
}

static void push(struct list *list, struct free_stack *link)
{
    link->next = list->first;
    list->first = link;
    list->count++;
}

static struct free_stack *pop(struct list *list)
{
    struct free_stack *link = list->first;

    if (link) {
        list->first = link->next;
        list->count--;
    }
    return link;
}

/* --- from the system ------------------------------------------------------------------------- */

static int guard(void *page)
{
    static atomic_bool missing;

    if (!atomic_load_explicit(&missing, memory_order_relaxed)) {
        if (madvise(page, PAGE, MADV_GUARD_INSTALL) == 0)
            return 0;
        atomic_store_explicit(&missing, true, memory_order_relaxed);
    }
    return mprotect(page, PAGE, PROT_NONE) == 0 ? 0 : -ENOMEM;
}

static void note_slab(char *low, size_t bytes, size_t stack_bytes)
{
    struct slab *slab = malloc(sizeof *slab);

    if (!slab)
        return; /* its overflows will not be named */
    *slab = (struct slab){atomic_load(&slabs), low, bytes, stack_bytes};
    atomic_store(&slabs, slab);
}

/* Under the mutex: a stack that nobody has used. The guard is its lowest page, so that its size is
 * one page less than its class. */
static int cut(unsigned class, void **low)
{
    size_t bytes = class_bytes(class), slab = bytes > SLAB ? bytes : SLAB;

    if (fresh[class] == fresh_end[class]) {
        void *map = mmap(NULL, slab, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (map == MAP_FAILED)
            return -ENOMEM;
        madvise(map, slab, MADV_NOHUGEPAGE); /* one page each is the point */
        fresh[class] = map;
        fresh_end[class] = fresh[class] + slab;
        note_slab(map, slab, bytes);
    }
    int rc = guard(fresh[class]);
    if (rc == 0) {
        *low = fresh[class];
        fresh[class] += bytes;
    }
    return rc;
}

static int get_common(unsigned class, void **low)
{
    int rc = 0;

    pthread_mutex_lock(&mutex);
    struct free_stack *link = pop(&common[class]);
    if (link)
        *low = low_of(link, class_bytes(class));
    else
        rc = cut(class, low);
    pthread_mutex_unlock(&mutex);
    return rc;
}

static void give_to_all(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&mutex);
    for (unsigned class = 0; class < CLASSES; class ++)
        for (struct free_stack *link; (link = pop(&own[class])) != NULL;)
            push(&common[class], link);
    pthread_mutex_unlock(&mutex);
}

static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&mutex);
}

MODUS_FORK_PLAIN static void prepare(void)
{
    pthread_key_create(&key, give_to_all);
    pthread_atfork(before_fork, after_fork, after_fork);
}

/* --- calls ----------------------------------------------------------------------------------- */

int modus_stack_get(struct modus_stack *stack, size_t size)
{
    if (size > MODUS_STACK_MOST - PAGE)
        return -EINVAL;
    unsigned class = class_of(size ? size + PAGE : MODUS_STACK_USUAL);
    struct free_stack *link = pop(&own[class]);
    void *low = link ? low_of(link, class_bytes(class)) : NULL;
    int rc = low ? 0 : get_common(class, &low);
    if (rc == 0)
        *stack = (struct modus_stack){(char *)low + PAGE, class_bytes(class) - PAGE};
    return rc;
}

void modus_stack_put(struct modus_stack *stack)
{
    if (!stack->low)
        return;
    unsigned class = class_of(stack->size + PAGE);
    struct free_stack *link = link_of(stack->low, stack->size);
    if (!known)
        known = pthread_setspecific(key, own) == 0;
    if (own[class].count < KEPT) {
        push(&own[class], link);
    } else {
        madvise(stack->low, stack->size - PAGE, MADV_DONTNEED); /* all but the page of the link */
        pthread_mutex_lock(&mutex);
        push(&common[class], link);
        pthread_mutex_unlock(&mutex);
    }
    *stack = (struct modus_stack){0};
}

size_t modus_stack_touched(const struct modus_stack *stack)
{
    size_t pages = stack->size / PAGE, touched = 0;
    unsigned char in[1];

    while (touched < pages &&
           mincore((char *)stack->low + stack->size - (touched + 1) * PAGE, PAGE, in) == 0 &&
           (in[0] & 1))
        touched++;
    return touched * PAGE;
}

size_t modus_stack_guarded(const void *address)
{
    for (const struct slab *slab = atomic_load(&slabs); slab; slab = slab->next) {
        uintptr_t at = (uintptr_t)address - (uintptr_t)slab->low;

        if (at < slab->bytes)
            return at % slab->stack_bytes < PAGE ? slab->stack_bytes - PAGE : 0;
    }
    return 0;
}
