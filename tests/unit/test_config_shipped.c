/* SPDX-License-Identifier: MIT */
/* The files of conf/ against the real handlers and models: what we ship is what we take. Run from
 * the top of the tree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/config_reader.h"
#include "server/models.h"

static struct config *read_file(const char *file)
{
    char why[512];
    struct config *c = config_read(file, why, sizeof why);
    if (!c)
        fail_msg("%s", why);
    return c;
}

static const struct config_listener *listener_of(const struct config *c, int port)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (c->listeners[i].addresses[0].port == port)
            return &c->listeners[i];
    fail_msg("no listener on port %d", port);
    return NULL;
}

static void route_is(const struct config_route *route, const char *prefix, const char *handler)
{
    assert_string_equal(route->prefix, prefix);
    assert_string_equal(route->handler->name, handler);
}

/* Every model of this build has a listener, on 127.0.0.1 only, with the same routes. */
static void tour(void **state)
{
    (void)state;
    static const char *const models[] = {"process", "prefork",    "thread-pool",
                                         "hybrid",  "event-loop", "coroutine"};
    struct config *c = read_file("conf/modus.conf");
    for (int i = 0; i < 6; i++) {
        const struct config_listener *l = listener_of(c, 8081 + i);
        assert_string_equal(l->model, models[i]);
        assert_string_equal(l->addresses[0].host, "127.0.0.1");
        assert_int_equal(l->route_count, 5);
        route_is(&l->routes[0], "/", "static");
        route_is(&l->routes[1], "/hello", "text");
        route_is(&l->routes[2], "/echo", "echo");
        route_is(&l->routes[3], "/sleep", "sleep");
        route_is(&l->routes[4], "/spin", "spin");
    }
    assert_int_equal(listener_of(c, 8087)->protocol, PROTOCOL_TCP);
    route_is(&listener_of(c, 8087)->routes[0], "", "echo");
    route_is(&listener_of(c, 8080)->routes[0], "/", "status");
    for (size_t i = 0; models_at(i); i++) {
        size_t users = 0;
        for (size_t j = 0; j < c->listener_count; j++)
            users += strcmp(c->listeners[j].model, model_name(models_at(i))) == 0;
        assert_true(users > 0);
    }
    config_free(c);
    assert_int_equal(access("conf/www/index.html", R_OK), 0);
}

static void production(void **state)
{
    (void)state;
    struct config *c = read_file("conf/production.conf");
    const struct config_listener *l = listener_of(c, 443);
    assert_string_equal(c->user, "www-data");
    assert_string_equal(c->control, "/run/modus.sock");
    assert_int_equal(l->tls_count, 1);
    assert_non_null(l->access_log);
    route_is(&l->routes[0], "/", "static");
    config_free(c);
}

/* What `modus explain` says of the file. */
static char *explained(const char *file)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    struct config *c = read_file(file);
    config_explain_to(c, out);
    fclose(out);
    config_free(c);
    return text;
}

/* Name and value of the next row, and where the value is from. Returns false behind the last row. */
static bool next_row(char **at, char name[64], char value[256], char origin[256])
{
    int used = 0;
    while (**at == '\n')
        ++*at;
    if (strncmp(*at, "At most", 7) == 0)
        return false;
    assert_true(sscanf(*at, "%63s %255s %255s%*[^\n]%n", name, value, origin, &used) >= 2);
    *at = strchr(*at, '\n');
    return true;
}

/* The reference names every key, each with its default. */
static void reference(void **state)
{
    (void)state;
    static const char bare[] =
        "listen 127.0.0.1:0 {\n route / { static { root = www } }\n route /text { text { body = '' "
        "} }\n"
        "route /echo { echo {} }\n route /sleep { sleep {} }\n route /block { block {} }\n "
        "route /spin { spin {} }\n"
        "route /status { status {} } }\n";
    char file[] = "/tmp/modus-reference-XXXXXX";
    int fd = mkstemp(file);
    assert_int_equal(write(fd, bare, sizeof bare - 1), sizeof bare - 1);
    close(fd);
    char *defaults = explained(file), *shown = explained("conf/reference.conf");
    char *a = defaults, *b = shown;
    char name[2][64], value[2][256], origin[2][256];
    unlink(file);
    while (next_row(&a, name[0], value[0], origin[0])) {
        assert_true(next_row(&b, name[1], value[1], origin[1]));
        assert_string_equal(name[1], name[0]);
        bool is_path = strcmp(name[0], "pid_file") == 0 || strcmp(name[0], "control") == 0 ||
                       strcmp(name[0], "root") == 0; /* from another folder */
        if (!is_path && strcmp(origin[0], "default") == 0)
            assert_string_equal(value[1], value[0]);
        assert_string_not_equal(origin[1], "default");
    }
    assert_false(next_row(&b, name[1], value[1], origin[1]));
    free(defaults);
    free(shown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tour), cmocka_unit_test(production),
                                       cmocka_unit_test(reference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
