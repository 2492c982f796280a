#!/bin/bash
# The documentation of the modules that a driver author uses, as a site in .build/docs. Any warning is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
modules="Memory PCI Rings Driver"
work=.build/documentation
rm -rf $work .build/docs
mkdir -p $work
swift build --target Driver
built=$(swift build --show-bin-path)
docc=$(dirname "$(readlink -f "$(command -v swift)")")/docc
dependencies=()
archives=()
for module in $modules; do
  mkdir -p $work/$module
  swift symbolgraph-extract -module-name $module -I "$built/Modules" -I Sources/CLinux/include \
    -target "$(uname -m)-unknown-linux-gnu" -minimum-access-level public -output-dir $work/$module
  "$docc" convert Sources/$module/$module.docc --additional-symbol-graph-dir $work/$module \
    --fallback-display-name $module --fallback-bundle-identifier martlet.$module --fallback-default-module-kind Module \
    --enable-experimental-external-link-support ${dependencies[@]+"${dependencies[@]}"} \
    --output-path $work/$module.doccarchive
  dependencies+=(--dependency $work/$module.doccarchive)
  archives+=($work/$module.doccarchive)
done
"$docc" merge "${archives[@]}" --synthesized-landing-page-name Martlet --output-path .build/docs
