/* SPDX-License-Identifier: MIT */
/*
 * A context that is switched to by who asks, and back by the value. It lies at the top of its own
 * stack: making one is taking a stack from the cache.
 *
 * A generator that waits in a coroutine suspends the coroutine as it stands, with the generator
 * running: the coroutine's context then lies on the generator's stack.
 */
#include "concurrency/generator.h"
#include "concurrency/context.h"
#include "concurrency/stack.h"

#include <stdbool.h>
#include <stdint.h>

enum { NEW, SUSPENDED, RUNNING, OVER };

struct modus_generator {
    struct modus_context own, asker;
    struct modus_stack stack;
    int (*run)(struct modus_generator *self, void *argument);
    void *argument, *value;
    int result;
    uint8_t state;
    bool cancelled;
};

static void begin(void *argument)
{
    struct modus_generator *generator = argument;

    generator->result = generator->run(generator, generator->argument);
    generator->state = OVER;
    modus_context_leave(&generator->own, &generator->asker);
}

int modus_generator_new(struct modus_generator **generator, size_t stack_bytes,
                        int (*run)(struct modus_generator *self, void *argument), void *argument)
{
    struct modus_stack stack;
    size_t own = (sizeof(struct modus_generator) + 63) & ~(size_t)63;

    if (!run || stack_bytes > MODUS_STACK_MOST)
        return -EINVAL;
    int rc = modus_stack_get(&stack, stack_bytes ? stack_bytes + own : 0);
    if (rc < 0)
        return rc;
    struct modus_generator *made = (void *)((char *)stack.low + stack.size - own);
    *made = (struct modus_generator){.stack = stack, .run = run, .argument = argument};
    modus_context_make(&made->own, stack.low, stack.size - own, begin, made);
    *generator = made;
    return 0;
}

static void go_on(struct modus_generator *generator)
{
    generator->state = RUNNING;
    modus_context_switch(&generator->asker, &generator->own);
}

int modus_generator_next(struct modus_generator *generator, void **value)
{
    if (generator->state == RUNNING)
        return -EDEADLK;
    if (generator->state != OVER)
        go_on(generator);
    if (generator->state == OVER)
        return generator->result < 0 ? generator->result : MODUS_CLOSED;
    if (value)
        *value = generator->value;
    return 0;
}

int modus_generator_yield(struct modus_generator *self, void *value)
{
    if (self->cancelled)
        return MODUS_CANCELED;
    self->value = value;
    self->state = SUSPENDED;
    modus_context_switch(&self->own, &self->asker);
    return self->cancelled ? MODUS_CANCELED : 0;
}

void modus_generator_free(struct modus_generator *generator)
{
    if (!generator)
        return;
    generator->cancelled = true;
    if (generator->state == SUSPENDED)
        go_on(generator); /* to its end: its yields do not switch any more */
    modus_context_drop(&generator->own);
    struct modus_stack stack = generator->stack;
    modus_stack_put(&stack);
}
