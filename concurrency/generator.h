/* SPDX-License-Identifier: MIT */
/*
 * Generator: a function that gives its values one by one, and keeps all its locals in between, those
 * of the functions that it has called too.
 *
 *     static int count(struct modus_generator *self, void *limit)
 *     {
 *         for (int i = 0; i < *(int *)limit; i++)
 *             if (modus_generator_yield(self, &i) < 0)
 *                 break;
 *         return 0;
 *     }
 *
 *     void *value;
 *     modus_generator_new(&generator, 0, count, &limit);
 *     while (modus_generator_next(generator, &value) == 0)
 *         printf("%d\n", *(int *)value);
 *     modus_generator_free(generator);
 *
 * States: suspended <-> running -> over. It runs only within a next, on a stack of its own, on the
 * thread and in the name of who asks: in a coroutine it may wait as that may, a lock that it takes
 * is the asker's. No loop is needed. A value is a pointer, to whatever both agree on; what it points
 * to may lie in the generator's locals and is valid until the next next.
 *
 * One thread for all its life. A forked child may go on with a copy.
 */
#ifndef CONCURRENCY_GENERATOR_H
#define CONCURRENCY_GENERATOR_H

#include <stddef.h>

#include "concurrency/result.h"

struct modus_generator;

/* Make a suspended generator; run(itself, argument) begins with the first next. stack: bytes, 0: 60
 * KiB. Returns 0, -EINVAL or -ENOMEM. Does not block. Safe from: any thread. */
int modus_generator_new(struct modus_generator **generator, size_t stack,
                        int (*run)(struct modus_generator *self, void *argument), void *argument);

/* Let it run until its next value, and store that in *value (NULL: not wanted). Returns 0; when run
 * has returned, MODUS_CLOSED or, if that was a negative code, that code; -EDEADLK when it is running
 * (it has asked itself). As long as run takes.
 * Safe from: the thread where it began. */
int modus_generator_next(struct modus_generator *generator, void **value);

/* In the generator: give value to who asked, and go on when the next is asked for. Returns 0, or
 * MODUS_CANCELED when nobody will: clean up and return. Safe from: the running generator. */
int modus_generator_yield(struct modus_generator *self, void *value);

/* End it: one that has begun and is not over goes on once more, its yields return MODUS_CANCELED,
 * until it returns. Not from within itself. NULL is legal. Safe from: the thread where it began. */
void modus_generator_free(struct modus_generator *generator);

#endif
