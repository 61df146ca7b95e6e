/* SPDX-License-Identifier: MIT */
/* The table of handlers, made from handlers/table.h. */
#include "handlers/handler.h"

#include <string.h>

#define HANDLER(name) extern const struct handler handler_##name;
#include "handlers/table.h"
#undef HANDLER

static const struct handler *const table[] = {
#define HANDLER(name) &handler_##name,
#include "handlers/table.h"
#undef HANDLER
};

const struct handler *handler_at(size_t index)
{
    return index < sizeof table / sizeof table[0] ? table[index] : NULL;
}

const struct handler *handler_find(const char *name)
{
    const struct handler *h;
    for (size_t i = 0; (h = handler_at(i)) != NULL; i++)
        if (strcmp(h->name, name) == 0)
            return h;
    return NULL;
}
