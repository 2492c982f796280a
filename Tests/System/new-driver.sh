#!/bin/bash
# `martlet new-driver` as its user meets it: in a checkout of its own, and as a package beside it. Both build and pass as
# they are, and the checkout changes in one line.
# Only builds and reads files.
set -euo pipefail
martlet=$PWD/.build/release/martlet
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# `git ls-files` knows what a fresh clone has; lwIP is fetched, not ours.
mkdir "$work/martlet"
git ls-files -z | xargs -0 cp --parents -t "$work/martlet" 2> /dev/null || true
cd "$work/martlet"
git init -q && git add -A && git -c user.name=test -c user.email=test@localhost commit -qm start

fails() {
  local text=$1 code=0
  shift
  "$@" > "$work/out" 2>&1 || code=$?
  if [ $code = 0 ] || ! grep -qF -- "$text" "$work/out"; then
    echo "code $code, wanted a failure that says: $text"
    cat "$work/out"
    exit 1
  fi
}
fails "cannot be a driver's name" "$martlet" new-driver 8168 --vendor 10ec --device 8168
fails "is no id" "$martlet" new-driver Realtek --vendor 0x10ecc --device 8168
fails "is no checkout of Martlet" "$martlet" new-driver Realtek --vendor 10ec --device 8168 --martlet /
test -z "$(git status --porcelain)"

"$martlet" new-driver Sample --vendor 0x1234 --device 0x5678
test "$(git status --porcelain)" = " M Package.swift
?? Drivers/Sample/"
test "$(git diff --numstat)" = "1	0	Package.swift"
fails "is there already" "$martlet" new-driver Sample --vendor 0x1234 --device 0x5678
swift format lint --strict -r Drivers/Sample Package.swift
# Of the package only the new tests and what they need are built.
export MARTLET_TESTS=SampleDriverTests
swift build --product martletPackageTests > "$work/log" 2>&1 || { tail -40 "$work/log"; exit 1; }
swift test --skip-build --filter SampleConformanceTests > "$work/log" 2>&1 || { tail -40 "$work/log"; exit 1; }
grep -E 'Test conforms.* passed' "$work/log"
# The host has it.
swift build --product martlet-host > "$work/log" 2>&1 || { tail -40 "$work/log"; exit 1; }

unset MARTLET_TESTS
cd "$work"
"$martlet" new-driver Other --vendor 0x1234 --device 0x9abc --package "$work/other" --martlet "$work/martlet"
cd other
swift test --scratch-path "$work/other/.build" > "$work/log" 2>&1 || { tail -40 "$work/log"; exit 1; }
grep -E 'Test conforms.* passed' "$work/log"
test -x .build/debug/other-host
