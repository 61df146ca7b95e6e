#!/bin/sh
# stats.sh ROOM...: how long files and functions are, a room a line, and the ten longest functions.
# Looked at in review; it never fails a build.
command -v ctags >/dev/null || {
    echo "stats: needs universal-ctags; as root, run: apt-get install universal-ctags"
    exit 0
}
lengths() {
    find "$@" -name '*.c' | xargs ctags -f - --fields=+ne --kinds-C=f 2>/dev/null |
    awk -F'\t' '{ n = e = 0
        for (i = 4; i <= NF; i++) { if ($i ~ /^line:/) n = substr($i, 6); if ($i ~ /^end:/) e = substr($i, 5) }
        print e - n + 1, $1, $2 }' | sort -n
}
printf '%-14s %6s %10s %8s %8s %8s\n' room files functions median p90 longest
for room in "$@"; do
    files=$(find "$room" -name '*.c' | wc -l)
    lengths "$room" | awk -v room="$room" -v files="$files" '{ v[NR] = $1 }
        END { if (NR) printf "%-14s %6d %10d %8d %8d %8d\n", room, files, NR, v[int((NR + 1) / 2)], v[int(NR * 0.9) ? int(NR * 0.9) : 1], v[NR] }'
done
echo "longest:"
lengths "$@" | tail -10 | sort -rn | awk '{ printf "  %4d  %s  %s\n", $1, $2, $3 }'
