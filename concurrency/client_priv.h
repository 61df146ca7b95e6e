/* SPDX-License-Identifier: MIT */
/* A call on a connection to a manager, for remote.c. */
#ifndef CONCURRENCY_CLIENT_PRIV_H
#define CONCURRENCY_CLIENT_PRIV_H

#include "concurrency/manager_wire.h"
#include "concurrency/remote.h"

struct modus_remote_call {
    struct modus_wire_request request; /* verb, object, a, b and ns; the rest is filled in */
    struct modus_bytes key, value;
    void *memory; /* for the answer's bytes, */
    size_t room;
    struct modus_snapshot *snapshot; /* or this, allocated */
    struct modus_wire_reply reply;
};

/* Ask, and wait for the answer. Returns its result, or what remote.h says. */
int modus_client_call(struct modus_client *client, struct modus_remote_call *call);

#endif
