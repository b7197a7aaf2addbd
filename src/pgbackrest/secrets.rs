//! What opens a store: its keys, and the passphrase of a database. They are read from Vault, and are nowhere
//! but in memory.

use secrecy::{ExposeSecret, SecretString};

use super::command::LONGEST_ERROR;
use crate::contract::backup::{PASSPHRASE, Place, Service};
use crate::contract::records::Data;
use crate::vault::{Vault, VaultError};

/// What opens a store.
pub struct Secrets {
    pub(super) keys: Keys,
    pub(super) passphrase: SecretString,
}

/// The keys of a store.
pub(super) enum Keys {
    /// An access key of S3.
    Pair { id: SecretString, secret: SecretString },
    /// The key of a service account of Google's cloud, a JSON document.
    ServiceAccount(SecretString),
    /// A key or a shared access signature of Azure.
    Azure(SecretString),
    /// None: the identity of the node or pod gives access.
    Identity,
}

/// The error of reading them.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// Vault refuses or does not answer.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A record does not exist.
    #[error("the record {0} does not exist in Vault")]
    Missing(String),
    /// A record's content.
    #[error("{0}")]
    Content(String),
}

impl Secrets {
    /// Reads the two records of a place.
    ///
    /// # Errors
    /// If Vault refuses or does not answer, or a record or one of its fields is missing.
    pub async fn read(vault: &dyn Vault, place: &Place) -> Result<Self, SecretsError> {
        let read = async |path: &str| {
            let record = vault.read_kv(path).await?;
            record.ok_or_else(|| SecretsError::Missing(path.to_owned()))
        };
        let keys = async {
            match &place.store.keys {
                Some(keys) => Ok(read(&keys.vault_path).await?.data),
                None => Ok(Data::default()),
            }
        };
        let (keys, passphrase) = tokio::try_join!(keys, read(&place.passphrase))?;
        Self::of(place, &keys, &passphrase.data).map_err(SecretsError::Content)
    }

    /// Takes them from the two records in Vault.
    ///
    /// # Errors
    /// The record and the field that is missing, or that has a line break.
    pub fn of(place: &Place, keys: &Data, passphrase: &Data) -> Result<Self, String> {
        let get = |record: &str, data: &Data, field: &str| -> Result<SecretString, String> {
            let value = data.get(field).filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| format!("the record {record} in Vault has no field {field}"))?;
            Ok(value.clone().into())
        };
        // A line of pgBackRest's configuration.
        let line = |record: &str, data: &Data, field: &str| -> Result<SecretString, String> {
            let value = get(record, data, field)?;
            if value.expose_secret().contains(['\n', '\r']) {
                return Err(format!("the field {field} of the record {record} in Vault has a line break"));
            }
            Ok(value)
        };
        let keys = match (&place.store.keys, &place.store.service) {
            (None, _) => Keys::Identity,
            (Some(from), Service::S3(_)) => Keys::Pair {
                id: line(&from.vault_path, keys, &from.access_key_id_field)?,
                secret: line(&from.vault_path, keys, &from.secret_access_key_field)?,
            },
            (Some(from), Service::Gcs(_)) => {
                let key = get(&from.vault_path, keys, &from.key_field)?;
                private_key(&key).ok_or_else(|| {
                    format!(
                        "the field {} of the record {} in Vault is no key of a service account (a JSON document with \
                         private_key, client_email and token_uri)",
                        from.key_field, from.vault_path
                    )
                })?;
                Keys::ServiceAccount(key)
            }
            (Some(from), Service::Azure(_)) => Keys::Azure(line(&from.vault_path, keys, &from.key_field)?),
        };
        Ok(Self { keys, passphrase: line(&place.passphrase, passphrase, PASSPHRASE)? })
    }

    /// Replaces each of them in a text of pgBackRest, and cuts it: some of its errors quote the access key's id.
    pub fn redact(&self, text: &str) -> String {
        let private;
        let keys = match &self.keys {
            Keys::Pair { id, secret } => vec![id, secret],
            Keys::Azure(key) => vec![key],
            Keys::ServiceAccount(key) => {
                private = private_key(key);
                std::iter::once(key).chain(&private).collect()
            }
            Keys::Identity => Vec::new(),
        };
        let secrets = keys.into_iter().chain([&self.passphrase]);
        let text = secrets.fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "…"));
        text.chars().take(LONGEST_ERROR).collect()
    }
}

/// The private key in the key of a service account, if it is one.
fn private_key(key: &SecretString) -> Option<SecretString> {
    #[derive(serde::Deserialize)]
    struct Key {
        private_key: String,
        #[serde(rename = "client_email")]
        _client_email: String,
        #[serde(rename = "token_uri")]
        _token_uri: String,
    }
    serde_json::from_str::<Key>(key.expose_secret()).ok().map(|key| key.private_key.into())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn data(fields: &[(&str, &str)]) -> Data {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Secrets of the sample place.
    pub fn sample() -> Secrets {
        let keys = data(&[("access-key-id", "AKIA1"), ("secret-access-key", "of the bucket")]);
        Secrets::of(&Place::sample(), &keys, &data(&[("passphrase", "of the database")])).expect("secrets")
    }

    #[test]
    fn a_record_that_lacks_a_field_or_breaks_a_line_is_named() {
        let place = Place::sample();
        let passphrase = data(&[("passphrase", "p")]);
        let missing = Secrets::of(&place, &data(&[("access-key-id", "a")]), &passphrase).err().expect("a refusal");
        assert_eq!(missing, "the record backups/main in Vault has no field secret-access-key");
        let keys = data(&[("access-key-id", "a"), ("secret-access-key", "b\nrepo1-path=/")]);
        let broken = Secrets::of(&place, &keys, &passphrase).err().expect("a refusal");
        assert!(broken.contains("line break") && !broken.contains("repo1-path"), "{broken}");
    }

    #[test]
    fn a_service_accounts_key_is_a_document() {
        let store = serde_json::json!({"gcs": {"bucket": "b"}, "keys": {"vaultPath": "backups/gcs"}});
        let place = Place { store: serde_json::from_value(store).expect("a store"), ..Place::sample() };
        let of = |key: &str| Secrets::of(&place, &data(&[("key", key)]), &data(&[("passphrase", "p")]));
        let said = of("AKIA1").err().expect("a refusal");
        assert!(said.contains("backups/gcs") && said.contains("service account") && !said.contains("AKIA1"), "{said}");
        let key = serde_json::json!({"private_key": "of the account", "client_email": "e", "token_uri": "https://t"});
        let Ok(secrets) = of(&serde_json::to_string_pretty(&key).expect("a document")) else { panic!("no secrets") };
        assert_eq!(secrets.redact("cannot sign with of the account"), "cannot sign with …");
    }

    #[test]
    fn no_secret_stays_in_a_text() {
        let said = "request failed: AKIA1 / of the bucket / of the database";
        assert_eq!(sample().redact(said), "request failed: … / … / …");
    }
}
