#!/bin/sh
# headers.sh CC FLAGS HEADER...: each header compiles alone, and no room includes a higher one.
set -eu
cc=$1 flags=$2
shift 2
for header in "$@"; do
    # shellcheck disable=SC2086
    printf '#include "%s"\n' "$header" | $cc $flags -fsyntax-only -x c - || {
        echo "headers: $header does not compile alone" >&2
        exit 1
    }
done
bad=0
forbid() { # ROOM HIGHER-ROOMS
    if grep -nE "^#include \"($2)/" -r "$1" --include='*.[ch]'; then
        echo "headers: $1 includes a higher room" >&2
        bad=1
    fi
}
forbid concurrency 'net|handlers|server'
forbid net 'handlers|server'
forbid handlers 'server'
[ "$bad" = 0 ] && echo "headers: $# compile alone, includes point one way"
exit "$bad"
