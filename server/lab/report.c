/* SPDX-License-Identifier: MIT */
/* The lab's page: its head, the answer, how to read it, and the machine. */
#include "server/lab/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/lab/plot.h"
#include "server/lab/report_priv.h"
#include "server/lab/stall.h"
#include "server/lab/table.h"
#include "server/models.h"

__asm__(".section .rodata\n"
        ".global report_css\nreport_css:\n"
        ".incbin \"server/lab/report.css\"\n"
        ".byte 0\n"
        ".previous\n");

/* --- helpers of all parts -------------------------------------------------------------------- */

void report_text(struct page *p, const char *text)
{
    page_html(p, str_of(text));
}

void report_server(struct page *p, const struct lab_server *server)
{
    plot_mark(p, server->name);
    report_text(p, server->name);
}

void report_open(struct page *p, const char *id, const char *title)
{
    page_format(p, "<section id=\"%s\"><h2>", id);
    report_text(p, title);
    page_puts(p, "</h2>\n");
}

void report_close(struct page *p)
{
    page_puts(p, "</section>\n");
}

const char *report_loop(enum lab_loop loop)
{
    switch (loop) {
    case LAB_CLOSED:
        return "closed loop";
    case LAB_OPEN:
        return "open loop";
    case LAB_BATCH:
        return "batch";
    }
    return "?";
}

/* --- head ------------------------------------------------------------------------------------ */

/* "2026-07-31 12:34" of ISO 8601, else as it is. */
static void put_when(struct page *p, const char *when)
{
    if (strlen(when) < 16 || when[10] != 'T') {
        report_text(p, when);
        return;
    }
    page_html(p, (struct str){when, 10});
    page_puts(p, " ");
    page_html(p, (struct str){when + 11, 5});
}

static void put_head(struct page *p, const struct lab_results *r)
{
    page_puts(p, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                 "<title>Which model? Modus lab</title>\n<meta name=\"viewport\" "
                 "content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" "
                 "content=\"light dark\">\n<meta http-equiv=\"Content-Security-Policy\" "
                 "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
                 "<link rel=\"icon\" href=\"data:,\">\n<style>");
    page_puts(p, report_css);
    page_puts(p, "</style></head><body>\n<header><h1>Modus lab</h1><p class=\"soft\">");
    report_text(p, r->machine.modus);
    page_puts(p, ", ");
    put_when(p, r->machine.when);
    page_puts(p, ", ");
    report_text(p, r->machine.cpu);
    page_format(p, ", %u %s</p></header>\n<main>\n", r->machine.cpus,
                r->machine.cpus == 1 ? "CPU" : "CPUs");
}

static unsigned doubtful_rounds(const struct lab_results *r, unsigned *of)
{
    unsigned count = 0;
    *of = 0;
    for (size_t i = 0; i < r->series_count; i++)
        for (size_t k = 0; k < r->series[i].round_count; k++, ++*of)
            count += !r->series[i].rounds[k].trusted || r->series[i].rounds[k].error;
    return count;
}

static void put_warnings(struct page *p, const struct lab_results *r)
{
    unsigned all, doubtful = doubtful_rounds(r, &all);
    if (!r->whole)
        page_puts(p,
                  "<p class=\"warning\" role=\"note\"><b>This run was ended before its time.</b> "
                  "Some loads, servers or repeats are missing; what is said holds for what was "
                  "measured.</p>\n");
    if (!r->machine.pinned)
        page_puts(p, "<p class=\"warning\" role=\"note\"><b>Server and loader shared the CPUs.</b> "
                     "So the loader took part of what the servers had.</p>\n");
    if (doubtful)
        page_format(p,
                    "<p class=\"warning\" role=\"note\"><b>%u of %u %s</b>: <a "
                    "href=\"#left-out\">which, and why</a>.</p>\n",
                    doubtful, all,
                    doubtful == 1 ? "rounds failed or was disturbed"
                                  : "rounds failed or were disturbed");
}

/* --- which model ----------------------------------------------------------------------------- */

static void put_sentence(struct page *p, const char *text)
{
    if (!*text)
        return;
    report_text(p, text);
    page_puts(p, ".");
}

/* With a capital: none of these begins with a name. */
static void put_margin(struct page *p, const char *text)
{
    if (*text >= 'a' && *text <= 'z') {
        page_format(p, "%c", *text - 'a' + 'A');
        text++;
    }
    put_sentence(p, text);
}

static void put_small(struct page *p, const char *before, const char *text)
{
    if (!*text)
        return;
    page_format(p, "<small>%s", before);
    report_text(p, text);
    page_puts(p, "</small>");
}

static void put_choice(struct page *p, const struct lab_choice *c)
{
    page_format(p, "<tr><th scope=\"row\"><a href=\"#%s\">", c->anchor);
    report_text(p, c->what);
    page_puts(p, "</a><small>");
    report_text(p, c->example);
    page_puts(p, "</small></th><td class=\"pick\">");
    bool is_one = c->server && strcmp(c->pick, c->server->name) == 0;
    if (is_one)
        report_server(p, c->server);
    else
        report_text(p, *c->pick ? c->pick : "none");
    if (c->disturbed)
        page_puts(p, "<small><b>not sure</b>: the machine was disturbed, measure again</small>");
    if (*c->pick && !is_one)
        put_small(p, "they can't be told apart; the figures are of ", c->server->name);
    else
        put_small(p, "as good, within the noise: ", c->also);
    put_small(p, "but ", c->but);
    if (*c->lock) {
        page_puts(p, "<small>not under an <a href=\"#gil\">interpreter lock</a>: ");
        report_text(p, c->lock);
        page_puts(p, "</small>");
    }
    page_puts(p, "</td><td><b class=\"label\">By how much: </b>");
    put_margin(p, c->margin);
    page_puts(p, "<small>");
    report_text(p, *c->from ? c->from : "a property of the models, not measured");
    page_puts(p, "</small></td><td><b class=\"label\">Why: </b>");
    put_sentence(p, c->why);
    page_puts(p, "</td></tr>\n");
}

/* What the words mean. */
static void put_models(struct page *p, const struct lab_results *r)
{
    page_puts(p, "<details class=\"models\"><summary>what the models are</summary><dl>");
    for (size_t i = 0; i < r->server_count; i++) {
        const struct model *model = models_find(r->servers[i].name);
        if (!model || r->servers[i].foreign)
            continue;
        page_puts(p, "<div><dt>");
        report_server(p, &r->servers[i]);
        page_puts(p, "</dt><dd>");
        report_text(p, model_summary(model));
        page_puts(p, "</dd></div>\n");
    }
    page_puts(p, "</dl></details>\n");
}

static void put_choices(struct page *p, const struct lab_findings *f)
{
    struct lab_choice *choices = calloc(LAB_CHOICES, sizeof *choices);
    size_t count = choices ? lab_choose(f, choices) : 0;
    p->failed = p->failed || !choices;
    page_puts(p, "<section id=\"which\"><h2>Which model, on this machine?</h2>\n");
    if (count)
        page_puts(p, "<table class=\"choices\"><thead><tr><th scope=\"col\">What you run</th><th "
                     "scope=\"col\">Model</th><th scope=\"col\">By how much</th><th "
                     "scope=\"col\">Why</th></tr></thead><tbody>\n");
    else
        page_puts(p, "<p>Nothing was measured, so there is nothing to choose.</p>\n");
    for (size_t i = 0; i < count; i++)
        put_choice(p, &choices[i]);
    page_puts(p, count ? "</tbody></table>\n" : "");
    put_models(p, f->results);
    report_close(p);
    free(choices);
}

/* --- how to read this ------------------------------------------------------------------------ */

static void put_how_to(struct page *p, const struct lab_results *r)
{
    struct lab_stall stall;
    unsigned all;
    report_open(p, "how", "How to read this");
    page_puts(
        p, "<ol>\n<li>Every figure is from this machine, this build and the loads that are named. "
           "Another machine may choose differently.</li>\n"
           "<li><b>Closed loop</b>: a client asks again when it has its answer, so a server that "
           "stalls is asked less");
    if (lab_stall_seen(r, &stall))
        page_puts(p, ", <a href=\"#loops\">which hides it</a>");
    page_puts(
        p,
        ". Look at requests a second, and where the loader's CPU is full, at CPU a request. Times "
        "are "
        "of what was answered: who waits in vain has none.</li>\n"
        "<li><b>Open loop</b>: requests go out at a fixed rate, and the time of each counts from "
        "when "
        "it was due, so stalls show. Look at p99.</li>\n"
        "<li><b>Batch</b>: so many requests at once, and the time until the last is answered, as "
        "the "
        "study notes measured.</li>\n"
        "<li>A mark is the median of the repeats; the thin line through it goes from the lowest to "
        "the highest.</li>\n"
        "<li>A difference is <b>clear</b> when it is there in every repeat: 5&nbsp;% each time, "
        "and a p99 twice as long. (With two repeats three times as much, with one five times; of "
        "five repeats one may be odd.) All else is within the noise.</li>\n"
        "<li><b>p99</b>: one request in a hundred took so long or longer.</li>\n"
        "<li><b>CPU a request</b>: user and system time of all the server's processes, over what "
        "it "
        "answered. <b>Memory</b>: PSS, so shared pages count once; what the kernel holds for each "
        "socket comes on top.</li>\n"
        "<li>A hollow mark had errors (over 0.1&nbsp;%) or did not keep up with the rate: it is "
        "not "
        "chosen.</li>\n<li>");
    if (r->machine.pinned)
        page_format(p,
                    "The server had CPU %u, the loader CPU %u; where handlers compute the server "
                    "had both.",
                    r->machine.server_cpu, r->machine.loader_cpu);
    else
        page_puts(p, "Server and loader shared all CPUs.");
    page_puts(
        p, doubtful_rounds(r, &all)
               ? " Rounds that failed or were disturbed are left out, if there are others, and <a "
                 "href=\"#left-out\">listed</a>.</li>\n</ol>\n"
               : " No round was left out.</li>\n</ol>\n");
    report_close(p);
}

/* --- the machine ----------------------------------------------------------------------------- */

static void put_fact(struct page *p, const char *name, const char *text)
{
    if (!text || !*text)
        return;
    page_format(p, "<div><dt>%s</dt><dd>", name);
    report_text(p, text);
    page_puts(p, "</dd></div>\n");
}

/* Of servers that differ in more than the model. */
static void put_sizes(struct page *p, const struct lab_results *r)
{
    bool any = false;
    for (size_t i = 0; i < r->server_count; i++)
        any |= r->servers[i].foreign || *r->servers[i].sizes;
    if (!any) {
        page_puts(p, "<p>All servers ran with one configuration that differs in the model alone; "
                     "what it does not name has its default.</p>\n");
        return;
    }
    page_puts(p, "<div class=\"wide\"><table><thead><tr><th scope=\"col\">server</th><th "
                 "scope=\"col\">what was not the default</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < r->server_count; i++) {
        page_puts(p, "<tr><th scope=\"row\">");
        report_server(p, &r->servers[i]);
        page_puts(p, "</th><td>");
        report_text(p, r->servers[i].foreign  ? "another server, not started by the lab"
                       : *r->servers[i].sizes ? r->servers[i].sizes
                                              : "nothing");
        page_puts(p, "</td></tr>\n");
    }
    page_puts(p, "</tbody></table></div>\n");
}

static void put_machine(struct page *p, const struct lab_results *r)
{
    char text[128];
    report_open(p, "machine", "The machine and the run");
    page_puts(p, "<dl>");
    put_fact(p, "when", r->machine.when);
    if (r->seconds < 100)
        lab_say_us(text, r->seconds * 1e6);
    else
        snprintf(text, sizeof text, "%.0f minutes", r->seconds / 60);
    put_fact(p, "how long", text);
    put_fact(p, "CPU", r->machine.cpu);
    snprintf(text, sizeof text, "%u", r->machine.cpus);
    put_fact(p, "CPUs", text);
    if (r->machine.memory_gib > 0)
        put_fact(p, "memory", lab_say_kib(text, r->machine.memory_gib * (1 << 20)));
    put_fact(p, "kernel", r->machine.kernel);
    put_fact(p, "server", r->machine.modus);
    snprintf(text, sizeof text, "wrk %.64s", r->machine.wrk);
    put_fact(p, "loader", *r->machine.wrk ? text : "");
    put_fact(p, "command", r->command);
    page_puts(p, "</dl>\n");
    put_sizes(p, r);
    if (r->config) {
        page_puts(p, "<details><summary>the configuration</summary><pre>");
        /* Escaping takes line ends for what can't be shown. */
        for (const char *line = r->config; *line;) {
            size_t len = strcspn(line, "\n");
            page_html(p, (struct str){line, len});
            page_puts(p, "\n");
            line += len + (line[len] == '\n');
        }
        page_puts(p, "</pre></details>\n");
    }
    report_close(p);
}

/* --- the page -------------------------------------------------------------------------------- */

static void put_page(struct page *p, const struct lab_findings *f)
{
    const struct lab_results *r = f->results;
    put_head(p, r);
    put_warnings(p, r);
    put_choices(p, f);
    put_how_to(p, r);
    report_loads(p, f);
    report_costs(p, f);
    report_isolation(p, f);
    report_gil(p, f);
    report_stall(p, f);
    report_notes(p, f);
    report_left_out(p, f);
    report_columns(p, f);
    put_machine(p, r);
    page_puts(p, "</main>\n<footer><p class=\"soft\">Every round is in results.json beside this "
                 "page. <code>modus lab</code> measures again.</p></footer>\n</body></html>\n");
}

static int write_page(const struct page *p, const char *path)
{
    char part[LAB_PATH];
    FILE *to = lab_open_part(path, part);
    if (!to)
        return -errno;
    errno = 0;
    return lab_close_part(to, path, part, fwrite(p->bytes, 1, p->len, to) != p->len);
}

int lab_write_report(const struct lab_findings *f, const char *path)
{
    struct page p = {0};
    put_page(&p, f);
    int rc = p.failed ? -ENOMEM : write_page(&p, path);
    page_fini(&p);
    return rc;
}

int lab_report_again(const char *json_path, const char *out_dir)
{
    char path[4096], why[4352] = "no memory";
    struct lab_results *r = lab_read_json(json_path, why, sizeof why);
    struct lab_findings *f = r ? lab_judge_all(r) : NULL;
    int rc = f ? 0 : -ENOMEM;
    if (f && snprintf(path, sizeof path, "%s/report.html", out_dir) >= (int)sizeof path)
        rc = -ENAMETOOLONG;
    if (!rc)
        rc = lab_write_report(f, path);
    if (f && rc)
        snprintf(why, sizeof why, "%s/report.html: %s", out_dir, strerror(-rc));
    if (rc)
        fprintf(stderr, "modus lab: %s\n", why);
    else
        lab_table(f, stdout);
    lab_findings_free(f);
    lab_free_results(r);
    return rc ? 1 : 0;
}
