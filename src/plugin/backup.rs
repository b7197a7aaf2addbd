//! `kubectl servicedb backup` and `verify-backup`: request a backup, or a test of the newest one, and follow the Job
//! to its end; `kubectl servicedb backups` lists what the store has.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::args::Connection;
use super::connection::{self, PluginError, annotate, connect, read};
use super::psql;
use crate::api::names::{ANNOTATION_BACKUP, ANNOTATION_BACKUP_STORE, ANNOTATION_BACKUP_TYPE, ANNOTATION_VERIFY_BACKUP};
use crate::api::{BackupStatus, JobRun, RecoveryWindow, RequestState, ServiceDatabase};
use crate::contract::recovery_window::{database_at, database_from};

/// The interval at which status is read.
const POLL: Duration = Duration::from_millis(500);
/// How long the leader may take to read the store after a backup.
const READS: Duration = Duration::from_secs(60);

/// The request.
#[derive(Clone, Debug)]
pub enum Request {
    /// A backup, full or incremental.
    Backup {
        /// Whether it is a full one.
        full: bool,
        /// The store; none: each.
        store: Option<String>,
    },
    /// A test of the newest backup.
    Verification,
}

impl Request {
    fn annotations(&self, token: &str) -> Vec<(&'static str, Option<String>)> {
        match self {
            // A type or a store of an earlier request does not apply to this one.
            Self::Backup { full, store } => vec![
                (ANNOTATION_BACKUP, Some(token.to_owned())),
                (ANNOTATION_BACKUP_TYPE, full.then(|| "Full".to_owned())),
                (ANNOTATION_BACKUP_STORE, store.clone()),
            ],
            Self::Verification => vec![(ANNOTATION_VERIFY_BACKUP, Some(token.to_owned()))],
        }
    }

    /// The stores in each of which a Job answers it. The test of a backup is one Job.
    fn stores(&self, name: &str, backup: &BackupStatus) -> Result<Vec<String>, String> {
        match self {
            Self::Verification => Ok(vec![backup.store.clone()]),
            Self::Backup { store: None, .. } => Ok(backup.stores().map(|one| one.store.clone()).collect()),
            Self::Backup { store: Some(store), .. } => {
                let found = backup.stores().any(|one| one.store == *store);
                if found { Ok(vec![store.clone()]) } else { Err(unknown_store(name, store, backup)) }
            }
        }
    }

    fn answer<'a>(&self, resource: &'a ServiceDatabase, store: &str, token: &str) -> Option<&'a JobRun> {
        let backup = backup(resource)?;
        let run = match self {
            Self::Backup { .. } => in_store(backup, store)?.last_run.as_ref().map(|last| &last.run),
            Self::Verification => backup.last_verification.as_ref(),
        };
        run.filter(|run| run.request.as_deref() == Some(token))
    }

    /// What status says of a Job that succeeded; none before it does.
    fn result(&self, resource: &ServiceDatabase, store: &str, run: &JobRun) -> Option<String> {
        let backup = backup(resource)?;
        match self {
            Self::Backup { .. } => {
                let newest = in_store(backup, store)?.newest.as_ref()?;
                (newest.finished_at.0 >= run.started_at.0).then(|| {
                    let (label, kind, bytes) = (&newest.label, newest.kind, newest.stored_bytes);
                    format!("{label} is in the store {store}: {kind:?}, {bytes} bytes")
                })
            }
            Self::Verification => {
                let verified = backup.verified.as_ref()?;
                let of = verified.store.as_ref().map(|store| format!(" of the store {store}")).unwrap_or_default();
                Some(format!(
                    "{}{of} was restored in {} s and checked in {} s",
                    verified.label, verified.restore_seconds, verified.check_seconds
                ))
            }
        }
    }
}

/// A Job that answers a request, and what was printed of it.
struct Followed {
    store: String,
    /// The beginning of its lines.
    heading: String,
    shown: String,
    /// Since when the result is not in status although the Job has succeeded.
    unread_since: Option<Instant>,
    /// Whether it succeeded, once it has ended.
    result: Option<bool>,
}

impl Followed {
    fn new(store: String, is_one_of_two: bool) -> Self {
        let heading = if is_one_of_two { format!("store {store}: ") } else { String::new() };
        Self { store, heading, shown: String::new(), unread_since: None, result: None }
    }

    /// Prints what has changed.
    fn look(&mut self, request: &Request, resource: &ServiceDatabase, token: &str) {
        let heading = &self.heading;
        let Some(run) = request.answer(resource, &self.store, token) else {
            let fails =
                archiving_problem(resource).filter(|problem| problem.contains(&format!("store {}: ", self.store)));
            return self.show(fails.map(|problem| format!("waiting: {problem}")).unwrap_or_default());
        };
        match run.state {
            RequestState::Running => {
                let line = format!("{heading}{}", progress(run));
                self.show(line);
            }
            RequestState::Failed => {
                eprintln!("error: {heading}{}: {}", run.job, run.message.as_deref().unwrap_or_default());
                self.result = Some(false);
            }
            RequestState::Done => {
                let since = *self.unread_since.get_or_insert_with(Instant::now);
                if let Some(result) = request.result(resource, &self.store, run) {
                    println!("{result}");
                    self.result = Some(true);
                } else if since.elapsed() >= READS {
                    println!("{heading}the Job {} succeeded; the primary has not read the store since", run.job);
                    self.result = Some(true);
                }
            }
        }
    }

    fn show(&mut self, now: String) {
        if now != self.shown && !now.is_empty() {
            println!("{now}");
            self.shown = now;
        }
    }
}

/// Sends the request, and waits for its end, if there is a time to wait.
///
/// # Errors
/// If the resource cannot be read or changed.
pub async fn run(
    connection: &Connection,
    name: &str,
    request: Request,
    timeout: Duration,
) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let stores = match backup(&resource) {
        None => Err(no_store(name)),
        Some(backup) => request.stores(name, backup),
    };
    let stores = match stores {
        Ok(stores) => stores,
        Err(problem) => {
            eprintln!("error: {problem}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let token = k8s_openapi::jiff::Timestamp::now().to_string();
    annotate(&client, &namespace, name, &request.annotations(&token)).await?;
    if timeout.is_zero() {
        println!("requested; kubectl servicedb status {name} -n {namespace} shows its progress");
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = Instant::now() + timeout;
    let is_one_of_two = stores.len() > 1;
    let mut followed: Vec<_> = stores.into_iter().map(|store| Followed::new(store, is_one_of_two)).collect();
    // One that is away does not hide the result of the other.
    while followed.iter().any(|it| it.result.is_none()) {
        let resource = read(&client, &namespace, name).await?;
        for it in followed.iter_mut().filter(|it| it.result.is_none()) {
            it.look(&request, &resource, &token);
        }
        // One that has succeeded is followed for as long as the primary may take to read the store.
        let late: Vec<_> = followed.iter().filter(|it| it.result.is_none() && it.unread_since.is_none()).collect();
        if Instant::now() >= deadline && !late.is_empty() {
            for it in late {
                let run = request.answer(&resource, &it.store, &token);
                let (heading, state) = (&it.heading, run.map_or_else(|| waits(&resource, &it.store), progress));
                eprintln!("error: {heading}no result within {} s: {state}; the request is kept", timeout.as_secs());
            }
            return Ok(ExitCode::FAILURE);
        }
        if followed.iter().any(|it| it.result.is_none()) {
            tokio::time::sleep(POLL).await;
        }
    }
    if followed.iter().all(|it| it.result == Some(true)) {
        return Ok(ExitCode::SUCCESS);
    }
    if matches!(request, Request::Backup { .. }) {
        eprintln!(
            "the backup is tried again until it succeeds (kubectl servicedb status {name} -n {namespace}); to cancel it: \
             kubectl annotate -n {namespace} servicedatabase {name} {ANNOTATION_BACKUP}-"
        );
    }
    Ok(ExitCode::FAILURE)
}

/// Why there are no backups of a database whose status has none.
pub fn no_store(name: &str) -> String {
    format!("{name} has no store for backups: see spec.backup, and backup.stores of the installation (docs/backups.md)")
}

/// Why a store cannot be used that a database does not have.
pub fn unknown_store(name: &str, store: &str, backup: &BackupStatus) -> String {
    let known: Vec<_> = backup.stores().map(|one| one.store.as_str()).collect();
    format!("the store {store} is none of {name}, which has its backups in {}: name one of these", known.join(" and "))
}

fn backup(resource: &ServiceDatabase) -> Option<&BackupStatus> {
    resource.status.as_ref()?.backup.as_ref()
}

fn in_store<'a>(backup: &'a BackupStatus, store: &str) -> Option<&'a BackupStatus> {
    backup.stores().find(|one| one.store == store)
}

fn progress(run: &JobRun) -> String {
    let waits = run.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("the Job {} runs{waits}", run.job)
}

/// Why no Job was created for the request in this store.
fn waits(resource: &ServiceDatabase, store: &str) -> String {
    // The stores of a database have their backups one after the other.
    let stores = backup(resource).into_iter().flat_map(BackupStatus::stores).filter(|one| one.store != store);
    let mut runs = stores.filter_map(|other| {
        let run = &other.last_run.as_ref()?.run;
        (run.state == RequestState::Running).then_some((&run.job, &other.store))
    });
    if let Some((job, other)) = runs.next() {
        return format!("it is not its turn yet: the Job {job} makes the backup in the store {other} first");
    }
    archiving_problem(resource)
        .unwrap_or("no Job was created; others may run on this store (backup.concurrency)")
        .to_owned()
}

/// The message of the condition ContinuousArchiving, unless it is True.
fn archiving_problem(resource: &ServiceDatabase) -> Option<&str> {
    let mut conditions = resource.status.iter().flat_map(|status| &status.conditions);
    let archiving = conditions.find(|condition| condition.type_ == "ContinuousArchiving")?;
    (archiving.status != "True").then_some(archiving.message.as_str())
}

/// Lists what the store has, from the primary's pod.
///
/// # Errors
/// If there is no primary to go to, or kubectl cannot be run.
pub async fn list(connection: &Connection, name: &str) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connection::connect(connection).await?;
    let resource = connection::read(&client, &namespace, name).await?;
    let Some(backup) = backup(&resource) else {
        eprintln!("error: {}", no_store(name));
        return Ok(ExitCode::FAILURE);
    };
    let mut command = psql::in_primary(connection, &client, &namespace, &resource, &["servicedb", "backups"]).await?;
    // The pod knows its stores by the fields that name them.
    if let Some(stores) = stores(backup) {
        println!("{stores}");
    }
    let ended = psql::end_with(&mut command).await;
    for line in windows(backup).into_iter().chain(left_windows(backup)) {
        println!("{line}");
    }
    ended
}

/// The names of two stores, by the headings of their lists.
fn stores(backup: &BackupStatus) -> Option<String> {
    let second = backup.second.as_ref()?;
    Some(format!("spec.backup.store is {}, spec.backup.secondStore is {}", backup.store, second.store))
}

/// The spans to which each store can recover the database, where an upgrade made several of one.
fn windows(backup: &BackupStatus) -> Vec<String> {
    let left = &backup.left_databases;
    let present = database_at(left, None);
    let of_store = |store: &BackupStatus| {
        let of = backup.second.as_ref().map(|_| format!(" in the store {}", store.store)).unwrap_or_default();
        let line = |window: &RecoveryWindow| {
            let until = window.until.as_ref().map_or_else(|| "on".to_owned(), |until| format!("to {}", until.0));
            let version = window.postgres_major.map(|major| format!(", PostgreSQL {major}")).unwrap_or_default();
            let is_left = database_from(left, window.from.0) != present;
            let only = if is_left { ", into a new database only" } else { "" };
            format!("recoverable from {} {until}{of}{version}{only}", window.from.0)
        };
        store.windows.iter().map(line).collect::<Vec<_>>()
    };
    backup.stores().flat_map(of_store).collect()
}

/// The timelines that restores in place have left, each with the moments to which it can be recovered.
fn left_windows(backup: &BackupStatus) -> Vec<String> {
    let windows = backup.left_timelines.iter().filter_map(|left| {
        let whole = left.store.as_deref().and_then(|store| in_store(backup, store));
        let from = whole.unwrap_or(backup).recoverable_from.as_ref()?.0;
        let of = whole.map(|whole| format!(" in the store {}", whole.store)).unwrap_or_default();
        let (timeline, until) = (left.timeline, left.left_at.0);
        // Each database counts its timelines from 1: what a former one had is not of this one.
        let windows = &whole.unwrap_or(backup).windows;
        let has_it =
            |window: &&RecoveryWindow| window.from.0 < until && window.until.as_ref().is_none_or(|end| until <= end.0);
        let from = if windows.is_empty() { from } else { windows.iter().find(has_it)?.from.0 };
        (until > from).then(|| format!("timeline {timeline}, which was left: recoverable from {from} to {until}{of}"))
    });
    windows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_left_timeline_is_recoverable_as_long_as_a_backup_leads_to_it() {
        let backup = |from: &str| -> BackupStatus {
            serde_json::from_value(serde_json::json!({
                "store": "main", "path": "/x", "recoverableFrom": from,
                "leftTimelines": [{"timeline": 2, "leftAt": "2026-11-29T12:00:00Z", "continuedAs": 3}],
            }))
            .expect("a status")
        };
        let lines = left_windows(&backup("2026-11-29T11:00:00Z"));
        assert_eq!(
            lines,
            ["timeline 2, which was left: recoverable from 2026-11-29T11:00:00Z to 2026-11-29T12:00:00Z"]
        );
        assert!(left_windows(&backup("2026-11-29T13:00:00Z")).is_empty());
        let second = backup("2026-11-29T10:00:00Z");
        let mut two = backup("2026-11-29T11:00:00Z");
        two.recoverable_from = None;
        two.left_timelines[0].store = Some("other".into());
        two.second = Some(Box::new(BackupStatus { store: "other".into(), left_timelines: Vec::new(), ..second }));
        assert_eq!(
            left_windows(&two),
            [
                "timeline 2, which was left: recoverable from 2026-11-29T10:00:00Z to 2026-11-29T12:00:00Z in the store other"
            ]
        );
    }

    #[test]
    fn the_time_of_an_upgrade_that_was_taken_back_is_in_no_window() {
        let backup: BackupStatus = serde_json::from_value(serde_json::json!({
            "store": "main", "path": "/x", "recoverableFrom": "2026-11-30T22:30:00Z",
            "leftDatabases": [
                {"leftAt": "2026-11-30T22:36:57Z", "from": 17, "to": 18, "systemIdentifier": "7", "continuedAs": "8"},
                {"leftAt": "2026-11-30T22:37:58Z", "from": 18, "to": 17, "systemIdentifier": "8", "continuedAs": "7"},
            ],
            "windows": [
                {"from": "2026-11-30T22:30:00Z", "until": "2026-11-30T22:36:57Z", "postgresMajor": 17},
                {"from": "2026-11-30T22:37:40Z", "until": "2026-11-30T22:37:58Z", "postgresMajor": 18},
                {"from": "2026-11-30T22:37:58Z", "postgresMajor": 17},
            ],
            "leftTimelines": [{"timeline": 1, "leftAt": "2026-11-30T22:50:00Z", "continuedAs": 2}],
        }))
        .expect("a status");
        assert_eq!(
            windows(&backup),
            [
                "recoverable from 2026-11-30T22:30:00Z to 2026-11-30T22:36:57Z, PostgreSQL 17",
                "recoverable from 2026-11-30T22:37:40Z to 2026-11-30T22:37:58Z, PostgreSQL 18, into a new database only",
                "recoverable from 2026-11-30T22:37:58Z on, PostgreSQL 17",
            ]
        );
        assert_eq!(
            left_windows(&backup),
            ["timeline 1, which was left: recoverable from 2026-11-30T22:37:58Z to 2026-11-30T22:50:00Z"]
        );
        assert!(windows(&BackupStatus::default()).is_empty());
    }

    #[test]
    fn each_store_is_named_and_answers_by_itself() {
        let backup = |label: &str| {
            serde_json::json!({
                "label": label, "type": "Full", "startedAt": "2026-11-29T12:00:01Z",
                "finishedAt": "2026-11-29T12:01:00Z", "databaseBytes": 30, "storedBytes": 4,
            })
        };
        let run = |state: &str| {
            serde_json::json!({
                "type": "Full", "job": "chat-backup", "state": state, "startedAt": "2026-11-29T12:00:00Z", "request": "t",
            })
        };
        let mut resource: ServiceDatabase = serde_json::from_value(serde_json::json!({
            "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase", "metadata": {"name": "chat"},
            "spec": {"storage": {"size": "1Gi"}},
            "status": {"backup": {
                "store": "main", "path": "/x", "newest": backup("20261129-120000F"), "lastRun": run("Done"),
            }},
        }))
        .expect("a resource");
        let request = |store: Option<&str>| Request::Backup { full: true, store: store.map(str::to_owned) };
        let status = |resource: &ServiceDatabase| super::backup(resource).expect("backups").clone();
        assert_eq!(request(None).stores("chat", &status(&resource)), Ok(vec!["main".to_owned()]));
        assert_eq!(stores(&status(&resource)), None);
        let done = request(None).answer(&resource, "main", "t").expect("an answer").clone();
        let told = request(None).result(&resource, "main", &done).expect("a result");
        assert_eq!(told, "20261129-120000F is in the store main: Full, 4 bytes");

        let second = serde_json::json!({"store": "other", "path": "/x", "lastRun": run("Running")});
        let backups = resource.status.as_mut().and_then(|status| status.backup.as_mut()).expect("backups");
        backups.second = serde_json::from_value(second).expect("a status");
        let both = status(&resource);
        assert_eq!(stores(&both).as_deref(), Some("spec.backup.store is main, spec.backup.secondStore is other"));
        assert_eq!(request(None).stores("chat", &both), Ok(vec!["main".to_owned(), "other".to_owned()]));
        assert_eq!(request(Some("other")).stores("chat", &both), Ok(vec!["other".to_owned()]));
        let unknown = request(Some("third")).stores("chat", &both).expect_err("no store of it");
        assert!(unknown.contains("third") && unknown.contains("main and other"), "{unknown}");
        let runs = request(None).answer(&resource, "other", "t").expect("an answer").clone();
        assert_eq!((done.state, runs.state), (RequestState::Done, RequestState::Running));
        assert_eq!(request(None).result(&resource, "other", &runs), None, "that of the first one is not its");
        assert!(waits(&resource, "main").contains("the Job chat-backup makes the backup in the store other first"));
        assert!(waits(&resource, "other").contains("backup.concurrency"), "no other store of it has a Job that runs");
        assert!(request(None).answer(&resource, "other", "u").is_none(), "of an earlier request");
        let annotations = request(Some("other")).annotations("t");
        assert!(annotations.contains(&(ANNOTATION_BACKUP_STORE, Some("other".to_owned()))), "{annotations:?}");
        assert!(request(None).annotations("t").contains(&(ANNOTATION_BACKUP_STORE, None)), "one of an earlier request");
    }
}
