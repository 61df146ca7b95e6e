/* SPDX-License-Identifier: MIT */
/*
 * The deadlock detector's words.
 *
 * They are put together without the C library, because the dump is for signal handlers too, in which
 * neither snprintf nor the dynamic linker may be asked. There, code is an offset into the program's
 * file, or a bare address.
 */
#include "concurrency/deadlock_priv.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { NAME_MOST = 36 };

/* --- pieces ---------------------------------------------------------------------------------- */

void modus_text_put(struct modus_text *text, const char *words)
{
    while (*words && text->at + 1 < text->end)
        *text->at++ = *words++;
    *text->at = 0;
}

static void put_in_base(struct modus_text *text, uint64_t number, unsigned base, int width)
{
    char digits[24];
    int at = sizeof digits - 1;

    digits[at] = 0;
    do {
        digits[--at] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number > 0 || (int)sizeof digits - 1 - at < width);
    modus_text_put(text, digits + at);
}

void modus_text_number(struct modus_text *text, uint64_t number)
{
    put_in_base(text, number, 10, 1);
}

static void put_hex(struct modus_text *text, uint64_t number)
{
    modus_text_put(text, "0x");
    put_in_base(text, number, 16, 1);
}

/* "1.250 s" */
static void put_duration(struct modus_text *text, int64_t ns)
{
    uint64_t ms = ns > 0 ? (uint64_t)ns / 1000000 : 0;

    modus_text_number(text, ms / 1000);
    modus_text_put(text, ".");
    put_in_base(text, ms % 1000, 10, 3);
    modus_text_put(text, " s");
}

static void put_name(struct modus_text *text, const char *name)
{
    modus_text_put(text, " \"");
    modus_text_put(text, name);
    modus_text_put(text, "\"");
}

void modus_text_node(struct modus_text *text, struct modus_node node)
{
    if (node.space == MODUS_SPACE_CLASS) {
        modus_text_put(text, "a lock");
        put_name(text, (const char *)node.address);
        return;
    }
    const char *name = modus_deadlock_name_of(node);
    modus_text_put(text, "lock ");
    put_hex(text, node.address);
    if (name)
        put_name(text, name);
}

/* The program's own code, found early: a signal handler can't ask for it. */
static uintptr_t program, program_code, program_end;
static char program_name[NAME_MAX];

static int note_program(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    program = info->dlpi_addr;
    for (unsigned i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
            program_code = program + info->dlpi_phdr[i].p_vaddr;
            program_end = program_code + info->dlpi_phdr[i].p_memsz;
        }
    return 1; /* the others are libraries */
}

__attribute__((constructor)) static void find_program(void)
{
    dl_iterate_phdr(note_program, NULL);
    snprintf(program_name, sizeof program_name, "%s", program_invocation_short_name);
}

static void put_site_safely(struct modus_text *text, uintptr_t site)
{
    if (site < program_code || site >= program_end) {
        put_hex(text, site);
        return;
    }
    modus_text_put(text, program_name);
    modus_text_put(text, "+");
    put_hex(text, site - program);
}

void modus_text_site(struct modus_text *text, uintptr_t site)
{
    /* One byte back is inside of the call, also if that is the last of its function. */
    const void *inside = (const void *)(site - 1);
    Dl_info info;

    modus_text_put(text, " at ");
    if (text->safe || !dladdr(inside, &info) || !info.dli_fname) {
        put_site_safely(text, site);
        return;
    }
    bool named = info.dli_sname && info.dli_saddr;
    const char *file = strrchr(info.dli_fname, '/');
    modus_text_put(text, named ? info.dli_sname : file ? file + 1 : info.dli_fname);
    modus_text_put(text, "+");
    put_hex(text, site - (uintptr_t)(named ? info.dli_saddr : info.dli_fbase));
}

/* So much of it that two and the words between have room. */
static void put_short_name(struct modus_text *text, const char *name)
{
    struct modus_text most = {text->at, text->at + NAME_MOST, text->safe};

    modus_text_put(&most, " \"");
    modus_text_put(&most, name);
    text->at = most.at;
    modus_text_put(text, "\"");
}

void modus_text_introduce(char words[MODUS_ACTOR_NAME], bool coroutine, const char *name,
                          const char *process)
{
    struct modus_text text = {words, words + MODUS_ACTOR_NAME, true};

    modus_text_put(&text, coroutine ? "coroutine" : "thread");
    put_short_name(&text, name);
    if (process) {
        modus_text_put(&text, " of");
        put_short_name(&text, process);
    }
}

void modus_text_who(struct modus_text *text, const char *who, int pid, int tid)
{
    modus_text_put(text, who);
    modus_text_put(text, " (pid ");
    modus_text_number(text, (uint64_t)pid);
    modus_text_put(text, ", tid ");
    modus_text_number(text, (uint64_t)tid);
    modus_text_put(text, ")");
}

static void read_name(const struct modus_actor *actor, char name[MODUS_ACTOR_NAME])
{
    uint64_t words[MODUS_ACTOR_NAME / 8];

    for (size_t i = 0; i < MODUS_ACTOR_NAME / 8; i++)
        words[i] = atomic_load_explicit(&actor->name[i], memory_order_relaxed);
    memcpy(name, words, MODUS_ACTOR_NAME);
    name[MODUS_ACTOR_NAME - 1] = 0;
}

void modus_text_actor(struct modus_text *text, const struct modus_actor *actor)
{
    char name[MODUS_ACTOR_NAME];

    read_name(actor, name);
    modus_text_who(text, name, atomic_load(&actor->pid), atomic_load(&actor->tid));
}

/* --- what one holds, and waits for ----------------------------------------------------------- */

static void put_spot(struct modus_text *text, const struct modus_spot *spot, bool wait)
{
    struct modus_node node = {atomic_load(&spot->address), atomic_load(&spot->space)};
    bool shared = atomic_load(&spot->kind) == MODUS_HELD_SHARED;

    if (node.address == 0)
        return;
    modus_text_put(text, wait ? "    waits for " : "    holds ");
    if (wait && shared)
        modus_text_put(text, "the readers of ");
    modus_text_node(text, node);
    if (!wait && shared)
        modus_text_put(text, " for reading");
    if (wait && !atomic_load(&spot->forever))
        modus_text_put(text, ", with a time,");
    modus_text_put(text, " since ");
    put_duration(text, modus_now_ns() - atomic_load(&spot->since));
    modus_text_put(text, wait ? "," : ", acquired");
    modus_text_site(text, atomic_load(&spot->site));
    modus_text_put(text, "\n");
}

static void put_all_of(struct modus_text *text, const struct modus_actor *actor)
{
    modus_text_put(text, "  ");
    modus_text_actor(text, actor);
    modus_text_put(text, "\n");
    put_spot(text, &actor->wait, true);
    for (unsigned i = 0; i < MODUS_HOLDS; i++)
        put_spot(text, &actor->holds[i], false);
}

void modus_text_cycle(struct modus_text *text, const struct modus_deadlock_table *table,
                      const uint16_t *path, unsigned count, bool refused)
{
    char name[MODUS_ACTOR_NAME];
    bool coroutines = false;

    for (unsigned i = 0; i < count; i++) {
        read_name(&table->actors[path[i]], name);
        coroutines |= strncmp(name, "coroutine", 9) == 0;
    }
    modus_text_put(text, "deadlock: ");
    modus_text_number(text, count);
    if (count == 1)
        modus_text_put(text,
                       coroutines ? " coroutine waits for itself" : " thread waits for itself");
    else
        modus_text_put(text, coroutines ? " coroutines and threads wait for each other"
                                        : " threads wait for each other");
    modus_text_put(text, refused ? "; the first is refused\n" : "\n");
    for (unsigned i = 0; i < count; i++)
        put_all_of(text, &table->actors[path[i]]);
}

static void write_all(int fd, const char *words, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, words, length);

        if (written < 0 && errno != EINTR)
            return;
        if (written > 0) {
            words += written;
            length -= (size_t)written;
        }
    }
}

void modus_deadlock_dump(int fd)
{
    struct modus_deadlock_table *table = atomic_load(&modus_deadlock_table);
    uint32_t top = table ? atomic_load(&table->top) : 0;
    char words[MODUS_TEXT_SIZE];
    struct modus_text text = {words, words + sizeof words, true};
    int saved = errno;

    modus_text_put(&text, modus_lock_watched() ? "locks held and waited for:\n"
                                               : "locks: the detector is off\n");
    write_all(fd, words, (size_t)(text.at - words));
    for (uint32_t i = 0; i < top; i++) {
        const struct modus_actor *actor = &table->actors[i];

        if (!modus_actor_is_made(atomic_load(&actor->key)) || !modus_actor_alive(actor))
            continue;
        text.at = words;
        put_all_of(&text, actor);
        write_all(fd, words, (size_t)(text.at - words));
    }
    errno = saved;
}
