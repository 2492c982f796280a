# How the system tests begin: `. Tests/System/opening.bash`, from the project's folder. A script that leaves something else
# than processes and files behind has a function `clean_up`.
martlet=$PWD/.build/release/martlet
work=$(mktemp -d)
socket=$work/socket
# What is ended at the end, stopped or not.
pids=()
# Times that something is looked at, 50 ms apart.
tries=200
finish() {
  for pid in "${pids[@]}"; do
    kill -CONT "$pid" 2> /dev/null
    kill -9 "$pid" 2> /dev/null
    wait "$pid" 2> /dev/null
  done
  if declare -F clean_up > /dev/null; then clean_up; fi
  rm -rf "$work"
}
trap finish EXIT
fail() {
  echo "FAILED: $1"
  tail -n 40 "$work"/*.log
  exit 1
}
# until_true COMMAND...: waits until it succeeds.
until_true() {
  for _ in $(seq $tries); do
    "$@" > /dev/null 2>&1 && return 0
    sleep 0.05
  done
  return 1
}
