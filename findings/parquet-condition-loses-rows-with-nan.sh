#!/usr/bin/env bash
# One would guess: a condition finds the same rows in a Parquet file as in the same table in memory; least of all does a search for NaN pass over the NaNs, for which the format has "When looking for NaN values, min and max should be ignored".
# Of four readings, one of them NaN, written by pyarrow 26.0.1: DuckDB 2.0.1 finds none by isnan(x) (its pull request 16962 of 2025 had mended it), nor do pyarrow's own filters, where the other numbers of its row group are equal; there "x <> 1" leaves it out too, with DataFusion 55.0.0 as well, NOT (x <= 5) leaves it out with all three anyhow, and x > 5, to which NaN belongs in the order of DuckDB and DataFusion and in memory, with these two; max(x), NaN in memory, is 7 in the file to them. They skip its row group by a minimum and a maximum that leave NaN out (arrow issue 28074 is closed; ClickHouse issue 118110 and DataFusion pull request 24804 are open). polars 2.1.0 finds it each time. None with an error or a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q pyarrow==26.0.1 duckdb==2.0.1 datafusion==55.0.0 polars==2.1.0
cat >find.py <<'PY'
import datafusion, duckdb, polars, pyarrow
import pyarrow.compute as compute
import pyarrow.parquet as parquet
from polars import col

readings = pyarrow.table({"sensor": ["a", "b", "c", "d"], "x": [1.0, float("nan"), 2.0, 7.0]})
parquet.write_table(readings, "readings.parquet", row_group_size=2)
context = datafusion.SessionContext()
context.register_parquet("file", "readings.parquet")
context.register_record_batches("memory", [readings.to_batches()])
field = compute.field("x")

def fusion(text):
    return sorted(row["sensor"] for batch in context.sql(text).collect() for row in batch.to_pylist())

for name, condition, arrow, lazy in (
    ("is NaN", "isnan(x)", compute.is_nan(field), col("x").is_nan()),
    ("is not 1", "x <> 1", field != 1.0, col("x") != 1.0),
    ("not up to 5", "NOT (x <= 5)", ~(field <= 5), ~(col("x") <= 5)),
    ("above 5", "x > 5", field > 5, col("x") > 5),
):
    for library, memory, file in (
        ("DuckDB", duckdb.sql(f"SELECT sensor FROM readings WHERE {condition}"), duckdb.sql(f"SELECT sensor FROM 'readings.parquet' WHERE {condition}")),
        ("pyarrow", readings.filter(arrow)["sensor"], parquet.read_table("readings.parquet", filters=arrow)["sensor"]),
        ("DataFusion", fusion(f"SELECT sensor FROM memory WHERE {condition}"), fusion(f"SELECT sensor FROM file WHERE {condition}")),
        ("polars", polars.from_arrow(readings).filter(lazy)["sensor"], polars.scan_parquet("readings.parquet").filter(lazy).collect()["sensor"]),
    ):
        names = [" ".join(sorted(str(row[0] if isinstance(row, tuple) else row) for row in (rows.fetchall() if hasattr(rows, "fetchall") else rows.to_pylist() if hasattr(rows, "to_pylist") else rows))) or "none" for rows in (memory, file)]
        print(f"{name}: {library}: in memory {names[0]}, in the file {names[1]}")
for table, source in ("memory", "readings"), ("file", "'readings.parquet'"):
    highest = context.sql(f"SELECT max(x) AS highest FROM {table}").collect()[0].to_pylist()[0]["highest"]
    print(f"maximum in {table}: DuckDB {duckdb.sql(f'SELECT max(x) FROM {source}').fetchall()[0][0]}, DataFusion {highest}")
PY
venv/bin/python find.py | tee found.txt
expected=$(cat <<'TXT'
is NaN: DuckDB: in memory b, in the file none
is NaN: pyarrow: in memory b, in the file none
is NaN: DataFusion: in memory b, in the file b
is NaN: polars: in memory b, in the file b
is not 1: DuckDB: in memory b c d, in the file c d
is not 1: pyarrow: in memory b c d, in the file c d
is not 1: DataFusion: in memory b c d, in the file c d
is not 1: polars: in memory b c d, in the file b c d
not up to 5: DuckDB: in memory b d, in the file d
not up to 5: pyarrow: in memory b d, in the file d
not up to 5: DataFusion: in memory b d, in the file d
not up to 5: polars: in memory b d, in the file b d
above 5: DuckDB: in memory b d, in the file d
above 5: pyarrow: in memory d, in the file d
above 5: DataFusion: in memory b d, in the file d
above 5: polars: in memory b d, in the file b d
maximum in memory: DuckDB nan, DataFusion nan
maximum in file: DuckDB 7.0, DataFusion 7.0
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
