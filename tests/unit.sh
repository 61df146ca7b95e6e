#!/bin/sh
# unit.sh WORD PROGRAM...: run the unit programs whose name holds WORD, quietly unless one fails, and
# count their tests.
word=$1
shift
passed=0 failed=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for program in "$@"; do
    case $program in *"$word"*) ;; *) continue ;; esac
    if ! CMOCKA_MESSAGE_OUTPUT=stdout "$program" > "$out" 2>&1; then
        echo "unit: $program failed:"
        cat "$out"
        failed=$((failed + 1))
    fi
    n=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$out" | awk '{ s += $1 } END { print s + 0 }')
    printf '  unit  %-44s %s tests\n' "${program##*/}" "$n"
    passed=$((passed + n))
done
echo "unit: $passed passed, $failed programs failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
