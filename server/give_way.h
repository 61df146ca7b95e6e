/* SPDX-License-Identifier: MIT */
/* Letting others run before one waits. Where several workers share a CPU, one that has served what
 * was there mostly finds more after the others have had their turn: it goes on with a fuller batch,
 * and nobody goes to sleep to be woken again. With 8 workers and 64 connections on one CPU that is
 * a tenth of a small request, with a process a connection a quarter. Where nobody else wants the
 * CPU it is one short call.
 *
 * But who gives way to somebody that computes gets the CPU back only after that one's slice, while
 * a sleeper that is woken goes first. So there is a budget: what the others have answered meanwhile,
 * each answer that of a small request. What a time takes beyond that adds up. Linux deals turns out
 * unevenly since 6.6 (EEVDF), so a single long one means nothing; when much has added up it is not
 * done for a while.
 *
 * Safe from: one thread, its owner.
 */
#ifndef SERVER_GIVE_WAY_H
#define SERVER_GIVE_WAY_H

#include <stdbool.h>
#include <stdint.h>

#include "server/board.h"

struct give_way {
    int64_t over_us; /* what the turns of others took beyond what is theirs */
    unsigned fine;   /* times in a row that this was little */
    unsigned skip;   /* times that it is not to be done */
    unsigned fears;  /* how often in a row it added up; each doubles skip */
};

/* Before a wait. `b` counts the answers of all who may want the same CPU. Blocks as long as others
 * use their turns. Returns true if some did, so that what is waited for may have come. */
bool give_way(struct give_way *g, const struct board *b);

#endif
