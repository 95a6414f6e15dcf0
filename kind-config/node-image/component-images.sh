# shellcheck shell=bash
# The images of the control plane, kube-proxy, CoreDNS, pause and the pod network,
# as OCI archives made with tar, sha256sum and jq. Sourced by build.sh.

# Same bytes for the same files: sorted, no times, no owners.
layer_tar() { # DIRECTORY OUTPUT.tar.zst; writes OUTPUT.diff-id (hash of the plain tar)
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -C "$1" -cf "$2.plain" .
  sha256sum <"$2.plain" | cut -d' ' -f1 >"${2%.tar.zst}.diff-id"
  zstd -q -f -T0 -9 "$2.plain" -o "$2"
  rm "$2.plain"
}

# copy_program FILE...: from the Debian root into $base, with the libraries it names.
copy_program() {
  local file library
  for file in "$@"; do
    install -D -m 0755 "$cache/debian$file" "$base$file"
    chroot "$cache/debian" ldd "$file" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
      [ -e "$base$library" ] || install -D -m 0755 "$cache/debian$(chroot "$cache/debian" realpath "$library")" "$base$library"
    done
  done
}

# The one layer that kube-proxy and the pod network share: nft and iptables-nft
# with their libraries, and the few files that programs look for.
build_base_layer() {
  local base=$cache/work/base name
  rm -rf "$base"
  mkdir -p "$base"/{etc,tmp,run,usr/sbin,usr/bin,usr/lib/x86_64-linux-gnu,usr/lib64,var/run}
  chmod 1777 "$base/tmp"
  # merged /usr, as in Debian
  ln -s usr/lib "$base/lib"
  ln -s usr/lib64 "$base/lib64"
  ln -s usr/sbin "$base/sbin"
  echo 'root:x:0:0:root:/:/sbin/nologin' >"$base/etc/passwd"
  echo 'root:x:0:' >"$base/etc/group"
  echo 'hosts: files dns' >"$base/etc/nsswitch.conf"
  cp "$cache/debian/etc/protocols" "$cache/debian/etc/services" "$base/etc/"
  copy_program /usr/sbin/nft /usr/sbin/xtables-nft-multi
  for name in iptables ip6tables; do
    ln -s xtables-nft-multi "$base/usr/sbin/$name"
    ln -s xtables-nft-multi "$base/usr/sbin/$name-save"
    ln -s xtables-nft-multi "$base/usr/sbin/$name-restore"
  done
  # iptables loads its matches and targets at run time
  cp -r "$cache/debian/usr/lib/x86_64-linux-gnu/xtables" "$base/usr/lib/x86_64-linux-gnu/"
  chroot "$base" /usr/sbin/nft --version
  chroot "$base" /usr/sbin/iptables --version
  mkdir -p "$cache/layers"
  layer_tar "$base" "$cache/layers/base.tar.zst"
}

blob() { # FILE MEDIA-TYPE: puts it into $layout, prints its descriptor
  local digest
  digest=$(sha256sum <"$1" | cut -d' ' -f1)
  cp "$1" "$layout/blobs/sha256/$digest"
  jq -n --arg type "$2" --arg digest "sha256:$digest" --argjson size "$(stat -c %s "$1")" \
    '{mediaType: $type, digest: $digest, size: $size}'
}

# Debian's dynamic busybox with its libraries: glibc's resolver is not meant to be
# linked statically. (This build of wget crashes with -T; use timeout.)
complete_busybox() {
  local base=$1
  mkdir -p "$base"/{etc,root,usr/bin,usr/sbin,sbin}
  mkdir -m 1777 "$base/tmp"
  echo 'root:x:0:0:root:/root:/bin/sh' >"$base/etc/passwd"
  echo 'hosts: files dns' >"$base/etc/nsswitch.conf"
  copy_program /bin/busybox
  chroot "$base" /bin/busybox --install -s
  # it must start with these libraries only
  chroot "$base" /bin/busybox true
}

# component_image REFERENCE PATH-IN-IMAGE BINARY [base]: one OCI archive in $images.
component_image() {
  local reference=$1 path=$2 binary=$3 with_base=${4-}
  echo "packing $reference"
  local name=${3##*/} layout=$cache/work/layout root=$cache/work/root
  rm -rf "$layout" "$root"
  mkdir -p "$layout/blobs/sha256" "$root"
  install -D -m 0755 "$binary" "$root$path"
  if [ "$path" = /bin/busybox ]; then
    complete_busybox "$root"
  fi
  layer_tar "$root" "$cache/layers/$name.tar.zst"
  local layer=application/vnd.oci.image.layer.v1.tar+zstd names=("$name") part
  [ -z "$with_base" ] || names=(base "$name")
  local layers=() identities=()
  for part in "${names[@]}"; do
    layers+=("$(blob "$cache/layers/$part.tar.zst" $layer)")
    identities+=("$(jq -n --arg id "sha256:$(cat "$cache/layers/$part.diff-id")" '$id')")
  done
  jq -n --arg entry "$path" --argjson diff "$(printf '%s\n' "${identities[@]}" | jq -s .)" '{
      architecture: "amd64", os: "linux",
      config: { Entrypoint: [$entry], Env: ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], WorkingDir: "/" },
      rootfs: { type: "layers", diff_ids: $diff } }' >"$cache/work/config.json"
  jq -n --argjson config "$(blob "$cache/work/config.json" application/vnd.oci.image.config.v1+json)" \
    --argjson layers "$(printf '%s\n' "${layers[@]}" | jq -s .)" \
    '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: $config, layers: $layers}' \
    >"$cache/work/manifest.json"
  jq -n --arg name "$reference" \
    --argjson manifest "$(blob "$cache/work/manifest.json" application/vnd.oci.image.manifest.v1+json)" \
    '{schemaVersion: 2, manifests: [$manifest + {annotations: {"io.containerd.image.name": $name}}]}' >"$layout/index.json"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
  tar -C "$layout" -cf "$cache/images/${reference//[\/:]/_}.tar" .
  echo "$reference" >>"$cache/images/list.new"
}

build_component_images() {
  local bin=$cache/bin tag
  rm -rf "$cache/images"
  mkdir -p "$cache/images" "$cache/layers" "$cache/work"
  for name in kube-apiserver kube-controller-manager kube-scheduler; do
    component_image "$IMAGE_PREFIX/$name:$KUBERNETES_VERSION" /usr/local/bin/$name "$bin/$name"
  done
  component_image "$IMAGE_PREFIX/kube-proxy:$KUBERNETES_VERSION" /usr/local/bin/kube-proxy "$bin/kube-proxy" base
  component_image "$IMAGE_PREFIX/etcd:$ETCD_TAG" /usr/local/bin/etcd "$bin/etcd"
  component_image "$IMAGE_PREFIX/coredns/coredns:$COREDNS_VERSION" /coredns "$bin/coredns"
  for tag in $PAUSE_TAGS; do
    component_image "$IMAGE_PREFIX/pause:$tag" /pause "$bin/pause"
  done
  component_image "localhost/gatelab/pod-network:$KUBERNETES_VERSION" /usr/local/bin/pod-network "$bin/pod-network" base
  component_image "$BUSYBOX_IMAGE" /bin/busybox "$cache/debian/bin/busybox"
  mv "$cache/images/list.new" "$cache/images/list"
  cat "$cache/images/list"
}
