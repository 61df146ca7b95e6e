/* SPDX-License-Identifier: MIT */
/* The loader: see server/lab/loader.h. Questions are due in order, so those that wait for a connection
 * need no queue: the next due time just stays where it is. */
#include "server/lab/loader.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "server/lab/client.h"

enum { EVENTS = 256, REST_MS = 10, GRACE_MS = 50 };

struct slot {
    struct lab_client client;
    bool asking, dear, goes_on;
    bool short_of;                /* what a connection takes here */
    int64_t due_ns, sent_ns;      /* of the question under way */
    int64_t spare_ns;             /* since when it has none */
    struct slot *next;            /* among the spare, or the resting ones */
    struct slot *later, *earlier; /* among those asked: the oldest first */
    struct slot *again;           /* among those that go on */
};

/* What is sent at once. */
struct question {
    char *text;
    size_t len;
};

struct loader {
    const struct lab_plan *plan;
    struct lab_load_result *result;
    struct lab_target target;
    int set;
    struct slot *slots, *resting;
    struct slot *spare, **spare_end;
    struct slot *oldest, *newest;
    struct slot *going_on; /* have more to read, or had: none waits for an event then */
    int64_t rest_ns;       /* until then */
    int64_t begin_ns, from_ns, end_ns, next_ns;
    uint64_t asked, opened, planned;
    double due; /* seconds from the beginning, exactly */
    uint64_t random;
    struct question plain, dear;
};

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* --- when ------------------------------------------------------------------------------------ */

/* xorshift64*, Vigna 2016. In 0 < x <= 1. */
static double random_share(struct loader *l)
{
    l->random ^= l->random >> 12;
    l->random ^= l->random << 25;
    l->random ^= l->random >> 27;
    uint64_t word = l->random * UINT64_C(2685821657736338717);
    return (double)((word >> 11) + 1) / 9007199254740992.0; /* 2^53 */
}

static void plan_next(struct loader *l)
{
    const struct lab_plan *plan = l->plan;
    if (plan->rate <= 0)
        return;
    l->planned++;
    if (plan->poisson)
        l->due += -log(random_share(l)) / plan->rate;
    else
        l->due = (double)l->planned / plan->rate;
    l->next_ns = l->begin_ns + (int64_t)(l->due * 1e9);
}

/* --- requests -------------------------------------------------------------------------------- */

static int make_question(struct question *made, const struct lab_plan *plan, const char *path)
{
    unsigned count = plan->rate <= 0 && plan->pipeline > 1 ? plan->pipeline : 1;
    char *one;
    int len = asprintf(&one, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, plan->url.authority,
                       plan->close ? "Connection: close\r\n" : "");
    if (len < 0)
        return -1;
    char *all = malloc((size_t)len * count);
    for (unsigned i = 0; all && i < count; i++)
        memcpy(all + (size_t)len * i, one, (size_t)len);
    free(one);
    if (!all)
        return -1;
    *made = (struct question){all, (size_t)len * count};
    return 0;
}

static unsigned requests_in(const struct loader *l)
{
    return l->plan->rate <= 0 && l->plan->pipeline > 1 ? l->plan->pipeline : 1;
}

/* --- those asked ----------------------------------------------------------------------------- */

static void enlist(struct loader *l, struct slot *s)
{
    s->earlier = l->newest;
    s->later = NULL;
    if (l->newest)
        l->newest->later = s;
    else
        l->oldest = s;
    l->newest = s;
}

static void delist(struct loader *l, struct slot *s)
{
    *(s->earlier ? &s->earlier->later : &l->oldest) = s->later;
    *(s->later ? &s->later->earlier : &l->newest) = s->earlier;
}

static void spare(struct loader *l, struct slot *s)
{
    s->next = NULL;
    *l->spare_end = s;
    l->spare_end = &s->next;
}

static struct slot *take_spare(struct loader *l)
{
    struct slot *s = l->spare;
    l->spare = s->next;
    if (!l->spare)
        l->spare_end = &l->spare;
    return s;
}

/* What was due at due_ns took until now, or was given up then. */
static void record(struct loader *l, int64_t due_ns, int64_t now_ns, bool dear)
{
    lab_histogram_add(&l->result->latency, now_ns - due_ns);
    if (l->plan->dear && !dear)
        lab_histogram_add(&l->result->cheap, now_ns - due_ns);
}

static bool is_measured(const struct loader *l, int64_t due_ns)
{
    return due_ns >= l->from_ns && due_ns < l->end_ns;
}

/* Does what ends now belong to the time that is measured? In an open loop what was due in it does. A
 * closed loop knows no due times: all that was under way in it does, or a server that falls silent in
 * the warm-up would have no failures. */
static bool belongs(const struct loader *l, const struct slot *s, int64_t now_ns)
{
    if (l->plan->rate > 0)
        return is_measured(l, s->due_ns);
    return s->due_ns < l->end_ns && now_ns >= l->from_ns;
}

/* Answers count when they come, whenever their requests were due: that many come in that time. */
static void count_answers(struct loader *l, const struct slot *s, int64_t now_ns)
{
    unsigned answers = requests_in(l) - s->client.expected - s->client.refused;
    if (is_measured(l, now_ns))
        l->result->answered += answers;
    else if (belongs(l, s, now_ns))
        l->result->answered_after += answers;
}

/* Of a pipeline what was answered is, and only the rest has failed. */
static void count_failures(struct loader *l, const struct slot *s, enum lab_outcome outcome)
{
    struct lab_load_result *r = l->result;
    unsigned rest = s->client.expected;
    r->refused += s->client.refused;
    switch (outcome) {
    case CLIENT_ANSWERED:
        break;
    case CLIENT_NO_CONNECTION:
        *(s->short_of ? &r->unsent : &r->connect_failed) += rest;
        break;
    case CLIENT_WRITE_FAILED:
        r->write_failed += rest;
        break;
    case CLIENT_ENDED:
    case CLIENT_READ_FAILED:
        r->read_failed += rest;
        break;
    case CLIENT_WAITS:
    case CLIENT_GOES_ON:
        r->timed_out += rest;
        break;
    }
}

/* An answer does, and that there was none in time. What is refused or lost may end at once, and would
 * make a broken server a quick one. */
static bool tells_time(enum lab_outcome outcome)
{
    return outcome == CLIENT_ANSWERED || outcome == CLIENT_WAITS || outcome == CLIENT_GOES_ON;
}

/* Its question is answered, or has failed. */
static void finish(struct loader *l, struct slot *s, enum lab_outcome outcome, int64_t now_ns)
{
    delist(l, s);
    s->asking = false;
    s->spare_ns = now_ns;
    count_answers(l, s, now_ns);
    if (belongs(l, s, now_ns)) {
        count_failures(l, s, outcome);
        if (tells_time(outcome))
            record(l, s->due_ns, now_ns, s->dear);
    }
    if (outcome == CLIENT_ANSWERED) {
        if (l->plan->close)
            lab_client_close(&s->client);
        spare(l, s);
        return;
    }
    lab_client_close(&s->client);
    s->next = l->resting;
    l->resting = s;
    l->rest_ns = now_ns + REST_MS * INT64_C(1000000);
}

static void step(struct loader *l, struct slot *s)
{
    enum lab_outcome outcome = lab_client_step(&s->client);
    if (outcome == CLIENT_GOES_ON && !s->goes_on) {
        s->goes_on = true;
        s->again = l->going_on;
        l->going_on = s;
    }
    if (s->asking && outcome != CLIENT_WAITS && outcome != CLIENT_GOES_ON)
        finish(l, s, outcome, clock_ns());
}

/* Those that had more to read, each once. It may have been given up meanwhile. */
static void go_on(struct loader *l)
{
    struct slot *s = l->going_on, *again;
    l->going_on = NULL;
    for (; s; s = again) {
        again = s->again;
        s->goes_on = false;
        if (s->asking)
            step(l, s);
    }
}

/* --- asking ---------------------------------------------------------------------------------- */

static int open_client(struct loader *l, struct slot *s)
{
    int rc = lab_client_open(&s->client, &l->target, (unsigned)l->opened++);
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = s};
    if (rc == 0 && epoll_ctl(l->set, EPOLL_CTL_ADD, s->client.fd, &e) != 0) {
        rc = -errno;
        lab_client_close(&s->client);
    }
    return rc;
}

/* Is it the loader's own trouble, of which the server knows nothing? */
static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == EADDRNOTAVAIL || error == ENOMEM ||
           error == ENOBUFS || error == ENOSPC;
}

static void ask(struct loader *l, struct slot *s, int64_t due_ns, int64_t now_ns)
{
    const struct lab_plan *plan = l->plan;
    s->dear = plan->dear && l->asked % plan->dear_every == 0;
    s->due_ns = due_ns;
    s->sent_ns = now_ns;
    s->asking = true;
    l->asked++;
    if (plan->rate > 0 && is_measured(l, due_ns) && s->spare_ns <= due_ns)
        lab_histogram_add(&l->result->lag, now_ns - due_ns);
    const struct question *q = s->dear ? &l->dear : &l->plain;
    enlist(l, s);
    int rc = s->client.state == CLIENT_CLOSED ? open_client(l, s) : 0;
    lab_client_ask(&s->client, (struct str){q->text, q->len}, requests_in(l));
    s->short_of = is_shortage(-rc);
    if (s->short_of)
        l->result->shortage = -rc;
    if (rc < 0)
        finish(l, s, CLIENT_NO_CONNECTION, now_ns);
    else
        step(l, s);
}

static bool has_asked_all(const struct loader *l)
{
    return l->plan->requests && l->asked >= l->plan->requests;
}

/* Is there anything more to be asked? What was due in time is asked a little late rather than never. */
static bool is_over(const struct loader *l, int64_t now_ns)
{
    bool late = now_ns >= l->end_ns;
    if (late && l->plan->rate > 0 && l->next_ns < l->end_ns)
        late = now_ns >= l->end_ns + GRACE_MS * INT64_C(1000000);
    return late || has_asked_all(l);
}

/* All that is due now, as far as there are connections. */
static void ask_due(struct loader *l)
{
    int64_t now_ns = clock_ns();
    bool open = l->plan->rate > 0;
    while (l->spare && !is_over(l, now_ns) && (!open || l->next_ns <= now_ns)) {
        int64_t due_ns = open ? l->next_ns : now_ns;
        l->result->due += open && is_measured(l, due_ns);
        plan_next(l);
        ask(l, take_spare(l), due_ns, now_ns);
        now_ns = clock_ns();
    }
}

/* What was due and could not be sent is late by at least what it has waited. */
static void count_unsent(struct loader *l)
{
    int64_t now_ns = clock_ns();
    while (l->plan->rate > 0 && l->next_ns < l->end_ns && l->next_ns < now_ns) {
        if (is_measured(l, l->next_ns)) {
            l->result->due++;
            l->result->unsent++;
            record(l, l->next_ns, now_ns, l->plan->dear && l->asked % l->plan->dear_every == 0);
        }
        l->asked++;
        plan_next(l);
    }
}

static void end_rest(struct loader *l, int64_t now_ns)
{
    while (l->resting && now_ns >= l->rest_ns) {
        struct slot *s = l->resting;
        l->resting = s->next;
        spare(l, s);
    }
}

static int64_t timeout_ns(const struct loader *l)
{
    return (int64_t)(l->plan->timeout_seconds * 1e9);
}

static void give_up_late(struct loader *l, int64_t now_ns)
{
    while (l->oldest && now_ns - l->oldest->sent_ns >= timeout_ns(l))
        finish(l, l->oldest, CLIENT_WAITS, now_ns);
}

/* --- waiting --------------------------------------------------------------------------------- */

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t wake_ns(const struct loader *l)
{
    int64_t at = l->oldest ? l->oldest->sent_ns + timeout_ns(l) : INT64_MAX, now_ns = clock_ns();
    if (is_over(l, now_ns))
        return l->oldest ? at : now_ns;
    if (l->resting)
        at = sooner(at, l->rest_ns);
    if (l->spare && l->plan->rate > 0)
        at = sooner(at, l->next_ns);
    return sooner(at, l->end_ns + (now_ns < l->end_ns ? 0 : GRACE_MS * INT64_C(1000000)));
}

static void wait_for_events(struct loader *l)
{
    struct epoll_event events[EVENTS];
    int64_t left = wake_ns(l) - clock_ns();
    left = left < 0 || l->going_on ? 0 : left;
    struct timespec time = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    int n = epoll_pwait2(l->set, events, EVENTS, &time, NULL);
    for (int i = 0; i < n; i++)
        step(l, events[i].data.ptr);
    go_on(l); /* last: it may close what has an event */
}

static bool is_told_to_stop(const struct loader *l)
{
    return l->plan->stop && *l->plan->stop;
}

/* Each is asked once, not measured. */
static void connect_all(struct loader *l)
{
    l->from_ns = l->end_ns = INT64_MAX / 2;
    for (unsigned i = 0; i < l->plan->connections && l->spare; i++)
        ask(l, take_spare(l), clock_ns(), clock_ns());
    while (l->oldest && !is_told_to_stop(l)) {
        wait_for_events(l);
        give_up_late(l, clock_ns());
    }
    l->asked = 0;
}

static void run(struct loader *l)
{
    for (;;) {
        int64_t now_ns = clock_ns();
        if (is_told_to_stop(l) || (is_over(l, now_ns) && !l->oldest))
            break;
        end_rest(l, now_ns);
        ask_due(l);
        wait_for_events(l);
        give_up_late(l, clock_ns());
    }
    int64_t now_ns = clock_ns();
    count_unsent(l);
    l->result->seconds = (double)(sooner(now_ns, l->end_ns) - sooner(l->from_ns, now_ns)) / 1e9;
}

/* --- beginning and end ------------------------------------------------------------------------- */

static int open_all(struct loader *l, char *why, size_t why_size)
{
    const struct lab_plan *plan = l->plan;
    l->slots = calloc(plan->connections, sizeof *l->slots);
    l->set = epoll_create1(EPOLL_CLOEXEC);
    if (!l->slots || l->set < 0 || make_question(&l->plain, plan, plan->url.path) != 0 ||
        (plan->dear && make_question(&l->dear, plan, plan->dear) != 0)) {
        snprintf(why, why_size, "no memory or no descriptors for %u connections",
                 plan->connections);
        return -1;
    }
    l->spare_end = &l->spare;
    for (unsigned i = 0; i < plan->connections; i++)
        spare(l, &l->slots[i]);
    return lab_target_open(&l->target, &plan->url, plan->sources, why, why_size);
}

static void close_all(struct loader *l)
{
    for (unsigned i = 0; l->slots && i < l->plan->connections; i++) {
        l->result->bytes += l->slots[i].client.bytes;
        lab_client_close(&l->slots[i].client);
    }
    if (l->set >= 0)
        close(l->set);
    lab_target_close(&l->target);
    free(l->plain.text);
    free(l->dear.text);
    free(l->slots);
}

int lab_load_run(const struct lab_plan *plan, struct lab_load_result *result, char *why,
                 size_t why_size)
{
    struct loader l = {.plan = plan, .result = result, .random = plan->seed | 1};
    *result = (struct lab_load_result){0};
    prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
    int rc = open_all(&l, why, why_size);
    if (rc == 0) {
        if (plan->hold)
            connect_all(&l);
        l.begin_ns = l.next_ns = clock_ns();
        if (plan->begun)
            atomic_store(plan->begun, true);
        l.from_ns = l.begin_ns + (int64_t)(plan->warm_seconds * 1e9);
        l.end_ns = l.from_ns + (int64_t)(plan->seconds * 1e9);
        run(&l);
    }
    close_all(&l);
    return rc;
}
