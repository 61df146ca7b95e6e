/* SPDX-License-Identifier: MIT */
/* Where the program that runs is found again, to start what is there by then. Its name is learned at
 * the start: when a package has replaced the file, /proc/self/exe is that of one that was deleted.
 *
 * Safe from: the main thread.
 */
#ifndef SERVER_PROGRAM_H
#define SERVER_PROGRAM_H

/* First in main. */
void program_init(const char *argv0);
/* The absolute path by which it was started, symbolic links as they were; NULL: not known. */
const char *program_path(void);

#endif
