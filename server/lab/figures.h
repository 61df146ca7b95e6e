/* SPDX-License-Identifier: MIT */
/* Figures as people read them: three digits, and the unit that fits. One place, so that the table,
 * the sentences and the page say the same number the same way. What is not known is "?".
 *
 * Between a number and its unit is a space where no line ends, LAB_NBSP; so one is a word for awk, too.
 * All write UTF-8 into text, never more than size bytes with the zero at its end.
 * Safe from: any thread.
 */
#ifndef SERVER_LAB_FIGURES_H
#define SERVER_LAB_FIGURES_H

#include <stddef.h>

#define LAB_NBSP "\u00a0"

enum { LAB_FIGURE = 32 /* has room for any of them */ };

/* "5.61", "41,200". */
char *lab_say_number(char text[LAB_FIGURE], double n);
/* "20,000", without a fraction if it has none. */
char *lab_say_whole(char text[LAB_FIGURE], double n);
/* "5.61 µs", "1.62 s". */
char *lab_say_us(char text[LAB_FIGURE], double us);
/* "358 B", "3.10 MiB". */
char *lab_say_kib(char text[LAB_FIGURE], double kib);
/* "98 %", "0.2 %". */
char *lab_say_share(char text[LAB_FIGURE], double share);
/* How many times a ratio of at least 1 is, before "as many": "1.9 times". */
char *lab_say_times(char text[LAB_FIGURE], double ratio);
/* "1 connection", "64 connections". */
char *lab_say_count(char *text, size_t size, double n, const char *one, const char *many);

/* Write behind what text holds already; what does not fit is cut off. */
void lab_add(char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Names as in a sentence: lab_add_listed(..., 0, 3, "or", "a") and so on: "a, b or c". */
void lab_add_listed(char *text, size_t size, size_t place, size_t count, const char *last,
                    const char *name);

#endif
