/* SPDX-License-Identifier: MIT */
/*
 * Every window of fault.h, swept: in each role that reaches it, somebody is killed there, stopped
 * and let go on, or delayed, beside a producer and a consumer that use everything and survive all of
 * it with the same objects. After each case both must get on; at the end every object is whole.
 *
 * roles_of says who reaches which window. A window that has no role here must be named by another
 * test program (a part of the toolbox may have its own); one that nobody names fails
 * test_none_is_forgotten, and one that its role does not pass hangs the sweep, which says where.
 *
 * What becomes of items and permits in each window is counted in test_concurrency_fault.c and
 * test_concurrency_chaos.c; here it is that nobody hangs and nothing is lost but what the dead one
 * had.
 */
#include "test_concurrency.h"

#include <dirent.h>

#include "concurrency/cond.h"
#include "concurrency/event.h"
#include "concurrency/fault.h"
#include "concurrency/queue.h"
#include "concurrency/sem.h"

enum { CAPACITY = 4, PERMITS = 2, BLOCKS = 80 };

/* What a victim does. */
enum {
    PRODUCER = 1,
    CONSUMER = 2,
    ALLOCATOR = 4,
    MEMBER = 8,     /* joins and leaves */
    BURIER = 16,    /* has a dead child to bury */
    CLOSER = 32,    /* a queue of its own, to close and to join */
    CONTENDER = 64, /* two threads on a lock of thread scope */
    ROLES = 7,
};

static const unsigned roles_of[MODUS_FAULT_COUNT] = {
    [MODUS_FAULT_ALLOC_READ] = ALLOCATOR,
    [MODUS_FAULT_ALLOC_POPPED] = ALLOCATOR,
    [MODUS_FAULT_ALLOC_CARVED] = ALLOCATOR,
    [MODUS_FAULT_FREE_MARKED] = ALLOCATOR,
    [MODUS_FAULT_JOIN_HELD] = MEMBER,
    [MODUS_FAULT_JOIN_LIVE] = MEMBER,
    [MODUS_FAULT_LEAVE_MARKED] = MEMBER,
    [MODUS_FAULT_BURY_FOUND] = BURIER,
    [MODUS_FAULT_BURY_SCRUBBED] = BURIER,
    [MODUS_FAULT_BURY_MOVED] = BURIER,
    [MODUS_FAULT_LOCK_PASSED] = CONTENDER,
    [MODUS_FAULT_LOCK_GRANTING] = CONTENDER,
    [MODUS_FAULT_BELL_CLAIMED] = PRODUCER,
    [MODUS_FAULT_BELL_READ] = CONSUMER,
    [MODUS_FAULT_SEM_TAKEN] = PRODUCER | CONSUMER,
    [MODUS_FAULT_SEM_LOCKED] = PRODUCER | CONSUMER,
    [MODUS_FAULT_SEM_NOTED] = PRODUCER | CONSUMER,
    [MODUS_FAULT_SEM_RELEASED] = PRODUCER | CONSUMER,
    [MODUS_FAULT_EVENT_SET] = PRODUCER,
    [MODUS_FAULT_PUT_AIMED] = PRODUCER,
    [MODUS_FAULT_PUT_LOOKED] = PRODUCER,
    [MODUS_FAULT_PUT_CLAIMED] = PRODUCER,
    [MODUS_FAULT_PUT_HELPED] = PRODUCER,
    [MODUS_FAULT_PUT_COPIED] = PRODUCER,
    [MODUS_FAULT_PUT_PUBLISHED] = PRODUCER,
    [MODUS_FAULT_GET_CLAIMED] = CONSUMER,
    [MODUS_FAULT_GET_HELPED] = CONSUMER,
    [MODUS_FAULT_GET_COPIED] = CONSUMER,
    [MODUS_FAULT_GET_NOTED] = CONSUMER,
    [MODUS_FAULT_GET_FREED] = CONSUMER,
    [MODUS_FAULT_DONE_NOTED] = CONSUMER,
    [MODUS_FAULT_JOIN_SCANNED] = CLOSER,
    [MODUS_FAULT_CLOSE_MARKED] = CLOSER,
    [MODUS_FAULT_WAKE_CLAIMED] = PRODUCER | CONSUMER,
    [MODUS_FAULT_WAKE_PASSED] = PRODUCER | CONSUMER,
    [MODUS_FAULT_PARK_MARKED] = PRODUCER | CONSUMER,
};

/* --- what all use ---------------------------------------------------------------------------- */

struct world {
    struct modus_queue queue;
    struct modus_sem permits, plain; /* accounted, and not */
    struct modus_event event;
    struct modus_lock lock;
    struct modus_cond changed; /* of lock */
    struct modus_doorbell bell;
    long turns, taken; /* under lock */
    _Atomic bool over;
    _Atomic unsigned rounds[2]; /* of the survivors */
};

static struct modus_arena *arena;
static struct world *world;

static void lock(void)
{
    int rc = modus_lock_acquire(&world->lock, MODUS_FOREVER);

    if (rc == MODUS_OWNERDEAD)
        CHECK_INT(modus_lock_consistent(&world->lock), 0);
    else
        CHECK_INT(rc, 0);
}

static void give_turn(void)
{
    lock();
    world->turns++;
    CHECK(modus_cond_notify(&world->changed, 1) >= 0);
    CHECK_INT(modus_lock_release(&world->lock), 0);
}

static void take_turn(void)
{
    lock();
    while (world->turns <= world->taken) {
        int rc = modus_cond_wait(&world->changed, MODUS_FOREVER);

        if (rc == MODUS_OWNERDEAD)
            CHECK_INT(modus_lock_consistent(&world->lock), 0);
        else
            CHECK_INT(rc, 0);
    }
    world->taken++;
    CHECK_INT(modus_lock_release(&world->lock), 0);
}

static void use_permit(void)
{
    CHECK_INT(modus_sem_acquire(&world->permits, MODUS_FOREVER), 0);
    CHECK_INT(modus_sem_release(&world->permits, 1), 0);
}

/* Every other round is slow, so that it is now the one side that waits and now the other. */
static void produce_once(unsigned round)
{
    int item = (int)round;

    if (round % 2)
        usleep(200);
    give_turn();
    CHECK_INT(modus_queue_put(&world->queue, &item, MODUS_FOREVER), 0);
    use_permit();
    CHECK_INT(modus_sem_release(&world->plain, 1), 0);
    modus_event_set(&world->event);
    modus_doorbell_ring(&world->bell);
}

static void consume_once(unsigned round)
{
    int item;

    if (round % 2 == 0)
        usleep(200);
    take_turn();
    CHECK_INT(modus_queue_get(&world->queue, &item, MODUS_FOREVER), 0);
    CHECK_INT(modus_queue_task_done(&world->queue), 0);
    use_permit();
    if (modus_event_wait(&world->event, modus_us(50)) == 0)
        modus_event_clear(&world->event);
    modus_doorbell_hear(&world->bell);
    if (modus_sem_try(&world->plain) == 0 && round % 4 == 3)
        CHECK_INT(modus_sem_release(&world->plain, 1), 0);
}

static int survive_producing(void *unused)
{
    (void)unused;
    CHECK(modus_participant_join(arena) > 0);
    for (unsigned round = 0; !atomic_load(&world->over); round++) {
        alarm(WATCHDOG_SECONDS);
        produce_once(round);
        atomic_store(&world->rounds[0], round + 1);
    }
    return modus_participant_leave(arena);
}

static int survive_consuming(void *unused)
{
    (void)unused;
    CHECK(modus_participant_join(arena) > 0);
    for (unsigned round = 0; !atomic_load(&world->over); round++) {
        alarm(WATCHDOG_SECONDS);
        consume_once(round);
        atomic_store(&world->rounds[1], round + 1);
    }
    return modus_participant_leave(arena);
}

/* --- victims --------------------------------------------------------------------------------- */

struct part {
    enum modus_fault_point point;
    enum modus_fault_action action;
    unsigned role;
};

static void allocate_once(void)
{
    void *blocks[BLOCKS]; /* more than a page of them */

    for (int i = 0; i < BLOCKS; i++)
        CHECK((blocks[i] = modus_arena_alloc(arena, 64, 0)) != NULL);
    for (int i = 0; i < BLOCKS; i++)
        CHECK_INT(modus_arena_free(arena, blocks[i], 64), 0);
    CHECK(modus_arena_alloc(arena, 192, 0) != NULL); /* kept: a page will be full one day */
}

static int die_joined(void *unused)
{
    (void)unused;
    return modus_participant_join(arena) > 0 ? 0 : 1; /* and does not leave */
}

static void bury_once(const struct part *part)
{
    modus_fault_plan(MODUS_FAULT_NONE, MODUS_FAULT_DIE, 0);
    pid_t child = start_child(die_joined, NULL);
    CHECK_INT(reap(child), 0);
    modus_fault_plan(part->point, part->action, 1);
    modus_participant_bury(arena, child);
}

static void close_once(void)
{
    struct modus_queue own;
    struct modus_queue_attr attr = {.scope = MODUS_PROCESS,
                                    .arena = arena,
                                    .capacity = CAPACITY,
                                    .item_size = sizeof(int),
                                    .joinable = true};

    CHECK_INT(modus_queue_init(&own, &attr), 0);
    CHECK_INT(modus_queue_join(&own, 0), 0);
    CHECK_INT(modus_queue_close(&own, MODUS_CLOSE_NOW), 0);
    modus_queue_fini(&own);
}

static void *hold_and_pass(void *argument)
{
    struct modus_lock *contended = argument;

    for (int i = 0; i < 4; i++) {
        CHECK_INT(modus_lock_acquire(contended, MODUS_FOREVER), 0);
        usleep(1500); /* the other one starves, and becomes the heir */
        CHECK_INT(modus_lock_release(contended), 0);
    }
    return NULL;
}

static void contend_once(void)
{
    struct modus_lock contended = MODUS_LOCK_INIT;
    pthread_t other = start_thread(hold_and_pass, &contended);

    hold_and_pass(&contended);
    join_thread(other);
}

/* Play the part until it has passed its window. */
static int be_victim(void *argument)
{
    const struct part *part = argument;

    if (!(part->role & (MEMBER | CONTENDER)))
        CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(part->point, part->action, 1);
    for (unsigned round = 0; modus_fault_passed() == 0; round++)
        switch (part->role) {
        case PRODUCER:
            produce_once(round);
            break;
        case CONSUMER:
            consume_once(round);
            break;
        case ALLOCATOR:
            allocate_once();
            break;
        case MEMBER:
            CHECK(modus_participant_join(arena) > 0);
            CHECK_INT(modus_participant_leave(arena), 0);
            break;
        case BURIER:
            bury_once(part);
            break;
        case CLOSER:
            close_once();
            break;
        default:
            contend_once();
        }
    return 0;
}

/* --- the sweep ------------------------------------------------------------------------------- */

static void await_rounds(unsigned n)
{
    unsigned producer = atomic_load(&world->rounds[0]), consumer = atomic_load(&world->rounds[1]);

    AWAIT(atomic_load(&world->rounds[0]) - producer >= n &&
          atomic_load(&world->rounds[1]) - consumer >= n);
}

static void play(struct part *part)
{
    pid_t victim = start_child(be_victim, part);

    if (part->action == MODUS_FAULT_STOP) {
        AWAIT(state_of(victim) == 'T');
        kill(victim, SIGCONT);
    }
    CHECK_INT(reap(victim), part->action == MODUS_FAULT_DIE ? -SIGKILL : 0);
    modus_participant_bury(arena, 0);
    await_rounds(1);
}

/* The consumer may wait for what nobody but us gives it now. */
static void dismiss(pid_t producer, pid_t consumer)
{
    int status = 0;

    atomic_store(&world->over, true);
    while (waitpid(producer, &status, WNOHANG) == 0) {
        int item;

        if (modus_queue_try_get(&world->queue, &item) == 0)
            CHECK_INT(modus_queue_task_done(&world->queue), 0);
        modus_sem_release(&world->plain, 1);
        usleep(200);
    }
    CHECK_INT(status, 0);
    while (waitpid(consumer, &status, WNOHANG) == 0) {
        int item = 0;

        give_turn();
        modus_queue_try_put(&world->queue, &item);
        usleep(200);
    }
    CHECK_INT(status, 0);
    modus_participant_bury(arena, 0);
}

static void check_world(void)
{
    struct modus_queue *queue = &world->queue;
    int item = 0;

    while (modus_queue_try_get(queue, &item) == 0)
        CHECK_INT(modus_queue_task_done(queue), 0);
    CHECK_INT(modus_queue_join(queue, 0), 0);
    for (int i = 0; i < CAPACITY; i++)
        CHECK_INT(modus_queue_try_put(queue, &item), 0);
    CHECK_INT(modus_queue_try_put(queue, &item), MODUS_FULL);
    CHECK_INT(modus_sem_value(&world->permits), PERMITS);
    CHECK(!modus_lock_poisoned(&world->lock));
    lock();
    CHECK_INT(modus_lock_release(&world->lock), 0);
    for (int id = 1; id <= 8; id++) /* all slots but ours are free */
        CHECK(modus_participant_alive(arena, id) == (id == modus_participant_self(arena)));
}

static void make_world(enum modus_queue_death on_death)
{
    struct modus_queue_attr queue = {.scope = MODUS_PROCESS,
                                     .arena = arena,
                                     .capacity = CAPACITY,
                                     .item_size = sizeof(int),
                                     .joinable = true,
                                     .on_death = on_death};
    struct modus_sem_attr accounted = {
        .scope = MODUS_PROCESS, .value = PERMITS, .max = PERMITS, .accounted = true};
    struct modus_sem_attr plain = {.scope = MODUS_PROCESS};

    CHECK((world = modus_arena_alloc(arena, sizeof *world, 0)) != NULL);
    CHECK_INT(modus_queue_init(&world->queue, &queue), 0);
    CHECK_INT(modus_sem_init(&world->permits, &accounted), 0);
    CHECK_INT(modus_sem_init(&world->plain, &plain), 0);
    CHECK_INT(modus_event_init(&world->event, MODUS_PROCESS), 0);
    CHECK_INT(modus_lock_init(&world->lock, MODUS_PROCESS), 0);
    CHECK_INT(modus_cond_init(&world->changed, &world->lock), 0);
    CHECK_INT(modus_doorbell_init(&world->bell), 0);
}

static void end_world(void)
{
    modus_doorbell_fini(&world->bell);
    modus_cond_fini(&world->changed);
    modus_lock_fini(&world->lock);
    modus_event_fini(&world->event);
    modus_sem_fini(&world->plain);
    modus_sem_fini(&world->permits);
    modus_queue_fini(&world->queue);
    modus_arena_free(arena, world, sizeof *world);
}

static const char *volatile playing; /* for the watchdog's last words */

static void say_where(int signal)
{
    (void)signal;
    const char *what = playing ? playing : "";

    if (write(2, what, strlen(what)) < 0 || write(2, ": nobody passes it, or hangs\n", 29) < 0)
        _exit(98);
    _exit(99);
}

static void sweep(enum modus_queue_death on_death)
{
    struct part *part = modus_arena_alloc(arena, sizeof *part, 0);

    signal(SIGALRM, say_where);
    make_world(on_death);
    pid_t producer = start_child(survive_producing, NULL);
    pid_t consumer = start_child(survive_consuming, NULL);
    for (int point = 1; point < MODUS_FAULT_COUNT; point++)
        for (int role = 0; role < ROLES; role++)
            for (int action = 0; action < 3; action++) {
                *part = (struct part){(enum modus_fault_point)point,
                                      (enum modus_fault_action)action, 1u << role};
                if (!(roles_of[point] & part->role))
                    continue;
                alarm(WATCHDOG_SECONDS);
                playing = modus_fault_name(part->point);
                play(part);
            }
    dismiss(producer, consumer);
    check_world();
    end_world();
}

static void test_sweep_lost(void **state)
{
    (void)state;
    sweep(MODUS_QUEUE_LOST);
}

static void test_sweep_redeliver(void **state)
{
    (void)state;
    sweep(MODUS_QUEUE_REDELIVER);
}

/* --- none is forgotten ----------------------------------------------------------------------- */

static bool file_names(const char *path, const char *word)
{
    char line[1024];
    FILE *file = fopen(path, "r");
    bool found = false;

    while (file && !found && fgets(line, sizeof line, file))
        for (const char *at = line; (at = strstr(at, word)) != NULL && !found; at++)
            found = !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", at[strlen(word)]);
    if (file)
        fclose(file);
    return found;
}

/* Does another test program name the window? Looked up in the sources, beside this one. */
static bool named_elsewhere(enum modus_fault_point point)
{
    static const char here[] = __FILE__;
    const char *name = modus_fault_name(point);
    int folder_length = (int)(strrchr(here, '/') - here);
    char folder[256], word[128];
    bool found = false;

    snprintf(folder, sizeof folder, "%.*s", folder_length, here);
    snprintf(word, sizeof word, "MODUS_FAULT_%.*s", (int)strcspn(name, ":"), name);
    DIR *files = opendir(folder);
    CHECK(files);
    for (struct dirent *entry; !found && (entry = readdir(files)) != NULL;) {
        char path[768];

        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        found = strstr(entry->d_name, "test_") && strcmp(path, here) != 0 && file_names(path, word);
    }
    closedir(files);
    return found;
}

static void test_none_is_forgotten(void **state)
{
    int forgotten = 0;
    (void)state;

    for (int point = 1; point < MODUS_FAULT_COUNT; point++)
        if (roles_of[point] == 0 && !named_elsewhere((enum modus_fault_point)point)) {
            fprintf(stderr, "no test reaches %s\n",
                    modus_fault_name((enum modus_fault_point)point));
            forgotten++;
        }
    assert_int_equal(forgotten, 0);
}

static int open_arena(void **state)
{
    (void)state;
    if (modus_arena_open(&arena, (size_t)64 << 20, 8) < 0)
        return -1;
    return modus_participant_join(arena) > 0 ? 0 : -1;
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_none_is_forgotten, watchdog),
        cmocka_unit_test_setup(test_sweep_lost, watchdog),
        cmocka_unit_test_setup(test_sweep_redeliver, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
