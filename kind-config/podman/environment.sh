#!/bin/bash
# Prints the environment with which kind and podman work as root on a machine
# without Docker Engine:
#
#   eval "$(kind-config/podman/environment.sh)"
#   kind create cluster …
#
# Debian's podman (4.3 in bookworm) is enough. What may be in the way, and what is
# done about it here:
#  * crun refuses hosts that mount cgroup v1 next to v2 (hybrid): runc is used.
#  * where CAP_SYS_RESOURCE is missing (some virtual machines and CI runners), runc
#    may not raise resource limits: runc-within-limits leaves them as they are.
#  * kind mounts /lib/modules of the host: it must exist, even if empty.
# The settings go to a file of their own; the machine's containers.conf stays as it is.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fail() {
  echo "environment.sh: $*" >&2
  echo false # an eval of our output then fails, too
  exit 1
}
PATH=$PATH:/usr/sbin:/sbin
missing=()
command -v podman >/dev/null || missing+=(podman)
command -v runc >/dev/null || missing+=(runc)
command -v jq >/dev/null || missing+=(jq)
command -v iptables >/dev/null || missing+=(iptables)
for program in netavark aardvark-dns; do
  # aardvark-dns answers for the names of the nodes, by which they join each other
  [ -x /usr/lib/podman/$program ] || [ -x /usr/libexec/podman/$program ] || missing+=($program)
done
[ ${#missing[@]} -eq 0 ] || fail "these Debian packages are missing: ${missing[*]} (apt-get install ${missing[*]})"
[ "$(id -u)" = 0 ] || fail "needs root: rootless podman cannot run these nodes with cgroup v1"
[ -d /lib/modules ] || mkdir -p /lib/modules

bounding=$(awk '/^CapBnd:/ { print $2 }' /proc/self/status)
runtime=$(command -v runc)
if ! (((16#$bounding >> 24) & 1)); then
  runtime=$here/runc-within-limits
fi

settings=${XDG_CACHE_HOME:-$HOME/.cache}/gatelab/podman/containers.conf
mkdir -p "$(dirname "$settings")"
cat >"$settings" <<CONF
# written by environment.sh
[network]
network_backend = "netavark"
[engine]
# no systemd needed on the host
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "gatelab"
[engine.runtimes]
gatelab = ["$runtime"]
CONF
printf 'export CONTAINERS_CONF=%q\n' "$settings"
echo 'export KIND_EXPERIMENTAL_PROVIDER=podman'
