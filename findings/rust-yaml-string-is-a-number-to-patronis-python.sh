#!/usr/bin/env bash
# One would guess: a string that a Rust program writes as YAML is that string to the Python that reads it, all the more with a crate that is named after the Norway problem, and the other way round.
# serde_norway 0.9.42, PyYAML 6.0.3 (Patroni's reader): of 14 strings written by the crate 12 are no strings to PyYAML (NO is false, 1:30 is 90, 1_000 is 1000, a date is a date), and the plain = fails the whole file; of PyYAML's own strings 1e3, 12345e6 and 0o17 are numbers to the crate.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset CARGO_TARGET_DIR
/usr/bin/python3 -m venv venv
venv/bin/pip install -q pyyaml==6.0.3
cat >Cargo.toml <<'TOML'
[package]
name = "demo"
version = "0.1.0"
edition = "2021"
[dependencies]
serde_norway = "=0.9.42"
TOML
mkdir src
# Without arguments: reads a list and says what kind each value is. With: writes the arguments as a list of strings.
cat >src/main.rs <<'RS'
use serde_norway::Value;

fn main() {
    let texts: Vec<String> = std::env::args().skip(1).collect();
    if !texts.is_empty() {
        return print!("{}", serde_norway::to_string(&texts).unwrap());
    }
    let text = std::io::read_to_string(std::io::stdin()).unwrap();
    for value in serde_norway::from_str::<Vec<Value>>(&text).unwrap() {
        match value {
            Value::String(text) => println!("string {text}"),
            Value::Number(number) => println!("number {number}"),
            other => println!("other {other:?}"),
        }
    }
}
RS
cargo build -q
cat >read.py <<'PY'
import sys, yaml
for line in sys.stdin:
    text = line[2:].rstrip("\n")
    try:
        value = yaml.safe_load(line)[0]
        if value != text:
            print(f"{text} -> {type(value).__name__} {value}")
    except yaml.YAMLError as error:
        print(f"{text} -> {str(error).splitlines()[0]}")
PY
texts=(chat no NO off on yes 1:30 12:30:45 -1:00 1_000 0b1_0 2026-11-29 '2026-11-29 02:30:00' =)
echo "written by serde_norway, read by PyYAML:"
target/debug/demo "${texts[@]}" | venv/bin/python read.py | tee read.txt
echo "written by PyYAML, read by serde_norway:"
venv/bin/python -c 'import yaml; print(yaml.safe_dump(["chat", "1e3", "12345e6", "0o17"]), end="")' | target/debug/demo | tee back.txt
[[ $(wc -l <read.txt) == 13 && $(grep -c 'bool\|int\|date\|could not determine' read.txt) == 13 && $(grep -c '^number' back.txt) == 3 ]] &&
  grep -qx 'NO -> bool False' read.txt && grep -qx '12:30:45 -> int 45045' read.txt && grep -qx 'number 1000.0' back.txt || { echo "this has changed" >&2; exit 1; }
