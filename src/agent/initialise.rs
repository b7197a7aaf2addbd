//! The first initialisation, by the first pod alone, and only while nothing is initialised.
//!
//! initdb works beside PGDATA, which gets its name when all of it is durable: a kill at any
//! point leaves either nothing or a whole one. Patroni adopts it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::process::Command;

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::files;
use super::records::{RecordsError, Source};
use super::report::{Area, Reporter};
use super::settings::{self, succeed};
use crate::api::conditions::reason;
use crate::backoff::Backoff;
use crate::contract::desired::Desired;
use crate::contract::pod::{PGDATA, PGDATA_NEW, VOLUME};
use crate::contract::report::Phase;
use crate::postgres::INITDB_LOCALE;

/// How long the API server may take to say whether the database is initialised.
const ANSWER: Duration = Duration::from_secs(5);

/// Whose the data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// PGDATA was there, or is to be cloned from the leader.
    Known,
    /// This agent has just made PGDATA.
    Made,
}

/// What the first initialisation needs.
pub struct Initialiser<'a> {
    /// This pod.
    pub environment: &'a Environment,
    /// The API server.
    pub client: kube::Client,
    /// The desired state.
    pub desired: DesiredState,
    /// Vault's records.
    pub records: &'a Source,
    /// Where progress is told.
    pub reporter: &'a Reporter,
}

impl Initialiser<'_> {
    /// Sees to it that PGDATA is whole, or absent for a clone.
    ///
    /// # Errors
    /// If the volume cannot be written.
    pub async fn run(mut self) -> std::io::Result<Outcome> {
        // 1. What a killed predecessor left.
        files::remove_tree(Path::new(PGDATA_NEW))?;
        remove_unfinished_clone(Path::new(PGDATA))?;
        // 2. Data that is there is never touched.
        if Path::new(PGDATA).exists() {
            files::close_to_group(Path::new(PGDATA))?;
            return Ok(Outcome::Known);
        }
        // 3. Others clone, and so does this one where the data once was.
        if !self.environment.is_first() || self.is_initialised().await {
            self.reporter.update(|report| report.empty_volume = true);
            return Ok(Outcome::Known);
        }
        // Somebody may have emptied or deleted what says so.
        if let Some(system_identifier) = &desired::first(&mut self.desired).await.system_identifier {
            tracing::info!(system_identifier, "the database was initialised before; waiting for its leader");
            return Ok(Outcome::Known);
        }
        // 4. initdb, while Vault is asked for the first credentials: without them there is
        //    nobody whose database this would be.
        let desired = desired::first(&mut self.desired).await;
        tracing::info!(database = desired.database, "initialising");
        // What others left to be written on this disk is not waited for at the end.
        tokio::task::spawn_blocking(|| files::write_out(Path::new(VOLUME)));
        let (made, ()) = tokio::join!(self.initdb(desired), self.wait_for_credentials());
        made?;
        // 5. The name.
        tokio::task::spawn_blocking(|| files::commit_tree(Path::new(PGDATA_NEW), Path::new(PGDATA)))
            .await
            .map_err(std::io::Error::other)??;
        tracing::info!("initialised");
        Ok(Outcome::Made)
    }

    /// Whether Patroni's ConfigMap says that the database was initialised before.
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
                Ok(Err(error)) => tracing::warn!(%error, name, "whether the database is initialised is not known yet"),
                Err(_) => tracing::warn!(name, "the API server does not answer"),
            }
            backoff.wait().await;
        }
    }

    /// Runs initdb and writes the settings until PostgreSQL accepts them; what the spec says
    /// wrong is told, and awaited.
    async fn initdb(&self, mut desired: Arc<Desired>) -> std::io::Result<()> {
        let mut changes = self.desired.clone();
        changes.mark_unchanged();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            self.reporter.update(|report| report.phase = Phase::Initializing);
            let Err(problem) = self.make(&desired).await? else {
                self.reporter.trouble(Area::Server, None);
                return Ok(());
            };
            tracing::error!("{problem}");
            self.reporter.trouble(Area::Server, Some((reason::INVALID_SPEC, problem)));
            tokio::select! {
                () = backoff.wait() => {}
                _ = changes.changed() => {}
            }
            if let Some(newer) = self.desired.borrow().clone() {
                desired = newer;
            }
        }
    }

    /// One try; inside, what the programs had against it.
    async fn make(&self, desired: &Desired) -> std::io::Result<Result<(), String>> {
        files::remove_tree(Path::new(PGDATA_NEW))?;
        if let Err(problem) = succeed(Command::new("initdb").args(INITDB).args(INITDB_LOCALE)).await? {
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
                    (reason::CREDENTIALS_PENDING, "Vault has no first credentials yet".to_owned())
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

const INITDB: [&str; 7] = [
    "--pgdata",
    PGDATA_NEW,
    "--username=postgres",
    "--data-checksums",
    "--auth=reject",
    // The whole tree is made durable at once, before it gets its name.
    "--no-sync",
    "--no-instructions",
];

/// A base backup brings `backup_label` first and `pg_control` last: with the one and without
/// the other it never was a database, and Patroni would neither use nor replace it.
fn remove_unfinished_clone(pgdata: &Path) -> std::io::Result<()> {
    if pgdata.join("backup_label").exists() && !pgdata.join("global/pg_control").exists() {
        tracing::warn!("removing what an interrupted base backup left");
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
        remove_unfinished_clone(&pgdata).expect("looking");
        assert!(pgdata.exists(), "data without a backup label may be a damaged database: kept");
        std::fs::write(pgdata.join("backup_label"), "").expect("a file");
        std::fs::write(pgdata.join("global/pg_control"), "").expect("a file");
        remove_unfinished_clone(&pgdata).expect("looking");
        assert!(pgdata.exists(), "a finished clone");
        std::fs::remove_file(pgdata.join("global/pg_control")).expect("a file");
        remove_unfinished_clone(&pgdata).expect("removing");
        assert!(!pgdata.exists());
        std::fs::remove_dir_all(root).expect("a folder");
    }
}
