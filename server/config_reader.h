/* SPDX-License-Identifier: MIT */
/* What the files of the configuration reader share: where a message goes, and the memory that goes
 * with the configuration. Private to server/config*.c.
 *
 * One reading has one config_reader. The first failure is the one that is told; whoever sees one
 * returns at once. Safe from: one thread (libconfuse's scanner has one state for the process).
 */
#ifndef SERVER_CONFIG_READER_H
#define SERVER_CONFIG_READER_H

#include <confuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "server/config.h"

struct config_kept;

/* What a struct config really is: it knows all memory that hangs on it. */
struct config_all {
    struct config config; /* first: a struct config pointer is a pointer to this */
    struct config_kept *kept;
};

struct config_reader {
    struct config_all *all;
    const char *name; /* of the file, for messages */
    char *why;
    size_t why_size;
    bool failed;
};

/* Say "FILE:LINE: sentence" unless something was said before. Returns -1, for `return`. */
int config_fail(struct config_reader *r, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Zeroed memory that lives as long as the configuration. NULL when memory is out, which was then
 * reported. */
void *config_keep(struct config_reader *r, size_t size);
char *config_keep_text(struct config_reader *r, const char *text);
/* text as an absolute path: a relative one starts at the file's folder. */
char *config_keep_path(struct config_reader *r, const char *text);

/* A configuration that has of text only the key `control`, and something to serve. NULL after a
 * message in why. */
struct config *config_parse_control(const char *name, const char *folder, const char *text,
                                    size_t len, char *why, size_t why_size);

/* --- config_text.c: from what a user wrote to what libconfuse may see --------------------- */

/* Check text against words (a table for cfg_init in which every value is a string and every section
 * may stand often and has a title) and rewrite it for cfg_parse_buf: comments are gone, and every
 * string begins with its mark, "LINE.NUMBER ". Returns memory for free(), or NULL after
 * config_fail. */
char *config_text_mark(struct config_reader *r, cfg_opt_t *words, const char *text, size_t len);

/* The statement `name = value` that stands outside of all sections, on its line, or "" if there is
 * none: looks at the tokens up to there and at nothing that they mean. Returns memory for free(), or
 * NULL after config_fail: it can't be told from what is around it. */
char *config_text_find(struct config_reader *r, const char *name, const char *text, size_t len);

/* --- config_words.c: the words of the file, and what each may hold ------------------------ */

/* The words as libconfuse's table, made from config_keys.h and the handlers. NULL: no memory. */
cfg_opt_t *config_words_new(void);
void config_words_free(cfg_opt_t *words);
/* The title that this section needs, in words ("a path, such as ..."); NULL: it takes none. */
const char *config_words_title(const char *section);
/* Is this word kept for something that is not in this build? */
bool config_words_reserved(const char *section, const char *word);

/* --- config_build.c: from libconfuse's tree to a struct config ---------------------------- */

/* Fill r->all from a parsed and marked file. Returns 0, or -1 after config_fail. */
int config_build(struct config_reader *r, cfg_t *root);

/* --- config_address.c --------------------------------------------------------------------- */

/* Fill *address from text. Returns 0, or -1 after config_fail. */
int config_address_parse(struct config_reader *r, const char *text, int line,
                         struct config_address *address);
/* Could not both be bound: the same address, or one holds the other. */
bool config_address_clash(const struct config_address *a, const struct config_address *b);

/* --- config_explain.c --------------------------------------------------------------------- */

/* What config_explain prints, to another stream. */
void config_explain_to(const struct config *c, FILE *out);

#endif
