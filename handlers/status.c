/* SPDX-License-Identifier: MIT */
/* status: this server's state as a live page for people, as JSON, and for Prometheus. Here is who
 * serves which request; what the forms look like is in the files beside this one. Names of listeners
 * and files are other people's text and are escaped for each form. */
#include <errno.h>
#include <stdio.h>

#include "handlers/handler.h"
#include "handlers/status_priv.h"

enum { ALLOWED = EXCHANGE_GET | EXCHANGE_HEAD | EXCHANGE_POST | EXCHANGE_OPTIONS };

static const struct option options[] = {
    {"control", OPTION_BOOL, offsetof(struct status_conf, control), .value = "false",
     .help = "who is on this machine may switch models on the page"},
    {0},
};

/* --- forms ------------------------------------------------------------------------------------ */

static const struct status_control *control_of(const struct status_conf *conf)
{
    return conf->control ? &conf->source->control : NULL;
}

static void put_page(struct page *p, const struct status_snapshot *s,
                     const struct status_conf *conf)
{
    status_page(p, s, control_of(conf));
}

static void put_json(struct page *p, const struct status_snapshot *s,
                     const struct status_conf *conf)
{
    (void)conf;
    status_json(p, s);
}

static void put_prometheus(struct page *p, const struct status_snapshot *s,
                           const struct status_conf *conf)
{
    (void)conf;
    status_prometheus(p, s);
}

static const struct form {
    struct str name;
    const char *type;
    void (*put)(struct page *p, const struct status_snapshot *s, const struct status_conf *conf);
} forms[] = {
    {{"html", 4}, "text/html; charset=utf-8", put_page},
    {{"json", 4}, "application/json", put_json},
    {{"prometheus", 10}, "text/plain; version=0.0.4; charset=utf-8", put_prometheus},
    {{"stream", 6}, "text/event-stream", NULL},
};

static const struct form *form_of(const struct exchange *x)
{
    struct str name = exchange_query_value(x, "format");
    if (!name.at)
        return &forms[0];
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (str_is(name, forms[i].name))
            return &forms[i];
    return NULL;
}

static int reply_snapshot(struct exchange *x, const struct form *form,
                          const struct status_conf *conf)
{
    struct status_snapshot s = {0};
    struct page p = {0};
    if (!conf->source || conf->source->snapshot(conf->source->arg, &s) < 0)
        return exchange_reply_error(x, 503);
    form->put(&p, &s, conf);
    conf->source->release(&s);
    return page_reply(&p, x, 200, form->type);
}

/* --- requests --------------------------------------------------------------------------------- */

/* Of each answer: nobody keeps it, frames it, guesses at its type, or reads it from another site.
 * The page's own forms need the Referrer-Policy: without referrers, browsers say that they come from
 * nowhere. */
static int add_headers(struct exchange *x)
{
    const char *policy = status_policy();
    const char *const headers[][2] = {
        {"Cache-Control", "no-store"},
        {"Content-Security-Policy", policy ? policy : "default-src 'none'"},
        {"Cross-Origin-Opener-Policy", "same-origin"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Referrer-Policy", "same-origin"},
        {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        int rc = exchange_add(x, headers[i][0], str_of(headers[i][1]));
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int serve_get(struct exchange *x)
{
    const struct form *form = form_of(x);
    if (!form)
        return exchange_reply_error(x, 400);
    return form->put ? reply_snapshot(x, form, exchange_conf(x))
                     : status_stream_step(x, EXCHANGE_BEGUN);
}

/* A method that is not for this route, or the question which are. */
static int tell_methods(struct exchange *x, const struct status_conf *conf)
{
    bool asked = exchange_method(x) == EXCHANGE_OPTIONS;
    int rc = exchange_add(
        x, "Allow", conf->control ? STR("GET, HEAD, POST, OPTIONS") : STR("GET, HEAD, OPTIONS"));
    if (rc < 0)
        return rc;
    return asked ? exchange_reply_static(x, 204, NULL, STR("")) : exchange_reply_error(x, 405);
}

static int begin(struct exchange *x)
{
    const struct status_conf *conf = exchange_conf(x);
    enum exchange_method method = exchange_method(x);
    int rc = add_headers(x);
    if (rc < 0)
        return rc;
    if (method == EXCHANGE_OPTIONS || (method == EXCHANGE_POST && !conf->control))
        return tell_methods(x, conf);
    if (conf->control && !status_control_host(x)) {
        exchange_complain(x, "a request was refused: its Host is no name of this machine, which "
                             "control = true asks for");
        return exchange_reply_error(x, 403);
    }
    return method == EXCHANGE_POST ? status_control_step(x, EXCHANGE_BEGUN) : serve_get(x);
}

static int status_step(struct exchange *x, enum exchange_event event)
{
    if (event == EXCHANGE_BEGUN)
        return begin(x);
    if (exchange_method(x) == EXCHANGE_POST)
        return status_control_step(x, event);
    return exchange_begun(x) ? status_stream_step(x, event) : 0;
}

/* --- the options ------------------------------------------------------------------------------ */

static int status_open(void *p, const struct handler_env *env, char *why, size_t why_size)
{
    struct status_conf *conf = p;
    conf->source = env ? env->status : NULL;
    if (conf->control && !(env && env->local)) {
        snprintf(why, why_size,
                 "control = true lets whoever can connect switch models: give this listener "
                 "addresses of this machine only (127.0.0.1, [::1], unix:), or leave control out");
        return -1;
    }
    if (status_policy())
        return 0;
    snprintf(why, why_size, "the page's policy cannot be made: no memory");
    return -1;
}

const struct handler handler_status = {
    .name = "status",
    .summary = "this server's state: a live page, ?format=json, ?format=prometheus",
    .options = options,
    .conf_size = sizeof(struct status_conf),
    .open = status_open,
    .entry = {.step = status_step, .methods = ALLOWED, .body = EXCHANGE_BODY_STREAM},
};

bool status_controls(const struct handler *handler, const void *conf)
{
    return handler == &handler_status && ((const struct status_conf *)conf)->control;
}
