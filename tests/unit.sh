#!/bin/sh
# unit.sh WORD PROGRAM...: run the unit programs whose name holds WORD, quietly unless one fails, and
# count their tests. All of them run, whatever becomes of one. A program that dies, that hangs or that
# tells of no test is one failure beside the tests it told of. The sum also goes to the file
# MODUS_TEST_COUNTS and what a failed program said to MODUS_TEST_TROUBLE, for suite.sh. UNIT_SECONDS
# (600) is how long a program may take, UNIT_AT_ONCE (2 a CPU) how many run at a time: most wait.
#
# unit.sh --one FOLDER PROGRAM: the same for one of them, which leaves there what it has to tell.
set -u
limit=${UNIT_SECONDS:-600}

# PASSED FAILED, from what cmocka printed. The summary of a group says both; where a program died
# before it, the tests it told of one by one are counted.
counts() {
    awk '/^\[==========\] Running/            { running = 1 }
         running && /^\[       OK \]/         { ok++ }
         running && /^\[  FAILED  \]/         { bad++ }
         /^\[==========\] .* run\.$/          { running = ok = bad = 0 }
         !running && /^\[  PASSED  \] [0-9]/  { passed += $4 }
         !running && /^\[  FAILED  \] [0-9]+ test/ { failed += $4 }
         END { print passed + ok, failed + bad, running + 0 }' "$out"
}

ending() { # STATUS: how a program ended, in words
    if [ "$1" = 124 ]; then
        echo "has not ended within $limit s"
    elif [ "$1" -gt 128 ] && name=$(kill -l "$1" 2>/dev/null); then
        echo "died of SIG$name"
    else
        echo "ended with status $1"
    fi
}

one() { # FOLDER PROGRAM
    out=$1/${2##*/}.out program=$2
    status=0
    # In braces, so that the shell's own word about a signal goes nowhere: ending() says it.
    { CMOCKA_MESSAGE_OUTPUT=stdout timeout --foreground -k 5 "$limit" "$program" > "$out" 2>&1; } 2>/dev/null || status=$?
    read -r good bad unfinished <<EOF
$(counts)
EOF
    trouble=
    if [ "$unfinished" = 1 ] || { [ "$status" != 0 ] && [ "$bad" = 0 ]; }; then
        trouble=$(ending "$status") bad=$((bad + 1))
    elif [ "$status" = 0 ] && [ "$((good + bad))" = 0 ]; then
        trouble="tells of no test" bad=1
    elif [ "$bad" != 0 ]; then
        trouble="$bad failed"
    elif grep -q -E '(WARNING|ERROR): [A-Za-z]+Sanitizer|: runtime error: ' "$out"; then
        trouble="a sanitizer reports" bad=1 # in a child, perhaps, whose exit code says nothing of it
    fi
    printf '  unit  %-44s %s tests%s\n' "${program##*/}" "$good" "${trouble:+, $trouble}"
    echo "$good $bad" > "$1/${program##*/}.counts"
    if [ -n "$trouble" ]; then
        { echo "unit: $program: $trouble:"
          cat "$out"; } > "$1/${program##*/}.trouble"
    fi
}

if [ "$1" = --one ]; then
    one "$2" "$3"
    exit 0
fi

word=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
for program in "$@"; do
    case $program in *"$word"*) printf '%s\0' "$program" ;; esac
done | xargs -0 -r -n 1 -P "${UNIT_AT_ONCE:-$((2 * $(nproc)))}" sh "$0" --one "$folder"
passed=0 failed=0
for program in "$@"; do
    case $program in *"$word"*) ;; *) continue ;; esac
    name=$folder/${program##*/}
    if ! read -r good bad < "$name.counts"; then # nobody ran it
        good=0 bad=1
    fi
    [ ! -f "$name.trouble" ] || tee -a "${MODUS_TEST_TROUBLE:-/dev/null}" < "$name.trouble"
    passed=$((passed + good)) failed=$((failed + bad))
done
[ -z "${MODUS_TEST_COUNTS:-}" ] || echo "$passed $failed" > "$MODUS_TEST_COUNTS"
echo "unit: $passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
