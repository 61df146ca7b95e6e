/* SPDX-License-Identifier: MIT */
/* The page that shows what is in a folder. */
#ifndef HANDLERS_LISTING_H
#define HANDLERS_LISTING_H

#include <stdbool.h>

#include "handlers/root.h"
#include "net/exchange.h"

enum { LISTING_MAX = 2000 }; /* entries shown; of more, those that the file system names first */

/* Answer with the list of the folder that fd has open for reading and that path ("" or "a/b/")
 * names below root. Shows what could be asked for: files and folders, no names that begin with a
 * dot, no links that lead out of root. Takes fd. */
int listing_reply(struct exchange *x, const struct root *root, const char *path, int fd);

#endif
