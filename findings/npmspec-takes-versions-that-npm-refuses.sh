#!/usr/bin/env bash
# One would guess: NpmSpec of Python's semantic-version, which by its README "supports the whole NPM range specification scheme", takes the versions that npm's own semver takes for the same range; all the more, no version is less than itself.
# semantic-version 2.10.0 against npm's semver 7.8.6: "<1.2.3-beta.2" takes 1.2.3-beta.2 itself and beta.11, "<2.0.0" its release candidate 2.0.0-rc.1, the exact "1.2.3-beta" also 1.2.3, "<=2.0.0-rc.1" also 2.0.0, and "1.0.0-rc.1 - 1.2.3-beta.2" 1.2.3, but none of its own ends; without an error (its issue 100, open since 2020, has "<" of an alpha). python-node-semver 0.9.1 takes what npm takes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q semantic-version==2.10.0 node-semver==0.9.1
npm init -y >/dev/null
npm install --no-audit --no-fund --silent semver@7.8.6
cat >ranges.txt <<'TXT'
^1.2.3
<2.0.0
<1.2.3-beta.2
1.2.3-beta
<=2.0.0-rc.1
1.0.0-rc.1 - 1.2.3-beta.2
TXT
versions='1.0.0-rc.1 1.0.0 1.2.3-beta 1.2.3-beta.2 1.2.3-beta.11 1.2.3 1.3.0 2.0.0-rc.1 2.0.0'
cat >match.py <<'PY'
import sys
import nodesemver
from semantic_version import NpmSpec, Version
versions = sys.argv[1].split()
for text in sys.stdin.read().splitlines():
    print("semantic-version:", *(version for version in versions if Version(version) in NpmSpec(text)))
    print("node-semver:", *(version for version in versions if nodesemver.satisfies(version, text, loose=False)))
PY
cat >match.mjs <<'JS'
import { readFileSync } from 'node:fs';
import semver from 'semver';
const versions = process.argv[2].split(' ');
for (const range of readFileSync(0, 'utf8').trimEnd().split('\n')) {
  console.log('npm:', versions.filter((version) => semver.satisfies(version, range)).join(' '));
}
JS
while read -r range; do
  echo "$range"
  node match.mjs "$versions" <<<"$range"
  venv/bin/python match.py "$versions" <<<"$range"
done <ranges.txt | tee found.txt
expected=$(cat <<'TXT'
^1.2.3
npm: 1.2.3 1.3.0
semantic-version: 1.2.3 1.3.0
node-semver: 1.2.3 1.3.0
<2.0.0
npm: 1.0.0 1.2.3 1.3.0
semantic-version: 1.0.0 1.2.3 1.3.0 2.0.0-rc.1
node-semver: 1.0.0 1.2.3 1.3.0
<1.2.3-beta.2
npm: 1.0.0 1.2.3-beta
semantic-version: 1.0.0 1.2.3-beta 1.2.3-beta.2 1.2.3-beta.11
node-semver: 1.0.0 1.2.3-beta
1.2.3-beta
npm: 1.2.3-beta
semantic-version: 1.2.3-beta 1.2.3
node-semver: 1.2.3-beta
<=2.0.0-rc.1
npm: 1.0.0 1.2.3 1.3.0 2.0.0-rc.1
semantic-version: 1.0.0 1.2.3 1.3.0 2.0.0-rc.1 2.0.0
node-semver: 1.0.0 1.2.3 1.3.0 2.0.0-rc.1
1.0.0-rc.1 - 1.2.3-beta.2
npm: 1.0.0-rc.1 1.0.0 1.2.3-beta 1.2.3-beta.2
semantic-version: 1.0.0 1.2.3
node-semver: 1.0.0-rc.1 1.0.0 1.2.3-beta 1.2.3-beta.2
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
