#!/bin/sh
# suite.sh MAKE PART...: make every part, whatever became of those before it, and sum up in the last
# line. A part that counts its tests writes "PASSED FAILED" to the file MODUS_TEST_COUNTS; one that
# does not is one test. Ends with 1 when anything failed, or when those that count found nothing.
set -u
make=$1
shift
MODUS_TEST_COUNTS=$(mktemp)
export MODUS_TEST_COUNTS
trap 'rm -f "$MODUS_TEST_COUNTS"' EXIT
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
echo "tests: $passed passed, $failed failed${trouble:+:$trouble}"
[ "$failed" = 0 ]
