/* SPDX-License-Identifier: MIT */
/* Reading a configuration, from the file to the open handlers. The work is in files of its own:
 *
 *   config_text.c     checks what was written and marks it with lines
 *   (libconfuse)      reads it into a tree
 *   config_build.c    makes a struct config of the tree, with config_value.c and config_address.c
 *   config_keys.c     is the table of keys, config_words.c the words made of it and the handlers
 *   config_explain.c  prints the result
 */
#include "server/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/config_reader.h"

enum { MOST_BYTES = 1024 * 1024 };

/* --- messages ----------------------------------------------------------------------------- */

int config_fail(struct config_reader *r, int line, const char *format, ...)
{
    if (r->failed || r->why_size == 0) {
        r->failed = true;
        return -1;
    }
    r->failed = true;
    int n = snprintf(r->why, r->why_size, "%s:%d: ", r->name, line);
    if (n >= 0 && (size_t)n < r->why_size) {
        va_list args;
        va_start(args, format);
        vsnprintf(r->why + n, r->why_size - (size_t)n, format, args);
        va_end(args);
    }
    for (char *c = r->why; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?'; /* a message is one line, whatever a file is called or a handler says */
    return -1;
}

/* libconfuse has no place for a context of ours in its callbacks. It has one scanner for the whole
 * process anyway, so one reading at a time is all there is. */
static struct config_reader *reading;

/* What config_text.c let through, libconfuse takes; should it not, its own words are told. */
__attribute__((format(printf, 2, 0))) static void confuse_error(cfg_t *cfg, const char *format,
                                                                va_list args)
{
    char sentence[256];
    vsnprintf(sentence, sizeof sentence, format, args);
    config_fail(reading, cfg ? cfg->line : 1, "%s", sentence);
}

/* --- memory ------------------------------------------------------------------------------- */

struct config_kept {
    struct config_kept *next;
    max_align_t bytes[];
};

void *config_keep(struct config_reader *r, size_t size)
{
    struct config_kept *k = calloc(1, sizeof *k + size);
    if (!k) {
        config_fail(r, 1, "memory is out");
        return NULL;
    }
    k->next = r->all->kept;
    r->all->kept = k;
    return k->bytes;
}

char *config_keep_text(struct config_reader *r, const char *text)
{
    size_t size = strlen(text) + 1;
    char *kept = config_keep(r, size);
    return kept ? memcpy(kept, text, size) : NULL;
}

char *config_keep_path(struct config_reader *r, const char *text)
{
    if (text[0] == '/')
        return config_keep_text(r, text);
    const char *folder = r->all->config.folder;
    size_t folder_len = strlen(folder);
    while (folder_len > 0 && folder[folder_len - 1] == '/')
        folder_len--;
    size_t size = folder_len + 1 + strlen(text) + 1;
    char *kept = config_keep(r, size);
    if (kept)
        snprintf(kept, size, "%.*s/%s", (int)folder_len, folder, text);
    return kept;
}

static void close_handlers(struct config *c)
{
    for (size_t i = 0; i < c->listener_count; i++)
        for (size_t j = 0; j < c->listeners[i].route_count; j++) {
            struct config_route *route = &c->listeners[i].routes[j];
            if (route->opened && route->handler->close)
                route->handler->close(route->conf);
            route->opened = false;
        }
}

void config_free(struct config *c)
{
    struct config_all *all = (struct config_all *)c;
    if (!all)
        return;
    close_handlers(c);
    while (all->kept) {
        struct config_kept *next = all->kept->next;
        free(all->kept);
        all->kept = next;
    }
    free(all);
}

/* --- from text ---------------------------------------------------------------------------- */

static int find_zero(struct config_reader *r, const char *text, size_t len)
{
    int line = 1;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\0')
            return config_fail(r, line, "a zero byte: this is no text");
        line += text[i] == '\n';
    }
    return 0;
}

/* Parse marked text with libconfuse and build the configuration of it. */
static int read_marked(struct config_reader *r, cfg_opt_t *words, const char *marked)
{
    cfg_t *root = cfg_init(words, CFGF_NONE);
    if (!root)
        return config_fail(r, 1, "memory is out");
    cfg_set_error_function(root, confuse_error);
    reading = r;
    int rc = cfg_parse_buf(root, marked);
    reading = NULL;
    rc = rc == CFG_SUCCESS ? config_build(r, root) : config_fail(r, 1, "memory is out");
    cfg_free(root);
    return rc;
}

static int read_text(struct config_reader *r, const char *text, size_t len)
{
    if (len > MOST_BYTES)
        return config_fail(r, 1, "the file is larger than 1m");
    if (find_zero(r, text, len) != 0)
        return -1;
    cfg_opt_t *words = config_words_new();
    if (!words)
        return config_fail(r, 1, "memory is out");
    char *marked = config_text_mark(r, words, text, len);
    int rc = marked ? read_marked(r, words, marked) : -1;
    free(marked);
    config_words_free(words);
    return rc;
}

struct config *config_parse(const char *name, const char *folder, const char *text, size_t len,
                            char *why, size_t why_size)
{
    struct config_reader r = {.name = name, .why = why, .why_size = why_size};
    r.all = calloc(1, sizeof *r.all);
    if (!r.all) {
        config_fail(&r, 1, "memory is out");
        return NULL;
    }
    struct config *c = &r.all->config;
    c->file = config_keep_text(&r, name);
    c->folder = config_keep_text(&r, folder);
    char *kept = config_keep(&r, len + 1);
    c->text = kept ? memcpy(kept, text, len) : NULL;
    c->text_len = len;
    if (c->file && c->folder && c->text && read_text(&r, text, len) == 0)
        return c;
    config_free(c);
    return NULL;
}

/* --- from a file -------------------------------------------------------------------------- */

/* The whole of fd, one byte more than is allowed at most. Returns memory for free(), or NULL. */
static char *read_all(int fd, size_t *len)
{
    char *text = malloc(MOST_BYTES + 1);
    *len = 0;
    while (text && *len < MOST_BYTES + 1) {
        ssize_t n = read(fd, text + *len, MOST_BYTES + 1 - *len);
        if (n == 0)
            break;
        if (n > 0) {
            *len += (size_t)n;
        } else if (errno != EINTR) {
            free(text);
            return NULL;
        }
    }
    return text;
}

static char *folder_of(const char *file)
{
    const char *slash = strrchr(file, '/');
    char *name = slash ? strndup(file, (size_t)(slash - file) + 1) : strdup(".");
    char *folder = name ? realpath(name, NULL) : NULL;
    free(name);
    return folder;
}

static int open_regular(struct config_reader *r, const char *file)
{
    struct stat st = {0};
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO must not hold us */
    if (fd < 0)
        return config_fail(r, 1, "the file can't be opened: %s", strerror(errno));
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    bool folder = S_ISDIR(st.st_mode);
    close(fd);
    return config_fail(r, 1, folder ? "this is a folder, not a file" : "this is no regular file");
}

static struct config *read_open(struct config_reader *r, int fd, const char *file)
{
    size_t len;
    char *text = read_all(fd, &len);
    char *folder = folder_of(file);
    struct config *c = NULL;
    if (text && folder)
        c = config_parse(file, folder, text, len, r->why, r->why_size);
    else
        config_fail(r, 1, "the file can't be read: %s", strerror(errno));
    free(folder);
    free(text);
    return c;
}

struct config *config_read(const char *file, char *why, size_t why_size)
{
    struct config_reader r = {.name = file, .why = why, .why_size = why_size};
    int fd = open_regular(&r, file);
    if (fd < 0)
        return NULL;
    struct config *c = read_open(&r, fd, file);
    close(fd);
    return c;
}

struct config *config_parse_control(const char *name, const char *folder, const char *text,
                                    size_t len, char *why, size_t why_size)
{
    static const char listener[] = "\nlisten 127.0.0.1:0 { route / { text {} } }\n";
    struct config_reader r = {.name = name, .why = why, .why_size = why_size};
    if (len > MOST_BYTES)
        config_fail(&r, 1, "the file is larger than 1m");
    if (r.failed || find_zero(&r, text, len) != 0)
        return NULL;
    char *key = config_text_find(&r, "control", text, len);
    if (!key)
        return NULL;
    size_t size = strlen(key) + sizeof listener;
    char *whole = malloc(size);
    struct config *c = NULL;
    if (whole) {
        snprintf(whole, size, "%s%s", key, listener);
        c = config_parse(name, folder, whole, size - 1, why, why_size);
    } else {
        config_fail(&r, 1, "memory is out");
    }
    free(whole);
    free(key);
    return c;
}

int config_read_control(const char *file, char *path, size_t size, char *why, size_t why_size)
{
    struct config_reader r = {.name = file, .why = why, .why_size = why_size};
    size_t len;
    int fd = open_regular(&r, file);
    if (fd < 0)
        return -1;
    char *text = read_all(fd, &len), *folder = folder_of(file);
    close(fd);
    struct config *c = NULL;
    if (text && folder)
        c = config_parse_control(file, folder, text, len, why, why_size);
    else
        config_fail(&r, 1, "the file can't be read: %s", strerror(errno));
    if (c)
        snprintf(path, size, "%s", c->control);
    free(text);
    free(folder);
    config_free(c);
    return c ? 0 : -1;
}

/* --- handlers ----------------------------------------------------------------------------- */

static int open_handler(struct config_reader *r, struct config_route *route,
                        const struct handler_env *env)
{
    char sentence[512] = "can't be opened";
    if (route->opened)
        return 0;
    route->opened = true; /* close() follows a failed open() too */
    if (!route->handler->open ||
        route->handler->open(route->conf, env, sentence, sizeof sentence) == 0)
        return 0;
    return config_fail(r, route->handler_line, "%s: %s", route->handler->name, sentence);
}

static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == IN_LOOPBACKNET;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool is_local(const struct config_listener *l)
{
    for (size_t i = 0; i < l->address_count; i++)
        if (!l->addresses[i].is_unix && !is_loopback(l->addresses[i].host))
            return false;
    return true;
}

int config_open_handlers(const struct config *c, struct config_listener *l,
                         const struct handler_env *env, char *why, size_t why_size)
{
    struct config_reader r = {.name = c->file, .why = why, .why_size = why_size};
    struct handler_env own = *env;
    own.local = is_local(l);
    for (size_t i = 0; i < l->route_count; i++)
        if (open_handler(&r, &l->routes[i], &own) != 0)
            return -1;
    return 0;
}
