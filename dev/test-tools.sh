#!/usr/bin/env bash
# Runs migration tools and Servicedb on the same folders and compares what they leave: the catalogue, the
# order, and the take-over of the tool's own table (tests/migrate/layouts). Builds the tools from their
# registries into target/tools, which takes about half an hour the first time; Atlas, which is in none, from its
# repository or from ATLAS_SOURCE, a copy of that.
#   test-tools.sh              all
#   test-tools.sh goose sqlx   these
#   RECORD=1 test-tools.sh     writes the order that each tool ran into tests/migrate/layouts/expected, and the
#                              folders that their generators made into tests/migrate/layouts/generated
# Needs Go, Node, Java with Maven, Rust, libpq with its headers and, as the tests, a PostgreSQL server.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
mkdir -p "$tools/bin"
export GOBIN=$tools/bin
export VERSION_goose="goose 3.30.1" VERSION_golang_migrate="golang-migrate 4.20.1" VERSION_dbmate="dbmate 2.36.0"
export VERSION_tern="tern 2.3.4" VERSION_sql_migrate="sql-migrate 1.8.1" VERSION_diesel="Diesel 2.3.14"
export VERSION_sqlx="sqlx-cli 0.9.0" VERSION_refinery="refinery 0.10.0" VERSION_flyway="Flyway 13.12.1"
export VERSION_prisma="Prisma 7.10.1, its engine as WebAssembly (8.1.0-2)" VERSION_drizzle="drizzle-orm 0.45.4" VERSION_supabase="Supabase CLI 3.1.0"
atlas=a5e0aecc2bb64143bf522734f8ad88e04885fca6
export VERSION_atlas="Atlas ${atlas:0:12}"

# gently COMMAND…: at the lowest priority.
gently() { nice -n 19 "$@"; }
crate() { CARGO_TARGET_DIR=$tools/target gently cargo install --quiet --locked --root "$tools" "$@"; }

build() {
  case $1 in
    goose) gently go install -tags "no_clickhouse no_libsql no_mssql no_mysql no_sqlite3 no_vertica no_ydb no_starrocks" github.com/pressly/goose/v3/cmd/goose@v3.30.1 ;;
    golang_migrate) gently go install -tags postgres github.com/golang-migrate/migrate/v4/cmd/migrate@v4.20.1 ;;
    tern) gently go install github.com/jackc/tern/v2@v2.3.4 ;;
    sql_migrate) gently go install github.com/rubenv/sql-migrate/sql-migrate@v1.8.1 ;;
    diesel) crate --debug diesel_cli@2.3.14 --no-default-features --features postgres ;;
    sqlx) crate sqlx-cli@0.9.0 --no-default-features --features postgres,rustls ;;
    refinery) crate refinery_cli@0.10.0 --no-default-features --features postgresql ;;
    flyway)
      cat >"$tools/pom.xml" <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>tools</groupId><artifactId>tools</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.flywaydb</groupId><artifactId>flyway-database-postgresql</artifactId><version>13.12.1</version></dependency>
    <dependency><groupId>org.postgresql</groupId><artifactId>postgresql</artifactId><version>42.7.8</version></dependency>
  </dependencies>
</project>
XML
      (cd "$tools" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=flyway)
      ;;
    atlas)
      local source=${ATLAS_SOURCE:-$tools/atlas}
      if [[ ! -d $source ]]; then
        git init -q "$source"
        git -C "$source" fetch -q --depth 1 https://github.com/ariga/atlas "$atlas"
        git -C "$source" checkout -q FETCH_HEAD
      fi
      # Without SQLite, which takes the longest.
      (cd "$source/cmd/atlas" && CGO_ENABLED=0 gently go build -o "$GOBIN/atlas" .)
      ;;
    # Prisma's engine as WebAssembly has no build of the very version.
    prisma | drizzle | dbmate | supabase)
      mkdir -p "$tools/node"
      (cd "$tools/node" && npm init -y >/dev/null &&
        npm install --no-audit --no-fund --silent prisma@7.10.1 drizzle-orm@0.45.4 drizzle-kit@0.31.8 pg@8 dbmate@2.36.0 \
          @prisma/adapter-pg@7.10.1 @prisma/schema-engine-wasm@8.1.0-2.59be4fda12412a79eeb9c2ae727b6aa723593323 \
          supabase@3.1.0)
      ;;
    *) echo "unknown tool: $1" >&2 && return 2 ;;
  esac
}

there() {
  case $1 in
    flyway) [[ -d $tools/flyway ]] ;;
    prisma | drizzle | dbmate | supabase) [[ -d $tools/node/node_modules/supabase ]] ;;
    golang_migrate) [[ -x $tools/bin/migrate ]] ;;
    sql_migrate) [[ -x $tools/bin/sql-migrate ]] ;;
    *) [[ -x $tools/bin/$1 ]] ;;
  esac
}

all=(goose golang_migrate dbmate tern sql_migrate flyway prisma drizzle supabase sqlx refinery diesel atlas)
if (($#)); then all=("$@"); fi
for tool in "${all[@]}"; do
  there "$tool" || { echo "==> building $tool" && build "$tool"; }
done
[[ ${BUILD_ONLY:-} ]] && exit
for tool in "${all[@]}"; do
  TOOLS=$tools ONLY=$tool gently cargo test --test migrate -- --ignored --exact --nocapture \
    layouts::tools::the_tools_leave_the_same_and_their_tables_are_taken_over \
    layouts::generated::the_tools_run_what_they_have_generated
done
