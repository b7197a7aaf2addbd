#!/usr/bin/env bash
# Tests with database images that the cluster does not have otherwise: each takes some minutes to build.
#   test-image.sh            all
#   test-image.sh trixie     a database moves from an image on another release of Debian to the present one: its data, the
#                            order of text and its extensions stay, and indexes whose collations have another version are
#                            named. The image on trixie (Patroni 4.0, other versions of glibc and ICU) has the present program
#   test-image.sh postgis    PostGIS through migrations, a backup, a major upgrade and its own update
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh

[[ -z ${CONTEXT:-} ]] || fail "only on the local cluster, into whose nodes the images are loaded"
export FORMER_IMAGE=$IMAGE_REPOSITORY/postgres:trixie POSTGIS_IMAGE=$IMAGE_REPOSITORY/postgres-postgis:$IMAGE_TAG
export CARGO_TARGET_DIR=$ROOT/target RUST_BACKTRACE=0
(($#)) || set -- trixie postgis
for image in "$@"; do
  case $image in
  trixie) test=rollout::a_database_moves_to_an_image_with_another_base ;;
  postgis) test=postgis::a_database_with_postgis_is_migrated_checked_and_upgraded ;;
  *) fail "no image $image: trixie, postgis" ;;
  esac
  ./images.sh "postgres-$image"
  (cd "$ROOT" && cargo test --locked --test e2e -- --ignored --exact "$test" --nocapture)
done
