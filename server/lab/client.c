/* SPDX-License-Identifier: MIT */
/* A client's connection: see server/lab/client.h. */
#include "server/lab/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "server/lab/url.h"

enum { PIECE = 65536, PIECES = 16 /* read in a step at most */ };

/* --- where to -------------------------------------------------------------------------------- */

static bool is_loopback(const struct sockaddr_storage *address)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;
    return address->ss_family == AF_INET && ntohl(in->sin_addr.s_addr) >> 24 == 127;
}

int lab_target_open(struct lab_target *t, const struct lab_url *url, unsigned sources, char *why,
                    size_t why_size)
{
    *t = (struct lab_target){.sources = sources, .host = url->host};
    if (lab_url_resolve(url, &t->address, &t->len, why, why_size) != 0)
        return -1;
    if (sources && !is_loopback(&t->address)) {
        snprintf(why, why_size,
                 "only a server on 127.0.0.0/8 can be loaded from several addresses");
        return -1;
    }
    if (url->tls && !(t->tls = SSL_CTX_new(TLS_client_method()))) {
        snprintf(why, why_size, "OpenSSL can make no client");
        return -1;
    }
    return 0;
}

void lab_target_close(struct lab_target *t)
{
    SSL_CTX_free(t->tls);
    *t = (struct lab_target){0};
}

/* --- answers --------------------------------------------------------------------------------- */

/* Returns 1 for an answer that has no body, whatever length it tells: a 304's is that of the page. */
static int on_headers_complete(llhttp_t *p)
{
    struct lab_client *c = p->data;
    c->interim = p->status_code < 200;
    return c->interim || p->status_code == 204 || p->status_code == 304;
}

static int on_message_complete(llhttp_t *p)
{
    struct lab_client *c = p->data;
    if (c->interim)
        return 0;
    if (c->expected == 0)
        return HPE_USER;
    c->expected--;
    c->refused += p->status_code >= 400;
    c->stays = llhttp_should_keep_alive(p) != 0;
    return 0;
}

static const llhttp_settings_t settings = {
    .on_headers_complete = on_headers_complete,
    .on_message_complete = on_message_complete,
};

/* --- its life -------------------------------------------------------------------------------- */

static int bind_source(int fd, unsigned nth, unsigned sources)
{
    int on = 1;
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK + nth % sources)};
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return bind(fd, (struct sockaddr *)&from, sizeof from);
}

static bool begin_tls(struct lab_client *c, const struct lab_target *t)
{
    SSL *ssl = SSL_new(t->tls);
    char host[256]; /* OpenSSL's macro takes no const */
    if (!ssl)
        return false;
    snprintf(host, sizeof host, "%s", t->host);
    c->ssl = ssl;
    SSL_set_connect_state(ssl);
    return SSL_set_fd(ssl, c->fd) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

int lab_client_open(struct lab_client *c, const struct lab_target *t, unsigned nth)
{
    int on = 1, rc = 0;
    *c = (struct lab_client){.bytes = c->bytes};
    c->fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return -errno;
    c->state = CLIENT_CONNECTING;
    llhttp_init(&c->parser, HTTP_RESPONSE, &settings);
    c->parser.data = c;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if ((t->sources && bind_source(c->fd, nth, t->sources) != 0) ||
        (connect(c->fd, (const struct sockaddr *)&t->address, t->len) != 0 && errno != EINPROGRESS))
        rc = -errno;
    else if (t->tls && !begin_tls(c, t))
        rc = -ENOMEM;
    if (rc < 0)
        lab_client_close(c);
    return rc;
}

void lab_client_close(struct lab_client *c)
{
    if (c->state == CLIENT_CLOSED)
        return;
    SSL_free(c->ssl);
    close(c->fd);
    c->ssl = NULL;
    c->state = CLIENT_CLOSED;
}

void lab_client_ask(struct lab_client *c, struct str request, unsigned count)
{
    c->out = request;
    c->expected = count;
    c->refused = 0;
}

/* --- steps ----------------------------------------------------------------------------------- */

/* Bytes moved, 0 at the end of what the server sends, or a negative errno, -EAGAIN among them.
 * OpenSSL's queue of errors is the thread's: it is cleared before each call, or one connection's error
 * would be found by the next. */
static ssize_t tls_result(struct lab_client *c, int n)
{
    if (n > 0)
        return n;
    switch (SSL_get_error(c->ssl, n)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        return -EPROTO;
    }
}

static ssize_t receive(struct lab_client *c, char *piece)
{
    if (c->ssl) {
        ERR_clear_error();
        return tls_result(c, SSL_read(c->ssl, piece, PIECE));
    }
    ssize_t n = recv(c->fd, piece, PIECE, 0);
    return n < 0 ? -errno : n;
}

static ssize_t transmit(struct lab_client *c)
{
    if (c->ssl) {
        ERR_clear_error();
        return tls_result(c, SSL_write(c->ssl, c->out.at, (int)c->out.len));
    }
    ssize_t n = send(c->fd, c->out.at, c->out.len, MSG_NOSIGNAL);
    return n < 0 ? -errno : n;
}

/* Returns 0 when it is ready, else a negative errno. */
static int connect_on(struct lab_client *c)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    int error = 0;
    if (c->state == CLIENT_CONNECTING) {
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            return -error;
        if (getpeername(c->fd, (struct sockaddr *)&peer, &len) != 0)
            return -EAGAIN;
        c->state = c->ssl ? CLIENT_SHAKING : CLIENT_READY;
    }
    if (c->state == CLIENT_SHAKING) {
        ERR_clear_error();
        ssize_t rc = tls_result(c, SSL_do_handshake(c->ssl));
        if (rc <= 0)
            return rc < 0 ? (int)rc : -EPROTO;
        c->state = CLIENT_READY;
    }
    return 0;
}

static int send_on(struct lab_client *c)
{
    while (c->out.len) {
        ssize_t n = transmit(c);
        if (n <= 0)
            return n < 0 ? (int)n : -EPROTO;
        c->out.at += n;
        c->out.len -= (size_t)n;
    }
    return 0;
}

/* Returns 0 when all is answered, 1 at the end of the connection, or a negative errno: -EINPROGRESS when
 * there may be more to read. */
static int read_on(struct lab_client *c)
{
    static char piece[PIECE];
    for (unsigned i = 0; c->expected; i++) {
        if (i == PIECES)
            return -EINPROGRESS;
        ssize_t n = receive(c, piece);
        if (n < 0)
            return (int)n;
        if (n == 0) { /* some answers end so */
            if (llhttp_finish(&c->parser) != HPE_OK || c->expected)
                return 1;
            c->stays = false;
            return 0;
        }
        c->bytes += (uint64_t)n;
        if (llhttp_execute(&c->parser, piece, (size_t)n) != HPE_OK)
            return -EPROTO;
    }
    return 0;
}

static enum lab_outcome fail(struct lab_client *c, enum lab_outcome outcome)
{
    lab_client_close(c);
    return outcome;
}

static ssize_t peek(struct lab_client *c)
{
    char byte;
    if (c->ssl) { /* which takes session tickets, that come when they like */
        ERR_clear_error();
        return tls_result(c, SSL_peek(c->ssl, &byte, 1));
    }
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK);
    return n < 0 ? -errno : n;
}

/* Nothing is asked for: has the server ended it, or said what nobody wanted to know? */
static enum lab_outcome look_at_idle(struct lab_client *c)
{
    return peek(c) == -EAGAIN ? CLIENT_WAITS : fail(c, CLIENT_ENDED);
}

enum lab_outcome lab_client_step(struct lab_client *c)
{
    int rc = connect_on(c);
    if (rc < 0)
        return rc == -EAGAIN ? CLIENT_WAITS : fail(c, CLIENT_NO_CONNECTION);
    if (!c->expected)
        return look_at_idle(c);
    int sent = send_on(c);
    rc = read_on(c);
    if (rc == 0) {
        if (!c->stays)
            lab_client_close(c);
        return CLIENT_ANSWERED;
    }
    if (sent < 0 && sent != -EAGAIN)
        return fail(c, CLIENT_WRITE_FAILED);
    if (rc == -EINPROGRESS)
        return CLIENT_GOES_ON;
    return rc == -EAGAIN ? CLIENT_WAITS : fail(c, CLIENT_READ_FAILED);
}
