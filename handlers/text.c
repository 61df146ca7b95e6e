/* SPDX-License-Identifier: MIT */
/* text: a fixed body. A file of its own as the smallest handler, and the one to read first. */
#include <stdio.h>

#include "handlers/handler.h"

struct text_conf {
    const char *body;
    const char *type;
    int64_t status;
};

static const struct option options[] = {
    {"body", OPTION_STRING, offsetof(struct text_conf, body), .value = "",
     .help = "the answer's body"},
    {"type", OPTION_STRING, offsetof(struct text_conf, type), .value = "text/plain",
     .help = "its Content-Type"},
    {"status", OPTION_INT, offsetof(struct text_conf, status), .value = "200", .min = 200,
     .max = 599, .help = "its status"},
    {0},
};

static int text_open(void *conf, const struct handler_env *env, char *why, size_t why_size)
{
    const struct text_conf *c = conf;
    (void)env;
    for (const char *at = c->type; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            snprintf(why, why_size, "type holds a control character, which no header may");
            return -1;
        }
    if (*c->body && (c->status == 204 || c->status == 205 || c->status == 304)) {
        snprintf(why, why_size, "an answer of status %d has no body", (int)c->status);
        return -1;
    }
    return 0;
}

static int text_step(struct exchange *x, enum exchange_event event)
{
    const struct text_conf *conf = exchange_conf(x);
    if (event != EXCHANGE_BEGUN)
        return 0;
    return exchange_reply_static(x, (int)conf->status, conf->type, str_of(conf->body));
}

const struct handler handler_text = {
    .name = "text",
    .summary = "a fixed body",
    .options = options,
    .conf_size = sizeof(struct text_conf),
    .open = text_open,
    .entry = {.step = text_step},
};
