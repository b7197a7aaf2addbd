//! The names of everything that belongs to one ServiceDatabase, in Kubernetes, PostgreSQL and
//! Vault. Each is a function of the resource's namespace and name (and, in PostgreSQL, of the
//! database's name), so no name needs to be stored.
//!
//! Children are named `<name>-db…`, so they do not collide with the service's own Deployment and
//! Service. A resource's name has no dot, so names in Vault, joined by dots, cannot collide.

use super::documented::documented;

/// The API group; also the prefix of every label and annotation.
pub const GROUP: &str = "servicedb.dev";
/// The field manager of server-side apply.
pub const FIELD_MANAGER: &str = "servicedb";

documented! {
    /// The keys in the metadata of objects, each with its meaning.
    KEYS:

    /// Finalizer of a ServiceDatabase, set before the first object is created.
    FINALIZER = "servicedb.dev/cleanup";
    /// Label: the ServiceDatabase that owns an object.
    LABEL_NAME = "servicedb.dev/name";
    /// Label that only database pods, their volumes and Patroni's ConfigMaps carry; its value is
    /// Patroni's scope, `<name>-db`. Patroni treats every pod with this label as a member.
    LABEL_SCOPE = "servicedb.dev/scope";
    /// Label of a database pod, set by Patroni: `primary` or `replica`.
    LABEL_ROLE = "servicedb.dev/role";
    /// Annotation of a database pod: the agent's report, as JSON.
    ANNOTATION_REPORT = "servicedb.dev/agent";
    /// Annotation of a database pod: `tls` where its metrics are served over TLS.
    ANNOTATION_METRICS = "servicedb.dev/metrics";
    /// Annotation of a database pod: when the operator last triggered an update of the mounted
    /// certificates. A kubelet syncs a changed pod at once, and other pods within two minutes.
    ANNOTATION_CERTIFICATES = "servicedb.dev/certificates-asked-at";
    /// Annotation of a database pod, of any value: prepares an eviction of the pod. If it is the
    /// primary, the operator switches over to another instance; it is no target of a switchover.
    ANNOTATION_PREPARE_EVICTION = "servicedb.dev/prepare-eviction";
    /// Annotation of a database pod with `prepare-eviction`: the operator's answer. It begins with
    /// `Ready` (the PodDisruptionBudgets allow the eviction), `Waiting` (no action is needed) or
    /// `Refused`, followed by the reason.
    ANNOTATION_EVICTION = "servicedb.dev/eviction";
    /// Annotation of a ServiceDatabase: a token that requests new credentials; the request is
    /// complete when `status.credentials.rotateRequest` has the same token.
    ANNOTATION_ROTATE = "servicedb.dev/rotate";
    /// Annotation of a ServiceDatabase: the name of a client with a login of its own, `/`, and a
    /// token: requests new credentials for this client alone, also if its record is missing in
    /// Vault; the request is complete when `status.credentials.rotateClientRequest` has the same
    /// value.
    ANNOTATION_ROTATE_CLIENT = "servicedb.dev/rotate-client";
    /// Annotation of a ServiceDatabase: a token that requests new credentials although the record
    /// of the present ones is missing in Vault (`CredentialsLost`); the request is complete when
    /// `status.credentials.reissueRequest` has the same token.
    ANNOTATION_REISSUE = "servicedb.dev/reissue";
    /// Annotation of a ServiceDatabase: the approved id of `status.migrations.approval`.
    ANNOTATION_APPROVE = "servicedb.dev/approve-migrations";
    /// Annotation of a ServiceDatabase: a token that requests a check for schema drift; the request
    /// is complete when `status.drift.request` has the same token.
    ANNOTATION_CHECK_DRIFT = "servicedb.dev/check-drift";
    /// Annotation of a ServiceDatabase: a token that requests a switchover; the request is complete
    /// when `status.switchover` has the same token and the state `Done`.
    ANNOTATION_SWITCHOVER = "servicedb.dev/switchover";
    /// Annotation of a ServiceDatabase: the pod that becomes the primary by the requested
    /// switchover. Default: the best candidate.
    ANNOTATION_SWITCHOVER_TO = "servicedb.dev/switchover-to";
    /// Annotation of a ServiceDatabase: a token that requests a restart of PostgreSQL on every
    /// instance, one after another; the request is complete when `status.restart` has the same
    /// token and the state `Done`.
    ANNOTATION_RESTART = "servicedb.dev/restart";
    /// Annotation of a ServiceDatabase: a token that requests a backup. The request is complete when
    /// `status.backup.lastRun`, and that of a second store, has the same token and another state than `Running`.
    ANNOTATION_BACKUP = "servicedb.dev/backup";
    /// Annotation of a ServiceDatabase: `Full` if the requested backup shall be a full one.
    ANNOTATION_BACKUP_TYPE = "servicedb.dev/backup-type";
    /// Annotation of a ServiceDatabase: the store of the requested backup, where `spec.backup` names two. Default: both.
    ANNOTATION_BACKUP_STORE = "servicedb.dev/backup-store";
    /// Annotation of a ServiceDatabase: a token that requests a test of the newest backup. The request is
    /// complete when `status.backup.lastVerification` has the same token and another state than `Running`.
    ANNOTATION_VERIFY_BACKUP = "servicedb.dev/verify-backup";
    /// Annotation of a ServiceDatabase: a token that requests a run of the maintenance now. The request is complete
    /// when `status.maintenance.request` has the same token and another state than `Running`.
    ANNOTATION_MAINTAIN = "servicedb.dev/maintain";
    /// Annotation of a ServiceDatabase: a token that requests a restore in place, to the state in
    /// `servicedb.dev/restore-to`: everything that was committed after that state is left. The request is
    /// complete when `status.restore` has the same token and another state than `Running`.
    ANNOTATION_RESTORE = "servicedb.dev/restore";
    /// Annotation of a ServiceDatabase: the state of the requested restore, as JSON with the fields of
    /// `spec.bootstrap.restore.target`, such as `{"time": "2026-11-29T10:15:00Z"}`.
    ANNOTATION_RESTORE_TO = "servicedb.dev/restore-to";
    /// Annotation of a ServiceDatabase: the store of the requested restore, where `spec.backup` names two. Default: the
    /// first one, which must then have the state.
    ANNOTATION_RESTORE_STORE = "servicedb.dev/restore-store";
    /// Annotation of a ServiceDatabase: a token that requests what `servicedb.dev/upgrade-action` says. The request is
    /// complete when `status.upgrade.lastRequest` has the same token and another state than `Running`.
    ANNOTATION_UPGRADE = "servicedb.dev/upgrade";
    /// Annotation of a ServiceDatabase: `Check` rehearses the upgrade that `spec.postgres.version` declares, `Start` makes
    /// it, `Back` returns to the data from before it, `Finish` removes that data.
    ANNOTATION_UPGRADE_ACTION = "servicedb.dev/upgrade-action";
    /// Annotation of a ServiceDatabase: a token that requests a new certificate authority. The
    /// request is in progress when `status.certificates.change.request` has the same token, and
    /// complete when `status.certificates.renewRequest` has it.
    ANNOTATION_RENEW_AUTHORITY = "servicedb.dev/renew-authority";
    /// Annotation of a ServiceDatabase: time in seconds that clients have to read the requested
    /// authority before it signs the certificates; after that, the former one is trusted for the
    /// same time.
    ANNOTATION_AUTHORITY_OVERLAP = "servicedb.dev/renew-authority-overlap";
    /// Annotation of a ServiceDatabase: the approved id of `status.rollout`.
    ANNOTATION_APPROVE_ROLLOUT = "servicedb.dev/approve-rollout";
}

/// The value of [`LABEL_ROLE`] on the primary.
pub const ROLE_PRIMARY: &str = "primary";
/// The value of [`LABEL_ROLE`] on a replica.
pub const ROLE_REPLICA: &str = "replica";

/// The names of one ServiceDatabase's objects in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The resource's namespace.
    pub namespace: String,
    /// The resource's name: the service's.
    pub name: String,
}

impl Names {
    /// The names that belong to the resource `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// `<name> -n <namespace>`: the resource in a command for people.
    pub fn in_commands(&self) -> String {
        format!("{} -n {}", self.name, self.namespace)
    }

    /// `<name>-db`: the StatefulSet, Patroni's scope, the primary Service, the
    /// ServiceAccount, its Role and RoleBinding, the NetworkPolicy, the PodDisruptionBudget.
    pub fn base(&self) -> String {
        format!("{}-db", self.name)
    }

    /// The Service of the replicas.
    pub fn replicas_service(&self) -> String {
        self.with("replicas")
    }

    /// The headless Service that gives the pods their names.
    pub fn peers_service(&self) -> String {
        self.with("peers")
    }

    /// The ConfigMap with the desired state, which the agents watch (see `contract::desired`).
    pub fn desired(&self) -> String {
        self.with("desired")
    }

    /// The ConfigMap with the instance's role_id and Vault's address, and the Secret with its
    /// secret_id: two objects, so that two rights are needed to read both.
    pub fn instance_approle(&self) -> String {
        self.with("approle")
    }

    /// The migrator's ServiceAccount, and its ConfigMap and Secret as for the instance.
    pub fn migrator(&self) -> String {
        self.with("migrator")
    }

    /// The Secret with the certificate authority's key; no pod mounts it.
    pub fn ca_secret(&self) -> String {
        self.with("ca")
    }

    /// The Secret with the certificates that database pods mount.
    pub fn tls_secret(&self) -> String {
        self.with("tls")
    }

    /// Patroni's ConfigMaps, which are kept or deleted with the volumes.
    pub fn patroni_config_maps(&self) -> [String; 4] {
        PATRONI_CONFIG_MAPS.map(|suffix| self.with(suffix))
    }

    /// The ConfigMap with one revision of the migrations.
    pub fn migrations_config_map(&self, revision: &str) -> String {
        self.with(&format!("migrations-{}", short(revision)))
    }

    /// The Job that applies one revision of the migrations.
    pub fn migration_job(&self, revision: &str) -> String {
        self.with(&format!("migrate-{}", short(revision)))
    }

    /// The Job that checks for schema drift.
    pub fn drift_job(&self) -> String {
        self.with("drift")
    }

    /// The Job of the backup that starts at this time, in seconds since 1970.
    pub fn backup_job(&self, second: i64) -> String {
        self.with(&format!("backup-{second}"))
    }

    /// The Job of the test of a backup that starts at this time, in seconds since 1970.
    pub fn verification_job(&self, second: i64) -> String {
        self.with(&format!("verify-{second}"))
    }

    /// The Job of a rehearsal of a major upgrade that starts at this time, in seconds since 1970.
    pub fn rehearsal_job(&self, second: i64) -> String {
        self.with(&format!("rehearse-{second}"))
    }

    /// The Job that removes the backups of a deleted resource.
    pub fn backup_removal_job(&self) -> String {
        self.with("backup-removal")
    }

    /// The PodDisruptionBudget of the primary.
    pub fn primary_budget(&self) -> String {
        self.with("primary")
    }

    /// The pooler: its Deployment, Service, ServiceAccount, Role, RoleBinding, NetworkPolicy and
    /// PodDisruptionBudget.
    pub fn pooler(&self) -> String {
        self.with("pooler")
    }

    /// The read-only pooler: its Deployment, Service and PodDisruptionBudget.
    pub fn replicas_pooler(&self) -> String {
        self.with("pooler-replicas")
    }

    /// The headless Service by which the pods of the pooler, or of the read-only one, find one
    /// another.
    pub fn pooler_peers(&self, replicas: bool) -> String {
        self.with(if replicas { "pooler-ro-peers" } else { "pooler-peers" })
    }

    /// The ConfigMap with the orders to the pooler's pods (see `contract::pooler`).
    pub fn pooler_orders(&self) -> String {
        self.with("pooler-orders")
    }

    /// The ConfigMap with the reports of the pooler's pods.
    pub fn pooler_reports(&self) -> String {
        self.with("pooler-reports")
    }

    /// The Secret with the pooler's certificates.
    pub fn pooler_tls_secret(&self) -> String {
        self.with("pooler-tls")
    }

    /// The data gateway: its Deployment, Service, ServiceAccount, ConfigMap, NetworkPolicy and
    /// PodDisruptionBudget.
    pub fn gateway(&self) -> String {
        self.with("gateway")
    }

    /// The Secret with the gateway's certificates.
    pub fn gateway_tls_secret(&self) -> String {
        self.with("gateway-tls")
    }

    /// The headless Service with the addresses of the gateway's pods, for one another.
    pub fn gateway_peers(&self) -> String {
        self.with("gateway-peers")
    }

    /// The host name of the gateway, as clients use it.
    pub fn gateway_host(&self) -> String {
        format!("{}.{}.svc", self.gateway(), self.namespace)
    }

    /// The host name of a pooler, as clients use it.
    pub fn pooler_host(&self, pooler: &str) -> String {
        format!("{pooler}.{}.svc", self.namespace)
    }

    /// The pod of an ordinal.
    pub fn pod(&self, ordinal: i32) -> String {
        self.with(&ordinal.to_string())
    }

    /// The ordinal of a pod; none if the name is not an instance's.
    pub fn ordinal(&self, pod: &str) -> Option<i32> {
        pod.strip_prefix(&self.with(""))?.parse::<u8>().ok().map(i32::from)
    }

    /// Whether a pod is one of `instances` instances. A pod with a higher ordinal is about to be
    /// removed.
    pub fn is_one_of(&self, pod: &str, instances: i32) -> bool {
        self.ordinal(pod).is_none_or(|ordinal| ordinal < instances)
    }

    /// The volume claim of an ordinal.
    pub fn volume_claim(&self, ordinal: i32) -> String {
        format!("data-{}", self.pod(ordinal))
    }

    /// The primary's host name, as clients use it.
    pub fn primary_host(&self) -> String {
        format!("{}.{}.svc", self.base(), self.namespace)
    }

    /// The replicas' host name, as clients use it.
    pub fn replicas_host(&self) -> String {
        format!("{}.{}.svc", self.replicas_service(), self.namespace)
    }

    /// The names in PostgreSQL, for a database of this name.
    pub fn postgres(&self, database: &str) -> PostgresNames {
        PostgresNames {
            service: self.name.replace('-', "_"),
            in_commands: self.in_commands(),
            database: database.to_owned(),
        }
    }

    /// The names in Vault, for a cluster of this id.
    pub fn vault(&self, cluster: &str) -> VaultNames {
        VaultNames { cluster: cluster.to_owned(), namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// The database's name where spec gives none.
    pub fn default_database(&self) -> String {
        format!("{}_db", self.name.replace('-', "_"))
    }

    /// The prefix of the keys of the runtime record: `CHAT` gives `CHAT_DB_USER`.
    pub fn key_prefix(&self) -> String {
        self.name.replace('-', "_").to_uppercase()
    }

    fn with(&self, suffix: &str) -> String {
        format!("{}-db-{suffix}", self.name)
    }
}

/// The suffixes of Patroni's ConfigMaps.
const PATRONI_CONFIG_MAPS: [&str; 4] = ["config", "leader", "failover", "sync"];

/// The service whose Patroni would own a ConfigMap of this name.
pub fn service_of_patroni_config_map(name: &str) -> Option<&str> {
    let (service, suffix) = name.rsplit_once('-')?;
    PATRONI_CONFIG_MAPS.contains(&suffix).then(|| service.strip_suffix("-db"))?
}

fn short(revision: &str) -> &str {
    revision.get(..10).unwrap_or(revision)
}

/// The names of roles and schemas in PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresNames {
    service: String,
    in_commands: String,
    /// The database.
    pub database: String,
}

impl PostgresNames {
    /// `<name> -n <namespace>`: the resource in a command for people.
    pub fn in_commands(&self) -> &str {
        &self.in_commands
    }

    /// The NOLOGIN role that owns the database and the objects that migrations create.
    pub fn owner(&self) -> String {
        format!("{}_owner", self.database)
    }

    /// The NOLOGIN role with the rights of the application.
    pub fn app(&self) -> String {
        format!("{}_app", self.database)
    }

    /// The application's login of a credential generation: two logins alternate.
    pub fn login(&self, generation: i64) -> String {
        format!("{}_{}", self.service, turn(generation))
    }

    /// The migrator's login of a credential generation.
    pub fn migrator_login(&self, generation: i64) -> String {
        format!("{}_migrator_{}", self.service, turn(generation))
    }

    /// The NOLOGIN role whose members are the logins of all clients that have one of their own: by
    /// it they are admitted. It has no rights.
    pub fn clients(&self) -> String {
        format!("{}_clients", self.database)
    }

    /// The NOLOGIN role with the rights of a client that has a login of its own.
    pub fn client(&self, client: &str) -> String {
        format!("{}{}", self.client_prefix(), client.replace('-', "_"))
    }

    /// What the names of all such roles begin with.
    pub fn client_prefix(&self) -> String {
        format!("{}_c_", self.database)
    }

    /// The login of a client of a generation of its credentials: two logins alternate.
    pub fn client_login(&self, client: &str, generation: i64) -> String {
        format!("{}_c_{}_{}", self.service, client.replace('-', "_"), turn(generation))
    }

    /// What the names of a client's short-lived logins begin with: a random word follows. A client's name has no dot, so
    /// that no other client's logins begin so.
    pub fn short_lived_prefix(client: &str) -> String {
        format!("{}{client}.", Self::SHORT_LIVED)
    }

    /// The name that metrics give all short-lived logins of a client: with their own names, each would have a series.
    pub fn short_lived_label(client: &str) -> String {
        format!("{}{client}", Self::SHORT_LIVED)
    }

    /// The client of a short-lived login; none if the login is another one.
    pub fn client_of_short_lived(login: &str) -> Option<&str> {
        let (client, word) = login.strip_prefix(Self::SHORT_LIVED)?.split_once('.')?;
        (!client.is_empty() && !word.is_empty()).then_some(client)
    }

    /// The role that replicas stream with, by client certificate.
    pub const REPLICATOR: &'static str = "replicator";
    /// The role that `pg_rewind` connects with, by client certificate.
    pub const REWINDER: &'static str = "rewinder";
    /// The login that reads a tenant's objects, on the local socket. It is not a superuser, so a
    /// tenant's code that a query runs has no rights. No role of a database or service can have
    /// this name or the next: their names all end in `_owner`, `_app`, `_a` or `_b`.
    pub const READER: &'static str = "servicedb_reader";
    /// The login of the agent and of people who act as the owner, on the local socket: a member of
    /// the owner's role, not a superuser.
    pub const AS_OWNER: &'static str = "servicedb_local";
    /// The login that reads the server's statistics, on the local socket: a member of `pg_monitor` and of nothing
    /// else.
    pub const MONITOR: &'static str = "servicedb_monitor";
    /// The login that runs a team's own queries for metrics, on the local socket: it has the rights that the team
    /// grants it, and no others.
    pub const QUERIES: &'static str = "servicedb_queries";
    /// The role without a login whose rights name the relations that are audited (`pgaudit.role`).
    pub const AUDIT: &'static str = "servicedb_audit";
    /// The login that maintains the tenant's database, on the local socket: a member of `pg_maintain` and of the
    /// owner's role, not a superuser.
    pub const MAINTAINER: &'static str = "servicedb_maintainer";
    /// The login of the pooler, by client certificate, in the database `postgres` alone.
    pub const POOLER: &'static str = "servicedb_pooler";
    /// The function that returns a login's verifier to the pooler, in the database `postgres`.
    pub const POOLER_FUNCTION: &'static str = "servicedb.pooler_verifier";
    /// The login of the data gateway, by client certificate: it has no rights, and may become the roles of
    /// the clients that call it.
    pub const GATEWAY: &'static str = "servicedb_gateway";
    /// The logins of Vault's database secrets engine, by password and only to the database `postgres`: one is valid, and
    /// takes turns with the other. They have no rights but to call the functions that make, renew and remove short-lived
    /// logins.
    pub const ENGINES: [&'static str; 2] = ["servicedb_vault", "servicedb_vault2"];
    /// The function with which Vault makes a short-lived login, in the database `postgres`.
    pub const MAKE_LOGIN: &'static str = "servicedb.make_login";
    /// The function with which Vault renews one.
    pub const RENEW_LOGIN: &'static str = "servicedb.renew_login";
    /// The function with which Vault removes one.
    pub const REMOVE_LOGIN: &'static str = "servicedb.remove_login";
    /// What the names of all short-lived logins begin with. No other role has a dot in its name.
    pub const SHORT_LIVED: &'static str = "servicedb.";
    /// The schema of the migrations' ledger, which the application cannot write.
    pub const LEDGER_SCHEMA: &'static str = "servicedb";
    /// The schema of extensions whose scripts must not use a tenant's objects. It belongs to the
    /// superuser; nobody else can create objects in it.
    pub const EXTENSIONS_SCHEMA: &'static str = "servicedb_extensions";
}

/// Odd generations, the first among them, use `a`; even ones `b`.
fn turn(generation: i64) -> char {
    if generation % 2 == 0 { 'b' } else { 'a' }
}

/// The names of one ServiceDatabase's objects in Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultNames {
    cluster: String,
    namespace: String,
    name: String,
}

impl VaultNames {
    /// Policy and AppRole of the database pods.
    pub fn instance(&self) -> String {
        self.for_purpose("instance")
    }

    /// Policy and AppRole of the migration Job.
    pub fn migrator(&self) -> String {
        self.for_purpose("migrator")
    }

    /// Policy and Kubernetes-auth role of the clients.
    pub fn client(&self) -> String {
        self.for_purpose("client")
    }

    /// The folder in the KV mount.
    pub fn folder(&self) -> String {
        format!("{}/{}/{}", self.cluster, self.namespace, self.name)
    }

    /// The record that the application reads.
    pub fn runtime(&self) -> String {
        format!("{}/runtime", self.folder())
    }

    /// The record with credentials that are not yet proved.
    pub fn pending(&self) -> String {
        format!("{}/pending", self.folder())
    }

    /// The record that the migration Job reads.
    pub fn migrator_record(&self) -> String {
        format!("{}/migrator", self.folder())
    }

    /// Policy and Kubernetes-auth role of a client that has a login of its own.
    pub fn own_client(&self, client: &str) -> String {
        self.for_purpose(&format!("client.{client}"))
    }

    /// The record that this client reads.
    pub fn client_runtime(&self, client: &str) -> String {
        format!("{}/clients/{client}/runtime", self.folder())
    }

    /// The record with credentials of this client that are not yet proved.
    pub fn client_pending(&self, client: &str) -> String {
        format!("{}/clients/{client}/pending", self.folder())
    }

    /// The record with the passphrase of the backups of the resource with this uid: a resource that
    /// is created again never uses the one of an earlier resource.
    pub fn backup_passphrase(&self, uid: &str) -> String {
        format!("{}/backup/{uid}", self.folder())
    }

    /// The connection of the database secrets engine.
    pub fn engine_connection(&self) -> String {
        format!("servicedb.{}.{}.{}", self.cluster, self.namespace, self.name)
    }

    /// The role of the database secrets engine for a client with short-lived logins. The agent of the leader knows it by
    /// the connection (see `contract::clients::Engine::role`).
    pub fn engine_role(&self, client: &str) -> String {
        self.for_purpose(client)
    }

    fn for_purpose(&self, purpose: &str) -> String {
        format!("{}.{purpose}", self.engine_connection())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_keeps_every_child_within_a_label() {
        let names = Names::new("n".repeat(63), "s".repeat(40));
        assert!(names.migration_job("0123456789abcdef").len() <= 63);
        assert!(names.backup_job(9_999_999_999).len() <= 63);
        assert!(names.rehearsal_job(9_999_999_999).len() <= 63);
        assert!(names.volume_claim(8).len() <= 63);
        assert!(names.replicas_service().len() <= 63);
        assert!(names.pooler_peers(true).len() <= 63);
        let roles = names.postgres(&"d".repeat(50));
        for role in [roles.owner(), roles.app(), roles.login(1), roles.migrator_login(2)] {
            assert!(role.len() <= 63, "{role} is longer than PostgreSQL keeps");
        }
    }

    #[test]
    fn patronis_config_maps_are_recognised_by_name() {
        for name in Names::new("games", "match-db").patroni_config_maps() {
            assert_eq!(service_of_patroni_config_map(&name), Some("match-db"), "{name}");
        }
        for other in ["chat-db-desired", "chat-config", "config", "chat-db"] {
            assert_eq!(service_of_patroni_config_map(other), None, "{other}");
        }
    }

    #[test]
    fn vault_names_of_two_tenants_never_collide() {
        let one = Names::new("a-b", "c").vault("k");
        let other = Names::new("a", "b-c").vault("k");
        assert_ne!(one.instance(), other.instance());
        assert_ne!(one.runtime(), other.runtime());
    }

    #[test]
    fn a_short_lived_login_is_one_clients_and_no_other_role_looks_like_it() {
        let of = PostgresNames::client_of_short_lived;
        for client in ["a", "a-b", "reports"] {
            let login = format!("{}k3j29fhs7dk2mxqp", PostgresNames::short_lived_prefix(client));
            assert_eq!(of(&login), Some(client));
            assert_eq!(of(&PostgresNames::short_lived_label(client)), None, "a name in metrics is no login");
            assert!(login.len() <= 63, "{login}");
        }
        assert!(!PostgresNames::short_lived_prefix("a-b").starts_with(&PostgresNames::short_lived_prefix("a")));
        // A service of such a name, with a database of such a name.
        let names = Names::new("n", "servicedb-t").postgres("servicedb");
        for other in [names.login(1), names.client("a-b"), names.client_login("a", 2), names.owner(), names.clients()] {
            assert_eq!(of(&other), None, "{other}");
        }
        let [engine, other_engine] = PostgresNames::ENGINES;
        for other in [engine, other_engine, PostgresNames::GATEWAY, "servicedb.a", "servicedb.a.", "servicedb..x"] {
            assert_eq!(of(other), None, "{other}");
        }
        // A service of such a name has no login of the engine's names.
        let names = Names::new("n", "servicedb-vault").postgres("servicedb_vault");
        for other in [names.login(1), names.migrator_login(1), names.owner(), names.app(), names.clients()] {
            assert!(!PostgresNames::ENGINES.contains(&other.as_str()), "{other}");
        }
    }

    #[test]
    fn logins_alternate() {
        let names = Names::new("games", "match-maker").postgres("mm");
        assert_eq!(names.login(1), "match_maker_a");
        assert_eq!(names.login(2), "match_maker_b");
        assert_eq!(names.login(3), names.login(1));
    }
}
