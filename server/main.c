/* SPDX-License-Identifier: MIT */
/* The command. What it can do is in usage below; the work is elsewhere. */
#include <confuse.h>
#include <llhttp.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "handlers/handler.h"
#include "server/ask.h"
#include "server/config.h"
#include "server/config_value.h"
#include "server/default_file.h"
#include "server/lab/advise_command.h"
#include "server/lab/lab.h"
#include "server/lab/load.h"
#include "server/models.h"
#include "server/program.h"
#include "server/supervisor.h"
#include "server/title.h"

static const char usage[] =
    "usage: modus [-c FILE]           serve, in the foreground\n"
    "       modus -t [-c FILE]        check the file and say what is wrong\n"
    "       modus explain [-c FILE]   effective values, and what they may cost\n"
    "       modus models              the concurrency models\n"
    "       modus handlers            the handlers and their options\n"
    "       modus lab                 which model for which load, measured here: --help\n"
    "       modus load URL            load a server, and say how long answers take: --help\n"
    "       modus --version | -v | --help | -h\n"
    "\n"
    "To the server that runs with FILE, over its control socket:\n"
    "       modus stop [-c FILE]      stop gracefully, and wait for that; once more: at once\n"
    "       modus status [--json]     connections, requests and workers of each listener\n"
    "       modus logs reopen         open the logs again, and wait until nobody writes to the "
    "old\n"
    "       modus reload              take the changed FILE\n"
    "       modus upgrade             have the program that was put in its place serve\n"
    "       modus model LISTENER MODEL    serve a listener with another model\n"
    "       modus drain LISTENER      stop serving one listener\n"
    "       modus advise LISTENER     watch it, and say whether another model would suit\n"
    "\n"
    "FILE is conf/modus.conf unless given, or " MODUS_PREFIX
    "/etc/modus/modus.conf if that is not there.\n"
    "Signals: TERM, INT and QUIT stop gracefully (a second one at once), HUP reloads, USR1 opens "
    "the logs\nagain, USR2 upgrades.\n";

enum { EXIT_FINE, EXIT_REFUSED, EXIT_USAGE };
enum { MOST_WORDS = 8, SOON_MS = 5000 };

struct command {
    const char *verb; /* "serve", "check", ... */
    const char *file;
    const char *words[MOST_WORDS]; /* verb among them, and what follows it */
    int count;
};

/* What is asked of a running server. */
static const struct question {
    const char *words[2]; /* that it begins with */
    int arguments;        /* words that follow */
    const char *wanted;   /* what may follow, for messages */
    int limit_ms;         /* 0: its answer comes when the act is done */
} questions[] = {
    {{"stop"}, 0, "stop", 0},
    {{"status", "--json"}, 0, NULL, SOON_MS},
    {{"status"}, 0, "status [--json]", SOON_MS},
    {{"logs", "reopen"}, 0, "logs reopen", 0},
    {{"reload"}, 0, "reload", 0},
    {{"upgrade"}, 0, "upgrade", 0},
    {{"model"}, 2, "model LISTENER MODEL", 0},
    {{"drain"}, 1, "drain LISTENER", 0},
};
enum { QUESTIONS = sizeof questions / sizeof questions[0] };

static int print_version(void)
{
    printf("modus %s (libuv %s, OpenSSL %s, llhttp %d.%d.%d, libconfuse %s)\n", MODUS_VERSION,
           uv_version_string(), OpenSSL_version(OPENSSL_VERSION_STRING), LLHTTP_VERSION_MAJOR,
           LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH, confuse_version);
    return EXIT_FINE;
}

static int print_models(void)
{
    const struct model *m;
    for (size_t i = 0; (m = models_at(i)) != NULL; i++)
        printf("%-12s %s\n             %s\n", model_name(m), model_summary(m), model_options(m));
    return EXIT_FINE;
}

static int print_handlers(void)
{
    const struct handler *h;
    for (size_t i = 0; (h = handler_at(i)) != NULL; i++) {
        printf("%-8s %s\n", h->name, h->summary);
        for (const struct option *o = h->options; o && o->name; o++)
            printf("           %-12s %-15s%s%s\n", o->name, o->value ? o->value : "(must be given)",
                   o->help ? "  " : "", o->help ? o->help : "");
    }
    return EXIT_FINE;
}

static int serve(const char *file)
{
    char why[1024];
    struct inheritance *in = inherit(why, sizeof why);
    struct config *c = why[0] ? NULL : config_read(file, why, sizeof why);
    if (c)
        return supervise(c, in); /* which takes both */
    if (!inherit_refuse(in, why))
        fprintf(stderr, "%s\n", why);
    inherit_free(in);
    return EXIT_REFUSED;
}

static int with_config(const struct command *command)
{
    char why[1024];
    struct config *c = config_read(command->file, why, sizeof why);
    if (!c) {
        fprintf(stderr, "%s\n", why);
        return EXIT_REFUSED;
    }
    int status = EXIT_FINE;
    if (strcmp(command->verb, "explain") == 0) {
        config_explain(c);
    } else if (supervise_check(c, why, sizeof why) != 0) {
        fprintf(stderr, "%s\n", why);
        status = EXIT_REFUSED;
    } else {
        printf("%s is right\n", command->file);
    }
    config_free(c);
    return status;
}

static const char *const verbs[] = {"explain", "models", "handlers", NULL};

static bool is_question(const char *word)
{
    for (size_t i = 0; i < QUESTIONS; i++)
        if (strcmp(questions[i].words[0], word) == 0)
            return true;
    return false;
}

static bool is_verb(const char *word)
{
    for (size_t i = 0; verbs[i]; i++)
        if (strcmp(word, verbs[i]) == 0)
            return true;
    return strcmp(word, "-t") == 0;
}

/* What has words of its own. */
static const struct program {
    const char *verb;
    int (*run)(int argc, char **argv);
} programs[] = {
    {"advise", advise_command},
    {"lab", lab_command},
    {"load", load_command},
};

static const struct program *program_named(const char *verb)
{
    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++)
        if (strcmp(verb, programs[i].verb) == 0)
            return &programs[i];
    return NULL;
}

static void say_unknown(const char *word)
{
    struct value_nearest near = {.word = word, .len = strlen(word)};
    for (size_t i = 0; verbs[i]; i++)
        value_nearest_offer(&near, verbs[i]);
    for (size_t i = 0; i < QUESTIONS; i++)
        value_nearest_offer(&near, questions[i].words[0]);
    fprintf(stderr, "modus: unknown command \"%s\"%s (a file is named with -c)\n", word,
            value_nearest_hint(&near).text);
}

/* The question that the command's words are, or NULL when that was said. */
static const struct question *question_of(const struct command *command)
{
    const char *wanted = "";
    for (size_t i = 0; i < QUESTIONS; i++) {
        const struct question *q = &questions[i];
        int own = q->words[1] ? 2 : 1;
        if (strcmp(command->verb, q->words[0]) != 0)
            continue;
        wanted = q->wanted ? q->wanted : wanted;
        if (command->count == own + q->arguments &&
            (own == 1 || strcmp(command->words[1], q->words[1]) == 0))
            return q;
    }
    fprintf(stderr, "modus: these words can't follow \"%s\"; it is: modus %s [-c FILE]\n",
            command->verb, wanted);
    return NULL;
}

static int ask(const struct command *command)
{
    const struct question *q = question_of(command);
    if (q)
        return ask_server(command->file, command->words, command->count, q->limit_ms);
    fputs(usage, stderr);
    return EXIT_USAGE;
}

/* One word of the command line. Returns false when it means nothing here, which was said. */
static bool take_word(struct command *command, const char *word)
{
    bool first = !command->verb;
    if (!first && is_question(command->verb) && command->count < MOST_WORDS) {
        command->words[command->count++] = word;
        return true;
    }
    if (first && (is_verb(word) || is_question(word))) {
        command->verb = strcmp(word, "-t") == 0 ? "check" : word;
        command->words[command->count++] = word;
        return true;
    }
    if (first || !(is_verb(word) || is_question(word) || is_question(command->verb)))
        say_unknown(word);
    else
        fprintf(stderr, "modus: \"%s\" is one thing too many\n", word);
    return false;
}

/* Returns false for words that mean nothing. */
static bool parse(int argc, char **argv, struct command *command)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-c") != 0) {
            if (!take_word(command, argv[i]))
                return false;
        } else if (++i < argc) {
            command->file = argv[i];
        } else {
            fprintf(stderr, "modus: -c needs a file\n");
            return false;
        }
    }
    if (!command->verb)
        command->verb = "serve";
    if (!command->file)
        command->file = default_file();
    return true;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    struct command command = {0};
    program_init(argc > 0 ? argv[0] : NULL);
    title_init(argc, argv);
    if (argc == 2 && (strcmp(argv[1], "--version") == 0 || strcasecmp(argv[1], "-v") == 0))
        return print_version();
    const struct program *program = argc > 1 ? program_named(argv[1]) : NULL;
    if (program)
        return program->run(argc - 1, argv + 1);
    if (asks_for_help(argc, argv)) {
        fputs(usage, stdout);
        return EXIT_FINE;
    }
    if (!parse(argc, argv, &command)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (strcmp(command.verb, "models") == 0)
        return print_models();
    if (strcmp(command.verb, "handlers") == 0)
        return print_handlers();
    if (!command.file) {
        fprintf(stderr, "modus: there is neither %s in this folder nor %s: name a file with -c\n",
                default_file_here, default_file_installed);
        return EXIT_REFUSED;
    }
    if (strcmp(command.verb, "serve") == 0)
        return serve(command.file);
    return is_question(command.verb) ? ask(&command) : with_config(&command);
}
