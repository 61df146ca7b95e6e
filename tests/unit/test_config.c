/* SPDX-License-Identifier: MIT */
/* The configuration reader, rule by rule: defaults, each key, exact lines, each trap of libconfuse,
 * every refusal with its whole message, and the bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/config.h"
#include "tests/unit/test_config_fake.h"

#define L "listen 127.0.0.1:0 { "
#define R "route / { text {} } "

#define VALID_ON_TOP                                                                               \
    "; valid here: user, pid_file, control, error_log, log_level, drain_timeout, listen"
#define VALID_IN_LISTEN                                                                            \
    "; valid here: protocol, model, processes, loops, threads, queue, queue_timeout, "             \
    "worker_requests, worker_memory, worker_age, "                                                 \
    "max_connections, backlog, gil, header_timeout, body_timeout, handler_timeout, send_timeout, " \
    "keepalive_timeout, keepalive_requests, max_header_size, max_body_size, access_log, "          \
    "log_format, also, tls, route, text, static, echo, pipe, status"

static char why[1024];

static struct config *parse(const char *text)
{
    return config_parse("t.conf", "/etc/modus", text, strlen(text), why, sizeof why);
}

static struct config *good(const char *text)
{
    struct config *c = parse(text);
    if (!c)
        fail_msg("%s\n%s", why, text);
    return c;
}

/* The whole message, without "t.conf:". */
static void bad(const char *text, const char *expected)
{
    struct config *c = parse(text);
    if (c)
        fail_msg("taken: %s", text);
    assert_memory_equal(why, "t.conf:", 7);
    assert_string_equal(why + 7, expected);
}

/* --- values ------------------------------------------------------------------------------- */

static void defaults(void **state)
{
    (void)state;
    struct config *c = good("listen \"127.0.0.1:8080\" { " R "}");
    assert_string_equal(c->file, "t.conf");
    assert_string_equal(c->folder, "/etc/modus");
    assert_string_equal(c->user, "");
    assert_string_equal(c->pid_file, "/etc/modus/modus.pid");
    assert_string_equal(c->control, "/etc/modus/modus.sock");
    assert_string_equal(c->error_log, "stderr");
    assert_int_equal(c->log_level, LEVEL_INFO);
    assert_int_equal(c->drain_timeout_ms, 30000);
    assert_int_equal(c->line_user + c->line_pid_file + c->line_control + c->line_error_log, 0);
    assert_int_equal(c->listener_count, 1);
    const struct config_listener *l = c->listeners;
    assert_int_equal(l->address_count, 1);
    assert_int_equal(l->protocol, PROTOCOL_HTTP);
    assert_string_equal(l->model, "thread-pool");
    assert_int_equal(l->processes, 0);
    assert_int_equal(l->loops, 0);
    assert_int_equal(l->threads, 64);
    assert_int_equal(l->queue, 1024);
    assert_int_equal(l->queue_timeout_ms, 10000);
    assert_int_equal(l->worker_requests, 0);
    assert_int_equal(l->worker_memory, 0);
    assert_int_equal(l->worker_age_ms, 0);
    assert_int_equal(l->max_connections, 0);
    assert_int_equal(l->backlog, 1024);
    assert_int_equal(l->header_timeout_ms, 10000);
    assert_int_equal(l->body_timeout_ms, 20000);
    assert_int_equal(l->handler_timeout_ms, 0);
    assert_int_equal(l->send_timeout_ms, 60000);
    assert_int_equal(l->keepalive_timeout_ms, -1);
    assert_int_equal(l->keepalive_requests, 0);
    assert_int_equal(l->max_header_size, 32 << 10);
    assert_int_equal(l->max_body_size, 1 << 20);
    assert_null(l->access_log);
    assert_int_equal(l->log_format, FORMAT_COMBINED);
    assert_int_equal(l->tls_count, 0);
    assert_int_equal(l->route_count, 1);
    assert_int_equal(l->line, 1);
    config_free(c);
}

static void top_keys(void **state)
{
    (void)state;
    struct config *c =
        good("user = www-data\npid_file = \"\"\nerror_log = 'logs/e'\n"
             "log_level = debug\ndrain_timeout = 0\ncontrol = run/c\nlisten '*:80' { " R "}");
    assert_string_equal(c->user, "www-data");
    assert_string_equal(c->pid_file, "");
    assert_string_equal(c->error_log, "/etc/modus/logs/e");
    assert_int_equal(c->log_level, LEVEL_DEBUG);
    assert_int_equal(c->drain_timeout_ms, 0);
    assert_int_equal(c->line_user, 1);
    assert_int_equal(c->line_pid_file, 2);
    assert_int_equal(c->line_error_log, 3);
    assert_string_equal(c->control, "/etc/modus/run/c");
    assert_int_equal(c->line_control, 6);
    config_free(c);
}

static const char all_keys[] =
    "listen '127.0.0.1:8080' {\n"
    "  also = {\"[::1]:8080\"}\n  protocol = http\n  model = event-loop\n  processes = 3\n  loops "
    "= auto\n"
    "  threads = 7\n  queue = 8\n  queue_timeout = 9s worker_requests = 20 worker_memory = 21m "
    "worker_age = 22h\n  max_connections = 10\n  backlog = 11\n"
    "  gil = false\n  header_timeout = 12s\n  body_timeout = 13s\n  handler_timeout = 14s\n"
    "  send_timeout = 15s\n  keepalive_timeout = 16s\n  keepalive_requests = 17\n"
    "  max_header_size = 18k\n  max_body_size = 19m\n  access_log = logs/a\n  log_format = json\n"
    "  tls { certificate = c.pem  key = /k.pem }\n"
    "  tls { certificate = d.pem  key = e.pem  min_version = 1.3 }\n"
    "  route / { text {} }\n}\n";

static void listen_keys(void **state)
{
    (void)state;
    struct config *c = good(all_keys);
    const struct config_listener *l = c->listeners;
    assert_int_equal(l->address_count, 2);
    assert_string_equal(l->model, "event-loop");
    assert_int_equal(l->processes, 3);
    assert_int_equal(l->loops, 0);
    assert_int_equal(l->threads, 7);
    assert_int_equal(l->queue, 8);
    assert_int_equal(l->queue_timeout_ms, 9000);
    assert_int_equal(l->worker_requests, 20);
    assert_int_equal(l->worker_memory, 21 << 20);
    assert_int_equal(l->worker_age_ms, 22 * 3600000);
    assert_int_equal(l->max_connections, 10);
    assert_int_equal(l->backlog, 11);
    assert_int_equal(l->header_timeout_ms, 12000);
    assert_int_equal(l->body_timeout_ms, 13000);
    assert_int_equal(l->handler_timeout_ms, 14000);
    assert_int_equal(l->send_timeout_ms, 15000);
    assert_int_equal(l->keepalive_timeout_ms, 16000);
    assert_int_equal(l->keepalive_requests, 17);
    assert_int_equal(l->max_header_size, 18 << 10);
    assert_int_equal(l->max_body_size, 19 << 20);
    assert_string_equal(l->access_log, "/etc/modus/logs/a");
    assert_int_equal(l->log_format, FORMAT_JSON);
    config_free(c);
}

static void tls_sections(void **state)
{
    (void)state;
    struct config *c = good(all_keys);
    const struct config_tls *t = c->listeners->tls;
    assert_int_equal(c->listeners->tls_count, 2);
    assert_string_equal(t[0].certificate, "/etc/modus/c.pem");
    assert_string_equal(t[0].key, "/k.pem");
    assert_int_equal(t[0].min_version, 0x0303);
    assert_int_equal(t[1].min_version, 0x0304);
    assert_int_equal(t[0].line, 23);
    assert_int_equal(t[1].line, 24);
    config_free(c);
    c = good("listen unix:web.sock { protocol = tcp tls { certificate = a key = b } echo {} }");
    assert_int_equal(c->listeners->tls_count, 1);
    config_free(c);
    bad(L "\ntls { certificate = a } }", "2: \"tls\" needs \"key\"");
    bad(L "\n\ntls { key = a } }", "3: \"tls\" needs \"certificate\"");
    bad(L "\ntls {\ncertificate = ''\n key = a } }", "3: certificate: needs a path");
    bad(L "\ntls { certificate = a key = b min_version = 1.1 } }",
        "2: min_version: unknown word \"1.1\"; did you mean \"1.2\"? (1.2 or 1.3)");
}

static void borders(void **state)
{
    (void)state;
    config_free(
        good(L "processes = 1 loops = 1 threads = 1 queue = 1 max_connections = 1 backlog = 1 "
               "queue_timeout = 1ms header_timeout = 1ms keepalive_timeout = 0 max_body_size = 0 "
               "max_header_size = 1k " R "}"));
    config_free(good(
        L "processes = 1024 threads = 4096 queue = 1048576 max_connections = 1000000 "
          "backlog = 65535 queue_timeout = 1h send_timeout = 24h max_header_size = 1m " R "}"));
    bad(L "processes = 0 }", "1: processes: 0 is out of range: 1 to 1024");
    bad(L "processes = many }", "1: processes: \"many\" is not a number or auto");
    bad(L "\nthreads = 4097 }", "2: threads: 4097 is out of range: 1 to 4096");
    bad(L "threads = auto }", "1: threads: \"auto\" is not a number");
    bad(L "backlog = 0 }", "1: backlog: 0 is out of range: 1 to 65535");
    bad(L "header_timeout = 10 }", "1: header_timeout: \"10\" needs a unit: ms, s, m or h");
    bad(L "header_timeout = 0 }", "1: header_timeout: 0 is out of range: 1ms to 24h");
    bad(L "body_timeout = 2d }",
        "1: body_timeout: \"2d\" is not a duration: the units are ms, s, m or h");
    bad(L "max_header_size = 2m }", "1: max_header_size: 2m is out of range: 1k to 1m");
    bad(L "max_header_size = 32kb }",
        "1: max_header_size: \"32kb\" is not a size: the units are k, m or g");
    bad(L "protocol = https }",
        "1: protocol: unknown word \"https\"; did you mean \"http\"? (http or tcp)");
    bad(L "log_format = jsn }",
        "1: log_format: unknown word \"jsn\"; did you mean \"json\"? (combined, common or json)");
    bad("log_level = loud\n" L "}", "1: log_level: unknown word \"loud\" "
                                    "(debug, info, warn or error)");
    bad("drain_timeout = 25h\n" L "}", "1: drain_timeout: 25h is out of range: 0 to 24h");
    bad("error_log = ''\n" L "}", "1: error_log: needs a path");
    bad("error_log = off\n" L "}", "1: error_log can't be off; take stderr or a path, ./off for a "
                                   "file of that name");
    bad(L "\naccess_log = on }", "2: access_log can't be on; take stdout, stderr, off or a path, "
                                 "./on for a file of that name");
}

static void models(void **state)
{
    (void)state;
    static const char *const names[] = {"process", "prefork",    "thread-pool",
                                        "hybrid",  "event-loop", "coroutine"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char text[100];
        snprintf(text, sizeof text, L "model = %s " R "}", names[i]);
        struct config *c = good(text);
        assert_string_equal(c->listeners->model, names[i]);
        config_free(c);
    }
    bad(L "\n model = thread-pol }",
        "2: model: unknown word \"thread-pol\"; did you mean \"thread-pool\"? "
        "(process, prefork, thread-pool, hybrid, event-loop, coroutine)");
    bad(L "model = nginx }", "1: model: unknown word \"nginx\" "
                             "(process, prefork, thread-pool, hybrid, event-loop, coroutine)");
}

static void reserved(void **state)
{
    (void)state;
    bad(L "gil = maybe }", "1: gil: unknown word \"maybe\" "
                           "(false, true, no, yes, off or on)");
    struct config *c = good(L "gil = true " R "}");
    assert_true(c->listeners->gil);
    config_free(c);
    struct config *off = good(L "access_log = off " R "}"); /* as nginx says it; never a file */
    assert_null(off->listeners[0].access_log);
    config_free(off);
    bad(L "gl = true }", "1: unknown word \"gl\" in listen; did you mean \"gil\"?");
    bad(L "route / {\nstatus {\ncontrol = yes } } }", "3: \"control\" is not in this build");
    bad(L "}\nlab { }", "2: \"lab\" is not in this build");
    bad(L "route / {\nproxy { } } }",
        "2: \"proxy\" is not in this build (text, static, echo, pipe, status)");
}

/* --- strings ------------------------------------------------------------------------------ */

static void body_is(const char *written, const char *expected)
{
    char text[500];
    snprintf(text, sizeof text, L "route / { text { body = %s } } }", written);
    struct config *c = good(text);
    const struct fake_text *conf = c->listeners->routes->conf;
    assert_string_equal(conf->body, expected);
    config_free(c);
}

static void strings(void **state)
{
    (void)state;
    body_is("word", "word");
    body_is("\"\"", "");
    body_is("''", "");
    body_is("\" 1.2 three \"", " 1.2 three ");
    body_is("\"it's # // /* {=} not a comment\"", "it's # // /* {=} not a comment");
    body_is("'say \"hi\"'", "say \"hi\"");
    body_is("\"a\\\"b\\'c\\\\d\"", "a\"b'c\\d");
    body_is("\"\\n\\r\\t\\b\\f\\a\\e\\v\"", "\n\r\t\b\f\a\033\v");
    body_is("\"\\101\\7x\\x41\\x4Ag\\x4\"", "A\007xAJg\x04");
    body_is("'a\\nb\\\\c\\'d'", "a\\nb\\c'd");
    body_is("\"\xc3\xa9\xff\"", "\xc3\xa9\xff");
    body_is("http://x//y", "http://x//y");
}

static void bad_strings(void **state)
{
    (void)state;
    bad("\nuser = \"abc\n" L "}\"",
        "2: this string is not closed on its line: \"abc (\\n stands for a line end)");
    bad("user = 'abc",
        "1: this string is not closed on its line: 'abc (\\n stands for a line end)");
    bad("user = \"abc\\\"",
        "1: this string is not closed on its line: \"abc\\\" (\\n stands for a line end)");
    bad("user = \"abc\\",
        "1: this string is not closed on its line: \"abc\\ (\\n stands for a line end)");
    bad("user = \"abc\\\nd\"",
        "1: this string is not closed on its line: \"abc\\ (\\n stands for a line end)");
    bad("user = \"a\\0b\"", "1: a string can't hold a zero byte");
    bad("user = \"a\\x0\"", "1: a string can't hold a zero byte");
    bad("user = \"a\\000\"", "1: a string can't hold a zero byte");
    bad("user = \"\\400\"", "1: unknown escape \"\\400\" in a string; \\\\ is a backslash");
    bad("user = \"\\1234\"", "1: unknown escape \"\\123\" in a string; \\\\ is a backslash");
    bad("user = \"\\8\"", "1: unknown escape \"\\8\" in a string; \\\\ is a backslash");
    bad("user = \"\\xg\"", "1: unknown escape \"\\x\" in a string; \\\\ is a backslash");
    bad("user = \"\\q\"", "1: unknown escape \"\\q\" in a string; \\\\ is a backslash");
    bad("user = a\\b", "1: unexpected \"\\\"; is a quote missing?");
}

#define NO_VARIABLES                                                                               \
    "variables such as ${HOME} are not expanded; for a plain $ write '${...}' or \"\\${...}\""

static void variables(void **state)
{
    (void)state;
    assert_int_equal(setenv("MODUS_TEST", "expanded", 1), 0);
    bad("\nuser = \"${MODUS_TEST}\"", "2: " NO_VARIABLES);
    bad("user = ${MODUS_TEST}", "1: " NO_VARIABLES);
    bad("user = a${MODUS_TEST}", "1: " NO_VARIABLES);
    bad("user = \"\\\\${MODUS_TEST}\"", "1: " NO_VARIABLES);
    bad("user = \"${unclosed\"\nlisten x {}", "1: " NO_VARIABLES);
    body_is("'${MODUS_TEST}'", "${MODUS_TEST}");
    body_is("\"\\${MODUS_TEST}\"", "${MODUS_TEST}");
    body_is("\"$MODUS_TEST $ {\"", "$MODUS_TEST $ {");
    body_is("$MODUS_TEST", "$MODUS_TEST");
}

/* --- lines -------------------------------------------------------------------------------- */

static void lines(void **state)
{
    (void)state;
    struct config *c = good("# one\n"
                            "// two\n"
                            "/* three\n"
                            "   \"four ${x} { \n"
                            "*/ user = a # five \"\n"
                            "\r\n"
                            "error_log\n"    /* 7 */
                            "  = // eight\n" /* 8 */
                            "  stderr\n"     /* 9 */
                            "listen // ten\n"
                            "  '127.0.0.1:1' /* eleven\n twelve */\n"
                            "  {\n"                                     /* 13 */
                            "  also = { '127.0.0.1:2', /**/\n"          /* 14 */
                            "\n"                                        /* 15 */
                            "    \"127.0.0.1:3\", }\n"                  /* 16 */
                            "  tls /***/ { certificate = a key = b }\n" /* 17 */
                            "  route \"/\"\n"                           /* 18 */
                            "  { text\n"                                /* 19 */
                            "   {\n"                                    /* 20 */
                            "     body = \"#\" status = 201 }\n"        /* 21 */
                            "  } route /a { text { } } /* x\n"          /* 22 */
                            "*/ route /b { text {} } }\n");             /* 23 */
    const struct config_listener *l = c->listeners;
    assert_int_equal(c->line_user, 5);
    assert_int_equal(c->line_error_log, 7);
    assert_int_equal(l->line, 10);
    assert_int_equal(l->addresses[0].line, 10);
    assert_int_equal(l->addresses[1].line, 14);
    assert_int_equal(l->addresses[2].line, 16);
    assert_int_equal(l->tls->line, 17);
    assert_int_equal(l->routes[0].line, 18);
    assert_int_equal(l->routes[0].handler_line, 19);
    assert_int_equal(l->routes[0].option_lines[0], 21);
    assert_int_equal(l->routes[0].option_lines[1], 0);
    assert_int_equal(l->routes[0].option_lines[2], 21);
    assert_int_equal(l->routes[1].line, 22);
    assert_int_equal(l->routes[2].line, 23);
    config_free(c);
}

static void lines_of_errors(void **state)
{
    (void)state;
    bad("/*\n*/ # x\n\n" L "/* \n\n */ modle = process }",
        "6: unknown word \"modle\" in listen; did you mean \"model\"?");
    bad("/* 1 */ // 1\r\n#\n" L "\n\n  threads\n=\n0 }",
        "5: threads: 0 is out of range: 1 to 4096");
    bad("# \"\nlisten\n'localhost:80' {\n}",
        "2: \"localhost\" is no IP address; numeric addresses only, such as "
        "\"127.0.0.1:8080\" or \"*:8080\"");
    bad(L "also = {\n'[::1]:1',\n'::1:2' } }",
        "3: IPv6 addresses stand in brackets, such as \"[::1]:8080\": \"::1:2\"");
    bad("\nlisten http://127.0.0.1:80 { }",
        "2: an address is HOST:PORT, without \"http://\": \"http://127.0.0.1:80\"");
    bad(L "\nroute /\n{\nsttic\n{ } } }",
        "4: unknown word \"sttic\" in route; did you mean \"static\"?");
}

/* --- syntax ------------------------------------------------------------------------------- */

static void comments(void **state)
{
    (void)state;
    config_free(good("#\n//\n/**/ /***/ /* * / // # */" L R "}# no line end after this"));
    config_free(good(L "threads = 5# glued\nqueue = 6 #\n" R "}//"));
    bad("\n/* never closed *\n/ " L "}", "2: this comment is never closed: \"*/\" is missing");
    bad("/*/", "1: this comment is never closed: \"*/\" is missing");
    bad(L "threads = 60//5\n }", "1: threads: \"60//5\" is not a number");
    bad("/", "1: unknown word \"/\"" VALID_ON_TOP);
}

static void braces(void **state)
{
    (void)state;
    bad("user = a\n" L "\nroute / { text {} }\n",
        "2: \"listen\" is never closed: \"}\" is missing");
    bad(L "\nroute / { text {} \n}", "1: \"listen\" is never closed: \"}\" is missing");
    bad(L "\nroute / { text { \n", "2: \"text\" is never closed: \"}\" is missing");
    bad(L "} }", "1: unexpected \"}\": nothing is open here");
    bad("}", "1: unexpected \"}\": nothing is open here");
    bad("{", "1: unexpected \"{\" where a word was expected");
    bad(L "\nroute / {\nlisten '*:1' {} ",
        "3: \"listen\" can't stand in route (of line 2); is a \"}\" missing before it?");
    bad("listen '*:1' { route / { text { } \nroute /a { text {} } }",
        "2: \"route\" can't stand in route (of line 1); is a \"}\" missing before it?");
}

static void statements(void **state)
{
    (void)state;
    bad("", "1: nothing to serve: a listen section is missing, such as listen \"127.0.0.1:8080\" { "
            "... }");
    bad("user = x", "1: nothing to serve: a listen section is missing, such as listen "
                    "\"127.0.0.1:8080\" { ... }");
    bad("user", "1: \"=\" is missing after \"user\"");
    bad("user =", "1: \"user\" has no value");
    bad("user = }", "1: \"user\" has no value");
    bad("user = =", "1: \"user\" has no value");
    bad("user a", "1: \"=\" is missing after \"user\"");
    bad("user { }", "1: \"user\" is no section; give it a value: user = ...");
    bad("user = {a}", "1: \"user\" takes one value, not a list");
    bad("user = a b", "1: unknown word \"b\"" VALID_ON_TOP);
    bad(L "backlog =\nthreads = 64 }", "2: unexpected \"=\"; has the key before it no value?");
    bad("user = a;", "1: unexpected \";\": nothing ends in one here");
    bad("user += a", "1: unexpected \"+\"; is a quote missing?");
    bad("user = (a)", "1: unexpected \"(\"; is a quote missing?");
    bad("user = *", "1: unexpected \"*\"; is a quote missing?");
    bad("user = a\x01", "1: unexpected \"?\"; is a quote missing?");
    bad("\"user\" = a", "1: unexpected \"user\" where a word was expected");
    bad(", user = a", "1: unexpected \",\" where a word was expected");
    config_free(good("\xef\xbb\xbfuser=a listen'127.0.0.1:0'{route'/'{text{body='x'}}}"));
}

static void sections(void **state)
{
    (void)state;
    bad("listen { }", "1: \"listen\" needs an address, such as listen \"127.0.0.1:8080\" { ... }");
    bad("listen = a", "1: \"listen\" is a section: listen \"...\" { ... }");
    bad("listen a b", "1: \"{\" is missing after \"listen\"");
    bad("listen a", "1: \"{\" is missing after \"listen\"");
    bad("listen", "1: \"listen\" needs an address, such as listen \"127.0.0.1:8080\" { ... }");
    bad(L "route { } }", "1: \"route\" needs a path, such as route \"/\" { ... }");
    bad(L "tls 'x' { } }", "1: \"{\" must follow \"tls\", not \"x\"");
    bad(L "tls = x }", "1: \"tls\" is a section: tls { ... }");
    bad(L "route / { text = x } }", "1: \"text\" is a section: text { ... }");
    bad(L "tls }", "1: \"{\" is missing after \"tls\"");
}

static void list_syntax(void **state)
{
    (void)state;
    struct config *c = good(L "also = '127.0.0.1:1' " R "}"); /* one value needs no braces */
    assert_int_equal(c->listeners->address_count, 2);
    config_free(c);
    c = good(L "also = {} " R "}");
    assert_int_equal(c->listeners->address_count, 1);
    config_free(c);
    bad(L "also = { a b } }", "1: unexpected \"b\" where \",\" or \"}\" of the list was expected");
    bad(L "also = { , } }", "1: unexpected \",\" where a value of the list or \"}\" was expected");
    bad(L "also = { {} } }", "1: unexpected \"{\" where a value of the list or \"}\" was expected");
    bad(L "\nalso = { a", "2: the file ends where \",\" or \"}\" of the list was expected");
    bad(L "also = {\n", "2: the file ends where a value of the list or \"}\" was expected");
    bad(L "also = { a = b }", "1: unexpected \"=\" where \",\" or \"}\" of the list was expected");
}

static void repeats(void **state)
{
    (void)state;
    bad("user = a\n\nuser = b\n" L "}",
        "3: \"user\" stands here a second time; the first is on line 1");
    bad(L "\n threads = 1\n queue = 1 threads = 1 }",
        "3: \"threads\" stands here a second time; the first is on line 2");
    bad(L "also = {}\n also = {} }",
        "2: \"also\" stands here a second time; the first is on line 1");
    bad(L "tls { key = a\n key = b } }",
        "2: \"key\" stands here a second time; the first is on line 1");
    bad(L "route / { text { body = a\n body = a } } }",
        "2: \"body\" stands here a second time; the first is on line 1");
    bad(L "route /a { text {} }\n route /b { text {} } route /a { static { root = x } } }",
        "2: route \"/a\" stands here a second time; the first is on line 1");
    bad(L "route /a/ { text {} }\n route /a { text {} } }",
        "2: route \"/a\" stands here a second time; the first is on line 1");
    bad("listen '127.0.0.1:80' {}\nlisten '127.0.0.1:80' {}",
        "2: \"127.0.0.1:80\" is listened on a second time; the first is on line 1");
    /* The same words in sections of their own are no repeats. */
    config_free(good(L "threads = 1 route / { text {} } }\nlisten '127.0.0.1:1' { threads = 1 "
                       "route / { text {} } }"));
}

static void unknown_words(void **state)
{
    (void)state;
    bad("usr = a", "1: unknown word \"usr\"; did you mean \"user\"?");
    bad("\n\n\n\n\n\n\n\n\n\n\n" L "modle = a }",
        "12: unknown word \"modle\" in listen; did you mean \"model\"?");
    bad("Listen 'x' {}", "1: unknown word \"Listen\"; did you mean \"listen\"?");
    bad(L "keep_alive_timeout = 1s }",
        "1: unknown word \"keep_alive_timeout\" in listen; did you mean \"keepalive_timeout\"?");
    bad(L "xyzzy { a = b } }", "1: unknown word \"xyzzy\" in listen" VALID_IN_LISTEN);
    bad(L "tls { cert = a } }", "1: unknown word \"cert\" in tls; did you mean \"certificate\"?");
    bad(L "route / { txt { } } }", "1: unknown word \"txt\" in route; did you mean \"text\"?");
    bad(L "route / { text { bdy = x } } }",
        "1: unknown word \"bdy\" in text; did you mean \"body\"?");
    bad(L "route / { static { lising = x } } }",
        "1: unknown word \"lising\" in static; did you mean \"listing\"?");
    bad(L "route / { status { title = x } } }",
        "1: unknown word \"title\" in status, which takes none");
    bad("model = process", "1: \"model\" belongs inside listen { ... }");
    bad(L "route / { body = x } }", "1: \"body\" belongs inside text { ... }");
    bad("a\x01\x02 = b", "1: unknown word \"a\"" VALID_ON_TOP);
    bad("listen|user = a", "1: unknown word \"listen|user\"" VALID_ON_TOP);
    bad("include('/etc/passwd')", "1: unknown word \"include\"" VALID_ON_TOP);
}

/* --- addresses ---------------------------------------------------------------------------- */

static void address_is(const char *text, const char *host, int port)
{
    char file[300];
    snprintf(file, sizeof file, "listen \"%s\" { " R "}", text);
    struct config *c = good(file);
    const struct config_address *a = c->listeners->addresses;
    assert_string_equal(a->text, text);
    assert_false(a->is_unix);
    assert_string_equal(a->host, host);
    assert_int_equal(a->port, port);
    config_free(c);
}

static void bad_address(const char *text, const char *expected)
{
    char file[300], message[400];
    snprintf(file, sizeof file, "\nlisten \"%s\" {}", text);
    snprintf(message, sizeof message, "2: %s", expected);
    bad(file, message);
}

static void addresses(void **state)
{
    (void)state;
    address_is("127.0.0.1:8080", "127.0.0.1", 8080);
    address_is("127.0.0.1:0", "127.0.0.1", 0);
    address_is("0.0.0.0:65535", "0.0.0.0", 65535);
    address_is("[::1]:8080", "::1", 8080);
    address_is("[::]:1", "::", 1);
    address_is("[0:0:0:0:0:0:0:1]:1", "::1", 1);
    address_is("[2001:DB8::a]:1", "2001:db8::a", 1);
    address_is("[::ffff:1.2.3.4]:1", "::ffff:1.2.3.4", 1);
    address_is("*:80", "*", 80);
#define NUMERIC4 "; numeric addresses only, such as \"127.0.0.1:8080\" or \"*:8080\""
    bad_address("localhost:80", "\"localhost\" is no IP address" NUMERIC4);
    bad_address("localhost", "\"localhost\" is no IP address" NUMERIC4);
    bad_address("127.1:80", "\"127.1\" is no IP address" NUMERIC4);
    bad_address("256.0.0.1:80", "\"256.0.0.1\" is no IP address" NUMERIC4);
    bad_address(":80", "\"\" is no IP address" NUMERIC4);
    bad_address("[::g]:80",
                "\"::g\" is no IP address; numeric addresses only, such as \"[::1]:8080\"");
    bad_address("[127.0.0.1]:80",
                "\"127.0.0.1\" is no IP address; numeric addresses only, such as \"[::1]:8080\"");
    bad_address("8080", "\"8080\" needs an address before the port: \"*:8080\"");
    bad_address("", "\"\" needs an address before the port: \"*:8080\"");
    bad_address("127.0.0.1", "\"127.0.0.1\" needs a port");
    bad_address("127.0.0.1:", "\"127.0.0.1:\" needs a port");
    bad_address("[::1]", "\"[::1]\" needs a port");
    bad_address("[::1]8080", "\":\" and a port must follow \"]\" in \"[::1]8080\"");
    bad_address("[::1:8080", "\"]\" is missing in \"[::1:8080\"");
    bad_address("::1:8080",
                "IPv6 addresses stand in brackets, such as \"[::1]:8080\": \"::1:8080\"");
    bad_address("127.0.0.1:65536",
                "the port of \"127.0.0.1:65536\": 65536 is out of range: 0 to 65535");
    bad_address("127.0.0.1:-1", "the port of \"127.0.0.1:-1\": -1 is out of range: 0 to 65535");
    bad_address("127.0.0.1:http", "the port of \"127.0.0.1:http\": \"http\" is not a number");
    bad_address("*:8o", "the port of \"*:8o\": \"8o\" is not a number");
}

static void unix_addresses(void **state)
{
    (void)state;
    struct config *c = good("listen unix:/run/web { also = unix:web " R "}");
    const struct config_address *a = c->listeners->addresses;
    assert_true(a[0].is_unix && a[1].is_unix);
    assert_string_equal(a[0].path, "/run/web");
    assert_string_equal(a[1].path, "/etc/modus/web");
    config_free(c);
    bad_address("unix:", "\"unix:\" needs a path: \"unix:/run/modus.web\"");
    bad("listen unix:a {}\nlisten unix:/etc/modus/a {}",
        "2: \"unix:/etc/modus/a\" and \"unix:a\" of line 1 are the same or overlap");
    char path[200] = "/", text[300];
    memset(path + 1, 'x', 106);
    snprintf(text, sizeof text, "listen unix:%s { " R "}", path);
    config_free(good(text));
    strcat(path, "y");
    snprintf(text, sizeof text, "listen unix:%s { " R "}", path);
    bad(text, "1: the path of \"unix:/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...\" is too long "
              "for a socket: "
              "108 bytes, at most 107");
}

static void clashes(void **state)
{
    (void)state;
    bad("listen '*:80' {}\nlisten '127.0.0.1:80' {}",
        "2: \"127.0.0.1:80\" and \"*:80\" of line 1 are the same or overlap");
    bad("listen '[::1]:80' {}\nlisten '*:80' {}",
        "2: \"*:80\" and \"[::1]:80\" of line 1 are the same or overlap");
    bad("listen '127.0.0.1:80' {}\nlisten '0.0.0.0:80' {}",
        "2: \"0.0.0.0:80\" and \"127.0.0.1:80\" of line 1 are the same or overlap");
    bad("listen '[::]:80' {}\nlisten '[::1]:80' {}",
        "2: \"[::1]:80\" and \"[::]:80\" of line 1 are the same or overlap");
    bad("listen '[::1]:80' { also = '[0::1]:80' }",
        "1: \"[0::1]:80\" and \"[::1]:80\" of line 1 are the same or overlap");
    config_free(good("listen '127.0.0.1:80' { " R "} listen '127.0.0.2:80' { " R
                     "} listen '127.0.0.1:81' { " R "} "
                     "listen '[::]:80' { " R "} listen '[::1]:81' { " R "}"));
    config_free(good("listen '0.0.0.0:80' { also = '[::]:80' " R "}"));
    config_free(good("listen '127.0.0.1:0' { " R "} listen '127.0.0.1:0' { also = '127.0.0.1:0' " R
                     "}")); /* any ports */
}

/* --- routes and handlers ------------------------------------------------------------------ */

static void routes(void **state)
{
    (void)state;
    struct config *c =
        good(L "route / { text { body = a } } route \"/a/b c/\" { static { root = www } } "
               "route '/.well-known' { status {} } route /... { text {} } }");
    const struct config_listener *l = c->listeners;
    assert_int_equal(l->route_count, 4);
    assert_string_equal(l->routes[0].prefix, "/");
    assert_string_equal(l->routes[0].handler->name, "text");
    assert_string_equal(l->routes[1].prefix, "/a/b c");
    assert_string_equal(l->routes[1].handler->name, "static");
    assert_string_equal(l->routes[2].prefix, "/.well-known");
    config_free(c);
    bad(L "\nroute a { text {} } }", "2: route \"a\": a route begins with \"/\"");
    bad(L "route '' { text {} } }", "1: route \"\": a route begins with \"/\"");
    bad(L "route /a//b { text {} } }", "1: route \"/a//b\": a route holds no \"//\"");
    bad(L "route /a/../b { text {} } }", "1: route \"/a/../b\": a route holds no \".\" and \"..\"");
    bad(L "route /a/. { text {} } }", "1: route \"/a/.\": a route holds no \".\" and \"..\"");
    bad(L "route /a?b { text {} } }",
        "1: route \"/a?b\": a route is a path, without \"?\" and \"#\"");
    bad(L "route /a%20b { text {} } }",
        "1: route \"/a%20b\": a route stands decoded, without %-escapes");
    config_free(good(L "route '/100%' { text {} } }"));
}

static void route_handlers(void **state)
{
    (void)state;
    bad("user = a\n" L "}",
        "2: an http listener needs a route, such as route \"/\" { text { ... } }");
    bad(L R "}\nlisten '127.0.0.1:1' {\n}",
        "2: an http listener needs a route, such as route \"/\" { text { ... } }");
    bad(L "\nroute / { } }",
        "2: a route needs one handler section, of: text, static, echo, status");
    bad(L "route / { text {}\n static { root = a } } }",
        "2: a route takes one handler section, this is a second one");
    bad(L "route / { text {}\n\n text {} } }",
        "3: a route takes one handler section, this is a second one");
    bad(L "\ntext {} }", "2: \"text\" must stand in a route: route \"/\" { text { ... } }");
    bad(L "route / {\npipe {} } }",
        "2: \"pipe\" can't serve protocol = http (text, static, echo, status)");
    config_free(good(L "route / { echo {} } }"));
}

static void tcp(void **state)
{
    (void)state;
    struct config *c = good(L "\n protocol = tcp\n echo {} }");
    const struct config_listener *l = c->listeners;
    assert_int_equal(l->protocol, PROTOCOL_TCP);
    assert_int_equal(l->route_count, 1);
    assert_string_equal(l->routes->prefix, "");
    assert_string_equal(l->routes->handler->name, "echo");
    assert_int_equal(l->routes->line, 1);
    assert_int_equal(l->routes->handler_line, 3);
    config_free(c);
    bad(L "protocol = tcp }", "1: a tcp listener needs one handler section, of: echo, pipe");
    bad(L "protocol = tcp echo {}\npipe {} }",
        "2: a tcp listener takes one handler section, this is a second one");
    bad(L "protocol = tcp\ntext {} }", "2: \"text\" can't serve protocol = tcp (echo, pipe)");
    bad(L "protocol = tcp\nroute / { echo {} } }",
        "2: protocol = tcp has no routes; put one handler section in their place");
}

static void options(void **state)
{
    (void)state;
    struct config *c =
        good(L "route / { static { root = www/ also_path = /x listing = yes index = '' "
               "cache_size = 2m max_age = 5m order = size depth = 7 } } "
               "route /b { static { root = '/' } } }");
    const struct fake_static *s = c->listeners->routes[0].conf, *d = c->listeners->routes[1].conf;
    assert_string_equal(s->root, "/etc/modus/www/");
    assert_string_equal(s->also_path, "/x");
    assert_string_equal(s->index, "");
    assert_true(s->listing);
    assert_int_equal(s->cache_size, 2 << 20);
    assert_int_equal(s->max_age_ms, 300000);
    assert_int_equal(s->order, 1);
    assert_int_equal(s->depth, 7);
    assert_string_equal(d->root, "/");
    assert_string_equal(d->also_path, "");
    assert_string_equal(d->index, "index.html");
    assert_false(d->listing);
    assert_int_equal(d->cache_size, 16 << 20);
    assert_int_equal(d->max_age_ms, 0);
    assert_int_equal(d->order, 0);
    assert_int_equal(d->depth, 3);
    config_free(c);
}

static void bad_options(void **state)
{
    (void)state;
    bad(L "route / {\nstatic {} } }", "2: \"static\" needs \"root\"");
    bad(L "route / { static {\nroot = '' } } }", "2: root: needs a path");
    bad(L "route / { static { root = a listing = 1 } } }",
        "1: listing: unknown word \"1\" (false, true, no, yes, "
        "off or on)");
    bad(L "route / { static { root = a cache_size = 2g } } }",
        "1: cache_size: 2g is out of range: 0 to 1g");
    bad(L "route / { static { root = a max_age = -1s } } }",
        "1: max_age: -1s is out of range: at least 0");
    bad(L "route / { static { root = a max_age = 1 } } }",
        "1: max_age: \"1\" needs a unit: ms, s, m or h");
    bad(L "route / { static { root = a order = sise } } }",
        "1: order: unknown word \"sise\"; did you mean \"size\"? (name, size or time)");
    bad(L "route / { text {\nstatus = 199 } } }", "2: status: 199 is out of range: 200 to 599");
}

static void opening(void **state)
{
    (void)state;
    struct handler_env env = {0};
    struct config *c = good(
        L
        "route / { static { root = a } } route /b { text {} } route /c { static { root = b } } }");
    fake_opened = fake_closed = fake_open_fails = 0;
    assert_int_equal(config_open_handlers(c, &c->listeners[0], &env, why, sizeof why), 0);
    assert_int_equal(config_open_handlers(c, &c->listeners[0], &env, why, sizeof why),
                     0); /* once is enough */
    assert_int_equal(fake_opened, 2);
    config_free(c);
    assert_int_equal(fake_closed, 2);

    c = good(L "route / {\nstatic { root = a } } route /c { static { root = b } } }");
    fake_opened = fake_closed = 0;
    fake_open_fails = 1;
    assert_int_equal(config_open_handlers(c, &c->listeners[0], &env, why, sizeof why), -1);
    assert_string_equal(why, "t.conf:2: static: \"/etc/modus/a\" is no folder?at all");
    config_free(c);
    assert_int_equal(fake_opened, 1);
    assert_int_equal(fake_closed, 1); /* also after a failed open */
    config_free(NULL);

    fake_closed = 0;
    config_free(good(L "route / { static { root = a } } }")); /* never opened, so never closed */
    assert_int_equal(fake_closed, 0);
}

/* --- files -------------------------------------------------------------------------------- */

static char folder[] = "/tmp/modus-test-config-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static void write_file(const char *path, const char *bytes, size_t len)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void bad_file(const char *path, const char *expected)
{
    char message[600];
    snprintf(message, sizeof message, "%s:%s", path, expected);
    assert_null(config_read(path, why, sizeof why));
    assert_string_equal(why, message);
}

static void files(void **state)
{
    (void)state;
    static const char text[] = "pid_file = p\nlisten '127.0.0.1:0' { " R "}";
    char path[200], expected[200];
    snprintf(path, sizeof path, "%s/../%s/m.conf", folder, strrchr(folder, '/') + 1);
    write_file(path, text, sizeof text - 1);
    struct config *c = config_read(path, why, sizeof why);
    assert_non_null(c);
    assert_string_equal(c->file, path); /* as it was named */
    assert_string_equal(c->folder, folder);
    snprintf(expected, sizeof expected, "%s/p", folder);
    assert_string_equal(c->pid_file, expected);
    config_free(c);
    write_file(path, "user = a\nb\0c", 12);
    bad_file(path, "2: a zero byte: this is no text");
    assert_int_equal(unlink(path), 0);
    bad_file(path, "1: the file can't be opened: No such file or directory");
    bad_file(folder, "1: this is a folder, not a file");
    assert_int_equal(mkfifo(path, 0600), 0);
    bad_file(path, "1: this is no regular file"); /* and does not wait for a writer */
    assert_int_equal(unlink(path), 0);
}

static void file_size(void **state)
{
    (void)state;
    static const char text[] = "listen '127.0.0.1:0' { " R "}\n";
    char path[200];
    size_t most = 1 << 20;
    char *big = malloc(most + 1);
    assert_non_null(big);
    memset(big, ' ', most + 1);
    memcpy(big, text, sizeof text - 1);
    snprintf(path, sizeof path, "%s/m.conf", folder);
    write_file(path, big, most);
    config_free(config_read(path, why, sizeof why));
    write_file(path, big, most + 1);
    bad_file(path, "1: the file is larger than 1m");
    assert_int_equal(unlink(path), 0);
    free(big);
}

static void here(void **state)
{
    (void)state;
    static const char text[] = "listen '127.0.0.1:0' { " R "}";
    char *cwd = getcwd(NULL, 0);
    assert_int_equal(chdir(folder), 0);
    write_file("m.conf", text, sizeof text - 1);
    struct config *c = config_read("m.conf", why, sizeof why);
    assert_non_null(c);
    assert_string_equal(c->folder, folder);
    config_free(c);
    assert_int_equal(unlink("m.conf"), 0);
    assert_int_equal(chdir(cwd), 0);
    free(cwd);
}

/* --- messages ----------------------------------------------------------------------------- */

static void messages(void **state)
{
    (void)state;
    char small[12];
    assert_null(config_parse("t.conf", "/", "usr = a", 7, small, sizeof small));
    assert_string_equal(small, "t.conf:1: u");
    assert_null(config_parse("t.conf", "/", "usr = a", 7, NULL, 0));
    assert_null(config_parse("a\nb", "/", "usr = a", 7, why, sizeof why));
    assert_string_equal(why, "a?b:1: unknown word \"usr\"; did you mean \"user\"?");
    static const char text[] = "pid_file = p listen unix:x { " R "}";
    struct config *c = config_parse("t", "/", text, sizeof text - 1, why, sizeof why);
    assert_string_equal(c->pid_file, "/p"); /* not //p */
    config_free(c);
}

/* A reading that failed in the middle leaves nothing behind in libconfuse's scanner. */
static void after_a_failure(void **state)
{
    (void)state;
    static const char *const broken[] = {
        "user = \"a", "user = 'a", "/*", "listen", "user = {", L, "user = \"\\9\""};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        assert_null(parse(broken[i]));
        config_free(good(all_keys));
    }
}

/* Every beginning of a file is taken or refused, and nothing else. */
static void beginnings(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof all_keys - 1; len++) {
        char *copy = malloc(len ? len : 1); /* of that size, so that a read beyond it is found */
        memcpy(copy, all_keys, len);
        struct config *c = config_parse("t.conf", "/", copy, len, why, sizeof why);
        assert_true(c == NULL || len == sizeof all_keys - 2); /* only the last line end may miss */
        config_free(c);
        free(copy);
    }
}

/* --- bounds ------------------------------------------------------------------------------- */

struct text {
    char *at;
    size_t len, room;
};

static void add(struct text *t, const char *more)
{
    size_t len = strlen(more);
    if (t->len + len + 1 > t->room)
        t->at = realloc(t->at, t->room = 2 * t->room + len + 1);
    memcpy(t->at + t->len, more, len + 1);
    t->len += len;
}

/* Our own time on a CPU: other tests run at once. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* How many seconds an answer may take: 1, and more where each memory access is checked.
 * MODUS_TEST_SLOW stretches it on slow machines. */
static double patience(void)
{
    const char *slow = getenv("MODUS_TEST_SLOW");
    double limit = 1;
#ifdef MODUS_DEBUG
    limit = 10; /* all variants but release */
#endif
    return slow ? limit * atof(slow) : limit;
}

/* expected: the message behind "t.conf:", or NULL: taken. */
static void answered(struct text *t, const char *expected)
{
    double begun = now();
    struct config *c = config_parse("t.conf", "/", t->at, t->len, why, sizeof why);
    assert_true(now() - begun < patience());
    if (expected) {
        assert_null(c);
        assert_string_equal(why + 7, expected);
    } else if (!c) {
        fail_msg("%s", why);
    }
    config_free(c);
    free(t->at);
    *t = (struct text){0};
}

static void repeat(struct text *t, const char *more, int times)
{
    for (int i = 0; i < times; i++)
        add(t, more);
}

static void many(struct text *t, const char *format_before, const char *after, int times)
{
    for (int i = 0; i < times; i++) {
        char number[32];
        snprintf(number, sizeof number, "%d", i);
        add(t, format_before);
        add(t, number);
        add(t, after);
    }
}

static void floods(void **state)
{
    (void)state;
    struct text t = {0};
    repeat(&t, "{", 1 << 20);
    answered(&t, "1: unexpected \"{\" where a word was expected");
    repeat(&t, "}", 1 << 20);
    answered(&t, "1: unexpected \"}\": nothing is open here");
    repeat(&t, "\"", 1 << 20);
    answered(&t, "1: unexpected \"\" where a word was expected");
    repeat(&t, "\n", 1 << 20);
    answered(&t, "1: nothing to serve: a listen section is missing, such as listen "
                 "\"127.0.0.1:8080\" { ... }");
    repeat(&t, "/", 1 << 20);
    answered(&t, "1: nothing to serve: a listen section is missing, such as listen "
                 "\"127.0.0.1:8080\" { ... }");
    repeat(&t, "/* ", 300000);
    answered(&t, "1: this comment is never closed: \"*/\" is missing");
    repeat(&t, "listen a {", 100000);
    answered(&t, "1: \"listen\" can't stand in listen (of line 1); is a \"}\" missing before it?");
    many(&t, "key", " = 1\n", 70000);
    answered(&t, "1: unknown word \"key0\"" VALID_ON_TOP);
    repeat(&t, "user = 1\n", 100000);
    answered(&t, "2: \"user\" stands here a second time; the first is on line 1");
}

static void huge_tokens(void **state)
{
    (void)state;
    struct text t = {0};
    add(&t, L "route / { text { body = \"");
    repeat(&t, "a", 65536);
    add(&t, "\" } } }");
    answered(&t, NULL);
    add(&t, L "route / { text { body = \"");
    repeat(&t, "\\n", 32769);
    add(&t, "\" } } }");
    answered(&t, "1: this string is longer than 64k");
    add(&t, "user = '");
    repeat(&t, "a", 1000000);
    add(&t, "'");
    answered(&t, "1: this string is longer than 64k");
    add(&t, "user = ");
    repeat(&t, "a", 1000000);
    answered(&t,
             "1: this word is longer than 1k: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...");
    repeat(&t, "u", 1024);
    answered(
        &t, "1: unknown word \"uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu...\"" VALID_ON_TOP);
}

static void many_sections(void **state)
{
    (void)state;
    struct text t = {0};
    many(&t, "listen 127.0.0.1:", " { threads = 1 " R "}\n", 256);
    answered(&t, NULL);
    many(&t, "listen 127.0.0.1:", " { threads = 1 " R "}\n", 257);
    answered(&t, "257: more than 256 listeners");
    add(&t, L);
    many(&t, "\nroute /", " { text {} }", 2047);
    add(&t, "}");
    answered(&t, NULL);
    add(&t, L);
    many(&t, "\nroute /", " { text {} }", 20000);
    add(&t, "}");
    answered(&t, "2049: more than 4096 sections in one file");
    add(&t, L);
    repeat(&t, "\ntls { certificate = a key = b }", 4093);
    add(&t, R "}");
    answered(&t, NULL);
}

static void many_addresses(void **state)
{
    (void)state;
    struct text t = {0};
    add(&t, "listen 127.0.0.1:2000 { also = {");
    many(&t, "'127.0.0.2:", "',", 1023);
    add(&t, "} " R "}");
    answered(&t, NULL);
    add(&t, "listen 127.0.0.1:2000 { also = {\n");
    many(&t, "'127.0.0.2:", "',", 1024);
    add(&t, "} }");
    answered(&t, "2: more than 1024 addresses");
    add(&t, "listen 127.0.0.1:2000 { also = {");
    repeat(&t, "\na,", 300000);
    answered(&t, "1026: also: a list of more than 1024 values");
}

/* --- the control socket alone --------------------------------------------------------------- */

/* What config_read_control says of a file with this text: the path, or the message. */
static const char *control_of(const char *text)
{
    static char path[4096];
    char dir[] = "/tmp/modus-control-XXXXXX", file[64];
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/t.conf", dir);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    int rc = config_read_control(file, path, sizeof path, why, sizeof why);
    unlink(file);
    rmdir(dir);
    const char *said = rc == 0 ? path : why;
    return strncmp(said, dir, strlen(dir)) == 0 ? said + strlen(dir) : said;
}

/* Whatever else is wrong with the file. */
static void control_alone(void **state)
{
    (void)state;
    assert_string_equal(control_of(""), "/modus.sock");
    assert_string_equal(control_of("listen x { model = nonsense }"), "/modus.sock");
    assert_string_equal(control_of("control = \"\""), "");
    assert_string_equal(control_of("# a\nuserr = x\ncontrol = run/c\nlisten {{{ ${x}"), "/run/c");
    assert_string_equal(control_of("\xef\xbb\xbf"
                                   "control='/run/a b' control = x"),
                        "/run/a b");
    assert_string_equal(control_of("control = \"/run/\\x41\""), "/run/A");
    assert_string_equal(control_of("listen x { control = no }\n/* control = no */ control = yes"),
                        "/yes");
    assert_string_equal(control_of("listen x { control = no\n}"), "/modus.sock");
}

static void control_not_to_be_found(void **state)
{
    (void)state;
    assert_string_equal(control_of("\nuser = 'open\ncontrol = x"),
                        "/t.conf:2: this string is not closed on its line: 'open (\\n stands for a "
                        "line end)");
    assert_string_equal(control_of("listen x {\ncontrol = y"),
                        "/t.conf:2: \"control\" can't be found: a \"}\" is missing or too many");
    assert_string_equal(control_of("}\ncontrol = y"),
                        "/t.conf:1: \"control\" can't be found: a \"}\" is missing or too many");
    assert_string_equal(control_of("\n\ncontrol = {\n}"), "/t.conf:3: \"control\" has no value");
    assert_int_equal(config_read_control("/nowhere/t.conf", why, 0, why, sizeof why), -1);
    assert_string_equal(why,
                        "/nowhere/t.conf:1: the file can't be opened: No such file or directory");
}

static void control_is_no_listener(void **state)
{
    (void)state;
    bad("control = web\nlisten 127.0.0.1:0 { " R "}\nlisten unix:web { " R "}",
        "3: \"unix:web\" is the control socket's path");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(top_keys),
        cmocka_unit_test(listen_keys),
        cmocka_unit_test(tls_sections),
        cmocka_unit_test(borders),
        cmocka_unit_test(models),
        cmocka_unit_test(reserved),
        cmocka_unit_test(strings),
        cmocka_unit_test(bad_strings),
        cmocka_unit_test(variables),
        cmocka_unit_test(lines),
        cmocka_unit_test(lines_of_errors),
        cmocka_unit_test(comments),
        cmocka_unit_test(braces),
        cmocka_unit_test(statements),
        cmocka_unit_test(sections),
        cmocka_unit_test(list_syntax),
        cmocka_unit_test(repeats),
        cmocka_unit_test(unknown_words),
        cmocka_unit_test(addresses),
        cmocka_unit_test(unix_addresses),
        cmocka_unit_test(clashes),
        cmocka_unit_test(routes),
        cmocka_unit_test(route_handlers),
        cmocka_unit_test(tcp),
        cmocka_unit_test(options),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(opening),
        cmocka_unit_test(files),
        cmocka_unit_test(file_size),
        cmocka_unit_test(here),
        cmocka_unit_test(messages),
        cmocka_unit_test(after_a_failure),
        cmocka_unit_test(beginnings),
        cmocka_unit_test(floods),
        cmocka_unit_test(huge_tokens),
        cmocka_unit_test(many_sections),
        cmocka_unit_test(many_addresses),
        cmocka_unit_test(control_alone),
        cmocka_unit_test(control_not_to_be_found),
        cmocka_unit_test(control_is_no_listener),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
