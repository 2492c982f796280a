#!/bin/bash
# Runs Tests/Lab in a QEMU guest with an emulated Intel IOMMU: lab.sh [JOB...]. Ends with `N passed, N failed`.
#
# The guest has two virtio-net functions and an Intel 82574L joined by a hub: 00:03.0 and 00:05.0, which the jobs give to
# Martlet, and 00:04.0, which keeps the kernel's driver and is the peer; 00:06.0 is QEMU's edu function. 00:03.0 offers packed
# rings. Logs are left in .build/lab/logs.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
lab=$root/.build/lab
"$here/kernel.sh" || { echo "0 passed, 1 failed"; exit 1; }
mkdir -p "$lab/logs" "$lab/results"
jobs=("$@")
[ ${#jobs[@]} -gt 0 ] || jobs=("$root"/Tests/Lab/*.sh)

# All that the guest sees of this machine: /usr, this checkout, the Swift runtime that the test bundle is linked to, and
# of /etc the names of two users and how the loader and commands are found.
rm -rf "$lab/etc"
mkdir -p "$lab/etc"
cp -a /etc/ld.so.cache /etc/alternatives "$lab/etc/"
getent passwd root nobody > "$lab/etc/passwd"
getent group root nogroup > "$lab/etc/group"
printf '%s: files\n' passwd group hosts protocols > "$lab/etc/nsswitch.conf"
echo "127.0.0.1 localhost" > "$lab/etc/hosts"
share() {
  echo "-fsdev local,id=$1,path=$2,readonly=on,security_model=none,multidevs=remap" \
    "-device virtio-9p-pci,fsdev=$1,mount_tag=$1,addr=$3"
}
shares="$(share usr /usr 1e) $(share checkout "$root" 1c)"
words="lab.checkout=$root"
bundle=$root/.build/debug/martletPackageTests.xctest
runtime=$(ldd "$bundle" 2> /dev/null | sed -n 's|.* => \(/.*\)/libswiftCore\.so .*|\1|p')
case $runtime in
  '' | /usr/* | "$root"/*) ;;
  *)
    shares="$shares $(share runtime "$runtime" 1b)"
    words="$words lab.runtime=$runtime"
    ;;
esac

boot() {
  local job=$1 log=$2 accelerator=$3 limit=$4 cores
  # A job that needs more than one core says so in a line of its own.
  cores=$(sed -n 's/^# Cores: //p' "$job")
  # shellcheck disable=SC2086
  timeout "$limit" qemu-system-x86_64 -machine q35,accel=$accelerator,kernel-irqchip=split -cpu max \
    -m 1024 -smp ${cores:-1} -nodefaults -display none -serial stdio -no-reboot \
    -kernel "$lab/vmlinux" -initrd "$lab/initrd.zst" \
    -append "console=ttyS0 intel_iommu=on iommu=nopt quiet panic=-1 no_timer_check lab.guest=$here/guest.sh lab.job=$job lab.martlet=$root/.build/release/martlet $words" \
    -device intel-iommu,intremap=on,caching-mode=on,aw-bits=48 -device isa-debug-exit,iobase=0xf4,iosize=0x04 \
    $shares \
    -fsdev local,id=results,path="$lab/results",security_model=none -device virtio-9p-pci,fsdev=results,mount_tag=results,addr=1d \
    -netdev hubport,id=a,hubid=0 -device virtio-net-pci,netdev=a,addr=3,disable-legacy=on,iommu_platform=on,packed=on,mac=52:54:00:00:00:01 \
    -netdev hubport,id=b,hubid=0 -device virtio-net-pci,netdev=b,addr=4,disable-legacy=on,iommu_platform=on,mac=52:54:00:00:00:02 \
    -netdev hubport,id=c,hubid=0 -device e1000e,netdev=c,addr=5,mac=52:54:00:00:00:05 \
    -device edu,addr=6 \
    < /dev/null > "$log" 2>&1
  local code=$?
  # An even code is QEMU's own: a crash, a panic or the time limit. There is no verdict then.
  if [ $((code & 1)) = 0 ]; then return 200; fi
  return $((code >> 1))
}

# Hardware virtualisation where a guest gets through its start in it, emulation elsewhere. Some machines have /dev/kvm and
# guests hang in it, so it is tried, once for each checkout.
if [ ! -e "$lab/accelerator" ]; then
  accelerator=tcg
  [ -w /dev/kvm ] && (boot /dev/null "$lab/logs/kvm.log" kvm 15) 2> /dev/null && accelerator=kvm
  echo $accelerator > "$lab/accelerator"
fi
accelerator=${LAB_ACCELERATOR:-$(cat "$lab/accelerator")}
# Seconds for each guest.
limit=${LAB_TIMEOUT:-900}

# One guest runs one job; two guests run at once where there are cores for both. A job that says `# Cores: 2` measures
# something, and runs alone.
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
# run JOB: leaves what to print, and how many checks passed and failed.
run() {
  local name log code p f
  name=$(basename "$1" .sh)
  log=$lab/logs/$name.log
  boot "$(realpath "$1")" "$log" "$accelerator" "$limit"
  code=$?
  # QEMU 7.2 aborts now and then when MSI-X of its e1000e goes off while the throttling timer runs. That says nothing of the
  # job: it is run once more, and no more.
  if [ $code = 200 ] && grep -aq "^qemu-system.*Assertion" "$log"; then
    grep -a "^qemu-system.*Assertion" "$log"
    boot "$(realpath "$1")" "$log" "$accelerator" "$limit"
    code=$?
  fi
  p=$(grep -ac '^ok ' "$log")
  f=$(grep -ac '^FAIL ' "$log")
  grep -aE '^(ok|FAIL) ' "$log" | tr -d '\r'
  if [ "$code" != 0 ] && [ "$f" = 0 ]; then
    f=1
    echo "FAIL $name: no verdict (code $code)"
  fi
  [ "$code" = 0 ] || tail -60 "$log"
  echo "$p $f" > "$results/$name.counts"
}
for job in "${jobs[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
  if grep -q '^# Cores: ' "$job"; then
    wait
    run "$job"
  else
    run "$job" > "$results/$(basename "$job" .sh)" 2>&1 &
  fi
done
wait
# What has failed is tried once more when nothing else runs here: the guests share this machine with others' work.
failed_jobs=""
for job in "${jobs[@]}"; do
  name=$(basename "$job" .sh)
  cat "$results/$name" 2> /dev/null
  [ -e "$results/$name.counts" ] || { echo "FAIL $name: it was not run to its end" && echo "0 1" > "$results/$name.counts"; }
  if ! grep -q ' 0$' "$results/$name.counts"; then
    echo "once more: $name"
    run "$job"
    grep -q ' 0$' "$results/$name.counts" || failed_jobs="$failed_jobs $name"
  fi
done
[ -z "$failed_jobs" ] || echo "failed in the lab:$failed_jobs"
read -r passed failed < <(cat "$results"/*.counts | awk '{ p += $1; f += $2 } END { print p + 0, f + 0 }')
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
