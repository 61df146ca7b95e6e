/* SPDX-License-Identifier: MIT */
/*
 * Pipes: feed one and read two at the same time, whoever is faster.
 *
 * Who writes all of its input before it reads waits for a program that waits for it to read. This
 * moves whatever can be moved, and keeps its state between calls, so a limit on the time loses
 * nothing.
 *
 * For implementers: subprocess.c and subprocess_run.c.
 */
#ifndef CONCURRENCY_PIPES_H
#define CONCURRENCY_PIPES_H

#include <stdbool.h>

#include "concurrency/process_priv.h"
#include "concurrency/subprocess.h"

struct modus_collected {
    struct modus_output bytes; /* a 0 follows them */
    size_t capacity;
};

enum { MODUS_PIPES_LIMIT = 1 << 30 };

/* Zeroed, but for the first members and the input: nothing moved yet. */
struct modus_pipes {
    struct modus_process *in, *from[2]; /* whose pipe 0 is fed; 1 and 2 read. NULL: none */
    size_t limit;                       /* bytes that are kept of each */
    const char *input;
    size_t left;
    bool begun;
    struct modus_collected collected[2];
};

/* Move until the input is in and both others have ended, or until deadline; past that, what can be
 * moved once. Returns 0, -ETIMEDOUT, -EOVERFLOW, -ENOMEM, or a code of modus_ready. */
int modus_pipes_move(struct modus_pipes *pipes, int64_t deadline);

/* Take what is in the pipes at this moment, and no more: who still writes might go on for ever. */
void modus_pipes_take_rest(struct modus_pipes *pipes);

void modus_pipes_fini(struct modus_pipes *pipes);

/* Start a program with the streams that attr says. errors_of, unless NULL, has a pipe 2 already,
 * whose other end this one gets, too. */
int modus_program_start(struct modus_process **process, const char *const *argv,
                        const struct modus_subprocess_attr *attr,
                        const struct modus_process *errors_of);

/* The end of a run that did not work out: kill n of them, and reap them. */
void modus_programs_kill(struct modus_process *const *processes, unsigned n);

/* Hand over what was collected. */
void modus_pipes_give(struct modus_pipes *pipes, struct modus_ran *ran);

/* write(2) without SIGPIPE, read(2); of a pipe that does not block. Return bytes, or a negated
 * errno. */
ssize_t modus_pipes_write(int fd, const void *data, size_t size);
ssize_t modus_pipes_read(int fd, void *buffer, size_t size);

/* Our end of it does not block from now on. */
void modus_pipes_unblock(int fd);

#endif
