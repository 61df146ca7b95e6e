/* SPDX-License-Identifier: MIT */
/* The table of models, and the questions that are answered from it. */
#include "server/models.h"

#include <sched.h>
#include <string.h>

#include "server/models/model.h"

static const struct model *const table[] = {&model_process, &model_prefork,    &model_thread_pool,
                                            &model_hybrid,  &model_event_loop, &model_coroutine};

const struct model *models_at(size_t index)
{
    return index < sizeof table / sizeof table[0] ? table[index] : NULL;
}

const struct model *models_find(const char *name)
{
    const struct model *m;
    for (size_t i = 0; (m = models_at(i)) != NULL; i++)
        if (strcmp(m->name, name) == 0)
            return m;
    return NULL;
}

const char *model_name(const struct model *m)
{
    return m->name;
}

const char *model_summary(const struct model *m)
{
    return m->summary;
}

const char *model_options(const struct model *m)
{
    return m->options;
}

bool model_uses(const struct model *m, const char *key)
{
    for (const char *const *k = m->uses; *k; k++)
        if (strcmp(*k, key) == 0)
            return true;
    return false;
}

bool model_recycles(const struct model *m, const struct config_listener *l)
{
    return (l->worker_requests && model_uses(m, "worker_requests")) || l->worker_memory ||
           l->worker_age_ms;
}

enum { OWN_DESCRIPTORS = 16 }; /* of a worker, besides its connections */

uint64_t model_descriptors(const struct model *m, const struct config_listener *l)
{
    struct model_plan p = m->plan(l);
    uint64_t held = p.children ? p.children : (p.max_connections + p.workers - 1) / p.workers;
    return held + OWN_DESCRIPTORS;
}

/* Rough upper bounds: what each thing holds when it is fully used. */
struct model_cost model_cost(const struct model *m, const struct config_listener *l)
{
    enum {
        PROCESS_BYTES = 3 << 20,
        THREAD_BYTES = 512 << 10,
        CONNECTION_BYTES = 512,
        PIPE_BYTES = 256 << 10
    };
    struct model_plan p = m->plan(l);
    uint64_t places = (p.max_connections + p.workers - 1) / p.workers;
    if (model_recycles(m, l)) { /* one more while one is replaced, with all that it may have */
        p.max_connections += (unsigned)places;
        p.children *= 2;
        p.workers++;
    }
    struct model_cost c = {
        .processes = p.workers + p.children,
        .threads = (uint64_t)p.workers * (p.threads + p.helpers) + p.children,
        .descriptors = p.max_connections + p.children + (uint64_t)p.workers * OWN_DESCRIPTORS,
    };
    uint64_t busy = (uint64_t)p.workers * (p.threads + p.helpers) + p.children;
    c.memory_bytes = c.processes * PROCESS_BYTES + c.threads * THREAD_BYTES +
                     (uint64_t)p.max_connections * CONNECTION_BYTES +
                     busy * (PIPE_BYTES + (uint64_t)l->max_body_size);
    return c;
}

bool model_no_note(const struct config_listener *conf, char *text, size_t size)
{
    (void)conf, (void)text, (void)size;
    return false;
}

unsigned model_max_connections(const struct config_listener *conf, unsigned otherwise)
{
    return conf->max_connections > 0 ? (unsigned)conf->max_connections : otherwise;
}

unsigned model_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? (unsigned)n : 1;
}
