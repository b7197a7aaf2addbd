#!/usr/bin/env bash
# The machine's side of the cluster's network: forwarding, the nodes' bridge,
# and the rule that keeps cluster addresses inside. Run at every `make cluster`;
# changes only what is not as it should be.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

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
  # the machine's connection tracking: that is what bridge-nf-call is for.
  # A hundred pods watch a lot of files: the usual 128 inotify instances end early.
}

nodes_bridge() {
  # The nodes' own net. Its one node is this machine; with more, each would be
  # a network namespace with a leg on this bridge.
  ip link show sdb-nodes >/dev/null 2>&1 || ip link add sdb-nodes type bridge
  [[ -n $(ip -o address show dev sdb-nodes to "$NODE_IP") ]] || ip address add "$NODE_IP/24" dev sdb-nodes
  ip link set sdb-nodes up
  # Cluster addresses that nobody translates (kube-proxy is down, no such pod)
  # end on this bridge, not at the machine's default gateway.
  ip route replace "$SERVICE_NET" dev sdb-nodes src "$NODE_IP"
  ip route replace "$POD_NET" dev sdb-nodes src "$NODE_IP"
}

fence() {
  # And a fence, whatever the routes say. It lies in a table of its own and
  # touches only packets with cluster addresses: the machine's own traffic and
  # other tables' policies stay as they are. Rejecting beats dropping: a pod
  # that dials outside learns at once that it cannot.
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

up() { sysctls; nodes_bridge; fence; how=up; }
step network up
