#!/bin/sh
# A request to the data gateway of chat's database: rest.sh PATH. The token is the pod's own, for this audience.
set -eu
printf 'Authorization: Bearer %s\n' "$(cat /run/gateway/token)" |
  curl -sS --max-time 10 --fail-with-body --cacert /run/chat/ca.crt -H @- "https://chat-db-gateway.game-platform.svc/api/db/$1"
echo
