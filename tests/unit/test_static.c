/* SPDX-License-Identifier: MIT */
/* The static handler on a folder of its own, through the fake exchange: what is served, what is
 * not, conditional requests, ranges, the cache and listings. The clock is ours, so nothing sleeps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "handlers/file_cache.h"
#include "handlers/handler.h"
#include "handlers/listing.h"
#include "handlers/root.h"
#include "handlers/static.h"
#include "net/http_date.h"
#include "tests/unit/fake_exchange.h"

extern const struct handler handler_static;

/* --- a folder and a handler on it ------------------------------------------------------------- */

enum { OLD = 1000000000 }; /* Sun, 09 Sep 2001 01:46:40 GMT */
#define OLD_DATE "Sun, 09 Sep 2001 01:46:40 GMT"
#define ALPHABET "abcdefghijklmnopqrstuvwxyz"

static char folder[64];
static char secret[80]; /* a file beside the folder */
static struct static_conf conf;
static int64_t clock_now;

static int64_t clock_ms(void)
{
    return clock_now;
}

static const char *in_folder(const char *name)
{
    static char path[2][5000];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void set_time(const char *name, int64_t at_s)
{
    const struct timespec times[2] = {{.tv_sec = at_s}, {.tv_sec = at_s}};
    assert_int_equal(utimensat(AT_FDCWD, in_folder(name), times, 0), 0);
}

static void put_bytes(const char *path, const char *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

static void put_file(const char *name, const char *text)
{
    put_bytes(in_folder(name), text, strlen(text));
    set_time(name, OLD);
}

static void put_folder(const char *name)
{
    assert_int_equal(mkdir(in_folder(name), 0755), 0);
}

static void open_handler(bool listing, int64_t cache_size)
{
    char why[200] = "";
    conf = (struct static_conf){
        .root = folder, .index = "index.html", .listing = listing, .cache_size = cache_size};
    if (handler_static.open(&conf, &(struct handler_env){0}, why, sizeof why) != 0)
        fail_msg("open: %s", why);
    clock_now = 1000000;
    conf.now_ms = clock_ms;
}

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/modus-static-XXXXXX");
    assert_non_null(mkdtemp(folder));
    chmod(folder, 0755);
    snprintf(secret, sizeof secret, "%s-secret", folder);
    put_bytes(secret, "secret", 6);
    put_file("a.txt", ALPHABET);
    put_file("empty", "");
    put_file("page.html", "<p>page</p>");
    put_file(".hidden", "hidden");
    put_folder("dir");
    put_file("dir/index.html", "the index");
    put_folder("bare");
    put_file("bare/b.txt", "b");
    put_folder(".git");
    put_file(".git/config", "config");
    open_handler(false, 1 << 20);
    return 0;
}

static int tear_down(void **state)
{
    char command[400];
    (void)state;
    handler_static.close(&conf);
    snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s %s", folder, folder, secret);
    return system(command);
}

/* --- asking ----------------------------------------------------------------------------------- */

/* The last exchange; freed by the next ask and at the end of a test. */
static struct exchange *x;

static void done(void)
{
    if (x)
        fake_free(x);
    x = NULL;
}

static void prepare(enum exchange_method method, const char *target, const char *route)
{
    done();
    x = fake_new(&handler_static.entry, &conf, method, target, route);
}

static int serve(void)
{
    assert_int_equal(fake_serve(x), 0);
    assert_true(x->ended);
    assert_int_equal(x->add_failures, 0);
    if (!x->cut)
        assert_int_equal(x->length, x->out_len);
    return x->status;
}

static int get(const char *target)
{
    prepare(EXCHANGE_GET, target, "/");
    return serve();
}

/* headers: name, value, ..., NULL */
static int get_with(const char *target, ...)
{
    va_list args;
    const char *name;
    prepare(EXCHANGE_GET, target, "/");
    va_start(args, target);
    while ((name = va_arg(args, const char *)) != NULL)
        fake_header(x, name, va_arg(args, const char *));
    va_end(args);
    return serve();
}

static void assert_header(const char *name, const char *wanted)
{
    const char *got = fake_answer(x, name);
    if (!got || strcmp(got, wanted) != 0)
        fail_msg("%s is %s, not %s", name, got ? got : "not there", wanted);
}

static void assert_no_header(const char *name)
{
    assert_null(fake_answer(x, name));
}

/* --- plain files ------------------------------------------------------------------------------ */

static void a_file(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) { /* from the disk, from the cache */
        assert_int_equal(get("/a.txt?query"), 200);
        assert_string_equal(x->out, ALPHABET);
        assert_string_equal(x->type, "text/plain; charset=utf-8");
        assert_header("Last-Modified", OLD_DATE);
        assert_header("Accept-Ranges", "bytes");
        assert_non_null(fake_answer(x, "ETag"));
        assert_int_equal(fake_answer(x, "ETag")[0], '"');
        assert_no_header("Cache-Control");
        assert_no_header("Content-Range");
    }
    assert_int_equal(get("/empty"), 200);
    assert_int_equal(x->out_len, 0);
    assert_string_equal(x->type, "application/octet-stream");
    assert_int_equal(get("/none"), 404);
    assert_int_equal(get("/a.txt/"), 404);
    assert_int_equal(get("/a.txt/b"), 404);
    done();
}

static void below_a_route(void **state)
{
    (void)state;
    prepare(EXCHANGE_GET, "/files/a.txt", "/files");
    assert_int_equal(serve(), 200);
    prepare(EXCHANGE_GET, "/files", "/files");
    assert_int_equal(serve(), 301);
    assert_header("Location", "/files/");
    prepare(EXCHANGE_GET, "/files/", "/files");
    assert_int_equal(serve(), 403);
    done();
}

static void same_headers_for_head(void **state)
{
    (void)state;
    static const char *const names[] = {"ETag", "Last-Modified", "Accept-Ranges"};
    char *values[3];
    assert_int_equal(get("/a.txt"), 200);
    for (size_t i = 0; i < 3; i++)
        values[i] = strdup(fake_answer(x, names[i]));
    prepare(EXCHANGE_HEAD, "/a.txt", "/");
    fake_header(x, "Range", "bytes=0-1"); /* means nothing to HEAD */
    assert_int_equal(serve(), 200);
    assert_int_equal(x->length, 26);
    for (size_t i = 0; i < 3; i++) {
        assert_header(names[i], values[i]);
        free(values[i]);
    }
    done();
}

static void max_age(void **state)
{
    (void)state;
    char why[100];
    handler_static.close(&conf);
    conf = (struct static_conf){.root = folder, .index = "", .max_age_ms = 3600000};
    assert_int_equal(handler_static.open(&conf, NULL, why, sizeof why), 0);
    assert_int_equal(get("/a.txt"), 200);
    assert_header("Cache-Control", "max-age=3600");
    assert_int_equal(get_with("/a.txt", "If-None-Match", "*", NULL), 304);
    assert_header("Cache-Control", "max-age=3600");
    assert_int_equal(get("/dir/"), 403); /* index "": no index */
    done();
}

/* Sizes around what the cache takes, with and without one. */
static void sizes(void **state)
{
    (void)state;
    static const size_t tried[] = {0, 1, 16383, 16384, 16385, 100000, 3000000};
    char *bytes = malloc(3000000);
    for (size_t i = 0; i < 3000000; i++)
        bytes[i] = (char)(i * 31 + (i >> 8));
    for (int cached = 0; cached < 2; cached++) {
        handler_static.close(&conf);
        open_handler(false, cached ? 1 << 20 : 0);
        for (size_t i = 0; i < sizeof tried / sizeof tried[0]; i++) {
            put_bytes(in_folder("sized.bin"), bytes, tried[i]);
            clock_now += 2000;
            for (int again = 0; again < 2; again++) {
                assert_int_equal(get("/sized.bin"), 200);
                assert_int_equal(x->out_len, tried[i]);
                assert_memory_equal(x->out, bytes, tried[i]);
            }
        }
    }
    free(bytes);
    done();
}

/* --- what is not served ----------------------------------------------------------------------- */

static void names_with_dots(void **state)
{
    (void)state;
    static const char *const targets[] = {
        "/.hidden",     "/.git",          "/.git/",
        "/.git/config", "/dir/.hidden",   "/..",
        "/../",         "/../etc/passwd", "/dir/../../etc/passwd",
        "/.",           "/./a.txt",       "/...",
        "/dir/..",      "//.hidden",      "/dir/.",
    };
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (get(targets[i]) != 404)
            fail_msg("%s gave %d", targets[i], x->status);
    /* Dots elsewhere in a name are fine. */
    put_file("a..b", "dots");
    put_file("c.", "dot");
    assert_int_equal(get("/a..b"), 200);
    assert_int_equal(get("/c."), 200);
    done();
}

/* RFC 8615: the one dotted name that sites must be able to serve, and only at the front. */
static void well_known(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "/.well-knownx",
        "/.well-known.txt",
        "/.well-know",
        "/.WELL-KNOWN/token",
        "/dir/.well-known/token",
        "/.well-known/.git",
        "/.well-known/../a.txt",
        "/.well-known/.well-known/token",
        "/..well-known/token",
    };
    put_folder(".well-known");
    put_folder("dir/.well-known");
    put_file(".well-known/token", "known");
    put_file("dir/.well-known/token", "known");
    put_file(".well-known/.git", "hidden");
    put_file(".well-knownx", "hidden");
    put_file(".well-known.txt", "hidden");
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (get(refused[i]) != 404)
            fail_msg("%s gave %d", refused[i], x->status);
    assert_int_equal(get("/.well-known/token"), 200);
    assert_string_equal(x->out, "known");
    assert_int_equal(get("//.well-known/token"), 200);
    assert_int_equal(get("/.well-known/nothing"), 404);
    assert_int_equal(get("/.well-known"), 301);
    assert_int_equal(get("/.well-known/"), 403);
    done();
}

static void check_links(void)
{
    static const char *const out[] = {"/out",  "/out2",  "/outdir/hosts", "/outdir",  "/outdir/",
                                      "/loop", "/magic", "/dangling",     "/absolute"};
    for (size_t i = 0; i < sizeof out / sizeof out[0]; i++)
        if (get(out[i]) != 404)
            fail_msg("%s gave %d", out[i], x->status);
}

static void links(void **state)
{
    (void)state;
    char relative[100];
    snprintf(relative, sizeof relative, "..%s", strrchr(secret, '/'));
    assert_int_equal(symlink(secret, in_folder("out")), 0);
    assert_int_equal(symlink(relative, in_folder("out2")), 0);
    assert_int_equal(symlink("/etc", in_folder("outdir")), 0);
    assert_int_equal(symlink("loop", in_folder("loop")), 0);
    assert_int_equal(symlink("/proc/self/fd/0", in_folder("magic")), 0);
    assert_int_equal(symlink("nothing", in_folder("dangling")), 0);
    assert_int_equal(symlink("a.txt", in_folder("in.txt")), 0);
    assert_int_equal(symlink("../dir/../a.txt", in_folder("bare/up.txt")), 0);
    assert_int_equal(symlink("dir", in_folder("linked")), 0);
    /* Even where it leads back in, an absolute link goes through what is outside. */
    assert_int_equal(symlink(in_folder("a.txt"), in_folder("absolute")), 0);
    check_links();
    assert_int_equal(get("/in.txt"), 200);
    assert_string_equal(x->out, ALPHABET);
    assert_int_equal(get("/bare/up.txt"), 200);
    assert_int_equal(get("/linked"), 301);
    assert_int_equal(get("/linked/"), 200);
    assert_string_equal(x->out, "the index");

    /* Without openat2 no link is followed. */
    handler_static.close(&conf);
    open_handler(false, 1 << 20);
    root_force_walk(conf.folder);
    check_links();
    assert_int_equal(get("/in.txt"), 404);
    assert_int_equal(get("/linked/"), 404);
    assert_int_equal(get("/a.txt"), 200);
    assert_int_equal(get("/a.txt/"), 404);
    assert_int_equal(get("/a.txt/b"), 404);
    assert_int_equal(get("/dir"), 301);
    assert_int_equal(get("/dir/"), 200);
    assert_int_equal(get("/dir/index.html"), 200);
    assert_int_equal(get("/bare/"), 403);
    assert_int_equal(get("/none/"), 404);
    assert_int_equal(get("/none/none"), 404);
    clock_now += 2000;
    assert_int_equal(get("/dir/"), 200);
    done();
}

static void straight_through_root(void **state)
{
    (void)state;
    for (int walk = 0; walk < 2; walk++) {
        if (walk)
            root_force_walk(conf.folder);
        assert_true(root_file(conf.folder, "..", 0) < 0);
        assert_true(root_file(conf.folder, "../..", O_PATH) < 0);
        assert_true(root_file(conf.folder, "dir/../../etc", O_PATH) < 0);
        assert_true(root_file(conf.folder, "/etc/passwd", 0) < 0);
        assert_true(root_file(conf.folder, "/", 0) < 0);
        assert_int_equal(root_file(conf.folder, "", 0), -ENOENT);
        int fd = root_file(conf.folder, ".", O_DIRECTORY);
        assert_true(fd >= 0);
        close(fd);
    }
}

static void special_files(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(in_folder("fifo"), 0666), 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s/socket", folder);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    alarm(10); /* opening a FIFO must not wait for a writer */
    assert_int_equal(get("/fifo"), 404);
    assert_int_equal(get("/socket"), 404);
    if (mknod(in_folder("null"), S_IFCHR | 0666, 1 << 8 | 3) == 0)
        assert_int_equal(get("/null"), 404);
    assert_int_equal(unlink(in_folder("dir/index.html")), 0);
    assert_int_equal(mkfifo(in_folder("dir/index.html"), 0666), 0);
    assert_int_equal(get("/dir/"), 403);
    alarm(0);
    close(fd);
    done();
}

static void long_names(void **state)
{
    (void)state;
    char target[9000];
    memset(target, 'a', sizeof target);
    target[0] = '/';
    target[301] = '\0';
    assert_int_equal(get(target), 404);
    target[301] = 'a';
    target[sizeof target - 1] = '\0';
    assert_int_equal(get(target), 404);
    for (size_t i = 0; i < 4090; i += 2)
        target[i] = '/';
    target[4095] = '\0'; /* PATH_MAX with the index behind it */
    target[4094] = '/';
    assert_int_equal(get(target), 404);
    done();
}

static void permissions(void **state)
{
    (void)state;
    assert_int_equal(chmod(in_folder("a.txt"), 0), 0);
    assert_int_equal(chmod(in_folder("bare"), 0), 0);
    assert_int_equal(chmod(in_folder("dir"), 0711), 0);
    bool is_root = geteuid() == 0;
    if (is_root)
        assert_int_equal(seteuid(65534), 0);
    int file = get("/a.txt"), below = get("/bare/b.txt"), index = get("/bare/");
    int entered = get("/dir/"), redirected = get("/dir"), none = get("/dir/none");
    assert_int_equal(get("/page.html"), 200);
    if (is_root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(file, 403);
    assert_int_equal(below, 403);
    assert_int_equal(index, 403);
    assert_int_equal(entered, is_root ? 200 : entered);
    assert_int_equal(redirected, 301);
    assert_int_equal(none, 404);
    done();
}

/* A file that was served from memory is not any more once it may not be read. */
static void permission_lost(void **state)
{
    (void)state;
    bool is_root = geteuid() == 0;
    assert_int_equal(get("/a.txt"), 200);
    assert_int_equal(chmod(in_folder("a.txt"), 0), 0);
    clock_now += 1000;
    if (is_root)
        assert_int_equal(seteuid(65534), 0);
    int status = get("/a.txt");
    if (is_root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(status, 403);
    done();
}

static void out_of_descriptors(void **state)
{
    (void)state;
    struct rlimit old, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = old.rlim_max};
    assert_int_equal(get("/page.html"), 200);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int fresh = get("/a.txt"), cached = get("/page.html"), folder_status = get("/dir");
    int index = get("/dir/"), missing = get("/missing");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(fresh, 503);
    assert_int_equal(cached, 200);
    assert_int_equal(folder_status, 503);
    assert_int_equal(index, 503);
    (void)missing; /* 404 or 503, as the kernel likes */
    assert_int_equal(get("/a.txt"), 200);
    done();
}

static void bad_roots(void **state)
{
    (void)state;
    char why[200] = "";
    struct static_conf c = {.root = "/no/such/folder", .index = "index.html"};
    assert_int_equal(handler_static.open(&c, NULL, why, sizeof why), -1);
    assert_non_null(strstr(why, "/no/such/folder"));
    handler_static.close(&c);
    c = (struct static_conf){.root = "/etc/passwd", .index = "index.html"};
    assert_int_equal(handler_static.open(&c, NULL, why, sizeof why), -1);
    handler_static.close(&c);
    c = (struct static_conf){.root = folder, .index = "../x"};
    assert_int_equal(handler_static.open(&c, NULL, why, sizeof why), -1);
    assert_non_null(strstr(why, "index"));
    handler_static.close(&c);
}

/* --- folders ---------------------------------------------------------------------------------- */

static void folders(void **state)
{
    (void)state;
    assert_int_equal(get("/dir/"), 200);
    assert_string_equal(x->out, "the index");
    assert_string_equal(x->type, "text/html; charset=utf-8");
    assert_int_equal(get("/dir/"), 200); /* cached */
    assert_int_equal(get("/dir"), 301);
    assert_header("Location", "/dir/");
    assert_int_equal(get("/dir?a=1&b=%20?c"), 301);
    assert_header("Location", "/dir/?a=1&b=%20?c");
    assert_int_equal(get("/bare/"), 403);
    assert_int_equal(get("/bare"), 301);
    assert_int_equal(get("/none/"), 404);
    assert_int_equal(get("/"), 403);
    done();
}

/* The target of a redirect is always a path on this host, in one line. */
static void hostile_redirects(void **state)
{
    (void)state;
    put_folder("evil.example");
    put_folder("a b\r\nX: y");
    put_folder("\\evil");
    put_folder("q?#%\"<>");
    put_folder("\xc3\xa9");
    assert_int_equal(get("//evil.example"), 301);
    assert_header("Location", "/evil.example/");
    assert_int_equal(get("////evil.example?q"), 301);
    assert_header("Location", "/evil.example/?q");
    assert_int_equal(get("/a b\r\nX: y"), 301);
    assert_header("Location", "/a%20b%0D%0AX%3A%20y/");
    assert_int_equal(get("/\\evil"), 301);
    assert_header("Location", "/%5Cevil/");
    assert_int_equal(get("/\xc3\xa9"), 301);
    assert_header("Location", "/%C3%A9/");
    assert_int_equal(get("/dir?a b\r\nSet-Cookie: x=1\x80#\"<>"), 301);
    assert_header("Location", "/dir/?a%20b%0D%0ASet-Cookie:%20x=1%80%23%22%3C%3E");
    done();
}

static void listings(void **state)
{
    (void)state;
    handler_static.close(&conf);
    open_handler(true, 1 << 20);
    put_file("bare/<script>alert(1)<\\script>&'\"", "x");
    put_file("bare/javascript:alert(1)", "x");
    put_file("bare/a\nb", "x");
    put_file("bare/\xff\xfe", "x");
    put_file("bare/.dot", "x");
    put_folder("bare/zdir");
    assert_int_equal(mkfifo(in_folder("bare/fifo"), 0666), 0);
    assert_int_equal(symlink(secret, in_folder("bare/leads-out")), 0);
    assert_int_equal(symlink("/etc", in_folder("bare/leads-out-dir")), 0);
    assert_int_equal(symlink("nothing", in_folder("bare/dangling")), 0);
    assert_int_equal(symlink("../a.txt", in_folder("bare/linked.txt")), 0);
    assert_int_equal(get("/bare/"), 200);
    assert_string_equal(x->type, "text/html; charset=utf-8");
    const char *out = x->out;
    assert_non_null(
        strstr(out, "<a href=\"b.txt\">b.txt</a></td><td>1</td><td>2001-09-09 01:46:40</td>"));
    assert_non_null(strstr(out, "<a href=\"linked.txt\">linked.txt</a></td><td>26</td>"));
    assert_non_null(strstr(out, "<a href=\"zdir/\">zdir/</a>"));
    assert_non_null(strstr(out, "<a href=\"../\">"));
    assert_null(strstr(out, "<script"));
    assert_non_null(strstr(out, "&lt;script&gt;alert(1)&lt;\\script&gt;&amp;&#39;&quot;"));
    assert_non_null(strstr(out, "href=\"%3Cscript%3Ealert%281%29%3C%5Cscript%3E%26%27%22\""));
    assert_non_null(strstr(out, "href=\"javascript%3Aalert%281%29\""));
    assert_null(strstr(out, "href=\"javascript:"));
    assert_non_null(strstr(out, "href=\"a%0Ab\""));
    assert_non_null(strstr(out, "href=\"%FF%FE\">\xef\xbf\xbd\xef\xbf\xbd</a>"));
    assert_null(strstr(out, ".dot"));
    assert_null(strstr(out, "fifo"));
    assert_null(strstr(out, "leads-out"));
    assert_null(strstr(out, "dangling"));
    assert_true(strstr(out, "zdir/") < strstr(out, "b.txt")); /* folders first */
    assert_no_header("ETag");
    assert_no_header("Last-Modified");

    assert_int_equal(get("/"), 200); /* the top has no parent */
    assert_null(strstr(x->out, "../"));
    assert_non_null(strstr(x->out, "href=\"a.txt\""));
    assert_null(strstr(x->out, ".git"));
    assert_int_equal(get("/dir/"), 200);
    assert_string_equal(x->out, "the index");
    assert_int_equal(get("/none/"), 404);
    assert_int_equal(get("/a.txt/"), 404);
    assert_int_equal(get_with("/bare/", "Range", "bytes=0-1", "If-None-Match", "*", NULL), 200);
    done();
}

static void listing_of_a_hostile_name(void **state)
{
    (void)state;
    handler_static.close(&conf);
    open_handler(true, 0);
    put_folder("<img src=x>");
    assert_int_equal(get("/<img src=x>/"), 200);
    assert_null(strstr(x->out, "<img"));
    assert_non_null(strstr(x->out, "<title>/&lt;img src=x&gt;/</title>"));
    done();
}

static void long_listings(void **state)
{
    (void)state;
    char name[64];
    size_t rows = 0;
    handler_static.close(&conf);
    open_handler(true, 0);
    put_folder("many");
    for (int i = 0; i < LISTING_MAX + 10; i++) {
        snprintf(name, sizeof name, "many/%d", i);
        put_bytes(in_folder(name), "", 0);
    }
    assert_int_equal(get("/many/"), 200);
    assert_non_null(strstr(x->out, "only 2000 are shown"));
    for (const char *at = x->out; (at = strstr(at, "<tr>")) != NULL; at++)
        rows++;
    assert_int_equal(rows, LISTING_MAX + 1);
    done();
}

/* --- conditional requests --------------------------------------------------------------------- */

#define BEFORE "Sun, 09 Sep 2001 01:46:39 GMT"
#define AFTER  "Sun, 09 Sep 2001 01:46:41 GMT"

/* The matrix, for a file from the cache and for one too large for it. */
static void conditions_of(const char *target, char *etag)
{
    char weak[80], list[200];
    snprintf(weak, sizeof weak, "W/%s", etag);
    snprintf(list, sizeof list, "\"x\", %s", etag);
    const struct {
        const char *name, *value;
        int status;
    } single[] = {
        {"If-None-Match", etag, 304},
        {"If-None-Match", weak, 304},
        {"If-None-Match", list, 304},
        {"If-None-Match", "*", 304},
        {"If-None-Match", "\"x\"", 200},
        {"If-None-Match", "", 200},
        {"If-None-Match", "junk", 200},
        {"If-Match", etag, 200},
        {"If-Match", list, 200},
        {"If-Match", "*", 200},
        {"If-Match", weak, 412},
        {"If-Match", "\"x\"", 412},
        {"If-Match", "", 412},
        {"If-Modified-Since", OLD_DATE, 304},
        {"If-Modified-Since", AFTER, 304},
        {"If-Modified-Since", BEFORE, 200},
        {"If-Modified-Since", "Sunday, 09-Sep-01 01:46:40 GMT", 304},
        {"If-Modified-Since", "Sun Sep  9 01:46:40 2001", 304},
        {"If-Modified-Since", "yesterday", 200},
        {"If-Modified-Since", "", 200},
        {"If-Unmodified-Since", OLD_DATE, 200},
        {"If-Unmodified-Since", AFTER, 200},
        {"If-Unmodified-Since", BEFORE, 412},
        {"If-Unmodified-Since", "tomorrow", 200},
    };
    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++) {
        int got = get_with(target, single[i].name, single[i].value, NULL);
        if (got != single[i].status)
            fail_msg("%s: %s gave %d", single[i].name, single[i].value, got);
        if (got == 304) {
            assert_header("ETag", etag);
            assert_header("Last-Modified", OLD_DATE);
            assert_null(x->type);
            assert_int_equal(x->out_len, 0);
        }
    }
}

/* Which of two decides, RFC 9110 13.2.2. */
static void precedence_of(const char *target, const char *etag)
{
    const char *t = target;
    assert_int_equal(get_with(t, "If-None-Match", "\"x\"", "If-Modified-Since", AFTER, NULL), 200);
    assert_int_equal(get_with(t, "If-None-Match", etag, "If-Modified-Since", BEFORE, NULL), 304);
    assert_int_equal(get_with(t, "If-Match", etag, "If-Unmodified-Since", BEFORE, NULL), 200);
    assert_int_equal(get_with(t, "If-Match", "\"x\"", "If-Unmodified-Since", AFTER, NULL), 412);
    assert_int_equal(get_with(t, "If-Match", etag, "If-None-Match", etag, NULL), 304);
    assert_int_equal(get_with(t, "If-Match", "\"x\"", "If-None-Match", etag, NULL), 412);
    assert_int_equal(get_with(t, "If-Unmodified-Since", BEFORE, "If-Modified-Since", AFTER, NULL),
                     412);
    assert_int_equal(get_with(t, "If-None-Match", etag, "Range", "bytes=0-1", NULL), 304);
    assert_int_equal(get_with(t, "If-None-Match", etag, "Range", "bytes=9999999-", NULL), 304);
    assert_int_equal(get_with(t, "If-Match", "\"x\"", "Range", "bytes=0-1", NULL), 412);
    /* Lists may be spread over lines; dates may not. */
    assert_int_equal(get_with(t, "If-None-Match", "\"x\"", "if-none-match", etag, NULL), 304);
    assert_int_equal(get_with(t, "If-Match", "\"x\"", "IF-MATCH", etag, NULL), 200);
    assert_int_equal(get_with(t, "If-Modified-Since", AFTER, "If-Modified-Since", AFTER, NULL),
                     200);
    assert_int_equal(
        get_with(t, "If-Unmodified-Since", BEFORE, "If-Unmodified-Since", BEFORE, NULL), 200);
}

static void if_range_of(const char *target, const char *etag)
{
    char weak[80];
    snprintf(weak, sizeof weak, "W/%s", etag);
    const struct {
        const char *value;
        int status;
    } tried[] = {
        {etag, 206},   {weak, 200},      {"\"x\"", 200}, {OLD_DATE, 206}, {AFTER, 200},
        {BEFORE, 200}, {"someday", 200}, {"", 200},      {"*", 200},
    };
    for (size_t i = 0; i < sizeof tried / sizeof tried[0]; i++) {
        int got = get_with(target, "Range", "bytes=0-1", "If-Range", tried[i].value, NULL);
        if (got != tried[i].status)
            fail_msg("If-Range: %s gave %d", tried[i].value, got);
    }
    assert_int_equal(
        get_with(target, "Range", "bytes=0-1", "If-Range", etag, "If-Range", etag, NULL), 200);
    assert_int_equal(get_with(target, "If-Range", "\"x\"", NULL), 200);
    /* An unsatisfiable range is only one if it is honoured. */
    assert_int_equal(get_with(target, "Range", "bytes=9999999-", "If-Range", "\"x\"", NULL), 200);
    assert_int_equal(get_with(target, "Range", "bytes=9999999-", "If-Range", etag, NULL), 416);
}

static char *etag_of(const char *target)
{
    assert_int_equal(get(target), 200);
    return strdup(fake_answer(x, "ETag"));
}

static void put_large(const char *name)
{
    char *bytes = malloc(100000);
    for (size_t i = 0; i < 100000; i++)
        bytes[i] = (char)('a' + i % 26);
    put_bytes(in_folder(name), bytes, 100000);
    set_time(name, OLD);
    free(bytes);
}

static void conditions(void **state)
{
    (void)state;
    put_large("large");
    static const char *const targets[] = {"/a.txt", "/large"};
    for (size_t i = 0; i < 2; i++) {
        char *etag = etag_of(targets[i]);
        conditions_of(targets[i], etag);
        precedence_of(targets[i], etag);
        if_range_of(targets[i], etag);
        free(etag);
    }
    /* No file, no conditions. */
    assert_int_equal(get_with("/none", "If-Match", "*", NULL), 404);
    assert_int_equal(get_with("/none", "If-None-Match", "*", NULL), 404);
    assert_int_equal(get_with("/dir", "If-Match", "\"x\"", NULL), 301);
    done();
}

/* A file from the future carries no date from there, and no date in its own second is strong. */
static void present_and_future(void **state)
{
    (void)state;
    int64_t now = time(NULL), at;
    set_time("a.txt", now + 100000);
    assert_int_equal(get("/a.txt"), 200);
    assert_true(http_date_parse(str_of(fake_answer(x, "Last-Modified")), now, &at));
    assert_in_range(at, now, now + 5);
    char text[HTTP_DATE_LEN + 1];
    http_date_format(text, at);
    assert_int_equal(get_with("/a.txt", "If-Modified-Since", text, NULL), 304);
    set_time("page.html", now + 3);
    http_date_format(text, now + 3);
    assert_int_equal(get_with("/page.html", "Range", "bytes=0-1", "If-Range", text, NULL), 200);
    done();
}

static void etags_differ(void **state)
{
    (void)state;
    put_file("twin1", "same");
    put_file("twin2", "same");
    char *one = etag_of("/twin1"), *two = etag_of("/twin2");
    assert_string_not_equal(one, two);
    free(two);
    put_file("twin1", "longer");
    clock_now += 1000;
    two = etag_of("/twin1");
    assert_string_not_equal(one, two);
    free(one);
    free(two);
    done();
}

/* --- ranges ----------------------------------------------------------------------------------- */

static void ranges_of(const char *target, const char *size)
{
    char wanted[80];
    assert_int_equal(get_with(target, "Range", "bytes=0-4", NULL), 206);
    assert_string_equal(x->out, "abcde");
    snprintf(wanted, sizeof wanted, "bytes 0-4/%s", size);
    assert_header("Content-Range", wanted);
    assert_header("Accept-Ranges", "bytes");
    assert_header("Last-Modified", OLD_DATE);
    assert_non_null(fake_answer(x, "ETag"));
    assert_int_equal(get_with(target, "Range", "bytes=3-3", NULL), 206);
    assert_string_equal(x->out, "d");
    assert_int_equal(get_with(target, "Range", "bytes=0-1,1-2", NULL), 206); /* one in the end */
    assert_string_equal(x->out, "abc");
    assert_int_equal(get_with(target, "Range", "bytes=99999999-", NULL), 416);
    snprintf(wanted, sizeof wanted, "bytes */%s", size);
    assert_header("Content-Range", wanted);
    assert_no_header("ETag");
    assert_int_equal(get_with(target, "Range", "bytes=-0", NULL), 416);
    assert_int_equal(get_with(target, "Range", "bytes=5-1", NULL), 200);
    assert_int_equal(get_with(target, "Range", "lines=1-5", NULL), 200);
    assert_int_equal(get_with(target, "Range", "bytes=0-1", "Range", "bytes=0-1", NULL), 200);
}

static void one_range(void **state)
{
    (void)state;
    put_large("large");
    ranges_of("/a.txt", "26");
    ranges_of("/large", "100000");
    assert_int_equal(get_with("/a.txt", "Range", "bytes=24-", NULL), 206);
    assert_string_equal(x->out, "yz");
    assert_int_equal(get_with("/a.txt", "Range", "bytes=-3", NULL), 206);
    assert_string_equal(x->out, "xyz");
    assert_int_equal(get_with("/a.txt", "Range", "bytes=-300", NULL), 206);
    assert_string_equal(x->out, ALPHABET);
    assert_header("Content-Range", "bytes 0-25/26");
    assert_int_equal(get_with("/empty", "Range", "bytes=0-", NULL), 416);
    assert_header("Content-Range", "bytes */0");
    assert_int_equal(get_with("/empty", "Range", "bytes=-1", NULL), 200);
    done();
}

/* What a multipart answer must be, made here in another way. */
static void assert_parts(const char *type, const char *size, const char *const *parts)
{
    static const char prefix[] = "multipart/byteranges; boundary=";
    char wanted[20000];
    size_t len = 0;
    assert_memory_equal(x->type, prefix, sizeof prefix - 1);
    const char *boundary = x->type + sizeof prefix - 1;
    assert_int_equal(strlen(boundary), 32);
    for (; *parts; parts += 2)
        len +=
            (size_t)snprintf(wanted + len, sizeof wanted - len,
                             "%s--%s\r\nContent-Type: %s\r\nContent-Range: bytes %s/%s\r\n\r\n%s",
                             len ? "\r\n" : "", boundary, type, parts[0], size, parts[1]);
    snprintf(wanted + len, sizeof wanted - len, "\r\n--%s--\r\n", boundary);
    assert_string_equal(x->out, wanted);
}

static void several_ranges(void **state)
{
    (void)state;
    static const char *const parts[] = {"0-2", "abc", "24-25", "yz", "5-5", "f", NULL};
    static const char text[] = "text/plain; charset=utf-8";
    assert_int_equal(get_with("/a.txt", "Range", "bytes=0-2, -2 ,5-5", NULL), 206);
    assert_parts(text, "26", parts);
    assert_no_header("Content-Range");
    assert_non_null(fake_answer(x, "ETag"));

    put_large("large");
    static const char last[] = {'a' + 99998 % 26, 'a' + 99999 % 26, 0};
    static const char *const large[] = {"99998-99999", last, "0-2", "abc", "26-27", "ab", NULL};
    assert_int_equal(get_with("/large", "Range", "bytes=-2,0-2,26-27", NULL), 206);
    assert_parts("application/octet-stream", "100000", large);

    /* The same when the pipe takes only a few bytes at a time. */
    for (size_t step = 1; step < 60; step += 7) {
        prepare(EXCHANGE_GET, "/large", "/");
        fake_header(x, "Range", "bytes=-2,0-2,26-27");
        x->room = 0;
        x->room_step = step;
        assert_int_equal(serve(), 206);
        assert_true(x->events > 3);
        assert_parts("application/octet-stream", "100000", large);
    }
    done();
}

static void sixteen_ranges(void **state)
{
    (void)state;
    char header[300] = "bytes=0-0";
    put_large("large");
    for (int i = 1; i < 16; i++)
        snprintf(header + strlen(header), sizeof header - strlen(header), ",%d-%d", i * 10, i * 10);
    for (int i = 0; i < 2; i++) {
        const char *target = i ? "/large" : "/sixteen";
        put_file("sixteen", ALPHABET ALPHABET ALPHABET ALPHABET ALPHABET ALPHABET ALPHABET);
        assert_int_equal(get_with(target, "Range", header, NULL), 206);
        size_t parts = 0;
        for (const char *at = x->out; (at = strstr(at, "Content-Range")) != NULL; at++)
            parts++;
        assert_int_equal(parts, 16);
    }
    strcat(header, ",170-170");
    assert_int_equal(get_with("/large", "Range", header, NULL), 200);
    assert_int_equal(x->out_len, 100000);
    assert_int_equal(get_with("/sixteen", "Range", header, NULL), 200);
    done();
}

static void cut_when_it_shrinks(void **state)
{
    (void)state;
    put_large("large");
    prepare(EXCHANGE_GET, "/large", "/");
    fake_header(x, "Range", "bytes=0-10,50000-99999");
    x->room = 0; /* the answer begins, and waits */
    x->room_step = 500;
    assert_int_equal(handler_static.entry.step(x, EXCHANGE_BEGUN), 0);
    assert_true(x->begun && !x->ended);
    assert_int_equal(truncate(in_folder("large"), 60000), 0);
    x->room = 500;
    while (!x->ended) {
        x->room = 500;
        assert_int_equal(handler_static.entry.step(x, EXCHANGE_ROOM), 0);
    }
    assert_true(x->cut);
    assert_true((int64_t)x->out_len < x->length);
    done();
}

/* --- the cache -------------------------------------------------------------------------------- */

static void replaced_files(void **state)
{
    (void)state;
    assert_int_equal(get("/a.txt"), 200);
    char *etag = strdup(fake_answer(x, "ETag"));
    put_bytes(in_folder("new"), "replaced", 8);
    set_time("new", OLD); /* not even the time of change differs */
    assert_int_equal(rename(in_folder("new"), in_folder("a.txt")), 0);
    clock_now += 500;
    assert_int_equal(get("/a.txt"), 200);
    assert_string_equal(x->out, ALPHABET); /* not looked at yet */
    clock_now += 500;
    assert_int_equal(get("/a.txt"), 200);
    assert_string_equal(x->out, "replaced");
    assert_string_not_equal(fake_answer(x, "ETag"), etag);
    assert_int_equal(get_with("/a.txt", "If-None-Match", etag, NULL), 200);
    free(etag);

    /* Written over in place, same length, time set back. */
    put_file("a.txt", "REPLACED");
    clock_now += 1000;
    assert_int_equal(get("/a.txt"), 200);
    assert_string_equal(x->out, "REPLACED");

    assert_int_equal(unlink(in_folder("a.txt")), 0);
    clock_now += 1000;
    assert_int_equal(get("/a.txt"), 404);
    put_file("a.txt", "back");
    assert_int_equal(get("/a.txt"), 200);
    assert_string_equal(x->out, "back");

    /* From a file to a folder, from small to large, from a file to a link that leads out. */
    assert_int_equal(unlink(in_folder("a.txt")), 0);
    put_folder("a.txt");
    clock_now += 1000;
    assert_int_equal(get("/a.txt"), 301);
    assert_int_equal(get("/page.html"), 200);
    put_large("page.html");
    clock_now += 1000;
    assert_int_equal(get("/page.html"), 200);
    assert_int_equal(x->out_len, 100000);
    assert_int_equal(get("/dir/"), 200);
    assert_int_equal(unlink(in_folder("dir/index.html")), 0);
    assert_int_equal(symlink(secret, in_folder("dir/index.html")), 0);
    clock_now += 1000;
    assert_int_equal(get("/dir/"), 404);
    done();
}

/* A deployment: root is a link, and is switched. */
static void switched_root(void **state)
{
    (void)state;
    char why[100], root[100];
    put_folder("v1");
    put_folder("v2");
    put_file("v1/x", "one");
    put_file("v2/x", "two");
    assert_int_equal(symlink("v1", in_folder("current")), 0);
    snprintf(root, sizeof root, "%s/current", folder);
    handler_static.close(&conf);
    conf = (struct static_conf){.root = root, .index = "index.html", .cache_size = 100000};
    assert_int_equal(handler_static.open(&conf, NULL, why, sizeof why), 0);
    conf.now_ms = clock_ms;
    assert_int_equal(get("/x"), 200);
    assert_string_equal(x->out, "one");
    assert_int_equal(symlink("v2", in_folder("next")), 0);
    assert_int_equal(rename(in_folder("next"), in_folder("current")), 0);
    clock_now += 1000;
    assert_int_equal(get("/x"), 200);
    assert_string_equal(x->out, "two");
    /* If it vanishes, what is held goes on. */
    assert_int_equal(unlink(in_folder("current")), 0);
    clock_now += 1000;
    assert_int_equal(get("/x"), 200);
    handler_static.close(&conf);
    done();
    open_handler(false, 0);
}

static void held_while_sent(void **state)
{
    (void)state;
    size_t files;
    assert_int_equal(get("/a.txt"), 200);
    struct exchange *held = x; /* its file is being sent */
    x = NULL;
    put_file("a.txt", "other");
    clock_now += 1000;
    assert_int_equal(get("/a.txt"), 200);
    assert_string_equal(x->out, "other");
    handler_static.close(&conf); /* even after the table is gone */
    open_handler(false, 1 << 20);
    fake_free(held);
    assert_int_equal(file_cache_bytes(conf.cache, &files), 0);
    done();
}

static void eviction(void **state)
{
    (void)state;
    char name[32], body[1024];
    size_t files;
    handler_static.close(&conf);
    open_handler(false, 20000);
    memset(body, 'x', sizeof body - 1);
    body[sizeof body - 1] = '\0';
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "/f%d", i);
        put_file(name, body);
        assert_int_equal(get(name), 200);
        assert_true(file_cache_bytes(conf.cache, &files) <= 20000);
        if (i % 5 == 0) { /* one that is used is spared */
            assert_int_equal(get("/a.txt"), 200);
        }
    }
    assert_in_range(files, 8, 20);
    /* Is it still in memory? Then its change is not seen yet. */
    put_file("a.txt", "changed");
    assert_int_equal(get("/a.txt"), 200);
    assert_string_equal(x->out, ALPHABET);
    put_file("f99", "changed");
    assert_int_equal(get("/f99"), 200);
    assert_string_equal(x->out, body);
    put_file("f0", "changed");
    assert_int_equal(get("/f0"), 200);
    assert_string_equal(x->out, "changed");
    /* Too large for the whole table: served all the same. */
    handler_static.close(&conf);
    open_handler(false, 600);
    put_file("f0", body);
    assert_int_equal(get("/f0"), 200);
    assert_string_equal(x->out, body);
    assert_int_equal(file_cache_bytes(conf.cache, &files), 0);
    done();
}

/* The table alone against a plain model of it, many keys in little room. */
static void cache_alone(void **state)
{
    (void)state;
    struct file_cache *c = file_cache_new(4000);
    size_t files;
    unsigned seed = 7;
    for (int i = 0; i < 20000; i++) {
        char text[32];
        bool due;
        int n = snprintf(text, sizeof text, "/key/%d", rand_r(&seed) % 50);
        struct str key = {text, (size_t)n};
        struct cached_file *f = file_cache_get(c, key, i, &due);
        if (f) {
            assert_true(str_is(f->key, key));
            assert_string_equal(f->path, text);
            if (rand_r(&seed) % 10 == 0)
                file_cache_drop(c, f);
        } else {
            f = cached_file_new(key, text, (size_t)(rand_r(&seed) % 300));
            file_cache_add(c, f, i);
            struct cached_file *twin = cached_file_new(key, text, 5); /* takes its place */
            if (rand_r(&seed) % 10 == 0)
                file_cache_add(c, twin, i);
            cached_file_put(twin);
        }
        cached_file_put(f);
        assert_true(file_cache_bytes(c, &files) <= 4000);
    }
    file_cache_free(c);
    file_cache_free(NULL);
}

/* Its table grows with the files that it holds. */
static void cache_grows(void **state)
{
    (void)state;
    struct file_cache *c = file_cache_new(4 << 20);
    size_t files;
    for (int i = 0; i < 5000; i++) {
        char text[32];
        struct str key = {text, (size_t)snprintf(text, sizeof text, "/key/%d", i)};
        struct cached_file *f = cached_file_new(key, text, 10);
        file_cache_add(c, f, 0);
        cached_file_put(f);
        if ((i & (i - 1)) != 0 && i != 4999)
            continue;
        for (int k = 0; k <= i; k++) { /* around each time that it has grown, and at the end */
            bool due;
            key.len = (size_t)snprintf(text, sizeof text, "/key/%d", k);
            f = file_cache_get(c, key, 0, &due);
            assert_non_null(f);
            assert_string_equal(f->path, text);
            cached_file_put(f);
        }
    }
    file_cache_bytes(c, &files);
    assert_int_equal(files, 5000);
    file_cache_free(c);
}

/* Many threads ask while files are being replaced: an answer is always one of the versions, whole.
 */
struct asker {
    pthread_t thread;
    unsigned seed;
    bool failed;
};

static void *ask_often(void *arg)
{
    struct asker *a = arg;
    for (int i = 0; i < 3000 && !a->failed; i++) {
        char target[16];
        snprintf(target, sizeof target, "/t%d", rand_r(&a->seed) % 8);
        struct exchange *mine = fake_new(&handler_static.entry, &conf, EXCHANGE_GET, target, "/");
        a->failed |= fake_serve(mine) != 0 || mine->status != 200 || mine->out_len < 100;
        for (size_t at = 1; at < mine->out_len; at++)
            a->failed |= mine->out[at] != mine->out[0];
        fake_free(mine);
    }
    return NULL;
}

static _Atomic int64_t shared_ms;

static int64_t racing_clock(void)
{
    return atomic_fetch_add(&shared_ms, 100);
}

static void many_threads(void **state)
{
    (void)state;
    struct asker askers[4] = {{0}};
    char name[16], version[400];
    handler_static.close(&conf);
    open_handler(false, 3000); /* room for a few of the eight */
    conf.now_ms = racing_clock;
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "t%d", i);
        memset(version, 'a', 200);
        version[200] = '\0';
        put_file(name, version);
    }
    for (unsigned i = 0; i < 4; i++) {
        askers[i].seed = i;
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_often, &askers[i]), 0);
    }
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "t%d", i % 8);
        size_t len = 100 + (size_t)i % 300;
        memset(version, 'a' + i % 26, len);
        version[len - 1] = version[0];
        put_bytes(in_folder("t.new"), version, len);
        assert_int_equal(rename(in_folder("t.new"), in_folder(name)), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_false(askers[i].failed);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_file),
        TEST(below_a_route),
        TEST(same_headers_for_head),
        TEST(max_age),
        TEST(sizes),
        TEST(names_with_dots),
        TEST(well_known),
        TEST(links),
        TEST(straight_through_root),
        TEST(special_files),
        TEST(long_names),
        TEST(permissions),
        TEST(permission_lost),
        TEST(out_of_descriptors),
        TEST(bad_roots),
        TEST(folders),
        TEST(hostile_redirects),
        TEST(listings),
        TEST(listing_of_a_hostile_name),
        TEST(long_listings),
        TEST(conditions),
        TEST(present_and_future),
        TEST(etags_differ),
        TEST(one_range),
        TEST(several_ranges),
        TEST(sixteen_ranges),
        TEST(cut_when_it_shrinks),
        TEST(replaced_files),
        TEST(switched_root),
        TEST(held_while_sent),
        TEST(eviction),
        TEST(cache_alone),
        TEST(cache_grows),
        TEST(many_threads),
    };
    umask(022);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
