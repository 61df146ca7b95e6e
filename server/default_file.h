/* SPDX-License-Identifier: MIT */
/* Where the configuration is unless it is named: in the folder that one works in, or where it was
 * installed. Apart, since this is all that needs to know where that was. */
#ifndef SERVER_DEFAULT_FILE_H
#define SERVER_DEFAULT_FILE_H

extern const char default_file_here[], default_file_installed[];

/* The first of both that is there; NULL: none is. Safe from: any thread. */
const char *default_file(void);

#endif
