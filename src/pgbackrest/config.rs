//! pgBackRest's configuration, with keys and passphrase: written to the pod's memory only.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::STANZA;
use super::secrets::Secrets;
use crate::contract::backup::{Place, UriStyle};
use crate::contract::pod::{ARCHIVE_DIR, PGDATA, SOCKET_DIR};
use crate::files;

/// Where asynchronous commands keep their state, and every command its locks.
pub const SPOOL: &str = "/tmp/pgbackrest";
/// In the folder: the authority of the store's certificate.
const CA: &str = "ca.crt";

/// The configuration's file in its folder.
const FILE: &str = "pgbackrest.conf";

/// The path of the configuration in a folder.
pub fn in_folder(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// The path of a pod's configuration.
pub fn path() -> PathBuf {
    in_folder(Path::new(ARCHIVE_DIR))
}

/// A configuration without its secrets.
pub struct Config<'a> {
    /// The place of the database in its store.
    pub place: &'a Place,
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
        replace(&folder.join(CA), &self.place.store.s3.ca)?;
        let text = self.text(folder, secrets);
        let text = text.ok_or_else(|| std::io::Error::other("the store's endpoint is not an address"))?;
        let (path, text) = (in_folder(folder), text.expose_secret());
        if std::fs::read_to_string(&path).is_ok_and(|before| before == *text) {
            return Ok(false);
        }
        replace(&path, text)?;
        Ok(true)
    }

    fn text(&self, folder: &Path, secrets: &Secrets) -> Option<SecretString> {
        let s3 = &self.place.store.s3;
        let (host, port) = s3.host()?;
        let style = match s3.uri_style {
            UriStyle::Host => "host",
            UriStyle::Path => "path",
        };
        let ca = if s3.ca.is_empty() {
            String::new()
        } else {
            format!("repo1-storage-ca-file={}\n", folder.join(CA).display())
        };
        let (id, key) = (secrets.access_key_id.expose_secret(), secrets.secret_access_key.expose_secret());
        let passphrase = secrets.passphrase.expose_secret();
        let (region, bucket, path) = (&s3.region, &s3.bucket, &self.place.path);
        let (options, database) = (self.options, self.database);
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
process-max=2
spool-path={SPOOL}
lock-path={SPOOL}
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

/// Removes it: nothing is archived any more.
///
/// # Errors
/// If it cannot be removed.
pub fn remove() -> std::io::Result<()> {
    files::remove_tree(Path::new(ARCHIVE_DIR))
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

    #[test]
    fn the_configuration_names_the_place_and_opens_it() {
        let config = Config { place: &Place::sample(), options: "archive-async=y\n", database: &local() };
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
}
