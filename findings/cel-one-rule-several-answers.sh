#!/usr/bin/env bash
# One would guess: a rule in CEL (what Kubernetes validates custom resources by) that a library evaluates without an error gives what cel-go gives, which the API server uses, so that a client can check before it sends.
# cel.dev/cel-go 0.33.2 against Python's cel-python 0.5.0, Rust's cel (in common-expression-language 0.10.0), npm's @marcbachmann/cel-js 8.0.0, @bufbuild/cel 0.6.1 and cel-js 0.8.2: a string's size is its bytes to Rust's, 7 / 2 is 3.5 to cel-js, which has no 64-bit integers either, has() of a null is false to bufbuild, nanoseconds are lost to cel-python and marcbachmann, a time's text is another in three, int("0x1F") is 31 to two, NaN equals NaN to cel-python, and npm's three order strings as UTF-16.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q cel-python==0.5.0 common-expression-language==0.10.0
npm init -y >/dev/null
npm install --no-audit --no-fund --silent --legacy-peer-deps @marcbachmann/cel-js@8.0.0 @bufbuild/cel@0.6.1 @bufbuild/protobuf@2.17.0 cel-js@0.8.2
cat >rules.txt <<'TXT'
size("Zürich") == 6
7 / 2 == 3
has({"note": null}.note)
timestamp("2026-11-30T12:00:00.000000001Z") > timestamp("2026-11-30T12:00:00Z")
string(timestamp("2026-11-30T12:00:00.5Z")) == "2026-11-30T12:00:00.5Z"
int("0x1F") == 31
0.0 / 0.0 == 0.0 / 0.0
9007199254740993 == 9007199254740992
"\uFF5E" < "\U0001F4BE"
TXT
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"bufio"
	"fmt"
	"os"

	"cel.dev/cel-go/cel"
)

func main() {
	environment, err := cel.NewEnv()
	if err != nil {
		panic(err)
	}
	for rules := bufio.NewScanner(os.Stdin); rules.Scan(); {
		answer := "refused"
		if ast, issues := environment.Compile(rules.Text()); issues.Err() == nil {
			if program, err := environment.Program(ast); err == nil {
				if value, _, err := program.Eval(map[string]any{}); err == nil {
					answer = fmt.Sprint(value.Value())
				}
			}
		}
		fmt.Println("cel-go", answer)
	}
}
GO
(cd go && go mod init demo && go get cel.dev/cel-go/cel@v0.33.2 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
cat >rules.py <<'PY'
import sys
import cel, celpy
environment = celpy.Environment()
evaluate = {"cel-python": lambda rule: environment.program(environment.compile(rule)).evaluate({}), "Rust's-cel": cel.evaluate}
for rule in sys.stdin:
    for name, run in evaluate.items():
        try:
            print(name, str(bool(run(rule.strip()))).lower())
        except Exception:
            print(name, "refused")
PY
cat >rules.mjs <<'JS'
import fs from 'node:fs';
import { evaluate as marcbachmann } from '@marcbachmann/cel-js';
import { isCelError, run } from '@bufbuild/cel';
import { evaluate } from 'cel-js';

const bufbuild = (rule) => {
  const answer = run(rule, {});
  if (isCelError(answer)) throw answer;
  return answer;
};
for (const rule of fs.readFileSync(0, 'utf8').trimEnd().split('\n')) {
  for (const [name, answer] of Object.entries({ marcbachmann, bufbuild, 'cel-js': evaluate })) {
    try {
      console.log(name, answer(rule));
    } catch {
      console.log(name, 'refused');
    }
  }
}
JS
while read -r rule; do
  echo "$rule"
  for program in go/demo "venv/bin/python rules.py" "node rules.mjs"; do $program <<<"$rule"; done >answers.txt
  awk '{ who[$2] = who[$2] " " $1 } END { for (answer in who) print "  " answer ":" who[answer] }' answers.txt | sort
done <rules.txt | tee found.txt
expected=$(cat <<'TXT'
size("Zürich") == 6
  false: Rust's-cel
  true: cel-go cel-python marcbachmann bufbuild cel-js
7 / 2 == 3
  false: cel-js
  true: cel-go cel-python Rust's-cel marcbachmann bufbuild
has({"note": null}.note)
  false: bufbuild
  refused: marcbachmann cel-js
  true: cel-go cel-python Rust's-cel
timestamp("2026-11-30T12:00:00.000000001Z") > timestamp("2026-11-30T12:00:00Z")
  false: cel-python marcbachmann
  refused: cel-js
  true: cel-go Rust's-cel bufbuild
string(timestamp("2026-11-30T12:00:00.5Z")) == "2026-11-30T12:00:00.5Z"
  false: cel-python Rust's-cel bufbuild
  refused: marcbachmann cel-js
  true: cel-go
int("0x1F") == 31
  refused: cel-go Rust's-cel marcbachmann cel-js
  true: cel-python bufbuild
0.0 / 0.0 == 0.0 / 0.0
  false: cel-go Rust's-cel marcbachmann bufbuild
  refused: cel-js
  true: cel-python
9007199254740993 == 9007199254740992
  false: cel-go cel-python Rust's-cel marcbachmann bufbuild
  true: cel-js
"\uFF5E" < "\U0001F4BE"
  false: marcbachmann bufbuild cel-js
  true: cel-go cel-python Rust's-cel
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
