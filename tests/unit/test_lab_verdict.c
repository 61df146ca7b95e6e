/* SPDX-License-Identifier: MIT */
/* What the lab makes of figures: who is chosen, when it is said to be the noise, what is left out, and
 * that every sentence is from the figures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/lab/choice.h"
#include "server/lab/report.h"
#include "server/lab/stall.h"
#include "server/lab/table.h"
#include "tests/unit/lab_doctored.h"

/* The verdict about the first load, which is freed with the next one. */
static const struct lab_verdict *judged(const struct doctored *d)
{
    static struct lab_findings *f;
    lab_findings_free(f);
    f = d ? lab_judge_all(&d->results) : NULL;
    return f && f->count ? f->loads[0].headline : NULL;
}

static void end(struct doctored *d)
{
    judged(NULL);
    doctored_free(d);
}

/* With plain spaces between numbers and units. */
static const char *plain(const char *text)
{
    static char copy[4096];
    size_t to = 0;
    for (size_t i = 0; text[i] && to + 1 < sizeof copy; i++) {
        bool is_space = strncmp(text + i, LAB_NBSP, strlen(LAB_NBSP)) == 0;
        copy[to++] = is_space ? ' ' : text[i];
        i += is_space ? strlen(LAB_NBSP) - 1 : 0;
    }
    copy[to] = '\0';
    return copy;
}

static void assert_says(const char *text, const char *what)
{
    if (!strstr(plain(text), what) && !strstr(text, what))
        fail_msg("\"%s\" is not in: %s", what, text);
}

static void assert_says_not(const char *text, const char *what)
{
    if (strstr(text, what))
        fail_msg("\"%s\" is in: %s", what, text);
}

static void assert_chosen(const struct lab_verdict *v, const char *name)
{
    assert_non_null(v);
    assert_non_null(lab_chosen(v));
    assert_string_equal(lab_chosen(v)->name, name);
}

/* --- choosing -------------------------------------------------------------------------------- */

static struct doctored *waiting_load(void)
{
    struct doctored *d = doctored_new();
    struct lab_load *load = doctored_load(d, "sleep", LAB_IO, LAB_CLOSED);
    struct lab_series *s = doctored_series(d, load, "prefork", 100, 3);
    SET(s, rps, 4, 0.01);
    SET(s, p50_us, 1.9e6, 0.01);
    SET(s, p99_us, 26e6, 0.01);
    SET(s, busy, 0.993, 0);
    s = doctored_series(d, load, "coroutine", 100, 3);
    SET(s, rps, 49, 0.01);
    SET(s, p50_us, 2.01e6, 0.01);
    SET(s, p99_us, 2.05e6, 0.01);
    SET(s, threads, 3, 0);
    SET(s, processes, 1, 0);
    return d;
}

static void who_starves_is_called_so(void **state)
{
    struct doctored *d = waiting_load();
    const struct lab_verdict *v = judged(d);
    (void)state;
    assert_chosen(v, "coroutine");
    assert_int_equal(v->certainty, LAB_CLEAR);
    assert_says(v->margin, "12 times the requests a second of prefork");
    assert_says(v->margin, "49.0 against 4.00");
    assert_says(v->why, "prefork serves 8 at a time: its 8 workers were busy 99 % of the time");
    assert_says(v->why, "half of the requests took 1.90 s or more");
    end(d);
}

static void nobody_starves_who_has_places(void **state)
{
    struct doctored *d = waiting_load();
    (void)state;
    d->series[0].connections = d->series[1].connections = 8;
    assert_says_not(judged(d)->why, "at a time");
    end(d);
}

static void queue_is_said(void **state)
{
    struct doctored *d = waiting_load();
    struct lab_series *s = doctored_series(d, &d->loads[0], "thread-pool", 100, 3);
    (void)state;
    SET(s, rps, 30, 0.01);
    SET(s, p50_us, 3e6, 0.01);
    SET(s, queued_us, 1.2e6, 0);
    assert_says(judged(d)->why, "in thread-pool requests waited 1.20 s in the queue for its 64 "
                                "threads");
    SET(s, busy, 0.9, 0);
    assert_says(judged(d)->why, "took 1.90 s or more (likewise thread-pool with its 64)");
    end(d);
}

static struct doctored *overhead(double a, double b, double spread, size_t repeats)
{
    struct doctored *d = doctored_new();
    struct lab_load *load = doctored_load(d, "hello", LAB_OVERHEAD, LAB_CLOSED);
    SET(doctored_series(d, load, "event-loop", 64, repeats), cpu_us, a, spread);
    SET(doctored_series(d, load, "process", 64, repeats), cpu_us, b, spread);
    return d;
}

static void forks_and_blocked_loops_are_said(void **state)
{
    struct doctored *d = overhead(17, 180, 0.01, 3);
    (void)state;
    SET(&d->series[1], forks, 1, 0);
    assert_says(
        judged(d)->why,
        "process made 1.00 process a request and took 180 µs of CPU for it against 17.0 µs");
    d->loads[0].kind = LAB_MIXED;
    SET(&d->series[0], cheap_p99_us, 1000, 0.01);
    SET(&d->series[1], cheap_p99_us, 60000, 0.01);
    SET(&d->series[1], forks, 0, 0);
    SET(&d->series[1], blocked, 12, 0);
    assert_says(judged(d)->why, "a loop of process was blocked 12 times for over 50 ms");
    end(d);
}

static void noise_is_called_so(void **state)
{
    struct doctored *d = overhead(10, 10.4, 0.001, 3); /* apart, but by less than matters */
    (void)state;
    assert_int_equal(judged(d)->certainty, LAB_NOISE);
    assert_says(judged(d)->margin, "event-loop and process are within the noise of each other");
    end(d);
    d = overhead(10, 11, 0.01, 3); /* by what matters, but not each time */
    d->series[1].rounds[1].cpu_us = 10.3;
    assert_int_equal(judged(d)->certainty, LAB_NOISE);
    end(d);
    d = overhead(10, 11, 0.01, 3);
    assert_int_equal(judged(d)->certainty, LAB_CLEAR);
    assert_says(judged(d)->margin,
                "CPU a request 10.0 µs against 11.0 µs for process, the nearest clearly behind, "
                "10 % more");
    end(d);
}

static void few_repeats_need_more(void **state)
{
    static const struct {
        size_t repeats;
        double other;
        enum lab_certainty certainty;
    } cases[] = {
        {1, 12, LAB_NOISE}, {1, 13, LAB_CLEAR}, {2, 11, LAB_NOISE},
        {2, 12, LAB_CLEAR}, {3, 11, LAB_CLEAR}, {5, 11, LAB_CLEAR},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct doctored *d = overhead(10, cases[i].other, 0.001, cases[i].repeats);
        assert_int_equal(judged(d)->certainty, cases[i].certainty);
        if (cases[i].repeats == 1)
            assert_says(judged(d)->notes, "Measured once");
        end(d);
    }
}

static void second_figure_decides_among_equals(void **state)
{
    struct doctored *d = waiting_load();
    struct lab_series *s = doctored_series(d, &d->loads[0], "process", 100, 3);
    (void)state;
    SET(s, rps, 49.3, 0.01);
    SET(s, pss_kib, 14000, 0);
    SET(s, pss_idle_kib, 2000, 0);
    SET(s, processes, 102, 0);
    SET(&d->series[1], pss_kib, 2100, 0);
    SET(&d->series[1], pss_idle_kib, 2000, 0);
    const struct lab_verdict *v = judged(d);
    assert_chosen(v, "coroutine");
    assert_int_equal(v->certainty, LAB_SECOND);
    assert_says(v->margin, "memory of the whole server 2.05 MiB against 13.7 MiB for process");
    assert_says(v->margin, "12 times the requests a second of prefork");
    assert_says(v->why, "process was 102 processes where coroutine was 1");
    end(d);
}

static void few_bytes_are_nothing_to_choose_by(void **state)
{
    struct doctored *d = doctored_new();
    struct lab_load *load = doctored_load(d, "idle", LAB_IDLE, LAB_CLOSED);
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct lab_series *s = doctored_series(d, load, i ? "prefork" : "event-loop", 1000, 3);
        SET(s, pss_idle_kib, 5000, 0);
        SET(s, pss_kib, i ? 5400 : 5250, 0);
    }
    assert_int_equal(judged(d)->certainty, LAB_NOISE);
    SET(&d->series[1], pss_kib, 8000, 0);
    assert_int_equal(judged(d)->certainty, LAB_CLEAR);
    end(d);
}

static void headline_is_the_most_that_somebody_kept_up_with(void **state)
{
    static const double rates[] = {100, 400, 1600};
    struct doctored *d = doctored_new();
    struct lab_load *load = doctored_load(d, "api", LAB_IO, LAB_OPEN);
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        for (unsigned k = 0; k < 2; k++) {
            struct lab_series *s = doctored_series(d, load, k ? "prefork" : "coroutine", 64, 3);
            double most = k ? 160 : 1000;
            s->rate = rates[i];
            SET(s, offered, rates[i], 0);
            SET(s, rps, rates[i] < most ? rates[i] : most, 0);
            SET(s, p99_us, k ? 60000 : 70000, 0.01);
        }
    const struct lab_verdict *v = judged(d);
    assert_int_equal((int)v->rate, 400);
    assert_chosen(v, "coroutine");
    assert_int_equal(v->certainty, LAB_ALONE);
    assert_says(v->notes, "prefork can't be chosen: it answered 40 % of what was asked");
    end(d);
}

/* --- who and what is left out ---------------------------------------------------------------- */

static void errors_disqualify(void **state)
{
    struct doctored *d = overhead(10, 20, 0.01, 3);
    (void)state;
    d->series[0].rounds[1].errors.timeout = 200;
    assert_chosen(judged(d), "process");
    assert_says(judged(d)->notes, "event-loop can't be chosen: 0.7 % of its requests failed (most: "
                                  "no answer in time)");
    d->series[0].rounds[1].errors = (struct lab_errors){.status = 200};
    assert_says(judged(d)->notes, "(most: answered with an error)");
    SET(&d->series[0], rejected, 190, 0);
    assert_says(judged(d)->notes, "(most: its queue was full)");
    d->series[0].rounds[1].errors = (struct lab_errors){.timeout = 20};
    assert_chosen(judged(d), "event-loop");
    d->series[0].rounds[1].errors.timeout = d->series[1].rounds[1].errors.status = 9000;
    assert_int_equal(judged(d)->certainty, LAB_NOBODY);
    assert_null(lab_chosen(judged(d)));
    assert_says(judged(d)->margin, "none");
    end(d);
}

static void untrusted_rounds_are_left_out(void **state)
{
    struct doctored *d = overhead(10, 20, 0.01, 3);
    struct lab_round *r = &d->series[0].rounds[0];
    (void)state;
    r->trusted = false;
    r->doubt = "steal 7 %";
    r->cpu_us = 1000;
    r->errors.status = 100000;
    assert_chosen(judged(d), "event-loop");
    assert_says(judged(d)->notes,
                "Left out: 1 round of event-loop that is not to be trusted (steal "
                "7 %)");
    assert_int_equal(judged(d)->rank[0].first.count, 2);
    assert_false(judged(d)->disturbed);
    d->series[1].rounds[0].trusted = d->series[1].rounds[1].trusted = false;
    d->series[1].rounds[1].doubt = "steal 9 %";
    assert_says(judged(d)->notes, "Left out: 1 round of event-loop and 2 rounds of process that "
                                  "are not to be trusted (the last: steal 9 %)");
    end(d);
}

/* What slows a whole repeat, slows all alike; that hides nothing. */
static void within_a_repeat_they_are_compared(void **state)
{
    struct doctored *d = overhead(10, 11, 0.2, 3);
    (void)state;
    assert_int_equal(judged(d)->certainty, LAB_CLEAR);
    assert_chosen(judged(d), "event-loop");
    for (unsigned i = 0; i < 3; i++)
        d->series[1].rounds[i].repeat = 2 - i; /* 11 beside 8, 13.2 beside 12, and 8.8 beside 10 */
    assert_int_equal(judged(d)->certainty, LAB_NOISE);
    end(d);
}

/* Of five; of three it is too many. */
static void one_pair_may_be_odd(void **state)
{
    (void)state;
    for (size_t repeats = 3; repeats <= 5; repeats += 2) {
        struct doctored *d = overhead(10, 15, 0.01, repeats);
        d->series[0].rounds[1].cpu_us = 40;
        assert_int_equal(judged(d)->certainty, repeats == 5 ? LAB_CLEAR : LAB_NOISE);
        assert_chosen(judged(d), "event-loop");
        d->series[1].rounds[0].cpu_us = 9;
        assert_int_equal(judged(d)->certainty, LAB_NOISE);
        end(d);
    }
}

/* Of two tails one is easily half as long again. */
static void a_tail_must_be_twice_as_long(void **state)
{
    struct doctored *d = overhead(10, 10.1, 0.01, 3);
    (void)state;
    SET(&d->series[0], p99_us, 1000, 0.01);
    SET(&d->series[1], p99_us, 1900, 0.01);
    assert_int_equal(judged(d)->certainty, LAB_NOISE);
    SET(&d->series[1], p99_us, 2100, 0.01);
    assert_int_equal(judged(d)->certainty, LAB_SECOND);
    end(d);
}

/* Whose rounds have no repeat in common. */
static void medians_are_left(void **state)
{
    struct doctored *d = overhead(10, 14, 0.01, 2);
    (void)state;
    d->series[0].rounds[0].trusted = d->series[1].rounds[1].trusted = false;
    assert_int_equal(judged(d)->certainty, LAB_NOISE);
    SET(&d->series[1], cpu_us, 16, 0.01);
    assert_int_equal(judged(d)->certainty, LAB_CLEAR);
    end(d);
}

static void nobody_to_trust_makes_no_fine_difference(void **state)
{
    struct doctored *d = overhead(10, 14, 0.01, 3);
    (void)state;
    for (int i = 0; i < 3; i++) {
        d->series[0].rounds[i].trusted = false;
        d->series[0].rounds[i].doubt = "load 9";
    }
    assert_int_equal(judged(d)->certainty, LAB_NOISE);
    assert_true(judged(d)->disturbed);
    assert_says(judged(d)->notes, "No round of event-loop is to be trusted (the last: load 9)");
    SET(&d->series[1], cpu_us, 100, 0.01);
    assert_int_equal(judged(d)->certainty, LAB_CLEAR);
    end(d);
}

static void failed_rounds(void **state)
{
    struct doctored *d = overhead(10, 20, 0.01, 3);
    (void)state;
    d->series[0].rounds[0].error = "the server died";
    assert_says(judged(d)->notes, "Left out: 1 round of event-loop that failed (the server died)");
    assert_chosen(judged(d), "event-loop");
    for (int i = 0; i < 3; i++)
        d->series[0].rounds[i].error = "the server died";
    assert_chosen(judged(d), "process");
    assert_says(judged(d)->notes,
                "event-loop can't be chosen: it could not be measured: the server "
                "died");
    end(d);
}

static void unfinished_run(void **state)
{
    struct doctored *d = overhead(10, 20, 0.01, 3);
    (void)state;
    d->results.whole = false;
    d->series[1].round_count = 0;
    assert_int_equal(judged(d)->certainty, LAB_ALONE);
    assert_says(judged(d)->notes, "process can't be chosen: it was not measured");
    assert_says(judged(d)->notes, "Not measured: prefork, thread-pool, hybrid and coroutine");
    d->results.series_count = 0;
    assert_null(judged(d));
    end(d);
}

static void foreign_server_is_compared_with(void **state)
{
    struct doctored *d = overhead(10, 20, 0.01, 3);
    const struct lab_server *nginx = doctored_foreign(d, "http://127.0.0.1:80/");
    struct lab_series *s = doctored_series(d, &d->loads[0], nginx->name, 64, 3);
    (void)state;
    SET(s, rps, 90000, 0.01);
    SET(&d->series[0], rps, 60000, 0.01);
    assert_chosen(judged(d), "event-loop");
    assert_says(judged(d)->notes, "http://127.0.0.1:80/, measured beside: requests a second 90,000 "
                                  "against 60,000 for event-loop");
    assert_says_not(judged(d)->notes, "within the noise");
    SET(s, rps, 61000, 0.01);
    assert_says(judged(d)->notes, "61,000 against 60,000 for event-loop, within the noise");
    d->series[0].rounds[0].errors.read = d->series[1].rounds[0].errors.read = 50000;
    assert_null(lab_chosen(judged(d)));
    end(d);
}

/* --- the interpreter lock -------------------------------------------------------------------- */

static void the_lock_is_apart(void **state)
{
    struct doctored *d = doctored_new();
    struct lab_load *load = doctored_load(d, "spin", LAB_CPU, LAB_CLOSED);
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct lab_series *s = doctored_series(d, load, i % 2 ? "hybrid" : "thread-pool", 4, 3);
        s->gil = i >= 2;
        SET(s, rps, i == 2 ? 500 : 1000, 0.01);
        SET(s, gil_held, s->gil ? 0.99 : LAB_UNKNOWN, 0);
    }
    struct lab_findings *f = lab_judge_all(&d->results);
    assert_int_equal(f->loads[0].count, 2);
    assert_false(f->loads[0].headline->gil);
    assert_int_equal(f->loads[0].headline->certainty, LAB_NOISE);
    const struct lab_verdict *with = &f->loads[0].points[1];
    assert_true(with->gil);
    assert_chosen(with, "hybrid");
    assert_says(with->why, "in thread-pool the interpreter lock was held 99 % of the time");
    assert_says_not(f->loads[0].headline->why, "lock");
    lab_findings_free(f);
    end(d);
}

/* --- the answer ------------------------------------------------------------------------------ */

static const struct lab_choice *choice_of(struct lab_choice choices[LAB_CHOICES], size_t count,
                                          const char *anchor)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(choices[i].anchor, anchor) == 0)
            return &choices[i];
    fail_msg("no row for %s", anchor);
    return NULL;
}

static void rows_of_the_answer(void **state)
{
    struct doctored *d = waiting_load();
    struct lab_load *close = doctored_load(d, "close", LAB_OVERHEAD, LAB_CLOSED);
    struct lab_choice *choices = calloc(LAB_CHOICES, sizeof *choices);
    struct lab_series *s;
    (void)state;
    SET(doctored_series(d, close, "event-loop", 64, 3), cpu_us, 17, 0.01);
    s = doctored_series(d, close, "process", 64, 3);
    SET(s, cpu_us, 242, 0.01);
    struct lab_findings *f = lab_judge_all(&d->results);
    size_t count = lab_choose(f, choices);
    assert_string_equal(choice_of(choices, count, "io")->server->name, "coroutine");
    assert_string_equal(choice_of(choices, count, "overhead")->server->name, "event-loop");
    const struct lab_choice *untrusted = choice_of(choices, count, "untrusted");
    assert_string_equal(untrusted->server->name, "process");
    assert_says(untrusted->margin, "a crash takes one client");
    assert_says(untrusted->why,
                "242 µs of CPU a request against 17.0 µs for event-loop (a title; 64 "
                "connections)");
    assert_string_equal(untrusted->from, "");
    for (size_t i = 0; i < count; i++)
        assert_true(strcmp(choices[i].anchor, "cpu") != 0 &&
                    strcmp(choices[i].anchor, "idle") != 0);
    lab_findings_free(f);
    free(choices);
    end(d);
}

/* A model that leads two of three loads of a kind is the row's; the third is named. */
static void exceptions_are_named(void **state)
{
    static const char *const names[] = {"hello", "file", "close"};
    struct doctored *d = doctored_new();
    struct lab_choice *choices = calloc(LAB_CHOICES, sizeof *choices);
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct lab_load *load = doctored_load(d, names[i], LAB_OVERHEAD, LAB_CLOSED);
        SET(doctored_series(d, load, "event-loop", 64, 3), cpu_us, i == 1 ? 90 : 10, 0.01);
        SET(doctored_series(d, load, "thread-pool", 64, 3), cpu_us, i == 1 ? 70 : 12, 0.01);
    }
    struct lab_findings *f = lab_judge_all(&d->results);
    size_t count = lab_choose(f, choices);
    const struct lab_choice *c = choice_of(choices, count, "overhead");
    assert_string_equal(c->server->name, "event-loop");
    assert_string_equal(c->but, "thread-pool for \"a title\"");
    lab_findings_free(f);
    free(choices);
    end(d);
}

/* --- unknown numbers ------------------------------------------------------------------------- */

static char *file_text(FILE *f)
{
    long size = ftell(f);
    char *text = calloc(1, (size_t)size + 1);
    rewind(f);
    assert_int_equal(fread(text, 1, (size_t)size, f), size);
    fclose(f);
    return text;
}

/* Whatever is not known, is not shown as a number: neither in the table nor on the page. */
static void unknown_is_no_number(void **state)
{
    static const enum lab_kind kinds[] = {LAB_OVERHEAD, LAB_IO, LAB_CPU, LAB_MIXED, LAB_IDLE};
    char path[] = "/tmp/modus-lab-XXXXXX";
    struct doctored *d = doctored_new();
    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        struct lab_load *load =
            doctored_load(d, lab_kind_name(kinds[i]), kinds[i], i % 2 ? LAB_OPEN : LAB_CLOSED);
        for (unsigned k = 0; k < 3; k++)
            SET(doctored_series(d, load,
                                k == 2 ? "prefork"
                                : k    ? "process"
                                       : "event-loop",
                                64, k),
                rps, k == 1 ? 100 : LAB_UNKNOWN, 0);
    }
    struct lab_findings *f = lab_judge_all(&d->results);
    FILE *table = tmpfile();
    lab_table(f, table);
    char *text = file_text(table);
    assert_says_not(text, "-1");
    assert_says_not(text, "nan");
    free(text);
    close(mkstemp(path));
    assert_int_equal(lab_write_report(f, path), 0);
    FILE *page = fopen(path, "r");
    fseek(page, 0, SEEK_END);
    text = file_text(page);
    char *body = strstr(text, "<main>");
    assert_non_null(body);
    assert_says_not(body, ">-1");
    assert_says_not(body, " -1 ");
    assert_says_not(body, "nan");
    assert_says_not(body, "inf");
    free(text);
    remove(path);
    lab_findings_free(f);
    end(d);
}

/* The stall is told of the loops, and nobody is chosen by it. */
static void stall_is_about_the_loops(void **state)
{
    struct doctored *d = doctored_new();
    struct lab_load *closed = doctored_load(d, "stall-closed", LAB_STALL, LAB_CLOSED);
    struct lab_load *opened = doctored_load(d, "stall-open", LAB_STALL, LAB_OPEN);
    struct lab_series *a = doctored_series(d, closed, "event-loop", 64, 1);
    struct lab_stall stall;
    (void)state;
    SET(a, p99_us, 2000, 0);
    assert_false(lab_stall_seen(&d->results, &stall));
    struct lab_series *b = doctored_series(d, opened, "event-loop", 64, 1);
    b->rate = 2000;
    SET(b, p99_us, 450000, 0);
    assert_false(lab_stall_seen(&d->results, &stall)); /* their times are not known */
    lab_histogram_add_many(&d->histograms[0], 1000000, 10000);
    lab_histogram_add_many(&d->histograms[0], 400000000, 64);
    lab_histogram_add_many(&d->histograms[1], 1000000, 15000);
    lab_histogram_add_many(&d->histograms[1], 400000000, 5000);
    a->rounds[0].latency = &d->histograms[0];
    b->rounds[0].latency = &d->histograms[1];
    assert_true(lab_stall_seen(&d->results, &stall));
    assert_says(stall.text, "the closed loop says p99 2.00 ms");
    assert_says(stall.text, "the open loop says p99 450 ms");
    assert_says(stall.text, "64 of 10,064 answers (0.6 %)");
    assert_says(stall.text, "5000 of 20,000 answers (25 %)");
    struct lab_findings *f = lab_judge_all(&d->results);
    assert_null(f->loads[0].headline);
    assert_null(f->loads[1].headline);
    lab_findings_free(f);
    end(d);
}

static void foreign_text_is_escaped(void **state)
{
    char path[] = "/tmp/modus-lab-XXXXXX";
    struct doctored *d = overhead(10, 20, 0.01, 3);
    const char *name = "http://x/<script>alert('1')</script>\x1b[2J";
    SET(doctored_series(d, &d->loads[0], doctored_foreign(d, name)->name, 64, 3), rps, 9, 0);
    (void)state;
    snprintf(d->results.machine.cpu, sizeof d->results.machine.cpu, "<b>&\"");
    d->series[0].rounds[0].trusted = false;
    d->series[0].rounds[0].doubt = "<i>";
    struct lab_findings *f = lab_judge_all(&d->results);
    close(mkstemp(path));
    assert_int_equal(lab_write_report(f, path), 0);
    FILE *page = fopen(path, "r");
    fseek(page, 0, SEEK_END);
    char *text = file_text(page);
    assert_says_not(text, "<script");
    assert_says_not(text, "<i>");
    assert_says_not(text, "<b>&");
    assert_says_not(text, "\x1b");
    assert_says(text, "&lt;script&gt;");
    free(text);
    FILE *table = tmpfile();
    lab_table(f, table);
    text = file_text(table);
    assert_says_not(text, "\x1b");
    free(text);
    remove(path);
    lab_findings_free(f);
    end(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_starves_is_called_so),
        cmocka_unit_test(nobody_starves_who_has_places),
        cmocka_unit_test(queue_is_said),
        cmocka_unit_test(forks_and_blocked_loops_are_said),
        cmocka_unit_test(noise_is_called_so),
        cmocka_unit_test(few_repeats_need_more),
        cmocka_unit_test(second_figure_decides_among_equals),
        cmocka_unit_test(few_bytes_are_nothing_to_choose_by),
        cmocka_unit_test(headline_is_the_most_that_somebody_kept_up_with),
        cmocka_unit_test(errors_disqualify),
        cmocka_unit_test(untrusted_rounds_are_left_out),
        cmocka_unit_test(nobody_to_trust_makes_no_fine_difference),
        cmocka_unit_test(failed_rounds),
        cmocka_unit_test(unfinished_run),
        cmocka_unit_test(foreign_server_is_compared_with),
        cmocka_unit_test(the_lock_is_apart),
        cmocka_unit_test(rows_of_the_answer),
        cmocka_unit_test(exceptions_are_named),
        cmocka_unit_test(unknown_is_no_number),
        cmocka_unit_test(stall_is_about_the_loops),
        cmocka_unit_test(within_a_repeat_they_are_compared),
        cmocka_unit_test(one_pair_may_be_odd),
        cmocka_unit_test(a_tail_must_be_twice_as_long),
        cmocka_unit_test(medians_are_left),
        cmocka_unit_test(foreign_text_is_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
