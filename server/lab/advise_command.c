/* SPDX-License-Identifier: MIT */
/* `modus advise`: two looks at a listener's sums, some at what has none, and what /proc says of its
 * workers. See server/lab/advise_command.h. */
#include "server/lab/advise_command.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concurrency/coroutine.h"
#include "net/thread.h"
#include "server/default_file.h"
#include "server/lab/advise.h"
#include "server/lab/costs.h"
#include "server/lab/json.h"
#include "server/lab/number.h"
#include "server/lab/status.h"

static const char usage[] =
    "usage: modus advise [--seconds N] [-c FILE] LISTENER\n"
    "       watch a listener of the running server, for 3 s unless said otherwise, and\n"
    "       say whether another model would suit what it does\n";

static const struct option options[] = {
    {"seconds", required_argument, NULL, 's'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

enum { EXIT_FINE, EXIT_REFUSED, EXIT_USAGE };
enum { LOOK_MS = 200, MOST_WORKERS = 1024 };

struct wanted {
    const char *listener, *file;
    double seconds;
    bool help;
};

/* A worker and its children; sums since it began. */
struct cost {
    double pid, started_ms; /* by both it is known again */
    double requests, cpu_us, delay_us;
};

/* One look. */
struct seen {
    char model[32];
    double server_pid, server_started_ms;
    double generation; /* of the listener, the one that serves; others finish */
    double requests, accepted, latency_us, queued_us, blocked, gil_us, open, idle, busy, places;
    bool has_gil;
    struct cost workers[MOST_WORKERS]; /* those that are there */
    unsigned worker_count;
    int64_t at_us;
};

/* --- looking --------------------------------------------------------------------------------- */

static bool is_named(const struct json *l, const char *name)
{
    if (strcmp(json_text(json_get(l, "name"), ""), name) == 0)
        return true;
    for (const struct json *a = json_first(json_get(l, "addresses")); a; a = a->next)
        if (strcmp(json_text(a, ""), name) == 0)
            return true;
    return false;
}

static void see_workers(const struct json *listener, struct seen *s)
{
    struct lab_tree tree;
    const struct json *w = json_first(json_get(listener, "workers"));
    for (; w && s->worker_count < MOST_WORKERS; w = w->next) {
        double pid = json_number(json_get(w, "pid"), 0);
        if (pid <= 0 || lab_tree_read((pid_t)pid, &tree) != 0)
            continue; /* it has gone, and the next is not there yet */
        s->workers[s->worker_count++] = (struct cost){
            .pid = pid,
            .started_ms = json_number(json_get(w, "started_ms"), 0),
            .requests = json_number(json_get(w, "requests"), 0),
            .cpu_us = tree.cpu_us,
            .delay_us = tree.delay_us,
        };
    }
}

static void see(const struct json *all, const struct json *l, struct seen *s)
{
    *s = (struct seen){
        .server_pid = json_number(json_get(all, "pid"), 0),
        .server_started_ms = json_number(json_get(all, "started_ms"), 0),
        .generation = json_number(json_get(l, "generations.0.number"), 0),
        .requests = json_number(json_get(l, "requests.latency_us.count"), 0),
        .latency_us = json_number(json_get(l, "requests.latency_us.sum"), 0),
        .queued_us = json_number(json_get(l, "queue.waited_us.sum"), 0),
        .accepted = json_number(json_get(l, "connections.accepted"), 0),
        .open = json_number(json_get(l, "connections.open"), 0),
        .idle = json_number(json_get(l, "connections.idle"), 0),
        .blocked = json_number(json_get(l, "blocked.count"), 0),
        .gil_us = json_number(json_get(l, "gil.held_us"), 0),
        .has_gil = json_first(json_get(l, "gil")) != NULL,
        .busy = json_number(json_get(l, "saturation.busy"), 0),
        .places = json_number(json_get(l, "saturation.places"), 0),
        .at_us = net_clock_us(),
    };
    snprintf(s->model, sizeof s->model, "%s", json_text(json_get(l, "model"), ""));
    see_workers(l, s);
}

static int look(const struct wanted *w, struct seen *s)
{
    char why[600];
    struct json *all = lab_status(w->file, why, sizeof why);
    const struct json *found = NULL;
    for (const struct json *l = json_first(json_get(all, "listeners")); l && !found; l = l->next)
        if (is_named(l, w->listener))
            found = l;
    if (!all)
        fprintf(stderr, "%s%s\n", strncmp(why, "modus: ", 7) == 0 ? "" : "modus advise: ", why);
    else if (!found)
        fprintf(stderr, "modus advise: no listener is called \"%s\": modus status shows them\n",
                w->listener);
    else
        see(all, found, s);
    json_free(all);
    return found ? 0 : -1;
}

/* --- what it comes to -------------------------------------------------------------------------- */

/* What has become of it meanwhile, so that the sums of both looks have nothing to do with each other, or
 * belong to two configurations; NULL: nothing. */
static const char *change_of(const struct seen *from, const struct seen *to)
{
    if (to->server_pid != from->server_pid || to->server_started_ms != from->server_started_ms)
        return "another process serves";
    if (to->generation != from->generation || strcmp(to->model, from->model) != 0)
        return "the listener was renewed";
    if (to->requests < from->requests || to->accepted < from->accepted ||
        to->latency_us < from->latency_us || to->queued_us < from->queued_us ||
        to->blocked < from->blocked || to->gil_us < from->gil_us)
        return "its counts began anew";
    return NULL;
}

static const struct cost *worker_of(const struct seen *s, const struct cost *worker)
{
    for (unsigned i = 0; i < s->worker_count; i++)
        if (s->workers[i].pid == worker->pid && s->workers[i].started_ms == worker->started_ms)
            return &s->workers[i];
    return NULL;
}

/* A request, of those that workers have answered which were there both times: of one that came or went
 * in between, nobody knows what it cost. */
static void compare_costs(const struct seen *from, const struct seen *to, struct advise_facts *f)
{
    double requests = 0, cpu_us = 0, delay_us = 0;
    for (unsigned i = 0; i < to->worker_count; i++) {
        const struct cost *now = &to->workers[i], *then = worker_of(from, now);
        if (!then)
            continue;
        requests += now->requests - then->requests;
        cpu_us += now->cpu_us - then->cpu_us;
        delay_us += now->delay_us - then->delay_us; /* less, when threads have ended */
    }
    f->cpu_us = requests > 0 && cpu_us >= 0 ? cpu_us / requests : -1;
    f->delay_us = requests > 0 && cpu_us >= 0 && delay_us > 0 ? delay_us / requests : 0;
}

static void compare(const struct wanted *w, const struct seen *from, const struct seen *to,
                    double busy, struct advise_facts *f)
{
    double requests = to->requests - from->requests;
    double elapsed_us = (double)(to->at_us - from->at_us);
    *f = (struct advise_facts){
        .listener = w->listener,
        .model = to->model,
        .seconds = elapsed_us / 1e6,
        .requests = requests,
        .accepted = to->accepted - from->accepted,
        .latency_us = requests > 0 ? (to->latency_us - from->latency_us) / requests : 0,
        .queued_us = requests > 0 ? (to->queued_us - from->queued_us) / requests : 0,
        .busy = busy,
        .places = to->places,
        .blocked = to->blocked - from->blocked,
        .gil_share = to->has_gil ? (to->gil_us - from->gil_us) / elapsed_us : -1,
        .open = to->open,
        .idle = to->idle,
        .cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN),
    };
    compare_costs(from, to, f);
}

static int watch(const struct wanted *w, struct advise_facts *f, struct seen *first,
                 struct seen *last)
{
    double busy = 0, looks = 0;
    if (look(w, first) != 0)
        return -1;
    do {
        modus_co_sleep(modus_ms(LOOK_MS));
        if (look(w, last) != 0)
            return -1;
        const char *change = change_of(first, last);
        if (change) {
            fprintf(stderr,
                    "modus advise: the server changed while it was watched (%s): watch again\n",
                    change);
            return -1;
        }
        busy += last->busy;
        looks++;
    } while ((double)(last->at_us - first->at_us) < w->seconds * 1e6);
    compare(w, first, last, busy / looks, f);
    return 0;
}

static void print(const struct wanted *w, const struct advice *a)
{
    int line = lab_status_line(w->file, w->listener);
    fputs(a->text, stdout);
    if (!a->model && !a->gil_off)
        return;
    printf("In %s", w->file);
    if (line)
        printf(", in the listener of line %d", line);
    printf(":\n\n    %s%s\n\nand then: modus reload\n",
           a->gil_off ? "gil = false" : "model = ", a->gil_off ? "" : a->model);
}

/* --- words ----------------------------------------------------------------------------------- */

/* False: a line on stderr has said why. */
static bool take(struct wanted *w, int key, const char *value)
{
    switch (key) {
    case 'c':
        w->file = value;
        return true;
    case 's':
        return lab_number("advise", "seconds", value, 0.1, 3600, &w->seconds);
    case 'h':
        w->help = true;
        return true;
    default:
        return false; /* getopt has said why */
    }
}

static bool read_words(struct wanted *w, int argc, char **argv)
{
    static char self[] = "modus advise"; /* what getopt's lines begin with */
    int key;
    argv[0] = self;
    optind = 1;
    while ((key = getopt_long(argc, argv, "c:h", options, NULL)) != -1)
        if (!take(w, key, optarg))
            return false;
    if (optind == argc - 1)
        w->listener = argv[optind];
    else if (!w->help)
        fprintf(stderr, "modus advise: it wants one listener, not %d: modus status shows them\n",
                argc - optind);
    return w->listener || w->help;
}

int advise_command(int argc, char **argv)
{
    struct wanted w = {.file = default_file(), .seconds = 3};
    struct advise_facts facts;
    struct advice advice;
    static struct seen first, last; /* too large for some stacks */
    if (!read_words(&w, argc, argv)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (w.help) {
        fputs(usage, stdout);
        return EXIT_FINE;
    }
    if (!w.file) {
        fprintf(stderr, "modus advise: name the server's configuration file with -c\n");
        return EXIT_REFUSED;
    }
    if (watch(&w, &facts, &first, &last) != 0)
        return EXIT_REFUSED;
    advise(&facts, &advice);
    print(&w, &advice);
    return EXIT_FINE;
}
