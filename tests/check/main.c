/* SPDX-License-Identifier: MIT */
/*
 * check [OPTION]... [WORD]...: search the scenarios whose name holds one of the words.
 *
 *     --switches N   bound instead of each scenario's own
 *     --more N       add N to it
 *     --seconds S    for each scenario's bounded search
 *     --random N     runs by chance for each, --seed S the first one's seed
 *     --jobs N       so many scenarios at a time, each in a process
 *     --tso          with store buffers
 *     --mutant NAME  something is broken: success is that a scenario fails
 */
#define CHECK_ENGINE 1
#include "tests/check/search.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct check_scenario *first, **last = &first;

void check_add(struct check_scenario *scenario)
{
    *last = scenario;
    last = &scenario->next;
}

struct options {
    struct check_limits limits;
    int switches, more, jobs;
    const char *mutant;
    char **words;
    int word_count;
};

static bool is_wanted(const struct options *options, const char *name)
{
    for (int i = 0; i < options->word_count; i++)
        if (strstr(name, options->words[i]))
            return true;
    return options->word_count == 0;
}

static void tell(const struct check_scenario *scenario, const struct check_result *result,
                 const struct check_limits *limits, bool held)
{
    printf("  check %-28s %9llu runs", scenario->name, (unsigned long long)result->runs);
    if (!held && result->switches >= 0)
        printf(", FAILED with %d switches: %s\n", result->switches, result->message);
    else if (!held)
        printf(", FAILED by chance, seed %llu: %s\n", (unsigned long long)result->seed,
               result->message);
    else if (result->complete < limits->switches)
        printf(", all with %d switches; time over for %d\n", result->complete, limits->switches);
    else
        printf(", all with %d switches; %llu by chance\n", result->complete,
               (unsigned long long)result->random_runs);
    fflush(stdout);
}

static int report_mutant(const struct options *options, const char *caught,
                         const struct check_result *result)
{
    if (!caught) {
        printf("  check mutant %s: NOT CAUGHT\n", options->mutant);
        return 1;
    }
    printf("  check mutant %-32s caught by %s after %llu runs\n", options->mutant, caught,
           (unsigned long long)(result->runs + result->random_runs));
    return 0;
}

static struct check_limits limits_of(const struct options *options,
                                     const struct check_scenario *scenario)
{
    struct check_limits limits = options->limits;
    int own = scenario->switches ? scenario->switches : 2;

    limits.switches = (options->switches >= 0 ? options->switches : own) + options->more;
    return limits;
}

/* One scenario that fails is enough. */
static int search_mutant(const struct options *options)
{
    const char *caught = NULL;
    struct check_result result = {0};

    for (struct check_scenario *at = first; at && !caught; at = at->next) {
        struct check_limits limits = limits_of(options, at);
        if (is_wanted(options, at->name) && !check_search(at, &limits, &result))
            caught = at->name;
    }
    return report_mutant(options, caught, &result);
}

/* What the jobs share. */
struct tally {
    atomic_uint next, held, failed;
    atomic_ullong runs;
};

/* Search scenarios that no other job has taken, until there is none. */
static void work(const struct options *options, struct tally *tally)
{
    unsigned index = 0, mine = atomic_fetch_add(&tally->next, 1);

    for (struct check_scenario *at = first; at; at = at->next) {
        if (!is_wanted(options, at->name) || index++ != mine)
            continue;
        struct check_limits limits = limits_of(options, at);
        struct check_result result = {0};
        bool held = check_search(at, &limits, &result);
        atomic_fetch_add(&tally->runs, result.runs + result.random_runs);
        atomic_fetch_add(held ? &tally->held : &tally->failed, 1);
        tell(at, &result, &limits, held);
        mine = atomic_fetch_add(&tally->next, 1);
    }
}

static int search_all(const struct options *options)
{
    struct tally *tally =
        mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;

    if (tally == MAP_FAILED)
        return perror("check"), 2;
    for (int i = 1; i < options->jobs; i++)
        if (fork() == 0) {
            work(options, tally);
            _exit(0);
        }
    work(options, tally);
    while (wait(&status) > 0)
        if (status != 0) { /* it ended within a scenario */
            printf("  check: a job ended with status %d\n", status);
            atomic_fetch_add(&tally->failed, 1);
        }
    printf("check: %u scenarios hold, %u do not; %llu runs%s\n", tally->held, tally->failed,
           tally->runs, options->limits.tso ? " with store buffers" : "");
    return tally->failed > 0 || (tally->held == 0 && options->word_count == 0);
}

int main(int argc, char **argv)
{
    struct options options = {
        .limits = {.seconds = 3600, .seed = 1, .trace = true}, .switches = -1, .jobs = 1};
    int i = 1;

    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "0";

        if (strcmp(argv[i], "--tso") == 0) {
            options.limits.tso = true;
            continue;
        }
        if (strcmp(argv[i], "--switches") == 0)
            options.switches = atoi(value);
        else if (strcmp(argv[i], "--more") == 0)
            options.more = atoi(value);
        else if (strcmp(argv[i], "--seconds") == 0)
            options.limits.seconds = atof(value);
        else if (strcmp(argv[i], "--random") == 0)
            options.limits.random = strtoull(value, NULL, 0);
        else if (strcmp(argv[i], "--seed") == 0)
            options.limits.seed = strtoull(value, NULL, 0);
        else if (strcmp(argv[i], "--jobs") == 0)
            options.jobs = atoi(value);
        else if (strcmp(argv[i], "--mutant") == 0)
            options.mutant = value;
        else
            return fprintf(stderr, "check: %s is no option\n", argv[i]), 2;
        i++;
    }
    options.limits.trace = !options.mutant;
    options.words = argv + i;
    options.word_count = argc - i;
    return options.mutant ? search_mutant(&options) : search_all(&options);
}
