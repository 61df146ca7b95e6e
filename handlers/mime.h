/* SPDX-License-Identifier: MIT */
/* Media types by file name, from the system's table (/etc/mime.types), and a few common ones that
 * it may lack. Text types carry "; charset=utf-8".
 *
 * A table is never changed after mime_open(). Safe from: any thread, child after fork; mime_open() and
 * mime_close(): one thread.
 */
#ifndef HANDLERS_MIME_H
#define HANDLERS_MIME_H

struct mime;

/* Read a table in the format of mime.types: a type, then the endings that have it; '#' begins a
 * comment. Without a readable file, or with NULL, there is only the built-in table. Who opens a file
 * that is open and has not changed gets the same table again. Returns NULL when memory is out. */
struct mime *mime_open(const char *file);
void mime_close(struct mime *m); /* NULL is allowed */
/* The type for a path by what stands behind its last dot, case ignored. Never NULL: "application/
 * octet-stream" if nothing is known. Lives as long as m. */
const char *mime_type(const struct mime *m, const char *path);

#endif
