/* SPDX-License-Identifier: MIT */
/*
 * check [OPTION]... [WORD]...: search the scenarios whose name holds one of the words.
 *
 *     --switches N   bound instead of each scenario's own
 *     --more N       add N to it
 *     --seconds S    for each scenario's bounded search
 *     --random N     runs by chance for each, --seed S the first one's seed
 *     --tso          with store buffers
 *     --mutant NAME  something is broken: success is that a scenario fails
 */
#define CHECK_ENGINE 1
#include "tests/check/search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct check_scenario *first, **last = &first;

void check_add(struct check_scenario *scenario)
{
    *last = scenario;
    last = &scenario->next;
}

struct options {
    struct check_limits limits;
    int switches, more;
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

static int search_all(struct options *options)
{
    unsigned held = 0, failed = 0;
    const char *caught = NULL;
    struct check_result result = {0};
    unsigned long long runs = 0;

    for (struct check_scenario *at = first; at && !caught; at = at->next) {
        struct check_limits limits = options->limits;

        if (!is_wanted(options, at->name))
            continue;
        limits.switches = options->switches >= 0 ? options->switches
                          : at->switches         ? at->switches
                                                 : 2;
        limits.switches += options->more;
        bool all = check_search(at, &limits, &result);
        runs += result.runs + result.random_runs;
        held += all;
        failed += !all;
        if (options->mutant && !all)
            caught = at->name;
        else if (!options->mutant)
            tell(at, &result, &limits, all);
    }
    if (options->mutant)
        return report_mutant(options, caught, &result);
    printf("check: %u scenarios hold, %u do not; %llu runs%s\n", held, failed, runs,
           options->limits.tso ? " with store buffers" : "");
    return failed > 0 || (held == 0 && options->word_count == 0);
}

int main(int argc, char **argv)
{
    struct options options = {
        .limits = {.seconds = 3600, .seed = 1, .trace = true}, .switches = -1, .words = argv + 1};
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
        else if (strcmp(argv[i], "--mutant") == 0)
            options.mutant = value;
        else
            return fprintf(stderr, "check: %s is no option\n", argv[i]), 2;
        i++;
    }
    options.limits.trace = !options.mutant;
    options.words = argv + i;
    options.word_count = argc - i;
    return search_all(&options);
}
