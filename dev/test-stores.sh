#!/usr/bin/env bash
# The stores that the end-to-end tests do not use, on the local cluster: fake-gcs-server (Google Cloud
# Storage, with the key of a service account) and Azurite (Azure Blob Storage, with a key of the account).
# For each, a database is archived, backed up, verified, and restored into another one.
#   test-stores.sh          both
#   test-stores.sh gcs      one
# The servers run on this machine, where pods can reach them, and end with the script. Afterwards the installation
# has its former stores again.
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
. lib/process.sh
. lib/server-certificate.sh
. "$DEV/vault.env"
export PATH=$BIN:$PATH KUBECONFIG=$DEV/kubeconfig

KEYS=$DEV/stores/keys
SPACE=stores-$(openssl rand -hex 3)
declare -A PORTS=([gcs]=7443 [token]=7444 [azure]=7445)
ACCOUNT=servicedb
pids=()

programs() {
  how=present
  local bin=$DEV/stores/bin node=$DEV/stores/node
  [[ -x $bin/fake-gcs-server ]] || { GOBIN=$bin go install github.com/fsouza/fake-gcs-server@v1.56.1 && how=built; }
  [[ -d $node/node_modules/azurite ]] || {
    mkdir -p "$node"
    (cd "$node" && npm init -y >/dev/null && npm install --no-audit --no-fund --silent azurite@3.37.0)
    how=built
  }
}

certificates() {
  mkdir -p "$KEYS"
  chmod 700 "$KEYS"
  how=reused
  [[ -e $KEYS/tls.crt ]] || { server_certificate stores "$NODE_IP" "IP:$NODE_IP" && how=made; }
  [[ -e $KEYS/account.key ]] || openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$KEYS/account.key"
  [[ -e $KEYS/azure.key ]] || openssl rand -base64 32 >"$KEYS/azure.key"
}

# Google's endpoint for access tokens: any signed request gets one, which fake-gcs-server does not check.
token_server() {
  python3 - "$NODE_IP" "${PORTS[token]}" "$KEYS" <<'PYTHON'
import http.server, json, ssl, sys
address, port, keys = sys.argv[1:]

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps({"access_token": "local", "token_type": "Bearer", "expires_in": 3600}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{keys}/tls.crt", f"{keys}/tls.key")
server = http.server.ThreadingHTTPServer((address, int(port)), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
PYTHON
}

servers() {
  local data=$DEV/stores/data
  rm -rf "$data"
  mkdir -p "$data/gcs/backups" "$data/azure"
  "$DEV/stores/bin/fake-gcs-server" -scheme https -host "$NODE_IP" -port "${PORTS[gcs]}" -backend filesystem -filesystem-root "$data/gcs" \
    -cert-location "$KEYS/tls.crt" -private-key-location "$KEYS/tls.key" -external-url "https://$NODE_IP:${PORTS[gcs]}" >"$data/gcs.log" 2>&1 &
  pids+=($!)
  token_server >"$data/token.log" 2>&1 &
  pids+=($!)
  AZURITE_ACCOUNTS="$ACCOUNT:$(cat "$KEYS/azure.key")" node "$DEV/stores/node/node_modules/azurite/dist/src/blob/main.js" \
    --blobHost "$NODE_IP" --blobPort "${PORTS[azure]}" --location "$data/azure" --cert "$KEYS/tls.crt" --key "$KEYS/tls.key" \
    --skipApiVersionCheck --disableTelemetry >"$data/azure.log" 2>&1 &
  pids+=($!)
  local port
  for port in "${PORTS[@]}"; do
    curl --silent --cacert "$KEYS/ca.crt" --retry 30 --retry-connrefused --retry-delay 1 --output /dev/null "https://$NODE_IP:$port/"
  done
  container
}

# pgBackRest creates no container. A request of Azure's REST API is signed by the account's key.
container() {
  python3 - "$NODE_IP:${PORTS[azure]}" "$ACCOUNT" "$KEYS" <<'PYTHON'
import base64, datetime, hashlib, hmac, ssl, sys, urllib.request
host, account, keys = sys.argv[1:]
key = base64.b64decode(open(f"{keys}/azure.key").read())
date = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
version = "2021-08-06"
resource = f"/{account}/{account}/backups\nrestype:container"
text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n{resource}"
signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {account}:{signature}", "Content-Length": "0"}
request = urllib.request.Request(f"https://{host}/{account}/backups?restype=container", method="PUT", headers=headers)
urllib.request.urlopen(request, context=ssl.create_default_context(cafile=f"{keys}/ca.crt")).read()
PYTHON
}

stores() {
  jq -n --rawfile key "$KEYS/account.key" --arg uri "https://$NODE_IP:${PORTS[token]}/token" \
    '{type: "service_account", private_key: $key, client_email: "backups@local.example", token_uri: $uri}' >"$KEYS/account.json"
  vault kv put -mount=secret backups/gcs key=@"$KEYS/account.json" >/dev/null
  vault kv put -mount=secret backups/azure key="$(cat "$KEYS/azure.key")" >/dev/null
  jq -n --rawfile ca "$KEYS/ca.crt" --arg gcs "https://$NODE_IP:${PORTS[gcs]}" --arg azure "https://$NODE_IP:${PORTS[azure]}" --arg account "$ACCOUNT" '
    {backup: {stores: {
      gcs: {gcs: {endpoint: $gcs, bucket: "backups", prefix: "a/b", ca: $ca}, keys: {vaultPath: "backups/gcs"}},
      azure: {azure: {endpoint: $azure, account: $account, container: "backups", uriStyle: "path", ca: $ca}, keys: {vaultPath: "backups/azure"}}}}}' \
    >"$DEV/stores/values.json"
  ./install.sh -f "$DEV/stores/values.json"
}

# database NAME STORE [RESTORED-FROM]
database() {
  local bootstrap='{}'
  [[ -z ${3:-} ]] || bootstrap="{restore: {source: {name: $3}}}"
  kubectl -n "$SPACE" apply --server-side -f - <<YAML
apiVersion: servicedb.dev/v1alpha1
kind: ServiceDatabase
metadata: {name: $1}
spec:
  instances: 1
  storage: {size: 512Mi}
  backup: {store: $2}
  bootstrap: $bootstrap
YAML
}

holds() { kubectl -n "$SPACE" wait --for=condition="$2" "servicedatabase/$1" --timeout=600s; }

sql() { kubectl -n "$SPACE" exec "$1-db-0" -c database -- psql -XAtq -h /run/postgresql -d "${1//-/_}_db" -c "$2"; }

try_store() {
  local store=$1
  database "$store" "$store"
  holds "$store" Ready
  holds "$store" ContinuousArchiving
  holds "$store" BackedUp
  sql "$store" "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number; SELECT pg_switch_wal()" >/dev/null
  kubectl servicedb -n "$SPACE" backup "$store"
  holds "$store" RestoreVerified
  kubectl servicedb -n "$SPACE" backups "$store"
  database "$store-copy" "$store" "$store"
  holds "$store-copy" Ready
  [[ $(sql "$store-copy" 'SELECT count(*) FROM kept') == 1000 ]] || fail "$store: the restored database lacks rows"
}

finish() {
  local code=$? pid
  kubectl delete namespace "$SPACE" --ignore-not-found --wait=true --timeout=180s >/dev/null || true
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  ./install.sh >/dev/null || code=1
  exit "$code"
}

step "fake-gcs-server and Azurite" programs
step "their certificates and keys" certificates
trap finish EXIT
servers
step "operator with these stores" stores
kubectl create namespace "$SPACE" >/dev/null
all=(gcs azure)
if (($#)); then all=("$@"); fi
for store in "${all[@]}"; do step "$store: archived, backed up, verified, restored" try_store "$store"; done
