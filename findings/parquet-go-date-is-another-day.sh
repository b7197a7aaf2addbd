#!/usr/bin/env bash
# One would guess: parquet-go, a Parquet library for Go, writes a time.Time with the tag "date", which its documentation has for that type, as that day; that its two writers write one row alike; and that it reads back the moment that it has written.
# parquet-go 0.32.0: WriteFile and GenericWriter[Row] take the nanoseconds since 1970 and keep 32 bits of them as the number of days: 1 June 2026 is in the year -4243559, 20 July 1969 in the year 4047970, *time.Time too; GenericWriter[any] with the same schema writes the day (and 2262-04-11 for all days after it), and a right day is read rightly. In a timestamp(microsecond) it writes 9999-12-31 and Go's zero time rightly, and reads them as 1816 and 1754, in files of pyarrow 26.0.1 too. None with an error; DuckDB 2.0.1 takes the days as they are, and a condition finds other rows.
set -euo pipefail
umask 022
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q pyarrow==26.0.1 duckdb==2.0.1
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/parquet-go/parquet-go"
)

type Row struct {
	Day      time.Time  `parquet:"day,date"`
	Optional *time.Time `parquet:"optional,optional,date"`
	Moment   time.Time  `parquet:"moment,timestamp(microsecond)"`
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func show(file string) {
	rows, err := parquet.ReadFile[Row](file)
	must(err)
	for _, row := range rows {
		fmt.Println("    day", row.Day.UTC().Format(time.RFC3339Nano), "optional", row.Optional.UTC().Format(time.RFC3339Nano), "moment", row.Moment.UTC().Format(time.RFC3339Nano))
	}
}

func main() {
	var rows []Row
	for _, day := range []time.Time{{}, time.Date(1969, 7, 20, 0, 0, 0, 0, time.UTC), time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)} {
		rows = append(rows, Row{day, &day, day})
	}
	must(parquet.WriteFile("go.parquet", rows))
	file, err := os.Create("any.parquet")
	must(err)
	writer := parquet.NewGenericWriter[any](file, parquet.SchemaOf(Row{}))
	for _, row := range rows {
		_, err = writer.Write([]any{row})
		must(err)
	}
	must(writer.Close())
	must(file.Close())
	fmt.Println("parquet-go wrote:")
	for _, row := range rows {
		fmt.Println("   ", row.Day.Format(time.DateOnly))
	}
	fmt.Println("parquet-go reads of its file:")
	show("go.parquet")
	fmt.Println("parquet-go reads of pyarrow's file:")
	show("python.parquet")
}
GO
cat >days.py <<'PY'
import datetime, sys
import duckdb, pyarrow, pyarrow.parquet


def text(number, epoch=datetime.date(1970, 1, 1)):
    try:
        return str(epoch + datetime.timedelta(days=number))
    except OverflowError:
        return f"{number} days after 1970"


if sys.argv[1] == "write":
    days = [datetime.date(1, 1, 1), datetime.date(1969, 7, 20), datetime.date(2026, 6, 1), datetime.date(2026, 11, 3), datetime.date(9999, 12, 31)]
    moments = pyarrow.array([datetime.datetime(day.year, day.month, day.day) for day in days], pyarrow.timestamp("us", tz="UTC"))
    pyarrow.parquet.write_table(pyarrow.table({"day": days, "optional": days, "moment": moments}, schema=pyarrow.schema([pyarrow.field("day", pyarrow.date32(), False), ("optional", pyarrow.date32()), pyarrow.field("moment", moments.type, False)])), "python.parquet")
else:
    print(f"pyarrow {pyarrow.__version__} reads of {sys.argv[1]}:")
    table = pyarrow.parquet.read_table(sys.argv[1])
    for row in zip(table["day"].cast("int32").to_pylist(), table["optional"].cast("int32").to_pylist(), table["moment"].to_pylist()):
        print(f"    day {text(row[0])} optional {text(row[1])} moment {row[2].date()}")
    since = duckdb.sql(f"SELECT moment AT TIME ZONE 'UTC' FROM '{sys.argv[1]}' WHERE day >= DATE '2026-01-01' ORDER BY moment").fetchall()
    print(f"    DuckDB {duckdb.__version__}, day >= 2026-01-01:", *(row[0].date() for row in since))
PY
(cd go && go mod init demo && go get github.com/parquet-go/parquet-go@v0.32.0 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
{
  (cd go && go list -m github.com/parquet-go/parquet-go)
  venv/bin/python days.py write
  go/demo
  venv/bin/python days.py go.parquet
  venv/bin/python days.py any.parquet
  venv/bin/python days.py python.parquet
} | tee found.txt
expected="github.com/parquet-go/parquet-go v0.32.0
parquet-go wrote:
    0001-01-01
    1969-07-20
    2026-06-01
    2026-11-03
    9999-12-31
parquet-go reads of its file:
    day 2808637-02-10T00:00:00Z optional 2808637-02-10T00:00:00Z moment 1754-08-30T22:43:41.128654848Z
    day 4047970-04-20T00:00:00Z optional 4047970-04-20T00:00:00Z moment 1969-07-20T00:00:00Z
    day -4243559-11-26T00:00:00Z optional -4243559-11-26T00:00:00Z moment 2026-06-01T00:00:00Z
    day -4480946-01-24T00:00:00Z optional -4480946-01-24T00:00:00Z moment 2026-11-03T00:00:00Z
    day 800081-03-12T00:00:00Z optional 800081-03-12T00:00:00Z moment 1816-03-29T05:56:08.066277376Z
parquet-go reads of pyarrow's file:
    day 0001-01-01T00:00:00Z optional 0001-01-01T00:00:00Z moment 1754-08-30T22:43:41.128654848Z
    day 1969-07-20T00:00:00Z optional 1969-07-20T00:00:00Z moment 1969-07-20T00:00:00Z
    day 2026-06-01T00:00:00Z optional 2026-06-01T00:00:00Z moment 2026-06-01T00:00:00Z
    day 2026-11-03T00:00:00Z optional 2026-11-03T00:00:00Z moment 2026-11-03T00:00:00Z
    day 9999-12-31T00:00:00Z optional 9999-12-31T00:00:00Z moment 1816-03-29T05:56:08.066277376Z
pyarrow 26.0.1 reads of go.parquet:
    day 1025114112 days after 1970 optional 1025114112 days after 1970 moment 0001-01-01
    day 1477771264 days after 1970 optional 1477771264 days after 1970 moment 1969-07-20
    day -1550647296 days after 1970 optional -1550647296 days after 1970 moment 2026-06-01
    day -1637351424 days after 1970 optional -1637351424 days after 1970 moment 2026-11-03
    day 291504128 days after 1970 optional 291504128 days after 1970 moment 9999-12-31
    DuckDB 2.0.1, day >= 2026-01-01: 0001-01-01 1969-07-20 9999-12-31
pyarrow 26.0.1 reads of any.parquet:
    day 1677-09-22 optional 1677-09-22 moment 0001-01-01
    day 1969-07-20 optional 1969-07-20 moment 1969-07-20
    day 2026-06-01 optional 2026-06-01 moment 2026-06-01
    day 2026-11-03 optional 2026-11-03 moment 2026-11-03
    day 2262-04-11 optional 2262-04-11 moment 9999-12-31
    DuckDB 2.0.1, day >= 2026-01-01: 2026-06-01 2026-11-03 9999-12-31
pyarrow 26.0.1 reads of python.parquet:
    day 0001-01-01 optional 0001-01-01 moment 0001-01-01
    day 1969-07-20 optional 1969-07-20 moment 1969-07-20
    day 2026-06-01 optional 2026-06-01 moment 2026-06-01
    day 2026-11-03 optional 2026-11-03 moment 2026-11-03
    day 9999-12-31 optional 9999-12-31 moment 9999-12-31
    DuckDB 2.0.1, day >= 2026-01-01: 2026-06-01 2026-11-03 9999-12-31"
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
