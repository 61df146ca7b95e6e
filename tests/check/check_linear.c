/* SPDX-License-Identifier: MIT */
/* Whatever the interleaving, the calls on a queue are as if they had come one after the other. */
#define LINEAR_TABLE 256

#include "tests/check/check.h"
#include "tests/unit/linear.h"

#include "concurrency/participant.h"
#include "concurrency/queue.h"

enum { CAPACITY = 2 };

struct scene {
    struct modus_queue queue;
    struct linear_call calls[LINEAR_CALLS];
    int n;
    uint64_t clock;
};

static struct scene *s;

static void setup_in(enum modus_scope scope)
{
    struct modus_queue_attr attr = {
        .scope = scope, .arena = check_arena, .capacity = CAPACITY, .item_size = sizeof(int)};

    if (scope == MODUS_PROCESS)
        check_join_all(3);
    s = check_memory(sizeof *s);
    MUST_INT(modus_queue_init(&s->queue, &attr), 0);
}

static void setup_thread(void)
{
    setup_in(MODUS_THREAD);
}

static void setup_process(void)
{
    setup_in(MODUS_PROCESS);
}

static void call(enum linear_kind kind)
{
    struct linear_call *now = &s->calls[s->n++];

    *now = (struct linear_call){.kind = kind, .item = s->n, .began = ++s->clock};
    switch (kind) {
    case LINEAR_PUT:
        now->result = modus_queue_try_put(&s->queue, &now->item);
        break;
    case LINEAR_GET:
        now->result = modus_queue_try_get(&s->queue, &now->item);
        break;
    case LINEAR_CLOSE:
        now->result = modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN);
        break;
    }
    now->ended = ++s->clock;
}

static void put_put(void)
{
    call(LINEAR_PUT);
    call(LINEAR_PUT);
}

static void put_get(void)
{
    call(LINEAR_PUT);
    call(LINEAR_GET);
}

static void get_get(void)
{
    call(LINEAR_GET);
    call(LINEAR_GET);
}

static void close_get(void)
{
    call(LINEAR_CLOSE);
    call(LINEAR_GET);
}

static void was_linear(void)
{
    if (s->queue.scope == MODUS_PROCESS)
        MUST(modus_participant_join(check_arena) > 0);
    call(LINEAR_GET);
    call(LINEAR_GET);
    call(LINEAR_GET);
    MUST(is_linearizable(s->calls, s->n, CAPACITY));
}

CHECK_SCENARIO(mixed, .name = "linear/put-put-get", .setup = setup_thread,
               .actors = {put_put, put_get, get_get}, .verify = was_linear);
CHECK_SCENARIO(closing, .name = "linear/close", .setup = setup_thread,
               .actors = {put_put, put_get, close_get}, .verify = was_linear);
CHECK_SCENARIO(process_mixed, .name = "linear/process-put-put-get", .setup = setup_process,
               .actors = {put_put, put_get, get_get}, .verify = was_linear);
CHECK_SCENARIO(process_closing, .name = "linear/process-close", .setup = setup_process,
               .actors = {put_put, put_get, close_get}, .verify = was_linear);
