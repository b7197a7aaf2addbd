#!/usr/bin/env bash
# One would guess: a label's value comes out of an exporter as it went in, since the text format of Prometheus has an escape for the backslash, and two series that differ stay two.
# Rust metrics-exporter-prometheus 0.18.3 takes a backslash before another backslash or a quote for an escape that is there already: of \\files\share the reader gets \files\share, of {\"id\":1} it gets {"id":1}. Where both forms occur, two lines have the same labels, and the counters of two paths, patterns or JSON texts cannot be told apart. Python's prometheus_client 0.23.1 writes all four values so that it reads them back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset CARGO_TARGET_DIR
/usr/bin/python3 -m venv venv
venv/bin/pip install -q prometheus_client==0.23.1
cat >values.txt <<'TXT'
\\files\share
\files\share
{\"id\":1}
{"id":1}
TXT
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "demo"
version = "0.1.0"
edition = "2021"
[dependencies]
metrics = "=0.24.6"
metrics-exporter-prometheus = { version = "=0.18.3", default-features = false }
[profile.dev]
debug = false
TOML
cat >src/main.rs <<'RS'
use metrics_exporter_prometheus::PrometheusBuilder;

fn main() {
    let values = std::fs::read_to_string("values.txt").unwrap();
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        for (number, value) in values.lines().enumerate() {
            metrics::counter!("opened_total", "what" => value.to_owned()).increment(number as u64 + 1);
        }
    });
    print!("{}", recorder.handle().render());
}
RS
cargo build -q
cat >write.py <<'PY'
import prometheus_client
registry = prometheus_client.CollectorRegistry()
opened = prometheus_client.Counter("opened", "Opened.", ["what"], registry=registry)
for number, value in enumerate(open("values.txt").read().splitlines(), 1):
    opened.labels(value).inc(number)
print(prometheus_client.generate_latest(registry).decode(), end="")
PY
cat >read.py <<'PY'
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        if sample.name == "opened_total":
            print(f"{sample.value:g} {sample.labels['what']}")
PY
{
  echo Rust:
  target/debug/demo | venv/bin/python read.py | sort
  echo Python:
  venv/bin/python write.py | venv/bin/python read.py | sort
} | tee found.txt
expected='Rust:
1 \files\share
2 \files\share
3 {"id":1}
4 {"id":1}
Python:
1 \\files\share
2 \files\share
3 {\"id\":1}
4 {"id":1}'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
