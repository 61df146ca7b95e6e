/* SPDX-License-Identifier: MIT */
/* Both ends of the pipe by which a page asks for another model: see server/switches.h. */
#include "server/switches.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "server/log.h"
#include "server/supervisor_priv.h"

enum { TOKEN_BYTES = 32 };

/* What goes through the pipe, in one packet. */
struct wanted {
    char listener[LISTING_NAME], model[LISTING_MODEL];
};

/* --- what the page needs ---------------------------------------------------------------------- */

const char *const *switches_models(void)
{
    static const char *names[16];
    const struct model *model;
    for (size_t i = 0; i + 1 < sizeof names / sizeof names[0] && (model = models_at(i)); i++)
        names[i] = model_name(model);
    return names;
}

const char *switches_token(void)
{
    static char text[2 * TOKEN_BYTES + 1];
    unsigned char bytes[TOKEN_BYTES];
    if (text[0] || getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return text;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return text;
}

static bool controls(const struct config_listener *conf)
{
    for (size_t i = 0; i < conf->route_count; i++)
        if (status_controls(conf->routes[i].handler, conf->routes[i].conf))
            return true;
    return false;
}

/* --- a worker's end --------------------------------------------------------------------------- */

void switches_forget(struct master *m, const struct generation *g)
{
    if (m->switches.pipe[0] < 0)
        return;
    close(m->switches.pipe[0]);
    if (!controls(g->listener.conf))
        close(m->switches.pipe[1]);
}

static int put(char *to, size_t size, const char *text)
{
    return (size_t)snprintf(to, size, "%s", text) < size ? 0 : -1;
}

int switches_ask(void *arg, const char *listener, const char *model)
{
    const struct master *m = arg;
    struct wanted wanted = {0};
    if (put(wanted.listener, sizeof wanted.listener, listener) != 0 ||
        put(wanted.model, sizeof wanted.model, model) != 0)
        return -EINVAL;
    if (write(m->switches.pipe[1], &wanted, sizeof wanted) == sizeof wanted)
        return 0;
    return errno == EAGAIN ? -EBUSY : -errno;
}

/* --- the master's end ------------------------------------------------------------------------- */

static void read_next(struct master *m);

static void on_switched(void *arg, const char *why)
{
    struct master *m = arg;
    (void)why; /* is in the log */
    if (!m->stopping)
        read_next(m);
}

static bool is_whole(const struct wanted *wanted, ssize_t len)
{
    return len == sizeof *wanted && memchr(wanted->listener, '\0', sizeof wanted->listener) &&
           memchr(wanted->model, '\0', sizeof wanted->model);
}

/* Allowed by the configuration of now, whatever was allowed when the asker was forked? */
static bool is_allowed(const struct master *m)
{
    for (size_t i = 0; i < m->config->listener_count; i++)
        if (controls(&m->config->listeners[i]))
            return true;
    return false;
}

static void on_wanted(uv_poll_t *watch, int status, int events)
{
    struct master *m = watch->data;
    struct wanted wanted;
    (void)status, (void)events;
    ssize_t len = read(m->switches.pipe[0], &wanted, sizeof wanted);
    if (len < 0)
        return;
    if (!is_whole(&wanted, len) || !is_allowed(m)) {
        log_warn("a worker has asked for a switch in a way that no page does: ignored");
        return;
    }
    uv_poll_stop(watch);
    log_info("%s: to be switched to %s, as was asked for on a page", wanted.listener, wanted.model);
    reload_switch(m, wanted.listener, wanted.model, on_switched, m);
}

/* One at a time: what is asked for meanwhile stays in the pipe. */
static void read_next(struct master *m)
{
    if (uv_poll_start(&m->switches.watch, UV_READABLE, on_wanted) != 0)
        log_error("the pages' wishes cannot be heard any more");
}

int switches_start(struct master *m, const struct generation *g)
{
    struct switches *s = &m->switches;
    if (s->started || !controls(g->listener.conf))
        return 0;
    /* Packets: what a worker writes is read as it was written, or not at all. */
    if (s->pipe[0] < 0 && pipe2(s->pipe, O_CLOEXEC | O_NONBLOCK | O_DIRECT) != 0)
        return -1;
    s->watch.data = m;
    if (uv_poll_init(&m->loop, &s->watch, s->pipe[0]) != 0)
        return -1;
    s->started = true;
    read_next(m);
    return 0;
}

void switches_stop(struct master *m)
{
    for (int i = 0; i < 2; i++)
        if (m->switches.pipe[i] >= 0)
            close(m->switches.pipe[i]);
    m->switches = (struct switches){.pipe = {-1, -1}};
}
