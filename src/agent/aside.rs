//! Removes the data directory that was kept when this replica was cloned again (decision 0033).

use std::io;
use std::path::Path;
use std::time::Duration;

use super::desired::DesiredState;
use super::rebuild;
use super::server::{Facts, FactsWatch};
use super::volume;
use crate::contract::pod::{PGDATA_KEPT, PGDATA_REMOVING};
use crate::files;

/// Interval between two checks.
const INTERVAL: Duration = Duration::from_secs(5);
/// From this use of the volume on, in percent, the clone needs the room.
const NO_ROOM: u8 = 90;

/// Removes it from now on when it is no longer needed, and finishes a removal that was interrupted.
pub async fn follow(pod: String, server: FactsWatch, desired: DesiredState) {
    let (kept, removing) = (Path::new(PGDATA_KEPT), Path::new(PGDATA_REMOVING));
    let mut logged = false;
    loop {
        if removing.exists() {
            remove(move || files::remove_tree(removing)).await;
        } else if kept.exists() {
            let used = volume::used().unwrap_or_default();
            let full = used >= NO_ROOM;
            let synchronous = desired.borrow().as_ref().is_some_and(|desired| desired.synchronous);
            let facts = server.borrow().clone();
            // Without a leader there is nothing to clone, and the kept directory may be the last copy.
            let is_led = full && rebuild::is_led(&pod).await;
            match next_step(facts.as_ref(), synchronous, full, is_led) {
                Step::Wait => {}
                Step::Keep => {
                    if !std::mem::replace(&mut logged, true) {
                        tracing::warn!(
                            used,
                            "{PGDATA_KEPT} is kept although this instance serves again: replication is asynchronous, so \
                             it may have rows that the leader lacks; it is removed when {NO_ROOM} % of the volume are \
                             used (docs/operations.md)"
                        );
                    }
                }
                Step::Remove(why) => {
                    tracing::info!(why, "removing {PGDATA_KEPT}");
                    remove(move || remove_renamed(kept, removing)).await;
                }
            }
        } else {
            logged = false;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The next step for the kept directory.
#[derive(Debug, PartialEq)]
enum Step {
    /// The clone does not serve yet.
    Wait,
    /// The instance serves, and the directory may still be the only copy of some rows.
    Keep,
    /// It is no longer needed, or the clone needs the room.
    Remove(&'static str),
}

/// Decides on the kept directory. With synchronous replication a clone that streams has every row that it
/// holds. With asynchronous replication it may hold rows that the leader never received, so it is removed
/// only for want of room.
fn next_step(facts: Option<&Facts>, synchronous: bool, full: bool, is_led: bool) -> Step {
    let serves = facts.is_some_and(|facts| !facts.is_cut_off());
    match (serves, synchronous) {
        (true, true) => Step::Remove("the clone streams"),
        _ if full && (serves || is_led) => Step::Remove("the volume has no room for both"),
        (true, false) => Step::Keep,
        (false, _) => Step::Wait,
    }
}

async fn remove(removal: impl FnOnce() -> io::Result<()> + Send + 'static) {
    match tokio::task::spawn_blocking(removal).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "{PGDATA_KEPT} cannot be removed; retrying"),
        Err(error) => tracing::warn!(%error, "the removal of {PGDATA_KEPT} was interrupted; retrying"),
    }
}

/// Removes `kept` under the name `removing`: an interruption leaves no half of a directory that looks
/// like a kept one.
fn remove_renamed(kept: &Path, removing: &Path) -> io::Result<()> {
    files::rename(kept, removing)?;
    files::remove_tree(removing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(lag_bytes: Option<u64>) -> Facts {
        Facts { in_recovery: true, lag_bytes, ..Facts::sample() }
    }

    #[test]
    fn it_is_removed_when_the_clone_streams_or_needs_the_room() {
        assert_eq!(next_step(None, true, false, false), Step::Wait, "being cloned");
        assert_eq!(next_step(Some(&replica(None)), true, false, false), Step::Wait, "the clone has not caught up yet");
        assert!(matches!(next_step(Some(&replica(Some(0))), true, false, false), Step::Remove(_)));
        assert!(matches!(next_step(None, true, true, true), Step::Remove(_)));
        assert_eq!(next_step(None, true, true, false), Step::Wait, "no instance leads: it may be the last copy");
    }

    #[test]
    fn with_asynchronous_replication_a_clone_that_streams_may_lack_its_rows() {
        assert_eq!(next_step(Some(&replica(Some(0))), false, false, false), Step::Keep);
        assert_eq!(next_step(Some(&Facts::sample()), false, false, false), Step::Keep, "promoted");
        assert_eq!(next_step(None, false, true, false), Step::Wait, "no instance leads: it may be the last copy");
        assert!(matches!(next_step(Some(&replica(Some(0))), false, true, true), Step::Remove(_)));
        assert!(matches!(next_step(Some(&Facts::sample()), false, true, false), Step::Remove(_)));
    }

    #[test]
    fn an_interrupted_removal_leaves_the_kept_directory_whole_or_gone() {
        let root = std::env::temp_dir().join(format!("servicedb-aside-{}", std::process::id()));
        let (kept, removing) = (root.join("pgdata.kept"), root.join("pgdata.removing"));
        std::fs::create_dir_all(kept.join("global")).expect("a kept directory");
        std::fs::create_dir_all(removing.join("base")).expect("the rest of an interrupted removal");
        assert!(remove_renamed(&kept, &removing).is_err());
        assert!(kept.join("global").exists());
        files::remove_tree(&removing).expect("a removal");
        remove_renamed(&kept, &removing).expect("a removal");
        assert!(!kept.exists() && !removing.exists());
        std::fs::remove_dir_all(root).expect("a folder");
    }
}
