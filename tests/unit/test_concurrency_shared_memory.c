/* SPDX-License-Identifier: MIT */
/* Blocks of shared memory: each code, names and descriptors, threads, related and unrelated
 * processes, seals, and that nothing is left. */
#include "test_concurrency_shared_memory.h"

#include "concurrency/lock.h"
#include "concurrency/pipe.h"
#include "concurrency/process.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* --- one process ----------------------------------------------------------------------------- */

static void test_arguments(void **state)
{
    struct modus_shm shm = {0};
    char long_name[258], slashed[80];
    (void)state;

    modus_shm_close(&shm);
    assert_null(modus_shm_memory(&shm));
    assert_int_equal(modus_shm_size(&shm), 0);
    assert_int_equal(modus_shm_fd(&shm), -1);
    memset(long_name, 'n', sizeof long_name);
    long_name[256] = 0;
    const char *none[] = {"", "/", ".", "..", "/..", "a/b", "//a", long_name};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        assert_int_equal(modus_shm_create(&shm, none[i], 1), -EINVAL);
        assert_int_equal(modus_shm_open(&shm, none[i], 0), -EINVAL);
        assert_int_equal(modus_shm_unlink(none[i]), -EINVAL);
        assert_int_equal(modus_shm_unlink_unused(none[i]), -EINVAL);
    }
    assert_int_equal(modus_shm_open(&shm, NULL, 0), -EINVAL);
    assert_int_equal(modus_shm_unlink(NULL), -EINVAL);
    assert_int_equal(modus_shm_create(&shm, name, 0), -EINVAL);
    assert_int_equal(modus_shm_create(&shm, NULL, 0), -EINVAL);
    assert_int_equal(modus_shm_attach(&shm, -1, 0), -EBADF);
    assert_int_equal(modus_shm_open(&shm, name, 0), -ENOENT);
    assert_int_equal(modus_shm_unlink(name), -ENOENT);
    assert_int_equal(modus_shm_unlink_unused(name), -ENOENT);
    assert_null(shm.memory); /* untouched */
    long_name[255] = 0;
    shm = created(long_name, 1);
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_unlink(long_name), 0);
    snprintf(slashed, sizeof slashed, "/%s", name);
    shm = created(slashed, 1);
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_unlink(name), 0);
}

static void test_named(void **state)
{
    struct modus_shm one = created(name, SIZE), two, other;
    struct stat file;
    (void)state;

    assert_int_equal(modus_shm_size(&one), SIZE);
    for (int i = 0; i < SIZE; i++)
        assert_int_equal(bytes_of(&one)[i], 0);
    assert_int_equal(stat(path, &file), 0);
    assert_int_equal(file.st_mode & 07777, 0600);
    assert_true(file.st_blocks * 512 >= SIZE); /* its pages are there */
    assert_true(fcntl(modus_shm_fd(&one), F_GETFD) & FD_CLOEXEC);
    assert_int_equal(modus_shm_create(&other, name, SIZE), -EEXIST);
    assert_int_equal(modus_shm_open(&other, name, SIZE + 1), -ERANGE);
    two = opened(SIZE);
    assert_int_equal(modus_shm_size(&two), SIZE);
    assert_ptr_not_equal(bytes_of(&one), bytes_of(&two));
    strcpy(bytes_of(&one) + SIZE - 6, "there");
    assert_string_equal(bytes_of(&two) + SIZE - 6, "there");
    assert_int_equal(modus_shm_unlink_unused(name), -EBUSY);
    modus_shm_close(&one);
    assert_null(modus_shm_memory(&one));
    assert_int_equal(modus_shm_unlink_unused(name), -EBUSY);
    assert_int_equal(modus_shm_unlink(name), 0);
    assert_int_equal(modus_shm_unlink(name), -ENOENT);
    assert_string_equal(bytes_of(&two) + SIZE - 6, "there"); /* who has it keeps it */
    other = created(name, SIZE);                             /* the name is free */
    assert_int_equal(bytes_of(&other)[SIZE - 6], 0);
    modus_shm_close(&two);
    modus_shm_close(&other);
    two = opened(0); /* nobody has it, but it has its name */
    modus_shm_close(&two);
    assert_int_equal(modus_shm_unlink_unused(name), 0);
    assert_int_equal(modus_shm_unlink_unused(name), -ENOENT);
}

static void test_nameless(void **state)
{
    struct modus_shm one = created(NULL, SIZE), two = {0};
    (void)state;

    assert_true(fcntl(modus_shm_fd(&one), F_GETFD) & FD_CLOEXEC);
    assert_int_equal(modus_shm_attach(&two, modus_shm_fd(&one), SIZE + 1), -ERANGE);
    assert_int_equal(modus_shm_attach(&two, modus_shm_fd(&one), SIZE), 0);
    assert_int_not_equal(modus_shm_fd(&one), modus_shm_fd(&two));
    assert_int_equal(modus_shm_size(&two), SIZE);
    modus_shm_close(&one);
    strcpy(bytes_of(&two), "still here");
    assert_int_equal(modus_shm_attach(&one, modus_shm_fd(&two), 0), 0);
    assert_string_equal(bytes_of(&one), "still here");
    modus_shm_close(&one);
    modus_shm_close(&two);
}

/* It is no arena. */
static void test_no_objects(void **state)
{
    struct modus_shm shm = created(NULL, SIZE);
    (void)state;

    assert_false(modus_scope_fits(MODUS_PROCESS, modus_shm_memory(&shm)));
    assert_int_equal(modus_lock_init(modus_shm_memory(&shm), MODUS_PROCESS), -EINVAL);
    modus_shm_close(&shm);
}

enum { THREADS = 4, ROUNDS = 2000 };

static void *count_by_name(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS / 10; i++) {
        struct modus_shm shm = opened(SIZE);

        for (int j = 0; j < 10; j++)
            atomic_fetch_add((atomic_int *)modus_shm_memory(&shm), 1);
        modus_shm_close(&shm);
    }
    return NULL;
}

static void *create_once(void *winners)
{
    struct modus_shm shm = {0};
    int rc = modus_shm_create(&shm, name, SIZE);

    CHECK(rc == 0 || rc == -EEXIST);
    atomic_fetch_add((atomic_int *)winners, rc == 0);
    modus_shm_close(&shm);
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[THREADS];
    atomic_int winners = 0;
    (void)state;

    for (int i = 0; i < THREADS; i++)
        threads[i] = start_thread(create_once, &winners);
    for (int i = 0; i < THREADS; i++)
        join_thread(threads[i]);
    assert_int_equal(winners, 1);
    for (int i = 0; i < THREADS; i++)
        threads[i] = start_thread(count_by_name, NULL);
    for (int i = 0; i < THREADS; i++)
        join_thread(threads[i]);
    struct modus_shm shm = opened(SIZE);
    assert_int_equal(atomic_load((atomic_int *)modus_shm_memory(&shm)), THREADS * ROUNDS);
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_unlink(name), 0);
}

/* --- errors ---------------------------------------------------------------------------------- */

/* What other programs make: shm_open, and the size later. */
static void test_unfinished(void **state)
{
    struct modus_shm shm = {0};
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    int sizeless = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    (void)state;

    assert_true(fd >= 0 && sizeless >= 0);
    assert_int_equal(modus_shm_open(&shm, name, 0), -EAGAIN);
    assert_int_equal(modus_shm_open(&shm, name, SIZE), -EAGAIN);
    assert_int_equal(modus_shm_attach(&shm, sizeless, 0), -EAGAIN);
    assert_int_equal(ftruncate(fd, 1), 0);
    assert_int_equal(modus_shm_open(&shm, name, SIZE), -ERANGE);
    assert_int_equal(ftruncate(fd, SIZE), 0);
    assert_int_equal(ftruncate(sizeless, SIZE), 0);
    shm = opened(SIZE);
    bytes_of(&shm)[SIZE - 1] = 7;
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_attach(&shm, sizeless, SIZE), 0);
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_unlink_unused(name), 0); /* others do not count */
    close(fd);
    close(sizeless);
}

/* As another user, who may not. */
static int try_as_other(void *unused)
{
    struct modus_shm shm;
    (void)unused;

    CHECK_INT(setresuid(65534, 65534, 65534), 0);
    CHECK_INT(modus_shm_open(&shm, name, 0), -EACCES);
    CHECK_INT(modus_shm_create(&shm, name, 1), -EEXIST);
    CHECK_INT(modus_shm_unlink(name), -EACCES);
    CHECK_INT(modus_shm_unlink_unused(name), -EACCES);
    return 0;
}

static void test_not_allowed(void **state)
{
    struct modus_shm shm = created(name, SIZE), other = {0};
    (void)state;

    assert_int_equal(chmod(path, 0620), 0); /* the group could shorten it */
    assert_int_equal(modus_shm_open(&other, name, 0), -EACCES);
    assert_int_equal(chmod(path, 0602), 0);
    assert_int_equal(modus_shm_open(&other, name, 0), -EACCES);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(modus_shm_open(&other, name, 0), 0);
    modus_shm_close(&other);
    if (geteuid() == 0) {
        assert_int_equal(reap(start_child(try_as_other, NULL)), 0);
        assert_int_equal(chown(path, 65534, 65534), 0); /* its owner could */
        assert_int_equal(modus_shm_open(&other, name, 0), -EACCES);
    }
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_unlink(name), 0);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_int_equal(modus_shm_create(&other, name, SIZE), -EEXIST);
    assert_int_equal(modus_shm_open(&other, name, 0), -EACCES);
    assert_int_equal(modus_shm_unlink(name), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(modus_shm_open(&other, name, 0), -EACCES);
    assert_int_equal(modus_shm_unlink(name), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(modus_shm_open(&other, name, 0), -EACCES);
    assert_int_equal(modus_shm_unlink(name), -EACCES);
    assert_int_equal(rmdir(path), 0);
    assert_null(other.memory);
}

/* Nobody can shorten what has been attached, and what could be is refused. */
static void test_seals(void **state)
{
    struct modus_shm shm = created(NULL, SIZE), other = {0};
    char proc[64];
    (void)state;

    assert_int_equal(ftruncate(modus_shm_fd(&shm), 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(modus_shm_fd(&shm), SIZE * 2), -1);
    assert_int_equal(fcntl(modus_shm_fd(&shm), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", modus_shm_fd(&shm));
    int fd = open(proc, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(modus_shm_attach(&other, fd, 0), -EACCES); /* it only reads */
    close(fd);
    modus_shm_close(&shm);

    fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, SIZE), 0);
    assert_int_equal(modus_shm_attach(&other, fd, SIZE), 0);
    assert_int_equal(ftruncate(fd, 0), -1); /* sealed by who attached it */
    bytes_of(&other)[SIZE - 1] = 7;
    modus_shm_close(&other);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    assert_int_equal(modus_shm_attach(&other, fd, SIZE), -EPERM);
    close(fd);

    fd = memfd_create("test", MFD_CLOEXEC); /* cannot be sealed */
    assert_int_equal(ftruncate(fd, SIZE), 0);
    assert_int_equal(modus_shm_attach(&other, fd, SIZE), -EPERM);
    close(fd);
    shm = created(name, SIZE);
    assert_int_equal(modus_shm_attach(&other, modus_shm_fd(&shm), SIZE), -EPERM);
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_unlink(name), 0);
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(modus_shm_attach(&other, fd, 0), -EPERM);
    close(fd);
    assert_null(other.memory);
}

static bool tell(const char *file, const char *text)
{
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    bool told = fd >= 0 && write(fd, text, strlen(text)) > 0;

    if (fd >= 0)
        close(fd);
    return told;
}

/* Mounts of its own: who is not root becomes it in a world of its own. */
static bool alone(void)
{
    char user[32], group[32];

    snprintf(user, sizeof user, "0 %u 1", geteuid());
    snprintf(group, sizeof group, "0 %u 1", getegid());
    if (geteuid() == 0)
        return unshare(CLONE_NEWNS) == 0;
    return unshare(CLONE_NEWNS | CLONE_NEWUSER) == 0 && tell("/proc/self/setgroups", "deny") &&
           tell("/proc/self/gid_map", group) && tell("/proc/self/uid_map", user);
}

static bool mount_small(void)
{
    return alone() && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("none", "/dev/shm", "tmpfs", 0, "size=1m") == 0;
}

/* In a /dev/shm of its own, of 1 MiB. Returns 77 where that may not be had. */
static int fill_small(void *unused)
{
    struct modus_shm shm = {0}, other = {0};
    (void)unused;

    if (!mount_small())
        return 77;
    CHECK_INT(modus_shm_create(&shm, name, (1 << 20) + 1), -ENOSPC);
    CHECK_INT(access(path, F_OK), -1);
    CHECK_INT(modus_shm_create(&shm, name, 1 << 20), 0); /* all of it */
    memset(bytes_of(&shm), 1, 1 << 20);
    CHECK_INT(modus_shm_create(&other, "other", 1), -ENOSPC);
    modus_shm_close(&shm);
    CHECK_INT(modus_shm_unlink(name), 0);
    CHECK_INT(modus_shm_create(&other, "other", 1 << 20), 0);
    modus_shm_close(&other);
    CHECK_INT(umount2("/dev/shm", MNT_DETACH), 0);
    return 0;
}

static void test_full(void **state)
{
    struct modus_shm shm = {0};
    struct statvfs all;
    (void)state;

    assert_int_equal(statvfs("/dev/shm", &all), 0);
    if (all.f_blocks > 0)
        assert_int_equal(modus_shm_create(&shm, name, all.f_blocks * all.f_frsize + 1), -ENOSPC);
    assert_int_equal(modus_shm_create(&shm, NULL, (size_t)1 << 62), -ENOMEM);
    assert_int_equal(modus_shm_create(&shm, NULL, SIZE_MAX), -ENOMEM);
    assert_null(shm.memory);
    int code = reap(start_child(fill_small, NULL));
    if (code == 77)
        print_message("no /dev/shm of one's own here: the full one is not tried\n");
    else
        assert_int_equal(code, 0);
}

/* What fails in the middle leaves nothing. */
static int with_limits(void *unused)
{
    struct modus_shm shm = {0}, whole = created(name, SIZE);
    struct rlimit none = {.rlim_cur = fds_here(), .rlim_max = fds_here()};
    struct rlimit small = {.rlim_cur = 3 << 20, .rlim_max = 3 << 20};
    (void)unused;

    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int fd; (fd = dup(0)) >= 0;)
        continue; /* there was a gap */
    CHECK_INT(modus_shm_create(&shm, NULL, SIZE), -EMFILE);
    CHECK_INT(modus_shm_create(&shm, "modus-test-other", SIZE), -EMFILE);
    CHECK_INT(modus_shm_open(&shm, name, SIZE), -EMFILE);
    CHECK_INT(modus_shm_attach(&shm, modus_shm_fd(&whole), SIZE), -EMFILE);
    modus_shm_close(&whole);
    CHECK_INT(modus_shm_unlink(name), 0);
    signal(SIGXFSZ, SIG_IGN);
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &small), 0);
    CHECK_INT(modus_shm_create(&shm, name, 8 << 20), -EFBIG);
    CHECK_INT(modus_shm_create(&shm, NULL, 8 << 20), -EFBIG);
    CHECK(!shm.memory && access(path, F_OK) < 0);
    return 0;
}

static void test_limits(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(with_limits, NULL)), 0);
}

/* On some kernels each signal undoes the step of an allocation in which it comes. */
static int create_in_storm(void *unused)
{
    enum { BIG = 64 << 20 };
    (void)unused;
    start_storm(500);
    for (int i = 0; i < 2; i++) {
        struct modus_shm shm = created(i ? NULL : name, BIG);

        bytes_of(&shm)[BIG - 1] = 1;
        modus_shm_close(&shm);
    }
    return modus_shm_unlink(name);
}

static void test_signals(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(create_in_storm, NULL)), 0);
}

/* --- processes ------------------------------------------------------------------------------- */

static int use_inherited(void *argument)
{
    struct modus_shm *shm = argument, again;

    strcpy(bytes_of(shm), "from the child");
    CHECK_INT(modus_shm_attach(&again, modus_shm_fd(shm), SIZE), 0);
    CHECK_INT(strcmp(bytes_of(&again), "from the child"), 0);
    modus_shm_close(&again);
    modus_shm_close(shm);
    CHECK(!modus_shm_memory(shm) && mappings() == 0);
    return 0;
}

static void test_fork(void **state)
{
    struct modus_shm shm = created(NULL, SIZE);
    (void)state;

    assert_int_equal(reap(start_child(use_inherited, &shm)), 0);
    assert_string_equal(bytes_of(&shm), "from the child");
    modus_shm_close(&shm);
}

/* In a program that shares nothing with this one but the name, or a descriptor. */
static int use_by_name(void *its_name)
{
    struct modus_shm shm = {0};

    CHECK(mappings() == 0);
    CHECK_INT(modus_shm_open(&shm, its_name, SIZE), 0);
    strcat(bytes_of(&shm), ", by name");
    modus_shm_close(&shm);
    return 0;
}
MODUS_PROCESS_FUNCTION(use_by_name)

static int use_passed(void *unused)
{
    struct modus_shm shm = {0};
    (void)unused;

    CHECK(mappings() == 0);
    CHECK_INT(modus_shm_attach(&shm, modus_process_passed(0), SIZE), 0);
    strcat(bytes_of(&shm), ", by descriptor");
    modus_shm_close(&shm);
    return 0;
}
MODUS_PROCESS_FUNCTION(use_passed)

static void run_spawned(int (*run)(void *), void *argument, size_t size, int fd)
{
    const struct modus_process_attr attr = {
        .start = MODUS_START_SPAWN, .size = size, .fds = &fd, .fds_count = fd >= 0};
    struct modus_process *process;
    int code = -1;

    CHECK_INT(modus_process_new(&process, &attr, run, argument), 0);
    CHECK_INT(modus_process_start(process), 0);
    CHECK_INT(modus_process_join(process, MODUS_FOREVER, &code), 0);
    CHECK_INT(code, 0);
    modus_process_put(process);
}

static void test_unrelated(void **state)
{
    struct modus_shm named = created(name, SIZE), nameless = created(NULL, SIZE);
    (void)state;

    strcpy(bytes_of(&named), "used");
    strcpy(bytes_of(&nameless), "used");
    run_spawned(use_by_name, name, sizeof name, -1);
    run_spawned(use_passed, NULL, 0, modus_shm_fd(&nameless));
    assert_string_equal(bytes_of(&named), "used, by name");
    assert_string_equal(bytes_of(&nameless), "used, by descriptor");
    modus_shm_close(&named);
    modus_shm_close(&nameless);
    assert_int_equal(modus_shm_unlink_unused(name), 0);
}

static int make_and_send(void *argument)
{
    struct modus_pipe *pipe = argument;
    struct modus_shm shm = created(NULL, SIZE);
    int fd = modus_shm_fd(&shm);

    strcpy(bytes_of(&shm), "from a maker that is gone");
    CHECK_INT(modus_pipe_send_message(pipe, &(struct modus_pipe_message){.fds = &fd, .fd_count = 1},
                                      MODUS_FOREVER),
              0);
    raise(SIGKILL);
    return 0;
}

/* The block outlives its maker, as long as somebody has it. */
static void test_sent(void **state)
{
    struct modus_pipe ends[2];
    struct modus_shm shm = {0};
    int fd = -1;
    struct modus_pipe_message message = {.fds = &fd, .fd_count = 1};
    (void)state;

    assert_int_equal(modus_pipe_pair(ends, NULL), 0);
    assert_int_equal(reap(start_child(make_and_send, &ends[1])), -SIGKILL);
    assert_int_equal(modus_pipe_recv_message(&ends[0], &message, MODUS_FOREVER), 0);
    free(message.data);
    assert_int_equal(message.fd_count, 1);
    assert_int_equal(modus_shm_attach(&shm, fd, SIZE), 0);
    close(fd);
    assert_string_equal(bytes_of(&shm), "from a maker that is gone");
    modus_shm_close(&shm);
    modus_pipe_close(&ends[0]);
    modus_pipe_close(&ends[1]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_arguments), TEST(test_named),      TEST(test_nameless),    TEST(test_no_objects),
        TEST(test_threads),   TEST(test_unfinished), TEST(test_not_allowed), TEST(test_seals),
        TEST(test_full),      TEST(test_limits),     TEST(test_signals),     TEST(test_fork),
        TEST(test_unrelated), TEST(test_sent),
    };

    modus_process_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
