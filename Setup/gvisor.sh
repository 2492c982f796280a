#!/bin/bash
# Builds gVisor's TCP/IP, as the distribution has it, with Sources/CGVisor/Go into FOLDER/libmartlet-gvisor.so. Installs
# the distribution's Go and gVisor where they are missing: some 500 MB. Does nothing where all is newest.
# Usage: Setup/gvisor.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
library=$(readlink -f "$1")/libmartlet-gvisor.so
[ -e "$library" ] && [ -z "$(find Sources/CGVisor Setup/gvisor.sh -newer "$library" -type f)" ] && exit 0

Setup/packages.sh gvisor
export GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="${GOCACHE:-$PWD/.build/go}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -buildmode=c-shared -trimpath -ldflags '-s -w' -o "$work/library.so" ./Sources/CGVisor/Go
chmod 755 "$work/library.so"
mv "$work/library.so" "$library"
