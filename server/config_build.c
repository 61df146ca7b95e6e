/* SPDX-License-Identifier: MIT */
/* From libconfuse's tree of marked strings to a struct config: values get their types, defaults are
 * filled in, and what must fit together is checked. Syntax, unknown words and repeated keys are not
 * met here: config_text.c has refused them. */
#include "server/config_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/config_keys.h"
#include "server/config_value.h"
#include "server/models.h"

/* An address is a descriptor in every worker, and a listener some processes or threads: what is
 * beyond these is a mistake, or a machine's work for a generator that can use fewer. */
enum {
    MOST_LISTENERS = 256,
    MOST_ADDRESSES = 1024, /* of all listeners */
};

/* --- reading the tree --------------------------------------------------------------------- */

/* A string of the tree without its mark, "LINE.NUMBER ". */
struct given {
    const char *text; /* NULL: not in the file */
    int line;
};

static struct given unmark(const char *marked)
{
    char *dot;
    long line = strtol(marked, &dot, 10);
    return (struct given){.text = strchr(dot, ' ') + 1, .line = (int)line};
}

static struct given given_value(cfg_t *section, const char *name)
{
    cfg_opt_t *o = cfg_getopt(section, name);
    return cfg_opt_size(o) > 0 ? unmark(cfg_opt_getnstr(o, 0)) : (struct given){.text = NULL};
}

static struct given given_title(cfg_t *section)
{
    return unmark(cfg_title(section));
}

/* --- values ------------------------------------------------------------------------------- */

static int fail_key(struct config_reader *r, int line, const struct key *k, const char *why)
{
    return config_fail(r, line, "%s: %s", k->name, why);
}

static int fill_path(struct config_reader *r, const struct key *k, const char **member,
                     const char *text, int line)
{
    if (k->none && strcmp(text, k->none) == 0)
        text = "";
    bool word = config_keys_is_word(k, text);
    if (!word && *text == '\0')
        return fail_key(r, line, k, "needs a path");
    if (config_keys_is_no_word(k, text))
        return config_fail(r, line,
                           "%s can't be %s; take %s or a path, ./%s for a file of that name",
                           k->name, text, k->instead, text);
    *member = word ? config_keep_text(r, text) : config_keep_path(r, text);
    return *member ? 0 : -1;
}

static int fail_model(struct config_reader *r, int line, const char *text)
{
    const struct model *m;
    struct value_nearest near = {.word = text, .len = strlen(text)};
    char all[256] = "";
    for (size_t i = 0, n = 0; (m = models_at(i)) != NULL; i++) {
        value_nearest_offer(&near, model_name(m));
        if (n < sizeof all)
            n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", model_name(m));
    }
    return config_fail(r, line, "model: unknown word \"%s\"%s (%s)", value_shown_text(text).text,
                       value_nearest_hint(&near).text, all);
}

static int fill_model(struct config_reader *r, const char **member, const char *text, int line)
{
    const struct model *m = models_find(text);
    if (!m)
        return fail_model(r, line, text);
    *member = model_name(m);
    return 0;
}

/* The kinds whose value is a number or an index. */
static int fill_number(struct config_reader *r, const struct key *k, void *member, const char *text,
                       int line)
{
    char why[VALUE_WHY];
    int64_t wide = 0;
    int rc = 0, small = 0;
    bool wide_member = k->kind == KEY_SIZE || k->kind == KEY_DURATION || k->kind == KEY_INTEGER;
    if (k->kind == KEY_SIZE)
        rc = value_size(text, k->min, k->max, &wide, why);
    else if (k->kind == KEY_DURATION)
        rc = value_duration(text, k->min, k->max, &wide, why);
    else if (k->kind == KEY_AUTO)
        rc = value_auto(text, k->min, k->max, &wide, why);
    else if (k->kind == KEY_CHOICE)
        rc = value_choice(text, k->choices, &small, why);
    else
        rc = value_number(text, k->min, k->max, &wide, why);
    if (rc != 0)
        return fail_key(r, line, k, why);
    if (!wide_member)
        small = k->kind == KEY_CHOICE ? small : (int)wide;
    memcpy(member, wide_member ? (void *)&wide : (void *)&small,
           wide_member ? sizeof wide : sizeof small);
    return 0;
}

static int fill_bool(struct config_reader *r, const struct key *k, bool *member, const char *text,
                     int line)
{
    char why[VALUE_WHY];
    return value_bool(text, member, why) == 0 ? 0 : fail_key(r, line, k, why);
}

/* Parse text as k says into base's member. */
static int fill(struct config_reader *r, const struct key *k, void *base, const char *text,
                int line)
{
    void *member = (char *)base + k->offset;
    switch (k->kind) {
    case KEY_STRING:
        *(const char **)member = config_keep_text(r, text);
        return *(const char **)member ? 0 : -1;
    case KEY_PATH:
        return fill_path(r, k, member, text, line);
    case KEY_MODEL:
        return fill_model(r, member, text, line);
    case KEY_BOOL:
        return fill_bool(r, k, member, text, line);
    case KEY_NUMBER:
    case KEY_AUTO:
    case KEY_SIZE:
    case KEY_DURATION:
    case KEY_CHOICE:
    case KEY_INTEGER:
        return fill_number(r, k, member, text, line);
    }
    return -1;
}

/* A key that is neither given nor has a default text. */
static int fill_unset(struct config_reader *r, const struct key *k, void *base, const char *section,
                      int line)
{
    if (!k->optional)
        return config_fail(r, line, "\"%s\" needs \"%s\"", section, k->name);
    void *member = (char *)base + k->offset;
    if (k->kind == KEY_NUMBER)
        *(int *)member = (int)k->unset;
    else
        *(int64_t *)member = k->unset;
    return 0;
}

/* One key of a section that begins on line; *key_line becomes the key's own line, or 0. */
static int fill_key(struct config_reader *r, cfg_t *section, const struct key *k, void *base,
                    int line, int *key_line)
{
    struct given g = given_value(section, k->name);
    *key_line = g.line;
    if (g.text)
        return fill(r, k, base, g.text, g.line);
    if (k->value)
        return fill(r, k, base, k->value, line);
    return fill_unset(r, k, base, cfg_name(section), line);
}

/* All keys of a section. Returns their lines, or NULL after config_fail. */
static const int *fill_keys(struct config_reader *r, cfg_t *section, const struct key *keys,
                            void *base, int line)
{
    int *lines = config_keep(r, (config_keys_count(keys) + 1) * sizeof *lines);
    for (size_t i = 0; lines && keys[i].name; i++)
        if (fill_key(r, section, &keys[i], base, line, &lines[i]) != 0)
            return NULL;
    return lines;
}

/* --- handlers and routes ------------------------------------------------------------------ */

/* The handler sections in a section: how many, and the first. */
struct found_handler {
    size_t count;
    const struct handler *handler;
    cfg_t *section;
    int last_line; /* of the one that is furthest down */
};

static struct found_handler find_handler(cfg_t *section)
{
    struct found_handler f = {0};
    const struct handler *h;
    int first_line = 0;
    for (size_t i = 0; (h = handler_at(i)) != NULL; i++)
        for (unsigned j = 0; j < cfg_size(section, h->name); j++) {
            cfg_t *s = cfg_getnsec(section, h->name, j);
            int line = given_title(s).line;
            f.last_line = line > f.last_line ? line : f.last_line;
            if (f.count++ == 0 || line < first_line) {
                f.handler = h;
                f.section = s;
                first_line = line;
            }
        }
    return f;
}

static int fill_options(struct config_reader *r, cfg_t *section, struct config_route *route)
{
    const struct handler *h = route->handler;
    size_t n = 0;
    while (h->options && h->options[n].name)
        n++;
    int *lines = config_keep(r, (n + 1) * sizeof *lines);
    route->option_lines = lines;
    route->conf = config_keep(r, h->conf_size);
    if (!lines || !route->conf)
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct key k = config_keys_option(&h->options[i]);
        if (fill_key(r, section, &k, route->conf, route->handler_line, &lines[i]) != 0)
            return -1;
    }
    return 0;
}

static bool can_serve(const struct handler *h, enum config_protocol protocol)
{
    unsigned methods = h->entry.methods ? h->entry.methods : EXCHANGE_GET;
    return methods & (protocol == PROTOCOL_TCP ? EXCHANGE_DUPLEX : ~(unsigned)EXCHANGE_DUPLEX);
}

struct names {
    char text[256];
};

static struct names names_of_handlers(enum config_protocol protocol)
{
    const struct handler *h;
    struct names all = {""};
    for (size_t i = 0, n = 0; (h = handler_at(i)) != NULL && n < sizeof all.text; i++)
        if (can_serve(h, protocol))
            n +=
                (size_t)snprintf(all.text + n, sizeof all.text - n, "%s%s", n ? ", " : "", h->name);
    return all;
}

/* What serves a route, or a TCP listener: the one handler section in it. */
static int build_handler(struct config_reader *r, cfg_t *section, enum config_protocol protocol,
                         struct config_route *route)
{
    struct found_handler f = find_handler(section);
    const char *where = protocol == PROTOCOL_TCP ? "a tcp listener" : "a route";
    if (f.count == 0)
        return config_fail(r, route->line, "%s needs one handler section, of: %s", where,
                           names_of_handlers(protocol).text);
    if (f.count > 1)
        return config_fail(r, f.last_line, "%s takes one handler section, this is a second one",
                           where);
    route->handler = f.handler;
    route->handler_line = given_title(f.section).line;
    if (!can_serve(f.handler, protocol))
        return config_fail(r, route->handler_line, "\"%s\" can't serve protocol = %s (%s)",
                           f.handler->name, protocol == PROTOCOL_TCP ? "tcp" : "http",
                           names_of_handlers(protocol).text);
    return fill_options(r, f.section, route);
}

/* A prefix is compared with decoded, normalised paths; one that can't match any is a mistake. */
static const char *prefix_mistake(const char *prefix)
{
    if (prefix[0] != '/')
        return "a route begins with \"/\"";
    if (strpbrk(prefix, "?#"))
        return "a route is a path, without \"?\" and \"#\"";
    if (strstr(prefix, "//"))
        return "a route holds no \"//\"";
    for (const char *at = prefix; (at = strstr(at, "/.")) != NULL; at++)
        if (strspn(at + 1, ".") <= 2 && strchr("/", at[1 + strspn(at + 1, ".")]))
            return "a route holds no \".\" and \"..\"";
    for (const char *at = prefix; (at = strchr(at, '%')) != NULL; at++)
        if (strspn(at + 1, "0123456789abcdefABCDEF") >= 2)
            return "a route stands decoded, without %-escapes";
    return NULL;
}

/* "/a/" and "/a" are the same route, kept as "/a". */
static char *keep_prefix(struct config_reader *r, const char *text)
{
    char *prefix = config_keep_text(r, text);
    size_t len = prefix ? strlen(prefix) : 0;
    if (len > 1 && prefix[len - 1] == '/')
        prefix[len - 1] = '\0';
    return prefix;
}

static int build_route(struct config_reader *r, cfg_t *section, const struct config_listener *l,
                       struct config_route *route)
{
    struct given g = given_title(section);
    const char *mistake = prefix_mistake(g.text);
    route->line = g.line;
    if (mistake)
        return config_fail(r, g.line, "route \"%s\": %s", value_shown_text(g.text).text, mistake);
    route->prefix = keep_prefix(r, g.text);
    if (!route->prefix)
        return -1;
    for (size_t i = 0; i < l->route_count; i++)
        if (strcmp(l->routes[i].prefix, route->prefix) == 0)
            return config_fail(r, g.line,
                               "route \"%s\" stands here a second time; the first is on line %d",
                               value_shown_text(route->prefix).text, l->routes[i].line);
    return build_handler(r, section, PROTOCOL_HTTP, route);
}

static int build_routes(struct config_reader *r, cfg_t *section, struct config_listener *l)
{
    unsigned n = cfg_size(section, "route");
    struct found_handler f = find_handler(section);
    if (f.count > 0)
        return config_fail(r, f.last_line,
                           "\"%s\" must stand in a route: route \"/\" { %s { ... } }",
                           f.handler->name, f.handler->name);
    l->routes = config_keep(r, (n + 1) * sizeof *l->routes);
    if (!l->routes)
        return -1;
    for (unsigned i = 0; i < n; i++) {
        if (build_route(r, cfg_getnsec(section, "route", i), l, &l->routes[i]) != 0)
            return -1;
        l->route_count++;
    }
    return 0;
}

static int build_tcp(struct config_reader *r, cfg_t *section, struct config_listener *l)
{
    if (cfg_size(section, "route") > 0)
        return config_fail(r, given_title(cfg_getnsec(section, "route", 0)).line,
                           "protocol = tcp has no routes; put one handler section in their place");
    l->routes = config_keep(r, sizeof *l->routes);
    if (!l->routes)
        return -1;
    l->routes[0].prefix = "";
    l->routes[0].line = l->line;
    if (build_handler(r, section, PROTOCOL_TCP, &l->routes[0]) != 0)
        return -1;
    l->route_count = 1;
    return 0;
}

/* --- listeners ---------------------------------------------------------------------------- */

static int build_tls(struct config_reader *r, cfg_t *section, struct config_listener *l)
{
    unsigned n = cfg_size(section, "tls");
    l->tls = config_keep(r, (n + 1) * sizeof *l->tls);
    for (unsigned i = 0; l->tls && i < n; i++) {
        cfg_t *s = cfg_getnsec(section, "tls", i);
        struct config_tls *t = &l->tls[i];
        t->line = given_title(s).line;
        t->key_lines = fill_keys(r, s, config_keys_tls, t, t->line);
        if (!t->key_lines)
            return -1;
        t->min_version += 0x0303; /* from the index: TLS 1.2 is 0x0303, 1.3 is 0x0304 */
        l->tls_count++;
    }
    return l->tls ? 0 : -1;
}

static int build_addresses(struct config_reader *r, cfg_t *section, struct config_listener *l)
{
    cfg_opt_t *also = cfg_getopt(section, "also");
    unsigned n = cfg_opt_size(also);
    struct given g = given_title(section);
    l->addresses = config_keep(r, (n + 1) * sizeof *l->addresses);
    if (!l->addresses)
        return -1;
    for (unsigned i = 0; i <= n; i++) {
        if (i > 0)
            g = unmark(cfg_opt_getnstr(also, i - 1));
        if (config_address_parse(r, g.text, g.line, &l->addresses[i]) != 0)
            return -1;
        l->address_count++;
    }
    return 0;
}

static int build_listener(struct config_reader *r, cfg_t *section, struct config_listener *l)
{
    l->line = given_title(section).line;
    if (build_addresses(r, section, l) != 0)
        return -1;
    l->key_lines = fill_keys(r, section, config_keys_listen, l, l->line);
    if (!l->key_lines)
        return -1;
    l->line_access_log = l->key_lines[config_keys_index(config_keys_listen, "access_log")];
    if (*l->access_log == '\0')
        l->access_log = NULL;
    if (build_tls(r, section, l) != 0)
        return -1;
    return l->protocol == PROTOCOL_TCP ? build_tcp(r, section, l) : build_routes(r, section, l);
}

/* --- the whole ---------------------------------------------------------------------------- */

static int fail_clash(struct config_reader *r, const struct config_address *first,
                      const struct config_address *second)
{
    struct value_shown a = value_shown_text(first->text), b = value_shown_text(second->text);
    if (strcmp(first->text, second->text) == 0)
        return config_fail(r, second->line,
                           "\"%s\" is listened on a second time; the first is on line %d", b.text,
                           first->line);
    return config_fail(r, second->line, "\"%s\" and \"%s\" of line %d are the same or overlap",
                       b.text, a.text, first->line);
}

/* Every address of the file against those before it. */
static int check_addresses(struct config_reader *r, const struct config *c)
{
    const struct config_address *all[MOST_ADDRESSES];
    size_t n = 0;
    for (size_t i = 0; i < c->listener_count; i++)
        for (size_t j = 0; j < c->listeners[i].address_count; j++) {
            const struct config_address *a = &c->listeners[i].addresses[j];
            if (n == MOST_ADDRESSES)
                return config_fail(r, a->line, "more than %d addresses", MOST_ADDRESSES);
            if (a->is_unix && strcmp(a->path, c->control) == 0)
                return config_fail(r, a->line, "\"%s\" is the control socket's path",
                                   value_shown_text(a->text).text);
            for (size_t k = 0; k < n; k++)
                if (config_address_clash(all[k], a))
                    return fail_clash(r, all[k], a);
            all[n++] = a;
        }
    return 0;
}

/* Looked for last: who has mistyped something else in a listener should read of that first. */
static int check_routes(struct config_reader *r, const struct config *c)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (c->listeners[i].route_count == 0)
            return config_fail(
                r, c->listeners[i].line,
                "an http listener needs a route, such as route \"/\" { text { ... } }");
    return 0;
}

static int line_of(const struct config *c, const char *key)
{
    return c->key_lines[config_keys_index(config_keys_top, key)];
}

static int build_top(struct config_reader *r, cfg_t *root, struct config *c)
{
    c->key_lines = fill_keys(r, root, config_keys_top, c, 1);
    if (!c->key_lines)
        return -1;
    c->line_user = line_of(c, "user");
    c->line_pid_file = line_of(c, "pid_file");
    c->line_control = line_of(c, "control");
    c->line_error_log = line_of(c, "error_log");
    return 0;
}

int config_build(struct config_reader *r, cfg_t *root)
{
    struct config *c = &r->all->config;
    unsigned n = cfg_size(root, "listen");
    if (build_top(r, root, c) != 0)
        return -1;
    if (n == 0)
        return config_fail(r, 1,
                           "nothing to serve: a listen section is missing, such as "
                           "listen \"127.0.0.1:8080\" { ... }");
    if (n > MOST_LISTENERS)
        return config_fail(r, given_title(cfg_getnsec(root, "listen", MOST_LISTENERS)).line,
                           "more than %d listeners", MOST_LISTENERS);
    c->listeners = config_keep(r, n * sizeof *c->listeners);
    if (!c->listeners)
        return -1;
    for (unsigned i = 0; i < n; i++) {
        if (build_listener(r, cfg_getnsec(root, "listen", i), &c->listeners[i]) != 0)
            return -1;
        c->listener_count++;
    }
    return check_addresses(r, c) == 0 ? check_routes(r, c) : -1;
}
