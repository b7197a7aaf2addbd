#!/usr/bin/env bash
# Builds images without a registry or a daemon and loads them into the
# cluster's containerd: images.sh pause|vault|versitygw|client|operator|postgres|postgres-postgis|gateway|postgres-trixie|example-… …
# `images.sh nodes` copies the first node's images to every node.
# Unchanged images are neither built nor loaded again.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

# Separate storage: it does not contain the machine's other images, and is removed
# with `make distclean`. chroot isolation needs no kernel features; the host's
# network is needed for Debian's packages.
STORE=$CACHE/buildah
BASE_IMAGE=localhost/debian:forky-slim
# The base of a database image on another release, for a test.
FORMER_BASE=localhost/debian:trixie-slim
bud() { buildah --root "$STORE/root" --runroot "$STORE/run" bud --isolation chroot --network host --layers "$@"; }
b() { buildah --root "$STORE/root" --runroot "$STORE/run" "$@"; }

# base SUITE: a release of Debian from its own packages, as debian:SUITE-slim
# elsewhere. The Release file of testing is valid for a week, and a mirror may be
# older: the signature is checked, the date is not.
base() {
  local image=localhost/debian:$1-slim
  how=reused
  b inspect --type image "$image" >/dev/null 2>&1 && return
  mkdir -p "$CACHE" "$STORE"
  if [[ ! -s $CACHE/base-$1.tar ]]; then
    # Without our descriptors: mmdebstrap's own would get two-digit numbers,
    # which dash cannot redirect to ("Bad fd number").
    mmdebstrap --variant=minbase --include=ca-certificates \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --aptopt='Acquire::Check-Valid-Until "false"' "$1" "$CACHE/base.new.tar" 7>&- 8>&- 9>&-
    mv "$CACHE/base.new.tar" "$CACHE/base-$1.tar"
  fi
  local c
  c=$(b from scratch)
  b add "$c" "$CACHE/base-$1.tar" /
  b config --cmd bash "$c"
  b commit --rm "$c" "$image"
  rm -f "$CACHE/base-$1.tar"
  how=built
}

# The context contains only the program that is copied into the image: otherwise
# buildah would hash all of target/dev/bin.
context() {
  local dir=$CACHE/context/$1
  mkdir -p "$dir"
  case $1 in
  pause) gcc -Os -static -s -o "$dir/pause" "$ROOT/dev/images/pause.c" ;;
  vault | versitygw) ln -f "$BIN/$1" "$dir/$1" ;;
  example-goose)
    mkdir -p "$dir/bin"
    ln -f "$BIN/goose" "$dir/bin/goose"
    rm -rf "$dir/goose"
    cp -r "$ROOT/examples/migration-images/goose" "$dir/goose"
    ;;
  esac
  echo "$dir"
}

image() {
  local name=$1 tag=$IMAGE_REPOSITORY/$1:$IMAGE_TAG
  case $name in
  operator | postgres | postgres-postgis)
    [[ -x $ROOT/target/programs/servicedb ]] || fail "target/programs/servicedb is missing: make images builds it"
    bud --build-arg "BASE=$BASE_IMAGE" --build-arg PROGRAM=target/programs/servicedb --target "$name" -f "$ROOT/Dockerfile" -t "$tag" "$ROOT"
    ;;
  gateway)
    [[ -x $ROOT/target/programs/servicedb-gateway ]] || fail "target/programs/servicedb-gateway is missing: make images builds it"
    bud --build-arg "BASE=$BASE_IMAGE" --build-arg GATEWAY=target/programs/servicedb-gateway --target gateway -f "$ROOT/Dockerfile" -t "$tag" "$ROOT"
    ;;
  postgres-trixie)
    tag=$IMAGE_REPOSITORY/postgres:trixie
    bud --build-arg "BASE=$FORMER_BASE" --build-arg SERVERS=17 --build-arg PROGRAM=target/programs/servicedb --target postgres \
      -f "$ROOT/Dockerfile" -t "$tag" "$ROOT"
    ;;
  example-goose) bud -f "$ROOT/examples/migration-images/goose/Dockerfile" -t "$tag" "$(context "$name")" ;;
  example-*)
    local examples=$ROOT/examples/migration-images
    bud --build-arg "BASE=$BASE_IMAGE" -f "$examples/${name#example-}/Dockerfile" -t "$tag" "$examples"
    ;;
  client) bud --build-arg "BASE=$BASE_IMAGE" -f "$ROOT/dev/images/client.Dockerfile" -t "$tag" "$(context client)" ;;
  *) bud -f "$ROOT/dev/images/$name.Dockerfile" -t "$tag" "$(context "$name")" ;;
  esac
  load "$tag"
}

# Loads into every node's containerd, unless it has exactly that image. Layers are sent
# uncompressed (gzip both ways took most of the time), and only those that
# containerd lacks: with a new binary that is the last one.
load() {
  local tag=$1 id node pushed=
  # The id is the digest of the image's configuration; a label remembers it.
  id=$(b inspect --type image --format '{{.FromImageID}}' "$tag")
  how=unchanged
  for node in "${NODE_NAMES[@]}"; do
    ctr=(ctr -a "$RUN/$node/containerd.sock" -n k8s.io)
    [[ $("${ctr[@]}" images ls "name==$tag") != *"servicedb.dev/id=$id"* ]] || continue
    if [[ -z $pushed ]]; then
      rm -rf "$CACHE/push"
      b push --quiet --disable-compression "$tag" "dir:$CACHE/push"
      pushed=1
    fi
    # An import without the omitted layers fails if containerd removed one
    # meanwhile; then all layers are sent.
    archive "$tag" missing | "${ctr[@]}" images import - || archive "$tag" all | "${ctr[@]}" images import -
    "${ctr[@]}" images label "$tag" "servicedb.dev/id=$id"
    how=loaded
  done
  rm -rf "$CACHE/push" "$CACHE/oci"
}

# archive TAG missing|all: an OCI archive of what was pushed, to standard output.
archive() {
  local dir=$CACHE/push oci=$CACHE/oci digest manifest have=
  [[ $2 == all ]] || have=$("${ctr[@]}" content ls -q)
  rm -rf "$oci"
  mkdir -p "$oci/blobs/sha256"
  manifest=$(sha256sum <"$dir/manifest.json" | cut -d' ' -f1)
  ln "$dir/manifest.json" "$oci/blobs/sha256/$manifest"
  for digest in $(jq -r '(.config, .layers[]).digest' "$dir/manifest.json"); do
    [[ $have == *"$digest"* ]] || ln "$dir/${digest#sha256:}" "$oci/blobs/sha256/${digest#sha256:}"
  done
  echo '{"imageLayoutVersion": "1.0.0"}' >"$oci/oci-layout"
  jq -n --arg digest "sha256:$manifest" --arg tag "$1" --argjson size "$(stat -c %s "$dir/manifest.json")" \
    --slurpfile m "$dir/manifest.json" \
    '{schemaVersion: 2, manifests: [{mediaType: $m[0].mediaType, digest: $digest, size: $size, annotations: {"io.containerd.image.name": $tag}}]}' >"$oci/index.json"
  tar -C "$oci" -cf - .
}

# A node that joins later must have the images that were loaded into others before.
# They are copied from the first node, not from the build's cache, which may be gone.
copy() {
  local tag id node first=(ctr -a "$RUN/$NODE/containerd.sock" -n k8s.io)
  how=unchanged
  "${first[@]}" images ls | awk 'match($0, /servicedb.dev\/id=[0-9a-f]+/) {print $1, substr($0, RSTART + 17, RLENGTH - 17)}' >"$CACHE/images"
  for node in "${NODE_NAMES[@]:1}"; do
    ctr=(ctr -a "$RUN/$node/containerd.sock" -n k8s.io)
    while read -r tag id; do
      [[ $("${ctr[@]}" images ls "name==$tag") != *"servicedb.dev/id=$id"* ]] || continue
      "${first[@]}" images export - "$tag" | "${ctr[@]}" images import -
      "${ctr[@]}" images label "$tag" "servicedb.dev/id=$id"
      how=copied
    done <"$CACHE/images"
  done
  rm -f "$CACHE/images"
}

. "$(dirname "$0")/lib/process.sh"
running "$NODE-containerd" || fail "the local cluster does not run: make cluster"
for name in "$@"; do
  case $name in
  postgres-trixie) step "base image" base trixie ;;
  operator | postgres | postgres-postgis | client | example-*) step "base image" base forky ;;
  esac
  if [[ $name == nodes ]]; then step "images on every node" copy; else step "image $name" image "$name"; fi
done
