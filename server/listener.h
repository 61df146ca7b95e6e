/* SPDX-License-Identifier: MIT */
/* A listener as the server runs it: its sockets, what its connections need (struct service), its
 * model and its shared memory. Made whole from the configuration before anything is forked. */
#ifndef SERVER_LISTENER_H
#define SERVER_LISTENER_H

#include "net/service.h"
#include "server/access_log.h"
#include "server/board.h"
#include "server/config.h"
#include "server/models/model.h"

/* What was said of a route's handler in the error log: see complain() in listener.c. In shared
 * memory, because every worker may have something to say. */
struct route_faults {
    _Atomic int64_t said_ms; /* when its second began; 0: nothing was said yet */
    atomic_uint said;        /* lines that were asked for in that second, for another reason each */
    _Atomic uint32_t reason; /* of the last line, hashed */
    atomic_uint unsaid;      /* faults since the last line */
};

struct listener {
    const struct config_listener *conf;
    const struct model *model;
    struct model_plan plan;
    struct service service;
    struct route *routes;
    struct tls_context *tls;
    struct access_log *access_log;
    int *fds;       /* one an address */
    bool *borrowed; /* of these: others' sockets (an earlier generation's, systemd's), by ours */
    uint64_t print; /* of the files of its certificates */
    int intake[2];  /* server/intake.h: to take from, to give to; -1 where nothing can move */
    char (*names)[128]; /* where each is bound */
    size_t fd_count;
    bool refuses;      /* stopping (master): no new connection can come */
    int64_t waited_ms; /* stopping (master): when connections were last seen waiting */
    struct board *board;
    struct route_faults *faults; /* one a route, in the order of routes */
};

/* Everything but sockets and shared memory: models, certificates, routes. tls_shared may be NULL
 * (for a check). Returns 0, or -1 with "FILE:LINE: ..." in why. */
int listener_build(struct listener *l, const struct config *config,
                   const struct config_listener *conf, void *tls_shared, char *why,
                   size_t why_size);
/* The name of the handler that serves a route of l->routes. */
const char *listener_handler(const struct listener *l, const struct route *route);
/* What the files of the certificates hold, hashed; 0 when there are none. */
uint64_t listener_print(const struct config_listener *conf);
/* Bind the sockets, or take over those of have, which is NULL or has for each address the descriptor
 * of a socket that is bound there, or -1; and open the access log. Returns 0 or -1 with why. */
int listener_open(struct listener *l, const struct config *config, const int *have, char *why,
                  size_t why_size);
/* Do others have all of its sockets? */
bool listener_is_handed_over(const struct listener *l);
/* Others have its sockets now: close our descriptors, and leave the sockets as they are. */
void listener_hand_over(struct listener *l);
/* Is one of its descriptors for the same socket as fd? */
bool listener_has_socket(const struct listener *l, int fd);
/* Let no new connection come, while those that the kernel has can still be accepted. */
void listener_refuse_new(struct listener *l);
/* Do connections wait to be accepted, on sockets that are not others' now? */
bool listener_has_waiting(const struct listener *l);
/* Listen no more, in no process that has the descriptors, and close them here. What waits to be
 * accepted is reset: look first. */
void listener_stop(struct listener *l);
/* Its first address as the file has it; where the kernel chose the port, as it is bound. */
const char *listener_name(const struct listener *l);
void listener_close(struct listener *l);

#endif
