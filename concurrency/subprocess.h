/* SPDX-License-Identifier: MIT */
/*
 * Subprocess: run another program, talk to it, and know how it ended.
 *
 * One call does the usual:
 *
 *     struct modus_ran ran;
 *     const char *argv[] = {"sort", "-u", NULL};
 *     rc = modus_subprocess_run(argv, NULL, text, strlen(text), modus_seconds(5), &ran);
 *     if (rc == 0 && ran.code == 0)
 *         puts(ran.output.data);
 *     modus_ran_free(&ran);
 *
 * and a handle the rest: start, then communicate, which feeds its input and reads both its outputs
 * at once, so that neither side waits for the other, or read and write as one goes; wait, kill.
 *
 * The program gets standard signals (the ignored ones too), none of them blocked, its descriptors 0,
 * 1 and 2 and no others. Of ours, a child that is forked meanwhile (modus_process_start, or fork by
 * itself) has none, so the end of a stream is seen. The caller never gets a SIGPIPE. When the
 * program can't be executed, the start says so: there is no child then.
 *
 * Its end is seen by pidfd, as a process's is (process.h), and there are no zombies: freed while it
 * runs, it goes on, and is reaped by the same reaper. One that leads a group is not reaped before it is
 * waited for, or freed: as long as that it has the group's number, and the group can be signalled.
 * modus_main does not wait for it.
 */
#ifndef CONCURRENCY_SUBPROCESS_H
#define CONCURRENCY_SUBPROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "concurrency/result.h"

struct modus_process;
struct modus_subprocess;

enum modus_stdio {
    MODUS_STDIO_INHERIT, /* the caller's own; none if that is closed, or close-on-exec */
    MODUS_STDIO_PIPE,    /* to or from the caller */
    MODUS_STDIO_NULL,    /* /dev/null */
    MODUS_STDIO_FD,      /* a copy of fd, which stays the caller's */
    MODUS_STDIO_OUTPUT,  /* errors: to where output goes */
};

struct modus_stdio_attr {
    enum modus_stdio kind;
    int fd;
};

enum modus_subprocess_group {
    MODUS_GROUP_SAME,
    MODUS_GROUP_NEW,     /* it leads a new process group; signals from here go to all of that */
    MODUS_GROUP_SESSION, /* it leads a new session, and a group in it; the same */
};

struct modus_subprocess_attr {
    struct modus_stdio_attr input, output, errors;
    const char *const *environment; /* "NAME=value", NULL at the end; NULL: the caller's */
    const char *folder;             /* to run in; NULL: the caller's */
    enum modus_subprocess_group group;
    size_t limit; /* bytes that are kept of output and of errors; 0: 1 GiB */
};

/* A 0 follows the bytes. data NULL: none. */
struct modus_output {
    char *data;
    size_t size;
};

/* Start argv[0], which is looked for in PATH if it has no slash (relative to folder if it has one and
 * is relative). argv ends with NULL. attr NULL: all inherited. Everything is borrowed for the call.
 * Returns 0; what exec says: -ENOENT (no such program, or no such folder), -EACCES, -ENOEXEC,
 * -ENOTDIR, -E2BIG; -EBADF (a descriptor that is not open), -EINVAL, -EAGAIN, -ENOMEM, -EMFILE or
 * -ENFILE. Blocks until the program is executed.
 * Safe from: any thread; a forked child. */
int modus_subprocess_start(struct modus_subprocess **subprocess, const char *const *argv,
                           const struct modus_subprocess_attr *attr);

/* Feed size bytes of input, if input is a pipe, and close it; collect what comes from output and
 * errors until they end; wait until it has ended. All at once, up to ns nanoseconds. A program that
 * does not read all of its input is no error.
 *
 * On -ETIMEDOUT nothing is lost: call again, without input, to go on; the input must stay until it
 * is in. *output and *errors, unless NULL, become all that has come so far, on a negative result
 * too; the memory is the handle's, and valid until the next call.
 *
 * Returns 0, -ETIMEDOUT, -EOVERFLOW (more than limit came; what is over is left in the pipe),
 * -EALREADY (input given a second time), -EINVAL, -ECHILD (the parent's), -ENOMEM, and in a
 * coroutine MODUS_CANCELED or -EMFILE. Blocks.
 * Safe from: one thread or coroutine at a time. */
int modus_subprocess_communicate(struct modus_subprocess *subprocess, const void *input,
                                 size_t size, struct modus_output *output,
                                 struct modus_output *errors, int64_t ns);
int modus_subprocess_communicate_until(struct modus_subprocess *subprocess, const void *input,
                                       size_t size, struct modus_output *output,
                                       struct modus_output *errors, int64_t deadline);

/* Write to its input: all size bytes, unless the time is over. Returns how many it took, or if none
 * -ETIMEDOUT, MODUS_CLOSED (nobody reads it), -EINVAL (no pipe, or closed), -ECHILD, MODUS_CANCELED or
 * -ENOMEM.
 * Read what is there, up to size bytes, from its output (stream 1) or errors (2), waiting for the
 * first. Returns how many, 0 at the end, or -ETIMEDOUT, -EINVAL, -ECHILD, MODUS_CANCELED or -ENOMEM.
 * Not beside communicate. Block.
 * Safe from: one thread or coroutine a stream at a time. */
ssize_t modus_subprocess_write(struct modus_subprocess *subprocess, const void *data, size_t size,
                               int64_t ns);
ssize_t modus_subprocess_read(struct modus_subprocess *subprocess, int stream, void *buffer,
                              size_t size, int64_t ns);

/* Close our end of stream 0, 1 or 2: its input ends, or nobody reads its output any more.
 * Safe from: as write and read. */
void modus_subprocess_close(struct modus_subprocess *subprocess, int stream);

/* Our end of stream 0, 1 or 2, for poll; the handle's. -EINVAL: no pipe, or closed. It does not block
 * once one of the calls above has used it. */
int modus_subprocess_stream(const struct modus_subprocess *subprocess, int stream);

/* Wait for its end, as modus_process_join. Who wants its output reads that first. Blocks.
 * Safe from: any thread. */
int modus_subprocess_wait(struct modus_subprocess *subprocess, int64_t ns, int *code);
int modus_subprocess_wait_until(struct modus_subprocess *subprocess, int64_t deadline, int *code);

/* Send SIGTERM, SIGKILL or any signal to it, or to its group if it leads one. Returns 0, also when
 * it has ended, -EINVAL, -EPERM or -ECHILD. Safe from: any thread. */
int modus_subprocess_terminate(struct modus_subprocess *subprocess);
int modus_subprocess_kill(struct modus_subprocess *subprocess);
int modus_subprocess_signal(struct modus_subprocess *subprocess, int signal);

/* Its process, borrowed: for alive, pid, the descriptor that is readable at its end (process.h). */
struct modus_process *modus_subprocess_process(struct modus_subprocess *subprocess);

/* Close the pipes and free the handle; a program that runs goes on. NULL is legal.
 * Safe from: the one thread that still knows the handle. */
void modus_subprocess_free(struct modus_subprocess *subprocess);

/* --- in one call ------------------------------------------------------------------------------ */

struct modus_ran {
    int code; /* exit code, minus signal, or MODUS_EXIT_UNKNOWN */
    struct modus_output output, errors;
};

/* Start, communicate, free. attr NULL: input, output and errors are pipes; otherwise only what attr
 * says is, and what is inherited is not in ran. When the time is over, or
 * too much comes, it is killed (its group, if it leads one) and reaped; what has come is kept, and
 * nobody waits for grandchildren that still hold the pipes. Returns what start and communicate do;
 * *ran is always set. Blocks. Safe from: any thread and coroutine. */
int modus_subprocess_run(const char *const *argv, const struct modus_subprocess_attr *attr,
                         const void *input, size_t size, int64_t ns, struct modus_ran *ran);

/* a | b | c: the output of each is the input of the next. Of attr, input is for the first, output
 * for the last, errors (one pipe for all, or OUTPUT: of each its own) and the rest for all.
 * codes[i], count of them, become their codes, ran->code the last one's. When one can't be started,
 * those before it are killed; when the time is over, all. Otherwise as modus_subprocess_run; one pipe
 * for the errors of several takes a mounted /proc. */
int modus_pipeline_run(const char *const *const *commands, unsigned count,
                       const struct modus_subprocess_attr *attr, const void *input, size_t size,
                       int64_t ns, struct modus_ran *ran, int *codes);

/* Free what a run has left; zeroed is legal. */
void modus_ran_free(struct modus_ran *ran);

#endif
