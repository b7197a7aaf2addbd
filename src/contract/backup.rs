//! Where backups and archived WAL go: a store that the platform names, and the place of one
//! database in it. Keys and passphrases are in Vault; only their paths are in here.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A key that names a store: lower-case letters, digits and `-`.
const LONGEST_NAME: usize = 40;

/// The fields of a store, and of its parts.
const KNOWN: [(&str, &[&str]); 5] = [
    ("", &["s3", "gcs", "azure", "keys"]),
    ("s3", &["endpoint", "region", "bucket", "prefix", "uriStyle", "ca", "identity"]),
    ("gcs", &["endpoint", "bucket", "prefix", "ca"]),
    ("azure", &["endpoint", "account", "container", "prefix", "uriStyle", "ca", "keyType"]),
    ("keys", &["vaultPath", "accessKeyIdField", "secretAccessKeyField", "keyField"]),
];
/// Where Google Cloud Storage and Azure Blob Storage are, unless a store says so.
const GCS: &str = "https://storage.googleapis.com";
const AZURE: &str = "https://blob.core.windows.net";

/// The stores of an installation, by name.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(transparent)]
pub struct Stores(pub BTreeMap<String, Store>);

/// A store for backups.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// Where it is.
    #[serde(flatten)]
    pub service: Service,
    /// The record in Vault with its keys. Absent: the identity of the node or pod gives access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
}

/// A service that stores objects.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Service {
    /// Amazon S3, or a service that is compatible with it.
    S3(S3),
    /// Google Cloud Storage.
    Gcs(Gcs),
    /// Azure Blob Storage.
    Azure(Azure),
}

/// An S3 bucket.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// The address, such as `https://s3.eu-central-1.amazonaws.com`.
    pub endpoint: String,
    /// The region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The folder in the bucket; empty for its root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Whether the bucket is part of the host name or of the path.
    #[serde(default)]
    pub uri_style: UriStyle,
    /// The authority that signed the certificate of the endpoint, PEM; empty: one of the system's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca: String,
    /// Whose identity gives access, for a store without keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// A bucket of Google Cloud Storage.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Gcs {
    /// The address.
    #[serde(default = "gcs_endpoint")]
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The folder in the bucket; empty for its root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// As [`S3::ca`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca: String,
}

/// A container of Azure Blob Storage.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Azure {
    /// The address, without the account.
    #[serde(default = "azure_endpoint")]
    pub endpoint: String,
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// The folder in the container; empty for its root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Whether the account is part of the host name or of the path.
    #[serde(default)]
    pub uri_style: UriStyle,
    /// As [`S3::ca`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca: String,
    /// The kind of its key.
    #[serde(default)]
    pub key_type: AzureKey,
}

/// The identity of a workload in Amazon's cloud.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Identity {
    /// The role of the node, from its metadata service.
    Node,
    /// The role that is associated with the pod's ServiceAccount (EKS Pod Identity).
    Pod,
}

/// The kind of a key of Azure.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AzureKey {
    /// A key of the storage account.
    #[default]
    Shared,
    /// A shared access signature.
    Sas,
}

/// How requests name the bucket or account.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UriStyle {
    /// As part of the host name.
    #[default]
    Host,
    /// As the first part of the path.
    Path,
}

/// A record of the KV mount that holds the keys of a store.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// Its path in the mount.
    pub vault_path: String,
    /// The field with the access key's id.
    #[serde(default = "access_key_id")]
    pub access_key_id_field: String,
    /// The field with the secret access key.
    #[serde(default = "secret_access_key")]
    pub secret_access_key_field: String,
    /// The field with the key of a store that has one alone: for Google's cloud the JSON document of a service
    /// account's key, for Azure a key of the account or a shared access signature.
    #[serde(default = "key")]
    pub key_field: String,
}

fn gcs_endpoint() -> String {
    GCS.to_owned()
}

fn azure_endpoint() -> String {
    AZURE.to_owned()
}

fn access_key_id() -> String {
    "access-key-id".to_owned()
}

fn secret_access_key() -> String {
    "secret-access-key".to_owned()
}

fn key() -> String {
    "key".to_owned()
}

/// The place of a database in a store.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The store's name.
    pub name: String,
    /// The store.
    pub store: Store,
    /// The folder of the database in the bucket, absolute. It contains the resource's uid, so that a
    /// re-created database never writes into the archive of an earlier one.
    pub path: String,
    /// The record in Vault's KV mount with the passphrase, in the field [`PASSPHRASE`].
    pub passphrase: String,
}

/// Which of the stores of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nth {
    /// The one of `spec.backup.store`.
    First,
    /// The one of `spec.backup.secondStore`.
    Second,
}

impl Nth {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::First, Self::Second];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// A restore of another database's backup into a new one.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// The place of the other database.
    pub place: Place,
    /// The service that it belonged to, which its logins are named after.
    pub service: String,
    /// The state to restore.
    pub target: Target,
    /// The timeline of the target; absent: the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// The system identifier of the database that had the state, where major upgrades began others; absent: the archive
    /// alone tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Identifies the declaration that this follows from.
    #[serde(default)]
    pub declared: String,
}

/// A state to restore.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// The newest that the store has.
    Latest,
    /// Everything that was committed before this time.
    Time(Timestamp),
    /// Everything up to this position in WAL.
    Lsn(String),
    /// The state that was named so.
    Name(String),
    /// The newest backup alone.
    Immediate,
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => formatter.write_str("the newest state"),
            Self::Time(time) => write!(formatter, "the state of {time}"),
            Self::Lsn(lsn) => write!(formatter, "the state at the WAL position {lsn}"),
            Self::Name(name) => write!(formatter, "the state that was named {name}"),
            Self::Immediate => formatter.write_str("the newest backup"),
        }
    }
}

/// Folders in stores that the platform allows namespaces to restore from, beside the folders of their own databases.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(transparent)]
pub struct ForeignFolders(pub Vec<ForeignFolder>);

/// A folder of another cluster or namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForeignFolder {
    /// The store's name.
    pub store: String,
    /// The folder, `<prefix>/<cluster id>/<namespace>/<name>/<uid>`.
    pub path: String,
    /// The record of the KV mount with its passphrase.
    pub passphrase_vault_path: String,
    /// The namespaces that may restore it.
    pub namespaces: Vec<String>,
}

impl ForeignFolders {
    /// Reads the list as the chart writes it.
    ///
    /// # Errors
    /// The entry, the field, and the way out.
    pub fn parse(text: &str) -> Result<Self, String> {
        let folders: Self = serde_json::from_str(text).map_err(|error| format!("backup.restoreFrom: {error}"))?;
        for (index, folder) in folders.0.iter().enumerate() {
            let parts = folder.path.trim_matches('/').split('/').collect::<Vec<_>>();
            if parts.len() < 4 || parts.iter().any(|part| part.is_empty()) || !is_plain(&folder.path) {
                return Err(format!(
                    "backup.restoreFrom[{index}].path is {:?}: it has the form \
                     <prefix>/<cluster id>/<namespace>/<name>/<uid>",
                    folder.path
                ));
            }
            if folder.passphrase_vault_path.is_empty() || !is_plain(&folder.passphrase_vault_path) {
                return Err(format!("backup.restoreFrom[{index}].passphraseVaultPath is no path of a record"));
            }
            if folder.namespaces.is_empty() {
                return Err(format!("backup.restoreFrom[{index}].namespaces is empty: name who may restore it"));
            }
        }
        Ok(folders)
    }
}

/// Whether a text can be part of a line of pgBackRest's configuration, and of a path in a policy.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_graphic() && !"\"*+{}".contains(c)) && !text.split('/').any(|part| part == "..")
}

/// The field of the record with the passphrase.
pub const PASSPHRASE: &str = "passphrase";

impl Stores {
    /// Reads the stores as the chart writes them.
    ///
    /// # Errors
    /// The name of the store, the field, and the way out.
    pub fn parse(text: &str) -> Result<Self, String> {
        let given: Value = serde_json::from_str(text).map_err(|error| format!("backup.stores: {error}"))?;
        for (name, store) in given.as_object().into_iter().flatten() {
            let kinds =
                ["s3", "gcs", "azure"].into_iter().filter(|kind| store.get(kind).is_some_and(|part| !part.is_null()));
            if kinds.count() != 1 {
                return Err(format!("backup.stores.{name}: set exactly one of s3, gcs and azure"));
            }
            // Not by the types, which agents read, too: an older agent must ignore a newer field.
            for (part, known) in KNOWN {
                let fields = if part.is_empty() { Some(store) } else { store.get(part) };
                let mut fields = fields.and_then(Value::as_object).into_iter().flat_map(serde_json::Map::keys);
                if let Some(unknown) = fields.find(|field| !known.contains(&field.as_str())) {
                    return Err(format!(
                        "backup.stores.{name}: unknown field {unknown:?}; known are {}",
                        known.join(", ")
                    ));
                }
            }
        }
        let stores: Self = serde_json::from_value(given).map_err(|error| format!("backup.stores: {error}"))?;
        for (name, store) in &stores.0 {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(allowed) {
                return Err(format!("backup.stores.{name}: a name has 1 to 40 lower-case letters, digits and '-'"));
            }
            store.check().map_err(|problem| format!("backup.stores.{name}.{problem}"))?;
        }
        Ok(stores)
    }
}

impl Store {
    fn check(&self) -> Result<(), String> {
        let named = self.service.named();
        let kind = self.service.kind();
        host(self.service.endpoint()).ok_or_else(|| {
            format!("{kind}.endpoint: an https:// address is needed, such as https://s3.example.com:9000")
        })?;
        if let Some((field, _)) = named.iter().find(|(_, value)| value.is_empty()) {
            return Err(format!("{kind}.{field} is missing"));
        }
        let identity = match &self.service {
            Service::S3(s3) => Some(s3.identity),
            _ => None,
        };
        match (&self.keys, identity) {
            (Some(keys), _) if keys.vault_path.is_empty() => return Err("keys.vaultPath is missing".to_owned()),
            (Some(_), Some(Some(_))) => {
                return Err("s3.identity has no effect with keys: leave out one of them".to_owned());
            }
            (None, Some(None)) => {
                return Err("keys is missing; or set s3.identity to node or pod, whose role gives access".to_owned());
            }
            _ => {}
        }
        let keys = self.keys.as_ref().map_or("", |keys| &keys.vault_path);
        let parts = named.iter().map(|(_, value)| *value).chain([self.service.endpoint(), self.service.prefix(), keys]);
        match parts.into_iter().find(|part| !is_plain(part)) {
            Some(part) => Err(format!("{part:?} has a character that is not allowed here, or the part '..'")),
            None => Ok(()),
        }
    }
}

impl Service {
    /// Its field.
    fn kind(&self) -> &'static str {
        match self {
            Self::S3(_) => "s3",
            Self::Gcs(_) => "gcs",
            Self::Azure(_) => "azure",
        }
    }

    /// The fields that may not be empty.
    fn named(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::S3(s3) => vec![("region", &s3.region), ("bucket", &s3.bucket)],
            Self::Gcs(gcs) => vec![("bucket", &gcs.bucket)],
            Self::Azure(azure) => vec![("account", &azure.account), ("container", &azure.container)],
        }
    }

    /// The address.
    pub fn endpoint(&self) -> &str {
        match self {
            Self::S3(s3) => &s3.endpoint,
            Self::Gcs(gcs) => &gcs.endpoint,
            Self::Azure(azure) => &azure.endpoint,
        }
    }

    /// The folder; empty for the root.
    pub fn prefix(&self) -> &str {
        match self {
            Self::S3(s3) => &s3.prefix,
            Self::Gcs(gcs) => &gcs.prefix,
            Self::Azure(azure) => &azure.prefix,
        }
    }

    /// The authority that signed the certificate of the endpoint, PEM; empty: one of the system's.
    pub fn ca(&self) -> &str {
        match self {
            Self::S3(s3) => &s3.ca,
            Self::Gcs(gcs) => &gcs.ca,
            Self::Azure(azure) => &azure.ca,
        }
    }
}

/// Host and port of an address.
pub fn host(endpoint: &str) -> Option<(String, u16)> {
    let uri: http::Uri = endpoint.parse().ok()?;
    if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return None;
    }
    Some((uri.host()?.to_owned(), uri.port_u16().unwrap_or(443)))
}

#[cfg(test)]
impl Place {
    /// A place in a store `main`, for tests to change.
    pub fn sample() -> Self {
        let stores = r#"{"main": {
            "s3": {"endpoint": "https://s3.store.svc:7070", "region": "local", "bucket": "backups", "uriStyle": "path", "ca": "PEM"},
            "keys": {"vaultPath": "backups/main"}
        }}"#;
        let stores = Stores::parse(stores).expect("stores");
        Self {
            name: "main".into(),
            store: stores.0["main"].clone(),
            path: "/dev/messaging/chat/u".into(),
            passphrase: "dev/messaging/chat/backup/u".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut store = serde_json::to_value(Place::sample().store).expect("a store");
        change(&mut store);
        Stores::parse(&serde_json::json!({"main": store}).to_string()).expect_err("a refusal")
    }

    #[test]
    fn a_store_that_cannot_work_is_refused_by_name_and_field() {
        for endpoint in ["http://s3", "s3.example.com", "https://s3/folder", "https://"] {
            let said = refused(|store| store["s3"]["endpoint"] = endpoint.into());
            assert!(said.contains("backup.stores.main.s3.endpoint"), "{endpoint}: {said}");
        }
        assert!(refused(|store| store["s3"]["bucket"] = "".into()).contains("s3.bucket is missing"));
        assert!(refused(|store| store["s3"]["prefix"] = "a/../b".into()).contains("'..'"));
        assert!(refused(|store| store["s3"]["region"] = "a\nrepo1-s3-key=x".into()).contains("not allowed"));
        assert!(refused(|store| store["keys"]["vaultPath"] = "backups/*".into()).contains("not allowed"));
        assert!(refused(|store| store["other"] = "x".into()).contains("unknown field"));
        assert!(refused(|store| store["s3"]["other"] = "x".into()).contains("unknown field"));
        assert!(refused(|store| store["gcs"] = serde_json::json!({"bucket": "b"})).contains("exactly one"));
        assert!(
            refused(|store| drop(store.as_object_mut().and_then(|store| store.remove("keys")))).contains("s3.identity")
        );
        assert!(refused(|store| store["s3"]["identity"] = "node".into()).contains("no effect"));
        assert!(refused(|store| store["s3"]["identity"] = "other".into()).contains("other"));
        assert!(Stores::parse(r#"{"Main": {}}"#).is_err());
        assert_eq!(Stores::parse("{}"), Ok(Stores::default()));
    }

    #[test]
    fn a_folder_to_restore_from_is_whole_and_names_who_may() {
        let entry = |path: &str, passphrase: &str, namespaces: &[&str]| {
            ForeignFolders::parse(
                &serde_json::json!([{
                    "store": "main", "path": path, "passphraseVaultPath": passphrase, "namespaces": namespaces,
                }])
                .to_string(),
            )
        };
        assert!(entry("/prod/messaging/chat/0c1d", "prod/messaging/chat/backup/0c1d", &["messaging"]).is_ok());
        for (path, passphrase, namespaces, field) in [
            ("/prod/messaging/chat", "p", &["messaging"][..], "path"),
            ("/prod/../chat/0c1d", "p", &["messaging"], "path"),
            ("/prod/messaging/chat/*", "p", &["messaging"], "path"),
            ("/prod/messaging/chat/0c1d", "", &["messaging"], "passphraseVaultPath"),
            ("/prod/messaging/chat/0c1d", "+/x", &["messaging"], "passphraseVaultPath"),
            ("/prod/messaging/chat/0c1d", "p", &[], "namespaces"),
        ] {
            let said = entry(path, passphrase, namespaces).expect_err(path);
            assert!(said.contains("backup.restoreFrom[0]") && said.contains(field), "{said}");
        }
        assert!(ForeignFolders::parse(r#"[{"store": "main", "paths": "x"}]"#).is_err());
    }

    #[test]
    fn an_agent_ignores_what_a_newer_operator_adds() {
        let mut place = serde_json::to_value(Place::sample()).expect("a place");
        for part in ["", "/store", "/store/s3", "/store/keys"] {
            place.pointer_mut(part).expect("a part")["newer"] = "x".into();
        }
        assert_eq!(serde_json::from_value::<Place>(place).expect("a place"), Place::sample());
    }

    #[test]
    fn the_port_is_the_endpoints_or_that_of_https() {
        assert_eq!(host("https://s3.store.svc:7070"), Some(("s3.store.svc".to_owned(), 7070)));
        let amazon = "s3.eu-central-1.amazonaws.com";
        assert_eq!(host(&format!("https://{amazon}")), Some((amazon.to_owned(), 443)));
    }

    #[test]
    fn each_service_is_named_by_what_it_needs() {
        let parse = |store: serde_json::Value| Stores::parse(&serde_json::json!({"other": store}).to_string());
        let with_keys = |part: &str, fields: serde_json::Value| {
            parse(serde_json::json!({part: fields, "keys": {"vaultPath": "backups/other"}}))
        };
        let stores = with_keys("gcs", serde_json::json!({"bucket": "b"})).expect("a store");
        assert_eq!(stores.0["other"].service.endpoint(), GCS);
        assert!(parse(serde_json::json!({"gcs": {"bucket": "b"}})).is_ok(), "by the identity of the pod");
        let said = with_keys("gcs", serde_json::json!({"bucket": ""})).expect_err("a refusal");
        assert!(said.contains("backup.stores.other.gcs.bucket is missing"), "{said}");
        let azure = serde_json::json!({"account": "a", "container": "c", "keyType": "sas", "uriStyle": "path"});
        let stores = with_keys("azure", azure).expect("a store");
        assert_eq!(stores.0["other"].service.endpoint(), AZURE);
        assert!(with_keys("azure", serde_json::json!({"account": "a"})).is_err());
        let written = serde_json::to_value(&stores).expect("a document");
        assert_eq!(Stores::parse(&written.to_string()), Ok(stores));
        let role = serde_json::json!({"endpoint": "https://s3", "region": "r", "bucket": "b", "identity": "pod"});
        assert!(parse(serde_json::json!({"s3": role})).is_ok());
    }
}
