#!/bin/sh
# The start of a service: it exchanges its own ServiceAccount token for a Vault
# token, and reads its credentials with that. No secret is printed, or put on a
# command line or into the environment.
set -eu
umask 077
cd /run/chat
address=$(cat /etc/vault/address) role=$(cat /etc/vault/role) path=$(cat /etc/vault/path)
ask() { curl -sS --max-time 10 --fail-with-body --cacert /etc/vault/ca.crt "$@"; echo; }

jq -n --arg role "$role" --rawfile jwt /var/run/secrets/kubernetes.io/serviceaccount/token '{$role, $jwt}' >login.json
ask -d @login.json "$address/v1/auth/kubernetes/login" >token.json || { cat token.json; exit 1; }
echo "logged in to Vault as $role, with the policies $(jq -c .auth.policies token.json), for $(jq .auth.lease_duration token.json) s"

jq -r '"X-Vault-Token: " + .auth.client_token' token.json >header
# KV v2 has its records under <mount>/data/.
ask -H @header "$address/v1/${path%%/*}/data/${path#*/}" >record.json || { cat record.json; exit 1; }
rm -f login.json token.json header

# For psql: the authority of the database's certificate, and the password.
jq -r .data.data.CHAT_DB_CA record.json >ca.crt
jq -r '.data.data | "*:*:*:\(.CHAT_DB_USER):\(.CHAT_DB_PASSWORD)"' record.json >pgpass

echo "read $path:"
jq -r '.data.data | to_entries[] | select(.key | startswith("CHAT_DB_")) | "  " + .key + " = " +
  if .key | test("_(PASSWORD|URL)$") then "(\(.value | length) characters, not shown)"
  elif .key | endswith("_CA") then "(the certificate of the database'\''s authority)"
  else .value end' record.json
