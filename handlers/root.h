/* SPDX-License-Identifier: MIT */
/* A folder, and what lies below it: paths from outside are resolved here and nowhere else.
 *
 * The kernel does it (openat2, RESOLVE_BENEATH): neither "..", nor an absolute path, nor a link
 * leads out, whatever is renamed at that moment. Links that stay below the folder are followed.
 * Kernels without openat2 (before 5.6, or a sandbox that hides it) get a walk, component by
 * component, that follows no links at all.
 *
 * The folder is held open. When its path begins to name another folder (a link that is switched at
 * a deployment), root_refresh() notices and the same descriptor moves over.
 *
 * Paths are relative, without a leading '/'; "." is the folder itself. Codes are negative errnos.
 * Safe from: any thread, child after fork; root_open and root_close: one.
 */
#ifndef HANDLERS_ROOT_H
#define HANDLERS_ROOT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct root;

/* Open a folder by its path, which is borrowed. Returns 0 or a code. */
int root_open(struct root **out, const char *path);
void root_close(struct root *r); /* NULL is allowed */
/* Open what path names below the folder, for reading; flags adds to O_RDONLY (O_PATH, O_DIRECTORY).
 * Never waits for the other end of a FIFO and takes no terminal. Returns a descriptor, which the
 * caller closes, or a code: -EXDEV or -ELOOP where a link leads out. */
int root_file(const struct root *r, const char *path, int flags);
/* What path names now, also if a link leads out: only to compare with what was known. Returns 0 or
 * a code. */
int root_stat(const struct root *r, const char *path, struct stat *st);
/* Look whether the folder's own path has come to name another folder; at most once a second. */
void root_refresh(struct root *r, int64_t now_ms);
/* For tests: resolve without openat2. */
void root_force_walk(struct root *r);

#endif
