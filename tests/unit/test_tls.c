/* SPDX-License-Identifier: MIT */
/* The TLS transport against OpenSSL's own client, over memory pipes cut in every way and over
 * sockets. Certificates are made here, in a folder that the last test removes.
 *
 * OpenSSL's memory goes through counting functions, so that allocations can be made to fail and an
 * idle connection can be weighed. SIGPIPE keeps its default: a send without MSG_NOSIGNAL ends the
 * program.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "net/memory.h"
#include "net/tls.h"

/* --- OpenSSL's memory ---------------------------------------------------------------------- */

static _Atomic int64_t heap_bytes;
static _Atomic int64_t heap_fail_at = INT64_MAX; /* how many allocations still succeed */

static bool heap_fails(void)
{
    return atomic_load(&heap_fail_at) != INT64_MAX && atomic_fetch_sub(&heap_fail_at, 1) <= 0;
}

static void *heap_alloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    void *at = heap_fails() ? NULL : malloc(size);
    atomic_fetch_add(&heap_bytes, (int64_t)malloc_usable_size(at));
    return at;
}

static void heap_free(void *at, const char *file, int line)
{
    (void)file, (void)line;
    atomic_fetch_sub(&heap_bytes, (int64_t)malloc_usable_size(at));
    free(at);
}

static void *heap_realloc(void *at, size_t size, const char *file, int line)
{
    if (size == 0) {
        heap_free(at, file, line);
        return NULL;
    }
    if (heap_fails())
        return NULL;
    int64_t before = (int64_t)malloc_usable_size(at);
    void *now = realloc(at, size);
    atomic_fetch_add(&heap_bytes, (int64_t)malloc_usable_size(now) - before);
    return now;
}

/* --- certificates -------------------------------------------------------------------------- */

static char folder[64];
static EVP_PKEY *rsa_key, *ec_key, *ed_key;

static const char *path_of(const char *name)
{
    static _Thread_local char paths[8][128];
    static _Thread_local unsigned turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static FILE *create(const char *name)
{
    FILE *file = fopen(path_of(name), "we");
    assert_non_null(file);
    return file;
}

static void write_text(const char *name, const char *text)
{
    FILE *file = create(name);
    fputs(text, file);
    fclose(file);
}

static void add_extension(X509 *x, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, x, x, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    X509_add_ext(x, extension, -1);
    X509_EXTENSION_free(extension);
}

static X509 *make_x509(EVP_PKEY *key, const char *cn, const char *alt, long from, long to)
{
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), from);
    X509_gmtime_adj(X509_getm_notAfter(x), to);
    X509_set_pubkey(x, key);
    X509_NAME *name = X509_get_subject_name(x);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0);
    X509_set_issuer_name(x, name);
    if (alt != NULL)
        add_extension(x, NID_subject_alt_name, alt);
    assert_true(X509_sign(x, key, key == ed_key ? NULL : EVP_sha256()) > 0);
    return x;
}

/* NAME.crt and NAME.key. cn tells the certificates apart on the client's side. */
static void make_certificate(const char *name, EVP_PKEY *key, const char *cn, const char *alt)
{
    char file_name[64];
    X509 *x = make_x509(key, cn, alt, -3600, 86400);
    snprintf(file_name, sizeof(file_name), "%s.crt", name);
    FILE *file = create(file_name);
    PEM_write_X509(file, x);
    fclose(file);
    snprintf(file_name, sizeof(file_name), "%s.key", name);
    file = create(file_name);
    PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
    X509_free(x);
}

static int setup(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%s/modus-tls-XXXXXX",
             base != NULL && strlen(base) < 30 ? base : "/tmp");
    if (mkdtemp(folder) == NULL)
        return -1;
    rsa_key = EVP_RSA_gen(2048);
    ec_key = EVP_EC_gen("P-256");
    ed_key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    make_certificate("default", ec_key, "default", "DNS:default.test,DNS:www.default.test");
    make_certificate("both-ec", ec_key, "both-ec", "DNS:both.test,DNS:only-ec.test");
    make_certificate("both-rsa", rsa_key, "both-rsa", "DNS:both.test,IP:127.0.0.1");
    make_certificate("wild", ec_key, "wild", "DNS:*.wild.test,DNS:UPPER.test");
    make_certificate("exact", ec_key, "exact", "DNS:exact.wild.test");
    make_certificate("common", ec_key, "common.test", NULL);
    make_certificate("shadowed", ec_key, "shadowed.test", "DNS:other.test");
    make_certificate("ip", ec_key, "ip.test", "IP:127.0.0.1");
    make_certificate("ed", ed_key, "ed", "DNS:ed.test");
    return rsa_key != NULL && ec_key != NULL && ed_key != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    EVP_PKEY_free(rsa_key);
    EVP_PKEY_free(ec_key);
    EVP_PKEY_free(ed_key);
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static struct tls_certificate certificate(const char *name, int min_version)
{
    static char paths[32][2][128];
    static unsigned turn;
    char(*p)[128] = paths[turn++ % 32];
    snprintf(p[0], sizeof(p[0]), "%s/%s.crt", folder, name);
    snprintf(p[1], sizeof(p[1]), "%s/%s.key", folder, name);
    return (struct tls_certificate){p[0], p[1], min_version};
}

static struct tls_context *context_of(const char *name, void *shared)
{
    struct tls_certificate one = certificate(name, 0x0303);
    size_t bad;
    char why[256];
    struct tls_context *context = tls_context_new(&one, 1, shared, &bad, why, sizeof(why));
    if (context == NULL)
        fail_msg("%s", why);
    return context;
}

static void *shared_block(void)
{
    void *at =
        mmap(NULL, tls_shared_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(at, MAP_FAILED);
    return at;
}

/* --- a client on the other end of the pipe ------------------------------------------------- */

struct pair {
    struct transport t;
    struct memory_pipe *pipe;
    SSL_CTX *client_ctx;
    SSL *client;
    BIO *in, *out;        /* towards the client, from the client */
    size_t cut;           /* bytes moved at a time at most; 0: all */
    unsigned random;      /* seed: cuts vary below cut */
    SSL_SESSION *session; /* the last that the client got */
    int tickets;
};

static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct pair *p = SSL_get_app_data(ssl);
    SSL_SESSION_free(p->session);
    p->session = session;
    p->tickets++;
    return 1;
}

static bool pair_open(struct pair *p, struct tls_context *context)
{
    struct transport under;
    memset(p, 0, sizeof(*p));
    p->pipe = memory_pipe_new(&under);
    if (p->pipe == NULL || tls_accept_over(&p->t, context, under) != 0)
        return false;
    p->client_ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_session_cache_mode(p->client_ctx,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(p->client_ctx, on_session);
    p->client = SSL_new(p->client_ctx);
    p->in = BIO_new(BIO_s_mem());
    p->out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(p->in, -1);
    SSL_set_bio(p->client, p->in, p->out);
    SSL_set_connect_state(p->client);
    SSL_set_app_data(p->client, p);
    return true;
}

static void pair_new(struct pair *p, struct tls_context *context)
{
    assert_true(pair_open(p, context));
    assert_string_equal(p->t.ops->name, "tls");
}

/* OpenSSL's macros cast const away. */
static void ask_name(SSL *client, const char *name)
{
    SSL_ctrl(client, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
             (void *)(uintptr_t)name);
}

static long only_sigalgs(SSL *client, const char *list)
{
    return SSL_ctrl(client, SSL_CTRL_SET_SIGALGS_LIST, 0, (void *)(uintptr_t)list);
}

/* Without the client's farewell, so that what the server said stays to be looked at. */
static void pair_free(struct pair *p)
{
    if (p->t.ops != NULL)
        p->t.ops->close(&p->t);
    memory_pipe_free(p->pipe);
    SSL_set_shutdown(p->client, SSL_SENT_SHUTDOWN); /* else OpenSSL spoils its session */
    SSL_free(p->client);
    SSL_CTX_free(p->client_ctx);
    SSL_SESSION_free(p->session);
}

static size_t pair_cut(struct pair *p, size_t have)
{
    size_t cut = p->cut;
    if (p->random != 0 && cut > 0)
        cut = 1 + (size_t)rand_r(&p->random) % cut;
    return cut > 0 && cut < have ? cut : have;
}

/* Move some bytes each way. Returns whether any moved. */
static bool pair_pump(struct pair *p)
{
    char *from;
    size_t sent;
    size_t have = (size_t)BIO_get_mem_data(p->out, &from);
    size_t up = pair_cut(p, have);
    if (up > 0) {
        char block[4096];
        up = up < sizeof(block) ? up : sizeof(block);
        BIO_read(p->out, block, (int)up);
        memory_pipe_feed(p->pipe, block, up);
    }
    const char *bytes = memory_pipe_sent(p->pipe, &sent);
    size_t down = pair_cut(p, sent);
    if (down > 0) {
        BIO_write(p->in, bytes, (int)down);
        memory_pipe_take(p->pipe, down);
    }
    return up > 0 || down > 0;
}

/* Returns the server's last word: 0, or GONE, or a WANT when nothing moves any more. */
static int pair_handshake(struct pair *p)
{
    int client = -1, server = TRANSPORT_WANT_READ;
    bool moved = true;
    while (moved) {
        ERR_clear_error();
        if (client != 1)
            client = SSL_do_handshake(p->client);
        if (server != 0 && server != TRANSPORT_GONE)
            server = p->t.ops->handshake(&p->t);
        if (client == 1 && server == 0)
            break;
        moved = pair_pump(p);
    }
    return server == 0 && client != 1 ? TRANSPORT_WANT_WRITE : server;
}

static void pair_connect(struct pair *p, struct tls_context *context)
{
    pair_new(p, context);
    assert_int_equal(pair_handshake(p), 0);
}

/* What the client reads now. Tickets come with it. */
static int pair_client_read(struct pair *p, void *bytes, int len)
{
    int n;
    do {
        ERR_clear_error();
        n = SSL_read(p->client, bytes, len);
    } while (n <= 0 && pair_pump(p));
    return n;
}

static void pair_tickets(struct pair *p)
{
    char byte;
    assert_true(pair_client_read(p, &byte, 1) <= 0);
}

static ssize_t t_write(struct transport *t, const void *bytes, size_t len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
    return t->ops->write(t, &iov, 1, false);
}

/* The server answers what the client says, once. */
static void assert_talks(struct pair *p)
{
    char bytes[16];
    assert_int_equal(SSL_write(p->client, "question", 8), 8);
    while (pair_pump(p))
        continue;
    assert_int_equal(p->t.ops->read(&p->t, bytes, sizeof(bytes)), 8);
    assert_memory_equal(bytes, "question", 8);
    assert_int_equal(t_write(&p->t, "answer", 6), 6);
    assert_int_equal(pair_client_read(p, bytes, sizeof(bytes)), 6);
    assert_memory_equal(bytes, "answer", 6);
}

/* The common name of the certificate that the client was shown. */
static void assert_served(struct pair *p, const char *cn)
{
    char text[64] = "";
    X509 *x = SSL_get0_peer_certificate(p->client);
    assert_non_null(x);
    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, text, sizeof(text));
    assert_string_equal(text, cn);
}

/* The reason in the client's error queue. */
static int client_reason(void)
{
    return ERR_GET_REASON(ERR_peek_last_error());
}

/* --- handshakes ---------------------------------------------------------------------------- */

static void handshake_cut(int version, size_t cut, unsigned seed)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    pair_new(&p, context);
    p.cut = cut;
    p.random = seed;
    if (seed == 0 && cut > 0)
        memory_pipe_limit(p.pipe, cut, 0);
    SSL_set_max_proto_version(p.client, version);
    assert_null(tls_version(&p.t));
    assert_int_equal(pair_handshake(&p), 0);
    assert_string_equal(tls_version(&p.t), version == TLS1_3_VERSION ? "TLSv1.3" : "TLSv1.2");
    assert_string_equal(tls_cipher(&p.t), version == TLS1_3_VERSION
                                              ? "TLS_AES_128_GCM_SHA256"
                                              : "ECDHE-ECDSA-AES128-GCM-SHA256");
    assert_false(tls_resumed(&p.t));
    assert_null(tls_failure(&p.t));
    memory_pipe_limit(p.pipe, 0, 0);
    assert_talks(&p);
    pair_free(&p);
    tls_context_free(context);
}

static void handshakes(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    (void)state;
    for (int v = 0; v < 2; v++) {
        handshake_cut(versions[v], 0, 0);
        handshake_cut(versions[v], 1, 0);
        handshake_cut(versions[v], 7, 0);
        for (unsigned seed = 1; seed < 12; seed++)
            handshake_cut(versions[v], seed * seed * seed, seed);
    }
}

/* A peer whose window has room for a few bytes only: every flight must be resumed. */
static void handshake_through_small_room(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    (void)state;
    pair_new(&p, context);
    memory_pipe_limit(p.pipe, 0, 11);
    assert_int_equal(pair_handshake(&p), 0);
    memory_pipe_limit(p.pipe, 0, 0);
    assert_talks(&p);
    pair_free(&p);
    tls_context_free(context);
}

static void old_versions_are_refused(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    (void)state;
    pair_new(&p, context);
    SSL_set_security_level(p.client, 0);
    SSL_set_cipher_list(p.client, "ALL:@SECLEVEL=0");
    SSL_set_min_proto_version(p.client, TLS1_VERSION);
    SSL_set_max_proto_version(p.client, TLS1_1_VERSION);
    assert_int_equal(pair_handshake(&p), TRANSPORT_GONE);
    assert_int_equal(client_reason(), SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
    assert_string_equal(tls_failure(&p.t), "unsupported protocol");
    pair_free(&p);
    tls_context_free(context);
}

/* The minimum is a certificate's own: one name may ask for 1.3 beside another that doesn't. */
static void min_version_is_per_name(void **state)
{
    struct tls_certificate list[] = {certificate("default", 0x0303), certificate("ed", 0x0304)};
    size_t bad;
    char why[256];
    struct tls_context *context = tls_context_new(list, 2, NULL, &bad, why, sizeof(why));
    static const struct {
        const char *name;
        int version, expected;
    } cases[] = {{"default.test", TLS1_2_VERSION, 0},
                 {"default.test", TLS1_3_VERSION, 0},
                 {"ed.test", TLS1_2_VERSION, TRANSPORT_GONE},
                 {"ed.test", TLS1_3_VERSION, 0}};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct pair p;
        pair_new(&p, context);
        ask_name(p.client, cases[i].name);
        SSL_set_max_proto_version(p.client, cases[i].version);
        assert_int_equal(pair_handshake(&p), cases[i].expected);
        if (cases[i].expected != 0)
            assert_int_equal(client_reason(), SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
        pair_free(&p);
    }
    tls_context_free(context);
}

static void ciphers_are_ours_but_chacha_is_the_clients(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    static const struct {
        int version;
        const char *offer, *chosen;
    } cases[] = {
        {TLS1_3_VERSION,
         "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256",
         "TLS_AES_128_GCM_SHA256"},
        {TLS1_3_VERSION, "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256",
         "TLS_CHACHA20_POLY1305_SHA256"},
        {TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256",
         "ECDHE-ECDSA-AES128-GCM-SHA256"},
        {TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256",
         "ECDHE-ECDSA-CHACHA20-POLY1305"},
        {TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA256:DHE-RSA-AES128-GCM-SHA256:AES128-GCM-SHA256",
         NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pair p;
        pair_new(&p, context);
        SSL_set_max_proto_version(p.client, cases[i].version);
        if (cases[i].version == TLS1_3_VERSION)
            SSL_set_ciphersuites(p.client, cases[i].offer);
        else
            SSL_set_cipher_list(p.client, cases[i].offer);
        assert_int_equal(pair_handshake(&p), cases[i].chosen != NULL ? 0 : TRANSPORT_GONE);
        if (cases[i].chosen != NULL)
            assert_string_equal(tls_cipher(&p.t), cases[i].chosen);
        pair_free(&p);
    }
    tls_context_free(context);
}

static void garbage_is_gone(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    unsigned char bytes[600];
    (void)state;
    srand(3);
    for (int round = 0; round < 300; round++) {
        struct pair p;
        size_t len = 1 + (size_t)rand() % sizeof(bytes);
        pair_new(&p, context);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (unsigned char)rand();
        memory_pipe_feed(p.pipe, bytes, len);
        memory_pipe_end(p.pipe);
        assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_GONE);
        assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_GONE);
        assert_int_equal(p.t.ops->read(&p.t, bytes, 1), TRANSPORT_GONE);
        assert_int_equal(t_write(&p.t, "x", 1), TRANSPORT_GONE);
        assert_int_equal(p.t.ops->shutdown(&p.t, false), TRANSPORT_GONE);
        assert_false(p.t.ops->pending(&p.t));
        assert_int_equal(ERR_peek_error(), 0);
        pair_free(&p);
    }
    tls_context_free(context);
}

/* A true ClientHello with bytes changed, cut off at any place. */
static void damaged_hello(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    (void)state;
    srand(4);
    for (int round = 0; round < 400; round++) {
        struct pair p;
        char *hello;
        pair_new(&p, context);
        ask_name(p.client, "www.default.test");
        SSL_do_handshake(p.client);
        size_t len = (size_t)BIO_get_mem_data(p.out, &hello);
        for (int k = rand() % 4; k >= 0; k--)
            hello[(size_t)rand() % len] = (char)rand();
        if (rand() % 2)
            len = (size_t)rand() % len;
        memory_pipe_feed(p.pipe, hello, len);
        memory_pipe_end(p.pipe);
        assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_GONE);
        pair_free(&p);
    }
    tls_context_free(context);
}

static void plain_http_is_named(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    (void)state;
    pair_new(&p, context);
    memory_pipe_feed(p.pipe, "GET / HTTP/1.1\r\n\r\n", 18);
    assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_PLAIN_HTTP);
    assert_string_equal(tls_failure(&p.t), "http request");
    assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_GONE);
    pair_free(&p);
    tls_context_any_protocol(context);
    pair_new(&p, context);
    memory_pipe_feed(p.pipe, "GET / HTTP/1.1\r\n\r\n", 18);
    assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_GONE);
    assert_string_equal(tls_failure(&p.t), "http request");
    pair_free(&p);
    tls_context_free(context);
}

/* However the bytes are cut, none is lost, and what lies below goes on by itself. */
static void plain_http_goes_on_below(void **state)
{
    static const char request[] = "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n";
    struct tls_context *context = context_of("default", NULL);
    (void)state;
    for (size_t cut = 1; cut < sizeof request; cut++) {
        struct pair p;
        struct tls_rest rest;
        char bytes[64];
        pair_new(&p, context);
        memory_pipe_feed(p.pipe, request, cut);
        int code = p.t.ops->handshake(&p.t);
        assert_int_equal(code, cut < 8 ? TRANSPORT_WANT_READ : TRANSPORT_PLAIN_HTTP);
        memory_pipe_feed(p.pipe, request + cut, sizeof request - 1 - cut);
        if (code == TRANSPORT_WANT_READ)
            assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_PLAIN_HTTP);
        rest = tls_unwrap(&p.t);
        assert_string_equal(p.t.ops->name, "memory");
        assert_non_null(rest.at);
        memcpy(bytes, rest.at, rest.len);
        ssize_t n = p.t.ops->read(&p.t, bytes + rest.len, sizeof bytes - rest.len);
        size_t len = rest.len + (n > 0 ? (size_t)n : 0);
        assert_int_equal(len, sizeof request - 1);
        assert_memory_equal(bytes, request, len);
        free(rest.at);
        pair_free(&p);
    }
    tls_context_free(context);
}

/* With the peer's end in the same wake-up, nothing else will come to tell of it. */
static void plain_http_ends_early(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    (void)state;
    pair_new(&p, context);
    memory_pipe_feed(p.pipe, "GET", 3);
    memory_pipe_end(p.pipe);
    assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_GONE);
    pair_free(&p);
    tls_context_free(context);
}

static void not_quite_http(void **state)
{
    static const char *const texts[] = {
        "GETX / HTTP/1.1\r\n\r\n", "get / HTTP/1.1\r\n\r\n", "GET\t/ x", "HELLO there",
        " GET / HTTP/1.1",         "G\r\n\r\n12345"};
    struct tls_context *context = context_of("default", NULL);
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        for (size_t step = 1; step < 8; step++) {
            struct pair p;
            int code = TRANSPORT_WANT_READ;
            pair_new(&p, context);
            for (size_t at = 0; at < strlen(texts[i]) && code == TRANSPORT_WANT_READ; at += step) {
                size_t left = strlen(texts[i]) - at;
                memory_pipe_feed(p.pipe, texts[i] + at, left < step ? left : step);
                code = p.t.ops->handshake(&p.t);
            }
            assert_int_equal(code, TRANSPORT_GONE);
            pair_free(&p);
        }
    tls_context_free(context);
}

static void reset_and_end_in_handshake(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    (void)state;
    pair_new(&p, context);
    assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_WANT_READ);
    memory_pipe_reset(p.pipe);
    assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_GONE);
    pair_free(&p);
    pair_new(&p, context);
    SSL_do_handshake(p.client);
    pair_pump(&p);
    assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_WANT_READ);
    assert_int_equal(p.t.ops->shutdown(&p.t, false), 0); /* gives up; nothing to say farewell to */
    memory_pipe_end(p.pipe);
    assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_GONE);
    pair_free(&p);
    tls_context_free(context);
}

/* A farewell in the middle of a handshake is no handshake. */
static void close_notify_in_handshake(void **state)
{
    static const unsigned char alert[] = {21, 3, 3, 0, 2, 1, 0};
    struct tls_context *context = context_of("default", NULL);
    (void)state;
    for (int said_hello = 0; said_hello < 2; said_hello++) {
        struct pair p;
        pair_new(&p, context);
        SSL_do_handshake(p.client);
        if (said_hello)
            pair_pump(&p);
        memory_pipe_feed(p.pipe, alert, sizeof(alert));
        assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_GONE);
        assert_int_equal(p.t.ops->handshake(&p.t), TRANSPORT_GONE);
        pair_free(&p);
    }
    tls_context_free(context);
}

static void renegotiation_is_refused(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    char byte;
    (void)state;
    pair_new(&p, context);
    SSL_set_max_proto_version(p.client, TLS1_2_VERSION);
    assert_int_equal(pair_handshake(&p), 0);
    assert_int_equal(SSL_renegotiate(p.client), 1);
    SSL_do_handshake(p.client);
    pair_pump(&p);
    assert_true(p.t.ops->read(&p.t, &byte, 1) < 0);
    pair_pump(&p);
    ERR_clear_error();
    assert_int_equal(SSL_do_handshake(p.client), -1);
    assert_int_equal(client_reason(), SSL_R_NO_RENEGOTIATION);
    pair_free(&p);
    tls_context_free(context);
}

/* --- names --------------------------------------------------------------------------------- */

static void names_choose_certificates(void **state)
{
    struct tls_certificate list[] = {
        certificate("default", 0x0303),  certificate("both-ec", 0x0303),
        certificate("both-rsa", 0x0303), certificate("wild", 0x0303),
        certificate("exact", 0x0303),    certificate("common", 0x0303),
        certificate("shadowed", 0x0303), certificate("ip", 0x0303),
        certificate("ed", 0x0303),
    };
    static const struct {
        const char *asked, *sigalgs, *served;
    } cases[] = {
        {NULL, NULL, "default"},
        {"default.test", NULL, "default"},
        {"www.default.test", NULL, "default"},
        {"unknown.test", NULL, "default"},
        {"WWW.Default.TEST", NULL, "default"},
        {"both.test", NULL, "both-ec"},
        {"both.test", "RSA-PSS+SHA256:RSA+SHA256", "both-rsa"},
        {"BOTH.test", "ECDSA+SHA256", "both-ec"},
        {"only-ec.test", NULL, "both-ec"},
        {"a.wild.test", NULL, "wild"},
        {"A.WILD.test", NULL, "wild"},
        {"a.b.wild.test", NULL, "default"},
        {"wild.test", NULL, "default"},
        {".wild.test", NULL, "default"},
        {"*.wild.test", NULL, "default"},
        {"exact.wild.test", NULL, "exact"},
        {"upper.test", NULL, "wild"},
        {"common.test", NULL, "common.test"},
        {"shadowed.test", NULL, "default"},
        {"other.test", NULL, "shadowed.test"},
        {"ip.test", NULL, "ip.test"},
        {"ed.test", NULL, "ed"},
        {"ed.test.", NULL, "ed"},
    };
    size_t bad;
    char why[256];
    struct tls_context *context =
        tls_context_new(list, sizeof(list) / sizeof(list[0]), NULL, &bad, why, sizeof(why));
    (void)state;
    assert_non_null(context);
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        struct pair p;
        pair_new(&p, context);
        if (i % 2)
            SSL_set_max_proto_version(p.client, TLS1_2_VERSION);
        if (cases[i / 2].asked != NULL)
            ask_name(p.client, cases[i / 2].asked);
        if (cases[i / 2].sigalgs != NULL)
            assert_int_equal(only_sigalgs(p.client, cases[i / 2].sigalgs), 1);
        assert_int_equal(pair_handshake(&p), 0);
        assert_served(&p, cases[i / 2].served);
        if (cases[i / 2].asked != NULL)
            assert_string_equal(tls_server_name(&p.t), cases[i / 2].asked);
        else
            assert_null(tls_server_name(&p.t));
        pair_free(&p);
    }
    tls_context_free(context);
}

/* The exact name's certificate can't serve an RSA-only client; the wildcard's can. */
static void wildcard_fills_in_a_kind(void **state)
{
    make_certificate("fill-ec", ec_key, "fill-ec", "DNS:a.fill.test");
    make_certificate("fill-rsa", rsa_key, "fill-rsa", "DNS:*.fill.test");
    struct tls_certificate list[] = {certificate("fill-rsa", 0x0303),
                                     certificate("fill-ec", 0x0303)};
    size_t bad;
    char why[256];
    struct tls_context *context = tls_context_new(list, 2, NULL, &bad, why, sizeof(why));
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct pair p;
        pair_new(&p, context);
        ask_name(p.client, "a.fill.test");
        if (i == 1)
            only_sigalgs(p.client, "RSA-PSS+SHA256");
        assert_int_equal(pair_handshake(&p), 0);
        assert_served(&p, i == 0 ? "fill-ec" : "fill-rsa");
        pair_free(&p);
    }
    tls_context_free(context);
}

/* --- ALPN ---------------------------------------------------------------------------------- */

static int handshake_alpn(struct pair *p, struct tls_context *context, const char *wire)
{
    pair_new(p, context);
    if (wire != NULL)
        SSL_set_alpn_protos(p->client, (const unsigned char *)wire, (unsigned)strlen(wire));
    return pair_handshake(p);
}

static void assert_alpn(struct pair *p, const char *chosen)
{
    const unsigned char *name;
    unsigned len;
    SSL_get0_alpn_selected(p->client, &name, &len);
    assert_int_equal(len, strlen(chosen));
    assert_memory_equal(len > 0 ? (const char *)name : "", chosen, len);
}

static void alpn(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    (void)state;
    assert_int_equal(handshake_alpn(&p, context, NULL), 0);
    assert_alpn(&p, "");
    pair_free(&p);
    assert_int_equal(handshake_alpn(&p, context, "\x02h2\x08http/1.1"), 0);
    assert_alpn(&p, "http/1.1");
    pair_free(&p);
    assert_int_equal(handshake_alpn(&p, context, "\x02h2\x08http/1.0"), 0);
    assert_alpn(&p, "http/1.0");
    pair_free(&p);
    assert_int_equal(handshake_alpn(&p, context, "\x02h2\x04imap"), TRANSPORT_GONE);
    assert_int_equal(client_reason(), SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
    pair_free(&p);
    tls_context_any_protocol(context);
    assert_int_equal(handshake_alpn(&p, context, "\x02h2"), 0);
    assert_alpn(&p, "");
    pair_free(&p);
    tls_context_free(context);
}

/* --- tickets ------------------------------------------------------------------------------- */

/* A full handshake; returns the session that the client got, or NULL. For children and threads,
 * where an assert would jump into the wrong program. */
static SSL_SESSION *session_try(struct tls_context *context, int version)
{
    struct pair p;
    char byte;
    if (!pair_open(&p, context))
        return NULL;
    SSL_set_max_proto_version(p.client, version);
    bool full = pair_handshake(&p) == 0 && !tls_resumed(&p.t);
    SSL_SESSION *session = NULL;
    pair_client_read(&p, &byte, 1);
    if (full && p.tickets == 1) { /* not OpenSSL's two */
        session = p.session;
        p.session = NULL;
    }
    pair_free(&p);
    return session;
}

static SSL_SESSION *session_from(struct tls_context *context, int version)
{
    SSL_SESSION *session = session_try(context, version);
    assert_non_null(session);
    return session;
}

/* Does the server take the session up again? -1: the handshake fails. */
static int resumes(struct tls_context *context, SSL_SESSION *session)
{
    struct pair p;
    if (!pair_open(&p, context))
        return -1;
    SSL_SESSION *copy = SSL_SESSION_dup(session); /* a session is marked used */
    SSL_set_session(p.client, copy);
    SSL_set_max_proto_version(p.client, SSL_SESSION_get_protocol_version(session));
    int result = pair_handshake(&p) == 0 ? tls_resumed(&p.t) : -1;
    SSL_SESSION_free(copy);
    pair_free(&p);
    return result;
}

/* RFC 5077's layout: key name, IV, ... */
static void assert_same_key_other_iv(SSL_SESSION *a, SSL_SESSION *b)
{
    const unsigned char *left, *right;
    size_t len;
    SSL_SESSION_get0_ticket(a, &left, &len);
    assert_true(len > 32);
    SSL_SESSION_get0_ticket(b, &right, &len);
    assert_true(len > 32);
    assert_memory_equal(left, right, 16);
    assert_memory_not_equal(left + 16, right + 16, 16);
}

static void tickets_resume_and_rotate(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    (void)state;
    for (int v = 0; v < 2; v++) {
        void *shared = shared_block();
        struct tls_context *context = context_of("default", shared);
        struct tls_context *other = context_of("default", NULL);
        SSL_SESSION *session = session_from(context, versions[v]);
        assert_in_range(SSL_SESSION_get_ticket_lifetime_hint(session), 3600, 8 * 3600);
        assert_int_equal(resumes(context, session), 1);
        assert_int_equal(resumes(other, session), 0);
        SSL_SESSION *twin = session_from(context, versions[v]);
        assert_same_key_other_iv(session, twin);
        SSL_SESSION_free(twin);
        tls_shared_rotate(shared);
        assert_int_equal(resumes(context, session), 1);
        SSL_SESSION *second = session_from(context, versions[v]);
        tls_shared_rotate(shared);
        assert_int_equal(resumes(context, session), 0);
        assert_int_equal(resumes(context, second), 1);
        tls_shared_rotate(shared);
        tls_shared_rotate(shared);
        assert_int_equal(resumes(context, second), 0);
        SSL_SESSION_free(session);
        SSL_SESSION_free(second);
        tls_context_free(context);
        tls_context_free(other);
        munmap(shared, tls_shared_size());
    }
}

/* However long nobody used the block, or however often it was turned, a new key begins. */
static void keys_begin_after_any_number_of_turns(void **state)
{
    static const int turns[] = {2, 3, 20000, 32767, 32768, 40000, 65536, 65537, 1000000};
    void *shared = shared_block();
    struct tls_context *context = context_of("default", shared);
    (void)state;
    for (size_t i = 0; i < sizeof(turns) / sizeof(turns[0]); i++) {
        SSL_SESSION *session = session_from(context, TLS1_3_VERSION);
        for (int k = 0; k < turns[i]; k++)
            tls_shared_rotate(shared);
        SSL_SESSION *next = session_from(context, TLS1_3_VERSION);
        assert_int_equal(resumes(context, session), 0);
        assert_int_equal(resumes(context, next), 1);
        SSL_SESSION_free(session);
        SSL_SESSION_free(next);
    }
    tls_context_free(context);
    munmap(shared, tls_shared_size());
}

/* A configuration that was read again, or another name of the listener, has the same keys. */
static void tickets_outlive_their_context(void **state)
{
    void *shared = shared_block();
    struct tls_context *before = context_of("default", shared);
    SSL_SESSION *session = session_from(before, TLS1_3_VERSION);
    (void)state;
    tls_context_free(before);
    struct tls_context *after = context_of("both-rsa", shared);
    assert_int_equal(resumes(after, session), 1);
    SSL_SESSION_free(session);
    tls_context_free(after);
    munmap(shared, tls_shared_size());
}

/* To another build: the same keys from then on, also when none was needed yet. */
static void tickets_go_as_text(void **state)
{
    char text[TLS_SHARED_TEXT], again[TLS_SHARED_TEXT];
    void *here = shared_block(), *there = shared_block();
    (void)state;
    tls_shared_rotate(here);
    assert_int_equal(tls_shared_write(here, text, sizeof(text) - 1), -1);
    assert_int_equal(tls_shared_write(here, text, sizeof(text)), 0);
    struct tls_context *before = context_of("default", here);
    SSL_SESSION *session = session_from(before, TLS1_3_VERSION);
    assert_int_equal(tls_shared_read(there, text), 0);
    struct tls_context *after = context_of("default", there);
    assert_int_equal(resumes(after, session), 1);
    assert_int_equal(tls_shared_write(there, again, sizeof(again)), 0);
    assert_string_equal(again, text);
    tls_shared_rotate(there);
    assert_int_equal(resumes(after, session), 1);
    tls_shared_rotate(there);
    assert_int_equal(resumes(after, session), 0);
    SSL_SESSION_free(session);
    tls_context_free(before);
    tls_context_free(after);
    munmap(here, tls_shared_size());
    munmap(there, tls_shared_size());
}

static void text_that_is_no_keys(void **state)
{
    char text[TLS_SHARED_TEXT + 2];
    void *here = shared_block(), *there = shared_block(), *zero = shared_block();
    (void)state;
    assert_int_equal(tls_shared_write(here, text, TLS_SHARED_TEXT), 0);
    for (size_t len = strlen(text); len-- > 0;) {
        char *cut = strndup(text, len); /* a last word that is shorter is a word as well */
        if (text[len] == ' ' || len < 12)
            assert_int_equal(tls_shared_read(there, cut), -1);
        free(cut);
    }
    strcat(text, " ");
    assert_int_equal(tls_shared_read(there, text), -1);
    assert_int_equal(tls_shared_read(there, "tickets-2 0 0"), -1);
    assert_memory_equal(there, zero, tls_shared_size());
    munmap(here, tls_shared_size());
    munmap(there, tls_shared_size());
    munmap(zero, tls_shared_size());
}

static int wait_code(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* One process gives the ticket, another takes it; the block was untouched before the fork. */
static void tickets_cross_processes(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    (void)state;
    for (int v = 0; v < 2; v++) {
        void *shared = shared_block();
        struct tls_context *context = context_of("default", shared);
        int to_child[2];
        assert_int_equal(pipe(to_child), 0);
        pid_t pid = fork();
        if (pid == 0) {
            unsigned char bytes[8192];
            close(to_child[1]);
            ssize_t n = read(to_child[0], bytes, sizeof(bytes));
            const unsigned char *at = bytes;
            SSL_SESSION *got = d2i_SSL_SESSION(NULL, &at, n);
            _exit(got != NULL ? resumes(context, got) : 9);
        }
        SSL_SESSION *session = session_from(context, versions[v]);
        unsigned char *bytes = NULL;
        int len = i2d_SSL_SESSION(session, &bytes);
        assert_int_equal(write(to_child[1], bytes, (size_t)len), len);
        assert_int_equal(wait_code(pid), 1);
        OPENSSL_free(bytes);
        SSL_SESSION_free(session);
        close(to_child[0]);
        close(to_child[1]);
        tls_context_free(context);
        munmap(shared, tls_shared_size());
    }
}

/* Whoever died while setting a key left some of its words at zero: the next completes it, and all
 * go on with the same one. */
static void half_set_key_is_completed(void **state)
{
    void *shared = shared_block();
    struct tls_context *context = context_of("default", shared);
    (void)state;
    srand(5);
    for (int round = 0; round < 20; round++) {
        SSL_SESSION *session = session_from(context, TLS1_3_VERSION);
        assert_int_equal(resumes(context, session), 1);
        uint64_t *words = shared;
        for (size_t i = 0; i < tls_shared_size() / 8; i++)
            words[i] = rand() % 2 ? words[i] : 0;
        assert_int_equal(resumes(context, session), 0); /* its key is lost */
        SSL_SESSION_free(session);
        session = session_from(context, TLS1_3_VERSION);
        assert_int_equal(resumes(context, session), 1);
        SSL_SESSION_free(session);
    }
    tls_context_free(context);
    munmap(shared, tls_shared_size());
}

static int rotate_for_ever(struct tls_context *context, void *shared, int ready)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the parent's assert fail */
    for (bool first = true;; first = false) {
        SSL_SESSION *session = session_try(context, TLS1_3_VERSION);
        if (session == NULL)
            return 1;
        SSL_SESSION_free(session);
        for (int k = 0; k < 100; k++)
            tls_shared_rotate(shared);
        if (first && write(ready, "x", 1) != 1)
            return 2;
    }
}

/* Processes that rotate and hand out tickets all the time are killed wherever they happen to be. */
static void killed_processes_harm_nobody(void **state)
{
    void *shared = shared_block();
    struct tls_context *context = context_of("default", shared);
    (void)state;
    for (int round = 0; round < 20; round++) {
        int ready[2];
        char byte;
        pid_t pids[2];
        assert_int_equal(pipe(ready), 0);
        for (int i = 0; i < 2; i++) {
            pids[i] = fork();
            if (pids[i] == 0)
                _exit(rotate_for_ever(context, shared, ready[1]));
            assert_true(pids[i] > 0); /* kill(-1) would mean everybody */
        }
        close(ready[1]);
        for (int i = 0; i < 2; i++)
            assert_int_equal(read(ready[0], &byte, 1), 1);
        for (int i = 0; i < round; i++) { /* time passes, and the parent takes part */
            SSL_SESSION *session = session_from(context, TLS1_3_VERSION);
            (void)resumes(context, session);
            SSL_SESSION_free(session);
        }
        for (int i = 0; i < 2; i++) {
            kill(pids[i], SIGKILL);
            assert_int_equal(wait_code(pids[i]), 128 + SIGKILL);
        }
        close(ready[0]);
        SSL_SESSION *session = session_from(context, TLS1_3_VERSION);
        assert_int_equal(resumes(context, session), 1);
        SSL_SESSION_free(session);
    }
    tls_context_free(context);
    munmap(shared, tls_shared_size());
}

/* --- bytes --------------------------------------------------------------------------------- */

static char pattern_byte(size_t i)
{
    return (char)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

static char *pattern(size_t len)
{
    char *bytes = malloc(len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = pattern_byte(i);
    return bytes;
}

/* The length of the first record that the server has sent. */
static size_t record_sent(struct pair *p, size_t *all)
{
    const unsigned char *bytes = (const unsigned char *)memory_pipe_sent(p->pipe, all);
    return *all >= 5 ? 5U + bytes[3] * 256U + bytes[4] : 0;
}

/* An answer of several parts is one record. */
static void one_record_an_answer(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    char *body = pattern(9000), bytes[9100];
    struct iovec parts[] = {{NULL, 0}, {(char[]){"head"}, 4}, {NULL, 0}, {body, 9000}, {NULL, 0}};
    struct pair p;
    size_t all;
    (void)state;
    pair_connect(&p, context);
    pair_tickets(&p);
    assert_int_equal(p.t.ops->write(&p.t, parts, 5, false), 9004);
    size_t first = record_sent(&p, &all);
    assert_int_equal(first, all);
    assert_int_equal(pair_client_read(&p, bytes, sizeof(bytes)), 9004);
    assert_memory_equal(bytes, "head", 4);
    assert_memory_equal(bytes + 4, body, 9000);
    assert_int_equal(p.t.ops->write(&p.t, parts, 1, false), 0);
    memory_pipe_sent(p.pipe, &all);
    assert_int_equal(all, 0);
    free(body);
    pair_free(&p);
    tls_context_free(context);
}

/* Cut bytes[from .. len) into iovecs at random, with empty ones among them. */
static int random_parts(struct iovec *parts, int count, char *bytes, size_t from, size_t len)
{
    int n = 0;
    while (from < len && n < count) {
        size_t part = (size_t)rand() % (rand() % 2 ? 40000 : 50);
        part = part < len - from ? part : len - from;
        parts[n++] = (struct iovec){bytes + from, part};
        from += part;
    }
    return n;
}

/* Large writes through a peer that takes little: short writes and WANTs, the unsent bytes offered
 * again in other cuts, with more behind them, and reads in between. Nothing may be lost. */
static void partial_writes(void **state)
{
    enum { TOTAL = 400000 };
    struct tls_context *context = context_of("default", NULL);
    char *bytes = pattern(TOTAL), *got = malloc(TOTAL + 1);
    (void)state;
    for (unsigned round = 0; round < 6; round++) {
        struct pair p;
        size_t sent = 0, have = 0, offered = 0, asked = 0, heard = 0;
        int refused = 0;
        srand(round);
        pair_new(&p, context);
        SSL_set_max_proto_version(p.client, round % 2 ? TLS1_2_VERSION : TLS1_3_VERSION);
        assert_int_equal(pair_handshake(&p), 0);
        memory_pipe_limit(p.pipe, round < 3 ? 0 : 700, 3000 + round * 9000);
        while (have < TOTAL) {
            if (sent < TOTAL) {
                struct iovec parts[32];
                size_t more = (size_t)rand() % 60000;
                size_t least = offered > sent ? offered : sent + 1;
                offered = least + more < TOTAL ? least + more : TOTAL;
                int count = random_parts(parts, 32, bytes, sent, offered);
                if (count == 32) { /* the cuts were too fine to offer all of it */
                    parts[0] = (struct iovec){bytes + sent, offered - sent};
                    count = 1;
                }
                ssize_t n = p.t.ops->write(&p.t, parts, count, rand() % 2);
                if (n == TRANSPORT_WANT_WRITE)
                    refused++;
                else
                    assert_true(n > 0);
                sent += n > 0 ? (size_t)n : 0;
            }
            if (rand() % 3 == 0 && SSL_write(p.client, "ask", 3) == 3)
                asked += 3;
            int k = pair_client_read(&p, got + have, (int)(TOTAL + 1 - have));
            have += k > 0 ? (size_t)k : 0;
            char question[8];
            ssize_t n = p.t.ops->read(&p.t, question, sizeof(question));
            assert_true(n > 0 || n == TRANSPORT_WANT_READ);
            heard += n > 0 ? (size_t)n : 0;
        }
        assert_true(refused > 0);
        assert_true(heard <= asked);
        assert_int_equal(have, TOTAL);
        assert_memory_equal(got, bytes, TOTAL);
        pair_free(&p);
    }
    free(bytes);
    free(got);
    tls_context_free(context);
}

/* A caller that breaks its promise (fewer bytes after a refusal) gets GONE, not wrong bytes. */
static void broken_promise_is_gone(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    char *bytes = pattern(5000);
    struct pair p;
    (void)state;
    pair_connect(&p, context);
    pair_tickets(&p);
    memory_pipe_limit(p.pipe, 0, 100);
    assert_int_equal(t_write(&p.t, bytes, 5000), TRANSPORT_WANT_WRITE);
    assert_int_equal(t_write(&p.t, bytes, 4000), TRANSPORT_GONE);
    free(bytes);
    pair_free(&p);
    tls_context_free(context);
}

static void sends_file(void **state)
{
    enum { TOTAL = 150000 };
    struct tls_context *context = context_of("default", NULL);
    char *bytes = pattern(TOTAL), *got = malloc(TOTAL + 1);
    int fd = memfd_create("file", MFD_CLOEXEC);
    struct pair p;
    size_t sent = 0, have = 0, short_by = 0;
    int refused = 0;
    (void)state;
    assert_int_equal(write(fd, bytes, TOTAL), TOTAL);
    pair_connect(&p, context);
    memory_pipe_limit(p.pipe, 0, 5000);
    while (have < TOTAL) {
        ssize_t n = 0;
        if (sent < TOTAL) {
            n = p.t.ops->send_file(&p.t, fd, (int64_t)sent, TOTAL);
            assert_true(n > 0 || n == TRANSPORT_WANT_WRITE);
        }
        if (n == TRANSPORT_WANT_WRITE && refused++ == 3) { /* too late: that record is made */
            assert_int_equal(ftruncate(fd, (off_t)sent), 0);
            short_by = sent;
        }
        sent += n > 0 ? (size_t)n : 0;
        int k = pair_client_read(&p, got + have, (int)(TOTAL + 1 - have));
        have += k > 0 ? (size_t)k : 0;
        if (short_by > 0 && n > 0) {
            assert_true(sent > short_by);
            assert_int_equal(pwrite(fd, bytes, TOTAL, 0), TOTAL);
            short_by = 0;
        }
    }
    assert_true(refused > 4);
    assert_memory_equal(got, bytes, TOTAL);
    assert_int_equal(p.t.ops->send_file(&p.t, fd, TOTAL, 10), 0);
    close(fd);
    fd = open("/", O_RDONLY | O_DIRECTORY);
    assert_int_equal(p.t.ops->send_file(&p.t, fd, 0, 10), TRANSPORT_GONE);
    assert_int_equal(p.t.ops->shutdown(&p.t, false), TRANSPORT_GONE); /* and no close_notify */
    assert_true(pair_client_read(&p, got, 10) <= 0);
    assert_int_equal(SSL_get_shutdown(p.client), 0);
    close(fd);
    free(bytes);
    free(got);
    pair_free(&p);
    tls_context_free(context);
}

/* Clients that asked for small records (max_fragment_length, RFC 6066) and read slowly: what a
 * refused write left unsent is never taken from a file that was read for another meanwhile. */
static void small_fragments_keep_their_bytes(void **state)
{
    enum { TOTAL = 100000, CLIENTS = 2, KINDS = 4 };
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    (void)state;
    for (size_t kind = 1; kind <= KINDS; kind++) {
        struct tls_context *context = context_of("default", NULL);
        struct pair p[CLIENTS];
        char *bytes = malloc(TOTAL), *got = malloc(TOTAL);
        int fd[CLIENTS];
        size_t sent[CLIENTS] = {0}, have[CLIENTS] = {0};
        for (int i = 0; i < CLIENTS; i++) {
            fd[i] = memfd_create("file", MFD_CLOEXEC);
            memset(bytes, 'a' + i, TOTAL);
            assert_int_equal(write(fd[i], bytes, TOTAL), TOTAL);
            pair_new(&p[i], context);
            SSL_set_max_proto_version(p[i].client, versions[kind % 2]);
            assert_int_equal(SSL_set_tlsext_max_fragment_length(p[i].client, (uint8_t)kind), 1);
            assert_int_equal(pair_handshake(&p[i]), 0);
            memory_pipe_limit(p[i].pipe, 0, 700 + kind * 1000);
        }
        while (have[0] < TOTAL || have[1] < TOTAL)
            for (int i = 0; i < CLIENTS; i++) {
                ssize_t n = 0;
                if (sent[i] < TOTAL)
                    n = p[i].t.ops->send_file(&p[i].t, fd[i], (int64_t)sent[i], TOTAL - sent[i]);
                assert_true(n >= 0 || n == TRANSPORT_WANT_WRITE);
                sent[i] += n > 0 ? (size_t)n : 0;
                int k = pair_client_read(&p[i], got, TOTAL);
                for (int j = 0; j < k; j++)
                    assert_int_equal(got[j], 'a' + i);
                have[i] += k > 0 ? (size_t)k : 0;
            }
        for (int i = 0; i < CLIENTS; i++) {
            assert_int_equal(have[i], TOTAL);
            pair_free(&p[i]);
            close(fd[i]);
        }
        tls_context_free(context);
        free(bytes);
        free(got);
    }
}

/* Two records come at once: the first read is short, and pending() tells of the second. */
static void pending_tells_of_records_behind(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    char bytes[100];
    (void)state;
    pair_connect(&p, context);
    SSL_write(p.client, "first", 5);
    SSL_write(p.client, "second", 6);
    while (pair_pump(&p))
        continue;
    assert_int_equal(p.t.ops->read(&p.t, bytes, 3), 3);
    assert_true(p.t.ops->pending(&p.t));
    assert_int_equal(p.t.ops->read(&p.t, bytes, 100), 2);
    assert_true(p.t.ops->pending(&p.t));
    assert_int_equal(p.t.ops->read(&p.t, bytes, 100), 6);
    assert_true(p.t.ops->pending(&p.t)); /* the socket was not asked this time */
    assert_int_equal(p.t.ops->read(&p.t, bytes, 100), TRANSPORT_WANT_READ);
    assert_false(p.t.ops->pending(&p.t));
    pair_free(&p);
    tls_context_free(context);
}

/* Half a record behind a whole one may be called pending once, but not for ever. */
static void pending_ends_at_half_a_record(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    char bytes[300], *from;
    (void)state;
    pair_connect(&p, context);
    while (pair_pump(&p))
        continue;
    SSL_write(p.client, "first", 5);
    SSL_write(p.client, "second", 6);
    size_t len = (size_t)BIO_get_mem_data(p.out, &from);
    memory_pipe_feed(p.pipe, from, len - 4);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(p.t.ops->read(&p.t, bytes, 100), i == 0 ? 5 : 6);
        if (p.t.ops->pending(&p.t))
            assert_int_equal(p.t.ops->read(&p.t, bytes, 100), TRANSPORT_WANT_READ);
        assert_false(p.t.ops->pending(&p.t));
        memory_pipe_feed(p.pipe, from + len - 4, i == 0 ? 4 : 0);
    }
    pair_free(&p);
    tls_context_free(context);
}

/* More than one read from the socket: as long as pending() says so, reading goes on to the end. */
static void short_read_means_empty(void **state)
{
    enum { TOTAL = 300000 };
    struct tls_context *context = context_of("default", NULL);
    char *bytes = pattern(TOTAL), *got = malloc(TOTAL);
    struct pair p;
    size_t have = 0;
    (void)state;
    pair_connect(&p, context);
    SSL_write(p.client, bytes, TOTAL);
    while (pair_pump(&p))
        continue;
    do {
        size_t room = TOTAL - have < 65536 ? TOTAL - have : 65536;
        ssize_t n = p.t.ops->read(&p.t, got + have, room);
        assert_true(n > 0);
        have += (size_t)n;
    } while (have < TOTAL && p.t.ops->pending(&p.t));
    assert_int_equal(have, TOTAL);
    assert_memory_equal(got, bytes, TOTAL);
    free(bytes);
    free(got);
    pair_free(&p);
    tls_context_free(context);
}

static void damaged_record_is_gone(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    char bytes[100], *from;
    (void)state;
    pair_connect(&p, context);
    while (pair_pump(&p))
        continue;
    SSL_write(p.client, "question", 8);
    size_t len = (size_t)BIO_get_mem_data(p.out, &from);
    from[len - 1] ^= 1;
    while (pair_pump(&p))
        continue;
    assert_int_equal(p.t.ops->read(&p.t, bytes, 100), TRANSPORT_GONE);
    assert_string_equal(tls_failure(&p.t), "decryption failed or bad record mac");
    assert_int_equal(ERR_peek_error(), 0);
    pair_free(&p);
    tls_context_free(context);
}

/* The peer asks for new keys while a record of ours waits for room. */
static void key_update_during_refused_write(void **state)
{
    enum { TOTAL = 30000 };
    struct tls_context *context = context_of("default", NULL);
    char *bytes = pattern(TOTAL), *got = malloc(TOTAL + 1), byte;
    struct pair p;
    size_t sent = 0, have = 0;
    (void)state;
    pair_connect(&p, context);
    pair_tickets(&p);
    memory_pipe_limit(p.pipe, 0, 1000);
    for (ssize_t n; (n = t_write(&p.t, bytes + sent, TOTAL - sent)) > 0;)
        sent += (size_t)n;
    SSL_key_update(p.client, SSL_KEY_UPDATE_REQUESTED);
    SSL_write(p.client, "x", 1);
    while (have < TOTAL) {
        ssize_t n = p.t.ops->read(&p.t, &byte, 1);
        assert_true(n == 1 || n == TRANSPORT_WANT_READ || n == TRANSPORT_WANT_WRITE);
        if (sent < TOTAL) {
            n = t_write(&p.t, bytes + sent, TOTAL - sent);
            assert_true(n > 0 || n == TRANSPORT_WANT_WRITE);
            sent += n > 0 ? (size_t)n : 0;
        }
        int k = pair_client_read(&p, got + have, (int)(TOTAL + 1 - have));
        have += k > 0 ? (size_t)k : 0;
    }
    assert_memory_equal(got, bytes, TOTAL);
    free(bytes);
    free(got);
    pair_free(&p);
    tls_context_free(context);
}

static void key_update(struct pair *p)
{
    SSL_key_update(p->client, SSL_KEY_UPDATE_NOT_REQUESTED);
    assert_int_equal(SSL_do_handshake(p->client), 1);
}

/* New keys now and then are fine; nothing but new keys is not. */
static void key_update_flood_is_gone(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    char bytes[10];
    (void)state;
    pair_connect(&p, context);
    pair_tickets(&p);
    for (int i = 0; i < 100; i++) {
        key_update(&p);
        if (i % 20 != 19)
            continue;
        SSL_write(p.client, "x", 1);
        while (pair_pump(&p))
            continue;
        assert_int_equal(p.t.ops->read(&p.t, bytes, 10), 1);
    }
    for (int i = 0; i < 40; i++)
        key_update(&p);
    while (pair_pump(&p))
        continue;
    assert_int_equal(p.t.ops->read(&p.t, bytes, 10), TRANSPORT_GONE);
    assert_string_equal(tls_failure(&p.t), "unexpected message");
    pair_free(&p);
    tls_context_free(context);
}

/* --- ends ---------------------------------------------------------------------------------- */

static void close_notify_both_ways(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    char bytes[16];
    (void)state;
    pair_connect(&p, context);
    SSL_write(p.client, "last", 4);
    SSL_shutdown(p.client);
    while (pair_pump(&p))
        continue;
    assert_int_equal(p.t.ops->read(&p.t, bytes, 16), 4);
    assert_int_equal(p.t.ops->read(&p.t, bytes, 16), 0);
    assert_int_equal(p.t.ops->read(&p.t, bytes, 16), 0);
    assert_false(p.t.ops->pending(&p.t));
    assert_int_equal(t_write(&p.t, "answer", 6), 6); /* half closed, not gone */
    assert_int_equal(p.t.ops->shutdown(&p.t, false), 0);
    assert_int_equal(p.t.ops->shutdown(&p.t, false), 0);
    assert_true(memory_pipe_is_shut(p.pipe));
    assert_int_equal(pair_client_read(&p, bytes, 16), 6);
    assert_int_equal(pair_client_read(&p, bytes, 16), 0);
    assert_int_equal(SSL_get_error(p.client, 0), SSL_ERROR_ZERO_RETURN);
    pair_free(&p);
    tls_context_free(context);
}

/* Lingering: what the peer still sends after our farewell is read. */
static void reads_go_on_after_shutdown(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    char bytes[16];
    (void)state;
    pair_connect(&p, context);
    assert_int_equal(p.t.ops->shutdown(&p.t, false), 0);
    assert_int_equal(SSL_write(p.client, "late", 4), 4);
    while (pair_pump(&p))
        continue;
    assert_int_equal(p.t.ops->read(&p.t, bytes, 16), 4);
    assert_int_equal(p.t.ops->shutdown(&p.t, false), 0);
    assert_int_equal(p.t.ops->read(&p.t, bytes, 16), TRANSPORT_WANT_READ);
    assert_int_equal(p.t.ops->shutdown(&p.t, false), 0);
    SSL_shutdown(p.client);
    while (pair_pump(&p))
        continue;
    assert_int_equal(p.t.ops->read(&p.t, bytes, 16), 0);
    pair_free(&p);
    tls_context_free(context);
}

static void bare_end_is_gone(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    char bytes[16];
    (void)state;
    pair_connect(&p, context);
    while (pair_pump(&p))
        continue;
    SSL_write(p.client, "part", 4);
    while (pair_pump(&p))
        continue;
    memory_pipe_end(p.pipe);
    assert_int_equal(p.t.ops->read(&p.t, bytes, 16), 4);
    assert_int_equal(p.t.ops->read(&p.t, bytes, 16), TRANSPORT_GONE);
    pair_free(&p);
    tls_context_free(context);
}

static void shutdown_waits_for_room(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    char byte;
    (void)state;
    pair_connect(&p, context);
    pair_tickets(&p);
    memory_pipe_limit(p.pipe, 0, 5);
    assert_int_equal(p.t.ops->shutdown(&p.t, false), TRANSPORT_WANT_WRITE);
    assert_false(memory_pipe_is_shut(p.pipe));
    int result, turns = 0;
    while ((result = p.t.ops->shutdown(&p.t, false)) == TRANSPORT_WANT_WRITE && turns++ < 20)
        pair_pump(&p);
    assert_int_equal(result, 0);
    assert_int_equal(p.t.ops->shutdown(&p.t, false), 0);
    assert_true(memory_pipe_is_shut(p.pipe));
    assert_int_equal(pair_client_read(&p, &byte, 1), 0);
    pair_free(&p);
    tls_context_free(context);
}

/* A forked parent closes its copy: the peer must not notice. */
static void close_says_nothing(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    size_t before, after;
    (void)state;
    pair_connect(&p, context);
    memory_pipe_sent(p.pipe, &before);
    p.t.ops->idle(&p.t);
    p.t.ops->close(&p.t);
    memory_pipe_sent(p.pipe, &after);
    assert_int_equal(before, after);
    assert_int_equal(p.t.fd, -1);
    pair_free(&p); /* a second close does nothing */
    tls_context_free(context);
}

static void connections_hold_their_context(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    struct pair p;
    (void)state;
    pair_new(&p, context);
    tls_context_free(context);
    assert_int_equal(pair_handshake(&p), 0);
    assert_talks(&p);
    pair_free(&p);
    tls_context_free(NULL);
}

/* --- sockets ------------------------------------------------------------------------------- */

/* Both ends in one thread, non-blocking. */
static void over_a_socket(void **state)
{
    struct tls_context *context = context_of("both-rsa", NULL);
    SSL_CTX *client_ctx = SSL_CTX_new(TLS_client_method());
    SSL *client = SSL_new(client_ctx);
    struct transport t;
    int fds[2], server = -1, done = -1;
    static char block[100000];
    ssize_t n;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(tls_accept(&t, context, fds[0]), 0);
    assert_int_equal(t.fd, fds[0]);
    SSL_set_fd(client, fds[1]);
    while (server != 0 || done != 1) {
        done = done == 1 ? 1 : SSL_connect(client);
        server = server == 0 ? 0 : t.ops->handshake(&t);
        assert_true(server == 0 || server == TRANSPORT_WANT_READ);
    }
    assert_int_equal(SSL_write(client, "hello", 5), 5);
    assert_int_equal(t.ops->read(&t, block, sizeof(block)), 5);
    while ((n = t_write(&t, block, sizeof(block))) == (ssize_t)sizeof(block))
        continue;
    assert_true(n > 0 || n == TRANSPORT_WANT_WRITE);
    shutdown(fds[1], SHUT_RDWR);
    close(fds[1]);
    assert_int_equal(t_write(&t, block, sizeof(block)), TRANSPORT_GONE); /* and no SIGPIPE */
    SSL_set_quiet_shutdown(client, 1);
    SSL_free(client);
    SSL_CTX_free(client_ctx);
    t.ops->close(&t);
    assert_int_equal(fcntl(fds[0], F_GETFD), -1);
    tls_context_free(context);
}

/* --- threads ------------------------------------------------------------------------------- */

struct crowd {
    struct tls_context *context;
    void *shared;
    _Atomic(SSL_SESSION *) last; /* somebody's session, for anybody */
    _Atomic int failures, crossed;
};

static void *crowd_member(void *argument)
{
    struct crowd *crowd = argument;
    for (int i = 0; i < 15; i++) {
        SSL_SESSION *mine = session_try(crowd->context, i % 2 ? TLS1_2_VERSION : TLS1_3_VERSION);
        atomic_fetch_add(&crowd->failures, mine == NULL);
        SSL_SESSION *other = atomic_exchange(&crowd->last, mine);
        int result = other != NULL ? resumes(crowd->context, other) : 0;
        atomic_fetch_add(&crowd->failures, result < 0);
        atomic_fetch_add(&crowd->crossed, result > 0);
        SSL_SESSION_free(other);
        if (i % 5 == 4)
            tls_shared_rotate(crowd->shared);
    }
    return NULL;
}

/* Four threads accept on one context, resume each other's sessions, and turn the keys under each
 * other's hands. */
static void threads_share_a_context(void **state)
{
    void *shared = shared_block();
    struct crowd crowd = {.context = context_of("default", shared), .shared = shared};
    pthread_t threads[4];
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_member, &crowd), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(crowd.failures, 0);
    assert_true(crowd.crossed > 0);
    SSL_SESSION_free(crowd.last);
    tls_context_free(crowd.context);
    munmap(shared, tls_shared_size());
}

/* --- files --------------------------------------------------------------------------------- */

/* The second of two certificates is wrong, and the sentence says how. */
static void assert_refused(const char *crt, const char *key, const char *says)
{
    struct tls_certificate list[] = {certificate("default", 0x0303),
                                     {path_of(crt), path_of(key), 0x0303}};
    size_t bad = 77;
    char why[512] = "";
    assert_null(tls_context_new(list, 2, NULL, &bad, why, sizeof(why)));
    assert_int_equal(bad, 1);
    if (strstr(why, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", why, says);
    assert_null(strchr(why, '\n'));
    assert_int_equal(ERR_peek_error(), 0);
}

static void make_bad_files(void)
{
    char secret[] = "secret";
    X509 *leaf = make_x509(ec_key, "broken", "DNS:broken.test", -3600, 86400);
    FILE *file = create("encrypted.key");
    PEM_write_PrivateKey(file, ec_key, EVP_aes_128_cbc(), NULL, 0, NULL, secret);
    fclose(file);
    BIO *bio = BIO_new_file(path_of("traditional.key"), "w");
    PEM_write_bio_PrivateKey_traditional(bio, ec_key, EVP_aes_128_cbc(), (unsigned char *)secret, 6,
                                         NULL, NULL);
    BIO_free(bio);
    file = create("chain.crt");
    PEM_write_X509(file, leaf);
    fputs("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", file);
    fclose(file);
    write_text("empty.crt", "");
    write_text("text.crt", "this is no certificate\n");
    write_text("torn.crt", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    write_text("torn.key", "-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n");
    EVP_PKEY *weak = EVP_RSA_gen(1024);
    make_certificate("weak", weak, "weak", "DNS:weak.test");
    EVP_PKEY_free(weak);
    EVP_PKEY *x25519 = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    file = create("x25519.key");
    PEM_write_PrivateKey(file, x25519, NULL, NULL, 0, NULL, NULL);
    fclose(file);
    EVP_PKEY_free(x25519);
    file = create("huge.crt");
    for (int i = 0; i < 20000; i++)
        fputs("                                                                \n", file);
    fclose(file);
    X509_free(leaf);
    mkfifo(path_of("pipe.crt"), 0600);
    write_text("secret.crt", "");
    chmod(path_of("secret.crt"), 0);
}

static void bad_files_are_named(void **state)
{
    (void)state;
    make_bad_files();
    assert_refused("missing.crt", "default.key", "missing.crt: No such file or directory");
    assert_refused("default.crt", "missing.key", "missing.key: No such file or directory");
    assert_refused("", "default.key", "not a regular file");
    assert_refused("pipe.crt", "default.key", "pipe.crt is not a regular file");
    assert_refused("huge.crt", "default.key", "larger");
    assert_refused("empty.crt", "default.key", "empty.crt holds no PEM certificate");
    assert_refused("text.crt", "default.key", "text.crt holds no PEM certificate");
    assert_refused("default.key", "default.key", "default.key holds no PEM certificate");
    assert_refused("torn.crt", "default.key", "torn.crt can't be read");
    assert_refused("chain.crt", "default.key", "certificate 2 in");
    assert_refused("default.crt", "default.crt", "default.crt holds no PEM private key");
    assert_refused("default.crt", "torn.key", "torn.key can't be read");
    assert_refused("default.crt", "encrypted.key", "is encrypted");
    assert_refused("default.crt", "traditional.key", "is encrypted");
    assert_refused("default.crt", "x25519.key", "neither RSA, ECDSA nor EdDSA");
    assert_refused("default.crt", "both-rsa.key", "does not belong to the certificate");
    assert_refused("weak.crt", "weak.key", "weak.crt can't be used: ee key too small");
    if (geteuid() != 0)
        assert_refused("secret.crt", "default.key", "secret.crt: Permission denied");
}

static void nothing_to_load(void **state)
{
    struct tls_certificate none = {NULL, NULL, 0};
    size_t bad = 77;
    char why[8];
    (void)state;
    assert_null(tls_context_new(&none, 0, NULL, &bad, why, sizeof(why)));
    assert_string_equal(why, "no cert"); /* cut to the room, and ended */
    assert_null(tls_context_new(&none, 1, NULL, &bad, why, sizeof(why)));
    assert_int_equal(bad, 0);
}

/* A PEM file with key, leaf and chain together; an expired leaf serves (the operator's business).
 */
static void combined_file_with_chain(void **state)
{
    X509 *leaf = make_x509(ec_key, "expired", "DNS:expired.test", -7200, -3600);
    X509 *next = make_x509(rsa_key, "issuer", NULL, -3600, 86400);
    FILE *file = create("all.pem");
    struct tls_certificate one = {path_of("all.pem"), path_of("all.pem"), 0};
    size_t bad;
    char why[256];
    struct pair p;
    (void)state;
    fputs("a word before\n", file);
    PEM_write_PrivateKey(file, ec_key, NULL, NULL, 0, NULL, NULL);
    PEM_write_X509(file, leaf);
    PEM_write_X509(file, next);
    fclose(file);
    struct tls_context *context = tls_context_new(&one, 1, NULL, &bad, why, sizeof(why));
    assert_non_null(context);
    pair_connect(&p, context);
    assert_served(&p, "expired");
    assert_int_equal(sk_X509_num(SSL_get_peer_cert_chain(p.client)), 2);
    pair_free(&p);
    tls_context_free(context);
    X509_free(leaf);
    X509_free(next);
}

/* --- memory -------------------------------------------------------------------------------- */

/* The n-th allocation inside OpenSSL fails, for every n: an error, never a crash or a leak. */
static void out_of_memory(void **state)
{
    struct tls_context *context = context_of("default", NULL);
    bool whole = false;
    int failed = 0;
    (void)state;
    for (int64_t n = 0; !whole && n < 4000; n += n < 200 ? 1 : 3) {
        struct pair p;
        struct transport under;
        struct memory_pipe *pipe = memory_pipe_new(&under);
        assert_true(pair_open(&p, context));
        p.t.ops->close(&p.t);
        memory_pipe_free(p.pipe);
        p.pipe = pipe;
        SSL_do_handshake(p.client);
        pair_pump(&p);
        atomic_store(&heap_fail_at, n);
        int opened = tls_accept_over(&p.t, context, under);
        int server = opened == 0 ? p.t.ops->handshake(&p.t) : TRANSPORT_GONE;
        whole = atomic_exchange(&heap_fail_at, INT64_MAX) > 0;
        failed += server == TRANSPORT_GONE;
        assert_true(server == TRANSPORT_GONE || server == TRANSPORT_WANT_READ);
        assert_int_equal(ERR_peek_error(), 0);
        if (opened != 0)
            p.t = under; /* not taken */
        pair_free(&p);
    }
    assert_true(whole);
    assert_true(failed > 50);
    tls_context_free(context);
}

/* What an established connection that idles keeps. */
static void idle_connections_are_small(void **state)
{
    enum { COUNT = 50, LIMIT = 20000 };
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct tls_context *context = context_of("default", NULL);
    static struct pair pairs[COUNT];
    (void)state;
    for (int v = 0; v < 2; v++) {
        int64_t held = 0;
        for (int i = 0; i < COUNT; i++) {
            pair_new(&pairs[i], context);
            SSL_set_max_proto_version(pairs[i].client, versions[v]);
            ask_name(pairs[i].client, "default.test");
            assert_int_equal(pair_handshake(&pairs[i]), 0);
            assert_talks(&pairs[i]);
            pairs[i].t.ops->idle(&pairs[i].t);
            int64_t before = atomic_load(&heap_bytes);
            pairs[i].t.ops->close(&pairs[i].t);
            held += before - atomic_load(&heap_bytes);
            pair_free(&pairs[i]);
        }
        print_message("idle, %s: %d bytes in OpenSSL\n", v == 0 ? "1.2" : "1.3",
                      (int)(held / COUNT));
        assert_in_range(held / COUNT, 1000, LIMIT);
    }
    tls_context_free(context);
}

int main(void)
{
    CRYPTO_set_mem_functions(heap_alloc, heap_realloc, heap_free);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshakes),
        cmocka_unit_test(handshake_through_small_room),
        cmocka_unit_test(old_versions_are_refused),
        cmocka_unit_test(min_version_is_per_name),
        cmocka_unit_test(ciphers_are_ours_but_chacha_is_the_clients),
        cmocka_unit_test(garbage_is_gone),
        cmocka_unit_test(damaged_hello),
        cmocka_unit_test(plain_http_is_named),
        cmocka_unit_test(plain_http_goes_on_below),
        cmocka_unit_test(plain_http_ends_early),
        cmocka_unit_test(not_quite_http),
        cmocka_unit_test(reset_and_end_in_handshake),
        cmocka_unit_test(close_notify_in_handshake),
        cmocka_unit_test(renegotiation_is_refused),
        cmocka_unit_test(names_choose_certificates),
        cmocka_unit_test(wildcard_fills_in_a_kind),
        cmocka_unit_test(alpn),
        cmocka_unit_test(tickets_resume_and_rotate),
        cmocka_unit_test(keys_begin_after_any_number_of_turns),
        cmocka_unit_test(tickets_outlive_their_context),
        cmocka_unit_test(tickets_go_as_text),
        cmocka_unit_test(text_that_is_no_keys),
        cmocka_unit_test(tickets_cross_processes),
        cmocka_unit_test(half_set_key_is_completed),
        cmocka_unit_test(killed_processes_harm_nobody),
        cmocka_unit_test(one_record_an_answer),
        cmocka_unit_test(partial_writes),
        cmocka_unit_test(broken_promise_is_gone),
        cmocka_unit_test(sends_file),
        cmocka_unit_test(small_fragments_keep_their_bytes),
        cmocka_unit_test(pending_tells_of_records_behind),
        cmocka_unit_test(pending_ends_at_half_a_record),
        cmocka_unit_test(short_read_means_empty),
        cmocka_unit_test(damaged_record_is_gone),
        cmocka_unit_test(key_update_during_refused_write),
        cmocka_unit_test(key_update_flood_is_gone),
        cmocka_unit_test(close_notify_both_ways),
        cmocka_unit_test(reads_go_on_after_shutdown),
        cmocka_unit_test(bare_end_is_gone),
        cmocka_unit_test(shutdown_waits_for_room),
        cmocka_unit_test(close_says_nothing),
        cmocka_unit_test(connections_hold_their_context),
        cmocka_unit_test(over_a_socket),
        cmocka_unit_test(threads_share_a_context),
        cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(nothing_to_load),
        cmocka_unit_test(combined_file_with_chain),
        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(idle_connections_are_small),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
