/* SPDX-License-Identifier: MIT */
/* Modus' contexts and coroutines. */
#include <stdio.h>
#include <stdlib.h>

#include "concurrency/context.h"
#include "concurrency/coroutine.h"
#include "concurrency/stack.h"
#include "tests/bench/toolbox/loops.h"
#include "tests/bench/toolbox/peer_modus.h"

static void *nothing_to_make(struct run *run)
{
    return run;
}

/* --- switching -------------------------------------------------------------------------------- */

static struct modus_context here, there;

static void come_back(void *argument)
{
    (void)argument;
    for (;;)
        modus_context_switch(&there, &here);
}

static void switch_there(void *object)
{
    (void)object;
    modus_context_switch(&here, &there);
}

static const struct lock_ops switch_ops = {nothing_to_make, nothing, nothing, switch_there,
                                           switch_there};

/* A pair is two round trips. */
static void switch_worker(struct worker *worker)
{
    struct modus_stack stack;

    NEED(modus_stack_get(&stack, 0) == 0);
    modus_context_make(&there, stack.low, stack.size, come_back, NULL);
    lock_alone(worker, &switch_ops);
    worker->ops *= 2;
    modus_context_drop(&there);
    modus_stack_put(&stack);
}

void peer_modus_switches(struct run *run)
{
    harness_workers(run, switch_worker);
}

static int yield_until_over(void *run)
{
    while (!atomic_load_explicit(&((struct run *)run)->over, memory_order_relaxed))
        modus_co_yield();
    return 0;
}

static void yield(void *object)
{
    (void)object;
    modus_co_yield();
}

static const struct lock_ops yield_ops = {nothing_to_make, nothing, nothing, yield, yield};

/* Two coroutines: a yield of one is a yield of the other, too. */
static int yield_main(void *argument)
{
    struct worker *worker = argument;

    NEED(modus_co_start(NULL, NULL, yield_until_over, worker->run) == 0);
    lock_alone(worker, &yield_ops);
    worker->ops *= 2;
    atomic_store(&worker->run->over, 1);
    return 0;
}

static int end_at_once(void *argument)
{
    (void)argument;
    return 0;
}

static void create_and_join(void *object)
{
    struct modus_co *co;

    (void)object;
    NEED(modus_co_start(&co, NULL, end_at_once, NULL) == 0);
    modus_co_join(co, MODUS_FOREVER, NULL);
    modus_co_put(co);
}

static const struct lock_ops create_ops = {nothing_to_make, nothing, nothing, create_and_join,
                                           create_and_join};

static int create_main(void *argument)
{
    struct worker *worker = argument;

    lock_alone(worker, &create_ops);
    worker->ops *= 2;
    return 0;
}

static int sleep_long(void *argument)
{
    (void)argument;
    return modus_co_sleep(modus_seconds(3600)) == MODUS_CANCELED ? 0 : 1;
}

static double status_bytes(const char *field)
{
    FILE *file = fopen("/proc/self/status", "r");
    unsigned long kib = 0;
    char line[256];

    NEED(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, field, strlen(field)) == 0)
            kib = strtoul(line + strlen(field), NULL, 10);
    fclose(file);
    return (double)kib * 1024;
}

static int sleepers_main(void *argument)
{
    struct worker *worker = argument;
    struct run *run = worker->run;
    struct modus_co **all = malloc(run->count * sizeof(struct modus_co *));

    NEED(all);
    memset(all, 1, run->count * sizeof(struct modus_co *)); /* touched before we look */
    double before = status_bytes("RssAnon:"), kernel_before = status_bytes("VmPTE:");
    harness_begin(worker);
    for (unsigned i = 0; i < run->count; i++)
        NEED(modus_co_start(&all[i], NULL, sleep_long, NULL) == 0);
    modus_co_yield();
    modus_co_sleep(modus_ms(1)); /* all of them sleep now */
    harness_end(worker);
    run->bytes_each = (status_bytes("RssAnon:") - before) / run->count;
    run->kernel_bytes_each = (status_bytes("VmPTE:") - kernel_before) / run->count;
    worker->ops = run->count;
    for (unsigned i = 0; i < run->count; i++) {
        modus_co_cancel(all[i]);
        modus_co_put(all[i]);
    }
    free(all);
    return 0;
}

#define CO_JOB(name, main)                                                                         \
    static void name##_worker(struct worker *worker)                                               \
    {                                                                                              \
        NEED(modus_co_run(main, worker) == 0);                                                     \
    }                                                                                              \
    void name(struct run *run)                                                                     \
    {                                                                                              \
        harness_workers(run, name##_worker);                                                       \
    }

CO_JOB(peer_modus_yields, yield_main)
CO_JOB(peer_modus_creates, create_main)
CO_JOB(peer_modus_sleepers, sleepers_main)
