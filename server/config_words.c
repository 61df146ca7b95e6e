/* SPDX-License-Identifier: MIT */
/* Which words may stand where. Made anew for each reading, because the handlers bring theirs.
 *
 * libconfuse copies the whole table below a section each time that section stands in the file,
 * which is why config_text.c bounds the number of sections before libconfuse sees any. */
#include "server/config_reader.h"

#include <stdlib.h>
#include <string.h>

#include "handlers/handler.h"
#include "server/config_keys.h"

/* Every value is a string, so that the typed parsers are ours; no option has a default, so that
 * what is in the tree was in the file. */
static cfg_opt_t word_value(const char *name)
{
    return (cfg_opt_t)CFG_STR(name, NULL, CFGF_NODEFAULT);
}

static cfg_opt_t word_list(const char *name)
{
    return (cfg_opt_t)CFG_STR_LIST(name, NULL, CFGF_NODEFAULT);
}

static cfg_opt_t word_section(const char *name, cfg_opt_t *inside)
{
    return (cfg_opt_t)CFG_SEC(name, inside, CFGF_MULTI | CFGF_TITLE);
}

/* A table of the keys and room for more words; *end is where they go. */
static cfg_opt_t *words_of_keys(const struct key *keys, size_t more, cfg_opt_t **end)
{
    size_t n = config_keys_count(keys);
    cfg_opt_t *words = calloc(n + more + 1, sizeof *words);
    for (size_t i = 0; words && i < n; i++)
        words[i] = word_value(keys[i].name);
    *end = words ? words + n : NULL;
    return words;
}

static cfg_opt_t *words_of_handler(const struct handler *h)
{
    static const struct option none[] = {{0}};
    const struct option *options = h->options ? h->options : none;
    size_t n = 0;
    while (options[n].name)
        n++;
    cfg_opt_t *words = calloc(n + 1, sizeof *words);
    for (size_t i = 0; words && i < n; i++)
        words[i] = word_value(options[i].name);
    return words;
}

static void words_free(cfg_opt_t *words)
{
    for (size_t i = 0; words && words[i].name; i++)
        words_free(words[i].subopts);
    free(words);
}

/* The handlers' sections, at *at. Returns false when memory is out. */
static bool add_handlers(cfg_opt_t **at)
{
    const struct handler *h;
    for (size_t i = 0; (h = handler_at(i)) != NULL; i++) {
        cfg_opt_t *options = words_of_handler(h);
        if (!options)
            return false;
        *(*at)++ = word_section(h->name, options);
    }
    return true;
}

static size_t count_handlers(void)
{
    size_t n = 0;
    while (handler_at(n))
        n++;
    return n;
}

static cfg_opt_t *words_of_route(void)
{
    cfg_opt_t *words = calloc(count_handlers() + 1, sizeof *words), *end = words;
    if (words && add_handlers(&end))
        return words;
    words_free(words);
    return NULL;
}

static cfg_opt_t *words_of_listen(void)
{
    cfg_opt_t *end, *tls_end;
    cfg_opt_t *words = words_of_keys(config_keys_listen, 3 + count_handlers(), &end);
    if (!words)
        return NULL;
    *end++ = word_list("also");
    cfg_opt_t *tls = words_of_keys(config_keys_tls, 0, &tls_end);
    if (tls)
        *end++ = word_section("tls", tls);
    cfg_opt_t *route = words_of_route();
    if (route)
        *end++ = word_section("route", route);
    if (tls && route && add_handlers(&end))
        return words;
    words_free(words);
    return NULL;
}

cfg_opt_t *config_words_new(void)
{
    cfg_opt_t *end;
    cfg_opt_t *words = words_of_keys(config_keys_top, 1, &end);
    cfg_opt_t *listen = words_of_listen();
    if (words && listen) {
        *end = word_section("listen", listen);
        return words;
    }
    words_free(words);
    words_free(listen);
    return NULL;
}

void config_words_free(cfg_opt_t *words)
{
    words_free(words);
}

const char *config_words_title(const char *section)
{
    if (strcmp(section, "listen") == 0)
        return "an address, such as listen \"127.0.0.1:8080\" { ... }";
    if (strcmp(section, "route") == 0)
        return "a path, such as route \"/\" { ... }";
    return NULL;
}

/* --- what later issues ask for ------------------------------------------------------------ */

static const struct reserved {
    const char *section; /* NULL: any; "" outside of all */
    const char *word;
} reserved[] = {
    {"", "lab"},
    {"status", "control"},
    {"route", "proxy"},
};

bool config_words_reserved(const char *section, const char *word)
{
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        if (strcmp(reserved[i].word, word) == 0 &&
            (!reserved[i].section || strcmp(reserved[i].section, section) == 0))
            return true;
    return false;
}
