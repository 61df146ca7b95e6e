/* SPDX-License-Identifier: MIT */
/* The lab's runner: see server/lab/run.h. */
#include "server/lab/run.h"

#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "concurrency/result.h"
#include "server/lab/loader.h"
#include "server/lab/costs.h"
#include "server/lab/rig.h"
#include "server/lab/round.h"
#include "server/lab/wrk.h"
#include "server/models.h"

enum {
    MOST_RIGS = 2 * LAB_MODELS,
    MOST_SERVERS = LAB_MODELS + LAB_AGAINST,
    MOST_SERIES = 1024,
    CALIBRATION = 200000000, /* additions */
    TEMPORARY_LONGEST = 40,
    WARM_REQUESTS = 50,
};

/* The quick run's batch of the notes waits for a quarter of their time. */
#define QUICK_WAIT 0.25

struct lab {
    const struct lab_wanted *wanted;
    struct lab_results *results;
    char folder[64];
    struct lab_rig rigs[MOST_RIGS];
    unsigned rig_count;
    double additions_a_ms;
    int server_cpu, loader_cpu;
    unsigned made, planned; /* rounds */
    int64_t begin_ns;
    bool terminal;
};

/* Of a series, what is not in the results. */
struct source {
    const struct lab_work *work;
    struct lab_rig *rig;           /* NULL: foreign */
    struct lab_round_texts *texts; /* one a round */
};

/* A program makes one run at a time. */
static struct source sources[MOST_SERIES];
static struct lab_series series[MOST_SERIES];
static struct lab_server servers[MOST_SERVERS];
static const struct lab_load *loads[LAB_WORKS];
static struct lab_results results;

static bool is_stopped(const struct lab *lab)
{
    return *lab->wanted->stop != 0;
}

/* --- the machine ----------------------------------------------------------------------------- */

static void describe_cpu(char *to, size_t size)
{
    char line[256];
    FILE *info = fopen("/proc/cpuinfo", "re");
    snprintf(to, size, "unknown CPU");
    while (info && fgets(line, sizeof line, info)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(to, size, "%s", colon + 2);
        break;
    }
    if (info)
        fclose(info);
}

/* The first two CPUs that we may use: one for the server, one for the loader. */
static void find_cpus(struct lab *lab)
{
    cpu_set_t may;
    int found[2] = {-1, -1}, count = 0;
    CPU_ZERO(&may);
    sched_getaffinity(0, sizeof may, &may);
    for (int i = 0; i < CPU_SETSIZE && count < 2; i++)
        if (CPU_ISSET((size_t)i, &may))
            found[count++] = i;
    lab->server_cpu = count == 2 ? found[0] : -1;
    lab->loader_cpu = count == 2 ? found[1] : -1;
}

static void describe_machine(struct lab *lab)
{
    struct lab_machine *m = &lab->results->machine;
    struct utsname name;
    struct sysinfo info;
    time_t now = time(NULL);
    struct tm local;
    cpu_set_t may;
    describe_cpu(m->cpu, sizeof m->cpu);
    if (uname(&name) == 0)
        snprintf(m->kernel, sizeof m->kernel, "%.60s %.60s", name.sysname, name.release);
    if (sysinfo(&info) == 0)
        m->memory_gib = (double)info.totalram * info.mem_unit / (1 << 30);
    if (sched_getaffinity(0, sizeof may, &may) == 0)
        m->cpus = (unsigned)CPU_COUNT(&may);
    lab_wrk_version(m->wrk);
    snprintf(m->modus, sizeof m->modus, "%s", MODUS_VERSION);
    strftime(m->when, sizeof m->when, "%Y-%m-%dT%H:%M:%S%z", localtime_r(&now, &local));
    m->pinned = lab->server_cpu >= 0;
    m->server_cpu = m->pinned ? (unsigned)lab->server_cpu : 0;
    m->loader_cpu = m->pinned ? (unsigned)lab->loader_cpu : 0;
}

/* --- servers --------------------------------------------------------------------------------- */

static bool has_gil(const char *name)
{
    const struct model *model = models_find(name);
    return model && model_uses(model, "gil");
}

static bool wants_gil(const struct lab *lab)
{
    for (size_t i = 0; lab->wanted->works[i]; i++)
        if (lab->wanted->works[i]->gil)
            return true;
    return false;
}

/* In a quick run the lock is shown with the model that it hurts most plainly. */
static bool is_shown_with_gil(const struct lab *lab, const char *model)
{
    return has_gil(model) && (!lab->wanted->quick || strcmp(model, "thread-pool") == 0);
}

static int start_rig(struct lab *lab, const char *model, bool gil, char *why, size_t why_size)
{
    struct lab_rig *rig = &lab->rigs[lab->rig_count];
    if (lab_rig_start(rig, model, gil, lab->folder, why, why_size) != 0)
        return -1;
    lab->rig_count++;
    return 0;
}

/* How many handlers it can run at once. A process for each connection, and a coroutine, are no place
 * that could be short. */
static void describe_server(struct lab *lab, size_t place)
{
    struct lab_told told;
    const struct lab_rig *rig = &lab->rigs[lab->rig_count - 1];
    bool unbounded = strcmp(rig->model, "coroutine") == 0;
    if (lab_rig_ask(rig, &told) != 0 || told.has_children || unbounded || told.workers < 1)
        return;
    servers[place].workers = (unsigned)told.workers;
    servers[place].threads = (unsigned)(told.places / told.workers);
}

static int start_rigs(struct lab *lab, char *why, size_t why_size)
{
    const char *const *models = lab->wanted->models;
    for (size_t i = 0; models[i]; i++) {
        if (start_rig(lab, models[i], false, why, why_size) != 0)
            return -1;
        describe_server(lab, i);
        if (wants_gil(lab) && is_shown_with_gil(lab, models[i]) &&
            start_rig(lab, models[i], true, why, why_size) != 0)
            return -1;
    }
    return 0;
}

static struct lab_rig *rig_of(struct lab *lab, const char *model, bool gil)
{
    for (unsigned i = 0; i < lab->rig_count; i++)
        if (strcmp(lab->rigs[i].model, model) == 0 && lab->rigs[i].gil == gil)
            return &lab->rigs[i];
    return NULL;
}

/* How many additions a millisecond has, on one CPU that has nothing else to do. */
static int calibrate(struct lab *lab, char *why, size_t why_size)
{
    static struct lab_load_result result;
    char url[128];
    struct lab_plan plan = {.connections = 1,
                            .requests = 1,
                            .seconds = 60,
                            .timeout_seconds = 60,
                            .stop = lab->wanted->stop};
    snprintf(url, sizeof url, "%s/spin?n=%d", lab->rigs[0].http, CALIBRATION);
    if (lab_url_parse(url, &plan.url, why, why_size) != 0 ||
        lab_load_run(&plan, &result, why, why_size) != 0)
        return -1;
    lab->additions_a_ms = CALIBRATION / ((double)result.latency.max / 1e6);
    if (result.answered == 1)
        return 0;
    snprintf(why, why_size, "%s does not answer", lab->rigs[0].name);
    return -1;
}

/* A server keeps memory that a load before this one needed, so each load has fresh ones, with pages that a
 * few requests have mapped. One that does not come is found out by its rounds. */
static void renew(const struct lab *lab, struct lab_rig *rig)
{
    static struct lab_load_result result;
    char url[128], why[300];
    struct lab_plan plan = {.connections = 2,
                            .requests = WARM_REQUESTS,
                            .seconds = 5,
                            .timeout_seconds = 5,
                            .stop = lab->wanted->stop};
    lab_rig_stop(rig);
    if (lab_rig_start(rig, rig->model, rig->gil, lab->folder, why, sizeof why) != 0)
        return;
    snprintf(url, sizeof url, "%s/hello", rig->http);
    if (lab_url_parse(url, &plan.url, why, sizeof why) == 0)
        lab_load_run(&plan, &result, why, sizeof why);
}

/* --- series ---------------------------------------------------------------------------------- */

/* A foreign server is at one URL; a load over the other protocol is not for it. */
static bool speaks_tls(const struct lab_server *server)
{
    return strncmp(server->name, "https:", 6) == 0;
}

static void add_series(struct lab *lab, const struct lab_work *work, size_t server, bool gil,
                       unsigned connections)
{
    struct lab_results *r = lab->results;
    const struct lab_server *s = &r->servers[server];
    struct lab_rig *rig = s->foreign ? NULL : rig_of(lab, s->name, gil);
    bool reaches = !s->foreign || speaks_tls(s) == work->tls;
    if (r->series_count == MOST_SERIES || (!s->foreign && !rig) || !reaches)
        return;
    sources[r->series_count] =
        (struct source){work, rig, calloc(lab->wanted->repeats, sizeof(struct lab_round_texts))};
    r->series[r->series_count++] =
        (struct lab_series){.load = &work->load,
                            .server = s,
                            .connections = connections,
                            .gil = gil,
                            .rate = work->rate,
                            .rounds = calloc(lab->wanted->repeats, sizeof(struct lab_round))};
}

/* One that is not about the servers: any will do, and the event loop is the plainest. */
static void add_one(struct lab *lab, const struct lab_work *work, unsigned connections)
{
    size_t one = 0;
    for (size_t s = 0; s < lab->results->server_count; s++)
        if (strcmp(lab->results->servers[s].name, "event-loop") == 0)
            one = s;
    add_series(lab, work, one, false, connections);
}

/* All servers, one after another: they are measured in this order. */
static void add_group(struct lab *lab, const struct lab_work *work, unsigned connections)
{
    if (work->load.kind == LAB_STALL) {
        add_one(lab, work, connections);
        return;
    }
    for (size_t s = 0; s < lab->results->server_count; s++) {
        add_series(lab, work, s, false, connections);
        if (work->gil && !lab->results->servers[s].foreign)
            add_series(lab, work, s, true, connections);
    }
}

static void plan_series(struct lab *lab)
{
    const struct lab_wanted *w = lab->wanted;
    for (size_t i = 0; w->works[i]; i++) {
        const struct lab_work *work = w->works[i];
        const unsigned *connections =
            w->connections[0] && !work->batch ? w->connections : work->connections;
        if (w->quick && !w->connections[0] && work->quick_connections) {
            add_group(lab, work, work->quick_connections);
            continue;
        }
        for (size_t c = 0; c < LAB_CONNECTIONS && connections[c]; c++)
            add_group(lab, work, connections[c]);
    }
}

/* --- rounds ---------------------------------------------------------------------------------- */

static void say_progress(const struct lab *lab, const struct lab_series *s)
{
    double done_s = (double)(modus_now_ns() - lab->begin_ns) / 1e9;
    double left_s = lab->made ? done_s / lab->made * (lab->planned - lab->made) : 0;
    char left[32] = "";
    if (lab->made > 5)
        snprintf(left, sizeof left, "%.0f:%02d left", left_s / 60 - .5 < 0 ? 0 : left_s / 60 - .5,
                 (int)left_s % 60);
    fprintf(stderr, "%s%3u of %u  %-14s %-12s %4u connections%s  %s%s",
            lab->terminal ? "\r\033[K" : "", lab->made + 1, lab->planned, s->load->name,
            s->server->name, s->connections, s->gil ? ", gil" : "", left,
            lab->terminal ? "" : "\n");
}

static const char *url_of(const struct source *source, const struct lab_series *s)
{
    if (!source->rig)
        return s->server->name;
    return source->work->tls ? source->rig->https : source->rig->http;
}

static void make_round(struct lab *lab, size_t place, unsigned repeat)
{
    struct lab_series *s = &lab->results->series[place];
    const struct source *source = &sources[place];
    struct lab_round_plan plan = {.work = source->work,
                                  .rig = source->rig,
                                  .url = url_of(source, s),
                                  .connections = s->connections,
                                  .repeat = repeat,
                                  .seconds = lab->wanted->seconds,
                                  .additions_a_ms = lab->additions_a_ms,
                                  .wait_scale = lab->wanted->quick ? QUICK_WAIT : 1,
                                  .server_cpu = lab->server_cpu,
                                  .loader_cpu = lab->loader_cpu,
                                  .folder = lab->folder,
                                  .stop = lab->wanted->stop};
    say_progress(lab, s);
    lab_round_make(&plan, &s->rounds[s->round_count], &source->texts[s->round_count]);
    lab->made++;
    if (!is_stopped(lab)) /* cut short, it is none */
        s->round_count++;
}

/* Series of one load and one number of connections lie together. */
static size_t group_end(const struct lab_results *r, size_t from)
{
    size_t end = from;
    while (end < r->series_count && r->series[end].load == r->series[from].load &&
           r->series[end].connections == r->series[from].connections)
        end++;
    return end;
}

static void make_repeat(struct lab *lab, unsigned repeat)
{
    const struct lab_results *r = lab->results;
    for (size_t from = 0, end; from < r->series_count; from = end) {
        end = group_end(r, from);
        for (size_t i = from; i < end && !is_stopped(lab); i++)
            if (sources[i].rig)
                renew(lab, sources[i].rig);
        for (size_t i = 0; i < end - from && !is_stopped(lab); i++)
            make_round(lab, from + (i + repeat) % (end - from), repeat);
    }
}

static void make_all(struct lab *lab)
{
    lab->planned = (unsigned)lab->results->series_count * lab->wanted->repeats;
    lab->begin_ns = modus_now_ns();
    for (unsigned i = 0; i < lab->wanted->repeats && !is_stopped(lab); i++)
        make_repeat(lab, i);
    if (lab->terminal)
        fputs("\r\033[K", stderr);
    lab->results->whole = !is_stopped(lab);
    lab->results->seconds = (double)(modus_now_ns() - lab->begin_ns) / 1e9;
}

/* --- beginning and end ------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void end(struct lab *lab)
{
    for (unsigned i = 0; i < lab->rig_count; i++)
        lab_rig_stop(&lab->rigs[i]);
    if (lab->folder[0])
        nftw(lab->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Descriptors for the most connections; the loader may be short of them before a server is. */
static void raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool needs_wrk(const struct lab *lab)
{
    for (size_t i = 0; lab->wanted->works[i]; i++)
        if (lab_work_is_wrks(lab->wanted->works[i]))
            return true;
    return false;
}

/* The paths of sockets are made below it, and those are short: 107 bytes. */
static const char *temporary(void)
{
    const char *named = getenv("TMPDIR");
    return named && named[0] == '/' && strlen(named) <= TEMPORARY_LONGEST ? named : "/tmp";
}

static int begin(struct lab *lab, char *why, size_t why_size)
{
    find_cpus(lab);
    describe_machine(lab);
    if (needs_wrk(lab) && !lab->results->machine.wrk[0]) {
        snprintf(why, why_size, "wrk is not in PATH: install the package wrk");
        return -1;
    }
    snprintf(lab->folder, sizeof lab->folder, "%s/modus-lab-XXXXXX", temporary());
    if (!mkdtemp(lab->folder)) {
        snprintf(why, why_size, "cannot make a folder in %s: %s", temporary(), strerror(errno));
        lab->folder[0] = '\0';
        return -1;
    }
    raise_limit();
    if (lab_rig_prepare(lab->folder, why, why_size) != 0 || start_rigs(lab, why, why_size) != 0 ||
        calibrate(lab, why, why_size) != 0)
        return -1;
    lab_tree_pin(getpid(), lab->loader_cpu);
    return 0;
}

static void add_servers(struct lab *lab)
{
    const struct lab_wanted *w = lab->wanted;
    size_t count = 0;
    for (size_t i = 0; w->models[i]; i++)
        servers[count++] = (struct lab_server){.name = w->models[i], .sizes = ""};
    for (size_t i = 0; i < LAB_AGAINST && w->against[i]; i++)
        servers[count++] = (struct lab_server){.name = w->against[i], .foreign = true, .sizes = ""};
    results.server_count = count;
}

void lab_run_free(struct lab_results *r)
{
    for (size_t i = 0; i < r->series_count; i++) {
        for (size_t k = 0; k < r->series[i].round_count; k++)
            free(r->series[i].rounds[k].latency);
        free(r->series[i].rounds);
        free(sources[i].texts);
    }
    r->series_count = 0;
}

static void begin_results(struct lab *lab)
{
    const struct lab_wanted *w = lab->wanted;
    results = (struct lab_results){.command = w->command,
                                   .config = lab_rig_config,
                                   .loads = loads,
                                   .servers = servers,
                                   .series = series};
    lab->results = &results;
    add_servers(lab);
    for (size_t i = 0; w->works[i]; i++)
        loads[results.load_count++] = &w->works[i]->load;
}

struct lab_results *lab_run(const struct lab_wanted *wanted, char *why, size_t why_size)
{
    static struct lab lab;
    lab = (struct lab){.wanted = wanted, .terminal = isatty(STDERR_FILENO)};
    begin_results(&lab);
    int rc = begin(&lab, why, why_size);
    if (rc == 0) {
        plan_series(&lab);
        make_all(&lab);
    }
    end(&lab);
    if (rc == 0)
        return lab.results;
    lab_run_free(lab.results);
    return NULL;
}
