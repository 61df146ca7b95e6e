/* SPDX-License-Identifier: MIT */
/* Switching on the status page: who may ask, and what another site's page in the same browser can
 * make of it. A request is made by hand; what the server is asked for is noted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "handlers/handler.h"
#include "handlers/status.h"
#include "tests/unit/fake_exchange.h"

#define FORM "application/x-www-form-urlencoded"
#define BODY "token=c0ffee&listener=127.0.0.1%3A8080&model=hybrid"

static char asked[300];
static int ask_result;

static int ask(void *arg, const char *listener, const char *model)
{
    (void)arg;
    snprintf(asked, sizeof asked, "%s to %s", listener, model);
    return ask_result;
}

static int take(void *arg, struct status_snapshot *out)
{
    (void)arg;
    *out = (struct status_snapshot){0};
    return 0;
}

static void release(struct status_snapshot *s)
{
    (void)s;
}

static const char *const models[] = {"process", "hybrid", NULL};
static const struct status_source source = {
    .snapshot = take, .release = release, .control = {"c0ffee", models, ask}};

/* What a request has; NULL: not there. */
struct asks {
    const char *host, *origin, *site, *type, *body, *accept;
};

static const struct asks good = {
    "localhost:8080", "http://localhost:8080", "same-origin", FORM, BODY, NULL};

static void add(struct exchange *x, const char *name, const char *value)
{
    if (value)
        fake_header(x, name, value);
}

static struct exchange *ask_on(const struct asks *a, enum exchange_method method, bool control,
                               const char *target)
{
    extern const struct handler handler_status;
    char *conf = calloc(1, handler_status.conf_size), why[300];
    struct handler_env env = {.status = &source, .local = true};
    memcpy(conf + handler_status.options[0].offset, &control, sizeof control);
    assert_int_equal(handler_status.open(conf, &env, why, sizeof why), 0);
    struct exchange *x = fake_new(&handler_status.entry, conf, method, target, "/");
    exchange_defer(x, free, conf);
    add(x, "Host", a->host);
    add(x, "Origin", a->origin);
    add(x, "Sec-Fetch-Site", a->site);
    add(x, "Content-Type", a->type);
    add(x, "Accept", a->accept);
    x->body = a->body;
    x->body_len = a->body ? strlen(a->body) : 0;
    asked[0] = '\0';
    assert_int_equal(fake_serve(x), 0);
    return x;
}

static void expect(const struct asks *a, int status, const char *complaint)
{
    struct exchange *x = ask_on(a, EXCHANGE_POST, true, "/");
    if (x->status != status)
        fail_msg("%d, not %d: host %s, origin %s, site %s, type %s, body %s", x->status, status,
                 a->host, a->origin, a->site, a->type, a->body);
    assert_string_equal(asked, status == 202 || status == 303 ? "127.0.0.1:8080 to hybrid" : "");
    if (complaint && !strstr(x->complaint, complaint))
        fail_msg("\"%s\" says nothing of %s", x->complaint, complaint);
    fake_free(x);
}

static void taken(void **state)
{
    (void)state;
    expect(&good, 202, NULL);
    struct asks a = good;
    a.origin = a.site = NULL; /* no browser */
    expect(&a, 202, NULL);
    a = good;
    a.origin = "https://localhost:8080";
    expect(&a, 202, NULL);
    a.type = "Application/X-WWW-form-urlencoded ; charset=UTF-8";
    expect(&a, 202, NULL);
    a.body = "model=hybrid&x=&listener=127.0.0.1:8080&token=%630ffee";
    expect(&a, 202, NULL);
    a.accept = "text/html,*/*";
    struct exchange *x = ask_on(&a, EXCHANGE_POST, true, "/");
    assert_int_equal(x->status, 303);
    assert_string_equal(fake_answer(x, "Location"), "?");
    fake_free(x);
}

/* Names that a browser can have been led here by. */
static void hosts(void **state)
{
    static const char *const ours[] = {"localhost",  "LocalHost:1", "127.0.0.1",  "127.0.0.1:80",
                                       "127.9.8.77", "[::1]",       "[::1]:65535"};
    static const char *const others[] = {"evil.test",
                                         "evil.test:8080",
                                         "localhost.evil.test",
                                         "evillocalhost",
                                         "127.0.0.1.evil.test",
                                         "localhost.",
                                         "127.0.0.1.",
                                         "127.0.0",
                                         "127.0.0.0.1",
                                         "1270.0.0.1",
                                         "10.0.0.1",
                                         "[::2]",
                                         "::1",
                                         "localhost:",
                                         "localhost:80x",
                                         "[::1]x",
                                         "localhost:123456",
                                         "",
                                         ":80",
                                         "127..0.1",
                                         "127.1",
                                         "localhost@evil:80",
                                         "0.0.0.0",
                                         "[::]",
                                         "2130706433",
                                         "0x7f.0.0.1",
                                         "127.0.0.1:80:80",
                                         "[::1",
                                         "localhost evil",
                                         NULL};
    (void)state;
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        struct asks a = {ours[i], NULL, NULL, FORM, BODY, NULL};
        expect(&a, 202, NULL);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct asks a = {others[i], NULL, NULL, FORM, BODY, NULL};
        expect(&a, 403, "Host");
        struct exchange *x = ask_on(&a, EXCHANGE_GET, true, "/"); /* the token is on the page */
        assert_int_equal(x->status, 403);
        assert_null(strstr(x->out, "c0ffee"));
        fake_free(x);
        x = ask_on(&a, EXCHANGE_GET, true, "/?format=stream");
        assert_int_equal(x->status, 403);
        fake_free(x);
        x = ask_on(&a, EXCHANGE_GET, false, "/"); /* only where it can be */
        assert_int_equal(x->status, 200);
        assert_null(strstr(x->out, "c0ffee"));
        fake_free(x);
    }
    struct exchange *x = ask_on(&good, EXCHANGE_GET, true, "http://evil.test/");
    assert_int_equal(x->status, 403);
    fake_free(x);
}

static void origins(void **state)
{
    static const char *const others[] = {"http://evil.test",
                                         "http://localhost",
                                         "http://localhost:8081",
                                         "http://localhost:8080.evil.test",
                                         "http://localhost:8080/",
                                         "ftp://localhost:8080",
                                         "localhost:8080",
                                         "http://127.0.0.1:8080",
                                         "null",
                                         ""};
    static const char *const sites[] = {"cross-site", "same-site", "none", "", "Same-Origin"};
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct asks a = good;
        a.origin = others[i];
        expect(&a, 403, "Origin");
        a.site = NULL;
        expect(&a, 403, "Origin");
    }
    for (size_t i = 0; i < sizeof sites / sizeof sites[0]; i++) {
        struct asks a = good;
        a.site = sites[i];
        expect(&a, 403, "Sec-Fetch-Site");
        a.origin = NULL;
        expect(&a, 403, "Sec-Fetch-Site");
    }
}

static void bodies(void **state)
{
    static const char *const types[] = {"text/plain", "multipart/form-data; boundary=x",
                                        "application/json", "", NULL};
    static const struct {
        const char *body;
        int status;
    } wrong[] = {
        {"", 403},
        {"token=&listener=a&model=hybrid", 403},
        {"token=c0ffe&listener=a&model=hybrid", 403},
        {"token=c0ffee1&listener=a&model=hybrid", 403},
        {"token=C0FFEE&listener=a&model=hybrid", 403},
        {"token=c0ffee%00&listener=a&model=hybrid", 403},
        {"token=c0ffee&token=c0ffee&listener=a&model=hybrid", 403},
        {"token=c0ffee%4", 403},
        {"token=c0ffee%zz", 403},
        {"token=c0ffee&listener=a", 400},
        {"token=c0ffee&model=hybrid", 400},
        {"token=c0ffee&listener=a&model=hybri", 400},
        {"token=c0ffee&listener=a&model=hybrid%20x", 400},
        {"token=c0ffee&listener=a&listener=b&model=hybrid", 400},
    };
    char *large = calloc(1, 5000);
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        struct asks a = good;
        a.type = types[i];
        expect(&a, 415, "application/x-www-form-urlencoded");
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct asks a = good;
        a.body = wrong[i].body;
        expect(&a, wrong[i].status, "refused");
    }
    memset(large, 'a', 1025);
    struct asks a = good;
    a.body = large;
    expect(&a, 413, "too large");
    snprintf(large, 5000, "token=c0ffee&listener=%0300d&model=hybrid", 1);
    expect(&a, 400, "refused");
    free(large);
}

/* A body that comes in pieces. */
static void pieces(void **state)
{
    (void)state;
    extern const struct handler handler_status;
    for (size_t cut = 0; cut <= strlen(BODY); cut++) {
        char *conf = calloc(1, handler_status.conf_size), why[300];
        struct handler_env env = {.status = &source, .local = true};
        bool control = true;
        memcpy(conf + handler_status.options[0].offset, &control, sizeof control);
        assert_int_equal(handler_status.open(conf, &env, why, sizeof why), 0);
        struct exchange *x = fake_new(&handler_status.entry, conf, EXCHANGE_POST, "/", "/");
        exchange_defer(x, free, conf);
        fake_header(x, "Host", "[::1]");
        fake_header(x, "Content-Type", FORM);
        x->body = BODY;
        x->body_len = strlen(BODY);
        x->arrived = cut;
        assert_int_equal(x->entry->step(x, EXCHANGE_BEGUN), 0);
        assert_int_equal(x->status, cut == x->body_len ? 202 : 0);
        x->arrived = x->body_len;
        if (cut < x->body_len)
            assert_int_equal(x->entry->step(x, EXCHANGE_BYTES), 0);
        assert_int_equal(x->status, 202);
        fake_free(x);
    }
}

static void methods(void **state)
{
    (void)state;
    struct exchange *x = ask_on(&good, EXCHANGE_POST, false, "/");
    assert_int_equal(x->status, 405);
    assert_string_equal(fake_answer(x, "Allow"), "GET, HEAD, OPTIONS");
    assert_string_equal(asked, "");
    fake_free(x);
    x = ask_on(&good, EXCHANGE_OPTIONS, false, "/");
    assert_int_equal(x->status, 204);
    assert_string_equal(fake_answer(x, "Allow"), "GET, HEAD, OPTIONS");
    fake_free(x);
    x = ask_on(&good, EXCHANGE_OPTIONS, true, "/");
    assert_string_equal(fake_answer(x, "Allow"), "GET, HEAD, POST, OPTIONS");
    assert_null(fake_answer(x, "Access-Control-Allow-Origin"));
    fake_free(x);
    x = ask_on(&good, EXCHANGE_GET, true, "/?" BODY); /* a link does nothing */
    assert_int_equal(x->status, 200);
    assert_string_equal(asked, "");
    fake_free(x);
}

static void busy(void **state)
{
    (void)state;
    ask_result = -EBUSY;
    struct exchange *x = ask_on(&good, EXCHANGE_POST, true, "/");
    assert_int_equal(x->status, 503);
    assert_string_equal(fake_answer(x, "Retry-After"), "1");
    fake_free(x);
    ask_result = 0;
}

static void page_headers(void **state)
{
    (void)state;
    struct exchange *x = ask_on(&good, EXCHANGE_GET, true, "/");
    const char *policy = fake_answer(x, "Content-Security-Policy");
    assert_non_null(strstr(policy, "default-src 'none'"));
    assert_non_null(strstr(policy, "frame-ancestors 'none'"));
    assert_null(strstr(policy, "unsafe"));
    assert_string_equal(fake_answer(x, "X-Frame-Options"), "DENY");
    assert_string_equal(fake_answer(x, "Cross-Origin-Resource-Policy"), "same-origin");
    assert_string_equal(fake_answer(x, "Referrer-Policy"), "same-origin");
    fake_free(x);
}

static void only_on_this_machine(void **state)
{
    (void)state;
    extern const struct handler handler_status;
    char *conf = calloc(1, handler_status.conf_size), why[300] = "";
    struct handler_env env = {.status = &source};
    bool control = true;
    memcpy(conf + handler_status.options[0].offset, &control, sizeof control);
    assert_int_equal(handler_status.open(conf, &env, why, sizeof why), -1);
    assert_non_null(strstr(why, "control = true"));
    free(conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken),
        cmocka_unit_test(hosts),
        cmocka_unit_test(origins),
        cmocka_unit_test(bodies),
        cmocka_unit_test(pieces),
        cmocka_unit_test(methods),
        cmocka_unit_test(busy),
        cmocka_unit_test(page_headers),
        cmocka_unit_test(only_on_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
