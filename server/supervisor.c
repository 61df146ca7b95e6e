/* SPDX-License-Identifier: MIT */
/* The master's life: build everything, bind, fork, say so; then signals until it is told to stop.
 * See server/supervisor.h. */
#include "server/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "net/tls.h"
#include "server/descriptors.h"
#include "server/log.h"
#include "server/log_file.h"
#include "server/may_write.h"
#include "server/notify.h"
#include "server/pid_file.h"
#include "server/supervisor_priv.h"
#include "server/title.h"

enum {
    ARENA_BYTES_LOG = 32,
    PARTICIPANTS = 4096,
    ONE_WISH_MS = 100,
};

/* --- checking -------------------------------------------------------------------------------- */

static int find_user(struct master *m, char *why, size_t why_size)
{
    const struct config *c = m->config;
    if (c->user[0] == '\0')
        return 0;
    struct passwd *pw = getpwnam(c->user);
    if (!pw) {
        snprintf(why, why_size, "%s:%d: no user \"%s\" on this system", c->file, c->line_user,
                 c->user);
        return -1;
    }
    m->uid = pw->pw_uid;
    m->gid = pw->pw_gid;
    m->drop_user = geteuid() == 0 && pw->pw_uid != 0;
    return 0;
}

/* Only root can become another user; somebody who names one should hear that it did not happen. */
static void say_user_kept(const struct master *m)
{
    const struct config *c = m->config;
    if (c->user[0] != '\0' && geteuid() != 0 && geteuid() != m->uid)
        log_warn("%s:%d: user \"%s\" is not taken: only root can become another user", c->file,
                 c->line_user, c->user);
}

static int refuse(const struct config *c, int line, const char *reason, char *why, size_t why_size)
{
    snprintf(why, why_size, "%s:%d: %s", c->file, line, reason);
    return -1;
}

static int check_log(const char *path, char *why, size_t why_size)
{
    return log_file_is_stream(path) ? 0 : may_write_file(path, why, why_size);
}

/* What is opened or made at the start, asked without doing it. */
static int check_files(const struct config *c, char *why, size_t why_size)
{
    char reason[512];
    if (check_log(c->error_log, reason, sizeof reason) != 0)
        return refuse(c, c->line_error_log, reason, why, why_size);
    if (c->line_pid_file && c->pid_file[0] &&
        pid_file_check(c->pid_file, reason, sizeof reason) != 0)
        return refuse(c, c->line_pid_file, reason, why, why_size);
    if (c->line_control && c->control[0] && control_check(c->control, reason, sizeof reason) != 0)
        return refuse(c, c->line_control, reason, why, why_size);
    for (size_t i = 0; i < c->listener_count; i++) {
        const struct config_listener *l = &c->listeners[i];
        if (l->access_log && check_log(l->access_log, reason, sizeof reason) != 0)
            return refuse(c, l->line_access_log, reason, why, why_size);
        for (size_t j = 0; j < l->address_count; j++) {
            const struct config_address *a = &l->addresses[j];
            if (a->is_unix && may_write_folder_of(a->path, reason, sizeof reason) != 0)
                return refuse(c, a->line, reason, why, why_size);
        }
    }
    return 0;
}

int supervise_check(struct config *config, char *why, size_t why_size)
{
    struct handler_env env = {0};
    struct master m = {.config = config};
    if (find_user(&m, why, why_size) != 0)
        return -1;
    for (size_t i = 0; i < config->listener_count; i++)
        if (config_open_handlers(config, &config->listeners[i], &env, why, why_size) != 0)
            return -1;
    for (size_t i = 0; i < config->listener_count; i++) {
        struct listener l;
        if (listener_build(&l, config, &config->listeners[i], NULL, why, why_size) != 0)
            return -1;
        listener_close(&l);
    }
    return check_files(config, why, why_size);
}

/* --- starting -------------------------------------------------------------------------------- */

static int open_logs(struct master *m, char *why, size_t why_size)
{
    const struct config *c = m->config;
    char reason[512];
    if (log_open(c->error_log, c->log_level, reason, sizeof reason) == 0)
        return 0;
    return refuse(c, c->line_error_log, reason, why, why_size);
}

static int build_generations(struct master *m, char *why, size_t why_size)
{
    struct config *c = m->config;
    struct generation **end = &m->generations;
    struct listing **listings = calloc(c->listener_count, sizeof *listings);
    if (!listings)
        return -1;
    for (size_t i = 0; i < c->listener_count; i++) {
        struct generation *g = generation_new(m, c, &c->listeners[i], NULL, why, why_size);
        if (!g) {
            free(listings);
            return -1;
        }
        g->place = i;
        *end = g;
        end = &g->next;
        listings[i] = g->listing;
    }
    directory_set(m->directory, listings, c->listener_count);
    free(listings);
    return 0;
}

/* The default name may be in a folder that is not ours, or be another server's whose file stands
 * beside ours: who named none can do without. */
static int take_pid_file(struct master *m, char *why, size_t why_size)
{
    const struct config *c = m->config;
    char reason[512];
    const struct inheritance *in = m->inheritance;
    if (in && in->pid_file && strcmp(in->pid_file, c->pid_file) == 0) {
        m->pid_fd = fcntl(in->pid_fd, F_DUPFD_CLOEXEC, 0);
        m->pid_borrowed = true;
        return m->pid_fd >= 0 ? 0 : refuse(c, c->line_pid_file, strerror(errno), why, why_size);
    }
    m->pid_fd = c->pid_file[0] ? pid_file_take(c->pid_file, reason, sizeof reason) : -1;
    if (m->pid_fd >= 0 || c->pid_file[0] == '\0')
        return 0;
    if (c->line_pid_file == 0) {
        log_warn("no pid file: %s", reason);
        return 0;
    }
    return refuse(c, c->line_pid_file, reason, why, why_size);
}

/* As with the pid file. */
static int open_control(struct master *m, char *why, size_t why_size)
{
    const struct config *c = m->config;
    char reason[512];
    const struct inheritance *in = m->inheritance;
    if (in && in->control && strcmp(in->control, c->control) == 0)
        m->control = control_adopt(c->control, in->control_fd, reason, sizeof reason);
    else if (c->control[0])
        m->control = control_open(c->control, reason, sizeof reason);
    if (m->control || c->control[0] == '\0')
        return 0;
    if (c->line_control == 0) {
        log_warn("no control socket: %s", reason);
        return 0;
    }
    return refuse(c, c->line_control, reason, why, why_size);
}

/* What others have opened for us has been taken. Of another master's something is told at `ready`. */
static int look_at_inheritance(struct master *m, char *why, size_t why_size)
{
    struct inheritance *in = m->inheritance;
    if (!in)
        return 0;
    if (in->link >= 0)
        return predecessor_open(m, in->link, why, why_size);
    inherit_say_left(in);
    inherit_free(in);
    m->inheritance = NULL;
    return 0;
}

/* Everything that can be refused comes first; nothing is forked before all of it holds. */
static int prepare(struct master *m, char *why, size_t why_size)
{
    snprintf(why, why_size, "no memory");
    if (open_logs(m, why, why_size) != 0 || find_user(m, why, why_size) != 0)
        return -1;
    say_user_kept(m);
    descriptors_raise(m->config);
    if (modus_arena_open(&m->arena, (size_t)1 << ARENA_BYTES_LOG, PARTICIPANTS) != 0) {
        snprintf(why, why_size, "cannot reserve shared memory");
        return -1;
    }
    m->bell = modus_arena_alloc(m->arena, sizeof *m->bell, 64);
    m->directory = directory_new(m->arena);
    if (!m->bell || !m->directory || modus_doorbell_init(m->bell) != 0 ||
        pipe2(m->life_line, O_CLOEXEC | O_NONBLOCK) != 0) {
        snprintf(why, why_size, "no descriptors: %s", strerror(errno));
        return -1;
    }
    if (build_generations(m, why, why_size) != 0)
        return -1;
    if (m->drop_user)
        log_give(m->config->error_log, m->uid, m->gid);
    if (take_pid_file(m, why, why_size) != 0 || open_control(m, why, why_size) != 0)
        return -1;
    return look_at_inheritance(m, why, why_size);
}

/* --- events ---------------------------------------------------------------------------------- */

void supervisor_after_end(struct master *m)
{
    bool over = (m->stopping || m->leaving) && m->running == 0;
    bool alone = !m->predecessor || predecessor_serves(m) || m->killing;
    if (over && alone && !upgrade_holds(m))
        uv_stop(&m->loop);
}

static void kill_all(struct master *m)
{
    m->killing = true;
    upgrade_stop(m, true);
    for (struct generation *g = m->generations; g; g = g->next)
        workers_kill(g);
    supervisor_after_end(m);
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct master *m = timer->data;
    log_warn("drain_timeout is over: what is left is cut");
    kill_all(m);
}

/* At the start, a server that can't come up says so and stops, instead of trying for ever. Later,
 * what serves goes on. */
void supervisor_cannot_start(struct generation *g, const char *how)
{
    struct master *m = g->master;
    char why[512];
    snprintf(why, sizeof why, "%s:%d: %s could not start: %s", g->config->file,
             g->listener.conf->line, listener_name(&g->listener), how);
    if (m->ready) {
        reload_fail(m, why);
        return;
    }
    if (!predecessor_refuse(m, why))
        log_error("a worker could not start: the server stops");
    supervisor_give_up(m);
}

/* `timeout`, `sudo` and some shells pass a signal on that we have had ourselves: two in one moment
 * are one wish. */
void supervisor_stop(struct master *m)
{
    int64_t now_ms = (int64_t)(uv_hrtime() / 1000000);
    if (m->stopping && now_ms - m->stop_ms < ONE_WISH_MS)
        return;
    predecessor_tell(m, "stop");
    if (m->stopping) {
        log_info("stopping at once");
        kill_all(m);
        return;
    }
    if (predecessor_serves(m)) {
        (void)predecessor_refuse(m, "the new server was told to stop");
        supervisor_give_up(m);
        return;
    }
    m->stop_ms = now_ms;
    long long limit_ms = m->config->drain_timeout_ms;
    bool whole = limit_ms % 1000 == 0;
    log_info("stopping: requests in progress may take up to %lld %s; a second signal (Ctrl-C, "
             "TERM) ends them at once",
             whole ? limit_ms / 1000 : limit_ms, whole ? "s" : "ms");
    m->stopping = true;
    notify("STOPPING=1\nSTATUS=stopping: requests in progress end");
    reload_stop(m);
    upgrade_stop(m, false);
    uv_timer_start(&m->drain_timer, on_drain_timeout, (uint64_t)m->config->drain_timeout_ms, 0);
    for (struct generation *g = m->generations; g; g = g->next)
        generation_stop(g);
    supervisor_after_end(m);
}

void supervisor_leave(struct master *m)
{
    m->leaving = true;
    supervisor_after_end(m);
}

void supervisor_give_up(struct master *m)
{
    m->exit_status = 1;
    m->stopping = true;
    kill_all(m);
}

static void on_reloaded(void *arg, const char *why)
{
    if (why == reload_elsewhere)
        upgrade_pass_on(arg, SIGHUP);
}

static void on_signal(uv_poll_t *watch, int status, int events)
{
    struct master *m = watch->data;
    struct signalfd_siginfo info;
    (void)status, (void)events;
    while (read(m->signal_fd, &info, sizeof info) == sizeof info) {
        switch (info.ssi_signo) {
        case SIGTERM:
        case SIGINT:
        case SIGQUIT:
            supervisor_stop(m);
            break;
        case SIGUSR1:
            reopen_logs(m, NULL);
            break;
        case SIGHUP:
            reload_begin(m, on_reloaded, m);
            break;
        default:
            upgrade_begin(m, NULL);
        }
    }
}

void supervisor_notify_serving(const struct master *m, const char *what)
{
    size_t n = m->config->listener_count;
    notify("READY=1\nSTATUS=serving %zu listener%s%s%s", n, n == 1 ? "" : "s", what ? "; " : "",
           what ? what : "");
}

/* From the loop, so that the manager hears it only while that turns. */
static void on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    notify_alive();
}

void supervisor_serve(struct master *m)
{
    for (struct generation *g = m->generations; g; g = g->next)
        generation_serve(g);
    m->ready = true;
    log_announce("ready");
    supervisor_notify_serving(m, NULL);
    uint64_t half_ms = notify_watchdog_us() / 2000;
    if (half_ms)
        uv_timer_start(&m->watchdog_timer, on_watchdog, 0, half_ms);
    reload_look(m);
    recycle_look(m);
}

static void look_ready(struct master *m)
{
    for (const struct generation *g = m->generations; g; g = g->next)
        if (!workers_ready(g))
            return;
    supervisor_serve(m);
}

static void on_bell(uv_poll_t *watch, int status, int events)
{
    struct master *m = watch->data;
    (void)status, (void)events;
    modus_doorbell_hear(m->bell);
    if (m->stopping)
        return;
    if (!m->ready && m->predecessor) {
        predecessor_ready(m);
        return;
    }
    if (!m->ready) {
        look_ready(m);
        return;
    }
    reload_look(m);
    recycle_look(m);
}

static int open_loop(struct master *m)
{
    static const int handled[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof handled / sizeof handled[0]; i++)
        sigaddset(&set, handled[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    m->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (m->signal_fd < 0 || uv_loop_init(&m->loop) != 0)
        return -1;
    m->signal_watch.data = m->bell_watch.data = m->drain_timer.data = m->port_timer.data = m;
    m->reload_timer.data = m->logs_timer.data = m->recycle_timer.data = m;
    uv_timer_init(&m->loop, &m->drain_timer);
    uv_timer_init(&m->loop, &m->port_timer);
    uv_timer_init(&m->loop, &m->reload_timer);
    uv_timer_init(&m->loop, &m->logs_timer);
    uv_timer_init(&m->loop, &m->watchdog_timer);
    uv_timer_init(&m->loop, &m->recycle_timer);
    if (m->predecessor && predecessor_start(m) != 0)
        return -1;
    if (m->control && !m->predecessor &&
        control_start(m->control, &m->loop, commands, is_for_another, m) != 0)
        return -1;
    if (uv_poll_init(&m->loop, &m->signal_watch, m->signal_fd) != 0 ||
        uv_poll_start(&m->signal_watch, UV_READABLE, on_signal) != 0 ||
        uv_poll_init(&m->loop, &m->bell_watch, modus_doorbell_fd(m->bell)) != 0)
        return -1;
    return uv_poll_start(&m->bell_watch, UV_READABLE, on_bell);
}

/* --- ending ---------------------------------------------------------------------------------- */

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

/* Who asked for the end hears of it when all is given back, and another server can start. */
static void tear_down(struct master *m)
{
    control_stop(m->control);
    reload_stop(m);
    switches_stop(m);
    predecessor_fini(m);
    inherit_free(m->inheritance);
    if (m->pid_fd >= 0 && m->pid_borrowed)
        close(m->pid_fd);
    else if (m->pid_fd >= 0)
        pid_file_give_back(m->config->pid_file, m->pid_fd);
    struct config *config = m->config;
    while (m->generations) {
        struct generation *g = m->generations;
        m->generations = g->next;
        generation_free(g);
    }
    m->config = NULL;
    config_free(config);
    free(m->lent);
    modus_arena_close(m->arena);
    upgrade_fini(m); /* with the link's end the next master takes us for ended */
    control_answer_all(&m->reopens, "the server has ended");
    control_answer_all(&m->stops, NULL);
    control_free(m->control);
}

static void start_all(struct master *m)
{
    for (struct generation *g = m->generations; g; g = g->next) {
        if (workers_start(g) == 0)
            continue;
        (void)predecessor_refuse(m, "the processes of a listener cannot be made");
        supervisor_give_up(m);
        return;
    }
}

static int serve(struct master *m)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (open_loop(m) != 0) {
        log_error("the master cannot start its loop");
        return 1;
    }
    for (const struct generation *g = m->generations; g && !m->predecessor; g = g->next)
        generation_announce(g);
    title_set("master %s", m->config->file);
    start_all(m);
    if (!m->stopping || m->running)
        uv_run(&m->loop, UV_RUN_DEFAULT);
    uv_walk(&m->loop, close_handle, NULL);
    uv_run(&m->loop, UV_RUN_DEFAULT);
    uv_loop_close(&m->loop);
    if (m->exit_status == 0)
        log_info(m->leaving ? "process %d has finished what it had" : "stopped", m->pid);
    return m->exit_status;
}

int supervise(struct config *config, struct inheritance *inheritance)
{
    struct master m = {.config = config,
                       .inheritance = inheritance,
                       .signal_fd = -1,
                       .pid_fd = -1,
                       .life_line = {-1, -1},
                       .switches.pipe = {-1, -1}};
    char why[1024];
    /* What they say write(2) says too, and then a line of a log is lost, and no process. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    notify_init();
    notify_hush(inheritance && inheritance->link >= 0); /* we are not the main process yet */
    snapshot_init(&m);
    int status = 1;
    if (prepare(&m, why, sizeof why) == 0)
        status = serve(&m);
    else if (!inherit_refuse(m.inheritance, why))
        fprintf(stderr, "%s\n", why);
    tear_down(&m);
    return status;
}
