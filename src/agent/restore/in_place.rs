//! A restore in place, on the side of an agent (docs/decisions/0037). The leader restores beside its data directory
//! while it serves. Then the others stop, and the leader exchanges the two directories in one call of the file system
//! and starts on the restored one: a kill at any point leaves either the former database or the restored one.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use super::{leave_behind, logins, summary};
use crate::agent::archive::{self, Archive};
use crate::agent::desired::{self, DesiredState};
use crate::agent::environment::Environment;
use crate::agent::lineage;
use crate::agent::records::Source;
use crate::agent::report::Reporter;
use crate::agent::settings;
use crate::agent::volume;
use crate::contract::desired::Desired;
use crate::contract::in_place::{InPlace, InPlaceReport, InPlaceState, Prepared, Stage, Switched};
use crate::contract::pod::{PGDATA, PGDATA_KEPT, PGDATA_REMOVING, PGDATA_RESTORED, SOCKET_DIR, VOLUME};
use crate::files;
use crate::pgbackrest::secrets::Secrets;
use crate::postgres::over_socket;
use crate::restore::{self, control, recovery};

/// The file in a restored folder that says which restore it is of.
const MARK: &str = "servicedb.restored.json";
/// The pause between two attempts to remove the former data directory, and between two looks at the room.
const RETRY: Duration = Duration::from_secs(10);

/// The content of [`MARK`].
#[derive(Serialize, Deserialize)]
struct Mark {
    id: String,
    prepared: Prepared,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    switched: Option<Switched>,
}

/// What a pod has to do in a stage.
#[derive(Debug, PartialEq)]
enum Part<'a> {
    /// Nothing.
    None,
    /// To restore beside its data directory, if it has not, and to serve.
    Prepare(&'a InPlace),
    /// To stop.
    Hold(&'a InPlace),
    /// To start on the restored folder.
    Switch(&'a InPlace),
}

fn part<'a>(in_place: Option<&'a InPlace>, pod: &str) -> Part<'a> {
    let Some(in_place) = in_place else { return Part::None };
    match (in_place.stage, in_place.pod == pod) {
        (Stage::Prepare, false) => Part::None,
        (Stage::Prepare | Stage::Hold, true) => Part::Prepare(in_place),
        (Stage::Hold | Stage::Switch, false) => Part::Hold(in_place),
        (Stage::Switch, true) => Part::Switch(in_place),
    }
}

/// How an instance starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As always.
    Usual,
    /// As the primary: its data directory is the restored one, and no other instance runs.
    Restored,
}

/// Waits, before anything of the data directory is used, while this instance is to stand still; exchanges the data
/// directory if it is to; and sets one of a state that was left aside.
///
/// # Errors
/// If the data directory of a left state cannot be set aside.
pub async fn settle(
    environment: &Environment,
    client: kube::Client,
    state: &DesiredState,
    archive: &Archive,
    reporter: &Reporter,
) -> std::io::Result<Start> {
    let mut state = state.clone();
    // The copy on the volume may be older than a restore that began meanwhile.
    let mut current = match desired::read(environment, client).await {
        Some(fresh) => std::sync::Arc::new(fresh),
        None => desired::first(&mut state).await,
    };
    loop {
        match part(current.in_place.as_ref(), &environment.pod) {
            Part::Hold(in_place) => {
                tracing::info!(id = in_place.id, "standing still for a restore in place");
                report(reporter, &in_place.id, InPlaceState::Held);
            }
            Part::Switch(in_place) => {
                return Ok(match switch(&current, archive, in_place).await {
                    Ok(switched) => {
                        report(reporter, &in_place.id, InPlaceState::Switched(switched));
                        if let Err(error) = make_primary(Path::new(PGDATA)) {
                            tracing::warn!(%error, "the restored instance may start as a replica");
                        }
                        Start::Restored
                    }
                    Err(message) => {
                        // A later attempt must not succeed: the operator may have seen this one's failure.
                        if let Err(error) = files::remove_file(&Path::new(PGDATA_RESTORED).join(MARK)) {
                            tracing::warn!(%error, "the mark of the restored folder cannot be removed");
                        }
                        tracing::error!(message, "the data directory is not replaced");
                        report(reporter, &in_place.id, InPlaceState::Failed { message });
                        Start::Usual
                    }
                });
            }
            Part::Prepare(in_place) => {
                if let Some(mark) = read_mark(Path::new(PGDATA_RESTORED)).filter(|mark| mark.id == in_place.id) {
                    report(reporter, &in_place.id, InPlaceState::Prepared(mark.prepared));
                }
                return Ok(Start::Usual);
            }
            Part::None => {
                set_left_aside(&current)?;
                return Ok(Start::Usual);
            }
        }
        desired::changed(&mut state).await;
        current = desired::first(&mut state).await;
    }
}

/// Sets a data directory of a state that a restore in place has left aside: it is in the archive, and Patroni would try
/// to continue with it. It is removed as one that was replaced by a clone (`agent::aside`).
fn set_left_aside(current: &Desired) -> std::io::Result<()> {
    let folder = Path::new(PGDATA);
    if current.branch.is_none() || !folder.exists() {
        return Ok(());
    }
    match control::read(folder) {
        Ok(control) => {
            let branch = lineage::branch(current, folder, Some(&control.system_identifier));
            let Some(branch) = branch.filter(|branch| control.timeline < *branch) else { return Ok(()) };
            tracing::warn!(
                timeline = control.timeline,
                "setting the data directory aside: it is of the state before the last restore in place, which began \
                 the timeline {branch}"
            );
            let (kept, removing) = (Path::new(PGDATA_KEPT), Path::new(PGDATA_REMOVING));
            files::remove_tree(removing)?;
            if kept.exists() {
                files::rename(kept, removing)?;
                files::remove_tree(removing)?;
            }
            files::rename(folder, kept)
        }
        Err(problem) => {
            tracing::warn!(problem, "the timeline of the data directory is unknown");
            Ok(())
        }
    }
}

/// Makes the restored folder the data directory, unless it is already; returns since when it is.
async fn switch(desired: &Desired, archive: &Archive, in_place: &InPlace) -> Result<Switched, String> {
    let id = in_place.id.as_str();
    let (current, restored) = (Path::new(PGDATA), Path::new(PGDATA_RESTORED));
    if let Some(switched) = read_mark(current).filter(|mark| mark.id == id).and_then(|mark| mark.switched) {
        return Ok(switched);
    }
    if !current.exists() && !restored.exists() {
        return Err("the volume of this instance is empty, so the others continue with the former state".to_owned());
    }
    let Some(mut mark) = read_mark(restored).filter(|mark| mark.id == id) else {
        return Err(format!("{PGDATA_RESTORED} is not the folder of this restore: request it again"));
    };
    let control = control::read(current)?;
    let left = Left::read(desired, archive, &in_place.store, &control).await?;
    check_left(&control, mark.prepared.timeline, &left)?;
    let switched = Switched {
        at: Timestamp::now(),
        left: control.timeline,
        timeline: mark.prepared.timeline,
        system_identifier: Some(control.system_identifier),
        store: Some(in_place.store.clone()),
    };
    mark.switched = Some(switched.clone());
    write_mark(restored, &mark).map_err(|error| format!("{PGDATA_RESTORED}: {error}"))?;
    renameat2(AT_FDCWD, restored, AT_FDCWD, current, RenameFlags::RENAME_EXCHANGE)
        .map_err(|error| format!("the file system of the volume cannot exchange two folders: {error}"))?;
    // From here on it is done, whatever fails.
    let parent = current.parent().unwrap_or(current);
    if let Err(error) = File::open(parent).and_then(|parent| parent.sync_all()) {
        tracing::warn!(%error, "the exchange of the folders may not be durable yet");
    }
    tracing::info!(mark.prepared.summary, timeline = mark.prepared.timeline, "the data directory is replaced");
    Ok(switched)
}

/// Lets the restored instance start as the primary, although Patroni may have made it a replica since: no other one
/// runs.
fn make_primary(folder: &Path) -> std::io::Result<()> {
    files::remove_file(&folder.join("standby.signal"))?;
    files::remove_file(&folder.join("recovery.signal"))
}

/// What the store that the restore came from has of the state that is left.
struct Left<'a> {
    store: &'a str,
    is_given_up: bool,
    /// The number of files of WAL that it lacks.
    missing: usize,
}

impl<'a> Left<'a> {
    async fn read(
        desired: &Desired,
        archive: &Archive,
        store: &'a str,
        control: &control::Control,
    ) -> Result<Self, String> {
        let found = desired.nth_of(store).and_then(|nth| Some((nth, desired.archive_in(nth)?)));
        let Some((nth, place)) = found else { return Err(undeclared(store)) };
        let is_one_of_two = desired.archive_in(nth.other()).is_some();
        // Without a clean shutdown its last WAL is not complete.
        let missing = if control.is_shut_down { archive.missing_wal(nth, place, is_one_of_two).await? } else { 0 };
        Ok(Self { store, is_given_up: archive.has_given_up(nth), missing })
    }
}

fn undeclared(store: &str) -> String {
    format!("spec.backup does not name the store {store} any more: request the restore again")
}

/// Checks that the way back exists: everything of the state that is left is in the archive.
fn check_left(control: &control::Control, restored: u32, left: &Left<'_>) -> Result<(), String> {
    if !control.is_shut_down {
        return Err(
            "PostgreSQL was not shut down cleanly, so its last WAL is not archived: request the restore again, \
                    once the database is available"
                .to_owned(),
        );
    }
    let Left { store, missing, .. } = left;
    if left.is_given_up {
        return Err(format!(
            "WAL was given up for the store {store} before the stop, so there would be no way back: see \
             ContinuousArchiving, and request the restore again after the full backup that follows"
        ));
    }
    if *missing > 0 {
        return Err(format!(
            "{missing} files of WAL could not be archived to the store {store}, so there would be no way back: see \
             ContinuousArchiving, and request the restore again"
        ));
    }
    if restored <= control.timeline {
        return Err(format!(
            "the restored folder is of the timeline {restored}, and the database is on {} meanwhile: request the \
             restore again",
            control.timeline
        ));
    }
    Ok(())
}

fn read_mark(folder: &Path) -> Option<Mark> {
    serde_json::from_slice(&std::fs::read(folder.join(MARK)).ok()?).ok()
}

/// Writes the mark of a folder that is complete, and makes all of it durable.
fn write_mark(folder: &Path, mark: &Mark) -> std::io::Result<()> {
    let (name, new) = (folder.join(MARK), folder.join(MARK).with_extension("new"));
    std::fs::write(&new, serde_json::to_vec(mark).map_err(std::io::Error::other)?)?;
    std::fs::rename(new, name)?;
    files::write_out(folder)
}

fn report(reporter: &Reporter, id: &str, state: InPlaceState) {
    reporter.update(|report| report.in_place = Some(InPlaceReport { id: id.to_owned(), state }));
}

/// Resolves when PostgreSQL of this pod has to stop for a restore in place.
pub async fn must_stop(pod: String, mut state: DesiredState, reporter: Reporter) {
    // Of a state that was left, if the branch that holds began later: this instance was away.
    let control = control::read(Path::new(PGDATA)).ok();
    let is_left = |current: &Desired| {
        let Some(control) = &control else { return false };
        let branch = lineage::branch(current, Path::new(PGDATA), Some(&control.system_identifier));
        branch.is_some_and(|branch| control.timeline < branch)
    };
    loop {
        let current = desired::first(&mut state).await;
        if current.in_place.is_none() && is_left(&current) {
            return;
        }
        match part(current.in_place.as_ref(), &pod) {
            Part::Hold(_) => return,
            Part::Switch(in_place) => match reporter.in_place(&in_place.id) {
                // It was tried.
                Some(InPlaceState::Switched(_) | InPlaceState::Failed { .. }) => {}
                _ => return,
            },
            Part::None | Part::Prepare(_) => {}
        }
        desired::changed(&mut state).await;
    }
}

/// Prepares restores while this instance serves, and removes what they leave.
pub async fn follow(environment: Environment, mut state: DesiredState, records: Source, reporter: Reporter) {
    loop {
        let current = desired::first(&mut state).await;
        match part(current.in_place.as_ref(), &environment.pod) {
            Part::Prepare(in_place) if reporter.in_place(&in_place.id).is_none() => {
                let mut changes = state.clone();
                let prepared = async {
                    reporter.leads().await;
                    tokio::select! {
                        prepared = prepare(&environment, &records, &current, in_place) => prepared,
                        full = until_full() => Err(full),
                    }
                };
                tokio::select! {
                    prepared = prepared => {
                        let state = match prepared {
                            Ok(prepared) => InPlaceState::Prepared(prepared),
                            Err(message) => {
                                if let Err(error) = files::remove_tree(Path::new(PGDATA_RESTORED)) {
                                    tracing::warn!(%error, "{PGDATA_RESTORED} cannot be removed");
                                }
                                tracing::error!(message, "the restore in place failed");
                                InPlaceState::Failed { message }
                            }
                        };
                        report(&reporter, &in_place.id, state);
                    }
                    () = other(&mut changes, in_place) => continue,
                }
            }
            Part::None if Path::new(PGDATA_RESTORED).exists() => {
                if let Err(error) =
                    tokio::task::spawn_blocking(remove_former).await.unwrap_or_else(|error| Err(error.into()))
                {
                    tracing::warn!(%error, "{PGDATA_RESTORED} cannot be removed; retrying");
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = desired::changed(&mut state) => {}
                    }
                    continue;
                }
            }
            _ => {}
        }
        desired::changed(&mut state).await;
    }
}

/// Removes the folder under another name: a part of it never looks like a whole one.
fn remove_former() -> std::io::Result<()> {
    let removing = Path::new(PGDATA_REMOVING);
    files::remove_tree(removing)?;
    files::rename(Path::new(PGDATA_RESTORED), removing)?;
    files::remove_tree(removing)
}

/// Resolves when another restore is desired, or none.
async fn other(state: &mut DesiredState, in_place: &InPlace) {
    loop {
        let current = desired::first(state).await;
        if current.in_place.as_ref().is_none_or(|now| now.id != in_place.id) {
            return;
        }
        desired::changed(state).await;
    }
}

/// Resolves when the restore leaves the running database too little room.
async fn until_full() -> String {
    loop {
        tokio::time::sleep(RETRY).await;
        if let (Ok(free), Ok(size)) = (files::free(Path::new(VOLUME)), volume::size())
            && free < archive::room(size)
        {
            return format!(
                "the volume has {free} bytes free beside the restored state, so WAL of the running database would be \
                 given up: set a larger spec.storage.size"
            );
        }
    }
}

async fn prepare(
    environment: &Environment,
    records: &Source,
    desired: &Desired,
    in_place: &InPlace,
) -> Result<Prepared, String> {
    let place = desired.nth_of(&in_place.store).and_then(|nth| desired.archive_in(nth));
    let Some(place) = place else { return Err(undeclared(&in_place.store)) };
    let folder = Path::new(PGDATA_RESTORED);
    let vault = records.open().await.map_err(|error| error.to_string())?.vault;
    let secrets = Secrets::read(&*vault, place).await.map_err(|error| error.to_string())?;
    // What was committed until now is in the archive then.
    end_segment().await?;
    let size = volume::size().map_err(|error| format!("the volume: {error}"))?;
    let running = control::read(Path::new(PGDATA))?;
    let target = &in_place.target;
    let restored = restore::Restore {
        folder,
        // Otherwise WAL of the running database could be given up.
        spare: 2 * archive::room(size),
        place,
        target,
        timeline: in_place.timeline,
        database: Some(running.system_identifier.as_str()),
        secrets: &secrets,
        refuses_damage: false,
        settings: recovery::write_settings,
    };
    let restored = restored.run().await?;
    logins::keep(&environment.names.postgres(&desired.database)).await?;
    let summary = summary(&environment.names.name, target, &restored);
    restored.server.stop().await?;
    leave_behind(folder)?;
    settings::write_restored(&environment.names, desired, folder).map_err(|error| format!("the settings: {error}"))?;
    let restored = control::read(folder)?;
    if restored.system_identifier != running.system_identifier {
        return Err("that state is from before the last major upgrade: restore it into a new database with \
                    spec.bootstrap.restore (docs/upgrades.md)"
            .to_owned());
    }
    let prepared = Prepared { summary, timeline: restored.timeline };
    let mark = Mark { id: in_place.id.clone(), prepared, switched: None };
    write_mark(folder, &mark).map_err(|error| format!("{PGDATA_RESTORED}: {error}"))?;
    tracing::info!(mark.prepared.summary, timeline = mark.prepared.timeline, "the restore in place is prepared");
    Ok(mark.prepared)
}

async fn end_segment() -> Result<(), String> {
    let connection = over_socket(SOCKET_DIR, "postgres", "servicedb agent").await.map_err(|error| error.to_string())?;
    let ended = connection.client.batch_execute("SELECT pg_catalog.pg_switch_wal()").await;
    ended.map_err(|error| crate::postgres::describe(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::backup::Target;

    fn in_place(stage: Stage) -> InPlace {
        let since = "2026-11-29T12:00:00Z".parse().expect("a time");
        InPlace {
            id: "i".into(),
            pod: "chat-db-0".into(),
            target: Target::Latest,
            timeline: None,
            store: "main".into(),
            stage,
            since,
        }
    }

    #[test]
    fn the_others_stand_still_from_the_second_stage_on_and_the_leader_in_the_third() {
        let stages = [Stage::Prepare, Stage::Hold, Stage::Switch].map(in_place);
        let [prepare, hold, switch] = &stages;
        assert_eq!(part(None, "chat-db-0"), Part::None);
        assert_eq!(
            stages.each_ref().map(|it| part(Some(it), "chat-db-0")),
            [Part::Prepare(prepare), Part::Prepare(hold), Part::Switch(switch)]
        );
        assert_eq!(
            stages.each_ref().map(|it| part(Some(it), "chat-db-1")),
            [Part::None, Part::Hold(hold), Part::Hold(switch)]
        );
    }

    #[test]
    fn nothing_is_replaced_that_could_not_be_brought_back() {
        let control = |timeline, is_shut_down| control::Control {
            timeline,
            is_shut_down,
            prepared_transactions: 0,
            system_identifier: "7".to_owned(),
            checkpoint: "0/5000028".to_owned(),
        };
        let left = |missing| Left { store: "other", is_given_up: false, missing };
        assert_eq!(check_left(&control(3, true), 4, &left(0)), Ok(()));
        let said = |control, missing| check_left(&control, 4, &left(missing)).expect_err("a refusal");
        assert!(said(control(3, false), 0).contains("shut down cleanly"));
        let lacks = said(control(3, true), 2);
        assert!(lacks.contains("2 files of WAL") && lacks.contains("the store other"), "{lacks}");
        let given_up = Left { is_given_up: true, ..left(0) };
        let lost = check_left(&control(3, true), 4, &given_up).expect_err("no way back");
        assert!(lost.contains("given up for the store other"), "{lost}");
        assert!(said(control(4, true), 0).contains("timeline 4"), "a failover took the same number");
    }
}
