#!/usr/bin/env bash
# One would guess: Apache Avro's own library for Python stores a decimal as the number that it is, or refuses it, as it does for one with more decimals than the schema's scale.
# avro 1.12.2: it writes the digits and leaves out their exponent, so that in a column of scale 2 the price 1.2 is stored as 0.12, 5 as 0.05 and 1E+3 as 0.01, and a precision that the number exceeds is not looked at; fastavro 1.13.1 writes 1.20, 5.00 and 1000.00 for the same schema and refuses the last. fastavro for its part takes the first type of a union that can be made to fit: of ["null", "double", "long"] an id of 2^53 + 1 is rounded, of ["null", date, timestamp-micros] a time of day is lost, where avro keeps both. None with an error or a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q avro==1.12.2 fastavro==1.13.1
cat >write.py <<'PY'
import copy, datetime, decimal, io, json, warnings
import avro.io, avro.schema, fastavro
warnings.simplefilter("error")

def through_avro(schema, value):
    schema, buffer = avro.schema.parse(json.dumps(schema)), io.BytesIO()
    avro.io.DatumWriter(schema).write(value, avro.io.BinaryEncoder(buffer))
    buffer.seek(0)
    return avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(buffer))

def through_fastavro(schema, value):
    schema, buffer = fastavro.parse_schema(copy.deepcopy(schema)), io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, value)
    buffer.seek(0)
    return fastavro.schemaless_reader(buffer, schema)

def told(run, *arguments):
    try:
        value = run(*arguments)
    except Exception:
        return "refused"
    return f"{value:f}" if isinstance(value, decimal.Decimal) else str(value)

price = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
day, moment = {"type": "int", "logicalType": "date"}, {"type": "long", "logicalType": "timestamp-micros"}
for name, schema, value in (
    *(("decimal(6,2)", price, decimal.Decimal(text)) for text in ("1.20", "1.2", "5", "1E+3", "1.255", "1234567.89")),
    ("null, double or long", ["null", "double", "long"], 2**53 + 1),
    ("null, date or timestamp", ["null", day, moment], datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.timezone.utc)),
):
    print(f"{name}: {value}: avro {told(through_avro, schema, value)}, fastavro {told(through_fastavro, schema, value)}")
PY
venv/bin/python write.py | tee found.txt
expected='decimal(6,2): 1.20: avro 1.20, fastavro 1.20
decimal(6,2): 1.2: avro 0.12, fastavro 1.20
decimal(6,2): 5: avro 0.05, fastavro 5.00
decimal(6,2): 1E+3: avro 0.01, fastavro 1000.00
decimal(6,2): 1.255: avro refused, fastavro refused
decimal(6,2): 1234567.89: avro 1234570, fastavro refused
null, double or long: 9007199254740993: avro 9007199254740993, fastavro 9007199254740992.0
null, date or timestamp: 2026-11-30 12:00:00+00:00: avro 2026-11-30 12:00:00+00:00, fastavro 2026-11-30'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
