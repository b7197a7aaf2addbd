#!/usr/bin/env bash
# Installs the operator with its chart, after Vault was set up for it. `make
# install` prepares cluster, images and tools first. More `helm` arguments may
# follow, for tests: install.sh --set concurrency=1
set -euo pipefail
cd "$(dirname "$0")"
given=${VAULT_ADDR:-}
. lib/common.sh
# shellcheck source=/dev/null
. "$DEV/vault.env"

NAMESPACE=servicedb-system
# Vault's address for pods: ours by its Service; your own Vault by the address you set.
address=https://vault.vault.svc:8200
[[ -z ${CONTEXT:-} || -z $given ]] || address=$given

# The only use of Vault's root token for the operator: it gets a role and a
# narrow policy, never the token.
vault_setup() {
  CLUSTER_ID=dev OPERATOR_NAMESPACE=$NAMESPACE OPERATOR_SERVICE_ACCOUNT=servicedb-operator \
    DATABASE_MOUNT=database "$ROOT/manifests/vault-setup.sh"
}

# The keys of the local store, for the pods of databases that are archived to it.
store_keys() {
  how='no local store'
  [[ -s $DEV/store.env ]] || return 0
  # shellcheck source=/dev/null
  . "$DEV/store.env"
  vault kv put -mount=secret backups/main - >/dev/null < <(jq -n --arg id "$ROOT_ACCESS_KEY" --arg key "$ROOT_SECRET_KEY" \
    '{"access-key-id": $id, "secret-access-key": $key}')
  how=written
}

# The tag stays the same when the binary changes, so the operator's pod has an
# annotation with its image; it restarts only if that changes.
image_id() {
  [[ -z ${CONTEXT:-} ]] || return 0
  ctr -a "$RUN/$NODE/containerd.sock" -n k8s.io images ls "name==$IMAGE_REPOSITORY/operator:$IMAGE_TAG" | grep -o 'servicedb.dev/id=[0-9a-f]*' | cut -d= -f2
}

chart() {
  kubectl apply --server-side -f - <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: $NAMESPACE, labels: {pod-security.kubernetes.io/enforce: restricted}}
YAML
  local -a set=(
    --set "image.repository=$IMAGE_REPOSITORY/operator,image.tag=$IMAGE_TAG"
    --set "postgres.images.17=$IMAGE_REPOSITORY/postgres:$IMAGE_TAG,postgres.images.18=$IMAGE_REPOSITORY/postgres:$IMAGE_TAG"
    --set "gateway.image=$IMAGE_REPOSITORY/gateway:$IMAGE_TAG"
    --set "vault.address=$address"
    --set-string "podAnnotations.servicedb\.dev/image=$(image_id)"
  )
  if [[ -s $DEV/store-ca.crt ]]; then
    set+=(--set-file "backup.stores.main.s3.ca=$DEV/store-ca.crt" --set-file "backup.stores.second.s3.ca=$DEV/store-ca.crt")
  else
    set+=(--set backup.stores=null)
  fi
  [[ -z ${VAULT_CACERT:-} ]] || set+=(--set-file "vault.ca=$VAULT_CACERT")
  # An interrupted upgrade leaves its release "pending", a refused uninstall "uninstalling", and
  # either would refuse all further ones; only its record must be removed.
  kubectl -n $NAMESPACE delete secret -l 'owner=helm,name=servicedb,status in (pending-install,pending-upgrade,pending-rollback,uninstalling)' --ignore-not-found
  # Tests may have applied the CRD before.
  helm upgrade --install servicedb "$ROOT/charts/servicedb" --take-ownership --force-conflicts --namespace $NAMESPACE -f values.yaml "${set[@]}" "$@"
  kubectl -n $NAMESPACE rollout status deployment/servicedb-operator --timeout=120s
}

step "Vault's set-up for the operator" vault_setup
step "the store's keys in Vault" store_keys
step "operator by Helm" chart "$@"
