#!/usr/bin/env bash
# One would guess: kubectl apply sends a changed integer of a custom resource as it is in the file, all the more as controller-runtime's MergeFrom had a fault there that was mended in 2024 (its issue 2603).
# k8s.io/apimachinery 0.36.0, by whose jsonmergepatch kubectl apply compares a custom resource: numbers go through float64. A size or an id past 2^53 (format int64 has 2^63) is sent rounded, without an error; a change of its last digits gives an empty patch, for which kubectl sends nothing and prints "unchanged". evanphx/json-patch 5.9.11, controller-runtime's, is exact on the same input.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >main.go <<'GO'
package main

import (
	"fmt"

	v5 "github.com/evanphx/json-patch/v5"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
)

func main() {
	for _, change := range [][2]string{
		{`{"spec":{"maxBytes":1}}`, `{"spec":{"maxBytes":1234567890123456789}}`},
		{`{"spec":{"maxBytes":1}}`, `{"spec":{"maxBytes":9223372036854775807}}`},
		{`{"spec":{"systemId":7446744073709551615}}`, `{"spec":{"systemId":7446744073709551616}}`},
		{`{"spec":{"ids":[1]}}`, `{"spec":{"ids":[9007199254740993]}}`},
	} {
		live, file := []byte(change[0]), []byte(change[1])
		apply, err := jsonmergepatch.CreateThreeWayJSONMergePatch(live, file, live)
		if err != nil {
			panic(err)
		}
		exact, err := v5.CreateMergePatch(live, file)
		if err != nil {
			panic(err)
		}
		fmt.Printf("file  %s\n  apply sends %s\n  json-patch 5 has %s\n", file, apply, exact)
	}
}
GO
go mod init demo 2>go.log
go get k8s.io/apimachinery@v0.36.0 github.com/evanphx/json-patch/v5@v5.9.11 2>>go.log
go mod tidy 2>>go.log && go build -o demo . 2>>go.log || { tail -n 5 go.log; exit 1; }
./demo | tee found.txt
expected='file  {"spec":{"maxBytes":1234567890123456789}}
  apply sends {"spec":{"maxBytes":1234567890123456800}}
  json-patch 5 has {"spec":{"maxBytes":1234567890123456789}}
file  {"spec":{"maxBytes":9223372036854775807}}
  apply sends {"spec":{"maxBytes":9223372036854776000}}
  json-patch 5 has {"spec":{"maxBytes":9223372036854775807}}
file  {"spec":{"systemId":7446744073709551616}}
  apply sends {}
  json-patch 5 has {"spec":{"systemId":7446744073709551616}}
file  {"spec":{"ids":[9007199254740993]}}
  apply sends {"spec":{"ids":[9007199254740992]}}
  json-patch 5 has {"spec":{"ids":[9007199254740993]}}'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
