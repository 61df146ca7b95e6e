/* SPDX-License-Identifier: MIT */
/* What a master finds open at its start: all that the master before it has, in an upgrade (it is
 * started with MODUS_UPGRADE=N, the descriptor of a socket pair by which the rest comes), or the
 * sockets that systemd has bound (LISTEN_FDS). The variables are taken out of the environment.
 *
 * A listener of the earlier master is that of the configuration with the same title, and of the same
 * rank among those that have it. Its sockets are found by the address in the file, whichever
 * listener has it; a port that the kernel chose belongs to its place. systemd's are found by where
 * they are bound.
 *
 * What is looked up is marked as taken and stays the inheritance's: others make descriptors of their
 * own. Safe from: the master at its start.
 */
#ifndef SERVER_INHERIT_H
#define SERVER_INHERIT_H

#include <stdbool.h>

#include "server/config.h"
#include "server/parcel.h"

struct inherited_socket {
    const char *text; /* its address in the file that it was bound for; NULL: systemd's */
    char *name;       /* systemd's name for it, or NULL */
    unsigned place;   /* among the addresses of its listener */
    int fd;
    bool lent; /* systemd's, which goes on with it after us */
    bool taken;
};

struct inherited_listener {
    const char *title;
    struct inherited_socket *sockets;
    size_t socket_count;
    const char *tickets; /* keys as tls_shared_write() has them; NULL: none */
    int intake[2];       /* -1: none */
    bool intake_taken;
};

struct inheritance {
    int link; /* to the earlier master; -1: these are systemd's */
    struct parcel parcel;
    struct inherited_listener *listeners;
    size_t listener_count;
    const char *pid_file, *control; /* paths that the descriptors are for, or NULL */
    int pid_fd, control_fd;
};

/* Returns NULL with why empty when there is nothing, and with a sentence when it can't be taken: then
 * nothing may be served. Blocks until all is there, some seconds at most. */
struct inheritance *inherit(char *why, size_t why_size);
/* Tell the earlier master that we can't do it; why: one line. Returns false if there is none to hear
 * it. NULL is allowed. */
bool inherit_refuse(struct inheritance *in, const char *why);

/* The earlier master's listener of which conf, a listener of c, is another version, or NULL. in may
 * be NULL, as below. */
struct inherited_listener *inherit_listener(struct inheritance *in, const struct config *c,
                                            const struct config_listener *conf);
/* The socket for conf's address at a place; own is what inherit_listener() gave. NULL: there is none. */
const struct inherited_socket *inherit_socket(struct inheritance *in,
                                              const struct inherited_listener *own,
                                              const struct config_listener *conf, size_t place);
/* Say in the log which of systemd's sockets no listener names. */
void inherit_say_left(const struct inheritance *in);
/* Close the sockets and all else but the link. NULL is allowed. */
void inherit_free(struct inheritance *in);

#endif
