//! Operator to agent: the ConfigMap `<name>-db-desired`, key [`KEY`], which the agents watch
//! by its name. It contains no secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::backup::{Nth, Place, Restore};
use super::clients::{Client, Engine, Rules};
use super::extension::{self, Extension, OptionsByName};
use super::in_place::{self, Branch, InPlace};
use super::maintenance::Maintenance;
use super::memory::Bound;
use super::order::Order;
use super::pod::{ARCHIVE_COMMAND, ARCHIVE_COMMAND_OF_TWO};
use super::records::Versions;
use super::server_version::FIRST;
use super::upgrade::{self, Lineage, Upgrade};
use crate::api::{QueriesReference, WhenVolumeFills};

/// The key of the ConfigMap.
pub const KEY: &str = "desired.json";
/// The version of the document.
pub const VERSION: u32 = 1;

/// The desired state of the instances of one ServiceDatabase.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The ServiceDatabase's uid.
    pub uid: String,
    /// The database's name.
    pub database: String,
    /// The major version of the data; of a database that does not exist yet, that of its first initialisation. Absent
    /// from an operator that knew one version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_major: Option<u16>,
    /// The declared number of instances. An instance with a higher ordinal is about to be removed: it
    /// is neither a synchronous standby nor a candidate for the lead.
    pub instances: i32,
    /// Settings of the spec, for Patroni's dynamic configuration.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The size of the smallest volume, which limits WAL. Without it there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_bytes: Option<u64>,
    /// The memory of an instance according to the spec.
    #[serde(default, skip_serializing_if = "Memory::is_empty")]
    pub memory: Memory,
    /// Extensions to create in the database.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// The options of those that declare any.
    #[serde(default, skip_serializing_if = "OptionsByName::is_empty")]
    pub extension_options: OptionsByName,
    /// Whether the application creates its own schema, since no migrations are declared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub application_creates: bool,
    /// Whether writes wait for a replica while one streams, and only a member that Patroni has
    /// recorded as the leader or as a synchronous standby may be promoted. It does not depend on the
    /// number of instances (docs/decisions/0026-the-record-of-synchronous-members.md).
    pub synchronous: bool,
    /// The maximum lag, in bytes, of a replica that may be promoted.
    pub maximum_lag_bytes: i64,
    /// The desired credential generation of Vault's runtime record. The agent of the leader
    /// promotes `pending` when the runtime record is behind.
    pub credential_generation: i64,
    /// The versions of the records in Vault that the operator last found to differ from the ones that
    /// the leader's agent proved, or to expire soon: the agent proves them again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prove: Option<Versions>,
    /// The request for new credentials that the generation answers, if any: stored here so that
    /// generation and answer are written at once.
    #[serde(default, skip_serializing_if = "Requests::is_empty")]
    pub requests: Requests,
    /// An order that an agent executes once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// The host name that clients use for the primary, for `<PREFIX>_DB_HOST`.
    pub primary_host: String,
    /// PostgreSQL's system identifier, once the database was initialised: no other database is
    /// initialised then, even if Patroni's ConfigMap with the same value is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The certificate authorities of the database, PEM, for the records in Vault: a new one is
    /// here before the pods' own files have it. Absent if the operator has not read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// The pooler; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooler: Option<Pooler>,
    /// The data gateway; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
    /// The collections that it caches; absent where it caches none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<CachedCollections>,
    /// The clients that have a login of their own. The leader's agent refuses the logins of all
    /// others, and removes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<Client>,
    /// What holds for all of them.
    #[serde(default, skip_serializing_if = "Rules::is_default")]
    pub client_rules: Rules,
    /// The engine that makes short-lived logins; absent if no client has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Where WAL is archived; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Place>,
    /// Where it is archived as well, in a second store; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_archive: Option<Place>,
    /// What happens when WAL that cannot be archived fills the volume.
    #[serde(default)]
    pub when_volume_fills: WhenVolumeFills,
    /// What the first instance restores instead of an empty database; absent once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
    /// The last backup Job; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupRun>,
    /// The restore in place that is in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<InPlace>,
    /// Since the last restore in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Branch>,
    /// The maintenance; absent from an operator that knows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// Where a team's own queries for metrics are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<QueriesReference>,
    /// The major upgrade that is in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Box<Upgrade>>,
    /// Since the last major upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Box<Lineage>>,
}

/// The pooler, as agents need to know it: its role may log in, and the record has its host.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pooler {
    /// The host name that clients use for it.
    pub host: String,
}

/// The data gateway, as agents need to know it: its role may log in, and become the roles of its callers. Those of
/// clients with a login of their own are known from [`Desired::clients`].
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Whether a client that shares the application's login calls it.
    pub shared: bool,
}

/// The collections that the data gateway caches. The leader's agent reports those that do not exist.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CachedCollections {
    /// As the spec names them.
    pub collections: Vec<String>,
    /// The exposed schemas, the default one first.
    pub schemas: Vec<String>,
}

/// A backup Job, as agents need to know it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupRun {
    /// The Job's name.
    pub job: String,
    /// Whether it runs: the agents then serve it the data directory.
    pub runs: bool,
}

impl Desired {
    /// The major version of the data.
    pub fn major(&self) -> u16 {
        self.postgres_major.unwrap_or(FIRST)
    }

    /// The place of WAL in one of the stores.
    pub fn archive_in(&self, nth: Nth) -> Option<&Place> {
        match nth {
            Nth::First => self.archive.as_ref(),
            Nth::Second => self.second_archive.as_ref().filter(|_| self.archive.is_some()),
        }
    }

    /// Which of the stores has this name.
    pub fn nth_of(&self, store: &str) -> Option<Nth> {
        Nth::ALL.into_iter().find(|nth| self.archive_in(*nth).is_some_and(|place| place.name == store))
    }

    /// PostgreSQL's `archive_command`.
    pub fn archive_command(&self) -> &'static str {
        match (self.archive_in(Nth::First), self.archive_in(Nth::Second)) {
            (None, _) => "/bin/true",
            (Some(_), None) => ARCHIVE_COMMAND,
            (Some(_), Some(_)) => ARCHIVE_COMMAND_OF_TWO,
        }
    }

    /// The extensions to create, with their options.
    pub fn declared_extensions(&self) -> Vec<Extension> {
        extension::declared(&self.extensions, &self.extension_options)
    }

    /// Whether an extension is declared.
    pub fn declares(&self, extension: &str) -> bool {
        self.extensions.iter().any(|name| name == extension)
    }

    /// Whether a restore in place or a major upgrade has begun to stop instances. It is finished then, whatever
    /// `spec.paused` is: the database would be unavailable for as long.
    pub fn stops_instances(&self) -> bool {
        self.in_place.as_ref().is_some_and(|in_place| in_place.stage != in_place::Stage::Prepare)
            || self.upgrade.as_ref().is_some_and(|upgrade| upgrade.stage != upgrade::Stage::Rehearse)
    }
}

#[cfg(test)]
impl Desired {
    /// The state of a database `chat_db` of three instances, for tests to change.
    pub fn sample() -> Self {
        Self {
            version: VERSION,
            uid: "u".into(),
            database: "chat_db".into(),
            postgres_major: None,
            instances: 3,
            parameters: BTreeMap::new(),
            volume_bytes: None,
            memory: Memory::default(),
            extensions: Vec::new(),
            extension_options: OptionsByName::new(),
            application_creates: false,
            synchronous: true,
            maximum_lag_bytes: 7,
            credential_generation: 1,
            prove: None,
            requests: Requests::default(),
            order: None,
            primary_host: "h".into(),
            system_identifier: None,
            authorities: None,
            pooler: None,
            gateway: None,
            cached: None,
            clients: Vec::new(),
            client_rules: Rules::default(),
            engine: None,
            archive: None,
            second_archive: None,
            when_volume_fills: WhenVolumeFills::default(),
            backup: None,
            restore: None,
            in_place: None,
            branch: None,
            maintenance: None,
            queries: None,
            upgrade: None,
            lineage: None,
        }
    }
}

/// The memory of an instance, in bytes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// The limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
}

impl Memory {
    /// Whether the spec sets neither.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The bound for the settings: the limit, otherwise the request.
    pub fn bound(self) -> Option<Bound> {
        self.limit_bytes.map(Bound::Limit).or(self.request_bytes.map(Bound::Request))
    }
}

/// Tokens of the last handled requests for new credentials.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Of `servicedb.dev/rotate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<String>,
    /// Of `servicedb.dev/reissue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reissue: Option<String>,
}

impl Requests {
    /// Whether no request was handled.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_found_by_its_name() {
        let second = Place { name: "other".into(), ..Place::sample() };
        let one = Desired { archive: Some(Place::sample()), ..Desired::sample() };
        assert_eq!((one.nth_of("main"), one.nth_of("other")), (Some(Nth::First), None));
        let two = Desired { second_archive: Some(second), ..one };
        assert_eq!((two.nth_of("main"), two.nth_of("other")), (Some(Nth::First), Some(Nth::Second)));
    }

    #[test]
    fn instances_stop_from_the_second_stage_of_a_restore_or_an_upgrade_on() {
        let upgrade = |stage| {
            let since = "2026-11-29T12:00:00Z".parse().expect("a time");
            let upgrade = Upgrade {
                id: "i".into(),
                pod: "chat-db-0".into(),
                from: 17,
                to: 18,
                stage,
                since,
                limit_seconds: 60,
                rehearsal: None,
                warnings: Vec::new(),
                rehearsed: None,
            };
            Desired { upgrade: Some(Box::new(upgrade)), ..Desired::sample() }
        };
        let in_place = |stage: &str| {
            let in_place = serde_json::json!({
                "id": "i", "pod": "chat-db-0", "target": {"time": "2026-11-29T11:00:00Z"}, "stage": stage,
                "since": "2026-11-29T12:00:00Z", "store": "main",
            });
            Desired { in_place: Some(serde_json::from_value(in_place).expect("a stage")), ..Desired::sample() }
        };
        use upgrade::Stage;
        let stops = [
            Desired::sample(),
            upgrade(Stage::Rehearse),
            upgrade(Stage::Hold),
            upgrade(Stage::Switch),
            in_place("prepare"),
            in_place("hold"),
            in_place("switch"),
        ]
        .map(|desired| desired.stops_instances());
        assert_eq!(stops, [false, false, true, true, false, true, true]);
    }
}
