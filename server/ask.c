/* SPDX-License-Identifier: MIT */
/* The control socket's client: see server/ask.h. */
#include "server/ask.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/config.h"
#include "server/control.h"

enum { CONNECT_MS = 5000, TRIES = 5, ASK_WORDS = 8 };

struct answer {
    char *bytes;
    size_t len, room;
};

static int say(const char *path, const char *what)
{
    fprintf(stderr, "modus: the server at %s %s\n", path, what);
    return -1;
}

/* --- the request ----------------------------------------------------------------------------- */

/* Words with a blank between; what would part a word or end the line is written %XX. Returns the
 * length, or 0 if it is too long. */
static size_t write_request(char line[CONTROL_LINE], const char *const *words, int count)
{
    size_t n = 0;
    for (int i = 0; i < count; i++) {
        for (const unsigned char *c = (const unsigned char *)words[i]; *c; c++) {
            bool plain = *c > 0x20 && *c != 0x7f && *c != '%';
            if (n + 5 > CONTROL_LINE)
                return 0;
            n += (size_t)snprintf(line + n, CONTROL_LINE - n, plain ? "%c" : "%%%02x", *c);
        }
        line[n++] = i + 1 < count ? ' ' : '\n';
    }
    return n;
}

/* A server that refuses at once may have gone before all is sent; its answer is there all the same. */
static void send_all(int fd, const char *line, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, line, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        line += n;
        len -= (size_t)n;
    }
}

/* --- the socket ------------------------------------------------------------------------------ */

static void set_limit(int fd, int option, int ms)
{
    struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, option, &limit, sizeof limit);
}

static int say_not_connected(const char *path, int error)
{
    if (error == ENOENT || error == ECONNREFUSED || error == ENOTDIR)
        fprintf(stderr, "modus: no server is running at %s (%s)\n", path, strerror(error));
    else if (error == EACCES || error == EPERM)
        fprintf(stderr, "modus: cannot ask at %s: %s; only root and the server's user may\n", path,
                strerror(error));
    else if (error == EAGAIN)
        return say(path, "does not answer: it takes no more requests");
    else
        fprintf(stderr, "modus: cannot ask at %s: %s\n", path, strerror(error));
    return -1;
}

/* Returns a descriptor, or -1 when that was said. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return say_not_connected(path, ENAMETOOLONG);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return say_not_connected(path, errno);
    set_limit(fd, SO_SNDTIMEO, CONNECT_MS);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int error = errno;
    close(fd);
    return say_not_connected(path, error);
}

/* --- the answer ------------------------------------------------------------------------------ */

static bool has_room(struct answer *a)
{
    if (a->room - a->len > 4096)
        return true;
    size_t room = 2 * a->room + 16384;
    char *bytes = realloc(a->bytes, room);
    if (!bytes)
        return false;
    a->bytes = bytes;
    a->room = room;
    return true;
}

/* All of it before any is printed: who reads what we print may be slow, and the server does not wait
 * for that. Returns 0, or -1 when it was said why not. */
static int read_answer(int fd, const char *path, struct answer *a)
{
    while (has_room(a)) {
        ssize_t n = recv(fd, a->bytes + a->len, a->room - a->len - 1, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return say(path, "does not answer");
        if (n > 0) {
            a->len += (size_t)n;
            continue;
        }
        a->bytes[a->len] = '\0'; /* it ended, or was reset after its last word */
        if (memchr(a->bytes, '\n', a->len))
            return 0;
        return say(path, "has ended without an answer");
    }
    return say(path, "gives an answer that memory has no room for");
}

static int print_answer(const char *path, const struct answer *a)
{
    static const char fine[] = "ok\n", error[] = "error: ";
    char *end = strchr(a->bytes, '\n');
    if (strncmp(a->bytes, fine, sizeof fine - 1) == 0) {
        const char *body = end + 1;
        fwrite(body, 1, a->len - (size_t)(body - a->bytes), stdout);
        return fflush(stdout) == 0 ? 0 : say(path, "has answered, and that can't be written");
    }
    if (end)
        *end = '\0';
    if (strncmp(a->bytes, error, sizeof error - 1) == 0)
        fprintf(stderr, "modus: %s\n", a->bytes + sizeof error - 1);
    else
        say(path, "is none of ours: it does not answer as one");
    return -1;
}

/* The server that had the socket has handed it to another. */
static bool is_again(const struct answer *a)
{
    return strncmp(a->bytes, "again\n", 6) == 0;
}

static int talk(const char *path, const char *line, size_t len, int limit_ms, int tries)
{
    struct answer a = {0};
    int fd = connect_to(path);
    if (fd < 0)
        return -1;
    set_limit(fd, SO_RCVTIMEO, limit_ms);
    send_all(fd, line, len);
    int rc = read_answer(fd, path, &a);
    bool again = rc == 0 && is_again(&a) && tries > 1;
    if (rc == 0 && !again)
        rc = print_answer(path, &a);
    free(a.bytes);
    close(fd);
    return again ? talk(path, line, len, limit_ms, tries - 1) : rc;
}

int ask_server(const char *file, const char *const *words, int count, int limit_ms)
{
    char path[PATH_MAX], why[1024], line[CONTROL_LINE];
    if (config_read_control(file, path, sizeof path, why, sizeof why) != 0) {
        fprintf(stderr, "%s; so where the server listens for commands is not known\n", why);
        return 1;
    }
    if (path[0] == '\0') {
        fprintf(stderr, "modus: %s has control = \"\": its server takes no commands\n", file);
        return 1;
    }
    /* First whose server is meant: others may have their socket there. */
    char meant[PATH_MAX + 1] = "=";
    const char *all[ASK_WORDS + 1] = {meant};
    if (!realpath(file, meant + 1) || count > ASK_WORDS) {
        fprintf(stderr, "modus: %s: %s\n", file, strerror(count > ASK_WORDS ? E2BIG : errno));
        return 1;
    }
    memcpy(all + 1, words, (size_t)count * sizeof *words);
    size_t len = write_request(line, all, count + 1);
    if (len == 0) {
        fprintf(stderr, "modus: these words are too long for a request\n");
        return 1;
    }
    return talk(path, line, len, limit_ms, TRIES) == 0 ? 0 : 1;
}
