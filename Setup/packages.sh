#!/bin/bash
# Installs the packages that the build and the tests need, or with `lab` those of the guest, with `bench` those of the
# benchmarks' peers, with `gvisor` those of that stack, with `model` the model checker, with `eyes` readers of captures and metrics and a terminal emulator,
# where they are missing, and says which.
set -euo pipefail
build="libpci-dev libseccomp-dev libpcap-dev pkg-config iproute2 iputils-ping curl make patch xz-utils binutils valgrind"
lab="qemu-system-x86 busybox-static cpio zstd kmod xz-utils"
bench="dpdk-dev libdpdk-dev gcc pkg-config"
gvisor="golang-go golang-gvisor-gvisor-dev gcc libc6-dev"
model="spin gcc libc6-dev"
eyes="tshark tcpdump python3-prometheus-client python3-pyte"
wanted=$build
[ "${1:-}" = lab ] && wanted=$lab
[ "${1:-}" = bench ] && wanted=$bench
[ "${1:-}" = gvisor ] && wanted=$gvisor
[ "${1:-}" = model ] && wanted=$model
[ "${1:-}" = eyes ] && wanted=$eyes

missing=
for package in $wanted; do
  [ -e "/var/lib/dpkg/info/$package.list" ] || [ -e "/var/lib/dpkg/info/$package:amd64.list" ] || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ]; then
  echo "setup: these packages are missing; as root: apt-get install$missing" >&2
  exit 1
fi
echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
if ! apt-get -qq install -y --no-install-recommends $missing > /dev/null 2>&1; then
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends $missing > /dev/null
fi
