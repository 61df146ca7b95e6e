/* SPDX-License-Identifier: MIT */
/*
 * In which order locks are acquired: a graph with an edge from each lock that was held to each that
 * was acquired meanwhile. As long as it has no cycle, no combination of what was seen can deadlock;
 * so an edge is checked once, when it is new.
 *
 * Two locks that have the same name are one node, but not to each other: then each is its own.
 */
#include "concurrency/deadlock_priv.h"

#include <string.h>

static bool is_same(struct modus_node a, struct modus_node b)
{
    return a.address == b.address && a.space == b.space;
}

static struct modus_node class_of(struct modus_node node)
{
    const char *name = modus_deadlock_name_of(node);

    return name ? (struct modus_node){(uintptr_t)name, MODUS_SPACE_CLASS} : node;
}

/* --- under the mutex ------------------------------------------------------------------------- */

static bool is_known(const struct modus_deadlock_table *table, struct modus_node from,
                     struct modus_node to)
{
    for (uint32_t i = 0; i < table->order_count; i++)
        if (is_same(table->orders[i].from, from) && is_same(table->orders[i].to, to))
            return true;
    return false;
}

/* Enter the orders that go on from node. */
static unsigned follow(struct modus_deadlock_table *table, struct modus_node node, uint16_t parent,
                       unsigned tail)
{
    for (uint16_t i = 0; i < table->order_count; i++)
        if (!table->seen[i] && is_same(table->orders[i].from, node)) {
            table->seen[i] = true;
            table->parent[i] = parent;
            table->queue[tail++] = i;
        }
    return tail;
}

/* A shortest way between two nodes, the last order of it; parent leads back, the first is its own.
 * Returns -1 if there is none. */
static int find_way(struct modus_deadlock_table *table, struct modus_node from,
                    struct modus_node to)
{
    memset(table->seen, 0, sizeof table->seen);
    unsigned head = 0, tail = follow(table, from, MODUS_ORDERS, 0);
    while (head < tail) {
        uint16_t at = table->queue[head++];

        if (is_same(table->orders[at].to, to))
            return at;
        tail = follow(table, table->orders[at].to, at, tail);
    }
    return -1;
}

static void put_order(struct modus_text *text, const struct modus_order *order, bool now)
{
    modus_text_put(text, now ? "  now: " : "  before: ");
    modus_text_who(text, order->who, order->pid, order->tid);
    modus_text_put(text, now ? "\n    holds " : "\n    held ");
    modus_text_node(text, order->locks[0]);
    modus_text_put(text, ", acquired");
    modus_text_site(text, order->from_site);
    modus_text_put(text, now ? "\n    and acquires " : "\n    and acquired ");
    modus_text_node(text, order->locks[1]);
    modus_text_site(text, order->to_site);
    modus_text_put(text, "\n");
}

/* The new order, and the way back, last step first. */
static void put_way(struct modus_text *text, const struct modus_deadlock_table *table,
                    const struct modus_order *order, int last)
{
    modus_text_put(text, "wrong order of locks: this will deadlock some day\n");
    put_order(text, order, true);
    for (unsigned at = (unsigned)last; at != MODUS_ORDERS; at = table->parent[at])
        put_order(text, &table->orders[at], false);
}

static struct modus_order make_order(const struct modus_actor *actor, const struct modus_spot *held,
                                     const struct modus_claim *claim)
{
    struct modus_node wanted = modus_claim_node(claim);
    struct modus_node holds = {atomic_load(&held->address), atomic_load(&held->space)};
    struct modus_order order = {
        .from = class_of(holds),
        .to = class_of(wanted),
        .from_site = atomic_load(&held->site),
        .to_site = (uintptr_t)claim->site,
        .locks = {holds, wanted},
        .pid = atomic_load(&actor->pid),
        .tid = atomic_load(&actor->tid),
    };
    uint64_t words[MODUS_ACTOR_NAME / 8];

    if (is_same(order.from, order.to)) {
        order.from = holds;
        order.to = wanted;
    }
    for (size_t i = 0; i < MODUS_ACTOR_NAME / 8; i++)
        words[i] = atomic_load_explicit(&actor->name[i], memory_order_relaxed);
    memcpy(order.who, words, sizeof order.who);
    return order;
}

/* Remember a new order. Returns whether it is wrong; then words tell of it. */
static bool learn(struct modus_deadlock_table *table, const struct modus_order *order, char *words)
{
    struct modus_text text = {words, words + MODUS_TEXT_SIZE, false};

    if (table->order_count == MODUS_ORDERS) {
        atomic_fetch_add(&table->untracked, 1);
        return false;
    }
    int last = find_way(table, order->to, order->from);
    if (last >= 0) {
        atomic_fetch_add(&table->wrong_orders, 1);
        put_way(&text, table, order, last);
    }
    table->orders[table->order_count] = *order;
    table->order_count++; /* now it is there, whole */
    return last >= 0;
}

/* --- calls ----------------------------------------------------------------------------------- */

void modus_order_note(struct modus_deadlock_table *table, const struct modus_actor *actor,
                      const struct modus_claim *claim)
{
    char words[MODUS_TEXT_SIZE];

    for (unsigned i = 0; i < MODUS_HOLDS; i++) {
        const struct modus_spot *held = &actor->holds[i];

        if (atomic_load_explicit(&held->address, memory_order_relaxed) == 0)
            continue;
        struct modus_order order = make_order(actor, held, claim);
        if (is_same(order.from, order.to))
            continue; /* the same lock once more */
        modus_deadlock_enter(table);
        bool wrong = !is_known(table, order.from, order.to) && learn(table, &order, words);
        modus_deadlock_leave(table);
        if (wrong)
            modus_deadlock_tell(words);
    }
}

void modus_order_forget(struct modus_deadlock_table *table, struct modus_node node)
{
    modus_deadlock_enter(table);
    for (uint32_t i = 0; i < table->order_count;)
        if (is_same(table->orders[i].from, node) || is_same(table->orders[i].to, node))
            table->orders[i] = table->orders[--table->order_count];
        else
            i++;
    modus_deadlock_leave(table);
}
