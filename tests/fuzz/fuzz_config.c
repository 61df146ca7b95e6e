/* SPDX-License-Identifier: MIT */
/* Any bytes as a configuration: they are taken, and can be explained and freed, or refused with one
 * line "FILE:LINE: sentence" whose line is in the file. So is what `modus stop` reads of it, and of a
 * file that is taken it reads what the server does. Handlers and models are the tests' own:
 * they have an option of every kind. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/config_reader.h"
#include "tests/unit/test_config_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_config: %s\n", what);
    abort();
}

static void check_refusal(const char *why, const char *text, size_t size)
{
    long lines = 1, line;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    char *end;
    must(strncmp(why, "f.conf:", 7) == 0, "no file in the message");
    line = strtol(why + 7, &end, 10);
    must(line >= 1 && line <= lines, "a line that the file has not");
    must(end[0] == ':' && end[1] == ' ' && end[2] != '\0', "no sentence in the message");
    must(strchr(why, '\n') == NULL, "a message of two lines");
}

static void check_control(const struct config *whole, const char *text, size_t size)
{
    char why[1024] = "";
    struct config *c = config_parse_control("f.conf", "/folder", text, size, why, sizeof why);
    must(c || !whole, "no control in a file that is taken");
    if (!c)
        check_refusal(why, text, size);
    if (whole)
        must(strcmp(c->control, whole->control) == 0, "another control");
    config_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *nowhere;
    char why[1024] = "";
    const char *text = (const char *)data;
    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
    must(nowhere != NULL, "/dev/null can't be opened");
    struct config *c = config_parse("f.conf", "/folder", text, size, why, sizeof why);
    check_control(c, text, size);
    if (!c) {
        check_refusal(why, text, size);
        return 0;
    }
    must(c->listener_count > 0, "taken without a listener");
    config_explain_to(c, nowhere);
    config_free(c);
    return 0;
}
