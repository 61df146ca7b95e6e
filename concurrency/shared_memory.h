/* SPDX-License-Identifier: MIT */
/*
 * Shared memory: a block of plain bytes for processes that need not be related. They find it by its
 * name, or get its descriptor from somebody who has it.
 *
 *     struct modus_shm block;
 *     modus_shm_create(&block, "prices", sizeof(struct prices));      // in one program
 *     struct prices *prices = modus_shm_memory(&block);               // zeroed
 *
 *     modus_shm_open(&block, "prices", sizeof(struct prices));        // in another one
 *     ...
 *     modus_shm_close(&block);                                        // each one that has it
 *     modus_shm_unlink("prices");                                     // once
 *
 *     modus_shm_create(&block, NULL, size);                           // no name: goes by descriptor
 *     int fd = modus_shm_fd(&block);
 *     modus_pipe_send_message(&pipe, &(struct modus_pipe_message){.fds = &fd, .fd_count = 1}, ns);
 *
 * States of a handle: not started (zeroed) -> open -> not started. Of a block: made, and there until
 * it has no name (any more) and nobody has it open. Its size never changes.
 *
 * It is no arena (arena.h): it lies at another address in each process, so no pointers belong into
 * it, and deaths are not told there. Objects of process scope do not fit (their init says -EINVAL);
 * what does is bytes, and C's atomic types where these are lock-free. Who waits for a change is to
 * be told by other means: a pipe, a manager.
 *
 * Without a name the block is sealed (F_SEAL_SHRINK): nobody can shorten it, and so nobody can end
 * the others by SIGBUS. A descriptor that comes from elsewhere is sealed before it is mapped, or
 * refused. With a name the kernel cannot seal it; but only processes of the same user can open it,
 * or shorten it, and what another user could shorten is refused. So a name is for the programs of
 * one user; between users send descriptors. Anybody who has a block can write anything into it.
 *
 * All pages are there from the beginning: a machine, or a /dev/shm, that is too full says so when the
 * block is made and not by SIGBUS when it is used. (What other programs have made may be sparse.)
 *
 * A fork shares the memory, at the same address, and the copy of the handle is as good as the first;
 * each closes its own. A program that is executed has it no more, unless it gets the descriptor
 * (process.h's fds) or knows the name.
 *
 * Killed users: a block without a name goes with the last that has it. The name of one whose maker
 * was killed stays until it is unlinked, or the machine is started again, even if nobody has it:
 * the kernel does not clean up there. Python's resource tracker does, but takes the names of blocks
 * that others use, too (when a Python program ends that has opened one from here, for example). Here
 * modus_shm_unlink_unused removes a name if no process has the block: each that has it holds a lock
 * (flock) on it, which the kernel takes from the dead. Call it where a program starts, before the
 * create. A name appears when the block is whole; a maker that is killed before leaves nothing.
 *
 * Names are those of shm_open(3), files in /dev/shm, so other programs may have made the block, or
 * use it: up to 255 bytes, no slash but one in front, which does not count.
 */
#ifndef CONCURRENCY_SHARED_MEMORY_H
#define CONCURRENCY_SHARED_MEMORY_H

#include <stddef.h>

#include "concurrency/result.h"

/* All fields are private. */
struct modus_shm {
    void *memory; /* NULL: not started */
    size_t size;
    int fd;
};

/* Make a block of size bytes, zeroed, with that name (mode 0600), or without one (NULL), and open
 * it. Returns 0, -EEXIST, -EINVAL (no name, or no size), -ENOSPC (/dev/shm is too full), -ENOMEM
 * (the machine is, or its addresses are), -EACCES (/dev/shm), -ENOENT (no /dev/shm or no /proc),
 * -EMFILE, -ENFILE or -EFBIG (RLIMIT_FSIZE, which sends SIGXFSZ); then nothing is left. Does not
 * wait, but touches all of it, which takes up to 2 s a GiB.
 * Safe from: any thread, a forked child. */
int modus_shm_create(struct modus_shm *shm, const char *name, size_t size);

/* Open the block of that name, which has to have least bytes (0: as many as it has). Returns 0,
 * -ENOENT; -EACCES: it is another user's, or could be shortened by one, or is no block; -ERANGE: it
 * is smaller; -EAGAIN: another program has made it and not given it a size yet, or somebody is about
 * to unlink it; -EINVAL (no name), -ENOMEM, -EMFILE or -ENFILE. Does not block.
 * Safe from: any thread, a forked child. */
int modus_shm_open(struct modus_shm *shm, const char *name, size_t least);

/* Open the block behind a descriptor, which is borrowed: a modus_shm_fd, or any memfd that can be
 * sealed. Returns 0, -EBADF, -ERANGE or -EAGAIN (as above), -EACCES (it only reads), -EPERM (not
 * sealed against shrinking, and cannot be, as one with a name; or sealed against writing), -ENOMEM,
 * -EMFILE or -ENFILE. Does not block. Safe from: any thread, a forked child. */
int modus_shm_attach(struct modus_shm *shm, int fd, size_t least);

/* Unmap and close it in this process; the handle is not started again. Does nothing to one that is
 * not. Safe from: the one thread that still uses the handle in this process. */
void modus_shm_close(struct modus_shm *shm);

/* The block's bytes, at a page's start; NULL when not started. Safe from: any thread, signal
 * handlers, a forked child; so are the next two. */
void *modus_shm_memory(const struct modus_shm *shm);

/* How many there are. */
size_t modus_shm_size(const struct modus_shm *shm);

/* The descriptor, close-on-exec, to be sent and not to be closed; -1 when not started. */
int modus_shm_fd(const struct modus_shm *shm);

/* Remove a name. Who has the block keeps it; the name is free. Returns 0, -ENOENT, -EACCES or
 * -EINVAL. Does not block. Safe from: any thread and process. */
int modus_shm_unlink(const char *name);

/* Remove it if no process has the block open (by these calls: what other programs have open does not
 * count). Returns 0, -EBUSY, -EAGAIN (another one has that name by now) or as modus_shm_unlink. An
 * unlink and a create of the same name in the same moment may cost the new one its name. Does not
 * block. Safe from: any thread and process. */
int modus_shm_unlink_unused(const char *name);

#endif
