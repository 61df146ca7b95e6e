/* SPDX-License-Identifier: MIT */
/* The things of a serving thread: see net/thread.h. The date is written once a second, into the
 * lines that every answer begins with. */
#include "net/thread.h"

#include <stdio.h>
#include <stdlib.h>

#include "net/exchange_priv.h"

enum { PAGE = 4096 };

int64_t net_clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void write_date(struct net_thread *t, time_t now)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm;
    gmtime_r(&now, &tm);
    /* Not strftime: names must not follow the locale. */
    t->date_len = (size_t)snprintf(t->date, sizeof t->date,
                                   "Date: %.3s, %02d %.3s %04d %02d:%02d:%02d GMT\r\n",
                                   days + tm.tm_wday * 3, tm.tm_mday, months + tm.tm_mon * 3,
                                   tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
    t->ok_head_len = (size_t)snprintf(t->ok_head, sizeof t->ok_head,
                                      "HTTP/1.1 200 OK\r\nServer: Modus\r\n%s", t->date);
    t->date_s = now;
}

/* The coarse clock is a memory read; it is looked at when the millisecond changes. */
static void follow_wall_clock(struct net_thread *t)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME_COARSE, &wall);
    if (wall.tv_sec != t->date_s)
        write_date(t, wall.tv_sec);
}

void net_thread_tick(struct net_thread *t)
{
    t->now_us = t->mark_us = t->clock_us();
    int64_t now_ms = t->now_us / 1000;
    if (now_ms == t->now_ms)
        return;
    t->now_ms = now_ms;
    follow_wall_clock(t);
}

void net_thread_set(struct net_thread *t, int64_t now_us)
{
    t->now_us = now_us;
    t->now_ms = now_us / 1000;
}

struct net_thread *net_thread_new(size_t in_size, struct net_stats *stats)
{
    /* One block: on the first page this and the beginning of what comes in, then what goes out. */
    size_t in_at = (sizeof(struct net_thread) + 63) & ~(size_t)63;
    size_t out_at = (in_at + in_size + PAGE - 1) & ~(size_t)(PAGE - 1);
    struct net_thread *t = aligned_alloc(PAGE, out_at + NET_OUT_SIZE);
    if (!t)
        return NULL;
    *t =
        (struct net_thread){.in = (char *)t + in_at, .in_size = in_size, .out = (char *)t + out_at};
    if (exchange_add_spare(t, EXCHANGE_SIZE) != 0) {
        free(t);
        return NULL;
    }
    t->stats = stats;
    t->clock_us = net_clock_us;
    net_thread_tick(t);
    return t;
}

void net_thread_free(struct net_thread *t)
{
    if (!t)
        return;
    exchange_free_spares(t);
    free(t);
}
