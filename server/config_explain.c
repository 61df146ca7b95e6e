/* SPDX-License-Identifier: MIT */
/* `modus explain`: the configuration as the server sees it. Prints from the same tables that the
 * reader fills from, so a new key shows up here by itself. The rows are walked twice: once to find
 * how wide the columns are, once to print. */
#include "server/config_reader.h"

#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>

#include "server/config_keys.h"
#include "server/config_value.h"
#include "server/models.h"
#include "server/models/model.h"

struct table {
    FILE *out; /* NULL: only measure */
    const char *file;
    int name_width, value_width, origin_width;
};

enum {
    MOST_WIDTH = 44,   /* longer values push their row's columns, not everybody's */
    MOST_STRING = 60,  /* of a string is shown, of a path all */
    VALUE_SIZE = 4200, /* room for any path */
};

/* --- rows --------------------------------------------------------------------------------- */

static int wider(int width, size_t len)
{
    return (size_t)width >= len || len > MOST_WIDTH ? width : (int)len;
}

/* line 0: a default; -1: no origin. */
static void row(struct table *t, int indent, const char *name, const char *value, int line,
                const char *note)
{
    char origin[VALUE_SIZE] = "";
    if (line == 0)
        strcpy(origin, "default");
    else if (line > 0)
        snprintf(origin, sizeof origin, "%.4000s:%d", t->file, line);
    if (!t->out) {
        t->name_width = wider(t->name_width, strlen(name) + (size_t)indent);
        t->value_width = wider(t->value_width, strlen(value));
        t->origin_width = wider(t->origin_width, strlen(origin));
        return;
    }
    fprintf(t->out, "%*s%-*s  %-*s  ", indent, "", t->name_width - indent, name, t->value_width,
            value);
    if (*note)
        fprintf(t->out, "%-*s  %s\n", t->origin_width, origin, note);
    else
        fprintf(t->out, "%s\n", origin);
}

/* --- values ------------------------------------------------------------------------------- */

/* One byte as it would stand in the file, and how many that takes. */
static size_t show_byte(unsigned char c, char out[8])
{
    if (c == '\n')
        return (size_t)snprintf(out, 8, "\\n");
    if (c == '"' || c == '\\')
        return (size_t)snprintf(out, 8, "\\%c", c);
    return (size_t)snprintf(out, 8, c < 0x20 || c == 0x7f ? "\\x%02x" : "%c", c);
}

/* In quotes, on one line, cut at most bytes. */
static void show_string(const char *text, size_t most, char out[VALUE_SIZE])
{
    size_t n = 0, i = 0;
    out[n++] = '"';
    for (; text[i] && i < most && n < VALUE_SIZE - 16; i++)
        n += show_byte((unsigned char)text[i], out + n);
    snprintf(out + n, VALUE_SIZE - n, "%s\"", text[i] ? "..." : "");
}

static void copy(char out[VALUE_SIZE], const char *text)
{
    snprintf(out, VALUE_SIZE, "%s", text);
}

static void show_path(const struct key *k, const char *text, char out[VALUE_SIZE])
{
    if (!*text && k->none)
        copy(out, k->none);
    else if (*text && config_keys_is_word(k, text))
        copy(out, text);
    else
        show_string(text, VALUE_SIZE, out);
}

static void show_value(const struct key *k, const void *base, char out[VALUE_SIZE])
{
    const void *member = (const char *)base + k->offset;
    switch (k->kind) {
    case KEY_STRING:
        show_string(*(const char *const *)member, MOST_STRING, out);
        return;
    case KEY_PATH:
        /* access_log is NULL for none. */
        show_path(k, *(const char *const *)member ? *(const char *const *)member : "", out);
        return;
    case KEY_MODEL:
        copy(out, *(const char *const *)member);
        return;
    case KEY_BOOL:
        copy(out, *(const bool *)member ? "true" : "false");
        return;
    case KEY_CHOICE:
        copy(out, k->choices[*(const int *)member]);
        return;
    case KEY_AUTO:
        copy(out, *(const int *)member ? value_show_number(*(const int *)member).text : "auto");
        return;
    case KEY_NUMBER:
        copy(out, value_show_number(*(const int *)member).text);
        return;
    case KEY_INTEGER:
        copy(out, value_show_number(*(const int64_t *)member).text);
        return;
    case KEY_SIZE:
        copy(out, value_show_size(*(const int64_t *)member).text);
        return;
    case KEY_DURATION:
        copy(out, value_show_duration(*(const int64_t *)member).text);
        return;
    }
}

static void key_row(struct table *t, int indent, const struct key *k, const void *base, int line,
                    const char *note)
{
    char value[VALUE_SIZE];
    show_value(k, base, value);
    row(t, indent, k->name, value, line, note);
}

/* --- a listener --------------------------------------------------------------------------- */

/* Only what sizes a model differs from model to model. */
static bool is_model_key(const char *name)
{
    static const char *const names[] = {"processes",     "loops", "threads",        "queue",
                                        "queue_timeout", "gil",   "worker_requests"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* The listener with what its model takes where the file says nothing. */
static struct config_listener effective(const struct config_listener *l, const struct model *m)
{
    struct config_listener shown = *l;
    if (!m)
        return shown;
    struct model_plan plan = m->plan(l);
    shown.max_connections = (int)plan.max_connections;
    if (shown.keepalive_timeout_ms < 0)
        shown.keepalive_timeout_ms = plan.keepalive_timeout_ms;
    return shown;
}

static void note_on(char *note, size_t size, const struct key *k, const struct config_listener *l,
                    const struct model *m)
{
    *note = '\0';
    if (m && is_model_key(k->name) && !model_uses(m, k->name))
        snprintf(note, size, "not used by %s", l->model);
    else if (k->http_only && l->protocol == PROTOCOL_TCP)
        snprintf(note, size, "not used by tcp");
}

static void explain_keys(struct table *t, const struct config_listener *l)
{
    const struct model *m = models_find(l->model);
    struct config_listener shown = effective(l, m);
    for (size_t i = 0; config_keys_listen[i].name; i++) {
        const struct key *k = &config_keys_listen[i];
        char note[128];
        note_on(note, sizeof note, k, l, m);
        key_row(t, 2, k, &shown, l->key_lines[i], note);
    }
}

static void explain_tls(struct table *t, const struct config_tls *tls)
{
    struct config_tls shown = *tls;
    shown.min_version -= 0x0303; /* to the index of its word */
    row(t, 2, "tls", "", tls->line, "");
    for (size_t i = 0; config_keys_tls[i].name; i++)
        key_row(t, 4, &config_keys_tls[i], &shown, tls->key_lines[i], "");
}

static void explain_route(struct table *t, const struct config_route *route)
{
    char prefix[VALUE_SIZE];
    const struct option *options = route->handler->options;
    int indent = *route->prefix ? 4 : 2; /* of a TCP listener's handler: no route above it */
    show_string(route->prefix, MOST_STRING, prefix);
    if (*route->prefix)
        row(t, 2, "route", prefix, route->line, "");
    row(t, indent, route->handler->name, "", route->handler_line, "");
    for (size_t i = 0; options && options[i].name; i++) {
        struct key k = config_keys_option(&options[i]);
        key_row(t, indent + 2, &k, route->conf, route->option_lines[i], "");
    }
}

static void explain_listener(struct table *t, const struct config_listener *l)
{
    char address[VALUE_SIZE];
    for (size_t i = 0; i < l->address_count; i++) {
        show_string(l->addresses[i].text, VALUE_SIZE, address);
        row(t, i ? 2 : 0, i ? "also" : "listen", address, l->addresses[i].line, "");
    }
    explain_keys(t, l);
    for (size_t i = 0; i < l->tls_count; i++)
        explain_tls(t, &l->tls[i]);
    for (size_t i = 0; i < l->route_count; i++)
        explain_route(t, &l->routes[i]);
}

/* --- the worst case ----------------------------------------------------------------------- */

static struct model_cost cost_of(const struct config_listener *l)
{
    const struct model *m = models_find(l->model);
    return m ? model_cost(m, l) : (struct model_cost){0};
}

static void print_cost(FILE *out, const char *name, const char *model,
                       const struct model_cost *cost)
{
    fprintf(out, "  %-24s  %-12s  %10" PRIu64 "  %8" PRIu64 "  %11" PRIu64 "  %8" PRIu64 " MiB\n",
            name, model, cost->processes, cost->threads, cost->descriptors,
            (cost->memory_bytes + 1048575) >> 20);
}

/* The limit is a process's: the listener that needs most in one process is what it must hold. */
static void print_limit(FILE *out, const struct config_listener *widest, uint64_t most)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || !widest)
        return;
    fprintf(out, "\nOpen files: a process of %s may need %" PRIu64 "; it gets ",
            widest->addresses[0].text, most);
    if (limit.rlim_max == RLIM_INFINITY)
        fprintf(out, "as many as it wants.\n");
    else
        fprintf(out, "%" PRIu64 " (ulimit -Hn): %s.\n", (uint64_t)limit.rlim_max,
                most <= limit.rlim_max ? "enough" : "NOT ENOUGH");
}

static void explain_costs(const struct config *c, FILE *out)
{
    struct model_cost total = {0};
    const struct config_listener *widest = NULL;
    uint64_t most = 0;
    fprintf(out,
            "\nAt most (the master is one process more):\n  %-24s  %-12s  %10s  %8s  %11s  %12s\n",
            "listen", "model", "processes", "threads", "descriptors", "memory");
    for (size_t i = 0; i < c->listener_count; i++) {
        const struct config_listener *l = &c->listeners[i];
        struct model_cost cost = cost_of(l);
        const struct model *m = models_find(l->model);
        uint64_t each = m ? model_descriptors(m, l) : 0;
        print_cost(out, value_shown_text(l->addresses[0].text).text, l->model, &cost);
        total.processes += cost.processes;
        total.threads += cost.threads;
        total.descriptors += cost.descriptors;
        total.memory_bytes += cost.memory_bytes;
        if (!widest || each > most) {
            most = each;
            widest = l;
        }
    }
    print_cost(out, "total", "", &total);
    print_limit(out, widest, most);
}

/* --- the whole ---------------------------------------------------------------------------- */

static void explain_all(struct table *t, const struct config *c)
{
    for (size_t i = 0; config_keys_top[i].name; i++)
        key_row(t, 0, &config_keys_top[i], c, c->key_lines[i], "");
    for (size_t i = 0; i < c->listener_count; i++) {
        if (t->out)
            fprintf(t->out, "\n");
        explain_listener(t, &c->listeners[i]);
    }
}

void config_explain_to(const struct config *c, FILE *out)
{
    struct table t = {.file = c->file};
    explain_all(&t, c);
    t.out = out;
    explain_all(&t, c);
    explain_costs(c, out);
}

void config_explain(const struct config *c)
{
    config_explain_to(c, stdout);
}
