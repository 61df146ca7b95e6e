/* SPDX-License-Identifier: MIT */
/* What a listener says in the error log of handlers that do wrong: each route for itself, and not
 * more than a disk can take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/config_reader.h"
#include "server/listener.h"
#include "server/log.h"

static char file[] = "/tmp/modus-listener-XXXXXX";
static struct config *config;
static struct listener listener;
static struct route_faults faults[3];

static int start(void **state)
{
    static const char text[] = "listen \"127.0.0.1:80\" {\n"
                               "  route \"/\" { text {} }\n"
                               "  route \"/a\" { text {} }\n"
                               "  route \"/bb\" { text {} }\n"
                               "}\n";
    char why[512];
    (void)state;
    close(mkstemp(file));
    config = config_parse("t.conf", "/", text, strlen(text), why, sizeof why);
    if (!config || log_open(file, LEVEL_INFO, why, sizeof why) != 0 ||
        listener_build(&listener, config, &config->listeners[0], NULL, why, sizeof why) != 0)
        fail_msg("%s", why);
    listener.faults = faults;
    return 0;
}

static int end(void **state)
{
    (void)state;
    listener_close(&listener);
    config_free(config);
    return unlink(file);
}

static void say(const char *prefix, const char *why)
{
    for (size_t i = 0; i < listener.service.route_count; i++)
        if (strncmp(listener.routes[i].prefix.at, prefix, listener.routes[i].prefix.len + 1) == 0)
            listener.service.complain(listener.service.complain_arg, &listener.routes[i], why);
}

/* What the log has got since it was last looked at: its lines without their time and level. */
static void said(const char *expected)
{
    static long seen;
    char got[4000] = "", line[500];
    FILE *f = fopen(file, "r");
    assert_int_equal(fseek(f, seen, SEEK_SET), 0);
    while (fgets(line, sizeof line, f))
        strcat(got, strstr(line, "127.0.0.1:80: "));
    seen = ftell(f);
    fclose(f);
    assert_string_equal(got, expected);
}

static void a_second_later(void)
{
    for (size_t i = 0; i < 3; i++)
        faults[i].said_ms -= 1000;
}

#define LINE(route, why) "127.0.0.1:80: route \"" route "\": " why "\n"
#define MORE(route, n)   LINE(route, "the like happened " n " more times since its last such line")

/* Who tries three faulty handlers in a row hears of all three. */
static void each_route(void **state)
{
    (void)state;
    say("/", "fails");
    say("/a", "fails");
    say("/bb", "fails");
    said(LINE("/", "fails") LINE("/a", "fails") LINE("/bb", "fails"));
    say("/", "fails");
    say("/a", "fails");
    say("/a", "fails");
    said("");
    a_second_later();
    say("/bb", "fails");
    say("/a", "fails");
    say("/", "fails");
    said(LINE("/bb", "fails") LINE("/a", "fails") MORE("/a", "2") LINE("/", "fails")
             MORE("/", "1"));
    a_second_later();
    say("/a", "fails");
    said(LINE("/a", "fails"));
    a_second_later();
}

/* Another reason is another line, but whoever can choose the reason must not fill the disk. */
static void another_reason(void **state)
{
    (void)state;
    say("/a", "fails");
    say("/a", "gives up");
    said(LINE("/a", "fails") LINE("/a", "gives up"));
    for (int i = 0; i < 100; i++)
        say("/a", i % 2 ? "gives up" : "fails");
    said(LINE("/a", "fails") LINE("/a", "gives up"));
    a_second_later();
    say("/a", "gives up");
    said(LINE("/a", "gives up") MORE("/a", "98"));
    a_second_later();
}

/* A tcp listener has no routes to name. */
static void no_route(void **state)
{
    (void)state;
    listener.service.duplex = true;
    say("/a", "fails");
    say("/a", "fails");
    a_second_later();
    say("/a", "fails");
    said("127.0.0.1:80: fails\n127.0.0.1:80: fails\n"
         "127.0.0.1:80: the like happened 1 more times since its last such line\n");
    listener.service.duplex = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_route),
        cmocka_unit_test(another_reason),
        cmocka_unit_test(no_route),
    };
    return cmocka_run_group_tests(tests, start, end);
}
