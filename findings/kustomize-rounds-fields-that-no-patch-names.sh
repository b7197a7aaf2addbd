#!/usr/bin/env bash
# One would guess: a JSON Patch in a kustomization changes the field that it names, and a kustomization without a patch changes no value: kubectl apply -k sends what kubectl apply -f of the same file sends.
# kustomize api 0.21.1 (kubectl 1.36's): one JSON Patch for another field takes the whole object through float64, so that each integer past 2^53 in it is rounded, as is one that the patch adds; a strategic merge patch keeps them. Without any patch a plain date becomes a time of day, and a plain yes the text "yes", where sigs.k8s.io/yaml 1.6.0, kubectl's reader of the same file, has the date's text and true. None with an error or a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >main.go <<'GO'
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func tell(name string, text []byte) {
	object, err := yaml.YAMLToJSON(text)
	check(err)
	var fields struct{ Spec json.RawMessage }
	check(json.Unmarshal(object, &fields))
	var short bytes.Buffer
	check(json.Compact(&short, fields.Spec))
	fmt.Println(name, short.String())
}

func main() {
	file, err := os.ReadFile("shop.yaml")
	check(err)
	tell("kubectl's reader: ", file)
	for _, one := range [][2]string{
		{"no patch:          ", ""},
		{"JSON Patch:        ", `patches: [{target: {kind: Shop}, patch: '[{"op": "replace", "path": "/spec/replicas", "value": 2}]'}]`},
		{"strategic merge:   ", `patches: [{patch: '{"apiVersion": "shop.example/v1", "kind": "Shop", "metadata": {"name": "shop"}, "spec": {"replicas": 2}}'}]`},
	} {
		check(os.WriteFile("kustomization.yaml", []byte("resources: [shop.yaml]\n"+one[1]+"\n"), 0o644))
		built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), ".")
		check(err)
		text, err := built.AsYaml()
		check(err)
		tell(one[0], text)
	}
}
GO
cat >shop.yaml <<'YAML'
apiVersion: shop.example/v1
kind: Shop
metadata:
  name: shop
spec:
  customerId: 9007199254740993
  maxBytes: 9223372036854775807
  open: yes
  replicas: 1
  since: 2026-11-30
YAML
go mod init demo 2>go.log
go get sigs.k8s.io/kustomize/api@v0.21.1 sigs.k8s.io/kustomize/kyaml@v0.21.1 sigs.k8s.io/yaml@v1.6.0 2>>go.log
go mod tidy 2>>go.log && go build -o demo . 2>>go.log || { tail -n 5 go.log; exit 1; }
./demo | tee found.txt
expected=$(cat <<'TXT'
kubectl's reader:  {"customerId":9007199254740993,"maxBytes":9223372036854775807,"open":true,"replicas":1,"since":"2026-11-30"}
no patch:           {"customerId":9007199254740993,"maxBytes":9223372036854775807,"open":"yes","replicas":1,"since":"2026-11-30T00:00:00Z"}
JSON Patch:         {"customerId":9007199254740992,"maxBytes":9223372036854776000,"open":"yes","replicas":2,"since":"2026-11-30T00:00:00Z"}
strategic merge:    {"customerId":9007199254740993,"maxBytes":9223372036854775807,"open":"yes","replicas":2,"since":"2026-11-30T00:00:00Z"}
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
