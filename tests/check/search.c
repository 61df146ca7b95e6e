/* SPDX-License-Identifier: MIT */
/*
 * The search: decides at every step who goes on, remembers what it decided, and comes back for what
 * it has not tried yet.
 *
 * A run is repeated by its decisions alone: nothing else in it differs from run to run. path holds
 * those with an alternative; the next run takes the same up to the last that has one left, and
 * there the next one. What cannot be repeated is an error of the checker and ends it.
 */
#define CHECK_ENGINE 1
#include "tests/check/search.h"
#include "tests/check/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)0)
#endif

enum {
    STACK = 64 << 10,
    PATH = 1 << 14,
    STEPS = 5000, /* of a run; one that takes more does not end */
    OPTIONS = 4 * CHECK_ACTORS,
    TURNS = 3, /* of priority, in a random run */
};

enum kind { RUN, RUN_UNSEEN, TIME_OVER, NO_REASON, DIE };

struct option {
    struct check_actor *actor;
    enum kind kind;
    bool interrupts; /* costs a switch */
};

struct check_actor check_actors[CHECK_ACTORS];
bool check_tso;

static _Alignas(64) unsigned char stacks[CHECK_ACTORS][STACK];
static struct modus_context home;
static struct check_actor *current;
static const struct check_scenario *scenario;
static bool tracing;

/* The run. */
static unsigned steps, longest, changes_made;
static int switches_left, deaths_left, reasons_left;
static bool failed, in_main;
static char message[400];
static jmp_buf main_failed;

/* The bounded search. */
static struct {
    uint16_t taken, count;
} path[PATH];
static unsigned path_length, path_at;

/* A random run. */
static bool random_run, by_priority;
static uint64_t random_state;
static unsigned turns[TURNS], death_at, lowest;

static int number_of(const struct check_actor *actor)
{
    return (int)(actor - check_actors) + 1;
}

/* --- chance ---------------------------------------------------------------------------------- */

/* splitmix64, S. Vigna */
static uint64_t chance(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static bool one_in(unsigned n)
{
    return chance() % n == 0;
}

bool check_weakly_fails(void)
{
    return random_run && current && one_in(16);
}

/* --- failing --------------------------------------------------------------------------------- */

void check_trace(const char *format, ...)
{
    va_list arguments;

    if (!tracing || !current)
        return;
    fprintf(stderr, "    %4u  %*sA%d  ", steps, 2 * number_of(current) - 2, "", number_of(current));
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

static _Noreturn void give_up(void)
{
    struct check_actor *from = current;

    failed = true;
    if (in_main || !from)
        longjmp(main_failed, 1);
    current = NULL;
    modus_context_leave(&from->context, &home);
}

_Noreturn void check_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    int n = snprintf(message, sizeof message, "%s:%d: ", file, line);

    va_start(arguments, format);
    vsnprintf(message + n, sizeof message - (size_t)n, format, arguments);
    va_end(arguments);
    check_trace("fails");
    give_up();
}

static _Noreturn void fail_hung(void)
{
    static const char *const names[] = {"ready", "asleep", "waiting", "over", "killed"};
    size_t n = (size_t)snprintf(message, sizeof message, "nobody can go on:");

    for (int i = 0; i < CHECK_ACTORS && scenario->actors[i]; i++)
        n += (size_t)snprintf(message + n, sizeof message - n, " A%d %s", i + 1,
                              names[check_actors[i].state]);
    give_up();
}

/* Atomic, but nobody else's: not worth a decision. */
static bool is_private(const void *object)
{
    return object == CHECK_ADDRESS(modus_self_process) ||
           object == CHECK_ADDRESS(&modus_fault_planned);
}

/* --- store buffers --------------------------------------------------------------------------- */

unsigned check_changes_but(const struct check_actor *actor)
{
    return changes_made - actor->changes;
}

void check_changed(void)
{
    changes_made++;
    if (current)
        current->changes++;
}

void check_flush(struct check_actor *actor)
{
    for (unsigned i = 0; i < actor->buffered; i++)
        memcpy(actor->buffer[i].object, &actor->buffer[i].value, actor->buffer[i].size);
    actor->buffered = 0;
}

void check_load(const struct check_place *place, const void *object, void *value, size_t size)
{
    uint64_t seen = 0;

    check_point(place, object);
    memcpy(value, object, size);
    for (unsigned i = 0; current && i < current->buffered; i++)
        if (current->buffer[i].object == object)
            memcpy(value, &current->buffer[i].value, size);
    if (tracing && !is_private(object)) {
        memcpy(&seen, value, size < 8 ? size : 8);
        check_trace("          is %#llx", (unsigned long long)seen);
    }
}

void check_store(const struct check_place *place, void *object, const void *value, size_t size,
                 int order)
{
    bool buffers = check_tso && current && order != memory_order_seq_cst;

    if (!buffers || current->buffered == CHECK_BUFFER) {
        check_fence(place, object);
        memcpy(object, value, size);
        check_changed();
        return;
    }
    check_point(place, object);
    check_changed();
    struct check_store_buffered *entry = &current->buffer[current->buffered++];
    *entry = (struct check_store_buffered){.object = object, .size = size};
    memcpy(&entry->value, value, size);
    check_trace("          (in its buffer)");
}

/* --- deciding -------------------------------------------------------------------------------- */

static bool can_run(const struct check_actor *actor)
{
    switch (actor->state) {
    case READY:
        return true;
    case PARKED:
        return actor->woken;
    case WAITING:
        return actor->ready(actor->argument);
    case GONE:
    case KILLED:
        return false;
    }
    return false;
}

static bool is_over(const struct check_actor *actor)
{
    return actor->state == GONE || actor->state == KILLED;
}

static unsigned add(struct option *options, unsigned n, struct check_actor *actor, enum kind kind,
                    bool interrupts)
{
    options[n] = (struct option){actor, kind, interrupts};
    return n + 1;
}

/* Everything that may happen next, what happens without our doing first. goes_on: the current actor
 * can. */
static unsigned list_options(struct option *options, bool goes_on)
{
    bool may_switch = !goes_on || switches_left > 0 || random_run;
    unsigned n = 0;

    if (goes_on)
        n = add(options, n, current, RUN, false);
    for (int i = 0; i < CHECK_ACTORS && may_switch; i++) {
        struct check_actor *actor = &check_actors[i];

        if (actor == current && goes_on)
            continue;
        if (can_run(actor)) {
            n = add(options, n, actor, RUN, goes_on);
            if (goes_on && current->buffered)
                n = add(options, n, actor, RUN_UNSEEN, true);
        }
    }
    for (int i = 0; i < CHECK_ACTORS && may_switch; i++)
        if ((check_actors[i].state == PARKED || check_actors[i].state == WAITING) &&
            check_actors[i].timed && !can_run(&check_actors[i]) &&
            (!check_actors[i].patient || n == 0))
            n = add(options, n, &check_actors[i], TIME_OVER, goes_on);
    if (n == 0)
        return 0;
    for (int i = 0; i < CHECK_ACTORS && reasons_left && switches_left; i++)
        if (check_actors[i].state == PARKED && !check_actors[i].woken)
            n = add(options, n, &check_actors[i], NO_REASON, true);
    if (deaths_left && !is_over(&check_actors[scenario->victim - 1]))
        n = add(options, n, &check_actors[scenario->victim - 1], DIE, false);
    return n;
}

static unsigned choose(unsigned count)
{
    if (count == 1)
        return 0;
    if (path_at == path_length) {
        if (path_length == PATH)
            check_fail(__FILE__, __LINE__, "more decisions than there is room for");
        path[path_length].taken = 0;
        path[path_length++].count = (uint16_t)count;
    }
    if (path[path_at].count != count) {
        fprintf(stderr, "check: %s cannot be repeated\n", scenario->name);
        abort();
    }
    return path[path_at++].taken;
}

static bool is_a_turn(void)
{
    for (int i = 0; i < TURNS; i++)
        if (turns[i] == steps)
            return true;
    return false;
}

static unsigned choose_by_chance(const struct option *options, unsigned count)
{
    unsigned best = 0, runs = 0, others = 0;

    for (unsigned i = 0; i < count; i++) {
        if (options[i].kind == DIE && steps >= death_at)
            return i;
        runs += options[i].kind == RUN;
        others += options[i].kind != RUN && options[i].kind != DIE;
    }
    if (others && (runs == 0 || one_in(24)))
        for (unsigned pick = (unsigned)(chance() % others), i = 0; i < count; i++)
            if (options[i].kind != RUN && options[i].kind != DIE && pick-- == 0)
                return i;
    if (!by_priority) {
        if (options[0].kind == RUN && !options[0].interrupts && !one_in(3))
            return 0;
        for (unsigned pick = (unsigned)(chance() % runs), i = 0; i < count; i++)
            if (options[i].kind == RUN && pick-- == 0)
                return i;
    }
    if (current && is_a_turn())
        current->priority = lowest--;
    for (unsigned i = 1; i < count; i++)
        if (options[i].kind == RUN && (options[best].kind != RUN ||
                                       options[i].actor->priority > options[best].actor->priority))
            best = i;
    return best;
}

static void kill_it(struct check_actor *actor)
{
    if (tracing)
        fprintf(stderr, "    %4u  %*sA%d  is killed\n", steps, 2 * number_of(actor) - 2, "",
                number_of(actor));
    check_flush(actor);
    actor->state = KILLED;
    check_models_end(number_of(actor));
    actor->changes++, changes_made++; /* something that others may have waited for */
    deaths_left--;
}

/* Who goes on; NULL: all are over. */
static struct check_actor *decide(bool goes_on)
{
    struct option options[OPTIONS];

    for (;;) {
        unsigned n = list_options(options, goes_on);
        if (n == 0) {
            for (int i = 0; i < CHECK_ACTORS; i++)
                if (scenario->actors[i] && !is_over(&check_actors[i]))
                    fail_hung();
            return NULL;
        }
        struct option *option = &options[random_run ? choose_by_chance(options, n) : choose(n)];
        struct check_actor *actor = option->actor;
        switches_left -= option->interrupts;
        if (option->kind == DIE) {
            goes_on = goes_on && actor != current;
            kill_it(actor);
            continue;
        }
        if (goes_on && actor != current && option->kind != RUN_UNSEEN)
            check_flush(current);
        actor->timed_out = option->kind == TIME_OVER;
        reasons_left -= option->kind == NO_REASON;
        if (tracing && option->kind >= TIME_OVER)
            fprintf(stderr, "    %4u  %*sA%d  %s\n", steps, 2 * number_of(actor) - 2, "",
                    number_of(actor),
                    actor->timed_out ? "finds its time over" : "wakes for no reason");
        actor->state = READY;
        return actor;
    }
}

static void go_to(struct check_actor *next)
{
    struct check_actor *from = current;

    if (next == from)
        return;
    current = next;
    check_models_be(next ? number_of(next) : 0);
    modus_context_switch(from ? &from->context : &home, next ? &next->context : &home);
}

void check_point(const struct check_place *place, const void *object)
{
    if (!current || is_private(object))
        return;
    if (++steps > STEPS)
        check_fail(place->file, place->line, "the run does not end");
    if (switches_left > 0 || deaths_left > 0 || random_run)
        go_to(decide(true));
    check_trace("%s:%d: %s %s", place->file, place->line, place->operation, place->object);
}

void check_fence(const struct check_place *place, const void *object)
{
    check_point(place, object);
    if (current)
        check_flush(current);
}

void check_block(enum check_state state)
{
    check_flush(current);
    current->state = state;
    go_to(decide(false));
}

struct check_actor *check_current(void)
{
    return current;
}

/* --- a run ----------------------------------------------------------------------------------- */

static void act(void *argument)
{
    struct check_actor *me = argument;

    scenario->actors[me - check_actors]();
    if (me->buffered)
        check_yield(); /* before they are seen */
    check_trace("is over");
    check_flush(me);
    me->state = GONE;
    check_models_end(number_of(me));
    struct check_actor *next = decide(false);
    current = next;
    check_models_be(next ? number_of(next) : 0);
    modus_context_leave(&me->context, next ? &next->context : &home);
}

static void start_actors(void)
{
    for (int i = 0; i < CHECK_ACTORS; i++) {
        struct check_actor *actor = &check_actors[i];

        *actor = (struct check_actor){.state = GONE};
        if (!scenario->actors[i])
            continue;
        ASAN_UNPOISON_MEMORY_REGION(stacks[i], STACK);
        actor->state = READY;
        actor->priority = random_run ? 1000 + (unsigned)(chance() % 1000) : 0;
        modus_context_make(&actor->context, stacks[i], STACK, act, actor);
    }
}

static void seed_run(uint64_t seed)
{
    unsigned length = longest ? longest : 100;

    random_state = seed;
    by_priority = seed % 4 != 0;
    lowest = 500;
    for (int i = 0; i < TURNS; i++)
        turns[i] = 1 + (unsigned)(chance() % length);
    death_at = (unsigned)(chance() % length);
}

/* Returns whether everything held. */
static bool run_once(int switches)
{
    steps = changes_made = 0;
    path_at = 0;
    failed = false;
    switches_left = switches;
    deaths_left = scenario->victim != 0;
    reasons_left = switches > 0;
    current = NULL;
    in_main = true;
    if (setjmp(main_failed) == 0) {
        start_actors();
        check_models_reset(scenario->tick);
        scenario->setup();
        in_main = false;
        go_to(decide(false));
        in_main = true;
        check_models_be(0);
        if (!failed && scenario->verify)
            scenario->verify();
    }
    for (int i = 0; i < CHECK_ACTORS; i++)
        modus_context_drop(&check_actors[i].context);
    if (steps > longest && !random_run)
        longest = steps;
    return !failed;
}

/* Prepare the next run of the search. Returns false when all have been made. */
static bool next_path(void)
{
    while (path_length > 0 && path[path_length - 1].taken + 1u == path[path_length - 1].count)
        path_length--;
    if (path_length == 0)
        return false;
    path[path_length - 1].taken++;
    return true;
}

static void show(int switches, uint64_t seed, struct check_result *result)
{
    snprintf(result->message, sizeof result->message, "%s", message);
    result->switches = switches;
    result->seed = seed;
}

/* Show the run that has just failed, step by step. */
static void repeat_with_trace(int switches, uint64_t seed)
{
    tracing = true;
    if (random_run)
        seed_run(seed);
    run_once(switches);
    tracing = false;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool search_bounded(const struct check_limits *limits, struct check_result *result)
{
    double until = seconds() + limits->seconds;

    random_run = false;
    for (int switches = 0; switches <= limits->switches; switches++) {
        path_length = 0;
        do {
            result->runs++;
            if (!run_once(switches)) {
                show(switches, 0, result);
                if (limits->trace)
                    repeat_with_trace(switches, 0);
                return false;
            }
            if (result->runs % 1024 == 0 && seconds() > until)
                return true;
        } while (next_path());
        result->complete = switches;
    }
    return true;
}

static bool search_by_chance(const struct check_limits *limits, struct check_result *result)
{
    random_run = true;
    for (uint64_t i = 0; i < limits->random; i++) {
        seed_run(limits->seed + i);
        result->random_runs++;
        if (run_once(INT_MAX))
            continue;
        show(-1, limits->seed + i, result);
        if (limits->trace)
            repeat_with_trace(INT_MAX, limits->seed + i);
        return false;
    }
    return true;
}

bool check_search(const struct check_scenario *wanted, const struct check_limits *limits,
                  struct check_result *result)
{
    *result = (struct check_result){.complete = -1};
    scenario = wanted;
    longest = 0;
    check_tso = limits->tso;
    return search_bounded(limits, result) && search_by_chance(limits, result);
}
