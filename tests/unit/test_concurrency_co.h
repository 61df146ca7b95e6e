/* SPDX-License-Identifier: MIT */
/* What the tests of coroutines share: to start one, and to wait for its end. */
#ifndef TESTS_UNIT_TEST_CONCURRENCY_CO_H
#define TESTS_UNIT_TEST_CONCURRENCY_CO_H

#include "test_concurrency.h"

#include "concurrency/coroutine.h"

static inline struct modus_co *go(int (*run)(void *), void *argument)
{
    struct modus_co *co;

    CHECK_INT(modus_co_start(&co, NULL, run, argument), 0);
    return co;
}

/* Returns what its function returned. */
static inline int joined(struct modus_co *co)
{
    int result = -1;

    CHECK_INT(modus_co_join(co, MODUS_FOREVER, &result), 0);
    modus_co_put(co);
    return result;
}

#endif
