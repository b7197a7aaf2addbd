//! The restore of another database's backup into a new one, in place of initdb: into a folder beside PGDATA,
//! where PostgreSQL recovers to the target, and the database then gets its own names. A kill at any point
//! leaves nothing.

mod names;
mod recovery;

use std::path::Path;
use std::time::Duration;

use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::environment::Environment;
use super::records::Source;
use super::settings;
use crate::contract::backup::{Restore, Target};
use crate::contract::desired::Desired;
use crate::contract::pod::PGDATA_NEW;
use crate::pgbackrest::command;
use crate::pgbackrest::config::Config;
use crate::pgbackrest::info::Info;
use crate::pgbackrest::secrets::Secrets;
use recovery::Ended;

/// The configuration, with the other database's keys: in the pod's memory, and removed at the end.
const FOLDER: &str = "/run/servicedb/restore";
/// How long a commit may take to be in the archive. A segment is ended a minute after its first write, but after a
/// clean start PostgreSQL may wait for the first checkpoint, which is due after five.
const ARCHIVED_WITHIN: SignedDuration = SignedDuration::from_mins(7);
/// Interval between two looks at the archive.
const POLL: Duration = Duration::from_secs(10);
/// What Patroni and PostgreSQL keep in a data directory about the database that it was.
const LEFT_BEHIND: [&str; 3] = ["patroni.dynamic.json", "backup_label.old", "tablespace_map.old"];

/// Restores into the folder that becomes PGDATA; returns what was restored, for people.
///
/// # Errors
/// The problem, without any secret.
pub async fn run(
    environment: &Environment,
    records: &Source,
    desired: &Desired,
    restore: &Restore,
) -> Result<String, String> {
    let vault = records.open().await.map_err(|error| error.to_string())?.vault;
    let secrets = Secrets::read(&*vault, &restore.place).await.map_err(|error| error.to_string())?;
    let database = format!("pg1-path={PGDATA_NEW}\n");
    let config = Config { place: &restore.place, options: "", database: &database };
    config.write(Path::new(FOLDER), &secrets).map_err(|error| format!("the configuration: {error}"))?;
    let restored = restored(environment, desired, restore).await.map_err(|error| secrets.redact(&error));
    if let Err(error) = super::files::remove_tree(Path::new(FOLDER)) {
        tracing::warn!(%error, folder = FOLDER, "the configuration of the restore cannot be removed");
    }
    restored
}

async fn restored(environment: &Environment, desired: &Desired, restore: &Restore) -> Result<String, String> {
    let config = Path::new(FOLDER).join("pgbackrest.conf");
    let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let info = command::info(&config).await?;
    let set = set(&info, &restore.target)?;
    let mut options = options(&restore.target);
    options.push(format!("--set={set}"));
    tracing::info!(set, store = restore.place.name, path = restore.place.path, "restoring a backup");
    fetch(&config, &options).await?;
    settings::write_restored(environment, desired).map_err(io("the settings"))?;
    let told = match (recovery::run().await?, &restore.target) {
        (Ended::Promoted(until), _) => until,
        // The other database wrote nothing since the target's time, or what it wrote is not archived yet. The server
        // has ended: once that is certain, the same again to the end of the archive.
        (Ended::BeforeTarget, Target::Time(time)) => {
            if until_archived(&config, &info, *time).await? {
                return Err("WAL was archived meanwhile".to_owned());
            }
            tracing::info!("the archive ends before the target: restoring all of it");
            super::files::remove_tree(Path::new(PGDATA_NEW)).map_err(io("the folder"))?;
            let mut options = self::options(&Target::Latest);
            options.push(format!("--set={set}"));
            fetch(&config, &options).await?;
            settings::write_restored(environment, desired).map_err(io("the settings"))?;
            match recovery::run().await? {
                Ended::Promoted(until) => until,
                Ended::BeforeTarget => return Err("PostgreSQL ended before the end of the archive".to_owned()),
            }
        }
        (Ended::BeforeTarget, target) => {
            return Err(format!("the archive ends before {target}: choose an earlier target"));
        }
    };
    let own = environment.names.postgres(&desired.database);
    names::take_over(&restore.service, &own).await?;
    recovery::stop().await?;
    for file in LEFT_BEHIND {
        match std::fs::remove_file(Path::new(PGDATA_NEW).join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(format!("{file}: {error}")),
            _ => {}
        }
    }
    std::fs::write(Path::new(PGDATA_NEW).join("postgresql.auto.conf"), "").map_err(io("postgresql.auto.conf"))?;
    let until = told.map(|time| format!("; the last transaction in it was committed at {time}")).unwrap_or_default();
    Ok(format!("{} of {} was restored from the backup {set}{until}", restore.target, restore.service))
}

async fn fetch(config: &Path, options: &[String]) -> Result<(), String> {
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    command::run(config, "restore", &options).await.map(drop).map_err(|failure| failure.message)
}

/// Waits until everything from before a time is in the archive; returns whether something was added since `info`.
async fn until_archived(config: &Path, info: &Info, time: Timestamp) -> Result<bool, String> {
    while Timestamp::now() < time + ARCHIVED_WITHIN {
        tokio::time::sleep(POLL).await;
        if command::info(config).await?.newest_segment != info.newest_segment {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The backup to begin with: the newest that ended before the target. Named, since pgBackRest chooses by its own
/// reading of the time.
fn set(info: &Info, target: &Target) -> Result<String, String> {
    let fits = |backup: &&crate::pgbackrest::info::Backup| match target {
        Target::Latest | Target::Immediate => true,
        Target::Time(time) => backup.finished_at <= *time,
        Target::Lsn(lsn) => position(&backup.last_position).is_some_and(|stop| Some(stop) <= position(lsn)),
    };
    if info.backups.is_empty() {
        return Err("the store has no backup there".to_owned());
    }
    let set = info.backups.iter().rev().find(fits).map(|backup| backup.label.clone());
    set.ok_or_else(|| {
        let first = &info.backups[0];
        format!(
            "no backup in the store ended before {target}: the first moment is {}, at the WAL position {}",
            first.finished_at, first.last_position
        )
    })
}

/// A position in WAL as a number.
fn position(lsn: &str) -> Option<u64> {
    let (high, low) = lsn.split_once('/')?;
    Some((u64::from_str_radix(high, 16).ok()? << 32) + u64::from_str_radix(low, 16).ok()?)
}

/// The options for a target. The latest timeline has every failover of the other database.
fn options(target: &Target) -> Vec<String> {
    let (kind, target) = match target {
        Target::Latest => ("default", None),
        Target::Immediate => ("immediate", None),
        Target::Lsn(lsn) => ("lsn", Some(lsn.clone())),
        Target::Time(time) => {
            // With its offset: pgBackRest and PostgreSQL would each take their own zone otherwise.
            let time = time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.f+00").to_string();
            ("time", Some(time))
        }
    };
    let mut options = vec![format!("--type={kind}"), "--target-timeline=latest".to_owned()];
    options.extend(target.map(|target| format!("--target={target}")));
    if kind != "default" {
        options.push("--target-action=promote".to_owned());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::BackupType;
    use crate::pgbackrest::info::Backup;

    fn info() -> Info {
        let backup = |label: &str, end: &str, last: &str| Backup {
            label: label.to_owned(),
            kind: BackupType::Full,
            started_at: end.parse().expect("a time"),
            finished_at: end.parse().expect("a time"),
            database_bytes: 1,
            stored_bytes: 1,
            first_segment: String::new(),
            last_position: last.to_owned(),
        };
        let backups = vec![
            backup("one", "2026-11-29T03:00:10Z", "0/3000100"),
            backup("two", "2026-11-29T09:00:10Z", "1/A000000"),
        ];
        Info { newest_segment: None, backups }
    }

    #[test]
    fn the_set_is_the_newest_that_ended_before_the_target() {
        let of = |target: &Target| set(&info(), target);
        let time = |text: &str| Target::Time(text.parse().expect("a time"));
        assert_eq!(of(&Target::Latest).as_deref(), Ok("two"));
        assert_eq!(of(&time("2026-11-29T09:00:09Z")).as_deref(), Ok("one"));
        assert_eq!(of(&time("2026-11-29T09:00:10Z")).as_deref(), Ok("two"));
        assert_eq!(of(&Target::Lsn("0/FFFFFFFF".into())).as_deref(), Ok("one"));
        assert_eq!(of(&Target::Lsn("1/A000000".into())).as_deref(), Ok("two"));
        let said = of(&time("2026-11-29T03:00:09Z")).expect_err("before the first");
        assert!(said.contains("2026-11-29T03:00:10Z") && said.contains("0/3000100"), "{said}");
        assert!(set(&Info::default(), &Target::Latest).is_err());
    }

    #[test]
    fn a_time_has_its_offset_and_its_fraction() {
        let target = Target::Time("2026-11-29T12:00:00.25+02:00".parse().expect("a time"));
        let options = options(&target);
        assert!(options.contains(&"--target=2026-11-29 10:00:00.25+00".to_owned()), "{options:?}");
        assert!(options.contains(&"--target-timeline=latest".to_owned()), "{options:?}");
    }
}
