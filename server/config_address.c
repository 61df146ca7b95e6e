/* SPDX-License-Identifier: MIT */
/* Addresses to listen on: "127.0.0.1:8080", "[::1]:8080", "*:8080", "unix:/path". Numeric only: a
 * name could mean another address tomorrow, and a configuration test must not ask a name server. */
#include "server/config_reader.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "server/config_value.h"

enum { MOST_PATH = sizeof((struct sockaddr_un *)0)->sun_path - 1 };

static int parse_unix(struct config_reader *r, struct config_address *a)
{
    const char *path = a->text + strlen("unix:");
    if (*path == '\0')
        return config_fail(r, a->line, "\"unix:\" needs a path: \"unix:/run/modus.web\"");
    a->is_unix = true;
    a->path = config_keep_path(r, path);
    if (a->path && strlen(a->path) > MOST_PATH)
        return config_fail(r, a->line,
                           "the path of \"%s\" is too long for a socket: %zu bytes, at most %d",
                           value_shown_text(a->text).text, strlen(a->path), (int)MOST_PATH);
    return a->path ? 0 : -1;
}

static int parse_port(struct config_reader *r, struct config_address *a, const char *text)
{
    char why[VALUE_WHY];
    int64_t port;
    if (*text == '\0')
        return config_fail(r, a->line, "\"%s\" needs a port", value_shown_text(a->text).text);
    if (value_number(text, 0, 65535, &port, why) != 0)
        return config_fail(r, a->line, "the port of \"%s\": %s", value_shown_text(a->text).text,
                           why);
    a->port = (uint16_t)port;
    return 0;
}

/* Keep the numeric host in its shortest form, so that the same address is the same text. */
static int parse_host(struct config_reader *r, struct config_address *a, const char *host,
                      int family)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    char shortest[INET6_ADDRSTRLEN];
    if (inet_pton(family, host, bytes) != 1)
        return config_fail(
            r, a->line, "\"%s\" is no IP address; numeric addresses only, such as %s",
            value_shown_text(host).text,
            family == AF_INET ? "\"127.0.0.1:8080\" or \"*:8080\"" : "\"[::1]:8080\"");
    inet_ntop(family, bytes, shortest, sizeof shortest);
    a->host = config_keep_text(r, shortest);
    return a->host ? 0 : -1;
}

static int parse_ipv6(struct config_reader *r, struct config_address *a)
{
    const char *end = strchr(a->text, ']');
    char host[INET6_ADDRSTRLEN + 1];
    if (!end)
        return config_fail(r, a->line, "\"]\" is missing in \"%s\"",
                           value_shown_text(a->text).text);
    if (end[1] != '\0' && end[1] != ':')
        return config_fail(r, a->line, "\":\" and a port must follow \"]\" in \"%s\"",
                           value_shown_text(a->text).text);
    snprintf(host, sizeof host, "%.*s", (int)(end - a->text - 1), a->text + 1);
    if (parse_host(r, a, host, AF_INET6) != 0)
        return -1;
    return parse_port(r, a, end[1] == ':' ? end + 2 : "");
}

static int parse_ipv4(struct config_reader *r, struct config_address *a)
{
    const char *colon = strchr(a->text, ':');
    struct value_shown shown = value_shown_text(a->text);
    char host[64];
    if (!colon && strspn(a->text, "0123456789") == strlen(a->text))
        return config_fail(r, a->line, "\"%s\" needs an address before the port: \"*:%s\"",
                           shown.text, *shown.text ? shown.text : "8080");
    if (strstr(a->text, "://"))
        return config_fail(r, a->line, "an address is HOST:PORT, without \"http://\": \"%s\"",
                           shown.text);
    if (colon && strchr(colon + 1, ':'))
        return config_fail(r, a->line,
                           "IPv6 addresses stand in brackets, such as \"[::1]:8080\": \"%s\"",
                           shown.text);
    snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - a->text) : -1, a->text);
    a->host = "*";
    if (strcmp(host, "*") != 0 && parse_host(r, a, host, AF_INET) != 0)
        return -1;
    return parse_port(r, a, colon ? colon + 1 : "");
}

int config_address_parse(struct config_reader *r, const char *text, int line,
                         struct config_address *address)
{
    *address = (struct config_address){.text = config_keep_text(r, text), .line = line};
    if (!address->text)
        return -1;
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(r, address);
    return text[0] == '[' ? parse_ipv6(r, address) : parse_ipv4(r, address);
}

/* "*" is every address of both families; 0.0.0.0 and [::] are every address of their own. */
static bool holds(const struct config_address *a, const struct config_address *b)
{
    bool a6 = strchr(a->host, ':'), b6 = strchr(b->host, ':');
    if (strcmp(a->host, "*") == 0 || strcmp(a->host, b->host) == 0)
        return true;
    return strcmp(b->host, "*") != 0 && a6 == b6 && strcmp(a->host, a6 ? "::" : "0.0.0.0") == 0;
}

bool config_address_clash(const struct config_address *a, const struct config_address *b)
{
    if (a->is_unix || b->is_unix)
        return a->is_unix && b->is_unix && strcmp(a->path, b->path) == 0;
    if (a->port != b->port || a->port == 0)
        return false;
    return holds(a, b) || holds(b, a);
}
