#!/usr/bin/env bash
# One would guess: a value that DuckDB holds exactly leaves it as that value by each of its ways out (Arrow, Parquet), or with an error, as a negative interval is refused by Parquet.
# DuckDB 2.0.0, pyarrow 26.0.1, polars 2.1.0: sum() of bigints is a DOUBLE in Parquet (its issue 21180), also where it fits a bigint; an md5_number() of 2^127 or more is negative in Arrow (duckdb-python issue 568); 12:00+05:30 is a bare 12:00 in Arrow and, from Parquet, a bare 06:30 to pyarrow and polars; an interval's microseconds are lost in Parquet; 24:00 comes from it as null to polars; none with an error or a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q duckdb==2.0.0 pyarrow==26.0.1 polars==2.1.0
cat >ways.py <<'PY'
import duckdb, polars, pyarrow.parquet

database = duckdb.connect()
database.execute("SET timezone = 'UTC'")
print(f"DuckDB {duckdb.__version__}")
for name, query in {
    "a sum": "SELECT sum(amount) AS value FROM (VALUES (9007199254740992), (1::bigint)) AS sale(amount)",
    "a hash": "SELECT md5_number('b') AS value",
    "a time with zone": "SELECT '12:00:00+05:30'::timetz AS value",
    "an interval": "SELECT INTERVAL '1.000500 seconds' AS value",
    "the end of a day": "SELECT '24:00:00'::time AS value",
}.items():
    table = database.sql(query)
    table.write_parquet("value.parquet")
    file = database.sql("SELECT * FROM 'value.parquet'")
    print(f"{name}: {table.project('value::text').fetchall()[0][0]}")
    print(f"  from Parquet: {file.project('value::text').fetchall()[0][0]} ({file.types[0]})")
    if name != "an interval":
        if name != "the end of a day":
            print(f"  in Arrow: {table.to_arrow_table()['value'][0].as_py()}")
            print(f"  from Parquet to pyarrow: {pyarrow.parquet.read_table('value.parquet')['value'][0].as_py()}")
        print(f"  from Parquet to polars: {polars.read_parquet('value.parquet')['value'][0]}")
PY
venv/bin/python ways.py | tee found.txt
expected='DuckDB 2.0.0
a sum: 9007199254740993
  from Parquet: 9007199254740992.0 (DOUBLE)
  in Arrow: 9007199254740993
  from Parquet to pyarrow: 9007199254740992.0
  from Parquet to polars: 9007199254740992.0
a hash: 190532336368564675417118094528692087698
  from Parquet: 1.9053233636856468e+38 (DOUBLE)
  in Arrow: -149750030552373788046256512903076123758
  from Parquet to pyarrow: 1.9053233636856468e+38
  from Parquet to polars: 1.9053233636856468e+38
a time with zone: 12:00:00+05:30
  from Parquet: 06:30:00+00 (TIME WITH TIME ZONE)
  in Arrow: 12:00:00
  from Parquet to pyarrow: 06:30:00
  from Parquet to polars: 06:30:00
an interval: 00:00:01.0005
  from Parquet: 00:00:01 (INTERVAL)
the end of a day: 24:00:00
  from Parquet: 24:00:00 (TIME)
  from Parquet to polars: None'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
