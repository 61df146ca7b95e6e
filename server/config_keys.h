/* SPDX-License-Identifier: MIT */
/* The keys of the file outside the handlers: name, kind, default, range, and the member of struct
 * config that each fills. One table for reading and for `explain`, so that they can't disagree. */
#ifndef SERVER_CONFIG_KEYS_H
#define SERVER_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum key_kind {
    KEY_STRING,   /* const char * */
    KEY_PATH,     /* const char *, absolute; key.word stays as it is */
    KEY_NUMBER,   /* int */
    KEY_AUTO,     /* int, 0 for "auto" */
    KEY_SIZE,     /* int64_t, bytes */
    KEY_DURATION, /* int64_t, milliseconds */
    KEY_CHOICE,   /* int or an enum: index into choices */
    KEY_MODEL,    /* const char *: the model's own name */
    KEY_BOOL,     /* bool */
    /* Only handlers' options: */
    KEY_INTEGER, /* int64_t */
};

struct key {
    const char *name; /* NULL ends the table */
    enum key_kind kind;
    size_t offset;
    const char *value; /* default, as it would stand in the file; NULL: see unset */
    int64_t min, max;
    const char *const *choices;   /* CHOICE: all words; PATH: further values that are no path */
    const char *word;             /* PATH: a value that is no path, such as "" or "stderr" */
    const char *none;             /* PATH: another way to write "" */
    const char *const *not_words; /* PATH: taken for words by who writes them, and none here */
    const char *instead;          /* PATH: what to take instead of those */
    bool http_only;               /* with protocol = tcp nothing depends on it */
    bool optional; /* no default here: unset is kept, for the model; else it must be given */
    int64_t unset;
};

extern const struct key config_keys_top[];
extern const struct key config_keys_listen[];
extern const struct key config_keys_tls[];

size_t config_keys_count(const struct key *keys);
/* PATH: does text stand for itself, and not for a file? */
bool config_keys_is_word(const struct key *k, const char *text);
/* PATH: would who writes text mean something else than a file? */
bool config_keys_is_no_word(const struct key *k, const char *text);
/* -1: no such key. */
int config_keys_index(const struct key *keys, const char *name);

struct option;
/* A handler's option as a key. */
struct key config_keys_option(const struct option *o);

#endif
