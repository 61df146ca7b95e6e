/* SPDX-License-Identifier: MIT */
/* Listings. Names are other people's text: in the page they are escaped for HTML, in links they are
 * %-encoded (a name like "javascript:x" is no scheme then), and neither can end the page early. */
#include "handlers/listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "handlers/page.h"

struct item {
    char *name;
    bool is_folder;
    int64_t size, modified_s;
};

struct list {
    struct item *items;
    size_t count, room;
    bool is_cut; /* there is more */
};

/* --- reading the folder ----------------------------------------------------------------------- */

/* A link counts as what it leads to, if that can be reached below root. */
static int stat_link(const struct root *root, const char *path, const char *name, struct stat *st)
{
    char whole[PATH_MAX];
    int len = snprintf(whole, sizeof whole, "%s%s", path, name);
    if (len < 0 || (size_t)len >= sizeof whole)
        return -1;
    int fd = root_file(root, whole, O_PATH);
    if (fd < 0)
        return -1;
    int rc = fstat(fd, st);
    close(fd);
    return rc;
}

static int list_add(struct list *l, const char *name, const struct stat *st)
{
    if (l->count == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        struct item *items = realloc(l->items, room * sizeof *items);
        if (!items)
            return -ENOMEM;
        l->items = items;
        l->room = room;
    }
    struct item item = {
        .name = strdup(name),
        .is_folder = S_ISDIR(st->st_mode),
        .size = st->st_size,
        .modified_s = st->st_mtim.tv_sec,
    };
    if (!item.name)
        return -ENOMEM;
    l->items[l->count++] = item;
    return 0;
}

static int list_read(struct list *l, const struct root *root, const char *path, DIR *folder)
{
    struct dirent *entry;
    int rc = 0;
    while (rc == 0 && (entry = readdir(folder)) != NULL) {
        struct stat st;
        const char *name = entry->d_name;
        if (name[0] == '.' || fstatat(dirfd(folder), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISLNK(st.st_mode) && stat_link(root, path, name, &st) < 0)
            continue;
        if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
            continue;
        l->is_cut = l->count == LISTING_MAX;
        if (l->is_cut)
            break;
        rc = list_add(l, name, &st);
    }
    return rc;
}

static void list_fini(struct list *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->items[i].name);
    free(l->items);
}

/* Folders first, then by bytes: no locale. */
static int by_name(const void *a, const void *b)
{
    const struct item *p = a, *q = b;
    return p->is_folder != q->is_folder ? q->is_folder - p->is_folder : strcmp(p->name, q->name);
}

/* --- the page --------------------------------------------------------------------------------- */

static const char style[] =
    "<style>:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60em;"
    "margin:2em auto;padding:0 1em}h1{font-size:1.3em;overflow-wrap:anywhere}table{width:100%;"
    "border-collapse:collapse}td{padding:.15em .5em;white-space:nowrap}td:first-child{width:99%;"
    "white-space:normal;overflow-wrap:anywhere}td+td{text-align:right;opacity:.75;"
    "font-variant-numeric:tabular-nums}a{text-decoration:none}</style>\n";

static void put_item(struct page *p, const struct item *item)
{
    const char *slash = item->is_folder ? "/" : "";
    page_puts(p, "<tr><td><a href=\"");
    page_url(p, str_of(item->name));
    page_format(p, "%s\">", slash);
    page_html(p, str_of(item->name));
    page_format(p, "%s</a></td><td>", slash);
    if (!item->is_folder)
        page_format(p, "%lld", (long long)item->size);
    page_puts(p, "</td><td>");
    page_time(p, item->modified_s);
    page_puts(p, "</td></tr>\n");
}

static void put_list(struct page *p, const struct list *l, struct str title, bool has_parent)
{
    page_puts(p, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>");
    page_html(p, title);
    page_puts(p, "</title>\n<meta name=\"viewport\" content=\"width=device-width\">\n");
    page_puts(p, style);
    page_puts(p, "</head><body><h1>");
    page_html(p, title);
    page_puts(p, "</h1>\n<table>\n");
    if (has_parent)
        page_puts(p, "<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    for (size_t i = 0; i < l->count; i++)
        put_item(p, &l->items[i]);
    page_puts(p, "</table>\n");
    if (l->is_cut)
        page_format(p, "<p>There are more; only %d are shown.</p>\n", LISTING_MAX);
    page_puts(p, "</body></html>\n");
}

int listing_reply(struct exchange *x, const struct root *root, const char *path, int fd)
{
    struct list l = {0};
    struct page p = {0};
    DIR *folder = fdopendir(fd);
    if (!folder) {
        close(fd);
        return exchange_reply_error(x, 503);
    }
    int rc = list_read(&l, root, path, folder);
    closedir(folder);
    if (rc == 0) {
        if (l.count)
            qsort(l.items, l.count, sizeof *l.items, by_name);
        put_list(&p, &l, exchange_path(x), *path != '\0');
        exchange_add(x, "Content-Security-Policy",
                     STR("default-src 'none'; style-src 'unsafe-inline'"));
        rc = page_reply(&p, x, 200, "text/html; charset=utf-8");
    } else {
        rc = exchange_reply_error(x, 503);
    }
    list_fini(&l);
    return rc;
}
