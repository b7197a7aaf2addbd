#!/usr/bin/env bash
# One would guess: a key that stands beside a YAML merge (<<: *common) wins over the merged one wherever it stands, as the type's definition has it ("unless the key already exists in it"), so a manifest is one object to kubectl and to what checks or renders it.
# k8s.io/apimachinery 0.36.0 (kubectl's decoder, by sigs.k8s.io/yaml 1.6.0) lets a merge override the key above it: "tier: large" before "<<: *common" is the common "small", while kustomize's api 0.21.1, go.yaml.in/yaml/v4, PyYAML 6.0.4, ruamel.yaml 0.19.1, js-yaml 4.1.1 and yaml 2.9.1 read "large"; so kubectl apply -k and -f of one file send two objects. goccy/go-yaml 1.19.2 reads as kubectl does, js-yaml 5.5.0 merges nothing and has a key "<<". With the merge first, all others agree; a strict read by sigs.k8s.io/yaml refuses both.
set -euo pipefail
umask 022
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q pyyaml==6.0.4 ruamel.yaml==0.19.1
npm init -y >/dev/null
npm install --no-audit --no-fund --silent js-yaml@5.5.0 js-yaml-4@npm:js-yaml@4.1.1 yaml@2.9.1
go mod init demo 2>go.log
go get k8s.io/apimachinery@v0.36.0 sigs.k8s.io/kustomize/api@v0.21.1 sigs.k8s.io/kustomize/kyaml@v0.21.1 sigs.k8s.io/yaml@v1.6.0 go.yaml.in/yaml/v4@v4.0.0 github.com/goccy/go-yaml@v1.19.2 2>>go.log
cat >main.go <<'GO'
package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	goccy "github.com/goccy/go-yaml"
	yaml4 "go.yaml.in/yaml/v4"
	kubectl "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

type manifest struct {
	Metadata struct {
		Labels map[string]any
	}
}

func main() {
	for _, folder := range os.Args[1:] {
		text, err := os.ReadFile(folder + "/object.yaml")
		if err != nil {
			panic(err)
		}
		show := func(name string, read func(object *manifest) error) {
			var object manifest
			if err := read(&object); err != nil {
				fmt.Printf("%s, %s: refused: %s\n", folder, name, strings.Split(err.Error(), "\n")[0])
				return
			}
			fmt.Printf("%s, %s: tier %v, team %v\n", folder, name, object.Metadata.Labels["tier"], object.Metadata.Labels["team"])
		}
		show("kubectl's decoder", func(object *manifest) error {
			return kubectl.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096).Decode(object)
		})
		show("sigs.k8s.io/yaml, strict", func(object *manifest) error {
			var whole map[string]any
			if err := yaml.UnmarshalStrict(text, &whole); err != nil {
				return err
			}
			return yaml.Unmarshal(text, object)
		})
		show("kustomize", func(object *manifest) error {
			objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
			if err != nil {
				return err
			}
			written, err := objects.AsYaml()
			if err != nil {
				return err
			}
			return yaml.Unmarshal(written, object)
		})
		show("go.yaml.in/yaml/v4", func(object *manifest) error { return yaml4.Unmarshal(text, object) })
		show("goccy/go-yaml", func(object *manifest) error { return goccy.Unmarshal(text, object) })
	}
}
GO
go mod tidy 2>>go.log && go build -o demo . 2>>go.log || { tail -n 5 go.log; exit 1; }
cat >read.py <<'PY'
import sys

import yaml
from ruamel.yaml import YAML

for folder in sys.argv[1:]:
    text = open(folder + "/object.yaml").read()
    for name, read in {"PyYAML": yaml.safe_load, "ruamel.yaml": YAML(typ="safe").load}.items():
        labels = read(text)["metadata"]["labels"]
        print(f"{folder}, {name}: tier {labels.get('tier')}, team {labels.get('team')}")
PY
cat >read.mjs <<'JS'
import { readFileSync } from 'node:fs';
import * as five from 'js-yaml';
import * as four from 'js-yaml-4';
import { parse } from 'yaml';

for (const folder of process.argv.slice(2)) {
  const text = readFileSync(`${folder}/object.yaml`, 'utf8');
  const readers = { 'js-yaml 4.1.1': four.load, 'js-yaml 5.5.0': five.load, yaml: (text) => parse(text, { merge: true }) };
  for (const [name, read] of Object.entries(readers)) {
    const { labels } = read(text).metadata;
    console.log(`${folder}, ${name}: tier ${labels.tier}, team ${labels.team}${labels['<<'] ? ', and a key <<' : ''}`);
  }
}
JS
# object FOLDER: a manifest whose labels are the lines read.
object() {
  mkdir "$1"
  echo 'resources: [object.yaml]' >"$1/kustomization.yaml"
  { printf '%s\n' 'apiVersion: v1' 'kind: ConfigMap' 'metadata:' '  name: shop' '  annotations: &common {tier: small, team: shop}' '  labels:' && cat; } >"$1/object.yaml"
}
object before <<'YAML'
    tier: large
    <<: *common
YAML
object after <<'YAML'
    <<: *common
    tier: large
YAML
{
  ./demo before after
  venv/bin/python read.py before after
  node read.mjs before after
} | tee found.txt
expected=$(cat <<'TXT'
before, kubectl's decoder: tier small, team shop
before, sigs.k8s.io/yaml, strict: refused: error converting YAML to JSON: yaml: unmarshal errors:
before, kustomize: tier large, team shop
before, go.yaml.in/yaml/v4: tier large, team shop
before, goccy/go-yaml: tier small, team shop
after, kubectl's decoder: tier large, team shop
after, sigs.k8s.io/yaml, strict: refused: error converting YAML to JSON: yaml: unmarshal errors:
after, kustomize: tier large, team shop
after, go.yaml.in/yaml/v4: tier large, team shop
after, goccy/go-yaml: tier large, team shop
before, PyYAML: tier large, team shop
before, ruamel.yaml: tier large, team shop
after, PyYAML: tier large, team shop
after, ruamel.yaml: tier large, team shop
before, js-yaml 4.1.1: tier large, team shop
before, js-yaml 5.5.0: tier large, team undefined, and a key <<
before, yaml: tier large, team shop
after, js-yaml 4.1.1: tier large, team shop
after, js-yaml 5.5.0: tier large, team undefined, and a key <<
after, yaml: tier large, team shop
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
