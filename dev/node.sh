#!/usr/bin/env bash
# A node: its containerd, kubelet, kube-proxy and kube-router. All its files are in
# folders of its own, so that there can be several nodes on one machine. All but
# the first run in a network namespace (network.sh).
#   node.sh containerd|kubelet|policies [NODE …]     all nodes, or only these
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/process.sh"

K=$BIN/kubernetes

# of NODE: selects the node.
of() {
  node=$1 ip=$(node_ip "$1") pods=$(node_pods "$1")
  HOME_DIR=$STATE/nodes/$node
  RUN_DIR=$RUN/$node
  PROXY_CONF=$STATE/kubeconfigs/kube-proxy.conf
  if [[ $node == "$NODE" ]]; then
    NETNS='' KUBELET_CONF=$STATE/kubeconfigs/kubelet.conf CGROUP_ROOT=/
  else
    NETNS=$(node_netns "$node") KUBELET_CONF=$STATE/kubeconfigs/kubelet-$node.conf CGROUP_ROOT=/$node
  fi
}

containerd_up() {
  mkdir -p "$HOME_DIR/cni" "$RUN_DIR"
  put "$HOME_DIR/containerd.toml" <<TOML
version = 2
root = "$HOME_DIR/containerd"
state = "$RUN_DIR/containerd"
# Filesystems that this machine does not have.
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "$RUN_DIR/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$HOME_DIR/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/servicedb/pause:dev"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  # Without CAP_SYS_RESOURCE an oom_score_adj cannot be lowered, and runc fails
  # with an unspecific EOF.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$HOME_DIR/cni"
TOML
  # No ipMasq: pods must not reach the outside.
  put "$HOME_DIR/cni/10-pods.conflist" <<JSON
{
  "cniVersion": "1.0.0", "name": "servicedb-pods",
  "plugins": [
    {"type": "bridge", "bridge": "sdb-pods", "isGateway": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "dataDir": "$RUN_DIR/ipam", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
  RESTART_ON=$(fingerprint "$HOME_DIR/containerd.toml" --) \
    start "$node-containerd" "$(command -v containerd)" --config "$HOME_DIR/containerd.toml"
  wait_for 30 containerd ctr -a "$RUN_DIR/containerd.sock" version
}

# Two kubelets under one root would end each other's pods: each other node has
# its own cgroup, which must exist in every controller.
cgroup_root() {
  [[ $CGROUP_ROOT != / ]] || return 0
  local controller file
  local -a controllers=(/sys/fs/cgroup/*/)
  # The second version has one hierarchy for all.
  [[ ! -e /sys/fs/cgroup/cgroup.controllers ]] || controllers=(/sys/fs/cgroup/)
  for controller in "${controllers[@]}"; do
    mkdir -p "$controller/$node"
    # A new cpuset is empty, and accepts no process.
    for file in cpuset.cpus cpuset.mems; do
      [[ ! -e $controller/$file ]] || cat "$controller/$file" >"$controller/$node/$file"
    done
  done
}

kubelet_up() {
  cgroup_root
  mkdir -p "$HOME_DIR/kubelet" "$HOME_DIR/pod-logs"
  # Like kubeadm: a serving certificate that the API server can verify,
  # without an approval step.
  if [[ ! -s $HOME_DIR/kubelet.crt ]]; then
    (
      umask 077
      cd "$HOME_DIR"
      openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout kubelet.key -out kubelet.csr -subj "/O=system:nodes/CN=system:node:$node"
      openssl x509 -req -in kubelet.csr -CA "$STATE/pki/ca.crt" -CAkey "$STATE/pki/ca.key" -set_serial "0x$(openssl rand -hex 16)" -days 3650 -out kubelet.crt.new \
        -extfile <(printf 'subjectAltName=DNS:%s,IP:%s\nextendedKeyUsage=serverAuth\n' "$node" "$ip")
      mv kubelet.crt.new kubelet.crt
    )
  fi
  put "$HOME_DIR/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $ip
healthzBindAddress: 127.0.0.1
containerRuntimeEndpoint: unix://$RUN_DIR/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $STATE/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $HOME_DIR/kubelet.crt
tlsPrivateKeyFile: $HOME_DIR/kubelet.key
# Properties of this machine: cgroup v1, and no right to lower oom_score_adj.
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: $CGROUP_ROOT
oomScoreAdj: 0
clusterDomain: cluster.local
clusterDNS: [$DNS_IP]
# Pods do not use the machine's resolver and search list.
resolvConf: ""
podLogsDir: $HOME_DIR/pod-logs
volumePluginDir: $HOME_DIR/volume-plugins
makeIPTablesUtilChains: false
maxPods: 250
serializeImagePulls: false
nodeStatusUpdateFrequency: 2s
# Secrets and ConfigMaps are updated in running pods at the next sync after the watch
# event.
syncFrequency: 10s
configMapAndSecretChangeDetectionStrategy: Watch
kubeAPIQPS: 100
kubeAPIBurst: 200
eventRecordQPS: 50
eventBurst: 200
registryPullQPS: 0
# Images cannot be pulled again and the disk is shared with builds: a full
# disk must not remove images or pods.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: "1%", nodefs.inodesFree: "1%", imagefs.available: "1%"}
YAML
  RESTART_ON=$(fingerprint "$HOME_DIR/kubelet.yaml" --) \
    start "$node-kubelet" "$K" kubelet --config="$HOME_DIR/kubelet.yaml" --kubeconfig="$KUBELET_CONF" \
    --root-dir="$HOME_DIR/kubelet" --cert-dir="$HOME_DIR/kubelet/pki" --hostname-override="$node" --node-ip="$ip" \
    --node-labels="topology.kubernetes.io/zone=$(node_zone "$node")" --v=1
}

proxy_up() {
  put "$HOME_DIR/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $POD_NET
hostnameOverride: $node
clientConnection: {kubeconfig: $PROXY_CONF, qps: 100, burst: 200}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
nodePortAddresses: [$NODE_NET]
# A failover is as fast as its Service: rules follow the endpoints at once.
nftables: {minSyncPeriod: 100ms, syncPeriod: 30s}
# Needs the right to change the machine's limits.
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
  RESTART_ON=$(fingerprint "$HOME_DIR/kube-proxy.yaml" --) \
    start "$node-kube-proxy" "$K" kube-proxy --config="$HOME_DIR/kube-proxy.yaml" --v=1
}

both() { kubelet_up; proxy_up; }

# NetworkPolicies. It asks for its node's address, so the kubelet has registered by then.
policies_up() {
  start "$node-kube-router" "$BIN/kube-router" --kubeconfig="$STATE/kubeconfigs/kube-router.conf" \
    --hostname-override="$node" --service-cluster-ip-range="$SERVICE_NET"
  local -a inside=()
  [[ -z $NETNS ]] || inside=(nsenter "--net=/run/netns/$NETNS")
  wait_for 30 "kube-router's rules on $node" ${inside[@]+"${inside[@]}"} iptables -n -L KUBE-ROUTER-FORWARD
}

action=${1:-}
shift || true
if (($#)); then NODE_NAMES=("$@"); fi
for name in "${NODE_NAMES[@]}"; do
  of "$name"
  case $action in
  containerd) step "containerd of $node" containerd_up ;;
  kubelet) step "kubelet and kube-proxy of $node" both ;;
  policies) step "NetworkPolicies of $node" policies_up ;;
  *) fail "usage: node.sh containerd|kubelet|policies [NODE …]" ;;
  esac
done
