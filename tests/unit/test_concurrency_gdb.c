/* SPDX-License-Identifier: MIT */
/* gdb's commands for coroutines (concurrency/gdb.py). gdb runs this program with an argument, and then
 * it has coroutines that wait for something of each kind. Without gdb, or where nobody may be traced,
 * these tests are left out. */
#include "test_concurrency_co.h"

#include "concurrency/event.h"
#include "concurrency/lock.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <regex.h>
#include <sys/resource.h>

/* --- the program ----------------------------------------------------------------------------- */

static struct modus_event rung = MODUS_EVENT_INIT, other = MODUS_EVENT_INIT;
static struct modus_lock lock = MODUS_LOCK_INIT;
static int ends[2];

/* Of a call that shall have its frame: no jump takes its place. */
static inline int kept(int rc)
{
    __asm__ volatile("" : "+r"(rc));
    return rc;
}

__attribute__((noinline)) static int go_deep(int depth)
{
    return kept(depth > 0 ? go_deep(depth - 1) : modus_event_wait(&rung, MODUS_FOREVER));
}

static int on_event(void *argument)
{
    return kept(go_deep(3)) + (argument != NULL);
}

static int on_other(void *argument)
{
    return kept(modus_event_wait(&other, argument ? 0 : MODUS_FOREVER));
}

static int on_lock(void *argument)
{
    CHECK_INT(modus_lock_acquire(&lock, MODUS_FOREVER), 0);
    return modus_lock_release(&lock) + (argument != NULL);
}

static int on_fd(void *argument)
{
    return kept(modus_co_wait_fd(ends[0], POLLIN, MODUS_FOREVER, argument));
}

static int on_time(void *argument)
{
    MODUS_CO_SHIELD(cleaning);
    return modus_co_sleep(modus_ms(argument ? 0 : 200));
}

static int on_join(void *argument)
{
    return kept(modus_co_join(argument, MODUS_FOREVER, NULL));
}

__attribute__((noinline)) static void stop_here(void)
{
    __asm__ volatile("");
}

static struct modus_co *start(const char *name, int (*run)(void *), void *argument)
{
    struct modus_co *co;

    CHECK_INT(modus_co_start(&co, &(struct modus_co_attr){.name = name}, run, argument), 0);
    return co;
}

static int program(void *argument)
{
    struct modus_co *cos[7];

    CHECK_INT(pipe(ends), 0);
    CHECK_INT(modus_lock_acquire(&lock, 0), 0);
    cos[0] = start("waiter", on_event, NULL);
    cos[1] = start("locker", on_lock, NULL);
    cos[2] = start("reader", on_fd, NULL);
    cos[3] = start("sleeper", on_time, NULL);
    cos[4] = start("joiner", on_join, cos[0]);
    cos[5] = start("woken", on_other, NULL);
    modus_co_cancel(cos[3]);
    CHECK_INT(modus_co_sleep(modus_ms(5)), 0);
    cos[6] = start("late", on_other, NULL);
    modus_event_set(&other);
    if (argument)
        abort();
    stop_here();
    modus_event_set(&rung);
    CHECK_INT(modus_lock_release(&lock), 0);
    CHECK_INT(write(ends[1], "", 1), 1);
    for (int i = 0; i < 7; i++) {
        CHECK_INT(modus_co_join(cos[i], MODUS_FOREVER, NULL), 0);
        modus_co_put(cos[i]);
    }
    return 0;
}

static atomic_int elsewhere;

static int in_thread(void *argument)
{
    atomic_store(&elsewhere, 1);
    return kept(modus_event_wait(&rung, argument ? 0 : MODUS_FOREVER));
}

static void *run_thread(void *unused)
{
    (void)unused;
    CHECK_INT(modus_co_run(in_thread, NULL), 0);
    return NULL;
}

static int be_program(bool dies)
{
    alarm(WATCHDOG_SECONDS);
    pthread_t thread = start_thread(run_thread, NULL);
    AWAIT(atomic_load(&elsewhere));
    CHECK_INT(modus_co_run(program, dies ? &lock : NULL), 0);
    join_thread(thread);
    _exit(0); /* a leak sanitizer does not work while gdb traces */
}

/* --- gdb ------------------------------------------------------------------------------------- */

static char self[PATH_MAX], script[PATH_MAX];
static char said[1 << 18];

/* Run gdb and keep what it says. */
static const char *ask(const char *arguments)
{
    char line[PATH_MAX * 2 + 1024];
    size_t size = 0, n;

    snprintf(line, sizeof line,
             "gdb -nx -batch -ex 'set width 0' -ex 'set startup-with-shell off' %s 2>&1 </dev/null",
             arguments);
    FILE *out = popen(line, "r");
    CHECK(out);
    while (size < sizeof said - 1 && (n = fread(said + size, 1, sizeof said - 1 - size, out)) > 0)
        size += n;
    said[size] = 0;
    pclose(out);
    return said;
}

/* Some line is like that. */
static void expect(const char *pattern)
{
    regex_t regex;

    CHECK_INT(regcomp(&regex, pattern, REG_EXTENDED | REG_NEWLINE | REG_NOSUB), 0);
    if (regexec(&regex, said, 0, NULL, 0) != 0) {
        fprintf(stderr, "no line like %s in:\n%s", pattern, said);
        abort();
    }
    regfree(&regex);
}

static void expect_not(const char *text)
{
    if (strstr(said, text)) {
        fprintf(stderr, "%s in:\n%s", text, said);
        abort();
    }
}

static bool can_trace(void)
{
    if (strstr(ask("-ex starti -ex 'python print(6 * 7)' -ex kill /bin/true"), "Program stopped") &&
        strstr(said, "42"))
        return true;
    print_message("left out: gdb does not trace here, or has no python: %.200s", said);
    return false;
}

#define NEED_GDB()                                                                                 \
    do {                                                                                           \
        if (!can_trace())                                                                          \
            skip();                                                                                \
    } while (0)

/* Run it up to the stop, do that, and let it go on to its end. */
static void ask_at_stop(const char *commands)
{
    char arguments[PATH_MAX * 2 + 512];

    snprintf(arguments, sizeof arguments,
             "-x %s -ex 'break stop_here' -ex run %s -ex continue --args %s --program", script,
             commands, self);
    ask(arguments);
    expect("hit Breakpoint 1, stop_here");
    expect("exited normally"); /* nothing has been changed */
    expect_not("Python Exception");
    expect_not("Error occurred in Python");
}

/* Without gdb. */
static int run_program(void *unused)
{
    (void)unused;
    execl(self, self, "--program", (char *)NULL);
    return 1;
}

static void test_program(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(run_program, NULL)), 0);
}

static void test_info(void **state)
{
    (void)state;
    NEED_GDB();
    ask_at_stop("-ex 'info coroutines'");
    expect("^ +[0-9]+  thread 1 +main +running$");
    expect(
        "^ +[0-9]+  thread 1 +waiter +waits for 0x[0-9a-f]+ <rung(\\+[0-9]+)?>, since [0-9]+ ms$");
    expect("^ +[0-9]+  thread 1 +locker +waits for the lock at 0x[0-9a-f]+ <lock(\\+[0-9]+)?>, "
           "since [0-9]+ ms$");
    expect("^ +[0-9]+  thread 1 +reader +waits for descriptor [0-9]+, since [0-9]+ ms$");
    expect("^ +[0-9]+  thread 1 +sleeper +sleeps, since [0-9]+ ms, cancelled$");
    expect("^ +[0-9]+  thread 1 +joiner +joins waiter, since [0-9]+ ms$");
    expect("^ +[0-9]+  thread 1 +woken +ready$");
    expect("^ +[0-9]+  thread 1 +late +has not begun$");
    expect(
        "^ +[0-9]+  thread [2-9] +main +waits for 0x[0-9a-f]+ <rung(\\+[0-9]+)?>, "); /* another loop */
}

static void test_backtrace(void **state)
{
    (void)state;
    NEED_GDB();
    ask_at_stop("-ex 'coroutine waiter bt'");
    expect("^Coroutine [0-9]+, waiter: waits for 0x");
    for (int i = 0; i < 4; i++) {
        char pattern[80];
        snprintf(pattern, sizeof pattern,
                 "^#[0-9]+ .*in go_deep \\(depth=(depth@entry=)?(%d|<optimized out>)\\)", i);
        expect(pattern);
    }
    expect(
        "^#1 .*(swap|modus_context_switch|suspend) \\("); /* the thread's own frame is left out */
    expect("^#[0-9]+ .*in modus_event_wait \\(");
    expect("^#[0-9]+ .*on_event \\(");
    expect("^#[0-9]+ .*in modus_context_begin \\(\\)");
    expect_not("#0");
    expect_not("in program (");
    expect_not("Backtrace stopped");
}

/* Numbers, all of them, other commands, and afterwards all is as it was. */
static void test_commands(void **state)
{
    (void)state;
    NEED_GDB();
    ask_at_stop("-ex 'coroutine all' -ex 'python print(\"--\")' -ex 'coroutine 1' -ex 'bt 1'"
                " -ex 'coroutine reader frame function on_fd'"
                " -ex 'coroutine nobody bt' -ex coroutine");
    expect("^Coroutine [0-9]+, main: running\n#0  stop_here");
    expect("^#[0-9]+ .*on_lock \\(");
    expect("^#[0-9]+ .*on_fd \\(");
    expect("^#[0-9]+ .*on_time \\(");
    expect("^#[0-9]+ .*on_join \\(");
    expect("^#[0-9]+ .*on_other \\(");
    expect("^#[0-9]+ .*in_thread \\(");
    expect("^Coroutine [0-9]+, late: has not begun\n(Coroutine|--)");
    expect("^Coroutine 1, ");
    expect("^#0  stop_here \\(\\).*\nCoroutine [0-9]+, reader: waits.*\n#[0-9]+ .*on_fd \\(");
    expect("^coroutine NUMBER\\|NAME\\|all \\[COMMAND\\]; info coroutines lists them$");
}

static void test_without(void **state)
{
    char arguments[PATH_MAX * 2 + 256];
    (void)state;

    NEED_GDB();
    snprintf(arguments, sizeof arguments,
             "-x %s -ex 'info coroutines' -ex 'break be_program' -ex run -ex 'info coroutines'"
             " -ex 'coroutine main bt' -ex kill --args %s --program",
             script, self);
    ask(arguments);
    expect("^the program is not running$");
    expect("^No coroutines\\.$");
    expect("^coroutine NUMBER");
    snprintf(arguments, sizeof arguments,
             "-x %s -ex starti -ex 'info coroutines' -ex kill /bin/true", script);
    ask(arguments);
    expect("^no modus_co_here: a program without coroutines, or without their debugging symbols$");
}

/* --- a core file ----------------------------------------------------------------------------- */

static char folder[] = "/tmp/modus-test-XXXXXX";

static int die_there(void *unused)
{
    const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    (void)unused;

    if (setrlimit(RLIMIT_CORE, &all) < 0 || chdir(folder) < 0)
        return 1;
    execl(self, self, "--program", "--dies", (char *)NULL);
    return 1;
}

/* The kernel's cores come to the folder of who dies? */
static bool core_comes(void)
{
    char pattern[16] = "";
    FILE *file = fopen("/proc/sys/kernel/core_pattern", "r");

    if (file) {
        if (!fgets(pattern, sizeof pattern, file))
            pattern[0] = 0;
        fclose(file);
    }
    return !SLOW && strncmp(pattern, "core", 4) == 0; /* a sanitizer's would be of terabytes */
}

static void test_core(void **state)
{
    char line[PATH_MAX * 2 + 256];
    (void)state;

    NEED_GDB();
    if (!core_comes())
        skip();
    assert_non_null(mkdtemp(folder));
    bool dead = reap(start_child(die_there, NULL)) == -SIGABRT;
    snprintf(line, sizeof line, "-x %s -ex 'info coroutines' -ex 'coroutine waiter' %s %s/core*",
             script, self, folder);
    ask(line);
    snprintf(line, sizeof line, "rm -r %s", folder);
    assert_int_equal(system(line), 0);
    if (!dead || strstr(said, "core*"))
        skip(); /* none has come: a limit of the place */
    expect("^ +[0-9]+  thread 1 +locker +waits for the lock at 0x[0-9a-f]+ <lock(\\+[0-9]+)?>, ");
    expect("^ +[0-9]+  thread 1 +joiner +joins waiter, since [0-9]+ ms$");
    expect("^#[0-9]+ .*in go_deep \\(");
    expect("^#[0-9]+ .*in modus_context_begin \\(\\)");
}

#define TEST(test) cmocka_unit_test_setup(test, watchdog)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_program),  TEST(test_info),    TEST(test_backtrace),
        TEST(test_commands), TEST(test_without), TEST(test_core),
    };

    if (argc > 1 && strcmp(argv[1], "--program") == 0)
        return be_program(argc > 2);
    if (!realpath("/proc/self/exe", self) || !realpath("concurrency/gdb.py", script))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
