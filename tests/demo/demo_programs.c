/* SPDX-License-Identifier: MIT */
/* Other programs, and pipes between them: P6, P18. */
#include "tests/demo/demo.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "concurrency/subprocess.h"

/* --- P6: ask a program ---------------------------------------------------------------------------------- */

/* The notes ask nslookup over the network; here a shell answers. */
static const char *const asked[] = {
    "sh", "-c", "while read -r line; do echo \"got $line\"; done; echo 'no server' >&2; exit 3",
    NULL};

static void big_both_ways(struct demo *d)
{
    enum { SIZE = 16 << 20 };
    static const char *const cat[] = {"cat", NULL};
    struct modus_ran ran;
    char *bytes = malloc(SIZE);
    if (!DEMO_CHECK(d, bytes != NULL))
        return;
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (char)(i * 7 % 251);
    DEMO_CHECK(d, modus_subprocess_run(cat, NULL, bytes, SIZE, modus_seconds(30), &ran) == 0);
    DEMO_CHECK(d, ran.code == 0 && ran.output.size == SIZE &&
                      memcmp(ran.output.data, bytes, SIZE) == 0);
    modus_ran_free(&ran);
    free(bytes);
}

static void p6(struct demo *d)
{
    static const char *const call[] = {"true", NULL}, *const slow[] = {"sleep", "30", NULL},
                             *const missing[] = {"no-such-program", NULL};
    static const char input[] = "set q=mx\npython.org\nexit\n";
    struct modus_ran ran;
    DEMO_CHECK(d, modus_subprocess_run(call, NULL, NULL, 0, MODUS_FOREVER, &ran) == 0 &&
                      ran.code == 0);
    modus_ran_free(&ran);
    DEMO_CHECK(d, modus_subprocess_run(asked, NULL, input, sizeof input - 1, modus_seconds(20),
                                       &ran) == 0);
    DEMO_CHECK(d, strcmp(ran.output.data, "got set q=mx\ngot python.org\ngot exit\n") == 0);
    DEMO_CHECK(d, strcmp(ran.errors.data, "no server\n") == 0);
    DEMO_CHECK(d, ran.code == 3);
    modus_ran_free(&ran);
    big_both_ways(d);
    double begun = demo_now();
    DEMO_CHECK(d, modus_subprocess_run(slow, NULL, NULL, 0, modus_ms(100), &ran) == -ETIMEDOUT);
    DEMO_CHECK(d, ran.code == -SIGKILL);
    modus_ran_free(&ran);
    demo_expect_time(d, demo_now() - begun < 5, "it is killed when its time is over");
    DEMO_CHECK(d, modus_subprocess_run(missing, NULL, NULL, 0, 0, &ran) == -ENOENT);
    modus_ran_free(&ran);
    demo_saw(d, "call 0; communicate: three answers, errors apart, code 3; 16 MiB both ways "
                "without a deadlock; killed after its time; a missing program is told at once");
}

/* --- P18: a | b -------------------------------------------------------------------------------------------- */

static void p18(struct demo *d)
{
    static const char *const list[] = {"sh", "-c", "printf '%s\\n' init modus sshd modus-worker",
                                       NULL};
    static const char *const find[] = {"grep", "modus", NULL};
    static const char *const yes[] = {"yes", NULL}, *const head[] = {"head", "-n", "2", NULL};
    static const char *const *const commands[] = {list, find}, *const *const endless[] = {yes,
                                                                                          head};
    static const char *const shell[] = {
        "sh", "-c", "printf '%s\\n' init modus sshd modus-worker | grep modus", NULL};
    struct modus_ran ran, by_shell;
    int codes[2];
    DEMO_CHECK(d,
               modus_pipeline_run(commands, 2, NULL, NULL, 0, modus_seconds(20), &ran, codes) == 0);
    DEMO_CHECK(d, modus_subprocess_run(shell, NULL, NULL, 0, modus_seconds(20), &by_shell) == 0);
    DEMO_CHECK(d, strcmp(ran.output.data, by_shell.output.data) == 0);
    DEMO_CHECK(d, strcmp(ran.output.data, "modus\nmodus-worker\n") == 0 && codes[0] == 0 &&
                      codes[1] == 0);
    modus_ran_free(&ran);
    modus_ran_free(&by_shell);
    DEMO_CHECK(d,
               modus_pipeline_run(endless, 2, NULL, NULL, 0, modus_seconds(20), &ran, codes) == 0);
    DEMO_CHECK(d, strcmp(ran.output.data, "y\ny\n") == 0 && codes[0] == -SIGPIPE && codes[1] == 0);
    modus_ran_free(&ran);
    demo_saw(d,
             "list | grep says what the shell's says; in yes | head the first ends by SIGPIPE (%d)",
             codes[0]);
}

const struct demo_row demo_programs[] = {
    {"P6", "subprocess: call, communicate", p6},
    {"P18", "two programs and a pipe", p18},
    {0},
};
