/* SPDX-License-Identifier: MIT */
/*
 * A subprocess is a process (process.c) that was launched (launch.c), with pipes. They are opened,
 * and our ends entered into the handle, while no other thread forks: so a child either does not have
 * them, or knows that it has, and closes them.
 */
#include "concurrency/subprocess.h"
#include "concurrency/launch.h"
#include "concurrency/park.h"
#include "concurrency/pipes.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct modus_subprocess {
    struct modus_process *process;
    struct modus_pipes pipes;
};

/* --- starting -------------------------------------------------------------------------------- */

struct program {
    const char *const *argv;
    const struct modus_subprocess_attr *attr;
    const struct modus_process *errors_of;
};

/* What is needed of a stream: the program's end, ours, and what is to be closed after the launch. */
struct stream {
    int theirs, ours, opened;
};

static int open_pipe(struct stream *stream, int i)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    stream->theirs = stream->opened = fds[i == 0 ? 0 : 1];
    stream->ours = fds[i == 0 ? 1 : 0];
    return 0;
}

static int open_path(struct stream *stream, const char *path, int flags)
{
    stream->theirs = stream->opened = open(path, flags | O_CLOEXEC);
    return stream->opened < 0 ? -errno : 0;
}

static int open_stream(struct stream *stream, int i, const struct modus_stdio_attr *attr)
{
    *stream = (struct stream){-1, -1, -1};
    switch (attr->kind) {
    case MODUS_STDIO_INHERIT:
        stream->theirs = modus_launch_inherited(i);
        return 0;
    case MODUS_STDIO_PIPE:
        return open_pipe(stream, i);
    case MODUS_STDIO_NULL:
        return open_path(stream, "/dev/null", O_RDWR);
    case MODUS_STDIO_FD:
        stream->theirs = attr->fd;
        return 0;
    case MODUS_STDIO_OUTPUT:
        return i == 2 ? 0 : -EINVAL;
    }
    return -EINVAL;
}

/* The other end of a pipe that we read already. */
static int open_other_end(struct stream *stream, const struct modus_process *process)
{
    char path[32];

    snprintf(path, sizeof path, "/proc/self/fd/%d", process->pipes[2]);
    *stream = (struct stream){-1, -1, -1};
    return open_path(stream, path, O_WRONLY);
}

static int open_streams(struct stream streams[3], const struct program *program)
{
    const struct modus_stdio_attr *attrs[3] = {&program->attr->input, &program->attr->output,
                                               &program->attr->errors};
    int rc = 0;

    for (int i = 0; i < 3 && rc == 0; i++)
        rc = i == 2 && program->errors_of ? open_other_end(&streams[i], program->errors_of)
                                          : open_stream(&streams[i], i, attrs[i]);
    if (rc == 0 && attrs[2]->kind == MODUS_STDIO_OUTPUT)
        streams[2].theirs = streams[1].theirs;
    return rc;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Called by the start: see process_priv.h. */
static int launch(struct modus_process *process, void *argument, pid_t *pid)
{
    const struct program *program = argument;
    struct stream streams[3] = {{-1, -1, -1}, {-1, -1, -1}, {-1, -1, -1}};
    int rc = open_streams(streams, program);

    if (rc == 0) {
        const int fds[3] = {streams[0].theirs, streams[1].theirs, streams[2].theirs};
        const struct modus_launch what = {
            .path = program->argv[0],
            .search = true,
            .argv = program->argv,
            .environment = program->attr->environment,
            .folder = program->attr->folder,
            .group = program->attr->group == MODUS_GROUP_NEW,
            .session = program->attr->group == MODUS_GROUP_SESSION,
            .fds = fds,
            .count = 3,
        };

        rc = modus_launch(&what, pid);
    }
    for (int i = 0; i < 3; i++) {
        close_fd(streams[i].opened);
        if (rc == 0)
            process->pipes[i] = streams[i].ours;
        else
            close_fd(streams[i].ours);
    }
    return rc;
}

/* Before one that is closed becomes one of ours. */
static bool is_open(const struct modus_stdio_attr *attr)
{
    return attr->kind != MODUS_STDIO_FD || fcntl(attr->fd, F_GETFD) >= 0;
}

int modus_program_start(struct modus_process **process, const char *const *argv,
                        const struct modus_subprocess_attr *attr,
                        const struct modus_process *errors_of)
{
    struct program program = {argv, attr, errors_of};
    struct modus_process *made;

    if (!argv || !argv[0])
        return -EINVAL;
    if (!is_open(&attr->input) || !is_open(&attr->output) || !is_open(&attr->errors))
        return -EBADF;
    int rc = modus_process_new_program(&made, argv[0], launch);
    if (rc < 0)
        return rc;
    made->leads_group = attr->group != MODUS_GROUP_SAME;
    rc = modus_process_start_program(made, &program);
    if (rc < 0) {
        modus_process_put(made);
        return rc;
    }
    *process = made;
    return 0;
}

int modus_subprocess_start(struct modus_subprocess **subprocess, const char *const *argv,
                           const struct modus_subprocess_attr *attr)
{
    static const struct modus_subprocess_attr usual;
    struct modus_subprocess *made = calloc(1, sizeof *made);

    if (!made)
        return -ENOMEM;
    if (!attr)
        attr = &usual;
    int rc = modus_program_start(&made->process, argv, attr, NULL);
    if (rc < 0) {
        free(made);
        return rc;
    }
    made->pipes.in = made->pipes.from[0] = made->pipes.from[1] = made->process;
    made->pipes.limit = attr->limit;
    *subprocess = made;
    return 0;
}

/* --- talking --------------------------------------------------------------------------------- */

static bool is_parents(const struct modus_subprocess *subprocess)
{
    return modus_process_fd(subprocess->process) == -ECHILD;
}

/* Returns 0 if this call may be made. */
static int check(struct modus_subprocess *subprocess, const void *input, size_t size,
                 int64_t deadline)
{
    if (deadline < MODUS_FOREVER || (size && !input))
        return -EINVAL;
    if (is_parents(subprocess))
        return -ECHILD;
    if (!size)
        return 0;
    if (subprocess->pipes.begun)
        return -EALREADY;
    if (subprocess->process->pipes[0] < 0)
        return -EINVAL;
    subprocess->pipes.input = input;
    subprocess->pipes.left = size;
    return 0;
}

int modus_subprocess_communicate_until(struct modus_subprocess *subprocess, const void *input,
                                       size_t size, struct modus_output *output,
                                       struct modus_output *errors, int64_t deadline)
{
    struct modus_pipes *pipes = &subprocess->pipes;
    int rc = check(subprocess, input, size, deadline);

    if (rc == 0)
        rc = modus_pipes_move(pipes, deadline);
    if (rc == 0)
        rc = modus_process_join_until(subprocess->process, deadline, NULL);
    if (output)
        *output = pipes->collected[0].bytes;
    if (errors)
        *errors = pipes->collected[1].bytes;
    return rc;
}

int modus_subprocess_communicate(struct modus_subprocess *subprocess, const void *input,
                                 size_t size, struct modus_output *output,
                                 struct modus_output *errors, int64_t ns)
{
    return modus_subprocess_communicate_until(subprocess, input, size, output, errors,
                                              ns < MODUS_FOREVER ? ns : modus_deadline(ns));
}

int modus_subprocess_stream(const struct modus_subprocess *subprocess, int stream)
{
    if (stream < 0 || stream > 2 || subprocess->process->pipes[stream] < 0)
        return -EINVAL;
    return subprocess->process->pipes[stream];
}

void modus_subprocess_close(struct modus_subprocess *subprocess, int stream)
{
    if (stream >= 0 && stream <= 2)
        modus_process_close_pipe(subprocess->process, stream);
}

/* Returns the descriptor of a stream, which does not block. */
static int prepare(const struct modus_subprocess *subprocess, int stream, int64_t ns)
{
    if (is_parents(subprocess))
        return -ECHILD;
    int fd = ns < MODUS_FOREVER ? -EINVAL : modus_subprocess_stream(subprocess, stream);
    if (fd >= 0)
        modus_pipes_unblock(fd);
    return fd;
}

ssize_t modus_subprocess_write(struct modus_subprocess *subprocess, const void *data, size_t size,
                               int64_t ns)
{
    int64_t deadline = modus_deadline(ns);
    int fd = prepare(subprocess, 0, ns), rc = fd < 0 ? fd : 0;
    size_t written = 0;

    while (rc == 0 && written < size) {
        ssize_t n = modus_pipes_write(fd, (const char *)data + written, size - written);

        if (n >= 0) {
            written += (size_t)n;
            rc = deadline != MODUS_FOREVER && modus_now_ns() >= deadline ? -ETIMEDOUT : 0;
        } else if (n == -EAGAIN) {
            rc = modus_park_fd(fd, POLLOUT, deadline, NULL);
        } else if (n != -EINTR) {
            rc = n == -EPIPE ? MODUS_CLOSED : (int)n;
        }
    }
    return written ? (ssize_t)written : rc;
}

ssize_t modus_subprocess_read(struct modus_subprocess *subprocess, int stream, void *buffer,
                              size_t size, int64_t ns)
{
    int64_t deadline = modus_deadline(ns);
    int fd = stream == 1 || stream == 2 ? prepare(subprocess, stream, ns) : -EINVAL;
    ssize_t n = fd;

    while (fd >= 0 && (n = modus_pipes_read(fd, buffer, size)) == -EAGAIN) {
        int rc = modus_park_fd(fd, POLLIN, deadline, NULL);

        if (rc < 0)
            return rc;
    }
    return n;
}

/* --- its end --------------------------------------------------------------------------------- */

int modus_subprocess_wait(struct modus_subprocess *subprocess, int64_t ns, int *code)
{
    return modus_process_join(subprocess->process, ns, code);
}

int modus_subprocess_wait_until(struct modus_subprocess *subprocess, int64_t deadline, int *code)
{
    return modus_process_join_until(subprocess->process, deadline, code);
}

int modus_subprocess_terminate(struct modus_subprocess *subprocess)
{
    return modus_process_terminate(subprocess->process);
}

int modus_subprocess_kill(struct modus_subprocess *subprocess)
{
    return modus_process_kill(subprocess->process);
}

int modus_subprocess_signal(struct modus_subprocess *subprocess, int signal)
{
    return modus_process_signal(subprocess->process, signal);
}

struct modus_process *modus_subprocess_process(struct modus_subprocess *subprocess)
{
    return subprocess->process;
}

void modus_subprocess_free(struct modus_subprocess *subprocess)
{
    if (!subprocess)
        return;
    for (int i = 0; i < 3; i++)
        modus_process_close_pipe(subprocess->process, i);
    modus_pipes_fini(&subprocess->pipes);
    modus_process_put(subprocess->process);
    free(subprocess);
}
