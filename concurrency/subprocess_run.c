/* SPDX-License-Identifier: MIT */
/*
 * Programs in one call: a single one is a pipeline of one.
 *
 * The pipe between two programs is first the one that the left has to us; the right gets a copy of
 * our end, and ours is closed. All have the same pipe for errors, which the first has to us.
 */
#include "concurrency/coroutine.h"
#include "concurrency/pipes.h"
#include "concurrency/subprocess.h"

#include <stdlib.h>
#include <string.h>

static const struct modus_subprocess_attr all_pipes = {
    .input = {.kind = MODUS_STDIO_PIPE},
    .output = {.kind = MODUS_STDIO_PIPE},
    .errors = {.kind = MODUS_STDIO_PIPE},
};

/* Returns 0, or a code with none of them running. */
static int start(struct modus_process **processes, const char *const *const *commands,
                 unsigned count, const struct modus_subprocess_attr *attr)
{
    for (unsigned i = 0; i < count; i++) {
        struct modus_subprocess_attr mine = *attr;
        bool share = i > 0 && attr->errors.kind == MODUS_STDIO_PIPE;

        if (i > 0)
            mine.input = (struct modus_stdio_attr){MODUS_STDIO_FD, processes[i - 1]->pipes[1]};
        if (i + 1 < count)
            mine.output = (struct modus_stdio_attr){.kind = MODUS_STDIO_PIPE};
        int rc =
            modus_program_start(&processes[i], commands[i], &mine, share ? processes[0] : NULL);
        if (i > 0)
            modus_process_close_pipe(processes[i - 1], 1);
        if (rc < 0) {
            modus_programs_kill(processes, i);
            return rc;
        }
    }
    return 0;
}

static int join(struct modus_process *const *processes, unsigned count, int64_t deadline)
{
    int rc = 0;

    for (unsigned i = 0; i < count && rc == 0; i++)
        rc = modus_process_join_until(processes[i], deadline, NULL);
    return rc;
}

void modus_programs_kill(struct modus_process *const *processes, unsigned n)
{
    MODUS_CO_SHIELD(killing);
    for (unsigned i = 0; i < n; i++)
        modus_process_kill(processes[i]);
    for (unsigned i = 0; i < n; i++)
        modus_process_join(processes[i], MODUS_FOREVER, NULL);
}

static int talk(struct modus_process *const *processes, unsigned count,
                const struct modus_subprocess_attr *attr, const void *input, size_t size,
                int64_t deadline, struct modus_ran *ran)
{
    struct modus_pipes pipes = {
        .in = processes[0],
        .from = {processes[count - 1], processes[0]},
        .limit = attr->limit,
        .input = input,
        .left = size,
    };
    int rc = modus_pipes_move(&pipes, deadline);

    if (rc == 0)
        rc = join(processes, count, deadline);
    if (rc < 0) {
        modus_programs_kill(processes, count);
        modus_pipes_take_rest(&pipes);
    }
    modus_pipes_give(&pipes, ran);
    return rc;
}

static int run(struct modus_process **processes, const char *const *const *commands, unsigned count,
               const struct modus_subprocess_attr *attr, const void *input, size_t size,
               int64_t deadline, struct modus_ran *ran, int *codes)
{
    int rc = start(processes, commands, count, attr);

    if (rc == 0)
        rc = talk(processes, count, attr, input, size, deadline, ran);
    for (unsigned i = 0; i < count && processes[i]; i++) {
        modus_process_join(processes[i], 0, &codes[i]);
        for (int stream = 0; stream < 3; stream++)
            modus_process_close_pipe(processes[i], stream);
        modus_process_put(processes[i]);
    }
    return rc;
}

int modus_pipeline_run(const char *const *const *commands, unsigned count,
                       const struct modus_subprocess_attr *attr, const void *input, size_t size,
                       int64_t ns, struct modus_ran *ran, int *codes)
{
    *ran = (struct modus_ran){.code = MODUS_EXIT_UNKNOWN};
    for (unsigned i = 0; i < count; i++)
        codes[i] = MODUS_EXIT_UNKNOWN;
    if (!attr)
        attr = &all_pipes;
    if (count == 0 || ns < MODUS_FOREVER || (size && !input) ||
        (size && attr->input.kind != MODUS_STDIO_PIPE))
        return -EINVAL;
    struct modus_process **processes = calloc(count, sizeof(struct modus_process *));
    if (!processes)
        return -ENOMEM;
    int rc = run(processes, commands, count, attr, input, size, modus_deadline(ns), ran, codes);
    ran->code = codes[count - 1];
    free(processes);
    return rc;
}

int modus_subprocess_run(const char *const *argv, const struct modus_subprocess_attr *attr,
                         const void *input, size_t size, int64_t ns, struct modus_ran *ran)
{
    int code;

    return modus_pipeline_run(&argv, 1, attr, input, size, ns, ran, &code);
}

void modus_ran_free(struct modus_ran *ran)
{
    free(ran->output.data);
    free(ran->errors.data);
    *ran = (struct modus_ran){0};
}
