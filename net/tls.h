/* SPDX-License-Identifier: MIT */
/* TLS: a listener's certificates, ticket keys and settings, made once in the master before it
 * forks, and the transport that it gives each connection. OpenSSL is seen only by net/tls*.c.
 *
 * Safe from: tls_context_* the master, before fork; tls_accept any thread or process that inherited
 * the context.
 */
#ifndef NET_TLS_H
#define NET_TLS_H

#include <stddef.h>
#include <stdint.h>

#include "net/transport.h"

/* What a caller of a TLS transport keeps to, beyond transport.h:
 * - After write() or send_file() has taken less than it was offered, a WANT included, the same
 *   unsent bytes must come again through the same slot, more behind them if there are. How they are
 *   cut into iovecs may change. OpenSSL has encrypted some of them already; fewer or other calls
 *   end in GONE or send the old bytes. read() may come in between.
 * - shutdown() comes when all is written; with a record half sent it ends in GONE.
 * - pending() may be true and the read() after it WANT_READ, when what is there is no whole record
 *   yet, or when the last record was there before read() was called, so that the socket was not
 *   asked: what came since would be told by an event that somebody may have had already. Then
 *   pending() is false until a read() brings something.
 * - The end of input is the peer's close_notify (0). A bare FIN is GONE: anyone can forge one.
 * All iovecs of a write up to 16 KiB go as one record and one send. Reads give one record at most.
 */
struct tls_context;

struct tls_certificate {
    const char *certificate; /* PEM file, leaf first, then its chain */
    const char *key;         /* PEM file */
    int min_version;         /* 0x0303 (1.2) or 0x0304 (1.3) */
};

/* Shared memory for the ticket keys, so that a session resumes in whichever process answers:
 * tls_shared_size() zeroed bytes, 64-byte aligned, mapped shared before fork. */
size_t tls_shared_size(void);
/* Begin the next turn of the ticket keys now. Turns last 8 hours; a ticket lives as long, and its
 * key is accepted in the turn after its own. Twice: no ticket given so far is accepted any more.
 * Safe from: any thread or process that has the block. */
void tls_shared_rotate(void *shared);
/* The keys as a line of text, which another build understands; this turn's key is made if none was
 * needed yet, so that both go on with the same. It is as secret as they. Returns 0, or -1: no room
 * (TLS_SHARED_TEXT is enough), or no randomness. */
enum { TLS_SHARED_TEXT = 640 };
int tls_shared_write(void *shared, char *text, size_t size);
/* Set the keys of a zeroed block to those of a text. Returns 0, or -1 when it is not understood: the
 * block stays as it was. */
int tls_shared_read(void *shared, const char *text);

/* Read and check the certificates of a listener. The first is the default; the others are chosen by
 * SNI from the names in them (subjectAltName, wildcards of one label; else the common name).
 * shared may be NULL (for a check): then tickets live in this context alone.
 * Returns a context, or NULL with one sentence in why that names the file, and its index in *bad.
 * Blocks on the disk. */
struct tls_context *tls_context_new(const struct tls_certificate *certificates, size_t count,
                                    void *shared, size_t *bad, char *why, size_t why_size);
/* ALPN is answered with http/1.1 or http/1.0, and a client that offers only others is refused.
 * After this call it is not answered at all, nor is HTTP in the clear told from other bytes that
 * are no TLS (protocol = tcp). Before the first tls_accept. */
void tls_context_any_protocol(struct tls_context *context);
/* References are counted: each connection holds one. NULL is nothing. */
void tls_context_free(struct tls_context *context);

/* Put TLS, as server, on a connected non-blocking socket. Takes fd on success. Returns 0 or -1
 * (memory). handshake() must be called until it returns 0. */
int tls_accept(struct transport *t, struct tls_context *context, int fd);
/* The same over another transport (memory, in tests and fuzzers), which it takes. */
int tls_accept_over(struct transport *t, struct tls_context *context, struct transport under);

/* After handshake() gave TRANSPORT_PLAIN_HTTP: t becomes the transport below, TLS is gone, and the
 * bytes that it had read are the caller's, to free(). Safe from: the owner of the transport. */
struct tls_rest {
    char *at;
    size_t len;
} tls_unwrap(struct transport *t);

/* For logs, of any transport; what is not known (yet), or not TLS, is NULL or false. The texts are
 * static, but for the name, which lives as long as the transport.
 * Safe from: the owner of the transport. */
const char *tls_version(const struct transport *t);     /* "TLSv1.3" */
const char *tls_cipher(const struct transport *t);      /* "TLS_AES_128_GCM_SHA256" */
const char *tls_server_name(const struct transport *t); /* what the client asked for by SNI */
const char *tls_failure(const struct transport *t);     /* why it is gone: "http request", ... */
bool tls_resumed(const struct transport *t);

#endif
