/* SPDX-License-Identifier: MIT */
/* The configuration file as plain data. config_read() turns a file into a struct config or into one
 * line that says what is wrong and where; nothing here binds, forks or logs. What a value means is
 * in conf/modus.conf and in `modus explain`.
 *
 * Ownership: everything below a struct config belongs to it and goes with config_free(). It is
 * never changed after config_read(). Safe from: one thread; a forked child may read it.
 */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "handlers/handler.h"

enum config_level { LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN, LEVEL_ERROR };
enum config_protocol { PROTOCOL_HTTP, PROTOCOL_TCP };
enum config_log_format { FORMAT_COMBINED, FORMAT_COMMON, FORMAT_JSON };

/* Where a value came from, for `explain`. */
enum config_origin { ORIGIN_DEFAULT, ORIGIN_FILE };

/* An address to listen on. Exactly what the file says is kept in text, for messages. */
struct config_address {
    const char *text;
    bool is_unix;
    const char *path; /* is_unix: absolute path */
    const char *host; /* else: numeric IPv4 or IPv6 without brackets; "*" any address of both */
    uint16_t port;    /* 0: the kernel chooses */
    int line;
};

struct config_tls {
    const char *certificate; /* absolute path, PEM, leaf first */
    const char *key;         /* absolute path, PEM */
    int min_version;         /* 0x0303 or 0x0304 */
    int line;
    const int *key_lines; /* for explain: of each key, 0 a default; config_keys.h has their order */
};

struct config_route {
    const char *prefix; /* begins with '/'; no '/' at the end, except "/" itself */
    const struct handler *handler;
    void *conf; /* handler->conf_size bytes, filled from the options */
    int line;   /* of the route; of the listener for protocol = tcp */
    int handler_line;
    const int *option_lines; /* for explain: of each of the handler's options, 0 a default */
    bool opened;             /* config_open_handlers has been here */
};

struct config_listener {
    struct config_address *addresses; /* the section's title first, then `also` */
    size_t address_count;
    enum config_protocol protocol;
    const char *model; /* a name that models_find() knows */

    /* 0 means auto for processes and loops. */
    int processes, loops, threads, queue;
    int64_t queue_timeout_ms;
    int worker_requests; /* of a worker, until it is replaced; 0: no limit, as with the next two */
    int64_t worker_memory, worker_age_ms;
    int max_connections; /* 0: not set, the model's own default */
    int backlog;
    bool gil;

    int64_t header_timeout_ms, body_timeout_ms, handler_timeout_ms, send_timeout_ms;
    int64_t keepalive_timeout_ms; /* -1: not set, the model's own default */
    int keepalive_requests;       /* 0: no limit */
    int64_t max_header_size, max_body_size;

    const char *access_log; /* absolute path, "stdout", "stderr", or NULL */
    enum config_log_format log_format;
    int line_access_log; /* 0 when not in the file */

    struct config_tls *tls;
    size_t tls_count;
    struct config_route *routes; /* protocol = tcp: one, prefix "" */
    size_t route_count;
    int line;
    const int *key_lines; /* for explain: of each key, 0 a default; config_keys.h has their order */
};

struct config {
    const char *file;   /* as it was named */
    const char *folder; /* absolute; relative paths start here */
    const char *text;   /* all that was read, text_len bytes */
    size_t text_len;
    const char *user;      /* "" none */
    const char *pid_file;  /* absolute path, or "" none */
    const char *control;   /* absolute path of the control socket, or "" none */
    const char *error_log; /* "stderr" or an absolute path */
    enum config_level log_level;
    int64_t drain_timeout_ms;
    struct config_listener *listeners;
    size_t listener_count;
    int line_user, line_pid_file, line_control, line_error_log; /* 0 when not in the file */
    const int *key_lines; /* for explain: of each key, 0 a default; config_keys.h has their order */
};

/* Read and check file. Returns a configuration, or NULL with "FILE:LINE: what is wrong, and the
 * nearest valid word" in why (never ended by a newline). Opens no socket and no log. Blocks on the
 * disk. */
struct config *config_read(const char *file, char *why, size_t why_size);
/* The same from memory; name stands for the file in messages, folder is where relative paths start
 * (absolute). For tests and fuzzers. */
struct config *config_parse(const char *name, const char *folder, const char *text, size_t len,
                            char *why, size_t why_size);
/* Only where the control socket is, into path ("": there is none). Reads no more than that key, so
 * that a server can be spoken to whose file has become wrong elsewhere. Returns 0, or -1 with
 * "FILE:LINE: ..." in why: then it is not known. */
int config_read_control(const char *file, char *path, size_t size, char *why, size_t why_size);
/* Calls handler->open for each route of a listener of c, after config_read, unless that has been
 * done; what env says of the listener is filled in here. On failure, why names file and line. Returns 0 or -1. */
int config_open_handlers(const struct config *c, struct config_listener *l,
                         const struct handler_env *env, char *why, size_t why_size);
/* Do two configurations say the same of a listener? What is in the files that they name may differ.
 */
bool config_same_listener(const struct config_listener *a, const struct config_listener *b);
/* Closes the handlers that were opened and frees all. NULL is allowed. */
void config_free(struct config *c);

/* `modus explain`: every effective value with where it came from ("default" or "FILE:LINE"), which
 * ones the listener's model does not use, and the worst-case processes, threads, descriptors and
 * memory, to standard output. */
void config_explain(const struct config *c);

#endif
