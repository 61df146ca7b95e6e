/* SPDX-License-Identifier: MIT */
/*
 * The arena's own memory: nobody is given what another has. arena.c is compiled with its functions
 * renamed, since all other scenarios have the checker's arena.
 */
#include "tests/check/check.h"

#include "concurrency/arena_priv.h"

enum { BLOCK = 2048, BLOCKS = 16 };

int real_arena_open(struct modus_arena **arena, size_t bytes, unsigned participants);
int real_arena_close(struct modus_arena *arena);
void *real_arena_alloc(struct modus_arena *arena, size_t size, size_t align);
int real_arena_free(struct modus_arena *arena, void *memory, size_t size);

static struct {
    struct modus_arena *arena;
    void *owned[BLOCKS];
} s;

static void setup(void)
{
    memset(&s, 0, sizeof s);
    MUST_INT(real_arena_open(&s.arena, 8 * BLOCK, 1), 0);
    void *first = real_arena_alloc(s.arena, BLOCK, 0),
         *second = real_arena_alloc(s.arena, BLOCK, 0);
    MUST(first && second);
    MUST_INT(real_arena_free(s.arena, first, BLOCK), 0);
    MUST_INT(real_arena_free(s.arena, second, BLOCK), 0);
}

static void **entry_of(void *memory)
{
    for (int i = 0; i < BLOCKS; i++)
        if (s.owned[i] == memory)
            return &s.owned[i];
    return NULL;
}

static char *take(void)
{
    char *memory = real_arena_alloc(s.arena, BLOCK, 0);

    MUST(memory);
    MUST(!entry_of(memory)); /* it is nobody's */
    *entry_of(NULL) = memory;
    MUST(memory[0] == 0 && memory[BLOCK - 1] == 0);
    memory[0] = memory[BLOCK - 1] = (char)check_self();
    return memory;
}

static void give(char *memory)
{
    MUST(memory[0] == check_self() && memory[BLOCK - 1] == check_self());
    *entry_of(memory) = NULL;
    MUST_INT(real_arena_free(s.arena, memory, BLOCK), 0);
}

static void take_two(void)
{
    char *one = take(), *two = take();

    give(one);
    give(two);
}

static void take_two_and_keep_one(void)
{
    char *one = take();

    take();
    give(one);
}

static void take_and_give_twice(void)
{
    give(take());
    give(take());
}

/* What is left can be had, and is nobody else's. */
static void is_whole(void)
{
    for (int i = 0; i < 4; i++)
        take();
    MUST_INT(real_arena_close(s.arena), 0);
}

CHECK_SCENARIO(aba, .name = "arena/two-of-two", .setup = setup,
               .actors = {take_two, take_two_and_keep_one}, .verify = is_whole, .switches = 3);
CHECK_SCENARIO(three, .name = "arena/three", .setup = setup,
               .actors = {take_and_give_twice, take_and_give_twice, take_two}, .verify = is_whole);
CHECK_SCENARIO(one_dies, .name = "arena/one-dies", .setup = setup,
               .actors = {take_two, take_two, take_and_give_twice}, .verify = is_whole, .victim = 1,
               .switches = 1);

/* A block that is freed by two at once is freed once. */
static void free_first(void)
{
    static const int results[] = {0, -EINVAL};
    int rc = real_arena_free(s.arena, s.owned[0], BLOCK);

    MUST(rc == results[0] || rc == results[1]);
    s.owned[1 + check_self()] = rc == 0 ? s.arena : NULL;
}

static void setup_one_taken(void)
{
    setup();
    take();
}

static void freed_once(void)
{
    MUST_INT((s.owned[2] != NULL) + (s.owned[3] != NULL), 1);
    memset(s.owned, 0, sizeof s.owned);
    is_whole();
}

CHECK_SCENARIO(twice, .name = "arena/freed-by-two", .setup = setup_one_taken,
               .actors = {free_first, free_first}, .verify = freed_once, .switches = 3);
