/* SPDX-License-Identifier: MIT */
/* `modus lab`: words in, a table and two files out. See server/lab/lab.h. */
#include "server/lab/lab.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "server/lab/number.h"
#include "server/lab/report.h"
#include "server/lab/run.h"
#include "server/lab/url.h"
#include "server/lab/table.h"
#include "server/models.h"

static const char usage[] = "usage: modus lab [OPTIONS]\n"
                            "  --quick             under two minutes; less sure\n"
                            "  --loads A,B         only these, of: ";

static const char more_usage[] =
    "\n"
    "  --models A,B        only these\n"
    "  --connections N,N   instead of each load's own\n"
    "  --seconds N         a round (2)\n"
    "  --repeat N          each round (3)\n"
    "  --against URL       a foreign server, into the same tables; up to 4 times\n"
    "  --out DIR           where results.json and report.html go (modus-lab)\n"
    "  --again FILE        make the table and the page anew from a results.json\n";

enum { EXIT_FINE, EXIT_REFUSED, EXIT_USAGE };
enum { QUICK = 1000, LOADS, MODELS, CONNECTIONS, SECONDS, REPEAT, AGAINST, OUT, AGAIN };

static const struct option options[] = {
    {"quick", no_argument, NULL, QUICK},
    {"loads", required_argument, NULL, LOADS},
    {"models", required_argument, NULL, MODELS},
    {"connections", required_argument, NULL, CONNECTIONS},
    {"seconds", required_argument, NULL, SECONDS},
    {"repeat", required_argument, NULL, REPEAT},
    {"against", required_argument, NULL, AGAINST},
    {"out", required_argument, NULL, OUT},
    {"again", required_argument, NULL, AGAIN},
    {NULL, 0, NULL, 0},
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

struct words {
    struct lab_wanted wanted;
    const char *out, *again;
    size_t work_count, model_count, connection_count, against_count;
};

/* --- words ----------------------------------------------------------------------------------- */

static bool refuse(const char *what, const char *word, const char *remedy)
{
    fprintf(stderr, "modus lab: %s \"%s\"%s\n", what, word, remedy);
    return false;
}

static bool add_work(struct words *w, char *word)
{
    const struct lab_work *work = lab_work_named(word);
    if (!work)
        return refuse("there is no load", word, ": see modus lab --help");
    if (w->work_count + 1 == LAB_WORKS)
        return refuse("too many loads, from", word, " on");
    w->wanted.works[w->work_count++] = work;
    return true;
}

static bool add_model(struct words *w, char *word)
{
    const struct model *model = models_find(word);
    if (!model)
        return refuse("there is no model", word, ": see modus models");
    if (w->model_count + 1 == LAB_MODELS)
        return refuse("too many models, from", word, " on");
    w->wanted.models[w->model_count++] = model_name(model);
    return true;
}

static bool add_connections(struct words *w, char *word)
{
    char *end;
    unsigned long n = strtoul(word, &end, 10);
    if (*end || end == word || n < 1 || n > 100000 || w->connection_count == LAB_CONNECTIONS)
        return refuse("--connections wants up to 4 numbers from 1 to 100000, not", word, "");
    w->wanted.connections[w->connection_count++] = (unsigned)n;
    return true;
}

/* "a,b,c" */
static bool each(struct words *w, char *list, bool (*add)(struct words *w, char *word))
{
    for (char *rest = NULL, *word = strtok_r(list, ",", &rest); word;
         word = strtok_r(NULL, ",", &rest))
        if (!add(w, word))
            return false;
    return true;
}

static bool add_against(struct words *w, const char *url)
{
    char why[300];
    struct lab_url parsed;
    if (lab_url_parse(url, &parsed, why, sizeof why) != 0) {
        fprintf(stderr, "modus lab: %s\n", why);
        return false;
    }
    if (w->against_count == LAB_AGAINST)
        return refuse("too many foreign servers, from", url, " on");
    w->wanted.against[w->against_count++] = url;
    return true;
}

static bool take(struct words *w, int key, char *text)
{
    double n = 0;
    switch (key) {
    case QUICK:
        return w->wanted.quick = true;
    case LOADS:
        return each(w, text, add_work);
    case MODELS:
        return each(w, text, add_model);
    case CONNECTIONS:
        return each(w, text, add_connections);
    case SECONDS:
        return lab_number("lab", "seconds", text, 1, 600, &w->wanted.seconds);
    case REPEAT:
        if (!lab_number("lab", "repeat", text, 1, 100, &n))
            return false;
        w->wanted.repeats = (unsigned)n;
        return true;
    case AGAINST:
        return add_against(w, text);
    case OUT:
        w->out = text;
        return true;
    case AGAIN:
        w->again = text;
        return true;
    default:
        return false; /* getopt has said why */
    }
}

/* What was not said. */
static void complete(struct words *w)
{
    const struct lab_work *work;
    const struct model *model;
    bool all_works = !w->work_count, all_models = !w->model_count;
    for (size_t i = 0; all_works && (work = lab_work_at(i)) != NULL; i++)
        if (!w->wanted.quick || work->quick_connections)
            w->wanted.works[w->work_count++] = work;
    for (size_t i = 0; all_models && (model = models_at(i)) != NULL; i++)
        w->wanted.models[w->model_count++] = model_name(model);
    if (w->wanted.seconds <= 0)
        w->wanted.seconds = w->wanted.quick ? 1 : 2;
    if (!w->wanted.repeats)
        w->wanted.repeats = w->wanted.quick ? 1 : 3;
}

static void print_usage(FILE *to)
{
    const struct lab_work *work;
    fputs(usage, to);
    for (size_t i = 0; (work = lab_work_at(i)) != NULL; i++)
        fprintf(to, "%s%s", i ? i % 7 ? ", " : ",\n                      " : "", work->load.name);
    fputs(more_usage, to);
}

static bool read_words(struct words *w, int argc, char **argv)
{
    int key;
    optind = 1;
    while ((key = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (!take(w, key, optarg))
            return false;
    if (optind < argc)
        return refuse("it takes no word like", argv[optind], "");
    complete(w);
    return true;
}

/* --- files ----------------------------------------------------------------------------------- */

static bool make_out(const char *out)
{
    if (mkdir(out, 0755) == 0 || errno == EEXIST)
        return true;
    fprintf(stderr, "modus lab: cannot make %s: %s\n", out, strerror(errno));
    return false;
}

static int leave(const struct lab_results *r, const char *out)
{
    char json[4096], page[4096];
    snprintf(json, sizeof json, "%s/results.json", out);
    snprintf(page, sizeof page, "%s/report.html", out);
    struct lab_findings *f = lab_judge_all(r);
    int rc = f ? lab_write_json(r, json) : -ENOMEM;
    if (rc == 0)
        rc = lab_write_report(f, page);
    if (rc == 0)
        lab_table(f, stdout);
    lab_findings_free(f);
    if (rc != 0) {
        fprintf(stderr, "modus lab: cannot write into %s: %s\n", out, strerror(-rc));
        return EXIT_REFUSED;
    }
    printf("\n%s has all of it, %s every figure.\n", page, json);
    return EXIT_FINE;
}

static void join_words(int argc, char **argv, char *to, size_t size)
{
    size_t len = (size_t)snprintf(to, size, "modus");
    for (int i = 0; i < argc && len < size; i++)
        len += (size_t)snprintf(to + len, size - len, " %s", argv[i]);
}

int lab_command(int argc, char **argv)
{
    static char command[2048];
    struct words w = {.out = "modus-lab", .wanted = {.stop = &interrupted, .command = command}};
    struct sigaction action = {.sa_handler = on_interrupt};
    char why[700];
    join_words(argc, argv, command, sizeof command);
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        print_usage(stdout);
        return EXIT_FINE;
    }
    if (!read_words(&w, argc, argv)) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    if (!make_out(w.out))
        return EXIT_REFUSED;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (w.again)
        return lab_report_again(w.again, w.out) == 0 ? EXIT_FINE : EXIT_REFUSED;
    struct lab_results *r = lab_run(&w.wanted, why, sizeof why);
    if (!r) {
        fprintf(stderr, "modus lab: %s\n", why);
        return EXIT_REFUSED;
    }
    int status = leave(r, w.out);
    lab_run_free(r);
    return status;
}
