/* SPDX-License-Identifier: MIT */
/* block: waits outside of the library, then answers: what a handler does that calls a database
 * client, looks up a name or reads from a slow disk. Beside sleep, which only waits, it shows what
 * a model makes of handlers that hold their thread and don't compute.
 *
 * `entry` shows the two mistakes one can make with such a handler, and what they do to the others of a
 * loop: `run` is not marked as blocking, so that a coroutine does not leave its loop for it; `step` is one
 * that must not wait at all, and does. */
#include "handlers/handler.h"

#include <stdio.h>
#include <time.h>

#include "concurrency/result.h"
#include "handlers/number.h"

enum { LOOK_NS = 20000000 }; /* how often it looks at the cancel flag */

struct block_conf {
    int64_t duration_ms;
    int64_t max_ms;
    int entry;
};

static const char *const words[] = {"blocking", "run", "step", NULL};

static const struct option options[] = {
    {"duration", OPTION_DURATION, offsetof(struct block_conf, duration_ms), .value = "50ms",
     .help = "how long to hold its thread"},
    {"max", OPTION_DURATION, offsetof(struct block_conf, max_ms), .value = "10s",
     .help = "the longest that ?ms=N may ask for"},
    {"entry", OPTION_CHOICE, offsetof(struct block_conf, entry), .value = "blocking",
     .choices = words, .help = "how it is marked; run and step are mistakes, to be seen"},
    {0},
};

/* How long is asked for? Returns false if too long. */
static bool find_ms(struct exchange *x, int64_t *ms)
{
    const struct block_conf *conf = exchange_conf(x);
    struct str asked = exchange_query_value(x, "ms");
    *ms = conf->duration_ms;
    return !asked.at || (number_parse(asked, ms) && *ms <= conf->max_ms);
}

static int answer(struct exchange *x, int64_t ms)
{
    char text[48];
    int len = snprintf(text, sizeof text, "blocked for %lld ms\n", (long long)ms);
    return exchange_reply(x, 200, "text/plain", (struct str){text, (size_t)len});
}

static int block_run(struct exchange *x)
{
    int64_t ms;
    if (!find_ms(x, &ms))
        return exchange_reply_error(x, 400);
    int64_t left, end = modus_now_ns() + ms * 1000000;
    while ((left = end - modus_now_ns()) > 0) {
        struct timespec time = {.tv_nsec = left < LOOK_NS ? left : LOOK_NS};
        if (exchange_cancelled(x))
            return MODUS_CANCELED;
        nanosleep(&time, NULL);
    }
    return answer(x, ms);
}

/* Who makes these mistakes does not look up either. */
static int wrong_run(struct exchange *x)
{
    int64_t ms;
    if (!find_ms(x, &ms))
        return exchange_reply_error(x, 400);
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
    return answer(x, ms);
}

static int wrong_step(struct exchange *x, enum exchange_event event)
{
    return event == EXCHANGE_BEGUN ? wrong_run(x) : 0;
}

static const struct exchange_entry *block_entry(const void *conf)
{
    static const struct exchange_entry entries[] = {
        {.run = block_run, .blocking = true}, {.run = wrong_run}, {.step = wrong_step}};
    return &entries[((const struct block_conf *)conf)->entry];
}

const struct handler handler_block = {
    .name = "block",
    .summary = "waits outside of the library, then answers: it holds its thread",
    .options = options,
    .conf_size = sizeof(struct block_conf),
    .entry = {.run = block_run, .blocking = true},
    .entry_of = block_entry,
};
