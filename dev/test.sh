#!/usr/bin/env bash
# Everything that must hold: format, lints, licences, unit tests, the chart, and
# tests on a real cluster, which is brought up beside the first of them. Stops
# at nothing, sums up at the end: "N passed, N failed" is the last line.
#   test.sh            all
#   test.sh unit       only what needs no cluster
set -euo pipefail
cd "$(dirname "$0")"
# With CONTEXT=<name>: the kubeconfig that has it, before common.sh names ours.
caller=${KUBECONFIG:-$HOME/.kube/config}
. lib/common.sh

what=${1:-all}
# Nodes that can be cut off and drained; a cluster of one is given two more.
export NODES=${NODES:-3}
# The images are made from this folder, so nothing may be built elsewhere.
# A panic says where it was; what led there only crowds out the next one.
export CARGO_TARGET_DIR=$ROOT/target CARGO_TERM_COLOR=never RUST_BACKTRACE=0
# The programs in the images are those of the tests: nothing is compiled twice, and overflows are found.
export PROFILE=${PROFILE:-dev}
CARGO_DENY=0.20.2
mkdir -p "$LOG"

passed=0 failed=0 failures=() started=$EPOCHREALTIME

# run NAME COMMAND…: its output goes to a log; sets `code` and says how long it took.
run() {
  local name=$1 begin=$EPOCHREALTIME
  shift
  log=$LOG/test-${name//[^a-zA-Z0-9]/-}.log
  # Not in a condition, which would switch off errexit inside; and not this
  # shell, so that a step that exits ends only itself.
  set +e
  (set -e; cd "$ROOT"; "$@") </dev/null >"$log" 2>&1
  code=$?
  set -e
  took=$(seconds "$begin" "$EPOCHREALTIME")
}

# count NAME PASSED FAILED: a step's result, as a line and in the sum.
count() {
  local verdict=ok
  passed=$((passed + $2)) failed=$((failed + $3))
  if (($3)); then
    verdict="$3 FAILED"
    failures+=("$1: $log")
  fi
  printf '==> %s: %s (%d in %s s)\n' "$1" "$verdict" $(($2 + $3)) "$took"
  (($3 == 0)) || show
}

# What people need of a failed step; the whole is in the log. Of tests: what each
# said first, so that a long account of one does not hide the next.
show() {
  local -a relevant
  mapfile -t relevant < <(sed -n '/^failures:$/,$p' "$log" | awk '
    /^---- .* stdout ----$/ {shown = 0; print; next}
    /^failures:$/ {listing = seen++; next}
    listing && NF {print}
    !listing && NF && shown++ < 25 {print substr($0, 1, 1000)}')
  ((${#relevant[@]})) || mapfile -t relevant < <(sed -n '/^error/,/^$/p' "$log" | head -n 80)
  ((${#relevant[@]})) || mapfile -t relevant < <(tail -n 30 "$log")
  printf '    %s\n' "${relevant[@]}" "the whole log: $log"
}

# check NAME COMMAND…: one test, which passes when the command does.
check() {
  run "$@"
  if ((code == 0)); then count "$1" 1 0; else count "$1" 0 1; fi
}

# tests NAME ARGUMENT…: what `cargo test ARGUMENT…` counts. One that ends
# without a count (it does not compile, it was killed) has failed, too.
tests() {
  local name=$1 ok bad
  shift
  run "$name" cargo test --locked --no-fail-fast "$@"
  read -r ok bad < <(awk '/^test result:/ {for (i = 1; i < NF; i++) {if ($(i + 1) ~ /^passed/) p += $i; if ($(i + 1) ~ /^failed/) f += $i}} END {print p + 0, f + 0}' "$log")
  if ((code != 0 && bad == 0)); then bad=1; fi
  count "$name" "$ok" "$bad"
  # What runs only a part of itself says so.
  sed -n 's/^a part: /    &/p' "$log"
}

# not_run NAME WHY: what could not be tried is not known to hold.
not_run() {
  log=$LOG/test-not-run.log took=0
  echo "$2" >"$log"
  count "$1" 0 1
}

# The cluster comes up beside what needs none: it mostly waits.
cluster_pid=
cluster_begin() {
  # A process group of its own: a background job of a script ignores Ctrl-C.
  KUBECONFIG=$caller setsid bash -c 'set -o pipefail; { ./cluster.sh && ./tools.sh; } 2>&1 | sed -u "s/^/[cluster] /"' </dev/null &
  cluster_pid=$!
}
cluster_end() {
  took=0 log=$LOG/test-cluster.log
  echo "see the lines that begin with [cluster]" >"$log"
  if wait "$cluster_pid"; then count cluster 1 0; else count cluster 0 1; fi
  cluster_pid=
}
end_background() { [[ -z $cluster_pid ]] || kill -- "-$cluster_pid" 2>/dev/null || true; }
trap 'code=$?; end_background; exit $code' EXIT

# cargo-deny is a program, not a library of ours: built once, and cheaply, since it runs for a second.
cargo_deny() {
  local tools=$DEV/cargo-tools
  if [[ $("$tools/bin/cargo-deny" --version 2>/dev/null) != "cargo-deny $CARGO_DENY" ]]; then
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_TARGET_DIR=$CACHE/cargo-deny \
      cargo install --locked --version "$CARGO_DENY" cargo-deny --root "$tools" --force
    rm -rf "$CACHE/cargo-deny"
  fi
  "$tools/bin/cargo-deny" check bans licenses sources
}

# Server programs of PostgreSQL for the migration tests; Debian's, without a server that starts by itself.
postgres_programs() {
  if command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then echo present; return; fi
  [[ $(id -u) == 0 ]] || { echo "PostgreSQL's server programs are missing, and only root can install them (package postgresql)"; return 1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get update
  apt-get install -y --no-install-recommends postgresql-common
  sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
  apt-get install -y --no-install-recommends postgresql
}

# Migrations in images, and teams' own tools (examples/migration-images), for the end-to-end tests.
example_images() {
  [[ -z ${CONTEXT:-} ]] || { echo "existing cluster: see examples/migration-images/README.md"; return; }
  dev/build.sh goose
  dev/images.sh example-sql example-flask example-goose
}

# Every object of the manifests and examples as the API server would take it; nothing is written.
dry_run() { kubectl apply --dry-run=server --server-side --force-conflicts --validate=strict "$@"; }
manifests() {
  dry_run -f manifests/servicedb.yaml
  dry_run --namespace default -f examples/minimal/servicedatabase.yaml
  # An example's namespace may not be there, and a dry run makes none.
  local example
  for example in examples/*/kustomization.yaml; do
    example=${example%/kustomization.yaml}
    kubectl kustomize "$example" | sed "s/namespace: ${example#examples/}\$/namespace: default/" | dry_run -f -
  done
}

# test_targets: the files and folders under tests/, those that use the whole system last.
test_targets() {
  local path
  for path in "$ROOT"/tests/*.rs "$ROOT"/tests/*/main.rs; do
    [[ -e $path ]] || continue
    path=${path%/main.rs} path=${path##*/}
    echo "${path%.rs}"
  done | sort | awk '/^(e2e|faults)/ {last = last $0 "\n"; next} {print} END {printf "%s", last}'
}

command -v cargo >/dev/null || fail "Rust is needed: cargo is not on the PATH"
for component in fmt clippy; do
  cargo "$component" --version >/dev/null 2>&1 || fail "cargo $component is missing: rustup component add rustfmt clippy"
done
[[ $what != all || -n ${CONTEXT:-} ]] || ./packages.sh
[[ $what != all ]] || cluster_begin

check 'format' cargo fmt --all --check
check 'clippy' cargo clippy --locked --all-targets -- -D warnings
check 'cargo deny' cargo_deny
# All at once, while the cluster comes up; what does not compile is told here.
check 'building the tests' cargo test --locked --all-targets --no-run
tests 'unit tests' --lib --bins
tests 'documentation tests' --doc

if [[ $what == all ]]; then
  cluster_end
  check 'images' ./dev/build-images.sh
  images=$code
  check 'images of the examples' example_images
  check 'helm lint' helm lint --strict charts/servicedb --set clusterId=test,vault.address=https://vault.vault.svc:8200
  check 'install' ./dev/install.sh
  installed=$((images || code))
  check 'PostgreSQL for the tests' postgres_programs
  check 'manifests, as a dry run' manifests
  mapfile -t targets < <(test_targets)
  for target in "${targets[@]}"; do
    if [[ $target == @(e2e|faults)* ]] && ((installed != 0)); then
      not_run "tests/$target" "not run: the operator is not installed"
    elif [[ $target == e2e* ]]; then
      # They mostly wait, and see to it themselves that no more run at once than the machine bears. Those that
      # are alone wait for all others: more threads than there are of them.
      tests "tests/$target" --test "$target" -- --test-threads 24
    else
      tests "tests/$target" --test "$target"
    fi
  done
fi

took=$(seconds "$started" "$EPOCHREALTIME")
printf '\n'
for failure in ${failures[@]+"${failures[@]}"}; do printf 'failed: %s\n' "$failure"; done
printf 'all of it took %s s\n' "$took"
printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
