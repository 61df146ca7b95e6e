/* SPDX-License-Identifier: MIT */
/* The control socket's end in the master, against real sockets: what is a request, who may stand in
 * the way of whom, and answers that come late, or after their client has gone. */
#include <errno.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/control.h"

enum { LARGE = 4 << 20 };

static char folder[] = "/tmp/modus-control-XXXXXX", path[64], why[512];
static uv_loop_t loop;
static struct control *control;
static struct control_waiters waiting;
static unsigned kept, ran;
static char heard[256];

/* --- commands -------------------------------------------------------------------------------- */

static void run_hello(void *arg, struct control_request *request, char **arguments)
{
    (void)arguments;
    assert_ptr_equal(arg, &loop);
    ran++;
    control_answer(request, "hello\n", 6);
}

static void run_two(void *arg, struct control_request *request, char **arguments)
{
    (void)arg;
    snprintf(heard, sizeof heard, "%s|%s", arguments[0], arguments[1]);
    control_answer(request, NULL, 0);
}

static void run_later(void *arg, struct control_request *request, char **arguments)
{
    (void)arg, (void)arguments;
    kept++;
    control_keep(&waiting, request);
}

static void run_refuse(void *arg, struct control_request *request, char **arguments)
{
    (void)arg, (void)arguments;
    control_refuse(request, "no\nway");
}

static void run_large(void *arg, struct control_request *request, char **arguments)
{
    (void)arg, (void)arguments;
    char *body = calloc(1, LARGE);
    control_answer(request, body, LARGE);
    free(body);
}

static const struct control_command table[] = {
    {"hello", 0, run_hello},   {"two words", 2, run_two}, {"later", 0, run_later},
    {"refuse", 0, run_refuse}, {"large", 0, run_large},   {0},
};

/* --- clients --------------------------------------------------------------------------------- */

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

static void say(int fd, const char *text, size_t len)
{
    assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
}

/* The next bytes for fd, while the master's loop runs; 0: the end. */
static size_t listen_to(int fd, char *to, size_t size)
{
    for (;;) {
        ssize_t n = recv(fd, to, size, 0);
        if (n >= 0 || errno == ECONNRESET)
            return n > 0 ? (size_t)n : 0;
        assert_int_equal(errno, EAGAIN);
        uv_run(&loop, UV_RUN_ONCE);
    }
}

/* The whole answer. Closes fd. */
static const char *answer_of(int fd)
{
    static char text[1024];
    size_t len = 0, n;
    while ((n = listen_to(fd, text + len, sizeof text - 1 - len)) > 0)
        len += n;
    text[len] = '\0';
    close(fd);
    return text;
}

static const char *ask_bytes(const char *text, size_t len)
{
    int fd = dial();
    assert_true(fd >= 0);
    say(fd, text, len);
    return answer_of(fd);
}

static const char *ask(const char *text)
{
    return ask_bytes(text, strlen(text));
}

static bool refuses(void *arg, const char *file, char *reason, size_t size)
{
    assert_ptr_equal(arg, &loop);
    snprintf(reason, size, "not with %s", file);
    return strcmp(file, "/a b/other.conf") == 0;
}

static int open_one(void **state)
{
    (void)state;
    control = control_open(path, why, sizeof why);
    if (!control)
        fail_msg("%s", why);
    uv_loop_init(&loop);
    kept = ran = 0;
    return control_start(control, &loop, table, refuses, &loop);
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void close_loop(void)
{
    uv_walk(&loop, close_handle, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    control_stop(control);
}

static int close_one(void **state)
{
    (void)state;
    if (!control)
        return 0;
    close_loop();
    control_answer_all(&waiting, NULL);
    control_free(control);
    control = NULL;
    return access(path, F_OK) == 0 ? -1 : 0;
}

/* --- requests -------------------------------------------------------------------------------- */

static void requests(void **state)
{
    (void)state;
    assert_string_equal(ask("hello\n"), "ok\nhello\n");
    assert_string_equal(ask("  hello \n"), "ok\nhello\n");
    assert_string_equal(ask("two words a b\n"), "ok\n");
    assert_string_equal(heard, "a|b");
    assert_string_equal(ask("two  words unix:/a%20b%25 %c3%A4\nmore"), "ok\n");
    assert_string_equal(heard, "unix:/a b%|\xc3\xa4");
    assert_string_equal(ask("refuse\n"), "error: no?way\n");
    assert_string_equal(ask("=/a/this.conf hello\n"), "ok\nhello\n");
    assert_string_equal(ask("=/a%20b/other.conf hello\n"), "error: not with /a b/other.conf\n");
    int fd = dial();
    for (const char *c = "hello\n"; *c; c++) {
        say(fd, c, 1);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_string_equal(answer_of(fd), "ok\nhello\n");
}

static void no_requests(void **state)
{
    (void)state;
    static const char none[] = "error: this is no request: a line of words was expected\n";
    char line[CONTROL_LINE + 1];
    assert_string_equal(ask("\n"), none);
    assert_string_equal(ask("hello%\n"), none);
    assert_string_equal(ask("hello %0g\n"), none);
    assert_string_equal(ask("hello %00\n"), none);
    assert_string_equal(ask("a b c d e f g h i j k l m n o p q\n"), none);
    assert_string_equal(ask("hell\n"), "error: this server knows no \"hell\" of 1 words\n");
    assert_string_equal(ask("hello x\n"), "error: this server knows no \"hello\" of 2 words\n");
    assert_string_equal(ask("two words a\n"), "error: this server knows no \"two\" of 3 words\n");
    assert_string_equal(ask_bytes("hel\0lo\n", 7),
                        "error: this is no request: it holds a zero byte\n");
    memset(line, 'a', sizeof line);
    assert_string_equal(ask_bytes(line, CONTROL_LINE), "error: this line is too long\n");
    int fd = dial();
    say(fd, "hello", 5);
    shutdown(fd, SHUT_WR);
    assert_string_equal(answer_of(fd), "error: this request's line has no end\n");
    assert_int_equal(ran, 0);
}

/* An answer that no socket buffer holds arrives whole. */
static void large_answer(void **state)
{
    (void)state;
    static char bytes[65536];
    size_t total = 0, n;
    int fd = dial();
    say(fd, "large\n", 6);
    while ((n = listen_to(fd, bytes, sizeof bytes)) > 0)
        total += n;
    close(fd);
    assert_int_equal(total, LARGE + 3);
}

/* --- answers that come later ----------------------------------------------------------------- */

static void run_until_kept(unsigned count)
{
    while (kept < count)
        uv_run(&loop, UV_RUN_ONCE);
}

static void late_answers(void **state)
{
    (void)state;
    int one = dial(), two = dial(), gone = dial();
    say(one, "later\n", 6);
    say(two, "later\n", 6);
    say(gone, "later\n", 6);
    shutdown(two, SHUT_WR); /* still wants its answer */
    run_until_kept(3);
    close(gone);
    assert_string_equal(ask("hello\n"), "ok\nhello\n");
    control_answer_all(&waiting, "it has failed");
    assert_string_equal(answer_of(one), "error: it has failed\n");
    assert_string_equal(answer_of(two), "error: it has failed\n");
    control_answer_all(&waiting, NULL); /* nobody */
}

/* Whose client has gone needs no place. */
static void requests_of_the_gone(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 3 * CONTROL_CLIENTS; i++) {
        int fd = dial();
        say(fd, "later\n", 6);
        run_until_kept(i);
        close(fd);
        assert_string_equal(ask("hello\n"), "ok\nhello\n");
    }
}

/* When the loop is closed already: the last act of a server. */
static void last_answer(void **state)
{
    (void)state;
    int fd = dial(), silent = dial();
    char text[16];
    say(fd, "later\n", 6);
    run_until_kept(1);
    close_loop();
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(recv(fd, text, sizeof text, 0), -1);
    control_answer_all(&waiting, NULL);
    control_free(control);
    control = NULL;
    assert_string_equal(answer_of(fd), "ok\n");
    assert_string_equal(answer_of(silent), "");
}

/* --- others ---------------------------------------------------------------------------------- */

/* Of the silent ones the oldest go. */
static void too_many(void **state)
{
    (void)state;
    int silent[2 * CONTROL_CLIENTS];
    for (int i = 0; i < 2 * CONTROL_CLIENTS; i++) {
        silent[i] = dial();
        assert_true(silent[i] >= 0);
        uv_run(&loop, UV_RUN_NOWAIT);
        if (i == CONTROL_CLIENTS)
            assert_string_equal(ask("hello\n"), "ok\nhello\n");
    }
    assert_string_equal(ask("hello\n"), "ok\nhello\n");
    assert_string_equal(answer_of(silent[0]),
                        "error: too many clients, and this one has not asked for anything\n");
    for (int i = 1; i < 2 * CONTROL_CLIENTS; i++)
        close(silent[i]);
}

static void silence(void **state)
{
    (void)state;
    int fd = dial();
    say(fd, "hel", 3);
    assert_string_equal(answer_of(fd), "error: no request came\n");
}

/* In a child nothing is left of it, and the master goes on. */
static void fork_forgets(void **state)
{
    (void)state;
    int fd = dial();
    say(fd, "later\n", 6);
    run_until_kept(1);
    pid_t pid = fork();
    if (pid == 0) {
        control_forget(control);
        pause();
        _exit(0);
    }
    control_answer_all(&waiting, NULL);
    assert_string_equal(answer_of(fd), "ok\n"); /* and the end, although the child lives */
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* --- the file -------------------------------------------------------------------------------- */

static void file(void **state)
{
    (void)state;
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0600);
    assert_null(control_open(path, why, sizeof why));
    assert_non_null(strstr(why, "another server listens there; stop it or choose another path"));
    assert_string_equal(ask("hello\n"), "ok\nhello\n");
    assert_int_equal(control_check(path, why, sizeof why),
                     0); /* of a running server, to be reloaded */
}

static void stale_file(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    assert_int_equal(control_check(path, why, sizeof why), 0);
    assert_int_equal(open_one(NULL), 0);
    assert_string_equal(ask("hello\n"), "ok\nhello\n");
    assert_int_equal(close_one(NULL), 0);
}

/* What stands in its place at the end is another's. */
static void file_of_another(void **state)
{
    (void)state;
    assert_int_equal(open_one(NULL), 0);
    unlink(path);
    struct control *another = control_open(path, why, sizeof why);
    assert_non_null(another);
    close_loop();
    control_free(control);
    control = NULL;
    assert_int_equal(access(path, F_OK), 0);
    control_stop(another);
    control_free(another);
    assert_int_not_equal(access(path, F_OK), 0);
}

/* To another master, which begins when it is told to: the file stays all the time, who has asked is
 * answered here, who has not is to ask there. */
static void handed_over(void **state)
{
    (void)state;
    assert_int_equal(open_one(NULL), 0);
    struct control *next = control_adopt(path, control_fd(control), why, sizeof why);
    assert_non_null(next);
    assert_true(control_is_borrowed(next));
    int waits = dial(), silent = dial();
    say(waits, "later\n", 6);
    say(silent, "hel", 3);
    while (kept == 0)
        uv_run(&loop, UV_RUN_ONCE);
    control_leave(control, true);
    assert_string_equal(answer_of(silent), "again\n");
    int early = dial();
    say(early, "hello\n", 6);
    assert_int_equal(control_start(next, &loop, table, NULL, &loop), 0);
    assert_false(control_is_borrowed(next));
    assert_string_equal(answer_of(early), "ok\nhello\n");
    control_answer_all(&waiting, NULL);
    assert_string_equal(answer_of(waits), "ok\n");
    close_loop();
    control_free(control);
    assert_int_equal(access(path, F_OK), 0);
    control = NULL;
    control_stop(next);
    control_free(next);
    assert_int_not_equal(access(path, F_OK), 0);
}

/* The other master gives up, or this one leaves and nobody takes the socket. */
static void not_handed_over(void **state)
{
    (void)state;
    assert_int_equal(open_one(NULL), 0);
    struct control *next = control_adopt(path, control_fd(control), why, sizeof why);
    assert_non_null(next);
    control_stop(next);
    control_free(next);
    assert_string_equal(ask("hello\n"), "ok\nhello\n");
    control_leave(control, false);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(close_one(NULL), 0);
}

static void refused(const char *at, const char *expected)
{
    why[0] = '\0';
    assert_int_equal(control_check(at, why, sizeof why), -1);
    assert_non_null(strstr(why, expected));
    why[0] = '\0';
    assert_null(control_open(at, why, sizeof why));
    assert_non_null(why[0] ? why : NULL);
}

static void paths_that_can_not_be(void **state)
{
    (void)state;
    char text[200];
    memset(text, 'a', sizeof text);
    memcpy(text, "/tmp/", 5);
    text[108] = '\0';
    refused(text, "has 108 bytes, and a socket's can't have more than 107");
    refused("/nowhere/modus.sock", "No such file or directory; make it first");
    snprintf(text, sizeof text, "%s/file", folder);
    fclose(fopen(text, "w"));
    refused(text, "is there already, and is no socket");
    assert_int_equal(unlink(text), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests, open_one, close_one),
        cmocka_unit_test_setup_teardown(no_requests, open_one, close_one),
        cmocka_unit_test_setup_teardown(large_answer, open_one, close_one),
        cmocka_unit_test_setup_teardown(late_answers, open_one, close_one),
        cmocka_unit_test_setup_teardown(requests_of_the_gone, open_one, close_one),
        cmocka_unit_test_setup_teardown(last_answer, open_one, close_one),
        cmocka_unit_test_setup_teardown(too_many, open_one, close_one),
        cmocka_unit_test_setup_teardown(silence, open_one, close_one),
        cmocka_unit_test_setup_teardown(fork_forgets, open_one, close_one),
        cmocka_unit_test_setup_teardown(file, open_one, close_one),
        cmocka_unit_test(stale_file),
        cmocka_unit_test(file_of_another),
        cmocka_unit_test(handed_over),
        cmocka_unit_test(not_handed_over),
        cmocka_unit_test(paths_that_can_not_be),
    };
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/modus.sock", folder);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}
