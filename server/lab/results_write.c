/* SPDX-License-Identifier: MIT */
/* What the lab has measured, as JSON, for programs and for a page made anew.
 *
 * The names are those of results.h; a number that is not known is null. Of a histogram only the
 * buckets that hold something are written, each as [its middle in microseconds, how many]. Series
 * name their load and server.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "handlers/page.h"
#include "server/lab/results_priv.h"

#define NUMBER(type, name) #name, offsetof(struct type, name), 0
#define TEXT(type, name)   #name, offsetof(struct type, name), sizeof((struct type *)0)->name

const struct lab_field lab_round_numbers[] = {
    {NUMBER(lab_round, seconds)},      {NUMBER(lab_round, offered)},
    {NUMBER(lab_round, rps)},          {NUMBER(lab_round, p50_us)},
    {NUMBER(lab_round, p90_us)},       {NUMBER(lab_round, p99_us)},
    {NUMBER(lab_round, p999_us)},      {NUMBER(lab_round, max_us)},
    {NUMBER(lab_round, cheap_p99_us)}, {NUMBER(lab_round, cpu_us)},
    {NUMBER(lab_round, cpu_share)},    {NUMBER(lab_round, pss_kib)},
    {NUMBER(lab_round, pss_idle_kib)}, {NUMBER(lab_round, threads)},
    {NUMBER(lab_round, processes)},    {NUMBER(lab_round, switches)},
    {NUMBER(lab_round, queued_us)},    {NUMBER(lab_round, busy)},
    {NUMBER(lab_round, rejected)},     {NUMBER(lab_round, forks)},
    {NUMBER(lab_round, gil_held)},     {NUMBER(lab_round, blocked)},
    {NUMBER(lab_round, load1)},        {NUMBER(lab_round, steal)},
    {NUMBER(lab_round, loader_cpu)},   {NULL, 0, 0},
};

const struct lab_field lab_error_numbers[] = {
    {NUMBER(lab_errors, connect)}, {NUMBER(lab_errors, read)},   {NUMBER(lab_errors, write)},
    {NUMBER(lab_errors, timeout)}, {NUMBER(lab_errors, status)}, {NULL, 0, 0},
};

const struct lab_field lab_machine_texts[] = {
    {TEXT(lab_machine, cpu)},   {TEXT(lab_machine, kernel)}, {TEXT(lab_machine, wrk)},
    {TEXT(lab_machine, modus)}, {TEXT(lab_machine, when)},   {NULL, 0, 0},
};

/* Pages go to the file piece by piece: all of it may be more than a page holds. */
struct writer {
    struct page p;
    FILE *to;
};

static void flush(struct writer *w)
{
    if (w->p.len && fwrite(w->p.bytes, 1, w->p.len, w->to) != w->p.len)
        w->p.failed = true;
    w->p.len = 0;
}

/* The shortest that is read back the same. */
static void put_number(struct page *p, double n)
{
    char text[40];
    if (!isfinite(n) || n == LAB_UNKNOWN) {
        page_puts(p, "null");
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, n);
        if (strtod(text, NULL) == n)
            break;
    }
    page_puts(p, text);
}

static void put_key(struct page *p, const char *key)
{
    page_format(p, "\"%s\": ", key);
}

static void put_text(struct page *p, const char *key, const char *text)
{
    put_key(p, key);
    if (text)
        page_json(p, str_of(text));
    else
        page_puts(p, "null");
}

static void put_named(struct page *p, const char *key, double n)
{
    put_key(p, key);
    put_number(p, n);
}

static void put_bool(struct page *p, const char *key, bool is)
{
    put_key(p, key);
    page_puts(p, is ? "true" : "false");
}

static void put_histogram(struct page *p, const struct lab_histogram *h)
{
    bool more = false;
    put_key(p, "latency");
    if (!h) {
        page_puts(p, "null");
        return;
    }
    page_puts(p, "{");
    put_named(p, "sum_us", h->sum / 1e3);
    page_puts(p, ", ");
    put_named(p, "max_us", (double)h->max / 1e3);
    page_puts(p, ", \"buckets\": [");
    for (unsigned i = 0; i < LAB_BUCKETS; i++) {
        if (!h->bucket[i])
            continue;
        page_puts(p, more ? ", [" : "[");
        put_number(p, lab_histogram_middle(i) / 1e3);
        page_puts(p, ", ");
        put_number(p, (double)h->bucket[i]);
        page_puts(p, "]");
        more = true;
    }
    page_puts(p, "]}");
}

static void put_round(struct page *p, const struct lab_round *round)
{
    put_named(p, "repeat", round->repeat);
    page_puts(p, ", ");
    put_text(p, "error", round->error);
    page_puts(p, ", ");
    put_bool(p, "trusted", round->trusted);
    page_puts(p, ", ");
    put_text(p, "doubt", round->doubt);
    page_puts(p, ", ");
    put_named(p, "requests", (double)round->requests);
    for (const struct lab_field *f = lab_round_numbers; f->name; f++) {
        double n;
        memcpy(&n, (const char *)round + f->offset, sizeof n);
        page_puts(p, ", ");
        put_named(p, f->name, n);
    }
    page_puts(p, ", \"errors\": {");
    for (const struct lab_field *f = lab_error_numbers; f->name; f++) {
        uint64_t n;
        memcpy(&n, (const char *)&round->errors + f->offset, sizeof n);
        page_puts(p, f == lab_error_numbers ? "" : ", ");
        put_named(p, f->name, (double)n);
    }
    page_puts(p, "},\n     ");
    put_histogram(p, round->latency);
}

static void put_series(struct writer *w, const struct lab_series *s)
{
    struct page *p = &w->p;
    page_puts(p, "  {");
    put_text(p, "load", s->load->name);
    page_puts(p, ", ");
    put_text(p, "server", s->server->name);
    page_puts(p, ", ");
    put_named(p, "connections", s->connections);
    page_puts(p, ", ");
    put_bool(p, "gil", s->gil);
    page_puts(p, ", ");
    put_named(p, "rate", s->rate);
    page_puts(p, ", \"rounds\": [");
    for (size_t i = 0; i < s->round_count; i++) {
        page_puts(p, i ? ",\n    {" : "\n    {");
        put_round(p, &s->rounds[i]);
        page_puts(p, "}");
        flush(w);
    }
    page_puts(p, "]}");
}

static void put_load(struct page *p, const struct lab_load *load)
{
    page_puts(p, "  {");
    put_text(p, "name", load->name);
    page_puts(p, ", ");
    put_text(p, "title", load->title);
    page_puts(p, ", ");
    put_text(p, "why", load->why);
    page_format(p, ", \"kind\": \"%s\", \"loop\": \"%s\", ", lab_kind_name(load->kind),
                lab_loop_name(load->loop));
    put_text(p, "note_says", load->note_says);
    page_puts(p, ", \"note_seconds\": [");
    put_number(p, load->note_seconds[0]);
    page_puts(p, ", ");
    put_number(p, load->note_seconds[1]);
    page_puts(p, "]}");
}

static void put_server(struct page *p, const struct lab_server *server)
{
    page_puts(p, "  {");
    put_text(p, "name", server->name);
    page_puts(p, ", ");
    put_bool(p, "foreign", server->foreign);
    page_puts(p, ", ");
    put_text(p, "sizes", server->sizes);
    page_puts(p, ", ");
    put_named(p, "workers", server->workers);
    page_puts(p, ", ");
    put_named(p, "threads", server->threads);
    page_puts(p, "}");
}

static void put_machine(struct page *p, const struct lab_machine *m)
{
    page_puts(p, " \"machine\": {");
    for (const struct lab_field *f = lab_machine_texts; f->name; f++) {
        put_text(p, f->name, (const char *)m + f->offset);
        page_puts(p, ", ");
    }
    put_named(p, "cpus", m->cpus);
    page_puts(p, ", ");
    put_named(p, "server_cpu", m->server_cpu);
    page_puts(p, ", ");
    put_named(p, "loader_cpu", m->loader_cpu);
    page_puts(p, ", ");
    put_bool(p, "pinned", m->pinned);
    page_puts(p, ", ");
    put_named(p, "memory_gib", m->memory_gib);
    page_puts(p, "},\n");
}

static void put_results(struct writer *w, const struct lab_results *r)
{
    struct page *p = &w->p;
    page_format(p, "{\"modus_lab\": %d,\n", LAB_JSON_VERSION);
    put_machine(p, &r->machine);
    page_puts(p, " ");
    put_text(p, "command", r->command);
    page_puts(p, ",\n ");
    put_text(p, "config", r->config);
    page_puts(p, ",\n ");
    put_bool(p, "whole", r->whole);
    page_puts(p, ", ");
    put_named(p, "seconds", r->seconds);
    page_puts(p, ",\n \"loads\": [");
    for (size_t i = 0; i < r->load_count; i++) {
        page_puts(p, i ? ",\n" : "\n");
        put_load(p, r->loads[i]);
    }
    page_puts(p, "],\n \"servers\": [");
    for (size_t i = 0; i < r->server_count; i++) {
        page_puts(p, i ? ",\n" : "\n");
        put_server(p, &r->servers[i]);
    }
    page_puts(p, "],\n \"series\": [");
    for (size_t i = 0; i < r->series_count; i++) {
        page_puts(p, i ? ",\n" : "\n");
        put_series(w, &r->series[i]);
    }
    page_puts(p, "]}\n");
    flush(w);
}

int lab_write_json(const struct lab_results *r, const char *path)
{
    char part[LAB_PATH];
    struct writer w = {.to = lab_open_part(path, part)};
    if (!w.to)
        return -errno;
    errno = 0;
    put_results(&w, r);
    int rc = lab_close_part(w.to, path, part, w.p.failed);
    page_fini(&w.p);
    return rc;
}

/* --- files ------------------------------------------------------------------------------------ */

FILE *lab_open_part(const char *path, char part[LAB_PATH])
{
    if (snprintf(part, LAB_PATH, "%s.part", path) < LAB_PATH)
        return fopen(part, "we");
    errno = ENAMETOOLONG;
    return NULL;
}

int lab_close_part(FILE *to, const char *path, const char *part, bool failed)
{
    int rc = failed || ferror(to) ? (errno ? -errno : -ENOMEM) : 0;
    if (fclose(to) != 0 && !rc)
        rc = -errno;
    if (!rc && rename(part, path) != 0)
        rc = -errno;
    if (rc)
        unlink(part);
    return rc;
}
