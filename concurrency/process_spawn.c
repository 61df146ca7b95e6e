/* SPDX-License-Identifier: MIT */
/*
 * Over an exec: this program once more, to run one function of it.
 *
 * /proc/self/exe is the file that this process runs, even when another has been installed in its
 * place meanwhile, so parent and child always fit each other. What the child must know goes in a
 * record in a sealed memfd, its descriptor 3; then come the descriptors that were passed, then the
 * life line. An argument on the command line is the mark; who types it by hand has no such record.
 */
#include "concurrency/launch.h"
#include "concurrency/process_priv.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MARK "--modus-process"

enum { RECORD_FD = 3, FIRST_FD = 4, BAD_RECORD = 127 };
enum { SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };

/* The argument follows. */
struct record {
    char magic[8];
    uint64_t size; /* of the argument */
    uint32_t fds_count;
    enum modus_orphan orphan;
    bool daemon, by_main, has_line;
    char name[64], function[64];
};

static const char magic[8] = "modusP1";

static struct modus_process_function *functions;

void modus_process_register(struct modus_process_function *function)
{
    function->next = functions;
    functions = function;
}

/* NULL: there is none, or more than one. */
static const struct modus_process_function *find(const char *name)
{
    const struct modus_process_function *found = NULL;

    for (const struct modus_process_function *at = functions; at; at = at->next) {
        if (strcmp(at->name, name) != 0)
            continue;
        if (found)
            return NULL;
        found = at;
    }
    return found;
}

const char *modus_process_function_name(int (*run)(void *argument))
{
    for (const struct modus_process_function *at = functions; at; at = at->next)
        if (at->run == run && strlen(at->name) < sizeof((struct record *)0)->function)
            return find(at->name) == at ? at->name : NULL;
    return NULL;
}

/* --- the parent's side ----------------------------------------------------------------------- */

static int write_all(int fd, const void *data, size_t size)
{
    const char *at = data;

    while (size > 0) {
        ssize_t n = write(fd, at, size);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            at += n;
            size -= (size_t)n;
        }
    }
    return 0;
}

/* Returns the descriptor of the record, or a negative code. */
static int write_record(const struct modus_process *process, bool has_line)
{
    struct record record = {
        .size = process->attr.size,
        .fds_count = process->attr.fds_count,
        .orphan = process->attr.orphan,
        .daemon = process->daemon,
        .by_main = process->by_main,
        .has_line = has_line,
    };
    int fd = memfd_create("modus-process", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    memcpy(record.magic, magic, sizeof magic);
    memcpy(record.name, process->name, sizeof record.name);
    snprintf(record.function, sizeof record.function, "%s",
             modus_process_function_name(process->run));
    int rc = write_all(fd, &record, sizeof record);
    if (rc == 0)
        rc = write_all(fd, process->argument, record.size);
    if (rc == 0 && fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        rc = -errno;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

int modus_process_spawn(const struct modus_process *process, int line, pid_t *pid)
{
    const char *argv[] = {program_invocation_name, MARK, NULL};
    int fds[FIRST_FD + MODUS_PROCESS_FDS_MAX + 1];
    unsigned count = FIRST_FD;

    for (int i = 0; i < RECORD_FD; i++)
        fds[i] = modus_launch_inherited(i);
    for (unsigned i = 0; i < process->attr.fds_count; i++)
        fds[count++] = process->fds[i];
    if (line >= 0)
        fds[count++] = line;
    int record = write_record(process, line >= 0);
    if (record < 0)
        return record;
    fds[RECORD_FD] = record;
    const struct modus_launch launch = {
        .path = "/proc/self/exe", .argv = argv, .fds = fds, .count = count};
    int rc = modus_launch(&launch, pid);
    close(record);
    return rc;
}

/* --- the child's side ------------------------------------------------------------------------ */

static bool read_all(int fd, void *data, size_t size, off_t offset)
{
    char *at = data;

    while (size > 0) {
        ssize_t n = pread(fd, at, size, offset);

        if (n <= 0)
            return false;
        at += n;
        offset += n;
        size -= (size_t)n;
    }
    return true;
}

/* Is descriptor 3 what the parent has left there? */
static bool read_record(struct record *record)
{
    return fcntl(RECORD_FD, F_GET_SEALS) == SEALS &&
           read_all(RECORD_FD, record, sizeof *record, 0) &&
           memcmp(record->magic, magic, sizeof magic) == 0 &&
           record->fds_count <= MODUS_PROCESS_FDS_MAX;
}

static struct modus_process *make(const struct record *record)
{
    struct modus_process *process = calloc(1, sizeof *process);
    void *argument = malloc(record->size + 1);

    if (!process || !argument || !read_all(RECORD_FD, argument, record->size, sizeof *record)) {
        free(argument);
        free(process);
        return NULL;
    }
    memcpy(process->name, record->name, sizeof process->name);
    process->daemon = record->daemon;
    process->by_main = record->by_main;
    process->attr.start = MODUS_START_SPAWN;
    process->attr.orphan = record->orphan;
    process->attr.size = record->size;
    process->attr.fds_count = record->fds_count;
    process->argument = argument;
    atomic_store(&process->references, 1);
    for (unsigned i = 0; i < record->fds_count; i++) {
        process->fds[i] = FIRST_FD + (int)i;
        fcntl(process->fds[i], F_SETFD, FD_CLOEXEC);
    }
    return process;
}

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", program_invocation_name, what);
    exit(BAD_RECORD);
}

static bool spawned(int argc, char **argv, struct record *record)
{
    return argc == 2 && strcmp(argv[1], MARK) == 0 && read_record(record);
}

/* A spawned process that has not come to modus_process_child. */
static bool astray;

/* glibc gives constructors main's arguments. */
__attribute__((constructor)) static void look_at_arguments(int argc, char **argv)
{
    struct record record;

    astray = spawned(argc, argv, &record);
}

void modus_process_not_astray(void)
{
    if (astray)
        fail("spawned, but main begins with neither modus_main nor modus_process_child");
}

void modus_process_child(int argc, char **argv)
{
    struct record record;

    if (!spawned(argc, argv, &record))
        return;
    astray = false;
    const struct modus_process_function *function = find(record.function);
    if (!function)
        fail("the function of the spawned process is not registered");
    struct modus_process *process = make(&record);
    if (!process)
        fail("out of memory for the spawned process");
    close(RECORD_FD);
    process->run = function->run;
    int line = record.has_line ? FIRST_FD + (int)record.fds_count : -1;
    modus_process_become(process, line);
    modus_process_settle(process, line);
    int code = process->run(process->argument);
    modus_process_finish();
    exit(code);
}
