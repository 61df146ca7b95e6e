/* SPDX-License-Identifier: MIT */
/* `modus lab`: words in, a table and two files out. See server/lab/lab.h. */
#include "server/lab/lab.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

#define RESULTS "results.json"
#define PAGE    "report.html"

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
    for (size_t i = 0; i < w->work_count; i++)
        if (w->wanted.works[i] == work)
            return refuse("twice the load", word, "");
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
    for (size_t i = 0; i < w->model_count; i++)
        if (w->wanted.models[i] == model_name(model))
            return refuse("twice the model", word, "");
    if (w->model_count + 1 == LAB_MODELS)
        return refuse("too many models, from", word, " on");
    w->wanted.models[w->model_count++] = model_name(model);
    return true;
}

static bool add_connections(struct words *w, char *word)
{
    char *end;
    unsigned long n = strtoul(word, &end, 10);
    if (*end || strspn(word, "0123456789") == 0 || n < 1 || n > LAB_MOST_CONNECTIONS ||
        w->connection_count == LAB_CONNECTIONS)
        return refuse("--connections wants up to 4 numbers from 1 to 4000, not", word, "");
    for (size_t i = 0; i < w->connection_count; i++)
        if (w->wanted.connections[i] == n)
            return refuse("twice the number", word, "");
    w->wanted.connections[w->connection_count++] = (unsigned)n;
    return true;
}

/* "a,b,c" */
static bool each(struct words *w, char *list, bool (*add)(struct words *w, char *word))
{
    bool any = false;
    for (char *rest = NULL, *word = strtok_r(list, ",", &rest); word;
         word = strtok_r(NULL, ",", &rest), any = true)
        if (!add(w, word))
            return false;
    return any || refuse("there is nothing in", list, ": it wants words with commas between");
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
        return n == w->wanted.repeats || refuse("--repeat wants a whole number, not", text, "");
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

/* Was anything said about measuring? */
static bool measures(const struct words *w)
{
    return w->wanted.quick || w->wanted.seconds > 0 || w->wanted.repeats || w->work_count ||
           w->model_count || w->connection_count || w->against_count;
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
    if (w->again && measures(w))
        return refuse("nothing is measured anew from", w->again, ": --again goes with --out alone");
    complete(w);
    return true;
}

/* --- files ----------------------------------------------------------------------------------- */

/* Can a file of this name be written there? What is there stays. */
static bool can_write(const char *out, const char *name)
{
    char path[LAB_PATH], part[LAB_PATH];
    struct stat st;
    FILE *file = NULL;
    if (snprintf(path, sizeof path, "%s/%s", out, name) >= (int)sizeof path)
        errno = ENAMETOOLONG;
    else if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        errno = EISDIR;
    else
        file = lab_open_part(path, part);
    if (!file) {
        fprintf(stderr, "modus lab: cannot write %s/%s: %s\n", out, name, strerror(errno));
        return false;
    }
    fclose(file);
    unlink(part);
    return true;
}

/* Before anything is measured: who waits for minutes wants to have it. */
static bool make_out(const char *out)
{
    if (mkdir(out, 0755) == 0 || errno == EEXIST)
        return can_write(out, RESULTS) && can_write(out, PAGE);
    fprintf(stderr, "modus lab: cannot make %s: %s\n", out, strerror(errno));
    return false;
}

static bool is_measured(const struct lab_results *r)
{
    for (size_t i = 0; i < r->series_count; i++)
        if (r->series[i].round_count)
            return true;
    return false;
}

/* What was said on standard output may have got nowhere. */
static int say_end(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "modus lab: the table cannot be written: %s\n", strerror(errno));
    return EXIT_REFUSED;
}

static int leave(const struct lab_results *r, const char *out)
{
    char json[LAB_PATH], page[LAB_PATH];
    if (!is_measured(r)) {
        fputs("modus lab: ended before anything was measured\n", stderr);
        return EXIT_REFUSED;
    }
    snprintf(json, sizeof json, "%s/" RESULTS, out);
    snprintf(page, sizeof page, "%s/" PAGE, out);
    struct lab_findings *f = lab_judge_all(r);
    int rc = f ? lab_write_json(r, json) : -ENOMEM;
    if (f)
        lab_table(f, stdout);
    if (rc == 0)
        rc = lab_write_report(f, page);
    lab_findings_free(f);
    if (rc != 0) {
        fprintf(stderr, "modus lab: cannot write into %s: %s\n", out, strerror(-rc));
        return EXIT_REFUSED;
    }
    printf("\n%s has all of it, %s every figure.\n", page, json);
    return EXIT_FINE;
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0)
            return true;
    return false;
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
    /* PIPE: nobody reads the progress any more. */
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
    struct sigaction action = {.sa_handler = on_interrupt};
    char why[700];
    join_words(argc, argv, command, sizeof command);
    if (wants_help(argc, argv)) {
        print_usage(stdout);
        return say_end(EXIT_FINE);
    }
    if (!read_words(&w, argc, argv)) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    if (w.again && access(w.again, R_OK) != 0) {
        fprintf(stderr, "modus lab: cannot read %s: %s\n", w.again, strerror(errno));
        return EXIT_REFUSED;
    }
    if (!make_out(w.out))
        return EXIT_REFUSED;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        sigaction(ends[i], &action, NULL);
    if (w.again)
        return say_end(lab_report_again(w.again, w.out) == 0 ? EXIT_FINE : EXIT_REFUSED);
    struct lab_results *r = lab_run(&w.wanted, why, sizeof why);
    if (!r) {
        fprintf(stderr, "modus lab: %s\n",
                interrupted ? "ended before anything was measured" : why);
        return EXIT_REFUSED;
    }
    int status = leave(r, w.out);
    lab_run_free(r);
    return say_end(status);
}
