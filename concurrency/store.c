/* SPDX-License-Identifier: MIT */
/*
 *     | head: lock, notes, heap, root | tags, a byte a unit | units ... |
 *
 * A note is the place and the old value of a word. Only the order of a thread's own stores matters,
 * and to the compiler alone: whoever reads them after its death was let in by the kernel, which had
 * seen the last of it. A kill falls between two instructions, never into one.
 *
 *     note written -> notes counted up -> word changed -> ... -> notes = 0: committed
 *
 * Undoing goes backwards: word put back -> notes counted down; killed between the two, the next one
 * puts the same word back again. A shift has no note for each word: the hole's place is kept
 * instead, and undone by moving it home; a note with the mark in its place says when.
 *
 * The heap: free blocks of each order in a list through their first words; the tag of a block's
 * first unit says its order and whether it is free.
 */
#include "concurrency/store.h"
#include "concurrency/fault.h"
#include "concurrency/lock.h"

#include <string.h>
#include <sys/mman.h>

enum {
    NOTES = 512, /* the longest transaction, two allocs, two frees and some links, needs fewer */
    ORDERS = 32,
    USED = 0x80,
    FREE = 0x40,
    ORDER = 0x3f,
    PAGE = 4096,
};

#define HOLE UINT64_MAX /* in a note's place: undo the shift */

struct note {
    uint64_t at; /* bytes from the head */
    uint64_t old;
};

struct hole {
    uint64_t ring, mask, home, at;
};

struct modus_store_head {
    struct modus_lock lock; /* guards all that follows */
    volatile uint64_t notes_count;
    uint64_t broken;
    struct hole hole;
    struct note notes[NOTES];
    /* From here on, what notes are about. */
    uint64_t used; /* units in allocated blocks */
    uint64_t commits;
    uint64_t free[ORDERS];
    uint64_t root[MODUS_STORE_ROOT_WORDS];
};

/* In a free block. */
struct links {
    uint64_t next, previous;
};

/* The compiler keeps the stores before this before those after it. */
static inline void in_order(void)
{
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void write_word(uint64_t *word, uint64_t value)
{
    *(volatile uint64_t *)word = value;
}

static unsigned char *base_of(const struct modus_store *store)
{
    return (unsigned char *)store->head;
}

static unsigned char *tags_of(const struct modus_store *store)
{
    return base_of(store) + sizeof(struct modus_store_head);
}

static uint64_t first_unit(uint64_t units)
{
    return (sizeof(struct modus_store_head) + units + MODUS_STORE_UNIT - 1) / MODUS_STORE_UNIT;
}

int modus_store_break(struct modus_store *store)
{
    store->head->broken = 1;
    return MODUS_NOTRECOVERABLE;
}

/* --- notes ----------------------------------------------------------------------------------- */

static bool add_note(struct modus_store *store, uint64_t at, uint64_t old)
{
    struct modus_store_head *head = store->head;
    uint64_t n = head->notes_count;

    if (n >= NOTES) {
        modus_store_break(store);
        return false;
    }
    head->notes[n] = (struct note){at, old};
    in_order();
    head->notes_count = n + 1;
    in_order();
    MODUS_FAULT(MODUS_FAULT_STORE_NOTED);
    return true;
}

void modus_store_set(struct modus_store *store, uint64_t *word, uint64_t value)
{
    if (!add_note(store, (uint64_t)((unsigned char *)word - base_of(store)), *word))
        return;
    write_word(word, value);
    in_order();
    MODUS_FAULT(MODUS_FAULT_STORE_CHANGED);
}

/* The words of the hole's ring, or NULL. */
static uint64_t *ring_words(const struct modus_store *store)
{
    struct hole *hole = &store->head->hole;

    if (hole->mask >= store->units * (MODUS_STORE_UNIT / sizeof(uint64_t)))
        return NULL;
    return modus_store_at(store, hole->ring, (size_t)(hole->mask + 1) * sizeof(uint64_t));
}

static void move_hole(struct modus_store *store, uint64_t to)
{
    struct hole *hole = &store->head->hole;
    uint64_t *words = ring_words(store), mask = hole->mask, at = hole->at;
    uint64_t step = (int64_t)(to - at) > 0 ? 1 : UINT64_MAX;

    if (!words || (step == 1 ? to - at : at - to) > mask) {
        modus_store_break(store);
        return;
    }
    for (; at != to; at += step) {
        write_word(&words[at & mask], words[(at + step) & mask]);
        in_order();
        MODUS_FAULT(MODUS_FAULT_STORE_SHIFTED);
        write_word(&hole->at, at + step);
        in_order();
    }
}

void modus_store_shift(struct modus_store *store, uint64_t ring, uint64_t mask, uint64_t from,
                       uint64_t to)
{
    store->head->hole = (struct hole){.ring = ring, .mask = mask, .home = from, .at = from};
    in_order();
    if (add_note(store, HOLE, 0))
        move_hole(store, to);
}

static void undo_note(struct modus_store *store, const struct note *note)
{
    if (note->at == HOLE)
        move_hole(store, store->head->hole.home);
    else if (note->at % sizeof(uint64_t) || note->at < offsetof(struct modus_store_head, used) ||
             note->at >= store->units * MODUS_STORE_UNIT)
        modus_store_break(store);
    else
        write_word((uint64_t *)(void *)(base_of(store) + note->at), note->old);
}

void modus_store_undo(struct modus_store *store)
{
    struct modus_store_head *head = store->head;
    uint64_t n = head->notes_count;

    if (n > NOTES) {
        modus_store_break(store);
        n = NOTES;
    }
    while (n > 0) {
        undo_note(store, &head->notes[--n]);
        in_order();
        MODUS_FAULT(MODUS_FAULT_STORE_UNDOING);
        head->notes_count = n;
        in_order();
    }
}

int modus_store_commit(struct modus_store *store)
{
    struct modus_store_head *head = store->head;

    modus_store_set(store, &head->commits, head->commits + 1);
    if (head->broken) {
        modus_store_undo(store);
        return MODUS_NOTRECOVERABLE;
    }
    in_order();
    head->notes_count = 0;
    in_order();
    MODUS_FAULT(MODUS_FAULT_STORE_COMMITTED);
    return 0;
}

bool modus_store_mine(const struct modus_store *store)
{
    return modus_lock_mine(&store->head->lock);
}

int modus_store_begin(struct modus_store *store)
{
    if (store->scope == 0)
        return -EINVAL;
    int rc = modus_lock_acquire(&store->head->lock, MODUS_FOREVER);
    if (rc < 0)
        return rc;
    MODUS_FAULT(MODUS_FAULT_STORE_OWNED);
    if (store->head->notes_count != 0)
        modus_store_undo(store);
    if (rc == MODUS_OWNERDEAD)
        modus_lock_consistent(&store->head->lock);
    if (!store->head->broken)
        return 0;
    modus_lock_release(&store->head->lock);
    return MODUS_NOTRECOVERABLE;
}

void modus_store_end(struct modus_store *store)
{
    if (store->head->notes_count != 0)
        modus_store_undo(store);
    modus_lock_release(&store->head->lock);
}

/* --- heap ------------------------------------------------------------------------------------ */

static unsigned order_for(size_t bytes)
{
    uint64_t units = (bytes + MODUS_STORE_UNIT - 1) / MODUS_STORE_UNIT;

    return units <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(units - 1);
}

static void set_tag(struct modus_store *store, uint64_t unit, unsigned tag)
{
    unsigned char *byte = tags_of(store) + unit;
    size_t in_word = (uintptr_t)byte % sizeof(uint64_t);
    uint64_t *word = (uint64_t *)(void *)(byte - in_word), value = *word;

    memcpy((unsigned char *)&value + in_word, &(unsigned char){(unsigned char)tag}, 1);
    modus_store_set(store, word, value);
}

static bool is_free(const struct modus_store *store, uint64_t unit, unsigned order)
{
    return unit != 0 && unit < store->units && ((uint64_t)1 << order) <= store->units - unit &&
           tags_of(store)[unit] == (FREE | order);
}

static struct links *links_of(const struct modus_store *store, uint64_t unit)
{
    return (struct links *)(void *)(base_of(store) + unit * MODUS_STORE_UNIT);
}

/* Put a block on the list of its order. */
static void push(struct modus_store *store, uint64_t unit, unsigned order)
{
    uint64_t next = store->head->free[order];
    struct links *links = links_of(store, unit);

    if (next != 0 && !is_free(store, next, order)) {
        modus_store_break(store);
        return;
    }
    modus_store_set(store, &links->next, next);
    modus_store_set(store, &links->previous, 0);
    if (next != 0)
        modus_store_set(store, &links_of(store, next)->previous, unit);
    modus_store_set(store, &store->head->free[order], unit);
    set_tag(store, unit, FREE | order);
}

/* Take a free block off the list of its order. */
static bool pull(struct modus_store *store, uint64_t unit, unsigned order)
{
    struct links *links = links_of(store, unit);
    uint64_t next = links->next, previous = links->previous;

    if ((next != 0 && !is_free(store, next, order)) ||
        (previous != 0 && !is_free(store, previous, order)) ||
        (previous == 0 && store->head->free[order] != unit)) {
        modus_store_break(store);
        return false;
    }
    if (next != 0)
        modus_store_set(store, &links_of(store, next)->previous, previous);
    modus_store_set(
        store, previous != 0 ? &links_of(store, previous)->next : &store->head->free[order], next);
    /* Noted, because whoever gets the block writes over them without notes. */
    modus_store_set(store, &links->next, 0);
    modus_store_set(store, &links->previous, 0);
    set_tag(store, unit, 0);
    return true;
}

static void add_used(struct modus_store *store, uint64_t units)
{
    modus_store_set(store, &store->head->used, store->head->used + units);
}

/* Free what a block of order has beyond order wanted. */
static void split(struct modus_store *store, uint64_t unit, unsigned order, unsigned wanted)
{
    while (order > wanted) {
        order--;
        push(store, unit + ((uint64_t)1 << order), order);
    }
}

uint64_t modus_store_alloc(struct modus_store *store, size_t bytes)
{
    unsigned wanted = order_for(bytes), order = wanted;

    while (order < ORDERS && store->head->free[order] == 0)
        order++;
    if (order >= ORDERS || store->head->broken)
        return 0;
    uint64_t unit = store->head->free[order];
    if (!is_free(store, unit, order)) {
        modus_store_break(store);
        return 0;
    }
    if (!pull(store, unit, order))
        return 0;
    split(store, unit, order, wanted);
    set_tag(store, unit, USED | wanted);
    add_used(store, (uint64_t)1 << wanted);
    return store->head->broken ? 0 : unit;
}

/* The order of an allocated block; ORDERS when it is none. */
static unsigned order_at(const struct modus_store *store, uint64_t unit)
{
    if (unit == 0 || unit >= store->units)
        return ORDERS;
    unsigned tag = tags_of(store)[unit], order = tag & ORDER;
    if (!(tag & USED) || order >= ORDERS || ((uint64_t)1 << order) > store->units - unit)
        return ORDERS;
    return order;
}

void modus_store_trim(struct modus_store *store, uint64_t unit, size_t bytes)
{
    unsigned order = order_at(store, unit), wanted = order_for(bytes);

    if (order == ORDERS || wanted >= order)
        return;
    split(store, unit, order, wanted);
    set_tag(store, unit, USED | wanted);
    add_used(store, ((uint64_t)1 << wanted) - ((uint64_t)1 << order));
}

void modus_store_free(struct modus_store *store, uint64_t unit)
{
    unsigned order = order_at(store, unit);

    if (order == ORDERS) {
        modus_store_break(store);
        return;
    }
    add_used(store, -((uint64_t)1 << order));
    set_tag(store, unit, 0);
    for (; order + 1 < ORDERS; order++) {
        uint64_t buddy = unit ^ ((uint64_t)1 << order);

        if (!is_free(store, buddy, order))
            break;
        if (!pull(store, buddy, order))
            return;
        unit = buddy < unit ? buddy : unit;
    }
    push(store, unit, order);
}

void *modus_store_at(const struct modus_store *store, uint64_t unit, size_t bytes)
{
    unsigned order = order_at(store, unit);

    if (order == ORDERS || bytes > (size_t)MODUS_STORE_UNIT << order)
        return NULL;
    return base_of(store) + unit * MODUS_STORE_UNIT;
}

size_t modus_store_size(const struct modus_store *store, uint64_t unit)
{
    unsigned order = order_at(store, unit);

    return order == ORDERS ? 0 : (size_t)MODUS_STORE_UNIT << order;
}

/* --- looking --------------------------------------------------------------------------------- */

void *modus_store_root(struct modus_store *store)
{
    return store->head->root;
}

uint64_t modus_store_version(const struct modus_store *store)
{
    return store->head->commits + 1;
}

size_t modus_store_used(const struct modus_store *store)
{
    return (size_t)store->head->used * MODUS_STORE_UNIT;
}

size_t modus_store_room(const struct modus_store *store)
{
    return (size_t)(store->units - first_unit(store->units)) * MODUS_STORE_UNIT;
}

/* Count the free blocks of an order by their list; UINT64_MAX when it is damaged. */
static uint64_t count_listed(const struct modus_store *store, unsigned order)
{
    uint64_t n = 0, previous = 0, unit = store->head->free[order];

    for (; unit != 0; previous = unit, unit = links_of(store, unit)->next)
        if (!is_free(store, unit, order) || links_of(store, unit)->previous != previous ||
            ++n > store->units)
            return UINT64_MAX;
    return n;
}

int modus_store_check(struct modus_store *store)
{
    uint64_t unit = first_unit(store->units), used = 0, free_of[ORDERS] = {0};

    while (unit < store->units) {
        unsigned tag = tags_of(store)[unit], order = tag & ORDER;

        if (order >= ORDERS || !(tag & (USED | FREE)) ||
            ((uint64_t)1 << order) > store->units - unit)
            return modus_store_break(store);
        if (tag & USED)
            used += (uint64_t)1 << order;
        else if (is_free(store, unit ^ ((uint64_t)1 << order), order))
            return modus_store_break(store); /* they should have united */
        else
            free_of[order]++;
        unit += (uint64_t)1 << order;
    }
    for (unsigned order = 0; order < ORDERS; order++)
        if (count_listed(store, order) != free_of[order])
            return modus_store_break(store);
    return used == store->head->used ? 0 : modus_store_break(store);
}

/* --- life ------------------------------------------------------------------------------------ */

/* Make all that is behind the tags free blocks, as large as they can be. */
static void seed(struct modus_store *store)
{
    for (uint64_t unit = first_unit(store->units); unit < store->units;) {
        unsigned order = (unsigned)__builtin_ctzll(unit);
        unsigned most = 63 - (unsigned)__builtin_clzll(store->units - unit);

        order = order < most ? order : most;
        order = order < ORDERS - 1 ? order : ORDERS - 1;
        push(store, unit, order);
        store->head->notes_count = 0;
        unit += (uint64_t)1 << order;
    }
}

static void give_back(struct modus_store *store)
{
    size_t bytes = (size_t)store->units * MODUS_STORE_UNIT;

    if (store->scope == MODUS_PROCESS)
        modus_arena_free(store->arena, store->head, bytes);
    else
        munmap(store->head, bytes);
}

int modus_store_init(struct modus_store *store, enum modus_scope scope, struct modus_arena *arena,
                     size_t bytes)
{
    void *block;

    memset(store, 0, sizeof *store);
    if ((scope != MODUS_THREAD && scope != MODUS_PROCESS) || (scope == MODUS_PROCESS && !arena) ||
        bytes < MODUS_STORE_BYTES_MIN || bytes > MODUS_STORE_BYTES_MAX)
        return -EINVAL;
    bytes = (bytes + PAGE - 1) / PAGE * PAGE;
    if (scope == MODUS_PROCESS)
        block = modus_arena_alloc(arena, bytes, 128);
    else
        block = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!block || block == MAP_FAILED)
        return -ENOMEM;
    store->arena = arena;
    store->head = block;
    store->units = bytes / MODUS_STORE_UNIT;
    store->scope = (uint32_t)scope;
    int rc = modus_lock_init(&store->head->lock, scope);
    if (rc < 0) {
        give_back(store);
        memset(store, 0, sizeof *store);
        return rc;
    }
    seed(store);
    return 0;
}

void modus_store_fini(struct modus_store *store)
{
    if (store->scope == 0)
        return;
    modus_lock_fini(&store->head->lock);
    give_back(store);
    memset(store, 0, sizeof *store);
}
