/* SPDX-License-Identifier: MIT */
/* spin: computes, then answers. It stands for a handler that is bound by the CPU.
 *
 * One iteration adds the next whole number to a sum. Each addition depends on the one before it, so
 * it costs about a cycle on any machine and neither the compiler nor the CPU can do several at
 * once: a million take some 0.3 ms at 3 GHz. */
#include "handlers/handler.h"

#include <stdio.h>

#include "concurrency/result.h"
#include "handlers/number.h"

enum { ROUND = 1 << 20 }; /* iterations between two looks at the cancel flag: below a millisecond */

struct spin_conf {
    int64_t iterations;
    int64_t max;
};

static const struct option options[] = {
    {"iterations", OPTION_INT, offsetof(struct spin_conf, iterations), .value = "1000000",
     .help = "how many additions"},
    {"max", OPTION_INT, offsetof(struct spin_conf, max), .value = "1000000000",
     .help = "the most that ?n=N may ask for"},
    {0},
};

/* The barrier makes sum unknown to the compiler at each turn, so that no closed form takes over. */
static uint64_t add(uint64_t sum, int64_t from, int64_t count)
{
    for (int64_t i = from; i < from + count; i++) {
        sum += (uint64_t)i;
        __asm__ volatile("" : "+r"(sum));
    }
    return sum;
}

static int spin_run(struct exchange *x)
{
    const struct spin_conf *conf = exchange_conf(x);
    int64_t n = conf->iterations;
    struct str asked = exchange_query_value(x, "n");
    if (asked.at && (!number_parse(asked, &n) || n > conf->max))
        return exchange_reply_error(x, 400);
    uint64_t sum = 0;
    for (int64_t done = 0; done < n; done += ROUND) {
        if (exchange_cancelled(x))
            return MODUS_CANCELED;
        sum = add(sum, done, n - done < ROUND ? n - done : ROUND);
    }
    char text[80];
    int len = snprintf(text, sizeof text, "spun %lld times, sum %llu\n", (long long)n,
                       (unsigned long long)sum);
    return exchange_reply(x, 200, "text/plain", (struct str){text, (size_t)len});
}

const struct handler handler_spin = {
    .name = "spin",
    .summary = "computes, then answers: the CPU-bound load",
    .options = options,
    .conf_size = sizeof(struct spin_conf),
    .entry = {.run = spin_run, .blocking = true},
};
