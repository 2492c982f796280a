# The unit for systemd has no mistake, and takes away what it says, as systemd itself sees it.
set -eu
command -v systemd-analyze > /dev/null || { echo "systemd-analyze is not installed: not checked"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The program need not be installed for that.
sed "s#^ExecStart=[^ ]*#ExecStart=$PWD/.build/release/martlet#" Setup/systemd/martlet@.service > "$work/martlet@nic.service"
said=$(systemd-analyze verify "$work/martlet@nic.service" 2>&1)
[ -z "$said" ] || { echo "$said"; exit 1; }
systemd-analyze security --offline=yes --threshold=55 "$work/martlet@nic.service" | tail -1
