/* SPDX-License-Identifier: MIT */
/*
 * Whose turn it is: the three orders of a stock.
 *
 *     FIFO      a circle of slots, from first on, by arrival
 *     LIFO      an array of slots by arrival; the last one is next
 *     PRIORITY  a binary heap: the smaller key, of equal keys the earlier arrival, on top
 *
 * An item that comes back, because its keeper has died, has its old key and arrival, and so its old
 * place.
 */
#include "concurrency/stock.h"

static uint32_t count(const struct modus_stock *stock)
{
    return atomic_load_explicit(&stock->inside, memory_order_relaxed);
}

static void set_count(struct modus_stock *stock, uint32_t n)
{
    atomic_store(&stock->inside, n);
}

/* Is a nearer to the top of the heap than b? Only in a PRIORITY queue is it there for longer than a
 * sort takes. */
static bool above(const struct modus_stock *stock, uint32_t a, uint32_t b)
{
    const struct modus_stock_slot *one = stock_slot(stock, a), *other = stock_slot(stock, b);

    if (stock->order != MODUS_QUEUE_PRIORITY)
        return one->arrival > other->arrival;
    return one->key != other->key ? one->key < other->key : one->arrival < other->arrival;
}

static void sift_up(struct modus_stock *stock, uint32_t at, uint32_t number)
{
    uint32_t *line = stock->line;

    for (; at > 0 && above(stock, number, line[(at - 1) / 2]); at = (at - 1) / 2)
        line[at] = line[(at - 1) / 2];
    line[at] = number;
}

/* Put number where at is, or below, in a heap of n. */
static void sift_down(struct modus_stock *stock, uint32_t at, uint32_t n, uint32_t number)
{
    uint32_t *line = stock->line;

    for (uint32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && above(stock, line[child + 1], line[child]))
            child++;
        if (!above(stock, line[child], number))
            break;
        line[at] = line[child];
    }
    line[at] = number;
}

/* --- lists ----------------------------------------------------------------------------------- */

static bool comes_before(const struct modus_stock *stock, uint32_t a, uint32_t b,
                         enum modus_stock_by by)
{
    const struct modus_stock_slot *one = stock_slot(stock, a), *other = stock_slot(stock, b);

    return by == STOCK_BY_TURN ? one->turn < other->turn : one->arrival > other->arrival;
}

/* Two lists in order, as one. */
static uint32_t merge(struct modus_stock *stock, uint32_t a, uint32_t b, enum modus_stock_by by)
{
    uint32_t first, *end = &first;

    while (a != STOCK_NONE && b != STOCK_NONE) {
        uint32_t *next = comes_before(stock, a, b, by) ? &a : &b;

        *end = *next;
        end = &stock_slot(stock, *next)->next;
        *next = *end;
    }
    *end = a != STOCK_NONE ? a : b;
    return first;
}

/* Merge sort. A list in sorted[i] is of 2^i, so there are no more than a number has bits. */
uint32_t modus_stock_list_sort(struct modus_stock *stock, uint32_t first, enum modus_stock_by by)
{
    uint32_t sorted[32], all = STOCK_NONE;

    for (unsigned i = 0; i < 32; i++)
        sorted[i] = STOCK_NONE;
    while (first != STOCK_NONE) {
        uint32_t list = first;
        unsigned i = 0;

        first = stock_slot(stock, list)->next;
        stock_slot(stock, list)->next = STOCK_NONE;
        for (; sorted[i] != STOCK_NONE; i++) {
            list = merge(stock, sorted[i], list, by);
            sorted[i] = STOCK_NONE;
        }
        sorted[i] = list;
    }
    for (unsigned i = 0; i < 32; i++)
        all = merge(stock, sorted[i], all, by);
    return all;
}

/* --- the line -------------------------------------------------------------------------------- */

/* The place in the circle that is so many behind the first. */
static uint32_t *place(struct modus_stock *stock, uint32_t behind)
{
    uint32_t at = stock->first + behind;

    return &stock->line[at >= stock->room ? at - stock->room : at];
}

/* At the end, but for what comes back: that is older than nearly all. */
static void insert_in_circle(struct modus_stock *stock, uint32_t n, uint32_t number)
{
    uint64_t arrival = stock_slot(stock, number)->arrival;
    uint32_t at = 0;

    if (n == 0 || stock_slot(stock, *place(stock, n - 1))->arrival < arrival) {
        *place(stock, n) = number;
        return;
    }
    stock->first = stock->first == 0 ? stock->room - 1 : stock->first - 1;
    for (; at < n && stock_slot(stock, *place(stock, at + 1))->arrival < arrival; at++)
        *place(stock, at) = *place(stock, at + 1);
    *place(stock, at) = number;
}

void modus_stock_line_add(struct modus_stock *stock, uint32_t number)
{
    uint32_t n = count(stock);

    switch ((enum modus_queue_order)stock->order) {
    case MODUS_QUEUE_FIFO:
        insert_in_circle(stock, n, number);
        break;
    case MODUS_QUEUE_LIFO: /* the latest; what comes back comes by the list */
        stock->line[n] = number;
        break;
    case MODUS_QUEUE_PRIORITY:
        sift_up(stock, n, number);
        break;
    }
    set_count(stock, n + 1);
}

/* LIFO: put n among those that are in line, from the end, where they nearly always belong. */
static void merge_by_arrival(struct modus_stock *stock, uint32_t first, uint32_t n)
{
    uint32_t *line = stock->line, from = count(stock), to = from + n;

    first = modus_stock_list_sort(stock, first, STOCK_LATEST_FIRST);
    while (first != STOCK_NONE) {
        if (from > 0 && comes_before(stock, line[from - 1], first, STOCK_LATEST_FIRST)) {
            line[--to] = line[--from];
        } else {
            line[--to] = first;
            first = stock_slot(stock, first)->next;
        }
    }
    set_count(stock, count(stock) + n);
}

void modus_stock_line_add_list(struct modus_stock *stock, uint32_t first, uint32_t n)
{
    if (stock->order == MODUS_QUEUE_LIFO) {
        merge_by_arrival(stock, first, n);
        return;
    }
    if (stock->order == MODUS_QUEUE_FIFO) /* so that each, the older, goes to the front */
        first = modus_stock_list_sort(stock, first, STOCK_LATEST_FIRST);
    while (first != STOCK_NONE) {
        uint32_t number = first;

        first = stock_slot(stock, number)->next;
        modus_stock_line_add(stock, number);
    }
}

uint32_t modus_stock_line_take(struct modus_stock *stock)
{
    uint32_t n = count(stock) - 1, number = 0;

    switch ((enum modus_queue_order)stock->order) {
    case MODUS_QUEUE_FIFO:
        number = stock->line[stock->first];
        stock->first = stock->first + 1 == stock->room ? 0 : stock->first + 1;
        break;
    case MODUS_QUEUE_LIFO:
        number = stock->line[n];
        break;
    case MODUS_QUEUE_PRIORITY:
        number = stock->line[0];
        if (n > 0)
            sift_down(stock, 0, n, stock->line[n]);
        break;
    }
    set_count(stock, n);
    return number;
}

void modus_stock_line_sort(struct modus_stock *stock)
{
    uint32_t *line = stock->line, n = count(stock);

    for (uint32_t at = n / 2; at-- > 0;)
        sift_down(stock, at, n, line[at]);
    if (stock->order == MODUS_QUEUE_PRIORITY)
        return;
    while (n > 1) { /* a heap sort: the top to the end */
        uint32_t top = line[0];

        n--;
        sift_down(stock, 0, n, line[n]);
        line[n] = top;
    }
}
