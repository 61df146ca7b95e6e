/* SPDX-License-Identifier: MIT */
/*
 * Stacks for coroutines: reserved by the thousand, touched by the page, used again.
 *
 * A stack is address space first: 64 KiB of it cost nothing until they are used, and a coroutine
 * that only waits uses one page. Below each stack lies a guard: running over it is a SIGSEGV and
 * not somebody else's data. Stacks come from large mappings that are never given back, so there
 * are few mappings however many stacks there are; a kernel before 6.13 has no guards without a
 * mapping each, and there vm.max_map_count bounds them to some 30,000.
 *
 *     struct modus_stack stack;
 *     modus_stack_get(&stack, 0);
 *     modus_context_make(&context, stack.low, stack.size, run, argument);
 *     ...
 *     modus_stack_put(&stack);
 *
 * A stack that was put keeps its pages for the same thread's next get; beyond 256 of them they are
 * given back to the system.
 *
 * For implementers: coroutine*.c and generator.c.
 */
#ifndef CONCURRENCY_STACK_H
#define CONCURRENCY_STACK_H

#include <stddef.h>

#include "concurrency/result.h"

enum { MODUS_STACK_GUARD = 4096 }; /* bytes below each stack */
enum { MODUS_STACK_USUAL = 64 * 1024, MODUS_STACK_LEAST = 16 * 1024, MODUS_STACK_MOST = 8 << 20 };

struct modus_stack {
    void *low;   /* lowest address; NULL: none */
    size_t size; /* bytes that may be used */
};

/* Get a stack of at least size bytes (0: the usual; up to MODUS_STACK_MOST). Returns 0, -EINVAL or
 * -ENOMEM (no memory, or no more mappings: vm.max_map_count). Does not block.
 * Safe from: any thread. */
int modus_stack_get(struct modus_stack *stack, size_t size);

/* Give it back; it is none afterwards. Does nothing to none. Does not block.
 * Safe from: any thread, not on that stack. */
void modus_stack_put(struct modus_stack *stack);

/* How many of its bytes have ever been touched since it was got fresh from the system, in whole
 * pages; for statistics. Safe from: any thread. */
size_t modus_stack_touched(const struct modus_stack *stack);

/* The size of the stack whose guard holds address; 0: it is no guard. Does not block.
 * Safe from: any thread, signal handlers. */
size_t modus_stack_guarded(const void *address);

#endif
