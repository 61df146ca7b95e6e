/* SPDX-License-Identifier: MIT */
/* The control socket's end in the master: see server/control.h. A client has one place:
 *
 *     FREE -> READING   accepted; its line comes
 *          -> WAITING   its request is with a command; a hang-up frees the place, not the request
 *          -> SENDING   the answer goes out
 *          -> CLOSING   until libuv has let go of the handle
 *
 * One timer looks at the deadlines of all, and only while there is somebody. */
#include "server/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/socket.h"
#include "server/log.h"
#include "server/may_write.h"

enum {
    OWNER_ONLY = 0600,
    PATIENCE_MS = 5000, /* for a request's line; for some of the answer to be taken */
    MOMENT_MS = 200,    /* for the line, when others wait for a place */
    LOOK_MS = 100,
    WORDS = 16,
    BACKLOG = 128,
    SWEEPS = 16, /* reads of what a client sent beyond its line */
};

enum place_state { FREE, READING, WAITING, SENDING, CLOSING };

struct client {
    enum place_state state;
    struct control *control;
    int fd; /* -1 when there is none */
    uv_poll_t watch;
    int64_t deadline_ms;             /* monotonic; while READING and SENDING */
    struct control_request *request; /* while WAITING */
    char line[CONTROL_LINE];
    size_t len;
    char *answer;
    size_t answer_len, sent;
};

struct control_request {
    struct client *client; /* NULL: it has gone */
    struct control_request *next;
};

struct control {
    char *path;
    dev_t device; /* of the file that is ours */
    ino_t inode;
    bool borrowed;   /* it is another master's */
    int fd;          /* -1: listens no more */
    uv_loop_t *loop; /* NULL: not started yet, or closed */
    uv_poll_t watch;
    uv_timer_t look;
    bool paused; /* out of descriptors: the timer goes on accepting */
    const struct control_command *commands;
    bool (*refuses)(void *arg, const char *file, char *why, size_t why_size);
    void *arg;
    struct client clients[CONTROL_CLIENTS];
};

static int64_t now_ms(void)
{
    return (int64_t)(uv_hrtime() / 1000000);
}

/* --- a client's end -------------------------------------------------------------------------- */

static void go_on(struct control *c);

static void on_closed(uv_handle_t *watch)
{
    struct client *client = watch->data;
    client->state = FREE;
    if (client->control->paused && client->control->loop && client->control->fd >= 0)
        go_on(client->control);
}

/* What it has sent and we have not read would make its end a reset, and eat the answer. */
static void sweep(int fd)
{
    char bytes[CONTROL_LINE];
    for (int i = 0; i < SWEEPS; i++)
        if (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0)
            return;
}

static void end_client(struct client *client)
{
    if (client->request)
        client->request->client = NULL;
    client->request = NULL;
    free(client->answer);
    client->answer = NULL;
    client->state = CLOSING;
    if (client->control->loop)
        uv_close((uv_handle_t *)&client->watch, on_closed);
    else
        client->state = FREE;
    sweep(client->fd);
    close(client->fd);
    client->fd = -1;
}

/* --- answers --------------------------------------------------------------------------------- */

static void on_client(uv_poll_t *watch, int status, int events);

/* Send what the socket takes. Without a loop nobody waits for the rest. */
static void send_some(struct client *client)
{
    while (client->sent < client->answer_len) {
        ssize_t n = send(client->fd, client->answer + client->sent,
                         client->answer_len - client->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && client->control->loop &&
            uv_poll_start(&client->watch, UV_WRITABLE, on_client) == 0)
            return;
        if (n <= 0)
            break;
        client->sent += (size_t)n;
        client->deadline_ms = now_ms() + PATIENCE_MS;
    }
    end_client(client);
}

/* first: the answer's first line, with its end. */
static void answer(struct client *client, const char *first, const char *body, size_t len)
{
    size_t first_len = strlen(first);
    client->request = NULL;
    client->answer = malloc(first_len + len);
    if (!client->answer) {
        end_client(client);
        return;
    }
    memcpy(client->answer, first, first_len);
    if (len)
        memcpy(client->answer + first_len, body, len);
    client->answer_len = first_len + len;
    client->sent = 0;
    client->state = SENDING;
    client->deadline_ms = now_ms() + PATIENCE_MS;
    send_some(client);
}

static void refuse(struct client *client, const char *why)
{
    char first[1024];
    int n = snprintf(first, sizeof first - 1, "error: %s", why);
    size_t len = n < (int)sizeof first - 1 ? (size_t)n : sizeof first - 2;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)first[i] < 0x20 || first[i] == 0x7f)
            first[i] = '?'; /* it is one line, whatever it quotes */
    memcpy(first + len, "\n", 2);
    answer(client, first, NULL, 0);
}

void control_answer(struct control_request *request, const char *body, size_t len)
{
    if (request->client)
        answer(request->client, "ok\n", body, len);
    free(request);
}

void control_refuse(struct control_request *request, const char *why)
{
    if (request->client)
        refuse(request->client, why);
    free(request);
}

void control_again(struct control_request *request)
{
    if (request->client)
        answer(request->client, "again\n", NULL, 0);
    free(request);
}

void control_keep(struct control_waiters *waiters, struct control_request *request)
{
    request->next = waiters->first;
    waiters->first = request;
}

void control_answer_all(struct control_waiters *waiters, const char *why)
{
    struct control_request *next, *request = waiters->first;
    waiters->first = NULL;
    for (; request; request = next) {
        next = request->next;
        if (why)
            control_refuse(request, why);
        else
            control_answer(request, NULL, 0);
    }
}

/* --- requests -------------------------------------------------------------------------------- */

static int hex(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, c >= 'A' && c <= 'F' ? c | 0x20 : c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* %XX in place. Returns false if a % stands for nothing. */
static bool decode(char *word)
{
    char *to = word;
    for (const char *at = word; *at; at++, to++) {
        *to = *at;
        if (*at != '%')
            continue;
        int high = hex(at[1]), low = high < 0 ? -1 : hex(at[2]);
        if (low < 0 || high + low == 0)
            return false;
        *to = (char)(high << 4 | low);
        at += 2;
    }
    *to = '\0';
    return true;
}

/* Cut line into words. Returns how many, or 0 if it can't be a request. */
static unsigned cut(char *line, char *words[WORDS])
{
    char *rest = NULL;
    unsigned n = 0;
    for (char *w = strtok_r(line, " ", &rest); w; w = strtok_r(NULL, " ", &rest)) {
        if (n == WORDS || !decode(w))
            return 0;
        words[n++] = w;
    }
    return n;
}

/* How many of the words are those of the command; 0: they are another's. */
static unsigned matches(const struct control_command *command, char **words, unsigned n)
{
    unsigned used = 0;
    for (const char *at = command->words; *at; used++) {
        size_t len = strcspn(at, " ");
        if (used == n || strlen(words[used]) != len || memcmp(words[used], at, len) != 0)
            return 0;
        at += len + (at[len] == ' ');
    }
    return used;
}

static void run(struct client *client, const struct control_command *command, char **arguments)
{
    struct control_request *request = calloc(1, sizeof *request);
    if (!request) {
        refuse(client, "memory is out");
        return;
    }
    request->client = client;
    client->request = request;
    client->state = WAITING;
    uv_poll_start(&client->watch, UV_DISCONNECT, on_client);
    command->run(client->control->arg, request, arguments);
}

static void serve_line(struct client *client)
{
    char *all[WORDS], **words = all, why[512];
    unsigned n = cut(client->line, all);
    const struct control *control = client->control;
    if (n > 1 && words[0][0] == '=') {
        if (control->refuses && control->refuses(control->arg, words[0] + 1, why, sizeof why)) {
            refuse(client, why);
            return;
        }
        words++;
        n--;
    }
    for (const struct control_command *c = control->commands; n && c->words; c++) {
        unsigned used = matches(c, words, n);
        if (used && n == used + c->arguments) {
            run(client, c, words + used);
            return;
        }
    }
    if (n)
        snprintf(why, sizeof why, "this server knows no \"%.100s\" of %u words", words[0], n);
    refuse(client, n ? why : "this is no request: a line of words was expected");
}

/* Read until the line is whole. */
static void read_some(struct client *client)
{
    ssize_t n = recv(client->fd, client->line + client->len, sizeof client->line - client->len,
                     MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n == 0 && client->len) {
        refuse(client, "this request's line has no end");
        return;
    }
    if (n <= 0) {
        end_client(client);
        return;
    }
    char *end = memchr(client->line + client->len, '\n', (size_t)n);
    client->len += (size_t)n;
    if (!end && client->len < sizeof client->line)
        return;
    if (!end) {
        refuse(client, "this line is too long");
        return;
    }
    *end = '\0';
    if (strlen(client->line) != (size_t)(end - client->line)) {
        refuse(client, "this is no request: it holds a zero byte");
        return;
    }
    serve_line(client);
}

/* A client that has only said that it sends no more still wants its answer. */
static void look_for_hang_up(struct client *client)
{
    struct pollfd p = {.fd = client->fd};
    if (poll(&p, 1, 0) > 0)
        end_client(client);
    else
        uv_poll_stop(&client->watch); /* or this would be told again and again */
}

static void on_client(uv_poll_t *watch, int status, int events)
{
    struct client *client = watch->data;
    (void)status, (void)events;
    switch (client->state) {
    case READING:
        read_some(client);
        return;
    case SENDING:
        send_some(client);
        return;
    case WAITING:
        look_for_hang_up(client);
        return;
    case FREE:
    case CLOSING:
        return;
    }
}

/* --- coming and deadlines -------------------------------------------------------------------- */

static struct client *free_place(struct control *c)
{
    for (size_t i = 0; i < CONTROL_CLIENTS; i++)
        if (c->clients[i].state == FREE)
            return &c->clients[i];
    return NULL;
}

/* No place: of those who have not asked yet the oldest goes, so that who asks is heard. It has had a
 * moment to ask in, and what it may have said in it is read first. */
static void end_oldest(struct control *c)
{
    struct client *oldest = NULL;
    for (size_t i = 0; i < CONTROL_CLIENTS; i++) {
        struct client *client = &c->clients[i];
        if (client->state == CLOSING)
            return; /* that place will do */
        if (client->state == READING && (!oldest || client->deadline_ms < oldest->deadline_ms))
            oldest = client;
    }
    if (!oldest || now_ms() < oldest->deadline_ms - PATIENCE_MS + MOMENT_MS)
        return;
    read_some(oldest);
    if (oldest->state == READING)
        refuse(oldest, "too many clients, and this one has not asked for anything");
}

static bool may_ask(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

static void on_look(uv_timer_t *timer);

static void take_client(struct control *c, struct client *client, int fd)
{
    *client = (struct client){.control = c, .fd = fd, .watch.data = client};
    if (uv_poll_init(c->loop, &client->watch, fd) != 0) {
        close(fd);
        return;
    }
    client->state = READING;
    client->deadline_ms = now_ms() + PATIENCE_MS;
    uv_timer_start(&c->look, on_look, LOOK_MS, LOOK_MS);
    if (!may_ask(fd))
        refuse(client, "only root and the user that the server runs as may ask");
    else if (uv_poll_start(&client->watch, UV_READABLE, on_client) != 0)
        end_client(client);
}

/* The next one stays in the kernel while there is no place, or are no descriptors. */
static void accept_some(struct control *c)
{
    for (;;) {
        struct client *place = free_place(c);
        if (!place)
            end_oldest(c);
        int fd = place ? accept4(c->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) : -1;
        if (place && fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        c->paused = fd < 0 && (!place || errno != EAGAIN);
        if (fd < 0)
            break;
        take_client(c, place, fd);
    }
    if (!c->paused)
        return;
    uv_poll_stop(&c->watch);
    uv_timer_start(&c->look, on_look, LOOK_MS, LOOK_MS);
}

static void on_listener(uv_poll_t *watch, int status, int events)
{
    (void)status, (void)events;
    accept_some(watch->data);
}

static void go_on(struct control *c)
{
    if (uv_poll_start(&c->watch, UV_READABLE, on_listener) != 0)
        return;
    c->paused = false;
    accept_some(c);
}

static void on_look(uv_timer_t *timer)
{
    struct control *c = timer->data;
    bool idle = true;
    for (size_t i = 0; i < CONTROL_CLIENTS; i++) {
        struct client *client = &c->clients[i];
        bool late = now_ms() >= client->deadline_ms;
        if (client->state == READING && late)
            refuse(client, "no request came");
        else if (client->state == SENDING && late)
            end_client(client);
        idle &= client->state != READING && client->state != SENDING;
    }
    if (c->paused && c->fd >= 0)
        go_on(c);
    else if (idle)
        uv_timer_stop(timer);
}

/* --- life ------------------------------------------------------------------------------------ */

static int check_length(const char *path, char *why, size_t why_size)
{
    size_t most = sizeof((struct sockaddr_un *)0)->sun_path - 1;
    if (strlen(path) <= most)
        return 0;
    snprintf(why, why_size,
             "control: this path has %zu bytes, and a socket's can't have more than %zu: %s",
             strlen(path), most, path);
    return -1;
}

int control_check(const char *path, char *why, size_t why_size)
{
    struct stat st;
    if (check_length(path, why, why_size) != 0)
        return -1;
    if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
        snprintf(why, why_size, "control %s is there already, and is no socket", path);
        return -1;
    }
    return may_write_folder_of(path, why, why_size);
}

static int know_file(struct control *c)
{
    struct stat st;
    if (lstat(c->path, &st) != 0)
        return -1;
    c->device = st.st_dev;
    c->inode = st.st_ino;
    return 0;
}

struct control *control_open(const char *path, char *why, size_t why_size)
{
    char reason[512];
    if (check_length(path, why, why_size) != 0)
        return NULL;
    struct control *c = calloc(1, sizeof *c);
    if (!c || !(c->path = strdup(path))) {
        snprintf(why, why_size, "memory is out");
        free(c);
        return NULL;
    }
    struct socket_address address = {.unix_path = path, .mode = OWNER_ONLY};
    c->fd = socket_listen(&address, BACKLOG, reason, sizeof reason);
    if (c->fd >= 0 && know_file(c) == 0)
        return c;
    snprintf(why, why_size, "cannot listen on control socket %s: %s", path, reason);
    free(c->path);
    free(c);
    return NULL;
}

struct control *control_adopt(const char *path, int fd, char *why, size_t why_size)
{
    struct control *c = calloc(1, sizeof *c);
    if (c && (c->path = strdup(path)) && (c->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) >= 0) {
        c->borrowed = true;
        know_file(c);
        return c;
    }
    snprintf(why, why_size, "memory or descriptors are out");
    if (c)
        free(c->path);
    free(c);
    return NULL;
}

int control_start(struct control *c, uv_loop_t *loop, const struct control_command *commands,
                  bool (*refuses)(void *arg, const char *file, char *why, size_t why_size),
                  void *arg)
{
    c->commands = commands;
    c->refuses = refuses;
    c->arg = arg;
    c->look.data = c->watch.data = c;
    uv_timer_init(loop, &c->look);
    if (uv_poll_init(loop, &c->watch, c->fd) != 0)
        return -1;
    c->loop = loop;
    c->borrowed = false;
    return uv_poll_start(&c->watch, UV_READABLE, on_listener) == 0 ? 0 : -1;
}

int control_fd(const struct control *c)
{
    return c->fd;
}

bool control_is_borrowed(const struct control *c)
{
    return c->borrowed;
}

void control_forget(const struct control *c)
{
    if (!c)
        return;
    if (c->fd >= 0)
        close(c->fd);
    for (size_t i = 0; i < CONTROL_CLIENTS; i++)
        if (c->clients[i].state != FREE && c->clients[i].fd >= 0)
            close(c->clients[i].fd);
}

/* Listen no more; the file goes if it is ours. */
static void close_listener(struct control *c)
{
    struct stat st;
    if (c->fd < 0)
        return;
    if (!c->borrowed && lstat(c->path, &st) == 0 && st.st_dev == c->device && st.st_ino == c->inode)
        unlink(c->path);
    close(c->fd);
    c->fd = -1;
}

void control_stop(struct control *c)
{
    if (!c)
        return;
    c->loop = NULL;
    close_listener(c);
}

void control_leave(struct control *c, bool taken)
{
    if (!c)
        return;
    c->borrowed = taken;
    uv_poll_stop(&c->watch);
    close_listener(c);
    for (size_t i = 0; i < CONTROL_CLIENTS; i++)
        if (c->clients[i].state == READING)
            answer(&c->clients[i], "again\n", NULL, 0);
}

void control_free(struct control *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < CONTROL_CLIENTS; i++) {
        struct client *client = &c->clients[i];
        if (client->state != FREE && client->state != CLOSING)
            end_client(client);
    }
    free(c->path);
    free(c);
}
