# What run.sh and tally.sh have in common: to be sourced at the root of the repository.
binaries=.build-fuzz/release
parts="devices messages system"
# What is freed is kept from reuse for 4 MiB, and remembered with the function that made it: much of the time of a short
# input is its memory.
export ASAN_OPTIONS=malloc_context_size=1:quarantine_size_mb=4:thread_local_quarantine_size_kb=64:detect_stack_use_after_return=0
# The run time's own handler waits for ever for a program under AddressSanitizer.
export SWIFT_BACKTRACE=enable=no

# Builds the programs; what the compiler says where it fails. Rings are read by C that is inlined into Swift: without
# `-Xcc` its accesses are not checked.
build() {
  local part out
  for part in $parts; do
    # Of two -sanitize flags the compiler takes the last one alone: it has to name both. The package manager has to know
    # of libFuzzer, which brings a main function.
    if ! out=$(MARTLET_FUZZING=1 swift build -c release --scratch-path .build-fuzz --sanitize fuzzer \
      -Xswiftc -sanitize=fuzzer,address -Xswiftc -enforce-exclusivity=unchecked -Xswiftc -enable-testing \
      -Xcc -fsanitize=address \
      --product martlet-fuzz-"$part" 2>&1); then
      grep -E 'error|warning' <<< "$out" | grep -v 'Cannot export' | head -20
      return 1
    fi
  done
}

# Every target, and the program that it is in.
list() {
  local part
  for part in $parts; do $binaries/martlet-fuzz-"$part" | sed "s/$/ $part/"; done
}

# once TARGET ARGUMENT...: libFuzzer on a target.
once() {
  local part
  part=$(list | sed -n "s/^$1 //p")
  [ -n "$part" ] || { echo "there is no target $1" >&2; return 1; }
  MARTLET_FUZZ_TARGET=$1 $binaries/martlet-fuzz-"$part" "${@:2}"
}

# fuzz TARGET SECONDS FOUND ARGUMENT...: what is found goes to the folder FOUND.
fuzz() {
  # The device targets have no use for an energy of their inputs: it is a tenth of their time.
  local energy=1
  case $1 in virtio-net-* | e1000e) energy=0 ;; esac
  once "$1" -max_total_time="$2" -max_len=1024 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=1 \
    -entropic=$energy -artifact_prefix="$3-" "$3" "Fuzzing/Corpus/$1" "${@:4}"
}

# What libFuzzer says of itself at its end, and of its coverage: for logs.
executions() { sed -n 's/^stat::number_of_executed_units: *//p' "$1"; }
coverage() { grep -aoE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$1" | tail -1; }
