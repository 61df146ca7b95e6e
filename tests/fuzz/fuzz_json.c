/* SPDX-License-Identifier: MIT */
/* Any bytes as JSON: refused, or a tree that can be walked, whose texts end inside and whose numbers
 * are finite; and nothing of the bytes is written to. What is taken is taken with blanks around it,
 * too, and in a list. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/lab/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DEEPEST = 64 };

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* Returns how many values there are. */
static size_t walk(const struct json *at, bool has_key, size_t size, unsigned deep)
{
    size_t count = 1;
    check(deep <= DEEPEST);
    check((at->key != NULL) == has_key);
    check(!at->key || strlen(at->key) <= size);
    check(at->kind != JSON_TEXT || strlen(at->text) <= size);
    check(at->kind != JSON_NUMBER || isfinite(at->number));
    check(!at->first || at->kind == JSON_LIST || at->kind == JSON_OBJECT);
    for (const struct json *m = json_first(at); m; m = m->next)
        count += walk(m, at->kind == JSON_OBJECT, size, deep + 1);
    return count;
}

static void put_around(const uint8_t *data, size_t size, const char *before, const char *after,
                       bool deeper)
{
    size_t len = strlen(before) + size + strlen(after);
    char *text = malloc(len);
    check(text != NULL);
    memcpy(text, before, strlen(before));
    memcpy(text + strlen(before), data, size);
    memcpy(text + strlen(before) + size, after, strlen(after));
    struct json *root = json_parse(text, len);
    check(root || deeper);
    json_free(root);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    struct json *root = json_parse((const char *)data, size);
    if (!root)
        return 0;
    check(walk(root, false, size, 1) <= size);
    (void)json_number(json_get(root, "a.0.b"), 0);
    json_free(root);
    put_around(data, size, " \n", "\t ", false);
    put_around(data, size, "[", "]", true);
    return 0;
}
