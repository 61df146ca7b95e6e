/* SPDX-License-Identifier: MIT */
/* Access logs: see server/access_log.h. */
#include "server/access_log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/log.h"
#include "server/log_file.h"

enum { LINE_SIZE = 16 * 1024, SAY_EVERY_S = 60 };

struct access_log {
    int fd;
    enum config_log_format format;
    const char *path;
    atomic_llong said_s; /* monotonic: when it was last said that lines are lost */
};

/* A line in the making. A field that does not fit is shortened; the end always has its room. */
struct line {
    char *at;
    size_t len, size;
};

static void add(struct line *l, const char *text, size_t len)
{
    if (len > l->size - l->len)
        len = l->size - l->len;
    memcpy(l->at + l->len, text, len);
    l->len += len;
}

static void add_text(struct line *l, const char *text)
{
    add(l, text, strlen(text));
}

static void add_number(struct line *l, long long n)
{
    char text[24];
    add(l, text, (size_t)snprintf(text, sizeof text, "%lld", n));
}

/* One unit at a time, so that an escape is never cut in two. */
static void add_escaped(struct line *l, struct str s, bool json)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        char unit[8];
        int n;
        if (c == '"' || c == '\\')
            n = snprintf(unit, sizeof unit, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            n = snprintf(unit, sizeof unit, json ? "\\u%04x" : "\\x%02x", c);
        else
            n = snprintf(unit, sizeof unit, "%c", c);
        if ((size_t)n > l->size - l->len)
            return;
        add(l, unit, (size_t)n);
    }
}

static void add_quoted(struct line *l, struct str s)
{
    add_text(l, " \"");
    add_escaped(l, s.len ? s : STR("-"), false);
    add_text(l, "\"");
}

static const char *protocol(const struct exchange_record *r)
{
    return r->minor < 0 ? "TCP" : r->minor ? "HTTP/1.1" : "HTTP/1.0";
}

/* 127.0.0.1 - - [20/Nov/2026:18:40:01 +0000] "GET / HTTP/1.1" 200 13 */
static void add_common(struct line *l, const struct exchange_record *r, long long unix_s)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char when[64];
    time_t s = (time_t)unix_s;
    struct tm tm;
    gmtime_r(&s, &tm);
    snprintf(when, sizeof when, " - - [%02d/%.3s/%04d:%02d:%02d:%02d +0000] \"", tm.tm_mday,
             months + tm.tm_mon * 3, tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
    add(l, r->peer.at, r->peer.len);
    add_text(l, when);
    add(l, r->method.at, r->method.len);
    add_text(l, " ");
    add_escaped(l, r->target, false);
    add_text(l, " ");
    add_text(l, protocol(r));
    add_text(l, "\" ");
    add_number(l, r->status);
    add_text(l, " ");
    add_number(l, r->body_bytes);
}

static void add_json_text(struct line *l, const char *key, struct str value)
{
    add_text(l, key);
    add_text(l, "\"");
    add_escaped(l, value, true);
    add_text(l, "\"");
}

static void add_json(struct line *l, const struct exchange_record *r, long long unix_s)
{
    add_text(l, "{\"time\":");
    add_number(l, unix_s);
    add_json_text(l, ",\"peer\":", r->peer);
    add_json_text(l, ",\"method\":", r->method);
    add_json_text(l, ",\"target\":", r->target);
    add_json_text(l, ",\"protocol\":", str_of(protocol(r)));
    add_text(l, ",\"status\":");
    add_number(l, r->status);
    add_text(l, ",\"bytes\":");
    add_number(l, r->body_bytes);
    add_text(l, ",\"duration_us\":");
    add_number(l, r->duration_us);
    add_json_text(l, ",\"referer\":", r->referer);
    add_json_text(l, ",\"user_agent\":", r->user_agent);
}

/* A long target must not push the rest of the line out: each long field has a share of it. */
static struct exchange_record shortened(const struct exchange_record *r, size_t size)
{
    struct exchange_record s = *r;
    size_t share = size / 24; /* a byte may take six in JSON, three such fields, and the rest */
    s.target.len = s.target.len < 2 * share ? s.target.len : 2 * share;
    s.referer.len = s.referer.len < share / 2 ? s.referer.len : share / 2;
    s.user_agent.len = s.user_agent.len < share / 2 ? s.user_agent.len : share / 2;
    return s;
}

size_t access_log_line(enum config_log_format format, const struct exchange_record *record,
                       long long unix_s, char *buffer, size_t size)
{
    struct exchange_record r = shortened(record, size);
    struct line l = {buffer, 0, size - 2};
    switch (format) {
    case FORMAT_JSON:
        add_json(&l, &r, unix_s);
        break;
    case FORMAT_COMMON:
        add_common(&l, &r, unix_s);
        break;
    case FORMAT_COMBINED:
        add_common(&l, &r, unix_s);
        add_quoted(&l, r.referer);
        add_quoted(&l, r.user_agent);
        break;
    }
    if (format == FORMAT_JSON)
        buffer[l.len++] = '}';
    buffer[l.len++] = '\n';
    return l.len;
}

struct access_log *access_log_open(const char *path, enum config_log_format format, char *why,
                                   size_t why_size)
{
    struct access_log *log = calloc(1, sizeof *log);
    if (!log) {
        snprintf(why, why_size, "no memory for %s", path);
        return NULL;
    }
    *log = (struct access_log){
        .fd = log_file_open(path, why, why_size), .format = format, .path = path};
    if (log->fd >= 0)
        return log;
    free(log);
    return NULL;
}

void access_log_close(struct access_log *log)
{
    if (!log)
        return;
    log_file_close(log->fd, log->path);
    free(log);
}

int access_log_reopen(struct access_log *log)
{
    char why[512];
    if (!log || log_file_reopen(log->fd, log->path, why, sizeof why) == 0)
        return 0;
    log_warn("%s; the old file goes on", why);
    return -1;
}

/* A full disk loses lines, not answers; that it does is said once a minute. */
static void say_lost(struct access_log *log, int error)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    long long last = atomic_load(&log->said_s);
    if ((last && now.tv_sec - last < SAY_EVERY_S) ||
        !atomic_compare_exchange_strong(&log->said_s, &last, now.tv_sec))
        return;
    log_error("lines of %s are lost: %s", log->path, strerror(error));
}

void access_log_write(void *arg, const struct exchange_record *record)
{
    struct access_log *log = arg;
    char line[LINE_SIZE];
    size_t n = access_log_line(log->format, record, time(NULL), line, sizeof line);
    ssize_t written = write(log->fd, line, n);
    if (written != (ssize_t)n)
        say_lost(log, written < 0 ? errno : ENOSPC);
}
