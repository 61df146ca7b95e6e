/* SPDX-License-Identifier: MIT */
/* What two masters say to each other over a socket pair (SEQPACKET), when one takes the place of the
 * other. They are of different builds, so a message is text: fields "key=value" each ended by a zero
 * byte, in order, and descriptors that fields name by their place. Who does not know a key passes
 * over it; descriptors that no field is understood of are closed with the message.
 *
 *     struct parcel p = {0};
 *     parcel_put(&p, "socket", "%d %s", parcel_add(&p, fd), "127.0.0.1:80");
 *     parcel_seal(&p);
 *     while ((rc = parcel_send(&p, link)) == -EAGAIN)     // from a loop: when there is room
 *         ...
 *     parcel_fini(&p);
 *
 * Nothing here waits. Safe from: its owner.
 */
#ifndef SERVER_PARCEL_H
#define SERVER_PARCEL_H

#include <stdbool.h>
#include <stddef.h>

/* Zeroed: empty. */
struct parcel {
    char *text;
    size_t len, room;
    int *fds; /* added: borrowed; received: its own, -1 once taken */
    size_t fd_count, fd_room;
    size_t sent, fds_sent;
    bool received, failed; /* failed: memory was out; sending it says so */
};

/* Add a field. value must hold no zero byte. */
__attribute__((format(printf, 3, 4))) void parcel_put(struct parcel *p, const char *key,
                                                      const char *format, ...);
/* Add a descriptor, which must stay open until all is sent. Returns its place. */
int parcel_add(struct parcel *p, int fd);
/* Nothing more comes: it can be sent. */
void parcel_seal(struct parcel *p);
/* Send what the socket takes now. Returns 0 when all is, -EAGAIN, or another negative errno. */
int parcel_send(struct parcel *p, int link);
/* Take in what is there. Returns 0 when it is whole, -EAGAIN, or another negative errno: -EPIPE when
 * the other end has gone, -EPROTO when this is no message. */
int parcel_receive(struct parcel *p, int link);
/* The next field from *at, 0 at first: its key, and its value at *value; NULL: there is none. Cuts
 * the text where it reads. */
const char *parcel_next(struct parcel *p, size_t *at, const char **value);
/* The descriptor at a place, which is the caller's now; -1: there is none, or it was taken. */
int parcel_take(struct parcel *p, long place);
/* Empty it; close what was received and not taken. */
void parcel_fini(struct parcel *p);

#endif
