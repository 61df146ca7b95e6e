/* SPDX-License-Identifier: MIT */
/*
 * Ids of coroutines: no two that live have the same one, in all loops of the process, since a lock
 * knows its owner by it.
 *
 * There are fewer than a long-lived program starts coroutines, so they are used again. To look
 * through all that live, of other threads too, would cost more than all the rest of a start. So loops
 * take them in blocks, and what is asked of others is asked once a block: a bit says whether one of
 * it lives, or may yet. Within a block a loop is alone, and counts.
 *
 * Blocks go round: an id comes again as late as can be. They begin above all that the kernel gives to
 * threads.
 */
#include "concurrency/coroutine_priv.h"

#include <stdlib.h>

enum { FIRST_ID = 0x400000, LAST_ID = 0x3fffffff, BLOCK = 256, WORD = 64 };
enum { BLOCKS = (LAST_ID - FIRST_ID) / BLOCK };

struct modus_co_ids {
    uint32_t first, taken, living;
};

static _Atomic uint64_t used[(BLOCKS + WORD - 1) / WORD];
_Atomic uint32_t modus_co_next_block;

static uint64_t bit_of(uint32_t block)
{
    return UINT64_C(1) << block % WORD;
}

/* Returns its first id; 0: none is left. */
static uint32_t take_block(void)
{
    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t block = atomic_fetch_add(&modus_co_next_block, 1) % BLOCKS;

        if (!(atomic_fetch_or(&used[block / WORD], bit_of(block)) & bit_of(block)))
            return FIRST_ID + block * BLOCK;
    }
    return 0;
}

static void give_block(uint32_t first)
{
    uint32_t block = (first - FIRST_ID) / BLOCK;

    atomic_fetch_and(&used[block / WORD], ~bit_of(block));
}

/* The loop's block has been used up: it needs another. The old one is left to those who live in it. */
static int renew(struct modus_co_ids **ids)
{
    bool dead = *ids && (*ids)->living == 0;
    struct modus_co_ids *block = dead ? *ids : malloc(sizeof *block);
    uint32_t first = block ? take_block() : 0;

    if (first == 0) {
        if (!dead)
            free(block);
        return -ENOMEM;
    }
    if (dead)
        give_block(block->first);
    *block = (struct modus_co_ids){.first = first};
    *ids = block;
    return 0;
}

int modus_co_id_get(struct modus_co_ids **ids, uint32_t *id)
{
    int rc = *ids && (*ids)->taken < BLOCK ? 0 : renew(ids);

    if (rc == 0) {
        *id = (*ids)->first + (*ids)->taken++;
        (*ids)->living++;
    }
    return rc;
}

static void end_block(struct modus_co_ids *block)
{
    give_block(block->first);
    free(block);
}

void modus_co_id_put(struct modus_co_ids *of, const struct modus_co_ids *now)
{
    if (--of->living == 0 && of != now)
        end_block(of);
}

void modus_co_id_end(struct modus_co_ids *now)
{
    if (now)
        end_block(now);
}
