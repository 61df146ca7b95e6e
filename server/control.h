/* SPDX-License-Identifier: MIT */
/* The control socket: where `modus stop` and its like find the running server. A unix stream socket
 * with a file of mode 0600; besides, only root and the user that the master runs as are answered.
 *
 *     client                          master
 *     "status --json\n"        ->     looks for the command in its table, calls its run()
 *                              <-     "ok\n" or "error: why\n", then the body, then the end
 *                                     "again\n": another server has the socket now, ask that one
 *
 * A request is one line of words; in a word %XX stands for the byte XX, so that a word may hold
 * blanks. A first word that begins with "=" is the configuration file of the server that is meant, as
 * an absolute path: another one refuses, though the socket is its own. A command answers when what it was asked for is done, which may be much later: it keeps
 * its struct control_request until then and answers it exactly once, even if the client has gone
 * meanwhile. Nothing here waits: a client that sends no line, or takes no answer, is cut after some
 * seconds, and of those who have not asked yet the oldest when there are too many.
 *
 * Safe from: the master's thread, except control_forget().
 */
#ifndef SERVER_CONTROL_H
#define SERVER_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct control;
struct control_request;

enum {
    CONTROL_LINE = 4096,   /* bytes of a request with its line end, at most */
    CONTROL_ARGUMENTS = 4, /* of a command, at most */
    CONTROL_CLIENTS = 16,  /* at once */
};

struct control_command {
    const char *words;  /* "logs reopen"; NULL ends the table */
    unsigned arguments; /* words that follow these */
    /* Answers now or later. arguments are borrowed until it returns. Must not wait. */
    void (*run)(void *arg, struct control_request *request, char **arguments);
};

/* Those who wait for the same, such as the server's end. Zeroed: nobody. */
struct control_waiters {
    struct control_request *first;
};

/* Could the socket be made at path? Makes nothing. Returns 0, or -1 with one sentence in why. */
int control_check(const char *path, char *why, size_t why_size);
/* Make it; a file that a dead server left is replaced. Clients wait until control_start(). Returns
 * NULL with one sentence in why: another server has it, something else stands there, ... */
struct control *control_open(const char *path, char *why, size_t why_size);
/* The same from fd, another master's socket at path, which is taken: what is made at path is not ours
 * before control_start(). Returns NULL with one sentence in why. */
struct control *control_adopt(const char *path, int fd, char *why, size_t why_size);
/* Serve clients in loop. commands and arg (for run and refuses) are borrowed. refuses, unless NULL, says
 * whether a request is for the server of another file, with a sentence in why. Returns 0 or -1. */
int control_start(struct control *c, uv_loop_t *loop, const struct control_command *commands,
                  bool (*refuses)(void *arg, const char *file, char *why, size_t why_size),
                  void *arg);
/* Its listening socket, to be handed to another master. */
int control_fd(const struct control *c);
/* Is it another master's, not ours yet? */
bool control_is_borrowed(const struct control *c);
/* In a forked child: close the descriptors, which are the master's. NULL is allowed. Safe from: the
 * child, at once after the fork. */
void control_forget(const struct control *c);
/* The loop has been closed: listen no more and remove the file, if it is still ours. Answers can
 * still be given. NULL is allowed. */
void control_stop(struct control *c);
/* While the loop runs: listen no more, and send those away who have not asked yet. taken: the socket
 * is another master's from now on, and its file stays. NULL is allowed. */
void control_leave(struct control *c, bool taken);
/* End all clients. Every request must have been answered. NULL is allowed. */
void control_free(struct control *c);

/* Answer with body (len bytes, copied; NULL and 0 for none). Takes the request. */
void control_answer(struct control_request *request, const char *body, size_t len);
/* Answer "error: why". why is one line. Takes the request. */
void control_refuse(struct control_request *request, const char *why);
/* Have the client ask again, whom it then finds. Takes the request. */
void control_again(struct control_request *request);
/* Put a request aside; takes it. */
void control_keep(struct control_waiters *waiters, struct control_request *request);
/* Answer all of them: with an error if why is not NULL. Nobody waits then. */
void control_answer_all(struct control_waiters *waiters, const char *why);

#endif
