#!/usr/bin/env bash
# etcd, API server, controller manager and scheduler as processes of this machine.
#   control-plane.sh              all, and the cluster's base objects
#   control-plane.sh apiserver    only the API server
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/process.sh"

PKI=$STATE/pki
CONF=$STATE/kubeconfigs
K=$BIN/kubernetes

etcd() {
  # No fsync: this is test data, and a shared disk would slow down every write.
  start etcd "$K" etcd --name=dev --data-dir="$STATE/etcd" --unsafe-no-fsync \
    --listen-client-urls=https://127.0.0.1:2379 --advertise-client-urls=https://127.0.0.1:2379 \
    --listen-peer-urls=https://127.0.0.1:2380 --initial-advertise-peer-urls=https://127.0.0.1:2380 \
    --initial-cluster=dev=https://127.0.0.1:2380 \
    --cert-file="$PKI/etcd/server.crt" --key-file="$PKI/etcd/server.key" --client-cert-auth --trusted-ca-file="$PKI/etcd/ca.crt" \
    --peer-cert-file="$PKI/etcd/peer.crt" --peer-key-file="$PKI/etcd/peer.key" --peer-client-cert-auth --peer-trusted-ca-file="$PKI/etcd/ca.crt" \
    --auto-compaction-mode=periodic --auto-compaction-retention=30m --quota-backend-bytes=4294967296 --log-level=warn
  wait_for 30 "etcd" curl -sf --cacert "$PKI/etcd/ca.crt" --cert "$PKI/etcd/healthcheck-client.crt" --key "$PKI/etcd/healthcheck-client.key" https://127.0.0.1:2379/health
}

apiserver() {
  start kube-apiserver "$K" kube-apiserver \
    --advertise-address="$NODE_IP" --bind-address="$NODE_IP" --secure-port=6443 \
    --etcd-servers=https://127.0.0.1:2379 --etcd-cafile="$PKI/etcd/ca.crt" \
    --etcd-certfile="$PKI/apiserver-etcd-client.crt" --etcd-keyfile="$PKI/apiserver-etcd-client.key" \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt" \
    --kubelet-client-certificate="$PKI/apiserver-kubelet-client.crt" --kubelet-client-key="$PKI/apiserver-kubelet-client.key" \
    --kubelet-certificate-authority="$PKI/ca.crt" \
    --kubelet-preferred-address-types=InternalIP \
    --proxy-client-cert-file="$PKI/front-proxy-client.crt" --proxy-client-key-file="$PKI/front-proxy-client.key" \
    --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
    --service-cluster-ip-range="$SERVICE_NET" --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --event-ttl=6h --shutdown-delay-duration=0s --v=1
  wait_for 90 "the API server" kubectl get --raw /readyz
}

controllers() {
  # Leader election of one would only delay its start after a kill. The client
  # limits are raised so that ten databases at once wait for work, not for a throttle.
  start kube-controller-manager "$K" kube-controller-manager --leader-elect=false \
    --kubeconfig="$CONF/controller-manager.conf" --authentication-kubeconfig="$CONF/controller-manager.conf" --authorization-kubeconfig="$CONF/controller-manager.conf" \
    --bind-address=127.0.0.1 --client-ca-file="$PKI/ca.crt" --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" \
    --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/sa.key" --use-service-account-credentials=true \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
    --controllers='*' --flex-volume-plugin-dir="$STATE/nodes/$NODE/volume-plugins" --allocate-node-cidrs=false --kube-api-qps=100 --kube-api-burst=200 --v=1
  start kube-scheduler "$K" kube-scheduler --leader-elect=false \
    --kubeconfig="$CONF/scheduler.conf" --authentication-kubeconfig="$CONF/scheduler.conf" --authorization-kubeconfig="$CONF/scheduler.conf" \
    --bind-address=127.0.0.1 --kube-api-qps=100 --kube-api-burst=200 --v=1
  wait_for 30 "the controller manager" curl -skf https://127.0.0.1:10257/healthz
  wait_for 30 "the scheduler" curl -skf https://127.0.0.1:10259/healthz
}

what=${1:-all}
[[ $what != all ]] || step etcd etcd
step "API server" apiserver
[[ $what == all ]] || exit 0
step "controllers and scheduler" controllers
step "cluster objects" kubectl apply --server-side --force-conflicts -f "$ROOT/dev/objects.yaml"
