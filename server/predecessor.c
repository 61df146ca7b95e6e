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
    struct parcel out, in; /* out: that we are ready, until it is sent */
    bool serves;           /* it has not said that we do */
    bool told;             /* that we are ready */
    bool speaks;           /* the service manager hears it, not us */
    bool owes_logs;        /* was told to open them again, and has not said that it has */
    bool gone;
};

/* A word of ours, which is short: there is room for it, or it is not read at all. */
static int say(const struct predecessor *p, const char *word, const char *value)
{
    struct parcel out = {0};
    parcel_put(&out, word, "%s", value);
    parcel_seal(&out);
    int rc = parcel_send(&out, p->link);
    parcel_fini(&out);
    return rc;
}

void predecessor_tell(struct master *m, const char *what)
{
    struct predecessor *p = m->predecessor;
    if (!p || p->gone || p->serves)
        return;
    if (say(p, what, "") == 0)
        p->owes_logs |= strcmp(what, "logs") == 0;
}

/* --- beginning to serve ---------------------------------------------------------------------- */

static void take_over(struct predecessor *p)
{
    struct master *m = p->master;
    p->serves = false;
    inherit_free(m->inheritance);
    m->inheritance = NULL;
    if (m->pid_fd >= 0 && m->pid_borrowed)
        pid_file_write(m->pid_fd);
    m->pid_borrowed = false;
    for (const struct generation *g = m->generations; g; g = g->next)
        generation_announce(g);
    if (m->control && control_start(m->control, &m->loop, commands, is_for_another, m) != 0)
        log_error("no control socket: its loop takes no more");
    supervisor_serve(m);
    if (!p->gone)
        say(p, "serves", MODUS_VERSION);
}

/* The service manager hears us from now on. */
static void speak(struct predecessor *p)
{
    notify_hush(false);
    p->speaks = false;
    if (p->master->ready && !p->master->stopping)
        supervisor_notify_serving(p->master, NULL);
}

static void on_closed(uv_handle_t *watch)
{
    free(watch->data);
}

static void let_go(struct predecessor *p)
{
    p->master->predecessor = NULL;
    parcel_fini(&p->in);
    parcel_fini(&p->out);
    close(p->link);
    uv_close((uv_handle_t *)&p->watch, on_closed);
}

/* It has ended. */
static void on_gone(struct predecessor *p)
{
    struct master *m = p->master;
    p->gone = true;
    uv_poll_stop(&p->watch);
    if (p->speaks)
        speak(p);
    if (p->serves) {
        log_error("the server that was to be upgraded has been killed: the new one serves when it "
                  "is ready");
        predecessor_ready(m);
        return;
    }
    let_go(p);
    supervisor_after_end(m);
}

static void on_link(uv_poll_t *watch, int status, int events);

/* Of `ready`, which may be long. An error is told by the end of the link. */
static void send_some(struct predecessor *p)
{
    bool more = parcel_send(&p->out, p->link) == -EAGAIN;
    if (!more)
        parcel_fini(&p->out);
    uv_poll_start(&p->watch, UV_READABLE | (more ? UV_WRITABLE : 0), on_link);
}

static void heed(struct predecessor *p, const char *word)
{
    if (strcmp(word, "go") == 0 && p->serves && !p->master->stopping)
        take_over(p);
    else if (strcmp(word, "main") == 0)
        speak(p);
    else if (strcmp(word, "logs") == 0)
        p->owes_logs = false;
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
    if (key)
        heed(p, key);
    parcel_fini(&p->in);
}

bool predecessor_owes_logs(const struct master *m)
{
    return m->predecessor && m->predecessor->owes_logs;
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
    size_t socket = 0;
    parcel_put(out, "ready", "%s", "");
    for (size_t i = 0; i < in->listener_count; i++) {
        const struct inherited_listener *l = &in->listeners[i];
        bool any = false;
        for (size_t j = 0; j < l->socket_count; j++, socket++)
            if (l->sockets[j].taken) {
                parcel_put(out, "socket", "%zu", socket);
                any = true;
            }
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
    if (m->stopping || !all_ready(m))
        return;
    if (p->gone) {
        take_over(p);
        let_go(p);
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

bool predecessor_refuse(struct master *m, const char *why)
{
    struct predecessor *p = m->predecessor;
    if (!predecessor_serves(m) || p->gone || m->stopping || p->out.len)
        return false;
    return say(p, "refused", why) == 0;
}

/* --- life ------------------------------------------------------------------------------------ */

int predecessor_open(struct master *m, int link, char *why, size_t why_size)
{
    m->predecessor = calloc(1, sizeof *m->predecessor);
    if (!m->predecessor) {
        snprintf(why, why_size, "memory is out");
        return -1;
    }
    *m->predecessor =
        (struct predecessor){.master = m, .link = link, .serves = true, .speaks = true};
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
