#!/bin/sh
# deps.sh [compare]: installs what the tests need and this machine lacks: Debian
# packages (as root) and the npm packages of tests/e2e/node, in one or two minutes.
# With `compare` also what `make bench-compare` needs: nchan and the npm packages of
# loadtest/peers. Does nothing if nothing is missing. Without root or apt-get it
# prints what it could not install and succeeds, unless CI is set.
set -eu
cd "$(dirname "$0")/.."
compare=${1:-}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# lacking THING...: the tests that need it are skipped, or fail in CI.
lacking() {
	echo "deps: not installed: $*. Tests that need it are skipped; with CI=true they fail."
}

# quietly COMMAND...: prints its output only if it fails.
quietly() {
	"$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
}

missing=
for program in redis-server nginx chromium; do    # each is the name of its package, too
	command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -z "$compare" ] || [ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] || missing="$missing libnginx-mod-nchan"

if [ -n "$missing" ]; then
	if ! command -v apt-get >/dev/null 2>&1; then
		lacking "$missing (no apt-get)"
	elif [ "$(id -u)" -ne 0 ]; then
		lacking "$missing (not root)"
	else
		echo "deps: installing$missing with apt-get; about a minute"
		export DEBIAN_FRONTEND=noninteractive
		# A mirror that is just being updated refuses once.
		# shellcheck disable=SC2086 # a list of words
		if ! { quietly apt-get update || { sleep 5; quietly apt-get update; }; } || ! quietly apt-get install -y $missing; then
			[ -z "${CI:-}" ] || exit 1
			lacking "$missing (apt-get failed)"
		fi
	fi
fi

# npm writes node_modules/.package-lock.json last, so an interrupted install counts as missing.
for dir in tests/e2e/node ${compare:+loadtest/peers}; do
	installed=$dir/node_modules/.package-lock.json
	[ ! -f "$installed" ] || [ -n "$(find "$dir/package-lock.json" -newer "$installed")" ] || continue
	if ! command -v npm >/dev/null 2>&1; then
		lacking "the packages of $dir (no npm)"
	else
		echo "deps: installing the npm packages of $dir"
		if ! npm --prefix "$dir" ci --no-audit --no-fund --loglevel=error; then
			[ -z "${CI:-}" ] || exit 1
			lacking "the packages of $dir (npm failed)"
		fi
	fi
done
