/* SPDX-License-Identifier: MIT */
/* A listener's shared memory: see server/board.h. */
#include "server/board.h"

#include <string.h>

#include "net/service.h"
#include "server/backlog.h"

/* On a page's border: what a connection looks at, and the first block's counters and latencies, then
 * lie in one page, which is what every child of the `process` model must map. */
struct counted {
    atomic_int phase;
    struct net_stats stats[];
};

static size_t counted_size(const struct board *b)
{
    return sizeof(struct counted) + b->stats_count * sizeof(struct net_stats);
}

static int init_slot(struct board *b, struct modus_arena *arena, struct worker_slot *slot)
{
    struct counted *counted = modus_arena_alloc(arena, counted_size(b), 4096);
    slot->lanes = modus_arena_alloc(arena, b->lane_count * sizeof *slot->lanes, 128);
    if (!counted || !slot->lanes || modus_doorbell_init(&slot->bell) != 0)
        return -1;
    slot->phase = &counted->phase;
    slot->stats = counted->stats;
    modus_event_init(&slot->ready, MODUS_PROCESS);
    if (!b->child_count)
        return 0;
    struct modus_sem_attr attr = {
        .scope = MODUS_PROCESS, .value = b->child_count, .max = b->child_count};
    slot->children = modus_arena_alloc(arena, b->child_count * sizeof *slot->children, 64);
    return slot->children ? modus_sem_init(&slot->permits, &attr) : -1;
}

struct board *board_new(struct modus_arena *arena, unsigned workers, unsigned spares,
                        unsigned stats_count, unsigned lanes, unsigned children)
{
    unsigned slots = workers + spares;
    struct board *b = modus_arena_alloc(arena, sizeof *b + slots * sizeof b->slots[0], 64);
    if (!b)
        return NULL;
    b->stats_count = stats_count;
    b->lane_count = lanes;
    b->child_count = children;
    b->worker_count = workers;
    b->slot_count = slots;
    b->log_round = 1;
    modus_event_init(&b->serve, MODUS_PROCESS);
    modus_event_init(&b->drain, MODUS_PROCESS);
    modus_lock_init(&b->accept_lock, MODUS_PROCESS);
    blocked_init(&b->blocked);
    for (unsigned i = 0; i < slots; i++)
        if (init_slot(b, arena, &b->slots[i]) != 0)
            return NULL;
    for (unsigned i = workers; i < slots; i++)
        atomic_store(&b->slots[i].spare, true);
    return b;
}

void board_free(struct board *b, struct modus_arena *arena)
{
    for (unsigned i = 0; i < b->slot_count; i++) {
        struct worker_slot *slot = &b->slots[i];
        modus_doorbell_fini(&slot->bell);
        modus_event_fini(&slot->ready);
        modus_arena_free(arena, slot->phase, counted_size(b));
        modus_arena_free(arena, slot->lanes, b->lane_count * sizeof *slot->lanes);
        if (b->child_count)
            modus_sem_fini(&slot->permits);
        modus_arena_free(arena, slot->children, b->child_count * sizeof *slot->children);
    }
    modus_event_fini(&b->serve);
    modus_event_fini(&b->drain);
    modus_lock_fini(&b->accept_lock);
    blocked_fini(&b->blocked);
    modus_arena_free(arena, b->inodes, b->inode_count * sizeof *b->inodes);
    modus_arena_free(arena, b->taken, b->inode_count * sizeof *b->taken);
    modus_arena_free(arena, b, sizeof *b + b->slot_count * sizeof b->slots[0]);
}

int board_know_sockets(struct board *b, struct modus_arena *arena, const int *fds, size_t count)
{
    b->inodes = modus_arena_alloc(arena, count * sizeof *b->inodes, 64);
    b->taken = modus_arena_alloc(arena, count * sizeof *b->taken, 64);
    if (!b->inodes || !b->taken)
        return -1;
    for (; b->inode_count < count; b->inode_count++)
        b->inodes[b->inode_count] = backlog_inode(fds[b->inode_count]);
    return 0;
}

void board_slot_sum(const struct board *b, const struct worker_slot *slot, struct net_stats *sum)
{
    for (unsigned i = 0; i < b->stats_count; i++)
        net_stats_add(sum, &slot->stats[i]);
}

void board_sum(const struct board *b, struct net_stats *sum)
{
    memset(sum, 0, sizeof *sum);
    for (unsigned i = 0; i < b->slot_count; i++)
        board_slot_sum(b, &b->slots[i], sum);
}

void board_settle(struct net_stats *s)
{
    atomic_store(&s->closed,
                 net_counted(&s->accepted) + net_counted(&s->came) - net_counted(&s->went));
    atomic_store(&s->rested, net_counted(&s->roused));
    atomic_store(&s->ended, net_counted(&s->begun));
}

static uint64_t slot_answers(const struct board *b, const struct worker_slot *slot)
{
    uint64_t answers = 0;
    for (unsigned i = 0; i < b->stats_count; i++)
        for (unsigned j = 0; j < 6; j++)
            answers += net_counted(&slot->stats[i].answers[j]);
    return answers;
}

uint64_t board_slot_requests(const struct board *b, const struct worker_slot *slot)
{
    return slot_answers(b, slot) - atomic_load(&slot->requests_before);
}

uint64_t board_answers(const struct board *b)
{
    uint64_t answers = 0;
    for (unsigned i = 0; i < b->slot_count; i++)
        answers += slot_answers(b, &b->slots[i]);
    return answers;
}

static bool is_behind(const atomic_uint *seen, unsigned round)
{
    unsigned has_seen = atomic_load(seen);
    return has_seen && has_seen != round;
}

unsigned board_logs_behind(const struct board *b)
{
    unsigned behind = 0, round = atomic_load(&b->log_round);
    for (unsigned i = 0; i < b->slot_count; i++)
        behind += atomic_load(&b->slots[i].pid) && is_behind(&b->slots[i].logs_seen, round);
    /* After the acceptors: what one forks after it has looked has the new ones. */
    for (unsigned i = 0; i < b->slot_count; i++)
        for (unsigned j = 0; j < b->child_count; j++) {
            const struct child_entry *child = &b->slots[i].children[j];
            behind += atomic_load(&child->pid) && is_behind(&child->logs_seen, round);
        }
    return behind;
}

/* Only to go on. */
static void set_phase(struct worker_slot *slot, int phase)
{
    int before = atomic_load(slot->phase);
    while (before < phase && !atomic_compare_exchange_weak(slot->phase, &before, phase))
        continue;
}

void board_retire(struct worker_slot *slot, bool moves)
{
    set_phase(slot, moves ? SERVICE_MOVING : SERVICE_LEAVING);
    atomic_store(&slot->retire, true);
}

bool board_leaves(const struct board *b, size_t socket)
{
    return !atomic_load(&b->ends) || atomic_load(&b->taken[socket]);
}

void board_retire_all(struct board *b, bool moves)
{
    atomic_store(&b->ends, true);
    for (unsigned i = 0; i < b->slot_count; i++)
        board_retire(&b->slots[i], moves);
}

bool board_stay(struct board *b)
{
    bool any = false;
    for (unsigned i = 0; i < b->slot_count; i++) {
        int moving = SERVICE_MOVING;
        any |= atomic_compare_exchange_strong(b->slots[i].phase, &moving, SERVICE_LEAVING);
    }
    return any;
}

void board_drain(struct board *b)
{
    atomic_store(&b->ends, true);
    for (unsigned i = 0; i < b->slot_count; i++)
        set_phase(&b->slots[i], SERVICE_DRAINING);
    modus_event_set(&b->drain);
}

void board_bury(struct board *b, struct worker_slot *slot)
{
    /* Children of a dead acceptor go on counting. */
    bool last = !b->child_count || modus_sem_value(&slot->permits) == b->child_count;
    for (unsigned i = 0; last && i < b->stats_count; i++)
        board_settle(&slot->stats[i]);
    for (unsigned i = 0; i < b->lane_count; i++) {
        slot->lanes[i].put = slot->lanes[i].taken = 0;
        slot->lanes[i].busy = false;
    }
    atomic_store(&slot->requests_before, slot_answers(b, slot));
    atomic_store(&slot->gil_before_us, net_counted(&slot->gil.held_us));
    atomic_store(&slot->connections, 0);
    atomic_store(&slot->parked, 0);
    atomic_store(&slot->state, WORKER_DEAD);
    atomic_store(&slot->pid, 0);
    modus_event_clear(&slot->ready);
}
