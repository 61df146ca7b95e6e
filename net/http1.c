/* SPDX-License-Identifier: MIT */
/* llhttp, held: a head goes in whole and its parts come out as places in it; a body goes in as it
 * arrives and comes out decoded. Separate so that nobody else sees llhttp's callbacks.
 */
#include "net/http1.h"

#include "net/exchange.h"

static struct http1_request *request_of(llhttp_t *p)
{
    return p->data;
}

static uint32_t place(const struct http1_request *r, const char *at)
{
    return (uint32_t)(at - r->base);
}

static int on_url(llhttp_t *p, const char *at, size_t len)
{
    struct http1_request *r = request_of(p);
    r->target = place(r, at);
    r->target_len = (uint32_t)len;
    return 0;
}

/* base is NULL while a body is read: trailers are checked by the guard and dropped. */
static int on_field(llhttp_t *p, const char *at, size_t len)
{
    struct http1_request *r = request_of(p);
    if (!r->base)
        return 0;
    if (r->header_count == HTTP1_HEADERS_MAX || len > UINT16_MAX)
        return -1;
    r->headers[r->header_count++] =
        (struct http1_header){.name = place(r, at), .name_len = (uint16_t)len};
    return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t len)
{
    struct http1_request *r = request_of(p);
    if (!r->base || r->header_count == 0)
        return 0;
    while (len && (at[len - 1] == ' ' || at[len - 1] == '\t'))
        len--;
    struct http1_header *h = &r->headers[r->header_count - 1];
    h->value = place(r, at);
    h->value_len = (uint32_t)len;
    return 0;
}

static int on_headers_complete(llhttp_t *p)
{
    struct http1_request *r = request_of(p);
    r->minor = p->http_minor;
    /* llhttp lets keep-alive win on HTTP/1.0; RFC 9112, 9.3 says close. */
    r->keep_alive = llhttp_should_keep_alive(p) != 0 && !(p->flags & F_CONNECTION_CLOSE);
    r->chunked = (p->flags & F_CHUNKED) != 0;
    r->content_length = p->flags & F_CONTENT_LENGTH ? (int64_t)p->content_length : -1;
    return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t len)
{
    struct http1_request *r = request_of(p);
    return r->sink ? r->sink(r->sink_arg, at, len) : 0;
}

static int on_message_complete(llhttp_t *p)
{
    request_of(p)->complete = true;
    return 0;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* What is served; everything else that looks like a method is 501. */
static unsigned method_of(const char *head, size_t len, struct str *text)
{
    static const struct {
        struct str text;
        unsigned bit;
    } methods[] = {
        {{"GET", 3}, EXCHANGE_GET},         {{"HEAD", 4}, EXCHANGE_HEAD},
        {{"POST", 4}, EXCHANGE_POST},       {{"PUT", 3}, EXCHANGE_PUT},
        {{"DELETE", 6}, EXCHANGE_DELETE},   {{"PATCH", 5}, EXCHANGE_PATCH},
        {{"OPTIONS", 7}, EXCHANGE_OPTIONS},
    };
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        const struct str *m = &methods[i].text;
        if (len > m->len && head[m->len] == ' ' && memcmp(head, m->at, m->len) == 0) {
            *text = *m;
            return methods[i].bit;
        }
    }
    return 0;
}

/* Looked for once a request; the first letter rules out nearly all. */
static bool expects_continue(const struct http1_request *r, const char *head)
{
    for (unsigned i = 0; i < r->header_count; i++) {
        const struct http1_header *h = &r->headers[i];
        if (h->name_len == 6 && (head[h->name] | 32) == 'e' &&
            str_is_nocase((struct str){head + h->name, 6}, STR("expect")))
            return true;
    }
    return false;
}

/* Blanks behind a value are no part of it (RFC 9110, 5.5), but llhttp takes a tab for one there. */
static void blank_last_tabs(char *head, size_t len)
{
    if (!memchr(head, '\t', len))
        return;
    for (char *cr = memchr(head, '\r', len); cr;
         cr = memchr(cr + 1, '\r', len - (size_t)(cr + 1 - head)))
        for (char *p = cr; p > head && (p[-1] == ' ' || p[-1] == '\t'); p--)
            p[-1] = ' ';
}

int http1_parse(struct http1_request *r, char *head, size_t len)
{
    int status = http1_guard(head, len);
    if (status)
        return status;
    r->method = method_of(head, len, &r->method_text);
    if (!r->method)
        return 501;
    blank_last_tabs(head, len);
    r->header_count = 0;
    r->complete = false;
    r->sink = NULL;
    r->base = head;
    llhttp_init(&r->parser, HTTP_REQUEST, &settings);
    r->parser.data = r;
    llhttp_errno_t error = llhttp_execute(&r->parser, head, len);
    /* An Upgrade is not taken up: the request is served as if it had not asked. */
    if (error == HPE_PAUSED_UPGRADE) {
        llhttp_resume_after_upgrade(&r->parser);
        r->complete = true;
        error = HPE_OK;
    }
    r->base = NULL;
    if (error != HPE_OK)
        return 400;
    r->expect_continue = r->minor == 1 && expects_continue(r, head);
    return 0;
}

int http1_body(struct http1_request *r, const char *bytes, size_t len,
               int (*sink)(void *arg, const char *at, size_t len), void *arg)
{
    r->sink = sink;
    r->sink_arg = arg;
    llhttp_errno_t error = llhttp_execute(&r->parser, bytes, len);
    r->sink = NULL;
    if (error == HPE_PAUSED_UPGRADE) {
        r->complete = true;
        return 0;
    }
    if (error == HPE_OK)
        return 0;
    return 400;
}
