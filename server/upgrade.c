/* SPDX-License-Identifier: MIT */
/* To another master: see server/upgrade.h. This is the old one's part.
 *
 *   OFFERED -> TOLD     it is ready, and was told to serve
 *      |        +-> DONE     it serves: what served here is retired, or stopped where it was not taken
 *      +--------+-> FAILED   it has refused, ended, or is late: it is told to go, and we go on
 *
 * The link stays open as long as the process lives: its end tells the new one that we are dead. */
#include "server/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/tls.h"
#include "server/log.h"
#include "server/notify.h"
#include "server/pid_file.h"
#include "server/program.h"
#include "server/supervisor_priv.h"
#include "server/title.h"

enum { START_MS = 30000, END_MS = 1000, LOOK_MS = 5, RETIRE_MS = 1000, WHY = 1024, HANDLES = 3 };

enum upgrade_state { OFFERED, TOLD, FAILED, DONE };

struct upgrade {
    struct master *master;
    enum upgrade_state state;
    bool passed_on; /* DONE: its place is another's by now, so its end is no matter */
    pid_t pid;      /* 0: reaped */
    int pidfd, link;
    uv_poll_t end_watch, link_watch;
    uv_timer_t timer; /* OFFERED, TOLD: to serve; FAILED: to be gone; DONE: until nobody accepts */
    int64_t until_ms; /* DONE: to be answered at the latest */
    struct parcel out, in, ready;
    struct control_waiters waiting; /* answered when its process has ended, if it failed */
    char why[WHY];
    unsigned open_handles;
};

static int64_t now_ms(void)
{
    return (int64_t)(uv_hrtime() / 1000000);
}

/* --- what is given --------------------------------------------------------------------------- */

/* The generation that serves at a place of the configuration; NULL: it was drained. */
static struct generation *serving_at(const struct master *m, size_t place)
{
    for (struct generation *g = m->generations; g; g = g->next)
        if (g->state == GENERATION_SERVING && g->place == place)
            return g;
    return NULL;
}

static void put_listener(struct parcel *out, const struct generation *g)
{
    const struct listener *l = &g->listener;
    char tickets[TLS_SHARED_TEXT];
    parcel_put(out, "listener", "%s", l->conf->addresses[0].text);
    for (size_t i = 0; i < l->fd_count; i++) {
        parcel_put(out, "socket", "%d %zu %s", parcel_add(out, l->fds[i]), i,
                   l->conf->addresses[i].text);
        if (generation_is_lent(g->master, l->fds[i]))
            parcel_put(out, "lent", "%zu", i);
    }
    if (l->intake[0] >= 0)
        parcel_put(out, "intake", "%d %d", parcel_add(out, l->intake[0]),
                   parcel_add(out, l->intake[1]));
    if (g->tickets && tls_shared_write(g->tickets, tickets, sizeof tickets) == 0)
        parcel_put(out, "tickets", "%s", tickets);
    explicit_bzero(tickets, sizeof tickets);
}

static void put_all(struct parcel *out, const struct master *m)
{
    const struct config *c = m->config;
    parcel_put(out, "version", "%d", UPGRADE_VERSION);
    if (m->pid_fd >= 0)
        parcel_put(out, "pid_file", "%d %s", parcel_add(out, m->pid_fd), c->pid_file);
    if (m->control)
        parcel_put(out, "control", "%d %s", parcel_add(out, control_fd(m->control)), c->control);
    for (size_t i = 0; i < c->listener_count; i++) {
        const struct generation *g = serving_at(m, i);
        if (g)
            put_listener(out, g);
    }
    parcel_seal(out);
}

/* --- the other process ----------------------------------------------------------------------- */

__attribute__((noreturn)) static void become(const struct master *m, int link)
{
    char *path = strdup(program_path()), option[] = "-c", *file = strdup(m->config->file), fd[16];
    char *argv[] = {path, option, file, NULL};
    struct sigaction standard = {.sa_handler = SIG_DFL};
    struct parcel p = {0};
    sigset_t none;
    sigaction(SIGPIPE, &standard, NULL);
    sigaction(SIGXFSZ, &standard, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    snprintf(fd, sizeof fd, "%d", link);
    if (path && file && fcntl(link, F_SETFD, 0) == 0 && setenv(UPGRADE_VARIABLE, fd, 1) == 0) {
        notify_pass_on(getpid());
        execv(path, argv);
    }
    parcel_put(&p, "refused", "cannot start %s: %s", program_path(), strerror(errno));
    parcel_seal(&p);
    parcel_send(&p, link);
    _exit(127);
}

static pid_t start(struct master *m, int links[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, links) != 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0)
        become(m, links[1]);
    close(links[1]);
    if (pid < 0)
        close(links[0]);
    return pid;
}

static void signal_it(const struct upgrade *u, int signal)
{
    if (u->pid)
        pidfd_send_signal(u->pidfd, signal, NULL, 0);
}

static void free_upgrade(struct upgrade *u)
{
    parcel_fini(&u->out);
    parcel_fini(&u->in);
    parcel_fini(&u->ready);
    close(u->pidfd);
    close(u->link);
    free(u);
}

static void on_closed(uv_handle_t *handle)
{
    struct upgrade *u = handle->data;
    if (--u->open_handles == 0)
        free_upgrade(u);
}

static void drop(struct upgrade *u)
{
    control_answer_all(&u->waiting, u->why);
    u->master->upgrade = NULL;
    uv_close((uv_handle_t *)&u->end_watch, on_closed);
    uv_close((uv_handle_t *)&u->link_watch, on_closed);
    uv_close((uv_handle_t *)&u->timer, on_closed);
}

/* --- how it ends ----------------------------------------------------------------------------- */

static void refuse(struct control_request *request, const char *why)
{
    log_error("not upgraded: %s", why);
    if (request)
        control_refuse(request, why);
}

static void on_still_there(uv_timer_t *timer)
{
    signal_it(timer->data, SIGKILL);
}

static void fail(struct upgrade *u, const char *why)
{
    struct master *m = u->master;
    if (u->state != OFFERED && u->state != TOLD)
        return;
    bool told = u->state == TOLD;
    if (told && m->pid_fd >= 0)
        pid_file_write(m->pid_fd);
    u->state = FAILED;
    log_error("not upgraded: %s", why);
    snprintf(u->why, sizeof u->why, "%s", why);
    signal_it(u, told ? SIGKILL : SIGTERM); /* its way to stop would be to close the sockets */
    uv_timer_start(&u->timer, on_still_there, END_MS, 0);
    reload_look(m);
}

static void on_late(uv_timer_t *timer)
{
    char why[128];
    snprintf(why, sizeof why, "the new server is not ready after %d s", START_MS / 1000);
    fail(timer->data, why);
}

/* Who is told that the new program serves must not meet the old one. */
static void on_look_retired(uv_timer_t *timer)
{
    struct upgrade *u = timer->data;
    bool accept = false;
    for (const struct generation *g = u->master->generations; g; g = g->next)
        accept |= workers_accept(g) || generation_holds_addresses(g);
    if (accept && now_ms() < u->until_ms)
        return;
    uv_timer_stop(timer);
    control_answer_all(&u->waiting, NULL);
}

static bool is_taken(struct parcel *in, const char *what, size_t number)
{
    const char *key, *value;
    for (size_t at = 0; (key = parcel_next(in, &at, &value)) != NULL;)
        if (strcmp(key, what) == 0 && strtoul(value, NULL, 10) == number)
            return true;
    return false;
}

static void retire_all(struct master *m, struct parcel *in)
{
    size_t number = 0, socket = 0;
    for (size_t place = 0; place < m->config->listener_count; place++) {
        struct generation *g = serving_at(m, place);
        if (!g)
            continue;
        for (size_t i = 0; i < g->listener.fd_count; i++, socket++)
            if (is_taken(in, "socket", socket))
                generation_leave(g, i);
        if (is_taken(in, "listener", number))
            generation_retire(g, is_taken(in, "intake", number));
        else
            generation_stop(g);
        number++;
    }
}

static void give_files(struct master *m, struct parcel *in)
{
    if (m->pid_fd >= 0 && is_taken(in, "pid_file", 0))
        close(m->pid_fd);
    else if (m->pid_fd >= 0)
        pid_file_give_back(m->config->pid_file, m->pid_fd);
    m->pid_fd = -1;
    control_leave(m->control, is_taken(in, "control", 0));
}

static int say(const struct upgrade *u, const char *word)
{
    struct parcel p = {0};
    parcel_put(&p, word, "%s", "");
    parcel_seal(&p);
    int rc = parcel_send(&p, u->link);
    parcel_fini(&p);
    return rc;
}

/* It is ready. What it has said of that is kept until it serves. */
static void tell(struct upgrade *u)
{
    parcel_fini(&u->ready);
    u->ready = u->in;
    u->in = (struct parcel){0};
    u->state = TOLD;
    if (say(u, "go") < 0)
        fail(u, "the new server has closed the link when it was ready");
}

/* It serves. The manager takes word only from the process that it knows as the main one, so it hears
 * of the new one from us, and before that one speaks. */
static void commit(struct upgrade *u, const char *version)
{
    struct master *m = u->master;
    u->state = DONE;
    notify("MAINPID=%d", u->pid);
    notify_hush(true);
    say(u, "main");
    log_info("upgraded to modus %s: process %d serves, this one finishes what it has", version,
             u->pid);
    predecessor_tell(m, "upgraded");
    give_files(m, &u->ready);
    reload_pass_on(m);
    title_set("master %s, retired for process %d", m->config->file, u->pid);
    u->until_ms = now_ms() + RETIRE_MS;
    uv_timer_start(&u->timer, on_look_retired, 0, LOOK_MS);
    retire_all(m, &u->ready);
    supervisor_leave(m);
}

/* --- what it says ---------------------------------------------------------------------------- */

static void heed(struct upgrade *u, const char *key, const char *value)
{
    if (u->state == OFFERED && strcmp(key, "ready") == 0)
        tell(u);
    else if (u->state == TOLD && strcmp(key, "serves") == 0)
        commit(u, value);
    else if (u->state == OFFERED && strcmp(key, "refused") == 0)
        fail(u, value);
    else if (u->state == DONE && strcmp(key, "stop") == 0)
        supervisor_stop(u->master);
    else if (u->state == DONE && strcmp(key, "upgraded") == 0)
        u->passed_on = true;
    else if (u->state == DONE && strcmp(key, "logs") == 0)
        reopen_for_successor(u->master);
}

static void read_link(struct upgrade *u)
{
    for (;;) {
        const char *key, *value;
        size_t at = 0;
        int rc = parcel_receive(&u->in, u->link);
        if (rc == -EAGAIN)
            return;
        if (rc < 0) {
            uv_poll_stop(&u->link_watch); /* how it has ended its process tells */
            return;
        }
        if ((key = parcel_next(&u->in, &at, &value)) != NULL)
            heed(u, key, value);
        parcel_fini(&u->in);
    }
}

static void on_link(uv_poll_t *watch, int status, int events)
{
    struct upgrade *u = watch->data;
    (void)status;
    if (events & UV_WRITABLE && parcel_send(&u->out, u->link) != -EAGAIN) {
        parcel_fini(&u->out);
        uv_poll_start(&u->link_watch, UV_READABLE, on_link);
    }
    if (events & UV_READABLE)
        read_link(u);
}

static void say_how(const siginfo_t *info, char *why, size_t size)
{
    if (info->si_code == CLD_EXITED)
        snprintf(why, size, "the new server, process %d, ended with status %d", info->si_pid,
                 info->si_status);
    else
        snprintf(why, size, "the new server, process %d, was ended by signal %d (%s)", info->si_pid,
                 info->si_status, strsignal(info->si_status));
}

/* It served, and has died. Nobody takes in what it would have. */
static void lose(struct upgrade *u, const char *why)
{
    log_error("%s, while this one finishes what it has", why);
    generations_stay(u->master);
}

static void on_end(uv_poll_t *watch, int status, int events)
{
    struct upgrade *u = watch->data;
    struct master *m = u->master;
    siginfo_t info = {0};
    char why[256];
    (void)status, (void)events;
    if (waitid(P_PIDFD, (id_t)u->pidfd, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0)
        return;
    u->pid = 0;
    uv_poll_stop(watch);
    say_how(&info, why, sizeof why);
    read_link(u); /* its last word */
    fail(u, why);
    if (u->state != DONE)
        drop(u);
    else if (!u->passed_on)
        lose(u, why);
    strays_look(m);
    supervisor_after_end(m);
}

/* --- the beginning --------------------------------------------------------------------------- */

static const char *hindrance(const struct master *m)
{
    if (m->leaving)
        return "this server has been upgraded already, and finishes what it has";
    if (m->stopping)
        return "the server stops";
    if (!m->ready)
        return "the server is not ready yet";
    if (m->upgrade)
        return upgrade_is_pending(m) ? "another upgrade is under way"
                                     : "the last one's process has not ended yet";
    if (m->reload)
        return "a reload is under way";
    if (m->pid == 1)
        return "process 1 can't go before the new one: with it all others end (a container is "
               "started anew instead)";
    return program_path() ? NULL : "where the program lies is not known";
}

static int watch(struct upgrade *u)
{
    struct master *m = u->master;
    u->end_watch.data = u->link_watch.data = u->timer.data = u;
    uv_timer_init(&m->loop, &u->timer);
    u->open_handles = HANDLES;
    if (uv_poll_init(&m->loop, &u->end_watch, u->pidfd) != 0 ||
        uv_poll_init(&m->loop, &u->link_watch, u->link) != 0)
        return -1;
    uv_poll_start(&u->end_watch, UV_READABLE, on_end);
    uv_poll_start(&u->link_watch, UV_READABLE | UV_WRITABLE, on_link);
    uv_timer_start(&u->timer, on_late, START_MS, 0);
    return 0;
}

void upgrade_begin(struct master *m, struct control_request *request)
{
    const char *why = hindrance(m);
    int links[2];
    struct upgrade *u = why ? NULL : calloc(1, sizeof *u);
    if (!u) {
        refuse(request, why ? why : "memory is out");
        return;
    }
    put_all(&u->out, m);
    pid_t pid = start(m, links);
    int pidfd = pid > 0 ? pidfd_open(pid, 0) : -1;
    if (pidfd < 0) {
        snprintf(u->why, sizeof u->why, "cannot make a process for it: %s", strerror(errno));
        refuse(request, u->why);
        if (pid > 0) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            close(links[0]);
        }
        parcel_fini(&u->out);
        free(u);
        return;
    }
    u->master = m;
    u->pid = pid;
    u->pidfd = pidfd;
    u->link = links[0];
    m->upgrade = u;
    if (request)
        control_keep(&u->waiting, request);
    log_info("upgrading: process %d of %s starts", pid, program_path());
    if (watch(u) != 0)
        fail(u, "descriptors or memory are out");
}

/* --- questions and the end ------------------------------------------------------------------- */

bool upgrade_is_pending(const struct master *m)
{
    return m->upgrade && (m->upgrade->state == OFFERED || m->upgrade->state == TOLD);
}

bool upgrade_holds(const struct master *m)
{
    return m->upgrade && m->upgrade->pid && m->upgrade->state != DONE;
}

bool upgrade_knows(const struct master *m, pid_t pid)
{
    return (m->upgrade && m->upgrade->pid == pid) || strays_have(m, pid);
}

void upgrade_stop(struct master *m, bool at_once)
{
    if (upgrade_is_pending(m))
        fail(m->upgrade, "the server stops");
    if (at_once && upgrade_holds(m))
        signal_it(m->upgrade, SIGKILL);
}

bool upgrade_pass_on(const struct master *m, int signal)
{
    if (!m->leaving || !m->upgrade || !m->upgrade->pid)
        return false;
    signal_it(m->upgrade, signal);
    return true;
}

void upgrade_say_reopened(const struct master *m)
{
    if (m->leaving && m->upgrade)
        say(m->upgrade, "logs");
}

void upgrade_forget(const struct master *m)
{
    if (!m->upgrade)
        return;
    close(m->upgrade->link);
    close(m->upgrade->pidfd);
}

void upgrade_fini(struct master *m)
{
    struct upgrade *u = m->upgrade;
    strays_free(m);
    if (!u)
        return;
    m->upgrade = NULL;
    control_answer_all(&u->waiting, u->state == DONE ? NULL : u->why);
    free_upgrade(u);
}
