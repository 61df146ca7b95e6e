/* SPDX-License-Identifier: MIT */
/* `modus load`: words in, figures out. See server/lab/load.h. */
#include "server/lab/load.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "server/lab/loader.h"
#include "server/lab/number.h"

static const char usage[] =
    "usage: modus load [OPTIONS] URL\n"
    "  --rate N          so many requests a second, whatever the server does (open loop);\n"
    "                    without it each connection asks again when it is answered (closed loop)\n"
    "  --poisson         ... at random distances, as independent customers come\n"
    "  --connections N   at most (64)\n"
    "  --seconds N       how long to measure (10), after --warm N (1)\n"
    "  --close           a connection a request\n"
    "  --pipeline N      requests at once on a connection, in a closed loop\n"
    "  --sources N       come from so many addresses, 127.0.0.1 and up\n"
    "  --dear PATH       ask for that once in --every N (100) requests\n"
    "  --timeout N       seconds to wait for an answer (10)\n"
    "  --seed N          for --poisson\n"
    "  --json            for programs\n"
    "  --help            this\n";

enum { EXIT_FINE, EXIT_NOTHING, EXIT_USAGE };
enum {
    RATE = 1000,
    POISSON,
    CONNECTIONS,
    SECONDS,
    WARM,
    CLOSE,
    PIPELINE,
    SOURCES,
    DEAR,
    EVERY,
    TIMEOUT,
    SEED,
    JSON,
    HELP
};

static const struct option options[] = {
    {"rate", required_argument, NULL, RATE},
    {"poisson", no_argument, NULL, POISSON},
    {"connections", required_argument, NULL, CONNECTIONS},
    {"seconds", required_argument, NULL, SECONDS},
    {"warm", required_argument, NULL, WARM},
    {"close", no_argument, NULL, CLOSE},
    {"pipeline", required_argument, NULL, PIPELINE},
    {"sources", required_argument, NULL, SOURCES},
    {"dear", required_argument, NULL, DEAR},
    {"every", required_argument, NULL, EVERY},
    {"timeout", required_argument, NULL, TIMEOUT},
    {"seed", required_argument, NULL, SEED},
    {"json", no_argument, NULL, JSON},
    {"help", no_argument, NULL, HELP},
    {NULL, 0, NULL, 0},
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* --- words ----------------------------------------------------------------------------------- */

static bool number(const char *name, const char *text, double low, double high, double *to)
{
    return lab_number("load", name, text, low, high, to);
}

static bool whole(const char *name, const char *text, double low, double high, unsigned *to)
{
    double n;
    bool good = lab_whole_number("load", name, text, low, high, &n);
    *to = good ? (unsigned)n : 0;
    return good;
}

static bool seed(const char *text, uint64_t *to)
{
    double n;
    bool good = lab_whole_number("load", "seed", text, 0, 1e15, &n);
    *to = good ? (uint64_t)n : 0;
    return good;
}

struct wanted {
    struct lab_plan plan;
    bool json, help;
};

/* Returns false when the word was wrong. */
static bool take(struct wanted *w, int key, const char *text)
{
    struct lab_plan *p = &w->plan;
    switch (key) {
    case RATE:
        return number("rate", text, 0.001, 10e6, &p->rate);
    case POISSON:
        return p->poisson = true;
    case CONNECTIONS:
        return whole("connections", text, 1, 1e6, &p->connections);
    case SECONDS:
        return number("seconds", text, 0.01, 1e6, &p->seconds);
    case WARM:
        return number("warm", text, 0, 1e6, &p->warm_seconds);
    case CLOSE:
        return p->close = true;
    case PIPELINE:
        return whole("pipeline", text, 1, 256, &p->pipeline);
    case SOURCES:
        return whole("sources", text, 1, 65536, &p->sources);
    case DEAR:
        p->dear = text;
        return true;
    case EVERY:
        return whole("every", text, 1, 1e9, &p->dear_every);
    case TIMEOUT:
        return number("timeout", text, 0.001, 1e6, &p->timeout_seconds);
    case SEED:
        return seed(text, &p->seed);
    case JSON:
        return w->json = true;
    case HELP:
        return w->help = true;
    default:
        return false; /* getopt has said why */
    }
}

static bool fits(const struct lab_plan *p)
{
    const char *why = p->rate > 0 && p->pipeline > 1 ? "--pipeline is for a closed loop"
                      : p->poisson && p->rate <= 0   ? "--poisson wants a --rate"
                      : p->close && p->pipeline > 1  ? "--close and --pipeline exclude each other"
                                                     : NULL;
    char reason[128];
    if (why)
        fprintf(stderr, "modus load: %s\n", why);
    else if (p->dear && lab_url_check_path(p->dear, reason, sizeof reason) != 0)
        fprintf(stderr, "modus load: --dear: %s\n", why = reason);
    return !why;
}

static bool read_words(struct wanted *w, int argc, char **argv)
{
    static char name[] = "modus load"; /* for getopt's own words */
    int key;
    optind = 1;
    argv[0] = name;
    while ((key = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (!take(w, key, optarg))
            return false;
    if (w->help)
        return true;
    if (argc - optind == 1)
        return fits(&w->plan);
    fprintf(stderr, "modus load: it wants one URL\n");
    return false;
}

/* --- figures --------------------------------------------------------------------------------- */

static uint64_t failed(const struct lab_load_result *r)
{
    return r->connect_failed + r->read_failed + r->write_failed + r->timed_out + r->refused +
           r->unsent;
}

static const char *in_units(int64_t ns, char text[32])
{
    double us = (double)ns / 1000;
    if (us < 1000)
        snprintf(text, 32, "%.1f us", us);
    else if (us < 1e6)
        snprintf(text, 32, "%.2f ms", us / 1e3);
    else
        snprintf(text, 32, "%.3f s", us / 1e6);
    return text;
}

static void print_times(const char *name, const struct lab_histogram *h, const char *what)
{
    static const struct {
        const char *name;
        double share;
    } shown[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p99.9", .999}, {"max", 1}};
    char text[32];
    printf("%-9s", name);
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
        printf(" %s %s ", shown[i].name,
               h->count ? in_units(lab_histogram_at(h, shown[i].share), text) : "?");
    printf(" %s\n", what);
}

static void print_others(const struct lab_load_result *r)
{
    const struct {
        uint64_t count;
        const char *what;
    } all[] = {{r->answered_after > r->answered / 100 ? r->answered_after : 0,
                "answered later, after the end"}, /* a few always are */
               {r->connect_failed, "could not connect"},
               {r->read_failed, "lost before the answer"},
               {r->write_failed, "could not be sent"},
               {r->timed_out, "not answered in time"},
               {r->refused, "answered with an error"},
               {r->unsent,
                "never sent: no connection was free (--connections), or none could be made here"}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i].count)
            printf("          %" PRIu64 " %s\n", all[i].count, all[i].what);
}

static void print_figures(const struct lab_plan *p, const struct lab_load_result *r)
{
    bool open = p->rate > 0;
    if (open)
        printf("open loop, %.15g requests a second %s, at most %u connections%s\n", p->rate,
               p->poisson ? "at random distances" : "at even distances", p->connections,
               p->close ? ", one a request" : "");
    else
        printf("closed loop, %u connections%s\n", p->connections,
               p->close ? ", one a request" : "");
    char rate[32] = "?";
    if (r->seconds > 0)
        snprintf(rate, sizeof rate, "%.1f", (double)r->answered / r->seconds);
    printf("requests  %" PRIu64 " answered in %.2f s, %s a second; %" PRIu64 " failed\n",
           r->answered, r->seconds, rate, failed(r));
    print_others(r);
    print_times("latency", &r->latency,
                open ? "from when each was due" : "from when each was sent");
    if (p->dear)
        print_times("cheap", &r->cheap, "without the dear ones");
    if (open)
        print_times("lag", &r->lag, "that the loader was late by itself");
}

/* Nobody knows the times of nothing: they are null. */
static void print_json_times(const char *name, const struct lab_histogram *h)
{
    if (!h->count) {
        printf(",\"%s\":{\"count\":0,\"mean_us\":null,\"p50_us\":null,\"p90_us\":null,"
               "\"p99_us\":null,\"p999_us\":null,\"max_us\":null}",
               name);
        return;
    }
    printf(",\"%s\":{\"count\":%" PRIu64 ",\"mean_us\":%.3f,\"p50_us\":%.3f,\"p90_us\":%.3f,"
           "\"p99_us\":%.3f,\"p999_us\":%.3f,\"max_us\":%.3f}",
           name, h->count, lab_histogram_mean(h) / 1e3, (double)lab_histogram_at(h, .5) / 1e3,
           (double)lab_histogram_at(h, .9) / 1e3, (double)lab_histogram_at(h, .99) / 1e3,
           (double)lab_histogram_at(h, .999) / 1e3, (double)h->max / 1e3);
}

static void print_buckets(const struct lab_histogram *h)
{
    const char *comma = "";
    printf(",\"buckets\":[");
    for (unsigned i = 0; i < LAB_BUCKETS; i++)
        if (h->bucket[i]) {
            printf("%s[%.3f,%" PRIu64 "]", comma, lab_histogram_middle(i) / 1e3, h->bucket[i]);
            comma = ",";
        }
    printf("]");
}

static void print_json(const struct lab_plan *p, const struct lab_load_result *r)
{
    printf("{\"loop\":\"%s\",\"rate\":%.15g,\"connections\":%u,\"seconds\":%.6f,\"due\":%" PRIu64
           ",\"answered\":%" PRIu64 ",\"answered_after\":%" PRIu64
           ",\"failed\":{\"connect\":%" PRIu64 ",\"read\":%" PRIu64 ",\"write\":%" PRIu64
           ",\"timeout\":%" PRIu64 ",\"status\":%" PRIu64 ",\"unsent\":%" PRIu64
           "},\"bytes\":%" PRIu64,
           p->rate > 0 ? "open" : "closed", p->rate, p->connections, r->seconds, r->due,
           r->answered, r->answered_after, r->connect_failed, r->read_failed, r->write_failed,
           r->timed_out, r->refused, r->unsent, r->bytes);
    print_json_times("latency", &r->latency);
    print_json_times("cheap", &r->cheap);
    print_json_times("lag", &r->lag);
    print_buckets(&r->latency);
    printf("}\n");
}

/* Descriptors for many connections: the loader should not be short of them before the server is. */
static void raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* These figures tell of the loader, not of the server. */
static void warn_of_shortage(int error)
{
    const char *remedy =
        error == EMFILE || error == ENFILE
            ? "raise the limit (ulimit -Hn), or use fewer --connections"
        : error == EADDRNOTAVAIL
            ? "no port is free to come from: use --sources 16 to a server on 127.0.0.1, or fewer "
              "connections (without --close, or a lower --rate)"
            : "use fewer --connections";
    if (error)
        fprintf(stderr,
                "modus load: requests were not sent for want of a connection here: %s: %s\n",
                strerror(error), remedy);
}

int load_command(int argc, char **argv)
{
    static struct lab_load_result result;
    struct sigaction action = {.sa_handler = on_interrupt};
    struct wanted w = {.plan = {.connections = 64,
                                .seconds = 10,
                                .warm_seconds = 1,
                                .timeout_seconds = 10,
                                .dear_every = 100,
                                .seed = 1,
                                .stop = &interrupted}};
    char why[512];
    if (!read_words(&w, argc, argv)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (w.help) {
        fputs(usage, stdout);
        return EXIT_FINE;
    }
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    raise_limit();
    if (lab_url_parse(argv[optind], &w.plan.url, why, sizeof why) != 0 ||
        lab_load_run(&w.plan, &result, why, sizeof why) != 0) {
        fprintf(stderr, "modus load: %s\n", why);
        return EXIT_NOTHING;
    }
    warn_of_shortage(result.shortage);
    if (w.json)
        print_json(&w.plan, &result);
    else
        print_figures(&w.plan, &result);
    return result.answered + result.answered_after ? EXIT_FINE : EXIT_NOTHING;
}
