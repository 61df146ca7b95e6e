#!/bin/sh
# Install the Debian packages named as arguments that are missing: with apt-get when root, else print
# the one line that does it. Packages that bring daemons must not start them: a policy of ours says
# so while apt-get runs, and is removed afterwards.
set -eu
missing=
for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
line="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" != 0 ]; then
    # The lists may be missing or old here too.
    if command -v sudo >/dev/null; then
        echo "modus: packages are missing; run: sudo apt-get update && sudo $line" >&2
    else
        echo "modus: packages are missing; as root, run: apt-get update && $line" >&2
    fi
    exit 1
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
fi
echo "modus: installing$missing"
DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
# The lists may be missing or old: refresh them when the first try does not find what it wants.
$line -qq >/dev/null 2>&1 || { apt-get update -qq && $line -qq >/dev/null; }
