#!/usr/bin/env bash
# The alerts and dashboards, in a real Prometheus.
#   test-alerts.sh rules   promtool's tests of each alert; needs no cluster
#   test-alerts.sh live    on the cluster, under pgbench: every query of every panel and rule
#   test-alerts.sh         both, and faults that each make their alert fire
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

live() { python3 "$ROOT/dev/alerts/live.py" --prometheus "$PROMETHEUS/usr/bin/prometheus" --root "$ROOT" "$@"; }

programs
case $what in
rules) rules ;;
live) live ;;
all)
  rules
  live --faults
  ;;
*) fail "usage: test-alerts.sh [rules|live]" ;;
esac
