#!/usr/bin/env bash
# From whatever is there to a running cluster with Vault. Every step looks
# first and does only what is missing, so this is the repair as well.
set -euo pipefail
cd "$(dirname "$0")"
[[ -z ${CONTEXT:-} ]] || exec ./context.sh
. lib/common.sh
. lib/process.sh

[[ $(id -u) == 0 ]] || fail "the local cluster needs root (namespaces, mounts, nftables); CONTEXT=<name> uses an existing cluster without"
lock

# Whose cluster is it?
if [[ -s $STATE/clone && $(cat "$STATE/clone") != "$ROOT" ]]; then
  other=$(cat "$STATE/clone")
  if running kube-apiserver && [[ -d $other ]]; then
    fail "this machine's dev cluster belongs to the clone $other and is running. End it there with 'make clean', or use it from here with KUBECONFIG=$other/target/dev/kubeconfig and CONTEXT=servicedb-dev"
  fi
  echo "taking over from $other, whose cluster does not run"
  LOCKED=1 ./clean.sh
fi
mkdir -p "$STATE" "$RUN" "$BIN" "$LOG" "$CACHE"
echo "$ROOT" >"$STATE/clone"
# After a restart of the machine, what lies under /run is of processes that are gone.
if [[ $(cat "$RUN/boot" 2>/dev/null) != "$BOOT" ]]; then
  rm -rf "${RUN:?}/$NODE"
  echo "$BOOT" >"$RUN/boot"
fi

./packages.sh
./build.sh kubernetes coredns provisioner
./network.sh
./certificates.sh
./node.sh containerd
./images.sh pause
./control-plane.sh
./node.sh kubelet
./services.sh
node_ready() { kubectl wait --for=condition=Ready "node/$NODE" --timeout=60s; }
wait_node() { wait_for 60 "the node's registration" kubectl get node "$NODE"; node_ready; }
step "node $NODE ready" wait_node

./build.sh vault
./images.sh vault
./vault.sh
echo "cluster is up: export KUBECONFIG=$KUBECONFIG PATH=$BIN:\$PATH; . $DEV/vault.env"
