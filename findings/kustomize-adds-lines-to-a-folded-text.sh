#!/usr/bin/env bash
# One would guess: kubectl apply -k of a ConfigMap as it is sends the texts that kubectl apply -f of the same file sends; a kustomization that names the file alone changes no value.
# kustomize api 0.21.1 (kubectl 1.36's; kustomize issue 4201 of 2021 has a case): in a folded text (">") it adds an empty line before a line that is indented further, and ">+" gets one more line end, without a message: a shell's command that goes on after "\" ends there, a text in SQL is stored as another one, and a checksum over the file changes. A text with "|" is kept. Both sides are read here by sigs.k8s.io/yaml 1.6.0, kubectl's reader.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >main.go <<'GO'
package main

import (
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

func texts(text []byte) map[string]string {
	var object struct{ Data map[string]string }
	check(yaml.Unmarshal(text, &object))
	return object.Data
}

func main() {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), ".")
	check(err)
	output, err := built.AsYaml()
	check(err)
	file, err := os.ReadFile("configmap.yaml")
	check(err)
	before, after := texts(file), texts(output)
	for _, name := range []string{"literal.sh", "folded.sh", "folded.sql", "kept"} {
		fmt.Printf("%s\n  -f %q\n  -k %q\n", name, before[name], after[name])
	}
}
GO
cat >configmap.yaml <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata:
  name: shop
data:
  literal.sh: |
    pg_dump \
      --schema-only shop
  folded.sh: >
    pg_dump \
      --schema-only shop
  folded.sql: >
    UPDATE page SET body = 'First:
      second';
  kept: >+
    one

YAML
echo 'resources: [configmap.yaml]' >kustomization.yaml
go mod init demo 2>go.log
go get sigs.k8s.io/kustomize/api@v0.21.1 sigs.k8s.io/kustomize/kyaml@v0.21.1 sigs.k8s.io/yaml@v1.6.0 2>>go.log
go mod tidy 2>>go.log && go build -o demo . 2>>go.log || { tail -n 5 go.log; exit 1; }
./demo | tee found.txt
expected=$(cat <<'TXT'
literal.sh
  -f "pg_dump \\\n  --schema-only shop\n"
  -k "pg_dump \\\n  --schema-only shop\n"
folded.sh
  -f "pg_dump \\\n  --schema-only shop\n"
  -k "pg_dump \\\n\n  --schema-only shop\n"
folded.sql
  -f "UPDATE page SET body = 'First:\n  second';\n"
  -k "UPDATE page SET body = 'First:\n\n  second';\n"
kept
  -f "one\n\n"
  -k "one\n\n\n"
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
