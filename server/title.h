/* SPDX-License-Identifier: MIT */
/* What ps shows of a process: "modus: prefork worker 127.0.0.1:8082" in the place of its command
 * line.
 *
 *     title_init(argc, argv);                 // first in main
 *     ...                                     // read argv, copy what is needed later
 *     title_set("master %s", file);           // argv is gone from here on
 *
 * The title is inherited by what a process forks. Setting it writes to one or two pages that all
 * processes share until then, so it is done once a worker, never once a connection.
 *
 * Safe from: the main thread; nobody else looks there.
 */
#ifndef SERVER_TITLE_H
#define SERVER_TITLE_H

/* Learn where the command line lies, and move the environment out of the way. */
void title_init(int argc, char **argv);
/* Show "modus: " and this; cut to the room that there is. Nothing happens without title_init(). */
__attribute__((format(printf, 1, 2))) void title_set(const char *format, ...);

#endif
