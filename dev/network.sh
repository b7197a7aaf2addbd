#!/usr/bin/env bash
# The machine's side of the cluster's network: forwarding, the nodes' bridge,
# the namespaces of nodes that are not the machine itself, and the rule that
# keeps cluster addresses inside. Run at every `make cluster`;
# changes only settings that differ.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

# For the current network namespace, so it is called in each node's.
sysctls() {
  # Written only when different: some of them are read-only in sandboxes that already have them.
  local key value
  while read -r key value; do
    [[ $(cat "/proc/sys/$key" 2>/dev/null) == "$value" ]] || echo "$value" >"/proc/sys/$key"
  done <<'SYSCTLS'
net/ipv4/ip_forward 1
net/bridge/bridge-nf-call-iptables 1
fs/inotify/max_user_instances 8192
SYSCTLS
  # Between pods on one bridge, the answer of a Service must come back through
  # the node's connection tracking: that is what bridge-nf-call is for.
  # A hundred pods watch many files: the default of 128 inotify instances is not sufficient.
}

nodes_bridge() {
  # The nodes' own net. The first node is this machine; each other one is a
  # network namespace with an interface on this bridge.
  ip link show sdb-nodes >/dev/null 2>&1 || ip link add sdb-nodes type bridge
  [[ -n $(ip -o address show dev sdb-nodes to "$NODE_IP") ]] || ip address add "$NODE_IP/24" dev sdb-nodes
  ip link set sdb-nodes up
  # Packets to cluster addresses that are not translated (kube-proxy is down, no such pod)
  # end on this bridge, not at the machine's default gateway.
  ip route replace "$SERVICE_NET" dev sdb-nodes src "$NODE_IP"
  ip route replace "$POD_NET" dev sdb-nodes src "$NODE_IP"
}

# `ip netns add` mounts the folder of namespaces over itself if it is not a mount yet, and
# namespaces that pods have in it by then could never be removed. So it is done before the first pod.
netns_folder() {
  mkdir -p /run/netns
  mountpoint -q /run/netns || mount --bind --make-shared /run/netns /run/netns
}

inside() { nsenter "--net=/run/netns/$(node_netns "$1")" "${@:2}"; }

# A node's namespace and its veth pair, whose end on the bridge is named after the
# node: `ip link set sdb-dev-2 down` cuts it off.
node() {
  local node=$1 ns ip
  ns=$(node_netns "$node") ip=$(node_ip "$node")
  if ! inside "$node" true 2>/dev/null; then
    # A name without a namespace, after a restart of the machine.
    rm -f "/run/netns/$ns"
    ip netns add "$ns"
  fi
  inside "$node" ip link set lo up
  if ! inside "$node" ip link show eth0 >/dev/null 2>&1; then
    ip link delete "$ns" 2>/dev/null || true
    ip link add "$ns" type veth peer name eth0 netns "$ns"
  fi
  ip link set "$ns" master sdb-nodes up
  [[ -n $(inside "$node" ip -o address show dev eth0 to "$ip") ]] || inside "$node" ip address add "$ip/24" dev eth0
  inside "$node" ip link set eth0 up
  # This machine routes to its own pods, and to Services that the node does not translate.
  inside "$node" ip route replace default via "$NODE_IP"
  inside "$node" bash -c "$(declare -f sysctls); sysctls"
  machine_passes | inside "$node" nft -f -
}

# NetworkPolicies let the node of a pod reach it. This machine is only the first node,
# but the tests run here and reach pods of every node by their Services: its packets
# get the mark by which kube-router recognises packets that a policy allows.
machine_passes() {
  cat <<NFT
table inet servicedb-dev
delete table inet servicedb-dev
table inet servicedb-dev {
  chain prerouting {
    type filter hook prerouting priority mangle; policy accept;
    iifname "eth0" ip saddr $NODE_IP meta mark set meta mark or 0x10000
  }
}
NFT
}

# The routes to the pods of the other nodes, from here and from each of them.
routes() {
  local from to
  for to in "${NODE_NAMES[@]:1}"; do
    ip route replace "$(node_pods "$to")" via "$(node_ip "$to")" dev sdb-nodes src "$NODE_IP"
    for from in "${NODE_NAMES[@]:1}"; do
      [[ $from == "$to" ]] || inside "$from" ip route replace "$(node_pods "$to")" via "$(node_ip "$to")"
    done
  done
}

nodes() {
  local name
  for name in "${NODE_NAMES[@]:1}"; do node "$name"; done
  routes
}

fence() {
  # A filter, independent of the routes. It has its own table and affects only
  # packets with cluster addresses: the machine's own traffic and other tables'
  # policies are not changed. It rejects instead of dropping, so that a pod that
  # connects to the outside gets an error at once.
  nft -f - <<NFT
table inet servicedb-dev
delete table inet servicedb-dev
table inet servicedb-dev {
  set cluster { type ipv4_addr; flags interval; elements = { $POD_NET, $SERVICE_NET, $NODE_NET } }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname { "sdb-*", "lo" } oifname { "sdb-*", "lo" } accept
    ip saddr @cluster reject with icmp type admin-prohibited
    ip daddr @cluster reject with icmp type admin-prohibited
  }
  chain postrouting {
    type filter hook postrouting priority filter; policy accept;
    oifname { "sdb-*", "lo" } accept
    ip daddr @cluster drop
    ip saddr @cluster drop
  }
}
NFT
}

up() { sysctls; nodes_bridge; netns_folder; nodes; fence; how=up; }
step network up
