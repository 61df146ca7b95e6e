/* SPDX-License-Identifier: MIT */
/* How bytes come and go: one small table for plain sockets, TLS and memory. A connection talks only
 * to this, so HTTP knows nothing of sockets and a driver nothing of TLS.
 *
 * Nothing here ever waits. Calls that move bytes return how many (> 0), 0 for the end of input
 * (read only), or one of the negative TRANSPORT_ codes. WANT codes are not errors: try again when
 * the socket can be read or written. TLS may want to write in order to read, and the other way
 * round, so a caller must never guess the direction from the call it made.
 *
 * A short read (fewer bytes than there was room for) means that nothing more was there, unless
 * pending() says otherwise. Every descriptor is non-blocking from birth, and nobody toggles that.
 *
 * Safe from: the one thread that owns the connection at that time.
 */
#ifndef NET_TRANSPORT_H
#define NET_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum {
    TRANSPORT_WANT_READ = -1,
    TRANSPORT_WANT_WRITE = -2,
    TRANSPORT_GONE = -3, /* reset, hung up, or a TLS error: nothing more can be done with it */
    TRANSPORT_PLAIN_HTTP = -4, /* handshake() of TLS: it came in the clear; see tls_unwrap() */
};

/* One end of a connection. Zeroed memory with fd -1 is "none". */
struct transport {
    const struct transport_ops *ops;
    int fd;     /* -1 for memory */
    void *priv; /* the ops' own: SSL *, memory pipes */
};

struct transport_ops {
    const char *name; /* "plain", "tls", "memory" */
    /* Bring the transport up. Returns 0 when bytes can flow (plain: at once), a WANT, GONE, or
     * PLAIN_HTTP. */
    int (*handshake)(struct transport *t);
    ssize_t (*read)(struct transport *t, void *bytes, size_t len);
    /* May take fewer bytes than given. more: further bytes follow at once, so don't push yet. */
    ssize_t (*write)(struct transport *t, const struct iovec *iov, int count, bool more);
    /* Send up to len bytes of fd from offset. Returns as write; 0 means that the file ended. */
    ssize_t (*send_file)(struct transport *t, int fd, int64_t offset, size_t len);
    /* Bytes that read() would return without the socket becoming readable (decrypted already). */
    bool (*pending)(const struct transport *t);
    /* Say that no more will be written (TLS: close_notify, then FIN). closing: close() follows at
     * once, and says what the kernel has to say. Returns 0, a WANT or GONE. */
    int (*shutdown)(struct transport *t, bool closing);
    /* Give back what can be had again while the connection idles (TLS buffers). */
    void (*idle)(struct transport *t);
    /* Free what the transport holds and close fd (never shuts it down: a forked parent calls this
     * too). */
    void (*close)(struct transport *t);
};

/* A connected, non-blocking stream socket. Takes fd. */
void transport_plain(struct transport *t, int fd);

#endif
