#!/usr/bin/env bash
# One would guess: a parser of the Prometheus text format either gives each sample with its labels or an error, in Rust as in Python and JavaScript.
# Rust prometheus-parse 0.2.5 returns Ok and cuts a label's value at a comma, leaves the label out where its value holds "=", leaves the sample out where it holds "}" or where a space stands before the labels, and keeps the backslashes: seven series of a statements exporter become five samples, three of them with the same labels; Python's prometheus_client 0.23.1 and npm's parse-prometheus-text-format 1.1.1 read all seven alike.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset CARGO_TARGET_DIR
/usr/bin/python3 -m venv venv
venv/bin/pip install -q prometheus_client==0.23.1
npm init -y >/dev/null
npm install --no-audit --no-fund --silent parse-prometheus-text-format@1.1.1
cat >metrics.txt <<'TXT'
# HELP statement_calls_total Calls of a statement.
# TYPE statement_calls_total counter
statement_calls_total{db="shop",query="SELECT a"} 1
statement_calls_total{db="shop",query="SELECT a, b"} 2
statement_calls_total{db="shop",query="SELECT a, c"} 3
statement_calls_total{db="shop",query="SELECT a WHERE b = 1"} 4
statement_calls_total{db="shop",query="SELECT \"A\""} 5
statement_calls_total{db="shop",query="SELECT '{}'"} 6
statement_calls_total {db="shop",query="COMMIT"} 7
TXT
cat >read.py <<'PY'
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(open("metrics.txt").read()):
    for sample in family.samples:
        print(f"{sample.value:g}", *(f"{name}={value}" for name, value in sorted(sample.labels.items())), sep=" | ")
PY
cat >read.mjs <<'JS'
import { readFileSync } from 'node:fs';
import parse from 'parse-prometheus-text-format';
for (const { metrics } of parse(readFileSync('metrics.txt', 'utf8'))) {
  for (const { value, labels } of metrics) console.log([value, ...Object.keys(labels).sort().map((name) => `${name}=${labels[name]}`)].join(' | '));
}
JS
cat >Cargo.toml <<'TOML'
[package]
name = "demo"
version = "0.1.0"
edition = "2021"
[dependencies]
prometheus-parse = "=0.2.5"
TOML
mkdir src
cat >src/main.rs <<'RS'
use prometheus_parse::{Scrape, Value};

fn main() {
    let text = std::fs::read_to_string("metrics.txt").unwrap();
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("no error");
    for sample in scrape.samples {
        let mut labels: Vec<String> = sample.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        labels.sort();
        let Value::Counter(value) = sample.value else { panic!("not a counter") };
        println!("{value} | {}", labels.join(" | "));
    }
}
RS
cargo build -q
venv/bin/python read.py >python.txt
node read.mjs >javascript.txt
target/debug/demo | sort -n >rust.txt
for language in python javascript rust; do
  echo "$language:"
  cat "$language.txt"
done
expected='1 | db=shop | query=SELECT a
2 | db=shop | query=SELECT a
3 | db=shop | query=SELECT a
4 | db=shop
5 | db=shop | query=SELECT \"A\'
[[ $(<rust.txt) == "$expected" && $(wc -l <python.txt) == 7 ]] && grep -qx '5 | db=shop | query=SELECT "A"' python.txt && cmp python.txt javascript.txt ||
  { echo "this has changed" >&2; exit 1; }
