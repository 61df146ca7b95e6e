/* SPDX-License-Identifier: MIT */
/*
 * What is put in front of a source file (gcc -include) to check its interleavings: every atomic
 * operation and every copy of an item first lets the checker decide who goes on, and mutexes,
 * clocks and descriptors are the checker's. The source itself is the product's, to the letter.
 *
 * All actors run on one thread, so the operations behind the decision need no atomicity of their
 * own. An object may be read through its type without _Atomic: the files are compiled with
 * -fno-strict-aliasing. The checker itself defines CHECK_ENGINE and sees the real names.
 */
#ifndef TESTS_CHECK_HOOKS_H
#define TESTS_CHECK_HOOKS_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct check_place {
    const char *file;
    int line;
    const char *operation, *object;
};

/* The current actor is about to touch the object. */
void check_point(const struct check_place *place, const void *object);
/* The same, and its buffered stores become visible first. */
void check_fence(const struct check_place *place, const void *object);
void check_load(const struct check_place *place, const void *object, void *value, size_t size);
void check_store(const struct check_place *place, void *object, const void *value, size_t size,
                 int order);
void check_changed(void); /* it has changed an object */
bool check_weakly_fails(void);

int check_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr);
int check_mutex_lock(pthread_mutex_t *mutex);
int check_mutex_trylock(pthread_mutex_t *mutex);
int check_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *until);
int check_mutex_unlock(pthread_mutex_t *mutex);
int check_mutex_consistent(pthread_mutex_t *mutex);
int check_mutex_destroy(pthread_mutex_t *mutex);
int check_clock_gettime(clockid_t clock, struct timespec *now);
pid_t check_getpid(void);
void *check_memcpy(void *to, const void *from, size_t size);
void *check_aligned_alloc(size_t align, size_t size);
void *check_calloc(size_t n, size_t size);
void check_free(void *memory);
int check_eventfd(unsigned count, int flags);
int check_eventfd_write(int fd, eventfd_t value);
int check_eventfd_read(int fd, eventfd_t *value);
int check_close(int fd);
int check_sched_yield(void);

#ifndef CHECK_ENGINE

#define CHECK_HERE(operation_, object_)                                                            \
    __extension__({                                                                                \
        static const struct check_place check_here = {__FILE__, __LINE__, operation_, object_};    \
        &check_here;                                                                               \
    })
#define CHECK_TYPE(p)  __typeof__((void)0, *(p))
#define CHECK_PLAIN(p) ((CHECK_TYPE(p) *)(uintptr_t)(p))

/* The operation's new value may use check_old and check_arg. */
#define CHECK_CHANGE(operation, p, arg, value)                                                     \
    __extension__({                                                                                \
        CHECK_TYPE(p) *check_at = CHECK_PLAIN(p), check_old;                                       \
        CHECK_TYPE(p) check_arg = (arg);                                                           \
        check_fence(CHECK_HERE(operation, #p), check_at);                                          \
        check_old = *check_at;                                                                     \
        *check_at = (value);                                                                       \
        check_changed();                                                                           \
        check_old;                                                                                 \
    })

#define CHECK_EXCHANGE_IF(operation, p, expected, desired, fails)                                  \
    __extension__({                                                                                \
        CHECK_TYPE(p) *check_at = CHECK_PLAIN(p);                                                  \
        __auto_type check_expected = (expected);                                                   \
        CHECK_TYPE(p) check_desired = (desired);                                                   \
        check_fence(CHECK_HERE(operation, #p), check_at);                                          \
        bool check_done = *check_at == *check_expected && !(fails);                                \
        if (check_done)                                                                            \
            *check_at = check_desired, check_changed();                                            \
        else                                                                                       \
            *check_expected = *check_at;                                                           \
        check_done;                                                                                \
    })

#undef atomic_init
#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_exchange_explicit
#undef atomic_fetch_add
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_or
#undef atomic_fetch_or_explicit
#undef atomic_fetch_and
#undef atomic_fetch_and_explicit
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak
#undef atomic_compare_exchange_weak_explicit

#define atomic_init(p, value) (*CHECK_PLAIN(p) = (value))
#define atomic_load(p)                                                                             \
    __extension__({                                                                                \
        CHECK_TYPE(p) check_value;                                                                 \
        check_load(CHECK_HERE("load", #p), (const void *)(uintptr_t)(p), &check_value,             \
                   sizeof check_value);                                                            \
        check_value;                                                                               \
    })
#define atomic_load_explicit(p, order) atomic_load(p)
#define atomic_store_explicit(p, value, order)                                                     \
    __extension__({                                                                                \
        CHECK_TYPE(p) check_value = (value);                                                       \
        check_store(CHECK_HERE("store", #p), (void *)(uintptr_t)(p), &check_value,                 \
                    sizeof check_value, (order));                                                  \
    })
#define atomic_store(p, value)                    atomic_store_explicit(p, value, memory_order_seq_cst)
#define atomic_exchange(p, value)                 CHECK_CHANGE("exchange", p, value, check_arg)
#define atomic_exchange_explicit(p, value, order) atomic_exchange(p, value)
#define atomic_fetch_add(p, n)                    CHECK_CHANGE("add", p, (CHECK_TYPE(p))(n), check_old + check_arg)
#define atomic_fetch_add_explicit(p, n, order)    atomic_fetch_add(p, n)
#define atomic_fetch_sub(p, n)                    CHECK_CHANGE("sub", p, (CHECK_TYPE(p))(n), check_old - check_arg)
#define atomic_fetch_sub_explicit(p, n, order)    atomic_fetch_sub(p, n)
#define atomic_fetch_or(p, n)                     CHECK_CHANGE("or", p, (CHECK_TYPE(p))(n), check_old | check_arg)
#define atomic_fetch_or_explicit(p, n, order)     atomic_fetch_or(p, n)
#define atomic_fetch_and(p, n)                    CHECK_CHANGE("and", p, (CHECK_TYPE(p))(n), check_old &check_arg)
#define atomic_fetch_and_explicit(p, n, order)    atomic_fetch_and(p, n)
#define atomic_compare_exchange_strong(p, expected, desired)                                       \
    CHECK_EXCHANGE_IF("exchange_if", p, expected, desired, false)
#define atomic_compare_exchange_strong_explicit(p, expected, desired, won, lost)                   \
    atomic_compare_exchange_strong(p, expected, desired)
#define atomic_compare_exchange_weak(p, expected, desired)                                         \
    CHECK_EXCHANGE_IF("exchange_if_weak", p, expected, desired, check_weakly_fails())
#define atomic_compare_exchange_weak_explicit(p, expected, desired, won, lost)                     \
    atomic_compare_exchange_weak(p, expected, desired)

#define pthread_mutex_init       check_mutex_init
#define pthread_mutex_lock       check_mutex_lock
#define pthread_mutex_trylock    check_mutex_trylock
#define pthread_mutex_clocklock  check_mutex_clocklock
#define pthread_mutex_unlock     check_mutex_unlock
#define pthread_mutex_consistent check_mutex_consistent
#define pthread_mutex_destroy    check_mutex_destroy
#define clock_gettime            check_clock_gettime
#define getpid                   check_getpid
#define memcpy                   check_memcpy /* an item's; a step of its own */
#define aligned_alloc            check_aligned_alloc
#define calloc                   check_calloc
#define free                     check_free
#define eventfd                  check_eventfd
#define eventfd_write            check_eventfd_write
#define eventfd_read             check_eventfd_read
#define close                    check_close
#define sched_yield              check_sched_yield
#define fstat(fd, status)        (*(status) = (struct stat){0}, 0) /* nobody closes a bell too early */

/* arena.c's mapping, from the checker's memory. */
#define memfd_create(...)    0
#define ftruncate(...)       0
#define fcntl(...)           0
#define mmap(at, bytes, ...) check_aligned_alloc(4096, bytes)
#define munmap(at, bytes)    ((void)(at))

#endif /* CHECK_ENGINE */
#endif
