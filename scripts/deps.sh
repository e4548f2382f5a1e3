#!/bin/sh
# deps.sh [compare]: installs what the tests need and this machine lacks, Debian
# packages (as root) and the npm packages of tests/e2e/node. With `compare` also
# what only `make bench-compare` needs: nchan, and the npm packages of
# loadtest/peers. Does nothing where nothing is missing.
set -eu
cd "$(dirname "$0")/.."
compare=${1:-}

missing=
for program in redis-server nginx chromium; do    # each is its package's name, too
	command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -z "$compare" ] || [ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] || missing="$missing libnginx-mod-nchan"

if [ -n "$missing" ]; then
	why=
	[ "$(id -u)" -eq 0 ] || why="not root"
	command -v apt-get >/dev/null 2>&1 || why="no apt-get"
	if [ -n "$why" ]; then
		echo "deps: $why, so not installed:$missing (tests that need them fail; with 'make test REQUIRE_TOOLS=' they are skipped)"
	else
		echo "deps: installing$missing"
		export DEBIAN_FRONTEND=noninteractive
		log=$(mktemp)
		# shellcheck disable=SC2086 # a list of words
		if ! { apt-get update && apt-get install -y $missing; } >"$log" 2>&1; then
			cat "$log" >&2
			rm -f "$log"
			exit 1
		fi
		rm -f "$log"
	fi
fi

# npm writes node_modules/.package-lock.json last, so an interrupted one counts as missing.
for dir in tests/e2e/node ${compare:+loadtest/peers}; do
	installed=$dir/node_modules/.package-lock.json
	[ ! -f "$installed" ] || [ -n "$(find "$dir/package-lock.json" -newer "$installed")" ] || continue
	if command -v npm >/dev/null 2>&1; then
		echo "deps: installing the packages of $dir"
		npm --prefix "$dir" ci --no-audit --no-fund --loglevel=error
	else
		echo "deps: no npm, so not installed: the packages of $dir"
	fi
done
