#!/usr/bin/env bash
# Ends the cluster and removes every trace of it from the machine: processes,
# pods, mounts, network, cgroups, state. What was built stays in target/dev.
# Safe to run at any time and again; it works from any clone.
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
. lib/process.sh

if [[ -n ${CONTEXT:-} ]]; then
  # Of a cluster that is not ours we remove what we put there.
  if [[ -s $KUBECONFIG ]]; then
    stop vault-port-forward
    remove_vault() { kubectl delete --ignore-not-found namespace vault; kubectl delete --ignore-not-found clusterrolebinding servicedb-dev-vault-tokenreview; rm -rf "$DEV/vault-$CONTEXT" "$DEV/vault.env" "$KUBECONFIG"; }
    step "Vault removed from context $CONTEXT" remove_vault
  fi
  exit 0
fi
[[ -e $STATE || -e $RUN ]] || { rm -f "$KUBECONFIG" "$DEV/vault.env"; echo "nothing to clean"; exit 0; }
[[ $(id -u) == 0 ]] || fail "the local cluster is root's"
# Only root's own pid files and mounts are touched from here on.
if [[ ${LOCKED:-} != 1 ]]; then lock; fi

# ours PATTERN: pids of processes whose command line has it, for what lost its pid file.
ours() {
  local p line
  for p in /proc/[0-9]*; do
    line=$(tr '\0' ' ' 2>/dev/null <"$p/cmdline") || continue
    if [[ ${p#/proc/} != "$$" && $line =~ $1 ]]; then echo "${p#/proc/}"; fi
  done 2>/dev/null
}

processes() {
  # The kubelet first, or it starts again what we end; then everything else but containerd.
  local name pid
  for name in "$NODE-kubelet" "$NODE-kube-proxy" provisioner coredns kube-scheduler kube-controller-manager kube-apiserver etcd; do stop "$name" 5; done
}

# The pods: a shim is the parent of all that is in its container, and containerd
# is not needed to end them.
pods() {
  local shim child
  stop "$NODE-containerd" 5
  for shim in $(ours "^/usr/bin/containerd-shim-runc-v2 .*-address $RUN/"); do
    for child in $(descendants "$shim"); do kill -9 "$child" 2>/dev/null || true; done
    kill -9 "$shim" 2>/dev/null || true
  done
  # What has no pid file any more (a broken-off run) but names our folders.
  for pid in $(ours "^[^ ]*/(kubernetes|coredns|provisioner|containerd) .*($STATE|$RUN)/"); do kill -9 "$pid" 2>/dev/null || true; done
}
descendants() {
  local child
  for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do descendants "$child"; echo "$child"; done
}

mounts() {
  # Deepest first; a lazy unmount for what a dying process still holds. Image
  # builds that were broken off leave mounts in our cache.
  local mount
  awk -v a="$STATE/" -v b="$RUN/" -v c="$CACHE/" 'index($5, a) == 1 || index($5, b) == 1 || index($5, c) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r mount; do
    umount "$mount" 2>/dev/null || umount -l "$mount" || true
  done
}

network() {
  local ns link
  # The pods' network namespaces: CNI's names for them, in the machine's usual
  # place. Only those whose leg hangs on our bridge are ours.
  for link in $(ip -o link show master sdb-pods 2>/dev/null | awk -F': ' '{sub(/@.*/, "", $2); print $2}'); do
    ns=$(ip -d -o link show "$link" | grep -o 'link-netns [^ ]*' | cut -d' ' -f2 || true)
    ip link delete "$link" 2>/dev/null || true
    [[ $ns != cni-* ]] || ip netns delete "$ns" 2>/dev/null || true
  done
  for link in sdb-pods sdb-nodes; do ip link delete "$link" 2>/dev/null || true; done
  # kube-proxy's table, ours, and what the portmap plugin leaves.
  nft delete table inet servicedb-dev 2>/dev/null || true
  nft delete table ip kube-proxy 2>/dev/null || true
  nft delete table ip6 kube-proxy 2>/dev/null || true
}

cgroups() {
  # The kubelet's and containerd's trees; empty by now. Children before parents.
  local root
  for root in /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods; do
    [[ ! -d $root ]] || find "$root" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}

files() {
  # Never through a mount: rm must not reach what is behind one.
  if grep -qE " ($STATE|$RUN)/" /proc/self/mountinfo; then
    echo "still mounted:"; grep -E " ($STATE|$RUN)/" /proc/self/mountinfo; return 1
  fi
  # The lock is held on a file in there, so it goes last.
  find "$STATE" -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf --one-file-system {} +
  rm -rf --one-file-system "$RUN"
  # The kubelet's links, which point nowhere now.
  find /var/log/containers -xtype l -lname "$STATE/*" -delete 2>/dev/null || true
  rm -f /var/lib/cni/results/servicedb-pods-*
  # Folders that containerd and CNI made outside ours, unless another one uses them.
  rm -rf --one-file-system /run/containerd/runc/k8s.io 2>/dev/null
  rmdir /var/log/containers /var/lib/cni/results /var/lib/cni /run/containerd/runc /run/containerd/s /run/containerd 2>/dev/null || true
  rm -rf "$KUBECONFIG" "$DEV/vault.env" "$DEV/vault-init.json" "$DEV/vault-ca.crt"
}

all() { processes; pods; mounts; network; cgroups; files; how=removed; }
step "cluster" all
[[ ${LOCKED:-} == 1 ]] || rm -rf "$STATE"
