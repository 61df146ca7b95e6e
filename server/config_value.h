/* SPDX-License-Identifier: MIT */
/* Values as they stand in the file: numbers, sizes, durations, words, and the nearest word to one
 * that is not known. Knows neither files nor libconfuse: text in, value or sentence out.
 *
 * The parsers return 0 and set *out, or -1 with a sentence in why ("\"10\" needs a unit: ...");
 * *out is untouched then. Safe from: any thread.
 */
#ifndef SERVER_CONFIG_VALUE_H
#define SERVER_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Room for any of the sentences. */
enum { VALUE_WHY = 512 };

int value_number(const char *text, int64_t min, int64_t max, int64_t *out, char why[VALUE_WHY]);
/* The same, and "auto", which is 0. */
int value_auto(const char *text, int64_t min, int64_t max, int64_t *out, char why[VALUE_WHY]);
/* Bytes: 512, 16k, 1m, 2g. */
int value_size(const char *text, int64_t min, int64_t max, int64_t *out, char why[VALUE_WHY]);
/* Milliseconds: 500ms, 10s, 5m, 1h, and 0. */
int value_duration(const char *text, int64_t min, int64_t max, int64_t *out, char why[VALUE_WHY]);
/* true | false | yes | no | on | off */
int value_bool(const char *text, bool *out, char why[VALUE_WHY]);
/* The index of text in words, which NULL ends. */
int value_choice(const char *text, const char *const *words, int *out, char why[VALUE_WHY]);

/* A value in its largest whole unit ("1m", "90s"), to be read by a person and by the parsers. */
struct value_text {
    char text[40];
};
struct value_text value_show_number(int64_t n);
struct value_text value_show_size(int64_t bytes);
struct value_text value_show_duration(int64_t ms);

/* A user's text for a message: one line, cut when it is long. */
struct value_shown {
    char text[64];
};
struct value_shown value_shown(const char *text, size_t len);
struct value_shown value_shown_text(const char *text);

/* Find the word that is nearest to another: begin with the user's word, offer each candidate, then
 * ask for the hint, `; did you mean "x"?`, which is empty when none is near enough to be what was
 * meant: then say which words there are. A beginning of a word is near it. */
struct value_nearest {
    const char *word;
    size_t len;
    const char *best; /* NULL: none offered */
    unsigned distance;
};
void value_nearest_offer(struct value_nearest *n, const char *candidate);
struct value_hint {
    char text[96];
} value_nearest_hint(const struct value_nearest *n);

#endif
