/* SPDX-License-Identifier: MIT */
/* The status handler on made-up snapshots: each form must be well-formed whatever the texts in it
 * are, and every number must be there. JSON and Prometheus' format are checked by small readers
 * written from their specifications. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>

#include "handlers/handler.h"
#include "handlers/page.h"
#include "handlers/status.h"
#include "tests/unit/fake_exchange.h"

/* --- a JSON reader: returns what stands behind a value, NULL if it is none -------------------- */

static const char *json_value(const char *at);

static const char *json_blank(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

static const char *json_string(const char *at)
{
    if (*at++ != '"')
        return NULL;
    while (*at != '"') {
        if ((unsigned char)*at < 0x20)
            return NULL;
        if (*at == '\\') {
            at++;
            if (*at == 'u') {
                for (int i = 0; i < 4; i++)
                    if (!isxdigit((unsigned char)*++at))
                        return NULL;
            } else if (!*at || !strchr("\"\\/bfnrt", *at)) {
                return NULL;
            }
        }
        at++;
    }
    return at + 1;
}

static const char *json_list(const char *at, char end, bool with_keys)
{
    at = json_blank(at + 1);
    if (*at == end)
        return at + 1;
    for (;;) {
        if (with_keys) {
            at = json_string(json_blank(at));
            if (!at || *(at = json_blank(at)) != ':')
                return NULL;
            at++;
        }
        at = json_value(at);
        if (!at)
            return NULL;
        at = json_blank(at);
        if (*at == end)
            return at + 1;
        if (*at++ != ',')
            return NULL;
    }
}

static const char *json_value(const char *at)
{
    at = json_blank(at);
    if (*at == '{')
        return json_list(at, '}', true);
    if (*at == '[')
        return json_list(at, ']', false);
    if (*at == '"')
        return json_string(at);
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++)
        if (strncmp(at, words[i], strlen(words[i])) == 0)
            return at + strlen(words[i]);
    size_t len = strspn(at, "-0123456789.eE+");
    return len ? at + len : NULL;
}

static bool is_json(const char *text)
{
    const char *end = json_value(text);
    return end && *json_blank(end) == '\0';
}

/* --- a reader of Prometheus' text format ------------------------------------------------------ */

static const char *prometheus_name(const char *at)
{
    if (!isalpha((unsigned char)*at) && *at != '_')
        return NULL;
    return at + strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
}

static const char *prometheus_labels(const char *at)
{
    if (*at != '{')
        return at;
    for (at++; *at != '}';) {
        at = prometheus_name(at);
        if (!at || *at++ != '=' || *at++ != '"')
            return NULL;
        for (; *at != '"'; at++)
            if (*at == '\n' || *at == '\0' || (*at == '\\' && !strchr("\\\"n", *++at)))
                return NULL;
        at++;
        if (*at == ',')
            at++;
        else if (*at != '}')
            return NULL;
    }
    return at + 1;
}

/* Every sample follows the TYPE line of its metric, every metric has one of each. */
static bool is_prometheus(char *text)
{
    char metric[100] = "";
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char name[100];
        if (sscanf(line, "# HELP %99s", name) == 1) {
            char *next = strtok(NULL, "\n");
            char type[20];
            if (!next || sscanf(next, "# TYPE %99s %19s", metric, type) != 2 ||
                strcmp(name, metric) != 0)
                return false;
            bool is_total = strlen(name) > 6 && strcmp(name + strlen(name) - 6, "_total") == 0;
            if (is_total != (strcmp(type, "counter") == 0))
                return false;
            continue;
        }
        const char *end = prometheus_name(line);
        if (!end || strncmp(line, metric, strlen(metric)) != 0)
            return false;
        end = prometheus_labels(end);
        char *rest;
        if (!end || *end != ' ' || (strtod(end + 1, &rest), *rest != '\0'))
            return false;
    }
    return true;
}

/* --- snapshots -------------------------------------------------------------------------------- */

#define HOSTILE "a\"b\\c\n<script>x</script>&'\x01\x7f\xff\xc3\xa9\xed\xa0\x80"

static int snapshots, releases;

static int take(void *arg, struct status_snapshot *out)
{
    if (!arg)
        return -ENOMEM;
    snapshots++;
    *out = *(const struct status_snapshot *)arg;
    return 0;
}

static void release(struct status_snapshot *s)
{
    (void)s;
    releases++;
}

static const struct status_worker workers[] = {
    {.pid = 4242,
     .state = STATUS_BUSY,
     .started_ms = 1000000000000,
     .connections = 3,
     .requests = 77},
    {.pid = 4243, .state = STATUS_WAITING, .started_ms = 1000000000000},
    {.pid = 4244, .state = STATUS_DEAD},
};
static const struct status_generation generations[] = {
    {.number = 7, .model = "thread-pool", .since_ms = 1000000000000, .connections = 9047},
    {.number = 6, .model = "process", .retiring = true, .requests_active = 9048},
};
static const char *const addresses[] = {"127.0.0.1:8080", HOSTILE};

static struct status_listener full_listener(const char *name)
{
    return (struct status_listener){
        .name = name,
        .addresses = addresses,
        .address_count = 2,
        .protocol = "http",
        .model = "thread-pool",
        .tls = true,
        .note = "8 workers & more: " HOSTILE,
        .workers = workers,
        .worker_count = 3,
        .worker_deaths = 9001,
        .recycled_requests = 9049,
        .recycled_memory = 9050,
        .recycled_age = 9051,
        .blocked = 9052,
        .blocked_longest_ms = 9053,
        .blocked_last_ms = 5049,
        .blocked_at_ms = 1000000000456,
        .blocked_route = "/" HOSTILE,
        .blocked_handler = "block",
        .connections_open = 9003,
        .connections_idle = 9002,
        .connections_active = 9037,
        .connections_waiting = 9038,
        .connections_max = 9004,
        .accepted = 9005,
        .refused = 9006,
        .evicted = 9007,
        .handshakes_failed = 9008,
        .accept_pauses = 9009,
        .requests_active = 9010,
        .requests = 9011,
        .answers = {9012, 9013, 9014, 9015, 9016, 9017},
        .bytes_in = 9018,
        .bytes_out = 9019,
        .latency = {9020, 9021, 9022, 9023, 9024, 9025, 9026, {9100, 9101, [23] = 9102}},
        .threads = 9039,
        .threads_busy = 9040,
        .children_max = 9041,
        .children = 9042,
        .children_idle = 9043,
        .queue_capacity = 9027,
        .queue_depth = 9028,
        .queue_rejected = 9029,
        .queued = {9030, 9031, 9032, 9033, 9034, 9035, 9036, {[22] = 9103}},
        .connections_backlog = 9044,
        .places = 9045,
        .places_busy = 9046,
        .generations = generations,
        .generation_count = 2,
    };
}

static struct exchange *ask_of(const struct status_source *source, const char *target)
{
    extern const struct handler handler_status;
    char *conf = calloc(1, handler_status.conf_size);
    struct handler_env env = {.status = source};
    assert_int_equal(handler_status.open(conf, &env, NULL, 0), 0);
    struct exchange *x = fake_new(&handler_status.entry, conf, EXCHANGE_GET, target, "/");
    exchange_defer(x, free, conf);
    assert_int_equal(fake_serve(x), 0);
    return x;
}

static char *answer_to(const struct status_snapshot *s, const char *target, const char *type)
{
    struct status_source source = {
        .snapshot = take, .release = release, .arg = (void *)(uintptr_t)s};
    snapshots = releases = 0;
    struct exchange *x = ask_of(&source, target);
    assert_int_equal(x->status, 200);
    assert_string_equal(x->type, type);
    assert_string_equal(fake_answer(x, "Cache-Control"), "no-store");
    assert_int_equal(snapshots, 1);
    assert_int_equal(releases, 1);
    char *out = strdup(x->out);
    assert_int_equal(strlen(out), x->out_len);
    fake_free(x);
    return out;
}

static char *as_json(const struct status_snapshot *s)
{
    return answer_to(s, "/?format=json", "application/json");
}

static char *as_prometheus(const struct status_snapshot *s)
{
    return answer_to(s, "/?format=prometheus", "text/plain; version=0.0.4; charset=utf-8");
}

static char *as_page(const struct status_snapshot *s)
{
    return answer_to(s, "/", "text/html; charset=utf-8");
}

/* --- tests ------------------------------------------------------------------------------------ */

static void every_number_is_there(void **state)
{
    (void)state;
    struct status_listener l[2] = {full_listener(HOSTILE), full_listener("unix:/run/x")};
    struct status_snapshot s = {.version = "0.1.0",
                                .pid = 4000,
                                .config_file = "/etc/" HOSTILE,
                                .started_ms = 1000000000123,
                                .uptime_ms = 93784000,
                                .generation = 8001,
                                .worker_deaths = 8002,
                                .reloads_taken = 8003,
                                .reloads_refused = 8004,
                                .switches_taken = 8005,
                                .switches_refused = 8006,
                                .last_switch = {8007, STATUS_REFUSED, 0, 0, HOSTILE, "x", HOSTILE},
                                .listeners = l,
                                .listener_count = 2};
    char *json = as_json(&s), *prometheus = as_prometheus(&s), *page = as_page(&s), wanted[32];
    for (int n = 9001; n <= 9053; n++) {
        snprintf(wanted, sizeof wanted, "%d", n);
        if (!strstr(json, wanted))
            fail_msg("%d is not in the JSON", n);
        bool is_quantile = (n >= 9022 && n <= 9026) || (n >= 9032 && n <= 9036);
        bool is_sum = n == 9021 || n == 9031;
        snprintf(wanted, sizeof wanted, is_sum ? "} 0.00%d\n" : "} %d\n", n);
        if (!is_quantile && n != 9047 && n != 9048 && !strstr(prometheus, wanted))
            fail_msg("%d is not for Prometheus", n);
    }
    for (int n = 9001; n <= 9053; n++) {
        if ((n >= 9020 && n <= 9026) || (n >= 9030 && n <= 9036)) /* times, in fewer digits */
            continue;
        snprintf(wanted, sizeof wanted, ">%d<", n);
        if (!strstr(page, wanted))
            fail_msg("%d is not on the page", n);
    }
    assert_true(is_json(json));
    assert_non_null(strstr(json, "\"listeners\":["));
    assert_non_null(strstr(json, "{\"pid\":4242,\"state\":\"busy\",\"started_ms\":1000000000000,"
                                 "\"connections\":3,\"requests\":77}"));
    assert_non_null(strstr(json, "\"handler\":\"block\",\"ms\":5049,\"at_ms\":1000000000456}}"));
    assert_non_null(
        strstr(page, "block</span>), <span data-u=\"n\" data-f=\"blocked.last.ms\">5049<"));
    assert_non_null(
        strstr(prometheus, "modus_workers{listener=\"unix:/run/x\",state=\"waiting\"} 1\n"));
    assert_non_null(strstr(prometheus, "modus_worker_info{listener=\"unix:/run/x\",worker=\"0\","
                                       "pid=\"4242\",state=\"busy\"} 1\n"));
    assert_non_null(
        strstr(prometheus, "modus_answers_total{listener=\"unix:/run/x\",class=\"5xx\"} 9017\n"));
    assert_non_null(strstr(prometheus, "modus_start_time_seconds 1000000000.123\n"));
    assert_non_null(strstr(prometheus, "modus_request_duration_seconds_bucket{listener=\"unix:/run/"
                                       "x\",le=\"0.000032\"} 18201\n"));
    assert_non_null(strstr(prometheus, "le=\"67.108864\"} 18201\n"));
    assert_non_null(strstr(prometheus, "le=\"+Inf\"} 27303\n"));
    assert_non_null(
        strstr(prometheus, "modus_generations{listener=\"unix:/run/x\",state=\"retiring\"} 1\n"));
    assert_non_null(strstr(prometheus, "modus_reloads_total{outcome=\"refused\"} 8004\n"));
    assert_non_null(strstr(prometheus, "modus_switches_total{outcome=\"taken\"} 8005\n"));
    assert_non_null(strstr(json, "\"last_switch\":{\"number\":8007,"));
    assert_non_null(strstr(page, "1 d 02:03:04"));
    assert_true(is_prometheus(prometheus));
    free(json);
    free(prometheus);
    free(page);
}

static void hostile_texts(void **state)
{
    (void)state;
    struct status_listener l = full_listener(HOSTILE);
    struct status_snapshot s = {
        .version = HOSTILE, .config_file = HOSTILE, .listeners = &l, .listener_count = 1};
    l.model = l.protocol = HOSTILE;
    char *json = as_json(&s), *prometheus = as_prometheus(&s), *page = as_page(&s);
    assert_true(is_json(json));
    assert_non_null(strstr(json, "\"name\":\"a\\\"b\\\\c\\u000a<script>x</"
                                 "script>&'\\u0001\\u007f\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd"));
    assert_non_null(strstr(prometheus, "listener=\"a\\\"b\\\\c\\n<script>"));
    assert_true(is_prometheus(prometheus));
    assert_null(strstr(page, "<script>x"));
    assert_null(strchr(page, '\x01'));
    assert_null(strchr(page, '\xff'));
    assert_non_null(
        strstr(page, "a&quot;b\\c\xef\xbf\xbd&lt;script&gt;x&lt;/script&gt;&amp;&#39;"));
    free(json);
    free(prometheus);
    free(page);
}

static void empty_snapshots(void **state)
{
    (void)state;
    struct status_listener l[2] = {{.name = "x"}, {0}};
    struct status_snapshot some = {.listeners = l, .listener_count = 2}, none = {0};
    const struct status_snapshot *tried[] = {&none, &some};
    for (size_t i = 0; i < 2; i++) {
        char *json = as_json(tried[i]), *prometheus = as_prometheus(tried[i]),
             *page = as_page(tried[i]);
        assert_true(is_json(json));
        assert_true(is_prometheus(prometheus));
        assert_non_null(strstr(page, "</html>"));
        free(json);
        free(prometheus);
        free(page);
    }
    char *json = as_json(&some);
    assert_non_null(strstr(json, "\"queue\":null"));
    assert_non_null(strstr(json, "\"threads\":null"));
    assert_non_null(strstr(json, "\"children\":null"));
    assert_non_null(strstr(json, "\"note\":null"));
    free(json);
}

/* One event a tick: the page when its shape is another, and the figures. */
static void streams(void **state)
{
    (void)state;
    extern const struct handler handler_status;
    struct status_listener l = full_listener("x\ny");
    struct status_snapshot s = {.listeners = &l, .listener_count = 1};
    struct status_source source = {.snapshot = take, .release = release, .arg = &s};
    struct exchange *x = ask_of(&source, "/?format=stream");
    assert_string_equal(x->type, "text/event-stream");
    assert_true(x->endless);
    assert_int_equal(x->timer_ms, 1000);
    assert_memory_equal(x->out, "retry: 1000\n\nevent: page\ndata: <p>", 34);
    assert_non_null(strstr(x->out, "\n\ndata: {\"version\""));
    assert_string_equal(x->out + x->out_len - 2, "\n\n");
    for (const char *line = x->out; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (*line && *line != '\n' && strncmp(line, "data: ", 6) != 0 &&
            strncmp(line, "event: page\n", 12) != 0 && strncmp(line, "retry: ", 7) != 0)
            fail_msg("no field of an event: %.40s", line);
    size_t before = x->out_len;
    l.requests++;
    assert_int_equal(handler_status.entry.step(x, EXCHANGE_TIMER), 0);
    assert_memory_equal(x->out + before, "data: {", 7);
    before = x->out_len;
    l.model = "hybrid";
    assert_int_equal(handler_status.entry.step(x, EXCHANGE_TIMER), 0);
    assert_memory_equal(x->out + before, "event: page\n", 12);
    x->room = 10; /* who takes no more gets the rest of this one, and no newer one */
    before = x->out_len;
    assert_int_equal(handler_status.entry.step(x, EXCHANGE_TIMER), 0);
    assert_int_equal(x->out_len, before + 10);
    int taken = snapshots;
    assert_int_equal(handler_status.entry.step(x, EXCHANGE_TIMER), 0);
    assert_int_equal(snapshots, taken);
    assert_int_equal(x->out_len, before + 10);
    x->room = SIZE_MAX;
    assert_int_equal(handler_status.entry.step(x, EXCHANGE_ROOM), 0);
    assert_string_equal(x->out + x->out_len - 2, "\n\n");
    assert_int_equal(handler_status.entry.step(x, EXCHANGE_LEAVING), 0);
    assert_true(x->ended);
    fake_free(x);
}

static void many_workers(void **state)
{
    (void)state;
    static struct status_worker many[10000];
    struct status_listener l = {.name = "x", .workers = many, .worker_count = 10000};
    struct status_snapshot s = {.listeners = &l, .listener_count = 1};
    char *json = as_json(&s), *page = as_page(&s), *prometheus = as_prometheus(&s);
    assert_true(is_json(json));
    assert_true(strlen(page) < 60000);
    assert_non_null(strstr(page, "and 9936 more"));
    assert_non_null(strstr(prometheus, "modus_workers{listener=\"x\",state=\"starting\"} 10000\n"));
    free(json);
    free(page);
    free(prometheus);
}

static void no_source(void **state)
{
    (void)state;
    struct status_source failing = {.snapshot = take, .release = release};
    struct exchange *x = ask_of(NULL, "/");
    assert_int_equal(x->status, 503);
    fake_free(x);
    x = ask_of(&failing, "/?format=json");
    assert_int_equal(x->status, 503);
    fake_free(x);
    x = ask_of(NULL, "/?format=xml");
    assert_int_equal(x->status, 400);
    fake_free(x);
    x = ask_of(NULL, "/?format=");
    assert_int_equal(x->status, 400);
    fake_free(x);
}

/* A page that would grow beyond its bound becomes an error, not a cut page. */
static void bounded_pages(void **state)
{
    (void)state;
    struct page p = {0};
    struct exchange *x = fake_new(&(struct exchange_entry){0}, NULL, EXCHANGE_GET, "/", "/");
    char *block = calloc(1, 1 << 20);
    for (int i = 0; i < 8; i++)
        page_put(&p, (struct str){block, 1 << 20});
    assert_false(p.failed);
    page_puts(&p, "x");
    assert_true(p.failed);
    page_puts(&p, "");
    assert_int_equal(page_reply(&p, x, 200, "text/html"), 0);
    assert_int_equal(x->status, 500);
    assert_null(p.bytes);
    fake_free(x);
    free(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_is_there), cmocka_unit_test(hostile_texts),
        cmocka_unit_test(empty_snapshots),       cmocka_unit_test(streams),
        cmocka_unit_test(many_workers),          cmocka_unit_test(no_source),
        cmocka_unit_test(bounded_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
