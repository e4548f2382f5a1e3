#!/bin/sh
# screenshots.sh: takes the README's pictures of the demo, light and dark, in docs/img/.
# Needs chromium. Pictures of both pages on a desktop and a phone are left in artefacts/.
set -eu
cd "$(dirname "$0")/.."
mkdir -p docs/img
exec go test ./tests/e2e -count=1 -run TestPicturesOfThePages -pictures ../../docs/img
