#!/usr/bin/env bash
# Vault in the cluster: certificates, manifests, initialisation, unsealing.
# After a restart Vault is sealed; running this again unseals it.
#   vault.sh            all steps
#   vault.sh unseal     only the unsealing
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/process.sh"
. "$(dirname "$0")/lib/server-certificate.sh"

# The folder of the keys: with the cluster whose Vault they unseal. For an existing
# cluster they are under target/dev, one folder per context.
if [[ -n ${CONTEXT:-} ]]; then KEYS=$DEV/vault-$CONTEXT; else KEYS=$STATE/vault; fi
VAULT_IMAGE=${VAULT_IMAGE:-$IMAGE_REPOSITORY/vault:$IMAGE_TAG}

certificates() {
  how=reused
  mkdir -p "$KEYS"
  chmod 700 "$KEYS"
  if [[ ! -e $KEYS/tls.crt ]]; then
    umask 077
    server_certificate Vault vault.vault.svc \
      "DNS:vault.vault.svc,DNS:vault.vault.svc.cluster.local,DNS:vault.vault,DNS:vault,DNS:localhost,IP:127.0.0.1,IP:$VAULT_IP"
    how=made
  fi
  install -m 644 "$KEYS/ca.crt" "$DEV/vault-ca.crt"
}

manifests() {
  local cluster_ip="clusterIP: $VAULT_IP" config
  # Another cluster has its own Service range.
  [[ -z ${CONTEXT:-} ]] || cluster_ip=
  config=$(fingerprint "$ROOT/dev/vault.yaml" "$KEYS/tls.crt" --)
  sed -e "s|\$CLUSTER_IP|$cluster_ip|; s|\$VAULT_IMAGE|$VAULT_IMAGE|; s|\$CONFIG_HASH|$config|" "$ROOT/dev/vault.yaml" |
    kubectl apply --server-side --force-conflicts -f -
  kubectl -n vault create secret tls vault-tls --cert="$KEYS/tls.crt" --key="$KEYS/tls.key" --dry-run=client -o yaml |
    kubectl apply --server-side --force-conflicts -f -
  # The authority with which users and pods trust Vault.
  kubectl -n vault create configmap vault-ca --from-file=ca.crt="$KEYS/ca.crt" --dry-run=client -o yaml |
    kubectl apply --server-side --force-conflicts -f -
  wait_for 120 "Vault's pod" pod_runs
  reach
}
pod_runs() { [[ $(kubectl -n vault get pod vault-0 -o 'jsonpath={.status.containerStatuses[0].state.running.startedAt}') ]]; }

# Vault's address for this machine.
reach() {
  if [[ -n ${CONTEXT:-} ]]; then
    export VAULT_ADDR=https://127.0.0.1:18200
    RESTART_ON=$(kubectl -n vault get pod vault-0 -o 'jsonpath={.metadata.uid}') \
      start vault-port-forward "$(command -v kubectl)" -n vault port-forward --address 127.0.0.1 service/vault 18200:8200
  else
    # kube-proxy serves this machine as it serves pods.
    export VAULT_ADDR=https://$VAULT_IP:8200
  fi
  export VAULT_CACERT=$DEV/vault-ca.crt
  wait_for 60 "Vault at $VAULT_ADDR" answers
}
# "Sealed" and "not initialised" are answers, too.
api() { curl -s --max-time 10 --cacert "$VAULT_CACERT" "$@"; }
answers() { api "$VAULT_ADDR/v1/sys/seal-status" | jq -e 'has("sealed")'; }
is() { api "$VAULT_ADDR/v1/sys/seal-status" | jq -e "$1" >/dev/null; }

initialise_and_unseal() {
  reach
  how='unsealed already'
  if is '.initialized | not'; then
    # Saved before any other step: a lost key cannot be requested again.
    # One key is enough if losing it only requires a `make clean`.
    umask 077
    api -X PUT -d '{"secret_shares": 1, "secret_threshold": 1}' "$VAULT_ADDR/v1/sys/init" >"$KEYS/init.json.new"
    jq -e .root_token "$KEYS/init.json.new" >/dev/null
    mv "$KEYS/init.json.new" "$KEYS/init.json"
    how='initialised and unsealed'
  fi
  [[ -s $KEYS/init.json ]] || fail "Vault is initialised, but its keys are not in $KEYS: 'make clean' and start again"
  # Vault may still be opening its storage: retry until it is open.
  if is .sealed; then
    [[ $how == init* ]] || how=unsealed
    wait_for 30 unsealing try_unseal
  fi
  wait_for 30 "Vault's readiness" is_active
  kubectl -n vault wait --for=condition=Ready pod/vault-0 --timeout=30s
  write_env
}
try_unseal() { jq '{key: .keys_base64[0]}' "$KEYS/init.json" | api -X PUT -d @- "$VAULT_ADDR/v1/sys/unseal" | jq -e '.sealed == false'; }
is_active() { api -f "$VAULT_ADDR/v1/sys/health"; }

write_env() {
  umask 077
  install -m 600 "$KEYS/init.json" "$DEV/vault-init.json"
  cat >"$DEV/vault.env.new" <<ENV
# This local Vault's root token: for users and tests, never for the operator.
export VAULT_ADDR=$VAULT_ADDR
export VAULT_TOKEN=$(jq -r .root_token "$KEYS/init.json")
export VAULT_CACERT=$VAULT_CACERT
ENV
  mv "$DEV/vault.env.new" "$DEV/vault.env"
}

if [[ ${1:-all} == all ]]; then
  step "Vault's certificates" certificates
  step "Vault in the cluster" manifests
fi
step "Vault" initialise_and_unseal
