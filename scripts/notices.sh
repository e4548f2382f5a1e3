#!/bin/sh
# notices.sh: prints the licences of everything that the released gateway links: the
# Go standard library, modules on any released platform, and vendored scripts. Reads
# the module cache and uses no network once `go build` has worked.
set -eu
export LC_ALL=C
cd "$(dirname "$0")/.."

notice() { # NAME DIRECTORY
	printf '\n%s\n%s\n\n' "$(printf '%080d' 0 | tr 0 =)" "$1"
	found=
	for file in "$2"/LICENSE* "$2"/LICENCE* "$2"/COPYING* "$2"/NOTICE*; do
		[ -f "$file" ] || continue
		found=1
		tr -d '\r' <"$file"
		echo
	done
	[ -n "$found" ] || { echo "notices: $1 has no licence in $2" >&2; exit 1; }
}

echo "The gateway contains the following software, under the licences below."
notice "Go standard library (https://go.dev)" "$(go env GOROOT)"
for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do
	GOOS=${platform%/*} GOARCH=${platform#*/} CGO_ENABLED=0 go list -deps \
		-f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/gateway
done | sort -u | while read -r path version dir; do
	[ -z "$path" ] || notice "$path $version" "$dir"
done
for dir in web/vendor/*/; do
	notice "${dir%/}" "${dir%/}"
done
