#!/usr/bin/env bash
# One would guess: a Lease that Kubernetes' Python client renews with datetime.now is taken by the API server every time, as both are Kubernetes' own.
# Python kubernetes 37.0.2, k8s.io/apimachinery 0.36.0 (the API server's reader): the client leaves the fraction out where the microsecond is 0, one renewal in a million or each one of replace(microsecond=0), and MicroTime refuses the time; metav1.Time takes it (kubernetes issue 89156 has it of other clients, pull request 141204 a mend).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q kubernetes==37.0.2
mkdir go
cat >write.py <<'PY'
import datetime
from kubernetes import client

now = datetime.datetime(2026, 11, 29, 2, 30, 0, 1, tzinfo=datetime.timezone.utc)
for time in now, now.replace(microsecond=0), now.replace(microsecond=500000):
    print(client.ApiClient().sanitize_for_serialization(client.V1LeaseSpec(renew_time=time))["renewTime"])
PY
cat >go/main.go <<'GO'
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func word(err error) string {
	if err != nil {
		return "refused: " + err.Error()
	}
	return "taken"
}

func main() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		text, _ := json.Marshal(lines.Text())
		var micro metav1.MicroTime
		var plain metav1.Time
		fmt.Println(lines.Text())
		fmt.Println("  MicroTime", word(json.Unmarshal(text, &micro)))
		fmt.Println("  Time", word(json.Unmarshal(text, &plain)))
	}
}
GO
(cd go && go mod init demo && go get k8s.io/apimachinery@v0.36.0 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
venv/bin/python write.py | go/demo | tee found.txt
expected='2026-11-29T02:30:00.000001+00:00
  MicroTime taken
  Time taken
2026-11-29T02:30:00+00:00
  MicroTime refused: parsing time "2026-11-29T02:30:00+00:00" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "+00:00" as ".000000"
  Time taken
2026-11-29T02:30:00.500000+00:00
  MicroTime taken
  Time taken'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
