//! The first initialisation, by the first pod alone, and only while nothing is initialised.
//!
//! initdb works beside PGDATA, which gets its name when all of it is durable: a kill at any
//! point leaves either nothing or a whole one. Patroni adopts it.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::process::Command;

use super::backoff::Backoff;
use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::files;
use super::patroni::config;
use super::records::{RecordsError, Source};
use super::report::{Area, Reporter};
use crate::api::conditions::reason;
use crate::contract::desired::Desired;
use crate::contract::patroni::parameters;
use crate::contract::pod::{PGDATA, PGDATA_NEW};
use crate::contract::report::Phase;

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
            return Ok(Outcome::Known);
        }
        // 4. initdb, while Vault is asked for the first credentials: without them there is
        //    nobody whose database this would be.
        let desired = desired::first(&mut self.desired).await;
        tracing::info!(database = desired.database, "initialising");
        let (made, ()) = tokio::join!(self.initdb(desired), self.wait_for_credentials());
        let desired = made?;
        // 5. Who may connect, then the name.
        write_access(self.environment, &desired)?;
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

    /// Runs initdb until it succeeds; what the spec says wrong is told, and awaited.
    async fn initdb(&self, mut desired: Arc<Desired>) -> std::io::Result<Arc<Desired>> {
        let mut changes = self.desired.clone();
        changes.mark_unchanged();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            files::remove_tree(Path::new(PGDATA_NEW))?;
            self.reporter.update(|report| report.phase = Phase::Initializing);
            let output = Command::new("initdb")
                .args(initdb_arguments(self.environment, &desired))
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output()
                .await?;
            if output.status.success() {
                self.reporter.trouble(Area::Server, None);
                return Ok(desired);
            }
            let said = String::from_utf8_lossy(&output.stderr);
            let message = format!("initdb failed: {}", last_words(&said));
            tracing::error!(status = %output.status, "{message}");
            self.reporter.trouble(Area::Server, Some((reason::INVALID_SPEC, message)));
            tokio::select! {
                () = backoff.wait() => {}
                _ = changes.changed() => {}
            }
            if let Some(newer) = self.desired.borrow().clone() {
                desired = newer;
            }
        }
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
            tracing::warn!(message, "waiting for the first credentials");
            self.reporter.trouble(Area::Credentials, Some((reason, message)));
            self.reporter.update(|report| report.phase = Phase::WaitingForVault);
            backoff.wait().await;
        }
    }
}

fn initdb_arguments(environment: &Environment, desired: &Desired) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--username=postgres",
        "--encoding=UTF8",
        // The same order on every machine, whatever its C library.
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--locale=C.UTF-8",
        "--data-checksums",
        "--auth-local=peer",
        "--auth-host=scram-sha-256",
        // The whole tree is made durable at once, before it gets its name.
        "--no-sync",
        "--no-instructions",
    ]
    .map(str::to_owned)
    .into();
    arguments.push(format!("--pgdata={PGDATA_NEW}"));
    let mut settings = parameters(desired);
    // What Patroni gives on the command line.
    settings.insert("listen_addresses".to_owned(), "*".into());
    settings.insert("cluster_name".to_owned(), environment.names.base().into());
    settings.insert("wal_keep_size".to_owned(), "128MB".into());
    for (name, value) in settings {
        arguments.push("--set".to_owned());
        arguments.push(format!("{name}={}", value.as_str().unwrap_or_default()));
    }
    arguments
}

/// Writes who may connect as Patroni will write it, so that the first start needs no Patroni.
fn write_access(environment: &Environment, desired: &Desired) -> std::io::Result<()> {
    let lines = |lines: Vec<String>| lines.join("\n") + "\n";
    let names = environment.names.postgres(&desired.database);
    std::fs::write(Path::new(PGDATA_NEW).join("pg_hba.conf"), lines(config::hba(&names)))?;
    std::fs::write(Path::new(PGDATA_NEW).join("pg_ident.conf"), lines(config::ident()))
}

/// A base backup brings `backup_label` first and `pg_control` last: with the one and without
/// the other it never was a database, and Patroni would neither use nor replace it.
fn remove_unfinished_clone(pgdata: &Path) -> std::io::Result<()> {
    if pgdata.join("backup_label").exists() && !pgdata.join("global/pg_control").exists() {
        tracing::warn!("removing what an interrupted base backup left");
        files::remove_tree(pgdata)?;
    }
    Ok(())
}

/// The end of what a program said, short enough for a status.
fn last_words(said: &str) -> String {
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let telling: Vec<_> = lines.iter().filter(|line| line.contains("FATAL") || line.contains("error:")).collect();
    let text = telling.first().copied().or(lines.last()).copied().unwrap_or("it said nothing");
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_setting_is_told_in_postgres_words() {
        let said = "performing post-bootstrap initialization ... \n\
                    2026-01-01 FATAL:  invalid value for parameter \"work_mem\": \"much\"\nchild process exited";
        assert!(last_words(said).contains("work_mem"));
        assert_eq!(last_words(""), "it said nothing");
    }

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
