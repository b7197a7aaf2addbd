//! The first initialisation, only by the first pod, and only while no database is initialised.
//!
//! initdb works beside PGDATA, in a directory that is renamed when it is durable: a kill at any
//! point leaves either no data directory or a complete one. Patroni adopts it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::process::Command;

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::records::{RecordsError, Source};
use super::report::{Area, Reporter};
use super::restore;
use super::settings::{self, succeed};
use crate::api::conditions::reason;
use crate::backoff::Backoff;
use crate::contract::desired::Desired;
use crate::contract::pod::{PGDATA, PGDATA_NEW, VOLUME};
use crate::contract::report::Phase;
use crate::files;
use crate::postgres::{INITDB_LOCALE, servers};

/// Timeout of a request to the API server.
const ANSWER: Duration = Duration::from_secs(5);

/// The origin of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDirectory {
    /// It existed, or is to be cloned from the leader.
    Existing,
    /// This agent has just initialised it.
    Initialised,
}

/// The dependencies of the first initialisation.
pub struct Initialiser<'a> {
    /// This pod.
    pub environment: &'a Environment,
    /// The API server.
    pub client: kube::Client,
    /// The desired state.
    pub desired: DesiredState,
    /// Vault's records.
    pub records: &'a Source,
    /// The report of this pod.
    pub reporter: &'a Reporter,
}

impl Initialiser<'_> {
    /// Ensures that PGDATA is complete, or absent for a clone.
    ///
    /// # Errors
    /// If the volume cannot be written.
    pub async fn run(mut self) -> std::io::Result<DataDirectory> {
        // 1. Remove the rest of an interrupted initialisation or clone.
        files::remove_tree(Path::new(PGDATA_NEW))?;
        remove_unfinished_clone(Path::new(PGDATA))?;
        // 2. Existing data is never changed.
        if Path::new(PGDATA).exists() {
            files::close_to_group(Path::new(PGDATA))?;
            return Ok(DataDirectory::Existing);
        }
        // 3. The other instances clone; so does this one if the database was initialised before.
        if !self.environment.is_first() || self.is_initialised().await {
            self.reporter.update(|report| report.empty_volume = true);
            return Ok(DataDirectory::Existing);
        }
        // Somebody may have emptied or deleted Patroni's ConfigMap.
        if let Some(system_identifier) = &desired::first(&mut self.desired).await.system_identifier {
            tracing::info!(system_identifier, "the database was initialised before; waiting for its leader");
            return Ok(DataDirectory::Existing);
        }
        // 4. Run initdb, and read the first credentials from Vault meanwhile: without them no service could
        //    use the database.
        let desired = desired::first(&mut self.desired).await;
        tracing::info!(database = desired.database, "initialising the database");
        // Flushes what other writers left on this disk, so that the last step does not wait for it.
        tokio::task::spawn_blocking(|| files::write_out(Path::new(VOLUME)));
        let (initialised, ()) = tokio::join!(self.initdb(desired), self.wait_for_credentials());
        initialised?;
        // 5. Rename the directory.
        tokio::task::spawn_blocking(|| files::commit_tree(Path::new(PGDATA_NEW), Path::new(PGDATA)))
            .await
            .map_err(std::io::Error::other)??;
        tracing::info!("the database is initialised");
        Ok(DataDirectory::Initialised)
    }

    /// Whether the database was initialised before, by Patroni's ConfigMap.
    async fn is_initialised(&self) -> bool {
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.environment.names.namespace);
        let [name, ..] = self.environment.names.patroni_config_maps();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            match tokio::time::timeout(ANSWER, config_maps.get(&name)).await {
                Ok(Ok(config_map)) => {
                    let annotations = config_map.metadata.annotations.unwrap_or_default();
                    return annotations.contains_key("initialize");
                }
                Ok(Err(error)) => tracing::warn!(%error, name, "Patroni's ConfigMap cannot be read; retrying"),
                Err(_) => tracing::warn!(name, "the API server does not answer; retrying"),
            }
            backoff.wait().await;
        }
    }

    /// Runs initdb and writes the settings, until PostgreSQL accepts them. An invalid spec is reported, and
    /// its correction awaited.
    async fn initdb(&self, mut desired: Arc<Desired>) -> std::io::Result<()> {
        let mut changes = self.desired.clone();
        changes.mark_unchanged();
        // A restore fetches the whole database.
        let (first, longest) = if desired.restore.is_some() { (10, 600) } else { (1, 60) };
        let mut backoff = Backoff::new(Duration::from_secs(first), Duration::from_secs(longest));
        loop {
            self.reporter.update(|report| report.phase = Phase::Initializing);
            let Err(problem) = self.attempt(&desired).await? else {
                self.reporter.trouble(Area::Server, None);
                return Ok(());
            };
            tracing::error!("{problem}");
            let reason = if desired.restore.is_some() { reason::RESTORE_FAILED } else { reason::INVALID_SPEC };
            self.reporter.trouble(Area::Server, Some((reason, problem)));
            tokio::select! {
                () = backoff.wait() => {}
                () = desired::changed(&mut changes) => {}
            }
            if let Some(newer) = self.desired.borrow().clone() {
                desired = newer;
            }
        }
    }

    /// One attempt; the inner error is the message of the program that failed.
    async fn attempt(&self, desired: &Desired) -> std::io::Result<Result<(), String>> {
        files::remove_tree(Path::new(PGDATA_NEW))?;
        if let Some(restore) = &desired.restore {
            if let Err(problem) = settings::check_change(self.environment, desired).await? {
                return Ok(Err(problem));
            }
            return Ok(restore::run(self.environment, self.records, desired, restore).await.map(|restored| {
                tracing::info!(restored, "the database was restored");
                self.reporter.update(|report| report.restored = Some(restored));
            }));
        }
        if let Err(problem) = succeed(
            Command::new(servers::program(desired.major(), "initdb"))
                .args(["--pgdata", PGDATA_NEW])
                .args(INITDB)
                .args(INITDB_LOCALE),
        )
        .await?
        {
            return Ok(Err(format!("initdb failed: {problem}")));
        }
        settings::write_first(self.environment, desired)?;
        settings::check(Path::new(PGDATA_NEW), desired).await
    }

    /// Waits until Vault gives the first credentials.
    async fn wait_for_credentials(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));
        loop {
            let result = match self.records.open().await {
                Ok(records) => records.read_pending().await,
                Err(error) => Err(error),
            };
            let (reason, message) = match result {
                Ok(Some(_)) => {
                    self.reporter.vault(Ok(()));
                    self.reporter.trouble(Area::Credentials, None);
                    return;
                }
                Ok(None) => {
                    self.reporter.vault(Ok(()));
                    (
                        reason::CREDENTIALS_PENDING,
                        "Vault has no first credentials yet; the operator writes them".to_owned(),
                    )
                }
                Err(RecordsError::Vault(error)) => {
                    self.reporter.vault(Err(&error));
                    (error.reason(), error.to_string())
                }
                Err(error) => (reason::CREDENTIALS_PENDING, error.to_string()),
            };
            tracing::warn!(problem = message, "waiting for the first credentials");
            self.reporter.trouble(Area::Credentials, Some((reason, message)));
            self.reporter.update(|report| report.phase = Phase::WaitingForVault);
            backoff.wait().await;
        }
    }
}

/// Options of initdb, without the folder and the locale.
pub const INITDB: [&str; 5] = [
    "--username=postgres",
    "--data-checksums",
    "--auth=reject",
    // The whole tree is flushed at once, before the directory is renamed.
    "--no-sync",
    "--no-instructions",
];

/// A base backup brings `backup_label` first and `pg_control` last: a directory with the first and without
/// the second never was a database, and Patroni would neither use nor replace it.
fn remove_unfinished_clone(pgdata: &Path) -> std::io::Result<()> {
    if pgdata.join("backup_label").exists() && !pgdata.join("global/pg_control").exists() {
        tracing::warn!("removing the data directory of an interrupted base backup");
        files::remove_tree(pgdata)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unfinished_clone_is_removed() {
        let root = std::env::temp_dir().join(format!("servicedb-clone-{}", std::process::id()));
        let pgdata = root.join("pgdata");
        std::fs::create_dir_all(pgdata.join("global")).expect("a folder");
        std::fs::write(pgdata.join("PG_VERSION"), "17").expect("a file");
        remove_unfinished_clone(&pgdata).expect("a check");
        assert!(pgdata.exists(), "data without a backup label may be a damaged database: kept");
        std::fs::write(pgdata.join("backup_label"), "").expect("a file");
        std::fs::write(pgdata.join("global/pg_control"), "").expect("a file");
        remove_unfinished_clone(&pgdata).expect("a check");
        assert!(pgdata.exists(), "a finished clone");
        std::fs::remove_file(pgdata.join("global/pg_control")).expect("a file");
        remove_unfinished_clone(&pgdata).expect("a removal");
        assert!(!pgdata.exists());
        std::fs::remove_dir_all(root).expect("a folder");
    }
}
