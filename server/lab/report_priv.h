/* SPDX-License-Identifier: MIT */
/* The parts of the page: report.c puts them together. Each writes a <section>, or nothing if there is
 * nothing to say. */
#ifndef SERVER_LAB_REPORT_PRIV_H
#define SERVER_LAB_REPORT_PRIV_H

#include "handlers/page.h"
#include "server/lab/choice.h"

extern const char report_css[]; /* report.css, as it lies beside */

/* report_loads.c: a section for each kind of load; what the columns of its tables are. */
void report_loads(struct page *p, const struct lab_findings *f);
void report_columns(struct page *p, const struct lab_findings *f);
/* report_times.c: a figure of how the times are spread. */
void report_times(struct page *p, const struct lab_verdict *v);
/* The same of series that are no servers of one load. */
struct report_line {
    const char *name, *style; /* whose colour */
    const struct lab_series *series;
};
void report_times_beside(struct page *p, const struct report_line *lines, size_t count,
                         const char *note);
/* report_costs.c: what a request and a connection take; what isolation costs. */
void report_costs(struct page *p, const struct lab_findings *f);
void report_isolation(struct page *p, const struct lab_findings *f);
/* report_stall.c: what a closed loop hides. */
void report_stall(struct page *p, const struct lab_findings *f);
/* report_notes.c: the interpreter lock; the study notes' figures; what was left out. */
void report_gil(struct page *p, const struct lab_findings *f);
void report_notes(struct page *p, const struct lab_findings *f);
void report_left_out(struct page *p, const struct lab_findings *f);

/* Escaped; NULL: nothing. */
void report_text(struct page *p, const char *text);
/* A server's name with its marker. */
void report_server(struct page *p, const struct lab_server *server);
void report_open(struct page *p, const char *id, const char *title);
void report_close(struct page *p);
/* "closed loop". */
const char *report_loop(enum lab_loop loop);

#endif
