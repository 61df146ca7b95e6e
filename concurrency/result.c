/* SPDX-License-Identifier: MIT */
/* Result codes to words, and the clock: what every other file needs. */
#include "concurrency/result.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

/* The kernel's codes end there. */
static bool is_errno(int result)
{
    return result < 0 && result > -4096;
}

const char *modus_strresult(int result)
{
    switch (result) {
#define X(code, name, sentence)                                                                    \
    case code:                                                                                     \
        return sentence;
        MODUS_RESULTS(X)
#undef X
    }
    const char *sentence = is_errno(result) ? strerrordesc_np(-result) : NULL;
    return sentence ? sentence : "unknown result";
}

const char *modus_result_name(int result)
{
    switch (result) {
#define X(code, name, sentence)                                                                    \
    case code:                                                                                     \
        return name;
        MODUS_RESULTS(X)
#undef X
    }
    const char *name = is_errno(result) ? strerrorname_np(-result) : NULL;
    return name ? name : "UNKNOWN";
}

int64_t modus_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t modus_deadline(int64_t ns)
{
    int64_t deadline;

    if (ns == MODUS_FOREVER)
        return MODUS_FOREVER;
    return __builtin_add_overflow(modus_now_ns(), ns, &deadline) ? INT64_MAX : deadline;
}
