/* SPDX-License-Identifier: MIT */
/* What passes between threads and processes: queues, pipes, files, shared data: I1 to I6, P7, P19, P20. */
#include "tests/demo/demo.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concurrency/arena.h"
#include "concurrency/dict.h"
#include "concurrency/list.h"
#include "concurrency/lock.h"
#include "concurrency/manager.h"
#include "concurrency/participant.h"
#include "concurrency/pipe.h"
#include "concurrency/process.h"
#include "concurrency/queue.h"
#include "concurrency/remote.h"
#include "concurrency/thread.h"

static struct modus_process *start_child(struct demo *d, int (*run)(void *argument), void *argument)
{
    struct modus_process *process = NULL;
    DEMO_CHECK(d, modus_process_new(&process, NULL, run, argument) == 0);
    DEMO_CHECK(d, modus_process_start(process) == 0);
    return process;
}

static int join_child(struct demo *d, struct modus_process *process)
{
    int code = -1000;
    DEMO_CHECK(d, modus_process_join(process, modus_seconds(50), &code) == 0);
    modus_process_put(process);
    return code;
}

/* --- I1: exactly once ------------------------------------------------------------------------------- */

enum { PRODUCERS = 4, CONSUMERS = 3, EACH = 5000, ITEMS = PRODUCERS * EACH };

/* In memory that all processes share. */
struct once {
    struct modus_arena *arena;
    struct modus_queue queue;
    atomic_uint producers;
    atomic_uchar seen[ITEMS];
    atomic_uint wrong_order;
};

static void produce(struct once *o)
{
    int who = (int)atomic_fetch_add(&o->producers, 1);
    modus_participant_join(o->arena);
    for (int i = 0; i < EACH; i++) {
        int item = who * EACH + i;
        modus_queue_put(&o->queue, &item, MODUS_FOREVER);
    }
    modus_participant_leave(o->arena);
}

static void consume(struct once *o)
{
    int item, last[PRODUCERS];
    memset(last, -1, sizeof last);
    modus_participant_join(o->arena);
    while (modus_queue_get(&o->queue, &item, MODUS_FOREVER) == 0) {
        atomic_fetch_add(&o->seen[item], 1);
        if (item <= last[item / EACH])
            atomic_fetch_add(&o->wrong_order, 1);
        last[item / EACH] = item;
    }
    modus_participant_leave(o->arena);
}

static pid_t start_process(void (*run)(struct once *o), struct once *o)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    run(o);
    _exit(0);
}

static void i1(struct demo *d)
{
    struct modus_arena *arena;
    pid_t producers[PRODUCERS], consumers[CONSUMERS];
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 4 << 20, 16) == 0))
        return;
    struct once *o = modus_arena_alloc(arena, sizeof *o, 64);
    o->arena = arena;
    DEMO_CHECK(
        d, modus_queue_init(&o->queue, &(struct modus_queue_attr){.scope = MODUS_PROCESS,
                                                                  .arena = arena,
                                                                  .capacity = 64,
                                                                  .item_size = sizeof(int)}) == 0);
    for (int i = 0; i < CONSUMERS; i++)
        consumers[i] = start_process(consume, o);
    for (int i = 0; i < PRODUCERS; i++)
        producers[i] = start_process(produce, o);
    for (int i = 0; i < PRODUCERS; i++)
        waitpid(producers[i], NULL, 0);
    modus_queue_close(&o->queue, MODUS_CLOSE_DRAIN);
    for (int i = 0; i < CONSUMERS; i++)
        waitpid(consumers[i], NULL, 0);
    int once = 0;
    for (int i = 0; i < ITEMS; i++)
        once += o->seen[i] == 1;
    DEMO_CHECK(d, once == ITEMS);
    DEMO_CHECK(d, o->wrong_order == 0);
    modus_queue_fini(&o->queue);
    demo_saw(d, "%d items from %d processes to %d: each once, each producer's in order", once,
             PRODUCERS, CONSUMERS);
    modus_arena_close(arena);
}

/* --- P7: one writes, one reads ------------------------------------------------------------------------ */

struct writing {
    struct demo *row;
    struct modus_arena *arena;
    struct modus_queue queue;
    const char *values;
    atomic_int got;
};

static int write_values(void *argument)
{
    struct writing *w = argument;
    modus_participant_join(w->arena);
    for (const char *value = w->values; *value; value++) {
        demo_print(w->row, "Put %c to queue...", *value);
        modus_queue_put(&w->queue, value, MODUS_FOREVER);
        demo_pause(0.02);
    }
    modus_participant_leave(w->arena);
    return 0;
}

static int read_values(void *argument)
{
    struct writing *w = argument;
    char value;
    modus_participant_join(w->arena);
    while (modus_queue_get(&w->queue, &value, MODUS_FOREVER) == 0) {
        demo_print(w->row, "Get %c from queue.", value);
        atomic_fetch_add(&w->got, 1);
        if (value == 'e') /* the mark of the end */
            break;
    }
    modus_participant_leave(w->arena);
    return 0;
}

/* Returns how the reader ended. */
static int write_and_read(struct demo *d, struct writing *w, const char *values, bool terminate)
{
    w->values = values;
    atomic_store(&w->got, 0);
    struct modus_process *writer = start_child(d, write_values, w);
    struct modus_process *reader = start_child(d, read_values, w);
    DEMO_CHECK(d, join_child(d, writer) == 0);
    while (terminate && atomic_load(&w->got) < (int)strlen(values))
        demo_pause(0.001);
    if (terminate)
        DEMO_CHECK(d, modus_process_terminate(reader) == 0);
    return join_child(d, reader);
}

static bool in_order(const char *printed, const char *values)
{
    for (const char *value = values; *value; value++) {
        char line[32];
        snprintf(line, sizeof line, "Get %c from queue.\n", *value);
        printed = strstr(printed, line);
        if (!printed)
            return false;
    }
    return true;
}

static void p7(struct demo *d)
{
    struct modus_arena *arena;
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 4 << 20, 16) == 0))
        return;
    struct writing *w = modus_arena_alloc(arena, sizeof *w, 64);
    *w = (struct writing){.row = d, .arena = arena};
    DEMO_CHECK(d, modus_queue_init(&w->queue, &(struct modus_queue_attr){.scope = MODUS_PROCESS,
                                                                         .arena = arena,
                                                                         .capacity = 8,
                                                                         .item_size = 1}) == 0);
    int code = write_and_read(d, w, "ABC", true);
    DEMO_CHECK(d, code == -SIGTERM && in_order(demo_printed(d), "ABC"));
    DEMO_CHECK(d, write_and_read(d, w, "abcde", false) == 0);
    DEMO_CHECK(d, in_order(demo_printed(d), "abcde"));
    demo_saw(d,
             "A B C in order, the endless reader ended by terminate (%d); then a to e through the "
             "same queue, which its end did not hurt",
             code);
    modus_queue_fini(&w->queue);
    modus_arena_close(arena);
}

/* --- P19: one printer ------------------------------------------------------------------------------------ */

enum { RECORDS = 300, LINES = 4 };

struct printer {
    struct modus_lock lock;
    bool locked;
    int fd;
    atomic_int writers;
};

static int print_records(void *argument)
{
    struct printer *p = argument;
    char line[32];
    int who = atomic_fetch_add(&p->writers, 1);
    for (int record = 0; record < RECORDS; record++) {
        if (p->locked)
            modus_lock_acquire(&p->lock, MODUS_FOREVER);
        for (int i = 0; i < LINES; i++) {
            int len = snprintf(line, sizeof line, "%d %d %d\n", who, record, i);
            if (write(p->fd, line, (size_t)len) != len)
                return 1;
            if (record % 10 == 0)
                sched_yield(); /* paper is slow */
        }
        if (p->locked)
            modus_lock_release(&p->lock);
    }
    return 0;
}

/* Records whose lines do not stand together. */
static int torn_records(int fd)
{
    int torn = 0, who, record, i, last_who = 0, last_record = 0, last = LINES - 1;
    FILE *f = fdopen(dup(fd), "r");
    rewind(f);
    while (fscanf(f, "%d %d %d", &who, &record, &i) == 3) {
        bool follows =
            i == 0 ? last == LINES - 1 : who == last_who && record == last_record && i == last + 1;
        torn += !follows;
        last_who = who, last_record = record, last = i;
    }
    fclose(f);
    return torn;
}

static int torn_by_three(struct demo *d, struct modus_arena *arena, bool locked)
{
    struct printer *p = modus_arena_alloc(arena, sizeof *p, 64);
    struct modus_process *writers[3];
    p->locked = locked;
    p->fd = memfd_create("printer", 0);
    fcntl(p->fd, F_SETFL, O_APPEND);
    modus_lock_init(&p->lock, MODUS_PROCESS);
    for (int i = 0; i < 3; i++)
        writers[i] = start_child(d, print_records, p);
    for (int i = 0; i < 3; i++)
        DEMO_CHECK(d, join_child(d, writers[i]) == 0);
    int torn = torn_records(p->fd);
    close(p->fd);
    return torn;
}

static void p19(struct demo *d)
{
    struct modus_arena *arena;
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 1 << 20, 4) == 0))
        return;
    int without = torn_by_three(d, arena, false), with = torn_by_three(d, arena, true);
    DEMO_CHECK(d, without > 0);
    DEMO_CHECK(d, with == 0);
    demo_saw(d, "3 processes x %d records: without a lock %d times torn, with one %d", RECORDS,
             without, with);
    modus_arena_close(arena);
}

/* --- P20: a file between processes -------------------------------------------------------------------------- */

struct by_file {
    bool locked;
    int fd;
};

static int add_in_file(void *argument)
{
    const struct by_file *f = argument;
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", f->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC); /* opened anew: a lock belongs to what was opened */
    for (int i = 0; i < 500; i++) {
        int n = 0;
        if (f->locked)
            flock(fd, LOCK_EX);
        (void)!pread(fd, &n, sizeof n, 0);
        n++;
        (void)!pwrite(fd, &n, sizeof n, 0);
        if (f->locked)
            flock(fd, LOCK_UN);
    }
    close(fd);
    return 0;
}

static int counted_in_file(struct demo *d, bool locked)
{
    struct by_file f = {locked, memfd_create("counter", 0)};
    struct modus_process *both[2];
    int n = 0;
    for (int i = 0; i < 2; i++)
        both[i] = start_child(d, add_in_file, &f);
    for (int i = 0; i < 2; i++)
        DEMO_CHECK(d, join_child(d, both[i]) == 0);
    (void)!pread(f.fd, &n, sizeof n, 0);
    close(f.fd);
    return n;
}

static double file_us(int rounds)
{
    int fd = memfd_create("mail", 0), n = 0;
    double begun = demo_now();
    for (int i = 0; i < rounds; i++) {
        flock(fd, LOCK_EX);
        (void)!pwrite(fd, &i, sizeof i, 0);
        (void)!pread(fd, &n, sizeof n, 0);
        flock(fd, LOCK_UN);
    }
    double took = demo_now() - begun;
    close(fd);
    return took * 1e6 / rounds;
}

static double pipe_us(int rounds)
{
    int ends[2], n = 0;
    if (pipe(ends) != 0)
        return 0;
    double begun = demo_now();
    for (int i = 0; i < rounds; i++) {
        (void)!write(ends[1], &i, sizeof i);
        (void)!read(ends[0], &n, sizeof n);
    }
    double took = demo_now() - begun;
    close(ends[0]);
    close(ends[1]);
    return took * 1e6 / rounds;
}

static double shared_us(struct modus_arena *arena, int rounds)
{
    struct modus_queue queue;
    int n = 0;
    modus_queue_init(
        &queue, &(struct modus_queue_attr){
                    .scope = MODUS_PROCESS, .arena = arena, .capacity = 8, .item_size = sizeof n});
    modus_participant_join(arena);
    double begun = demo_now();
    for (int i = 0; i < rounds; i++) {
        modus_queue_try_put(&queue, &i);
        modus_queue_try_get(&queue, &n);
    }
    double took = demo_now() - begun;
    modus_participant_leave(arena);
    modus_queue_fini(&queue);
    return took * 1e6 / rounds;
}

static void p20(struct demo *d)
{
    enum { ROUNDS = 20000 };
    struct modus_arena *arena;
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 4 << 20, 4) == 0))
        return;
    int without = counted_in_file(d, false), with = counted_in_file(d, true);
    DEMO_CHECK(d, with == 1000);
    double file = file_us(ROUNDS), by_pipe = pipe_us(ROUNDS), shared = shared_us(arena, ROUNDS);
    demo_expect_time(d, shared < by_pipe && shared < file, "shared memory is the fastest");
    demo_saw(d,
             "two count to 1000 in a file: %d without a lock, %d with flock; an item in and out: "
             "file %.2f us, pipe %.2f us, queue in shared memory %.3f us",
             without, with, file, by_pipe, shared);
    modus_arena_close(arena);
}

/* --- I2: a pipe with two writers ------------------------------------------------------------------------ */

enum { FRAMES = 200, FRAME = 100 * 1000 }; /* more than PIPE_BUF */

struct two_writers {
    struct modus_pipe end;
    int fd;
    int number;
};

static int write_frames(void *argument)
{
    const struct two_writers *w = argument;
    static char frame[FRAME];
    memset(frame, 'a' + w->number, sizeof frame);
    for (int i = 0; i < FRAMES; i++)
        for (size_t done = 0; done < sizeof frame;) {
            ssize_t n = write(w->fd, frame + done, sizeof frame - done);
            if (n <= 0)
                return 1;
            done += (size_t)n;
        }
    return 0;
}

static int send_frames(void *argument)
{
    struct two_writers *w = argument;
    static char frame[FRAME];
    memset(frame, 'a' + w->number, sizeof frame);
    for (int i = 0; i < FRAMES; i++)
        if (modus_pipe_send(&w->end, frame, sizeof frame, MODUS_FOREVER) != 0)
            return 1;
    return 0;
}

static bool is_torn(const char *frame)
{
    for (size_t i = 1; i < FRAME; i++)
        if (frame[i] != frame[0])
            return true;
    return false;
}

static int torn_in_pipe(struct demo *d)
{
    static char frame[FRAME];
    int ends[2], torn = 0;
    struct modus_process *writers[2];
    if (!DEMO_CHECK(d, pipe(ends) == 0))
        return 0;
    for (int i = 0; i < 2; i++)
        writers[i] =
            start_child(d, write_frames, &(struct two_writers){.fd = ends[1], .number = i});
    for (int i = 0; i < 2 * FRAMES; i++) {
        for (size_t got = 0; got < sizeof frame;) {
            ssize_t n = read(ends[0], frame + got, sizeof frame - got);
            if (n <= 0)
                break;
            got += (size_t)n;
        }
        torn += is_torn(frame);
    }
    for (int i = 0; i < 2; i++)
        DEMO_CHECK(d, join_child(d, writers[i]) == 0);
    close(ends[0]);
    close(ends[1]);
    return torn;
}

static int torn_in_ours(struct demo *d, struct modus_arena *arena)
{
    static char frame[FRAME];
    struct modus_pipe ends[2];
    struct modus_process *writers[2];
    int torn = 0;
    DEMO_CHECK(d, modus_pipe_pair(ends, &(struct modus_pipe_attr){.scope = MODUS_PROCESS,
                                                                  .arena = arena}) == 0);
    for (int i = 0; i < 2; i++)
        writers[i] =
            start_child(d, send_frames, &(struct two_writers){.end = ends[1], .number = i});
    for (int i = 0; i < 2 * FRAMES; i++) {
        size_t size = sizeof frame;
        DEMO_CHECK(d, modus_pipe_recv(&ends[0], frame, &size, modus_seconds(30)) == 0 &&
                          size == sizeof frame);
        torn += is_torn(frame);
    }
    for (int i = 0; i < 2; i++)
        DEMO_CHECK(d, join_child(d, writers[i]) == 0);
    DEMO_CHECK(d, modus_pipe_send(&ends[0], "back", 4, 0) == 0); /* the other way, too */
    size_t size = 4;
    DEMO_CHECK(d, modus_pipe_recv(&ends[1], frame, &size, 0) == 0 && memcmp(frame, "back", 4) == 0);
    modus_pipe_close(&ends[1]);
    DEMO_CHECK(d, modus_pipe_recv(&ends[0], frame, &size, 0) == MODUS_CLOSED);
    modus_pipe_fini(&ends[0]);
    return torn;
}

static void i2(struct demo *d)
{
    struct modus_arena *arena;
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 4 << 20, 4) == 0))
        return;
    int plain = torn_in_pipe(d), ours = torn_in_ours(d, arena);
    if (demo_cpus() >= 2)
        DEMO_CHECK(d, plain > 0);
    DEMO_CHECK(d, ours == 0);
    demo_saw(d,
             "two writers of %d frames of 100 kB each: %d torn in a plain pipe, %d in ours, which "
             "has a lock, both ways and an end",
             FRAMES, plain, ours);
    modus_arena_close(arena);
}

/* --- I3: a shared dict ---------------------------------------------------------------------------------------- */

enum { ADDERS = 10, ADDITIONS_EACH = 200 };

struct adder {
    struct modus_dict *dict;
    bool update;
};

static struct modus_bytes key_k(void)
{
    return modus_str("k");
}

static long add_one(void *context, void *value, long size, size_t room)
{
    int n = 0;
    (void)context;
    (void)room;
    if (size == sizeof n)
        memcpy(&n, value, sizeof n);
    n++;
    memcpy(value, &n, sizeof n);
    return sizeof n;
}

static int add_to_dict(void *argument)
{
    const struct adder *a = argument;
    for (int i = 0; i < ADDITIONS_EACH; i++) {
        int n = 0;
        if (a->update) {
            if (modus_dict_update(a->dict, key_k(), sizeof n, add_one, NULL) < 0)
                return 1;
            continue;
        }
        modus_dict_get(a->dict, key_k(), &n, sizeof n, NULL);
        sched_yield(); /* d['k'] += 1 is a get, an addition and a put */
        n++;
        if (modus_dict_put(a->dict, key_k(), modus_bytes(&n, sizeof n)) < 0)
            return 1;
    }
    return 0;
}

static int added(struct demo *d, struct modus_arena *arena, bool update)
{
    struct modus_process *adders[ADDERS];
    struct modus_dict dict;
    int n = 0;
    DEMO_CHECK(
        d, modus_dict_init(&dict, &(struct modus_dict_attr){MODUS_PROCESS, arena, 64 << 10}) == 0);
    for (int i = 0; i < ADDERS; i++)
        adders[i] = start_child(d, add_to_dict, &(struct adder){&dict, update});
    for (int i = 0; i < ADDERS; i++)
        DEMO_CHECK(d, join_child(d, adders[i]) == 0);
    DEMO_CHECK(d, modus_dict_get(&dict, key_k(), &n, sizeof n, NULL) == sizeof n);
    modus_dict_fini(&dict);
    return n;
}

/* A process that is nobody's child here would do the same. */
static int use_manager(void *path)
{
    struct modus_client *client;
    struct modus_remote dict, list;
    int one = 1, back = 0;
    if (modus_client_open(&client, &(struct modus_client_attr){.path = path}) != 0)
        return 1;
    bool good = modus_remote_open(&dict, client, MODUS_REMOTE_DICT, "d", 0) == 0 &&
                modus_remote_open(&list, client, MODUS_REMOTE_LIST, "l", 0) == 0 &&
                modus_remote_dict_put(&dict, key_k(), modus_bytes(&one, sizeof one)) == 0 &&
                modus_remote_dict_get(&dict, key_k(), &back, sizeof back, NULL) == sizeof back &&
                back == 1 && modus_remote_list_append(&list, modus_str("a")) == 0 &&
                modus_remote_len(&list) == 1;
    modus_client_close(client);
    return good ? 0 : 2;
}

static int serve_manager(void *manager)
{
    int rc = modus_manager_serve(manager);
    modus_manager_close(manager);
    return rc == 0 ? 0 : 1;
}

static void i3(struct demo *d)
{
    struct modus_arena *arena;
    struct modus_manager *manager;
    char path[64];
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 4 << 20, 16) == 0))
        return;
    int lost = added(d, arena, false), exact = added(d, arena, true);
    DEMO_CHECK(d, exact == ADDERS * ADDITIONS_EACH);
    DEMO_CHECK(d, lost < exact);
    snprintf(path, sizeof path, "/tmp/modus-demo-%d", getpid());
    DEMO_CHECK(d, modus_manager_open(&manager, &(struct modus_manager_attr){.path = path}) == 0);
    struct modus_process *server = start_child(d, serve_manager, manager);
    DEMO_CHECK(d, join_child(d, start_child(d, use_manager, path)) == 0);
    modus_manager_stop(manager);
    modus_manager_close(manager);
    DEMO_CHECK(d, join_child(d, server) == 0);
    demo_saw(d,
             "d['k'] += 1 from %d processes, %d in all: %d arrive with get and put, %d with "
             "update; a manager serves dict and list to a process that shares no memory (it is a "
             "server, not shared memory as the notes say)",
             ADDERS, ADDERS * ADDITIONS_EACH, lost, exact);
    modus_arena_close(arena);
}

/* --- I4: first produce, then consume; and both at once ---------------------------------------------------------- */

static void *produce_slowly(void *queue)
{
    for (int i = 0; i < 10; i++) {
        demo_pause(0.01);
        modus_queue_put(queue, &i, MODUS_FOREVER);
    }
    modus_queue_close(queue, MODUS_CLOSE_DRAIN);
    return NULL;
}

static double consume_slowly(struct demo *d, struct modus_queue *queue)
{
    int item;
    double begun = demo_now();
    while (modus_queue_get(queue, &item, MODUS_FOREVER) == 0) {
        demo_print(d, "%d", item);
        demo_pause(0.01);
    }
    return demo_now() - begun;
}

static void i4(struct demo *d)
{
    struct modus_queue_attr attr = {
        .scope = MODUS_THREAD, .capacity = 16, .item_size = sizeof(int), .order = MODUS_QUEUE_LIFO};
    struct modus_queue queue;
    struct modus_thread *producer;
    DEMO_CHECK(d, modus_queue_init(&queue, &attr) == 0);
    double begun = demo_now();
    produce_slowly(&queue);
    consume_slowly(d, &queue);
    double serial = demo_now() - begun;
    modus_queue_fini(&queue);
    DEMO_CHECK(d, strcmp(demo_printed(d), "9\n8\n7\n6\n5\n4\n3\n2\n1\n0\n") == 0);
    attr.order = MODUS_QUEUE_FIFO;
    modus_queue_init(&queue, &attr);
    begun = demo_now();
    modus_thread_new(&producer, NULL, produce_slowly, &queue);
    modus_thread_start(producer);
    consume_slowly(d, &queue);
    modus_thread_join(producer, MODUS_FOREVER, NULL);
    modus_thread_put(producer);
    double overlapped = demo_now() - begun;
    modus_queue_fini(&queue);
    demo_expect_time(d, overlapped < serial * 0.75, "both at once take less");
    demo_saw(d,
             "one after the other 9 8 ... 0 (the newest first) in %.2f s; at the same time 0 1 ... "
             "9 in %.2f s",
             serial, overlapped);
}

/* --- I5: a queue that can be joined ------------------------------------------------------------------ */

struct joinable {
    struct demo *row;
    struct modus_queue queue;
    atomic_int done;
};

static void *customer(void *argument)
{
    struct joinable *j = argument;
    int item;
    while (modus_queue_get(&j->queue, &item, MODUS_FOREVER) == 0) {
        demo_pause(0.01);
        atomic_fetch_add(&j->done, 1);
        DEMO_CHECK(j->row, modus_queue_task_done(&j->queue) == 0);
    }
    return NULL;
}

static void i5(struct demo *d)
{
    struct joinable j = {.row = d};
    struct modus_thread *thread;
    modus_queue_init(&j.queue, &(struct modus_queue_attr){.scope = MODUS_THREAD,
                                                          .capacity = 16,
                                                          .item_size = sizeof(int),
                                                          .joinable = true});
    modus_thread_new(&thread, &(struct modus_thread_attr){.daemon = MODUS_DAEMON_YES}, customer,
                     &j);
    modus_thread_start(thread);
    for (int i = 0; i < 10; i++)
        modus_queue_put(&j.queue, &i, MODUS_FOREVER);
    DEMO_CHECK(d, modus_queue_join(&j.queue, 0) == -EAGAIN);
    DEMO_CHECK(d, modus_queue_join(&j.queue, MODUS_FOREVER) == 0);
    DEMO_CHECK(d, atomic_load(&j.done) == 10);
    DEMO_CHECK(d, modus_queue_task_done(&j.queue) == -EOVERFLOW);
    modus_queue_close(&j.queue,
                      MODUS_CLOSE_DRAIN); /* what the notes' example lacks: it never ends */
    DEMO_CHECK(d, modus_thread_join(thread, modus_seconds(10), NULL) == 0);
    modus_thread_put(thread);
    modus_queue_fini(&j.queue);
    demo_saw(d,
             "join returned after %d task_done, an 11th is refused; closing ends the customer (the "
             "notes' waits for ever)",
             j.done);
}

const struct demo_row demo_queues[] = {
    {"P7", "A, B, C through a queue, and a to e", p7},
    {"P19", "three processes and one printer", p19},
    {"P20", "a file between processes", p20},
    {"I1", "a queue is safe and in order", i1},
    {"I2", "a pipe, and two that write", i2},
    {"I3", "a shared dict", i3},
    {"I4", "serial and concurrent producer", i4},
    {"I5", "JoinableQueue(10)", i5},
    {0},
};
