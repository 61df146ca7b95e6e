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
#include "server/config.h"
#include "server/config_value.h"
#include "server/models.h"
#include "server/supervisor.h"
#include "server/title.h"

static const char usage[] =
    "usage: modus [-c FILE]           serve, in the foreground\n"
    "       modus -t [-c FILE]        check the file and say what is wrong\n"
    "       modus explain [-c FILE]   effective values, and what they may cost\n"
    "       modus models              the concurrency models\n"
    "       modus handlers            the handlers and their options\n"
    "       modus --version | -v | --help | -h\n"
    "\n"
    "FILE is conf/modus.conf unless given, or " MODUS_PREFIX
    "/etc/modus/modus.conf if that is not there.\n"
    "Signals: TERM, INT and QUIT stop gracefully (a second one at once), USR1 opens the logs "
    "again.\n";

enum { EXIT_FINE, EXIT_REFUSED, EXIT_USAGE };

struct command {
    const char *verb; /* "serve", "check", ... */
    const char *file;
};

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
            printf("           %-12s %s%s%s\n", o->name, o->value ? o->value : "(must be given)",
                   o->help ? "  " : "", o->help ? o->help : "");
    }
    return EXIT_FINE;
}

static const char *default_file(void)
{
    const char *here = "conf/modus.conf";
    return access(here, F_OK) == 0 ? here : MODUS_PREFIX "/etc/modus/modus.conf";
}

static int with_config(const struct command *command)
{
    char why[1024];
    struct config *c = config_read(command->file, why, sizeof why);
    if (!c) {
        fprintf(stderr, "%s\n", why);
        return EXIT_REFUSED;
    }
    if (strcmp(command->verb, "serve") == 0)
        return supervise(c); /* which takes c */
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

static void say_unknown(const char *word, const char *const *verbs)
{
    struct value_nearest near = {.word = word, .len = strlen(word)};
    for (size_t i = 0; verbs[i]; i++)
        value_nearest_offer(&near, verbs[i]);
    fprintf(stderr, "modus: unknown command \"%s\"%s (a file is named with -c)\n", word,
            value_nearest_hint(&near).text);
}

/* Returns false for words that mean nothing. */
static bool parse(int argc, char **argv, struct command *command)
{
    static const char *const verbs[] = {"explain", "models", "handlers", NULL};
    static const char *const later[] = {"reload", "stop", "status", "lab", "model",
                                        "drain",  "load", "advise", NULL};
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *verb = NULL;
        if (strcmp(word, "-c") == 0) {
            if (++i == argc) {
                fprintf(stderr, "modus: -c needs a file\n");
                return false;
            }
            command->file = argv[i];
            continue;
        }
        if (strcmp(word, "-t") == 0)
            verb = "check";
        for (size_t v = 0; verbs[v]; v++)
            if (strcmp(word, verbs[v]) == 0)
                verb = verbs[v];
        bool comes = false;
        for (size_t v = 0; later[v]; v++)
            comes |= strcmp(word, later[v]) == 0;
        if (comes)
            fprintf(stderr, "modus: \"%s\" is not in this build\n", word);
        else if (!verb)
            say_unknown(word, verbs);
        else if (command->verb)
            fprintf(stderr, "modus: \"%s\" is one thing too many\n", word);
        if (!verb || command->verb)
            return false;
        command->verb = verb;
    }
    if (!command->verb)
        command->verb = "serve";
    if (!command->file)
        command->file = default_file();
    return true;
}

int main(int argc, char **argv)
{
    struct command command = {0};
    title_init(argc, argv);
    if (argc == 2 && (strcmp(argv[1], "--version") == 0 || strcasecmp(argv[1], "-v") == 0))
        return print_version();
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
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
    return with_config(&command);
}
