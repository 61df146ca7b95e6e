/* SPDX-License-Identifier: MIT */
/* Running other programs: what they get, what comes back, what goes wrong, and that nothing is left. */
#include "test_concurrency_process.h"

#include "concurrency/coroutine.h"
#include "concurrency/subprocess.h"
#include "concurrency/thread.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#define PIPES                                                                                      \
    .input = {.kind = MODUS_STDIO_PIPE}, .output = {.kind = MODUS_STDIO_PIPE},                     \
    .errors = {.kind = MODUS_STDIO_PIPE}

static const struct modus_subprocess_attr pipes = {PIPES};

#define SH(script)                                                                                 \
    (const char *const[])                                                                          \
    {                                                                                              \
        "/bin/sh", "-c", script, NULL                                                              \
    }

static struct modus_subprocess *begun(const char *const *argv,
                                      const struct modus_subprocess_attr *attr)
{
    struct modus_subprocess *subprocess;

    CHECK_INT(modus_subprocess_start(&subprocess, argv, attr), 0);
    return subprocess;
}

/* Run a script, and compare what it says and its code. */
static void expect(const char *const *argv, const struct modus_subprocess_attr *attr,
                   const char *input, const char *output, const char *errors, int code)
{
    struct modus_ran ran;

    CHECK_INT(
        modus_subprocess_run(argv, attr, input, input ? strlen(input) : 0, MODUS_FOREVER, &ran), 0);
    if (output)
        assert_string_equal(ran.output.data, output);
    if (errors)
        assert_string_equal(ran.errors.data, errors);
    assert_int_equal(ran.code, code);
    modus_ran_free(&ran);
}

/* Each test leaves as many descriptors as it found, and no child. */
static unsigned fds_before;

static int begin(void **state)
{
    open_board(state);
    modus_co_run(give_back, &(int){0}); /* libuv keeps some of its first loop */
    fds_before = fds_here();
    return 0;
}

static int nothing_left(void **state)
{
    (void)state;
    AWAIT(children_here() == 0);
    AWAIT(threads_here() == threads);
    return fds_here() == fds_before ? 0 : -1;
}

/* --- what it gets ---------------------------------------------------------------------------- */

static void test_run(void **state)
{
    (void)state;
    expect(SH("cat; echo error >&2; exit 3"), NULL, "some\ninput", "some\ninput", "error\n", 3);
    expect(SH("exit 0"), NULL, NULL, "", "", 0);
    expect(SH("kill -9 $$"), NULL, NULL, "", "", -SIGKILL);
    expect((const char *const[]){"true", NULL}, NULL, NULL, "", "", 0); /* in PATH */
}

static void test_streams(void **state)
{
    struct modus_subprocess_attr attr = {PIPES};
    int fds[2];
    char text[32] = {0};
    (void)state;

    attr.errors.kind = MODUS_STDIO_OUTPUT;
    expect(SH("echo one; echo two >&2; echo three"), &attr, NULL, "one\ntwo\nthree\n", NULL, 0);
    attr.input.kind = attr.errors.kind = MODUS_STDIO_NULL;
    expect(SH("cat; echo lost >&2; echo x"), &attr, NULL, "x\n", NULL, 0);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    attr.output = (struct modus_stdio_attr){MODUS_STDIO_FD, fds[1]};
    attr.errors.kind = MODUS_STDIO_OUTPUT;
    expect(SH("echo a; echo b >&2"), &attr, NULL, NULL, NULL, 0);
    assert_int_equal(read(fds[0], text, sizeof text - 1), 4);
    assert_string_equal(text, "a\nb\n");
    /* the parent's own, crossed over */
    int saved[2] = {dup(1), dup(2)};
    dup2(fds[1], 1);
    attr.output = (struct modus_stdio_attr){MODUS_STDIO_FD, 2};
    attr.errors = (struct modus_stdio_attr){MODUS_STDIO_FD, 1};
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dup2(null, 2);
    expect(SH("echo c; echo d >&2"), &attr, NULL, NULL, NULL, 0);
    attr.output.kind = attr.errors.kind = MODUS_STDIO_INHERIT;
    expect(SH("echo e; echo f >&2"), &attr, NULL, NULL, NULL, 0);
    dup2(saved[0], 1);
    dup2(saved[1], 2);
    close(saved[0]);
    close(saved[1]);
    close(null);
    close(fds[1]);
    memset(text, 0, sizeof text);
    assert_int_equal(read(fds[0], text, sizeof text - 1), 4);
    assert_string_equal(text, "d\ne\n");
    close(fds[0]);
}

/* A caller without 0, 1 and 2: the pipe gets these numbers, and nobody takes them for inherited ones.
 * Else the program held the other end of its own input. */
static int start_without_standard_ones(void *argument)
{
    const struct modus_subprocess_attr attr = {.input = {.kind = MODUS_STDIO_PIPE}};
    struct modus_subprocess *subprocess;
    int code = -1;

    for (int fd = 0; fd < 3; fd++)
        close(fd);
    CHECK_INT(modus_subprocess_start(
                  &subprocess, SH("cat > /dev/null; [ ! -e /proc/self/fd/2 ] && exit 5"), &attr),
              0);
    CHECK_INT(modus_subprocess_communicate(subprocess, "x", 1, NULL, NULL, MODUS_FOREVER), 0);
    CHECK_INT(modus_subprocess_wait(subprocess, MODUS_FOREVER, &code), 0);
    modus_subprocess_free(subprocess);
    return argument ? 0 : code;
}

static void test_nothing_to_inherit(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(start_without_standard_ones, NULL)), 5);
}

/* None is blocked, none ignored, but for the two that glibc has for itself. */
static void expect_signals(const struct modus_subprocess_attr *attr)
{
    const char *const argv[] = {"grep", "-E", "Sig(Blk|Ign)", "/proc/self/status", NULL};
    unsigned long blocked = 1, ignored = 1;
    struct modus_ran ran;

    assert_int_equal(modus_subprocess_run(argv, attr, NULL, 0, MODUS_FOREVER, &ran), 0);
    assert_int_equal(sscanf(ran.output.data, "SigBlk: %lx SigIgn: %lx", &blocked, &ignored), 2);
    assert_int_equal(blocked, 0);
    assert_int_equal(ignored & ~(3ul << 31), 0);
    modus_ran_free(&ran);
}

static void test_surroundings(void **state)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    struct modus_subprocess_attr attr = {PIPES, .folder = "/usr"};
    sigset_t all, before;
    char text[32];
    (void)state;

    expect(SH("pwd"), &attr, NULL, "/usr\n", "", 0);
    attr.environment = (const char *const[]){"WORD=one two", NULL};
    expect(SH("echo \"$WORD\"; echo ${HOME-none}"), &attr, NULL, "one two\nnone\n", "", 0);
    attr.environment = NULL;
    /* signals: none ignored, none blocked, and no descriptor but its own that it lists with */
    int leak = open("/dev/null", O_RDONLY);
    sigaction(SIGPIPE, &ignore, &old);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    expect_signals(&attr);
    expect((const char *const[]){"ls", "/proc/self/fd", NULL}, &attr, NULL, "0\n1\n2\n3\n", "", 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    sigaction(SIGPIPE, &old, NULL);
    close(leak);
    /* groups */
    for (int group = MODUS_GROUP_SAME; group <= MODUS_GROUP_SESSION; group++) {
        struct modus_ran ran;
        int pid, parent, pgrp, session;

        attr.group = (enum modus_subprocess_group)group;
        assert_int_equal(modus_subprocess_run((const char *const[]){"cat", "/proc/self/stat", NULL},
                                              &attr, NULL, 0, MODUS_FOREVER, &ran),
                         0);
        assert_int_equal(
            sscanf(ran.output.data, "%d (cat) %*c %d %d %d", &pid, &parent, &pgrp, &session), 4);
        assert_int_equal(parent, getpid());
        assert_int_equal(pgrp, group == MODUS_GROUP_SAME ? getpgrp() : pid);
        assert_int_equal(session, group == MODUS_GROUP_SESSION ? pid : getsid(0));
        modus_ran_free(&ran);
    }
    snprintf(text, sizeof text, "%d\n", getpid());
    expect(SH("echo $PPID"), NULL, NULL, text, "", 0);
}

/* --- what goes wrong ------------------------------------------------------------------------- */

static void test_start_errors(void **state)
{
    struct modus_subprocess *subprocess = NULL;
    struct modus_subprocess_attr attr = {PIPES};
    static char big[4 << 20];
    struct modus_ran ran;
    (void)state;

    memset(big, 'x', sizeof big - 1);
#define START(expected, attributes, ...)                                                           \
    assert_int_equal(                                                                              \
        modus_subprocess_start(&subprocess, (const char *const[]){__VA_ARGS__, NULL}, attributes), \
        expected)
    START(-EINVAL, &pipes, NULL);
    assert_int_equal(modus_subprocess_start(&subprocess, NULL, &pipes), -EINVAL);
    START(-ENOENT, &pipes, "/no/such/program");
    START(-ENOENT, NULL, "no-such-program");
    START(-EACCES, &pipes, "/etc/passwd");
    START(-EACCES, &pipes, "/usr");
    START(-ENOTDIR, &pipes, "/etc/passwd/x");
    START(-E2BIG, &pipes, "true", big);
    attr.folder = "/no/such/folder";
    START(-ENOENT, &attr, "true");
    attr.folder = NULL;
    int closed = dup(0);
    close(closed);
    attr.input = (struct modus_stdio_attr){MODUS_STDIO_FD, closed};
    START(-EBADF, &attr, "true");
    attr.input.kind = MODUS_STDIO_OUTPUT;
    START(-EINVAL, &attr, "true");
    attr.input.kind = (enum modus_stdio)99;
    START(-EINVAL, &attr, "true");
    assert_null(subprocess);
    assert_int_equal(modus_subprocess_run((const char *const[]){"/no/such/program", NULL}, NULL,
                                          "x", 1, MODUS_FOREVER, &ran),
                     -ENOENT);
    assert_int_equal(ran.code, MODUS_EXIT_UNKNOWN);
    assert_null(ran.output.data);
    assert_int_equal(modus_subprocess_run(SH("true"), NULL, "x", 1, -2, &ran), -EINVAL);
    assert_int_equal(modus_subprocess_run(SH("true"), NULL, NULL, 1, 0, &ran), -EINVAL);
    assert_int_equal(modus_subprocess_run(SH("true"), &(struct modus_subprocess_attr){0}, "x", 1,
                                          MODUS_FOREVER, &ran),
                     -EINVAL);
    modus_ran_free(&ran);
    modus_subprocess_free(NULL);
}

static int use_parents(void *argument)
{
    struct modus_subprocess *subprocess = argument;
    char byte;

    CHECK_INT(modus_subprocess_communicate(subprocess, NULL, 0, NULL, NULL, 0), -ECHILD);
    CHECK_INT(modus_subprocess_write(subprocess, "x", 1, 0), -ECHILD);
    CHECK_INT(modus_subprocess_read(subprocess, 1, &byte, 1, 0), -ECHILD);
    CHECK_INT(modus_subprocess_wait(subprocess, 0, NULL), -ECHILD);
    CHECK_INT(modus_subprocess_kill(subprocess), -ECHILD);
    CHECK_INT(modus_subprocess_stream(subprocess, 1), -EINVAL);
    modus_subprocess_free(subprocess);
    expect(SH("echo own"), NULL, NULL, "own\n", "", 0);
    CHECK_INT(modus_event_wait(&board->gate, MODUS_FOREVER), 0);
    return 0;
}

/* Forked while a program runs: the child has no end of its pipes, and so delays no end of them. */
static void test_fork(void **state)
{
    struct modus_subprocess *subprocess = begun(SH("cat"), &pipes);
    struct modus_output output;
    (void)state;

    pid_t other = start_child(use_parents, subprocess);
    struct modus_process *process = make(NULL, use_parents, subprocess);
    CHECK_INT(modus_process_start(process), 0);
    assert_int_equal(
        modus_subprocess_communicate(subprocess, "abc", 3, &output, NULL, MODUS_FOREVER), 0);
    assert_string_equal(output.data, "abc");
    modus_subprocess_free(subprocess);
    modus_event_set(&board->gate);
    assert_int_equal(reap(other), 0);
    assert_int_equal(code_of(process), 0);
}

/* --- communicate ----------------------------------------------------------------------------- */

enum { BIG = 16 << 20 };

static char *big_text(void)
{
    char *text = malloc(BIG);

    CHECK(text);
    for (int i = 0; i < BIG; i++)
        text[i] = (char)('a' + i % 23);
    return text;
}

/* 16 MiB in, 16 MiB out, and as much of errors. */
static void test_both_ways(void **state)
{
    char *text = big_text();
    struct modus_ran ran;
    (void)state;

    assert_int_equal(
        modus_subprocess_run(SH("tee /dev/stderr"), NULL, text, BIG, MODUS_FOREVER, &ran), 0);
    assert_int_equal(ran.code, 0);
    assert_int_equal(ran.output.size, BIG);
    assert_memory_equal(ran.output.data, text, BIG);
    assert_int_equal(ran.errors.size, BIG);
    assert_memory_equal(ran.errors.data, text, BIG);
    modus_ran_free(&ran);
    free(text);
}

/* A limit on the time in the middle, more than once; nothing is lost. */
static void test_communicate_again(void **state)
{
    struct modus_subprocess *subprocess = begun(SH("head -c 5; kill -STOP $$; cat"), &pipes);
    char *text = big_text();
    struct modus_output output, errors;
    (void)state;

    int rc = modus_subprocess_communicate(subprocess, text, BIG, &output, &errors, modus_ms(5));
    while (rc == -ETIMEDOUT && output.size == 0)
        rc = modus_subprocess_communicate(subprocess, NULL, 0, &output, &errors, modus_ms(5));
    assert_int_equal(rc, -ETIMEDOUT);
    assert_true(output.size > 0);
    assert_int_equal(modus_subprocess_communicate(subprocess, text, BIG, NULL, NULL, 0), -EALREADY);
    AWAIT(state_of(modus_process_pid(modus_subprocess_process(subprocess))) == 'T');
    assert_int_equal(
        modus_subprocess_communicate_until(subprocess, NULL, 0, &output, NULL, modus_now_ns() - 1),
        -ETIMEDOUT);
    assert_int_equal(modus_subprocess_signal(subprocess, SIGCONT), 0);
    assert_int_equal(
        modus_subprocess_communicate(subprocess, NULL, 0, &output, &errors, MODUS_FOREVER), 0);
    assert_memory_equal(output.data, text, 5);
    /* head may have taken more than it gave; what cat gave is the rest */
    assert_true(output.size > 5 && output.size <= BIG);
    assert_memory_equal(output.data + 5, text + BIG - (output.size - 5), output.size - 5);
    assert_int_equal(errors.size, 0);
    assert_int_equal(modus_subprocess_communicate(subprocess, NULL, 0, &output, NULL, 0), 0);
    assert_int_equal(modus_subprocess_communicate(subprocess, NULL, 0, NULL, NULL, -2), -EINVAL);
    int code = 1;
    assert_int_equal(modus_subprocess_wait(subprocess, 0, &code), 0);
    assert_int_equal(code, 0);
    modus_subprocess_free(subprocess);
    free(text);
}

/* One that has always something to say does not make the time longer: what is over is over. */
static void test_talkative(void **state)
{
    struct modus_subprocess *subprocess =
        begun(SH("head -c 60000 /dev/zero; exec sleep 25"), &pipes);
    struct modus_output output;
    int there = 0;
    (void)state;

    AWAIT(ioctl(modus_subprocess_stream(subprocess, 1), FIONREAD, &there) == 0 && there == 60000);
    for (size_t before = 0; before < 60000; before = output.size) {
        assert_int_equal(modus_subprocess_communicate_until(subprocess, NULL, 0, &output, NULL, 0),
                         -ETIMEDOUT);
        assert_true(output.size > before);              /* each call goes on, */
        assert_true(before > 0 || output.size < 60000); /* but not to the end */
    }
    assert_int_equal(modus_subprocess_kill(subprocess), 0);
    modus_subprocess_free(subprocess);
}

static void count_sigpipe(int signal)
{
    (void)signal;
    atomic_fetch_add(&board->counts[0], 1);
}

/* A program that does not read its input. */
static void test_sigpipe(void **state)
{
    struct sigaction count = {.sa_handler = count_sigpipe}, old;
    char *text = big_text();
    struct modus_ran ran;
    sigset_t sigpipe, pending, before;
    (void)state;

    sigaction(SIGPIPE, &count, &old);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(
            modus_subprocess_run(SH("exec <&-; echo deaf"), NULL, text, BIG, MODUS_FOREVER, &ran),
            0);
        assert_string_equal(ran.output.data, "deaf\n");
        modus_ran_free(&ran);
        struct modus_subprocess *subprocess = begun(SH("exit 0"), &pipes);
        assert_int_equal(modus_subprocess_wait(subprocess, MODUS_FOREVER, NULL), 0);
        assert_int_equal(modus_subprocess_write(subprocess, "x", 1, MODUS_FOREVER), MODUS_CLOSED);
        modus_subprocess_free(subprocess);
        assert_int_equal(atomic_load(&board->counts[0]), 0);
        if (round == 1)
            break;
        sigemptyset(&sigpipe); /* one that was pending stays so */
        sigaddset(&sigpipe, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
        raise(SIGPIPE);
    }
    sigpending(&pending);
    assert_true(sigismember(&pending, SIGPIPE));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert_int_equal(atomic_load(&board->counts[0]), 1);
    sigaction(SIGPIPE, &old, NULL);
    free(text);
}

static void test_limit(void **state)
{
    struct modus_subprocess_attr attr = {PIPES, .limit = 100};
    struct modus_ran ran;
    (void)state;

    assert_int_equal(modus_subprocess_run(SH("yes"), &attr, NULL, 0, MODUS_FOREVER, &ran),
                     -EOVERFLOW);
    assert_int_equal(ran.output.size, 100);
    assert_int_equal(ran.code, -SIGKILL);
    modus_ran_free(&ran);
    attr.limit = 4; /* just as much is all right */
    expect(SH("printf 1234; printf 5678 >&2"), &attr, NULL, "1234", "5678", 0);
    assert_int_equal(modus_subprocess_run(SH("printf 12345"), &attr, NULL, 0, MODUS_FOREVER, &ran),
                     -EOVERFLOW);
    assert_string_equal(ran.output.data, "1234");
    modus_ran_free(&ran);
}

/* --- times and ends -------------------------------------------------------------------------- */

/* Killed in time, with what it said; and nobody waits for a grandchild that has its pipes. */
static void test_run_timeout(void **state)
{
    struct modus_subprocess_attr attr = {PIPES};
    struct modus_ran ran;
    (void)state;

    for (int i = 0; i < 2; i++) {
        int64_t ns = modus_ms(100);
        int sleeper = 0;

        attr.group = i ? MODUS_GROUP_NEW : MODUS_GROUP_SAME;
        for (; sleeper == 0; ns *= 2) { /* until it has had the time to say that much */
            assert_int_equal(modus_subprocess_run(SH("echo said; sleep 25 & echo $!; wait"), &attr,
                                                  NULL, 0, ns, &ran),
                             -ETIMEDOUT);
            assert_int_equal(ran.code, -SIGKILL);
            sscanf(ran.output.data, "said\n%d\n", &sleeper);
            modus_ran_free(&ran);
        }
        if (i == 0)
            kill(sleeper, SIGKILL); /* it is in nobody's hands */
        else
            AWAIT(state_of(sleeper) == 0 || state_of(sleeper) == 'Z'); /* it was in the group */
    }
}

/* The leader has ended; its group has not, and is hit by its signals as long as it is not waited for,
 * however many others are started and swept meanwhile. */
static void test_group_outlives_leader(void **state)
{
    const struct modus_subprocess_attr attr = {PIPES, .group = MODUS_GROUP_NEW};
    struct modus_subprocess *subprocess = begun(SH("sleep 100 & echo $!"), &attr);
    char text[16] = {0};
    (void)state;

    assert_true(modus_subprocess_read(subprocess, 1, text, sizeof text - 1, MODUS_FOREVER) > 0);
    AWAIT(state_of(modus_process_pid(modus_subprocess_process(subprocess))) == 'Z');
    for (int i = 0; i < 20; i++)
        assert_int_equal(code_of(started(NULL, give_back, &(int){3})), 3);
    assert_int_equal(modus_subprocess_terminate(subprocess), 0);
    AWAIT(state_of(atoi(text)) == 0 || state_of(atoi(text)) == 'Z');
    modus_subprocess_free(subprocess);
}

static void test_wait(void **state)
{
    struct modus_subprocess *subprocess = begun(SH("echo ready; cat"), &pipes);
    struct modus_process *process = modus_subprocess_process(subprocess);
    char text[16];
    int code = 77;
    (void)state;

    struct pollfd end = {.fd = modus_process_fd(process), .events = POLLIN};
    assert_int_equal(modus_subprocess_wait(subprocess, 0, &code), -EAGAIN);
    assert_int_equal(modus_subprocess_wait(subprocess, modus_ms(2), &code), -ETIMEDOUT);
    assert_int_equal(modus_subprocess_wait_until(subprocess, modus_now_ns(), &code), -ETIMEDOUT);
    assert_int_equal(poll(&end, 1, 0), 0);
    assert_true(modus_process_alive(process));
    /* a conversation */
    assert_int_equal(modus_subprocess_read(subprocess, 1, text, sizeof text, MODUS_FOREVER), 6);
    assert_int_equal(modus_subprocess_read(subprocess, 1, text, sizeof text, 0), -ETIMEDOUT);
    assert_int_equal(modus_subprocess_read(subprocess, 0, text, sizeof text, 0), -EINVAL);
    assert_int_equal(modus_subprocess_read(subprocess, 1, text, sizeof text, -2), -EINVAL);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(modus_subprocess_write(subprocess, "line\n", 5, MODUS_FOREVER), 5);
        assert_int_equal(modus_subprocess_read(subprocess, 1, text, sizeof text, MODUS_FOREVER), 5);
        assert_memory_equal(text, "line\n", 5);
    }
    char *big = big_text(); /* it does not read on when we don't, though it may be slow to stop */
    ssize_t n = 0, more = modus_subprocess_write(subprocess, big, BIG, modus_ms(20));
    for (; more > 0; more = modus_subprocess_write(subprocess, big, BIG, 0))
        n += more;
    assert_int_equal(more, -ETIMEDOUT);
    assert_true(n > 0 && n < BIG);
    free(big);
    modus_subprocess_close(subprocess, 0);
    assert_int_equal(modus_subprocess_write(subprocess, "x", 1, 0), -EINVAL);
    assert_int_equal(modus_subprocess_stream(subprocess, 0), -EINVAL);
    assert_int_equal(modus_subprocess_stream(subprocess, 7), -EINVAL);
    assert_true(modus_subprocess_stream(subprocess, 1) >= 0);
    struct modus_output output;
    assert_int_equal(
        modus_subprocess_communicate(subprocess, NULL, 0, &output, NULL, MODUS_FOREVER), 0);
    assert_int_equal(output.size, n);
    assert_int_equal(modus_subprocess_wait(subprocess, MODUS_FOREVER, &code), 0);
    assert_int_equal(code, 0);
    assert_int_equal(poll(&end, 1, 0), 1);
    assert_int_equal(modus_subprocess_kill(subprocess), 0); /* nobody is hit */
    modus_subprocess_free(subprocess);

    for (int i = 0; i < 3; i++) {
        subprocess = begun(SH("exec sleep 25"), i == 2 ? &pipes : NULL);
        CHECK_INT(
            i == 0 ? modus_subprocess_terminate(subprocess) : modus_subprocess_kill(subprocess), 0);
        assert_int_equal(modus_subprocess_wait(subprocess, MODUS_FOREVER, &code), 0);
        assert_int_equal(code, i == 0 ? -SIGTERM : -SIGKILL);
        modus_subprocess_free(subprocess);
    }
}

/* Freed while they run, they end by themselves (their input has), and are reaped. */
static void test_free_running(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        modus_subprocess_free(begun(SH("cat; sleep 0.05"), &pipes));
}

static void *run_some(void *argument)
{
    for (int i = 0; i < 10; i++) {
        struct modus_ran ran;

        CHECK_INT(
            modus_subprocess_run(SH("cat"), NULL, argument, strlen(argument), MODUS_FOREVER, &ran),
            0);
        CHECK_INT(strcmp(ran.output.data, argument), 0);
        modus_ran_free(&ran);
        CHECK_INT(code_of(started(NULL, give_back, &i)), i);
    }
    return NULL;
}

static void test_threads(void **state)
{
    char words[4][8] = {"one", "two", "three", "four"};
    pthread_t running[4];
    (void)state;

    for (int i = 0; i < 4; i++)
        running[i] = start_thread(run_some, words[i]);
    for (int i = 0; i < 4; i++)
        join_thread(running[i]);
}

static int run_in_coroutine(void *argument)
{
    struct modus_ran ran;
    int rc = modus_subprocess_run(SH("sleep 0.05; cat"), NULL, argument, BIG, MODUS_FOREVER, &ran);

    CHECK_INT(rc, 0);
    CHECK(ran.output.size == BIG && memcmp(ran.output.data, argument, BIG) == 0);
    modus_ran_free(&ran);
    return 0;
}

/* While they wait for their programs, the others go on. */
static int coroutines(void *argument)
{
    struct modus_co *cos[2];
    unsigned turns = 0;

    for (int i = 0; i < 2; i++)
        CHECK_INT(modus_co_start(&cos[i], NULL, run_in_coroutine, argument), 0);
    while (modus_co_join(cos[0], 0, NULL) == -EAGAIN || modus_co_join(cos[1], 0, NULL) == -EAGAIN) {
        turns++;
        modus_co_sleep(modus_ms(1));
    }
    for (int i = 0; i < 2; i++)
        modus_co_put(cos[i]);
    CHECK(turns > 2);
    struct modus_subprocess *subprocess = begun(SH("exec sleep 25"), &pipes);
    CHECK_INT(modus_subprocess_communicate(subprocess, NULL, 0, NULL, NULL, modus_ms(5)),
              -ETIMEDOUT);
    CHECK_INT(modus_subprocess_wait(subprocess, modus_ms(5), NULL), -ETIMEDOUT);
    CHECK_INT(modus_subprocess_kill(subprocess), 0);
    CHECK_INT(modus_subprocess_wait(subprocess, MODUS_FOREVER, NULL), 0);
    modus_subprocess_free(subprocess);
    struct modus_ran ran;
    modus_co_cancel(modus_co_self()); /* killed, and no less reaped */
    CHECK_INT(modus_subprocess_run(SH("exec sleep 25"), NULL, NULL, 0, MODUS_FOREVER, &ran),
              MODUS_CANCELED);
    CHECK_INT(ran.code, -SIGKILL);
    CHECK_INT(children_here(), 0);
    modus_ran_free(&ran);
    return 5;
}

static void test_coroutines(void **state)
{
    char *text = big_text();
    (void)state;

    assert_int_equal(modus_co_run(coroutines, text), 5);
    free(text);
}

static int start_with_few(void *argument)
{
    const struct rlimit limit = {32, 32};
    (void)argument;

    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    unsigned before = fds_here();
    int failed = 0, held[32];
    for (int keep = 0; keep < 12; keep++) {
        struct modus_ran ran;
        int n = 0;

        while ((held[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
            n++;
        for (int i = 0; i < keep; i++)
            close(held[--n]);
        int rc = modus_subprocess_run(SH("echo x"), NULL, NULL, 0, MODUS_FOREVER, &ran);
        CHECK(rc == -EMFILE || (rc == 0 && ran.code == 0));
        failed += rc < 0;
        modus_ran_free(&ran);
        while (n > 0)
            close(held[--n]);
        CHECK_INT(fds_here(), before);
    }
    CHECK_INT(children_here(), 0);
    return failed;
}

static void test_no_descriptors(void **state)
{
    (void)state;
    assert_in_range(reap(start_child(start_with_few, NULL)), 6, 9);
}

/* --- pipelines ------------------------------------------------------------------------------- */

#define COMMAND(...)                                                                               \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static void test_pipeline(void **state)
{
    const char *const *const three[] = {COMMAND("tr", "a-z", "A-Z"), COMMAND("sort"),
                                        COMMAND("head", "-n", "2")};
    const char *const *const ends[] = {SH("echo 1 >&2; exit 3"), SH("echo 2 >&2; kill -9 $$"),
                                       SH("echo 3 >&2; exit 0")};
    const char *const *const endless[] = {COMMAND("yes"), COMMAND("head", "-n", "1")};
    const char *const *const broken[] = {COMMAND("yes"), COMMAND("/no/such/program"),
                                         COMMAND("cat")};
    const char *const *const slow[] = {COMMAND("cat"), COMMAND("sleep", "25"), COMMAND("cat")};
    struct modus_subprocess_attr attr = {PIPES};
    struct modus_ran ran;
    int codes[3];
    (void)state;

    assert_int_equal(
        modus_pipeline_run(three, 3, NULL, "pear\nfig\napple\n", 15, MODUS_FOREVER, &ran, codes),
        0);
    assert_string_equal(ran.output.data, "APPLE\nFIG\n");
    assert_int_equal(codes[0] | codes[1] | codes[2], 0);
    modus_ran_free(&ran);
    assert_int_equal(modus_pipeline_run(ends, 3, NULL, NULL, 0, MODUS_FOREVER, &ran, codes), 0);
    assert_int_equal(codes[0], 3);
    assert_int_equal(codes[1], -SIGKILL);
    assert_int_equal(codes[2], 0);
    assert_int_equal(ran.code, 0);
    assert_int_equal(ran.errors.size, 6); /* of all, in some order */
    assert_non_null(strstr(ran.errors.data, "1\n"));
    assert_non_null(strstr(ran.errors.data, "2\n"));
    assert_non_null(strstr(ran.errors.data, "3\n"));
    modus_ran_free(&ran);
    /* the first ends of the SIGPIPE that is ignored by nobody */
    assert_int_equal(modus_pipeline_run(endless, 2, NULL, NULL, 0, MODUS_FOREVER, &ran, codes), 0);
    assert_string_equal(ran.output.data, "y\n");
    assert_int_equal(codes[0], -SIGPIPE);
    assert_int_equal(codes[1], 0);
    modus_ran_free(&ran);
    assert_int_equal(modus_pipeline_run(broken, 3, NULL, NULL, 0, MODUS_FOREVER, &ran, codes),
                     -ENOENT);
    assert_true(codes[0] == -SIGKILL || codes[0] == -SIGPIPE);
    assert_int_equal(codes[1], MODUS_EXIT_UNKNOWN);
    assert_int_equal(codes[2], MODUS_EXIT_UNKNOWN);
    assert_int_equal(ran.code, MODUS_EXIT_UNKNOWN);
    modus_ran_free(&ran);
    assert_int_equal(modus_pipeline_run(slow, 3, NULL, "x", 1, modus_ms(100), &ran, codes),
                     -ETIMEDOUT);
    assert_int_equal(codes[1], -SIGKILL);
    modus_ran_free(&ran);
    assert_int_equal(modus_pipeline_run(three, 0, NULL, NULL, 0, 0, &ran, codes), -EINVAL);
    attr.errors.kind = MODUS_STDIO_OUTPUT;
    assert_int_equal(modus_pipeline_run(ends, 3, &attr, NULL, 0, MODUS_FOREVER, &ran, codes), 0);
    assert_string_equal(ran.output.data, "3\n");
    modus_ran_free(&ran);
}

/* 16 MiB through four programs. */
static void test_long_pipeline(void **state)
{
    const char *const *const four[] = {COMMAND("cat"), COMMAND("cat"),
                                       COMMAND("tee", "/dev/stderr"), COMMAND("cat")};
    char *text = big_text();
    struct modus_ran ran;
    int codes[4];
    (void)state;

    assert_int_equal(modus_pipeline_run(four, 4, NULL, text, BIG, MODUS_FOREVER, &ran, codes), 0);
    assert_int_equal(ran.output.size, BIG);
    assert_memory_equal(ran.output.data, text, BIG);
    assert_int_equal(ran.errors.size, BIG);
    modus_ran_free(&ran);
    free(text);
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, nothing_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_run),
        TEST(test_streams),
        TEST(test_nothing_to_inherit),
        TEST(test_surroundings),
        TEST(test_start_errors),
        TEST(test_fork),
        TEST(test_both_ways),
        TEST(test_communicate_again),
        TEST(test_talkative),
        TEST(test_sigpipe),
        TEST(test_limit),
        TEST(test_run_timeout),
        TEST(test_group_outlives_leader),
        TEST(test_wait),
        TEST(test_free_running),
        TEST(test_threads),
        TEST(test_no_descriptors),
        TEST(test_pipeline),
        TEST(test_long_pipeline),
        TEST(test_coroutines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
