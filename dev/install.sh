#!/usr/bin/env bash
# Installs the operator by its chart, after Vault was set up for it. `make
# install` brings cluster, images and tools first. More `helm` arguments may
# follow, for tests: install.sh --set concurrency=1
set -euo pipefail
cd "$(dirname "$0")"
given=${VAULT_ADDR:-}
. lib/common.sh
# shellcheck source=/dev/null
. "$DEV/vault.env"

NAMESPACE=servicedb-system
# As pods reach Vault: ours by its Service; a Vault of yours by the address you gave.
address=https://vault.vault.svc:8200
[[ -z ${CONTEXT:-} || -z $given ]] || address=$given

# The only moment that Vault's root token is used for the operator: it gets a
# role and a narrow policy, never the token.
vault_setup() {
  CLUSTER_ID=dev OPERATOR_NAMESPACE=$NAMESPACE OPERATOR_SERVICE_ACCOUNT=servicedb-operator "$ROOT/manifests/vault-setup.sh"
}

# The tag stays the same when the binary changes, so the operator's pod is told
# which image it is of; it restarts then, and only then.
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
    --set "postgres.images.17=$IMAGE_REPOSITORY/postgres:$IMAGE_TAG"
    --set "vault.address=$address"
    --set-string "podAnnotations.servicedb\.dev/image=$(image_id)"
  )
  [[ -z ${VAULT_CACERT:-} ]] || set+=(--set-file "vault.ca=$VAULT_CACERT")
  # A broken-off upgrade leaves its release "pending", a refused uninstall "uninstalling", and
  # either would refuse all that follow; its record is all that has to go.
  kubectl -n $NAMESPACE delete secret -l 'owner=helm,name=servicedb,status in (pending-install,pending-upgrade,pending-rollback,uninstalling)' --ignore-not-found
  # Tests may have put the CRD there before.
  helm upgrade --install servicedb "$ROOT/charts/servicedb" --take-ownership --force-conflicts --namespace $NAMESPACE -f values.yaml "${set[@]}" "$@"
  kubectl -n $NAMESPACE rollout status deployment/servicedb-operator --timeout=120s
}

step "Vault's set-up for the operator" vault_setup
step "operator by Helm" chart "$@"
