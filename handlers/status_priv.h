/* SPDX-License-Identifier: MIT */
/* What the files of the status handler share: status.c takes requests; status_page.c is the form for
 * people, status_json.c and status_prometheus.c are those for programs; status_stream.c keeps a page
 * up to date; status_control.c takes what is asked for on it; status_numbers.c and status_assets.c
 * are data. */
#ifndef HANDLERS_STATUS_PRIV_H
#define HANDLERS_STATUS_PRIV_H

#include "handlers/page.h"
#include "handlers/status.h"

struct status_conf {
    bool control;
    const struct status_source *source; /* NULL under `modus -t` */
};

/* --- status_numbers.c: the plain numbers of a listener ---------------------------------------- */

enum status_group {
    LISTENER, /* not in a group: of the listener itself */
    CONNECTIONS,
    REQUESTS,
    SATURATION,
    THREADS,
    CHILDREN,
    QUEUE,
    GIL,
    RECYCLED,
    BLOCKED,
    LAST_GROUP = BLOCKED,
};

/* A number with the names it has in each form, so that a new one is a line and no form forgets it. */
struct status_number {
    enum status_group group;
    size_t offset;
    const char *key;    /* JSON, in its group's object */
    const char *label;  /* the page */
    const char *metric; /* Prometheus; a name in _total is a counter, others are gauges */
    const char *help;
};

/* Ended by a NULL key. */
extern const struct status_number status_numbers[];
uint64_t status_number_of(const struct status_listener *l, const struct status_number *n);
/* Not every model has a queue, or processes of connections. */
bool status_has(const struct status_listener *l, enum status_group group);
/* Its object in JSON. */
const char *status_group_key(enum status_group group);

enum { STATUS_CLASSES = 6 };
extern const char *const status_state_names[STATUS_STATES];
extern const char *const status_class_names[STATUS_CLASSES]; /* of answers, in their order */
const char *status_state_name(enum status_state state);
const char *status_outcome_name(enum status_outcome outcome);
/* "serving" or "retiring" */
const char *status_generation_state(const struct status_generation *g);

/* --- the forms -------------------------------------------------------------------------------- */

/* control is NULL where the page is only to be looked at. */
void status_page(struct page *p, const struct status_snapshot *s,
                 const struct status_control *control);
/* What is inside of its <main>: all that changes. */
void status_page_main(struct page *p, const struct status_snapshot *s,
                      const struct status_control *control);
/* A number that stays the same as long as the page differs in its figures only. */
uint64_t status_page_shape(const struct status_snapshot *s, const struct status_control *control);
void status_prometheus(struct page *p, const struct status_snapshot *s);

/* --- requests --------------------------------------------------------------------------------- */

/* The step entry of ?format=stream, of a request that has begun there. */
int status_stream_step(struct exchange *x, enum exchange_event event);
/* That of a POST. */
int status_control_step(struct exchange *x, enum exchange_event event);
/* Does the request come from this machine, by a name that is only this machine's? What a browser was
 * led to by a name of somebody else's, which now means us, is refused (403). */
bool status_control_host(struct exchange *x);

/* --- status_assets.c: what the page brings with it --------------------------------------------- */

extern const char status_css[], status_js[];
/* The Content-Security-Policy that allows just these, or NULL when memory is out. Safe from: the
 * master before it forks, then any thread. */
const char *status_policy(void);

#endif
