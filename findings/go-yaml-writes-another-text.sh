#!/usr/bin/env bash
# One would guess: a text of several lines, such as a script in a ConfigMap, that a Go library writes as YAML is that text to whoever reads it, or the library refuses it.
# goccy/go-yaml 1.19.2 writes it as a "|" block without the marks that YAML has for such texts: without an error, an indented first line after an empty one loses its indentation, CRLF becomes LF and a last line of spaces is lost (its issues 781 and 807, open, have CRLF and a lone line end); gopkg.in/yaml.v3 3.0.1 loses the empty line before an indented one. go.yaml.in/yaml/v4 4.0.0 and sigs.k8s.io/yaml 1.6.0 (kubectl's) write all rightly, as PyYAML 6.0.3 reads them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q PyYAML==6.0.3
cat >texts.json <<'JSON'
["first\n  second\n\nthird\n", "  first\nsecond\n", "\n  if true; then\n    run\n  fi\n", "first\r\nsecond\r\n", "a list:\n  \n"]
JSON
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"encoding/json"
	"os"

	goccy "github.com/goccy/go-yaml"
	v4 "go.yaml.in/yaml/v4"
	v3 "gopkg.in/yaml.v3"
	sigs "sigs.k8s.io/yaml"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	write := map[string]func(any) ([]byte, error){
		"goccy":   func(value any) ([]byte, error) { return goccy.Marshal(value) },
		"yaml.v3": v3.Marshal,
		"yaml.v4": func(value any) ([]byte, error) { return v4.Marshal(value) },
		"kubectl": sigs.Marshal,
	}[os.Args[1]]
	var texts []string
	check(json.NewDecoder(os.Stdin).Decode(&texts))
	for i, text := range texts {
		yaml, err := write(map[string]any{"data": map[string]string{"text": text}, "end": 1})
		check(err)
		texts[i] = string(yaml)
	}
	check(json.NewEncoder(os.Stdout).Encode(texts))
}
GO
(cd go && go mod init demo && go get github.com/goccy/go-yaml@v1.19.2 gopkg.in/yaml.v3@v3.0.1 go.yaml.in/yaml/v4@v4.0.0 sigs.k8s.io/yaml@v1.6.0 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
cat >read.py <<'PY'
import json, sys, yaml
for text, written in zip(json.load(open("texts.json")), json.load(sys.stdin)):
    try:
        found = yaml.safe_load(written)["data"]["text"]
    except yaml.YAMLError:
        found = "no YAML"
    if found != text:
        print(f"{sys.argv[1]}: {json.dumps(text)} is read as {json.dumps(found)}")
PY
for writer in goccy yaml.v3 yaml.v4 kubectl; do go/demo $writer <texts.json | venv/bin/python read.py $writer; done | tee found.txt
expected='goccy: "\n  if true; then\n    run\n  fi\n" is read as "\nif true; then\n  run\nfi\n"
goccy: "first\r\nsecond\r\n" is read as "first\nsecond\n"
goccy: "a list:\n  \n" is read as "a list:\n"
yaml.v3: "\n  if true; then\n    run\n  fi\n" is read as "  if true; then\n    run\n  fi\n"'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
