//! pgBackRest's configuration, with keys and passphrase: written to the pod's memory only.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use crate::contract::backup::{Place, UriStyle};
use crate::contract::pod::{ARCHIVE_DIR, PGDATA, SOCKET_DIR};
use crate::contract::records::Data;

/// The stanza: one database, so one name.
pub const STANZA: &str = "db";
/// How long PostgreSQL waits for one segment, in seconds: at a shutdown it tries three times, and nobody leads
/// meanwhile.
const PUSH_SECONDS: u32 = 30;
/// In [`ARCHIVE_DIR`]: the authority of the store's certificate.
const CA: &str = "ca.crt";

/// What opens the store.
pub struct Secrets {
    access_key_id: SecretString,
    secret_access_key: SecretString,
    passphrase: SecretString,
}

impl Secrets {
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
            passphrase: get(&place.passphrase, passphrase, crate::contract::backup::PASSPHRASE)?,
        })
    }

    /// Replaces each of them in a text of pgBackRest: some of its errors quote the access key's id.
    pub fn redact(&self, text: &str) -> String {
        let secrets = [&self.access_key_id, &self.secret_access_key, &self.passphrase];
        secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "…"))
    }
}

/// The path of the configuration.
pub fn path() -> PathBuf {
    Path::new(ARCHIVE_DIR).join("pgbackrest.conf")
}

/// Writes the configuration; returns whether it differs from the one before.
///
/// # Errors
/// If a file cannot be written, or the store's address is not one.
pub fn write(place: &Place, secrets: &Secrets) -> std::io::Result<bool> {
    std::fs::create_dir_all(ARCHIVE_DIR)?;
    replace(&Path::new(ARCHIVE_DIR).join(CA), &place.store.s3.ca)?;
    let text = text(place, secrets).ok_or_else(|| std::io::Error::other("the store's endpoint is not an address"))?;
    let text = text.expose_secret();
    if std::fs::read_to_string(path()).is_ok_and(|before| before == *text) {
        return Ok(false);
    }
    replace(&path(), text)?;
    Ok(true)
}

/// Removes it: nothing is archived any more.
///
/// # Errors
/// If it cannot be removed.
pub fn remove() -> std::io::Result<()> {
    match std::fs::remove_dir_all(ARCHIVE_DIR) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A program that reads it meanwhile sees the file before or after.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&new, path)
}

fn text(place: &Place, secrets: &Secrets) -> Option<SecretString> {
    let s3 = &place.store.s3;
    let (host, port) = s3.host()?;
    let style = match s3.uri_style {
        UriStyle::Host => "host",
        UriStyle::Path => "path",
    };
    let ca = if s3.ca.is_empty() { String::new() } else { format!("repo1-storage-ca-file={ARCHIVE_DIR}/{CA}\n") };
    let (id, key) = (secrets.access_key_id.expose_secret(), secrets.secret_access_key.expose_secret());
    let passphrase = secrets.passphrase.expose_secret();
    let (region, bucket, path) = (&s3.region, &s3.bucket, &place.path);
    Some(
        format!(
            "[global]
repo1-type=s3
repo1-s3-endpoint={host}
repo1-storage-port={port}
{ca}repo1-s3-uri-style={style}
repo1-s3-region={region}
repo1-s3-bucket={bucket}
repo1-s3-key={id}
repo1-s3-key-secret={key}
repo1-path={path}
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass={passphrase}
repo1-bundle=y
repo1-block=y
compress-type=zst
archive-async=y
process-max=2
spool-path=/tmp/pgbackrest
lock-path=/tmp/pgbackrest
log-level-console=off
log-level-file=off
log-level-stderr=off

[global:archive-push]
archive-timeout={PUSH_SECONDS}

[{STANZA}]
pg1-path={PGDATA}
pg1-socket-path={SOCKET_DIR}
pg1-user=postgres
"
        )
        .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(fields: &[(&str, &str)]) -> Data {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn secrets() -> Secrets {
        let keys = data(&[("access-key-id", "AKIA1"), ("secret-access-key", "of the bucket")]);
        Secrets::of(&Place::sample(), &keys, &data(&[("passphrase", "of the database")])).expect("secrets")
    }

    #[test]
    fn the_configuration_names_the_place_and_opens_it() {
        let text = text(&Place::sample(), &secrets()).expect("a configuration");
        let text = text.expose_secret();
        for line in [
            "repo1-s3-endpoint=s3.store.svc",
            "repo1-storage-port=7070",
            "repo1-s3-uri-style=path",
            "repo1-path=/dev/messaging/chat/u",
            "repo1-s3-key-secret=of the bucket",
            "repo1-cipher-pass=of the database",
            "repo1-storage-ca-file=/run/servicedb/archive/ca.crt",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
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
        assert_eq!(secrets().redact(said), "request failed: … / … / …");
    }
}
