/* SPDX-License-Identifier: MIT */
/*
 * Before an element changes it is copied aside; whoever inherits the lock from the dead puts it
 * back. held tells a death in the middle of somebody's several steps, which the next such one must
 * know of, from a death in one of our own.
 */
#include "concurrency/array.h"
#include "concurrency/fault.h"
#include "concurrency/rlock.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct modus_array_head {
    struct modus_rlock lock;  /* guards all that follows, and the elements */
    volatile uint32_t held;   /* how often a caller has acquired it */
    volatile uint32_t orphan; /* an owner died while it was, and nobody has been told */
    volatile size_t changing; /* 1 + the element that is copied aside; 0: none */
    _Alignas(16) unsigned char aside[];
};

/* The compiler keeps the stores before this before those after it (see store.c). */
static inline void in_order(void)
{
    atomic_signal_fence(memory_order_seq_cst);
}

static size_t elements_at(size_t size)
{
    return (sizeof(struct modus_array_head) + size + 63) / 64 * 64;
}

static size_t bytes_of(const struct modus_array *array)
{
    return elements_at(array->size) + array->count * array->size;
}

int modus_array_init(struct modus_array *array, const struct modus_array_attr *attr)
{
    size_t bytes;

    memset(array, 0, sizeof *array);
    if ((attr->scope == MODUS_PROCESS && !attr->arena) || attr->count == 0 || attr->size == 0 ||
        attr->size > PTRDIFF_MAX / 2 || __builtin_mul_overflow(attr->count, attr->size, &bytes) ||
        bytes > PTRDIFF_MAX / 2)
        return -EINVAL;
    *array = (struct modus_array){.arena = attr->arena, .count = attr->count, .size = attr->size};
    bytes = bytes_of(array);
    void *memory =
        attr->scope == MODUS_PROCESS ? modus_arena_alloc(attr->arena, bytes, 0) : calloc(1, bytes);
    if (!memory)
        return -ENOMEM;
    array->head = memory;
    array->elements = (unsigned char *)memory + elements_at(attr->size);
    int rc = modus_rlock_init(&array->head->lock, attr->scope);
    array->scope = (uint32_t)attr->scope;
    if (rc < 0)
        modus_array_fini(array);
    return rc;
}

void modus_array_fini(struct modus_array *array)
{
    if (array->scope == 0)
        return;
    modus_rlock_fini(&array->head->lock);
    if (array->scope == MODUS_PROCESS)
        modus_arena_free(array->arena, array->head, bytes_of(array));
    else
        free(array->head);
    memset(array, 0, sizeof *array);
}

void *modus_array_at(const struct modus_array *array, size_t i)
{
    return i < array->count ? array->elements + i * array->size : NULL;
}

/* --- owning ---------------------------------------------------------------------------------- */

static void put_back(struct modus_array *array)
{
    struct modus_array_head *head = array->head;
    void *element = head->changing ? modus_array_at(array, head->changing - 1) : NULL;

    if (element)
        memcpy(element, head->aside, array->size);
    in_order();
    head->changing = 0;
}

static int own(struct modus_array *array, int rc)
{
    struct modus_array_head *head = array->head;

    if (rc != MODUS_OWNERDEAD)
        return rc;
    put_back(array);
    if (head->held)
        head->orphan = 1;
    in_order();
    head->held = 0;
    modus_rlock_consistent(&head->lock);
    return 0;
}

static int begin(struct modus_array *array, size_t i)
{
    if (array->scope == 0)
        return -EINVAL;
    if (i >= array->count)
        return -ENOENT;
    return own(array, modus_rlock_acquire(&array->head->lock, MODUS_FOREVER));
}

static int acquired(struct modus_array *array, int rc)
{
    struct modus_array_head *head = array->head;

    rc = own(array, rc);
    if (rc < 0)
        return rc;
    head->held++;
    in_order();
    if (!head->orphan)
        return 0;
    head->orphan = 0; /* killed from here on, we are the owner that died */
    return MODUS_OWNERDEAD;
}

int modus_array_acquire(struct modus_array *array, int64_t ns)
{
    return array->scope == 0 ? -EINVAL
                             : acquired(array, modus_rlock_acquire(&array->head->lock, ns));
}

int modus_array_acquire_until(struct modus_array *array, int64_t deadline)
{
    return array->scope == 0
               ? -EINVAL
               : acquired(array, modus_rlock_acquire_until(&array->head->lock, deadline));
}

int modus_array_release(struct modus_array *array)
{
    if (array->scope == 0)
        return -EINVAL;
    if (modus_rlock_depth(&array->head->lock) == 0 || array->head->held == 0)
        return -EPERM; /* the latter: what is held is held by a call, see update */
    array->head->held--;
    return modus_rlock_release(&array->head->lock);
}

/* --- elements -------------------------------------------------------------------------------- */

int modus_array_get(struct modus_array *array, size_t i, void *element)
{
    int rc = begin(array, i);

    if (rc < 0)
        return rc;
    memcpy(element, modus_array_at(array, i), array->size);
    modus_rlock_release(&array->head->lock);
    return 0;
}

static void put_aside(struct modus_array *array, size_t i)
{
    memcpy(array->head->aside, modus_array_at(array, i), array->size);
    in_order();
    array->head->changing = i + 1;
    in_order();
    MODUS_FAULT(MODUS_FAULT_ARRAY_NOTED);
}

int modus_array_update(struct modus_array *array, size_t i,
                       int (*update)(void *context, void *element), void *context)
{
    int rc = begin(array, i);

    if (rc < 0)
        return rc;
    if (array->head->changing) {
        rc = -EBUSY;
    } else {
        put_aside(array, i);
        rc = update(context, modus_array_at(array, i));
        if (!modus_rlock_depth(&array->head->lock))
            return -ECHILD;
        in_order();
        MODUS_FAULT(MODUS_FAULT_ARRAY_CHANGED);
        if (rc < 0)
            put_back(array);
        array->head->changing = 0;
        in_order();
    }
    modus_rlock_release(&array->head->lock);
    return rc;
}

struct copy {
    const void *from;
    size_t size;
};

static int copy_in(void *context, void *element)
{
    const struct copy *copy = context;

    memcpy(element, copy->from, copy->size);
    return 0;
}

int modus_array_set(struct modus_array *array, size_t i, const void *element)
{
    return modus_array_update(array, i, copy_in, &(struct copy){element, array->size});
}
