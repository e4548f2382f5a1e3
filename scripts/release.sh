#!/bin/sh
# release.sh VERSION: builds dist/herald_VERSION_OS_ARCH.tar.gz for each platform,
# with the gateway, README.md, LICENSE and THIRD_PARTY_NOTICES, and dist/SHA256SUMS.
# Two runs on one commit and Go release give equal archives. Needs GNU tar.
set -eu
cd "$(dirname "$0")/.."
version=$1
time=$(git log -1 --format=%ct)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

rm -rf dist
mkdir dist
for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do
	os=${platform%/*} arch=${platform#*/}
	name=herald_${version}_${os}_${arch}
	mkdir "$work/$name"
	echo "release: $name"
	GOOS=$os GOARCH=$arch CGO_ENABLED=0 go build -trimpath -buildvcs=false \
		-ldflags "-s -X main.version=$version" -o "$work/$name/gateway" ./cmd/gateway
	cp README.md LICENSE THIRD_PARTY_NOTICES "$work/$name"
	tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$time" -cf - "$name" |
		gzip -9n >"dist/$name.tar.gz"
done
cd dist
sha256sum ./*.tar.gz | sed 's| \./| |' >SHA256SUMS
cat SHA256SUMS
