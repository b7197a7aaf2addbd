//! What a new database is restored from: checked before anything is made.

use jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::api::conditions::reason;
use crate::api::names::Names;
use crate::api::{BackupStatus, RestoreSource, RestoreSpec, ServiceDatabase};
use crate::contract::backup::{ForeignFolder, Place, Restore, Target};
use crate::contract::recovery_window::{Destination, database_at};
use crate::contract::restore_store::left_elsewhere;
use crate::contract::restore_target::{check, parse};
use crate::operator::apply::object::short_hash;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::context::options::Options;
use crate::operator::observe::Observation;
use crate::operator::validate::{Database, Invalid, place};

const FIELD: &str = "spec.bootstrap.restore";
const TARGET: &str = "spec.bootstrap.restore.target";
/// A store that got its last segment so long before the other one lacks some: status is at most five minutes behind.
const BEHIND: SignedDuration = SignedDuration::from_mins(10);
/// The target, and its timeline.
type Wanted = (Target, Option<u32>);

/// Resolves the restore that the spec declares, if the database does not exist yet. What was resolved once
/// holds: the other database may be deleted meanwhile.
///
/// # Errors
/// Any error of the API server; the inner one is a refusal.
pub async fn resolve(
    context: &Context,
    spec: Option<&RestoreSpec>,
    database: &Database,
    observed: &Observation,
) -> Result<Result<Option<Restore>, Invalid>, Error> {
    let Some(spec) = spec.filter(|_| !observed.initialized()) else { return Ok(Ok(None)) };
    let target = match parse(spec.target.as_ref(), TARGET) {
        Ok(target) => target,
        Err(message) => return Ok(Err(refused(message))),
    };
    let declared = short_hash(&json!(spec));
    let before = observed.own_desired(&database.owner.uid);
    let before = before.and_then(|desired| desired.restore.as_ref()).filter(|before| before.declared == declared);
    if let Some(before) = before
        && spec.source.namespace.as_ref().is_none_or(|namespace| *namespace == database.names().namespace)
    {
        // Only what was chosen: others may write to the ConfigMap, and what follows from it is a right in Vault.
        let (store, path) = (Some(before.place.name.as_str()), before.place.path.as_str());
        return Ok(of_path(&context.options, database.names(), store, path, target).map(|restore| {
            let (timeline, system_identifier) = (before.timeline, before.system_identifier.clone());
            Some(Restore { declared, timeline, system_identifier, ..restore })
        }));
    }
    let RestoreSource { name, namespace, store, path } = &spec.source;
    Ok(match (name, path) {
        (Some(name), _) => {
            let own = &database.names().namespace;
            let namespace = namespace.as_ref().unwrap_or(own);
            let api: Api<ServiceDatabase> = Api::namespaced(context.client.clone(), namespace);
            let source = api.get_opt(name).await?;
            let source = source.filter(|source| source.uid().as_ref() != Some(&database.owner.uid));
            match source {
                Some(source) if namespace == own || source.spec.backup.restorable_in.contains(own) => {
                    of_resource(&context.options, &source, store.as_deref(), target, context.now())
                }
                // Whether it exists is not told to a namespace that it does not allow.
                _ if namespace != own => Err(refused(format!(
                    "{FIELD}.source is {name} of the namespace {namespace}: there is no such ServiceDatabase, or its \
                     spec.backup.restorableIn does not name {own}"
                ))),
                _ => Err(refused(format!(
                    "{FIELD}.source.name is {name}, which is no other ServiceDatabase of this namespace: for one that \
                     was deleted, give its folder in the store as path"
                ))),
            }
        }
        (None, Some(path)) => of_path(&context.options, database.names(), store.as_deref(), path, target),
        (None, None) => Err(refused(format!("{FIELD}.source needs name or path"))),
    }
    .map(|restore| Some(Restore { declared, ..restore })))
}

fn refused(message: String) -> Invalid {
    Invalid { reason: reason::RESTORE_REFUSED, message }
}

/// The restore of a ServiceDatabase that exists, from the store that is named, or else from the first one that has
/// the target.
fn of_resource(
    options: &Options,
    source: &ServiceDatabase,
    store: Option<&str>,
    target: Wanted,
    now: Timestamp,
) -> Result<Restore, Invalid> {
    let name = source.name_any();
    let names = Names::new(source.namespace().unwrap_or_default(), &name);
    let refusal = |message: String| refused(format!("{FIELD}: {message}"));
    let check =
        |backup: Option<&BackupStatus>| check(backup, (&target.0, target.1), (&name, Destination::NewDatabase), now);
    let first = source.status.as_ref().and_then(|status| status.backup.as_ref());
    let mut found = Vec::new();
    let is_meant = |one: &&BackupStatus| store.is_none_or(|store| one.store == store);
    for backup in first.into_iter().flat_map(BackupStatus::stores).filter(is_meant) {
        // Timelines and upgrades are the database's, whatever store has them.
        let left_timelines = first.map(|first| first.left_timelines.clone()).unwrap_or_default();
        let left_databases = first.map(|first| first.left_databases.clone()).unwrap_or_default();
        let checked = check(Some(&BackupStatus { left_timelines, left_databases, ..backup.clone() }));
        found.push(checked.map(|timeline| (backup, timeline)));
    }
    if let (Some(first), Some(store), true) = (first, store, found.is_empty()) {
        let known: Vec<_> = first.stores().map(|one| one.store.as_str()).collect();
        return Err(refused(format!(
            "{FIELD}.source.store is {store}, and {name} has its backups in {}",
            known.join(" and ")
        )));
    }
    // The newest backup alone needs no WAL.
    let is_whole = |backup: &BackupStatus, timeline: Option<u32>| {
        let elsewhere = left_elsewhere(first, (backup.store.as_str(), timeline), &target.0);
        target.0 == Target::Immediate || (has_all(backup, first) && elsewhere.is_none())
    };
    let of_whole =
        found.iter().position(|found| found.as_ref().is_ok_and(|(backup, timeline)| is_whole(backup, *timeline)));
    let fits = of_whole.or_else(|| found.iter().position(Result::is_ok)).unwrap_or_default();
    let (backup, timeline) = match found.into_iter().nth(fits) {
        Some(checked) => checked.map_err(refusal)?,
        None => return Err(refusal(check(None).err().unwrap_or_else(|| format!("{name} has no store")))),
    };
    let Some(store) = options.backup_stores.0.get(&backup.store) else {
        return Err(refused(format!(
            "{FIELD}: {name} is in the store {}, which this installation lacks",
            backup.store
        )));
    };
    // Not the path in status, which other hands may have written.
    let place = place(&names, &source.uid().unwrap_or_default(), (&backup.store, store), &options.cluster_id);
    // A position or a name may be of any of them, and the newest backup alone is what it is.
    let left = first.map(|first| first.left_databases.as_slice()).unwrap_or_default();
    let database = match target.0 {
        Target::Latest => database_at(left, None),
        Target::Time(time) => database_at(left, Some(time)),
        Target::Lsn(_) | Target::Name(_) | Target::Immediate => None,
    };
    let system_identifier = database.map(str::to_owned);
    Ok(Restore { place, service: name, target: target.0, timeline, system_identifier, declared: String::new() })
}

/// Whether a store has the WAL after its newest full backup, as far as status tells: it has no gap, and is not behind
/// the other store.
fn has_all(backup: &BackupStatus, first: Option<&BackupStatus>) -> bool {
    let full = backup.newest_full.as_ref().map(|full| full.started_at.0);
    let gap = backup.given_up_at.as_ref().filter(|gap| full.is_none_or(|full| full < gap.0));
    let archived = |one: &BackupStatus| one.archived_at.as_ref().map(|at| at.0);
    let newest = first.into_iter().flat_map(BackupStatus::stores).filter_map(archived).max();
    let is_behind = newest.is_some_and(|newest| archived(backup).is_none_or(|at| newest.duration_since(at) > BEHIND));
    gap.is_none() && !is_behind
}

/// The restore of a database that was deleted: of this cluster and namespace, as the folder says, since the
/// store's keys open every other folder, too.
fn of_path(
    options: &Options,
    own: &Names,
    store: Option<&str>,
    path: &str,
    target: Wanted,
) -> Result<Restore, Invalid> {
    let Some(name) = store.or(options.backup_default_store.as_deref()) else {
        return Err(refused(format!("{FIELD}.source.store is missing, and this installation has no default store")));
    };
    let Some(store) = options.backup_stores.0.get(name) else {
        return Err(refused(format!("{FIELD}.source.store is {name}, which this installation lacks")));
    };
    let parts: Vec<_> = path.trim_matches('/').rsplitn(3, '/').collect();
    let place = match parts[..] {
        [uid, service, _] if is_name(uid) && is_name(service) => {
            let names = Names::new(&own.namespace, service);
            let place = place(&names, uid, (name, store), &options.cluster_id);
            // Every part but the last two is what this namespace's folders begin with.
            (place.path.trim_matches('/') == path.trim_matches('/')).then_some((place, service))
        }
        _ => None,
    };
    let foreign = || {
        let same = |folder: &&ForeignFolder| {
            folder.store == name
                && folder.path.trim_matches('/') == path.trim_matches('/')
                && folder.namespaces.contains(&own.namespace)
        };
        let folder = options.backup_restore_from.0.iter().find(same)?;
        let place = Place {
            name: name.to_owned(),
            store: store.clone(),
            path: format!("/{}", folder.path.trim_matches('/')),
            passphrase: folder.passphrase_vault_path.trim_matches('/').to_owned(),
        };
        Some((place, *parts.get(1).filter(|service| is_name(service))?))
    };
    let Some((place, service)) = place.or_else(foreign) else {
        let example = place_example(options, own, (name, store));
        return Err(refused(format!(
            "{FIELD}.source.path is {path:?}, which is no folder of this namespace in the store {name} (they \
             have the form {example}), and none that the installation allows it (backup.restoreFrom)"
        )));
    };
    let (target, timeline) = target;
    let service = service.to_owned();
    Ok(Restore { place, service, target, timeline, system_identifier: None, declared: String::new() })
}

fn place_example(options: &Options, own: &Names, store: (&str, &crate::contract::backup::Store)) -> String {
    place(&Names::new(&own.namespace, "NAME"), "UID", store, &options.cluster_id).path
}

/// Whether a text can be a resource's name or uid: nothing else becomes part of a path or a policy.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::backup::{ForeignFolders, Place, Stores};
    use crate::operator::tests::fixtures;

    fn installation() -> Options {
        let store = Place::sample().store;
        let stores = Stores([("main".to_owned(), store)].into());
        Options { backup_stores: stores, cluster_id: "dev".into(), ..fixtures::options() }
    }

    fn by_path(path: &str) -> Result<Restore, Invalid> {
        of_path(&installation(), &Names::new("messaging", "copy"), Some("main"), path, (Target::Latest, None))
    }

    #[test]
    fn a_folder_of_this_namespace_names_its_service_and_its_passphrase() {
        let found = by_path("/dev/messaging/chat/0c1d-2").expect("a folder of this namespace");
        assert_eq!((found.service.as_str(), found.place.path.as_str()), ("chat", "/dev/messaging/chat/0c1d-2"));
        assert_eq!(found.place.passphrase, "dev/messaging/chat/backup/0c1d-2");
    }

    #[test]
    fn no_team_reads_the_archive_of_another_by_its_path() {
        for path in [
            "/dev/other/chat/0c1d",
            "/dev/messaging/../other/chat/0c1d",
            "/dev/messaging/chat/..",
            "/prod/messaging/chat/0c1d",
            "/dev/messaging/chat/0c1d/more",
            "/messaging/chat/0c1d",
            "chat/0c1d",
            "/dev/messaging/chat/*",
            "",
        ] {
            let said = by_path(path).expect_err(path).message;
            assert!(
                said.contains("spec.bootstrap.restore.source.path") && said.contains("/dev/messaging/NAME/UID"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_folder_of_another_cluster_needs_the_platforms_word_for_this_namespace() {
        let path = "/prod/other/chat/0c1d";
        let allowed = |namespace: &str| {
            let folder = ForeignFolder {
                store: "main".into(),
                path: path.into(),
                passphrase_vault_path: "prod/other/chat/backup/0c1d".into(),
                namespaces: vec![namespace.into()],
            };
            let options = Options { backup_restore_from: ForeignFolders(vec![folder]), ..installation() };
            let target = (Target::Latest, Some(7));
            of_path(&options, &Names::new("messaging", "copy"), Some("main"), path, target)
        };
        let found = allowed("messaging").expect("an allowed folder");
        assert_eq!((found.service.as_str(), found.place.path.as_str()), ("chat", path));
        assert_eq!((found.place.passphrase.as_str(), found.timeline), ("prod/other/chat/backup/0c1d", Some(7)));
        let said = allowed("games").expect_err("another namespace's").message;
        assert!(said.contains("backup.restoreFrom"), "{said}");
    }

    #[test]
    fn a_time_outside_of_the_window_is_refused_with_it() {
        let mut source = fixtures::resource(fixtures::MINIMAL);
        let refused = |source: &ServiceDatabase, time: &str| {
            let target = Target::Time(time.parse().expect("a time"));
            let now = "2026-11-29T12:00:00Z".parse().expect("a time");
            of_resource(&installation(), source, None, (target, None), now)
        };
        let said = refused(&source, "2026-11-29T11:00:00Z").expect_err("no backup").message;
        assert!(said.contains("has no backup"), "{said}");
        let backup = serde_json::json!({"backup": {
            "store": "main", "path": "/elsewhere", "recoverableFrom": "2026-11-29T10:00:00Z",
        }});
        source.status = serde_json::from_value(backup).expect("a status");
        for time in ["2026-11-29T09:59:59Z", "2026-11-29T12:00:01Z", "2026-11-29T12:30:00+00:00"] {
            let said = refused(&source, time).expect_err(time).message;
            assert!(said.contains("2026-11-29T10:00:00Z"), "{said}");
        }
        let restore = refused(&source, "2026-11-29T13:00:00+02:00").expect("a time of the window");
        assert!(restore.place.path.starts_with("/dev/"), "{}", restore.place.path);
    }

    #[test]
    fn the_database_of_that_time_is_named_and_a_time_of_one_without_a_backup_refused() {
        let mut source = fixtures::resource(fixtures::MINIMAL);
        source.status = serde_json::from_value(serde_json::json!({"backup": {
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
        }}))
        .expect("a status");
        let of = |target: Target| {
            let now = "2026-11-30T23:00:00Z".parse().expect("a time");
            of_resource(&installation(), &source, None, (target, None), now)
                .map(|restore| restore.system_identifier)
                .map_err(|refused| refused.message)
        };
        let time = |text: &str| Target::Time(text.parse().expect("a time"));
        let said = of(time("2026-11-30T22:37:38Z")).expect_err("18 has no backup that ended before");
        assert!(said.starts_with("spec.bootstrap.restore: ") && said.contains("was of PostgreSQL 18"), "{said}");
        assert_eq!(of(time("2026-11-30T22:37:50Z")), Ok(Some("8".into())));
        assert_eq!(of(time("2026-11-30T22:35:00Z")), Ok(Some("7".into())));
        assert_eq!(of(Target::Latest), Ok(Some("7".into())));
        assert_eq!(of(Target::Immediate), Ok(None));
    }

    #[test]
    fn of_two_stores_the_first_that_has_the_target_is_taken_or_the_one_that_is_named() {
        let store = Place::sample().store;
        let stores = Stores([("main".to_owned(), store.clone()), ("other".to_owned(), store)].into());
        let options = Options { backup_stores: stores, cluster_id: "dev".into(), ..fixtures::options() };
        let mut source = fixtures::resource(fixtures::MINIMAL);
        let backup = serde_json::json!({"backup": {
            "store": "main", "path": "/x", "recoverableFrom": "2026-11-29T10:00:00Z",
            "leftTimelines": [{"timeline": 3, "leftAt": "2026-11-29T11:00:00Z", "continuedAs": 4}],
            "second": {"store": "other", "path": "/x", "recoverableFrom": "2026-11-29T08:00:00Z"},
        }});
        source.status = serde_json::from_value(backup).expect("a status");
        let of = |store: Option<&str>, time: &str| {
            let target = Target::Time(time.parse().expect("a time"));
            let now = "2026-11-29T12:00:00Z".parse().expect("a time");
            of_resource(&options, &source, store, (target, None), now)
                .map(|restore| (restore.place.name, restore.timeline))
                .map_err(|refused| refused.message)
        };
        let from = |name: &str, timeline| Ok((name.to_owned(), timeline));
        assert_eq!(of(None, "2026-11-29T11:30:00Z"), from("main", None));
        assert_eq!(of(None, "2026-11-29T09:00:00Z"), from("other", Some(3)), "the first one has no backup from before");
        assert_eq!(of(Some("other"), "2026-11-29T11:30:00Z"), from("other", None));
        let said = of(Some("main"), "2026-11-29T09:00:00Z").expect_err("the named one does not have it");
        assert!(said.contains("2026-11-29T10:00:00Z"), "{said}");
        let said = of(Some("third"), "2026-11-29T11:30:00Z").expect_err("no store of it");
        assert!(said.contains("main and other"), "{said}");
        let said = of(None, "2026-11-29T07:00:00Z").expect_err("in none");
        assert!(said.contains("2026-11-29T10:00:00Z"), "{said}");
        let backup = source.status.as_mut().and_then(|status| status.backup.as_mut()).expect("backups");
        backup.left_timelines[0].store = Some("other".into());
        let target = || (Target::Time("2026-11-29T11:00:00Z".parse().expect("a time")), None);
        let now = "2026-11-29T12:00:00Z".parse().expect("a time");
        let left = |store: Option<&str>| of_resource(&options, &source, store, target(), now).expect("a restore").place;
        assert_eq!(left(None).name, "other", "a restore from there has left it: the first one may lack its end");
        assert_eq!(left(Some("main")).name, "main", "as requested");
    }

    #[test]
    fn of_two_stores_one_that_lacks_wal_is_taken_only_if_it_must() {
        let store = Place::sample().store;
        let stores = Stores([("main".to_owned(), store.clone()), ("other".to_owned(), store)].into());
        let options = Options { backup_stores: stores, cluster_id: "dev".into(), ..fixtures::options() };
        let full = serde_json::json!({
            "label": "l", "type": "Full", "databaseBytes": 1, "storedBytes": 1,
            "startedAt": "2026-11-29T10:00:00Z", "finishedAt": "2026-11-29T10:00:00Z",
        });
        let of = |changes: &[(&str, &str)], store: Option<&str>, target: Target| {
            let mut main = serde_json::json!({
                "store": "main", "path": "/x", "recoverableFrom": "2026-11-29T10:00:00Z",
                "archivedAt": "2026-11-29T11:55:00Z", "newestFull": full,
            });
            main["second"] = main.clone();
            main["second"]["store"] = "other".into();
            for (field, value) in changes {
                main[*field] = (*value).into();
            }
            let mut source = fixtures::resource(fixtures::MINIMAL);
            source.status = serde_json::from_value(serde_json::json!({"backup": main})).expect("a status");
            let now = "2026-11-29T12:00:00Z".parse().expect("a time");
            of_resource(&options, &source, store, (target, None), now).expect("a restore").place.name
        };
        assert_eq!(of(&[], None, Target::Latest), "main");
        let gap = [("givenUpAt", "2026-11-29T10:30:00Z")];
        assert_eq!(of(&gap, None, Target::Latest), "other", "the first one has a gap");
        assert_eq!(of(&gap, None, Target::Immediate), "main", "it needs no WAL");
        assert_eq!(of(&gap, Some("main"), Target::Latest), "main", "as requested");
        assert_eq!(of(&[("givenUpAt", "2026-11-29T09:30:00Z")], None, Target::Latest), "main", "before its backup");
        let behind = [("archivedAt", "2026-11-29T11:30:00Z")];
        assert_eq!(of(&behind, None, Target::Latest), "other", "the first one was away");
        let report = [("archivedAt", "2026-11-29T11:49:00Z")];
        assert_eq!(of(&report, None, Target::Latest), "main", "reports are not of the same moment");
    }
}
