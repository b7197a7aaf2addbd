#!/usr/bin/env bash
# An object store for backups in the local cluster: keys, certificates, manifests.
# install.sh writes its keys into Vault, and its address into the chart's values.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/process.sh"
. "$(dirname "$0")/lib/server-certificate.sh"

KEYS=$STATE/store
STORE_IMAGE=$IMAGE_REPOSITORY/versitygw:$IMAGE_TAG

certificates() {
  how=reused
  mkdir -p "$KEYS"
  chmod 700 "$KEYS"
  if [[ ! -e $KEYS/tls.crt ]]; then
    umask 077
    printf 'ROOT_ACCESS_KEY=%s\nROOT_SECRET_KEY=%s\n' "dev-$(openssl rand -hex 6)" "$(openssl rand -hex 20)" >"$KEYS/keys.env"
    server_certificate store s3.store.svc DNS:s3.store.svc,DNS:s3.store.svc.cluster.local
    how=made
  fi
  install -m 644 "$KEYS/ca.crt" "$DEV/store-ca.crt"
  install -m 600 "$KEYS/keys.env" "$DEV/store.env"
}

manifests() {
  local config
  config=$(fingerprint "$ROOT/dev/store.yaml" "$KEYS/tls.crt" "$KEYS/keys.env" --)
  sed -e "s|\$STORE_IMAGE|$STORE_IMAGE|; s|\$CONFIG_HASH|$config|" "$ROOT/dev/store.yaml" | kubectl apply --server-side --force-conflicts -f -
  kubectl -n store create secret tls store-tls --cert="$KEYS/tls.crt" --key="$KEYS/tls.key" --dry-run=client -o yaml |
    kubectl apply --server-side --force-conflicts -f -
  kubectl -n store create secret generic store-keys --from-env-file="$KEYS/keys.env" --dry-run=client -o yaml |
    kubectl apply --server-side --force-conflicts -f -
  kubectl -n store rollout status statefulset/store --timeout=120s
}

step "the store's certificates" certificates
step "store for backups" manifests
