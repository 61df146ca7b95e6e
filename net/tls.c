/* SPDX-License-Identifier: MIT */
/* The transport of a TLS connection, on OpenSSL 3.0. See net/tls_priv.h for the other parts of TLS.
 *
 * One code path: TLS always lies over another transport (a plain socket, or memory in tests)
 * through a BIO of ours. Against OpenSSL's own socket BIO that costs nothing measurable, sends with
 * MSG_NOSIGNAL, and can tell whether the socket was emptied.
 *
 * Threading: a transport belongs to one thread at a time. Invariants: OpenSSL's error queue of a
 * thread is empty between calls; after TRANSPORT_GONE no call reaches OpenSSL again but SSL_free.
 */
#include "net/tls_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

enum {
    RECORD_BYTES = SSL3_RT_MAX_PLAIN_LENGTH, /* plaintext in one record: 16 KiB, or less */
    SILENT_RECORDS = 32,                     /* in a row that bring no data; more are an attack */
};

struct tls {
    SSL *ssl;
    struct transport under;
    struct tls_context *context; /* a reference */
    size_t record_bytes;         /* of plaintext in one record at most; the client may want less */
    size_t refused;              /* length of the record that a WANT left with OpenSSL; 0 none */
    unsigned long failure;       /* OpenSSL's code of what made it gone; 0 none or not OpenSSL's */
    struct tls_rest rest;        /* what came in the place of a handshake */
    char first[8];               /* the first bytes, while they may be HTTP in the clear */
    size_t first_len;
    bool guessing; /* OpenSSL has seen nothing yet */
    bool gone;
    bool more;        /* further bytes follow the record that is being written */
    bool asked;       /* the last read() read below; OpenSSL may have had a record left */
    bool emptied;     /* and that brought less than there was room for */
    bool starved;     /* the last read() brought nothing; more needs the socket first */
    bool said;        /* close_notify is out */
    unsigned records; /* come since the last data */
};

/* Records are joined here, and file parts read. One a thread, because a coroutine's stack is too
 * small for it and a connection has none to spare; nothing in it outlives a call. */
static _Thread_local unsigned char scratch[RECORD_BYTES];

/* Bytes between OpenSSL and the transport below; a WANT becomes a retry flag. These are the old
 * kind of callback, because the new kind can't tell a refusal (-1) from an end (0), and
 * SSL_shutdown then takes a refused close_notify for a sent one. */
static int bio_result(BIO *bio, ssize_t n)
{
    BIO_clear_retry_flags(bio);
    if (n == TRANSPORT_WANT_READ)
        BIO_set_retry_read(bio);
    else if (n == TRANSPORT_WANT_WRITE)
        BIO_set_retry_write(bio);
    return n >= 0 ? (int)n : -1;
}

/* What do the first bytes of a connection look like? None of these could begin TLS. */
enum guess { GUESS_OPEN, GUESS_HTTP, GUESS_OTHER };

static enum guess guess(const char *bytes, size_t len)
{
    static const char methods[][sizeof((struct tls *)0)->first + 1] = {
        "GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "CONNECT ", "OPTIONS ", "TRACE ", "PATCH "};
    enum guess best = GUESS_OTHER;
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        size_t size = strlen(methods[i]);
        if (memcmp(bytes, methods[i], len < size ? len : size) == 0)
            best = len < size ? GUESS_OPEN : GUESS_HTTP;
    }
    return best;
}

/* Until it is clear that this is no HTTP in the clear, OpenSSL sees nothing: it would answer some
 * methods with an alert, and keep what it read. Whatever it is, the bytes are not lost. A short read
 * is no refusal: the peer's end may have come in the same wake-up. */
static int bio_first_read(BIO *bio, struct tls *s, char *bytes, int len)
{
    size_t have = s->first_len;
    enum guess what;
    memcpy(bytes, s->first, have);
    do {
        size_t room = (size_t)len - have;
        ssize_t n = s->under.ops->read(&s->under, bytes + have, room);
        s->asked = true;
        s->emptied = n < (ssize_t)room;
        if (n <= 0)
            return bio_result(bio, n);
        have += (size_t)n;
        what = guess(bytes, have);
        if (what == GUESS_OPEN) {
            memcpy(s->first, bytes, have);
            s->first_len = have;
        }
    } while (what == GUESS_OPEN);
    if (what == GUESS_OTHER) {
        s->guessing = false;
        return (int)have;
    }
    s->rest.at = malloc(have);
    if (s->rest.at != NULL)
        memcpy(s->rest.at, bytes, have);
    s->rest.len = have;
    return bio_result(bio, TRANSPORT_GONE);
}

static int bio_read(BIO *bio, char *bytes, int len)
{
    struct tls *s = BIO_get_data(bio);
    if (s->gone)
        return bio_result(bio, TRANSPORT_GONE);
    if (s->guessing && len > (int)sizeof s->first)
        return bio_first_read(bio, s, bytes, len);
    ssize_t n = s->under.ops->read(&s->under, bytes, (size_t)len);
    s->asked = true;
    s->emptied = n < len;
    return bio_result(bio, n);
}

static int bio_write(BIO *bio, const char *bytes, int len)
{
    struct tls *s = BIO_get_data(bio);
    if (s->gone)
        return bio_result(bio, TRANSPORT_GONE);
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = (size_t)len};
    return bio_result(bio, s->under.ops->write(&s->under, &part, 1, s->more));
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH; /* nothing is ever held back here */
}

BIO_METHOD *tls_bio_method_new(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "modus transport");
    if (method != NULL &&
        (BIO_meth_set_read(method, bio_read) != 1 || BIO_meth_set_write(method, bio_write) != 1 ||
         BIO_meth_set_ctrl(method, bio_control) != 1)) {
        BIO_meth_free(method);
        method = NULL;
    }
    return method;
}

/* OpenSSL goes on reading as long as what comes is no data, and each KeyUpdate costs it new keys,
 * each attempt to renegotiate an alert: with a flood of them it would not come back. */
void tls_on_message(int is_ours, int version, int type, const void *bytes, size_t len, SSL *ssl,
                    void *arg)
{
    (void)version, (void)bytes, (void)len, (void)arg;
    if (is_ours || type != SSL3_RT_HEADER || !SSL_is_init_finished(ssl))
        return;
    struct tls *s = BIO_get_data(SSL_get_rbio(ssl));
    if (++s->records > SILENT_RECORDS)
        s->gone = true;
}

/* Before each call, so that what it leaves is its own. Emptying an empty queue is no small thing. */
static void forget_errors(void)
{
    if (ERR_peek_error())
        ERR_clear_error();
}

/* What became of a call that did not succeed: a WANT, GONE, or at_end, which says what the peer's
 * close_notify means here: 0 to a read, GONE to everything else. */
static int tls_code(struct tls *s, int result, int at_end)
{
    switch (SSL_get_error(s->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return TRANSPORT_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return TRANSPORT_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        s->gone = at_end == TRANSPORT_GONE;
        return at_end;
    default: /* an open set; whatever else there is, we can't go on */
        s->gone = true;
        s->failure = ERR_peek_error();
        ERR_clear_error();
        return TRANSPORT_GONE;
    }
}

/* RFC 6066, 4: a client with little memory asks for records of 512 bytes to 4 KiB. OpenSSL would cut
 * what it is given into such records itself, and of a write that is refused only the first would be
 * encrypted already. */
static size_t record_bytes(const SSL *ssl)
{
    int mode = SSL_SESSION_get_max_fragment_length(SSL_get0_session(ssl));
    return mode == TLSEXT_max_fragment_length_DISABLED ? RECORD_BYTES : (size_t)256 << mode;
}

static int tls_handshake(struct transport *t)
{
    struct tls *s = t->priv;
    if (s->gone)
        return TRANSPORT_GONE;
    forget_errors();
    int result = SSL_do_handshake(s->ssl);
    int code = result == 1 ? 0 : tls_code(s, result, TRANSPORT_GONE);
    if (code == 0)
        s->record_bytes = record_bytes(s->ssl);
    if (s->rest.at == NULL)
        return code;
    s->failure = ERR_PACK(ERR_LIB_SSL, 0, SSL_R_HTTP_REQUEST);
    return TRANSPORT_PLAIN_HTTP;
}

/* One record at most; what lies decrypted or undecrypted behind it is pending. */
static ssize_t tls_read(struct transport *t, void *bytes, size_t len)
{
    struct tls *s = t->priv;
    size_t n;
    assert(len > 0); /* else 0 would look like the end */
    if (s->gone)
        return TRANSPORT_GONE;
    ssize_t code;
    int tries = 2; /* once it has said what a KeyUpdate wanted, OpenSSL asks to be asked again */
    do {
        s->asked = s->emptied = false;
        forget_errors();
        int result = SSL_read_ex(s->ssl, bytes, len, &n);
        code = result == 1 ? (ssize_t)n : tls_code(s, result, 0);
    } while (code == TRANSPORT_WANT_READ && !s->asked && --tries);
    if (s->gone && s->records > SILENT_RECORDS) {
        s->failure = ERR_PACK(ERR_LIB_SSL, 0, SSL_R_UNEXPECTED_MESSAGE);
        return TRANSPORT_GONE;
    }
    if (code > 0)
        s->records = 0;
    s->starved = code <= 0;
    return code;
}

/* Write one record of len bytes. Returns len or less, a WANT or GONE. */
static ssize_t write_record(struct tls *s, const void *bytes, size_t len, bool more)
{
    size_t n = 0;
    forget_errors();
    s->more = more;
    int result = SSL_write_ex(s->ssl, bytes, len, &n);
    s->more = false;
    s->refused = result == 1 ? 0 : len;
    return result == 1 ? (ssize_t)n : tls_code(s, result, TRANSPORT_GONE);
}

/* A place in an array of iovecs, and how much lies behind it. */
struct cursor {
    const struct iovec *iov;
    size_t at;
    size_t left;
};

static struct cursor cursor_of(const struct iovec *iov, int count)
{
    struct cursor c = {.iov = iov};
    for (int i = 0; i < count; i++)
        c.left += iov[i].iov_len;
    return c;
}

static void cursor_advance(struct cursor *c, size_t n)
{
    c->left -= n;
    while (n > 0) {
        size_t here = c->iov->iov_len - c->at;
        size_t step = n < here ? n : here;
        c->at += step;
        n -= step;
        if (c->at == c->iov->iov_len) {
            c->iov++;
            c->at = 0;
        }
    }
}

/* The next len bytes in one piece: where they are if they lie together, else joined in scratch. */
static const void *cursor_bytes(const struct cursor *c, size_t len)
{
    struct cursor from = *c;
    size_t have = 0;
    while (from.at == from.iov->iov_len) {
        from.iov++;
        from.at = 0;
    }
    if (from.iov->iov_len - from.at >= len)
        return (const char *)from.iov->iov_base + from.at;
    while (have < len) {
        size_t here = from.iov->iov_len - from.at;
        size_t n = here < len - have ? here : len - have;
        if (n > 0) /* an empty part may be NULL */
            memcpy(scratch + have, (const char *)from.iov->iov_base + from.at, n);
        have += n;
        from.iov++;
        from.at = 0;
    }
    return scratch;
}

/* How long the next record must be: as long as the one that was refused, because OpenSSL has it
 * encrypted already; else as long as can be. 0: the caller did not offer again what was refused. */
static size_t record_length(const struct tls *s, size_t left)
{
    size_t len = left < s->record_bytes ? left : s->record_bytes;
    if (s->refused > 0)
        len = s->refused <= left ? s->refused : 0;
    return len;
}

static int broken_promise(struct tls *s)
{
    s->gone = true;
    return TRANSPORT_GONE;
}

static ssize_t tls_write(struct transport *t, const struct iovec *iov, int count, bool more)
{
    struct tls *s = t->priv;
    struct cursor c = cursor_of(iov, count);
    ssize_t done = 0;
    if (s->gone)
        return TRANSPORT_GONE;
    while (c.left > 0) {
        size_t len = record_length(s, c.left);
        if (len == 0)
            return broken_promise(s);
        ssize_t n = write_record(s, cursor_bytes(&c, len), len, more || c.left > len);
        if (n < 0)
            return done > 0 ? done : n;
        cursor_advance(&c, (size_t)n);
        done += n;
    }
    return done;
}

/* The file's next bytes for a record of len. Returns how many, 0 at its end, or GONE. */
static ssize_t read_part(struct tls *s, int fd, int64_t offset, size_t len)
{
    ssize_t n;
    if (s->refused > 0)
        return (ssize_t)len; /* encrypted already; the file may have changed since */
    do {
        n = pread(fd, scratch, len, offset);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        s->gone = true; /* so that no close_notify makes a cut body look whole */
    return n < 0 ? TRANSPORT_GONE : n;
}

static ssize_t tls_send_file(struct transport *t, int fd, int64_t offset, size_t len)
{
    struct tls *s = t->priv;
    size_t done = 0;
    if (s->gone)
        return TRANSPORT_GONE;
    while (done < len) {
        size_t want = record_length(s, len - done);
        if (want == 0)
            return broken_promise(s);
        ssize_t n = read_part(s, fd, offset + (int64_t)done, want);
        if (n > 0)
            n = write_record(s, scratch, (size_t)n, len - done > (size_t)n);
        if (n <= 0)
            return done > 0 ? (ssize_t)done : n;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* Undecrypted bytes count, and so does a socket that was not read empty: a short read must mean
 * that nothing more is there. Worth one more read() each; after that starved ends it. */
static bool tls_pending(const struct transport *t)
{
    const struct tls *s = t->priv;
    return !s->gone && !s->starved &&
           (SSL_has_pending(s->ssl) == 1 || !s->emptied || s->under.ops->pending(&s->under));
}

static int say_goodbye(struct tls *s)
{
    forget_errors();
    int result = SSL_shutdown(s->ssl);
    int code = result >= 0 ? 0 : tls_code(s, result, TRANSPORT_GONE);
    s->said = code == 0;
    return code;
}

static int tls_shutdown(struct transport *t, bool closing)
{
    struct tls *s = t->priv;
    if (!s->gone && !s->said && SSL_is_init_finished(s->ssl)) {
        int code = say_goodbye(s);
        if (code != 0 && code != TRANSPORT_GONE)
            return code;
    }
    int below = s->under.ops->shutdown(&s->under, closing);
    return s->gone ? TRANSPORT_GONE : below;
}

/* Both buffers went with the last byte of them (SSL_MODE_RELEASE_BUFFERS). */
static void tls_idle(struct transport *t)
{
    (void)t;
}

/* The flags stop SSL_free from taking the context's lock to forget a session that nobody kept. */
static void tls_free(struct tls *s)
{
    SSL_set_quiet_shutdown(s->ssl, 1);
    SSL_set_shutdown(s->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(s->ssl);
    tls_context_free(s->context);
    free(s->rest.at);
    free(s);
}

static void tls_close(struct transport *t)
{
    struct tls *s = t->priv;
    if (s == NULL)
        return;
    s->under.ops->close(&s->under);
    tls_free(s);
    t->fd = -1;
    t->priv = NULL;
}

static const struct transport_ops tls_ops = {
    .name = "tls",
    .handshake = tls_handshake,
    .read = tls_read,
    .write = tls_write,
    .send_file = tls_send_file,
    .pending = tls_pending,
    .shutdown = tls_shutdown,
    .idle = tls_idle,
    .close = tls_close,
};

int tls_accept_over(struct transport *t, struct tls_context *context, struct transport under)
{
    forget_errors();
    struct tls *s = calloc(1, sizeof(*s));
    SSL *ssl = SSL_new(context->sets[0].ssl_ctx);
    BIO *bio = BIO_new(context->bio_method);
    if (s == NULL || ssl == NULL || bio == NULL) {
        forget_errors();
        BIO_free(bio);
        SSL_free(ssl);
        free(s);
        return -1;
    }
    atomic_fetch_add(&context->references, 1);
    *s = (struct tls){.ssl = ssl,
                      .under = under,
                      .context = context,
                      .emptied = true,
                      .guessing = !context->any_protocol};
    BIO_set_data(bio, s);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_accept_state(ssl);
    *t = (struct transport){.ops = &tls_ops, .fd = under.fd, .priv = s};
    return 0;
}

int tls_accept(struct transport *t, struct tls_context *context, int fd)
{
    struct transport under;
    transport_plain(&under, fd);
    return tls_accept_over(t, context, under);
}

struct tls_rest tls_unwrap(struct transport *t)
{
    struct tls *s = t->priv;
    struct tls_rest rest = s->rest;
    *t = s->under;
    s->rest.at = NULL;
    tls_free(s);
    return rest;
}

/* --- what a log may want to know ----------------------------------------------------------- */

static const struct tls *tls_of(const struct transport *t)
{
    return t->ops == &tls_ops ? t->priv : NULL;
}

bool tls_resumed(const struct transport *t)
{
    const struct tls *s = tls_of(t);
    return s != NULL && SSL_session_reused(s->ssl) == 1;
}

const char *tls_server_name(const struct transport *t)
{
    const struct tls *s = tls_of(t);
    return s != NULL ? SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name) : NULL;
}

const char *tls_version(const struct transport *t)
{
    const struct tls *s = tls_of(t);
    return s != NULL && SSL_is_init_finished(s->ssl) ? SSL_get_version(s->ssl) : NULL;
}

const char *tls_cipher(const struct transport *t)
{
    const struct tls *s = tls_of(t);
    return s != NULL && SSL_is_init_finished(s->ssl) ? SSL_get_cipher_name(s->ssl) : NULL;
}

const char *tls_failure(const struct transport *t)
{
    const struct tls *s = tls_of(t);
    return s != NULL && s->failure != 0 ? ERR_reason_error_string(s->failure) : NULL;
}
