/* SPDX-License-Identifier: MIT */
/* The search as main.c knows it. */
#ifndef TESTS_CHECK_SEARCH_H
#define TESTS_CHECK_SEARCH_H

#include "tests/check/check.h"

struct check_limits {
    int switches;    /* the bound */
    double seconds;  /* of the bounded search; what is not done then is left */
    uint64_t random; /* runs by chance, beyond the bound */
    uint64_t seed;
    bool tso;
    bool trace; /* show the run that fails */
};

struct check_result {
    uint64_t runs, random_runs;
    int complete;      /* the largest bound of which every run was made; -1: none */
    char message[400]; /* what did not hold, */
    int switches;      /* and with how many switches; -1: by chance, */
    uint64_t seed;     /* with that seed */
};

/* Returns whether everything held in every run. */
bool check_search(const struct check_scenario *scenario, const struct check_limits *limits,
                  struct check_result *result);

#endif
