/* SPDX-License-Identifier: MIT */
/* Results of the lab as JSON and back, the reader of JSON that they come back through, and the
 * histogram in them. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/lab/figures.h"
#include "server/lab/json.h"
#include "server/lab/plot.h"
#include "server/lab/report.h"
#include "tests/unit/lab_doctored.h"

/* --- the histogram --------------------------------------------------------------------------- */

static void quantiles_are_right_within_one_percent(void **state)
{
    enum { MOST = 100000 };
    struct lab_histogram *h = calloc(1, sizeof *h);
    (void)state;
    for (int64_t i = 1; i <= MOST; i++)
        lab_histogram_add(h, i * 1000); /* up to 100 ms */
    for (double share = 0.01; share < 0.9995; share += 0.007) {
        double right = share * MOST * 1000;
        assert_true((double)lab_histogram_at(h, share) > right * 0.99);
        assert_true((double)lab_histogram_at(h, share) < right * 1.01);
    }
    assert_int_equal(lab_histogram_at(h, 1), MOST * 1000);
    assert_int_equal((int64_t)lab_histogram_mean(h), (MOST + 1) * 500);
    assert_in_range(lab_histogram_from(h, 90 * 1000000), 9300, 10700);
    free(h);
}

static void every_time_is_near_the_middle_of_its_bucket(void **state)
{
    struct lab_histogram *h = calloc(1, sizeof *h);
    (void)state;
    for (int64_t ns = 1; ns < INT64_C(1) << 41; ns += ns / 7 + 1) {
        memset(h, 0, sizeof *h);
        lab_histogram_add_many(h, ns, 3);
        lab_histogram_add(h, INT64_C(1) << 42); /* so that the highest is not what is answered */
        assert_int_equal(h->count, 4);
        double at = (double)lab_histogram_at(h, 0.5);
        assert_true(at >= (double)ns * 0.992 - 1 && at <= (double)ns * 1.008);
    }
    free(h);
}

static void odd_times(void **state)
{
    struct lab_histogram *h = calloc(1, sizeof *h), *other = calloc(1, sizeof *h);
    (void)state;
    assert_int_equal(lab_histogram_at(h, 0.5), 0);
    assert_true(lab_histogram_mean(h) == 0);
    lab_histogram_add(h, -5);
    lab_histogram_add(h, INT64_MAX);
    assert_int_equal(lab_histogram_at(h, 0), 0);
    assert_int_equal(lab_histogram_at(h, 1), INT64_MAX);
    lab_histogram_add(other, 64);
    lab_histogram_merge(other, h);
    assert_int_equal(other->count, 3);
    assert_int_equal(lab_histogram_at(other, 0.5), 64);
    free(h);
    free(other);
}

/* --- JSON ------------------------------------------------------------------------------------ */

static struct json *parse(const char *text)
{
    return json_parse(text, strlen(text));
}

static void good_texts(void **state)
{
    static const char text[] = " {\"a\": [1, -2.5e3, 0, {\"b\": \"x\"}], \"c\": true, \"d\": null,"
                               " \"e\": {}, \"f\": [], \"g\": false, \"\": 7 }\n";
    struct json *root = parse(text);
    (void)state;
    assert_non_null(root);
    assert_true(json_number(json_get(root, "a.1"), 0) == -2500);
    assert_string_equal(json_text(json_get(root, "a.3.b"), ""), "x");
    assert_true(json_is_true(json_get(root, "c")));
    assert_false(json_is_true(json_get(root, "g")));
    assert_int_equal(json_get(root, "d")->kind, JSON_NULL);
    assert_null(json_first(json_get(root, "e")));
    assert_null(json_first(json_get(root, "f")));
    assert_null(json_get(root, "a.4"));
    assert_null(json_get(root, "a.x")); /* places are numbers */
    assert_null(json_get(root, "a.-1"));
    assert_null(json_get(root, "a.+1"));
    assert_null(json_get(root, "a.1x"));
    assert_null(json_get(root, "a.18446744073709551616"));
    assert_null(json_get(root, "a..b"));
    assert_null(json_get(root, "x.y"));
    assert_null(json_get(NULL, "x"));
    assert_true(json_number(json_get(root, "c"), 5) == 5);
    json_free(root);
    json_free(NULL);
}

static void strings(void **state)
{
    static const struct {
        const char *text, *is;
    } cases[] = {
        {"\"a\\\"\\\\\\/\\b\\f\\n\\r\\tz\"", "a\"\\/\b\f\n\r\tz"},
        {"\"\\u0041\\u00b5\\u20ac\"", "A\u00b5\u20ac"},
        {"\"\\ud83d\\ude00\"", "\U0001f600"},
        {"\"\\ud83d\"", "\ufffd"},         /* half of a pair */
        {"\"\\ud83d\\u0041\"", "\ufffdA"}, /* takes nothing of what follows */
        {"\"\\ud83d\\ud83d\\ude00\"", "\ufffd\U0001f600"},
        {"\"\\ude00x\"", "\ufffdx"},
        {"\"\u00b5\"", "\u00b5"},
        {"\"a\\u0000b\"", "a"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct json *root = parse(cases[i].text);
        assert_non_null(root);
        assert_string_equal(json_text(root, ""), cases[i].is);
        json_free(root);
    }
}

static void bad_texts(void **state)
{
    static const char *const texts[] = {
        "",
        " ",
        "{",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "nul",
        "tru",
        "truex",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "0x10",
        "1e999",
        "NaN",
        "\"",
        "\"a",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "\"\\ud83d\\u12\"",
        "[1 2]",
        "{} {}",
        "[1]]",
        "'a'",
        "[\"a\":1]",
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct json *root = parse(texts[i]);
        if (root)
            fail_msg("taken: %s", texts[i]);
    }
    assert_null(json_parse("[1]\0", 4));
    assert_null(json_parse(NULL, 0));
}

static void nesting_has_an_end(void **state)
{
    enum { DEEP = 100000 };
    char *text = malloc(DEEP * 2);
    (void)state;
    memset(text, '[', DEEP);
    memset(text + DEEP, ']', DEEP);
    assert_null(json_parse(text, DEEP * 2));
    assert_null(json_parse(text, DEEP));
    struct json *root = json_parse(text + DEEP - 60, 120);
    assert_non_null(root);
    json_free(root);
    free(text);
}

/* Every beginning of a good text is refused, and nothing is read behind it. */
static void truncated_texts(void **state)
{
    static const char text[] =
        "{\"a\": [1.5e3, \"\\ud83d\\ude00\", true, null], \"b\": {\"c\": -1}}";
    (void)state;
    for (size_t len = 0; len + 1 < sizeof text; len++) {
        char *part = malloc(len + 1); /* of its size, for the sanitizer */
        memcpy(part, text, len);
        part = realloc(part, len ? len : 1);
        assert_null(json_parse(part, len));
        free(part);
    }
}

/* --- there and back -------------------------------------------------------------------------- */

static char *contents(const char *path)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    char *text = calloc(1, (size_t)size + 1);
    rewind(f);
    assert_int_equal(fread(text, 1, (size_t)size, f), size);
    fclose(f);
    return text;
}

static void assert_same_files(const char *a, const char *b)
{
    char *x = contents(a), *y = contents(b);
    assert_string_equal(x, y);
    free(x);
    free(y);
}

static struct doctored *all_sorts(void)
{
    struct doctored *d = doctored_new();
    struct lab_load *load = doctored_load(d, "sleep", LAB_IO, LAB_CLOSED);
    struct lab_load *batch = doctored_load(d, "once", LAB_IO, LAB_BATCH);
    struct lab_series *s = doctored_series(d, load, "coroutine", 64, 3);
    batch->note_says = "Threads & \"processes\" \xc2\xb5 \xff";
    batch->note_seconds[0] = 0.1;
    batch->note_seconds[1] = 2.05;
    doctored_foreign(d, "http://[::1]:80/a\nb");
    d->results.config = "listen \"x\" {\n\tmodel = MODEL\n}\n";
    for (unsigned i = 0; i < 2; i++)
        for (int64_t ns = 10; ns < 50000000; ns += ns / 9 + 1)
            lab_histogram_add_many(&d->histograms[i], ns, (uint64_t)ns % 7 + i);
    s->rounds[0].latency = &d->histograms[0];
    s->rounds[1].latency = &d->histograms[1];
    s->rounds[1].trusted = false;
    s->rounds[1].doubt = "steal 7 %";
    s->rounds[2].error = "no answer";
    s->rounds[0].errors = (struct lab_errors){1, 2, 3, 4, 5};
    SET(s, rps, 1234.5678901, 0.1);
    SET(s, p99_us, 1.0 / 3, 0.1);
    SET(s, gil_held, 0.99, 0);
    s->rate = 400;
    s = doctored_series(d, batch, "prefork", 100, 1);
    s->gil = true;
    SET(s, seconds, 26.01, 0);
    return d;
}

static void what_is_read_is_what_was_written(void **state)
{
    char first[] = "/tmp/modus-lab-XXXXXX", again[] = "/tmp/modus-lab-XXXXXX", why[256] = "";
    struct doctored *d = all_sorts();
    (void)state;
    close(mkstemp(first));
    close(mkstemp(again));
    assert_int_equal(lab_write_json(&d->results, first), 0);
    struct lab_results *r = lab_read_json(first, why, sizeof why);
    assert_string_equal(why, "");
    assert_non_null(r);
    assert_int_equal(lab_write_json(r, again), 0);
    assert_same_files(first, again);

    const struct lab_series *s = lab_find(r, "sleep", "coroutine", 64, false);
    assert_non_null(s);
    assert_int_equal(s->round_count, 3);
    const struct lab_round *round = &s->rounds[0], *was = &d->series[0].rounds[0];
    assert_true(round->rps == was->rps && round->p99_us == was->p99_us);
    assert_true(round->busy == LAB_UNKNOWN && round->offered == LAB_UNKNOWN);
    assert_memory_equal(&round->errors, &was->errors, sizeof was->errors);
    assert_int_equal(round->latency->count, was->latency->count);
    assert_int_equal(round->latency->max, was->latency->max);
    assert_memory_equal(round->latency->bucket, was->latency->bucket, sizeof was->latency->bucket);
    assert_null(s->rounds[2].latency);
    assert_string_equal(s->rounds[2].error, "no answer");
    assert_false(s->rounds[1].trusted);
    assert_true(s->rate == 400);
    assert_true(lab_find(r, "once", "prefork", 0, true)->gil);
    assert_null(lab_find(r, "once", "prefork", 0, false));
    assert_string_equal(r->config, d->results.config);
    assert_string_equal(r->machine.when, d->results.machine.when);
    assert_true(r->servers[6].foreign && r->servers[1].workers == 8);
    lab_free_results(r);
    doctored_free(d);
    remove(first);
    remove(again);
}

static void the_page_is_the_same(void **state)
{
    char json[] = "/tmp/modus-lab-XXXXXX", page[] = "/tmp/modus-lab-XXXXXX",
         folder[] = "/tmp/modus-lab-XXXXXX", path[64], why[256];
    struct doctored *d = all_sorts();
    (void)state;
    close(mkstemp(json));
    close(mkstemp(page));
    assert_non_null(mkdtemp(folder));
    struct lab_findings *f = lab_judge_all(&d->results);
    assert_int_equal(lab_write_report(f, page), 0);
    lab_findings_free(f);
    assert_int_equal(lab_write_json(&d->results, json), 0);
    struct lab_results *r = lab_read_json(json, why, sizeof why);
    f = lab_judge_all(r);
    snprintf(path, sizeof path, "%s/report.html", folder);
    assert_int_equal(lab_write_report(f, path), 0);
    assert_same_files(page, path);
    lab_findings_free(f);
    lab_free_results(r);
    doctored_free(d);
    remove(json);
    remove(page);
    remove(path);
    rmdir(folder);
}

static void files_that_are_none(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "this is not JSON"},
        {"{\"modus_lab\": 1", "this is not JSON"},
        {"{}", "these are not results of modus lab"},
        {"[]", "these are not results of modus lab"},
        {"{\"modus_lab\": 2}", "these are not results of modus lab"},
        {"{\"modus_lab\": 1, \"series\": [{\"load\": \"a\"}]}", "not listed"},
    };
    char path[] = "/tmp/modus-lab-XXXXXX", why[256];
    (void)state;
    close(mkstemp(path));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        FILE *f = fopen(path, "w");
        fputs(cases[i].text, f);
        fclose(f);
        assert_null(lab_read_json(path, why, sizeof why));
        assert_non_null(strstr(why, path));
        assert_non_null(strstr(why, cases[i].why));
    }
    remove(path);
    assert_null(lab_read_json(path, why, sizeof why));
    assert_non_null(strstr(why, "No such file"));
    assert_null(lab_read_json("/tmp", why, sizeof why));
}

/* Whatever somebody wrote into it: no crash, and no number that can't be. */
static void odd_contents(void **state)
{
    static const char text[] =
        "{\"modus_lab\": 1, \"loads\": [{\"name\": \"a\", \"kind\": \"x\", \"loop\": 5}, 7], "
        "\"servers\": [{\"name\": \"s\", \"workers\": -1, \"threads\": 1e300}], \"machine\": [],"
        "\"series\": [{\"load\": \"a\", \"server\": \"s\", \"connections\": 1e30, \"rounds\": "
        "[{\"repeat\": -4, \"rps\": \"x\", \"p99_us\": 1e308, \"p50_us\": -3, \"requests\": 1e300, "
        "\"trusted\": true, \"cpu_us\": 1e308, \"latency\": {\"buckets\": [[1e300, 1e300], [-1, "
        "-1], 5, []], \"max_us\": 1e300}}, {}, null]}]}";
    char path[] = "/tmp/modus-lab-XXXXXX", page[] = "/tmp/modus-lab-XXXXXX", why[256] = "";
    (void)state;
    close(mkstemp(path));
    close(mkstemp(page));
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    struct lab_results *r = lab_read_json(path, why, sizeof why);
    assert_string_equal(why, "");
    assert_non_null(r);
    struct lab_findings *found = lab_judge_all(r);
    assert_int_equal(lab_write_report(found, page), 0);
    lab_findings_free(found);
    lab_free_results(r);
    remove(path);
    remove(page);
}

static void what_cant_be_written_is_said(void **state)
{
    struct doctored *d = all_sorts();
    struct lab_findings *f = lab_judge_all(&d->results);
    (void)state;
    assert_int_equal(lab_write_json(&d->results, "/nowhere/at/all"), -ENOENT);
    assert_int_equal(lab_write_report(f, "/nowhere/at/all"), -ENOENT);
    lab_findings_free(f);
    doctored_free(d);
}

/* --- plots ----------------------------------------------------------------------------------- */

/* Takes the page. */
static void assert_drawn(struct page *p, const char *what)
{
    assert_false(p->failed);
    page_put(p, (struct str){"", 1});
    assert_non_null(strstr(p->bytes, what));
    assert_null(strstr(p->bytes, "inf"));
    assert_null(strstr(p->bytes, "nan"));
    page_fini(p);
}

static const double odd[] = {0,    5e-324, 1e-310,  1e-12,    1,   1e17,
                             1e99, 1e160,  1.7e308, INFINITY, NAN, -1};
enum { ODD = sizeof odd / sizeof odd[0] };

static void bars_of_odd_numbers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ODD; i++)
        for (size_t k = 0; k < ODD; k++) {
            struct page p = {0};
            struct plot_bars bars = {.title = "a title", .say = lab_say_number, .count = 2};
            bars.bars[0] = (struct plot_bar){
                .name = "prefork", .value = odd[i], .low = odd[k], .high = odd[(i + k) % ODD]};
            bars.bars[1] =
                (struct plot_bar){.name = "hybrid", .value = odd[k], .low = 1, .high = 2};
            plot_bars(&p, &bars);
            assert_drawn(&p, "a title");
        }
}

/* A scale that one number has made does not hide all others. */
static void a_bar_of_no_number_is_left_out(void **state)
{
    struct page p = {0};
    struct plot_bars bars = {.title = "a title", .say = lab_say_number, .count = 2};
    (void)state;
    bars.bars[0] = (struct plot_bar){.name = "prefork", .value = INFINITY};
    bars.bars[1] = (struct plot_bar){.name = "hybrid", .value = 3, .low = 3, .high = 3};
    plot_bars(&p, &bars);
    assert_drawn(&p, "width=\"194.0\"");
}

static void lines_of_odd_numbers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ODD; i++)
        for (size_t k = 0; k < ODD; k++)
            for (unsigned logs = 0; logs < 4; logs++) {
                struct page p = {0};
                static struct plot plot;
                plot = (struct plot){.title = "a title",
                                     .say_x = lab_say_number,
                                     .say_y = lab_say_number,
                                     .x_log = logs & 1,
                                     .y_log = logs & 2};
                struct plot_line *line = plot_add_line(&plot, "prefork");
                plot_add_point(line, (struct plot_point){odd[i], odd[k], odd[i], odd[k], false});
                plot_add_point(line, (struct plot_point){odd[k], odd[i], 0, INFINITY, true});
                plot_add_point(plot_add_line(&plot, "none"), (struct plot_point){NAN, 0, 0, 0, 0});
                plot_lines(&p, &plot);
                if (line->count)
                    assert_drawn(&p, "a title");
                else
                    assert_int_equal(p.len, 0);
                page_fini(&p);
            }
}

/* The first line that has points is the first that is told of. */
static void a_line_without_points(void **state)
{
    struct page p = {0};
    static struct plot plot = {
        .title = "a title", .x_name = "x", .say_x = lab_say_number, .say_y = lab_say_number};
    (void)state;
    plot_add_line(&plot, "empty");
    plot_add_point(plot_add_line(&plot, "hybrid"), (struct plot_point){1, 2, 2, 2, false});
    plot_lines(&p, &plot);
    assert_drawn(&p, "At its end: hybrid 2.00 at 1.00.");
}

/* The rounds at the first ticks have failed, for all. */
static void ticks_that_nobody_has(void **state)
{
    struct page p = {0};
    static struct plot plot = {.title = "a title",
                               .x_name = "x",
                               .say_x = lab_say_number,
                               .say_y = lab_say_number,
                               .ticks = {1, 10, 1000},
                               .tick_count = 3};
    (void)state;
    plot_add_point(plot_add_line(&plot, "one"), (struct plot_point){10, 2, 2, 2, false});
    plot_lines(&p, &plot);
    assert_null(memmem(p.bytes, p.len, " x=\"-", 5)); /* beside the drawing */
    assert_drawn(&p, "a title");
}

static void more_lines_than_fit(void **state)
{
    struct page p = {0};
    static struct plot plot = {
        .title = "a title", .x_name = "x", .say_x = lab_say_number, .say_y = lab_say_number};
    (void)state;
    for (int i = 0; i < PLOT_LINES; i++)
        plot_add_point(plot_add_line(&plot, "one"), (struct plot_point){1, 2, 2, 2, false});
    assert_null(plot_add_line(&plot, "one more"));
    plot_lines(&p, &plot);
    page_put(&p, (struct str){"", 1});
    assert_null(strstr(p.bytes, " y=\"-")); /* above the drawing */
    page_fini(&p);
}

/* By characters, and none is cut in two. */
static void short_names(void **state)
{
    char to[64], name[301];
    (void)state;
    plot_short_name(to, sizeof to, "http://127.0.0.1:80", 14);
    assert_string_equal(to, "127.0.0.1:80");
    plot_short_name(to, sizeof to, "https://example.org:8443/", 11);
    assert_string_equal(to, "example.or…");
    plot_short_name(to, sizeof to, "ääääää", 6);
    assert_string_equal(to, "ääääää");
    plot_short_name(to, sizeof to, "äääääää", 6);
    assert_string_equal(to, "äääää…");
    memset(name, 'x', 300);
    name[300] = '\0';
    plot_short_name(to, sizeof to, name, 5);
    assert_string_equal(to, "xxxx…");
    memset(name, '\x80', 300); /* no UTF-8 */
    plot_short_name(to, sizeof to, name, 5);
    assert_true(strlen(to) < sizeof to);
}

/* --- figures --------------------------------------------------------------------------------- */

static void figures_as_people_read_them(void **state)
{
    char t[LAB_FIGURE], many[64];
    (void)state;
    assert_string_equal(lab_say_number(t, 5.606), "5.61");
    assert_string_equal(lab_say_number(t, 9.996), "10.0");
    assert_string_equal(lab_say_number(t, 99.96), "100");
    assert_string_equal(lab_say_number(t, 41234), "41,200");
    assert_string_equal(lab_say_number(t, 1234567), "1,230,000");
    assert_string_equal(lab_say_number(t, 0), "0");
    assert_string_equal(lab_say_number(t, LAB_UNKNOWN), "?");
    assert_string_equal(lab_say_whole(t, 20000), "20,000");
    assert_string_equal(lab_say_us(t, 999.7), "1.00" LAB_NBSP "ms");
    assert_string_equal(lab_say_us(t, 1620000), "1.62" LAB_NBSP "s");
    assert_string_equal(lab_say_kib(t, 0.35), "358" LAB_NBSP "B");
    assert_string_equal(lab_say_kib(t, 3174.4), "3.10" LAB_NBSP "MiB");
    assert_string_equal(lab_say_share(t, 0.998), "99" LAB_NBSP "%");
    assert_string_equal(lab_say_share(t, 1), "100" LAB_NBSP "%");
    assert_string_equal(lab_say_share(t, 0.0015), "0.1" LAB_NBSP "%");
    assert_string_equal(lab_say_times(t, 12.4), "12 times");
    assert_string_equal(lab_say_count(many, sizeof many, 1, "thread", "threads"), "1 thread");
    assert_string_equal(lab_say_number(t, 1e308), "1e+308");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_are_right_within_one_percent),
        cmocka_unit_test(every_time_is_near_the_middle_of_its_bucket),
        cmocka_unit_test(odd_times),
        cmocka_unit_test(good_texts),
        cmocka_unit_test(strings),
        cmocka_unit_test(bad_texts),
        cmocka_unit_test(nesting_has_an_end),
        cmocka_unit_test(truncated_texts),
        cmocka_unit_test(what_is_read_is_what_was_written),
        cmocka_unit_test(the_page_is_the_same),
        cmocka_unit_test(files_that_are_none),
        cmocka_unit_test(odd_contents),
        cmocka_unit_test(what_cant_be_written_is_said),
        cmocka_unit_test(bars_of_odd_numbers),
        cmocka_unit_test(a_bar_of_no_number_is_left_out),
        cmocka_unit_test(lines_of_odd_numbers),
        cmocka_unit_test(a_line_without_points),
        cmocka_unit_test(ticks_that_nobody_has),
        cmocka_unit_test(more_lines_than_fit),
        cmocka_unit_test(short_names),
        cmocka_unit_test(figures_as_people_read_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
