#!/usr/bin/env bash
# One would guess: just-diff and just-diff-apply, which offer JSON Patch (RFC 6902) by a converter of paths, make and apply the patches that fast-json-patch makes and applies, and a failed "test" stops a patch.
# just-diff 6.0.2 and just-diff-apply 5.5.0 (some 15 million downloads a month each) against fast-json-patch 3.1.1: the converter does not escape a "/" in a name, so that a patch for the field "app/name" changes the field "name" of "app" by both, without an error; "test" is not looked at, so that a patch which may only change version 7 changes version 8, and "copy" copies nothing. A lone name with "/", such as an annotation's, is refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent just-diff@6.0.2 just-diff-apply@5.5.0 fast-json-patch@3.1.1
cat >demo.mjs <<'JS'
import fast from 'fast-json-patch';
import { diff, jsonPatchPathConverter as asPatch } from 'just-diff';
import { diffApply, jsonPatchPathConverter as fromPatch } from 'just-diff-apply';

const apply = {
  'fast-json-patch': (object, patch) => fast.applyPatch(object, patch, true).newDocument,
  'just-diff-apply': (object, patch) => {
    diffApply(object, patch, fromPatch);
    return object;
  },
};
const make = { 'fast-json-patch': fast.compare, 'just-diff': (before, after) => diff(before, after, asPatch) };
const tell = (object, patch) => {
  for (const [name, by] of Object.entries(apply)) {
    let found = 'refused';
    try {
      found = JSON.stringify(by(structuredClone(object), structuredClone(patch)));
    } catch {}
    console.log(`    by ${name}: ${found}`);
  }
};
for (const [before, after] of [
  [{ 'shop.example/owner': 'Ann' }, { 'shop.example/owner': 'Bob' }],
  [{ app: { name: 'web' }, 'app/name': 'web' }, { app: { name: 'web' }, 'app/name': 'api' }],
]) {
  console.log(`${JSON.stringify(before)} to ${JSON.stringify(after)}`);
  for (const [name, by] of Object.entries(make)) {
    const patch = by(before, after);
    console.log(`  patch of ${name}: ${JSON.stringify(patch)}`);
    tell(before, patch);
  }
}
for (const patch of [
  [{ op: 'test', path: '/version', value: 7 }, { op: 'replace', path: '/text', value: 'new' }],
  [{ op: 'copy', from: '/text', path: '/title' }],
]) {
  console.log(`{"version":8,"text":"old"} and ${JSON.stringify(patch)}`);
  tell({ version: 8, text: 'old' }, patch);
}
JS
node demo.mjs | tee found.txt
expected=$(cat <<'TXT'
{"shop.example/owner":"Ann"} to {"shop.example/owner":"Bob"}
  patch of fast-json-patch: [{"op":"replace","path":"/shop.example~1owner","value":"Bob"}]
    by fast-json-patch: {"shop.example/owner":"Bob"}
    by just-diff-apply: refused
  patch of just-diff: [{"op":"replace","path":"/shop.example/owner","value":"Bob"}]
    by fast-json-patch: refused
    by just-diff-apply: refused
{"app":{"name":"web"},"app/name":"web"} to {"app":{"name":"web"},"app/name":"api"}
  patch of fast-json-patch: [{"op":"replace","path":"/app~1name","value":"api"}]
    by fast-json-patch: {"app":{"name":"web"},"app/name":"api"}
    by just-diff-apply: refused
  patch of just-diff: [{"op":"replace","path":"/app/name","value":"api"}]
    by fast-json-patch: {"app":{"name":"api"},"app/name":"web"}
    by just-diff-apply: {"app":{"name":"api"},"app/name":"web"}
{"version":8,"text":"old"} and [{"op":"test","path":"/version","value":7},{"op":"replace","path":"/text","value":"new"}]
    by fast-json-patch: refused
    by just-diff-apply: {"version":8,"text":"new"}
{"version":8,"text":"old"} and [{"op":"copy","from":"/text","path":"/title"}]
    by fast-json-patch: {"version":8,"text":"old","title":"old"}
    by just-diff-apply: {"version":8,"text":"old"}
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
