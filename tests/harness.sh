#!/bin/sh
# harness.sh: do unit.sh and suite.sh see what goes wrong? Small scripts stand for unit programs and
# for make. Says one line when all is well.
set -u
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
unset MODUS_TEST_COUNTS MODUS_TEST_TROUBLE
checks=0 wrong=0

program() { # NAME COMMANDS
    printf '#!/bin/sh\nrunning() { echo "[==========] Running $1 test(s)."; }\n%s\n' "$2" > "$folder/$1"
    chmod +x "$folder/$1"
}

expect() { # STATUS LAST-LINE COMMAND...
    status=$1 last=$2
    shift 2
    got=0
    "$@" > "$folder/out" 2>&1 || got=$?
    checks=$((checks + 1))
    [ "$got" = "$status" ] && [ "$(tail -n 1 "$folder/out")" = "$last" ] && return
    echo "harness: $* ended with $got, not $status, or not with \"$last\":"
    cat "$folder/out"
    wrong=$((wrong + 1))
}

says() { # LINE, anywhere in the last output
    checks=$((checks + 1))
    grep -qF "$1" "$folder/out" && return
    echo "harness: does not say \"$1\":"
    cat "$folder/out"
    wrong=$((wrong + 1))
}

program good 'running 3; for i in a b c; do echo "[       OK ] $i"; done
echo "[==========] 3 test(s) run."; echo "[  PASSED  ] 3 test(s)."'
program bad 'running 2; echo "[       OK ] a"; echo "[  FAILED  ] b"; echo "[==========] 2 test(s) run."
echo "[  PASSED  ] 1 test(s)."; echo "[  FAILED  ] 1 test(s), listed below:"; echo "[  FAILED  ] b"; exit 1'
program died 'running 3; echo "[       OK ] a"; echo "[  FAILED  ] b"; echo "[ RUN      ] c"; kill -ABRT $$'
program killed 'kill -KILL $$'
program leaks 'running 1; echo "[       OK ] a"; echo "[==========] 1 test(s) run."
echo "[  PASSED  ] 1 test(s)."; echo "LeakSanitizer"; exit 23'
program child 'running 1; echo "WARNING: ThreadSanitizer: data race (pid=7)"; echo "[       OK ] a"
echo "[==========] 1 test(s) run."; echo "[  PASSED  ] 1 test(s)."'
program left 'running 2; echo "[       OK ] a"; exit 0'
program silent 'exit 0'
program hangs 'exec sleep 600'

unit() { (cd "$folder" && sh "$here/unit.sh" "$@"); }
expect 0 'unit: 3 passed, 0 failed' unit '' ./good
expect 1 'unit: 4 passed, 1 failed' unit '' ./bad ./good
says './bad: 1 failed'
expect 1 'unit: 4 passed, 2 failed' unit '' ./died ./good
says './died: died of SIGABRT'
expect 1 'unit: 3 passed, 1 failed' unit '' ./killed ./good
says './killed: died of SIGKILL'
expect 1 'unit: 4 passed, 1 failed' unit '' ./leaks ./good
says './leaks: ended with status 23'
expect 1 'unit: 4 passed, 1 failed' unit '' ./child ./good
says './child: a sanitizer reports'
expect 1 'unit: 4 passed, 1 failed' unit '' ./left ./good
expect 1 'unit: 3 passed, 1 failed' unit '' ./silent ./good
says './silent: tells of no test'
expect 1 'unit: 3 passed, 1 failed' unit '' ./missing ./good
UNIT_SECONDS=2
export UNIT_SECONDS
expect 1 'unit: 3 passed, 1 failed' unit '' ./hangs ./good
says './hangs: has not ended within 2 s'
unset UNIT_SECONDS
expect 0 'unit: 3 passed, 0 failed' unit good ./bad ./good
expect 1 'unit: 0 passed, 0 failed' unit nobody ./good

program make 'count() { echo "$1 $2" > "$MODUS_TEST_COUNTS"; }
case $1 in
fine) ;;
fails) exit 2 ;;
counts) count 10 0 ;;
finds) count 10 3; exit 2 ;;
crashes) count 10 0; exit 2 ;;
dies) cd "$(dirname "$0")" && sh "$UNIT" died ./died ;;
nothing) count 0 0; exit 2 ;;
esac'
suite() { sh "$here/suite.sh" "$folder/make" "$@"; }
expect 0 'tests: 11 passed, 0 failed' suite fine counts
expect 1 'tests: 21 passed, 4 failed: fails finds' suite fails finds counts fine
expect 1 'tests: 10 passed, 1 failed: crashes' suite crashes
expect 0 'tests: 11 passed, 0 failed' suite fine nothing counts
expect 1 'tests: 1 passed, 1 failed' suite fine nothing nothing
# What a failed program said is said again at the end, without the tests that were well.
export UNIT="$here/unit.sh"
expect 1 'tests: 11 passed, 2 failed: dies' suite dies counts
cp "$folder/out" "$folder/said"
expect 0 '2' grep -c -F '[  FAILED  ] b' "$folder/said"
expect 0 '2' grep -c -F '[ RUN      ] c' "$folder/said"
expect 0 '1' grep -c -F '[       OK ] a' "$folder/said"

[ "$wrong" = 0 ] && echo "harness: $checks checks of unit.sh and suite.sh"
exit "$((wrong != 0))"
