/* SPDX-License-Identifier: MIT */
/* A connection over TLS, from handshake to close_notify, against OpenSSL's own client over memory
 * that takes and gives as much as it likes at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "tests/unit/test_net_rig.h"

#define GET "GET /text HTTP/1.1\r\nHost: x\r\n\r\n"

/* --- a certificate ---------------------------------------------------------------------------- */

static char certificate[] = "/tmp/modus-net-tls-XXXXXX", key[] = "/tmp/modus-net-tls-XXXXXX";
static struct tls_context *context;

static FILE *temporary(char *path)
{
    FILE *f = fdopen(mkstemp(path), "w");
    assert_non_null(f);
    return f;
}

static int make_context(void **state)
{
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    struct tls_certificate one = {certificate, key, 0x0303};
    size_t bad;
    char why[200];
    (void)state;
    X509_set_version(x, 2);
    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, pair);
    X509_sign(x, pair, EVP_sha256());
    FILE *f = temporary(certificate);
    PEM_write_X509(f, x);
    fclose(f);
    f = temporary(key);
    PEM_write_PrivateKey(f, pair, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    X509_free(x);
    EVP_PKEY_free(pair);
    context = tls_context_new(&one, 1, NULL, &bad, why, sizeof why);
    unlink(certificate);
    unlink(key);
    return context ? 0 : -1;
}

static int free_context(void **state)
{
    (void)state;
    tls_context_free(context);
    return 0;
}

/* --- the client ------------------------------------------------------------------------------- */

static SSL_CTX *client_ctx;
static SSL *client;
static BIO *to_client, *from_client;
static char *heard; /* decrypted, without the dates: see rig_text */
static size_t heard_len, heard_size;
static int version, ended; /* SSL_get_error of the last read that brought nothing */
static size_t gulp;        /* bytes that the client takes at a time; 0: all */

static int begin(void **state)
{
    (void)state;
    rig_start();
    rig_routes();
    rig.service.tls = context;
    version = TLS1_3_VERSION;
    gulp = 0;
    return 0;
}

static void hang_up(void)
{
    SSL_free(client);
    SSL_CTX_free(client_ctx);
    client = NULL;
    client_ctx = NULL;
}

static int end(void **state)
{
    (void)state;
    rig_end();
    hang_up();
    free(heard);
    heard = NULL;
    heard_len = heard_size = 0;
    return 0;
}

static void listen_to(void)
{
    for (;;) {
        size_t n;
        if (heard_len + 20000 > heard_size) {
            heard_size = 2 * heard_size + 40000;
            heard = realloc(heard, heard_size);
        }
        ERR_clear_error();
        int r = SSL_read_ex(client, heard + heard_len, 16384, &n);
        ended = r == 1 ? 0 : SSL_get_error(client, r);
        if (r != 1)
            break;
        heard_len += n;
    }
    heard[heard_len] = '\0';
}

/* Move bytes once each way. Returns whether any moved. */
static bool pump(void)
{
    char *bytes;
    size_t up = (size_t)BIO_get_mem_data(from_client, &bytes), before = rig.got_len;
    if (up) {
        memory_pipe_feed(rig.pipe, bytes, up);
        BIO_reset(from_client);
    }
    rig_take(gulp ? gulp : SIZE_MAX);
    size_t down = rig.got_len - before;
    if (down) {
        BIO_write(to_client, rig.got + before, (int)down);
        rig_forget();
    }
    listen_to();
    return up || down;
}

/* Until nothing moves any more. */
static void talk(void)
{
    bool moved = true;
    listen_to(); /* the client speaks first */
    while (moved) {
        if (rig.open)
            rig_run();
        moved = pump();
    }
}

static void connect_tls(size_t per_call, size_t room)
{
    hang_up();
    client_ctx = SSL_CTX_new(TLS_client_method());
    client = SSL_new(client_ctx);
    SSL_set_min_proto_version(client, version);
    SSL_set_max_proto_version(client, version);
    to_client = BIO_new(BIO_s_mem());
    from_client = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(to_client, -1);
    SSL_set_bio(client, to_client, from_client);
    SSL_set_connect_state(client);
    heard_len = 0;
    rig_connect();
    rig.unread = true;
    memory_pipe_limit(rig.pipe, per_call, room);
    talk();
    assert_true(SSL_is_init_finished(client));
    assert_true(rig.open);
}

static void say(const char *text)
{
    assert_int_equal(SSL_write(client, text, (int)strlen(text)), (int)strlen(text));
    talk();
}

/* What the client has heard, without the dates. */
static const char *heard_text(void)
{
    rig_forget();
    rig.got = realloc(rig.got, heard_len + 1);
    rig.got_size = heard_len + 1;
    memcpy(rig.got, heard, heard_len + 1);
    rig.got_len = heard_len;
    const char *text = rig_text();
    rig_forget();
    return text;
}

static void expect(const char *text)
{
    assert_string_equal(heard_text(), text);
    heard_len = 0;
}

static void say_goodbye(void)
{
    SSL_shutdown(client);
    talk();
    if (rig.open) {
        memory_pipe_end(rig.pipe);
        conn_hang_up(&rig.conn, true);
        talk();
    }
    assert_false(rig.open);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void requests(void **state)
{
    (void)state;
    for (version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (int way = 0; way < 4; way++) {
            connect_tls(way == 1 ? 1 : way == 2 ? 100 : 0, way == 3 ? 50 : 0);
            say(GET);
            expect(RIG_HELLO);
            say("GET /te");
            say("xt HTTP/1.1\r\nHost: x\r\n\r\n" GET);
            expect(RIG_HELLO RIG_HELLO);
            say("POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
            expect(RIG_OK "Content-Length: 3\r\n\r\nabc");
            assert_true(rig_is_idle());
            say_goodbye();
        }
}

static void pipelined(void **state)
{
    char many[16 * sizeof GET] = "", answers[16 * sizeof RIG_HELLO] = "";
    (void)state;
    for (int i = 0; i < 16; i++) {
        strcat(many, GET);
        strcat(answers, RIG_HELLO);
    }
    connect_tls(0, 0);
    assert_int_equal(SSL_write(client, many, (int)strlen(many)), (int)strlen(many));
    pump();
    rig_step();
    assert_int_equal(rig.writes, 1); /* one record */
    talk();
    expect(answers);
    for (int i = 0; i < 16; i++) /* each in a record of its own, all there at once */
        assert_int_equal(SSL_write(client, GET, sizeof GET - 1), sizeof GET - 1);
    talk();
    expect(answers);
    say_goodbye();
}

static const char *large;
static int large_file;

static int large_step(struct exchange *x, enum exchange_event event)
{
    return event == EXCHANGE_BEGUN
               ? exchange_reply_static(x, 200, NULL, (struct str){large, 150000})
               : 0;
}

static int file_step(struct exchange *x, enum exchange_event event)
{
    int r = event == EXCHANGE_BEGUN ? exchange_begin(x, 200, NULL, 150000) : 0;
    r = r ? r : exchange_send_file(x, large_file, 0, 150000);
    return r ? r : exchange_end(x);
}

static const struct exchange_entry large_entry = {.step = large_step},
                                   file_entry = {.step = file_step};

static char *pattern(size_t len)
{
    char *bytes = malloc(len + 1);
    for (size_t i = 0; i < len; i++)
        bytes[i] = rig_pattern(i);
    bytes[len] = '\0';
    return bytes;
}

static void unchunk(char *body)
{
    char *from = body, *to = body;
    size_t n;
    while ((n = strtoul(from, &from, 16)) > 0) {
        memmove(to, from + 2, n);
        to += n;
        from += n + 4;
    }
    *to = '\0';
}

/* Answers of each kind that are larger than any window, with requests behind them. */
static void large_answers(void **state)
{
    static const char *const asks[] = {
        "GET /large HTTP/1.1\r\nHost: x\r\n\r\n" GET, "GET /file HTTP/1.1\r\nHost: x\r\n\r\n" GET,
        "GET /pieces?n=150000&piece=3333 HTTP/1.1\r\nHost: x\r\n\r\n" GET};
    static const struct {
        size_t per_call, room, gulp;
    } ways[] = {{0, 0, 0}, {0, 1000, 0}, {777, 3000, 500}, {5000, 17000, 0}, {0, 16390, 16390}};
    char *bytes = pattern(150000);
    (void)state;
    large = bytes;
    large_file = memfd_create("large", MFD_CLOEXEC);
    assert_int_equal(write(large_file, bytes, 150000), 150000);
    rig_route(4, "/large", &large_entry);
    rig_route(5, "/file", &file_entry);
    for (version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (size_t way = 0; way < sizeof ways / sizeof *ways; way++)
            for (size_t kind = 0; kind < 3; kind++) {
                gulp = 0;
                connect_tls(ways[way].per_call, ways[way].room);
                gulp = ways[way].gulp;
                say(asks[kind]);
                char *text = (char *)(uintptr_t)heard_text(), *body = strstr(text, "\r\n\r\n") + 4,
                     *next = strstr(text + 1, "HTTP/1.1 ");
                assert_non_null(next);
                assert_string_equal(next, RIG_HELLO);
                *next = '\0';
                if (kind == 2)
                    unchunk(body);
                assert_string_equal(body, bytes);
                assert_true(rig_is_idle());
                say_goodbye();
            }
    close(large_file);
    free(bytes);
}

/* Both directions at once, and both full. */
static void large_echo(void **state)
{
    char *bytes = pattern(150000);
    (void)state;
    for (version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (int way = 0; way < 3; way++) {
            gulp = 0;
            connect_tls(way == 1 ? 1000 : 0, way ? 2000 : 0);
            say("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 150000\r\n\r\n");
            for (size_t at = 0; at < 150000; at += 10000) {
                assert_int_equal(SSL_write(client, bytes + at, 10000), 10000);
                rig_run();
                if (at % 7 == 0)
                    pump();
            }
            talk();
            assert_string_equal(strstr(heard_text(), "\r\n\r\n") + 4, bytes);
            assert_true(rig_is_idle());
            say_goodbye();
        }
    free(bytes);
}

/* The end of our side is said, also where there was no room for it at first. */
static void close_notify(void **state)
{
    (void)state;
    for (version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (size_t room = 0; room < 300; room += 7) {
            connect_tls(0, room);
            say("GET /text HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            expect(RIG_HELLO_CLOSE);
            assert_int_equal(ended, SSL_ERROR_ZERO_RETURN);
            assert_false(rig.open); /* it asked for the close: nothing to wait for */
            connect_tls(0, room);
            say("nonsense\r\n\r\n");
            assert_non_null(strstr(heard_text(), "400 Bad Request\n"));
            assert_int_equal(ended, SSL_ERROR_ZERO_RETURN);
            assert_true(rig.open); /* lingers */
            say_goodbye();
        }
}

/* An answer whose end is the connection's end: close_notify makes it whole, and nothing else does.
 */
static int cut_step(struct exchange *x, enum exchange_event event)
{
    int r = event == EXCHANGE_BEGUN ? exchange_begin(x, 200, NULL, -1) : 0;
    if (event == EXCHANGE_BEGUN && r == 0)
        r = exchange_try_write(x, "abc", 3) == 3 ? 0 : -1;
    exchange_timer(x, 100);
    return event == EXCHANGE_TIMER ? -EINVAL : r;
}

static void until_close(void **state)
{
    static const struct exchange_entry entry = {.step = cut_step};
    (void)state;
    rig_route(4, "/cut", &entry);
    connect_tls(0, 500);
    say("GET /pieces?n=3000&piece=100 HTTP/1.0\r\n\r\n");
    assert_int_equal(strlen(strstr(heard_text(), "\r\n\r\n")), 3004);
    assert_int_equal(ended, SSL_ERROR_ZERO_RETURN);
    connect_tls(0, 0);
    say("GET /cut HTTP/1.0\r\n\r\n");
    rig_sleep(100);
    talk();
    assert_string_equal(strstr(heard_text(), "\r\n\r\n"), "\r\n\r\nabc");
    assert_false(rig.open);
    assert_int_equal(ended, SSL_ERROR_WANT_READ);
    connect_tls(0, 500); /* nor a peer that is given up */
    gulp = 1;
    assert_int_equal(SSL_write(client, "GET /pieces?n=30000&piece=100 HTTP/1.0\r\n\r\n", 42), 42);
    pump();
    rig_run();
    rig_sleep(60000);
    assert_false(rig.open);
    gulp = 0;
    talk();
    assert_int_equal(ended, SSL_ERROR_WANT_READ);
}

/* The client's close_notify ends what it says, not what it hears; a bare end is a break. */
static void client_ends(void **state)
{
    (void)state;
    connect_tls(0, 0);
    assert_int_equal(SSL_write(client, GET, sizeof GET - 1), sizeof GET - 1);
    SSL_shutdown(client);
    talk();
    memory_pipe_end(rig.pipe);
    conn_hang_up(&rig.conn, true);
    talk();
    assert_string_equal(heard_text(), RIG_HELLO);
    assert_false(rig.open);
    connect_tls(0, 0);
    say("GET /te");
    memory_pipe_end(rig.pipe);
    conn_hang_up(&rig.conn, true);
    talk();
    assert_false(rig.open);
}

/* Handshakes that don't come to an end. */
static void handshakes(void **state)
{
    (void)state;
    rig_connect();
    assert_int_equal(conn_deadline(&rig.conn), rig_now() + 10000);
    rig_say("\x16\x03\x01");
    rig_sleep(9999);
    assert_true(rig.open);
    rig_sleep(1);
    assert_false(rig.open);
    assert_int_equal(rig.stats.handshakes_failed, 1);
    rig_connect();
    rig_say(GET);
    rig_expect_begin("HTTP/1.1 400 Bad Request\r\n");
    rig_finish();
    assert_false(rig.open);
    assert_int_equal(rig.stats.handshakes_failed, 2);
    rig_connect();
    rig_finish();
    assert_false(rig.open);
    assert_int_equal(rig.stats.handshakes_failed, 3);
    assert_int_equal(rig.stats.answers[0], 0);
}

/* A read that must write first (the client wants new keys, and our side is full) still has a
 * deadline. */
static void key_update(void **state)
{
    (void)state;
    version = TLS1_3_VERSION;
    connect_tls(0, 0);
    say("POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
    memory_pipe_limit(rig.pipe, 0, 1);
    gulp = 1;
    for (int i = 0; i < 3; i++) {
        SSL_key_update(client, SSL_KEY_UPDATE_REQUESTED);
        assert_int_equal(SSL_write(client, "ab", 2), 2);
        char *bytes;
        size_t up = (size_t)BIO_get_mem_data(from_client, &bytes);
        memory_pipe_feed(rig.pipe, bytes, up);
        BIO_reset(from_client);
        rig_run(); /* the rig asserts that there is a deadline */
        assert_true(rig.open);
    }
    memory_pipe_limit(rig.pipe, 0, 0);
    gulp = 0;
    talk();
    say("cdef");
    assert_string_equal(strstr(heard_text(), "\r\n\r\n"), "\r\n\r\nabababcdef");
    say_goodbye();
}

/* Random everything. */
static void random_talk(void **state)
{
    (void)state;
    for (int turn = 0; turn < 30; turn++) {
        version = turn % 2 ? TLS1_2_VERSION : TLS1_3_VERSION;
        gulp = 0;
        connect_tls(rig_dice(2) ? 1 + rig_dice(3000) : 0, rig_dice(2) ? 1 + rig_dice(20000) : 0);
        gulp = rig_dice(2) ? 1 + rig_dice(5000) : 0;
        int hellos = 0;
        for (uint32_t n = 1 + rig_dice(30); n; n--) {
            char text[200];
            uint32_t kind = rig_dice(4);
            hellos += kind < 3;
            if (kind < 3)
                strcpy(text, GET);
            else
                snprintf(text, sizeof text, "GET /pieces?n=%u&piece=%u HTTP/1.1\r\nHost: x\r\n\r\n",
                         rig_dice(40000), 1 + rig_dice(4000));
            size_t len = strlen(text), half = rig_dice((uint32_t)len - 1) + 1;
            assert_int_equal(SSL_write(client, text, (int)half), (int)half);
            if (rig_dice(2)) {
                rig_run();
                pump();
            }
            assert_int_equal(SSL_write(client, text + half, (int)(len - half)), (int)(len - half));
            if (rig_dice(2)) {
                rig_run();
                pump();
            }
        }
        talk();
        assert_true(rig_is_idle());
        int seen = 0;
        for (const char *at = heard_text(); (at = strstr(at, "hello\n")) != NULL; at++)
            seen++;
        assert_int_equal(seen, hellos);
        say_goodbye();
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(requests),     TEST(pipelined),   TEST(large_answers), TEST(large_echo),
        TEST(close_notify), TEST(until_close), TEST(client_ends),   TEST(handshakes),
        TEST(key_update),   TEST(random_talk),
    };
    return cmocka_run_group_tests(tests, make_context, free_context);
}
