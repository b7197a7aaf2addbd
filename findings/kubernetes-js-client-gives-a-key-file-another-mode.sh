#!/usr/bin/env bash
# One would guess: a manifest with "defaultMode: 0400", the usual way to write a file mode, means one mode to kubectl and to Kubernetes' own clients that load the same file, or an error.
# @kubernetes/client-node 1.4.0: its loadYaml reads YAML 1.2, where 0400 is four hundred, octal 0620: a private key is writable by its owner's group and no longer private, and 0500 becomes 0764, both modes that the API takes (up to 0777), without an error or a warning. So do npm's yaml 2.9.1 and ruamel.yaml 0.19.1; sigs.k8s.io/yaml 1.6.0 (kubectl's) and PyYAML 6.0.3 (Kubernetes' Python client's) read 0400.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q PyYAML==6.0.3 ruamel.yaml==0.19.1
npm init -y >/dev/null
npm install --no-audit --no-fund --silent @kubernetes/client-node@1.4.0 yaml@2.9.1
cat >pod.yaml <<'YAML'
apiVersion: v1
kind: Pod
metadata:
  name: shop
spec:
  containers: [{name: shop, image: shop}]
  volumes:
  - name: key
    secret: {secretName: key, defaultMode: 0400}
  - name: script
    configMap: {name: script, defaultMode: 0500}
YAML
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

func main() {
	text, err := os.ReadFile("pod.yaml")
	if err != nil {
		panic(err)
	}
	var pod struct {
		Spec struct {
			Volumes []struct{ Secret, ConfigMap struct{ DefaultMode int } }
		}
	}
	if err := yaml.Unmarshal(text, &pod); err != nil {
		panic(err)
	}
	volumes := pod.Spec.Volumes
	fmt.Printf("kubectl's reader: %#o %#o\n", volumes[0].Secret.DefaultMode, volumes[1].ConfigMap.DefaultMode)
}
GO
(cd go && go mod init demo && go get sigs.k8s.io/yaml@v1.6.0 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
cat >read.py <<'PY'
import yaml
from ruamel.yaml import YAML
text = open("pod.yaml").read()
for name, pod in ("PyYAML", yaml.safe_load(text)), ("ruamel.yaml", YAML(typ="safe", pure=True).load(text)):
    key, script = (volume for volume in pod["spec"]["volumes"])
    print(f"{name}: 0{key['secret']['defaultMode']:o} 0{script['configMap']['defaultMode']:o}")
PY
cat >read.mjs <<'JS'
import fs from 'node:fs';
import { loadYaml } from '@kubernetes/client-node';
import { parse } from 'yaml';

const text = fs.readFileSync('pod.yaml', 'utf8');
for (const [name, load] of Object.entries({ '@kubernetes/client-node': loadYaml, 'yaml': parse })) {
  const [key, script] = load(text).spec.volumes;
  console.log(`${name}: 0${key.secret.defaultMode.toString(8)} 0${script.configMap.defaultMode.toString(8)}`);
}
JS
{
  go/demo
  venv/bin/python read.py
  node read.mjs
} | tee found.txt
expected=$(cat <<'TXT'
kubectl's reader: 0400 0500
PyYAML: 0400 0500
ruamel.yaml: 0620 0764
@kubernetes/client-node: 0620 0764
yaml: 0620 0764
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
