/* SPDX-License-Identifier: MIT */
/* Coroutines, thread-local values, and what runs at the same time: C1 to C6, O1. */
#include "tests/demo/demo.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "concurrency/arena.h"
#include "concurrency/context.h"
#include "concurrency/coroutine.h"
#include "concurrency/generator.h"
#include "concurrency/local.h"
#include "concurrency/offload.h"
#include "concurrency/sem.h"
#include "concurrency/thread.h"

/* --- C1: it keeps its locals ----------------------------------------------------------------------- */

struct tree {
    int value;
    const struct tree *left, *right;
};

/* In order, by recursion: each yield leaves all the frames above it standing. */
static void walk(struct modus_generator *self, const struct tree *t)
{
    if (!t)
        return;
    walk(self, t->left);
    modus_generator_yield(self, (void *)(uintptr_t)t);
    walk(self, t->right);
}

static int walk_tree(struct modus_generator *self, void *tree)
{
    walk(self, tree);
    return 0;
}

static void c1(struct demo *d)
{
    static const struct tree one = {1, NULL, NULL}, three = {3, NULL, NULL},
                             two = {2, &one, &three}, six = {6, NULL, NULL}, five = {5, NULL, &six},
                             four = {4, &two, &five};
    struct modus_generator *generator;
    void *at;
    int n = 0;
    DEMO_CHECK(d, modus_generator_new(&generator, 0, walk_tree, (void *)(uintptr_t)&four) == 0);
    while (modus_generator_next(generator, &at) == 0) {
        demo_print(d, "%d", ((const struct tree *)at)->value);
        DEMO_CHECK(d, ((const struct tree *)at)->value == ++n);
    }
    DEMO_CHECK(d, n == 6 && modus_generator_next(generator, &at) == MODUS_CLOSED);
    modus_generator_free(generator);
    demo_saw(d,
             "a tree walked by recursion gives one value at a time, 1 to %d, its frames standing "
             "between",
             n);
}

/* --- C2: a hundred thousand ------------------------------------------------------------------------ */

enum { SLEEPERS = 100000 };

struct crowd {
    struct demo *row;
    long asleep, woken;
    double bytes_each;
};

static long resident_bytes(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%*d %ld", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    return pages * sysconf(_SC_PAGESIZE);
}

static int sleep_long(void *argument)
{
    struct crowd *c = argument;
    c->asleep++;
    modus_co_sleep(modus_seconds(3600)); /* until it is cancelled */
    c->woken++;
    return 0;
}

static int gather_crowd(void *argument)
{
    static struct modus_co *all[SLEEPERS];
    struct crowd *c = argument;
    long before = resident_bytes();
    for (int i = 0; i < SLEEPERS; i++)
        if (modus_co_start(&all[i], NULL, sleep_long, c) != 0)
            return -1;
    while (c->asleep < SLEEPERS)
        modus_co_yield();
    c->bytes_each = (double)(resident_bytes() - before) / SLEEPERS;
    for (int i = 0; i < SLEEPERS; i++) {
        modus_co_cancel(all[i]);
        modus_co_put(all[i]);
    }
    return 0;
}

static void c2(struct demo *d)
{
    struct crowd c = {.row = d};
    double begun = demo_now();
    DEMO_CHECK(d, modus_co_run(gather_crowd, &c) == 0);
    DEMO_CHECK(d, c.asleep == SLEEPERS && c.woken == SLEEPERS);
    DEMO_CHECK(d, c.bytes_each < 9000);
    demo_saw(d, "%d sleep at once on one thread, %.0f bytes each, all woken, %.2f s", SLEEPERS,
             c.bytes_each, demo_now() - begun);
}

/* --- C3: what a switch costs ------------------------------------------------------------------------- */

enum { STACK = 64 * 1024 };

static struct modus_context main_context, other_context;
static ucontext_t main_ucontext, other_ucontext;

static void switch_back(void *argument)
{
    (void)argument;
    for (;;)
        modus_context_switch(&other_context, &main_context);
}

static void switch_back_ucontext(void)
{
    for (;;)
        swapcontext(&other_ucontext, &main_ucontext);
}

static double coroutine_ns(void *stack, int rounds)
{
    modus_context_make(&other_context, stack, STACK, switch_back, NULL);
    double begun = demo_now();
    for (int i = 0; i < rounds; i++)
        modus_context_switch(&main_context, &other_context);
    double took = demo_now() - begun;
    modus_context_drop(&other_context);
    return took * 1e9 / rounds;
}

static double ucontext_ns(void *stack, int rounds)
{
    getcontext(&other_ucontext);
    other_ucontext.uc_stack.ss_sp = stack;
    other_ucontext.uc_stack.ss_size = STACK;
    makecontext(&other_ucontext, switch_back_ucontext, 0);
    double begun = demo_now();
    for (int i = 0; i < rounds; i++)
        swapcontext(&main_ucontext, &other_ucontext);
    return (demo_now() - begun) * 1e9 / rounds;
}

/* Two that hand a turn to and fro. */
struct turns {
    struct modus_sem ping, pong;
    int rounds;
};

static void *answer_turns(void *argument)
{
    struct turns *t = argument;
    for (int i = 0; i < t->rounds; i++) {
        modus_sem_acquire(&t->ping, MODUS_FOREVER);
        modus_sem_release(&t->pong, 1);
    }
    return NULL;
}

static double take_turns(struct turns *t)
{
    double begun = demo_now();
    for (int i = 0; i < t->rounds; i++) {
        modus_sem_release(&t->ping, 1);
        modus_sem_acquire(&t->pong, MODUS_FOREVER);
    }
    return (demo_now() - begun) * 1e9 / t->rounds;
}

static void make_turns(struct turns *t, enum modus_scope scope, int rounds)
{
    struct modus_sem_attr attr = {.scope = scope, .max = 1};
    modus_sem_init(&t->ping, &attr);
    modus_sem_init(&t->pong, &attr);
    t->rounds = rounds;
}

static double thread_ns(int rounds)
{
    struct turns t;
    struct modus_thread *thread;
    make_turns(&t, MODUS_THREAD, rounds);
    modus_thread_new(&thread, NULL, answer_turns, &t);
    modus_thread_start(thread);
    double ns = take_turns(&t);
    modus_thread_join(thread, MODUS_FOREVER, NULL);
    modus_thread_put(thread);
    return ns;
}

static double process_ns(struct demo *d, int rounds)
{
    struct modus_arena *arena;
    struct turns *t;
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 1 << 20, 4) == 0))
        return 0;
    t = modus_arena_alloc(arena, sizeof *t, 0);
    make_turns(t, MODUS_PROCESS, rounds);
    pid_t pid = fork();
    if (pid == 0) {
        answer_turns(t);
        _exit(0);
    }
    double ns = take_turns(t);
    waitpid(pid, NULL, 0);
    modus_arena_close(arena);
    return ns;
}

static void c3(struct demo *d)
{
    void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    double co = coroutine_ns(stack, 2000000), uc = ucontext_ns(stack, 200000);
    double thread = thread_ns(20000), process = process_ns(d, 20000);
    munmap(stack, STACK);
    demo_expect_time(d, co < uc, "the own switch makes no system call");
    demo_expect_time(d, co * 10 < thread && co * 10 < process,
                     "a coroutine's switch is far cheaper");
    demo_saw(d,
             "there and back: coroutine %.1f ns, ucontext %.0f ns, thread %.0f ns, process %.0f ns",
             co, uc, thread, process);
}

/* --- C4: one core, and a call that blocks -------------------------------------------------------------- */

struct stall {
    bool offload;
    int64_t longest; /* ns that the ticker had to wait for its turn */
    bool over;
};

static int block(void *argument)
{
    (void)argument;
    demo_pause(0.2); /* a call that knows nothing of coroutines */
    return 0;
}

static int blocker(void *argument)
{
    struct stall *s = argument;
    modus_co_sleep(modus_ms(20));
    if (s->offload)
        modus_offload(block, NULL, MODUS_FOREVER, NULL);
    else
        block(NULL);
    s->over = true;
    return 0;
}

static int ticker(void *argument)
{
    struct stall *s = argument;
    while (!s->over) {
        int64_t before = modus_now_ns();
        modus_co_sleep(modus_ms(5));
        int64_t took = modus_now_ns() - before;
        s->longest = took > s->longest ? took : s->longest;
    }
    return 0;
}

static int both(void *stall)
{
    modus_co_start(NULL, NULL, blocker, stall);
    modus_co_start(NULL, NULL, ticker, stall);
    return 0;
}

static void c4(struct demo *d)
{
    struct stall direct = {.offload = false}, offloaded = {.offload = true};
    DEMO_CHECK(d, modus_co_run(both, &direct) == 0 && modus_co_run(both, &offloaded) == 0);
    double stalled = (double)direct.longest / 1e9, smooth = (double)offloaded.longest / 1e9;
    DEMO_CHECK(d, stalled >= 0.15);
    demo_expect_time(d, smooth < 0.05, "the others go on");
    demo_saw(d,
             "a call that blocks for 0.2 s holds up one that ticks every 5 ms for %.0f ms, "
             "offloaded to a thread for %.0f ms; several loops use several CPUs (O1 in threads)",
             stalled * 1e3, smooth * 1e3);
}

/* --- C5: steps in order --------------------------------------------------------------------------------- */

enum { TREES = 200 };

struct garden {
    char steps[3 * TREES + 1];
    int n;
};

static int dig(void *garden)
{
    struct garden *g = garden;
    for (int i = 0; i < TREES; i++) {
        g->steps[g->n++] = 'd';
        modus_co_yield();
    }
    return 0;
}

static int plant(void *garden)
{
    struct garden *g = garden;
    for (int i = 0; i < TREES; i++) {
        g->steps[g->n++] = 'p';
        modus_co_yield();
    }
    return 0;
}

static int bury(void *garden)
{
    struct garden *g = garden;
    for (int i = 0; i < TREES; i++) {
        g->steps[g->n++] = 'b';
        modus_co_yield();
    }
    return 0;
}

static int tend_garden(void *garden)
{
    modus_co_start(NULL, NULL, dig, garden);
    modus_co_start(NULL, NULL, plant, garden);
    modus_co_start(NULL, NULL, bury, garden);
    return 0;
}

static void c5(struct demo *d)
{
    static struct garden g;
    DEMO_CHECK(d, modus_co_run(tend_garden, &g) == 0);
    bool in_order = g.n == 3 * TREES;
    for (int i = 0; i < g.n; i++)
        in_order = in_order && g.steps[i] == "dpb"[i % 3];
    DEMO_CHECK(d, in_order);
    demo_saw(d, "%d trees: dig, plant, bury each in turn, with neither lock nor chance", TREES);
}

/* --- C6: a value a thread ----------------------------------------------------------------------------------- */

static struct modus_local student;
static _Atomic int students_gone;

static void forget_student(void *name)
{
    (void)name;
    students_gone++;
}

struct pupil {
    struct demo *row;
    const char *name;
};

static void say_hello(struct demo *d, const char *where)
{
    demo_print(d, "Hello, %s (in %s)", (const char *)modus_local_get(&student), where);
}

static void *process_thread(void *argument)
{
    const struct pupil *p = argument;
    modus_local_set(&student, (void *)(uintptr_t)p->name);
    say_hello(p->row, modus_thread_name(modus_thread_self()));
    return NULL;
}

static int process_coroutine(void *argument)
{
    const struct pupil *p = argument;
    modus_local_set(&student, (void *)(uintptr_t)p->name);
    modus_co_yield(); /* the other sets its own */
    say_hello(p->row, modus_co_name(modus_co_self()));
    return 0;
}

static int two_coroutines(void *both)
{
    struct pupil *p = both;
    modus_co_start(NULL, &(struct modus_co_attr){.name = "Coroutine-A"}, process_coroutine, &p[0]);
    modus_co_start(NULL, &(struct modus_co_attr){.name = "Coroutine-B"}, process_coroutine, &p[1]);
    return 0;
}

static void c6(struct demo *d)
{
    static const char *const names[] = {"Thread-A", "Thread-B"};
    struct pupil both[] = {{d, "Alice"}, {d, "Bob"}};
    struct modus_thread *threads[2];
    DEMO_CHECK(d, modus_local_init(&student, forget_student) == 0);
    for (int i = 0; i < 2; i++) {
        modus_thread_new(&threads[i], &(struct modus_thread_attr){.name = names[i]}, process_thread,
                         &both[i]);
        modus_thread_start(threads[i]);
    }
    for (int i = 0; i < 2; i++) {
        modus_thread_join(threads[i], MODUS_FOREVER, NULL);
        modus_thread_put(threads[i]);
    }
    DEMO_CHECK(d, students_gone == 2);
    DEMO_CHECK(d, modus_co_run(two_coroutines, both) == 0);
    DEMO_CHECK(d, students_gone == 4);
    DEMO_CHECK(d, demo_count(d, "Hello, Alice (in Thread-A)") == 1 &&
                      demo_count(d, "Hello, Bob (in Thread-B)") == 1);
    DEMO_CHECK(d, demo_count(d, "Hello, Alice (in Coroutine-A)") == 1 &&
                      demo_count(d, "Hello, Bob (in Coroutine-B)") == 1);
    modus_local_fini(&student);
    demo_saw(d, "Hello, Alice (in Thread-A); Hello, Bob (in Thread-B); the same in two coroutines "
                "of one thread; each value is destroyed at its end");
}

/* --- O1: as many at once as there are CPUs ----------------------------------------------------------------- */

static void *add_some(void *argument)
{
    (void)argument;
    demo_add(200 * 1000 * 1000);
    return NULL;
}

static double four_on(struct demo *d, size_t cpus)
{
    struct modus_thread *threads[4];
    cpu_set_t all, some;
    sched_getaffinity(0, sizeof all, &all);
    CPU_ZERO(&some);
    for (size_t cpu = 0, n = 0; cpu < CPU_SETSIZE && n < cpus; cpu++)
        if (CPU_ISSET(cpu, &all)) {
            CPU_SET(cpu, &some);
            n++;
        }
    double begun = demo_now();
    for (int i = 0; i < 4; i++) {
        modus_thread_new(&threads[i], &(struct modus_thread_attr){.affinity = &some}, add_some,
                         NULL);
        DEMO_CHECK(d, modus_thread_start(threads[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        modus_thread_join(threads[i], MODUS_FOREVER, NULL);
        modus_thread_put(threads[i]);
    }
    return demo_now() - begun;
}

static bool is_twice(double ratio)
{
    return ratio > 1.6 && ratio < 2.4;
}

/* Others may want the CPUs meanwhile: it need not be seen the first time. */
static void o1(struct demo *d)
{
    double one = 0, two = 1;
    for (int tries = 0; tries < 5 && !is_twice(one / two); tries++) {
        one = four_on(d, 1);
        two = four_on(d, 2);
    }
    if (demo_cpus() >= 2)
        demo_expect_time(d, is_twice(one / two), "twice as long on one CPU as on two");
    demo_saw(d, "four tasks on one CPU %.2f s, on two %.2f s: %.2f times", one, two, one / two);
}

const struct demo_row demo_coroutines[] = {
    {"C1", "it keeps what it has between entries", c1},
    {"C2", "tens of thousands of coroutines on one CPU", c2},
    {"C3", "no price of a thread's switch", c3},
    {"C4", "what blocks, blocks all", c4},
    {"C5", "dig, plant, bury", c5},
    {"C6", "ThreadLocal", c6},
    {"O1", "parallel are as many as there are CPUs", o1},
    {0},
};
