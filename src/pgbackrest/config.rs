//! pgBackRest's configuration, with keys and passphrase: written to the pod's memory only.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::STANZA;
use super::secrets::{Keys, Secrets};
use crate::contract::backup::{AzureKey, Identity, Nth, Place, Service, UriStyle, host};
use crate::contract::pod::{ARCHIVE_DIR, PGDATA, SECOND_ARCHIVE_DIR, SOCKET_DIR};
use crate::files;

/// Where asynchronous commands keep their state, and every command its locks.
pub const SPOOL: &str = "/tmp/pgbackrest";
/// The same for a second store: what one store acknowledges says nothing of the other, and neither waits for the
/// other's lock.
const SECOND_SPOOL: &str = "/tmp/pgbackrest-second";
/// In the folder: the authority of the store's certificate.
const CA: &str = "ca.crt";
/// In the folder: the key of a service account, which pgBackRest reads from a file.
const KEY: &str = "key.json";

/// The port of an address that names none.
const HTTPS: u16 = 443;

/// The configuration's file in its folder.
const FILE: &str = "pgbackrest.conf";

/// The path of the configuration in a folder.
pub fn in_folder(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// The path of a pod's configuration.
pub fn path() -> PathBuf {
    path_of(Nth::First)
}

/// The path of an instance's configuration for one of its stores.
pub fn path_of(nth: Nth) -> PathBuf {
    in_folder(folder_of(nth))
}

/// The folder of that configuration.
pub fn folder_of(nth: Nth) -> &'static Path {
    Path::new(match nth {
        Nth::First => ARCHIVE_DIR,
        Nth::Second => SECOND_ARCHIVE_DIR,
    })
}

/// Where asynchronous commands with that configuration keep their state.
pub fn spool_of(nth: Nth) -> &'static str {
    match nth {
        Nth::First => SPOOL,
        Nth::Second => SECOND_SPOOL,
    }
}

/// A configuration without its secrets.
pub struct Config<'a> {
    /// The place of the database in its store.
    pub place: &'a Place,
    /// Where asynchronous commands keep their state, and every command its locks.
    pub spool: &'a str,
    /// Further lines: options of all commands first, then those of commands, each under its heading.
    pub options: &'a str,
    /// The lines of the stanza: where the database is.
    pub database: &'a str,
}

/// The lines of a stanza whose database is in this pod.
pub fn local() -> String {
    format!("pg1-path={PGDATA}\npg1-socket-path={SOCKET_DIR}\npg1-user=postgres\n")
}

impl Config<'_> {
    /// Writes the configuration to `folder`; returns whether it differs from the one before.
    ///
    /// # Errors
    /// If a file cannot be written, or the store's address is not one.
    pub fn write(&self, folder: &Path, secrets: &Secrets) -> std::io::Result<bool> {
        std::fs::create_dir_all(folder)?;
        replace(&folder.join(CA), self.place.store.service.ca())?;
        let key_changed = match &secrets.keys {
            Keys::ServiceAccount(key) => replace_if_other(&folder.join(KEY), key.expose_secret())?,
            _ => false,
        };
        let text = self.text(folder, secrets);
        let text = text.ok_or_else(|| std::io::Error::other("the store's endpoint is not an address"))?;
        Ok(replace_if_other(&in_folder(folder), text.expose_secret())? || key_changed)
    }

    fn text(&self, folder: &Path, secrets: &Secrets) -> Option<SecretString> {
        let service = &self.place.store.service;
        let (host, port) = host(service.endpoint())?;
        let ca = if service.ca().is_empty() {
            String::new()
        } else {
            format!("repo1-storage-ca-file={}\n", folder.join(CA).display())
        };
        let passphrase = secrets.passphrase.expose_secret();
        let (repository, path) = (repository(service, (&host, port), folder, &secrets.keys), &self.place.path);
        let (options, database, spool) = (self.options, self.database, self.spool);
        Some(
            format!(
                "[global]
{repository}repo1-storage-port={port}
{ca}repo1-path={path}
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass={passphrase}
repo1-bundle=y
repo1-block=y
compress-type=zst
process-max=2
spool-path={spool}
lock-path={spool}
log-level-console=off
log-level-file=off
log-level-stderr=off
{options}
[{STANZA}]
{database}"
            )
            .into(),
        )
    }
}

/// The lines that name the service and open it.
fn repository(service: &Service, (host, port): (&str, u16), folder: &Path, keys: &Keys) -> String {
    let style = |style: UriStyle| match style {
        UriStyle::Host => "host",
        UriStyle::Path => "path",
    };
    match service {
        Service::S3(s3) => {
            let keys = match keys {
                Keys::Pair { id, secret } => {
                    format!("repo1-s3-key={}\nrepo1-s3-key-secret={}\n", id.expose_secret(), secret.expose_secret())
                }
                _ if s3.identity == Some(Identity::Pod) => "repo1-s3-key-type=pod-id\n".to_owned(),
                _ => "repo1-s3-key-type=auto\n".to_owned(),
            };
            let (region, bucket, style) = (&s3.region, &s3.bucket, style(s3.uri_style));
            format!(
                "repo1-type=s3
repo1-s3-endpoint={host}
repo1-s3-uri-style={style}
repo1-s3-region={region}
repo1-s3-bucket={bucket}
{keys}"
            )
        }
        Service::Gcs(gcs) => {
            let key = match keys {
                Keys::ServiceAccount(_) => format!("repo1-gcs-key={}\n", folder.join(KEY).display()),
                _ => "repo1-gcs-key-type=auto\n".to_owned(),
            };
            // Its port is a part of the endpoint; `repo1-storage-port` has no effect.
            let endpoint = if port == HTTPS { host.to_owned() } else { format!("{host}:{port}") };
            format!("repo1-type=gcs\nrepo1-gcs-endpoint={endpoint}\nrepo1-gcs-bucket={}\n{key}", gcs.bucket)
        }
        Service::Azure(azure) => {
            let key = match (keys, azure.key_type) {
                (Keys::Azure(key), AzureKey::Shared) => format!("repo1-azure-key={}\n", key.expose_secret()),
                (Keys::Azure(key), AzureKey::Sas) => {
                    format!("repo1-azure-key-type=sas\nrepo1-azure-key={}\n", key.expose_secret())
                }
                _ => "repo1-azure-key-type=auto\n".to_owned(),
            };
            let (account, container, style) = (&azure.account, &azure.container, style(azure.uri_style));
            format!(
                "repo1-type=azure
repo1-azure-endpoint={host}
repo1-azure-uri-style={style}
repo1-azure-account={account}
repo1-azure-container={container}
{key}"
            )
        }
    }
}

/// Removes it: nothing is archived any more.
///
/// # Errors
/// If it cannot be removed.
pub fn remove(nth: Nth) -> std::io::Result<()> {
    files::remove_tree(folder_of(nth))
}

/// Returns whether the file had another content, or did not exist.
fn replace_if_other(path: &Path, text: &str) -> std::io::Result<bool> {
    if std::fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(false);
    }
    replace(path, text)?;
    Ok(true)
}

/// A program that reads it meanwhile sees the file before or after.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::super::secrets::tests::sample;
    use super::*;
    use crate::contract::pod::{ARCHIVE_COMMAND_OF_TWO, ARCHIVE_GIVEN_UP, SECOND_ARCHIVE_GIVEN_UP};

    #[test]
    fn the_configuration_names_the_place_and_opens_it() {
        let config = Config { place: &Place::sample(), spool: SPOOL, options: "archive-async=y\n", database: &local() };
        let text = config.text(Path::new(ARCHIVE_DIR), &sample()).expect("a configuration");
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
    fn each_of_two_stores_has_a_configuration_and_a_spool_of_its_own() {
        let [first, second] = Nth::ALL.map(|nth| {
            let config = Config { place: &Place::sample(), spool: spool_of(nth), options: "", database: &local() };
            let text = config.text(folder_of(nth), &sample()).expect("a configuration");
            let lines: Vec<_> = text.expose_secret().lines().map(str::to_owned).collect();
            assert!(lines.iter().all(|line| !line.starts_with("repo2")), "a repository of the same would stop both");
            let of = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)).expect("a line").to_owned();
            [of("spool-path="), of("lock-path="), of("repo1-storage-ca-file="), path_of(nth).display().to_string()]
        });
        for (one, other) in first.iter().zip(&second) {
            assert_ne!(one, other);
        }
        assert!(ARCHIVE_COMMAND_OF_TWO.contains(&first[3]) && ARCHIVE_COMMAND_OF_TWO.contains(&second[3]));
        for given_up in [ARCHIVE_GIVEN_UP, SECOND_ARCHIVE_GIVEN_UP] {
            assert!(ARCHIVE_COMMAND_OF_TWO.contains(&format!("test -e {given_up} ")), "{given_up}");
        }
    }

    #[test]
    fn each_service_has_its_options_and_nothing_of_another() {
        let lines = |store: serde_json::Value, keys: Keys| -> Vec<String> {
            let store = serde_json::from_value(store).expect("a store");
            let place = Place { store, ..Place::sample() };
            let secrets = Secrets { keys, ..sample() };
            let config = Config { place: &place, spool: SPOOL, options: "", database: &local() };
            let text = config.text(Path::new(ARCHIVE_DIR), &secrets).expect("a configuration");
            text.expose_secret().lines().map(str::to_owned).collect()
        };
        let account = lines(serde_json::json!({"gcs": {"bucket": "b"}}), Keys::ServiceAccount("{}".into()));
        for line in [
            "repo1-type=gcs",
            "repo1-gcs-endpoint=storage.googleapis.com",
            "repo1-gcs-key=/run/servicedb/archive/key.json",
        ] {
            assert!(account.iter().any(|found| found == line), "{line}: {account:?}");
        }
        let other = serde_json::json!({"gcs": {"bucket": "b", "endpoint": "https://gcs.store.svc:4443"}});
        assert!(lines(other, Keys::Identity).contains(&"repo1-gcs-endpoint=gcs.store.svc:4443".to_owned()));
        let own = lines(serde_json::json!({"gcs": {"bucket": "b"}}), Keys::Identity);
        assert!(own.contains(&"repo1-gcs-key-type=auto".to_owned()) && !own.iter().any(|line| line.contains("s3")));
        let azure = serde_json::json!({"azure": {"account": "a", "container": "c", "keyType": "sas"}});
        let azure = lines(azure, Keys::Azure("?sv=1".into()));
        for line in
            ["repo1-azure-account=a", "repo1-azure-key-type=sas", "repo1-azure-key=?sv=1", "repo1-storage-port=443"]
        {
            assert!(azure.iter().any(|found| found == line), "{line}: {azure:?}");
        }
        let s3 = serde_json::json!({"endpoint": "https://s3", "region": "r", "bucket": "b", "identity": "pod"});
        let s3 = lines(serde_json::json!({"s3": s3}), Keys::Identity);
        assert!(s3.contains(&"repo1-s3-key-type=pod-id".to_owned()), "{s3:?}");
    }
}
