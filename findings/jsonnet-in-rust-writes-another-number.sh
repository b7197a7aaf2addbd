#!/usr/bin/env bash
# One would guess: Jsonnet is one language with one standard library, so a configuration gives the same numbers and texts with each implementation that evaluates it without an error.
# PyPI's jsonnet (in C++) and gojsonnet 0.22.0 against rjsonnet 0.5.6 (jrsonnet, in Rust): "%.2f" of -12.34 is "-13.-34", of 0.999 "0.100", of -0.04 "%.1f" makes -1.0, "%d" of -3.99 is -4, which is -3 to the others; halves are rounded to the even digit or up; and its manifestYamlDoc leaves the texts 1_000, 0b11 and 685_230.15 without quotes, which PyYAML 6.0.3 reads as numbers (jrsonnet issue 196, open, has "%g" of 0.99). For its part C++ rounds -2.5 to -2 and 0.49999999999999994 to 1. None with an error or a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q jsonnet==0.22.0 gojsonnet==0.22.0 rjsonnet==0.5.6 PyYAML==6.0.3
cat >evaluate.py <<'PY'
import json
import _gojsonnet, _jsonnet, rjsonnet, yaml

def in_all(expression, change=lambda value: value):
    answers = {}
    for name, library in (("C++", _jsonnet), ("Go", _gojsonnet), ("Rust", rjsonnet)):
        answer = json.dumps(change(json.loads(library.evaluate_snippet("shop.jsonnet", expression))))
        answers.setdefault(answer, []).append(name)
    return ", ".join(f"{answer} ({' '.join(names)})" for answer, names in answers.items())

for expression in (
    "'%.2f' % 12.34", "'%.2f' % -12.34", "'%.2f' % 0.999", "'%.1f' % 19.96", "'%.1f' % -0.04", "'%d' % -3.99", "'%.0f' % 2.5",
    "std.round(-2.5)", "std.round(0.49999999999999994)",
):
    print(f"{expression}: {in_all(expression)}")
for text in ("NO", "1_000", "0b11", "685_230.15"):
    print(f"{text!r} as YAML: {in_all('std.manifestYamlDoc({ value: ' + json.dumps(text) + ' }, quote_keys=false)', lambda document: yaml.safe_load(document)['value'])}")
PY
venv/bin/python evaluate.py | tee found.txt
expected=$(cat <<'TXT'
'%.2f' % 12.34: "12.34" (C++ Go Rust)
'%.2f' % -12.34: "-12.34" (C++ Go), "-13.-34" (Rust)
'%.2f' % 0.999: "1.00" (C++ Go), "0.100" (Rust)
'%.1f' % 19.96: "20.0" (C++ Go), "19.10" (Rust)
'%.1f' % -0.04: "-0.0" (C++ Go), "-1.0" (Rust)
'%d' % -3.99: "-3" (C++ Go), "-4" (Rust)
'%.0f' % 2.5: "3" (C++ Go), "2" (Rust)
std.round(-2.5): -2 (C++), -3 (Go Rust)
std.round(0.49999999999999994): 1 (C++), 0 (Go Rust)
'NO' as YAML: "NO" (C++ Go Rust)
'1_000' as YAML: "1_000" (C++ Go), 1000 (Rust)
'0b11' as YAML: "0b11" (C++ Go), 3 (Rust)
'685_230.15' as YAML: "685_230.15" (C++ Go), 685230.15 (Rust)
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
