/* SPDX-License-Identifier: MIT */
/* echo: what comes in goes out again. Over HTTP the request's body, with its own Content-Type; on a
 * TCP listener the bytes of the connection. Nothing is stored here: a byte is consumed only when
 * the answer has taken it, so a peer that does not read is not read from. */
#include "handlers/handler.h"
#include "handlers/number.h"

/* The answer is as long as the body: known from Content-Length, else open until the body ends. */
static int64_t body_length(const struct exchange *x)
{
    int64_t length = 0;
    if (exchange_method(x) == EXCHANGE_DUPLEX || exchange_header(x, "Transfer-Encoding").at)
        return -1;
    if (exchange_header(x, "Content-Length").at &&
        !number_parse(exchange_header(x, "Content-Length"), &length))
        return -1;
    return length;
}

/* The request's type as a C string, which the answer wants. */
static const char *body_type(struct exchange *x)
{
    struct str type = exchange_header(x, "Content-Type");
    char *copy = type.len ? exchange_alloc(x, type.len + 1) : NULL;
    if (!copy)
        return "application/octet-stream";
    memcpy(copy, type.at, type.len);
    copy[type.len] = '\0';
    return copy;
}

/* Move what has come to where there is room, until one of the two is out. */
static int pass_on(struct exchange *x)
{
    const char *bytes;
    size_t len;
    while ((len = exchange_peek(x, &bytes)) > 0) {
        ssize_t taken = exchange_try_write(x, bytes, len);
        if (taken < 0)
            return (int)taken;
        exchange_consume(x, (size_t)taken);
        if ((size_t)taken < len)
            return 0; /* ROOM follows */
    }
    return exchange_body_ended(x) ? exchange_end(x) : 0; /* else BYTES follows */
}

static int echo_step(struct exchange *x, enum exchange_event event)
{
    if (event == EXCHANGE_CANCELLED)
        return 0;
    if (event == EXCHANGE_BEGUN && !exchange_begun(x)) {
        const char *type = exchange_method(x) == EXCHANGE_DUPLEX ? NULL : body_type(x);
        int rc = exchange_begin(x, 200, type, body_length(x));
        if (rc < 0)
            return rc;
    }
    return pass_on(x);
}

const struct handler handler_echo = {
    .name = "echo",
    .summary = "the request's body back; on tcp, the bytes back",
    .entry = {.step = echo_step,
              .methods = EXCHANGE_POST | EXCHANGE_PUT | EXCHANGE_DUPLEX,
              .body = EXCHANGE_BODY_STREAM},
};
