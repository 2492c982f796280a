#!/bin/bash
# Packets of real captures, some of them malformed on purpose, through 1, 100 and 10 000 rules that change 100 times a
# second: each hits the rule that the plain classifier of the tests says. The captures are those of the distribution's
# source packages of tcpdump, and with `whole` of ndpi and wireshark too.
# Usage: Tests/System/steering-captures.sh [whole]   10 000 000 packets for each number of rules; without it 200 000
set -euo pipefail
cd "$(dirname "$0")/../.."
. Setup/source.sh
packages=tcpdump packets=200000 frames=4000
if [ "${1:-}" = whole ]; then packages="tcpdump ndpi wireshark" packets=10000000 frames=30000; fi

captures=.build/captures
for package in $packages; do
  [ -e $captures/"$package"/.done ] && continue
  rm -rf "$captures/$package"
  mkdir -p "$captures/$package"
  # Nothing but the captures is kept.
  if ! fetch_source "$captures/$package/source" --tar-only "$package"; then
    echo "skipped: the sources of $package cannot be had from this machine's package mirrors"
    tail -2 "$captures/$package/source/log"
    rm -rf "${captures:?}/$package"
    exit 0
  fi
  for file in "$captures/$package"/source/*.orig.tar.*; do
    case $file in *.asc) continue ;; esac
    tar -xf "$file" -C "$captures/$package" --wildcards '*.pcap' '*.pcapng' '*.cap' 2> /dev/null || true
  done
  rm -rf "$captures/$package/source"
  touch "$captures/$package/.done"
done
for package in $packages; do find "$captures/$package" -type f ! -name .done -print0; done | sort -z > $captures/list
[ -s $captures/list ] || { echo "no captures in $packages"; exit 1; }

swift build -c release --static-swift-stdlib --product martlet-steering-captures > $captures/build.log 2>&1 || {
  cat $captures/build.log
  exit 1
}
xargs -0 .build/release/martlet-steering-captures $packets $frames < $captures/list
