/* SPDX-License-Identifier: MIT */
/* The client of make's jobserver: what flags say, jobs by FIFO and by pipe, threads, coroutines and
 * processes, what goes back at an end, and a real make. */
#include "test_concurrency_left.h"

#include "concurrency/coroutine.h"
#include "concurrency/jobserver.h"
#include "concurrency/shared_memory.h"
#include "concurrency/subprocess.h"

#include <limits.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* --- make, played ---------------------------------------------------------------------------- */

static char folder[] = "/tmp/modus-test-XXXXXX";
static char fifo[64], flags[128];
static int ends[2] = {-1, -1}; /* make's own */
static unsigned fds_before;

enum style { FIFO, PIPE, STYLES };

/* make -j with so many more jobs than one. */
static void begin_make(enum style style, const char *bytes)
{
    if (style == FIFO) {
        CHECK_INT(mkfifo(fifo, 0600), 0);
        ends[0] = open(fifo, O_RDWR | O_CLOEXEC);
        ends[1] = dup(ends[0]);
        snprintf(flags, sizeof flags, " -j3 --jobserver-auth=fifo:%s", fifo);
    } else {
        CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
        snprintf(flags, sizeof flags, " -j3 --jobserver-auth=%d,%d", ends[0], ends[1]);
    }
    CHECK(ends[0] >= 0 && ends[1] >= 0);
    CHECK(write(ends[1], bytes, strlen(bytes)) == (ssize_t)strlen(bytes));
}

static int by_value(const void *one, const void *other)
{
    return *(const char *)one - *(const char *)other;
}

/* The same bytes are there again? In any order. */
static void end_make(const char *bytes)
{
    char got[64] = "";

    CHECK_INT(fcntl(ends[0], F_GETFL) & O_NONBLOCK, 0); /* nobody has touched it */
    CHECK_INT(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    ssize_t size = read(ends[0], got, sizeof got - 1);
    qsort(got, size > 0 ? (size_t)size : 0, 1, by_value);
    CHECK_INT(strcmp(got, bytes), 0);
    close(ends[0]);
    close(ends[1]);
    unlink(fifo);
}

static int begin(void **state)
{
    fds_before = fds_here();
    return watchdog(state);
}

static int end(void **state)
{
    (void)state;
    if (fds_here() != fds_before)
        fprintf(stderr, "%u descriptors, not %u\n", fds_here(), fds_before);
    return fds_here() == fds_before ? 0 : -1;
}

static struct modus_jobserver *opened(void)
{
    struct modus_jobserver *server;

    CHECK_INT(modus_jobserver_open(&server, flags), 0);
    return server;
}

/* --- flags ----------------------------------------------------------------------------------- */

static void test_flags(void **state)
{
    static const struct {
        const char *flags;
        int result;
    } cases[] = {
        {"", -ENOENT},
        {"n", -ENOENT},
        {" -j3", -ENOENT},
        {" -j3 -- X=--jobserver-auth=1,2", -ENOENT},
        {"-- --jobserver-auth=1,2", -ENOENT},
        {"--jobserver-authentic=1,2", -ENOENT},
        {" -j3 --jobserver-auth=-2,-2", -ENOENT},
        {" -j3 --jobserver-auth=", -EINVAL},
        {" -j3 --jobserver-auth=3", -EINVAL},
        {" -j3 --jobserver-auth=3,", -EINVAL},
        {" -j3 --jobserver-auth=3,4,5", -EINVAL},
        {" -j3 --jobserver-auth=x", -EINVAL},
        {" -j3 --jobserver-auth=fifo:", -EINVAL},
        {" -j3 --jobserver-auth=fifo:/nowhere/at/all", -ENOENT},
        {" -j3 --jobserver-auth=fifo:/dev/null", -EBADF},
        {" -j3 --jobserver-auth=900,901", -EBADF},                     /* not open */
        {" -j3 --jobserver-fds=900,901", -EBADF},                      /* before make 4.2 */
        {" -j3 --jobserver-auth=900,901 --jobserver-auth=x", -EINVAL}, /* the last counts */
        {"--jobserver-auth=x --jobserver-auth=900,901 -k", -EBADF},
    };
    struct modus_jobserver *server = NULL;
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(modus_jobserver_open(&server, cases[i].flags), cases[i].result);
    char *long_flags = calloc(1, PATH_MAX + 64);
    memset(long_flags, 'x', PATH_MAX + 63);
    memcpy(long_flags, "--jobserver-auth=fifo:", 22);
    assert_int_equal(modus_jobserver_open(&server, long_flags), -EINVAL);
    free(long_flags);
    unsetenv("MAKEFLAGS");
    assert_int_equal(modus_jobserver_open(&server, NULL), -ENOENT);
    assert_null(server);
    modus_jobserver_close(NULL);
}

/* Numbers that are open, but something else by now. */
static void test_other_descriptors(void **state)
{
    struct modus_jobserver *server = NULL;
    int one[2], other[2], null = open("/dev/null", O_RDWR | O_CLOEXEC);
    (void)state;

    assert_int_equal(pipe2(one, O_CLOEXEC), 0);
    assert_int_equal(pipe2(other, O_CLOEXEC), 0);
    snprintf(flags, sizeof flags, "--jobserver-auth=%d,%d", null, null);
    assert_int_equal(modus_jobserver_open(&server, flags), -EBADF);
    snprintf(flags, sizeof flags, "--jobserver-auth=%d,%d", one[0], null);
    assert_int_equal(modus_jobserver_open(&server, flags), -EBADF);
    snprintf(flags, sizeof flags, "--jobserver-auth=%d,%d", one[0], other[1]);
    assert_int_equal(modus_jobserver_open(&server, flags), -EBADF);
    snprintf(flags, sizeof flags, "--jobserver-fds=%d,%d", one[0], one[1]);
    assert_int_equal(setenv("MAKEFLAGS", flags, 1), 0);
    assert_int_equal(modus_jobserver_open(&server, NULL), 0);
    unsetenv("MAKEFLAGS");
    modus_jobserver_close(server);
    for (int i = 0; i < 2; i++) {
        close(one[i]);
        close(other[i]);
    }
    close(null);
}

static int as_other(void *unused)
{
    struct modus_jobserver *server;
    (void)unused;

    CHECK_INT(setresuid(65534, 65534, 65534), 0);
    CHECK_INT(modus_jobserver_open(&server, flags), -EACCES);
    return 0;
}

static void test_not_allowed(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    begin_make(FIFO, "");
    assert_int_equal(reap(start_child(as_other, NULL)), 0);
    end_make("");
}

/* --- jobs ------------------------------------------------------------------------------------ */

static void test_jobs(void **state)
{
    (void)state;
    for (enum style style = 0; style < STYLES; style++) {
        begin_make(style, "ab");
        struct modus_jobserver *server = opened();

        assert_int_equal(modus_jobserver_held(server), 0);
        assert_int_equal(modus_jobserver_release(server), -EPERM);
        assert_int_equal(modus_jobserver_acquire(server, -2), -EINVAL);
        assert_int_equal(modus_jobserver_acquire_until(server, -2), -EINVAL);
        for (int round = 0; round < 3; round++) {
            assert_int_equal(modus_jobserver_acquire(server, 0), 0); /* its own */
            assert_int_equal(modus_jobserver_acquire_until(server, 1), 0);
            assert_int_equal(modus_jobserver_acquire(server, MODUS_FOREVER), 0);
            assert_int_equal(modus_jobserver_held(server), 3);
            assert_int_equal(modus_jobserver_acquire(server, 0), -EAGAIN);
            int64_t start = modus_now_ns();
            assert_int_equal(modus_jobserver_acquire(server, modus_ms(10)), -ETIMEDOUT);
            assert_true(modus_now_ns() - start >= modus_ms(10));
            assert_int_equal(modus_jobserver_acquire_until(server, start), -ETIMEDOUT);
            assert_int_equal(modus_jobserver_release(server), 0);
            assert_int_equal(modus_jobserver_acquire(server, 0), 0);
            for (int i = 0; i < 3; i++)
                assert_int_equal(modus_jobserver_release(server), 0);
            assert_int_equal(modus_jobserver_release(server), -EPERM);
        }
        assert_int_equal(modus_jobserver_acquire(server, 0), 0);
        assert_int_equal(modus_jobserver_acquire(server, 0), 0);
        modus_jobserver_close(server); /* what is held goes back */
        end_make("ab");
    }
}

/* More than there ever were. */
static void test_overfull(void **state)
{
    static const char many[1 << 16];
    (void)state;

    begin_make(PIPE, "a");
    struct modus_jobserver *server = opened();
    assert_int_equal(modus_jobserver_acquire(server, 0), 0);
    assert_int_equal(modus_jobserver_acquire(server, 0), 0);
    assert_int_equal(write(ends[1], many, sizeof many), sizeof many);
    assert_int_equal(modus_jobserver_release(server), -EAGAIN);
    assert_int_equal(modus_jobserver_held(server), 2);
    char *all = malloc(sizeof many);
    assert_int_equal(read(ends[0], all, sizeof many), sizeof many);
    free(all);
    modus_jobserver_close(server);
    end_make("a");
}

struct worker {
    struct modus_jobserver *server;
    atomic_int tid, running, most, done;
};

static void run_jobs(struct worker *worker, int jobs)
{
    for (int i = 0; i < jobs; i++) {
        CHECK_INT(modus_jobserver_acquire(worker->server, MODUS_FOREVER), 0);
        int now = atomic_fetch_add(&worker->running, 1) + 1, most = atomic_load(&worker->most);
        while (now > most && !atomic_compare_exchange_weak(&worker->most, &most, now))
            continue;
        usleep(50);
        atomic_fetch_sub(&worker->running, 1);
        CHECK_INT(modus_jobserver_release(worker->server), 0);
    }
    atomic_fetch_add(&worker->done, 1);
}

static void *work(void *argument)
{
    run_jobs(argument, 300);
    return NULL;
}

static void test_threads(void **state)
{
    enum { THREADS = 5 };
    pthread_t threads[THREADS];
    (void)state;

    for (enum style style = 0; style < STYLES; style++) {
        begin_make(style, "ab");
        struct worker worker = {.server = opened()};

        for (int i = 0; i < THREADS; i++)
            threads[i] = start_thread(work, &worker);
        for (int i = 0; i < THREADS; i++)
            join_thread(threads[i]);
        assert_in_range(worker.most, 1, 3);
        assert_int_equal(modus_jobserver_held(worker.server), 0);
        modus_jobserver_close(worker.server);
        end_make("ab");
    }
}

static void *wait_for_job(void *argument)
{
    struct worker *worker = argument;

    atomic_store(&worker->tid, gettid());
    CHECK_INT(modus_jobserver_acquire(worker->server, MODUS_FOREVER), 0);
    atomic_store(&worker->done, 1);
    return NULL;
}

/* Who waits is woken by a byte of another process, and by its own process's job. */
static void test_woken(void **state)
{
    (void)state;
    begin_make(FIFO, "");
    struct worker worker = {.server = opened()};
    for (int own = 0; own < 2; own++) {
        assert_int_equal(modus_jobserver_acquire(worker.server, 0), 0);
        atomic_store(&worker.tid, 0);
        atomic_store(&worker.done, 0);
        pthread_t thread = start_thread(wait_for_job, &worker);
        AWAIT(atomic_load(&worker.tid));
        await_idle(worker.tid, 10);
        assert_int_equal(atomic_load(&worker.done), 0);
        if (own)
            assert_int_equal(modus_jobserver_release(worker.server), 0);
        else
            assert_int_equal(write(ends[1], "z", 1), 1);
        join_thread(thread);
        while (modus_jobserver_release(worker.server) == 0)
            continue;
        if (!own) {
            char byte = 0;
            assert_int_equal(read(ends[0], &byte, 1), 1);
            assert_int_equal(byte, 'z'); /* the same one goes back */
        }
    }
    modus_jobserver_close(worker.server);
    end_make("");
}

/* --- coroutines ------------------------------------------------------------------------------ */

static int co_work(void *argument)
{
    run_jobs(argument, 50);
    return 0;
}

static int co_wait(void *server)
{
    return modus_jobserver_acquire(server, MODUS_FOREVER);
}

static int co_program(void *argument)
{
    enum { COS = 5 };
    struct worker *worker = argument;
    struct modus_co *cos[COS];
    int result;

    for (int i = 0; i < COS; i++)
        CHECK_INT(modus_co_start(&cos[i], NULL, co_work, worker), 0);
    for (int i = 0; i < COS; i++) {
        CHECK_INT(modus_co_join(cos[i], MODUS_FOREVER, NULL), 0);
        modus_co_put(cos[i]);
    }
    for (int i = 0; i < 3; i++)
        CHECK_INT(modus_jobserver_acquire(worker->server, MODUS_FOREVER), 0);
    CHECK_INT(modus_jobserver_acquire(worker->server, modus_ms(5)), -ETIMEDOUT);
    for (int i = 0; i < 2; i++)
        CHECK_INT(modus_co_start(&cos[i], NULL, co_wait, worker->server), 0);
    CHECK_INT(modus_co_sleep(modus_ms(5)), 0); /* this one goes on while they wait */
    modus_co_cancel(cos[0]);
    CHECK_INT(modus_co_join(cos[0], MODUS_FOREVER, &result), 0);
    CHECK_INT(result, MODUS_CANCELED);
    CHECK_INT(modus_jobserver_release(worker->server), 0);
    CHECK_INT(modus_co_join(cos[1], MODUS_FOREVER, &result), 0);
    CHECK_INT(result, 0);
    CHECK_INT(modus_jobserver_held(worker->server), 3);
    for (int i = 0; i < 2; i++)
        modus_co_put(cos[i]);
    return 0;
}

static void test_coroutines(void **state)
{
    (void)state;
    for (enum style style = 0; style < STYLES; style++) {
        begin_make(style, "ab");
        struct worker worker = {.server = opened()};

        assert_int_equal(modus_co_run(co_program, &worker), 0);
        assert_in_range(worker.most, 1, 3);
        modus_jobserver_close(worker.server);
        end_make("ab");
    }
}

/* --- processes, and their ends --------------------------------------------------------------- */

static int work_as_process(void *argument)
{
    struct worker *board = argument, worker = {.server = opened()};

    for (int i = 0; i < 100; i++) {
        CHECK_INT(modus_jobserver_acquire(worker.server, MODUS_FOREVER), 0);
        CHECK_INT(modus_jobserver_acquire(worker.server, MODUS_FOREVER), 0); /* make's */
        int now = atomic_fetch_add(&board->running, 1) + 1, most = atomic_load(&board->most);
        while (now > most && !atomic_compare_exchange_weak(&board->most, &most, now))
            continue;
        atomic_fetch_sub(&board->running, 1);
        CHECK_INT(modus_jobserver_release(worker.server), 0);
        CHECK_INT(modus_jobserver_release(worker.server), 0);
    }
    modus_jobserver_close(worker.server);
    return 0;
}

static void test_processes(void **state)
{
    enum { CHILDREN = 4 };
    struct modus_shm shm;
    pid_t children[CHILDREN];
    (void)state;

    assert_int_equal(modus_shm_create(&shm, NULL, sizeof(struct worker)), 0);
    struct worker *board = modus_shm_memory(&shm);
    for (enum style style = 0; style < STYLES; style++) {
        begin_make(style, "ab");
        for (int i = 0; i < CHILDREN; i++)
            children[i] = start_child(work_as_process, board);
        for (int i = 0; i < CHILDREN; i++)
            assert_int_equal(reap(children[i]), 0);
        assert_in_range(board->most, 1, 2); /* beside everybody's own */
        end_make("ab");
    }
    modus_shm_close(&shm);
}

enum way { BY_EXIT, BY_UNDERSCORE_EXIT, BY_KILL };

static int end_that_way(void *argument)
{
    struct modus_jobserver *server = opened();

    for (int i = 0; i < 3; i++)
        CHECK_INT(modus_jobserver_acquire(server, 0), 0);
    switch (*(enum way *)argument) {
    case BY_EXIT:
        exit(0);
    case BY_UNDERSCORE_EXIT:
        _exit(0);
    case BY_KILL:
        kill(getpid(), SIGKILL);
    }
    return 1;
}

/* What goes back, and what is lost. */
static void test_ends(void **state)
{
    (void)state;
    for (enum style style = 0; style < STYLES; style++) {
        for (enum way way = BY_EXIT; way <= BY_KILL; way++) {
            begin_make(style, "abc");
            assert_int_equal(reap(start_child(end_that_way, &way)), way == BY_KILL ? -SIGKILL : 0);
            end_make(way == BY_EXIT ? "abc" : "c");
        }
    }
}

/* What the parent holds is the parent's. */
static int in_child(void *argument)
{
    struct modus_jobserver *server = argument;

    CHECK_INT(modus_jobserver_acquire(server, 0), -ECHILD);
    CHECK_INT(modus_jobserver_acquire(server, MODUS_FOREVER), -ECHILD);
    CHECK_INT(modus_jobserver_release(server), -ECHILD);
    CHECK_INT(modus_jobserver_held(server), 0);
    modus_jobserver_close(server);
    server = opened(); /* its own */
    CHECK_INT(modus_jobserver_acquire(server, 0), 0);
    CHECK_INT(modus_jobserver_acquire(server, 0), -EAGAIN);
    exit(0);
}

static void test_fork(void **state)
{
    (void)state;
    for (enum style style = 0; style < STYLES; style++) {
        begin_make(style, "a");
        struct modus_jobserver *server = opened();

        for (int i = 0; i < 2; i++)
            assert_int_equal(modus_jobserver_acquire(server, 0), 0);
        assert_int_equal(reap(start_child(in_child, server)), 0);
        assert_int_equal(modus_jobserver_held(server), 2);
        assert_int_equal(modus_jobserver_acquire(server, 0), -EAGAIN);
        modus_jobserver_close(server);
        end_make("a");
    }
}

static int without_descriptors(void *unused)
{
    struct modus_jobserver *server;
    (void)unused;

    enum { MOST = 64 };
    const struct rlimit few = {.rlim_cur = MOST, .rlim_max = MOST};
    int fillers[MOST], count = 0;

    CHECK_INT(setrlimit(RLIMIT_NOFILE, &few), 0);
    while ((fillers[count] = dup(STDERR_FILENO)) >= 0)
        count++;
    for (int left = 0; left < 3; left++) { /* it needs one more */
        CHECK_INT(modus_jobserver_open(&server, flags), -EMFILE);
        close(fillers[--count]);
    }
    CHECK_INT(modus_jobserver_open(&server, flags), 0);
    modus_jobserver_close(server);
    return 0;
}

static void test_without_descriptors(void **state)
{
    (void)state;
    begin_make(FIFO, "a");
    assert_int_equal(reap(start_child(without_descriptors, NULL)), 0);
    end_make("a");
}

/* --- make itself ----------------------------------------------------------------------------- */

static char self[PATH_MAX];

/* The program that make runs: more than one job at a time, and never more than two in all. */
static int be_client(const char *board_name, bool exits)
{
    struct modus_jobserver *server;
    struct modus_shm shm;

    alarm(WATCHDOG_SECONDS);
    CHECK_INT(modus_jobserver_open(&server, NULL), 0);
    CHECK_INT(modus_shm_open(&shm, board_name, sizeof(struct worker)), 0);
    struct worker *board = modus_shm_memory(&shm);
    for (int i = 0; i < 50; i++) {
        CHECK_INT(modus_jobserver_acquire(server, MODUS_FOREVER), 0);
        int now = atomic_fetch_add(&board->running, 1) + 1;
        bool second = modus_jobserver_acquire(server, modus_ms(1)) == 0;
        if (second)
            now = atomic_fetch_add(&board->running, 1) + 1;
        CHECK(now <= 2);
        atomic_fetch_add(&board->done, second);
        atomic_fetch_sub(&board->running, second ? 2 : 1);
        if (exits && second)
            exit(0); /* with both */
        if (second)
            CHECK_INT(modus_jobserver_release(server), 0);
        CHECK_INT(modus_jobserver_release(server), 0);
    }
    modus_jobserver_close(server);
    modus_shm_close(&shm);
    return 0;
}

/* Run make; returns what it said, to be freed with the rest. */
static void run_make(const char *text, struct modus_ran *ran)
{
    static const char *const environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin", NULL};
    static const char *const argv[] = {"make", "-s", "-j2", "-f", "-", NULL};
    const struct modus_subprocess_attr attr = {
        .input.kind = MODUS_STDIO_PIPE,
        .output.kind = MODUS_STDIO_PIPE,
        .errors.kind = MODUS_STDIO_OUTPUT,
        .environment = environment, /* nothing of the make that runs this test */
    };

    CHECK_INT(
        modus_subprocess_run(argv, &attr, text, strlen(text), modus_seconds(WATCHDOG_SECONDS), ran),
        0);
    if (ran->code != 0 || ran->output.size != 0)
        fprintf(stderr, "make ended with %d and says:\n%s\n", ran->code,
                ran->output.size ? ran->output.data : "");
}

static void test_make(void **state)
{
    char name[64], text[PATH_MAX + 512];
    struct modus_shm shm;
    struct modus_ran ran;
    (void)state;

    snprintf(name, sizeof name, "modus-test-make-%d", (int)getpid());
    modus_shm_unlink_unused(name);
    assert_int_equal(modus_shm_create(&shm, name, sizeof(struct worker)), 0);
    struct worker *board = modus_shm_memory(&shm);
    /* alone it has both jobs; make says at its end if one has not come back */
    snprintf(text, sizeof text, "all:\n\t+@%s --client %s\n", self, name);
    run_make(text, &ran);
    assert_int_equal(ran.code, 0);
    assert_int_equal(ran.output.size, 0);
    modus_ran_free(&ran);
    assert_int_equal(board->done, 50);
    /* several, of which make itself runs no more than two at a time */
    snprintf(text, sizeof text, "all: a b c\na b c:\n\t+@%s --client %s\n", self, name);
    run_make(text, &ran);
    assert_int_equal(ran.code, 0);
    assert_int_equal(ran.output.size, 0);
    modus_ran_free(&ran);
    /* one that exits with what it has */
    snprintf(text, sizeof text, "all:\n\t+@%s --client %s exits\n", self, name);
    run_make(text, &ran);
    assert_int_equal(ran.code, 0);
    assert_int_equal(ran.output.size, 0);
    modus_ran_free(&ran);
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_unlink_unused(name), 0);
}

static int co_nothing(void *argument)
{
    return argument != NULL;
}

static int open_all(void **state)
{
    (void)state;
    modus_co_run(co_nothing, NULL); /* libuv keeps two descriptors from its first loop on */
    if (!mkdtemp(folder))
        return -1;
    snprintf(fifo, sizeof fifo, "%s/fifo", folder);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    return rmdir(folder);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_flags),       TEST(test_other_descriptors),
        TEST(test_not_allowed), TEST(test_jobs),
        TEST(test_overfull),    TEST(test_threads),
        TEST(test_woken),       TEST(test_coroutines),
        TEST(test_processes),   TEST(test_ends),
        TEST(test_fork),        TEST(test_without_descriptors),
        TEST(test_make),
    };

    if (argc > 2 && strcmp(argv[1], "--client") == 0)
        return be_client(argv[2], argc > 3);
    if (!realpath("/proc/self/exe", self))
        return 1;
    return cmocka_run_group_tests(tests, open_all, close_all);
}
