#!/usr/bin/env bash
# Injects faults into the local cluster, and repairs them. Each command can be repeated;
# `make cluster` repairs all of them.
#   fault.sh cut NODE              takes a node off the network (not dev-1, which is this machine)
#   fault.sh heal NODE
#   fault.sh kubelet-stop NODE     its containers keep running
#   fault.sh kubelet-start NODE
#   fault.sh apiserver-stop
#   fault.sh apiserver-start
#   fault.sh apiserver-hang SECONDS   it is stopped and keeps its connections, as on a machine that hangs
#   fault.sh etcd-slow SECONDS     etcd is stopped for 400 ms of every 500
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
. lib/process.sh
[[ -z ${CONTEXT:-} ]] || fail "only on the local cluster"
[[ $(id -u) == 0 ]] || fail "the local cluster is root's"
usage() { sed -n 's/^#   //p' fault.sh >&2; exit 2; }

node_given() {
  local name
  for name in "${NODE_NAMES[@]}"; do [[ $name != "${1:-}" ]] || return 0; done
  fail "there is no node '${1:-}'; there are: ${NODE_NAMES[*]}"
}
cable_of() {
  node_given "${1:-}"
  [[ $1 != "$NODE" ]] || fail "$NODE is this machine itself: it cannot be cut off"
}

# stopping NAME: prevents other scripts from stopping it, and continues it when this script ends. Sets `pid`.
stopping() {
  # Two scripts at the same time could leave the process stopped.
  exec 6>"$RUN/$1-stopped.lock"
  flock 6
  running "$1" || fail "$1 does not run"
  # shellcheck disable=SC2064
  trap "kill -CONT $pid 2>/dev/null || true" EXIT
  # Also if this script is killed and its trap does not run.
  # shellcheck disable=SC2016
  setsid bash -c 'while kill -0 "$1" 2>/dev/null; do sleep 0.2; done; kill -CONT "$2" 2>/dev/null' guard "$$" "$pid" </dev/null >/dev/null 2>&1 6>&- &
}

apiserver_hang() {
  [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || usage
  stopping kube-apiserver
  kill -STOP "$pid"
  sleep "$1"
}

etcd_slow() {
  [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || usage
  stopping etcd
  local etcd=$pid deadline=$((SECONDS + $1))
  while ((SECONDS < deadline)) && running etcd && [[ $pid == "$etcd" ]]; do
    kill -STOP "$etcd"
    sleep 0.4
    kill -CONT "$etcd"
    sleep 0.1
  done
}

# A start takes the lock of all set-ups, so that two never start the same process twice.
case ${1:-} in
cut) cable_of "${2:-}"; ip link set "$(node_netns "$2")" down ;;
heal) cable_of "${2:-}"; ip link set "$(node_netns "$2")" up ;;
kubelet-stop) node_given "${2:-}"; lock; stop "$2-kubelet" ;;
kubelet-start) node_given "${2:-}"; lock; ./node.sh kubelet "$2" ;;
# Without waiting for its open watches to end: they would use the full timeout.
apiserver-stop) lock; stop kube-apiserver 1 ;;
apiserver-start) lock; ./control-plane.sh apiserver ;;
apiserver-hang) apiserver_hang "${2:-}" ;;
etcd-slow) etcd_slow "${2:-}" ;;
*) usage ;;
esac
