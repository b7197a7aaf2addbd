#!/usr/bin/env bash
# One would guess: sprig's int, by which a Helm chart makes a number of a text such as the hour in "08:30", gives 8 for "08", or the template fails; and viper's GetInt gives 8 for a variable that is 08.
# sprig 3.3.0 (Helm's functions) and viper 1.21.0, both on cast 1.10.0: a leading zero makes the number octal, which "08" and "09" are not, and what cannot be read is 0 without an error: a schedule made from "08:30" is "30 0 * * *", half past midnight, from "07:30" half past seven, from "10:09" ten sharp, and "010" is 8; add, mul, max, toDecimal and GetInt64 do the same, while atoi, float64, round and addf say 8 (sprig's manual has octal of toDecimal alone). GetDuration of "30" is 30 nanoseconds, add "1.5" 1 is 2; viper's Unmarshal of the same variable is an error.
set -euo pipefail
umask 022
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	"github.com/spf13/viper"
)

const chart = `{{ range list "07:30" "08:30" "10:09" "10:45" -}}
{{ $at := splitList ":" . }}at {{ . }}: schedule: "{{ int (index $at 1) }} {{ int (index $at 0) }} * * *"
{{ end }}{{ range list "08" "010" -}}
{{ . }}: int {{ int . }}, add 0 {{ add . 0 }}, mul 1 {{ mul . 1 }}, max 0 {{ max . 0 }}, toDecimal {{ toDecimal . }}, atoi {{ atoi . }}, float64 {{ float64 . }}, round {{ round . 0 }}, addf 0 {{ addf . 0 }}
{{ end }}add "1.5" 1: {{ add "1.5" 1 }}
`

func main() {
	if err := template.Must(template.New("chart").Funcs(sprig.TxtFuncMap()).Parse(chart)).Execute(os.Stdout, nil); err != nil {
		panic(err)
	}
	settings := viper.New()
	settings.SetEnvPrefix("backup")
	for _, name := range []string{"hour", "minute", "wait"} {
		_ = settings.BindEnv(name)
	}
	fmt.Println("viper: GetInt of 08 and 010", settings.GetInt("hour"), settings.GetInt("minute"), "GetInt64", settings.GetInt64("hour"), settings.GetInt64("minute"), "GetFloat64", settings.GetFloat64("hour"), settings.GetFloat64("minute"), "GetDuration of 30", settings.GetDuration("wait"))
	var backup struct{ Hour int }
	fmt.Println("viper: Unmarshal of 08 fails:", settings.Unmarshal(&backup) != nil)
}
GO
(go mod init demo && go get github.com/Masterminds/sprig/v3@v3.3.0 github.com/spf13/viper@v1.21.0 github.com/spf13/cast@v1.10.0 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
BACKUP_HOUR=08 BACKUP_MINUTE=010 BACKUP_WAIT=30 ./demo | tee found.txt
expected=$(cat <<'TXT'
at 07:30: schedule: "30 7 * * *"
at 08:30: schedule: "30 0 * * *"
at 10:09: schedule: "0 10 * * *"
at 10:45: schedule: "45 10 * * *"
08: int 0, add 0 0, mul 1 0, max 0 0, toDecimal 0, atoi 8, float64 8, round 8, addf 0 8
010: int 8, add 0 8, mul 1 8, max 0 8, toDecimal 8, atoi 10, float64 10, round 10, addf 0 10
add "1.5" 1: 2
viper: GetInt of 08 and 010 0 8 GetInt64 0 8 GetFloat64 8 10 GetDuration of 30 30ns
viper: Unmarshal of 08 fails: true
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
