/* SPDX-License-Identifier: MIT */
/* Results of the lab from their JSON. What is read keeps its texts in the JSON it came from;
 * everything else is in blocks that hang on the results. A file that somebody has changed may say
 * anything: what is missing is not known, and no number is cast that the type can't hold.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/lab/json.h"
#include "server/lab/results_priv.h"

enum { FILE_MAX = 256 << 20 };

/* What lab_read_json has made, beside the results that are its first member. */
struct archive {
    struct lab_results results;
    struct json *root;
    struct block *blocks;
    bool failed; /* no memory */
    const char *wrong;
};

struct block {
    struct block *next;
    max_align_t bytes[];
};

static void *make(struct archive *a, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count ? count : 1, size, &bytes))
        return NULL;
    struct block *b = calloc(1, sizeof *b + bytes);
    if (!b) {
        a->failed = true;
        return NULL;
    }
    b->next = a->blocks;
    a->blocks = b;
    return b->bytes;
}

static size_t members(const struct json *list)
{
    size_t count = 0;
    for (const struct json *m = json_first(list); m; m = m->next)
        count++;
    return count;
}

/* Whole, and none that a cast can't hold; what is missing is 0. */
static uint64_t whole(const struct json *at)
{
    double n = json_number(at, 0);
    return n > 0 && n < 0x1p63 ? (uint64_t)n : 0;
}

static unsigned small(const struct json *at)
{
    uint64_t n = whole(at);
    return n < UINT32_MAX ? (unsigned)n : UINT32_MAX;
}

static struct lab_histogram *read_histogram(struct archive *a, const struct json *at)
{
    struct lab_histogram *h = at && at->kind == JSON_OBJECT ? make(a, 1, sizeof *h) : NULL;
    if (!h)
        return NULL;
    for (const struct json *b = json_first(json_get(at, "buckets")); b; b = b->next) {
        double middle = json_number(json_get(b, "0"), 0) * 1e3;
        lab_histogram_add_many(h, middle < 0x1p62 ? (int64_t)llround(middle) : 0,
                               whole(json_get(b, "1")));
    }
    h->sum = json_number(json_get(at, "sum_us"), 0) * 1e3;
    double max = json_number(json_get(at, "max_us"), 0) * 1e3;
    h->max = max > 0 && max < 0x1p62 ? (int64_t)llround(max) : 0;
    return h;
}

static void read_round(struct archive *a, struct lab_round *round, const struct json *at)
{
    round->repeat = small(json_get(at, "repeat"));
    round->error = json_text(json_get(at, "error"), NULL);
    round->trusted = json_is_true(json_get(at, "trusted"));
    round->doubt = json_text(json_get(at, "doubt"), NULL);
    round->requests = whole(json_get(at, "requests"));
    for (const struct lab_field *f = lab_round_numbers; f->name; f++) {
        double n = json_number(json_get(at, f->name), LAB_UNKNOWN);
        memcpy((char *)round + f->offset, &n, sizeof n);
    }
    for (const struct lab_field *f = lab_error_numbers; f->name; f++) {
        uint64_t n = whole(json_get(json_get(at, "errors"), f->name));
        memcpy((char *)&round->errors + f->offset, &n, sizeof n);
    }
    round->latency = read_histogram(a, json_get(at, "latency"));
}

static const struct lab_load *load_named(const struct lab_results *r, const char *name)
{
    for (size_t i = 0; i < r->load_count; i++)
        if (strcmp(r->loads[i]->name, name) == 0)
            return r->loads[i];
    return NULL;
}

static const struct lab_server *server_named(const struct lab_results *r, const char *name)
{
    for (size_t i = 0; i < r->server_count; i++)
        if (strcmp(r->servers[i].name, name) == 0)
            return &r->servers[i];
    return NULL;
}

static void read_one_series(struct archive *a, struct lab_series *s, const struct json *at)
{
    const struct json *rounds = json_get(at, "rounds");
    s->load = load_named(&a->results, json_text(json_get(at, "load"), ""));
    s->server = server_named(&a->results, json_text(json_get(at, "server"), ""));
    if (!s->load || !s->server)
        a->wrong = "a series has a load or a server that is not listed";
    s->connections = small(json_get(at, "connections"));
    s->gil = json_is_true(json_get(at, "gil"));
    s->rate = json_number(json_get(at, "rate"), 0);
    s->rounds = make(a, members(rounds), sizeof *s->rounds);
    for (const struct json *m = s->rounds ? json_first(rounds) : NULL; m; m = m->next)
        read_round(a, &s->rounds[s->round_count++], m);
}

/* Another version may know more of them: the first stands for what this one does not. */
static enum lab_kind kind_named(const char *name)
{
    for (enum lab_kind kind = LAB_OVERHEAD; kind <= LAB_STALL; kind++)
        if (strcmp(lab_kind_name(kind), name) == 0)
            return kind;
    return LAB_OVERHEAD;
}

static enum lab_loop loop_named(const char *name)
{
    for (enum lab_loop loop = LAB_CLOSED; loop <= LAB_BATCH; loop++)
        if (strcmp(lab_loop_name(loop), name) == 0)
            return loop;
    return LAB_CLOSED;
}

static void read_loads(struct archive *a, const struct json *list)
{
    size_t count = members(list), i = 0;
    struct lab_load *loads = make(a, count, sizeof *loads);
    const struct lab_load **pointers = make(a, count, sizeof *pointers);
    for (const struct json *m = loads && pointers ? json_first(list) : NULL; m; m = m->next, i++) {
        loads[i] = (struct lab_load){
            .name = json_text(json_get(m, "name"), "?"),
            .title = json_text(json_get(m, "title"), "?"),
            .why = json_text(json_get(m, "why"), ""),
            .kind = kind_named(json_text(json_get(m, "kind"), "")),
            .loop = loop_named(json_text(json_get(m, "loop"), "")),
            .note_says = json_text(json_get(m, "note_says"), NULL),
            .note_seconds = {json_number(json_get(m, "note_seconds.0"), 0),
                             json_number(json_get(m, "note_seconds.1"), 0)},
        };
        pointers[i] = &loads[i];
    }
    a->results.loads = pointers;
    a->results.load_count = i;
}

static void read_servers(struct archive *a, const struct json *list)
{
    size_t i = 0;
    struct lab_server *servers = make(a, members(list), sizeof *servers);
    for (const struct json *m = servers ? json_first(list) : NULL; m; m = m->next)
        servers[i++] = (struct lab_server){
            .name = json_text(json_get(m, "name"), "?"),
            .foreign = json_is_true(json_get(m, "foreign")),
            .sizes = json_text(json_get(m, "sizes"), ""),
            .workers = small(json_get(m, "workers")),
            .threads = small(json_get(m, "threads")),
        };
    a->results.servers = servers;
    a->results.server_count = i;
}

static void read_machine(struct lab_machine *to, const struct json *at)
{
    for (const struct lab_field *f = lab_machine_texts; f->name; f++)
        snprintf((char *)to + f->offset, f->size, "%s", json_text(json_get(at, f->name), "?"));
    to->cpus = small(json_get(at, "cpus"));
    to->server_cpu = small(json_get(at, "server_cpu"));
    to->loader_cpu = small(json_get(at, "loader_cpu"));
    to->pinned = json_is_true(json_get(at, "pinned"));
    to->memory_gib = json_number(json_get(at, "memory_gib"), LAB_UNKNOWN);
}

static void read_results(struct archive *a)
{
    struct lab_results *r = &a->results;
    const struct json *series = json_get(a->root, "series");
    if (json_number(json_get(a->root, "modus_lab"), 0) != LAB_JSON_VERSION) {
        a->wrong = "these are not results of modus lab";
        return;
    }
    read_machine(&r->machine, json_get(a->root, "machine"));
    r->command = json_text(json_get(a->root, "command"), NULL);
    r->config = json_text(json_get(a->root, "config"), NULL);
    r->whole = json_is_true(json_get(a->root, "whole"));
    r->seconds = json_number(json_get(a->root, "seconds"), 0);
    read_loads(a, json_get(a->root, "loads"));
    read_servers(a, json_get(a->root, "servers"));
    r->series = make(a, members(series), sizeof *r->series);
    for (const struct json *m = r->series ? json_first(series) : NULL; m && !a->wrong; m = m->next)
        read_one_series(a, &r->series[r->series_count++], m);
}

/* All of a file; NULL with errno. */
static char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "re");
    char *text = NULL;
    size_t room = 0;
    *len = 0;
    while (f) {
        if (*len == room) {
            room = room ? 2 * room : 1 << 16;
            char *more = room <= FILE_MAX ? realloc(text, room) : (errno = EFBIG, NULL);
            if (!more)
                break;
            text = more;
        }
        size_t got = fread(text + *len, 1, room - *len, f);
        *len += got;
        if (got == 0 && !ferror(f)) {
            fclose(f);
            return text;
        }
        if (got == 0)
            break;
    }
    int saved = errno;
    if (f)
        fclose(f);
    free(text);
    errno = saved;
    return NULL;
}

struct lab_results *lab_read_json(const char *path, char *why, size_t why_size)
{
    size_t len;
    char *text = read_file(path, &len);
    if (!text) {
        snprintf(why, why_size, "%s: %s", path, strerror(errno));
        return NULL;
    }
    struct archive *a = calloc(1, sizeof *a);
    if (a)
        a->root = json_parse(text, len);
    free(text);
    if (a && a->root)
        read_results(a);
    if (a && a->root && !a->wrong && !a->failed)
        return &a->results;
    snprintf(why, why_size, "%s: %s", path,
             !a || a->failed ? "no memory"
             : !a->root      ? "this is not JSON, or not all of it"
                             : a->wrong);
    lab_free_results(a ? &a->results : NULL);
    return NULL;
}

void lab_free_results(struct lab_results *r)
{
    struct archive *a = (struct archive *)r; /* its first member */
    while (a && a->blocks) {
        struct block *b = a->blocks;
        a->blocks = b->next;
        free(b);
    }
    if (a)
        json_free(a->root);
    free(a);
}
