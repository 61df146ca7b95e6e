/* SPDX-License-Identifier: MIT */
/* A client's connection: connects, shakes hands over TLS, sends prepared requests, reads answers and
 * drops their bodies. It never waits: whoever owns it steps it when its descriptor has something to
 * tell (edge-triggered), and asks again once all is answered.
 *
 *     closed -open-> connecting -> (shaking) -> ready -ask-> asking -> answered: ready, or closed
 *
 * The server's certificate is not verified: what is loaded is known, and mostly one's own.
 *
 * Safe from: one thread.
 */
#ifndef SERVER_LAB_CLIENT_H
#define SERVER_LAB_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <llhttp.h>

#include "net/str.h"

struct lab_url;

/* Where clients connect to. */
struct lab_target {
    struct sockaddr_storage address;
    socklen_t len;
    unsigned
        sources; /* addresses from 127.0.0.1 on that clients come from by turns; 0: the system's */
    void *tls;   /* an SSL_CTX, or NULL */
    const char *host; /* for SNI */
};

/* The URL must outlive it. Returns 0, or -1 with a sentence in why. Blocks while a name is looked up. */
int lab_target_open(struct lab_target *t, const struct lab_url *url, unsigned sources, char *why,
                    size_t why_size);
void lab_target_close(struct lab_target *t);

enum lab_client_state { CLIENT_CLOSED, CLIENT_CONNECTING, CLIENT_SHAKING, CLIENT_READY };

/* What a step has come to. */
enum lab_outcome {
    CLIENT_WAITS,
    CLIENT_GOES_ON,  /* there may be more to read: step it again, no event will come of it */
    CLIENT_ANSWERED, /* all that was asked for; it may be closed now */
    CLIENT_NO_CONNECTION,
    CLIENT_READ_FAILED, /* also: an answer that is none, or ended early */
    CLIENT_WRITE_FAILED,
    CLIENT_ENDED, /* by the server, when nothing was asked for */
};

/* Zeroed to begin with. */
struct lab_client {
    enum lab_client_state state;
    int fd; /* unless closed */
    void *ssl;
    llhttp_t parser;
    struct str out;    /* of the request, what is not sent */
    unsigned expected; /* answers; those that did not come, once it has failed */
    unsigned refused;  /* of the answers to the last question: those with neither 2xx nor 3xx */
    bool stays;        /* the server keeps the connection, as its last answer says */
    bool interim;      /* this message is a 1xx */
    uint64_t bytes;    /* received, of all */
};

/* Begin to connect; nth: which one it is, for the source address. Returns 0 or a negative errno. */
int lab_client_open(struct lab_client *c, const struct lab_target *t, unsigned nth);
/* Ask: request is borrowed until the answers are there, and holds count requests. Then step. */
void lab_client_ask(struct lab_client *c, struct str request, unsigned count);
/* Go as far as it goes, but let others have their turn when a lot comes. After an outcome that is neither
 * of the first two nor answered it is closed. */
enum lab_outcome lab_client_step(struct lab_client *c);
void lab_client_close(struct lab_client *c);

#endif
