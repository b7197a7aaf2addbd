#!/usr/bin/env bash
# Builds the project's own images: cargo builds the binary, the Dockerfile copies it.
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh

command -v cargo >/dev/null || fail "Rust is needed: cargo is not on the PATH"
# The release build is shipped and measured; the tests use their own build (PROFILE=dev) of all targets: if the programs
# were built alone, their libraries would have other features, and everything would be compiled again.
PROFILE=${PROFILE:-release}
folder=$PROFILE targets=(--bins)
[[ $PROFILE != dev ]] || folder=debug targets=(--all-targets) # cargo's name for the folder
# Into this folder regardless of CARGO_TARGET_DIR, and from there to the folder for images and users.
programs() {
  cargo build --profile "$PROFILE" --locked "${targets[@]}" --manifest-path "$ROOT/Cargo.toml" --target-dir "$ROOT/target"
  # In a build of its own: in one build, the libraries would have the features that either needs.
  cargo build --profile "$PROFILE" --locked -p servicedb-gateway --manifest-path "$ROOT/Cargo.toml" --target-dir "$ROOT/target"
  mkdir -p "$ROOT/target/programs"
  local program
  for program in servicedb kubectl-servicedb servicedb-gateway; do
    # Copied and renamed: a running program keeps its file.
    strip -o "$ROOT/target/programs/.$program.new" "$ROOT/target/$folder/$program"
    mv -f "$ROOT/target/programs/.$program.new" "$ROOT/target/programs/$program"
  done
  echo "$PROFILE" >"$ROOT/target/programs/profile"
  how=built
}
echo "    cargo build --profile $PROFILE: minutes, if anything has changed"
step "cargo build --profile $PROFILE" programs

if [[ -n ${CONTEXT:-} ]]; then
  # An existing cluster pulls images from a registry of the user.
  echo "existing cluster: push $IMAGE_REPOSITORY/operator:$IMAGE_TAG, $IMAGE_REPOSITORY/postgres:$IMAGE_TAG and $IMAGE_REPOSITORY/gateway:$IMAGE_TAG to a registry from which it can pull them (docker build --build-arg PROGRAM=target/programs/servicedb --build-arg GATEWAY=target/programs/servicedb-gateway --target operator|postgres|gateway .)"
  exit 0
fi
lock
./images.sh operator postgres gateway client
