/* SPDX-License-Identifier: MIT */
/*
 * Manager: dicts, lists, values, queues and locks with names, for processes that have no memory in
 * common.
 *
 * A server holds them; clients connect through a path in the file system and use them by calls that
 * look like those on objects of their own (remote.h). It is not shared memory: each call
 * is a message there and one back. It serves one call after the other, so each is one step; what
 * takes several is remote.h's update, or done under a lock of the manager's.
 *
 *     struct modus_manager *manager;
 *     modus_manager_open(&manager, &(struct modus_manager_attr){.path = "/run/me/shared"});
 *     if (fork() == 0) {                        // or in a thread, or right here
 *         modus_manager_serve(manager);         // until it is stopped
 *         modus_manager_close(manager);
 *         _exit(0);
 *     }
 *     ... clients may connect as soon as it is open ...
 *     modus_manager_stop(manager);
 *     modus_manager_close(manager);             // in every process that has it
 *
 * Only processes of the server's own user are served: the path has mode 0600, and the kernel is
 * asked who is at the other end. What they send is checked all the same; one that sends nonsense is
 * disconnected, and harms nobody else.
 *
 * A client that dies: what it asked for last is done or not; locks that it held are free, and the
 * next holder is told; an item of a queue that it had not got yet is given to another. A server
 * that dies: its clients get MODUS_CLOSED, and what it held is gone. The next one takes its path
 * over.
 *
 * Memory is bounded by attr; pages exist from their first use on.
 */
#ifndef CONCURRENCY_MANAGER_H
#define CONCURRENCY_MANAGER_H

#include <stddef.h>

#include "concurrency/result.h"

struct modus_manager;

struct modus_manager_attr {
    const char *path;     /* of the socket, up to 107 bytes; copied */
    unsigned clients;     /* at a time, others wait; 0: 256 */
    unsigned objects;     /* up to 65535; 0: 1024 */
    size_t object_bytes;  /* the most that a dict, list or queue takes; 0: 64 MiB */
    size_t message_bytes; /* the largest key and value, or snapshot, that is sent; 0: 16 MiB */
};

/* Make a manager and its path, so that clients may connect. Returns 0, -EINVAL, -ENOMEM, -EBUSY (a
 * living server has that path, or something that is no socket; or somebody keeps the directory
 * locked, flock(2), for 2 s), -EACCES or -ENOENT (no such directory, or not for us). Blocks while
 * another is opened in the same directory.
 * Safe from: any thread. */
int modus_manager_open(struct modus_manager **manager, const struct modus_manager_attr *attr);

/* Serve until it is stopped, then disconnect everybody and remove the path. The descriptors are
 * this process's alone: children that it forks from now on do not have them. Returns 0; -EALREADY
 * when it is or has been served, or was stopped and closed before. Blocks.
 * Safe from: one thread, of the process that opened it or a child. */
int modus_manager_serve(struct modus_manager *manager);

/* Let serve return, now or as soon as it is called. Does not block. NULL is legal.
 * Safe from: any thread, signal handlers; the process that opened it and its children. */
void modus_manager_stop(struct modus_manager *manager);

/* Free it in this process. A process that opened it and lets a child serve does this soon: clients
 * of a dead server wait for as long as somebody has its socket. If it was stopped before anybody
 * served it, the path is removed. NULL is legal. Safe from: one thread, not while it serves. */
void modus_manager_close(struct modus_manager *manager);

#endif
