#!/usr/bin/env bash
# One would guess: a Parquet file that its writer and other readers read alike has the same flags and counts in Node.js, or the reader refuses it, as it does an encoding that it does not have.
# @dsnp/parquetjs 1.8.8 and hyparquet 1.33.0 on files of pyarrow 26.0.1 and DuckDB 2.0.1: where pyarrow writes pages of version 2.0, each true is false to parquetjs, which takes the length before the runs for values; unsigned numbers from 2^31 and 2^63 on, such as the UINT_32 of its README, are negative to it in any file (ironSource/parquetjs pull request 122, open since 2021, has it of the original); of counts that are far apart, whose differences DuckDB writes with PARQUET_VERSION v2 wider than their 32 bits, hyparquet makes other numbers (pyarrow refuses that file, polars 2.1.0 and DuckDB read it). Neither with an error or a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q pyarrow==26.0.1 duckdb==2.0.1 polars==2.1.0
npm init -y >/dev/null
npm install --no-audit --no-fund --silent @dsnp/parquetjs@1.8.8 hyparquet@1.33.0
cat >write.py <<'PY'
import duckdb, polars, pyarrow
import pyarrow.parquet as parquet
users = pyarrow.table({
    "active": [True, True, None, False, True],
    "visits": pyarrow.array([4_294_967_295, 3_000_000_000, 1, 0, 7], pyarrow.uint32()),
    "bytes": pyarrow.array([2**64 - 1, 2**63, 1, 0, 7], pyarrow.uint64()),
})
parquet.write_table(users, "pages-1.parquet")
parquet.write_table(users, "pages-2.parquet", data_page_version="2.0", use_dictionary=False)
duckdb.sql("COPY (SELECT visits FROM users) TO 'duckdb-v2.parquet' (FORMAT parquet, PARQUET_VERSION v2)")
for file in "pages-1", "pages-2", "duckdb-v2":
    for name, read in (
        ("DuckDB", lambda path: duckdb.sql(f"FROM '{path}'").to_arrow_table().to_pydict()),
        ("polars", lambda path: polars.read_parquet(path).to_dict(as_series=False)),
        ("pyarrow", lambda path: parquet.read_table(path).to_pydict()),
    ):
        try:
            told = " ".join(f"{column} " + ",".join(str(value).lower() for value in values) for column, values in read(f"{file}.parquet").items())
        except Exception:
            told = "refused"
        print(f"{file}, {name}: {told}")
PY
cat >read.mjs <<'JS'
import parquetjs from '@dsnp/parquetjs';
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
for (const file of ['pages-1', 'pages-2', 'duckdb-v2']) {
  const ways = {
    hyparquet: async () => parquetReadObjects({ file: await asyncBufferFromFile(`${file}.parquet`) }),
    parquetjs: async () => {
      const cursor = (await parquetjs.ParquetReader.openFile(`${file}.parquet`)).getCursor();
      const rows = [];
      for (let row; (row = await cursor.next()); ) rows.push(row);
      return rows;
    },
  };
  for (const [name, read] of Object.entries(ways)) {
    let told = 'refused';
    try {
      const rows = await read();
      told = Object.keys(rows[0]).map((column) => `${column} ${rows.map((row) => row[column] ?? 'none').join(',')}`).join(' ');
    } catch {}
    console.log(`${file}, ${name}: ${told}`);
  }
}
JS
{ venv/bin/python write.py; node read.mjs; } | LC_ALL=C sort -s -t, -k1,1 | tee found.txt
expected=$(cat <<'TXT'
duckdb-v2, DuckDB: visits 4294967295,3000000000,1,0,7
duckdb-v2, polars: visits 4294967295,3000000000,1,0,7
duckdb-v2, pyarrow: refused
duckdb-v2, hyparquet: visits 2147483647,852516352,2147483649,2147483648,2147483655
duckdb-v2, parquetjs: refused
pages-1, DuckDB: active true,true,none,false,true visits 4294967295,3000000000,1,0,7 bytes 18446744073709551615,9223372036854775808,1,0,7
pages-1, polars: active true,true,none,false,true visits 4294967295,3000000000,1,0,7 bytes 18446744073709551615,9223372036854775808,1,0,7
pages-1, pyarrow: active true,true,none,false,true visits 4294967295,3000000000,1,0,7 bytes 18446744073709551615,9223372036854775808,1,0,7
pages-1, hyparquet: active true,true,none,false,true visits 4294967295,3000000000,1,0,7 bytes 18446744073709551615,9223372036854775808,1,0,7
pages-1, parquetjs: active true,true,none,false,true visits -1,-1294967296,1,0,7 bytes -1,-9223372036854775808,1,0,7
pages-2, DuckDB: active true,true,none,false,true visits 4294967295,3000000000,1,0,7 bytes 18446744073709551615,9223372036854775808,1,0,7
pages-2, polars: active true,true,none,false,true visits 4294967295,3000000000,1,0,7 bytes 18446744073709551615,9223372036854775808,1,0,7
pages-2, pyarrow: active true,true,none,false,true visits 4294967295,3000000000,1,0,7 bytes 18446744073709551615,9223372036854775808,1,0,7
pages-2, hyparquet: active true,true,none,false,true visits 4294967295,3000000000,1,0,7 bytes 18446744073709551615,9223372036854775808,1,0,7
pages-2, parquetjs: active false,false,none,false,false visits -1,-1294967296,1,0,7 bytes -1,-9223372036854775808,1,0,7
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
