#!/bin/sh
# suite.sh MAKE PART...: make every part, whatever became of those before it, and sum up in the last
# line. A part that counts its tests writes "PASSED FAILED" to the file MODUS_TEST_COUNTS; one that
# does not is one test. What a part leaves in the file MODUS_TEST_TROUBLE is said once more at the
# end, where whoever has only the end of a long log looks. Ends with 1 when anything failed, or when
# those that count found nothing.
set -u
make=$1
shift
MODUS_TEST_COUNTS=$(mktemp)
MODUS_TEST_TROUBLE=$(mktemp)
export MODUS_TEST_COUNTS MODUS_TEST_TROUBLE
trap 'rm -f "$MODUS_TEST_COUNTS" "$MODUS_TEST_TROUBLE"' EXIT
trap 'exit 130' INT TERM
passed=0 failed=0 counting='' counted=0 trouble=''
for part in "$@"; do
    : > "$MODUS_TEST_COUNTS"
    status=0
    $make "$part" || status=$?
    if read -r good bad < "$MODUS_TEST_COUNTS"; then
        counting=yes counted=$((counted + good + bad))
        # Something beside its tests went wrong. (That a part has no test of the name asked for is fine
        # when another has.)
        [ "$status" = 0 ] || [ "$bad" != 0 ] || [ "$good" = 0 ] || bad=1
    else
        good=$((status == 0)) bad=$((status != 0))
    fi
    passed=$((passed + good)) failed=$((failed + bad))
    [ "$bad" = 0 ] || trouble="$trouble $part"
done
if [ -n "$counting" ] && [ "$counted" = 0 ]; then
    echo "tests: none of that name" >&2
    failed=$((failed + 1))
fi
# A program's tests that are well are not told again.
awk '/^\[ RUN      \]/ { run = $0 "\n"; next }
     !/^\[       OK \]/ { printf "%s%s\n", run, $0 }
     { run = "" }
     END { printf "%s", run }' "$MODUS_TEST_TROUBLE" | tail -n 200
echo "tests: $passed passed, $failed failed${trouble:+:$trouble}"
[ "$failed" = 0 ]
