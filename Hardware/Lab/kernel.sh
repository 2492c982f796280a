#!/bin/bash
# Makes what the guest boots from, once: the distribution's kernel, unpacked but not installed, and an initial file
# system with busybox and the modules that the lab needs. Prints nothing where all is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
lab=$(cd "$here/../.." && pwd)/.build/lab
mkdir -p "$lab"
cd "$lab"
stamp=$(cat "$here/kernel.sh" "$here/init" | sha256sum | cut -c1-16)
[ "$(cat stamp 2>/dev/null || true)" = "$stamp" ] && exit 0

image=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -1)
if [ -z "$image" ]; then
  apt-get -qq update
  image=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -1)
fi
[ -n "$image" ] || { echo "lab: the package mirrors have no linux-image-amd64" >&2; exit 1; }
if [ ! -e "kernel/.$image" ]; then
  rm -rf kernel download
  mkdir -p kernel download
  (cd download && { apt-get -qq -o APT::Sandbox::User=root download "$image" || { apt-get -qq update && apt-get -qq -o APT::Sandbox::User=root download "$image"; }; })
  dpkg-deb -x download/*.deb kernel
  rm -rf download
  depmod -b kernel "$(basename kernel/lib/modules/*)"
  touch "kernel/.$image"
fi

version=$(basename kernel/lib/modules/*)
modules=kernel/lib/modules/$version
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,modules,proc,sys,dev,results,newroot}
cp /bin/busybox "$tree/bin/"
declare -A taken
# A module after everything that it needs.
take() {
  local path=$1 name
  name=$(basename "${path%.xz}")
  [ -n "${taken[$name]:-}" ] && return
  taken[$name]=1
  for need in $(sed -n "s|^$path: *||p" "$modules/modules.dep"); do take "$need"; done
  case $path in
    *.xz) xz -dc "$modules/$path" > "$tree/modules/$name" ;;
    *) cp "$modules/$path" "$tree/modules/$name" ;;
  esac
  echo "$name" >> "$tree/modules/order"
}
for name in virtio_pci virtio_net 9pnet_virtio 9p vfio_iommu_type1 vfio-pci tun veth e1000e; do
  path=$(sed -n "s|^\([^:]*/$name\.ko\(\.xz\)\?\):.*|\1|p" "$modules/modules.dep" | head -1)
  [ -z "$path" ] || take "$path"
done
cp "$here/init" "$tree/init"
chmod +x "$tree/init"
(cd "$tree" && find . | cpio -o -H newc --quiet) | zstd -q -3 -f -o initrd.zst
# The kernel without its compression: what costs most of the start under emulation. Where its packing is not xz it is
# taken as it is.
packed=$(echo kernel/boot/vmlinuz-*)
cp "$packed" vmlinux
for offset in $(LC_ALL=C grep -aboP '\xfd7zXZ\x00' "$packed" | cut -d: -f1); do
  tail -c +$((offset + 1)) "$packed" | xz -dc --single-stream > unpacked 2> /dev/null || continue
  if [ "$(head -c 4 unpacked)" = $'\x7fELF' ]; then mv unpacked vmlinux; fi
done
rm -f unpacked
echo "$stamp" > stamp
