/* SPDX-License-Identifier: MIT */
/*
 * Context: leave one stack and go on on another. The floor of coroutines, and nothing else.
 *
 *     modus_context_make(&other, stack, size, run, argument);
 *     modus_context_switch(&here, &other);     // run(argument) begins, on its stack
 *     ...                                      // it has switched back to here
 *
 * States: not made (zeroed) -> suspended <-> running -> over. A context is running from a switch to
 * it until a switch away from it; run never returns, it switches away for the last time with
 * modus_context_leave. The context that a thread begins with needs no making.
 *
 * What a switch keeps is what a function call keeps: the callee-saved registers. Rounding modes and
 * other floating-point control go with the thread, not with the context: saving them would make the
 * switch ten times as slow. A context stays on the thread where it began: compilers keep addresses
 * of thread-local variables over calls.
 *
 * x86-64 has its own few instructions; elsewhere, and with MODUS_CONTEXT_PORTABLE, ucontext(3)
 * does it, at the price of two system calls. Sanitizers are told of each switch.
 *
 * Not for a CPU with user shadow stacks enabled (glibc 2.36 never enables them).
 *
 * For implementers: coroutine*.c and generator.c.
 */
#ifndef CONCURRENCY_CONTEXT_H
#define CONCURRENCY_CONTEXT_H

#include <stddef.h>

/* All fields are private. */
struct modus_context {
    void *sp;           /* suspended: where it goes on */
    const void *bottom; /* of its stack; for sanitizers, as all that follows */
    size_t size;
    void *fake;
    void *fiber;
};

/* Prepare a suspended context that will call run(argument) on the stack that begins (with its
 * lowest address) at stack; size at least 4096, both multiples of 16. The stack is borrowed until
 * the context is over. Does not block.
 * Safe from: the thread that will run it. */
void modus_context_make(struct modus_context *context, void *stack, size_t size,
                        void (*run)(void *argument), void *argument);

/* Suspend the running context in from, and go on in to. Returns when somebody switches to from.
 * Safe from: the thread on which both run. */
void modus_context_switch(struct modus_context *from, struct modus_context *to);

/* The last switch of a context, which is over. Its stack may be used for something else once to
 * runs. */
_Noreturn void modus_context_leave(struct modus_context *from, struct modus_context *to);

/* Forget a context that is suspended and will not be gone on with, or over. Its stack is not
 * unwound. Does nothing to one that is not made. */
void modus_context_drop(struct modus_context *context);

#endif
