#!/usr/bin/env bash
# One would guess: OpenTelemetry's own exporters for Prometheus give one instrument, named by the semantic conventions, one name and one set of labels in every language (its specification has a chapter on that), so that a dashboard or an alert covers all services.
# Python's opentelemetry-exporter-prometheus 0.66b2 and npm's @opentelemetry/exporter-prometheus 0.223.0: only Python's appends the unit, so http.server.request.duration is http_server_request_duration_seconds there and http_server_request_duration here, sent in By sent_bytes_total and sent_total; a bucket is le="5.0" and le="5"; of pool.name and pool_name Python's keeps the last (its issue 3928, open), npm's writes both as pool_name in one line, which makes the page invalid for its reader; a gauge's NaN keeps the old value or is NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q opentelemetry-exporter-prometheus==0.66b2 opentelemetry-sdk==1.45.2 prometheus_client==0.26.0
npm init -y >/dev/null
npm install --no-audit --no-fund --silent @opentelemetry/exporter-prometheus@0.223.0 @opentelemetry/sdk-metrics@2.12.1 @opentelemetry/api@1.9.0
cat >page.py <<'PY'
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import generate_latest

meter = MeterProvider(metric_readers=[PrometheusMetricReader()]).get_meter("shop")
meter.create_histogram("http.server.request.duration", unit="s").record(3, {"http.route": "/cart"})
meter.create_counter("sent", unit="By").add(300)
meter.create_counter("db.calls").add(7, {"pool.name": "orders", "pool_name": "read"})
gauge = meter.create_gauge("temperature", unit="Cel")
gauge.set(21)
gauge.set(float("nan"))
print(generate_latest().decode())
PY
cat >page.cjs <<'JS'
const { MeterProvider } = require('@opentelemetry/sdk-metrics');
const { PrometheusExporter, PrometheusSerializer } = require('@opentelemetry/exporter-prometheus');
(async () => {
  const reader = new PrometheusExporter({ preventServerStart: true });
  const meter = new MeterProvider({ readers: [reader] }).getMeter('shop');
  meter.createHistogram('http.server.request.duration', { unit: 's' }).record(3, { 'http.route': '/cart' });
  meter.createCounter('sent', { unit: 'By' }).add(300);
  meter.createCounter('db.calls').add(7, { 'pool.name': 'orders', pool_name: 'read' });
  const gauge = meter.createGauge('temperature', { unit: 'Cel' });
  gauge.record(21);
  gauge.record(NaN);
  const { resourceMetrics } = await reader.collect();
  console.log(new PrometheusSerializer().serialize(resourceMetrics));
})();
JS
cat >read.py <<'PY'
import sys
from prometheus_client.parser import text_string_to_metric_families

try:
    print("read:", "yes" if list(text_string_to_metric_families(sys.stdin.read())) else "empty")
except ValueError as error:
    print("read:", str(error).split(":")[0])
PY
# lines PAGE: its samples without what tells of the library itself.
lines() { grep -E '^(http|sent|db|temp)' "$1" | grep -E 'le="5(\.0)?"|total|temp' | sed -E 's/,?otel_scope_[a-z_]+="[^"]*"//g; s/\{,/{/; s/\{\}//'; }
venv/bin/python page.py >python.txt 2>python.log
node page.cjs >npm.txt
{
  for page in python npm; do
    echo "$page:"
    lines "$page.txt"
    venv/bin/python read.py <"$page.txt"
  done
} | tee found.txt
expected='python:
http_server_request_duration_seconds_bucket{http_route="/cart",le="5.0"} 1.0
sent_bytes_total 300.0
db_calls_total{pool_name="read"} 7.0
temperature_celsius 21.0
read: yes
npm:
http_server_request_duration_bucket{http_route="/cart",le="5"} 1
sent_total 300
db_calls_total{pool_name="orders",pool_name="read"} 7
temperature NaN
read: Invalid labels'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
