/* SPDX-License-Identifier: MIT */
/* A text under construction: what listings and the status page are written with. It grows as needed
 * up to PAGE_MAX; a page that grew beyond, or found no memory, remembers that, takes nothing more
 * and is answered as an error, so that callers need not look at each step.
 *
 *     struct page p = {0};
 *     page_puts(&p, "<b>");
 *     page_html(&p, name);
 *     page_puts(&p, "</b>");
 *     return page_reply(&p, x, 200, "text/html; charset=utf-8");
 *
 * The escaping calls take any bytes: what is not UTF-8 comes out as U+FFFD.
 * Safe from: one thread at a time.
 */
#ifndef HANDLERS_PAGE_H
#define HANDLERS_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/exchange.h"

enum { PAGE_MAX = 8 << 20 };

struct page {
    char *bytes;
    size_t len, room;
    bool failed;
};

void page_put(struct page *p, struct str text);
void page_puts(struct page *p, const char *text);
void page_format(struct page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* For text and attribute values of HTML. */
void page_html(struct page *p, struct str text);
/* A JSON string, with its quotes. */
void page_json(struct page *p, struct str text);
/* A label's value in Prometheus' text format, without quotes. */
void page_label(struct page *p, struct str text);
/* For a URL: everything but unreserved characters and '/' becomes %XX, so nothing in it can be a
 * scheme, a query, a line end or a backslash. */
void page_url(struct page *p, struct str text);
/* A query that is encoded already: only what no URL may hold becomes %XX. */
void page_query(struct page *p, struct str text);
/* Unix time as "2026-07-31 12:34:56", UTC. */
void page_time(struct page *p, int64_t at_s);
/* Answer with the page and free it, also if that fails. A failed page is a 500. */
int page_reply(struct page *p, struct exchange *x, int status, const char *type);
void page_fini(struct page *p);

#endif
