/* SPDX-License-Identifier: MIT */
/* What a peer can send to a TLS listener: raw records from the first byte, or a right handshake by
 * OpenSSL's own client and then requests, with the records cut, and one of them spoilt. The rig
 * checks every step of the connection.
 *
 *   byte 0  1: raw records, no client; 2: TLS 1.2; 4: a byte of the records is changed;
 *           8: the client asks for new keys now and then; 16: it ends with close_notify
 *   byte 1  bytes a call at most in 4 bytes, 0 any
 *   byte 2  room towards the peer in 64 bytes, 0 any
 *   byte 3  seed of the cuts; then what is sent
 */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#define RIG_FAIL(...)   (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), abort())
#define RIG_MOST_PIECES 20000
#include "tests/unit/test_net_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RAW = 1, OLD = 2, SPOIL = 4, REKEY = 8, GOODBYE = 16 };

static struct tls_context *context;
static SSL_CTX *client_ctx;

static struct tls_context *make_context(void)
{
    char certificate[] = "/tmp/modus-fuzz-XXXXXX", key[] = "/tmp/modus-fuzz-XXXXXX", why[200];
    struct tls_certificate one = {certificate, key, 0x0303};
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_set_version(x, 2);
    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, pair);
    X509_sign(x, pair, EVP_sha256());
    FILE *f = fdopen(mkstemp(certificate), "w");
    PEM_write_X509(f, x);
    fclose(f);
    f = fdopen(mkstemp(key), "w");
    PEM_write_PrivateKey(f, pair, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    X509_free(x);
    EVP_PKEY_free(pair);
    size_t bad;
    struct tls_context *made = tls_context_new(&one, 1, NULL, &bad, why, sizeof why);
    unlink(certificate);
    unlink(key);
    RIG_CHECK(made != NULL);
    return made;
}

static uint32_t seed;

static uint32_t dice(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

static void raw(const uint8_t *at, size_t left)
{
    while (left) {
        size_t n = 1 + dice(dice(3) ? 60 : 3000);
        n = n < left ? n : left;
        memory_pipe_feed(rig.pipe, at, n);
        if (rig.open)
            rig_run();
        rig_take(dice(4000));
        at += n;
        left -= n;
    }
}

/* Move some bytes each way. Returns whether any moved. */
static bool pump(SSL *client, unsigned *spoil)
{
    char *bytes, heard[4096];
    BIO *from = SSL_get_wbio(client);
    size_t up = (size_t)BIO_get_mem_data(from, &bytes), before = rig.got_len;
    if (up) {
        char *copy = malloc(up);
        memcpy(copy, bytes, up);
        if (*spoil && --*spoil == 0)
            copy[dice((uint32_t)up)] ^= (char)(1 << dice(8));
        memory_pipe_feed(rig.pipe, copy, up);
        free(copy);
        BIO_reset(from);
    }
    if (rig.open)
        rig_run();
    rig_take(1 + dice(6000));
    size_t down = rig.got_len - before;
    if (down)
        BIO_write(SSL_get_rbio(client), rig.got + before, (int)down);
    rig_forget();
    ERR_clear_error();
    while (SSL_read(client, heard, sizeof heard) > 0)
        ;
    ERR_clear_error();
    return up || down;
}

static void talk(const uint8_t *at, size_t left, unsigned flags)
{
    SSL *client = SSL_new(client_ctx);
    unsigned spoil = flags & SPOIL ? 1 + dice(8) : 0;
    if (flags & OLD)
        SSL_set_max_proto_version(client, TLS1_2_VERSION);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(in, -1);
    SSL_set_bio(client, in, out);
    SSL_set_connect_state(client);
    SSL_do_handshake(client);
    while (pump(client, &spoil))
        ;
    while (left && rig.open && SSL_is_init_finished(client)) {
        size_t n = 1 + dice(dice(3) ? 60 : 5000);
        n = n < left ? n : left;
        ERR_clear_error();
        if (SSL_write(client, at, (int)n) <= 0)
            break;
        at += n;
        left -= n;
        if ((flags & REKEY) && !(flags & OLD) && dice(4) == 0)
            SSL_key_update(client,
                           dice(2) ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
        if (dice(3))
            pump(client, &spoil);
    }
    if (flags & GOODBYE)
        SSL_shutdown(client);
    for (int i = 0; i < 10000 && pump(client, &spoil); i++)
        ;
    ERR_clear_error();
    SSL_free(client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4 || size > 50000)
        return 0;
    if (!context) {
        context = make_context();
        client_ctx = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_session_cache_mode(client_ctx, SSL_SESS_CACHE_OFF);
    }
    seed = data[3];
    rig_start();
    rig_routes();
    rig.service.tls = context;
    rig_connect();
    rig.unread = true;
    memory_pipe_limit(rig.pipe, data[1] * 4u, data[2] * 64u);
    if (data[0] & RAW)
        raw(data + 4, size - 4);
    else
        talk(data + 4, size - 4, data[0]);
    rig_end();
    return 0;
}
