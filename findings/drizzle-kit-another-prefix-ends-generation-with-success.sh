#!/usr/bin/env bash
# One would guess: `migrations.prefix` is about file names, so a project may change it (drizzle-kit generate --prefix), and a generation that fails ends with a code that CI notices.
# drizzle-kit 0.31.8: the newest snapshot is the last by name; after a change from timestamps to unix times the second migration contains the statements of the first again, and every later generation fails with "collision", writes no migration, and exits 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent drizzle-kit@0.31.8 drizzle-orm@0.45.4
node_modules/.bin/drizzle-kit --version | head -n 1
# columns N: a schema with so many columns.
columns() {
  {
    echo "import { integer, pgTable } from 'drizzle-orm/pg-core';"
    echo "export const notes = pgTable('notes', {"
    for ((n = 1; n <= $1; n++)); do echo "  c$n: integer('c$n'),"; done
    echo "});"
  } >schema.ts
}
# generate PREFIX COLUMNS: the exit code and the last line of the output.
generate() {
  local code=0
  columns "$2"
  node_modules/.bin/drizzle-kit generate --dialect postgresql --schema schema.ts --out migrations --prefix "$1" --name "with_$2" >out 2>&1 || code=$?
  echo "prefix $1, $2 columns: exit code $code, $(grep -oE 'Your SQL migration file|which is a collision' out)"
  sleep 1.1
}
said=$(generate timestamp 1 && generate timestamp 2 && generate unix 3 && generate unix 4 && generate unix 5 && generate timestamp 6)
echo "$said"
made=$(find migrations -name '*.sql' | wc -l)
echo "migrations made: $made of 6"
last=$(cat migrations/*with_4.sql 2>/dev/null | tr '\n' ' ')
echo "the fourth: $last"
failed=$(grep -c 'exit code 0, which is a collision' <<<"$said" || true)
[[ $made == 4 && $failed == 2 && $last == *'"c3"'*'"c4"'* ]] || { echo "this has changed" >&2; exit 1; }
