/* SPDX-License-Identifier: MIT */
/* wrk, run for the lab: see server/lab/wrk.h. What it prints for people is not parsed: a script of ours
 * prints its counts, and its histogram as it has it, in microseconds. */
#include "server/lab/wrk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concurrency/subprocess.h"

enum { MOST_SECONDS = 15 }; /* beyond its time */

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
    version[0] = '\0';
    if (modus_subprocess_run(argv, NULL, NULL, 0, modus_seconds(5), &ran) == 0 && ran.output.data) {
        const char *word = strstr(ran.output.data, "wrk ");
        if (word)
            snprintf(version, 64, "%.*s", (int)strcspn(word + 4, " \n"), word + 4);
    }
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

/* Its first line of trouble. */
static void first_line(const struct modus_ran *ran, char *line, size_t size)
{
    const char *text = ran->errors.size ? ran->errors.data : ran->output.data;
    snprintf(line, size, "%.*s", text ? (int)strcspn(text, "\n") : 0, text ? text : "");
}

static int run(const char *const *argv, double seconds, struct lab_load_result *result, char *why,
               size_t why_size)
{
    char line[200];
    struct modus_ran ran;
    int rc = modus_subprocess_run(argv, NULL, NULL, 0,
                                  modus_seconds((int64_t)seconds + MOST_SECONDS), &ran);
    bool good = rc == 0 && ran.code == 0 && ran.output.data && read_report(ran.output.data, result);
    first_line(&ran, line, sizeof line);
    if (rc == -ENOENT)
        snprintf(why, why_size, "wrk is not in PATH: install the package wrk");
    else if (rc < 0)
        snprintf(why, why_size, "wrk: %s", modus_strresult(rc));
    else if (!good)
        snprintf(why, why_size, "wrk has ended with status %d: %s", ran.code, line);
    modus_ran_free(&ran);
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
    return run(argv, plan->seconds, result, why, why_size);
}
