/* SPDX-License-Identifier: MIT */
/* sleep: waits, then answers. It stands for a handler that is bound by I/O: it needs no CPU, only
 * time, so what differs between models is who is held while it waits. */
#include "handlers/handler.h"
#include "handlers/number.h"

#include <stdio.h>

struct sleep_conf {
    int64_t duration_ms;
    int64_t max_ms;
};

static const struct option options[] = {
    {"duration", OPTION_DURATION, offsetof(struct sleep_conf, duration_ms), .value = "50ms",
     .help = "how long to wait"},
    {"max", OPTION_DURATION, offsetof(struct sleep_conf, max_ms), .value = "10s",
     .help = "the longest that ?ms=N may ask for"},
    {0},
};

static int sleep_run(struct exchange *x)
{
    const struct sleep_conf *conf = exchange_conf(x);
    int64_t ms = conf->duration_ms;
    struct str asked = exchange_query_value(x, "ms");
    if (asked.at && (!number_parse(asked, &ms) || ms > conf->max_ms))
        return exchange_reply_error(x, 400);
    int rc = exchange_sleep(x, ms);
    if (rc < 0)
        return rc;
    char text[48];
    int len = snprintf(text, sizeof text, "slept %lld ms\n", (long long)ms);
    return exchange_reply(x, 200, "text/plain", (struct str){text, (size_t)len});
}

const struct handler handler_sleep = {
    .name = "sleep",
    .summary = "waits, then answers: the I/O-bound load",
    .options = options,
    .conf_size = sizeof(struct sleep_conf),
    .entry = {.run = sleep_run},
};
