/* SPDX-License-Identifier: MIT */
/* The lab's findings for a terminal. */
#include "server/lab/table.h"
#include "server/lab/stall.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { WIDE = 80, NAME = 20, CELL = 9, POINTS = 3 /* columns over connections or rates */ };

enum lab_measure lab_shown(const struct lab_load *load)
{
    if (load->kind == LAB_MIXED)
        return LAB_BY_CHEAP_P99;
    if (load->kind == LAB_IDLE)
        return LAB_BY_MEMORY;
    return load->loop == LAB_OPEN    ? LAB_BY_P99
           : load->loop == LAB_BATCH ? LAB_BY_SECONDS
                                     : LAB_BY_RPS;
}

/* --- text in columns ------------------------------------------------------------------------- */

/* Characters, not bytes: µ is one. */
static int width_of(const char *text, size_t len)
{
    int width = 0;
    for (size_t i = 0; i < len; i++)
        width += ((unsigned char)text[i] & 0xc0) != 0x80;
    return width;
}

static void put_right(FILE *to, const char *text, int width)
{
    int pad = width - width_of(text, strlen(text));
    fprintf(to, "%*s%s", pad > 0 ? pad : 1, "", text);
}

/* What comes from outside must not move the cursor. */
static void put_plain(FILE *to, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        putc((unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i], to);
}

static void put_name(FILE *to, const char *name)
{
    size_t len = strlen(name);
    fputs("  ", to);
    put_plain(to, name, len < NAME ? len : NAME - 1);
    fprintf(to, "%*s", len < NAME ? NAME - (int)len : 1, "");
}

/* Words into lines; the first begins behind what `first` holds, the others below it. */
static void put_wrapped(FILE *to, const char *first, const char *text)
{
    int indent = width_of(first, strlen(first)), at = indent;
    fputs(first, to);
    while (*text) {
        size_t len = strcspn(text, " ");
        int width = width_of(text, len);
        if (at > indent && at + 1 + width >= WIDE) {
            fprintf(to, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            putc(' ', to);
            at++;
        }
        put_plain(to, text, len);
        at += width;
        text += len;
        text += strspn(text, " ");
    }
    putc('\n', to);
}

/* --- a load ---------------------------------------------------------------------------------- */

/* The points that are shown: the last, without the interpreter lock. */
static size_t points_of(const struct lab_judged *j, const struct lab_verdict *points[POINTS])
{
    size_t plain = 0, count = 0;
    while (plain < j->count && !j->points[plain].gil)
        plain++;
    for (size_t i = plain > POINTS ? plain - POINTS : 0; i < plain; i++)
        points[count++] = &j->points[i];
    return count;
}

static const struct lab_rank *rank_of(const struct lab_verdict *v, const struct lab_server *server)
{
    for (unsigned i = 0; i < v->count; i++)
        if (v->rank[i].series->server == server)
            return &v->rank[i];
    return NULL;
}

static void put_cell(FILE *to, const struct lab_rank *k, enum lab_measure m)
{
    char value[LAB_FIGURE] = "", cell[LAB_FIGURE + 1] = "";
    if (k) {
        lab_say(value, m, lab_measured(k->series, m).median);
        snprintf(cell, sizeof cell, "%s%s", value, k->out ? "!" : "");
    }
    put_right(to, cell, CELL);
}

static void put_heads(FILE *to, const struct lab_verdict **points, size_t count)
{
    char label[64];
    fprintf(to, "%*s", NAME + 2, "");
    for (size_t i = 0; i < count; i++) {
        bool by_rate = points[i]->rate > 0;
        lab_say_whole(label, by_rate ? points[i]->rate : points[i]->connections);
        lab_add(label, sizeof label, "%s", by_rate ? "/s" : "");
        put_right(to, label, CELL);
    }
    put_right(to, "p99", CELL);
    put_right(to, "CPU/req", CELL);
    put_right(to, "mem/conn", CELL);
    putc('\n', to);
}

static void put_row(FILE *to, const struct lab_judged *j, const struct lab_verdict **points,
                    size_t count, const struct lab_server *server)
{
    const struct lab_rank *head = rank_of(j->headline, server);
    bool any = false;
    for (size_t i = 0; i < count; i++)
        any = any || rank_of(points[i], server);
    if (!any)
        return;
    put_name(to, server->name);
    for (size_t i = 0; i < count; i++)
        put_cell(to, rank_of(points[i], server), lab_shown(j->load));
    put_cell(to, head, LAB_BY_P99);
    put_cell(to, head, LAB_BY_CPU);
    put_cell(to, head, LAB_BY_MEMORY);
    putc('\n', to);
}

static void put_verdict(FILE *to, const struct lab_verdict *v)
{
    char text[sizeof v->margin + sizeof v->why + 128] = "", point[128];
    const struct lab_server *chosen = lab_chosen(v);
    lab_say_point(point, sizeof point, v);
    lab_add(text, sizeof text, "%s (%s%s): %s.", chosen ? chosen->name : "none", point,
            v->disturbed ? "; disturbed, not sure" : "", v->margin);
    put_wrapped(to, "  => ", text);
    if (*v->why) {
        snprintf(text, sizeof text, "%s.", v->why);
        put_wrapped(to, "     ", text);
    }
    if (*v->notes)
        put_wrapped(to, "     ", v->notes);
}

static void put_load(FILE *to, const struct lab_judged *j)
{
    const struct lab_verdict *points[POINTS];
    size_t count = points_of(j, points);
    if (!count || !j->headline)
        return;
    putc('\n', to);
    put_plain(to, j->load->name, strlen(j->load->name));
    fputs(": ", to);
    put_plain(to, j->load->title, strlen(j->load->title));
    fprintf(to, " (%s)\n  %s, with so many %s; the rest as at =>\n",
            j->load->loop == LAB_BATCH  ? "batch"
            : j->load->loop == LAB_OPEN ? "open loop"
                                        : "closed loop",
            lab_measure_name(lab_shown(j->load)),
            points[0]->rate > 0 ? "requests a second" : "connections");
    put_heads(to, points, count);
    for (unsigned i = 0; i < j->headline->count; i++)
        put_row(to, j, points, count, j->headline->rank[i].series->server);
    put_verdict(to, j->headline);
}

static void put_choices(FILE *to, const struct lab_findings *f)
{
    struct lab_choice *choices = calloc(LAB_CHOICES, sizeof *choices);
    size_t count = choices ? lab_choose(f, choices) : 0;
    fputs("\nWhich model, on this machine?\n", to);
    for (size_t i = 0; i < count; i++) {
        const struct lab_choice *c = &choices[i];
        char line[512] = "";
        lab_add(line, sizeof line, "  %-34s%s", c->what, *c->pick ? c->pick : "none");
        if (*c->also && c->server && strcmp(c->pick, c->server->name) == 0)
            lab_add(line, sizeof line, " (as good: %s)", c->also);
        if (c->disturbed)
            lab_add(line, sizeof line, " (disturbed, not sure: measure again)");
        put_plain(to, line, strlen(line));
        putc('\n', to);
    }
    free(choices);
}

static void put_stall(FILE *to, const struct lab_results *r)
{
    struct lab_stall stall;
    if (!lab_stall_seen(r, &stall))
        return;
    fputs("\nWhat a closed loop hides\n", to);
    put_wrapped(to, "  => ", stall.text);
}

void lab_table(const struct lab_findings *f, FILE *to)
{
    for (size_t i = 0; i < f->count; i++)
        put_load(to, &f->loads[i]);
    put_stall(to, f->results);
    put_choices(to, f);
    if (!f->results->whole)
        fputs("\nThis run was ended before its time: what is missing is not known.\n", to);
}
