/* SPDX-License-Identifier: MIT */
/* Giving way: it is gone on with among those who answer, and given up beside one who computes,
 * however many there might be. All are on one CPU. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/thread.h"
#include "server/give_way.h"

enum { SLOTS = 64 };

static struct board *board;
static struct net_stats stats[SLOTS];
static atomic_bool over;

static void answer(void)
{
    net_count(&stats[1].answers[2], 1);
}

/* Answers one small request after the other, giving way after each. */
static void *answerer(void *argument)
{
    while (!atomic_load(&over)) {
        int64_t end_us = net_clock_us() + 5;
        while (net_clock_us() < end_us)
            continue;
        answer();
        sched_yield();
    }
    return argument;
}

static void *computer(void *argument)
{
    while (!atomic_load(&over))
        continue;
    return argument;
}

static void start(pthread_t *threads, int count, void *(*run)(void *))
{
    atomic_store(&over, false);
    for (int i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run, NULL), 0);
}

static void end(const pthread_t *threads, int count)
{
    atomic_store(&over, true);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static int one_cpu(void **state)
{
    cpu_set_t all, one;
    size_t cpu = 0;
    (void)state;
    alarm(60);
    sched_getaffinity(0, sizeof all, &all);
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    board = calloc(1, sizeof *board + SLOTS * sizeof board->slots[0]);
    board->slot_count = SLOTS;
    board->stats_count = 1;
    board->child_count = 1000;
    for (int i = 0; i < SLOTS; i++)
        board->slots[i].stats = &stats[i];
    return sched_setaffinity(0, sizeof one, &one);
}

static int free_board(void **state)
{
    (void)state;
    free(board);
    alarm(0);
    return 0;
}

/* Calls until it is given up, most at the most. */
static int calls_until_given_up(int most)
{
    struct give_way g = {0};
    int calls = 0;
    while (calls < most && g.skip == 0) {
        give_way(&g, board);
        calls++;
    }
    return calls;
}

static void given_up_beside_one_who_computes(void **state)
{
    pthread_t thread;
    (void)state;
    start(&thread, 1, computer);
    assert_true(calls_until_given_up(1000) < 1000);
    end(&thread, 1);
}

static void gone_on_with_among_those_who_answer(void **state)
{
    pthread_t threads[8];
    (void)state;
    start(threads, 8, answerer);
    while (calls_until_given_up(500) < 500) /* others may need the CPU for a while; see the alarm */
        ;
    end(threads, 8);
}

static void tried_again_later(void **state)
{
    pthread_t thread;
    struct give_way g = {0};
    (void)state;
    start(&thread, 1, computer);
    while (!g.skip)
        give_way(&g, board);
    end(&thread, 1);
    unsigned skip = g.skip;
    for (unsigned i = 0; i < skip; i++)
        assert_false(give_way(&g, board));
    assert_int_equal(g.skip, 0);
    start(&thread, 1, computer);
    while (!g.skip)
        give_way(&g, board);
    end(&thread, 1);
    assert_int_equal(g.skip, 2 * skip); /* more and more seldom */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_up_beside_one_who_computes),
        cmocka_unit_test(gone_on_with_among_those_who_answer),
        cmocka_unit_test(tried_again_later),
    };
    return cmocka_run_group_tests(tests, one_cpu, free_board);
}
