/* SPDX-License-Identifier: MIT */
/* What a master finds open at its start: see server/inherit.h. */
#include "server/inherit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net/socket.h"
#include "server/log.h"
#include "server/upgrade.h"

enum { PATIENCE_MS = 10000, FIRST_FD = 3 };

static int number_of(const char *name)
{
    const char *text = getenv(name);
    char *end = NULL;
    long n = text && *text ? strtol(text, &end, 10) : -1;
    return n >= 0 && n <= 1 << 30 && *end == '\0' ? (int)n : -1;
}

/* --- from systemd ---------------------------------------------------------------------------- */

static bool is_listening(int fd)
{
    int type = 0, listens = 0;
    socklen_t len = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM &&
           getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens;
}

/* The next of names, which a colon parts; NULL: there is none, or memory is out. */
static char *next_name(const char **names)
{
    if (!*names || !**names)
        return NULL;
    size_t len = strcspn(*names, ":");
    char *name = strndup(*names, len);
    *names += len + ((*names)[len] == ':');
    return name;
}

/* A number that is not open now will be that of a descriptor of our own. */
static bool take_all(struct inherited_listener *all, int count, const char *names, char *why,
                     size_t why_size)
{
    for (int i = 0; i < count; i++) {
        struct inherited_socket *more =
            reallocarray(all->sockets, all->socket_count + 1, sizeof *more);
        int fd = FIRST_FD + i, flags = fcntl(fd, F_GETFL);
        if (more)
            all->sockets = more;
        if (flags < 0)
            snprintf(why, why_size,
                     "LISTEN_FDS is %d, and descriptor %d is not open: it is for systemd to set",
                     count, fd);
        if (!more || flags < 0)
            return false;
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, flags | O_NONBLOCK); /* several processes accept */
        all->sockets[all->socket_count++] =
            (struct inherited_socket){.fd = fd, .name = next_name(&names), .lent = true};
    }
    return true;
}

static void forget_variables(void)
{
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDNAMES");
    unsetenv(UPGRADE_VARIABLE);
}

static struct inheritance *new_inheritance(int link)
{
    struct inheritance *in = calloc(1, sizeof *in);
    if (in)
        *in = (struct inheritance){.link = link, .pid_fd = -1, .control_fd = -1};
    return in;
}

static struct inheritance *from_systemd(int count, char *why, size_t why_size)
{
    struct inheritance *in = new_inheritance(-1);
    if (in)
        in->listeners = calloc(1, sizeof *in->listeners);
    if (!in || !in->listeners) {
        free(in);
        return NULL;
    }
    in->listener_count = 1;
    in->listeners[0] = (struct inherited_listener){.title = "", .intake = {-1, -1}};
    if (take_all(&in->listeners[0], count, getenv("LISTEN_FDNAMES"), why, why_size))
        return in;
    inherit_free(in);
    return NULL;
}

/* --- from the earlier master ------------------------------------------------------------------ */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int receive_all(struct parcel *p, int link)
{
    int64_t until_ms = now_ms() + PATIENCE_MS;
    for (;;) {
        int rc = parcel_receive(p, link);
        int64_t left_ms = until_ms - now_ms();
        if (rc != -EAGAIN)
            return rc;
        if (left_ms <= 0)
            return -ETIMEDOUT;
        struct pollfd wait = {.fd = link, .events = POLLIN};
        poll(&wait, 1, (int)left_ms);
    }
}

static struct inherited_listener *add_listener(struct inheritance *in, const char *title)
{
    struct inherited_listener *more =
        reallocarray(in->listeners, in->listener_count + 1, sizeof *more);
    if (!more)
        return NULL;
    in->listeners = more;
    more += in->listener_count++;
    *more = (struct inherited_listener){.title = title, .intake = {-1, -1}};
    return more;
}

/* "DESCRIPTOR PLACE ADDRESS" */
static bool add_socket(struct inheritance *in, const char *value)
{
    struct inherited_listener *l =
        in->listener_count ? &in->listeners[in->listener_count - 1] : NULL;
    char *end;
    long fd = strtol(value, &end, 10), place = *end == ' ' ? strtol(end + 1, &end, 10) : -1;
    if (!l || place < 0 || *end != ' ')
        return false;
    struct inherited_socket *more = reallocarray(l->sockets, l->socket_count + 1, sizeof *more);
    if (!more)
        return false;
    l->sockets = more;
    more += l->socket_count;
    *more = (struct inherited_socket){
        .text = end + 1, .place = (unsigned)place, .fd = parcel_take(&in->parcel, fd)};
    l->socket_count += more->fd >= 0;
    return more->fd >= 0;
}

/* "PLACE" */
static void mark_lent(struct inheritance *in, const char *value)
{
    struct inherited_listener *l =
        in->listener_count ? &in->listeners[in->listener_count - 1] : NULL;
    unsigned long place = strtoul(value, NULL, 10);
    for (size_t i = 0; l && i < l->socket_count; i++)
        l->sockets[i].lent |= l->sockets[i].place == place;
}

/* "DESCRIPTOR DESCRIPTOR" */
static void add_intake(struct inheritance *in, const char *value)
{
    struct inherited_listener *l =
        in->listener_count ? &in->listeners[in->listener_count - 1] : NULL;
    char *end;
    long take = strtol(value, &end, 10), give = strtol(end, NULL, 10);
    if (!l || l->intake[0] >= 0)
        return;
    l->intake[0] = parcel_take(&in->parcel, take);
    l->intake[1] = parcel_take(&in->parcel, give);
}

/* "DESCRIPTOR PATH" */
static const char *add_path(struct inheritance *in, const char *value, int *fd)
{
    char *end;
    long place = strtol(value, &end, 10);
    *fd = *end == ' ' ? parcel_take(&in->parcel, place) : -1;
    return *fd >= 0 ? end + 1 : NULL;
}

static bool understand(struct inheritance *in, const char *key, const char *value)
{
    if (strcmp(key, "listener") == 0)
        return add_listener(in, value) != NULL;
    if (strcmp(key, "socket") == 0)
        return add_socket(in, value);
    if (strcmp(key, "lent") == 0)
        mark_lent(in, value);
    else if (strcmp(key, "tickets") == 0 && in->listener_count)
        in->listeners[in->listener_count - 1].tickets = value;
    else if (strcmp(key, "intake") == 0)
        add_intake(in, value);
    else if (strcmp(key, "pid_file") == 0 && in->pid_fd < 0)
        in->pid_file = add_path(in, value, &in->pid_fd);
    else if (strcmp(key, "control") == 0 && in->control_fd < 0)
        in->control = add_path(in, value, &in->control_fd);
    return true;
}

static bool read_all(struct inheritance *in, char *why, size_t why_size)
{
    const char *key, *value;
    size_t at = 0;
    int rc = receive_all(&in->parcel, in->link);
    if (rc < 0) {
        snprintf(why, why_size, "what the earlier server gives has not come: %s", strerror(-rc));
        return false;
    }
    key = parcel_next(&in->parcel, &at, &value);
    if (!key || strcmp(key, "version") != 0 || atoi(value) != UPGRADE_VERSION) {
        snprintf(why, why_size,
                 "the running server's way to hand over (version %s) is not this build's (%d): a "
                 "restart is needed",
                 key && strcmp(key, "version") == 0 ? value : "unknown", UPGRADE_VERSION);
        return false;
    }
    while ((key = parcel_next(&in->parcel, &at, &value)) != NULL)
        if (!understand(in, key, value)) {
            snprintf(why, why_size, "what the running server gives is not understood: %s=%s", key,
                     value);
            return false;
        }
    return true;
}

static struct inheritance *from_master(int link, char *why, size_t why_size)
{
    int type = 0;
    socklen_t len = sizeof type;
    if (link < FIRST_FD || getsockopt(link, SOL_SOCKET, SO_TYPE, &type, &len) != 0 ||
        type != SOCK_SEQPACKET) {
        snprintf(why, why_size,
                 "%s is set, and names no socket of a server that is upgraded: unset it",
                 UPGRADE_VARIABLE);
        return NULL;
    }
    fcntl(link, F_SETFD, FD_CLOEXEC);
    struct inheritance *in = new_inheritance(link);
    if (in && read_all(in, why, why_size))
        return in;
    inherit_refuse(in, why);
    inherit_free(in);
    close(link);
    return NULL;
}

/* --- both ------------------------------------------------------------------------------------ */

struct inheritance *inherit(char *why, size_t why_size)
{
    struct inheritance *in = NULL;
    int pid = number_of("LISTEN_PID"), count = number_of("LISTEN_FDS");
    const char *upgrade = getenv(UPGRADE_VARIABLE);
    why[0] = '\0';
    if (upgrade) {
        snprintf(why, why_size, "memory is out");
        in = from_master(number_of(UPGRADE_VARIABLE), why, why_size);
    } else if (pid == getpid() && count > 0) {
        snprintf(why, why_size, "memory is out");
        in = from_systemd(count, why, why_size);
    }
    if (in)
        why[0] = '\0';
    forget_variables();
    return in;
}

bool inherit_refuse(struct inheritance *in, const char *why)
{
    struct parcel p = {0};
    if (!in || in->link < 0)
        return false;
    parcel_put(&p, "refused", "%s", why);
    parcel_seal(&p);
    int rc = parcel_send(&p, in->link);
    parcel_fini(&p);
    return rc == 0;
}

struct inherited_listener *inherit_listener(struct inheritance *in, const struct config *c,
                                            const struct config_listener *conf)
{
    const char *title = conf->addresses[0].text;
    size_t rank = 0;
    for (const struct config_listener *l = c->listeners; l < conf; l++)
        rank += strcmp(l->addresses[0].text, title) == 0;
    for (size_t i = 0; in && i < in->listener_count; i++)
        if (strcmp(in->listeners[i].title, title) == 0 && rank-- == 0)
            return &in->listeners[i];
    return NULL;
}

static bool is_for(const struct inherited_socket *s, const struct config_address *a, size_t place,
                   bool own)
{
    struct socket_address address = {
        .unix_path = a->is_unix ? a->path : NULL, .host = a->host, .port = a->port};
    if (s->taken || (s->text && strcmp(s->text, a->text) != 0))
        return false;
    if (!a->is_unix && a->port == 0)
        return s->text && own && s->place == place;
    return (s->text && !a->is_unix) || socket_is_bound_to(s->fd, &address);
}

const struct inherited_socket *inherit_socket(struct inheritance *in,
                                              const struct inherited_listener *own,
                                              const struct config_listener *conf, size_t place)
{
    for (size_t i = 0; in && i < in->listener_count; i++)
        for (size_t j = 0; j < in->listeners[i].socket_count; j++) {
            struct inherited_socket *s = &in->listeners[i].sockets[j];
            if (!is_for(s, &conf->addresses[place], place, own == &in->listeners[i]) ||
                (!s->text && !is_listening(s->fd)))
                continue;
            s->taken = true;
            return s;
        }
    return NULL;
}

void inherit_say_left(const struct inheritance *in)
{
    char bound[128];
    for (size_t i = 0; in && in->link < 0 && i < in->listeners[0].socket_count; i++) {
        const struct inherited_socket *s = &in->listeners[0].sockets[i];
        if (s->taken)
            continue;
        socket_name(s->fd, bound, sizeof bound);
        log_error("systemd has passed the socket %s%s%s%s, %s", bound, s->name ? " (" : "",
                  s->name ? s->name : "", s->name ? ")" : "",
                  is_listening(s->fd) ? "which no listener of the configuration names: it is closed"
                                      : "which is no listening stream socket: it is closed");
    }
}

void inherit_free(struct inheritance *in)
{
    if (!in)
        return;
    for (size_t i = 0; i < in->listener_count; i++) {
        struct inherited_listener *l = &in->listeners[i];
        for (size_t j = 0; j < l->socket_count; j++) {
            close(l->sockets[j].fd);
            free(l->sockets[j].name);
        }
        for (int j = 0; j < 2; j++)
            if (l->intake[j] >= 0)
                close(l->intake[j]);
        free(l->sockets);
    }
    if (in->pid_fd >= 0)
        close(in->pid_fd);
    if (in->control_fd >= 0)
        close(in->control_fd);
    free(in->listeners);
    parcel_fini(&in->parcel);
    free(in);
}
