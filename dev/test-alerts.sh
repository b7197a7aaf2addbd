#!/usr/bin/env bash
# The alerts and dashboards, in a real Prometheus.
#   test-alerts.sh rules   promtool's tests of each alert; needs no cluster
#   test-alerts.sh dashboards   the dashboards against Grafana's own types, from npm; needs Node
#   test-alerts.sh live    on the cluster, under pgbench: every query of every panel and rule
#   test-alerts.sh plots   the same with all faults, and plots of all panels in docs/images; needs python3-matplotlib
#   test-alerts.sh         all but the plots, with a fault for each alert
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh

what=${1:-all}
PROMETHEUS=${PROMETHEUS:-$DEV/prometheus}

# Debian's package, unpacked: its service must not run.
programs() {
  how=present
  [[ ! -x $PROMETHEUS/usr/bin/promtool ]] || return 0
  mkdir -p "$PROMETHEUS/package"
  (cd "$PROMETHEUS/package" && { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; })
  dpkg-deb -x "$PROMETHEUS"/package/prometheus_*.deb "$PROMETHEUS"
  rm -r "$PROMETHEUS/package"
  how=unpacked
}

rules() {
  local promtool=$PROMETHEUS/usr/bin/promtool
  "$promtool" check rules "$ROOT/charts/servicedb/files/rules.yaml"
  "$promtool" test rules "$ROOT/tests/alerts/rules.yaml"
}

dashboards() {
  local work=$DEV/dashboards
  mkdir -p "$work"
  cp alerts/dashboards/{package.json,package-lock.json,check.mjs} "$work/"
  (cd "$work" && npm ci --no-audit --no-fund --ignore-scripts)
  node "$work/check.mjs" "$ROOT"/charts/servicedb/files/dashboards/*.json
}

# Debian's own Python: it has Debian's matplotlib.
live() { /usr/bin/python3 "$ROOT/dev/alerts/live.py" --prometheus "$PROMETHEUS/usr/bin/prometheus" --root "$ROOT" "$@"; }

[[ $what == dashboards ]] || programs
case $what in
rules) rules ;;
dashboards) dashboards ;;
live) live ;;
plots) live --faults --plots "$ROOT/docs/images" ;;
all)
  rules
  dashboards
  live --faults
  ;;
*) fail "usage: test-alerts.sh [rules|dashboards|live|plots]" ;;
esac
