/* SPDX-License-Identifier: MIT */
/* From the configuration of a listener to what serves it: see server/listener.h. */
#include "server/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/socket.h"
#include "net/thread.h"
#include "net/tls.h"
#include "server/backlog.h"
#include "server/log.h"

enum { SAY_MS = 1000, SAY_MOST = 4 };

static uint32_t hash_of(const char *text)
{
    uint32_t hash = 2166136261U; /* FNV-1a */
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 16777619U;
    return hash;
}

/* Is there a line for this fault? One a second for each route, and a few more for other reasons:
 * who tries out handlers must hear of each, who can make one fail must not fill the disk. */
static bool may_say(struct route_faults *f, const char *why)
{
    int64_t now_ms = net_clock_us() / 1000, before_ms = atomic_load(&f->said_ms);
    uint32_t reason = hash_of(why);
    if (!before_ms || now_ms - before_ms >= SAY_MS) {
        if (!atomic_compare_exchange_strong(&f->said_ms, &before_ms, now_ms))
            return false;
        atomic_store(&f->said, 1);
    } else if (atomic_load(&f->reason) == reason || atomic_fetch_add(&f->said, 1) >= SAY_MOST) {
        return false;
    }
    atomic_store(&f->reason, reason);
    return true;
}

static void say(const struct listener *l, const struct route *route, const char *what)
{
    if (l->service.duplex)
        log_error("%s: %s", listener_name(l), what);
    else
        log_error("%s: route \"%.*s\": %s", listener_name(l), (int)route->prefix.len,
                  route->prefix.at, what);
}

static void complain(void *arg, const struct route *route, const char *why)
{
    const struct listener *l = arg;
    struct route_faults *f = &l->faults[route - l->routes];
    char count[100];
    if (!may_say(f, why)) {
        atomic_fetch_add(&f->unsaid, 1);
        return;
    }
    unsigned more = atomic_exchange(&f->unsaid, 0);
    say(l, route, why);
    if (!more)
        return;
    snprintf(count, sizeof count, "the like happened %u more times since its last such line", more);
    say(l, route, count);
}

static int by_length(const void *a, const void *b)
{
    size_t la = ((const struct route *)a)->prefix.len, lb = ((const struct route *)b)->prefix.len;
    return la < lb ? 1 : la > lb ? -1 : 0;
}

static int build_routes(struct listener *l)
{
    l->routes = calloc(l->conf->route_count + 1, sizeof *l->routes);
    if (!l->routes)
        return -1;
    for (size_t i = 0; i < l->conf->route_count; i++) {
        const struct config_route *r = &l->conf->routes[i];
        const struct handler *h = r->handler;
        l->routes[i] = (struct route){str_of(r->prefix),
                                      h->entry_of ? h->entry_of(r->conf) : &h->entry, r->conf};
    }
    qsort(l->routes, l->conf->route_count, sizeof *l->routes, by_length);
    return 0;
}

const char *listener_handler(const struct listener *l, const struct route *route)
{
    for (size_t i = 0; i < l->conf->route_count; i++) {
        const struct config_route *r = &l->conf->routes[i];
        if (r->prefix == route->prefix.at)
            return r->handler->name;
    }
    return "";
}

static int build_tls(struct listener *l, const struct config *config, void *shared, char *why,
                     size_t why_size)
{
    size_t count = l->conf->tls_count, bad = 0;
    if (!count)
        return 0;
    struct tls_certificate *certificates = calloc(count, sizeof *certificates);
    if (!certificates)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const struct config_tls *t = &l->conf->tls[i];
        certificates[i] = (struct tls_certificate){t->certificate, t->key, t->min_version};
    }
    char reason[512];
    l->tls = tls_context_new(certificates, count, shared, &bad, reason, sizeof reason);
    free(certificates);
    if (l->tls && l->conf->protocol == PROTOCOL_TCP)
        tls_context_any_protocol(l->tls);
    if (l->tls)
        return 0;
    snprintf(why, why_size, "%s:%d: %s", config->file, l->conf->tls[bad < count ? bad : 0].line,
             reason);
    return -1;
}

static uint64_t print_of_file(uint64_t hash, const char *path)
{
    unsigned char bytes[4096];
    FILE *f = fopen(path, "re");
    for (size_t n; f && (n = fread(bytes, 1, sizeof bytes, f)) > 0;)
        for (size_t i = 0; i < n; i++)
            hash = (hash ^ bytes[i]) * 1099511628211U; /* FNV-1a */
    if (f)
        fclose(f);
    return hash;
}

uint64_t listener_print(const struct config_listener *conf)
{
    uint64_t hash = conf->tls_count ? 14695981039346656037U : 0;
    for (size_t i = 0; i < conf->tls_count; i++) {
        hash = print_of_file(hash, conf->tls[i].certificate);
        hash = print_of_file(hash, conf->tls[i].key);
    }
    return hash;
}

int listener_build(struct listener *l, const struct config *config,
                   const struct config_listener *conf, void *tls_shared, char *why, size_t why_size)
{
    *l = (struct listener){.conf = conf, .model = models_find(conf->model), .intake = {-1, -1}};
    snprintf(why, why_size, "%s:%d: out of memory", config->file, conf->line);
    l->plan = l->model->plan(conf);
    l->print = listener_print(conf);
    if (build_routes(l) != 0 || build_tls(l, config, tls_shared, why, why_size) != 0) {
        listener_close(l);
        return -1;
    }
    l->service = (struct service){
        .complain = complain,
        .complain_arg = l,
        .duplex = conf->protocol == PROTOCOL_TCP,
        .tls = l->tls,
        .routes = l->routes,
        .route_count = conf->route_count,
        .header_timeout_ms = conf->header_timeout_ms,
        .body_timeout_ms = conf->body_timeout_ms,
        .handler_timeout_ms = conf->handler_timeout_ms,
        .send_timeout_ms = conf->send_timeout_ms,
        .keepalive_timeout_ms = conf->keepalive_timeout_ms >= 0 ? conf->keepalive_timeout_ms
                                                                : l->plan.keepalive_timeout_ms,
        .keepalive_requests = (unsigned)conf->keepalive_requests,
        .max_header_size = (size_t)conf->max_header_size,
        .max_body_size = (size_t)conf->max_body_size,
    };
    return 0;
}

/* A socket of ours, or one that is there already. Returns its descriptor, or -1 with a sentence. */
static int open_socket(struct listener *l, const struct config_address *a, int have, char *why,
                       size_t why_size)
{
    struct socket_address address = {
        .unix_path = a->is_unix ? a->path : NULL, .host = a->host, .port = a->port};
    if (have < 0)
        return socket_listen(&address, l->conf->backlog, why, why_size);
    int fd = fcntl(have, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        snprintf(why, why_size, "%s", strerror(errno));
    else
        listen(fd, l->conf->backlog);
    return fd;
}

static int open_sockets(struct listener *l, const struct config *config, const int *have, char *why,
                        size_t why_size)
{
    size_t count = l->conf->address_count;
    l->fds = calloc(count, sizeof *l->fds);
    l->borrowed = calloc(count, sizeof *l->borrowed);
    l->names = calloc(count, sizeof *l->names);
    for (size_t i = 0; l->fds && l->borrowed && l->names && i < count; i++) {
        const struct config_address *a = &l->conf->addresses[i];
        char reason[256];
        int fd = open_socket(l, a, have ? have[i] : -1, reason, sizeof reason);
        if (fd < 0) {
            snprintf(why, why_size, "%s:%d: cannot listen on %s: %s", config->file, a->line,
                     a->text, reason);
            return -1;
        }
        if (!a->is_unix)
            socket_defer_accept(fd, l->plan.defer_accept && !l->service.duplex);
        socket_name(fd, l->names[i], sizeof l->names[i]);
        l->borrowed[i] = have && have[i] >= 0;
        l->fds[l->fd_count++] = fd;
    }
    return l->fds && l->borrowed && l->names ? 0 : -1;
}

int listener_open(struct listener *l, const struct config *config, const int *have, char *why,
                  size_t why_size)
{
    char reason[512];
    if (open_sockets(l, config, have, why, why_size) != 0)
        return -1;
    if (!l->conf->access_log)
        return 0;
    l->access_log =
        access_log_open(l->conf->access_log, l->conf->log_format, reason, sizeof reason);
    if (!l->access_log) {
        snprintf(why, why_size, "%s:%d: %s", config->file, l->conf->line_access_log, reason);
        return -1;
    }
    l->service.note = access_log_write;
    l->service.note_arg = l->access_log;
    return 0;
}

const char *listener_name(const struct listener *l)
{
    const struct config_address *a = &l->conf->addresses[0];
    return !a->is_unix && a->port == 0 ? l->names[0] : a->text;
}

bool listener_has_socket(const struct listener *l, int fd)
{
    for (size_t i = 0; i < l->fd_count; i++)
        if (backlog_inode(l->fds[i]) == backlog_inode(fd))
            return true;
    return false;
}

void listener_refuse_new(struct listener *l)
{
    for (size_t i = 0; i < l->fd_count && !l->refuses; i++) {
        if (l->borrowed[i])
            continue;
        if (l->conf->addresses[i].is_unix)
            unlink(l->conf->addresses[i].path);
        else
            socket_drop_new(l->fds[i]);
    }
    l->refuses = true; /* who listens at that path from now on is not us */
}

bool listener_has_waiting(const struct listener *l)
{
    for (size_t i = 0; i < l->fd_count; i++)
        if (!l->borrowed[i] && socket_has_waiting(l->fds[i]))
            return true;
    return false;
}

void listener_stop(struct listener *l)
{
    listener_refuse_new(l);
    for (size_t i = 0; i < l->fd_count; i++) {
        if (!l->borrowed[i])
            shutdown(l->fds[i], SHUT_RD);
        close(l->fds[i]);
    }
    l->fd_count = 0;
}

bool listener_is_handed_over(const struct listener *l)
{
    for (size_t i = 0; i < l->fd_count; i++)
        if (!l->borrowed[i])
            return false;
    return true;
}

void listener_hand_over(struct listener *l)
{
    for (size_t i = 0; i < l->fd_count; i++)
        close(l->fds[i]);
    l->fd_count = 0;
}

void listener_close(struct listener *l)
{
    listener_stop(l);
    free(l->fds);
    free(l->borrowed);
    free(l->names);
    free(l->routes);
    tls_context_free(l->tls);
    access_log_close(l->access_log);
    for (int i = 0; i < 2; i++)
        if (l->intake[i] >= 0)
            close(l->intake[i]);
    *l = (struct listener){0};
}
