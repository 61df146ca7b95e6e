/* SPDX-License-Identifier: MIT */
/* How many connections the kernel holds that nobody has accepted yet, and can hold. Whoever shows the status is a
 * worker of one listener and has no descriptor of the others', so it asks the kernel's socket
 * monitor (sock_diag(7)), which knows sockets by their inode.
 *
 *     struct backlog sockets[] = {{.inode = a}, {.inode = b}};
 *     backlog_ask(sockets, 2);
 *     show(sockets[0].waiting);
 *
 * Does not wait: the kernel answers in the call. Safe from: any thread, any process.
 */
#ifndef SERVER_BACKLOG_H
#define SERVER_BACKLOG_H

#include <stddef.h>
#include <stdint.h>

struct backlog {
    uint32_t inode;   /* of a listening socket: backlog_inode() */
    uint32_t waiting; /* the answer; 0 also when the kernel does not say */
    uint32_t most;    /* how many it holds at most */
};

/* The inode of a descriptor, 0 if it has none. */
uint32_t backlog_inode(int fd);
/* Fill in waiting and most of each. */
void backlog_ask(struct backlog *sockets, size_t count);

#endif
