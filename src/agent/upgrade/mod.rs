//! A major upgrade, on the side of an agent (docs/decisions/0066). The leader rehearses it on a copy while it serves, unless
//! a Job does (docs/decisions/0089).
//! Then the others stop, and the leader upgrades a copy of its data directory and exchanges the two directories in one
//! call of the file system: a kill at any point leaves either the former database or the upgraded one. The former
//! directory is not touched, so that it is the way back.

mod build;
mod collations;
pub mod functions;
mod meanings;
mod named;
mod private;
mod published;
pub mod restored;
mod room;
pub mod statistics;
mod switch;
mod tries;
mod words;

use std::path::Path;
use std::time::{Duration, Instant};

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::handover;
use super::lineage;
use super::report::Reporter;
use super::restore::in_place::Start;
use crate::api::names::PostgresNames;
use crate::contract::desired::Desired;
use crate::contract::pod::{PGDATA, PGDATA_FORMER, PGDATA_KEPT, PGDATA_REMOVING, SOCKET_DIR, UPGRADE_TRIED};
use crate::contract::upgrade::{Rehearsed, Stage, Upgrade, UpgradeReport, UpgradeState};
use crate::files;
use crate::postgres::servers;
use crate::restore::control;
use room::{has_room, size_of};

/// The pause between two attempts to write to the volume or to the API server.
const RETRY: Duration = Duration::from_secs(2);

/// What a pod has to do in a stage.
#[derive(Debug, PartialEq)]
enum Part<'a> {
    /// Nothing.
    None,
    /// To rehearse, if it has not, and to serve.
    Rehearse(&'a Upgrade),
    /// To stop.
    Hold(&'a Upgrade),
    /// To start on the other data directory.
    Switch(&'a Upgrade),
}

fn part<'a>(upgrade: Option<&'a Upgrade>, pod: &str) -> Part<'a> {
    let Some(upgrade) = upgrade else { return Part::None };
    match (upgrade.stage, upgrade.pod == pod) {
        (Stage::Rehearse, false) => Part::None,
        (Stage::Rehearse | Stage::Hold, true) => Part::Rehearse(upgrade),
        (Stage::Hold | Stage::Switch, false) => Part::Hold(upgrade),
        (Stage::Switch, true) => Part::Switch(upgrade),
    }
}

/// Waits, before anything of the data directory is used, while this instance is to stand still; exchanges the data
/// directory if it is to; and sets one of the data that was left aside.
///
/// # Errors
/// If a data directory cannot be set aside.
pub async fn settle(
    environment: &Environment,
    client: &kube::Client,
    state: &DesiredState,
    reporter: &Reporter,
) -> std::io::Result<Start> {
    let mut state = state.clone();
    // The copy on the volume may be older than an upgrade that began meanwhile.
    let mut current = match desired::read(environment, client.clone()).await {
        Some(fresh) => std::sync::Arc::new(fresh),
        None => desired::first(&mut state).await,
    };
    loop {
        match part(current.upgrade.as_deref(), &environment.pod) {
            Part::Hold(upgrade) => {
                tracing::info!(id = upgrade.id, "standing still for a major upgrade");
                report(reporter, &upgrade.id, UpgradeState::Held);
            }
            Part::Switch(upgrade) => {
                return Ok(match switch::switch(environment, client, &current, upgrade).await {
                    Ok(lineage) => {
                        // Patroni refuses data of another identifier.
                        switch::record_identifier(environment, client, &lineage.current).await;
                        report(reporter, &upgrade.id, UpgradeState::Switched(lineage));
                        Start::Restored
                    }
                    Err(message) => {
                        tracing::error!(message, "the major upgrade failed; the former data directory is used");
                        report(reporter, &upgrade.id, UpgradeState::Failed { message });
                        Start::Usual
                    }
                });
            }
            Part::Rehearse(_) | Part::None => {
                set_left_aside(&current)?;
                return Ok(Start::Usual);
            }
        }
        desired::changed(&mut state).await;
        current = desired::first(&mut state).await;
    }
}

/// The system identifier of the data directory.
fn identifier() -> Option<String> {
    control::read(Path::new(PGDATA)).ok().map(|control| control.system_identifier)
}

/// Whether a data directory is of the data that an upgrade, or the way back, has left.
fn is_left(identifier: Option<&String>, current: &Desired) -> bool {
    identifier.is_some() && identifier == current.lineage.as_ref().map(|lineage| &lineage.left)
}

/// Sets a data directory that was left aside. It is removed as one that was replaced by a clone (`agent::aside`).
fn set_left_aside(current: &Desired) -> std::io::Result<()> {
    if current.lineage.is_none() || !is_left(identifier().as_ref(), current) {
        return Ok(());
    }
    tracing::warn!("setting the data directory aside: it is of the data that the last major upgrade has left");
    let (kept, removing) = (Path::new(PGDATA_KEPT), Path::new(PGDATA_REMOVING));
    files::remove_tree(removing)?;
    if kept.exists() {
        files::rename(kept, removing)?;
        files::remove_tree(removing)?;
    }
    files::rename(Path::new(PGDATA), kept)
}

fn report(reporter: &Reporter, id: &str, state: UpgradeState) {
    reporter.update(|report| report.upgrade = Some(Box::new(UpgradeReport { id: id.to_owned(), state })));
}

/// Resolves when PostgreSQL of this pod has to stop for a major upgrade.
pub async fn must_stop(pod: String, mut state: DesiredState, reporter: Reporter) {
    let own = identifier();
    loop {
        let current = desired::first(&mut state).await;
        match part(current.upgrade.as_deref(), &pod) {
            Part::Hold(_) => return,
            Part::Switch(upgrade) => match reporter.upgrade(&upgrade.id) {
                // It was tried.
                Some(UpgradeState::Switched(_) | UpgradeState::Failed { .. }) => {}
                _ => return,
            },
            // This instance was away.
            Part::None if is_left(own.as_ref(), &current) => return,
            Part::None | Part::Rehearse(_) => {}
        }
        desired::changed(&mut state).await;
    }
}

/// Rehearses upgrades while this instance serves, and removes what they leave.
pub async fn follow(environment: Environment, mut state: DesiredState, reporter: Reporter) {
    if reporter.has_upgraded() {
        let (mut state, reporter) = (state.clone(), reporter.clone());
        tokio::spawn(async move {
            let database = desired::first(&mut state).await.database.clone();
            statistics::collect(SOCKET_DIR, &database, &reporter).await;
        });
    }
    loop {
        let current = desired::first(&mut state).await;
        match part(current.upgrade.as_deref(), &environment.pod) {
            // What is written now is not written while nobody can connect.
            Part::Rehearse(upgrade) if upgrade.stage == Stage::Hold => handover::checkpoint().await,
            // A Job rehearses, and cannot see this volume.
            Part::Rehearse(upgrade) if upgrade.rehearsal.is_some() && reporter.upgrade(&upgrade.id).is_none() => {
                let state = match has_room_for_copy().await {
                    Ok(()) => UpgradeState::HasRoom,
                    Err(message) => UpgradeState::Failed { message },
                };
                report(&reporter, &upgrade.id, state);
            }
            // Not again by an agent that was killed afterwards: it would keep the primary busy while it is to stop.
            Part::Rehearse(upgrade) if upgrade.stage == Stage::Rehearse && reporter.upgrade(&upgrade.id).is_none() => {
                let mut changes = state.clone();
                let rehearsed = async {
                    reporter.leads().await;
                    let own = (environment.pod.as_str(), environment.names.namespace.as_str());
                    tries::begin(Path::new(UPGRADE_TRIED), &upgrade.id, own)?;
                    tokio::select! {
                        rehearsed = rehearse(&environment, &current, upgrade) => rehearsed,
                        full = until_full() => Err(full),
                    }
                };
                let ended = tokio::select! {
                    rehearsed = rehearsed => Some(rehearsed),
                    () = other(&mut changes, upgrade) => None,
                };
                if let Err(error) = build::clear() {
                    tracing::warn!(%error, "the copy of the rehearsal cannot be removed");
                }
                tries::end(Path::new(UPGRADE_TRIED));
                match ended {
                    Some(Ok(rehearsed)) => report(&reporter, &upgrade.id, UpgradeState::Rehearsed(rehearsed)),
                    Some(Err(message)) => {
                        tracing::error!(message, "the rehearsal of the major upgrade failed");
                        report(&reporter, &upgrade.id, UpgradeState::Failed { message });
                    }
                    None => continue,
                }
            }
            Part::None => {
                if let Err(error) = tidy(&current, &environment.pod) {
                    tracing::warn!(%error, "what a major upgrade left cannot be removed; retrying");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                let former = servers::major_of(Path::new(PGDATA_FORMER)).unwrap_or_default();
                // The operator of a resource that has adopted the data has it from nowhere else.
                let unknown = lineage::of(Path::new(PGDATA)).filter(|_| current.lineage.is_none());
                reporter.update(|report| {
                    report.former_major = Some(former);
                    report.lineage = unknown.map(Box::new);
                });
            }
            _ => {}
        }
        desired::changed(&mut state).await;
    }
}

/// Removes the copies, and the former data directory once it is given up.
fn tidy(current: &Desired, pod: &str) -> std::io::Result<()> {
    // It may still have the name of a copy.
    switch::name_former()?;
    build::clear()?;
    let former = Path::new(PGDATA_FORMER);
    // Only where the operator knows of the upgrade.
    let is_given_up = current.lineage.as_ref().is_some_and(|lineage| lineage.kept_by.as_deref() != Some(pod));
    if !is_given_up || !former.exists() {
        return Ok(());
    }
    tracing::info!("removing {PGDATA_FORMER}");
    let removing = Path::new(PGDATA_REMOVING);
    files::remove_tree(removing)?;
    // Under another name: a part of it never looks like a whole one.
    files::rename(former, removing)?;
    files::remove_tree(removing)
}

/// Resolves when another upgrade is desired, or none.
async fn other(state: &mut DesiredState, upgrade: &Upgrade) {
    loop {
        let current = desired::first(state).await;
        if current.upgrade.as_ref().is_none_or(|now| now.id != upgrade.id) {
            return;
        }
        desired::changed(state).await;
    }
}

/// Resolves when the copy leaves the running database too little room.
async fn until_full() -> String {
    loop {
        tokio::time::sleep(RETRY).await;
        if let Err(problem) = has_room(0) {
            return problem;
        }
    }
}

/// Whether the volume has room for the copy that the exchange makes.
async fn has_room_for_copy() -> Result<(), String> {
    has_room(size_of(Path::new(PGDATA)).await?)
}

/// Upgrades a copy of the running database.
async fn rehearse(environment: &Environment, current: &Desired, upgrade: &Upgrade) -> Result<Rehearsed, String> {
    tracing::info!(from = upgrade.from, to = upgrade.to, "rehearsing a major upgrade on a copy of the database");
    build::clear().map_err(|error| format!("the volume: {error}"))?;
    has_room_for_copy().await?;
    let copied = Instant::now();
    build::back_up(SOCKET_DIR, PostgresNames::REPLICATOR, upgrade.from).await?;
    let copying = copied.elapsed();
    let started = Instant::now();
    let server = build::Server::of_pod(environment, current);
    let built = build::upgrade(&server, upgrade.from, upgrade.to).await?;
    let seconds = (copying + started.elapsed()).as_secs() + 1;
    tracing::info!(seconds, "the major upgrade was rehearsed");
    Ok(Rehearsed { seconds, upgrade_seconds: built.upgrade.as_secs(), warnings: built.warnings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::upgrade::Lineage;

    fn upgrade(stage: Stage) -> Upgrade {
        let since = "2026-11-29T12:00:00Z".parse().expect("a time");
        Upgrade {
            id: "i".into(),
            pod: "chat-db-0".into(),
            from: 17,
            to: 18,
            stage,
            since,
            limit_seconds: 60,
            rehearsal: None,
            warnings: Vec::new(),
            rehearsed: None,
        }
    }

    #[test]
    fn the_others_stand_still_from_the_second_stage_on_and_the_leader_in_the_third() {
        let stages = [Stage::Rehearse, Stage::Hold, Stage::Switch].map(upgrade);
        let [rehearse, hold, switch] = &stages;
        assert_eq!(part(None, "chat-db-0"), Part::None);
        assert_eq!(
            stages.each_ref().map(|it| part(Some(it), "chat-db-0")),
            [Part::Rehearse(rehearse), Part::Rehearse(hold), Part::Switch(switch)]
        );
        assert_eq!(
            stages.each_ref().map(|it| part(Some(it), "chat-db-1")),
            [Part::None, Part::Hold(hold), Part::Hold(switch)]
        );
        assert!(!rehearse.is_back() && Upgrade { from: 18, to: 17, ..rehearse.clone() }.is_back());
    }

    #[test]
    fn only_data_of_the_identifier_that_was_left_is_set_aside() {
        let lineage = |left: &str| Lineage {
            id: "i".into(),
            at: "2026-11-29T12:00:00Z".parse().expect("a time"),
            left: left.into(),
            current: "8".into(),
            major: 18,
            kept_by: None,
        };
        let desired = |left| Desired { lineage: Some(Box::new(lineage(left))), ..Desired::sample() };
        let own = "7".to_owned();
        assert!(is_left(Some(&own), &desired("7")));
        assert!(!is_left(Some(&own), &desired("6")), "restored or adopted: kept");
        assert!(!is_left(None, &desired("7")), "no data");
        assert!(!is_left(Some(&own), &Desired::sample()));
    }
}
