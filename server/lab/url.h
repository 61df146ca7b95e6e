/* SPDX-License-Identifier: MIT */
/* The URL of what is to be loaded: http or https, a name or an address, a port, a path with its
 * query. No user, no fragment. Apart, since the command line's words and the lab's own both end up
 * here. */
#ifndef SERVER_LAB_URL_H
#define SERVER_LAB_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct lab_url {
    bool tls;
    char host[256]; /* without the brackets of an IPv6 address */
    char port[8];
    char path[2048];     /* with its query; at least "/" */
    char authority[300]; /* as it goes into Host */
};

/* Returns 0, or -1 with a sentence in why. */
int lab_url_parse(const char *text, struct lab_url *url, char *why, size_t why_size);
/* The same checks for another path on that server. The same returns. */
int lab_url_check_path(const char *path, char *why, size_t why_size);
/* Its address; the first, if its name has several. Returns 0, or -1 with a sentence in why. Blocks
 * while the name is looked up. */
int lab_url_resolve(const struct lab_url *url, struct sockaddr_storage *address, socklen_t *len,
                    char *why, size_t why_size);

#endif
