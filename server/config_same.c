/* SPDX-License-Identifier: MIT */
/* Do two configurations say the same of a listener? Then a reload leaves it alone. What files hold
 * that they name (certificates) is asked elsewhere. */
#include "server/config.h"

#include <string.h>

#include "server/config_keys.h"

static bool same_text(const char *a, const char *b)
{
    return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

static size_t size_of(enum key_kind kind)
{
    switch (kind) {
    case KEY_BOOL:
        return sizeof(bool);
    case KEY_NUMBER:
    case KEY_AUTO:
    case KEY_CHOICE:
        return sizeof(int);
    case KEY_SIZE:
    case KEY_DURATION:
    case KEY_INTEGER:
        return sizeof(int64_t);
    case KEY_STRING:
    case KEY_PATH:
    case KEY_MODEL:
        break;
    }
    return 0;
}

static bool same_value(const struct key *k, const void *a, const void *b)
{
    const char *at_a = (const char *)a + k->offset, *at_b = (const char *)b + k->offset;
    size_t size = size_of(k->kind);
    if (size)
        return memcmp(at_a, at_b, size) == 0;
    return same_text(*(const char *const *)(const void *)at_a,
                     *(const char *const *)(const void *)at_b);
}

static bool same_values(const struct key *keys, const void *a, const void *b)
{
    for (; keys->name; keys++)
        if (!same_value(keys, a, b))
            return false;
    return true;
}

static bool same_tls(const struct config_tls *a, const struct config_tls *b)
{
    return same_text(a->certificate, b->certificate) && same_text(a->key, b->key) &&
           a->min_version == b->min_version;
}

static bool same_route(const struct config_route *a, const struct config_route *b)
{
    if (strcmp(a->prefix, b->prefix) != 0 || a->handler != b->handler)
        return false;
    for (const struct option *o = a->handler->options; o && o->name; o++) {
        struct key k = config_keys_option(o);
        if (!same_value(&k, a->conf, b->conf))
            return false;
    }
    return true;
}

bool config_same_listener(const struct config_listener *a, const struct config_listener *b)
{
    if (a->address_count != b->address_count || a->tls_count != b->tls_count ||
        a->route_count != b->route_count || !same_values(config_keys_listen, a, b))
        return false;
    for (size_t i = 0; i < a->address_count; i++)
        if (strcmp(a->addresses[i].text, b->addresses[i].text) != 0 ||
            !same_text(a->addresses[i].path, b->addresses[i].path))
            return false;
    for (size_t i = 0; i < a->tls_count; i++)
        if (!same_tls(&a->tls[i], &b->tls[i]))
            return false;
    for (size_t i = 0; i < a->route_count; i++)
        if (!same_route(&a->routes[i], &b->routes[i]))
            return false;
    return true;
}
