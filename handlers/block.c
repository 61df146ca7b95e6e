/* SPDX-License-Identifier: MIT */
/* block: waits outside of the library, then answers: what a handler does that calls a database
 * client, looks up a name or reads from a slow disk. Beside sleep, which only waits, it shows what
 * a model makes of handlers that hold their thread and don't compute. */
#include "handlers/handler.h"

#include <stdio.h>
#include <time.h>

#include "concurrency/result.h"
#include "handlers/number.h"

enum { LOOK_NS = 20000000 }; /* how often it looks at the cancel flag */

struct block_conf {
    int64_t duration_ms;
    int64_t max_ms;
};

static const struct option options[] = {
    {"duration", OPTION_DURATION, offsetof(struct block_conf, duration_ms), .value = "50ms",
     .help = "how long to hold its thread"},
    {"max", OPTION_DURATION, offsetof(struct block_conf, max_ms), .value = "10s",
     .help = "the longest that ?ms=N may ask for"},
    {0},
};

static int block_run(struct exchange *x)
{
    const struct block_conf *conf = exchange_conf(x);
    int64_t ms = conf->duration_ms;
    struct str asked = exchange_query_value(x, "ms");
    if (asked.at && (!number_parse(asked, &ms) || ms > conf->max_ms))
        return exchange_reply_error(x, 400);
    int64_t left, end = modus_now_ns() + ms * 1000000;
    while ((left = end - modus_now_ns()) > 0) {
        struct timespec time = {.tv_nsec = left < LOOK_NS ? left : LOOK_NS};
        if (exchange_cancelled(x))
            return MODUS_CANCELED;
        nanosleep(&time, NULL);
    }
    char text[48];
    int len = snprintf(text, sizeof text, "blocked for %lld ms\n", (long long)ms);
    return exchange_reply(x, 200, "text/plain", (struct str){text, (size_t)len});
}

const struct handler handler_block = {
    .name = "block",
    .summary = "waits outside of the library, then answers: it holds its thread",
    .options = options,
    .conf_size = sizeof(struct block_conf),
    .entry = {.run = block_run, .blocking = true},
};
