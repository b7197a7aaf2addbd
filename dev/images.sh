#!/usr/bin/env bash
# Builds images without a registry or a daemon and loads them into the
# cluster's containerd: images.sh pause|vault|client|operator|postgres|example-… …
# `images.sh nodes` gives every node what the first one has.
# What is unchanged is neither built nor loaded again.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

# Storage of our own: the machine's other images stay out of it, and it goes
# with `make distclean`. chroot isolation needs no kernel features; the
# host's network is where Debian's packages come from.
STORE=$CACHE/buildah
BASE_IMAGE=localhost/debian:trixie-slim
bud() { buildah --root "$STORE/root" --runroot "$STORE/run" bud --isolation chroot --network host --layers "$@"; }
b() { buildah --root "$STORE/root" --runroot "$STORE/run" "$@"; }

# Debian trixie from Debian's own packages, as debian:trixie-slim elsewhere.
base() {
  how=reused
  b inspect --type image "$BASE_IMAGE" >/dev/null 2>&1 && return
  mkdir -p "$CACHE" "$STORE"
  if [[ ! -s $CACHE/base.tar ]]; then
    # Without our descriptors: mmdebstrap's own would get two-digit numbers,
    # which dash cannot redirect to ("Bad fd number").
    mmdebstrap --variant=minbase --include=ca-certificates \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      trixie "$CACHE/base.new.tar" 7>&- 8>&- 9>&-
    mv "$CACHE/base.new.tar" "$CACHE/base.tar"
  fi
  local c
  c=$(b from scratch)
  b add "$c" "$CACHE/base.tar" /
  b config --cmd bash "$c"
  b commit --rm "$c" "$BASE_IMAGE"
  rm -f "$CACHE/base.tar"
  how=built
}

# The program that is copied into an image lies alone in its context: buildah
# would hash all of target/dev/bin otherwise.
context() {
  local dir=$CACHE/context/$1
  mkdir -p "$dir"
  case $1 in
  pause) gcc -Os -static -s -o "$dir/pause" "$ROOT/dev/images/pause.c" ;;
  vault) ln -f "$BIN/vault" "$dir/vault" ;;
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
  operator | postgres)
    [[ -x $ROOT/target/programs/servicedb ]] || fail "target/programs/servicedb is missing: make images builds it"
    bud --build-arg "BASE=$BASE_IMAGE" --build-arg PROGRAM=target/programs/servicedb --target "$name" -f "$ROOT/Dockerfile" -t "$tag" "$ROOT"
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

# Into every node's containerd, unless it has that very image. Layers are sent
# uncompressed (gzip both ways cost most of the time), and only those that
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
    # Without the left-out layers an import fails if containerd removed one
    # meanwhile; then all of it is sent.
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

# A node that joins later must have the images that others were given before.
# From the first node, not from the build's cache, which may be gone.
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
  case $name in operator | postgres | client | example-*) step "base image" base ;; esac
  if [[ $name == nodes ]]; then step "images on every node" copy; else step "image $name" image "$name"; fi
done
