/* SPDX-License-Identifier: MIT */
/* The one thing that may be asked for on the page: another model for a listener.
 *
 * Who can connect may ask; the listener has addresses for this machine only. What is kept out is what
 * a page of somebody else's, open in the same browser, could make that browser do:
 *
 *   it posts a form or a fetch here        its Origin is not our Host, Sec-Fetch-Site says cross-site,
 *                                          and it does not know the token
 *   it reads the token                     no answer allows other origins to read it, or to frame it
 *   its own name is made to mean 127.0.0.1 (DNS rebinding), so that the browser takes it for us: its
 *                                          Host is that name, and only names of this machine are taken
 *
 * A browser's lies are not expected; who has no browser needs no lies. What was refused is said in
 * the error log, in our own words. */
#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>

#include "handlers/handler.h"
#include "handlers/status_priv.h"

enum { BODY_MAX = 1024, FIELD_MAX = 256 };

/* --- who asks --------------------------------------------------------------------------------- */

/* All digits, at least one. */
static bool is_port(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
    return s.len > 0 && s.len <= 5;
}

/* "127.0.0.1" and its like: four numbers, the first of which is 127. */
static bool is_loopback_ipv4(struct str s)
{
    unsigned dots = 0, digits = 0;
    for (size_t i = 0; i < s.len; i++) {
        bool dot = s.at[i] == '.';
        if (!dot && (s.at[i] < '0' || s.at[i] > '9'))
            return false;
        if (dot && digits == 0)
            return false;
        dots += dot;
        digits = dot ? 0 : digits + 1;
        if (digits > 3)
            return false;
    }
    return dots == 3 && digits > 0 && memcmp(s.at, "127.", 4) == 0;
}

static bool is_loopback_name(struct str s)
{
    return str_is_nocase(s, STR("localhost")) || str_is(s, STR("[::1]")) || is_loopback_ipv4(s);
}

/* A port may follow: where the page is reached through a tunnel, another than ours. */
static bool is_loopback_host(struct str host)
{
    size_t name = host.len;
    while (name > 0 && host.at[name - 1] != ':' && host.at[name - 1] != ']')
        name--;
    if (name == 0 || host.at[name - 1] == ']')
        return is_loopback_name(host);
    return is_port((struct str){host.at + name, host.len - name}) &&
           is_loopback_name((struct str){host.at, name - 1});
}

bool status_control_host(struct exchange *x)
{
    struct str target = exchange_target(x);
    if (str_is(exchange_peer(x), STR("unix:")))
        return true;
    return target.len && target.at[0] == '/' && is_loopback_host(exchange_header(x, "host"));
}

/* "http://HOST", or https: what the browser calls a page of ours. */
static bool is_own_origin(const struct exchange *x, struct str origin)
{
    struct str host = exchange_header(x, "host");
    static const struct str schemes[] = {{"http://", 7}, {"https://", 8}};
    for (size_t i = 0; i < 2; i++) {
        size_t len = schemes[i].len;
        if (origin.len == len + host.len && memcmp(origin.at, schemes[i].at, len) == 0 &&
            str_is_nocase((struct str){origin.at + len, host.len}, host))
            return true;
    }
    return false;
}

/* Returns NULL, or what is wrong with where the request comes from. */
static const char *foreign(const struct exchange *x)
{
    struct str origin = exchange_header(x, "origin"), site = exchange_header(x, "sec-fetch-site");
    if (origin.at && !is_own_origin(x, origin))
        return "its Origin is another site's";
    if (site.at && !str_is(site, STR("same-origin")))
        return "its Sec-Fetch-Site is not same-origin";
    return NULL;
}

/* --- what it asks for ------------------------------------------------------------------------- */

static int digit_of(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* A field's text as it was before it became part of a form. Returns false if it cannot be one. */
static bool decode(struct str s, char out[FIELD_MAX])
{
    size_t len = 0;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i] == '+' ? ' ' : s.at[i];
        if (c == '%') {
            int high = i + 2 < s.len ? digit_of(s.at[i + 1]) : -1;
            int low = high < 0 ? -1 : digit_of(s.at[i + 2]);
            if (low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (c == '\0' || len + 1 == FIELD_MAX)
            return false;
        out[len++] = c;
    }
    out[len] = '\0';
    return true;
}

/* The form's field of that name, which must be there once. */
static bool field(struct str form, const char *name, char out[FIELD_MAX])
{
    size_t len = strlen(name);
    bool found = false;
    while (form.len) {
        const char *amp = memchr(form.at, '&', form.len);
        struct str pair = {form.at, amp ? (size_t)(amp - form.at) : form.len};
        size_t used = pair.len + (amp != NULL);
        form = (struct str){form.at + used, form.len - used};
        if (pair.len <= len || pair.at[len] != '=' || memcmp(pair.at, name, len) != 0)
            continue;
        if (found || !decode((struct str){pair.at + len + 1, pair.len - len - 1}, out))
            return false;
        found = true;
    }
    return found;
}

static bool is_form(const struct exchange *x)
{
    struct str type = exchange_header(x, "content-type");
    const char *end = type.at ? memchr(type.at, ';', type.len) : NULL;
    if (end)
        type.len = (size_t)(end - type.at);
    while (type.len && type.at[type.len - 1] == ' ')
        type.len--;
    return str_is_nocase(type, STR("application/x-www-form-urlencoded"));
}

/* In a time that tells nothing of how much was right. */
static bool is_token(const char *said, const char *token)
{
    size_t len = strlen(token);
    return len && strlen(said) == len && CRYPTO_memcmp(said, token, len) == 0;
}

/* --- answers ---------------------------------------------------------------------------------- */

static int refuse(struct exchange *x, int status, const char *why)
{
    struct page p = {0};
    exchange_complain(x, "a switch of the model was refused: %s", why);
    page_format(&p, "refused: %s\n", why);
    return page_reply(&p, x, status, "text/plain; charset=utf-8");
}

/* A browser without scripts has followed the form here: show it the page again. */
static int answer(struct exchange *x)
{
    struct str accept = exchange_header(x, "accept");
    if (accept.at && memmem(accept.at, accept.len, "text/html", 9)) {
        int rc = exchange_add(x, "Location", STR("?"));
        return rc < 0 ? rc : exchange_reply(x, 303, NULL, STR(""));
    }
    return exchange_reply(x, 202, "text/plain; charset=utf-8",
                          STR("asked: see what becomes of it in last_switch\n"));
}

static bool is_model(const struct status_control *control, const char *name)
{
    for (const char *const *model = control->models; *model; model++)
        if (strcmp(*model, name) == 0)
            return true;
    return false;
}

/* The whole form is there. */
static int serve(struct exchange *x, struct str form)
{
    const struct status_conf *conf = exchange_conf(x);
    const struct status_control *control = &conf->source->control;
    char token[FIELD_MAX], listener[FIELD_MAX], model[FIELD_MAX];
    if (!field(form, "token", token) || !is_token(token, control->token))
        return refuse(x, 403, "its token is not the one that the page has since this start");
    if (!field(form, "listener", listener) || !field(form, "model", model) ||
        !is_model(control, model))
        return refuse(x, 400, "it names no listener, or no model that there is");
    int rc = control->ask(conf->source->arg, listener, model);
    if (rc == 0)
        return answer(x);
    exchange_add(x, "Retry-After", STR("1"));
    return refuse(x, 503, "others wait for theirs, or the server stops");
}

struct form {
    size_t len;
    char bytes[BODY_MAX];
};

/* The body as far as it has come: a form is small. */
static int take_body(struct exchange *x)
{
    const char *bytes;
    size_t len = exchange_peek(x, &bytes);
    struct form *form = exchange_state(x, sizeof *form);
    if (!form)
        return -ENOMEM;
    if (len > BODY_MAX - form->len)
        return refuse(x, 413, "its form is too large");
    memcpy(form->bytes + form->len, bytes, len);
    form->len += len;
    exchange_consume(x, len);
    return exchange_body_ended(x) ? serve(x, (struct str){form->bytes, form->len}) : 0;
}

static int begin(struct exchange *x)
{
    const struct status_conf *conf = exchange_conf(x);
    const char *wrong = foreign(x);
    if (!conf->source)
        return exchange_reply_error(x, 503);
    if (wrong)
        return refuse(x, 403, wrong);
    if (!is_form(x))
        return refuse(x, 415, "it is not application/x-www-form-urlencoded");
    return take_body(x);
}

int status_control_step(struct exchange *x, enum exchange_event event)
{
    if (event == EXCHANGE_BEGUN)
        return begin(x);
    return event == EXCHANGE_BYTES ? take_body(x) : 0;
}
