/* SPDX-License-Identifier: MIT */
/* A transport in memory, for tests and fuzzers: two byte pipes with adjustable room, so that short
 * reads, short writes and a full peer can be played without a socket. */
#ifndef NET_MEMORY_H
#define NET_MEMORY_H

#include "net/transport.h"

struct memory_pipe;

/* pending() is true while a limit a call (below) holds back bytes that were fed already, so that a
 * short read keeps its meaning. When memory is out, the pipe acts as if reset.
 * Safe from: one thread, which plays both ends. */

/* Make a transport and the other end of it. NULL when memory is out; free with memory_pipe_free
 * after the transport was closed. */
struct memory_pipe *memory_pipe_new(struct transport *t);
void memory_pipe_free(struct memory_pipe *p);
/* What the transport will read. feed copies; end: the peer sends no more. */
void memory_pipe_feed(struct memory_pipe *p, const void *bytes, size_t len);
void memory_pipe_end(struct memory_pipe *p);
/* The peer is gone: every call gives TRANSPORT_GONE. */
void memory_pipe_reset(struct memory_pipe *p);
/* At most this many bytes a read or write call, and this many unread bytes in all towards the peer
 * (0: no limit). */
void memory_pipe_limit(struct memory_pipe *p, size_t per_call, size_t room);
/* What the transport has written so far; take forgets the first n bytes. */
const char *memory_pipe_sent(const struct memory_pipe *p, size_t *len);
void memory_pipe_take(struct memory_pipe *p, size_t n);
/* How many of the bytes fed the transport has not read yet. */
size_t memory_pipe_unread(const struct memory_pipe *p);
/* Has the transport been shut down for writing, or closed? */
bool memory_pipe_is_shut(const struct memory_pipe *p);

#endif
