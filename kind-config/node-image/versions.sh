# shellcheck shell=bash disable=SC2034
# What the node image is made of. The Go components are pinned here and, with all
# their dependencies and checksums, in modules/*/go.{mod,sum}.
KUBERNETES_VERSION=v1.34.4
ETCD_VERSION=v3.6.5
COREDNS_VERSION=v1.12.1
KIND_VERSION=v0.33.0

# The tags kubeadm $KUBERNETES_VERSION and containerd ask for. These are only the
# names that Kubernetes gives its images: nothing is ever pulled from there, the
# images are made here and imported under these names.
IMAGE_PREFIX=registry.k8s.io
ETCD_TAG=3.6.5-0
PAUSE_TAGS="3.10 3.10.1"

# The node's system: Debian's own containerd, runc and CNI plugins. Debian keeps
# only the newest build of a package, so these versions cannot be pinned; the
# image records what it got in /kind/debian-packages.
DEBIAN_SUITE=bookworm
DEBIAN_PACKAGES=(
  # what kind's own base image has (images/base/Dockerfile of kind)
  systemd dbus conntrack iptables nftables iproute2 ethtool util-linux mount kmod
  libseccomp2 pigz e2fsprogs bash ca-certificates curl jq procps
  # what kind builds from source instead
  containerd runc containernetworking-plugins
  # kubectl port-forward and hands-on debugging inside a node
  socat iputils-ping netbase
  # becomes an image of its own: a pod to look around with (BUSYBOX_IMAGE)
  busybox
)

# The only image in the node that Kubernetes does not need: a shell, wget, nc and
# nslookup for pods, since nothing like it can be pulled.
BUSYBOX_IMAGE=localhost/gatelab/busybox:$DEBIAN_SUITE

# A name with a dot or "localhost" in front: Docker and Podman then agree on it.
NODE_IMAGE=localhost/gatelab/kind-node:$KUBERNETES_VERSION
