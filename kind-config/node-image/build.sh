#!/bin/bash
# Builds a kind node image from Debian packages and Go modules only, for machines
# that reach no container registry. See ../README.md.
#
#   build.sh [--seed DIR] [--save FILE] [--no-load] [--jobs N] [--engine podman|docker]
#
# Every step is cached under $XDG_CACHE_HOME/gatelab/kind-node-image, keyed by its
# inputs: an interrupted build goes on where it stopped, a finished one takes seconds.
set -Eeuo pipefail
trap 'echo "${BASH_SOURCE[0]##*/}: line $LINENO failed" >&2' ERR

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gatelab/kind-node-image
seed=
save=
load=yes
jobs=
engine=
# shellcheck source=versions.sh
source "$here/versions.sh"
# shellcheck source=progress.sh
source "$here/progress.sh"
# shellcheck source=component-images.sh
source "$here/component-images.sh"
# shellcheck source=node-root.sh
source "$here/node-root.sh"

usage() {
  cat <<USAGE
build.sh: builds $NODE_IMAGE
  --seed DIR      take binaries from DIR instead of compiling those whose build
                  information names the pinned version
  --save FILE     also write the image as an archive for other machines
                  (.zst or .gz: compressed)
  --no-load       do not load the image into podman or docker
  --engine NAME   podman or docker (default: the one KIND_EXPERIMENTAL_PROVIDER
                  names, else the first that answers)
  --jobs N        packages the Go compiler builds at once (default: all cores)
USAGE
}

while [ $# -gt 0 ]; do
  case $1 in
    --seed) seed=$(cd "$2" && pwd); shift 2 ;;
    --save) save=$2; shift 2 ;;
    --no-load) load=no; shift ;;
    --engine) engine=$2; shift 2 ;;
    --jobs) jobs=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown option $1" ;;
  esac
done

# ---------------------------------------------------------------- prerequisites

need() { # need COMMAND DEBIAN-PACKAGE
  command -v "$1" >/dev/null || missing+=("$2")
}

check_prerequisites() {
  local missing=()
  PATH=$PATH:/usr/sbin:/sbin
  need debootstrap debootstrap
  need jq jq
  need zstd zstd
  need gcc gcc
  [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
  if [ ${#missing[@]} -gt 0 ]; then
    fail "these Debian packages are missing: ${missing[*]} (apt-get install ${missing[*]})"
  fi
  command -v go >/dev/null || fail "Go 1.24 or newer is missing"
  local version
  version=$(go env GOVERSION | sed 's/^go//')
  if [ "$(printf '%s\n1.24\n' "$version" | sort -V | head -1)" != 1.24 ]; then
    fail "Go 1.24 or newer is needed for Kubernetes $KUBERNETES_VERSION, this is $version"
  fi
  [ "$(uname -m)" = x86_64 ] || fail "only x86_64 has been tried: library paths and the images' architecture say amd64"
  [ "$(id -u)" = 0 ] || fail "must run as root: debootstrap and containerd need chroot and mounts"
  local free
  mkdir -p "$cache/bin"
  free=$(df --output=avail -BG "$cache" | tail -1 | tr -dc 0-9)
  [ "$free" -ge 8 ] || [ -e "$cache/node-image.tar" ] || fail "8 GB of free disk are needed in $cache, there are $free"
}

find_engine() {
  [ "$load" = yes ] || return 0
  if [ -z "$engine" ]; then
    for candidate in ${KIND_EXPERIMENTAL_PROVIDER:-docker podman}; do
      if "$candidate" info >/dev/null 2>&1; then engine=$candidate; break; fi
    done
  fi
  [ -n "$engine" ] || fail "neither docker nor podman answers; --no-load builds the archive without"
}

# ---------------------------------------------------------------- Go components

# Is FILE a build of PACKAGE from MODULE@VERSION? Go records it in the binary.
is_build_of() { # FILE PACKAGE MODULE VERSION
  local information
  information=$(go version -m "$1" 2>/dev/null) || return 1
  grep -qP "^\tpath\t\Q$2\E$" <<<"$information" &&
    grep -qP "^\t(mod|dep)\t\Q$3\E\t\Q$4\E(\t|$)" <<<"$information"
}

compile() { # NAME PACKAGE MODULE VERSION DIRECTORY LDFLAGS
  local name=$1 package=$2 module=$3 version=$4 directory=$5 ldflags=$6
  mkdir -p "$cache/bin"
  if [ -n "$seed" ] && [ -f "$seed/$name" ] && is_build_of "$seed/$name" "$package" "$module" "$version"; then
    note "taken from the seed folder"
    install -m 0755 "$seed/$name" "$cache/bin/$name"
    return
  fi
  (
    cd "$directory"
    # -v prints each package as it is compiled: progress shows the count.
    CGO_ENABLED=0 GOFLAGS="-mod=readonly ${jobs:+-p=$jobs}" GOWORK=off \
      go build -v -trimpath -ldflags "-s -w $ldflags" -o "$cache/bin/$name.new" "$package"
  )
  mv "$cache/bin/$name.new" "$cache/bin/$name"
}

go_step() { # NAME PACKAGE MODULE VERSION DIRECTORY [LDFLAGS]
  local inputs
  inputs="$* $(find "$5" -maxdepth 1 -type f ! -name '*_test.go' | sort | xargs cat | sha256sum)"
  step "$1" "$inputs" "$cache/bin/$1" compile "$1" "$2" "$3" "$4" "$5" "${6-}"
}

compile_kind() {
  if [ -n "$seed" ] && is_build_of "$seed/kind" sigs.k8s.io/kind sigs.k8s.io/kind "$KIND_VERSION"; then
    note "taken from the seed folder"
    install -m 0755 "$seed/kind" "$cache/bin/kind"
    return
  fi
  GOBIN=$cache/bin GOFLAGS=${jobs:+-p=$jobs} CGO_ENABLED=0 go install -v -trimpath "sigs.k8s.io/kind@$KIND_VERSION"
}

# kind's base files come from its module, checked by Go's checksum database.
fetch_kind_source() {
  local directory
  directory=$(cd / && go mod download -json "sigs.k8s.io/kind@$KIND_VERSION" | jq -er .Dir)
  rm -rf "$cache/kind-source"
  mkdir -p "$cache/kind-source"
  cp -rT --no-preserve=mode "$directory/images/base/files" "$cache/kind-source"
}

# Kubernetes' own pause program; its source is part of the module.
compile_pause() {
  local directory
  directory=$(cd "$here/modules/kubernetes" && go mod download -json "k8s.io/kubernetes@$KUBERNETES_VERSION" | jq -er .Dir)
  gcc -Os -Wall -static -s -DVERSION="$KUBERNETES_VERSION" -o "$cache/bin/pause" "$directory/build/pause/linux/pause.c"
}

# ------------------------------------------------------------------------ steps

check_prerequisites
find_engine
exec 9>"$cache/lock"
flock -n 9 || fail "another build is running (it holds $cache/lock)"
total_steps=19

step kind-source "$KIND_VERSION" "$cache/kind-source" fetch_kind_source
step kind "$KIND_VERSION" "$cache/bin/kind" compile_kind

short=${KUBERNETES_VERSION#v}
major=${short%%.*}
minor=${short#*.}
minor=${minor%%.*}
stamp=k8s.io/component-base/version
flags="-X $stamp.gitVersion=$KUBERNETES_VERSION -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor"
flags+=" -X $stamp.gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion=$KUBERNETES_VERSION"
for command in kubeadm kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl; do
  go_step "$command" "k8s.io/kubernetes/cmd/$command" k8s.io/kubernetes "$KUBERNETES_VERSION" \
    "$here/modules/kubernetes" "$flags"
done
go_step etcd go.etcd.io/etcd/server/v3 go.etcd.io/etcd/server/v3 "$ETCD_VERSION" "$here/modules/etcd"
go_step coredns github.com/coredns/coredns github.com/coredns/coredns "$COREDNS_VERSION" "$here/modules/coredns"
go_step pod-network gatelab.dev/node-image/pod-network k8s.io/client-go "v0.${KUBERNETES_VERSION#v1.}" "$here/pod-network"
step pause "$KUBERNETES_VERSION" "$cache/bin/pause" compile_pause

versions_key=$(sha256sum <"$here/versions.sh")
step debian "$DEBIAN_SUITE ${DEBIAN_PACKAGES[*]} ${DEBIAN_MIRROR-} $(declare -f build_debian)" "$cache/debian" build_debian
step base-layer "$(step_key debian) $(declare -f build_base_layer)" "$cache/layers/base.tar.zst" build_base_layer
binaries_key=$(cd "$cache/bin" && stat -c '%n %s %Y' kube* etcd coredns pod-network pause)
step images "$versions_key $binaries_key $(step_key base-layer) $(declare -f build_component_images component_image)" \
  "$cache/images/list" build_component_images
node_key="$versions_key $binaries_key $(step_key debian) $(step_key images) $(step_key kind-source)"
node_key+=" $(cat "$here/manifests"/* "$here/node-files"/* "$here/node-root.sh" | sha256sum)"
step node-root "$node_key" "$cache/node" build_node_root
step archive "$(step_key node-root)" "$cache/node-image.tar" build_archive

load_image() {
  "$engine" load -i "$cache/node-image.tar"
  "$engine" image inspect "$NODE_IMAGE" >/dev/null
}
if [ "$load" = yes ]; then
  # The engine, not a stamp, knows whether the image is there.
  identity=$(cat "$cache/node-image.id")
  present=$("$engine" image inspect --format '{{.Id}}' "$NODE_IMAGE" 2>/dev/null | sed 's/^sha256://') || present=
  [ "$present" = "$identity" ] || forget_step load
  step load "$engine $identity" "$cache/node-image.tar" load_image
else
  skip_step load "--no-load"
fi

if [ -n "$save" ]; then
  case $save in
    *.zst) zstd -q -f -T0 -10 "$cache/node-image.tar" -o "$save" ;;
    *.gz) gzip -c "$cache/node-image.tar" >"$save" ;;
    *) cp "$cache/node-image.tar" "$save" ;;
  esac
  say "saved $save ($(du -h "$save" | cut -f1))"
fi
say "$NODE_IMAGE is ready in $(elapsed_total); kind $KIND_VERSION and kubectl are in $cache/bin"
