/* SPDX-License-Identifier: MIT */
/* The error log: see server/log.h. On standard error a line begins with "modus: ", in a file with
 * the time, the level and the process. */
#include "server/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/log_file.h"

enum { LINE_SIZE = 1024 };

struct log {
    int fd;
    const char *path; /* NULL: standard error */
    enum config_level level;
};

static struct log the_log = {.fd = STDERR_FILENO, .level = LEVEL_INFO};
static struct log prepared = {.fd = -1};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

int log_prepare(const char *path, enum config_level level, char *why, size_t why_size)
{
    int fd = log_file_open(path, why, why_size);
    if (fd < 0)
        return -1;
    log_forget();
    prepared =
        (struct log){.fd = fd, .path = log_file_is_stream(path) ? NULL : path, .level = level};
    return 0;
}

void log_take(void)
{
    if (prepared.fd < 0)
        return;
    if (the_log.path)
        close(the_log.fd);
    the_log = prepared;
    prepared.fd = -1;
}

void log_forget(void)
{
    if (prepared.fd >= 0 && prepared.path)
        close(prepared.fd);
    prepared.fd = -1;
}

int log_open(const char *path, enum config_level level, char *why, size_t why_size)
{
    if (log_prepare(path, level, why, why_size) != 0)
        return -1;
    log_take();
    return 0;
}

int log_reopen(void)
{
    char why[512];
    if (!the_log.path || log_file_reopen(the_log.fd, the_log.path, why, sizeof why) == 0)
        return 0;
    log_warn("%s; the old file goes on", why);
    return -1;
}

/* Through a descriptor, and only what can be nothing but the log: who may write in its folder could
 * have put a link to somebody else's file in its place. */
void log_give(const char *path, unsigned uid, unsigned gid)
{
    struct stat st;
    if (!path || *path != '/')
        return;
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) != 0)
        log_warn("cannot give %s to the user: %s", path, strerror(errno));
    else if (S_ISREG(st.st_mode) && st.st_nlink == 1 && fchown(fd, uid, gid) != 0)
        log_warn("cannot give %s to the user: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

static size_t write_prefix(char *line, size_t size, enum config_level level)
{
    if (!the_log.path) {
        bool bad = level == LEVEL_WARN || level == LEVEL_ERROR;
        return (size_t)snprintf(line, size, "modus: %s%s", bad ? level_names[level] : "",
                                bad ? ": " : "");
    }
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &tm);
    size_t n = strftime(line, size, "%Y-%m-%d %H:%M:%S", &tm);
    return n + (size_t)snprintf(line + n, size - n, ".%03ld %s %d: ", now.tv_nsec / 1000000,
                                level_names[level], getpid());
}

__attribute__((format(printf, 5, 0))) static void
write_line(int fd, char *line, size_t size, size_t n, const char *format, va_list args)
{
    int more = vsnprintf(line + n, size - n - 1, format, args);
    if (more > 0)
        n += (size_t)more < size - n - 1 ? (size_t)more : size - n - 2;
    line[n++] = '\n';
    /* A full disk or a closed terminal loses the line, never the server. */
    ssize_t ignored = write(fd, line, n);
    (void)ignored;
}

void log_line(enum config_level level, const char *format, ...)
{
    char line[LINE_SIZE];
    va_list args;
    if (level < the_log.level)
        return;
    size_t n = write_prefix(line, sizeof line, level);
    va_start(args, format);
    write_line(the_log.fd, line, sizeof line, n, format, args);
    va_end(args);
}

void log_announce(const char *format, ...)
{
    char line[LINE_SIZE];
    va_list args;
    size_t n = (size_t)snprintf(line, sizeof line, "modus: ");
    va_start(args, format);
    write_line(STDERR_FILENO, line, sizeof line, n, format, args);
    va_end(args);
    if (!the_log.path || the_log.level > LEVEL_INFO)
        return;
    n = write_prefix(line, sizeof line, LEVEL_INFO);
    va_start(args, format);
    write_line(the_log.fd, line, sizeof line, n, format, args);
    va_end(args);
}
