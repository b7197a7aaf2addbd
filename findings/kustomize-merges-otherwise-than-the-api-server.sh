#!/usr/bin/env bash
# One would guess: a strategic merge patch in a kustomization gives the Deployment that kubectl patch makes of it with the API server, as both are Kubernetes' own, or an error.
# kustomize api 0.21.1 against k8s.io/apimachinery 0.36.0 (the API server's): kustomize puts a patched variable before the one it refers to, so that $(NAME) is no longer replaced in it (its issues 3157, 5904); a name for a port without a protocol is lost where the base has the port as TCP and UDP; a spread constraint is doubled in place of changed; $retainKeys is left in the output as a field and drops nothing. None with an error or a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >main.go <<'GO'
package main

import (
	"encoding/json"
	"fmt"

	apps "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const base = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  template:
    spec:
      containers:
      - name: app
        env:
        - {name: HOST, value: db}
        - {name: URL, value: postgres://$(HOST)/shop}
        ports:
        - {containerPort: 53, protocol: TCP}
        - {containerPort: 53, protocol: UDP}
      topologySpreadConstraints:
      - {topologyKey: zone, maxSkew: 1, whenUnsatisfiable: DoNotSchedule}
      volumes:
      - {name: cache, emptyDir: {}}
`

type list []struct{ patch, field string }

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// field is the text of one field of the pod, or of its container.
func field(deployment []byte, name string) string {
	var object struct {
		Spec struct {
			Template struct{ Spec map[string]any }
		}
	}
	check(json.Unmarshal(deployment, &object))
	pod := object.Spec.Template.Spec
	value, found := pod[name]
	if !found {
		value = pod["containers"].([]any)[0].(map[string]any)[name]
	}
	text, err := json.Marshal(value)
	check(err)
	return string(text)
}

func kubectl(patch string) []byte {
	object, err := yaml.YAMLToJSON([]byte(base))
	check(err)
	patched, err := strategicpatch.StrategicMergePatch(object, []byte(patch), apps.Deployment{})
	check(err)
	return patched
}

func kustomize(patch string) []byte {
	files := filesys.MakeFsInMemory()
	check(files.WriteFile("/base.yaml", []byte(base)))
	check(files.WriteFile("/patch.yaml", []byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"shop"},`+patch[1:])))
	check(files.WriteFile("/kustomization.yaml", []byte("resources: [base.yaml]\npatches: [{path: patch.yaml}]\n")))
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, "/")
	check(err)
	text, err := built.AsYaml()
	check(err)
	object, err := yaml.YAMLToJSON(text)
	check(err)
	return object
}

func main() {
	for _, one := range (list{
		{`"containers":[{"name":"app","env":[{"name":"URL","value":"postgres://$(HOST)/other"}]}]`, "env"},
		{`"containers":[{"name":"app","ports":[{"containerPort":53,"name":"dns"}]}]`, "ports"},
		{`"topologySpreadConstraints":[{"topologyKey":"zone","maxSkew":1,"whenUnsatisfiable":"ScheduleAnyway"}]`, "topologySpreadConstraints"},
		{`"volumes":[{"name":"cache","$retainKeys":["name","hostPath"],"hostPath":{"path":"/cache"}}]`, "volumes"},
	}) {
		patch := `{"spec":{"template":{"spec":{` + one.patch + `}}}}`
		fmt.Println(one.patch)
		fmt.Println("  kubectl:  ", field(kubectl(patch), one.field))
		fmt.Println("  kustomize:", field(kustomize(patch), one.field))
	}
}
GO
go mod init demo 2>go.log
go get k8s.io/api@v0.36.0 k8s.io/apimachinery@v0.36.0 sigs.k8s.io/kustomize/api@v0.21.1 sigs.k8s.io/kustomize/kyaml@v0.21.1 2>>go.log
go mod tidy 2>>go.log && go build -o demo . 2>>go.log || { tail -n 5 go.log; exit 1; }
./demo | tee found.txt
expected='"containers":[{"name":"app","env":[{"name":"URL","value":"postgres://$(HOST)/other"}]}]
  kubectl:   [{"name":"HOST","value":"db"},{"name":"URL","value":"postgres://$(HOST)/other"}]
  kustomize: [{"name":"URL","value":"postgres://$(HOST)/other"},{"name":"HOST","value":"db"}]
"containers":[{"name":"app","ports":[{"containerPort":53,"name":"dns"}]}]
  kubectl:   [{"containerPort":53,"name":"dns","protocol":"TCP"},{"containerPort":53,"protocol":"UDP"}]
  kustomize: [{"containerPort":53,"protocol":"TCP"},{"containerPort":53,"protocol":"UDP"}]
"topologySpreadConstraints":[{"topologyKey":"zone","maxSkew":1,"whenUnsatisfiable":"ScheduleAnyway"}]
  kubectl:   [{"maxSkew":1,"topologyKey":"zone","whenUnsatisfiable":"ScheduleAnyway"}]
  kustomize: [{"maxSkew":1,"topologyKey":"zone","whenUnsatisfiable":"ScheduleAnyway"},{"maxSkew":1,"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule"}]
"volumes":[{"name":"cache","$retainKeys":["name","hostPath"],"hostPath":{"path":"/cache"}}]
  kubectl:   [{"hostPath":{"path":"/cache"},"name":"cache"}]
  kustomize: [{"$retainKeys":["name","hostPath"],"emptyDir":{},"hostPath":{"path":"/cache"},"name":"cache"}]'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
