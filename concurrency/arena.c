/* SPDX-License-Identifier: MIT */
/*
 * The arena's memory. (Its participants are in participant.c.)
 *
 *     | header | slots | links | blocks ... top ... never touched ... |
 *
 * Each size class has a free list, a stack after R. K. Treiber whose head carries a counter against
 * ABA. The links of the lists are not in the blocks but in a table of one word for each 64 bytes of
 * arena: a pop may read the link of a block that another has just taken, which is harmless in the
 * table and would be a data race with the owner in the block. The word of an allocated block names
 * its class, so a second or wrong free is found. The table is as sparse as the blocks.
 *
 * No lock: a robust one would do, but then every death inside needs a repair, and here it costs a
 * block at most.
 */
#include "concurrency/arena.h"
#include "concurrency/arena_priv.h"
#include "concurrency/fault.h"
#include "concurrency/forks.h"
#include "concurrency/participant.h"
#include "concurrency/robust.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGE         ((size_t)4096)
#define BYTES_MAX    ((size_t)64 << 30) /* more, and a unit's number would not fit a link */
#define RETURN_BYTES ((size_t)64 << 10) /* from here on pages go back when freed */
#define USED         0x80000000u        /* in a link: allocated; the rest is the class */
#define PAGE_CLASS   6u

/* The open arenas of this process. Where they end is here and not read from them: who looks for
 * another one's address may be between two steps while one is unmapped. */
static struct {
    _Atomic uintptr_t start;   /* 0: none; CLAIMED: about to be one, or no more */
    _Atomic size_t bytes;      /* written before start */
    _Atomic uint32_t whole;    /* may be visited */
    _Atomic uint32_t visitors; /* that keep it from being unmapped */
} open_arenas[MODUS_ARENAS_MAX];

enum { CLAIMED = 1 };

/* --- size classes ---------------------------------------------------------------------------- */

struct size_class {
    unsigned number;
    size_t bytes;
};

static struct size_class class_of(size_t size)
{
    unsigned shift = 6;

    if (size <= ((size_t)16 << 10)) {
        while (((size_t)1 << shift) < size)
            shift++;
        return (struct size_class){shift - 6, (size_t)1 << shift};
    }
    shift = 63 - (unsigned)__builtin_clzll(size - 1);
    size_t step = (size_t)1 << (shift - 2);
    size_t steps = (size + step - 1) / step; /* 5 to 8 */
    return (struct size_class){9 + (shift - 14) * 4 + (unsigned)steps - 5, steps * step};
}

static size_t bytes_of(unsigned number)
{
    if (number < 9)
        return (size_t)MODUS_ARENA_UNIT << number;
    return (size_t)((number - 9) % 4 + 5) << (12 + (number - 9) / 4);
}

static unsigned unit_of(const struct modus_arena *arena, const void *memory)
{
    return (unsigned)((size_t)((const char *)memory - (const char *)arena) / MODUS_ARENA_UNIT);
}

static void *memory_of(struct modus_arena *arena, unsigned unit)
{
    return (char *)arena + (size_t)unit * MODUS_ARENA_UNIT;
}

/* --- free lists ------------------------------------------------------------------------------ */

static uint64_t head_after(uint64_t head, uint32_t unit)
{
    return ((head >> 32) + 1) << 32 | unit;
}

static void push(struct modus_arena *arena, unsigned number, uint32_t unit)
{
    uint64_t head = atomic_load(&arena->classes[number]);

    do
        atomic_store(&arena->links[unit], (uint32_t)head);
    while (!atomic_compare_exchange_weak(&arena->classes[number], &head, head_after(head, unit)));
}

/* Returns 0, which is the header's unit, when the list is empty. */
static uint32_t pop(struct modus_arena *arena, unsigned number)
{
    uint64_t head = atomic_load(&arena->classes[number]);

    while ((uint32_t)head != 0) {
        uint32_t next = atomic_load(&arena->links[(uint32_t)head]);

        MODUS_FAULT(MODUS_FAULT_ALLOC_READ);
        if (atomic_compare_exchange_weak(&arena->classes[number], &head, head_after(head, next)))
            break;
    }
    return (uint32_t)head;
}

/* --- blocks ---------------------------------------------------------------------------------- */

/* Fresh memory, aligned to its size up to a page. Returns 0 when the arena is full. */
static uint32_t take_fresh(struct modus_arena *arena, size_t bytes)
{
    uint64_t align = bytes < PAGE ? bytes : PAGE;
    uint64_t top = atomic_load(&arena->top), start;

    do {
        start = (top + align - 1) & ~(align - 1);
        if (start + bytes > arena->bytes)
            return 0;
    } while (!atomic_compare_exchange_weak(&arena->top, &top, start + bytes));
    return (uint32_t)(start / MODUS_ARENA_UNIT);
}

/* Take a page for a small class and put all blocks but the first on the free list. */
static uint32_t carve(struct modus_arena *arena, struct size_class class)
{
    uint32_t page = take_fresh(arena, PAGE);

    if (page == 0)
        return take_fresh(arena, class.bytes); /* less than a page is left */
    MODUS_FAULT(MODUS_FAULT_ALLOC_CARVED);
    for (size_t at = class.bytes; at < PAGE; at += class.bytes)
        push(arena, class.number, page + (uint32_t)(at / MODUS_ARENA_UNIT));
    return page;
}

static size_t size_for(size_t size, size_t align)
{
    return size < align ? align : size;
}

void *modus_arena_alloc(struct modus_arena *arena, size_t size, size_t align)
{
    if (!arena || size == 0 || size > arena->bytes || align > PAGE || (align & (align - 1)))
        return NULL;
    struct size_class class = class_of(size_for(size, align));
    uint32_t unit = pop(arena, class.number);
    bool used_before = unit != 0;
    MODUS_FAULT(MODUS_FAULT_ALLOC_POPPED);
    if (!used_before)
        unit = class.bytes < PAGE ? carve(arena, class) : take_fresh(arena, class.bytes);
    if (unit == 0)
        return NULL;
    atomic_store(&arena->links[unit], USED | class.number);
    if (used_before && class.bytes < RETURN_BYTES)
        memset(memory_of(arena, unit), 0, class.bytes);
    return memory_of(arena, unit);
}

/* Zero a big block by giving its pages back. */
static void return_pages(void *memory, size_t bytes)
{
    int saved = errno;

    if (madvise(memory, bytes, MADV_REMOVE) < 0)
        memset(memory, 0, bytes);
    errno = saved;
}

/* Is link the word of an allocated block of that size? It may be of a larger class, up to a page,
 * that was given for its alignment. */
static bool fits(uint32_t link, size_t size)
{
    unsigned number = link & ~USED, wanted = class_of(size).number;

    return (link & USED) && (number == wanted || (wanted < number && number <= PAGE_CLASS));
}

int modus_arena_free(struct modus_arena *arena, void *memory, size_t size)
{
    if (!memory)
        return 0;
    if (!arena || size == 0 || size > arena->bytes || modus_arena_of(memory) != arena ||
        (uintptr_t)memory % MODUS_ARENA_UNIT)
        return -EINVAL;
    uint32_t unit = unit_of(arena, memory), link = atomic_load(&arena->links[unit]);
    if (!fits(link, size) || !atomic_compare_exchange_strong(&arena->links[unit], &link, 0))
        return -EINVAL;
    MODUS_FAULT(MODUS_FAULT_FREE_MARKED);
    unsigned number = link & ~USED;
    if (bytes_of(number) >= RETURN_BYTES)
        return_pages(memory, bytes_of(number));
    push(arena, number, unit);
    return 0;
}

size_t modus_arena_untouched(const struct modus_arena *arena)
{
    return arena->bytes - atomic_load(&arena->top);
}

/* --- opening --------------------------------------------------------------------------------- */

struct modus_arena *modus_arena_of(const void *address)
{
    for (unsigned i = 0; i < MODUS_ARENAS_MAX; i++) {
        uintptr_t start = atomic_load(&open_arenas[i].start);
        size_t bytes = atomic_load(&open_arenas[i].bytes);

        /* The third look: bytes may be of the next one that has the entry. */
        if (start > CLAIMED && (uintptr_t)address - start < bytes &&
            atomic_load(&open_arenas[i].start) == start)
            return (struct modus_arena *)start;
    }
    return NULL;
}

bool modus_scope_fits(enum modus_scope scope, const void *object)
{
    return scope == MODUS_THREAD || (scope == MODUS_PROCESS && modus_arena_of(object));
}

void modus_watch_look(struct modus_watch *watch, const void *object)
{
    struct modus_arena *arena = modus_arena_of(object);

    watch->epoch = arena ? &arena->epoch : NULL;
    watch->seen = arena ? atomic_load(&arena->epoch) : 0;
}

/* Enter the arena into this process's table. Its children inherit the entry, so the index fits
 * there too. */
static int enter(struct modus_arena *arena)
{
    for (unsigned i = 0; i < MODUS_ARENAS_MAX; i++) {
        uintptr_t none = 0;

        if (!atomic_compare_exchange_strong(&open_arenas[i].start, &none, CLAIMED))
            continue;
        arena->index = i;
        atomic_store(&open_arenas[i].bytes, arena->bytes);
        atomic_store(&open_arenas[i].start, (uintptr_t)arena);
        return 0;
    }
    return -EUSERS;
}

/* Unmap it once nobody visits it any more. */
static void leave(struct modus_arena *arena)
{
    unsigned i = arena->index;
    uint32_t visitors;

    atomic_store(&open_arenas[i].whole, 0);
    atomic_store(&open_arenas[i].start, CLAIMED);
    while ((visitors = atomic_load(&open_arenas[i].visitors)) != 0)
        modus_park_deaf(MODUS_THREAD, &open_arenas[i].visitors, visitors, MODUS_FOREVER, NULL);
    munmap(arena, arena->bytes);
    atomic_store(&open_arenas[i].start, 0);
}

/* Returns the arena at i, or NULL. One that begins to leave between the two looks waits for us, and is
 * not visited any more. */
static struct modus_arena *begin_visit(unsigned i)
{
    atomic_fetch_add(&open_arenas[i].visitors, 1);
    bool whole = atomic_load(&open_arenas[i].whole);
    uintptr_t start = atomic_load(&open_arenas[i].start);
    return whole && start > CLAIMED ? (struct modus_arena *)start : NULL;
}

static void end_visit(unsigned i)
{
    atomic_fetch_sub(&open_arenas[i].visitors, 1);
    if (!atomic_load(&open_arenas[i].whole))
        modus_unpark(MODUS_THREAD, &open_arenas[i].visitors, INT_MAX);
}

void modus_arenas_visit(void (*visit)(struct modus_arena *arena, void *context), void *context)
{
    for (unsigned i = 0; i < MODUS_ARENAS_MAX; i++) {
        struct modus_arena *arena = begin_visit(i);

        if (arena)
            visit(arena, context);
        end_visit(i);
    }
}

bool modus_arena_hold(const struct modus_arena *arena)
{
    for (unsigned i = 0; i < MODUS_ARENAS_MAX; i++) {
        if (atomic_load(&open_arenas[i].start) != (uintptr_t)arena)
            continue;
        if (begin_visit(i) == arena)
            return true;
        end_visit(i);
    }
    return false;
}

void modus_arena_let_go(const struct modus_arena *arena)
{
    end_visit(arena->index);
}

/* The visitors are the parent's. Mostly there are none, and a page that is not written to is not
 * copied. */
static void begin_child(void)
{
    for (unsigned i = 0; i < MODUS_ARENAS_MAX; i++)
        if (atomic_load(&open_arenas[i].visitors) != 0)
            atomic_store(&open_arenas[i].visitors, 0);
}

MODUS_FORK_CHILD static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, begin_child);
}

static size_t pages(size_t bytes)
{
    return (bytes + PAGE - 1) & ~(PAGE - 1);
}

/* May the process make a file that large? If not, the try alone would end it (SIGXFSZ). */
static bool may_be_a_file(size_t bytes)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ||
           bytes <= limit.rlim_cur;
}

/* Map bytes of shared memory that nobody can truncate: preferably of a file, whose name says in
 * /proc/pid/maps and to the tools that read it what it is. */
static void *map_shared(size_t bytes)
{
    if (!may_be_a_file(bytes)) {
        void *nameless = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return nameless == MAP_FAILED ? NULL : nameless;
    }
    int fd = memfd_create("modus-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *memory = MAP_FAILED;

    if (fd < 0)
        return NULL;
    if (ftruncate(fd, (off_t)bytes) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    close(fd); /* the mapping keeps the memory; one descriptor less to inherit */
    return memory == MAP_FAILED ? NULL : memory;
}

int modus_arena_open(struct modus_arena **out, size_t bytes, unsigned participants)
{
    if (bytes == 0 || bytes > BYTES_MAX || participants == 0 ||
        participants > MODUS_PARTICIPANTS_MAX)
        return -EINVAL;
    size_t header = pages(sizeof(struct modus_arena));
    size_t slots = pages(participants * sizeof(struct modus_slot));
    size_t links = pages((header + slots + pages(bytes)) / (MODUS_ARENA_UNIT / 4 - 1) + PAGE);
    size_t total = header + slots + links + pages(bytes);
    struct modus_arena *arena = map_shared(total);
    if (!arena)
        return -ENOMEM;
    arena->bytes = total;
    arena->serial = (uint64_t)modus_now_ns();
    arena->slots = (struct modus_slot *)(void *)((char *)arena + header);
    arena->links = (_Atomic uint32_t *)(void *)((char *)arena + header + slots);
    atomic_init(&arena->top, header + slots + links);
    int rc = enter(arena);
    if (rc < 0) {
        munmap(arena, total);
        return rc;
    }
    rc = modus_participants_init(arena, participants);
    if (rc < 0) {
        leave(arena);
        return rc;
    }
    atomic_store(&open_arenas[arena->index].whole, 1);
    *out = arena;
    return 0;
}

int modus_arena_close(struct modus_arena *arena)
{
    if (!arena)
        return 0;
    /* What is before the links is the toolbox's own: see join. */
    if (modus_robust_between(arena->links, (char *)arena + arena->bytes))
        return -EBUSY;
    modus_participant_leave(arena);
    if (modus_participants_here(arena))
        return -EBUSY;
    leave(arena);
    return 0;
}
