//! Checks a spec. A [`Database`] has passed every check, so the plan cannot fail.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

use crate::api::conditions::reason;
use crate::api::names::{
    ANNOTATION_APPROVE, ANNOTATION_APPROVE_ROLLOUT, ANNOTATION_AUTHORITY_OVERLAP, ANNOTATION_BACKUP,
    ANNOTATION_BACKUP_STORE, ANNOTATION_BACKUP_TYPE, ANNOTATION_CHECK_DRIFT, ANNOTATION_MAINTAIN, ANNOTATION_REISSUE,
    ANNOTATION_RENEW_AUTHORITY, ANNOTATION_RESTART, ANNOTATION_RESTORE, ANNOTATION_RESTORE_STORE,
    ANNOTATION_RESTORE_TO, ANNOTATION_ROTATE, ANNOTATION_ROTATE_CLIENT, ANNOTATION_SWITCHOVER,
    ANNOTATION_SWITCHOVER_TO, ANNOTATION_UPGRADE, ANNOTATION_UPGRADE_ACTION, ANNOTATION_VERIFY_BACKUP, Names,
    PostgresNames, VaultNames,
};
use crate::api::spec::{MAXIMUM_INSTANCES, RESERVED_PARAMETERS};
use crate::api::{
    Approval, BackupType, Baseline, ClientSpec, GatewaySpec, ImageSource, MigrationFormat, MigrationSource,
    MigrationsSpec, Permission, PodMetadata, PoolerSpec, QueriesReference, SchedulingSpec, SchemaDependency,
    ServiceDatabase, ServiceDatabaseSpec, StorageSpec, ToolSource, UndeclaredRights, UpdatePolicy, UpgradeAction,
    WhenVolumeFills,
};
use crate::contract;
use crate::contract::backup::{Nth, Place, Restore, Store, Target};
use crate::contract::clients::Rules;
use crate::contract::desired::{Memory, Requests};
use crate::contract::extension::{CRON_SCHEMA, Options as ExtensionOptions, OptionsByName};
use crate::contract::logged;
use crate::contract::maintenance::Tasks;
use crate::contract::migration::{Policy, hash};
use crate::contract::restore_target as target;
use crate::operator::apply::object::Owner;
use crate::operator::apply::quantity;
use crate::operator::backups::schedule::Schedule;
use crate::operator::context::options::Options;
use crate::operator::credentials::spec as clients;
use crate::operator::gateway::spec as gateway;
use crate::operator::maintenance;
use crate::operator::maintenance::windows::Windows;
use crate::operator::pooler::spec as pooler;
use crate::operator::tls::authority::Request as AuthorityRequest;
use crate::operator::version::{self, Version};

/// A ServiceDatabase whose every value was checked and resolved.
#[derive(Clone, Debug)]
pub struct Database {
    /// The owner of the objects.
    pub owner: Owner,
    /// The names in PostgreSQL, the database's own among them.
    pub postgres: PostgresNames,
    /// The names in Vault.
    pub vault: VaultNames,
    /// The number of instances.
    pub instances: i32,
    /// The major version of the data; of a database that does not exist yet, that of its first initialisation.
    pub major: u16,
    /// The higher major version that the spec declares.
    pub upgrade_to: Option<u16>,
    /// How long the data from before an upgrade is kept; none: until it is given up.
    pub keep_former: Option<SignedDuration>,
    /// The image of the data's version.
    pub image: String,
    /// Settings of the server.
    pub parameters: BTreeMap<String, String>,
    /// Extensions to create.
    pub extensions: Vec<String>,
    /// The options of those that declare any.
    pub extension_options: OptionsByName,
    /// The volumes.
    pub storage: StorageSpec,
    /// Whether commits wait for a replica, if there is one.
    pub synchronous: bool,
    /// The maximum lag of a replica that may be promoted, in bytes.
    pub maximum_lag_bytes: i64,
    /// CPU and memory.
    pub resources: ResourceRequirements,
    /// The memory in it, in bytes.
    pub memory: Memory,
    /// The declared size of a volume in bytes.
    pub volume_bytes: Option<u64>,
    /// The scheduling of the instances.
    pub scheduling: SchedulingSpec,
    /// Additional labels and annotations of the pods.
    pub pod_metadata: PodMetadata,
    /// The migrations.
    pub migrations: Option<Migrations>,
    /// The clients that may connect and read the credentials.
    pub clients: Vec<ClientSpec>,
    /// The clients that the platform does not allow: of other namespaces, or with short-lived logins. They have no access.
    pub refused_clients: Vec<ClientSpec>,
    /// What holds for all clients with a login of their own.
    pub client_rules: Rules,
    /// The requested rotation of one of them, from an annotation: its name, `/`, and a token.
    pub rotate_client: Option<String>,
    /// The age at which the credentials are replaced.
    pub rotation_period: Option<Duration>,
    /// The requests for new credentials, in annotations.
    pub requests: Requests,
    /// The requests that status reports as completed; none before the first credentials.
    pub answered: Option<Requests>,
    /// The promoted generation in status; 0: none yet.
    pub promoted: i64,
    /// The Secret with the credentials, if one is declared.
    pub binding_secret: Option<String>,
    /// Whether data of an earlier resource is adopted.
    pub adopt: bool,
    /// How pods are updated to another version of the operator.
    pub update_policy: UpdatePolicy,
    /// The approved update, from an annotation.
    pub approved_rollout: Option<String>,
    /// The requested switchover, from an annotation.
    pub switchover: Option<String>,
    /// The pod that becomes the primary by it.
    pub switchover_to: Option<String>,
    /// The requested restart, from an annotation.
    pub restart: Option<String>,
    /// The requested certificate authority, from annotations.
    pub new_authority: Option<AuthorityRequest>,
    /// Where WAL is archived.
    pub archive: Option<Place>,
    /// The same in a second store.
    pub second_archive: Option<Place>,
    /// What a new database is restored from; resolved where the database does not exist yet.
    pub restore: Option<Restore>,
    /// The backups there.
    pub backups: Backups,
    /// The requested restore in place, from annotations.
    pub in_place: Option<RestoreRequest>,
    /// The maintenance.
    pub maintenance: maintenance::Declared,
    /// Where the team's own queries for metrics are.
    pub queries: Option<QueriesReference>,
    /// The request about a major upgrade, from annotations.
    pub upgrade: Option<UpgradeRequest>,
    /// The pooler.
    pub pooler: Option<PoolerSpec>,
    /// The data gateway.
    pub gateway: Option<GatewaySpec>,
    /// The generation of the resource: a failed attempt for it is not repeated.
    pub generation: i64,
}

impl Database {
    /// The place in one of the stores.
    pub fn archive_in(&self, nth: Nth) -> Option<&Place> {
        match nth {
            Nth::First => self.archive.as_ref(),
            Nth::Second => self.second_archive.as_ref(),
        }
    }

    /// The resource's names.
    pub fn names(&self) -> &Names {
        &self.owner.names
    }

    /// The clients that have a login of their own.
    pub fn own_clients(&self) -> impl Iterator<Item = &ClientSpec> {
        self.clients.iter().filter(|client| client.own().is_some())
    }

    /// Whether a client has short-lived logins.
    pub fn has_short_lived(&self) -> bool {
        self.clients.iter().any(|client| client.dynamic().is_some())
    }
}

/// Why a spec cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// A reason of `api::conditions::reason`.
    pub reason: &'static str,
    /// The field, the problem, and the remedy.
    pub message: String,
}

/// Checks a resource.
///
/// The rules of the CRD refuse most errors; those that would be dangerous under a CRD without the
/// rules are checked here again.
///
/// # Errors
/// If a part of the spec cannot be applied.
pub fn validate(resource: &ServiceDatabase, options: &Options) -> Result<Database, Invalid> {
    let spec = &resource.spec;
    let names = Names::new(resource.namespace().unwrap_or_default(), resource.name_any());
    let pinned = resource.status.as_ref().and_then(|status| status.database.clone());
    let database = spec.database.clone().unwrap_or_else(|| names.default_database());
    if let Some(pinned) = pinned.filter(|pinned| *pinned != database) {
        return Err(invalid(format!(
            "spec.database is {database}, but this ServiceDatabase was created with {pinned}: set it back"
        )));
    }
    check_name(&names.name)?;
    check_database(&database)?;
    clients::check_secrets(spec, &names.base()).map_err(invalid)?;
    if !(1..=MAXIMUM_INSTANCES).contains(&spec.instances) {
        return Err(invalid("spec.instances must be from 1 to 9".to_owned()));
    }
    if let Some(name) = spec.postgres.parameters.keys().find(|name| RESERVED_PARAMETERS.contains(&name.as_str())) {
        return Err(invalid(format!(
            "spec.postgres.parameters sets {name}, which Servicedb or Patroni owns: remove it"
        )));
    }
    let audited = [
        (logged::AUDIT, "classes", !spec.audit.classes.is_empty()),
        (logged::AUDIT_ROLE, "grantedRelations", spec.audit.granted_relations),
    ];
    for (setting, field, is_set) in audited {
        if is_set && spec.postgres.parameters.contains_key(setting) {
            return Err(invalid(format!(
                "spec.postgres.parameters sets {setting}, which spec.audit.{field} sets, too: keep one of them"
            )));
        }
    }
    let waits = |value: &String| ["on", "remote_write", "remote_apply"].contains(&value.as_str());
    if spec.postgres.parameters.get("synchronous_commit").is_some_and(|value| !waits(value)) {
        return Err(invalid(
            "spec.postgres.parameters: synchronous_commit must be on, remote_write or remote_apply".to_owned(),
        ));
    }
    // The server's value applies before the options of a session are read: with a lower value no
    // session can start, not even to change it (tested with PostgreSQL 17.12).
    let timeout = spec.postgres.parameters.get("transaction_timeout");
    let shortest = |value: &&String| contract::setting::milliseconds(value).is_some_and(|ms| ms > 0.0 && ms < 1000.0);
    if let Some(value) = timeout.filter(shortest) {
        return Err(invalid(format!(
            "spec.postgres.parameters: transaction_timeout is {value}, but PostgreSQL counts the start of each \
             connection as a transaction, so no client could connect: set at least 1s, or 0"
        )));
    }
    clients::check(&spec.clients, &names.namespace, &names.postgres(&database)).map_err(invalid)?;
    // Not InvalidSpec: then the last valid declaration would stay in effect, and with it an access that was withdrawn.
    let (admitted, refused_clients) = clients::admitted(&spec.clients, &names.namespace, options);
    let pod_metadata = spec.pod_metadata.clone().unwrap_or_default();
    if let Some((list, key)) = pod_metadata.reserved() {
        return Err(invalid(format!(
            "spec.podMetadata.{list} sets {key}, which Servicedb, Patroni or a controller of Kubernetes writes: remove it"
        )));
    }
    let memory = memory(spec.resources.as_ref());
    if let Some(bound) = memory.bound() {
        let asked = contract::memory::named(&spec.postgres.parameters);
        contract::memory::check(&spec.postgres.parameters, asked, bound).map_err(invalid)?;
    }
    let volume_bytes = quantity::bytes(&spec.storage.size).and_then(|bytes| u64::try_from(bytes).ok());
    if let Some(volume) = volume_bytes {
        contract::wal::check(&spec.postgres.parameters, volume).map_err(invalid)?;
    }
    contract::raster::check(&spec.postgres.parameters).map_err(invalid)?;
    let is_uring = |value: &String| value.eq_ignore_ascii_case("io_uring");
    if spec.postgres.parameters.get("io_method").is_some_and(is_uring) {
        return Err(invalid(
            "spec.postgres.parameters: io_method must be worker or sync: the pods' seccomp profile refuses the system \
             calls of io_uring, and PostgreSQL would not start"
                .to_owned(),
        ));
    }
    let Version { major, upgrade_to, image } = version::resolve(resource, &options.postgres_images)
        .map_err(|(reason, message)| Invalid { reason, message })?;
    let archive = archive(resource, options)?;
    Ok(Database {
        postgres: names.postgres(&database),
        vault: names.vault(&options.cluster_id),
        owner: Owner { uid: resource.uid().unwrap_or_default(), names },
        instances: spec.instances,
        major,
        upgrade_to,
        keep_former: former_data(spec)?,
        image,
        parameters: {
            let mut parameters = logged::settings(&spec.monitoring, &spec.audit);
            parameters.extend(spec.postgres.parameters.clone());
            parameters
        },
        extensions: spec.postgres.extensions.iter().map(|extension| extension.name.clone()).collect(),
        extension_options: extension_options(spec)?,
        storage: spec.storage.clone(),
        synchronous: spec.replication.synchronous,
        maximum_lag_bytes: spec.replication.maximum_lag_bytes,
        resources: spec.resources.clone().unwrap_or_default(),
        memory,
        volume_bytes,
        scheduling: spec.scheduling.clone().unwrap_or_default(),
        pod_metadata,
        migrations: spec.migrations.as_ref().map(|spec| migrations(spec, resource)).transpose()?,
        clients: admitted,
        refused_clients,
        client_rules: Rules {
            revoke_undeclared: spec.credentials.undeclared_rights == Some(UndeclaredRights::Revoke),
            session_grace_seconds: spec.credentials.session_grace_seconds.unwrap_or_default().clamp(0, 3600),
        },
        rotate_client: token(resource, ANNOTATION_ROTATE_CLIENT),
        rotation_period: rotation_period(spec.credentials.rotation_period_seconds)?,
        requests: requests(resource),
        answered: answered(resource),
        promoted: promoted(resource),
        binding_secret: spec.credentials.secret.as_ref().map(|secret| secret.name.clone()),
        adopt: spec.bootstrap.adopt,
        update_policy: spec.update_policy,
        approved_rollout: token(resource, ANNOTATION_APPROVE_ROLLOUT),
        switchover: token(resource, ANNOTATION_SWITCHOVER),
        switchover_to: token(resource, ANNOTATION_SWITCHOVER_TO),
        restart: token(resource, ANNOTATION_RESTART),
        new_authority: new_authority(resource),
        second_archive: second_archive(resource, options, archive.as_ref())?,
        archive,
        restore: None,
        backups: backups(resource)?,
        in_place: restore_request(resource),
        maintenance: maintenance(resource)?,
        queries: spec.monitoring.queries.clone(),
        upgrade: upgrade_request(resource),
        pooler: pooler::check(spec).map_err(invalid)?,
        gateway: gateway::check(spec, options).map_err(invalid)?,
        generation: resource.metadata.generation.unwrap_or_default(),
    })
}

/// The options of the extensions that declare any. Without the rules of the CRD, an extension of the owner could be
/// moved into the schema of the ledger.
fn extension_options(spec: &ServiceDatabaseSpec) -> Result<OptionsByName, Invalid> {
    let mut found = OptionsByName::new();
    for extension in &spec.postgres.extensions {
        let options = ExtensionOptions { version: extension.version.clone(), schema: extension.schema.clone() };
        let is_reserved = |schema: &&String| {
            schema.starts_with("pg_")
                || [PostgresNames::LEDGER_SCHEMA, "information_schema", CRON_SCHEMA].contains(&schema.as_str())
        };
        if let Some(schema) = options.schema.as_ref().filter(is_reserved) {
            return Err(invalid(format!(
                "spec.postgres.extensions, {}: the schema {schema} is PostgreSQL's, Servicedb's or pg_cron's: name \
                 another one",
                extension.name
            )));
        }
        if options != ExtensionOptions::default() {
            found.insert(extension.name.clone(), options);
        }
    }
    Ok(found)
}

/// The declared maintenance, and the request for a run.
fn maintenance(resource: &ServiceDatabase) -> Result<maintenance::Declared, Invalid> {
    let spec = &resource.spec.maintenance;
    if spec.windows.is_empty() && resource.spec.update_policy == UpdatePolicy::Window {
        return Err(invalid(
            "spec.updatePolicy is Window, and spec.maintenance.windows has no window: add one, or choose another policy"
                .to_owned(),
        ));
    }
    let percent = u8::try_from(spec.reindex.bloat_percent).ok().filter(|percent| (10..=95).contains(percent));
    let percent =
        percent.ok_or_else(|| invalid("spec.maintenance.reindex.bloatPercent must be from 10 to 95".to_owned()))?;
    Ok(maintenance::Declared {
        windows: Windows::of(&spec.windows, &resource.uid().unwrap_or_default()).map_err(invalid)?,
        tasks: Tasks {
            vacuum: spec.vacuum,
            analyze: spec.analyze,
            freeze: spec.freeze,
            reindex_percent: spec.reindex.enabled.then_some(percent),
            update_extensions: spec.update_extensions,
        },
        request: token(resource, ANNOTATION_MAINTAIN),
    })
}

/// A requested restore in place.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The token.
    pub token: String,
    /// The state to restore and its timeline, or why it is unknown.
    pub target: Result<(Target, Option<u32>), String>,
    /// The store that is named.
    pub store: Option<String>,
}

fn restore_request(resource: &ServiceDatabase) -> Option<RestoreRequest> {
    let store = token(resource, ANNOTATION_RESTORE_STORE);
    let token = token(resource, ANNOTATION_RESTORE)?;
    let annotation = format!("the annotation {ANNOTATION_RESTORE_TO}");
    let target = match resource.annotations().get(ANNOTATION_RESTORE_TO) {
        None => Err(format!("{annotation} is missing: it names the state to restore")),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| format!("{annotation} is {text:?}: {error}"))
            .and_then(|target| target::parse(Some(&target), &annotation)),
    };
    Some(RestoreRequest { token, target, store })
}

/// A request about a major upgrade.
#[derive(Clone, Debug)]
pub struct UpgradeRequest {
    /// The token.
    pub token: String,
    /// What is requested, or why it is unknown.
    pub action: Result<UpgradeAction, String>,
}

fn upgrade_request(resource: &ServiceDatabase) -> Option<UpgradeRequest> {
    let token = token(resource, ANNOTATION_UPGRADE)?;
    let text = resource.annotations().get(ANNOTATION_UPGRADE_ACTION).map(String::as_str).unwrap_or_default();
    let action = serde_json::from_value(text.into()).map_err(|_| {
        format!("the annotation {ANNOTATION_UPGRADE_ACTION} is {text:?}: it must be Check, Start, Back or Finish")
    });
    Some(UpgradeRequest { token, action })
}

/// The backups of a database.
#[derive(Clone, Debug)]
pub struct Backups {
    /// When they start.
    pub schedule: Schedule,
    /// For how many days the database can be recovered.
    pub retention_days: u32,
    /// How many full backups are kept instead.
    pub retention_full_backups: Option<u32>,
    /// What happens when WAL that cannot be archived fills the volume.
    pub when_volume_fills: WhenVolumeFills,
    /// CPU and memory of their Jobs, as declared.
    pub resources: Option<ResourceRequirements>,
    /// The requested backup, from annotations: its token, and its type.
    pub request: Option<(String, BackupType)>,
    /// The store that the request names; none: each.
    pub request_store: Option<String>,
    /// The requested test of a backup, from an annotation.
    pub verification_request: Option<String>,
}

fn backups(resource: &ServiceDatabase) -> Result<Backups, Invalid> {
    let spec = &resource.spec.backup;
    let uid = resource.uid().unwrap_or_default();
    let is_full = token(resource, ANNOTATION_BACKUP_TYPE).as_deref() == Some("Full");
    let kind = if is_full { BackupType::Full } else { BackupType::Incremental };
    Ok(Backups {
        schedule: Schedule::of(&spec.schedule, &uid).map_err(invalid)?,
        retention_days: u32::try_from(spec.retention_days)
            .ok()
            .filter(|days| *days > 0)
            .ok_or_else(|| invalid("spec.backup.retentionDays must be from 1 to 3650".to_owned()))?,
        retention_full_backups: match spec.retention_full_backups.map(u32::try_from) {
            None => None,
            Some(Ok(number)) if number > 0 => Some(number),
            Some(_) => return Err(invalid("spec.backup.retentionFullBackups must be from 1 to 1000".to_owned())),
        },
        when_volume_fills: spec.when_volume_fills,
        resources: spec.resources.clone(),
        request: token(resource, ANNOTATION_BACKUP).map(|token| (token, kind)),
        request_store: token(resource, ANNOTATION_BACKUP_STORE),
        verification_request: token(resource, ANNOTATION_VERIFY_BACKUP),
    })
}

/// The place of the database in the store of its backups.
fn archive(resource: &ServiceDatabase, options: &Options) -> Result<Option<Place>, Invalid> {
    let spec = &resource.spec.backup;
    let Some(name) = spec.store.as_ref().or(options.backup_default_store.as_ref()).filter(|_| spec.enabled) else {
        return Ok(None);
    };
    place_in(resource, options, ("spec.backup.store", name.as_str())).map(Some)
}

/// The place of the database in the second store of its backups.
fn second_archive(
    resource: &ServiceDatabase,
    options: &Options,
    first: Option<&Place>,
) -> Result<Option<Place>, Invalid> {
    let spec = &resource.spec.backup;
    let Some(name) = spec.second_store.as_ref().filter(|_| spec.enabled) else { return Ok(None) };
    let Some(first) = first else {
        return Err(invalid(format!(
            "spec.backup.secondStore is {name}, and there is no first one: set spec.backup.store, since this \
             installation has no default store"
        )));
    };
    let second = place_in(resource, options, ("spec.backup.secondStore", name.as_str()))?;
    // Two names of one folder would be one copy, which each of the two keeps from expiring.
    if second.name == first.name || (&second.store.service, &second.path) == (&first.store.service, &first.path) {
        return Err(invalid(format!(
            "spec.backup.secondStore is {name}, which is the same place as the store {}: name another one",
            first.name
        )));
    }
    Ok(Some(second))
}

fn place_in(resource: &ServiceDatabase, options: &Options, (field, name): (&str, &str)) -> Result<Place, Invalid> {
    let Some(store) = options.backup_stores.0.get(name) else {
        let known: Vec<_> = options.backup_stores.0.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(invalid(format!("{field} is {name}, and this installation has the stores: {known}")));
    };
    let names = Names::new(resource.namespace().unwrap_or_default(), resource.name_any());
    Ok(place(&names, &resource.uid().unwrap_or_default(), (name, store), &options.cluster_id))
}

/// The place in a store of the resource with these names and this uid.
pub fn place(names: &Names, uid: &str, (name, store): (&str, &Store), cluster_id: &str) -> Place {
    let names = names.vault(cluster_id);
    let prefix = store.service.prefix().trim_matches('/');
    let folder = format!("{}/{uid}", names.folder());
    Place {
        name: name.to_owned(),
        store: store.clone(),
        path: if prefix.is_empty() { format!("/{folder}") } else { format!("/{prefix}/{folder}") },
        passphrase: names.backup_passphrase(uid),
    }
}

/// The declaration of the migrations.
#[derive(Clone, Debug)]
pub struct Migrations {
    /// Their source.
    pub source: Source,
    /// How they are applied.
    pub policy: Policy,
    /// CPU and memory of each container of their Jobs, as declared.
    pub resources: Option<ResourceRequirements>,
    /// The schemas that they wait for.
    pub depends_on: Vec<SchemaDependency>,
    /// The interval of drift checks; none: never.
    pub drift_check: Option<Duration>,
    /// The requested drift check, from an annotation.
    pub drift_request: Option<String>,
}

impl Migrations {
    /// The identity of the Job of a revision. The pull Secrets are part of it, so that a corrected
    /// one takes effect; the result does not depend on them.
    pub fn run(&self, revision: &str) -> String {
        let run = self.policy.run(revision);
        let secrets = match &self.source {
            Source::ConfigMaps(_) => return run,
            Source::Image(image) => &image.image_pull_secrets,
            Source::Tool(tool) => &tool.image_pull_secrets,
        };
        let names: Vec<&str> = secrets.iter().map(|secret| secret.name.as_str()).collect();
        if names.is_empty() { run } else { hash(&[&run, &names.join(",")]) }
    }
}

/// The source of migrations.
#[derive(Clone, Debug)]
pub enum Source {
    /// ConfigMaps that together contain the files.
    ConfigMaps(Vec<String>),
    /// A folder of files in an image, which only the Job can read.
    Image(ImageSource),
    /// The team's own tool.
    Tool(ToolSource),
}

impl Source {
    /// The revision of migrations that the operator does not read: the reference identifies an
    /// image.
    pub fn unread_revision(&self) -> Option<String> {
        match self {
            Self::ConfigMaps(_) => None,
            Self::Image(image) => Some(hash(&["image", &image.reference, &image.path])),
            Self::Tool(tool) => {
                let (command, args) = (format!("{:?}", tool.command), format!("{:?}", tool.args));
                let query = tool.version_query.as_deref().unwrap_or_default();
                Some(hash(&["job", &tool.image, &command, &args, query]))
            }
        }
    }
}

/// The memory of an instance in bytes.
fn memory(resources: Option<&ResourceRequirements>) -> Memory {
    let bytes = |list: Option<&BTreeMap<String, Quantity>>| u64::try_from(quantity::bytes(list?.get("memory")?)?).ok();
    Memory {
        limit_bytes: bytes(resources.and_then(|resources| resources.limits.as_ref())),
        request_bytes: bytes(resources.and_then(|resources| resources.requests.as_ref())),
    }
}

fn source(spec: &MigrationSource) -> Result<Source, Invalid> {
    let config_maps: Vec<_> = spec.references().map(|reference| reference.name.clone()).collect();
    match (config_maps.is_empty(), &spec.image, &spec.job) {
        (false, None, None) => Ok(Source::ConfigMaps(config_maps)),
        (true, Some(image), None) => Ok(Source::Image(image.clone())),
        (true, None, Some(tool)) => Ok(Source::Tool(tool.clone())),
        _ => Err(invalid("spec.migrations.source must name exactly one source".to_owned())),
    }
}

fn migrations(spec: &MigrationsSpec, resource: &ServiceDatabase) -> Result<Migrations, Invalid> {
    let manual_approval = spec.approval == Approval::Manual;
    let approved = resource.annotations().get(ANNOTATION_APPROVE);
    // It is passed to the Job, so it must be an id.
    let is_id = |value: &&String| value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    let approved = approved.filter(|_| manual_approval).filter(is_id);
    let seconds = |field: &str, seconds: i64| {
        u32::try_from(seconds).map_err(|_| invalid(format!("spec.migrations.{field} is out of its bounds: {seconds}")))
    };
    if spec.baseline == Baseline::FromTool && spec.source.format == MigrationFormat::Auto {
        return Err(invalid(
            "spec.migrations.baseline FromTool needs spec.migrations.source.format: files of several tools have the same \
             names, and their tables differ"
                .to_owned(),
        ));
    }
    let policy = Policy {
        target_version: spec.target_version.clone(),
        allow_rollback: spec.rollback == Permission::Allow,
        allow_out_of_order: spec.out_of_order == Permission::Allow,
        baseline_version: spec.baseline_version.clone(),
        baseline_from_tool: spec.baseline == Baseline::FromTool,
        format: spec.source.format,
        dry_run: spec.dry_run,
        manual_approval,
        approved: approved.cloned(),
        lock_timeout_seconds: seconds("lockTimeoutSeconds", spec.lock_timeout_seconds)?,
        statement_timeout_seconds: seconds("statementTimeoutSeconds", spec.statement_timeout_seconds)?,
    };
    let drift_check = u64::try_from(spec.drift_check_seconds).ok().filter(|seconds| *seconds > 0);
    let drift_check = drift_check.map(|seconds| Duration::from_secs(seconds.max(300)));
    let drift_request = token(resource, ANNOTATION_CHECK_DRIFT);
    Ok(Migrations {
        source: source(&spec.source)?,
        drift_check,
        drift_request,
        policy,
        resources: spec.resources.clone(),
        depends_on: spec.depends_on.clone(),
    })
}

/// A period that is too short would lock out a service that has not read the new login.
fn rotation_period(seconds: Option<i64>) -> Result<Option<Duration>, Invalid> {
    let Some(seconds) = seconds else { return Ok(None) };
    match u64::try_from(seconds) {
        Ok(seconds @ 3600..=31_536_000) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(invalid("spec.credentials.rotationPeriodSeconds must be from 3600 to 31536000".to_owned())),
    }
}

fn requests(resource: &ServiceDatabase) -> Requests {
    Requests { rotate: token(resource, ANNOTATION_ROTATE), reissue: token(resource, ANNOTATION_REISSUE) }
}

/// The request in an annotation.
fn token(resource: &ServiceDatabase, annotation: &str) -> Option<String> {
    resource.annotations().get(annotation).filter(|token| !token.is_empty()).cloned()
}

fn new_authority(resource: &ServiceDatabase) -> Option<AuthorityRequest> {
    let token = token(resource, ANNOTATION_RENEW_AUTHORITY)?;
    let seconds = resource.annotations().get(ANNOTATION_AUTHORITY_OVERLAP).and_then(|text| text.parse::<i64>().ok());
    Some(AuthorityRequest::new(token, seconds.map(SignedDuration::from_secs)))
}

fn promoted(resource: &ServiceDatabase) -> i64 {
    let credentials = resource.status.as_ref().and_then(|status| status.credentials.as_ref());
    credentials.map_or(0, |credentials| credentials.generation)
}

fn answered(resource: &ServiceDatabase) -> Option<Requests> {
    let credentials =
        resource.status.as_ref()?.credentials.as_ref().filter(|credentials| credentials.generation > 0)?;
    let (rotate, reissue) = (credentials.rotate_request.clone(), credentials.reissue_request.clone());
    Some(Requests { rotate, reissue })
}

fn invalid(message: String) -> Invalid {
    Invalid { reason: reason::INVALID_SPEC, message }
}

/// For how long the data from before an upgrade is kept: less than a day would remove it at once.
fn former_data(spec: &ServiceDatabaseSpec) -> Result<Option<SignedDuration>, Invalid> {
    let days = |days: i32| (1..=3650).contains(&days).then(|| SignedDuration::from_hours(24 * i64::from(days)));
    spec.postgres
        .former_data_days
        .map(|declared| {
            days(declared).ok_or_else(|| {
                invalid(format!("spec.postgres.formerDataDays is {declared}: it must be from 1 to 3650"))
            })
        })
        .transpose()
}

fn check_name(name: &str) -> Result<(), Invalid> {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = name.len() <= 40
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(label)
        && !name.starts_with("pg-");
    if good {
        Ok(())
    } else {
        Err(invalid(format!(
            "metadata.name {name:?} is not a service's name: at most 40 of a-z, 0-9 and '-', a letter first, not pg-…"
        )))
    }
}

fn check_database(database: &str) -> Result<(), Invalid> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let good = (1..=50).contains(&database.len())
        && !database.starts_with(|c: char| c.is_ascii_digit())
        && database.chars().all(allowed)
        && !database.starts_with("pg_")
        && !["postgres", "template0", "template1"].contains(&database);
    if good {
        Ok(())
    } else {
        Err(invalid(format!(
            "spec.database {database:?} is not a valid name: at most 50 of a-z, 0-9 and '_', not a digit first, not \
             one that PostgreSQL reserves"
        )))
    }
}
