/* SPDX-License-Identifier: MIT */
/* The pass before libconfuse. The file's syntax is libconfuse's and libconfuse reads it, but not
 * before every trap that 3.3 has was checked away here, with a message and an exact line:
 *
 *   - comments shift its line numbers: they are taken out, line ends stay;
 *   - a missing } at the end passes: braces are counted;
 *   - ${VAR} expands, in a "string" and outside: refused;
 *   - a key given twice passes, the last wins: refused;
 *   - what it does not know outside strings ("*", ";", a control character) is dropped: refused;
 *   - "\0" ends a string in the middle: refused;
 *   - "a|b" as a key reaches into sections: only words of the table may be keys;
 *   - it takes minutes for a huge token, and unbounded memory for many sections: both are bounded;
 *   - it has no line for a section but that of its }, and merges sections of the same title: so
 * each string begins with a mark, "LINE.NUMBER ", and sections that need no title get one of a
 * mark.
 *
 * Rejected: lines from libconfuse's validate callbacks. They come at the end of a section and at
 * the value of a key, and say nothing about repeats; this pass must know statements anyway.
 *
 *     statement = WORD "=" value | WORD [title] "{" statements "}"
 *     value     = one | "{" [one {"," one} [","]] "}"         one, title = word or string
 */
#include "server/config_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/config_value.h"

enum {
    MOST_STRING = 64 * 1024, /* bytes between quotes */
    MOST_WORD = 1024,        /* bytes without quotes */
    MOST_SECTIONS = 4096,    /* in a file; each costs libconfuse some 10 kB while it reads */
    MOST_ITEMS = 1024,       /* in a list */
};

enum token_kind {
    TOKEN_WORD,
    TOKEN_STRING,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_EQUAL,
    TOKEN_COMMA,
    TOKEN_END,
};

struct token {
    enum token_kind kind;
    const char *at; /* without the quotes; escapes as they were written */
    size_t len;
    int line;
    char quote;
};

struct pass {
    struct config_reader *reader;
    const char *at, *end;
    int line;
    unsigned sections, marks;
    char *out;
    size_t used, room;
};

/* An open section; the file itself is the outermost. */
struct level {
    const struct level *outer; /* NULL: the file */
    const cfg_opt_t *words;
    const char *name;
    int line;
    int *seen; /* of each word: the line where it was given, or 0 */
};

static int block(struct pass *p, const struct level *outer, const cfg_opt_t *section, int line);

/* --- writing ------------------------------------------------------------------------------ */

static int put(struct pass *p, const char *bytes, size_t len)
{
    if (p->room - p->used <= len) {
        size_t room = 2 * p->room + len + 4096;
        char *out = realloc(p->out, room);
        if (!out)
            return config_fail(p->reader, p->line, "memory is out");
        p->out = out;
        p->room = room;
    }
    memcpy(p->out + p->used, bytes, len);
    p->used += len;
    p->out[p->used] = '\0';
    return 0;
}

static int put_text(struct pass *p, const char *text)
{
    return put(p, text, strlen(text));
}

/* A string with its mark. A bare word holds nothing that quotes would change. */
static int put_marked(struct pass *p, const struct token *t, int line)
{
    char mark[48];
    int n = snprintf(mark, sizeof mark, " %c%d.%u ", t->quote, line, ++p->marks);
    if (put(p, mark, (size_t)n) != 0 || put(p, t->at, t->len) != 0)
        return -1;
    return put(p, &t->quote, 1);
}

/* --- tokens ------------------------------------------------------------------------------- */

static bool at_text(const struct pass *p, const char *text)
{
    size_t len = strlen(text);
    return (size_t)(p->end - p->at) >= len && memcmp(p->at, text, len) == 0;
}

static int line_end(struct pass *p)
{
    p->at++;
    p->line++;
    return put(p, "\n", 1);
}

static void skip_line(struct pass *p)
{
    while (p->at < p->end && *p->at != '\n')
        p->at++;
}

static int skip_comment(struct pass *p)
{
    int line = p->line;
    p->at += 2;
    while (p->at < p->end && !at_text(p, "*/")) {
        if (*p->at != '\n')
            p->at++;
        else if (line_end(p) != 0)
            return -1;
    }
    if (p->at == p->end)
        return config_fail(p->reader, line, "this comment is never closed: \"*/\" is missing");
    p->at += 2;
    return 0;
}

static int skip_blank(struct pass *p)
{
    while (p->at < p->end) {
        if (*p->at == '\n') {
            if (line_end(p) != 0)
                return -1;
        } else if (*p->at == ' ' || *p->at == '\t' || *p->at == '\r') {
            p->at++;
        } else if (*p->at == '#' || at_text(p, "//")) {
            skip_line(p);
        } else if (at_text(p, "/*")) {
            if (skip_comment(p) != 0)
                return -1;
        } else {
            break;
        }
    }
    return 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The value of the number that an escape spells, and where it ends; -1: it spells none. */
static int escape_number(const char *at, const char *end, const char **after)
{
    bool hex = *at == 'x';
    int value = 0, most = hex ? 2 : 3, n = 0;
    for (at += hex; at < end && n < most && hex_digit(*at) >= 0; at++, n++) {
        int digit = hex_digit(*at);
        if (!hex && digit > 7)
            break;
        value = value * (hex ? 16 : 8) + digit;
    }
    *after = at;
    bool more = !hex && at < end && is_digit(*at); /* "\1234" is no escape of libconfuse's */
    return n == 0 || more || value > 0xff ? -1 : value;
}

/* p->at is at a backslash inside "..."; go past the escape. */
static int skip_escape(struct pass *p)
{
    const char *at = p->at + 1, *after = at + 1;
    bool number = is_digit(*at) || *at == 'x';
    bool letter = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z');
    int value = number ? escape_number(at, p->end, &after) : 1;
    if (value == 0)
        return config_fail(p->reader, p->line, "a string can't hold a zero byte");
    if (value < 0 || (letter && !number && !strchr("nrtbfaev", *at)))
        return config_fail(
            p->reader, p->line, "unknown escape \"\\%s\" in a string; \\\\ is a backslash",
            value_shown(at, value < 0 && after > at ? (size_t)(after - at) : 1).text);
    p->at = after;
    return 0;
}

static int refuse_variable(struct pass *p)
{
    return config_fail(
        p->reader, p->line,
        "variables such as ${HOME} are not expanded; for a plain $ write '${...}' or "
        "\"\\${...}\"");
}

static int read_string(struct pass *p, struct token *t)
{
    t->kind = TOKEN_STRING;
    t->quote = *p->at++;
    t->at = p->at;
    while (p->at < p->end && *p->at != t->quote && *p->at != '\n') {
        bool escape = *p->at == '\\' && p->end - p->at > 1 && p->at[1] != '\n';
        if (t->quote == '"' && at_text(p, "${"))
            return refuse_variable(p);
        if (t->quote == '"' && escape) {
            if (skip_escape(p) != 0)
                return -1;
        } else {
            p->at += escape ? 2 : 1;
        }
    }
    if (p->at >= p->end || *p->at == '\n')
        return config_fail(
            p->reader, p->line,
            "this string is not closed on its line: %c%s (\\n stands for a line end)", t->quote,
            value_shown(t->at, (size_t)(p->at - t->at)).text);
    t->len = (size_t)(p->at - t->at);
    p->at++;
    if (t->len > MOST_STRING)
        return config_fail(p->reader, p->line, "this string is longer than %s",
                           value_show_size(MOST_STRING).text);
    return 0;
}

static bool ends_word(char c)
{
    return (unsigned char)c <= 0x20 || c == 0x7f || strchr("\"'#={}()+,*;\\", c);
}

static int read_word(struct pass *p, struct token *t)
{
    t->kind = TOKEN_WORD;
    t->quote = '"';
    t->at = p->at;
    while (p->at < p->end && !ends_word(*p->at)) {
        if (at_text(p, "${"))
            return refuse_variable(p);
        p->at++;
    }
    t->len = (size_t)(p->at - t->at);
    if (t->len == 0 && *p->at == ';')
        return config_fail(p->reader, p->line, "unexpected \";\": nothing ends in one here");
    if (t->len == 0)
        return config_fail(p->reader, p->line, "unexpected \"%s\"; is a quote missing?",
                           value_shown(p->at, 1).text);
    if (t->len > MOST_WORD)
        return config_fail(p->reader, p->line, "this word is longer than %s: %s",
                           value_show_size(MOST_WORD).text, value_shown(t->at, t->len).text);
    return 0;
}

static int next_token(struct pass *p, struct token *t)
{
    static const char marks[] = "{}=,";
    static const enum token_kind kinds[] = {TOKEN_OPEN, TOKEN_CLOSE, TOKEN_EQUAL, TOKEN_COMMA};
    if (skip_blank(p) != 0)
        return -1;
    *t = (struct token){.kind = TOKEN_END, .line = p->line, .at = p->at};
    if (p->at == p->end)
        return 0;
    if (*p->at == '"' || *p->at == '\'')
        return read_string(p, t);
    const char *mark = strchr(marks, *p->at);
    if (!mark || *mark == '\0')
        return read_word(p, t);
    t->kind = kinds[mark - marks];
    t->len = 1;
    p->at++;
    return 0;
}

/* --- words that are not known ------------------------------------------------------------- */

static const cfg_opt_t *find_word(const cfg_opt_t *words, const struct token *t)
{
    for (; words->name; words++)
        if (strlen(words->name) == t->len && memcmp(words->name, t->at, t->len) == 0)
            return words;
    return NULL;
}

static bool is_reserved(const char *section, const struct token *t)
{
    char word[32];
    snprintf(word, sizeof word, "%.*s", (int)(t->len < sizeof word ? t->len : 0), t->at);
    return config_words_reserved(section, word);
}

/* In a route stand handlers alone: then it helps to read which there are. */
static int fail_reserved(struct pass *p, const struct level *l, const struct token *t)
{
    char all[256] = "";
    size_t n = 0;
    bool handlers = strcmp(l->name, "route") == 0;
    for (const cfg_opt_t *w = l->words; handlers && w->name && n < sizeof all; w++)
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", n ? ", " : " (", w->name);
    return config_fail(p->reader, t->line, "\"%s\" is not in this build%s%s",
                       value_shown(t->at, t->len).text, all, n ? ")" : "");
}

static int unknown_nearest(struct pass *p, const struct level *l, const struct token *t)
{
    struct value_nearest near = {.word = t->at, .len = t->len};
    char all[512] = ", which takes none";
    size_t n = 0;
    for (const cfg_opt_t *w = l->words; w->name; w++) {
        value_nearest_offer(&near, w->name);
        if (n < sizeof all)
            n += (size_t)snprintf(all + n, sizeof all - n, "%s%s",
                                  n ? ", " : "; valid here: ", w->name);
    }
    struct value_hint hint = value_nearest_hint(&near);
    return config_fail(p->reader, t->line, "unknown word \"%s\"%s%s%s",
                       value_shown(t->at, t->len).text, l->outer ? " in " : "", l->name,
                       *hint.text ? hint.text : all);
}

/* Say what most helps: it will come, it belongs further out, further in, or it was mistyped. */
static int unknown_word(struct pass *p, const struct level *l, const struct token *t)
{
    struct value_shown shown = value_shown(t->at, t->len);
    if (is_reserved(l->name, t))
        return fail_reserved(p, l, t);
    for (const struct level *o = l->outer; o; o = o->outer)
        if (find_word(o->words, t))
            return config_fail(
                p->reader, t->line,
                "\"%s\" can't stand in %s (of line %d); is a \"}\" missing before it?", shown.text,
                l->name, l->line);
    for (const cfg_opt_t *w = l->words; w->name; w++)
        if (w->subopts && find_word(w->subopts, t))
            return config_fail(p->reader, t->line, "\"%s\" belongs inside %s { ... }", shown.text,
                               w->name);
    return unknown_nearest(p, l, t);
}

/* --- statements --------------------------------------------------------------------------- */

static int unexpected(struct pass *p, const struct token *t, const char *instead)
{
    if (t->kind == TOKEN_END)
        return config_fail(p->reader, t->line, "the file ends where %s was expected", instead);
    return config_fail(p->reader, t->line, "unexpected \"%s\" where %s was expected",
                       value_shown(t->at, t->len).text, instead);
}

static int list(struct pass *p, const char *key)
{
    struct token t;
    if (put_text(p, " {") != 0)
        return -1;
    for (int n = 0;; n++) {
        if (next_token(p, &t) != 0)
            return -1;
        if (t.kind == TOKEN_CLOSE)
            return put_text(p, " }");
        if (t.kind != TOKEN_WORD && t.kind != TOKEN_STRING)
            return unexpected(p, &t, "a value of the list or \"}\"");
        if (n == MOST_ITEMS)
            return config_fail(p->reader, t.line, "%s: a list of more than %d values", key,
                               MOST_ITEMS);
        if (put_marked(p, &t, t.line) != 0 || next_token(p, &t) != 0)
            return -1;
        if (t.kind == TOKEN_CLOSE)
            return put_text(p, " }");
        if (t.kind != TOKEN_COMMA)
            return unexpected(p, &t, "\",\" or \"}\" of the list");
        if (put_text(p, ",") != 0)
            return -1;
    }
}

static int value(struct pass *p, const cfg_opt_t *word, int line)
{
    struct token t;
    if (next_token(p, &t) != 0)
        return -1;
    if (t.kind == TOKEN_WORD || t.kind == TOKEN_STRING)
        return put_marked(p, &t, line);
    if (t.kind == TOKEN_OPEN && (word->flags & CFGF_LIST))
        return list(p, word->name);
    if (t.kind == TOKEN_OPEN)
        return config_fail(p->reader, line, "\"%s\" takes one value, not a list", word->name);
    return config_fail(p->reader, line, "\"%s\" has no value", word->name);
}

static int key(struct pass *p, const struct level *l, const cfg_opt_t *word, int line)
{
    struct token t;
    int *seen = &l->seen[word - l->words];
    if (*seen)
        return config_fail(p->reader, line,
                           "\"%s\" stands here a second time; the first is on line %d", word->name,
                           *seen);
    *seen = line;
    if (next_token(p, &t) != 0)
        return -1;
    if (t.kind == TOKEN_OPEN)
        return config_fail(p->reader, line, "\"%s\" is no section; give it a value: %s = ...",
                           word->name, word->name);
    if (t.kind != TOKEN_EQUAL)
        return config_fail(p->reader, line, "\"=\" is missing after \"%s\"", word->name);
    if (put_text(p, word->name) != 0 || put_text(p, " =") != 0)
        return -1;
    return value(p, word, line);
}

/* The title and what opens the section: everything before its statements. */
static int section_head(struct pass *p, const cfg_opt_t *word, int line)
{
    struct token t, title = {.kind = TOKEN_STRING, .at = "", .quote = '"'};
    const char *what = config_words_title(word->name);
    if (next_token(p, &t) != 0)
        return -1;
    if (t.kind == TOKEN_EQUAL)
        return config_fail(p->reader, line, "\"%s\" is a section: %s%s { ... }", word->name,
                           word->name, what ? " \"...\"" : "");
    bool given = t.kind == TOKEN_WORD || t.kind == TOKEN_STRING;
    if (given && !what)
        return config_fail(p->reader, line, "\"{\" must follow \"%s\", not \"%s\"", word->name,
                           value_shown(t.at, t.len).text);
    if (!given && what)
        return config_fail(p->reader, line, "\"%s\" needs %s", word->name, what);
    if (given)
        title = t;
    if (given && next_token(p, &t) != 0)
        return -1;
    if (t.kind != TOKEN_OPEN)
        return config_fail(p->reader, line, "\"{\" is missing after \"%s\"", word->name);
    if (put_text(p, word->name) != 0 || put_marked(p, &title, line) != 0)
        return -1;
    return put_text(p, " { ");
}

static int section(struct pass *p, const struct level *l, const cfg_opt_t *word, int line)
{
    if (++p->sections > MOST_SECTIONS)
        return config_fail(p->reader, line, "more than %d sections in one file", MOST_SECTIONS);
    if (section_head(p, word, line) != 0)
        return -1;
    return block(p, l, word, line);
}

static int statement(struct pass *p, const struct level *l, const struct token *t)
{
    if (t->kind == TOKEN_EQUAL)
        return config_fail(p->reader, t->line, "unexpected \"=\"; has the key before it no value?");
    if (t->kind != TOKEN_WORD)
        return unexpected(p, t, "a word");
    const cfg_opt_t *word = find_word(l->words, t);
    if (!word)
        return unknown_word(p, l, t);
    return word->type == CFGT_SEC ? section(p, l, word, t->line) : key(p, l, word, t->line);
}

static int statements(struct pass *p, const struct level *l)
{
    struct token t;
    for (;;) {
        if (next_token(p, &t) != 0)
            return -1;
        if (t.kind == TOKEN_END && l->outer)
            return config_fail(p->reader, l->line, "\"%s\" is never closed: \"}\" is missing",
                               l->name);
        if (t.kind == TOKEN_CLOSE && !l->outer)
            return config_fail(p->reader, t.line, "unexpected \"}\": nothing is open here");
        if (t.kind == TOKEN_END)
            return 0;
        if (t.kind == TOKEN_CLOSE)
            return put_text(p, " } ");
        if (statement(p, l, &t) != 0 || put_text(p, " ") != 0)
            return -1;
    }
}

/* Recursion ends with the table: no section holds itself. */
static int block(struct pass *p, const struct level *outer, const cfg_opt_t *section, int line)
{
    size_t n = 0;
    while (section->subopts[n].name)
        n++;
    struct level l = {
        .outer = outer, .words = section->subopts, .name = section->name, .line = line};
    l.seen = calloc(n + 1, sizeof *l.seen);
    int rc = l.seen ? statements(p, &l) : config_fail(p->reader, line, "memory is out");
    free(l.seen);
    return rc;
}

char *config_text_mark(struct config_reader *r, cfg_opt_t *words, const char *text, size_t len)
{
    struct pass p = {.reader = r, .at = text, .end = text + len, .line = 1};
    cfg_opt_t file = {
        .name = "", .type = CFGT_SEC, .subopts = words}; /* a section without a name */
    if (at_text(&p, "\xef\xbb\xbf"))
        p.at += 3; /* the mark that some editors begin UTF-8 files with */
    if (put_text(&p, "") == 0 && block(&p, NULL, &file, 1) == 0)
        return p.out;
    free(p.out);
    return NULL;
}

/* --- one key ------------------------------------------------------------------------------ */

/* Behind the key. Returns the statement with so many line ends before it that it has its line. */
static char *found(struct pass *p, const char *name, int line)
{
    struct token t;
    if (next_token(p, &t) != 0)
        return NULL;
    if (t.kind != TOKEN_WORD && t.kind != TOKEN_STRING) {
        config_fail(p->reader, line, "\"%s\" has no value", name);
        return NULL;
    }
    size_t size = (size_t)line + strlen(name) + t.len + 8;
    char *statement = malloc(size);
    if (!statement) {
        config_fail(p->reader, line, "memory is out");
        return NULL;
    }
    memset(statement, '\n', (size_t)line - 1);
    snprintf(statement + line - 1, size - (size_t)line, "%s = %c%.*s%c", name, t.quote, (int)t.len,
             t.at, t.quote);
    return statement;
}

static char *find(struct pass *p, const char *name)
{
    struct token t, last = {.kind = TOKEN_END};
    for (int depth = 0; next_token(p, &t) == 0; last = t) {
        depth += (t.kind == TOKEN_OPEN) - (t.kind == TOKEN_CLOSE);
        if (depth == 0 && t.kind == TOKEN_EQUAL && last.kind == TOKEN_WORD &&
            last.len == strlen(name) && memcmp(last.at, name, last.len) == 0)
            return found(p, name, last.line);
        if (t.kind == TOKEN_END && depth == 0)
            return strdup("");
        if (t.kind == TOKEN_END || depth < 0)
            break;
    }
    config_fail(p->reader, p->line, "\"%s\" can't be found: a \"}\" is missing or too many", name);
    return NULL;
}

char *config_text_find(struct config_reader *r, const char *name, const char *text, size_t len)
{
    struct pass p = {.reader = r, .at = text, .end = text + len, .line = 1};
    if (at_text(&p, "\xef\xbb\xbf"))
        p.at += 3;
    char *statement = find(&p, name);
    free(p.out);
    return statement;
}
