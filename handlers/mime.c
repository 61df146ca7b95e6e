/* SPDX-License-Identifier: MIT */
/* Media types: an open-addressed hash of endings. All strings lie in one block, and entries hold
 * offsets into it, so that the same types are stored once.
 *
 * A finished table is one mapping that is shared with all children: a fork copies nothing of it, which
 * it would of the heap, page by page, for every connection of model process. And it is one for all who
 * open the same file, as each route with static files does.
 */
#include "handlers/mime.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/str.h"

enum {
    FILE_MAX = 1 << 20,
    ENDING_MAX = 32,
    TYPE_MAX = 128,
};

static const char unknown[] = "application/octet-stream";
static const struct str charset = {"; charset=utf-8", 15};

/* What a web site needs at least; added behind the file's, whose word stands. */
static const char built_in[] = "text/html html htm\n"
                               "text/css css\n"
                               "text/javascript js mjs\n"
                               "text/plain txt text log md\n"
                               "text/csv csv\n"
                               "application/json json map\n"
                               "application/wasm wasm\n"
                               "application/xml xml\n"
                               "application/pdf pdf\n"
                               "application/gzip gz\n"
                               "application/zip zip\n"
                               "image/svg+xml svg\n"
                               "image/png png\n"
                               "image/jpeg jpg jpeg\n"
                               "image/gif gif\n"
                               "image/webp webp\n"
                               "image/avif avif\n"
                               "image/vnd.microsoft.icon ico\n"
                               "font/woff woff\n"
                               "font/woff2 woff2\n"
                               "font/ttf ttf\n"
                               "audio/mpeg mp3\n"
                               "audio/ogg ogg oga\n"
                               "video/mp4 mp4\n"
                               "video/webm webm\n";

/* Offsets into text; ending 0 is a free place (offset 0 holds nothing). */
struct place {
    uint32_t ending, type;
};

/* Which file it was made of, and which state of it; all 0: of none. */
struct origin {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct mime {
    char *text;
    size_t len, room;
    struct place *places;
    size_t mask, count;
    size_t mapped; /* bytes of the mapping at places, the text behind them; 0: not finished */
    struct origin origin;
    unsigned users;
};

static struct mime *newest; /* of those that are open */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static size_t hash(struct str ending)
{
    size_t h = 5381;
    for (size_t i = 0; i < ending.len; i++)
        h = h * 33 + (unsigned char)lower(ending.at[i]);
    return h;
}

/* The place of ending, or the free one where it belongs. */
static struct place *find(const struct mime *m, struct str ending)
{
    for (size_t i = hash(ending) & m->mask;; i = (i + 1) & m->mask) {
        struct place *p = &m->places[i];
        if (!p->ending || str_is_nocase(str_of(m->text + p->ending), ending))
            return p;
    }
}

/* --- making a table --------------------------------------------------------------------------- */

/* Store a string made of two parts. Returns its offset, or 0 when memory is out. */
static uint32_t store(struct mime *m, struct str a, struct str b)
{
    size_t need = a.len + b.len + 1;
    if (m->room - m->len < need) {
        size_t room = m->room * 2 + need;
        char *text = realloc(m->text, room);
        if (!text)
            return 0;
        m->text = text;
        m->room = room;
    }
    uint32_t at = (uint32_t)m->len;
    memcpy(m->text + m->len, a.at, a.len);
    if (b.len)
        memcpy(m->text + m->len + a.len, b.at, b.len);
    m->len += need;
    m->text[m->len - 1] = '\0';
    return at;
}

static int widen(struct mime *m)
{
    struct mime wider = *m;
    wider.mask = m->mask * 2 + 1;
    wider.places = calloc(wider.mask + 1, sizeof *wider.places);
    if (!wider.places)
        return -1;
    for (size_t i = 0; i <= m->mask; i++)
        if (m->places[i].ending)
            *find(&wider, str_of(m->text + m->places[i].ending)) = m->places[i];
    free(m->places);
    *m = wider;
    return 0;
}

/* The first type for an ending stands. */
static int add(struct mime *m, struct str ending, uint32_t type)
{
    if (find(m, ending)->ending)
        return 0;
    if (m->count >= m->mask / 4 * 3 && widen(m) < 0)
        return -1;
    uint32_t at = store(m, ending, (struct str){0});
    if (!at)
        return -1;
    *find(m, ending) = (struct place){at, type};
    m->count++;
    return 0;
}

/* Cut the next word off line. Its len is 0 at the end of the line. */
static struct str next_word(struct str *line)
{
    while (line->len && (*line->at == ' ' || *line->at == '\t' || *line->at == '\r')) {
        line->at++;
        line->len--;
    }
    struct str word = {line->at, 0};
    while (word.len < line->len && !strchr(" \t\r", word.at[word.len]))
        word.len++;
    line->at += word.len;
    line->len -= word.len;
    return word;
}

static bool is_type(struct str word)
{
    if (word.len > TYPE_MAX || !memchr(word.at, '/', word.len))
        return false;
    for (size_t i = 0; i < word.len; i++)
        if (word.at[i] <= ' ' || word.at[i] > '~' || strchr("\",;<>\\", word.at[i]))
            return false;
    return true;
}

static bool is_text(struct str type)
{
    return (type.len > 5 && str_is_nocase((struct str){type.at, 5}, STR("text/"))) ||
           str_is_nocase(type, STR("application/javascript"));
}

static int add_line(struct mime *m, struct str line)
{
    struct str type = next_word(&line), ending;
    uint32_t at = 0;
    if (!type.len || *type.at == '#' || !is_type(type))
        return 0;
    while ((ending = next_word(&line)).len && *ending.at != '#') {
        if (ending.len > ENDING_MAX)
            continue;
        if (!at)
            at = store(m, type, is_text(type) ? charset : (struct str){0});
        if (!at || add(m, ending, at) < 0)
            return -1;
    }
    return 0;
}

static int add_text(struct mime *m, struct str text)
{
    while (text.len) {
        const char *end = memchr(text.at, '\n', text.len);
        size_t len = end ? (size_t)(end - text.at) : text.len;
        if (!memchr(text.at, '\0', len) && add_line(m, (struct str){text.at, len}) < 0)
            return -1;
        len += end ? 1 : 0;
        text.at += len;
        text.len -= len;
    }
    return 0;
}

/* A descriptor of the file, or -1. A FIFO in its place must not hold us. */
static int open_file(const char *file, struct origin *origin)
{
    struct stat st;
    int fd = open(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
        close(fd);
        return -1;
    }
    *origin = (struct origin){
        .device = st.st_dev, .inode = st.st_ino, .size = st.st_size, .changed = st.st_mtim};
    return fd;
}

/* The whole file, or NULL. */
static char *read_whole(int fd, size_t size, size_t *len)
{
    char *bytes = malloc(size + 1);
    ssize_t n = bytes ? 1 : 0;
    *len = 0;
    while (n > 0 && *len < size) {
        n = read(fd, bytes + *len, size - *len);
        *len += n > 0 ? (size_t)n : 0;
    }
    return bytes;
}

/* Nothing will be added any more. */
static int finish(struct mime *m)
{
    size_t places = (m->mask + 1) * sizeof *m->places, bytes = places + m->len;
    char *to = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (to == MAP_FAILED)
        return -1;
    memcpy(to, m->places, places);
    memcpy(to + places, m->text, m->len);
    mprotect(to, bytes, PROT_READ);
    free(m->places);
    free(m->text);
    m->places = (struct place *)(void *)to;
    m->text = to + places;
    m->mapped = bytes;
    return 0;
}

static void drop(struct mime *m)
{
    if (m && m->mapped) {
        munmap(m->places, m->mapped);
    } else if (m) {
        free(m->places);
        free(m->text);
    }
    free(m);
}

static struct mime *make(struct str file, const struct origin *origin)
{
    struct mime *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->origin = *origin;
    m->users = 1;
    m->mask = 63;
    m->places = calloc(m->mask + 1, sizeof *m->places);
    store(m, (struct str){"", 0}, (struct str){0}); /* so that no offset is 0 */
    if (!m->places || !m->text || add_text(m, file) < 0 || add_text(m, str_of(built_in)) < 0 ||
        finish(m) < 0) {
        drop(m);
        return NULL;
    }
    return m;
}

static bool is_of(const struct mime *m, const struct origin *o)
{
    const struct origin *mine = &m->origin;
    return mine->device == o->device && mine->inode == o->inode && mine->size == o->size &&
           mine->changed.tv_sec == o->changed.tv_sec && mine->changed.tv_nsec == o->changed.tv_nsec;
}

struct mime *mime_open(const char *file)
{
    struct origin origin = {0};
    struct mime *m = NULL;
    size_t len = 0;
    int fd = file ? open_file(file, &origin) : -1;
    if (newest && is_of(newest, &origin)) {
        newest->users++;
        m = newest;
    } else {
        char *bytes = fd >= 0 ? read_whole(fd, (size_t)origin.size, &len) : NULL;
        m = fd < 0 || bytes ? make((struct str){bytes, len}, &origin) : NULL;
        newest = m ? m : newest;
        free(bytes);
    }
    if (fd >= 0)
        close(fd);
    return m;
}

void mime_close(struct mime *m)
{
    if (!m || --m->users > 0)
        return;
    if (newest == m)
        newest = NULL;
    drop(m);
}

const char *mime_type(const struct mime *m, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(slash ? slash : path, '.');
    if (!dot || !dot[1])
        return unknown;
    const struct place *p = find(m, str_of(dot + 1));
    return p->ending ? m->text + p->type : unknown;
}
