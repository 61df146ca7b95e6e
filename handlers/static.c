/* SPDX-License-Identifier: MIT */
/* static: files below a folder.
 *
 * A request is answered from the cache if it can be: a look-up, a reference, the answer. Otherwise
 * its path is resolved below root (handlers/root.h), and a regular file is sent: a small one is
 * read into the cache first, a large one goes out from its descriptor. Conditional requests and
 * ranges work the same way for both.
 *
 * Names that begin with a dot are not served, in no part of a path, but for ".well-known" (RFC
 * 8615) at its front; what is no regular file is not either, and opening it can't hold us. */
#include "handlers/static.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "handlers/conditions.h"
#include "handlers/content.h"
#include "handlers/file_cache.h"
#include "handlers/handler.h"
#include "handlers/listing.h"
#include "handlers/mime.h"
#include "handlers/page.h"
#include "handlers/root.h"

enum {
    SMALL = 16 << 10, /* bytes of a file that is kept in memory, at most */
    READ_TRIES = 3,   /* of a file that changes while it is read */
};

static const struct option options[] = {
    {"root", OPTION_PATH, offsetof(struct static_conf, root),
     .help = "the folder that is served; links work that stay inside it, dot files are 404 but for "
             "/.well-known/; it is opened before the user is dropped"},
    {"index", OPTION_STRING, offsetof(struct static_conf, index), .value = "index.html",
     .help = "the file that stands for a folder; \"\" none"},
    {"listing", OPTION_BOOL, offsetof(struct static_conf, listing), .value = "false",
     .help = "show what is in a folder without an index"},
    {"cache_size", OPTION_SIZE, offsetof(struct static_conf, cache_size), .value = "16m",
     .max = (int64_t)1 << 40, .help = "memory for files up to 16k; 0 none"},
    {"max_age", OPTION_DURATION, offsetof(struct static_conf, max_age_ms), .value = "0",
     .help = "how long clients may keep a file unasked; 0 says nothing"},
    {0},
};

/* --- answering with a file -------------------------------------------------------------------- */

static int reply_unsatisfiable(struct exchange *x, int64_t size)
{
    char text[HTTP_CONTENT_RANGE_MAX];
    size_t len = http_content_range(text, NULL, size);
    int rc = exchange_add(x, "Content-Range", (struct str){text, len});
    return rc < 0 ? rc : exchange_reply_error(x, 416);
}

/* Answer with a file whose preconditions hold; range is empty or what the client asked for. */
static int reply_content(struct exchange *x, const struct static_conf *conf,
                         const struct file_info *info, const struct content *content,
                         struct str range)
{
    struct http_range ranges[HTTP_RANGES_MAX];
    size_t count = 0;
    enum http_range_verdict verdict = HTTP_RANGE_IGNORE;
    if (range.at)
        verdict = http_range_parse(range, info->size, ranges, &count);
    int rc = exchange_add_headers(x, &conf->accept_ranges);
    if (rc < 0)
        return rc;
    if (verdict == HTTP_RANGE_UNSATISFIABLE)
        return reply_unsatisfiable(x, info->size);
    rc = exchange_add_headers(x, &info->headers);
    if (rc < 0)
        return rc;
    if (count > 1)
        return content_send_ranges(x, content, ranges, count);
    return count ? content_send_range(x, content, ranges) : content_send(x, content);
}

static int reply_file(struct exchange *x, const struct static_conf *conf,
                      const struct file_info *info, const struct content *content)
{
    struct str range;
    int rc;
    switch (conditions_judge(x, info, &range)) {
    case CONDITIONS_FAILED:
        return exchange_reply_error(x, 412);
    case CONDITIONS_NOT_MODIFIED:
        rc = exchange_add_headers(x, &info->headers);
        return rc < 0 ? rc : exchange_reply(x, 304, NULL, STR(""));
    case CONDITIONS_PROCEED:
        break;
    }
    return reply_content(x, conf, info, content, range);
}

/* Takes the caller's reference. */
static int reply_cached(struct exchange *x, const struct static_conf *conf, struct cached_file *f)
{
    struct content content = {
        .type = f->info.type, .size = f->info.size, .bytes = f->bytes, .fd = -1};
    int rc = exchange_defer(x, cached_file_put, f);
    if (rc < 0) {
        cached_file_put(f);
        return rc;
    }
    return reply_file(x, conf, &f->info, &content);
}

static void close_later(void *arg)
{
    close((int)(intptr_t)arg);
}

/* Takes fd. */
static int reply_open(struct exchange *x, const struct static_conf *conf, const char *path, int fd,
                      const struct stat *st)
{
    struct file_info info;
    int rc = exchange_defer(x, close_later, (void *)(intptr_t)fd);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    file_info_init(&info, st, mime_type(conf->types, path), conf->cache_control, time(NULL));
    struct content content = {.type = info.type, .size = info.size, .fd = fd};
    return reply_file(x, conf, &info, &content);
}

/* --- the cache -------------------------------------------------------------------------------- */

/* Has the disk still what the cache has? */
static bool is_current(const struct static_conf *conf, const struct cached_file *f)
{
    struct stat st;
    if (f->is_young || root_stat(conf->folder, f->path, &st) < 0)
        return false;
    struct file_stamp stamp = file_stamp_of(&st);
    return file_stamp_is(&stamp, &f->stamp);
}

static struct cached_file *find_cached(const struct static_conf *conf, struct str key,
                                       int64_t now_ms)
{
    bool due;
    struct cached_file *f = conf->cache ? file_cache_get(conf->cache, key, now_ms, &due) : NULL;
    if (!f || !due || is_current(conf, f))
        return f;
    file_cache_drop(conf->cache, f);
    cached_file_put(f);
    return NULL;
}

static bool read_exactly(int fd, char *bytes, size_t len)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(fd, bytes + got, len - got, (off_t)got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

/* Read a small file so that content and stamp belong together: nothing has changed between the two
 * looks at it. Returns NULL if it does not hold still, has grown, or memory is out. */
static struct cached_file *read_file(const struct static_conf *conf, struct str key,
                                     const char *path, int fd, struct stat *st)
{
    for (int i = 0; i < READ_TRIES && st->st_size <= SMALL; i++) {
        struct cached_file *f = cached_file_new(key, path, (size_t)st->st_size);
        if (!f)
            return NULL;
        f->stamp = file_stamp_of(st);
        bool is_read = read_exactly(fd, f->bytes, f->len);
        if (fstat(fd, st) == 0) {
            int64_t now_s = time(NULL);
            struct file_stamp after = file_stamp_of(st);
            f->is_young = file_stamp_is_young(&after, now_s);
            file_info_init(&f->info, st, mime_type(conf->types, path), conf->cache_control, now_s);
            if (is_read && file_stamp_is(&f->stamp, &after))
                return f;
        }
        cached_file_put(f);
    }
    return NULL;
}

/* --- from the disk ---------------------------------------------------------------------------- */

static int reply_refusal(struct exchange *x, int code)
{
    switch (-code) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP: /* these two: a link leads out */
    case EXDEV:
    case ENXIO: /* a socket */
    case ENODEV:
    case ESTALE:
    case EINVAL: /* these two: a name that this file system can't have */
    case EILSEQ:
        return exchange_reply_error(x, 404);
    case EACCES:
    case EPERM:
        return exchange_reply_error(x, 403);
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EAGAIN: /* a lease is being broken, or renames never end */
        return exchange_reply_error(x, 503);
    default:
        return exchange_reply_error(x, 500);
    }
}

/* A client that asks for a folder without '/' is sent to the name with one, so that relative links
 * work. The name is encoded anew and begins with exactly one '/': it can't become another host's.
 */
static int reply_redirect(struct exchange *x)
{
    struct page location = {0};
    struct str path = exchange_path(x), query = exchange_query(x);
    while (path.len && *path.at == '/') {
        path.at++;
        path.len--;
    }
    page_puts(&location, "/");
    page_url(&location, path);
    page_puts(&location, "/");
    if (query.len)
        page_puts(&location, "?");
    page_query(&location, query);
    int rc = location.failed
                 ? -ENOMEM
                 : exchange_add(x, "Location", (struct str){location.bytes, location.len});
    page_fini(&location);
    return rc < 0 ? rc : exchange_reply_error(x, 301);
}

/* Open what path names for reading and look at it. Returns a descriptor or a code. */
static int open_path(const struct static_conf *conf, const char *path, struct stat *st)
{
    int fd = root_file(conf->folder, path, 0);
    if (fd >= 0 && fstat(fd, st) < 0) {
        int code = -errno;
        close(fd);
        return code;
    }
    return fd;
}

/* A folder that may be entered but not read: that is enough to be sent there. */
static bool is_closed_folder(const struct static_conf *conf, const char *path)
{
    int fd = root_file(conf->folder, path, O_PATH | O_DIRECTORY);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* Takes fd, which is open on the regular file that path names. */
static int serve_file(struct exchange *x, const struct static_conf *conf, const char *path, int fd,
                      struct stat *st, int64_t now_ms)
{
    struct str key = exchange_rest(x);
    struct cached_file *f = NULL;
    if (conf->cache && st->st_size <= SMALL)
        f = read_file(conf, key, path, fd, st);
    if (!f)
        return reply_open(x, conf, path, fd, st);
    close(fd);
    file_cache_add(conf->cache, f, now_ms);
    return reply_cached(x, conf, f);
}

static int serve_listing(struct exchange *x, const struct static_conf *conf, const char *path)
{
    const char *folder = *path ? path : ".";
    if (!conf->listing)
        return is_closed_folder(conf, folder) ? exchange_reply_error(x, 403)
                                              : exchange_reply_error(x, 404);
    int fd = root_file(conf->folder, folder, O_DIRECTORY);
    return fd < 0 ? reply_refusal(x, fd) : listing_reply(x, conf->folder, path, fd);
}

/* path is "" or ends in '/', and has room for PATH_MAX bytes. */
static int serve_folder(struct exchange *x, const struct static_conf *conf, char *path,
                        int64_t now_ms)
{
    size_t len = strlen(path), index_size = strlen(conf->index) + 1;
    struct stat st;
    if (index_size == 1 || len + index_size > PATH_MAX)
        return serve_listing(x, conf, path);
    memcpy(path + len, conf->index, index_size);
    int fd = open_path(conf, path, &st);
    if (fd >= 0 && S_ISREG(st.st_mode))
        return serve_file(x, conf, path, fd, &st, now_ms);
    if (fd >= 0)
        close(fd);
    else if (fd != -ENOENT && fd != -ENOTDIR)
        return reply_refusal(x, fd);
    path[len] = '\0';
    return serve_listing(x, conf, path);
}

static int serve_path(struct exchange *x, const struct static_conf *conf, const char *path,
                      int64_t now_ms)
{
    struct stat st;
    int fd = open_path(conf, path, &st);
    if (fd < 0)
        return fd == -EACCES && is_closed_folder(conf, path) ? reply_redirect(x)
                                                             : reply_refusal(x, fd);
    if (S_ISREG(st.st_mode))
        return serve_file(x, conf, path, fd, &st, now_ms);
    close(fd);
    return S_ISDIR(st.st_mode) ? reply_redirect(x) : exchange_reply_error(x, 404);
}

/* The relative path to open for what stands below the route: "/a/b" becomes "a/b". Returns false
 * for a path that can't be served, whatever is on the disk. */
static bool make_path(struct str rest, char path[PATH_MAX])
{
    const struct str well_known = STR(".well-known");
    while (rest.len && *rest.at == '/') {
        rest.at++;
        rest.len--;
    }
    if (rest.len >= PATH_MAX)
        return false;
    size_t from = rest.len >= well_known.len && memcmp(rest.at, well_known.at, well_known.len) == 0
                      ? well_known.len
                      : 0;
    if (from && from < rest.len && rest.at[from] != '/')
        return false;
    for (size_t i = from; i < rest.len; i++)
        if (rest.at[i] == '.' && (i == 0 || rest.at[i - 1] == '/'))
            return false;
    memcpy(path, rest.at, rest.len);
    path[rest.len] = '\0';
    return true;
}

static int serve_disk(struct exchange *x, const struct static_conf *conf, int64_t now_ms)
{
    char path[PATH_MAX];
    struct str rest = exchange_rest(x);
    if (rest.len == 0)
        return reply_redirect(x); /* the route's own name */
    if (!make_path(rest, path))
        return exchange_reply_error(x, 404);
    if (rest.at[rest.len - 1] == '/')
        return serve_folder(x, conf, path, now_ms);
    return serve_path(x, conf, path, now_ms);
}

static int static_step(struct exchange *x, enum exchange_event event)
{
    const struct static_conf *conf = exchange_conf(x);
    if (event == EXCHANGE_ROOM)
        return content_send_more(x);
    if (event != EXCHANGE_BEGUN)
        return 0;
    int64_t now_ms = conf->now_ms();
    root_refresh(conf->folder, now_ms);
    struct cached_file *f = find_cached(conf, exchange_rest(x), now_ms);
    return f ? reply_cached(x, conf, f) : serve_disk(x, conf, now_ms);
}

/* --- the options ------------------------------------------------------------------------------ */

static int64_t coarse_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int static_open(void *p, const struct handler_env *env, char *why, size_t why_size)
{
    struct static_conf *conf = p;
    (void)env;
    if (strchr(conf->index, '/')) {
        snprintf(why, why_size, "index is the name of a file, without '/'");
        return -1;
    }
    int rc = root_open(&conf->folder, conf->root);
    if (rc < 0) {
        snprintf(why, why_size, "root: %s: %s", conf->root, strerror(-rc));
        return -1;
    }
    conf->types = mime_open("/etc/mime.types");
    if (conf->cache_size > 0)
        conf->cache = file_cache_new((size_t)conf->cache_size);
    if (!conf->types || (conf->cache_size > 0 && !conf->cache)) {
        snprintf(why, why_size, "out of memory");
        return -1;
    }
    if (conf->max_age_ms > 0)
        snprintf(conf->cache_control, sizeof conf->cache_control, "max-age=%lld",
                 (long long)(conf->max_age_ms / 1000));
    conf->accept_ranges.len = 0;
    exchange_headers_add(&conf->accept_ranges, "Accept-Ranges", STR("bytes"));
    conf->now_ms = coarse_ms;
    return 0;
}

static void static_close(void *p)
{
    struct static_conf *conf = p;
    file_cache_free(conf->cache);
    mime_close(conf->types);
    root_close(conf->folder);
    conf->cache = NULL;
    conf->types = NULL;
    conf->folder = NULL;
}

const struct handler handler_static = {
    .name = "static",
    .summary = "files below a folder",
    .options = options,
    .conf_size = sizeof(struct static_conf),
    .open = static_open,
    .close = static_close,
    .entry = {.step = static_step},
};
