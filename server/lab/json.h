/* SPDX-License-Identifier: MIT */
/* A reader of JSON, for what our own commands have written: the status of a server, results of the
 * lab. Strict (RFC 8259), but that numbers are doubles, a text ends with its first \u0000, and whether
 * it is UTF-8 nobody looks: what prints it does.
 *
 *     struct json *root = json_parse(text, strlen(text));
 *     double total = json_number(json_get(root, "listeners.0.requests.total"), 0);
 *     for (const struct json *l = json_first(json_get(root, "listeners")); l; l = l->next) ...
 *     json_free(root);
 *
 * Safe from: one thread at a time.
 */
#ifndef SERVER_LAB_JSON_H
#define SERVER_LAB_JSON_H

#include <stdbool.h>
#include <stddef.h>

enum json_kind { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_TEXT, JSON_LIST, JSON_OBJECT };

struct json {
    enum json_kind kind;
    const char *key;    /* in an object; else NULL */
    const char *text;   /* JSON_TEXT */
    double number;      /* JSON_NUMBER */
    struct json *first; /* of a list or an object */
    struct json *next;  /* after this one */
};

/* NULL: it is not JSON, or memory is out. Free the root with json_free. */
struct json *json_parse(const char *text, size_t len);
void json_free(struct json *root);
/* Keys, and in lists places (from 0), with dots between; NULL: there is none. Of several members
 * with one key the first; one whose key has a dot is not found. at NULL: NULL. */
const struct json *json_get(const struct json *at, const char *path);
/* NULL for what has no members. */
const struct json *json_first(const struct json *at);
double json_number(const struct json *at, double otherwise);
const char *json_text(const struct json *at, const char *otherwise);
bool json_is_true(const struct json *at);

#endif
