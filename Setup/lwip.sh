#!/bin/bash
# Fetches the sources of lwIP, as the distribution has them, into Sources/CLwIP/lwip. They are not part of this
# repository. Does nothing where they are already there.
set -euo pipefail
cd "$(dirname "$0")/.."
. Setup/source.sh
target=Sources/CLwIP/lwip
version=2.1.3+dfsg1-2
original=lwip_2.1.3+dfsg1.orig.tar.xz
patches=lwip_${version}.debian.tar.xz
stamp=$target/.version

[ "$(cat $stamp 2>/dev/null || true)" = "$version" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! fetch_source "$work" "lwip=$version"; then
  tail -3 "$work/log" >&2
  echo "setup: the sources of lwIP $version cannot be had from this machine's package mirrors; everything else is built, \`--stack lwip\` is left out" >&2
  exit 0
fi
(cd "$work" && sha256sum --quiet -c -) <<SUMS
0a8276d09fc4e97bbba2f953d74af2388fc2195ea156be9d7589e297a68fde24  lwip_2.1.3+dfsg1.orig.tar.xz
c5a48413d362cc757032cdd58f528f75eb64ee781ca46ca24f010b49b0e62a90  lwip_2.1.3+dfsg1-2.debian.tar.xz
SUMS
mkdir "$work/lwip"
tar -xJf "$work/$original" -C "$work/lwip" --strip-components=1
tar -xJf "$work/$patches" -C "$work/lwip"
(cd "$work/lwip" && while read -r patch; do
  case $patch in ''|'#'*) continue ;; esac
  patch -s -p1 < "debian/patches/$patch"
done < debian/patches/series)
headers=Sources/CLwIP/include
rm -rf $target $headers/lwip $headers/netif
mv "$work/lwip" $target
# Whoever imports the module must find them as well.
mv $target/src/include/lwip $target/src/include/netif $headers
# Only what is compiled: the package manager looks at every file.
(cd $target && find . -type f ! -path './src/core/*' ! -path ./src/netif/ethernet.c ! -name COPYING -delete &&
  find . -type d -empty -delete)
echo "$version" > $stamp
echo "setup: lwIP $version fetched into $target"
