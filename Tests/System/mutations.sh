# Seeded faults: each copy of a driver with one fault in it must be caught by the conformance suite, and the unchanged
# copies must pass. With `all` every fault is tried (some minutes), each copy makes all checks, and what each check has
# caught is listed; otherwise some of them are, and a copy ends with the first check that fails.
# Only builds and reads files.
set -u
cd "$(dirname "$0")/../.."
package=$PWD/.build/mutants
mkdir -p "$package/results"
rm -f "$package"/results/*
perl Tests/Mutations/generate.pl "$PWD" "$package" "$@" > "$package/list" || exit 1
# One compiler for each module, and nothing for a debugger: most of the time is the building.
swift build --package-path "$package" --disable-index-store -Xswiftc -gnone --product mutants > "$package/build.log" 2>&1 || {
  grep -E "error:" "$package/build.log" || tail -20 "$package/build.log"
  exit 1
}
binary=$(swift build --package-path "$package" --show-bin-path)/mutants

# A mutant may hang, or take memory without end: 20 s of processor, a minute of a machine that does other things too,
# and 2 GiB, of which a good copy needs a fraction. A copy without a fault goes through to the end, which takes longer, and
# must get there on a slow machine too.
try() {
  local seconds=20
  case $3 in *_unchanged) seconds=120 ;; esac
  ulimit -v 2097152
  ulimit -c 0
  ulimit -t "$seconds"
  timeout -k 1 $((3 * seconds)) "$1" "$3" $4 > "$2/results/$3" 2> /dev/null
  echo "status	$?" >> "$2/results/$3"
}
export -f try
cut -f1 "$package/list" | xargs -P "$(nproc)" -I {} bash -c 'try "$@"' try "$binary" "$package" {} "${1:-}" 2> /dev/null
exec perl Tests/Mutations/report.pl "$package" "${1:-}"
