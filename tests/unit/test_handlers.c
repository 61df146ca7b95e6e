/* SPDX-License-Identifier: MIT */
/* echo, sleep, spin and the table of handlers, through the fake exchange. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "handlers/handler.h"
#include "tests/unit/fake_exchange.h"

/* Matches the options of sleep and spin: what is asked for by default, and the most. */
struct load_conf {
    int64_t amount, max;
};

static struct exchange *ask(const char *handler, enum exchange_method method, const char *target)
{
    static const struct load_conf conf = {50, 10000};
    const struct handler *h = handler_find(handler);
    assert_non_null(h);
    return fake_new(&h->entry, &conf, method, target, "/");
}

/* --- the table -------------------------------------------------------------------------------- */

static void table(void **state)
{
    (void)state;
    const struct handler *h;
    size_t count = 0;
    for (; (h = handler_at(count)) != NULL; count++) {
        assert_ptr_equal(handler_find(h->name), h);
        assert_non_null(h->summary);
        assert_true((h->entry.step == NULL) != (h->entry.run == NULL));
        for (const struct option *o = h->options; o && o->name; o++) {
            assert_true(o->offset < h->conf_size);
            assert_non_null(o->help);
            assert_true(o->min <= o->max);
        }
    }
    assert_true(count >= 6);
    assert_null(handler_at(count));
    assert_null(handler_find("nothing"));
}

/* --- text ------------------------------------------------------------------------------------- */

/* Matches the options of text. */
struct text_conf {
    const char *body, *type;
    int64_t status;
};

static void text_without_body(void **state)
{
    (void)state;
    static const int bare[] = {204, 205, 304};
    const struct handler *h = handler_find("text");
    struct handler_env env = {0};
    char why[200];
    for (size_t i = 0; i < 3; i++) {
        struct text_conf conf = {"x", "text/plain", bare[i]};
        char expected[100];
        snprintf(expected, sizeof expected, "an answer of status %d has no body", bare[i]);
        assert_int_equal(h->open(&conf, &env, why, sizeof why), -1);
        assert_string_equal(why, expected);
        conf.body = "";
        assert_int_equal(h->open(&conf, &env, why, sizeof why), 0);
    }
    struct text_conf conf = {"x", "text/plain", 404};
    assert_int_equal(h->open(&conf, &env, why, sizeof why), 0);
}

/* --- echo ------------------------------------------------------------------------------------- */

static void echo_with_length(void **state)
{
    (void)state;
    struct exchange *x = ask("echo", EXCHANGE_POST, "/");
    fake_header(x, "Content-Length", "5");
    fake_header(x, "Content-Type", "text/x-mine");
    x->body = "hello";
    x->body_len = 5;
    assert_int_equal(fake_serve(x), 0);
    assert_int_equal(x->status, 200);
    assert_int_equal(x->length, 5);
    assert_string_equal(x->out, "hello");
    assert_string_equal(x->type, "text/x-mine");
    assert_true(x->ended);
    fake_free(x);
}

static void echo_without_length(void **state)
{
    (void)state;
    struct exchange *x = ask("echo", EXCHANGE_PUT, "/");
    fake_header(x, "Transfer-Encoding", "chunked");
    x->body = "hello";
    x->body_len = 5;
    assert_int_equal(fake_serve(x), 0);
    assert_int_equal(x->length, -1);
    assert_string_equal(x->out, "hello");
    assert_string_equal(x->type, "application/octet-stream");
    fake_free(x);
    x = ask("echo", EXCHANGE_POST, "/"); /* no body at all */
    assert_int_equal(fake_serve(x), 0);
    assert_int_equal(x->length, 0);
    assert_true(x->ended);
    fake_free(x);
}

/* The body comes and goes in pieces of any size; nothing is consumed that was not taken. */
static void echo_in_pieces(void **state)
{
    (void)state;
    char body[3000];
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (char)(i * 7);
    for (size_t arrive = 1; arrive < 400; arrive += 37)
        for (size_t room = 1; room < 400; room += 41) {
            struct exchange *x = ask("echo", EXCHANGE_DUPLEX, "/");
            x->body = body;
            x->body_len = sizeof body;
            x->room = 0;
            assert_int_equal(x->entry->step(x, EXCHANGE_BEGUN), 0);
            while (!x->ended) {
                if (x->wants_room) {
                    x->wants_room = false;
                    x->room = room;
                    assert_int_equal(x->entry->step(x, EXCHANGE_ROOM), 0);
                } else {
                    x->arrived +=
                        arrive < sizeof body - x->arrived ? arrive : sizeof body - x->arrived;
                    assert_int_equal(x->entry->step(x, EXCHANGE_BYTES), 0);
                }
                assert_int_equal(x->out_len, x->consumed);
            }
            assert_memory_equal(x->out, body, sizeof body);
            assert_null(x->type);
            fake_free(x);
        }
}

static void echo_cancelled(void **state)
{
    (void)state;
    struct exchange *x = ask("echo", EXCHANGE_POST, "/");
    fake_header(x, "Content-Length", "5");
    x->body = "hello";
    x->body_len = 5;
    assert_int_equal(x->entry->step(x, EXCHANGE_BEGUN), 0);
    assert_int_equal(x->entry->step(x, EXCHANGE_CANCELLED), 0);
    assert_false(x->ended);
    fake_free(x);
}

/* --- sleep and spin --------------------------------------------------------------------------- */

static void assert_asked(const char *handler, const char *target, int status, const char *begins)
{
    struct exchange *x = ask(handler, EXCHANGE_GET, target);
    assert_int_equal(fake_serve(x), 0);
    if (x->status != status)
        fail_msg("%s %s gave %d", handler, target, x->status);
    if (begins)
        assert_memory_equal(x->out, begins, strlen(begins));
    fake_free(x);
}

static const char *const bad_numbers[] = {
    "", "x", "-1", "+1", "1x", " 1", "1.5", "0x10", "10001", "99999999999999999999", "%31",
};

static void sleeping(void **state)
{
    (void)state;
    char target[64];
    assert_asked("sleep", "/", 200, "slept 50 ms\n");
    assert_asked("sleep", "/?ms=7", 200, "slept 7 ms\n");
    assert_asked("sleep", "/?ms=0", 200, "slept 0 ms\n");
    assert_asked("sleep", "/?a=1&ms=10000&ms=9", 200, "slept 10000 ms\n");
    assert_asked("sleep", "/?mst=3", 200, "slept 50 ms\n");
    for (size_t i = 0; i < sizeof bad_numbers / sizeof bad_numbers[0]; i++) {
        snprintf(target, sizeof target, "/?ms=%s", bad_numbers[i]);
        assert_asked("sleep", target, 400, NULL);
    }
    struct exchange *x = ask("sleep", EXCHANGE_GET, "/?ms=123");
    assert_int_equal(fake_serve(x), 0);
    assert_int_equal(x->slept_ms, 123);
    fake_free(x);
    x = ask("sleep", EXCHANGE_GET, "/");
    x->cancel_after = 0;
    assert_int_equal(fake_serve(x), MODUS_CANCELED);
    assert_int_equal(x->status, 0);
    fake_free(x);
}

static void blocking(void **state)
{
    (void)state;
    char target[64];
    int64_t begin = modus_now_ns();
    const struct handler *h = handler_find("block");
    assert_true(h->entry.blocking);
    for (int i = 0; i < 3; i++) {
        struct {
            int64_t duration_ms, max_ms;
            int entry;
        } conf = {1, 10, i}; /* as its words: blocking, run, step */
        const struct exchange_entry *entry = h->entry_of(&conf);
        assert_int_equal(h->conf_size, sizeof conf);
        assert_true(entry->blocking == (i == 0) && (entry->run != NULL) == (i < 2));
        struct exchange *x = fake_new(entry, &conf, EXCHANGE_GET, "/?ms=2", "/");
        assert_int_equal(entry->run ? fake_serve(x) : entry->step(x, EXCHANGE_BEGUN), 0);
        assert_string_equal(x->out, "blocked for 2 ms\n");
        fake_free(x);
    }
    assert_asked("block", "/", 200, "blocked for 50 ms\n");
    assert_asked("block", "/?ms=1", 200, "blocked for 1 ms\n");
    assert_asked("block", "/?ms=0", 200, "blocked for 0 ms\n");
    assert_true(modus_now_ns() - begin >= 51 * 1000000);
    for (size_t i = 0; i < sizeof bad_numbers / sizeof bad_numbers[0]; i++) {
        snprintf(target, sizeof target, "/?ms=%s", bad_numbers[i]);
        assert_asked("block", target, 400, NULL);
    }
    struct exchange *x = ask("block", EXCHANGE_GET, "/?ms=10000");
    x->cancel_after = 2;
    assert_int_equal(fake_serve(x), MODUS_CANCELED);
    assert_int_equal(x->status, 0);
    assert_true(modus_now_ns() - begin < 5000 * 1000000LL);
    fake_free(x);
}

static void spinning(void **state)
{
    (void)state;
    char target[64];
    assert_asked("spin", "/", 200, "spun 50 times, sum 1225\n");
    assert_asked("spin", "/?n=0", 200, "spun 0 times, sum 0\n");
    assert_asked("spin", "/?n=10000", 200, "spun 10000 times, sum 49995000\n");
    for (size_t i = 0; i < sizeof bad_numbers / sizeof bad_numbers[0]; i++) {
        snprintf(target, sizeof target, "/?n=%s", bad_numbers[i]);
        assert_asked("spin", target, 400, NULL);
    }
    /* Cancelled while it computes, it gives up long before the end. */
    static const struct load_conf endless = {INT64_MAX, INT64_MAX};
    const struct handler *h = handler_find("spin");
    assert_true(h->entry.blocking);
    struct exchange *x = fake_new(&h->entry, &endless, EXCHANGE_GET, "/", "/");
    x->cancel_after = 3;
    assert_int_equal(fake_serve(x), MODUS_CANCELED);
    assert_int_equal(x->status, 0);
    fake_free(x);
    x = fake_new(&h->entry, &endless, EXCHANGE_GET, "/?n=3000000", "/");
    assert_int_equal(fake_serve(x), 0);
    assert_string_equal(x->out, "spun 3000000 times, sum 4499998500000\n");
    fake_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(text_without_body),
        cmocka_unit_test(echo_with_length),
        cmocka_unit_test(echo_in_pieces),
        cmocka_unit_test(echo_without_length),
        cmocka_unit_test(echo_cancelled),
        cmocka_unit_test(sleeping),
        cmocka_unit_test(blocking),
        cmocka_unit_test(spinning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
