/* SPDX-License-Identifier: MIT */
/* Sockets: listening ones and what they accept. All descriptors are close-on-exec and non-blocking
 * from birth. No SO_REUSEPORT: it hashes, and loses what is queued when its owner ends.
 *
 * Safe from: any thread or process that owns the descriptor.
 */
#ifndef NET_SOCKET_H
#define NET_SOCKET_H

#include <stddef.h>
#include <stdint.h>

#include "net/conn.h"

struct socket_address {
    const char *unix_path; /* or NULL */
    const char *host; /* numeric IPv4 or IPv6; "*": any, of both families where there are both */
    uint16_t port;    /* 0: the kernel chooses */
    unsigned
        mode; /* of the unix socket's file; 0: everybody may connect who may enter its folder */
};

/* Bind and listen. A unix socket file that nobody answers on is replaced. Returns a descriptor, or
 * -1 with one sentence in why. */
int socket_listen(const struct socket_address *address, int backlog, char *why, size_t why_size);
/* Is a socket bound to that address? "*" is any address, of both families or of IPv4 alone. */
bool socket_is_bound_to(int fd, const struct socket_address *address);
/* Let connections come up only once they have sent something, or at once. A hint: failing is no
 * error. */
void socket_defer_accept(int fd, bool defer);
/* Take in no new connections. Only their first packets are dropped: handshakes under way end well
 * (a filter that dropped all would eat their last packet, and they would be reset later), so what
 * comes of them may appear in the queue a little later. */
void socket_drop_new(int fd);
/* Does a connection wait to be accepted? */
bool socket_has_waiting(int fd);
/* Accept one. Returns its descriptor, or a negative errno: -EAGAIN none waits; -EMFILE, -ENFILE,
 * -ENOMEM, -ENOBUFS no room now. Failures of the one connection are passed over. */
int socket_accept(int fd, struct conn_peer *peer);
/* "127.0.0.1:8080", "[::1]:8080", "unix:/path": where the socket is bound, in text. */
void socket_name(int fd, char *text, size_t size);

#endif
