/* SPDX-License-Identifier: MIT */
/*
 * What somebody who debugs wants to know of coroutines: who is there and waits for what, who holds
 * up the others, and whose stack was too small.
 *
 * A stack that overflows ends at its guard (stack.h) with SIGSEGV, on which the handler cannot
 * run: it has a stack of its own, one a thread.
 */
#include "concurrency/coroutine_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* --- the list of all -------------------------------------------------------------------------- */

int64_t modus_co_lag(char *name)
{
    struct modus_co *co = modus_co_self();

    if (!co)
        return 0;
    if (!co->loop->lag_wanted)
        co->loop->now = modus_now_ns();
    co->loop->lag_wanted = true;
    if (name)
        memcpy(name, co->loop->lag_name, MODUS_CO_NAME);
    return co->loop->lag;
}

int64_t modus_co_guest_lag(char *name)
{
    struct modus_co_loop *loop = modus_co_here;

    if (!loop || !loop->guest || loop->running)
        return 0;
    int64_t lag = loop->lag;
    loop->lag_wanted = true;
    loop->lag = 0;
    if (name)
        memcpy(name, loop->lag_name, MODUS_CO_NAME);
    return lag;
}

int modus_co_walk(int (*visit)(const struct modus_co_info *info, void *context), void *context)
{
    struct modus_co *self = modus_co_self();
    int rc = 0;

    if (!self)
        return -EPERM;
    for (struct modus_co *co = self->loop->all; co && rc == 0; co = co->after) {
        struct modus_co_info info = {
            .name = co->name,
            .id = co->id,
            .state = co->state,
            .wait = co->kind,
            .object = co->state == MODUS_CO_WAITING ? co->object : NULL,
            .since = co->since,
            .deadline = co->deadline,
            .cancelled = atomic_load(&co->cancelled),
            .stack = co->stack.size,
            .touched = modus_stack_touched(&co->stack),
        };

        rc = visit(&info, context);
    }
    return rc;
}

static void describe(const struct modus_co_info *info, char *text, size_t size)
{
    switch (info->wait) {
    case MODUS_CO_WORD:
        snprintf(text, size, "waits for %p", info->object);
        break;
    case MODUS_CO_LOCK:
        snprintf(text, size, "waits for the lock at %p", info->object);
        break;
    case MODUS_CO_SHARED:
        snprintf(text, size, "waits for %p, shared", info->object);
        break;
    case MODUS_CO_SLEEP:
        snprintf(text, size, "sleeps");
        break;
    case MODUS_CO_FD:
        snprintf(text, size, "waits for descriptor %d", (int)(intptr_t)info->object);
        break;
    case MODUS_CO_JOIN:
        snprintf(text, size, "joins %s", ((const struct modus_co *)info->object)->name);
        break;
    }
}

static int write_line(const struct modus_co_info *info, void *context)
{
    char what[MODUS_CO_NAME + 32], line[192];
    int64_t ms = (modus_now_ns() - info->since) / 1000000;
    int n;

    if (info->state == MODUS_CO_WAITING) {
        describe(info, what, sizeof what);
        n = snprintf(line, sizeof line, "%s: %s, since %lld ms%s; stack %zu of %zu\n", info->name,
                     what, (long long)ms, info->cancelled ? ", cancelled" : "", info->touched,
                     info->stack);
    } else {
        n = snprintf(line, sizeof line, "%s: %s%s; stack %zu of %zu\n", info->name,
                     info->state == MODUS_CO_READY ? "ready" : "running",
                     info->cancelled ? ", cancelled" : "", info->touched, info->stack);
    }
    return write(*(int *)context, line, (size_t)n) == n ? 0 : -EINVAL;
}

int modus_co_dump(int fd)
{
    return modus_co_walk(write_line, &fd);
}

/* --- overflows -------------------------------------------------------------------------------- */

enum { ALTERNATE = 64 * 1024 };

static atomic_bool watched;
static struct sigaction before;
static _Thread_local void *alternate __attribute__((tls_model("initial-exec")));

/* For the handler, where printf is not allowed. */
static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

static void say_number(size_t number)
{
    char digits[24], *at = digits + sizeof digits;

    *--at = 0;
    do
        *--at = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    say(at);
}

static void on_fault(int signal, siginfo_t *fault, void *context)
{
    struct modus_co *co = modus_co_self();
    size_t size = modus_stack_guarded(fault->si_addr);
    (void)context;

    if (size > 0) {
        bool own = co && (uintptr_t)co->stack.low - (uintptr_t)fault->si_addr <= MODUS_STACK_GUARD;

        say(own ? "modus: coroutine " : "modus: a generator");
        if (co && !own)
            say(" of coroutine ");
        if (co)
            say(co->name);
        say(" has run over its stack of ");
        say_number(size);
        say(" bytes\n");
    }
    sigaction(signal, &before, NULL); /* the instruction comes again, and with it the signal */
}

static int give_alternate(void)
{
    stack_t has;

    if (sigaltstack(NULL, &has) == 0 && !(has.ss_flags & SS_DISABLE))
        return 0;
    void *map = mmap(NULL, ALTERNATE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return -ENOMEM;
    sigaltstack(&(stack_t){.ss_sp = map, .ss_size = ALTERNATE}, NULL);
    alternate = map;
    return 0;
}

int modus_co_watch_stacks(void)
{
    return atomic_load(&watched) ? give_alternate() : 0;
}

void modus_co_unwatch_stacks(void)
{
    if (!alternate)
        return;
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    munmap(alternate, ALTERNATE);
    alternate = NULL;
}

int modus_co_name_overflows(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    if (!atomic_exchange(&watched, true))
        sigaction(SIGSEGV, &action, &before);
    return give_alternate();
}
