/* SPDX-License-Identifier: MIT */
/* The table of keys: the page to open when a key is added or its range is in doubt. */
#include "server/config_keys.h"

#include <string.h>

#include "handlers/option.h"
#include "server/config.h"

#define SECOND ((int64_t)1000)
#define HOUR   (3600 * SECOND)
#define DAY    (24 * HOUR)
#define KIB    ((int64_t)1024)
#define MIB    (1024 * KIB)
#define GIB    (1024 * MIB)

/* In the order of the enums in config.h. */
static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const protocols[] = {"http", "tcp", NULL};
static const char *const formats[] = {"combined", "common", "json", NULL};
static const char *const streams[] = {"stdout", "stderr", NULL};
static const char *const no_error_logs[] = {"stdout", "on", "off", NULL};
static const char *const no_access_logs[] = {"on", "true", "yes", NULL};
static const char *const versions[] = {"1.2", "1.3", NULL};

#define TOP(member)    offsetof(struct config, member)
#define LISTEN(member) offsetof(struct config_listener, member)
#define TLS(member)    offsetof(struct config_tls, member)

const struct key config_keys_top[] = {
    {"user", KEY_STRING, TOP(user), .value = ""},
    {"pid_file", KEY_PATH, TOP(pid_file), .value = "modus.pid", .word = ""},
    {"control", KEY_PATH, TOP(control), .value = "modus.sock", .word = ""},
    {"error_log", KEY_PATH, TOP(error_log), .value = "stderr", .word = "stderr",
     .not_words = no_error_logs, .instead = "stderr"},
    {"log_level", KEY_CHOICE, TOP(log_level), .value = "info", .choices = levels},
    {"drain_timeout", KEY_DURATION, TOP(drain_timeout_ms), .value = "30s", .max = DAY},
    {0},
};

/* Timeouts that guard against a peer have no 0: "no limit" is what nobody should serve with. */
const struct key config_keys_listen[] = {
    {"protocol", KEY_CHOICE, LISTEN(protocol), .value = "http", .choices = protocols},
    {"model", KEY_MODEL, LISTEN(model), .value = "thread-pool"},
    {"processes", KEY_AUTO, LISTEN(processes), .value = "auto", .min = 1, .max = 1024},
    {"loops", KEY_AUTO, LISTEN(loops), .value = "auto", .min = 1, .max = 1024},
    {"threads", KEY_NUMBER, LISTEN(threads), .value = "64", .min = 1, .max = 4096},
    {"queue", KEY_NUMBER, LISTEN(queue), .value = "1024", .min = 1, .max = 1 << 20},
    {"queue_timeout", KEY_DURATION, LISTEN(queue_timeout_ms), .value = "10s", .min = 1,
     .max = HOUR},
    {"worker_requests", KEY_NUMBER, LISTEN(worker_requests), .value = "0", .max = 1000000000},
    {"worker_memory", KEY_SIZE, LISTEN(worker_memory), .value = "0", .max = 1024 * GIB},
    {"worker_age", KEY_DURATION, LISTEN(worker_age_ms), .value = "0", .max = 1000 * DAY},
    {"max_connections", KEY_NUMBER, .offset = LISTEN(max_connections), .min = 1, .max = 1000000,
     .optional = true},
    {"backlog", KEY_NUMBER, LISTEN(backlog), .value = "1024", .min = 1, .max = 65535},
    {"gil", KEY_BOOL, LISTEN(gil), .value = "false"},
    {"header_timeout", KEY_DURATION, LISTEN(header_timeout_ms), .value = "10s", .min = 1,
     .max = DAY, .http_only = true},
    {"body_timeout", KEY_DURATION, LISTEN(body_timeout_ms), .value = "20s", .min = 1, .max = DAY,
     .http_only = true},
    {"handler_timeout", KEY_DURATION, LISTEN(handler_timeout_ms), .value = "0", .max = DAY},
    {"send_timeout", KEY_DURATION, LISTEN(send_timeout_ms), .value = "60s", .min = 1, .max = DAY},
    {"keepalive_timeout", KEY_DURATION, .offset = LISTEN(keepalive_timeout_ms), .max = DAY,
     .optional = true, .unset = -1},
    {"keepalive_requests", KEY_NUMBER, LISTEN(keepalive_requests), .value = "0", .max = 1000000000,
     .http_only = true},
    {"max_header_size", KEY_SIZE, LISTEN(max_header_size), .value = "32k", .min = KIB, .max = MIB,
     .http_only = true},
    {"max_body_size", KEY_SIZE, LISTEN(max_body_size), .value = "1m", .max = 1024 * GIB,
     .http_only = true},
    {"access_log", KEY_PATH, LISTEN(access_log), .value = "", .word = "", .none = "off",
     .choices = streams, .not_words = no_access_logs, .instead = "stdout, stderr, off"},
    {"log_format", KEY_CHOICE, LISTEN(log_format), .value = "combined", .choices = formats},
    {0},
};

const struct key config_keys_tls[] = {
    {"certificate", KEY_PATH, .offset = TLS(certificate)},
    {"key", KEY_PATH, .offset = TLS(key)},
    {"min_version", KEY_CHOICE, TLS(min_version), .value = "1.2", .choices = versions},
    {0},
};

size_t config_keys_count(const struct key *keys)
{
    size_t n = 0;
    while (keys[n].name)
        n++;
    return n;
}

static bool is_one_of(const char *text, const char *const *words)
{
    for (; words && *words; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

bool config_keys_is_word(const struct key *k, const char *text)
{
    return (k->word && strcmp(text, k->word) == 0) || is_one_of(text, k->choices);
}

bool config_keys_is_no_word(const struct key *k, const char *text)
{
    return is_one_of(text, k->not_words);
}

int config_keys_index(const struct key *keys, const char *name)
{
    for (int i = 0; keys[i].name; i++)
        if (strcmp(keys[i].name, name) == 0)
            return i;
    return -1;
}

static enum key_kind kind_of_option(enum option_kind kind)
{
    switch (kind) {
    case OPTION_STRING:
        return KEY_STRING;
    case OPTION_PATH:
        return KEY_PATH;
    case OPTION_BOOL:
        return KEY_BOOL;
    case OPTION_INT:
        return KEY_INTEGER;
    case OPTION_SIZE:
        return KEY_SIZE;
    case OPTION_DURATION:
        return KEY_DURATION;
    case OPTION_CHOICE:
        return KEY_CHOICE;
    }
    return KEY_STRING;
}

struct key config_keys_option(const struct option *o)
{
    bool any = o->min == 0 && o->max == 0;
    return (struct key){
        .name = o->name,
        .kind = kind_of_option(o->kind),
        .offset = o->offset,
        .value = o->value,
        .min = o->min,
        .max = any ? INT64_MAX : o->max,
        .choices = o->choices,
        .word = o->value ? "" : NULL, /* a path that must be given must be one */
    };
}
