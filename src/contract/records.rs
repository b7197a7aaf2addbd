//! The records in Vault's KV v2, and a pod's access to Vault.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// A pod's access to Vault: the file `vault.json` beside its role_id.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VaultAccess {
    /// Such as `https://vault.vault.svc:8200`.
    pub address: String,
    /// Vault's namespace, if it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The mount of the AppRole auth method, such as `approle`.
    pub approle_mount: String,
    /// The mount of KV v2, such as `secret`.
    pub kv_mount: String,
    /// The folder of this ServiceDatabase in it: `<cluster>/<namespace>/<name>`.
    pub folder: String,
    /// How long one request may take, in seconds.
    pub timeout_seconds: u64,
}

/// One login: a role, its password, and the verifier that PostgreSQL stores.
#[derive(Clone)]
pub struct Login {
    /// The role.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// `SCRAM-SHA-256$…`: computed once, so that setting it again changes nothing.
    pub verifier: SecretString,
}

/// The record `pending`: credentials that are not proved yet. The operator writes it with
/// check-and-set 0; the leader's agent proves and promotes it.
pub struct Pending {
    /// The generation, from 1.
    pub generation: i64,
    /// The application's login.
    pub app: Login,
    /// The migrator's login.
    pub migrator: Login,
}

/// The record `clients/<client>/pending`: a client's login that is not proved yet.
pub struct ClientPending {
    /// The generation, from 1.
    pub generation: i64,
    /// The login.
    pub login: Login,
}

/// The record `migrator`, for the migration Job.
pub struct MigratorRecord {
    /// The generation.
    pub generation: i64,
    /// The migrator's role.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// The certificate authority of the database, PEM.
    pub ca: String,
}

/// The versions of the records `runtime` and `migrator`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// Of the record `runtime`.
    pub runtime: u64,
    /// Of the record `migrator`; 0 without one.
    pub migrator: u64,
}

/// How long before Vault deletes a version (`delete_version_after`) the agent writes it again.
pub const WRITE_AGAIN_BEFORE: SignedDuration = SignedDuration::from_hours(24);

/// Whether a version that Vault deletes at this time is to be written again.
pub fn expires_soon(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|at| at.duration_since(now) < WRITE_AGAIN_BEFORE)
}

/// A record of KV v2 on the wire: flat, strings only.
pub type Data = BTreeMap<String, String>;

/// A record with a missing key or an invalid value; the values are never in the message.
#[derive(Debug, thiserror::Error)]
#[error("the Vault record {record} is not readable: key {key} is {problem}")]
pub struct RecordError {
    record: &'static str,
    key: String,
    problem: &'static str,
}

const GENERATION: &str = "SERVICEDB_GENERATION";
const UID: &str = "SERVICEDB_UID";

impl Pending {
    /// The record's content.
    pub fn to_data(&self) -> Data {
        let mut data = Data::from([(GENERATION.to_owned(), self.generation.to_string())]);
        for (prefix, login) in [("APP", &self.app), ("MIGRATOR", &self.migrator)] {
            data.insert(format!("{prefix}_USER"), login.user.clone());
            data.insert(format!("{prefix}_PASSWORD"), login.password.expose_secret().to_owned());
            data.insert(format!("{prefix}_VERIFIER"), login.verifier.expose_secret().to_owned());
        }
        data
    }

    /// Reads a record's content.
    ///
    /// # Errors
    /// If a key is missing or the generation is not a number.
    pub fn from_data(data: &Data) -> Result<Self, RecordError> {
        let reader = Reader { record: "pending", data };
        let login = |prefix: &str| {
            Ok(Login {
                user: reader.get(&format!("{prefix}_USER"))?,
                password: reader.get(&format!("{prefix}_PASSWORD"))?.into(),
                verifier: reader.get(&format!("{prefix}_VERIFIER"))?.into(),
            })
        };
        Ok(Self { generation: reader.generation()?, app: login("APP")?, migrator: login("MIGRATOR")? })
    }
}

impl ClientPending {
    /// The record's content.
    pub fn to_data(&self) -> Data {
        Data::from([
            (GENERATION.to_owned(), self.generation.to_string()),
            ("USER".to_owned(), self.login.user.clone()),
            ("PASSWORD".to_owned(), self.login.password.expose_secret().to_owned()),
            ("VERIFIER".to_owned(), self.login.verifier.expose_secret().to_owned()),
        ])
    }

    /// Reads a record's content.
    ///
    /// # Errors
    /// If a key is missing or the generation is not a number.
    pub fn from_data(data: &Data) -> Result<Self, RecordError> {
        let reader = Reader { record: "clients/<client>/pending", data };
        let login = Login {
            user: reader.get("USER")?,
            password: reader.get("PASSWORD")?.into(),
            verifier: reader.get("VERIFIER")?.into(),
        };
        Ok(Self { generation: reader.generation()?, login })
    }
}

impl MigratorRecord {
    /// The record's content.
    pub fn to_data(&self) -> Data {
        Data::from([
            (GENERATION.to_owned(), self.generation.to_string()),
            ("USER".to_owned(), self.user.clone()),
            ("PASSWORD".to_owned(), self.password.expose_secret().to_owned()),
            ("CA".to_owned(), self.ca.clone()),
        ])
    }

    /// Reads a record's content.
    ///
    /// # Errors
    /// If a key is missing or the generation is not a number.
    pub fn from_data(data: &Data) -> Result<Self, RecordError> {
        let reader = Reader { record: "migrator", data };
        Ok(Self {
            generation: reader.generation()?,
            user: reader.get("USER")?,
            password: reader.get("PASSWORD")?.into(),
            ca: reader.get("CA")?,
        })
    }
}

/// The content of the record `runtime`, which applications read.
pub struct Runtime<'a> {
    /// The prefix of the keys, such as `CHAT`.
    pub key_prefix: &'a str,
    /// The generation.
    pub generation: i64,
    /// The uid of the ServiceDatabase.
    pub uid: &'a str,
    /// The login.
    pub login: &'a Login,
    /// The database.
    pub database: &'a str,
    /// The primary's host name.
    pub host: &'a str,
    /// The pooler's host name, where there is a pooler.
    pub pooler: Option<&'a str>,
    /// The database's certificate authority, PEM.
    pub ca: &'a str,
}

impl Runtime<'_> {
    /// The record's content: `<PREFIX>_DB_USER` and the others.
    pub fn to_data(&self) -> Data {
        let password = self.login.password.expose_secret();
        let key = |suffix: &str| format!("{}_DB_{suffix}", self.key_prefix);
        let (user, host, database, port) = (&self.login.user, self.host, self.database, super::pod::POSTGRES_PORT);
        // Passwords consist of letters and digits only, so the URL needs no escaping.
        let url = |host: &str| format!("postgresql://{user}:{password}@{host}:{port}/{database}?sslmode=verify-full");
        let mut data = Data::from([
            (GENERATION.to_owned(), self.generation.to_string()),
            (UID.to_owned(), self.uid.to_owned()),
            (key("USER"), user.clone()),
            (key("PASSWORD"), password.to_owned()),
            (key("NAME"), database.to_owned()),
            (key("HOST"), host.to_owned()),
            (key("PORT"), port.to_string()),
            (key("URL"), url(host)),
            (key("SSLMODE"), "verify-full".to_owned()),
            (key("CA"), self.ca.to_owned()),
        ]);
        if let Some(pooler) = self.pooler {
            data.insert(key("POOLER_HOST"), pooler.to_owned());
            data.insert(key("POOLER_URL"), url(pooler));
        }
        data
    }

    /// The uid of the ServiceDatabase that a runtime record was promoted for.
    pub fn uid_of(data: &Data) -> Option<&str> {
        data.get(UID).map(String::as_str)
    }

    /// The generation that a runtime record holds.
    ///
    /// # Errors
    /// If it has none.
    pub fn generation_of(data: &Data) -> Result<i64, RecordError> {
        Reader { record: "runtime", data }.generation()
    }

    /// A value of a runtime record: `PASSWORD` of the prefix `CHAT` is `CHAT_DB_PASSWORD`.
    ///
    /// # Errors
    /// If it has none.
    pub fn value_of(data: &Data, key_prefix: &str, suffix: &str) -> Result<SecretString, RecordError> {
        Ok(Reader { record: "runtime", data }.get(&format!("{key_prefix}_DB_{suffix}"))?.into())
    }

    /// The login that a runtime record holds: user, password.
    ///
    /// # Errors
    /// If it has none under this prefix.
    pub fn login_of(data: &Data, key_prefix: &str) -> Result<(String, SecretString), RecordError> {
        let reader = Reader { record: "runtime", data };
        Ok((reader.get(&format!("{key_prefix}_DB_USER"))?, reader.get(&format!("{key_prefix}_DB_PASSWORD"))?.into()))
    }
}

struct Reader<'a> {
    record: &'static str,
    data: &'a Data,
}

impl Reader<'_> {
    fn get(&self, key: &str) -> Result<String, RecordError> {
        self.data.get(key).filter(|value| !value.is_empty()).cloned().ok_or_else(|| self.error(key, "missing or empty"))
    }

    fn generation(&self) -> Result<i64, RecordError> {
        self.get(GENERATION)?.parse().map_err(|_| self.error(GENERATION, "not a number"))
    }

    fn error(&self, key: &str, problem: &'static str) -> RecordError {
        RecordError { record: self.record, key: key.to_owned(), problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str) -> Login {
        Login { user: user.into(), password: "pw".to_owned().into(), verifier: "SCRAM-SHA-256$x".to_owned().into() }
    }

    #[test]
    fn pending_survives_the_wire() {
        let pending = Pending { generation: 7, app: login("chat_a"), migrator: login("chat_migrator_a") };
        let read = Pending::from_data(&pending.to_data()).expect("a record that was just written");
        assert_eq!((read.generation, read.app.user.as_str()), (7, "chat_a"));
        assert_eq!(read.migrator.verifier.expose_secret(), "SCRAM-SHA-256$x");
    }

    #[test]
    fn a_missing_key_is_named_and_no_value_is_shown() {
        let mut data = Pending { generation: 1, app: login("a"), migrator: login("b") }.to_data();
        data.remove("APP_VERIFIER");
        let message = Pending::from_data(&data).err().expect("a key is missing").to_string();
        assert!(message.contains("APP_VERIFIER") && !message.contains("pw"), "{message}");
    }
}
