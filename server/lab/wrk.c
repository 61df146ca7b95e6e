/* SPDX-License-Identifier: MIT */
/* wrk, run for the lab: see server/lab/wrk.h. What it prints for people is not parsed: a script of ours
 * prints its counts, and its histogram as it has it, in microseconds. */
#include "server/lab/wrk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concurrency/subprocess.h"

enum {
    MOST_SECONDS = 15,  /* beyond its time */
    REPORT_SECONDS = 2, /* once interrupted */
    LOOK_MS = 50,       /* whether to stop */
};

static const char script[] =
    "local depth = %u\n"
    "function init(args)\n"
    "    if depth > 1 then\n"
    "        local all = {}\n"
    "        for i = 1, depth do all[i] = wrk.format() end\n"
    "        local request_of_all = table.concat(all)\n"
    "        request = function() return request_of_all end\n"
    "    end\n"
    "end\n"
    "function done(summary, latency, requests)\n"
    "    local e = summary.errors\n"
    "    print(string.format('LAB %%d %%d %%d %%d %%d %%d %%d %%d', summary.requests, "
    "summary.duration,\n"
    "        summary.bytes, e.connect, e.read, e.write, e.status, e.timeout))\n"
    "    for i = 1, #latency do\n"
    "        local us, count = latency(i)\n"
    "        print(string.format('AT %%d %%d', us, count))\n"
    "    end\n"
    "end\n";

void lab_wrk_version(char version[64])
{
    const char *argv[] = {"wrk", "-v", NULL};
    struct modus_ran ran;
    int rc = modus_subprocess_run(argv, NULL, NULL, 0, modus_seconds(5), &ran);
    const char *word = ran.output.data ? strstr(ran.output.data, "wrk ") : NULL;
    int len = word ? (int)strcspn(word + 4, " \n") : 0;
    if (len)
        snprintf(version, 64, "%.*s", len, word + 4);
    else
        snprintf(version, 64, "%s", rc == -ENOENT ? "" : "unknown");
    modus_ran_free(&ran);
}

static int write_script(const struct lab_wrk_plan *plan, char path[600])
{
    snprintf(path, 600, "%s/wrk.lua", plan->folder);
    FILE *file = fopen(path, "we");
    if (!file)
        return -1;
    fprintf(file, script, plan->pipeline > 1 ? plan->pipeline : 1);
    return fclose(file);
}

/* --- what it prints -------------------------------------------------------------------------- */

static bool take_counts(const char *line, struct lab_load_result *r)
{
    unsigned long long n[8];
    if (sscanf(line, "LAB %llu %llu %llu %llu %llu %llu %llu %llu", &n[0], &n[1], &n[2], &n[3],
               &n[4], &n[5], &n[6], &n[7]) != 8)
        return false;
    r->seconds = (double)n[1] / 1e6;
    r->bytes = n[2];
    r->connect_failed = n[3];
    r->read_failed = n[4];
    r->write_failed = n[5];
    r->refused = n[6];
    r->timed_out = n[7];
    r->answered = n[0] > n[6] ? n[0] - n[6] : 0;
    return true;
}

static bool read_report(const char *text, struct lab_load_result *r)
{
    bool counted = false;
    unsigned long long us, count;
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (sscanf(line, "AT %llu %llu", &us, &count) == 2)
            lab_histogram_add_many(&r->latency, (int64_t)us * 1000, count);
        else
            counted |= take_counts(line, r);
    }
    return counted;
}

/* --- running --------------------------------------------------------------------------------- */

/* Its first line of trouble. */
static void first_line(const struct modus_output *output, const struct modus_output *errors,
                       char *line, size_t size)
{
    const char *text = errors->size ? errors->data : output->data;
    snprintf(line, size, "%.*s", text ? (int)strcspn(text, "\n") : 0, text ? text : "");
}

/* Until it has ended, or its time is over, which is short once it is told to stop. Returns what
 * communicate does. */
static int follow(struct modus_subprocess *wrk, const struct lab_wrk_plan *plan,
                  struct modus_output *output, struct modus_output *errors)
{
    int64_t end = modus_deadline(modus_seconds((int64_t)plan->seconds + MOST_SECONDS));
    bool stopping = false;
    int rc;
    while ((rc = modus_subprocess_communicate(wrk, NULL, 0, output, errors, modus_ms(LOOK_MS))) ==
               -ETIMEDOUT &&
           modus_now_ns() < end) {
        if (stopping || !plan->stop || !*plan->stop)
            continue;
        stopping = true;
        modus_subprocess_signal(wrk, SIGINT);
        end = modus_deadline(modus_seconds(REPORT_SECONDS));
    }
    return rc;
}

static int run(const char *const *argv, const struct lab_wrk_plan *plan,
               struct lab_load_result *result, char *why, size_t why_size)
{
    static const struct modus_subprocess_attr attr = {.input.kind = MODUS_STDIO_NULL,
                                                      .output.kind = MODUS_STDIO_PIPE,
                                                      .errors.kind = MODUS_STDIO_PIPE};
    char line[200];
    int code = 0;
    struct modus_subprocess *wrk = NULL;
    struct modus_output output = {0}, errors = {0};
    int rc = modus_subprocess_start(&wrk, argv, &attr);
    if (rc == 0) {
        rc = follow(wrk, plan, &output, &errors);
        if (rc < 0)
            modus_subprocess_kill(wrk);
        modus_subprocess_wait(wrk, MODUS_FOREVER, &code);
    }
    bool good = rc == 0 && code == 0 && output.data && read_report(output.data, result);
    first_line(&output, &errors, line, sizeof line);
    if (rc == -ENOENT)
        snprintf(why, why_size, "wrk is not in PATH: install the package wrk");
    else if (rc < 0)
        snprintf(why, why_size, "wrk: %s", modus_strresult(rc));
    else if (!good)
        snprintf(why, why_size, "wrk has ended with status %d: %s", code, line);
    modus_subprocess_free(wrk);
    return good ? 0 : -1;
}

int lab_wrk_run(const struct lab_wrk_plan *plan, struct lab_load_result *result, char *why,
                size_t why_size)
{
    char path[600], connections[16], duration[32];
    const char *argv[] = {
        "wrk", "-t1",     "-c", connections,         "-d", duration, "-s", path, "--timeout",
        "10s", plan->url, "-H", "Connection: close", NULL};
    *result = (struct lab_load_result){0};
    if (write_script(plan, path) != 0) {
        snprintf(why, why_size, "cannot write %s: %s", path, strerror(errno));
        return -1;
    }
    snprintf(connections, sizeof connections, "%u", plan->connections);
    snprintf(duration, sizeof duration, "%.0fs", plan->seconds < 1 ? 1 : plan->seconds);
    if (!plan->close)
        argv[11] = NULL;
    return run(argv, plan, result, why, why_size);
}
