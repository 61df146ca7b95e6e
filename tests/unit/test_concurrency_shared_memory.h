/* SPDX-License-Identifier: MIT */
/* What the tests of shared memory share: a name of this program's, and a look around every test at
 * what is left. */
#ifndef TESTS_UNIT_TEST_CONCURRENCY_SHARED_MEMORY_H
#define TESTS_UNIT_TEST_CONCURRENCY_SHARED_MEMORY_H

#include "test_concurrency_left.h"

#include "concurrency/shared_memory.h"

enum { SIZE = 5000 };

static char name[64], path[80]; /* of this program's block */
static unsigned fds_before;

/* How many lines of the file hold the word. */
static inline unsigned lines_with(const char *file_name, const char *word)
{
    char line[512];
    unsigned count = 0;
    FILE *file = fopen(file_name, "r");

    CHECK(file);
    while (fgets(line, sizeof line, file))
        count += strstr(line, word) != NULL;
    fclose(file);
    return count;
}

static inline unsigned mappings(void)
{
    return lines_with("/proc/self/maps", "/dev/shm") +
           lines_with("/proc/self/maps", "memfd:modus-shm");
}

static inline int begin(void **state)
{
    snprintf(name, sizeof name, "modus-test-%d", (int)getpid());
    snprintf(path, sizeof path, "/dev/shm/%s", name);
    fds_before = fds_here();
    return watchdog(state);
}

/* Nothing of a test's is left: no name, no descriptor, no mapping. */
static inline int end(void **state)
{
    (void)state;
    if (access(path, F_OK) < 0 && fds_here() == fds_before && mappings() == 0)
        return 0;
    fprintf(stderr, "left: %s%u descriptors, not %u, %u mappings\n",
            access(path, F_OK) < 0 ? "" : "the name, ", fds_here(), fds_before, mappings());
    return -1;
}

static inline char *bytes_of(const struct modus_shm *shm)
{
    return modus_shm_memory(shm);
}

static inline struct modus_shm created(const char *name_or_none, size_t size)
{
    struct modus_shm shm = {0};

    CHECK_INT(modus_shm_create(&shm, name_or_none, size), 0);
    return shm;
}

static inline struct modus_shm opened(size_t least)
{
    struct modus_shm shm = {0};

    CHECK_INT(modus_shm_open(&shm, name, least), 0);
    return shm;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

#endif
