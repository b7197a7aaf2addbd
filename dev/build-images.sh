#!/usr/bin/env bash
# The project's own images: cargo builds the binary, the Dockerfile takes it.
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh

command -v cargo >/dev/null || fail "Rust is needed: cargo is not on the PATH"
# Into this folder whatever CARGO_TARGET_DIR says: the images take it from there.
cargo_build() { cargo build --release --locked --manifest-path "$ROOT/Cargo.toml" --target-dir "$ROOT/target"; how=built; }
echo "    cargo build --release: minutes, if anything has changed"
step "cargo build --release" cargo_build

if [[ -n ${CONTEXT:-} ]]; then
  # A cluster of yours pulls images from a registry of yours.
  echo "existing cluster: push $IMAGE_REPOSITORY/operator:$IMAGE_TAG and $IMAGE_REPOSITORY/postgres:$IMAGE_TAG to where it can pull them (docker build --target operator|postgres .)"
  exit 0
fi
lock
./images.sh operator postgres client
