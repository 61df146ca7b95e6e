/* SPDX-License-Identifier: MIT */
/* The URL of what is to be loaded: see server/lab/url.h. */
#include "server/lab/url.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SHOWN = 60 };

/* Only the beginning of what is long, or the reason would have no room. */
static int refuse(const char *text, const char *reason, char *why, size_t why_size)
{
    bool all = strlen(text) <= SHOWN;
    snprintf(why, why_size, "%.*s%s is no URL that can be loaded: %s", SHOWN, text,
             all ? "" : "...", reason);
    return -1;
}

static const char *skip_scheme(const char *text, bool *tls)
{
    *tls = strncasecmp(text, "https://", 8) == 0;
    if (*tls)
        return text + 8;
    return strncasecmp(text, "http://", 7) == 0 ? text + 7 : NULL;
}

static bool is_port(const char *text, size_t len)
{
    char digits[6] = "";
    if (len < 1 || len > 5 || strspn(text, "0123456789") < len)
        return false;
    memcpy(digits, text, len);
    int port = atoi(digits);
    return port > 0 && port < 65536;
}

/* A control character or a blank would end the request line. */
static bool is_plain(const char *path)
{
    for (; *path; path++)
        if ((unsigned char)*path <= ' ' || *path == 0x7f || *path == '#')
            return false;
    return true;
}

/* "name", "name:80", "[::1]", "[::1]:80" */
static const char *split_authority(struct lab_url *url, const char *at, size_t len)
{
    bool brackets = len && *at == '[';
    const char *end = brackets ? memchr(at, ']', len) : memchr(at, ':', len);
    const char *host = at + brackets, *port = end && brackets ? end + 1 : end;
    size_t host_len = end ? (size_t)(end - host) : len;
    size_t port_len = port ? len - (size_t)(port - at) : 0;
    if (brackets && !end)
        return "its address has no \"]\"";
    if (host_len == 0 || host_len >= sizeof url->host || memchr(at, '@', len))
        return "it names no server";
    snprintf(url->host, sizeof url->host, "%.*s", (int)host_len, host);
    snprintf(url->port, sizeof url->port, "%s", url->tls ? "443" : "80");
    if (port_len == 0)
        return NULL;
    if (*port != ':' || !is_port(port + 1, port_len - 1))
        return "its port is no number from 1 to 65535";
    snprintf(url->port, sizeof url->port, "%.*s", (int)port_len - 1, port + 1);
    return NULL;
}

int lab_url_check_path(const char *path, char *why, size_t why_size)
{
    const char *reason = *path != '/'                                        ? "must begin with /"
                         : strlen(path) >= sizeof((struct lab_url *)0)->path ? "is too long"
                         : !is_plain(path)
                             ? "has blanks, control characters or \"#\", which can't be sent"
                             : NULL;
    if (reason)
        snprintf(why, why_size, "the path %s", reason);
    return reason ? -1 : 0;
}

int lab_url_parse(const char *text, struct lab_url *url, char *why, size_t why_size)
{
    const char *rest = skip_scheme(text, &url->tls);
    if (!rest)
        return refuse(text, "it must begin with http:// or https://", why, why_size);
    size_t len = strcspn(rest, "/?");
    const char *path = rest + len, *slash = *path == '/' ? "" : "/";
    if (len >= sizeof url->authority || strlen(path) + 2 > sizeof url->path)
        return refuse(text, "it is too long", why, why_size);
    if (!is_plain(path))
        return refuse(text, "blanks, control characters and \"#\" can't be sent in a path", why,
                      why_size);
    snprintf(url->authority, sizeof url->authority, "%.*s", (int)len, rest);
    snprintf(url->path, sizeof url->path, "%s%s", slash, path);
    const char *reason = split_authority(url, rest, len);
    return reason ? refuse(text, reason, why, why_size) : 0;
}

int lab_url_resolve(const struct lab_url *url, struct sockaddr_storage *address, socklen_t *len,
                    char *why, size_t why_size)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int rc = getaddrinfo(url->host, url->port, &hints, &found);
    if (rc != 0) {
        snprintf(why, why_size, "%s has no address: %s", url->host, gai_strerror(rc));
        return -1;
    }
    memcpy(address, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}
