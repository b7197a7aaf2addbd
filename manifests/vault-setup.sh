#!/bin/sh
# Prepares Vault for one Servicedb operator: mounts, the operator's policy, its login.
#
#   CLUSTER_ID=prod-1 manifests/vault-setup.sh
#
# Uses the vault command line client with your VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT and
# VAULT_NAMESPACE. Run it again as often as you like: what is there is kept, and the policy
# and the role are brought up to date. docs/vault.md says what each right is for.
set -eu

usage() {
  cat <<'USAGE'
Settings (environment variables; a default in brackets):
  CLUSTER_ID                 a name for the cluster, unique among those that share this Vault;
                             1 to 40 lower-case letters, digits and '-'. Required.
  KV_MOUNT                   the mount of KV version 2 [secret]
  APPROLE_MOUNT              the mount of the AppRole auth method [approle]
  KUBERNETES_MOUNT           the mount of the Kubernetes auth method [kubernetes]
  DATABASE_MOUNT             the mount of the database secrets engine, for clients with
                             short-lived logins; empty: none is offered []. Once offered it has
                             to be named at each run, or `none` to take the operator's rights
                             on it away
  ROLE                       the operator's role in it; with the cluster's id it is also the
                             name of the operator's policy [servicedb-operator]
  OPERATOR_NAMESPACE         the operator's namespace [servicedb-system]
  OPERATOR_SERVICE_ACCOUNT   its ServiceAccount [servicedb-operator]
  AUDIENCE                   the audience of its token; empty for none [vault]
  TOKEN_TTL, TOKEN_MAX_TTL   how long its Vault token lives, and at most with renewals [20m, 4h]
Only while the Kubernetes auth method is not configured yet:
  KUBERNETES_HOST            the API server as Vault reaches it [https://kubernetes.default.svc,
                             for a Vault that runs in this cluster]
  KUBERNETES_CA_FILE         the API server's authority, PEM [that of Vault's own pod]
  TOKEN_REVIEWER_JWT_FILE    a ServiceAccount token that may create TokenReviews
                             [Vault's own pod's]
USAGE
}

fail() {
  printf 'vault-setup: %s\n' "$*" >&2
  exit 1
}

case ${1:-} in
  '') ;;
  -h | --help) usage; exit ;;
  *) usage >&2; exit 2 ;;
esac

CLUSTER_ID=${CLUSTER_ID:-}
KV_MOUNT=${KV_MOUNT:-secret}
APPROLE_MOUNT=${APPROLE_MOUNT:-approle}
KUBERNETES_MOUNT=${KUBERNETES_MOUNT:-kubernetes}
DATABASE_MOUNT=${DATABASE_MOUNT:-}
ROLE=${ROLE:-servicedb-operator}
OPERATOR_NAMESPACE=${OPERATOR_NAMESPACE:-servicedb-system}
OPERATOR_SERVICE_ACCOUNT=${OPERATOR_SERVICE_ACCOUNT:-servicedb-operator}
AUDIENCE=${AUDIENCE-vault}
TOKEN_TTL=${TOKEN_TTL:-20m}
TOKEN_MAX_TTL=${TOKEN_MAX_TTL:-4h}
KUBERNETES_HOST=${KUBERNETES_HOST:-https://kubernetes.default.svc}
KUBERNETES_CA_FILE=${KUBERNETES_CA_FILE:-}
TOKEN_REVIEWER_JWT_FILE=${TOKEN_REVIEWER_JWT_FILE:-}
GIVEN_DATABASE_MOUNT=$DATABASE_MOUNT
[ "$DATABASE_MOUNT" != none ] || DATABASE_MOUNT=
# Not `servicedb.<cluster>.…`: the operator may write policies of that name, and its own
# must not be among them.
POLICY=$ROLE.$CLUSTER_ID

case $CLUSTER_ID in
  '') usage >&2; fail 'CLUSTER_ID is not set' ;;
  *[!a-z0-9-]*) fail "CLUSTER_ID '$CLUSTER_ID' has other characters than lower-case letters, digits and '-'" ;;
esac
[ ${#CLUSTER_ID} -le 40 ] || fail "CLUSTER_ID '$CLUSTER_ID' is longer than 40 characters"
# These become parts of policy paths, where a stray quote or wildcard would change who may do what.
for value in "$KV_MOUNT" "$APPROLE_MOUNT" "$KUBERNETES_MOUNT" "${DATABASE_MOUNT:-none}" "$ROLE"; do
  case $value in
    '' | /* | */ | *[!A-Za-z0-9._/-]*) fail "'$value' cannot be a mount or a role" ;;
  esac
done
case $ROLE in servicedb.*) fail "ROLE must not begin with 'servicedb.': the operator could rewrite its own policy" ;; esac

command -v vault >/dev/null || fail 'the vault command line client is not in PATH'
: "${VAULT_ADDR:?is not set: the address of Vault, such as https://vault.example:8200}"
vault token lookup >/dev/null || fail "Vault at $VAULT_ADDR does not answer this token (see above)"

say() { printf '%-8s %s\n' "$1" "$2"; }

# The policy is written as a whole: a run that does not name the engine would end all short-lived logins.
if [ -z "$GIVEN_DATABASE_MOUNT" ]; then
  case $(vault policy read "$POLICY" 2>/dev/null || true) in
    *sys/leases/revoke-force/*)
      fail "policy $POLICY has rights on a database secrets engine: set DATABASE_MOUNT (or DATABASE_MOUNT=none to take them away)"
      ;;
  esac
fi

# A field of a path, or nothing where there is none.
field() { vault read -field="$2" "$1" 2>/dev/null || true; }

case $(field "sys/mounts/$KV_MOUNT" type) in
  '')
    vault secrets enable -path="$KV_MOUNT" -version=2 kv >/dev/null
    say created "secrets engine $KV_MOUNT/ (KV version 2)"
    ;;
  kv)
    case $(field "sys/mounts/$KV_MOUNT" options) in
      *version:2*) say kept "secrets engine $KV_MOUNT/ (KV version 2)" ;;
      *) fail "$KV_MOUNT/ is KV version 1: choose another KV_MOUNT, or upgrade it (vault kv enable-versioning $KV_MOUNT)" ;;
    esac
    ;;
  *) fail "$KV_MOUNT/ is not a KV secrets engine: choose another KV_MOUNT" ;;
esac

if [ -n "$DATABASE_MOUNT" ]; then
  case $(field "sys/mounts/$DATABASE_MOUNT" type) in
    '')
      vault secrets enable -path="$DATABASE_MOUNT" database >/dev/null
      say created "secrets engine $DATABASE_MOUNT/ (database)"
      ;;
    database) say kept "secrets engine $DATABASE_MOUNT/ (database)" ;;
    *) fail "$DATABASE_MOUNT/ is not a database secrets engine: choose another DATABASE_MOUNT" ;;
  esac
fi

enable_auth() {
  case $(field "sys/auth/$2" type) in
    '')
      vault auth enable -path="$2" "$1" >/dev/null
      say created "auth method $2/ ($1)"
      ;;
    "$1") say kept "auth method $2/ ($1)" ;;
    *) fail "auth/$2/ is not of the type $1: choose another mount" ;;
  esac
}
enable_auth approle "$APPROLE_MOUNT"
enable_auth kubernetes "$KUBERNETES_MOUNT"

configured=$(field "auth/$KUBERNETES_MOUNT/config" kubernetes_host)
if [ -n "$configured" ]; then
  say kept "auth/$KUBERNETES_MOUNT/config ($configured)"
else
  set -- kubernetes_host="$KUBERNETES_HOST"
  [ -z "$KUBERNETES_CA_FILE" ] || set -- "$@" kubernetes_ca_cert=@"$KUBERNETES_CA_FILE"
  [ -z "$TOKEN_REVIEWER_JWT_FILE" ] || set -- "$@" token_reviewer_jwt=@"$TOKEN_REVIEWER_JWT_FILE"
  vault write "auth/$KUBERNETES_MOUNT/config" "$@" >/dev/null ||
    fail 'a Vault outside of the cluster needs KUBERNETES_HOST, KUBERNETES_CA_FILE and TOKEN_REVIEWER_JWT_FILE'
  say wrote "auth/$KUBERNETES_MOUNT/config ($KUBERNETES_HOST)"
fi

# The rights on the database secrets engine, if it is offered.
database_policy() {
  [ -n "$DATABASE_MOUNT" ] || return 0
  cat <<POLICY_END

# Short-lived logins: the roles of clients; connections, which the database pods write, are removed with the last
# such client.
path "$DATABASE_MOUNT/roles/servicedb.$CLUSTER_ID.*" {
  capabilities = ["create", "read", "update", "delete"]
}
path "$DATABASE_MOUNT/config/servicedb.$CLUSTER_ID.*" {
  capabilities = ["delete"]
}
# The leases of removed clients, also if their database is gone.
path "sys/leases/revoke-force/$DATABASE_MOUNT/creds/servicedb.$CLUSTER_ID.*" {
  capabilities = ["update", "sudo"]
}
POLICY_END
}

vault policy write "$POLICY" - >/dev/null <<POLICY_END
# The Servicedb operator of cluster $CLUSTER_ID.

# Its own token.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}

# The policies of database pods, migration Jobs and clients.
path "sys/policies/acl/servicedb.$CLUSTER_ID.*" {
  capabilities = ["create", "read", "update", "delete"]
}

# The AppRoles of database pods and migration Jobs, with their role_ids and secret_ids.
path "auth/$APPROLE_MOUNT/role/servicedb.$CLUSTER_ID.*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

# The roles that clients log in with.
path "auth/$KUBERNETES_MOUNT/role/servicedb.$CLUSTER_ID.*" {
  capabilities = ["create", "read", "update", "delete"]
}

# Credentials that are not proved yet: written by the operator, promoted by the database pod.
path "$KV_MOUNT/data/$CLUSTER_ID/+/+/pending" {
  capabilities = ["create", "read", "update"]
}
path "$KV_MOUNT/metadata/$CLUSTER_ID/+/+/pending" {
  capabilities = ["read", "delete"]
}

# The credentials that hold: which generation they are, and whose.
path "$KV_MOUNT/data/$CLUSTER_ID/+/+/runtime" {
  capabilities = ["read"]
}
path "$KV_MOUNT/metadata/$CLUSTER_ID/+/+/runtime" {
  capabilities = ["create", "read", "update", "delete"]
}

# The migrator's credentials: never read, deleted with the database; whether they are there.
path "$KV_MOUNT/metadata/$CLUSTER_ID/+/+/migrator" {
  capabilities = ["read", "delete"]
}

# The same for each client with a login of its own.
path "$KV_MOUNT/data/$CLUSTER_ID/+/+/clients/+/pending" {
  capabilities = ["create", "read", "update"]
}
path "$KV_MOUNT/metadata/$CLUSTER_ID/+/+/clients/+/pending" {
  capabilities = ["read", "delete"]
}
path "$KV_MOUNT/data/$CLUSTER_ID/+/+/clients/+/runtime" {
  capabilities = ["read"]
}
path "$KV_MOUNT/metadata/$CLUSTER_ID/+/+/clients/+/runtime" {
  capabilities = ["read", "delete"]
}

# The passphrases of backups: made once, never read, replaced or deleted.
path "$KV_MOUNT/data/$CLUSTER_ID/+/+/backup/+" {
  capabilities = ["create"]
}
path "$KV_MOUNT/metadata/$CLUSTER_ID/+/+/backup/+" {
  capabilities = ["read"]
}
$(database_policy)
POLICY_END
say wrote "policy $POLICY"

set -- bound_service_account_names="$OPERATOR_SERVICE_ACCOUNT" \
  bound_service_account_namespaces="$OPERATOR_NAMESPACE" \
  token_policies="$POLICY" token_no_default_policy=true \
  token_type=service token_ttl="$TOKEN_TTL" token_max_ttl="$TOKEN_MAX_TTL" \
  audience="$AUDIENCE"
vault write "auth/$KUBERNETES_MOUNT/role/$ROLE" "$@" >/dev/null
say wrote "auth/$KUBERNETES_MOUNT/role/$ROLE for the ServiceAccount $OPERATOR_NAMESPACE/$OPERATOR_SERVICE_ACCOUNT"

cat <<VALUES

Vault is ready. The chart's values:

clusterId: $CLUSTER_ID
vault:
  address: $VAULT_ADDR            # as pods of the cluster reach it
VALUES
[ -z "${VAULT_NAMESPACE:-}" ] || echo "  namespace: $VAULT_NAMESPACE"
cat <<VALUES
  kvMount: $KV_MOUNT
  approleMount: $APPROLE_MOUNT
  kubernetesMount: $KUBERNETES_MOUNT
  databaseMount: "$DATABASE_MOUNT"
  auth:
    method: kubernetes
    mount: $KUBERNETES_MOUNT
    role: $ROLE
    audience: "$AUDIENCE"
VALUES
[ -z "${VAULT_CACERT:-}" ] || printf '\nand the authority that signed its certificate: --set-file vault.ca=%s\n' "$VAULT_CACERT"
