# Shared by all scripts under dev/: paths, names, step timing. Sourced, not run.
# shellcheck shell=bash disable=SC2034,SC1010

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# Paths of this clone: the users' files, and files that are kept between clusters.
DEV=$ROOT/target/dev
BIN=$DEV/bin
LOG=$DEV/log
CACHE=$DEV/cache

# Paths of this machine: there is one dev cluster per machine, since addresses,
# nftables and cgroups are the machine's. Outside the clone, so that neither
# `cargo clean` nor removing a clone deletes the disk of a running cluster.
STATE=/var/lib/servicedb-dev
# Sockets need short paths; pid files are beside them.
RUN=/run/servicedb-dev
# With an existing cluster no step needs root.
[[ -z ${CONTEXT:-} ]] || RUN=$DEV/run

# Addresses. Nodes have an interface of their own, so that nothing depends on
# the machine's external address.
NODE_NET=10.245.0.0/24
NODE_IP=10.245.0.1
POD_NET=10.244.0.0/16
SERVICE_NET=10.96.0.0/16
DNS_IP=10.96.0.10
VAULT_IP=10.96.0.20
# The first node is this machine itself; each other one is a network namespace
# of it. `make cluster NODES=…` records the number, so that later scripts handle all
# of them without a parameter.
NODE=dev-1
find_nodes() { mapfile -t NODE_NAMES < <(seq -f 'dev-%.0f' "$(cat "$STATE/node-count" 2>/dev/null || echo 1)"); }
find_nodes
# Values derived from a node's number: address, pods' range, zone; and, except for the
# first, its network namespace, which has the same name as the host's end of its veth pair.
node_ip() { echo "10.245.0.${1#dev-}"; }
node_pods() { echo "10.244.$(((${1#dev-} - 1) * 16)).0/20"; }
node_zone() { echo "zone-${1#dev-}"; }
node_netns() { echo "sdb-$1"; }

KUBERNETES_VERSION=1.36.3
# The prefix of image names; an existing cluster (CONTEXT=…) must be able to pull
# from there.
IMAGE_REPOSITORY=${IMAGE_REPOSITORY:-localhost/servicedb}
IMAGE_TAG=${IMAGE_TAG:-dev}

export PATH=$BIN:$PATH:/usr/sbin:/sbin
export KUBECONFIG=$DEV/kubeconfig

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Measurements need a release build: `make` ensures it, but a directly called script does not.
of_a_release() {
  [[ -n ${CONTEXT:-} || $(cat "$ROOT/target/programs/profile" 2>/dev/null) == release ]] ||
    fail "the programs in the images are no release build: make install comes first"
}

# step NAME COMMAND…: runs it, then prints the duration. The command may set
# `how` to a word (built, reused, started …). Its own output goes to a log,
# which is shown if it fails.
step() {
  local name=$1 begin=$EPOCHREALTIME log end
  shift
  how=done
  log=$LOG/step-${name//[^a-zA-Z0-9]/-}.log
  mkdir -p "$LOG"
  if [[ -t 1 ]]; then printf '    %s …\r' "$name"; fi
  # Not `if ! "$@"`: that would disable errexit inside the step.
  STEP_LOG=$log
  exec 8>&1 9>&2 >"$log" 2>&1
  "$@"
  exec >&8 2>&9 8>&- 9>&-
  STEP_LOG=
  end=$EPOCHREALTIME
  printf '==> %s (%s, %s s)\n' "$name" "$how" "$(seconds "$begin" "$end")"
}

# If a step fails, print the end of its log.
STEP_LOG=
on_exit() {
  local code=$?
  if [[ -n $STEP_LOG ]]; then
    exec >&8 2>&9
    if ((code != 0)); then
      printf '==> FAILED; the end of %s:\n' "$STEP_LOG" >&2
      tail -n 30 "$STEP_LOG" | sed 's/^/    /' >&2
    fi
  fi
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

seconds() { # from and to in EPOCHREALTIME's form; one decimal below ten seconds
  local us=$((10#${2/./} - 10#${1/./}))
  if ((us < 10000000)); then printf '%d.%d' $((us / 1000000)) $((us % 1000000 / 100000)); else printf '%d' $((us / 1000000)); fi
}

# wait_for SECONDS WHAT COMMAND…: waits until it succeeds, or fails with the name.
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || { printf '%s did not come within its time; the last try said:\n' "$what"; "$@" || true; return 1; }
    sleep 0.2
  done
}

# One set-up at a time on this machine: several users and tests may call make.
# The lock's descriptor is closed for the daemons (see lib/process.sh); otherwise
# they would hold it forever.
lock() {
  mkdir -p "$STATE"
  exec 7>"$STATE/lock"
  flock -n 7 || { echo "waiting for another set-up on this machine …"; flock 7; }
}

# put FILE: writes the standard input, unless the file has the same content (programs
# that watch their configuration would restart unnecessarily).
put() {
  cat >"$1.new"
  if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

# Hash of the contents of files and of additional words.
fingerprint() { # FILE… -- WORD…
  local -a files=()
  while (($#)) && [[ $1 != -- ]]; do files+=("$1"); shift; done
  { ((${#files[@]} == 0)) || sha256sum "${files[@]}"; printf '%s\n' "$@"; } | sha256sum | cut -d' ' -f1
}
