/* SPDX-License-Identifier: MIT */
/* A handler describes its options in a table of these; whoever reads a configuration fills the
 * handler's own struct from it. Plain data: this file knows no parser library.
 *
 *     struct text_conf { const char *body, *type; int64_t status; };
 *     static const struct option options[] = {
 *         {"body", OPTION_STRING, offsetof(struct text_conf, body), .value = "", .help = "..."},
 *         {0},
 *     };
 *
 * The struct's member must have the type named beside each kind. Strings belong to the
 * configuration and live as long as it does.
 */
#ifndef HANDLERS_OPTION_H
#define HANDLERS_OPTION_H

#include <stddef.h>
#include <stdint.h>

enum option_kind {
    OPTION_STRING,   /* const char *, never NULL */
    OPTION_PATH,     /* const char *, made absolute from the configuration file's folder */
    OPTION_BOOL,     /* bool: true | false | yes | no | on | off */
    OPTION_INT,      /* int64_t: a plain number */
    OPTION_SIZE,     /* int64_t, bytes: 512, 16k, 1m, 2g (powers of 1024) */
    OPTION_DURATION, /* int64_t, milliseconds: 500ms, 10s, 5m, 1h; a bare 0 is allowed */
    OPTION_CHOICE,   /* int: index into choices */
};

struct option {
    const char *name; /* NULL ends the table */
    enum option_kind kind;
    size_t offset;              /* of the member in the handler's struct */
    const char *value;          /* default, as it would stand in the file; NULL: must be given */
    int64_t min, max;           /* numbers, in the kind's unit; both 0: 0 .. INT64_MAX */
    const char *const *choices; /* CHOICE: the words, ended by NULL */
    const char *help;           /* a few words for `modus handlers` */
};

#endif
