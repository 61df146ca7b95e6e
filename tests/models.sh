#!/bin/sh
# models.sh CC FOLDER KINDS MODEL...: check Promela models with spin, in FOLDER. A model's comment has
# a line "run: FLAGS" for each way in which all must hold, and "broken: FLAGS" for each in which one
# step is wrong and spin must find out: by an assertion, or by somebody that waits for ever. KINDS is
# which of the two are wanted.
set -u
cc=$1 folder=$2 kinds=$3
shift 3
here=$(pwd)
held=0 caught=0 bad=0

# Says how many errors there are, 0 or 1; nothing when it could not look at all states.
search() { # MODEL FLAGS
    rm -rf "$folder/run" && mkdir -p "$folder/run" && cd "$folder/run" || exit 1
    # shellcheck disable=SC2086
    spin $2 -a "$here/$1" > spin.out 2>&1 && $cc -O2 -w -DSAFETY -DMEMLIM=2048 -o pan pan.c 2> cc.out &&
        ./pan -m200000 > pan.out 2>&1
    cd "$here" || exit 1
    [ -f "$folder/run/pan.out" ] || return
    grep -q 'errors: 0' "$folder/run/pan.out" &&
        grep -qE 'Search not completed|max search depth too small' "$folder/run/pan.out" && return
    sed -n 's/.*errors: \([0-9]*\).*/\1/p' "$folder/run/pan.out"
}

for model in "$@"; do
    name=$(basename "$model" .pml)
    while IFS='|' read -r kind flags; do
        case " $kinds " in *" $kind "*) ;; *) continue ;; esac
        errors=$(search "$model" "$flags")
        states=$(sed -n 's/ *\([0-9.e+]*\) states, stored.*/\1/p' "$folder/run/pan.out" 2>/dev/null)
        case $kind:$errors in
        run:0) held=$((held + 1)) && printf '  model %-14s %-32s holds, %s states\n' "$name" "$flags" "$states" ;;
        broken:[1-9]*) caught=$((caught + 1)) ;;
        *)
            echo "models: $name $flags: $kind, and spin says:"
            cat "$folder/run/spin.out" "$folder/run/cc.out" "$folder/run/pan.out" 2>/dev/null
            bad=$((bad + 1))
            ;;
        esac
    done <<END
$(sed -n 's/^ \* \(run\|broken\): *\(.*\)$/\1|\2/p' "$model")
END
done
rm -rf "$folder/run"
echo "models: $held hold, $caught broken ones are found out, $bad wrong"
[ "$bad" = 0 ] && [ "$held" -gt 0 ]
