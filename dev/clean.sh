#!/usr/bin/env bash
# Stops the cluster and removes every trace of it from the machine: processes,
# pods, mounts, network, cgroups, state. Build results are kept in target/dev.
# Safe to run at any time and repeatedly; it works from any clone.
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
. lib/process.sh

if [[ -n ${CONTEXT:-} ]]; then
  # From an existing cluster, remove only the objects that were installed there.
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

# ours PATTERN: pids of processes whose command line matches, for processes without a pid file.
ours() {
  local p line
  for p in /proc/[0-9]*; do
    line=$(tr '\0' ' ' 2>/dev/null <"$p/cmdline") || continue
    if [[ ${p#/proc/} != "$$" && $line =~ $1 ]]; then echo "${p#/proc/}"; fi
  done 2>/dev/null
}

processes() {
  # The kubelet first, because it would restart containers; then everything else except containerd.
  local name pid
  for name in $(daemons kubelet) $(daemons kube-proxy) $(daemons kube-router) provisioner coredns kube-scheduler kube-controller-manager kube-apiserver etcd; do stop "$name" 5; done
}

# daemons KIND: those of all nodes that ever existed, whatever the last run's settings were.
daemons() {
  local file
  for file in "$RUN"/*-"$1".pid; do
    file=${file##*/}
    [[ $file != dev-* ]] || echo "${file%.pid}"
  done
}

# The pods: a shim is the parent of all processes of its container, and containerd
# is not needed to end them.
pods() {
  local shim child name
  for name in $(daemons containerd); do stop "$name" 5; done
  for shim in $(ours "^/usr/bin/containerd-shim-runc-v2 .*-address $RUN/"); do
    for child in $(descendants "$shim"); do kill -9 "$child" 2>/dev/null || true; done
    kill -9 "$shim" 2>/dev/null || true
  done
  # Processes without a pid file (after an interrupted run) whose command line names our folders.
  for pid in $(ours "^[^ ]*/(kubernetes|coredns|provisioner|kube-router|containerd) .*($STATE|$RUN)/"); do kill -9 "$pid" 2>/dev/null || true; done
}
descendants() {
  local child
  for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do descendants "$child"; echo "$child"; done
}

mounts() {
  # Deepest first; a lazy unmount for mounts that an ending process still holds. Interrupted
  # image builds leave mounts in our cache.
  local mount loop
  awk -v a="$STATE/" -v b="$RUN/" -v c="$CACHE/" 'index($5, a) == 1 || index($5, b) == 1 || index($5, c) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r mount; do
    umount "$mount" 2>/dev/null || umount -l "$mount" || true
  done
  # A loop device is removed with its last mount, unless the run was interrupted before that.
  losetup -l -n -O NAME,BACK-FILE | awk -v a="$STATE/" 'index($2, a) == 1 {print $1}' | while read -r loop; do losetup -d "$loop" || true; done
}

# The pods' network namespaces of the node whose namespace this is: CNI's names
# for them, in the machine's usual place. Only those with an interface on our bridge are ours.
pods_network() {
  local ns link
  for link in $(ip -o link show master sdb-pods 2>/dev/null | awk -F': ' '{sub(/@.*/, "", $2); print $2}'); do
    ns=$(ip -d -o link show "$link" | grep -o 'link-netns [^ ]*' | cut -d' ' -f2 || true)
    ip link delete "$link" 2>/dev/null || true
    [[ $ns != cni-* ]] || ip netns delete "$ns" 2>/dev/null || true
  done
}

network() {
  local link ns
  pods_network
  for ns in /run/netns/sdb-dev-*; do
    [[ -e $ns ]] || continue
    nsenter "--net=$ns" bash -c "$(declare -f pods_network); pods_network" || true
    # The veth pair explicitly: a namespace is removed only when its last process has ended.
    ip link delete "${ns##*/}" 2>/dev/null || true
    ip netns delete "${ns##*/}" || rm -f "$ns"
  done
  # network.sh mounted it; other namespaces in it keep it mounted.
  [[ -n $(ls -A /run/netns 2>/dev/null) ]] || umount /run/netns 2>/dev/null || true
  # This also removes the routes.
  for link in sdb-pods sdb-nodes; do ip link delete "$link" 2>/dev/null || true; done
  # kube-proxy's table, ours, and the leftovers of the portmap plugin.
  nft delete table inet servicedb-dev 2>/dev/null || true
  nft delete table ip kube-proxy 2>/dev/null || true
  nft delete table ip6 kube-proxy 2>/dev/null || true
  policies
}

# kube-router's rules and sets; its chains are in a table that others use, too.
policies() {
  local rules kept set try
  rules=$(iptables-save -t filter 2>/dev/null || true)
  if [[ $rules == *KUBE-ROUTER-* ]]; then
    kept=$(grep -vE 'KUBE-(ROUTER|NWPLCY|POD-FW)-' <<<"$rules")
    iptables-restore -T filter <<<"$kept"
    # If no other rule is left, the table was created for kube-router's.
    [[ $kept == *$'\n-A '* || $kept == *' DROP '* ]] || nft delete table ip filter 2>/dev/null || true
  fi
  for set in $(ipset list -n 2>/dev/null | grep -E '^(KUBE-(SRC|DST)-|TMP-)' || true); do
    # The kernel releases a set a moment after the last rule that names it.
    for try in 1 2 3 4 5; do ! ipset destroy "$set" 2>/dev/null || break; sleep 0.2; done
  done
}

cgroups() {
  # The kubelets' and containerds' trees; empty by now. Children before parents.
  local root
  for root in /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/dev-[0-9]* /sys/fs/cgroup/dev-[0-9]*; do
    [[ ! -d $root ]] || find "$root" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}

files() {
  local result sandbox
  # Never through a mount: rm must not delete mounted content.
  if grep -qE " ($STATE|$RUN)/" /proc/self/mountinfo; then
    echo "still mounted:"; grep -E " ($STATE|$RUN)/" /proc/self/mountinfo; return 1
  fi
  # The lock is held on a file in this folder, so it is removed last.
  find "$STATE" -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf --one-file-system {} +
  rm -rf --one-file-system "$RUN"
  # The kubelet's links, which are dangling now.
  find /var/log/containers -xtype l -lname "$STATE/*" -delete 2>/dev/null || true
  for result in /var/lib/cni/results/servicedb-pods-*; do
    sandbox=${result##*/servicedb-pods-}
    rm -f "$result" "/var/lib/cni/results/cni-loopback-${sandbox%-eth0}-lo"
  done
  # Folders that containerd and CNI created elsewhere, unless another installation uses them.
  rm -rf --one-file-system /run/containerd/runc/k8s.io 2>/dev/null
  # Sockets of ended shims; their names do not identify the owner.
  [[ -n $(ours '^/usr/bin/containerd-shim') ]] || rm -rf --one-file-system /run/containerd/s
  rmdir /var/log/containers /var/lib/cni/results /var/lib/cni /run/containerd/runc /run/containerd/s /run/containerd 2>/dev/null || true
  rm -rf "$KUBECONFIG" "$DEV/vault.env" "$DEV/vault-init.json" "$DEV/vault-ca.crt"
}

all() { processes; pods; mounts; network; cgroups; files; how=removed; }
step "cluster" all
[[ ${LOCKED:-} == 1 ]] || rm -rf "$STATE"
