#!/usr/bin/env bash
# All checks: format, lints, licences, unit tests, the chart, and tests on a real
# cluster, which is started in parallel with the first of them. Continues after
# failures and ends with a summary: "N passed, N failed" is the last line.
#   test.sh            all
#   test.sh unit       only the checks that need no cluster
# The end-to-end tests whose databases name no version of PostgreSQL are run on 17
# and 18, each on one of them by its name; with E2E_POSTGRES=mixed-1 each on the
# other, and with 17 or 18 all on one.
set -euo pipefail
cd "$(dirname "$0")"
# With CONTEXT=<name>: the kubeconfig that has it, before common.sh sets ours.
caller=${KUBECONFIG:-$HOME/.kube/config}
. lib/common.sh

what=${1:-all}
# Nodes that can be cut off and drained; a cluster of one node gets two more.
export NODES=${NODES:-3}
# The images are built from this folder, so nothing may be built elsewhere.
# A panic prints its position; a backtrace would only hide the next one.
export CARGO_TARGET_DIR=$ROOT/target CARGO_TERM_COLOR=never RUST_BACKTRACE=0
# The programs in the images are those of the tests: nothing is compiled twice, and overflows are detected.
export PROFILE=${PROFILE:-dev}
# Not by turns: the same commit has the same result.
export E2E_POSTGRES=${E2E_POSTGRES:-mixed-0}
CARGO_DENY=0.20.2
mkdir -p "$LOG"

passed=0 failed=0 failures=() started=$EPOCHREALTIME

# run NAME COMMAND…: writes its output to a log; sets `code` and prints the duration.
run() {
  local name=$1 begin=$EPOCHREALTIME
  shift
  log=$LOG/test-${name//[^a-zA-Z0-9]/-}.log
  # Not in a condition, which would disable errexit inside; and in a subshell,
  # so that a step that exits ends only itself.
  set +e
  (set -e; cd "$ROOT"; "$@") </dev/null >"$log" 2>&1
  code=$?
  set -e
  took=$(seconds "$begin" "$EPOCHREALTIME")
}

# count NAME PASSED FAILED: a step's result, as a line and in the summary.
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

# The relevant output of a failed step; the full log is in the file. For tests: why each
# failed, and then the first lines of each, so that a long output of one does not hide the next.
# What a test prints before it fails may be long, too.
show() {
  local -a relevant
  mapfile -t relevant < <(sed -n '/^failures:$/,$p' "$log" | awk '
    /^---- .* stdout ----$/ {left = 0; print; next}
    /^failures:$/ {if (seen++) exit}
    / panicked at / {left = 6}
    NF && left-- > 0 {print substr($0, 1, 600)}'
    sed -n '/^failures:$/,$p' "$log" | awk '
    /^---- .* stdout ----$/ {shown = 0; print; next}
    /^failures:$/ {listing = seen++; next}
    listing && NF {print}
    !listing && NF && shown++ < 90 {print substr($0, 1, 600)}')
  ((${#relevant[@]})) || mapfile -t relevant < <(sed -n '/^error/,/^$/p' "$log" | head -n 80)
  ((${#relevant[@]})) || mapfile -t relevant < <(tail -n 30 "$log")
  printf '    %s\n' "${relevant[@]}" "the whole log: $log"
}

# check NAME COMMAND…: one test, which passes if the command succeeds.
check() {
  run "$@"
  if ((code == 0)); then count "$1" 1 0; else count "$1" 0 1; fi
}

# tests NAME ARGUMENT…: the counts of `cargo test ARGUMENT…`. A run that ends
# without a count (it does not compile, it was killed) has failed, too.
tests() {
  local name=$1 ok bad
  shift
  run "$name" cargo test --locked --no-fail-fast "$@"
  read -r ok bad < <(awk '/^test result:/ {for (i = 1; i < NF; i++) {if ($(i + 1) ~ /^passed/) p += $i; if ($(i + 1) ~ /^failed/) f += $i}} END {print p + 0, f + 0}' "$log")
  if ((code != 0 && bad == 0)); then bad=1; fi
  count "$name" "$ok" "$bad"
  # A partial run prints that it is one.
  sed -n 's/^a part: /    &/p' "$log"
}

# not_run NAME WHY: a check that could not run counts as failed.
not_run() {
  log=$LOG/test-not-run.log took=0
  echo "$2" >"$log"
  count "$1" 0 1
}

# The cluster is started in parallel with checks that need none: it mostly waits.
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

# cargo-deny is a tool: built once, without optimisation, since it runs for a second.
cargo_deny() {
  local tools=$DEV/cargo-tools
  if [[ $("$tools/bin/cargo-deny" --version 2>/dev/null) != "cargo-deny $CARGO_DENY" ]]; then
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_TARGET_DIR=$CACHE/cargo-deny \
      cargo install --locked --version "$CARGO_DENY" cargo-deny --root "$tools" --force
    rm -rf "$CACHE/cargo-deny"
  fi
  "$tools/bin/cargo-deny" check bans licenses sources
}

# Server programs of PostgreSQL for the migration tests; Debian's, without an automatically started server.
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

# A dry run of every object of the manifests and examples; nothing is written.
dry_run() { kubectl apply --dry-run=server --server-side --force-conflicts --validate=strict "$@"; }
manifests() {
  dry_run -f manifests/servicedb.yaml
  dry_run --namespace default -f examples/minimal/servicedatabase.yaml
  # An example's namespace may not exist, and a dry run does not create it.
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
check 'clippy' cargo clippy --locked --workspace --all-targets -- -D warnings
check 'cargo deny' cargo_deny
# All at once, while the cluster starts; compile errors are reported here.
check 'building the tests' cargo test --locked --all-targets --no-run
tests 'unit tests' --lib --bins
tests 'unit tests of the gateway' -p servicedb-gateway --lib --bins
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
  tests 'gateway' -p servicedb-gateway --test gateway
  check 'manifests, as a dry run' manifests
  check 'alerts, by promtool' dev/test-alerts.sh rules
  if ((installed == 0)); then
    check 'dashboards and alerts, in Prometheus' dev/test-alerts.sh live
    echo "    a part of the faults: make test-alerts has all"
  else
    not_run 'dashboards and alerts, in Prometheus' "not run: the operator is not installed"
  fi
  echo "    PostgreSQL of the end-to-end tests: E2E_POSTGRES=$E2E_POSTGRES"
  mapfile -t targets < <(test_targets)
  for target in "${targets[@]}"; do
    if [[ $target == @(e2e|faults)* ]] && ((installed != 0)); then
      not_run "tests/$target" "not run: the operator is not installed"
    elif [[ $target == e2e* ]]; then
      # They mostly wait, and limit the number that run at once themselves. Exclusive tests wait for all
      # others: so there are more threads than exclusive tests.
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
