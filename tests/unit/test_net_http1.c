/* SPDX-License-Identifier: MIT */
/* HTTP/1 heads and chunked framing, without a connection: what is strict passes, what RFC 9110 and
 * 9112 forbid does not, and neither depends on how the bytes are cut. All input ends at a page that
 * can't be read, so that a read behind the end ends the program.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/exchange.h"
#include "net/http1.h"

/* --- bytes at the end of memory ------------------------------------------------------------- */

enum { GUARDED = 1 << 20 };

/* A copy that ends where memory ends. Lives until the next call. */
static char *guarded(const void *bytes, size_t len)
{
    static char *area;
    if (!area) {
        area =
            mmap(NULL, GUARDED + 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(area != MAP_FAILED);
        assert_int_equal(mprotect(area + GUARDED, 65536, PROT_NONE), 0);
    }
    assert_true(len <= GUARDED);
    char *at = area + GUARDED - len;
    if (len)
        memmove(at, bytes, len);
    return at;
}

static uint32_t seed = 1;

static uint32_t dice(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

/* --- heads ----------------------------------------------------------------------------------- */

static struct http1_request request;

enum { WHOLE, BYTEWISE, RANDOM, WAYS };

/* How many more bytes come, by way. */
static size_t cut(int way, size_t left)
{
    size_t n = way == WHOLE ? left : way == BYTEWISE ? 1 : 1 + dice(7);
    return n < left ? n : left;
}

/* Find the head's end with the bytes coming in pieces, then parse it. Returns 0 or a status; *end
 * is where the head ended. */
static int take_head(const char *bytes, size_t len, size_t max, int way, size_t *end)
{
    uint32_t resume = 0;
    for (size_t have = 0; have < len;) {
        have += cut(way, len - have);
        long n = http1_head_end(guarded(bytes, have), have, &resume, max);
        assert_true(resume <= have);
        if (n < 0)
            return (int)-n;
        if (n > 0) {
            *end = (size_t)n;
            return http1_parse(&request, guarded(bytes, (size_t)n), (size_t)n);
        }
    }
    return -1; /* no end */
}

/* Fails unless the head meets this status, however it is cut. */
static void expect_head(const char *bytes, size_t len, int status)
{
    for (int way = 0; way < WAYS; way++) {
        size_t end = len;
        int got = take_head(bytes, len, 32768, way, &end);
        if (got != status)
            fail_msg("way %d: %d instead of %d for:\n%.*s", way, got, status, (int)len, bytes);
        if (got == 0)
            assert_int_equal(end, len);
    }
}

static void expect(const char *head, int status)
{
    expect_head(head, strlen(head), status);
}

#define HEAD(lines) "GET / HTTP/1.1\r\nHost: x\r\n" lines "\r\n"
#define POST(lines) "POST / HTTP/1.1\r\nHost: x\r\n" lines "\r\n"

static void request_lines(void **state)
{
    (void)state;
    expect("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0);
    expect("GET / HTTP/1.0\r\n\r\n", 0);
    expect("GET / HTTP/1.0\r\nHost: x\r\n\r\n", 0);
    expect("GET /a?b=c&d[]={} HTTP/1.1\r\nHost: x\r\n\r\n", 0);
    expect("GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 0);
    expect("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 0);
    static const char *const served[] = {"GET",    "HEAD",  "POST",   "PUT",
                                         "DELETE", "PATCH", "OPTIONS"};
    for (size_t i = 0; i < 7; i++) {
        char head[64];
        snprintf(head, sizeof head, "%s / HTTP/1.1\r\nHost: x\r\n\r\n", served[i]);
        expect(head, 0);
        assert_int_equal(request.method, 1u << i);
        assert_int_equal(request.method_text.len, strlen(served[i]));
        assert_memory_equal(request.method_text.at, served[i], strlen(served[i]));
    }
    static const char *const unknown[] = {
        "TRACE", "CONNECT", "get", "GETS", "GE", "M-SEARCH", "PROPFIND", "Q", "!#$%&'*+-.^_`|~09"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        char head[64];
        snprintf(head, sizeof head, "%s / HTTP/1.1\r\nHost: x\r\n\r\n", unknown[i]);
        expect(head, 501);
    }
    static const char *const bad[] = {
        " GET / HTTP/1.1",
        "\tGET / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / a HTTP/1.1",
        "GET /#a HTTP/1.1",
        "GET /\x80 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET /\x01 HTTP/1.1",
        "GET /",
        "GET / ",
        "GET",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / HTTP/1.",
        "GET / HTTP/11",
        "GET / HTTP/1.11",
        "GET / HTTP/a.1",
        "GET / HTTP/1.1a",
        "GET / HTTPS/1.1",
        "GET / RTSP/1.0",
        "SOURCE / ICE/1.0",
        "G(T / HTTP/1.1",
        "GET: / HTTP/1.1",
        "GET\r/ HTTP/1.1",
        "GET / HTTP/1.1\r",
        "\"GET\" / HTTP/1.1",
        "HTTP/1.1 200 OK",
        "GET / HTTP/ 1.1",
        "GET / HTTP /1.1",
        "GET  HTTP/1.1",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char head[128];
        snprintf(head, sizeof head, "%s\r\nHost: x\r\n\r\n", bad[i]);
        expect(head, 400);
    }
    static const char *const versions[] = {"2.0", "0.9", "1.2", "1.9", "3.0", "9.9", "0.0"};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        char head[64];
        snprintf(head, sizeof head, "GET / HTTP/%s\r\nHost: x\r\n\r\n", versions[i]);
        expect(head, 505);
    }
    expect("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
}

static void line_ends(void **state)
{
    (void)state;
    expect("GET / HTTP/1.1\nHost: x\n\n", 400);
    expect("GET / HTTP/1.1\nHost: x\r\n\r\n", 400);
    expect("GET / HTTP/1.1\r\nHost: x\n\r\n", 400);
    expect("GET / HTTP/1.1\r\nHost: x\r\n\n", 400);
    expect("GET / HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n", 400);
    expect("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\r\n\r\n", 400);
    expect("GET / HTTP/1.1\r\nHost: x\r\n\rA: b\r\n\r\n", 400);
    expect("GET / HTTP/1.1\r\nHost: x\r\nX:\rTransfer-Encoding: chunked\r\n\r\n", 400);
    expect("\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400);
    /* what is no request at all is not waited for */
    expect("\x16\x03\x01\x02", 400);
    expect("GET\"", 400);
    expect("\r", 400); /* the connection does not ask about this */
    expect("GET", -1);
    expect("GET / HT", -1);
}

static void fields(void **state)
{
    (void)state;
    expect(HEAD("A:b\r\n"), 0);
    expect(HEAD("A: \t b \t \r\n"), 0);
    assert_int_equal(request.header_count, 2);
    assert_int_equal(request.headers[1].value_len, 1);
    expect(HEAD("A:\r\n"), 0);
    assert_int_equal(request.headers[1].value_len, 0);
    expect(HEAD("A: \r\nB:\r\nC: d\r\n"), 0);
    assert_int_equal(request.header_count, 4);
    assert_int_equal(request.headers[1].value_len, 0);
    assert_int_equal(request.headers[2].value_len, 0);
    assert_int_equal(request.headers[3].value_len, 1);
    expect(HEAD("A: \x80\xff\xc3\xa9\r\n"), 0);
    expect(HEAD("!#$%&'*+-.^_`|~09aZ: b\r\n"), 0);
    static const char *const bad[] = {
        "A : b", " A: b",  "\tA: b",   "A: b\r\n c", "A: b\r\n\tc", ": b",
        "A",     "A b",    "A\x01: b", "A: \x01",    "A: b\x7f",    "A\x80: b",
        "A(: b", "A/: b",  "A@: b",    "A\t: b",     "A: b\vc",     "A: b\fc",
        "A{: b", "[A]: b", "A;: b",    "\"A\": b",   "A,B: c",      "A\r: b",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char head[128];
        snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", bad[i]);
        expect(head, 400);
        snprintf(head, sizeof head, "GET / HTTP/1.1\r\n%s\r\nHost: x\r\n\r\n", bad[i]);
        expect(head, 400);
    }
    const char nul[] = "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n";
    expect_head(nul, sizeof nul - 1, 400);
    const char nul_line[] = "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n";
    expect_head(nul_line, sizeof nul_line - 1, 400);
    const char nul_name[] = "GET / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n";
    expect_head(nul_name, sizeof nul_name - 1, 400);
}

/* A value of nothing but tabs costs no more than any other: the program is ended if it does. */
static void many_blanks(void **state)
{
    enum { LEN = 1 << 20 };
    static const char begin[] = "GET / HTTP/1.1\r\nHost: x\r\nA:", *const ends[] = {"\r\n\r\n",
                                                                                    "b\r\n\r\n"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        char *head = malloc(LEN);
        memset(head, '\t', LEN);
        memcpy(head, begin, sizeof begin - 1);
        memcpy(head + LEN - strlen(ends[i]), ends[i], strlen(ends[i]));
        alarm(20);
        assert_int_equal(http1_parse(&request, guarded(head, LEN), LEN), 0);
        alarm(0);
        assert_int_equal(request.headers[1].value_len, i);
        free(head);
    }
    expect(POST("Transfer-Encoding:\t \tchunked\t \t\r\n"), 0);
    assert_true(request.chunked);
    expect(POST("Content-Length: 7 \t\r\n"), 0);
    assert_int_equal(request.content_length, 7);
}

static void hosts(void **state)
{
    (void)state;
    expect("GET / HTTP/1.1\r\n\r\n", 400);
    expect("GET / HTTP/1.1\r\nA: b\r\n\r\n", 400);
    expect("GET http://x/ HTTP/1.1\r\n\r\n", 400);
    expect("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400);
    expect("GET / HTTP/1.1\r\nHost: x\r\nhOST: y\r\n\r\n", 400);
    expect("GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400);
    static const char *const good[] = {"",         "x",          "x:80",     "127.0.0.1:1",
                                       "[::1]:80", "[::1%25lo]", "a-b.c_d~", "%41"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char head[128];
        snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
        expect(head, 0);
    }
    static const char *const bad[] = {
        "a b", "a/b",     "a@b", "a\\b", "a?b", "a#b",    "\"a\"",   "a\x80", "<a>",    "a\tb",
        "a:x", "a:80:80", "::1", "[::1", "[]",  "[::1]x", "[::1]:x", "a]",    "[a[b]]", ":80:"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char head[128];
        snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]);
        expect(head, 400);
    }
}

static void lengths(void **state)
{
    (void)state;
    expect(POST("Content-Length: 0\r\n"), 0);
    assert_int_equal(request.content_length, 0);
    expect(POST("Content-Length: 10\r\n"), 0);
    assert_int_equal(request.content_length, 10);
    assert_false(request.chunked);
    expect(POST("content-LENGTH:\t 007 \r\n"), 0);
    assert_int_equal(request.content_length, 7);
    expect(POST("Content-Length: 999999999999999999\r\n"), 0);
    assert_int_equal(request.content_length, 999999999999999999);
    expect(POST("Content-Length: 1000000000000000000\r\n"), 413);
    expect(POST("Content-Length: 18446744073709551616\r\n"), 413);
    expect(POST("Content-Length: 99999999999999999999999999999999999999999\r\n"), 413);
    expect(POST(""), 0);
    assert_int_equal(request.content_length, -1);
    static const char *const bad[] = {"",  "-1",  "+1", "1 1",   "1,1", "1, 1", "0x1", "1a",
                                      "a", "1.0", "1;", "\"1\"", "1e3", ",1",   "\xb2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char head[128];
        snprintf(head, sizeof head, POST("Content-Length: %s\r\n"), bad[i]);
        expect(head, 400);
    }
    expect(POST("Content-Length: 1\r\nContent-Length: 1\r\n"), 400);
    expect(POST("Content-Length: 1\r\nContent-Length: 2\r\n"), 400);
    expect(POST("Content-Length: 1\r\nA: b\r\nCONTENT-LENGTH: 1\r\n"), 400);
    expect(POST("Content-Length : 1\r\n"), 400);
}

static void encodings(void **state)
{
    (void)state;
    expect(POST("Transfer-Encoding: chunked\r\n"), 0);
    assert_true(request.chunked);
    assert_int_equal(request.content_length, -1);
    expect(POST("transfer-encoding:\t CHUNKED \t\r\n"), 0);
    assert_true(request.chunked);
    expect(POST("Transfer-Encoding: gzip, chunked\r\n"), 501);
    expect(POST("Transfer-Encoding: gzip,chunked\r\n"), 501);
    static const char *const bad[] = {
        "",         "identity",  "gzip",        "chunked, gzip", "chunked, chunked", "chunked;a=b",
        "xchunked", "chunkedx",  "\"chunked\"", "chunked,",      ", chunked,",       "gzip chunked",
        "chun ked", "\vchunked",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char head[128];
        snprintf(head, sizeof head, POST("Transfer-Encoding: %s\r\n"), bad[i]);
        expect(head, 400);
    }
    expect(POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400);
    expect(POST("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"), 400);
    expect(POST("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"), 400);
    expect(POST("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400);
    expect(POST("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), 400);
    expect(POST("Transfer-Encoding : chunked\r\n"), 400);
    expect(POST("Transfer-Encoding\t: chunked\r\n"), 400);
    expect(POST("Transfer_Encoding: chunked\r\n"), 0);
    assert_false(request.chunked);
    expect("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
}

static void keeping_alive(void **state)
{
    static const struct {
        const char *lines;
        bool alive_0, alive_1; /* with HTTP/1.0 and 1.1 */
    } cases[] = {
        {"", false, true},
        {"Connection: close\r\n", false, false},
        {"Connection: Close\r\n", false, false},
        {"CONNECTION:close\r\n", false, false},
        {"Connection: keep-alive\r\n", true, true},
        {"Connection: Keep-Alive\r\n", true, true},
        {"Connection: foo\r\n", false, true},
        {"Connection: foo, close\r\n", false, false},
        {"Connection: foo,close\r\n", false, false},
        {"Connection: close, foo\r\n", false, false},
        {"Connection: close,foo\r\n", false, false},
        {"Connection: foo ,\tclose , bar\r\n", false, false},
        {"Connection: , ,close\r\n", false, false},
        {"Connection: closed\r\n", false, true},
        {"Connection: xclose\r\n", false, true},
        {"Connection: close-not\r\n", false, true},
        {"Connection: not close\r\n", false, true},
        {"Connection: foo, keep-alive\r\n", true, true},
        {"Connection: keep-alive, foo\r\n", true, true},
        {"Connection: keep-alive, close\r\n", false, false},
        {"Connection: close, keep-alive\r\n", false, false},
        {"Connection: keep-alive\r\nConnection: close\r\n", false, false},
        {"Connection: close\r\nConnection: keep-alive\r\n", false, false},
        {"Connection: foo\r\nConnection: close\r\n", false, false},
        {"Connection:\r\n", false, true},
        {"Connection: upgrade\r\nUpgrade: h2c\r\n", false, true},
        {"Connection: upgrade, close\r\nUpgrade: h2c\r\n", false, false},
        {"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", true, true},
        {"X-Connection: close\r\n", false, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char head[256];
        for (int minor = 0; minor < 2; minor++) {
            snprintf(head, sizeof head, "GET / HTTP/1.%d\r\nHost: x\r\n%s\r\n", minor,
                     cases[i].lines);
            expect(head, 0);
            if (request.keep_alive != (minor ? cases[i].alive_1 : cases[i].alive_0))
                fail_msg("HTTP/1.%d, %s: %s", minor, cases[i].lines,
                         request.keep_alive ? "kept alive" : "closed");
        }
    }
}

static void places(void **state)
{
    static const char head[] =
        "PUT /a/b?c HTTP/1.1\r\nHost: x\r\nA-b:  c d \r\nExpect: 100-continue\r\n\r\n";
    (void)state;
    expect(head, 0);
    assert_int_equal(request.target_len, 6);
    assert_memory_equal(head + request.target, "/a/b?c", 6);
    assert_int_equal(request.header_count, 3);
    const struct http1_header *h = &request.headers[1];
    assert_int_equal(h->name_len, 3);
    assert_memory_equal(head + h->name, "A-b", 3);
    assert_int_equal(h->value_len, 3);
    assert_memory_equal(head + h->value, "c d", 3);
    assert_true(request.expect_continue);
    assert_int_equal(request.minor, 1);
    expect("PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", 0);
    assert_false(request.expect_continue); /* an HTTP/1.0 client can't mean it */
    expect(HEAD("Expectation: a\r\n"), 0);
    assert_false(request.expect_continue);
}

/* A head of exactly len bytes, its last field filled up. */
static char *head_of(size_t len)
{
    static const char begin[] = "GET / HTTP/1.1\r\nHost: x\r\nA: ";
    char *head = malloc(len + 1);
    memset(head, 'a', len);
    memcpy(head, begin, sizeof begin - 1);
    memcpy(head + len - 4, "\r\n\r\n", 5);
    return head;
}

/* A request line of exactly len bytes with its CRLF, and a head to it. */
static char *line_of(size_t len)
{
    char *head = malloc(len + 16);
    memset(head, 'a', len);
    memcpy(head, "GET /", 5);
    memcpy(head + len - 11, " HTTP/1.1\r\nHost: x\r\n\r\n", 23);
    return head;
}

static void size_limits(void **state)
{
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        size_t end;
        char *fits = head_of(4096), *over = head_of(4097), *huge = head_of(9000);
        assert_int_equal(take_head(fits, 4096, 4096, way, &end), 0);
        assert_int_equal(take_head(over, 4097, 4096, way, &end), 431);
        assert_int_equal(take_head(huge, 9000, 4096, way, &end), 431);
        assert_int_equal(take_head(huge, 5000, 4096, way, &end), 431); /* its end need not come */
        free(fits), free(over), free(huge);
        fits = line_of(HTTP1_LINE_MAX), over = line_of(HTTP1_LINE_MAX + 2);
        assert_int_equal(take_head(fits, strlen(fits), 32768, way, &end), 0);
        assert_int_equal(take_head(over, strlen(over), 32768, way, &end), 414);
        assert_int_equal(take_head(over, HTTP1_LINE_MAX + 1, 32768, way, &end), 414);
        free(fits), free(over);
    }
}

static void count_limits(void **state)
{
    (void)state;
    for (int count = 98; count <= 101; count++) {
        char head[4096];
        size_t len = (size_t)snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: x\r\n");
        for (int i = 0; i < count; i++)
            len += (size_t)snprintf(head + len, sizeof head - len, "A%d: b\r\n", i);
        snprintf(head + len, sizeof head - len, "\r\n");
        expect(head, count < HTTP1_HEADERS_MAX ? 0 : 431);
        if (count < HTTP1_HEADERS_MAX)
            assert_int_equal(request.header_count, count + 1);
    }
}

/* A second request behind the first is not touched. */
static void pipelined(void **state)
{
    static const char two[] =
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: y\r\n\r\n";
    (void)state;
    uint32_t resume = 0;
    assert_int_equal(http1_head_end(guarded(two, sizeof two - 1), sizeof two - 1, &resume, 1000),
                     28);
    assert_int_equal(http1_parse(&request, guarded(two, 28), 28), 0);
    resume = 0;
    assert_int_equal(http1_head_end(guarded(two + 28, 28), 28, &resume, 28), 28);
}

/* --- bodies ---------------------------------------------------------------------------------- */

static char body[1 << 17];
static size_t body_len;

static int to_body(void *arg, const char *at, size_t len)
{
    assert_ptr_equal(arg, body);
    assert_true(body_len + len <= sizeof body);
    memcpy(body + body_len, at, len);
    body_len += len;
    return 0;
}

/* Read a chunked body with its bytes coming in pieces. Returns how many bytes were its own, 0 when
 * it has no end, or -1. */
static long take_chunks(const char *bytes, size_t len, int way)
{
    struct http1_chunks guard = {0};
    size_t end, used = 0;
    static const char head[] = POST("Transfer-Encoding: chunked\r\n");
    assert_int_equal(take_head(head, sizeof head - 1, 1000, WHOLE, &end), 0);
    body_len = 0;
    for (size_t left = len; left;) {
        size_t n = cut(way, left);
        bool ended = false;
        char *at = guarded(bytes + used, n);
        size_t skip;
        long share = http1_chunks_take(&guard, at, n, &skip, &ended);
        if (share < 0)
            return -1;
        assert_true(share + (long)skip > 0 && (size_t)share + skip <= n);
        if (http1_body(&request, at, (size_t)share, to_body, body) != 0)
            return -1;
        assert_int_equal(ended, request.complete);
        used += (size_t)share + skip;
        left -= (size_t)share + skip;
        if (ended)
            return (long)used;
    }
    return 0;
}

static void expect_chunks(const char *bytes, const char *decoded)
{
    for (int way = 0; way < WAYS; way++) {
        long n = take_chunks(bytes, strlen(bytes), way);
        if (n != (long)strlen(bytes))
            fail_msg("way %d: %ld for:\n%s", way, n, bytes);
        assert_int_equal(body_len, strlen(decoded));
        assert_memory_equal(body, decoded, body_len);
        /* what comes after it is left alone */
        char more[4096];
        snprintf(more, sizeof more, "%sGET / HTTP/1.1\r\n", bytes);
        assert_int_equal(take_chunks(more, strlen(more), way), n);
        /* and without its last byte it has no end */
        assert_int_equal(take_chunks(bytes, strlen(bytes) - 1, way), 0);
    }
}

static void chunks(void **state)
{
    (void)state;
    expect_chunks("0\r\n\r\n", "");
    expect_chunks("3\r\nabc\r\n0\r\n\r\n", "abc");
    expect_chunks("1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n", "abcdef");
    expect_chunks("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789");
    expect_chunks("0003\r\nabc\r\n00\r\n\r\n", "abc");
    expect_chunks("3\r\n\r\n\r\r\n0\r\n\r\n", "\r\n\r");
    expect_chunks("3;a\r\nabc\r\n0;b\r\n\r\n", "abc");
    expect_chunks("3;a=b;c=\"d;e\"\r\nabc\r\n0\r\n\r\n", "abc");
    expect_chunks("3;a=\"\\\"\\\\\"\r\nabc\r\n0\r\n\r\n", "abc");
    expect_chunks("0\r\nA: b\r\n\r\n", "");
    expect_chunks("1\r\na\r\n0\r\nA: b\r\nC:\r\nD: \t e f\r\n\r\n", "a");
    expect_chunks("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n");
}

static void bad_chunks(void **state)
{
    static const char *const bad[] = {
        "\r\n",
        "g\r\n",
        "-1\r\na\r\n",
        "+1\r\na\r\n",
        " 1\r\na\r\n",
        "1 \r\na\r\n",
        "0x1\r\na\r\n",
        "1\na\r\n",
        "1\r\na\n",
        "1\r\nab\r\n",
        "1\r\naXX0\r\n",
        "1\r\na0\r\n",
        "1\r\n\r\n0\r\n\r\n",
        "1\ra\r\n",
        "1\r\na\r0\r\n",
        "0\n\n",
        "0\r\n\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA b\r\n\r\n",
        "0\r\n A: b\r\n",
        "0\r\nA : b\r\n",
        "0\r\n: b\r\n",
        "0\r\nA: b\r\n c\r\n",
        "0\r\nA: \x01\r\n",
        "0\r\n\rx",
        "1;a\nb\r\n",
        "1;\x01\r\na\r\n",
        "1\r\na\r\n;\r\n",
        "10000000000000000\r\n",
        "ffffffffffffffff\r\n",
        "0000000000000001\r\n",
        "1,2\r\na\r\n",
        "1\t\r\na\r\n",
        "0\r\nA:b\rC:d\r\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int way = 0; way < WAYS; way++) {
            char with_more[128]; /* the refusal may need a byte more, but no more than that */
            snprintf(with_more, sizeof with_more, "%s0\r\n\r\n0\r\n\r\n", bad[i]);
            long n = take_chunks(with_more, strlen(with_more), way);
            if (n != -1)
                fail_msg("way %d: %ld for:\n%s", way, n, bad[i]);
        }
}

static void chunk_limits(void **state)
{
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        /* the largest size that is read: nobody adds it to anything that overflows */
        assert_int_equal(take_chunks("fffffffffffffff\r\nabc", 20, way), 0);
        assert_int_equal(body_len, 3);
        char *line = malloc(20000);
        memset(line, 'a', 20000);
        memcpy(line, "1;", 2);
        assert_int_equal(take_chunks(line, 1000, way), 0);
        assert_int_equal(take_chunks(line, 1100, way), -1);
        memcpy(line, "0\r\nA:", 5);
        assert_int_equal(take_chunks(line, 8000, way), 0);
        assert_int_equal(take_chunks(line, 8300, way), -1);
        for (size_t i = 3; i < 20000 - 4; i += 4)
            memcpy(line + i, "A:\r\n", 4);
        assert_int_equal(take_chunks(line, 12000, way), -1); /* all trailers together */
        free(line);
    }
}

/* Random framing of random bytes comes out as it went in. */
static void random_chunks(void **state)
{
    (void)state;
    for (int turn = 0; turn < 200; turn++) {
        static char framed[40000], plain[20000];
        size_t len = 0, sum = 0;
        for (uint32_t n = dice(20); n; n--) {
            size_t size = 1 + dice(dice(4) ? 20 : 800);
            static const char *const extensions[] = {"", ";a", ";a=b;c=d", ";a=\"\\\"\\\\;\";b"};
            len += (size_t)snprintf(framed + len, 64, dice(2) ? "%zx%s\r\n" : "0%zX%s\r\n", size,
                                    extensions[dice(4)]);
            for (size_t i = 0; i < size; i++)
                framed[len + i] = plain[sum + i] = (char)dice(256);
            len += size;
            sum += size;
            len += (size_t)snprintf(framed + len, 64, "\r\n");
        }
        len += (size_t)snprintf(framed + len, 64, "0\r\n\r\n");
        for (int way = 0; way < WAYS; way++) {
            assert_int_equal(take_chunks(framed, len, way), (long)len);
            assert_int_equal(body_len, sum);
            assert_memory_equal(body, plain, sum);
        }
    }
}

/* A sink that has enough stops the body. */
static int refuse(void *arg, const char *at, size_t len)
{
    (void)arg, (void)at, (void)len;
    return 413;
}

static void sink_stops(void **state)
{
    static const char head[] = POST("Content-Length: 3\r\n");
    size_t end;
    (void)state;
    assert_int_equal(take_head(head, sizeof head - 1, 1000, WHOLE, &end), 0);
    assert_int_not_equal(http1_body(&request, "abc", 3, refuse, NULL), 0);
}

/* By length, whole and in pieces, with an Upgrade that is not taken up too. */
static void counted_bodies(void **state)
{
    static const char *const heads[] = {
        POST("Content-Length: 10\r\n"),
        POST("Content-Length: 10\r\nConnection: close\r\n"),
        POST("Content-Length: 10\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"),
        "POST / HTTP/1.0\r\nContent-Length: 10\r\n\r\n",
    };
    (void)state;
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
        for (int way = 0; way < WAYS; way++) {
            size_t end;
            assert_int_equal(take_head(heads[h], strlen(heads[h]), 1000, way, &end), 0);
            body_len = 0;
            for (size_t used = 0; used < 10;) {
                assert_false(request.complete);
                size_t n = cut(way, 10 - used);
                assert_int_equal(
                    http1_body(&request, guarded(&"0123456789"[used], n), n, to_body, body), 0);
                used += n;
            }
            assert_true(request.complete);
            assert_int_equal(body_len, 10);
            assert_memory_equal(body, "0123456789", 10);
        }
}

static void tokens(void **state)
{
    (void)state;
    assert_true(http1_is_token(STR("Content-Type")));
    assert_true(http1_is_token(STR("!#$%&'*+-.^_`|~")));
    assert_false(http1_is_token(STR("")));
    assert_false(http1_is_token(STR("a b")));
    assert_false(http1_is_token(STR("a:")));
    assert_false(http1_is_token(STR("a\r\nb")));
    assert_false(http1_is_token((struct str){"a\0b", 3}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_lines), cmocka_unit_test(line_ends),
        cmocka_unit_test(fields),        cmocka_unit_test(many_blanks),
        cmocka_unit_test(hosts),         cmocka_unit_test(lengths),
        cmocka_unit_test(encodings),     cmocka_unit_test(keeping_alive),
        cmocka_unit_test(places),        cmocka_unit_test(size_limits),
        cmocka_unit_test(count_limits),  cmocka_unit_test(pipelined),
        cmocka_unit_test(chunks),        cmocka_unit_test(bad_chunks),
        cmocka_unit_test(chunk_limits),  cmocka_unit_test(random_chunks),
        cmocka_unit_test(sink_stops),    cmocka_unit_test(counted_bodies),
        cmocka_unit_test(tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
