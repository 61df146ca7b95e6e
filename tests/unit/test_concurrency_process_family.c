/* SPDX-License-Identifier: MIT */
/* Processes and their parents: parents that die, daemons, the end of a program, and children that
 * execute the program again. */
#include "test_concurrency_process.h"

#include "concurrency/thread.h"

#include <sys/stat.h>

/* --- parents that die ------------------------------------------------------------------------ */

struct family {
    enum modus_orphan orphan;
    enum modus_start start;
    bool daemon, by_thread, bare; /* without 0, 1 and 2 */
    atomic_int parent, children[2];
};

static int wait_for_ever(void *argument)
{
    (void)argument;
    alarm(WATCHDOG_SECONDS);
    while (pause() < 0)
        continue;
    return 0;
}
MODUS_PROCESS_FUNCTION(wait_for_ever)

static void *start_two(void *argument)
{
    struct family *f = argument;
    const struct modus_process_attr attr = {
        .orphan = f->orphan,
        .start = f->start,
        .daemon = f->daemon ? MODUS_DAEMON_YES : MODUS_DAEMON_NO,
    };

    for (int i = 0; i < 2; i++)
        atomic_store(&f->children[i], modus_process_pid(started(&attr, wait_for_ever, NULL)));
    return NULL;
}

static int be_parent(void *argument)
{
    struct family *f = argument;

    for (int fd = 0; f->bare && fd < 3; fd++)
        close(fd);
    if (f->by_thread)
        join_thread(start_thread(start_two, f)); /* whose end is not the parent's */
    else
        start_two(f);
    usleep(20000);
    for (int i = 0; i < 2; i++)
        CHECK_INT(waitpid(atomic_load(&f->children[i]), NULL, WNOHANG), 0);
    atomic_store(&f->parent, 1);
    return wait_for_ever(NULL);
}

/* The parent is killed; the test, as subreaper, gets the orphans. Returns how they ended. */
static int orphan_ends(struct family *f)
{
    int ends[2] = {0};

    atomic_store(&f->parent, 0);
    pid_t parent = start_child(be_parent, f);
    AWAIT(atomic_load(&f->parent));
    kill_child(parent);
    for (int i = 0; i < 2; i++) {
        pid_t child = atomic_load(&f->children[i]);

        if (f->orphan == MODUS_ORPHAN_LIVES || (f->orphan == MODUS_ORPHAN_USUAL && !f->daemon)) {
            usleep(5000);
            CHECK_INT(waitpid(child, NULL, WNOHANG), 0);
            kill(child, SIGUSR1);
        }
        ends[i] = reap(child);
    }
    CHECK_INT(ends[0], ends[1]);
    return ends[0];
}

static void test_orphans(void **state)
{
    struct family *f = modus_arena_alloc(arena, sizeof *f, 0);
    const struct {
        enum modus_orphan orphan;
        bool daemon;
        int end;
    } cases[] = {
        {MODUS_ORPHAN_USUAL, false, -SIGUSR1},  {MODUS_ORPHAN_USUAL, true, -SIGTERM},
        {MODUS_ORPHAN_LIVES, true, -SIGUSR1},   {MODUS_ORPHAN_TERMINATED, false, -SIGTERM},
        {MODUS_ORPHAN_KILLED, false, -SIGKILL},
    };
    (void)state;

    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (unsigned i = 0; i < 8 * 5; i++) {
        f->orphan = cases[i % 5].orphan;
        f->daemon = cases[i % 5].daemon;
        f->by_thread = i / 5 % 2;
        f->start = i / 10 % 2 ? MODUS_START_SPAWN : MODUS_START_FORK;
        f->bare = i / 20;
        assert_int_equal(orphan_ends(f), cases[i % 5].end);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    modus_arena_free(arena, f, sizeof *f);
}

/* Children that come while the parent is killed, from two threads, with a sibling that it forked by
 * itself between them and that lives on: all die, however far each of them had come. */
static void *start_on_and_on(void *argument)
{
    const struct modus_process_attr attr = {.orphan = MODUS_ORPHAN_KILLED};

    for (int i = 0; i < 30; i++) {
        modus_process_put(started(&attr, wait_for_ever, NULL));
        if (argument && i == 1) {
            pid_t sibling = fork();

            if (sibling == 0)
                _exit(pass_gate(NULL));
            atomic_store(&board->pids[0], sibling);
        }
        atomic_fetch_add(&board->counts[0], 1);
    }
    return wait_for_ever(NULL) ? argument : NULL;
}

static int be_busy_parent(void *argument)
{
    start_thread(start_on_and_on, NULL);
    start_on_and_on(argument);
    return 0;
}

static void test_killed_at_any_time(void **state)
{
    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (int i = 0; i < (SLOW ? 5 : 20); i++) {
        int status;

        atomic_store(&board->counts[0], 0);
        atomic_store(&board->pids[0], 0);
        pid_t parent = start_child(be_busy_parent, board);
        AWAIT(atomic_load(&board->pids[0]) && atomic_load(&board->counts[0]) > i);
        kill_child(parent);
        while (children_here() > 1 && waitpid(-1, &status, 0) > 0)
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        modus_event_set(&board->gate); /* now the sibling */
        assert_true(waitpid(-1, &status, 0) > 0);
        assert_int_equal(status, 0);
        assert_true(waitpid(-1, &status, 0) < 0);
        modus_event_clear(&board->gate);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* It has closed the life line with all its descriptors; the main thread had started it. */
static int close_everything(void *argument)
{
    for (int fd = 3; fd < 100; fd++)
        close(fd);
    atomic_store(&board->counts[0], getpid());
    return wait_for_ever(argument);
}

static int be_parent_of_closer(void *argument)
{
    const struct modus_process_attr attr = {.orphan = MODUS_ORPHAN_TERMINATED};

    modus_process_put(started(&attr, close_everything, argument));
    return wait_for_ever(argument);
}

static void test_without_descriptors(void **state)
{
    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t parent = start_child(be_parent_of_closer, NULL);
    AWAIT(atomic_load(&board->counts[0]));
    kill_child(parent);
    assert_int_equal(reap(atomic_load(&board->counts[0])), -SIGTERM);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* --- daemons --------------------------------------------------------------------------------- */

static int try_a_child(void *argument)
{
    struct modus_process *process = make(NULL, give_back, argument);

    CHECK(modus_process_is_daemon(modus_process_self()));
    CHECK(modus_process_is_daemon(process)); /* it inherits */
    CHECK_INT(modus_process_start(process), -EPERM);
    CHECK_INT(modus_process_set_daemon(process, false), 0);
    CHECK_INT(modus_process_start(process), -EPERM);
    modus_process_put(process);
    return 0;
}

static void test_daemon_has_no_children(void **state)
{
    const struct modus_process_attr attr = {.daemon = MODUS_DAEMON_YES};
    struct modus_process *process = make(NULL, give_back, NULL);
    (void)state;

    assert_false(modus_process_is_daemon(process));
    modus_process_put(process);
    assert_int_equal(code_of(started(&attr, try_a_child, NULL)), 0);
}

static int work_on(void *argument)
{
    (void)argument;
    AWAIT(atomic_load(&board->counts[2])); /* the daemon's end: the program's main has returned */
    usleep(2000);
    atomic_fetch_add(&board->counts[0], 1);
    return 0;
}

static void on_term(int signal)
{
    (void)signal;
    atomic_store(&board->counts[2], 1);
    _exit(0);
}

static int daemon_on(void *argument)
{
    (void)argument;
    signal(SIGTERM, on_term);
    atomic_store(&board->counts[1], 1);
    return wait_for_ever(NULL);
}

static int program(int argc, char **argv)
{
    const struct modus_process_attr attr = {.daemon = MODUS_DAEMON_YES};
    (void)argv;

    modus_process_put(started(&attr, daemon_on, NULL));
    modus_process_put(started(NULL, work_on, NULL));
    AWAIT(atomic_load(&board->counts[1]));
    if (argc == 8)
        exit(argc);
    return argc;
}

static int run_program(void *argument)
{
    char *argv[] = {argument, NULL};

    modus_main(program, 7, argv);
}

static int exit_program(void *argument)
{
    char *argv[] = {argument, NULL};

    modus_main(program, 8, argv);
}

/* main returns: the daemon is terminated, then the other one is awaited. exit does the first only. */
static void test_main(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(run_program, NULL)), 7);
    assert_int_equal(atomic_load(&board->counts[0]), 1);
    assert_int_equal(atomic_load(&board->counts[2]), 1);
    memset(board->counts, 0, sizeof board->counts);
    assert_int_equal(reap(start_child(exit_program, NULL)), 8);
    assert_int_equal(atomic_load(&board->counts[2]), 1);
    AWAIT(atomic_load(&board->counts[0]) == 1);
}

static int be_stubborn(void *argument)
{
    (void)argument;
    signal(SIGTERM, SIG_IGN);
    atomic_store(&board->counts[1], 1);
    return wait_for_ever(NULL);
}

static int end_stubborn(void *argument)
{
    const struct modus_process_attr attr = {.daemon = MODUS_DAEMON_YES};
    struct modus_process *process = started(&attr, be_stubborn, argument);

    AWAIT(atomic_load(&board->counts[1]));
    modus_process_end_daemons();
    return code_of(process) == -SIGKILL ? 0 : 1;
}

static void test_stubborn_daemon(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(end_stubborn, NULL)), 0);
}

/* --- SPAWN ----------------------------------------------------------------------------------- */

struct letter {
    int number;
    char text[20];
};

static int read_letter(void *argument)
{
    struct letter *letter = argument;
    char byte = (char)letter->number;

    CHECK(modus_process_argument_size() == sizeof *letter);
    CHECK_INT(strcmp(letter->text, "dear child"), 0);
    CHECK_INT(strcmp(modus_process_name(modus_process_self()), "reader"), 0);
    CHECK_INT(strcmp(modus_thread_name(modus_thread_self()), "MainThread"), 0);
    CHECK_INT(modus_process_pid(modus_process_self()), getpid());
    CHECK(!modus_process_is_daemon(modus_process_self()));
    CHECK_INT(modus_process_join(modus_process_self(), 0, NULL), -EDEADLK);
    CHECK_INT(modus_process_passed(1), -EINVAL);
    CHECK_INT(write(modus_process_passed(0), &byte, 1), 1);
    return code_of(started(NULL, give_back, &letter->number));
}
MODUS_PROCESS_FUNCTION(read_letter)

/* The same program either way. */
static void test_both_starts(void **state)
{
    struct letter letter = {42, "dear child"};
    int fds[2];
    char byte;
    (void)state;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    for (int i = 0; i < 2; i++) {
        const struct modus_process_attr attr = {
            .name = "reader",
            .start = i ? MODUS_START_SPAWN : MODUS_START_FORK,
            .size = sizeof letter,
            .fds = &fds[1],
            .fds_count = 1,
        };

        assert_int_equal(code_of(started(&attr, read_letter, &letter)), 42);
        assert_int_equal(read(fds[0], &byte, 1), 1);
        assert_int_equal(byte, 42);
    }
    close(fds[0]);
    close(fds[1]);
}

static int count_everything(void *argument)
{
    sigset_t mask;

    CHECK(argument != NULL);
    CHECK(modus_process_argument_size() == 0);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    CHECK(sigismember(&mask, SIGTERM) == 0);
    struct sigaction now;
    sigaction(SIGPIPE, NULL, &now);
    CHECK(now.sa_handler == SIG_DFL);
    return (int)fds_here();
}
MODUS_PROCESS_FUNCTION(count_everything)

static void test_spawn_is_clean(void **state)
{
    const struct modus_process_attr attr = {.start = MODUS_START_SPAWN};
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    unsigned before = fds_here();
    int leak = open("/dev/null", O_RDONLY); /* not marked close-on-exec */
    (void)state;

    sigaction(SIGPIPE, &ignore, &old);
    assert_int_equal(code_of(started(&attr, count_everything, NULL)), 3);
    sigaction(SIGPIPE, &old, NULL);
    close(leak);
    assert_int_equal(fds_here(), before);
}

static void test_spawn_errors(void **state)
{
    const struct modus_process_attr attr = {.start = MODUS_START_SPAWN};
    struct modus_process *process = NULL;
    static int many[65];
    (void)state;

    assert_int_equal(modus_process_new(&process, &attr, give_back, NULL), -EINVAL);
    assert_int_equal(modus_process_new(&process,
                                       &(struct modus_process_attr){.fds = many, .fds_count = 65},
                                       give_back, NULL),
                     -EINVAL);
    assert_null(process);
    int closed = dup(0);
    close(closed);
    process = make(
        &(struct modus_process_attr){.start = MODUS_START_SPAWN, .fds = &closed, .fds_count = 1},
        wait_for_ever, NULL);
    assert_int_equal(modus_process_start(process), -EBADF);
    assert_int_equal(modus_process_join(process, 0, NULL), -ESRCH);
    modus_process_put(process);
    process = started(&attr, wait_for_ever, NULL);
    assert_int_equal(modus_process_join(process, 0, NULL), -EAGAIN);
    assert_int_equal(modus_process_kill(process), 0);
    assert_int_equal(code_of(process), -SIGKILL);
    /* the mark without a record changes nothing */
    char name[] = "test", mark[] = "--modus-process";
    char *argv[] = {name, mark, NULL};
    modus_process_child(2, argv);
}

/* A program whose main does not begin as it should spawns, again and again: but it gets no further
 * than its first child. */
#define ASTRAY "MODUS_TEST_ASTRAY"

static int go_astray(void)
{
    const struct modus_process_attr attr = {.start = MODUS_START_SPAWN};
    FILE *lives = fopen(getenv(ASTRAY), "a");

    CHECK(lives);
    fputs("*", lives);
    CHECK_INT(fclose(lives), 0);
    return code_of(started(&attr, count_everything, NULL));
}

static int execute_astray(void *argument)
{
    close(STDERR_FILENO);
    CHECK_INT(open("/dev/null", O_WRONLY), STDERR_FILENO);
    CHECK_INT(setenv(ASTRAY, argument, 1), 0);
    execl("/proc/self/exe", "test", (char *)NULL);
    return 99;
}

static void test_main_without_its_beginning(void **state)
{
    char path[] = "/tmp/modus-test-XXXXXX";
    struct stat file;
    int fd = mkstemp(path);
    (void)state;

    assert_true(fd >= 0);
    assert_int_equal(reap(start_child(execute_astray, path)), 127);
    assert_int_equal(fstat(fd, &file), 0);
    assert_int_equal(file.st_size, 2); /* the program and its child */
    unlink(path);
    close(fd);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_orphans),
        TEST(test_killed_at_any_time),
        TEST(test_without_descriptors),
        TEST(test_daemon_has_no_children),
        TEST(test_main),
        TEST(test_stubborn_daemon),
        TEST(test_both_starts),
        TEST(test_spawn_is_clean),
        TEST(test_spawn_errors),
        TEST(test_main_without_its_beginning),
    };
    if (getenv(ASTRAY))
        return go_astray();
    modus_process_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
