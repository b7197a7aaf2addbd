#!/usr/bin/env bash
# The command line tools, in target/dev/bin. kubectl comes with the cluster's
# program; with an existing cluster the machine's own is used.
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh

if ! command -v kubectl >/dev/null; then ./build.sh kubernetes; fi
./build.sh helm vault

# kubectl finds its plugins by name on the PATH.
plugin() {
  how='not built yet'
  rm -f "$BIN/kubectl-servicedb"
  local program=$ROOT/target/programs/kubectl-servicedb
  [[ -x $program ]] || return 0
  ln -sfn "$program" "$BIN/kubectl-servicedb"
  how=linked
}
step "kubectl-servicedb" plugin
