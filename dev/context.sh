#!/usr/bin/env bash
# CONTEXT=<name>: uses an existing cluster. Writes target/dev/kubeconfig for it and
# installs Vault there, unless VAULT_ADDR names an existing one.
set -euo pipefail
cd "$(dirname "$0")"
# The caller's kubeconfig, before common.sh sets ours.
caller=${KUBECONFIG:-$HOME/.kube/config}
. lib/common.sh
mkdir -p "$DEV" "$LOG" "$RUN"

command -v kubectl >/dev/null || ./build.sh kubernetes
take_over_kubeconfig() {
  umask 077
  KUBECONFIG=$caller kubectl config view --context "$CONTEXT" --minify --flatten >"$DEV/kubeconfig.new"
  mv "$DEV/kubeconfig.new" "$DEV/kubeconfig"
  kubectl version
  how="context $CONTEXT"
}
step "kubeconfig" take_over_kubeconfig

if [[ -n ${VAULT_ADDR:-} ]]; then
  [[ -n ${VAULT_TOKEN:-} ]] || fail "VAULT_ADDR is given, so VAULT_TOKEN must be, too (and VAULT_CACERT, if its CA is private)"
  (
    umask 077
    {
      printf 'export VAULT_ADDR=%q\n' "$VAULT_ADDR"
      printf 'export VAULT_TOKEN=%q\n' "$VAULT_TOKEN"
      [[ -z ${VAULT_CACERT:-} ]] || printf 'export VAULT_CACERT=%q\n' "$VAULT_CACERT"
    } >"$DEV/vault.env"
  )
else
  ./vault.sh
fi
