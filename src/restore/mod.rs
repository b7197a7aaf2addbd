//! The restore of a backup into a folder beside PGDATA, and PostgreSQL's recovery there: for a new database, and for
//! the test of a backup.

mod choice;
pub mod control;
pub mod recovery;

use std::path::Path;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::contract::backup::{Place, Target};
use crate::contract::pod::VOLUME;
use crate::files;
use crate::pgbackrest::command;
use crate::pgbackrest::config::{self, Config};
use crate::pgbackrest::info::Info;
use crate::pgbackrest::secrets::Secrets;
use recovery::{Ended, Replayed, Server};

/// The configuration, with the keys of the store: in the pod's memory, and removed at the end.
const FOLDER: &str = "/run/servicedb/restore";
/// Where the restore's commands keep their state and their locks: a stanza that is created meanwhile in a store that is
/// away holds every lock of its own folder for seconds, the one of restores too.
const SPOOL: &str = "/tmp/pgbackrest-restore";
/// How long a commit may take to be in the archive. A segment is ended a minute after its first write, but after a
/// clean start PostgreSQL may wait for the first checkpoint, which is due after five.
const ARCHIVED_WITHIN: SignedDuration = SignedDuration::from_mins(7);
/// PostgreSQL's errors for a backup that is no ancestor of the timeline to recover to, or that ended after the target or
/// after the fork to its timeline.
const OTHER_BRANCH: [&str; 4] = [
    "is not a child of this server's history",
    "requested recovery stop point is before consistent recovery point",
    "WAL ends before end of online backup",
    "does not contain minimum recovery point",
];
/// The error for a target that the archive does not have.
const BEFORE: &str = "the archive ends before";
/// Interval between two looks at the archive.
const POLL: Duration = Duration::from_secs(10);

/// What was restored.
pub struct Restored {
    /// The name of the backup.
    pub set: String,
    /// When the last transaction in it was committed, as PostgreSQL logged it.
    pub until: Option<String>,
    /// Whether the target was reached; otherwise the archive ended before it.
    pub reached: bool,
    /// The server on the restored folder.
    pub server: Server,
}

/// A restore into a folder of the volume.
pub struct Restore<'a, Settings: Fn(&Path) -> std::io::Result<()>> {
    /// The folder; its content is removed.
    pub folder: &'a Path,
    /// Bytes of the volume that must remain free.
    pub spare: u64,
    /// The place of the backup.
    pub place: &'a Place,
    /// What to recover to.
    pub target: &'a Target,
    /// The timeline of the target; none: the latest.
    pub timeline: Option<u32>,
    /// The system identifier of the database that had that state; none: the archive tells what it can.
    pub database: Option<&'a str>,
    /// What opens the store.
    pub secrets: &'a Secrets,
    /// Whether a page with a wrong checksum, which the backup copied, is an error. It would keep people from all the
    /// rest (pgBackRest 2.60, findings/).
    pub refuses_damage: bool,
    /// Writes `postgresql.conf` into the folder.
    pub settings: Settings,
}

impl<Settings: Fn(&Path) -> std::io::Result<()>> Restore<'_, Settings> {
    /// Restores, and runs a server there to the end of recovery; it is still running afterwards.
    ///
    /// # Errors
    /// The problem, without any secret.
    pub async fn run(&self) -> Result<Restored, String> {
        let database = format!("pg1-path={}\n", self.folder.display());
        let config = Config { place: self.place, spool: SPOOL, options: "", database: &database };
        config.write(Path::new(FOLDER), self.secrets).map_err(|error| format!("the configuration: {error}"))?;
        let restored = self.recovered(&config::in_folder(Path::new(FOLDER))).await;
        if let Err(error) = std::fs::remove_dir_all(FOLDER) {
            tracing::warn!(%error, folder = FOLDER, "the configuration of the restore cannot be removed");
        }
        restored.map_err(|error| self.secrets.redact(&error))
    }

    async fn recovered(&self, config: &Path) -> Result<Restored, String> {
        let info = command::info(config).await?;
        let free = files::free(Path::new(VOLUME)).map_err(|error| format!("the volume: {error}"))?;
        let (mut problem, is_named) = (None, matches!(self.target, Target::Name(_)));
        let candidates = choice::candidates(&info, self.target, self.database)?;
        if let Some(timeline) = self.timeline {
            let known = command::timelines(config, &choice::incarnations(&info, &candidates)).await?;
            choice::check_timeline(timeline, &known, &self.place.name)?;
        }
        for backup in candidates {
            let needed = backup.database_bytes;
            if needed.saturating_add(self.spare) > free {
                let spare =
                    if self.spare == 0 { String::new() } else { format!(", of which {} must remain free", self.spare) };
                return Err(format!(
                    "the backup {} has {needed} bytes, and the volume has {free} bytes free{spare}: set a larger \
                     spec.storage.size",
                    backup.label
                ));
            }
            // Nothing is added any more to the archive of a database that was left.
            let is_left = info.database_of(backup) != info.present();
            match self.from(config, &backup.label, is_left).await {
                // It was made on a branch that was left: one before the fork leads to the target.
                // Or it was made after the state was named.
                Err(error)
                    if OTHER_BRANCH.iter().any(|branch| error.contains(branch))
                        || is_of_other_timeline(&error)
                        || (is_named && error.contains(BEFORE)) =>
                {
                    tracing::warn!(
                        set = backup.label,
                        error,
                        "this backup does not lead to the target; trying an older one"
                    );
                    problem = Some(error);
                }
                ended => return ended,
            }
        }
        let problem = problem.unwrap_or_else(|| "no backup fits".to_owned());
        match self.timeline.filter(|_| is_of_other_timeline(&problem)) {
            Some(timeline) => Err(no_way(&self.place.name, self.target, timeline)),
            None => Err(problem),
        }
    }

    async fn from(&self, config: &Path, set: &str, is_of_left_database: bool) -> Result<Restored, String> {
        let target = self.target;
        tracing::info!(set, %target, store = self.place.name, path = self.place.path, "restoring a backup");
        let restored = |server, replayed: Replayed, reached| Restored {
            set: set.to_owned(),
            until: replayed.until,
            reached,
            server,
        };
        loop {
            // Before the attempt: what is archived meanwhile may be in it or not.
            let info = command::info(config).await?;
            let left = self.timeline.filter(|_| is_left(self.timeline, &info));
            let newest = match left {
                _ if is_of_left_database => None,
                Some(left) => command::newest_of(config, left).await?,
                None => info.newest_segment.clone(),
            };
            let (replayed, time) = match (self.attempt(config, set, target).await?, target) {
                (Ended::Promoted(server, replayed), Target::Latest) => {
                    choice::check_end(replayed.position.as_deref(), newest.as_deref())?;
                    return Ok(restored(server, replayed, true));
                }
                (Ended::Promoted(server, replayed), _) => return Ok(restored(server, replayed, true)),
                (Ended::BeforeTarget(replayed), Target::Time(time)) => (replayed, time),
                (Ended::BeforeTarget(_), target) => {
                    return Err(format!("{BEFORE} {target}: choose another target"));
                }
            };
            // The other database wrote nothing since the target's time, or what it wrote is not archived yet. The
            // server has ended: once it is certain that nothing is missing, the same again to where it ended, and not
            // further, since WAL may have been archived meanwhile.
            choice::check_end(replayed.position.as_deref(), newest.as_deref())?;
            if left.is_none() && !is_of_left_database && until_archived(config, &info, *time).await? {
                tracing::info!("WAL was archived meanwhile: trying again");
                continue;
            }
            let position = replayed.position.ok_or("PostgreSQL replayed nothing")?;
            tracing::info!(position, "the archive ends before the target: restoring up to there");
            return match self.attempt(config, set, &Target::Lsn(position)).await? {
                Ended::Promoted(server, replayed) => Ok(restored(server, replayed, false)),
                Ended::BeforeTarget(_) => Err("PostgreSQL ended before the end of the archive".to_owned()),
            };
        }
    }

    async fn attempt(&self, config: &Path, set: &str, target: &Target) -> Result<Ended, String> {
        let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
        files::remove_tree(self.folder).map_err(io("the folder"))?;
        let mut options = choice::options(target, self.timeline);
        options.push(format!("--set={set}"));
        options.push(format!("--checksum-page-error={}", if self.refuses_damage { 'y' } else { 'n' }));
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        command::run(config, "restore", &options).await.map_err(|failure| failure.message)?;
        (self.settings)(self.folder).map_err(io("the settings"))?;
        recovery::run(config, self.folder).await
    }
}

/// Whether pgBackRest refused a backup that is no ancestor of the timeline to recover to, or whose incarnation of the database
/// has no history of that timeline.
fn is_of_other_timeline(error: &str) -> bool {
    let lacks_history = error.contains("unable to open missing file") && error.contains(".history'");
    lacks_history || error.contains("forked from backup timeline")
}

/// The problem of a timeline that the store has, and to which no backup leads.
fn no_way(store: &str, target: &Target, timeline: u32) -> String {
    format!(
        "no backup in the store {store} leads to {target} on the timeline {timeline}: it began before the backups of that \
         branch of history, or on the other side of a major upgrade (docs/backups.md)"
    )
}

/// Whether a timeline is an earlier one than the archive's latest: nothing is added to it any more.
fn is_left(timeline: Option<u32>, info: &Info) -> bool {
    let newest = info.newest_segment.as_ref().and_then(|segment| u32::from_str_radix(segment.get(..8)?, 16).ok());
    timeline.zip(newest).is_some_and(|(timeline, newest)| timeline < newest)
}

/// Waits until everything from before a time is in the archive; returns whether something was added since `info`.
async fn until_archived(config: &Path, info: &Info, time: Timestamp) -> Result<bool, String> {
    loop {
        if command::info(config).await?.newest_segment != info.newest_segment {
            return Ok(true);
        }
        if Timestamp::now() >= time + ARCHIVED_WITHIN {
            return Ok(false);
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_of_another_timeline_is_recognised_by_pgbackrests_words() {
        let missing = "[055]: unable to open missing file '/second/db/archive/db/17-1/00000009.history' for read";
        assert!(is_of_other_timeline(missing));
        assert!(is_of_other_timeline(
            "[058]: target timeline 2 forked from backup timeline 1 before backup lsn of 0/3000100"
        ));
        assert!(!is_of_other_timeline(
            "[055]: unable to open missing file '/second/db/backup/db/backup.info' for read"
        ));
        let said = no_way("second", &Target::Latest, 2);
        assert!(said.starts_with("no backup in the store second leads to") && said.contains("timeline 2"), "{said}");
    }

    #[test]
    fn a_timeline_is_left_once_the_archive_has_a_later_one() {
        let info = Info { newest_segment: Some("0000000B0000000100000005".to_owned()), ..Info::default() };
        assert!(is_left(Some(10), &info));
        assert!(!is_left(Some(11), &info));
        assert!(!is_left(None, &info), "the latest");
        assert!(!is_left(Some(10), &Info::default()));
    }
}
