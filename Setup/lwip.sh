#!/bin/bash
# Fetches the sources of lwIP, as the distribution has them, into Sources/CLwIP/lwip. They are not part of this
# repository. Does nothing where they are already there.
set -euo pipefail
cd "$(dirname "$0")/.."
target=Sources/CLwIP/lwip
version=2.1.3+dfsg1-2
original=lwip_2.1.3+dfsg1.orig.tar.xz
patches=lwip_${version}.debian.tar.xz
stamp=$target/.version

[ "$(cat $stamp 2>/dev/null || true)" = "$version" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A configuration of our own: the machine's own stays as it is. The mirrors are the machine's.
mkdir -p "$work"/lists/partial "$work"/cache/archives/partial
sources=$work/sources.list
{
  grep -hsE '^deb +[^[]*http' /etc/apt/sources.list /etc/apt/sources.list.d/*.list | sed 's/^deb /deb-src /' || true
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -e "$file" ] || continue
    awk '
      function flush(n, i, j, u, s) {
        if (uris != "") { n = split(uris, u, " "); m = split(suites, s, " ")
          for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) print "deb-src " (key != "" ? "[signed-by=" key "] " : "") u[i] " " s[j] " " parts }
        uris = ""; suites = ""; parts = ""; key = "" }
      /^URIs:/ { uris = substr($0, 7) } /^Suites:/ { suites = substr($0, 9) }
      /^Components:/ { parts = substr($0, 13) } /^Signed-By: *\// { key = $2 }
      /^$/ { flush() } END { flush() }' "$file"
  done
} | grep debian | sort -u > "$sources"
apt=(-o Dir::Etc::SourceList="$sources" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/lists"
  -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
if ! apt-get "${apt[@]}" -qq update > "$work/log" 2>&1 ||
  ! (cd "$work" && apt-get "${apt[@]}" -qq source --download-only "lwip=$version" >> "$work/log" 2>&1); then
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
