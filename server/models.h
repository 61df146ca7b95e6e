/* SPDX-License-Identifier: MIT */
/* What the configuration and the command need to know of the concurrency models: their names and
 * what each makes of a listener's sizes. How they serve is in server/models/. */
#ifndef SERVER_MODELS_H
#define SERVER_MODELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config_listener;

/* The worst case of one listener, for `explain`. */
struct model_cost {
    uint64_t processes, threads, descriptors, memory_bytes;
};

struct model; /* server/models/model.h */

const struct model *models_find(const char *name); /* NULL: no such model in this build */
const struct model *models_at(size_t index);       /* NULL past the last */
const char *model_name(const struct model *m);
const char *model_summary(const struct model *m); /* one line for `modus models` */
const char *model_options(const struct model *m); /* its sizes and their defaults */
/* Is this key of a listener ("processes", "threads", "worker_requests", ...) used? */
bool model_uses(const struct model *m, const char *key);
/* Are workers of the listener replaced now and then? */
bool model_recycles(const struct model *m, const struct config_listener *l);
/* At most in one process of the listener. */
uint64_t model_descriptors(const struct model *m, const struct config_listener *l);
struct model_cost model_cost(const struct model *m, const struct config_listener *l);

#endif
