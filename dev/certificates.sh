#!/usr/bin/env bash
# The cluster's PKI and the components' kubeconfigs, created once by kubeadm.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

kubeadm_config() {
  cat <<YAML
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: $NODE_IP, bindPort: 6443}
nodeRegistration: {name: $NODE, criSocket: "unix://$RUN/$NODE/containerd.sock"}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: servicedb-dev
kubernetesVersion: v$KUBERNETES_VERSION
certificatesDir: $STATE/pki
encryptionAlgorithm: ECDSA-P256
# A development cluster must not expire.
caCertificateValidityPeriod: 87600h0m0s
certificateValidityPeriod: 87600h0m0s
networking: {podSubnet: $POD_NET, serviceSubnet: $SERVICE_NET, dnsDomain: cluster.local}
apiServer: {certSANs: ["127.0.0.1", localhost]}
YAML
}

# user FILE NAME [GROUP]: a kubeconfig with a client certificate of its own.
user() {
  local file=$1 name=$2
  [[ -s $STATE/kubeconfigs/$file ]] && return
  kubeadm kubeconfig user --config "$STATE/kubeadm.yaml" --client-name "$name" ${3:+--org "$3"} --validity-period 87600h >"$STATE/kubeconfigs/$file.new"
  mv "$STATE/kubeconfigs/$file.new" "$STATE/kubeconfigs/$file"
}

make_all() {
  umask 077
  mkdir -p "$STATE/pki" "$STATE/kubeconfigs"
  how=reused
  if [[ ! -e $STATE/pki/.complete ]]; then
    how=made
    kubeadm_config >"$STATE/kubeadm.yaml"
    kubeadm init phase certs all --config "$STATE/kubeadm.yaml"
    kubeadm init phase kubeconfig all --config "$STATE/kubeadm.yaml" --kubeconfig-dir "$STATE/kubeconfigs"
    user kube-proxy.conf system:kube-proxy
    user coredns.conf servicedb-dev:coredns
    user provisioner.conf servicedb-dev:provisioner
    touch "$STATE/pki/.complete"
  fi
  # Nodes may come later, and so did this one.
  local node
  user kube-router.conf servicedb-dev:kube-router
  for node in "${NODE_NAMES[@]:1}"; do user "kubelet-$node.conf" "system:node:$node" system:nodes; done
  # super-admin is in system:masters: it works before any RBAC object exists.
  install -m 600 "$STATE/kubeconfigs/super-admin.conf" "$KUBECONFIG.new"
  local context
  context=$(kubectl --kubeconfig "$KUBECONFIG.new" config current-context)
  kubectl --kubeconfig "$KUBECONFIG.new" config rename-context "$context" servicedb-dev
  mv -f "$KUBECONFIG.new" "$KUBECONFIG"
}
step certificates make_all
