/* SPDX-License-Identifier: MIT */
/* Will a file or a socket of this name be writable when the server starts? For `modus -t`, which
 * opens and makes nothing; what it says is true of the moment it was asked.
 *
 * Each returns 0, or -1 with one sentence in why. None blocks. Safe from: any thread.
 */
#ifndef SERVER_MAY_WRITE_H
#define SERVER_MAY_WRITE_H

#include <stddef.h>

/* The file, or the folder that it would be made in. path is absolute. */
int may_write_file(const char *path, char *why, size_t why_size);
/* Something new, or in the place of an old one. */
int may_write_folder_of(const char *path, char *why, size_t why_size);

#endif
