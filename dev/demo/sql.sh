#!/bin/sh
# psql with the credentials that credentials.sh read: sql.sh [SETTING=VALUE …],
# statements on standard input. Settings are libpq's and replace chat's own.
set -eu
cd /run/chat
get() { jq -r ".data.data.CHAT_DB_$1" record.json; }
exec psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --pset pager=off \
  "host=$(get HOST) port=$(get PORT) dbname=$(get NAME) user=$(get USER) sslmode=$(get SSLMODE) sslrootcert=/run/chat/ca.crt passfile=/run/chat/pgpass connect_timeout=5 $*"
