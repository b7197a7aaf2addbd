#!/usr/bin/env bash
# Debian's packages that the local cluster and the images need; only what is
# missing is installed.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

# Their purpose:
#   containers: containerd runc containernetworking-plugins
#   network:    nftables iproute2 conntrack; the portmap plugin and kubelet's
#               port-forward want iptables and socat, NetworkPolicies iptables and ipset
#   images:     buildah mmdebstrap, gcc and libc6-dev for the static pause program
#   binary:     libclang, by which PostgreSQL's parser (pg_query) is bound to Rust
#   volumes:    xfsprogs, for expandable volumes
#   scripts:    jq curl openssl util-linux
packages=(containerd runc containernetworking-plugins nftables iproute2 conntrack iptables ipset socat
  buildah mmdebstrap gcc libc6-dev libclang-dev xfsprogs jq curl openssl ca-certificates util-linux)

missing=()
for package in "${packages[@]}"; do
  [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) == ii* ]] || missing+=("$package")
done

install_missing() {
  # Debian's packages start their services on installation where systemd or
  # sysvinit runs; containerd's must not: this cluster has its own, and a
  # second one would be confusing.
  local policy=/usr/sbin/policy-rc.d made=
  if [[ ! -e $policy ]]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made=1; fi
  export DEBIAN_FRONTEND=noninteractive
  local ok=0
  # Completes an interrupted run of apt.
  dpkg --configure -a
  { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } || ok=$?
  [[ -z $made ]] || rm -f "$policy"
  how="installed ${missing[*]}"
  return "$ok"
}
nothing_to_install() { how='present'; }

if ((${#missing[@]})); then
  [[ $(id -u) == 0 ]] || fail "these packages are missing, and only root can install them: ${missing[*]}"
  step packages install_missing
else
  step packages nothing_to_install
fi
