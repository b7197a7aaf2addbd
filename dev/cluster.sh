#!/usr/bin/env bash
# Brings up the cluster with Vault from any state. Every step checks the state
# and does only the missing work, so running it again repairs the cluster. With
# NODES=<n> it has that many nodes, also if it runs with fewer.
set -euo pipefail
cd "$(dirname "$0")"
[[ -z ${CONTEXT:-} ]] || exec ./context.sh
. lib/common.sh
. lib/process.sh

[[ $(id -u) == 0 ]] || fail "the local cluster needs root (namespaces, mounts, nftables); CONTEXT=<name> uses an existing cluster without"
lock

# The clone that owns the cluster.
if [[ -s $STATE/clone && $(cat "$STATE/clone") != "$ROOT" ]]; then
  other=$(cat "$STATE/clone")
  if running kube-apiserver && [[ -d $other ]]; then
    fail "this machine's dev cluster belongs to the clone $other and is running. End it there with 'make clean', or use it from here with KUBECONFIG=$other/target/dev/kubeconfig and CONTEXT=servicedb-dev"
  fi
  echo "taking over from $other, whose cluster does not run"
  LOCKED=1 ./clean.sh
  find_nodes
fi
mkdir -p "$STATE" "$RUN" "$BIN" "$LOG" "$CACHE"
echo "$ROOT" >"$STATE/clone"
# Never fewer nodes than exist: their pods would be lost.
count=${NODES:-${#NODE_NAMES[@]}}
[[ $count =~ ^([1-9]|1[0-6])$ ]] || fail "NODES=$count: 1 to 16 nodes are possible"
if ((count < ${#NODE_NAMES[@]})); then echo "the cluster keeps its ${#NODE_NAMES[@]} nodes ('make clean' removes them)"; count=${#NODE_NAMES[@]}; fi
echo "$count" >"$STATE/node-count"
find_nodes
# After a restart of the machine, the files under /run belong to processes that are gone.
if [[ $(cat "$RUN/boot" 2>/dev/null) != "$BOOT" ]]; then
  for node in "${NODE_NAMES[@]}"; do rm -rf "${RUN:?}/$node"; done
  echo "$BOOT" >"$RUN/boot"
fi

./packages.sh
./build.sh kubernetes coredns provisioner kube-router
./network.sh
./certificates.sh
./node.sh containerd
./images.sh pause
((count == 1)) || ./images.sh nodes
./control-plane.sh
./node.sh kubelet
./services.sh
# A kubelet that ended is started again, as an init system would: one of three once failed to make its socket (rename:
# invalid cross-device link) and ended.
registered() { kubectl get node "${NODE_NAMES[@]}" || { ./node.sh kubelet >/dev/null; return 1; }; }
wait_nodes() {
  wait_for 60 "the nodes' registration" registered
  kubectl wait --for=condition=Ready "${NODE_NAMES[@]/#/node/}" --timeout=60s
}
step "nodes ready: ${NODE_NAMES[*]}" wait_nodes
./node.sh policies

./build.sh vault
./images.sh vault
./vault.sh
./build.sh versitygw
./images.sh versitygw
./store.sh
echo "cluster is up: export KUBECONFIG=$KUBECONFIG PATH=$BIN:\$PATH; . $DEV/vault.env"
