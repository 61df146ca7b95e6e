/* SPDX-License-Identifier: MIT */
/* The process's handle: each error, joins of every kind, ends of every kind, signals, stdio, and
 * that nothing is left. */
#include "test_concurrency_process.h"

#include "concurrency/coroutine.h"
#include "concurrency/thread.h"

#include <poll.h>
#include <sys/resource.h>

/* --- errors and joins ------------------------------------------------------------------------ */

static void test_errors(void **state)
{
    struct modus_process *process = NULL;
    int code = 77, seven = 7;
    (void)state;

    assert_int_equal(modus_process_new(&process, NULL, NULL, NULL), -EINVAL);
    assert_null(process);
    process = make(NULL, pass_gate, &seven);
    assert_int_equal(modus_process_join(process, 0, &code), -ESRCH);
    assert_int_equal(modus_process_join(process, MODUS_FOREVER, &code), -ESRCH);
    assert_int_equal(modus_process_join(process, -2, &code), -EINVAL);
    assert_int_equal(modus_process_join_until(process, -2, &code), -EINVAL);
    assert_int_equal(modus_process_terminate(process), -ESRCH);
    assert_int_equal(modus_process_kill(process), -ESRCH);
    assert_int_equal(modus_process_fd(process), -ESRCH);
    assert_int_equal(modus_process_pid(process), 0);
    assert_false(modus_process_alive(process));
    assert_int_equal(modus_process_set_daemon(process, true), 0);
    assert_true(modus_process_is_daemon(process));
    assert_int_equal(modus_process_start(process), 0);
    assert_int_equal(modus_process_start(process), -EALREADY);
    assert_int_equal(modus_process_set_daemon(process, false), -EBUSY);
    assert_true(modus_process_alive(process));
    assert_true(modus_process_pid(process) > 0);
    assert_int_equal(modus_process_join(process, 0, &code), -EAGAIN);
    int64_t start = modus_now_ns();
    assert_int_equal(modus_process_join(process, modus_ms(10), &code), -ETIMEDOUT);
    assert_true(modus_now_ns() - start >= modus_ms(10));
    assert_int_equal(modus_process_join_until(process, start, &code), -ETIMEDOUT);
    assert_int_equal(modus_process_signal(process, 12345), -EINVAL);
    assert_int_equal(modus_process_signal(process, 0), 0);
    assert_int_equal(code, 77);
    modus_event_set(&board->gate);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(modus_process_join(process, MODUS_FOREVER, &code), 0);
        assert_int_equal(code, 7);
    }
    assert_int_equal(modus_process_join(process, 0, NULL), 0);
    assert_int_equal(modus_process_start(process), -EALREADY);
    assert_int_equal(modus_process_terminate(process), 0); /* nobody is hit */
    assert_int_equal(modus_process_kill(process), 0);
    assert_false(modus_process_alive(process));
    modus_process_put(modus_process_get(process));
    modus_process_put(process);
    modus_process_put(NULL);
}

/* In a forked child: its own handle is that of the parent, and knows it. */
static int look_around(void *argument)
{
    struct modus_process **handles = argument; /* itself, a sibling, a new one, the parent */
    int code;

    CHECK(modus_process_self() == handles[0]);
    CHECK(modus_process_alive(handles[0]));
    CHECK_INT(modus_process_pid(handles[0]), getpid());
    CHECK_INT(strcmp(modus_process_name(handles[0]), "looker"), 0);
    CHECK_INT(modus_process_start(handles[0]), -EALREADY);
    CHECK_INT(modus_process_join(handles[0], 0, &code), -EDEADLK);
    CHECK_INT(modus_process_join(handles[0], MODUS_FOREVER, &code), -EDEADLK);
    for (int i = 1; i < 4; i++) {
        CHECK_INT(modus_process_join(handles[i], 0, &code), -ECHILD);
        CHECK_INT(modus_process_join(handles[i], MODUS_FOREVER, &code), -ECHILD);
        CHECK_INT(modus_process_kill(handles[i]), -ECHILD);
        CHECK_INT(modus_process_fd(handles[i]), -ECHILD);
        CHECK(!modus_process_alive(handles[i]));
    }
    CHECK_INT(modus_process_start(handles[2]), -ECHILD);
    modus_process_put(handles[1]); /* its own copies of them */
    modus_process_put(handles[2]);
    CHECK_INT(strcmp(modus_thread_name(modus_thread_self()), "MainThread"), 0);
    CHECK_INT(modus_thread_tid(modus_thread_self()), getpid());
    CHECK_INT(modus_participant_self(arena), -ECHILD);
    int id = modus_participant_join(arena);
    CHECK(id > 0 && id != atomic_load(&board->counts[0]));
    CHECK_INT(code_of(started(NULL, give_back, &id)), id); /* a child of its own */
    return 3;
}

static void test_self(void **state)
{
    struct modus_process *handles[4] = {0};
    (void)state;

    handles[3] = modus_process_self();
    assert_string_equal(modus_process_name(handles[3]), "MainProcess");
    assert_true(modus_process_alive(handles[3]));
    assert_int_equal(modus_process_pid(handles[3]), getpid());
    assert_int_equal(modus_process_join(handles[3], 0, NULL), -EDEADLK);
    assert_int_equal(modus_process_start(handles[3]), -EALREADY);
    assert_int_equal(modus_process_set_daemon(handles[3], true), -EBUSY);
    modus_process_put(modus_process_get(handles[3]));
    atomic_store(&board->counts[0], modus_participant_join(arena));
    handles[0] = make(&(struct modus_process_attr){.name = "looker"}, look_around, handles);
    handles[1] = started(NULL, pass_gate, NULL);
    handles[2] = make(NULL, pass_gate, NULL);
    unsigned one, two;
    assert_int_equal(sscanf(modus_process_name(handles[1]), "Process-%u", &one), 1);
    assert_int_equal(sscanf(modus_process_name(handles[2]), "Process-%u", &two), 1);
    assert_int_equal(two, one + 1);
    assert_int_equal(modus_process_start(handles[0]), 0);
    assert_int_equal(code_of(handles[0]), 3);
    modus_event_set(&board->gate);
    assert_int_equal(code_of(handles[1]), 0);
    modus_process_put(handles[2]);
    modus_participant_leave(arena);
}

static int name_foreign(void *argument)
{
    (void)argument;
    CHECK_INT(strcmp(modus_process_name(modus_process_self()), "Foreign"), 0);
    CHECK_INT(modus_process_join(modus_process_self(), 0, NULL), -EDEADLK);
#ifdef __SANITIZE_THREAD__ /* dies when the reaper finds the stack of a thread of the parent's */
    return 9;
#else
    return code_of(started(NULL, give_back, &(int){9}));
#endif
}

/* A child that the application forks by itself. */
static void test_foreign(void **state)
{
    struct modus_process *process = started(NULL, pass_gate, NULL);
    (void)state;

    assert_int_equal(reap(start_child(name_foreign, NULL)), 9);
    modus_event_set(&board->gate);
    assert_int_equal(code_of(process), 0);
}

static int count_descriptors(void *argument)
{
    return (int)fds_here() - *(int *)argument;
}

/* A child has the descriptors of its parent, and its end of the life line. */
static void test_descriptors(void **state)
{
    int before = (int)fds_here();
    (void)state;

    assert_int_equal(code_of(started(NULL, count_descriptors, &before)), 0);
    assert_int_equal(code_of(started(&(struct modus_process_attr){.orphan = MODUS_ORPHAN_KILLED},
                                     count_descriptors, &before)),
                     1);
}

struct joiner {
    struct modus_process *process;
    int code;
};

static void *join_it(void *argument)
{
    struct joiner *j = argument;

    CHECK_INT(modus_process_join(j->process, modus_ms(1), &j->code), -ETIMEDOUT);
    atomic_fetch_add(&board->counts[0], 1);
    CHECK_INT(modus_process_join(j->process, MODUS_FOREVER, &j->code), 0);
    return NULL;
}

static void test_many_joiners(void **state)
{
    int seven = 7;
    struct modus_process *process = started(NULL, pass_gate, &seven);
    struct joiner joiners[8];
    pthread_t joining[8];
    (void)state;

    struct pollfd end = {.fd = modus_process_fd(process), .events = POLLIN};
    assert_int_equal(poll(&end, 1, 0), 0);
    for (int i = 0; i < 8; i++) {
        joiners[i] = (struct joiner){process, 0};
        joining[i] = start_thread(join_it, &joiners[i]);
    }
    AWAIT(atomic_load(&board->counts[0]) == 8);
    modus_event_set(&board->gate);
    for (int i = 0; i < 8; i++) {
        join_thread(joining[i]);
        assert_int_equal(joiners[i].code, 7);
    }
    assert_int_equal(poll(&end, 1, 0), 1); /* and stays so */
    assert_int_equal(code_of(process), 7);
}

/* --- coroutines ------------------------------------------------------------------------------ */

static int join_in_coroutine(void *argument)
{
    struct joiner *j = argument;

    return modus_process_join(j->process, MODUS_FOREVER, &j->code);
}

static int coroutines(void *argument)
{
    int seven = 7, rc = 0;
    struct modus_process *process = started(NULL, pass_gate, &seven);
    struct joiner joiners[3] = {{process, 0}, {process, 0}, {process, 0}};
    struct modus_co *cos[3];
    (void)argument;

    for (int i = 0; i < 3; i++)
        CHECK_INT(modus_co_start(&cos[i], NULL, join_in_coroutine, &joiners[i]), 0);
    CHECK_INT(modus_process_join(process, modus_ms(5), NULL), -ETIMEDOUT); /* the three wait */
    CHECK_INT(modus_process_join(process, 0, NULL), -EAGAIN);
    modus_co_cancel(cos[2]);
    CHECK_INT(modus_co_join(cos[2], MODUS_FOREVER, &rc), 0);
    CHECK_INT(rc, MODUS_CANCELED);
    modus_event_set(&board->gate);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(modus_co_join(cos[i], MODUS_FOREVER, &rc), 0);
        CHECK_INT(rc, 0);
        CHECK_INT(joiners[i].code, 7);
    }
    for (int i = 0; i < 3; i++)
        modus_co_put(cos[i]);
    return code_of(process);
}

static void test_coroutines(void **state)
{
    (void)state;
    modus_co_run(give_back, &(int){0}); /* libuv keeps some of its first loop */
    unsigned before = fds_here();
    assert_int_equal(modus_co_run(coroutines, NULL), 7);
    assert_int_equal(fds_here(), before);
}

/* --- ends ------------------------------------------------------------------------------------ */

static int end_somehow(void *argument)
{
    switch (*(int *)argument) {
    case 0:
        return 0;
    case 1:
        return 300; /* modulo 256 */
    case 2:
        __builtin_trap();
    case 3:
        abort();
    case 4:
        exit(5);
    default:
        kill(getpid(), SIGKILL);
        return 0;
    }
}

static void test_ends(void **state)
{
    const int codes[] = {0, 300 - 256, -SIGILL, -SIGABRT, 5, -SIGKILL};
    (void)state;

    for (int i = 0; i < 6; i++) {
        if (i == 4 && SLOW) /* the sanitizer looks for leaks in the parent's memory */
            continue;
        int code = code_of(started(NULL, end_somehow, &i));
#if defined(__aarch64__)
        if (i == 2)
            continue; /* SIGTRAP there */
#endif
        assert_int_equal(code, codes[i]);
    }
}

static void on_signal(int signal)
{
    (void)signal;
    if (board)
        atomic_fetch_add(&board->counts[3], 1);
}

/* The parent handles or blocks it; the child is ended by it all the same. */
static void test_terminate(void **state)
{
    struct sigaction handle = {.sa_handler = on_signal}, old, old_user;
    sigset_t term, before;
    (void)state;

    sigaction(SIGTERM, &handle, &old);
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = SIG_IGN}, &old_user);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, &before);
    for (int i = 0; i < 3; i++) {
        struct modus_process *process = started(NULL, pass_gate, NULL);

        CHECK_INT(modus_process_signal(process, SIGUSR1), 0); /* ignored there, too */
        CHECK_INT(i == 0   ? modus_process_terminate(process)
                  : i == 1 ? modus_process_kill(process)
                           : modus_process_signal(process, SIGUSR2),
                  0);
        assert_int_equal(code_of(process), i == 0 ? -SIGTERM : i == 1 ? -SIGKILL : -SIGUSR2);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    /* with keep_signals the handler runs in the child */
    struct modus_process *process =
        started(&(struct modus_process_attr){.keep_signals = true}, pass_gate, NULL);
    CHECK_INT(modus_process_terminate(process), 0);
    AWAIT(atomic_load(&board->counts[3]) == 1);
    modus_event_set(&board->gate);
    assert_int_equal(code_of(process), 0);
    sigaction(SIGTERM, &old, NULL);
    sigaction(SIGUSR1, &old_user, NULL);
}

/* Others take the status: the code is unknown, and nobody hangs. */
static void test_stolen_status(void **state)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    struct modus_process *process = started(NULL, pass_gate, NULL);
    (void)state;

    modus_event_set(&board->gate);
    assert_int_equal(waitpid(-1, NULL, 0), modus_process_pid(process));
    assert_int_equal(code_of(process), MODUS_EXIT_UNKNOWN);
    modus_event_clear(&board->gate);
    sigaction(SIGCHLD, &ignore, &old);
    process = started(NULL, pass_gate, NULL);
    modus_event_set(&board->gate);
    assert_int_equal(code_of(process), MODUS_EXIT_UNKNOWN);
    sigaction(SIGCHLD, &old, NULL);
}

/* The kernel forgets children that nobody is told of, before the start has looked. */
static void dawdle(void)
{
    usleep(5000);
}

static int zero(void *argument)
{
    (void)argument;
    return 0;
}

static int start_what_ends_at_once(void *argument)
{
    struct pollfd end = {.events = POLLIN};
    struct modus_process *process;
    int code = 0;
    (void)argument;

    unsigned alone = threads_at_rest();
    signal(SIGCHLD, SIG_IGN);
    CHECK_INT(pthread_atfork(NULL, dawdle, NULL), 0);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(modus_process_new(&process, &(struct modus_process_attr){.reap_at_once = i == 1},
                                    zero, NULL),
                  0);
        CHECK_INT(modus_process_start(process), 0);
        if (i == 2) {
            CHECK_INT(modus_process_kill(process), 0);
            end.fd = modus_process_fd(process);
            CHECK_INT(poll(&end, 1, -1), 1);
            CHECK(!modus_process_alive(process));
        }
        if (i < 3)
            CHECK_INT(modus_process_join(process, MODUS_FOREVER, &code), 0);
        CHECK_INT(code, MODUS_EXIT_UNKNOWN);
        modus_process_put(process);
    }
    modus_process_join_all();
    AWAIT(threads_here() == alone);
    return 0;
}

static void test_gone_before_it_is_seen(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(start_what_ends_at_once, NULL)), 0);
}

/* A child of somebody else is left to him. */
static void test_others_children(void **state)
{
    pid_t other = start_child(give_back, &(int){4});
    (void)state;

    AWAIT(state_of(other) == 'Z');
    for (int i = 0; i < 30; i++)
        modus_process_put(started(NULL, give_back, &(int){1}));
    modus_process_join_all();
    assert_int_equal(reap(other), 4);
}

/* --- nothing is left ------------------------------------------------------------------------- */

/* Joined, put at once, put later, and held without ever being asked after. */
static void test_nothing_is_left(void **state)
{
    unsigned fds = fds_here(), most = 0;
    struct modus_process *held[500];
    int n = SLOW ? 200 : 2000, holds = 0;
    (void)state;

    for (int i = 0; i < n; i++) {
        struct modus_process *process = started(NULL, give_back, &i);

        if (i % 4 == 0)
            CHECK_INT(modus_process_join(process, MODUS_FOREVER, NULL), 0);
        if (i % 4 == 1)
            AWAIT(!modus_process_alive(process));
        if (i % 4 == 3)
            held[holds++] = process;
        else
            modus_process_put(process);
        unsigned now = children_here();
        most = now > most ? now : most;
    }
    assert_true(most < 100); /* of those held, 8 zombies, and some that had not ended yet */
    for (int i = 0; i < holds; i++)
        modus_process_put(held[i]);
    AWAIT(children_here() == 0);
    AWAIT(threads_here() == threads && fds_here() == fds);
}

/* All put, nothing more called: the reaper does it alone. */
static void test_reaper(void **state)
{
    unsigned fds = fds_here();
    (void)state;

    for (int i = 0; i < 20; i++)
        modus_process_put(started(NULL, pass_gate, NULL));
    assert_int_equal(children_here(), 20);
    assert_int_equal(threads_here(), threads + 1);
    modus_event_set(&board->gate);
    AWAIT(children_here() == 0 && threads_here() == threads && fds_here() == fds);
    modus_process_put(started(NULL, give_back, &(int){0})); /* and again */
    AWAIT(children_here() == 0 && threads_here() == threads && fds_here() == fds);
}

/* Held, and never asked after. */
static void test_reap_at_once(void **state)
{
    const struct modus_process_attr attr = {.reap_at_once = true};
    struct modus_process *held[20];
    unsigned fds = fds_here();
    (void)state;

    for (int i = 0; i < 20; i++)
        held[i] = i % 2 ? started(&attr, pass_gate, NULL) : started(&attr, give_back, &i);
    AWAIT(children_here() == 10);
    modus_process_put(held[0]);
    modus_process_put(held[1]); /* the one has been reaped, the other runs */
    modus_event_set(&board->gate);
    AWAIT(children_here() == 0 && threads_here() == threads);
    for (int i = 2; i < 20; i++)
        assert_int_equal(code_of(held[i]), i % 2 ? 0 : i);
    assert_int_equal(fds_here(), fds);
}

static int count_fds(void *argument)
{
    (void)argument;
    return (int)fds_here();
}

static void test_child_has_no_descriptors_of_ours(void **state)
{
    unsigned before = fds_here();
    struct modus_process *held[4];
    (void)state;

    for (int i = 0; i < 4; i++)
        held[i] =
            started(&(struct modus_process_attr){.orphan = MODUS_ORPHAN_KILLED}, pass_gate, NULL);
    modus_process_put(modus_process_get(held[0]));
    modus_process_put(started(NULL, pass_gate, NULL)); /* the reaper's */
    assert_int_equal(reap(start_child(count_fds, NULL)), before);
    /* an eventfd was set aside for the start, and is in the child */
    assert_in_range(code_of(started(NULL, count_fds, NULL)), before, before + 1);
    modus_event_set(&board->gate);
    for (int i = 0; i < 4; i++)
        assert_int_equal(code_of(held[i]), 0);
    AWAIT(fds_here() == before);
}

static int start_without_descriptors(void *argument)
{
    int fds[64], n = 0;
    (void)argument;
    struct modus_process *process =
        make(&(struct modus_process_attr){.orphan = MODUS_ORPHAN_KILLED}, give_back, &(int){6});

    while (n < 3)
        fds[n++] = open("/dev/null", O_RDONLY);
    for (int keep = 3; keep >= 0; keep--) { /* so many are left */
        int last[1024], filled = 0;

        for (int i = 0; i < 1024 && (last[filled] = open("/dev/null", O_RDONLY)) >= 0; i++)
            filled++;
        for (int i = 0; i < keep; i++)
            close(last[--filled]);
        int rc = modus_process_start(process);
        for (int i = 0; i < filled; i++)
            close(last[i]);
        if (keep == 3) {
            CHECK_INT(rc, 0);
            CHECK_INT(code_of(process), 6);
            process = make(&(struct modus_process_attr){.orphan = MODUS_ORPHAN_KILLED}, give_back,
                           &(int){6});
        } else {
            CHECK_INT(rc, -EMFILE);
            CHECK_INT(modus_process_join(process, 0, NULL), -ESRCH); /* as new as it was */
        }
    }
    CHECK_INT(modus_process_start(process), 0);
    CHECK_INT(code_of(process), 6);
    while (n > 0)
        close(fds[--n]);
    return (int)children_here();
}

static int few_descriptors(void *argument)
{
    struct rlimit limit = {64, 64};

    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    return start_without_descriptors(argument);
}

static void test_no_descriptors(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(few_descriptors, NULL)), 0);
}

static int start_too_many(void *argument)
{
    const struct rlimit none = {0, 0};
    struct modus_process *process = make(NULL, give_back, argument);

    CHECK_INT(setrlimit(RLIMIT_NPROC, &none), 0);
    if (getuid() == 0)
        CHECK_INT(setresuid(65534, 65534, 65534), 0); /* root has no such limit */
    CHECK_INT(modus_process_start(process), -EAGAIN);
    CHECK_INT(modus_process_join(process, 0, NULL), -ESRCH);
    CHECK_INT(modus_process_start(process), -EAGAIN);
    modus_process_put(process);
    return 0;
}

static void test_no_room(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(start_too_many, NULL)), 0);
}

/* --- stdio ----------------------------------------------------------------------------------- */

static int say_child(void *argument)
{
    printf("Run child %s\n", (char *)argument);
    fprintf(stderr, "!");
    return 0;
}

static int say_four_lines(void *argument)
{
    int *pipe_fds = argument;
    char words[] = "test";
    static char buffer[4096];

    dup2(pipe_fds[1], STDOUT_FILENO);
    dup2(pipe_fds[1], STDERR_FILENO);
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    printf("Parent\nwill start\n");
    struct modus_process *process = started(NULL, say_child, words);
    CHECK_INT(code_of(process), 0);
    printf("end\n");
    exit(0);
}

static void test_stdio(void **state)
{
    int fds[2];
    char text[256] = {0};
    size_t size = 0;
    ssize_t n;
    (void)state;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = start_child(say_four_lines, fds);
    close(fds[1]);
    while ((n = read(fds[0], text + size, sizeof text - 1 - size)) > 0)
        size += (size_t)n;
    close(fds[0]);
    assert_int_equal(reap(pid), 0);
    assert_string_equal(text, "Parent\nwill start\n!Run child test\nend\n");
}

/* A thread sits in a read of a stream and holds it: the start does not wait for it. */
static void *read_stream(void *argument)
{
    CHECK_INT(fgetc(argument), 'x');
    return NULL;
}

static void test_stdio_of_threads(void **state)
{
    int fds[2];
    (void)state;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    FILE *file = fdopen(fds[0], "r");
    pthread_t thread = start_thread(read_stream, file);
    AWAIT(ftrylockfile(file) != 0 || (funlockfile(file), false));
    assert_int_equal(code_of(started(NULL, give_back, &(int){2})), 2);
    assert_int_equal(write(fds[1], "x", 1), 1);
    join_thread(thread);
    fclose(file);
    close(fds[1]);
}

/* --- threads --------------------------------------------------------------------------------- */

static void *start_many(void *argument)
{
    (void)argument;
    for (int i = 0; i < 20; i++) {
        struct modus_process *process =
            started(&(struct modus_process_attr){.orphan = MODUS_ORPHAN_KILLED}, give_back, &i);
        int code;

        CHECK_INT(modus_process_join(process, MODUS_FOREVER, &code), 0);
        CHECK_INT(code, i);
        modus_process_put(process);
    }
    return NULL;
}

static void test_threads_start(void **state)
{
    pthread_t starting[4];
    (void)state;

    for (int i = 0; i < 4; i++)
        starting[i] = start_thread(start_many, NULL);
    for (int i = 0; i < 10; i++) /* a plain fork meanwhile finds everything whole */
        assert_int_equal(reap(start_child(name_foreign, NULL)), 9);
    for (int i = 0; i < 4; i++)
        join_thread(starting[i]);
    assert_int_equal(children_here(), 0);
}

static void *count_late(void *argument)
{
    usleep(5000); /* its process returns meanwhile */
    atomic_fetch_add(&board->counts[0], 1);
    return argument;
}

static int leave_a_thread_and_a_child(void *argument)
{
    struct modus_thread *thread;
    (void)argument;

    CHECK_INT(modus_thread_new(&thread, NULL, count_late, NULL), 0);
    CHECK_INT(modus_thread_start(thread), 0);
    modus_thread_put(thread);
    modus_process_put(started(NULL, pass_gate, NULL));
    atomic_store(&board->counts[1], 1);
    return 0;
}

/* The end of a child is that of a program: it waits for its own. */
static void test_child_awaits_its_own(void **state)
{
    struct modus_process *process = started(NULL, leave_a_thread_and_a_child, NULL);
    (void)state;

    AWAIT(atomic_load(&board->counts[0]) == 1 && atomic_load(&board->counts[1]) == 1);
    assert_int_equal(modus_process_join(process, 0, NULL), -EAGAIN);
    modus_event_set(&board->gate);
    assert_int_equal(code_of(process), 0);
}

static int wait_in_child(void *argument)
{
    struct modus_event event = MODUS_EVENT_INIT;

    CHECK(!modus_co_self());
    CHECK_INT(modus_event_wait(&event, modus_ms(1)), -ETIMEDOUT);
    CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    modus_event_set(&event);
    return *(int *)argument;
}

static int start_from_coroutine(void *argument)
{
    return code_of(started(NULL, wait_in_child, argument));
}

static void test_start_in_coroutine(void **state)
{
    int eleven = 11;
    (void)state;

    assert_int_equal(modus_co_run(start_from_coroutine, &eleven), 11);
}

/* --- arenas ---------------------------------------------------------------------------------- */

static int join_and_die(void *argument)
{
    struct modus_arena *other = argument;

    CHECK(modus_participant_join(other) > 0);
    atomic_store(&board->counts[0], modus_participant_join(arena));
    kill(getpid(), SIGKILL);
    return 0;
}

/* Whoever reaps buries, in every arena: the join, and the reaper. */
static void test_burial(void **state)
{
    struct modus_arena *other;
    struct modus_participant slot;
    (void)state;

    assert_int_equal(modus_arena_open(&other, 1 << 16, 4), 0);
    for (int i = 0; i < 2; i++) {
        atomic_store(&board->counts[0], 0);
        struct modus_process *process = started(NULL, join_and_die, other);

        if (i == 0)
            assert_int_equal(code_of(process), -SIGKILL);
        else
            modus_process_put(process);
        AWAIT(atomic_load(&board->counts[0]) > 0);
        AWAIT(modus_participant_look(arena, atomic_load(&board->counts[0]), &slot) == -EAGAIN);
        AWAIT(modus_participant_look(other, 1, &slot) == -EAGAIN);
    }
    assert_int_equal(modus_arena_close(other), 0);
}

/* Arenas come and go while others reap. */
static void *reap_many(void *argument)
{
    _Atomic int *reaping = argument;

    for (int i = 0; i < 20; i++)
        CHECK_INT(code_of(started(NULL, give_back, &i)), i);
    atomic_store(reaping, 0);
    return NULL;
}

static void test_arenas_close_while_others_reap(void **state)
{
    _Atomic int reaping = 1;
    struct modus_arena *other;
    (void)state;

    pthread_t thread = start_thread(reap_many, &reaping);
    do {
        assert_int_equal(modus_arena_open(&other, 1 << 16, 4), 0);
        assert_int_equal(modus_arena_close(other), 0);
    } while (atomic_load(&reaping));
    join_thread(thread);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errors),
        TEST(test_self),
        TEST(test_foreign),
        TEST(test_descriptors),
        TEST(test_many_joiners),
        TEST(test_coroutines),
        TEST(test_ends),
        TEST(test_terminate),
        TEST(test_stolen_status),
        TEST(test_gone_before_it_is_seen),
        TEST(test_others_children),
        TEST(test_nothing_is_left),
        TEST(test_reaper),
        TEST(test_reap_at_once),
        TEST(test_child_has_no_descriptors_of_ours),
        TEST(test_no_descriptors),
        TEST(test_no_room),
        TEST(test_stdio),
        TEST(test_stdio_of_threads),
        TEST(test_threads_start),
        TEST(test_child_awaits_its_own),
        TEST(test_start_in_coroutine),
        TEST(test_burial),
        TEST(test_arenas_close_while_others_reap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
