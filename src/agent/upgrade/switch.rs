//! The exchange of the data directories: nothing of the present one is changed before, and after it everything is done.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;

use super::build;
use super::room::{has_room, size_of};
use crate::agent::desired;
use crate::agent::environment::Environment;
use crate::agent::lineage::{self, MARK};
use crate::backoff::Backoff;
use crate::contract::desired::Desired;
use crate::contract::pod::{PGDATA, PGDATA_FORMER, PGDATA_UPGRADED, UPGRADE_FAILED};
use crate::contract::upgrade::{Lineage, Stage, Upgrade};
use crate::files;
use crate::postgres::servers;
use crate::restore::control;

/// The file that makes a folder a data directory.
const CONTROL: &str = "global/pg_control";
/// Its size, in bytes.
const CONTROL_SIZE: u64 = 8192;
/// Patroni's key for the system identifier.
const INITIALIZE: &str = "initialize";
/// Timeout of a write to the API server.
const ANSWER: Duration = Duration::from_secs(5);
/// How long after an attempt's time, in seconds, this pod's clock included, the exchange is given up: a pod whose container
/// is killed again and again must not keep the others stopped.
const PATIENCE: i64 = 300;
/// The pause between two looks at the desired state.
const RETRY: Duration = Duration::from_secs(1);

/// Makes the other data directory the present one, unless it is already.
///
/// # Errors
/// Why nothing was changed.
pub async fn switch(
    environment: &Environment,
    client: &kube::Client,
    desired: &Desired,
    upgrade: &Upgrade,
) -> Result<Lineage, String> {
    let (current, former) = (Path::new(PGDATA), Path::new(PGDATA_FORMER));
    if let Some(lineage) = lineage::of(current).filter(|mark| mark.id == upgrade.id) {
        keep_former();
        return Ok(lineage);
    }
    let failed = Path::new(UPGRADE_FAILED);
    if std::fs::read_to_string(failed).is_ok_and(|id| id == upgrade.id) {
        return Err("it was tried before, and failed: see the log of the pod".to_owned());
    }
    let other = if upgrade.is_back() { former } else { Path::new(PGDATA_UPGRADED) };
    let made = async {
        if Timestamp::now() > last_moment(upgrade) {
            return Err(format!(
                "it has not ended since {}: the pod was ended in each attempt, see its events",
                upgrade.since
            ));
        }
        let left = control::read(current)?;
        if !left.is_shut_down {
            return Err(
                "PostgreSQL was not shut down cleanly: request it again, once the database is available".to_owned()
            );
        }
        let waiting = waiting(current).map_err(|error| format!("pg_wal: {error}"))?;
        if waiting > 0 {
            return Err(format!(
                "{waiting} files of WAL could not be archived, so a restore could not reach the end of the former data: see \
                 ContinuousArchiving, and request it again"
            ));
        }
        let identifier = if upgrade.is_back() {
            check_former(former, upgrade.to)?
        } else {
            let limit = Duration::from_secs(upgrade.limit_seconds);
            let built = tokio::time::timeout(limit, make(environment, desired, upgrade)).await;
            built.unwrap_or_else(|_| Err(format!("it took longer than {} s", limit.as_secs())))?
        };
        let lineage = Lineage {
            id: upgrade.id.clone(),
            at: Timestamp::now(),
            left: left.system_identifier,
            current: identifier,
            major: upgrade.to,
            kept_by: (!upgrade.is_back()).then(|| environment.pod.clone()),
        };
        let mark = serde_json::to_vec(&lineage).map_err(|error| error.to_string())?;
        let written = std::fs::write(other.join(MARK), mark).and_then(|()| files::write_out(other));
        written.map_err(|error| format!("{}: {error}", other.display()))?;
        Ok(lineage)
    };
    let exchanged = async {
        let lineage = made.await?;
        // Without the stage the others have started, and may lead.
        still_desired(environment, client, upgrade).await?;
        renameat2(AT_FDCWD, other, AT_FDCWD, current, RenameFlags::RENAME_EXCHANGE)
            .map_err(|error| format!("the file system of the volume cannot exchange two folders: {error}"))?;
        Ok(lineage)
    };
    let lineage = match exchanged.await {
        Ok(lineage) => lineage,
        Err(message) => {
            // It makes room for the next file.
            if let Err(error) = build::clear() {
                tracing::warn!(%error, "the copies of the upgrade cannot be removed");
            }
            // A later attempt must not succeed: the operator may have seen this one's failure.
            if let Err(error) = std::fs::write(failed, &upgrade.id) {
                tracing::warn!(%error, "{UPGRADE_FAILED} cannot be written");
            }
            return Err(message);
        }
    };
    // From here on it is done, whatever fails.
    let parent = current.parent().unwrap_or(current);
    if let Err(error) = File::open(parent).and_then(|parent| parent.sync_all()) {
        tracing::warn!(%error, "the exchange of the folders may not be durable yet");
    }
    tracing::info!(from = upgrade.from, to = upgrade.to, "the data directory is exchanged");
    keep_former();
    Ok(lineage)
}

/// When the exchange is given up.
fn last_moment(upgrade: &Upgrade) -> Timestamp {
    let limit = i64::try_from(upgrade.limit_seconds).unwrap_or(i64::MAX / 4).saturating_add(PATIENCE);
    upgrade.since.saturating_add(SignedDuration::from_secs(limit)).unwrap_or(Timestamp::MAX)
}

/// Asks the API server whether the exchange is still to be made; waits until it answers.
async fn still_desired(environment: &Environment, client: &kube::Client, upgrade: &Upgrade) -> Result<(), String> {
    loop {
        if let Some(now) = desired::read(environment, client.clone()).await {
            let is_wanted = now.upgrade.is_some_and(|now| now.id == upgrade.id && now.stage == Stage::Switch);
            return is_wanted.then_some(()).ok_or_else(|| "it was withdrawn meanwhile".to_owned());
        }
        if Timestamp::now() > last_moment(upgrade) {
            return Err("the API server did not answer whether it is still to be made".to_owned());
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Upgrades a copy; returns the identifier of the new directory.
async fn make(environment: &Environment, desired: &Desired, upgrade: &Upgrade) -> Result<String, String> {
    let current = Path::new(PGDATA);
    build::clear().map_err(|error| format!("the volume: {error}"))?;
    has_room(size_of(current).await?)?;
    build::copy(current).await?;
    let server = build::Server::of_pod(environment, desired);
    Ok(build::upgrade(&server, upgrade.from, upgrade.to).await?.system_identifier)
}

/// Checks the former data directory; returns its identifier.
fn check_former(former: &Path, major: u16) -> Result<String, String> {
    if servers::major_of(former) != Some(major) {
        return Err(format!("this pod has no data directory of PostgreSQL {major} in {PGDATA_FORMER}"));
    }
    let control = control::read(former)?;
    if !control.is_shut_down {
        return Err(format!("{PGDATA_FORMER} is not as its server left it"));
    }
    Ok(control.system_identifier)
}

fn keep_former() {
    if let Err(error) = name_former() {
        tracing::error!(%error, "{PGDATA_UPGRADED} cannot be renamed to {PGDATA_FORMER}; retrying later");
    }
}

/// Gives the directory that was left its name after an upgrade, if it has not got it: under the one that it has it would
/// be removed as a copy. That of the way back has it, and is removed.
///
/// # Errors
/// If it cannot be renamed, or may be the one that was left.
pub fn name_former() -> std::io::Result<()> {
    name_left(Path::new(PGDATA), Path::new(PGDATA_UPGRADED), Path::new(PGDATA_FORMER))
}

fn name_left(current: &Path, left: &Path, former: &Path) -> std::io::Result<()> {
    // A folder that is still being made has not all of it.
    let is_whole = left.join(CONTROL).metadata().is_ok_and(|file| file.len() == CONTROL_SIZE);
    let Some(lineage) = lineage::of(current).filter(|mark| mark.kept_by.is_some() && is_whole) else { return Ok(()) };
    let identifier = control::read(left).map_err(std::io::Error::other)?.system_identifier;
    if identifier != lineage.left {
        return Ok(());
    }
    files::remove_tree(former)?;
    files::rename(left, former)
}

/// Writes the identifier to Patroni's ConfigMap, however long it takes: without it nobody would lead.
pub async fn record_identifier(environment: &Environment, client: &kube::Client, identifier: &str) {
    let [config, ..] = environment.names.patroni_config_maps();
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &environment.names.namespace);
    let patch = json!({"metadata": {"annotations": {INITIALIZE: identifier}}});
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match tokio::time::timeout(ANSWER, api.patch(&config, &PatchParams::default(), &Patch::Merge(&patch))).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => tracing::warn!(%error, config, "the system identifier cannot be recorded; retrying"),
            Err(_) => tracing::warn!(config, "the API server does not answer; retrying"),
        }
        backoff.wait().await;
    }
}

/// The number of files of WAL that wait for the archive.
fn waiting(folder: &Path) -> std::io::Result<usize> {
    let entries = std::fs::read_dir(folder.join("pg_wal/archive_status"))?;
    Ok(entries.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "ready")).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_that_was_left_gets_its_name_and_an_unfinished_copy_does_not() {
        let root = std::env::temp_dir().join(format!("servicedb-switch-{}", std::process::id()));
        let [current, left, former] = ["pgdata", "pgdata.upgraded", "pgdata.former"].map(|name| root.join(name));
        for folder in [&current, &left] {
            std::fs::create_dir_all(folder.join("global")).expect("a folder");
        }
        let lineage = |kept_by: Option<&str>| Lineage {
            id: "i".into(),
            at: "2026-11-29T12:00:00Z".parse().expect("a time"),
            left: "7".into(),
            current: "8".into(),
            major: 18,
            kept_by: kept_by.map(str::to_owned),
        };
        let mark = |lineage: &Lineage| {
            std::fs::write(current.join(MARK), serde_json::to_vec(lineage).expect("a mark")).expect("a file");
        };
        let name = || name_left(&current, &left, &former);
        std::fs::write(left.join(CONTROL), "").expect("a file");
        name().expect("no upgrade");
        mark(&lineage(Some("chat-db-0")));
        name().expect("a folder that initdb had begun with");
        assert!(left.exists() && !former.exists());
        // What cannot be read may be the only way back.
        std::fs::write(left.join(CONTROL), vec![0; 8192]).expect("a file");
        assert!(name().is_err() || !former.exists());
        assert!(left.exists());
        mark(&lineage(None));
        name().expect("of the way back nothing is kept");
        assert!(left.exists() && !former.exists());
        std::fs::remove_dir_all(root).expect("a folder");
    }
}
