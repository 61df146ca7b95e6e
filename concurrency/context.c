/* SPDX-License-Identifier: MIT */
/*
 * The switch. On x86-64 it ends with an indirect jump instead of ret: a return address that nobody
 * called with is mispredicted every time, and costs three times the switch.
 *
 * The frame of a suspended context, from its sp upwards: r15 r14 r13 r12 rbx rbp, the address to go
 * on at. A new one goes on at modus_context_begin, with run in r12 and its argument in r13; above
 * that lies a zero return address, where whoever walks the stack stops.
 */
#include "concurrency/context.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__x86_64__) && !defined(MODUS_CONTEXT_PORTABLE)
#define OWN_SWITCH 1
#else
#include <ucontext.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#endif
#ifdef ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* --- what sanitizers want to know ------------------------------------------------------------- */

#ifdef ASAN
static _Thread_local struct modus_context *left; /* by the switch that is under way */
#endif

static inline void before_switch(struct modus_context *from, struct modus_context *to, bool last)
{
#ifdef ASAN
    left = from;
    __sanitizer_start_switch_fiber(last ? NULL : &from->fake, to->bottom, to->size);
#endif
#ifdef TSAN
    from->fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
    (void)from, (void)to, (void)last;
}

/* Running: again, or for the first time. */
static inline void after_switch(struct modus_context *here)
{
#ifdef ASAN
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(here->fake, &bottom, &size);
    left->bottom = bottom; /* the thread's own stack, or one that it has gone on to from there */
    left->size = size;
#endif
    (void)here;
}

void modus_context_drop(struct modus_context *context)
{
#ifdef TSAN
    if (context->fiber)
        __tsan_destroy_fiber(context->fiber);
#endif
    *context = (struct modus_context){0};
}

/* --- the switch ------------------------------------------------------------------------------- */

#ifdef OWN_SWITCH

void modus_context_swap(void **from, void *to) __attribute__((visibility("hidden")));
void modus_context_begin(void) __attribute__((visibility("hidden")));

__asm__(".text\n"
        ".p2align 4\n"
        ".hidden modus_context_swap\n"
        ".globl modus_context_swap\n"
        ".type modus_context_swap, @function\n"
        "modus_context_swap:\n"
        "    .cfi_startproc\n"
        "    endbr64\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    popq %rcx\n"
        "    notrack jmp *%rcx\n"
        "    .cfi_endproc\n"
        ".size modus_context_swap, .-modus_context_swap\n"
        ".p2align 4\n"
        ".hidden modus_context_begin\n"
        ".globl modus_context_begin\n"
        ".type modus_context_begin, @function\n"
        "modus_context_begin:\n"
        "    .cfi_startproc\n"
        "    .cfi_undefined rip\n"
        "    endbr64\n"
        "    movq %r13, %rdi\n"
        "    xorl %ebp, %ebp\n"
        "    callq *%r12\n"
        "    ud2\n"
        "    .cfi_endproc\n"
        ".size modus_context_begin, .-modus_context_begin\n");

enum { R15, R14, R13, R12, RBX, RBP, ADDRESS, STOP, PAD, WORDS };

static void prepare(struct modus_context *context, void *stack, size_t size,
                    void (*run)(void *argument), void *argument)
{
    uintptr_t *frame = (uintptr_t *)(void *)((char *)stack + size) - WORDS;

    for (int i = 0; i < WORDS; i++)
        frame[i] = 0;
    frame[R12] = (uintptr_t)run;
    frame[R13] = (uintptr_t)argument;
    frame[ADDRESS] = (uintptr_t)modus_context_begin;
    context->sp = frame;
}

static inline void swap(struct modus_context *from, struct modus_context *to)
{
    modus_context_swap(&from->sp, to->sp);
}

#else

static void portable_begin(unsigned run_low, unsigned run_high, unsigned argument_low,
                           unsigned argument_high)
{
    uintptr_t run = (uintptr_t)run_low | (uintptr_t)run_high << 16 << 16;
    uintptr_t argument = (uintptr_t)argument_low | (uintptr_t)argument_high << 16 << 16;

    ((void (*)(void *))run)((void *)argument);
    abort();
}

/* The saved context lies at the top of its own stack. */
static void prepare(struct modus_context *context, void *stack, size_t size,
                    void (*run)(void *argument), void *argument)
{
    size_t room = (size - sizeof(ucontext_t)) & ~(size_t)63;
    ucontext_t *saved = (ucontext_t *)(void *)((char *)stack + room);
    uintptr_t r = (uintptr_t)run, a = (uintptr_t)argument;

    getcontext(saved);
    saved->uc_stack.ss_sp = stack;
    saved->uc_stack.ss_size = room;
    saved->uc_link = NULL;
    makecontext(saved, (void (*)(void))portable_begin, 4, (unsigned)r, (unsigned)(r >> 16 >> 16),
                (unsigned)a, (unsigned)(a >> 16 >> 16));
    context->sp = saved;
}

static inline void swap(struct modus_context *from, struct modus_context *to)
{
    ucontext_t here;

    from->sp = &here;
    swapcontext(&here, to->sp);
}

#endif

/* At the top of a new context's stack: what it begins with. */
struct start {
    struct modus_context *context;
    void (*run)(void *argument);
    void *argument;
};

static void begin(void *argument)
{
    struct start *start = argument;

    after_switch(start->context);
    start->run(start->argument);
    abort(); /* run has returned */
}

void modus_context_make(struct modus_context *context, void *stack, size_t size,
                        void (*run)(void *argument), void *argument)
{
    size_t room = (size - sizeof(struct start)) & ~(size_t)15;
    struct start *start = (struct start *)(void *)((char *)stack + room);

    *context = (struct modus_context){.bottom = stack, .size = size};
#ifdef TSAN
    context->fiber = __tsan_create_fiber(0);
#endif
    *start = (struct start){context, run, argument};
    prepare(context, stack, room, begin, start);
}

void modus_context_switch(struct modus_context *from, struct modus_context *to)
{
    before_switch(from, to, false);
    swap(from, to);
    after_switch(from);
}

_Noreturn void modus_context_leave(struct modus_context *from, struct modus_context *to)
{
    before_switch(from, to, true);
    swap(from, to);
    abort();
}
