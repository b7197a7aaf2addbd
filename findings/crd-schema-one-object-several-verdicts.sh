#!/usr/bin/env bash
# One would guess: an object that a JSON Schema library finds valid by the schema of a CRD, with formats on, is valid to the API server, and the other way round, so that a client can check before it sends.
# k8s.io/kube-openapi of 17 March 2026 (the API server's validation) against Python's jsonschema 4.26.0 and jsonschema-rs 0.61.2 (in Rust) and npm's ajv 8.20.0: prices with multipleOf 0.01 are one thing to each (the API server takes 0.07 and refuses 1.15 and 19.99, jsonschema-rs takes all three, the other two none); \w is ASCII to all but jsonschema, whose $ also ends before a line end; \S takes a no-break space in the API server alone; format duration is Go's "1h30m" there too, ipv4 has leading zeros; ajv takes a number past its maximum beyond 2^53.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q jsonschema==4.26.0 isoduration==20.11.0 jsonschema-rs==0.61.2
npm init -y >/dev/null
npm install --no-audit --no-fund --silent ajv@8.20.0 ajv-formats@3.0.1
cat >cases.txt <<'TXT'
{"type":"number","multipleOf":0.01} 0.07
{"type":"number","multipleOf":0.01} 1.15
{"type":"number","multipleOf":0.01} 19.99
{"type":"string","pattern":"^\\d+$"} "12\n"
{"type":"string","pattern":"^\\w+$"} "Zürich"
{"type":"string","pattern":"^\\S+$"} "12\u00a0345"
{"type":"integer","maximum":9007199254740992} 9007199254740993
{"type":"string","format":"duration"} "1h30m"
{"type":"string","format":"duration"} "P1DT12H"
{"type":"string","format":"ipv4"} "010.0.0.1"
TXT
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	exact "sigs.k8s.io/json"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		rule, text, _ := strings.Cut(lines.Text(), " ")
		var schema spec.Schema
		check(json.Unmarshal([]byte(rule), &schema))
		var value any
		check(exact.UnmarshalCaseSensitivePreserveInts([]byte(text), &value))
		verdict := "invalid"
		if validate.NewSchemaValidator(&schema, nil, "", strfmt.Default).Validate(value).IsValid() {
			verdict = "valid"
		}
		fmt.Println("API-server", verdict)
	}
}
GO
(cd go && go mod init demo && go get k8s.io/kube-openapi@v0.0.0-20260317180543-43fb72c5454a && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
cat >verdict.py <<'PY'
import json, sys
import jsonschema, jsonschema_rs
for line in sys.stdin:
    schema, value = (json.loads(part) for part in line.split(" ", 1))
    dialect = jsonschema.Draft202012Validator
    for name, valid in (
        ("jsonschema", dialect(schema, format_checker=dialect.FORMAT_CHECKER).is_valid(value)),
        ("jsonschema-rs", jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(value)),
    ):
        print(name, "valid" if valid else "invalid")
PY
cat >verdict.mjs <<'JS'
import fs from 'node:fs';
import Ajv from 'ajv/dist/2020.js';
import formats from 'ajv-formats';
for (const line of fs.readFileSync(0, 'utf8').trim().split('\n')) {
  const at = line.indexOf(' ');
  const ajv = new Ajv.default({ strict: false });
  formats.default(ajv);
  console.log('ajv', ajv.validate(JSON.parse(line.slice(0, at)), JSON.parse(line.slice(at))) ? 'valid' : 'invalid');
}
JS
while read -r line; do
  echo "$line"
  for program in go/demo "venv/bin/python verdict.py" "node verdict.mjs"; do $program <<<"$line"; done >answers.txt
  awk '{ who[$2] = who[$2] " " $1 } END { for (answer in who) print "  " answer ":" who[answer] }' answers.txt | sort
done <cases.txt | tee found.txt
expected=$(cat <<'TXT'
{"type":"number","multipleOf":0.01} 0.07
  invalid: jsonschema ajv
  valid: API-server jsonschema-rs
{"type":"number","multipleOf":0.01} 1.15
  invalid: API-server jsonschema ajv
  valid: jsonschema-rs
{"type":"number","multipleOf":0.01} 19.99
  invalid: API-server jsonschema ajv
  valid: jsonschema-rs
{"type":"string","pattern":"^\\d+$"} "12\n"
  invalid: API-server jsonschema-rs ajv
  valid: jsonschema
{"type":"string","pattern":"^\\w+$"} "Zürich"
  invalid: API-server jsonschema-rs ajv
  valid: jsonschema
{"type":"string","pattern":"^\\S+$"} "12\u00a0345"
  invalid: jsonschema jsonschema-rs ajv
  valid: API-server
{"type":"integer","maximum":9007199254740992} 9007199254740993
  invalid: API-server jsonschema jsonschema-rs
  valid: ajv
{"type":"string","format":"duration"} "1h30m"
  invalid: jsonschema jsonschema-rs ajv
  valid: API-server
{"type":"string","format":"duration"} "P1DT12H"
  valid: API-server jsonschema jsonschema-rs ajv
{"type":"string","format":"ipv4"} "010.0.0.1"
  invalid: jsonschema jsonschema-rs ajv
  valid: API-server
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
