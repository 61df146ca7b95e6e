/* SPDX-License-Identifier: MIT */
/* The master before this one, in an upgrade: see server/upgrade.h. Until it has said `go` it serves,
 * and all that is ours is borrowed from it. If it is killed before, we serve when we are ready. When
 * it serves no more it still finishes what it has, and the server's end waits for its. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/log.h"
#include "server/notify.h"
#include "server/pid_file.h"
#include "server/supervisor_priv.h"

struct predecessor {
    struct master *master;
    int link;
    uv_poll_t watch;
    struct parcel out, in;
    const char *then; /* to be told when out is sent, or NULL */
    bool serves;      /* it has not said that we do */
    bool told;        /* that we are ready */
    bool gone;
};

static void on_link(uv_poll_t *watch, int status, int events);

static void listen_to(struct predecessor *p)
{
    bool more = p->out.sent < p->out.len;
    uv_poll_start(&p->watch, UV_READABLE | (more ? UV_WRITABLE : 0), on_link);
}

static void send_some(struct predecessor *p)
{
    if (parcel_send(&p->out, p->link) == -EAGAIN) {
        listen_to(p);
        return;
    }
    parcel_fini(&p->out); /* an error is told by the end of the link */
    const char *then = p->then;
    p->then = NULL;
    if (then)
        predecessor_tell(p->master, then);
}

void predecessor_tell(struct master *m, const char *what)
{
    struct predecessor *p = m->predecessor;
    if (!p || p->gone || p->serves)
        return;
    if (p->out.len) {
        p->then = what;
        return;
    }
    parcel_put(&p->out, what, "%s", "");
    parcel_seal(&p->out);
    send_some(p);
}

/* --- beginning to serve ---------------------------------------------------------------------- */

static void take_over(struct predecessor *p)
{
    struct master *m = p->master;
    p->serves = false;
    inherit_free(m->inheritance);
    m->inheritance = NULL;
    notify_hush(false);
    if (m->pid_fd >= 0 && m->pid_borrowed)
        pid_file_write(m->pid_fd);
    m->pid_borrowed = false;
    for (const struct generation *g = m->generations; g; g = g->next)
        generation_announce(g);
    if (m->control && control_start(m->control, &m->loop, commands, m) != 0)
        log_error("no control socket: its loop takes no more");
    supervisor_serve(m);
}

static void on_closed(uv_handle_t *watch)
{
    free(watch->data);
}

/* It has ended. */
static void on_gone(struct predecessor *p)
{
    struct master *m = p->master;
    p->gone = true;
    uv_poll_stop(&p->watch);
    if (p->serves) {
        log_error("the server that was to be upgraded has been killed: the new one serves when it "
                  "is ready");
        predecessor_ready(m);
        return;
    }
    m->predecessor = NULL;
    parcel_fini(&p->in);
    parcel_fini(&p->out);
    close(p->link);
    uv_close((uv_handle_t *)&p->watch, on_closed);
    supervisor_after_end(m);
}

static void on_link(uv_poll_t *watch, int status, int events)
{
    struct predecessor *p = watch->data;
    const char *value, *key;
    size_t at = 0;
    (void)status;
    if (events & UV_WRITABLE)
        send_some(p);
    int rc = parcel_receive(&p->in, p->link);
    if (rc == -EAGAIN)
        return;
    if (rc < 0) {
        on_gone(p);
        return;
    }
    key = parcel_next(&p->in, &at, &value);
    bool go = key && strcmp(key, "go") == 0;
    parcel_fini(&p->in);
    if (go && p->serves && !p->master->leaving)
        take_over(p);
}

static bool all_ready(const struct master *m)
{
    for (const struct generation *g = m->generations; g; g = g->next)
        if (!workers_ready(g))
            return false;
    return true;
}

static void put_taken(struct parcel *out, const struct master *m)
{
    const struct inheritance *in = m->inheritance;
    parcel_put(out, "ready", "%s", MODUS_VERSION);
    for (size_t i = 0; i < in->listener_count; i++) {
        const struct inherited_listener *l = &in->listeners[i];
        bool any = false;
        for (size_t j = 0; j < l->socket_count; j++)
            any |= l->sockets[j].taken;
        if (any)
            parcel_put(out, "listener", "%zu", i);
        if (l->intake_taken)
            parcel_put(out, "intake", "%zu", i);
    }
    if (m->pid_borrowed)
        parcel_put(out, "pid_file", "%s", "");
    if (m->control && control_is_borrowed(m->control))
        parcel_put(out, "control", "%s", "");
    parcel_seal(out);
}

void predecessor_ready(struct master *m)
{
    struct predecessor *p = m->predecessor;
    if (m->leaving || m->stopping || !all_ready(m))
        return;
    if (p->gone) {
        m->predecessor = NULL;
        take_over(p);
        close(p->link);
        uv_close((uv_handle_t *)&p->watch, on_closed);
    } else if (!p->told) {
        p->told = true;
        put_taken(&p->out, m);
        send_some(p);
    }
}

bool predecessor_serves(const struct master *m)
{
    return m->predecessor && m->predecessor->serves;
}

void predecessor_refuse(struct master *m, const char *why)
{
    struct predecessor *p = m->predecessor;
    struct parcel out = {0};
    if (!predecessor_serves(m) || m->leaving)
        return;
    parcel_put(&out, "refused", "%s", why);
    parcel_seal(&out);
    if (!p->out.len) /* else it has read nothing yet, and will see our end */
        parcel_send(&out, p->link);
    parcel_fini(&out);
    m->exit_status = 1;
    supervisor_leave(m);
}

/* --- life ------------------------------------------------------------------------------------ */

int predecessor_open(struct master *m, int link, char *why, size_t why_size)
{
    m->predecessor = calloc(1, sizeof *m->predecessor);
    if (!m->predecessor) {
        snprintf(why, why_size, "memory is out");
        return -1;
    }
    *m->predecessor = (struct predecessor){.master = m, .link = link, .serves = true};
    m->predecessor->watch.data = m->predecessor;
    return 0;
}

int predecessor_start(struct master *m)
{
    struct predecessor *p = m->predecessor;
    if (uv_poll_init(&m->loop, &p->watch, p->link) != 0)
        return -1;
    return uv_poll_start(&p->watch, UV_READABLE, on_link) == 0 ? 0 : -1;
}

void predecessor_forget(const struct master *m)
{
    if (m->predecessor)
        close(m->predecessor->link);
}

void predecessor_fini(struct master *m)
{
    struct predecessor *p = m->predecessor;
    if (!p)
        return;
    m->predecessor = NULL;
    parcel_fini(&p->in);
    parcel_fini(&p->out);
    close(p->link);
    free(p);
}
