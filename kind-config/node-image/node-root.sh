# shellcheck shell=bash
# The node's root file system: Debian, kind's base files, the Kubernetes programs,
# and containerd's store with the component images in it. Sourced by build.sh.

build_debian() {
  local root=$cache/debian.new IFS=,
  rm -rf "$cache/debian" "$root"
  # No mirror named: debootstrap's own, or the one the caller prefers.
  debootstrap --variant=minbase --include="${DEBIAN_PACKAGES[*]}" "$DEBIAN_SUITE" "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
  mv "$root" "$cache/debian"
}

# in_root ROOT COMMAND...: a private mount and pid namespace, so that nothing stays
# mounted or running when the command ends, whichever way it ends.
in_root() {
  local root=$1
  shift
  # shellcheck disable=SC2016
  unshare --mount --pid --fork --kill-child --propagation private bash -euc '
    root=$1; shift
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --bind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    exec chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
  ' in_root "$root" "$@"
}

# What kind's images/base/Dockerfile does, on this root.
install_kind_base() {
  local root=$1 files=$cache/kind-source unit
  cp -rT "$files" "$root"
  find "$files" -type f -printf '%P\0' | (cd "$root" && xargs -0 chmod 0644)
  chmod 0755 "$root"/kind "$root"/kind/bin "$root"/kind/bin/* "$root"/usr/local/bin/*
  rm -f "$root"/etc/systemd/system/containerd-fuse-overlayfs.service # rootless only; not packaged here
  find "$root/lib/systemd/system/sysinit.target.wants/" -name systemd-tmpfiles-setup.service -delete
  rm -f "$root"/lib/systemd/system/multi-user.target.wants/* "$root"/etc/systemd/system/*.wants/* \
    "$root"/lib/systemd/system/local-fs.target.wants/* "$root"/lib/systemd/system/sockets.target.wants/*udev* \
    "$root"/lib/systemd/system/sockets.target.wants/*initctl* "$root"/lib/systemd/system/basic.target.wants/*
  echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
  ln -sf /usr/lib/systemd/systemd "$root/usr/sbin/init"
  # as systemctl enable would
  mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/etc/kubernetes/manifests"
  for unit in kubelet containerd undo-mount-hacks; do
    ln -s "/etc/systemd/system/$unit.service" "$root/etc/systemd/system/multi-user.target.wants/$unit.service"
  done
  ln -s /dev/null "$root/etc/systemd/system/systemd-binfmt.service"

  # kind expects its own builds of these in /usr/local
  ln -s /usr/bin/containerd /usr/bin/ctr /usr/bin/containerd-shim-runc-v2 "$root/usr/local/bin/"
  ln -s /usr/sbin/runc "$root/usr/local/sbin/runc"
  mkdir -p "$root/opt/cni/bin"
  cp "$root"/usr/lib/cni/{host-local,loopback,ptp,portmap} "$root/opt/cni/bin/"
}

install_additions() {
  local root=$1
  install -D -m 0644 "$here/node-files/oom-score.conf" "$root/etc/systemd/system/containerd.service.d/10-oom-score.conf"
  install -m 0755 "$here/node-files/allow-oom-score.sh" "$root/kind/bin/allow-oom-score.sh"
  install -m 0755 "$cache"/bin/{kubeadm,kubelet,kubectl} "$root/usr/bin/"
  echo -n "$KUBERNETES_VERSION" >"$root/kind/version"
  mkdir -p "$root/kind/manifests"
  sed "s#@POD_NETWORK_IMAGE@#localhost/gatelab/pod-network:$KUBERNETES_VERSION#" \
    "$here/manifests/default-cni.yaml" >"$root/kind/manifests/default-cni.yaml"
  cp "$here/manifests/default-storage.yaml" "$root/kind/manifests/"
}

# Imported but not unpacked: a node unpacks only what it runs.
import_images() {
  local root=$1
  mkdir -p "$root/import"
  cp "$cache/images/"*.tar "$root/import/"
  cat >"$root/import/import.sh" <<'IMPORT'
set -eu
printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]\n' >/tmp/import.toml
containerd --config /tmp/import.toml >/tmp/containerd.log 2>&1 &
for attempt in $(seq 100); do
  if ctr --connect-timeout 1s version >/dev/null 2>&1; then break; fi
  sleep 0.2
done
ctr version >/dev/null || { cat /tmp/containerd.log; exit 1; }
for archive in /import/*.tar; do
  ctr --namespace=k8s.io images import --label=io.cri-containerd.pinned=pinned --all-platforms --no-unpack "$archive"
done
ctr --namespace=k8s.io images list -q | sort >/import/imported
kill %1
wait %1 || true
IMPORT
  in_root "$root" bash /import/import.sh
  diff <(sort "$cache/images/list") "$root/import/imported"
  rm -rf "$root/import"
}

build_node_root() {
  local root=$cache/node.new
  rm -rf "$cache/node" "$root"
  echo "copying the Debian root"
  cp -a --reflink=auto "$cache/debian" "$root"
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/{man,info,locale,i18n}
  # keep the licences
  find "$root/usr/share/doc" -type f ! -name copyright -delete
  dpkg-query --admindir="$root/var/lib/dpkg" --show >"$cache/debian-packages"
  install_kind_base "$root"
  cp "$cache/debian-packages" "$root/kind/debian-packages"
  install_additions "$root"
  echo "writing the runtime's base specification"
  in_root "$root" bash -euc "set -o pipefail; ctr oci spec |
    jq '.hooks.createContainer[.hooks.createContainer | length] |= . + {path: \"/kind/bin/mount-product-files.sh\"} | del(.process.rlimits)' \
    >/etc/containerd/cri-base.json; containerd --version; runc --version; kubeadm version -o short"
  echo "importing the component images"
  import_images "$root"
  # every node gets its own
  : >"$root/etc/machine-id"
  rm -f "$root/var/lib/dbus/machine-id"
  mv "$root" "$cache/node"
}

# A docker-archive with one layer: what "docker load" and "podman load" both take.
build_archive() {
  local work=$cache/work/archive identity config
  rm -rf "$work" "$cache/node-image.tar"
  mkdir -p "$work"
  echo "packing the root"
  tar --sort=name --numeric-owner --xattrs --xattrs-include='*' --format=posix -C "$cache/node" -cf "$work/layer.tar" .
  config=$(jq -n --arg diff "sha256:$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)" --arg now "$(date -u +%FT%TZ)" '{
    architecture: "amd64", os: "linux", created: $now,
    config: { Entrypoint: ["/usr/local/bin/entrypoint", "/sbin/init"], Env: ["container=docker",
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], StopSignal: "SIGRTMIN+3" },
    rootfs: { type: "layers", diff_ids: [$diff] } }')
  printf '%s' "$config" >"$work/config.json"
  identity=$(sha256sum <"$work/config.json" | cut -d' ' -f1)
  mv "$work/config.json" "$work/$identity.json"
  jq -n --arg config "$identity.json" --arg tag "$NODE_IMAGE" \
    '[{Config: $config, RepoTags: [$tag], Layers: ["layer.tar"]}]' >"$work/manifest.json"
  tar -C "$work" -cf "$cache/node-image.tar.new" manifest.json "$identity.json" layer.tar
  rm -rf "$work"
  mv "$cache/node-image.tar.new" "$cache/node-image.tar"
  echo "$identity" >"$cache/node-image.id"
}
