/* SPDX-License-Identifier: MIT */
/* Slow clients: see server/lab/slow.h. Each is a client of the lab's whose request has no end. */
#include "server/lab/slow.h"

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#include "concurrency/process.h"
#include "net/thread.h"
#include "server/lab/client.h"

enum { BEAT_MS = 250, AGAIN_MS = 1000, READY_MS = 1000, STEP_MS = 10, MOST = 4096 };

static const char head[] = "GET / HTTP/1.1\r\nHost: slow\r\nX-Slow: ";

struct wanted {
    struct lab_target target;
    unsigned count;
    int ready; /* written to when all have connected, or can't */
};

struct slow {
    struct lab_client client;
    int64_t again_us; /* closed: when it comes again */
};

static bool is_on_its_way(const struct slow *s)
{
    return s->client.state != CLIENT_CLOSED && s->client.out.len;
}

/* Connect, shake hands and send what there is, as far as it goes. No answer is due; what ends the
 * request nevertheless ends the client for a while, so that a server that takes none has peace. */
static void step(struct slow *s)
{
    if (s->client.state == CLIENT_CLOSED || lab_client_step(&s->client) == CLIENT_WAITS)
        return;
    lab_client_close(&s->client);
    s->again_us = net_clock_us() + AGAIN_MS * 1000;
}

static void come(struct slow *s, const struct lab_target *t, unsigned nth)
{
    if (lab_client_open(&s->client, t, nth) == 0)
        lab_client_ask(&s->client, STR(head), 1);
    else
        s->again_us = net_clock_us() + AGAIN_MS * 1000;
}

static void beat(struct slow *s, const struct lab_target *t, unsigned nth)
{
    if (s->client.state == CLIENT_CLOSED && net_clock_us() >= s->again_us)
        come(s, t, nth);
    else if (s->client.state != CLIENT_CLOSED && !s->client.out.len)
        lab_client_ask(&s->client, STR("x"), 1);
    step(s);
}

/* Returns how many have not sent their head yet. */
static unsigned step_all(struct slow *all, unsigned count)
{
    unsigned left = 0;
    for (unsigned i = 0; i < count; i++) {
        if (is_on_its_way(&all[i]))
            step(&all[i]);
        left += is_on_its_way(&all[i]);
    }
    return left;
}

/* In the child, until it is killed. */
static int be_slow(void *argument)
{
    const struct wanted *w = argument;
    static struct slow all[MOST];
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without asking for none */
    for (unsigned i = 0; i < w->count; i++)
        come(&all[i], &w->target, i);
    for (int ms = 0; step_all(all, w->count) && ms < READY_MS; ms += STEP_MS)
        poll(NULL, 0, STEP_MS);
    if (write(w->ready, "", 1) != 1)
        return 1;
    for (;;) {
        poll(NULL, 0, BEAT_MS);
        for (unsigned i = 0; i < w->count; i++)
            beat(&all[i], &w->target, i);
    }
}

struct modus_process *lab_slow_start(const struct lab_url *url, unsigned count)
{
    struct modus_process_attr attr = {.name = "slow clients", .orphan = MODUS_ORPHAN_KILLED};
    struct modus_process *slow = NULL;
    struct wanted w = {.count = count < MOST ? count : MOST};
    char why[256];
    int line[2];
    if (lab_target_open(&w.target, url, 0, why, sizeof why) != 0)
        return NULL;
    if (pipe(line) != 0) {
        lab_target_close(&w.target);
        return NULL;
    }
    w.ready = line[1];
    int rc = modus_process_new(&slow, &attr, be_slow, &w);
    if (rc == 0)
        rc = modus_process_start(slow);
    close(line[1]);
    struct pollfd ready = {.fd = line[0], .events = POLLIN};
    if (rc == 0)
        poll(&ready, 1, READY_MS);
    close(line[0]);
    lab_target_close(&w.target);
    if (rc < 0) {
        modus_process_put(slow);
        return NULL;
    }
    return slow;
}

void lab_slow_stop(struct modus_process *slow)
{
    if (!slow)
        return;
    modus_process_kill(slow);
    modus_process_join(slow, MODUS_FOREVER, NULL);
    modus_process_put(slow);
}
