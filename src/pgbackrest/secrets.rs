//! What opens a store: its keys, and the passphrase of a database. They are read from Vault, and are nowhere
//! but in memory.

use secrecy::{ExposeSecret, SecretString};

use super::command::LONGEST_ERROR;
use crate::contract::backup::{PASSPHRASE, Place};
use crate::contract::records::Data;
use crate::vault::{Vault, VaultError};

/// What opens a store.
pub struct Secrets {
    pub(super) access_key_id: SecretString,
    pub(super) secret_access_key: SecretString,
    pub(super) passphrase: SecretString,
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
        let (keys, passphrase) = tokio::try_join!(read(&place.store.keys.vault_path), read(&place.passphrase))?;
        Self::of(place, &keys.data, &passphrase.data).map_err(SecretsError::Content)
    }

    /// Takes them from the two records in Vault.
    ///
    /// # Errors
    /// The record and the field that is missing, or that has a line break.
    pub fn of(place: &Place, keys: &Data, passphrase: &Data) -> Result<Self, String> {
        let get = |record: &str, data: &Data, field: &str| -> Result<SecretString, String> {
            let value = data.get(field).filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| format!("the record {record} in Vault has no field {field}"))?;
            if value.contains(['\n', '\r']) {
                return Err(format!("the field {field} of the record {record} in Vault has a line break"));
            }
            Ok(value.clone().into())
        };
        let from = &place.store.keys;
        Ok(Self {
            access_key_id: get(&from.vault_path, keys, &from.access_key_id_field)?,
            secret_access_key: get(&from.vault_path, keys, &from.secret_access_key_field)?,
            passphrase: get(&place.passphrase, passphrase, PASSPHRASE)?,
        })
    }

    /// Replaces each of them in a text of pgBackRest, and cuts it: some of its errors quote the access key's id.
    pub fn redact(&self, text: &str) -> String {
        let secrets = [&self.access_key_id, &self.secret_access_key, &self.passphrase];
        let text = secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "…"));
        text.chars().take(LONGEST_ERROR).collect()
    }
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
    fn no_secret_stays_in_a_text() {
        let said = "request failed: AKIA1 / of the bucket / of the database";
        assert_eq!(sample().redact(said), "request failed: … / … / …");
    }
}
