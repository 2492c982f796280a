#!/bin/bash
# The way of a packet in the optimised programs counts no references, allocates nothing, takes no lock and calls nothing
# that was not compiled for it. From each function named below, through all that it calls, the machine code may call
# only functions of the program itself and plain copies of memory; what else it may do is listed here, with its reason.
# Only builds and reads files.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Functions at which the search ends, and why; with an arrow, where one function calls another.
allowed=$(cat << 'END'
Channel.Doorbell.signal                     wakes a peer that sleeps: a system call, no more than one a sleep
Host.PathMailbox.tell\(                       tells the control thread that an instance has come, gone or broken a rule
PCI.RegisterWindow.(load|store)Elsewhere    registers that are not mapped: one call of a C function a burst
Host.(PacketPath|SharedPath)<.*>.timedTurn.* -> clock_gettime@   the clock, in one turn of 32 (vdso)
Host.(PathTimes.look|.*.lookAtMarks|InstanceTable.look)\(.* -> clock_gettime@   the same: what was marked there has been taken
Host.InstanceTable.noteBurstTime            the clock, once a burst, where rules have limits (vdso)
Host.StageTable..noteTime in                the clock, for packets that entered a stage in one turn of 32 (vdso)
Steering.ClassifierView.walk.* -> memset@   fields of protocols of one's own, where there are such
Capture.CaptureTapState.takeUpdate          an order of what to capture, or its end: once for each
Capture.CaptureTap.* -> clock_gettime@        the kernel's page of code (vdso) answers: once a burst, while somebody captures
Capture.CaptureTap.* -> [*]                   which rule a packet matches, of those that somebody captures at the wire
Host.InstanceTable.*lookUpAndRemember.* -> memcpy@   headers of a flow that was not known, once for each
Capture.FilterPath.init.* -> memcpy@         the way of a packet that a capture refused, once in 64 that went another
Host.InstanceTable.settleTime               four times a millisecond, where an instance's time is limited
Host.InstancePort..reason in                an instance is closed for what it did: once in its life
Host.QueueLoop<.*>.pause\(                  publishes counters, once in 1024 turns; waits, where there is no work
Channel.CommandDoorbell.ring                wakes an end of a command channel that sleeps, once a sleep
Commands.CommandServer.(begin|begun|finish|wake|close|shut)   commands that take longer, sleep, and the end of a client
Commands.CommandServer.turn<.* -> clock_gettime@         the kernel's page of code (vdso) answers
Commands.CredentialCache.*find.* -> Swift.Hasher   the keyed hash of a credential's id: once a command
Stacks.StackError                           the stack ends: the text for people
Stacks.KernelStack.* -> (Stacks.KernelStack.isGone|Glibc.errno|(readv|writev)@)   a frame is a call of the kernel
LwIPStack.LwIPInstance.service              lwIP's timers and the application, once a turn; flush is named by itself
^(martlet|pbuf|sys|mem|memp)_[a-z0-9_]*$    lwIP's own code, in C
LwIPStack.LwIPInterface.input.* -> [*]      the same: the input function of a lwIP interface
GVisorStack.GVisorInstance.* -> [*]         gVisor's own functions, by pointer, once a burst
RadioLink.RadioLinkViolation.error          the device broke its contract: the text for people
RadioLink.*Host.postSegments<.* -> memcpy@  the pair is copied to ask for its room, once a burst
END
)
# Outside the program: what closes the gap in a burst, and the guard of C's stack. Not memcpy: it copies a whole queue
# pair to the stack where a mutating method calls one that is not.
harmless='^(memmove|__stack_chk_fail)@'

# calls PROGRAM: its functions ("F name") and their calls ("C caller callee"); the callee "*" is a pointer. A function
# without a symbol is named by the one before it and the distance from it; what nobody calls by that is no function.
# Left out is what runs only when an error is thrown: the call that a throw makes, and those straight before it, with
# no jump between.
calls() {
  nm -S --defined-only "$1" | awk '
    function number(hex,   i, sum) {
      for (i = 1; i <= length(hex); i++) sum = sum * 16 + index("0123456789abcdef", substr(hex, i, 1)) - 1
      return sum
    }
    $3 ~ /^[tTwW]$/ { printf "%x\n", number($1) + number($2) }' > "$work/ends"
  objdump -d --no-show-raw-insn "$1" > "$work/code"
  awk -F '\t' '
    function target(text) {
      return match(text, /<[^>]*>/) ? substr(text, RSTART + 1, RLENGTH - 2) : ""
    }
    function base(name) { sub(/\+0x[0-9a-f]+$/, "", name); return name }
    function flush(   i) {
      for (i = 1; i <= held && name != ""; i++) print "C\t" name "\t" called[i]
      held = 0
    }
    FILENAME ~ /ends$/ { isEnd[$1] = 1; next }
    FNR == 1 { pass++ }
    /^[0-9a-f]+ <.*>:$/ {
      if (pass == 2) flush()
      symbol = name = target($0)
      begin = $1
      sub(/^0*/, "", begin)
      sub(/ .*/, "", begin)
      if (pass == 2) print "F\t" name
      next
    }
    { split($2, words, " "); verb = words[1]; to = target($2) }
    pass == 1 {
      if (verb == "call" || verb ~ /^j/ && base(to) != symbol) starts[words[2]] = to
      next
    }
    {
      address = $1
      gsub(/[ :]/, "", address)
      if (address in starts && starts[address] ~ /\+0x/) {
        flush()
        name = starts[address]
        print "F\t" name
      } else if (address in isEnd && address != begin) {
        flush()
        name = ""
      }
    }
    verb ~ /^j/ { flush() }
    verb == "call" || verb ~ /^j/ {
      if (words[2] ~ /^\*/) {
        # A switch jumps by a table: an offset has just been added to its address.
        if (verb == "call" || sum != substr(words[2], 2)) called[++held] = "*"
      } else if (to ~ /^swift_willThrow/) {
        held = 0
      } else if (verb == "call" || words[2] in starts || to !~ /\+0x/) {
        called[++held] = to
        if (verb != "call") flush()
      }
    }
    {
      # What is written last; other registers may be written between.
      written = match($2, /%[a-z0-9]+$/) ? substr($2, RSTART) : ""
      if (verb == "add") sum = written
      else if (written == sum || verb == "call" || verb ~ /^j/) sum = ""
    }' "$work/ends" "$work/code" "$work/code" |
    sort -u | swift demangle
}

# check CALLS NAME...: each name is an extended regular expression that at least one function must match.
check() {
  local list=$1
  shift
  NAMES=$(printf '%s\n' "$@") ALLOWED=$allowed HARMLESS=$harmless awk -F '\t' '
    $1 == "F" { isFunction[$2] = 1; next }
    { calls[$2] = calls[$2] "\t" $3 }
    END {
      count = split(ENVIRON["ALLOWED"], lines, "\n")
      for (i = 1; i <= count; i++) if (split(lines[i], parts, "   *") == 2) ends[parts[1]] = 1
      count = split(ENVIRON["NAMES"], names, "\n")
      for (i = 1; i <= count; i++) {
        found = 0
        for (name in isFunction) if (name ~ names[i]) { found = 1; follow(name) }
        if (!found) complain("no function is named " names[i])
      }
      print reached " functions on the way of packets"
      exit failed
    }
    function follow(root,   waiting, seen, from, at, parts, i, n) {
      waiting[1] = root; seen[root] = 1; at = 1; n = 1
      while (at <= n) {
        from = waiting[at++]
        reached++
        count_ = split(calls[from], parts, "\t")
        for (i = 2; i <= count_; i++) {
          if (parts[i] in seen) continue
          if (isEnd(from, parts[i])) continue
          if (parts[i] ~ ENVIRON["HARMLESS"]) continue
          if (parts[i] == "*" || parts[i] ~ /@plt$|^_?swift_/ || !(parts[i] in isFunction)) {
            if (!((from, parts[i]) in told)) complain(from "\n  calls " (parts[i] == "*" ? "through a pointer" : parts[i]) "\n  on the way from " root)
            told[from, parts[i]] = 1
          } else {
            seen[parts[i]] = 1
            waiting[++n] = parts[i]
          }
        }
      }
    }
    function isEnd(from, to,   end) {
      for (end in ends) if ((end ~ /->/ ? from " -> " to : to) ~ end) return 1
      return 0
    }
    function complain(text) { print text; failed = 1 }' "$list"
}

# Those that Package.swift registers.
drivers=$(sed -n '/^let drivers = \[/,/^]/s/^ *driver("\([A-Za-z0-9_]*\)".*/\1/p' Package.swift)
test -n "$drivers"
names=()
for driver in $drivers; do
  pair="$driver\\.[A-Za-z0-9]*QueuePair"
  # The same where checksums are completed in software.
  for way in "$pair" "Driver\\.TransformingQueuePair<$pair, Driver\\.InternetChecksum>"; do
    for path in PacketPath SharedPath; do
      names+=("generic specialization <$way> of .*Host\\.$path<.*>\\.turn\\(")
      names+=("generic specialization <Host\\.$path<$way>> of .*Host\\.QueueLoop<.*>\\.turnUntilToldToStop\\(")
    done
  done
  for verb in postReceive receive transmit completeTransmit; do
    names+=("$pair\\.$verb\\(.*throws\\(Driver\\.DriverError\\)")
  done
done
calls .build/release/martlet-host > "$work/host"
check "$work/host" "${names[@]}"
# The check itself: what sets up the host, and allocates, is refused.
! check "$work/host" 'static Host\.DriverHost\.main\(' > "$work/refused"
grep -q swift_allocObject "$work/refused"

calls .build/release/martlet-stack > "$work/stack"
names=(
  'Stacks\.KernelStack\.(receive|completed|service)\('
  'generic specialization <Stacks\.KernelStack> of .*Stacks\.InstanceLoop<.*>\.turn\('
  'GVisorStack\.GVisorInstance\.(receive|completed|service)\('
  'generic specialization <GVisorStack\.GVisorInstance> of .*Stacks\.InstanceLoop<.*>\.turn\('
)
if [ -e Sources/CLwIP/lwip/.version ]; then
  for name in input output complete flush; do names+=("LwIPStack\.LwIPInterface\.(\($name in|$name\()"); done
  names+=('LwIPStack\.LwIPInstance\.(receive|completed)\(')
  names+=('generic specialization <LwIPStack\.LwIPInstance> of .*Stacks\.InstanceLoop<.*>\.turn\(')
fi
check "$work/stack" "${names[@]}"

calls .build/release/martlet > "$work/martlet"
check "$work/martlet" \
  'generic specialization <Supervisor\.InstanceCommandService> of .*Commands\.CommandServer\.turn<' \
  'Channel\.CommandClient\.submit\(Channel\.CommandSubmission' 'Channel\.CommandClient\.poll\(' \
  'Channel\.CommandServerEnd\.(take|answer|publish)\('
