#!/bin/bash
# The data path costs no more instructions a packet than Benchmarks/instructions.txt says, and a rise is named.
# Only builds and reads files.
set -euo pipefail
martlet=.build/release/martlet
"$martlet" bench instructions

# The check itself: a table by which the channel's loop was cheaper is a rise in that function.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
awk '/ channel$/ { print "10.0 channel"; next } / Loops.ChannelLoop.run/ { next } { print }' \
  Benchmarks/instructions.txt > "$work/table"
if "$martlet" bench instructions --only channel --table "$work/table" > "$work/out" 2>&1; then exit 1; fi
grep -q '^channel: .* instructions a packet, 10.0 are kept$' "$work/out"
grep -q '^  +[0-9.]* in Loops.ChannelLoop.run' "$work/out"
