//! The volume: a lock, so that one agent at a time uses it, and a report of its free space, since a full
//! volume ends PostgreSQL with a message only in its log.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;

use super::report::{Area, Reporter};
use crate::api::conditions::reason;
use crate::contract::pod::VOLUME;
use crate::files;

/// Interval between two checks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Less free space than one WAL segment: PostgreSQL cannot continue to write.
const FULL_BELOW: u64 = 16 << 20;
/// The use in percent from which on it is reported.
const FILLING_FROM: u8 = 80;
/// The step of the reported percentage.
const STEP: u8 = 5;
/// How many percent the use must fall below a step until a lower one is reported.
const SLACK: u8 = 2;

/// The file that is locked by the agent that uses the volume.
const LOCK: &str = "agent.lock";
/// Interval between two attempts at the lock.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// Waits until no other agent uses the volume. After a forced deletion the next pod starts while
/// the former still ends, on the same files: its postmaster's pid means nothing in another
/// container, so PostgreSQL itself would not notice. The lock prevents that on one node; volumes that
/// several nodes can mount at once are not supported.
///
/// The lock ends with the value, or with the process.
///
/// # Errors
/// If the volume cannot be written to.
pub async fn lock() -> std::io::Result<Flock<File>> {
    let path = Path::new(VOLUME).join(LOCK);
    let mut logged = false;
    loop {
        match Flock::lock(File::create(&path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, Errno::EWOULDBLOCK)) => {
                if !std::mem::replace(&mut logged, true) {
                    tracing::warn!("the agent of an earlier pod still uses the volume; waiting for its end");
                }
                tokio::time::sleep(LOCK_RETRY).await;
            }
            Err((_, error)) => return Err(error.into()),
        }
    }
}

/// The percentage of the volume that is used, as far as PostgreSQL may use it.
///
/// # Errors
/// If the file system cannot be read.
pub fn used() -> nix::Result<u8> {
    let volume = statvfs(VOLUME)?;
    Ok(percent(volume.blocks(), volume.blocks_available()))
}

/// The space of the volume that PostgreSQL may still use, in bytes.
///
/// # Errors
/// If the file system cannot be read.
pub fn free() -> nix::Result<u64> {
    files::free(Path::new(VOLUME))
}

/// The size of the volume, in bytes.
///
/// # Errors
/// If the file system does not report it.
pub fn size() -> nix::Result<u64> {
    let volume = statvfs(VOLUME)?;
    Ok(volume.blocks().saturating_mul(volume.fragment_size()))
}

fn percent(all: u64, free: u64) -> u8 {
    let used = all.saturating_sub(free).saturating_mul(100).checked_div(all).unwrap_or_default();
    u8::try_from(used).unwrap_or(100)
}

/// The reported use, in steps, so that the report does not change with every file; none below the first.
fn reported(before: Option<u8>, used: u8) -> Option<u8> {
    let now = (used >= FILLING_FROM).then(|| used / STEP * STEP);
    let lingers = before.is_some_and(|before| now < Some(before) && used.saturating_add(SLACK) >= before);
    if lingers { before } else { now }
}

/// Reports from now on when the volume is nearly full, and when it is full.
pub async fn follow(pod: String, reporter: Reporter) {
    loop {
        let trouble = match statvfs(VOLUME) {
            Ok(volume) => {
                let used = percent(volume.blocks(), volume.blocks_available());
                reporter.update(|report| report.volume_used_percent = reported(report.volume_used_percent, used));
                let free = volume.blocks_available() * volume.fragment_size();
                (free < FULL_BELOW).then(|| {
                    let message = format!(
                        "the volume of {pod} is full ({} MiB of {} MiB are free): increase spec.storage.size",
                        free >> 20,
                        (volume.blocks() * volume.fragment_size()) >> 20,
                    );
                    (reason::VOLUME_FULL, message)
                })
            }
            Err(error) => {
                tracing::debug!(%error, "the volume's free space cannot be read");
                None
            }
        };
        reporter.trouble(Area::Volume, trouble);
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{percent, reported};

    #[test]
    fn a_filling_volume_is_reported_in_stable_steps() {
        assert_eq!(reported(None, 79), None);
        assert_eq!(reported(None, 80), Some(80));
        assert_eq!(reported(Some(80), 84), Some(80));
        assert_eq!(reported(Some(80), 85), Some(85));
        assert_eq!(reported(Some(85), 84), Some(85), "it lingers");
        assert_eq!(reported(Some(85), 82), Some(80));
        assert_eq!(reported(Some(80), 78), Some(80));
        assert_eq!(reported(Some(80), 77), None);
        assert_eq!(reported(Some(95), 40), None);
        assert_eq!((percent(1000, 150), percent(0, 0), percent(10, 20)), (85, 0, 0));
    }
}
