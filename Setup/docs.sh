#!/bin/bash
# The site of the guides and of the public API of the modules that a driver author uses, in .build/docs. A warning of DocC
# is an error, and so is what DocumentationCheck.swift finds. What they all depend on comes first: links go up.
set -euo pipefail
cd "$(dirname "$0")/.."
modules="Memory PCI Rings Driver Stacks Stage Handles"
work=.build/documentation
docc=$(command -v docc || true)
[ -n "$docc" ] || docc=$(dirname "$(readlink -f "$(command -v swift)")")/docc
if [ ! -x "$docc" ]; then
  echo "docs: this Swift toolchain has no docc beside swift; the ones from swift.org have" >&2
  exit 1
fi
rm -rf $work .build/docs
mkdir -p $work/graphs
swift build --target Driver
swift build --target Handles
swift build --target Stacks
swift build --target Stage
built=$(swift build --show-bin-path)
for module in $modules; do
  mkdir $work/graphs/$module
  swift symbolgraph-extract -module-name $module -I "$built/Modules" -I Sources/CLinux/include -I Sources/CSeccomp \
    -target "$(swiftc -print-target-info | sed -n 's/.*"triple": "\(.*\)".*/\1/p' | head -1)" \
    -minimum-access-level public -output-dir $work/graphs/$module
done
swift Setup/DocumentationCheck.swift $work/graphs

archives=()
dependencies=()
for module in $modules; do
  archive=$work/$module.doccarchive
  "$docc" convert Sources/$module/$module.docc --additional-symbol-graph-dir $work/graphs/$module \
    --fallback-display-name $module --fallback-bundle-identifier $module --fallback-default-module-kind Module \
    --enable-experimental-external-link-support ${dependencies[@]+"${dependencies[@]}"} \
    --warnings-as-errors --output-path $archive 2>&1 | sed '/^$/d'
  archives=($archive ${archives[@]+"${archives[@]}"})
  dependencies+=(--dependency $archive)
done
"$docc" merge "${archives[@]}" --synthesized-landing-page-name Martlet \
  --synthesized-landing-page-topics-style list --output-path .build/docs > /dev/null
echo "docs: $PWD/.build/docs/index.html"
echo "docs: to read: python3 -m http.server --bind 127.0.0.1 --directory .build/docs 8000, then http://localhost:8000/documentation/driver"
