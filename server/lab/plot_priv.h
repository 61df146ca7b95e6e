/* SPDX-License-Identifier: MIT */
/* What plots of lines and plots of bars have in common. */
#ifndef SERVER_LAB_PLOT_PRIV_H
#define SERVER_LAB_PLOT_PRIV_H

#include "server/lab/plot.h"

void plot_put_text(struct page *p, const char *text);
void plot_put_marker(struct page *p, unsigned style, double x, double y, bool hollow);
/* <figure> and its heading. */
void plot_open(struct page *p, const char *title, const char *note);
bool plot_is_number(double n);

#endif
