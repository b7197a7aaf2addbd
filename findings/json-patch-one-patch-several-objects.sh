#!/usr/bin/env bash
# One would guess: a JSON Patch (RFC 6902) or JSON Merge Patch (RFC 7396) that a library applies, or refuses, in a test or a dry run is applied, or refused, by the Kubernetes API server with the same result.
# gopkg.in/evanphx/json-patch.v4 4.13.0 (the API server's) and v5 5.9.11 (controller-runtime's) against Python's jsonpatch 1.48 and json-merge-patch 0.3.0, npm's fast-json-patch 3.1.1, rfc6902 5.4.0, immutable-json-patch 6.0.3 and json-merge-patch 1.0.2: a merge loses the nulls of objects in a list (RFC 7396 replaces the list; lone nulls were mended, evanphx issue 132), a test of 1 for 1.0 fails (RFC 6902: numbers are compared as numbers), one of null for a field that is missing passes, and replace adds such a field in v4 alone; rfc6902 and immutable-json-patch report success for a replace at -1 that changed nothing, the latter for a missing field too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q jsonpatch==1.48 json-merge-patch==0.3.0
npm init -y >/dev/null
npm install --no-audit --no-fund --silent fast-json-patch@3.1.1 rfc6902@5.4.0 immutable-json-patch@6.0.3 json-merge-patch@1.0.2
cat >patches.txt <<'TXT'
{"replicas":1} [{"op":"test","path":"/replicas","value":1.0}]
{"replicas":1} [{"op":"test","path":"/paused","value":null}]
{"replicas":1} [{"op":"replace","path":"/paused","value":true}]
{"replicas":1} [{"op":"remove","path":"/paused"}]
{"args":["a","b"]} [{"op":"replace","path":"/args/-1","value":"c"}]
{"args":["a","b"]} [{"op":"move","from":"/args/0","path":"/args/2"}]
{"rules":[]} {"rules":[{"name":"a","limit":null}]}
TXT
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	v5 "github.com/evanphx/json-patch/v5"
	v4 "gopkg.in/evanphx/json-patch.v4"
)

func tell(name string, object []byte, err error) {
	if err != nil {
		object = []byte("refused")
	}
	fmt.Println(name, string(object))
}

func main() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		object, patch, _ := strings.Cut(lines.Text(), " ")
		if patch[0] == '{' {
			merged, err := v4.MergePatch([]byte(object), []byte(patch))
			tell("API-server", merged, err)
			merged, err = v5.MergePatch([]byte(object), []byte(patch))
			tell("controller-runtime", merged, err)
			continue
		}
		four, err := v4.DecodePatch([]byte(patch))
		if err != nil {
			panic(err)
		}
		patched, err := four.Apply([]byte(object))
		tell("API-server", patched, err)
		five, err := v5.DecodePatch([]byte(patch))
		if err != nil {
			panic(err)
		}
		patched, err = five.Apply([]byte(object))
		tell("controller-runtime", patched, err)
	}
}
GO
(cd go && go mod init demo && go get gopkg.in/evanphx/json-patch.v4@v4.13.0 github.com/evanphx/json-patch/v5@v5.9.11 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
cat >apply.py <<'PY'
import json, sys
import json_merge_patch, jsonpatch
for line in sys.stdin:
    document, patch = (json.loads(part) for part in line.split(" ", 1))
    try:
        found = json_merge_patch.merge(document, patch) if isinstance(patch, dict) else jsonpatch.apply_patch(document, patch)
        print("Python", json.dumps(found, separators=(",", ":")))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
        print("Python", "refused")
PY
cat >apply.mjs <<'JS'
import fs from 'node:fs';
import fast from 'fast-json-patch';
import { applyPatch } from 'rfc6902';
import { immutableJSONPatch } from 'immutable-json-patch';
import merge from 'json-merge-patch';

const rfc6902 = (document, patch) => {
  const error = applyPatch(document, patch).find((one) => one);
  if (error) throw error;
  return document;
};
const lists = { 'fast-json-patch': (document, patch) => fast.applyPatch(document, patch, true).newDocument, rfc6902, 'immutable-json-patch': immutableJSONPatch };
for (const line of fs.readFileSync(0, 'utf8').trim().split('\n')) {
  const [document, patch] = [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' '))];
  for (const [name, apply] of Object.entries(patch[1] === '{' ? { 'npm-json-merge-patch': merge.apply } : lists)) {
    let found = 'refused';
    try {
      found = JSON.stringify(apply(JSON.parse(document), JSON.parse(patch)));
    } catch {}
    console.log(name, found);
  }
}
JS
while read -r line; do
  echo "$line"
  for program in go/demo "venv/bin/python apply.py" "node apply.mjs"; do $program <<<"$line"; done >answers.txt
  awk '{ who[$2] = who[$2] " " $1 } END { for (answer in who) print "  " answer ":" who[answer] }' answers.txt | sort
done <patches.txt | tee found.txt
expected=$(cat <<'TXT'
{"replicas":1} [{"op":"test","path":"/replicas","value":1.0}]
  refused: API-server controller-runtime
  {"replicas":1}: Python fast-json-patch rfc6902 immutable-json-patch
{"replicas":1} [{"op":"test","path":"/paused","value":null}]
  refused: Python fast-json-patch rfc6902 immutable-json-patch
  {"replicas":1}: API-server controller-runtime
{"replicas":1} [{"op":"replace","path":"/paused","value":true}]
  refused: controller-runtime Python fast-json-patch rfc6902
  {"paused":true,"replicas":1}: API-server
  {"replicas":1}: immutable-json-patch
{"replicas":1} [{"op":"remove","path":"/paused"}]
  refused: API-server controller-runtime Python fast-json-patch rfc6902
  {"replicas":1}: immutable-json-patch
{"args":["a","b"]} [{"op":"replace","path":"/args/-1","value":"c"}]
  refused: Python fast-json-patch
  {"args":["a","b"]}: rfc6902 immutable-json-patch
  {"args":["a","c"]}: API-server controller-runtime
{"args":["a","b"]} [{"op":"move","from":"/args/0","path":"/args/2"}]
  refused: API-server controller-runtime Python
  {"args":["b","a"]}: fast-json-patch rfc6902 immutable-json-patch
{"rules":[]} {"rules":[{"name":"a","limit":null}]}
  {"rules":[{"name":"a","limit":null}]}: Python npm-json-merge-patch
  {"rules":[{"name":"a"}]}: API-server controller-runtime
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
