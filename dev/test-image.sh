#!/usr/bin/env bash
# Tests the rollout of a database from an image on another release of Debian to the
# present one: its data, the order of text and its extensions stay, and indexes whose
# collations have another version are named. Builds the image on trixie (Patroni 4.0,
# other versions of glibc and ICU) with the present program, in some minutes.
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh

[[ -z ${CONTEXT:-} ]] || fail "only on the local cluster, into whose nodes the image is loaded"
./images.sh postgres-trixie
export FORMER_IMAGE=$IMAGE_REPOSITORY/postgres:trixie
export CARGO_TARGET_DIR=$ROOT/target RUST_BACKTRACE=0
cd "$ROOT"
cargo test --locked --test e2e -- --ignored --exact rollout::a_database_moves_to_an_image_with_another_base --nocapture
