#!/bin/sh
# outside.sh MAKE CC: install the toolbox into an empty folder, and build and run a program there that
# knows nothing of this tree, with the shared library and with the static one. Then uninstall it:
# nothing may be left. Also the first program of the guide.
set -eu
make=$1 cc=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
prefix=$folder/usr
$make install-toolbox PREFIX="$prefix"
cat > "$folder/program.c" <<'C'
#include <concurrency/coroutine.h>
#include <concurrency/queue.h>
#include <concurrency/thread.h>
#include <stdio.h>

static struct modus_queue queue;

static void *put_some(void *argument)
{
    for (int i = 1; i <= 4; i++)
        modus_queue_put(&queue, &i, MODUS_FOREVER);
    modus_queue_close(&queue, MODUS_CLOSE_DRAIN);
    return argument;
}

static int get_all(void *sum)
{
    int item;
    while (modus_queue_get(&queue, &item, MODUS_FOREVER) == 0)
        *(int *)sum += item;
    return 0;
}

static int program(int argc, char **argv)
{
    struct modus_queue_attr attr = {.scope = MODUS_THREAD, .capacity = 2, .item_size = sizeof(int)};
    struct modus_thread *thread;
    int sum = 0;
    (void)argc;
    (void)argv;
    if (modus_queue_init(&queue, &attr) != 0 || modus_thread_new(&thread, NULL, put_some, NULL) != 0 ||
        modus_thread_start(thread) != 0)
        return 1;
    modus_co_run(get_all, &sum);
    modus_thread_put(thread);
    printf("%d\n", sum);
    return 0;
}

int main(int argc, char **argv)
{
    modus_main(program, argc, argv);
}
C
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
flags="-std=c17 -Wall -Wextra -Werror -Wpedantic"
# shellcheck disable=SC2086,SC2046
$cc $flags -o "$folder/shared" "$folder/program.c" $(pkg-config --cflags --libs modus-concurrency)
# shellcheck disable=SC2086,SC2046
$cc $flags -o "$folder/static" "$folder/program.c" $(pkg-config --cflags modus-concurrency) \
    -L"$prefix/lib" -l:libmodus-concurrency.a $(pkg-config --static --libs-only-other --libs-only-l modus-concurrency |
    sed 's/-lmodus-concurrency//')
said=$(LD_LIBRARY_PATH="$prefix/lib" "$folder/shared")
[ "$said" = 10 ] || { echo "outside: the program with the shared library says '$said', not 10" >&2; exit 1; }
said=$("$folder/static")
[ "$said" = 10 ] || { echo "outside: the program with the static library says '$said', not 10" >&2; exit 1; }
LD_LIBRARY_PATH="$prefix/lib" ldd "$folder/shared" | grep -q "$prefix/lib/libmodus-concurrency.so.0"
! ldd "$folder/static" | grep -q libmodus
names=$(nm -D --defined-only "$prefix/lib/libmodus-concurrency.so.0" | awk '{print $3}' | grep -v '^modus_' || true)
[ -z "$names" ] || { echo "outside: exported without a prefix: $names" >&2; exit 1; }
# The guide's first whole program, as it stands there.
awk '/^```/ { if (whole) exit; program = "" } !/^```/ { program = program $0 "\n" }
     /^int main\(void\)$/ { whole = 1 } END { printf "%s", program }' concurrency/README.md > "$folder/guide.c"
# shellcheck disable=SC2086,SC2046
$cc $flags -o "$folder/guide" "$folder/guide.c" $(pkg-config --cflags --libs modus-concurrency)
said=$(LD_LIBRARY_PATH="$prefix/lib" "$folder/guide" | tr '\n' ' ')
[ "$said" = '0 1 2 3 4 5 6 7 8 9 ' ] || { echo "outside: the guide's program says '$said'" >&2; exit 1; }
# All headers together, too: no two may use one name.
(cd "$prefix/include/modus" && for h in concurrency/*.h; do echo "#include <$h>"; done) > "$folder/all.c"
# shellcheck disable=SC2086,SC2046
$cc -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only $(pkg-config --cflags modus-concurrency) "$folder/all.c"
[ -f "$prefix/share/modus/gdb.py" ] || { echo "outside: gdb.py is not installed" >&2; exit 1; }
$make uninstall-toolbox PREFIX="$prefix"
left=$(find "$prefix" -type f -o -type l)
[ -z "$left" ] || { echo "outside: left behind: $left" >&2; exit 1; }
echo "outside: a program of its own builds and runs with the installed toolbox"
