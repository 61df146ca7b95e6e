/* SPDX-License-Identifier: MIT */
/* The limit of descriptors: see server/descriptors.h. */
#include "server/descriptors.h"

#include <sys/resource.h>

#include "server/log.h"
#include "server/models.h"

void descriptors_raise(const struct config *c)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    struct rlimit wanted = {limit.rlim_max, limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
        limit = wanted;
    for (size_t i = 0; i < c->listener_count; i++) {
        const struct config_listener *l = &c->listeners[i];
        uint64_t need = model_descriptors(models_find(l->model), l);
        if (limit.rlim_cur != RLIM_INFINITY && need > limit.rlim_cur)
            log_warn("%s:%d: a process of %s may need %llu descriptors and gets %llu (ulimit -n): "
                     "at the limit idle "
                     "connections make room, then new ones wait",
                     c->file, l->line, l->addresses[0].text, (unsigned long long)need,
                     (unsigned long long)limit.rlim_cur);
    }
}
