/* SPDX-License-Identifier: MIT */
/* A server of the lab's own: see server/lab/rig.h. */
#include "server/lab/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concurrency/process.h"
#include "net/thread.h"
#include "server/lab/costs.h"
#include "server/lab/json.h"
#include "server/lab/self_signed.h"
#include "server/lab/status.h"
#include "server/program.h"

enum { START_MS = 10000, LOOK_MS = 10, STOP_MS = 5000, SMALL = 1024, LARGE = 1 << 20 };

#define LISTEN                                                                                     \
    "    model           = MODEL\n"                                                                \
    "    gil             = GIL\n"                                                                  \
    "    threads         = 128\n"                                                                  \
    "    max_connections = 4096\n"                                                                 \
    "\n"                                                                                           \
    "    route \"/\"      { static { root = \"../www\" } }\n"                                      \
    "    route \"/hello\" { text { body = \"Hello, World!\" } }\n"                                 \
    "    route \"/sleep\" { sleep {} }\n"                                                          \
    "    route \"/spin\"  { spin {} }\n"

const char lab_rig_config[] = "error_log     = \"error.log\"\n"
                              "control       = \"control.sock\"\n"
                              "drain_timeout = 1s\n"
                              "\n"
                              "listen \"127.0.0.1:0\" {\n" LISTEN "}\n"
                              "\n"
                              "listen \"127.0.0.1:0\" {\n" LISTEN "\n"
                              "    tls { certificate = \"../lab.pem\" key = \"../lab.key\" }\n"
                              "}\n";

/* --- files ----------------------------------------------------------------------------------- */

static int cannot(const char *what, const char *path, int error, char *why, size_t why_size)
{
    snprintf(why, why_size, "cannot %s %s: %s", what, path, strerror(error));
    return -1;
}

static int write_file(const char *path, const char *bytes, size_t size, char *why, size_t why_size)
{
    FILE *file = fopen(path, "we");
    bool good = file && fwrite(bytes, 1, size, file) == size;
    if (file && fclose(file) != 0)
        good = false;
    return good ? 0 : cannot("write", path, errno, why, why_size);
}

static int make_folder(const char *path, char *why, size_t why_size)
{
    if (mkdir(path, 0755) == 0 || errno == EEXIST)
        return 0;
    return cannot("make", path, errno, why, why_size);
}

/* Bytes that no link and no disk would make smaller. */
static int write_noise(const char *path, size_t size, char *why, size_t why_size)
{
    char *bytes = malloc(size);
    uint32_t x = 1;
    for (size_t i = 0; bytes && i < size; i++) {
        x = x * 1664525 + 1013904223; /* Numerical Recipes' */
        bytes[i] = (char)(x >> 24);
    }
    int rc = bytes ? write_file(path, bytes, size, why, why_size)
                   : cannot("write", path, ENOMEM, why, why_size);
    free(bytes);
    return rc;
}

int lab_rig_prepare(const char *folder, char *why, size_t why_size)
{
    char path[600], key[600];
    snprintf(path, sizeof path, "%s/www", folder);
    if (make_folder(path, why, why_size) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/www/small.bin", folder);
    if (write_noise(path, SMALL, why, why_size) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/www/large.bin", folder);
    if (write_noise(path, LARGE, why, why_size) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/lab.pem", folder);
    snprintf(key, sizeof key, "%s/lab.key", folder);
    return self_signed(path, key, why, why_size);
}

/* The text with words for MODEL and GIL. */
static char *fill(const char *model, bool gil)
{
    size_t size = sizeof lab_rig_config + 256;
    char *text = malloc(size), *to = text;
    for (const char *at = lab_rig_config; text && *at;) {
        bool is_model = strncmp(at, "MODEL", 5) == 0, is_gil = strncmp(at, "GIL", 3) == 0;
        if (!is_model && !is_gil) {
            *to++ = *at++;
            continue;
        }
        at += is_model ? 5 : 3;
        to += snprintf(to, size - (size_t)(to - text), "%s",
                       is_model ? model
                       : gil    ? "true"
                                : "false");
    }
    if (text)
        *to = '\0';
    return text;
}

static int write_config(const struct lab_rig *rig, char *why, size_t why_size)
{
    char *text = fill(rig->model, rig->gil);
    int rc = text ? write_file(rig->config, text, strlen(text), why, why_size)
                  : cannot("write", rig->config, ENOMEM, why, why_size);
    free(text);
    return rc;
}

/* --- its life -------------------------------------------------------------------------------- */

/* In the child. What it says goes into a file: the lab writes to the terminal. */
static int become_server(void *argument)
{
    const struct lab_rig *rig = argument;
    char path[600];
    snprintf(path, sizeof path, "%s/output.log", rig->folder);
    setpgid(0, 0); /* Ctrl-C is for the lab, which stops it */
    /* The lab may be pinned, and a server makes workers for what it may use. */
    lab_tree_pin(getpid(), -1);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
        return 1;
    execl(program_path(), program_path(), "-c", rig->config, (char *)NULL);
    return 1;
}

static bool learn_addresses(struct lab_rig *rig)
{
    char why[200];
    struct json *told = lab_status(rig->config, why, sizeof why);
    const char *http = json_text(json_get(told, "listeners.0.addresses.0"), NULL);
    const char *https = json_text(json_get(told, "listeners.1.addresses.0"), NULL);
    if (http && https) {
        snprintf(rig->http, sizeof rig->http, "http://%s", http);
        snprintf(rig->https, sizeof rig->https, "https://%s", https);
    }
    json_free(told);
    return http && https;
}

/* The last line of its log, which says why it does not run; without a log of what it printed. */
static void last_words(const struct lab_rig *rig, char *words, size_t size)
{
    static const char *const logs[] = {"error.log", "output.log"};
    char path[600], line[256];
    snprintf(words, size, "it said nothing");
    bool any = false;
    for (size_t i = 0; i < 2 && !any; i++) {
        snprintf(path, sizeof path, "%s/%s", rig->folder, logs[i]);
        FILE *file = fopen(path, "re");
        while (file && fgets(line, sizeof line, file)) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(words, size, "%s", line);
            any = true;
        }
        if (file)
            fclose(file);
    }
}

static int await_service(struct lab_rig *rig, char *why, size_t why_size)
{
    int64_t until_us = net_clock_us() + START_MS * 1000;
    char words[256];
    do {
        if (learn_addresses(rig))
            return 0;
    } while (modus_process_join(rig->server, modus_ms(LOOK_MS), NULL) == -ETIMEDOUT &&
             net_clock_us() < until_us);
    last_words(rig, words, sizeof words);
    snprintf(why, why_size, "the server for %s does not serve: %s", rig->name, words);
    lab_rig_stop(rig);
    return -1;
}

int lab_rig_start(struct lab_rig *rig, const char *model, bool gil, const char *folder, char *why,
                  size_t why_size)
{
    struct modus_process_attr attr = {.name = model, .orphan = MODUS_ORPHAN_TERMINATED};
    *rig = (struct lab_rig){.model = model, .gil = gil};
    snprintf(rig->name, sizeof rig->name, "%s%s", model, gil ? ", gil" : "");
    snprintf(rig->folder, sizeof rig->folder, "%s/%s%s", folder, model, gil ? "-gil" : "");
    snprintf(rig->config, sizeof rig->config, "%s/modus.conf", rig->folder);
    if (make_folder(rig->folder, why, why_size) != 0 || write_config(rig, why, why_size) != 0)
        return -1;
    int rc = modus_process_new(&rig->server, &attr, become_server, rig);
    if (rc == 0)
        rc = modus_process_start(rig->server);
    if (rc < 0) {
        snprintf(why, why_size, "no process for %s: %s", rig->name, modus_strresult(rc));
        modus_process_put(rig->server);
        rig->server = NULL;
        return -1;
    }
    rig->pid = modus_process_pid(rig->server);
    return await_service(rig, why, why_size);
}

bool lab_rig_lives(const struct lab_rig *rig)
{
    return rig->server && modus_process_alive(rig->server);
}

void lab_rig_stop(struct lab_rig *rig)
{
    if (!rig->server)
        return;
    modus_process_terminate(rig->server);
    if (modus_process_join(rig->server, modus_ms(STOP_MS), NULL) != 0) {
        modus_process_kill(rig->server);
        modus_process_join(rig->server, MODUS_FOREVER, NULL);
    }
    modus_process_put(rig->server);
    rig->server = NULL;
    rig->pid = 0;
}

/* --- what it tells --------------------------------------------------------------------------- */

int lab_rig_ask(const struct lab_rig *rig, struct lab_told *told)
{
    char why[200];
    struct json *all = lab_status(rig->config, why, sizeof why);
    const struct json *plain = json_get(all, "listeners.0"), *tls = json_get(all, "listeners.1");
    *told = (struct lab_told){.has_queue = json_first(json_get(plain, "queue")) != NULL,
                              .has_gil = json_first(json_get(plain, "gil")) != NULL,
                              .has_children = json_first(json_get(plain, "children")) != NULL};
    for (int i = 0; i < 2; i++) {
        const struct json *l = i ? tls : plain;
        told->requests += json_number(json_get(l, "requests.total"), 0);
        told->accepted += json_number(json_get(l, "connections.accepted"), 0);
        told->queued_count += json_number(json_get(l, "queue.waited_us.count"), 0);
        told->queued_us += json_number(json_get(l, "queue.waited_us.sum"), 0);
        told->rejected += json_number(json_get(l, "queue.rejected"), 0);
        told->blocked += json_number(json_get(l, "blocked.count"), 0);
        told->gil_held_us += json_number(json_get(l, "gil.held_us"), 0);
        told->deaths += json_number(json_get(l, "worker_deaths"), 0);
    }
    for (const struct json *w = json_first(json_get(plain, "workers")); w; w = w->next)
        told->workers++;
    told->busy = json_number(json_get(plain, "saturation.busy"), 0);
    told->places = json_number(json_get(plain, "saturation.places"), 0);
    snprintf(told->note, sizeof told->note, "%s", json_text(json_get(plain, "note"), ""));
    json_free(all);
    return all ? 0 : -1;
}
