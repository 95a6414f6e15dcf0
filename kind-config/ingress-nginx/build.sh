#!/bin/bash
# Builds an image of ingress-nginx' own controller for machines that reach no container registry:
# the controller from its Go module, its template and its Lua, in Debian's nginx with Debian's Lua.
#
#   build.sh ARCHIVE.tar        writes an OCI archive for `kind load image-archive`
#
# It is not the published image, and says so in its version (…-gatelab). What is different:
#  * nginx is Debian's 1.22 (the published image has 1.25 with OpenResty's patches), so `http2 on` is
#    taken out of the template: clients speak HTTP/1 to it;
#  * there is no Lua in nginx' stream module, so the template's stream block is taken out, and a
#    server that ignores what it is told listens in its place: no TCP and UDP services;
#  * modules are dynamic, so the template loads them;
#  * lua/roundrobin.lua stands in for lua-resty-balancer's round robin, which chooses the pod of every
#    request; lua/unavailable.lua for libraries that no plain Ingress needs.
set -Eeuo pipefail
trap 'echo "${BASH_SOURCE[0]##*/}: line $LINENO failed" >&2' ERR

# The only version of the module that the Go module proxy serves; between 1.11.0 and 1.12.
MODULE=k8s.io/ingress-nginx
VERSION=v0.0.0-20240708192948-52c50467d67d
RELEASE=v1.11.0-20240708-gatelab
IMAGE=localhost/gatelab/ingress-nginx-controller:$RELEASE
PACKAGES=nginx-light,libnginx-mod-http-lua,libnginx-mod-http-headers-more-filter,lua-resty-core,lua-resty-lrucache,lua-cjson
PACKAGES+=,lua-nginx-cookie,lua-nginx-dns,libcap2-bin,ca-certificates

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gatelab/ingress-nginx
archive=$(realpath "${1:?usage: build.sh ARCHIVE.tar}")
engine=${KIND_EXPERIMENTAL_PROVIDER:-podman}
[ "$(id -u)" = 0 ] || { echo "build.sh: must run as root: debootstrap needs chroot and file capabilities" >&2; exit 1; }
for program in go debootstrap jq "$engine"; do
  command -v "$program" >/dev/null || { echo "build.sh: $program is missing" >&2; exit 1; }
done
mkdir -p "$cache"

# ------------------------------------------------------------ the controller

export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS='-mod=readonly -buildvcs=false'
source=$cache/source
if [ ! -x "$cache/bin/nginx" ]; then
  echo "ingress-nginx: compiling $MODULE@$VERSION"
  rm -rf "$source"
  folder=$(cd "$cache" && GOFLAGS=-mod=mod go mod download -json "$MODULE@$VERSION" | jq -r .Dir)
  # In a copy of its own, so that its own go.sum pins and verifies everything.
  cp -r "$folder" "$source"
  chmod -R u+w "$source"
  rm -f "$source"/go.work*
  (cd "$source" && go build -trimpath -o "$cache/bin/" \
    -ldflags="-w -s -X $MODULE/version.RELEASE=$RELEASE -X $MODULE/version.COMMIT=${VERSION##*-} -X $MODULE/version.REPO=$MODULE" \
    ./cmd/nginx ./cmd/dbg ./cmd/waitshutdown)
fi

# ------------------------------------------------------------ nginx and Lua

if [ ! -e "$cache/debian.done" ]; then
  echo "ingress-nginx: installing nginx and Lua into $cache/debian"
  rm -rf "$cache/debian"
  debootstrap --variant=minbase --include="$PACKAGES" bookworm "$cache/debian" >"$cache/debootstrap.log" 2>&1 ||
    { tail -20 "$cache/debootstrap.log" >&2; exit 1; }
  touch "$cache/debian.done"
fi

# ------------------------------------------------------------ put together (rootfs/Dockerfile)

echo "ingress-nginx: packing $IMAGE"
root=$cache/root
rm -rf "$root"
cp -a "$cache/debian" "$root"
rm -rf "$root"/etc/nginx "$root"/var/cache/apt "$root"/var/lib/apt "$root"/usr/share/{doc,man,locale} "$root"/var/log/*
cp -r "$source/rootfs/etc/nginx" "$root/etc/nginx"
cp "$cache/debian/etc/nginx/mime.types" "$root/etc/nginx/"
install -m 0755 "$cache/bin/nginx" "$root/nginx-ingress-controller"
install -m 0755 "$cache/bin/dbg" "$root/dbg"
install -m 0755 "$cache/bin/waitshutdown" "$root/wait-shutdown"
ln -sf ../sbin/nginx "$root/usr/bin/nginx"

template=$root/etc/nginx/template/nginx.tmpl
modules=$(printf 'load_module /usr/lib/nginx/modules/%s.so;\n' ndk_http_module ngx_http_lua_module ngx_http_headers_more_filter_module)
awk -v modules="$modules" '
  /^pid / { print; print modules; next }
  /^ *http2 on;/ { next }
  # The controller hands its TCP and UDP services over at every start, if only that there are none.
  /# default server, used for NGINX healthcheck/ {
    print "    server { listen 127.0.0.1:{{ .StreamPort }}; access_log off; return 204; }"
  }
  /^stream \{/ { stream = 1 }
  stream { if (/^}/) { stream = 0 } next }
  { print }' "$template" >"$template.new"
mv "$template.new" "$template"

libraries=$root/etc/nginx/lua/resty
mkdir -p "$libraries"
cp "$here/lua/roundrobin.lua" "$libraries/"
# Debian has these under other names.
mkdir -p "$libraries/dns"
echo 'return require("nginx.cookie")' >"$libraries/cookie.lua"
echo 'return require("nginx.dns.resolver")' >"$libraries/dns/resolver.lua"
for name in chash global_throttle http ipmatcher lock; do
  [ -e "$root/usr/share/lua/5.1/resty/$name.lua" ] || cp "$here/lua/unavailable.lua" "$libraries/$name.lua"
done

# The published image's user; Debian's www-data is 33.
sed -i 's/^www-data:x:33:33:/www-data:x:101:82:/' "$root/etc/passwd"
sed -i 's/^www-data:x:33:/www-data:x:82:/' "$root/etc/group"
mkdir -p "$root"/etc/ingress-controller/{ssl,auth,geoip,telemetry} "$root"/var/log/nginx "$root"/tmp/nginx "$root"/var/lib/nginx
ln -sf /dev/stdout "$root/var/log/nginx/access.log"
ln -sf /dev/stderr "$root/var/log/nginx/error.log"
chown -R 101:82 "$root"/etc/nginx "$root"/etc/ingress-controller "$root"/var/log "$root"/tmp/nginx "$root"/var/lib/nginx
for program in /nginx-ingress-controller /usr/sbin/nginx; do
  chroot "$root" setcap cap_net_bind_service=+ep "$program"
done

tar --xattrs --xattrs-include=security.capability --numeric-owner -C "$root" -c . |
  "$engine" import --change 'USER www-data' --change 'WORKDIR /etc/nginx' \
    --change 'CMD ["/nginx-ingress-controller"]' \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$IMAGE" >/dev/null
rm -f "$archive"
if [ "$engine" = podman ]; then
  podman save --format oci-archive -o "$archive" "$IMAGE"
else
  docker save -o "$archive" "$IMAGE"
fi
rm -rf "$root"
echo "$IMAGE is in $archive ($(du -h "$archive" | cut -f1))"
