#!/usr/bin/env bash
# The services of a cluster's provider: names (CoreDNS) and disks (the provisioner).
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/process.sh"

coredns_up() {
  # No cache: it would return a deleted pod's address; the data is in memory anyway.
  # Names outside the cluster do not exist, which is answered at once.
  put "$STATE/Corefile" <<CORE
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
  bind $NODE_IP
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig $STATE/kubeconfigs/coredns.conf
    pods insecure
    ttl 5
  }
}
.:53 {
  bind $NODE_IP
  template ANY ANY {
    rcode NXDOMAIN
  }
}
CORE
  RESTART_ON=$(fingerprint "$STATE/Corefile" --) start coredns "$BIN/coredns" -conf "$STATE/Corefile"
  wait_for 20 CoreDNS curl -sf http://127.0.0.1:8181/ready
}

provisioner_up() {
  mkdir -p "$STATE/volumes"
  start provisioner "$BIN/provisioner" --kubeconfig="$STATE/kubeconfigs/provisioner.conf" --root="$STATE/volumes"
}

step "CoreDNS" coredns_up
step "volume provisioner" provisioner_up
