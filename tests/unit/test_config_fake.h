/* SPDX-License-Identifier: MIT */
/* Handlers and models for the tests and the fuzzer of the configuration: an option of every kind,
 * handlers that serve only http or only tcp, an open() that can fail. Weak, so that a program that
 * links the real tables has those; nothing here serves anything. */
#ifndef TEST_CONFIG_FAKE_H
#define TEST_CONFIG_FAKE_H

#include <stdio.h>
#include <string.h>

#include "handlers/handler.h"
#include "server/config.h"
#include "server/models.h"
#include "server/models/model.h"

#define FAKE __attribute__((weak))

/* --- handlers ----------------------------------------------------------------------------- */

struct fake_text {
    const char *body, *type;
    int64_t status;
};

struct fake_static {
    const char *root, *index, *also_path;
    bool listing;
    int64_t cache_size, max_age_ms;
    int order;
    int64_t depth;
};

static int fake_opened, fake_closed, fake_open_fails;

static inline int fake_open(void *conf, const struct handler_env *env, char *why, size_t why_size)
{
    (void)env;
    const struct fake_static *s = conf;
    fake_opened++;
    if (!fake_open_fails)
        return 0;
    snprintf(why, why_size, "\"%s\" is no folder\nat all", s->root);
    return -1;
}

static inline void fake_close(void *conf)
{
    (void)conf;
    fake_closed++;
}

static const struct option fake_text_options[] = {
    {"body", OPTION_STRING, offsetof(struct fake_text, body), .value = ""},
    {"type", OPTION_STRING, offsetof(struct fake_text, type), .value = "text/plain"},
    {"status", OPTION_INT, offsetof(struct fake_text, status), .value = "200", .min = 200,
     .max = 599},
    {0},
};
static const char *const fake_orders[] = {"name", "size", "time", NULL};
static const struct option fake_static_options[] = {
    {"root", OPTION_PATH, .offset = offsetof(struct fake_static, root)},
    {"index", OPTION_STRING, offsetof(struct fake_static, index), .value = "index.html"},
    {"also_path", OPTION_PATH, offsetof(struct fake_static, also_path), .value = ""},
    {"listing", OPTION_BOOL, offsetof(struct fake_static, listing), .value = "false"},
    {"cache_size", OPTION_SIZE, offsetof(struct fake_static, cache_size), .value = "16m",
     .max = 1 << 30},
    {"max_age", OPTION_DURATION, offsetof(struct fake_static, max_age_ms), .value = "0"},
    {"order", OPTION_CHOICE, offsetof(struct fake_static, order), .value = "name",
     .choices = fake_orders},
    {"depth", OPTION_INT, offsetof(struct fake_static, depth), .value = "3"},
    {0},
};

static const struct handler fake_handlers[] = {
    {.name = "text", .options = fake_text_options, .conf_size = sizeof(struct fake_text)},
    {.name = "static",
     .options = fake_static_options,
     .conf_size = sizeof(struct fake_static),
     .open = fake_open,
     .close = fake_close},
    {.name = "echo", .entry = {.methods = EXCHANGE_POST | EXCHANGE_DUPLEX}},
    {.name = "pipe", .entry = {.methods = EXCHANGE_DUPLEX}},
    {.name = "status"},
};

FAKE const struct handler *handler_at(size_t index)
{
    return index < sizeof fake_handlers / sizeof fake_handlers[0] ? &fake_handlers[index] : NULL;
}

FAKE const struct handler *handler_find(const char *name)
{
    const struct handler *h;
    for (size_t i = 0; (h = handler_at(i)) != NULL; i++)
        if (strcmp(h->name, name) == 0)
            return h;
    return NULL;
}

/* --- models ------------------------------------------------------------------------------- */

static inline struct model_plan fake_plan(const struct config_listener *l)
{
    return (struct model_plan){
        .max_connections = l->max_connections ? (unsigned)l->max_connections : 10000,
        .keepalive_timeout_ms = 5000,
    };
}

static const char *const fake_none[] = {NULL}, *const fake_processes[] = {"processes", NULL};
static const char *const fake_pool[] = {"threads", "queue", "queue_timeout", "gil", NULL};
static const char *const fake_loops[] = {"loops", "threads", "queue", "queue_timeout", "gil", NULL};
static const char *const fake_processes_of_threads[] = {"processes",     "threads", "queue",
                                                        "queue_timeout", "gil",     NULL};
static const struct model fake_models[] = {
    {.name = "process", .uses = fake_none, .plan = fake_plan},
    {.name = "prefork", .uses = fake_processes, .plan = fake_plan},
    {.name = "thread-pool", .uses = fake_pool, .plan = fake_plan},
    {.name = "hybrid", .uses = fake_processes_of_threads, .plan = fake_plan},
    {.name = "event-loop", .uses = fake_loops, .plan = fake_plan},
    {.name = "coroutine", .uses = fake_loops, .plan = fake_plan},
};

FAKE const struct model *models_at(size_t index)
{
    return index < sizeof fake_models / sizeof fake_models[0] ? &fake_models[index] : NULL;
}

FAKE const struct model *models_find(const char *name)
{
    for (size_t i = 0; i < sizeof fake_models / sizeof fake_models[0]; i++)
        if (strcmp(fake_models[i].name, name) == 0)
            return &fake_models[i];
    return NULL;
}

FAKE const char *model_name(const struct model *m)
{
    return m->name;
}

FAKE bool model_uses(const struct model *m, const char *key)
{
    for (const char *const *k = m->uses; *k; k++)
        if (strcmp(*k, key) == 0)
            return true;
    return false;
}

FAKE uint64_t model_descriptors(const struct model *m, const struct config_listener *l)
{
    struct model_cost c = model_cost(m, l);
    return (c.descriptors + c.processes - 1) / c.processes;
}

FAKE struct model_cost model_cost(const struct model *m, const struct config_listener *l)
{
    (void)m;
    (void)l;
    return (struct model_cost){
        .processes = 2, .threads = 8, .descriptors = 2048, .memory_bytes = 5 << 20};
}

#endif
