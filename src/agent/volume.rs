//! The volume: one agent at a time has it; and its free space, since a full one ends PostgreSQL
//! and says so nowhere that people look.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;

use super::report::{Area, Reporter};
use crate::api::conditions::reason;
use crate::contract::pod::VOLUME;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(5);
/// Less free space than one WAL segment: PostgreSQL cannot go on writing.
const FULL_BELOW: u64 = 16 << 20;
/// From how many percent on it is told how much is used, and in which steps.
const FILLING_FROM: u8 = 80;
const STEP: u8 = 5;
/// By how many percent it must be less again until that is told.
const SLACK: u8 = 2;

/// The file whose lock says who has the volume.
const LOCK: &str = "agent.lock";
/// How often it is tried.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// Waits until no other agent has the volume. After a forced deletion the next pod starts while
/// the one before still ends, on the same files: its postmaster's pid means nothing in another
/// container, so PostgreSQL itself would not notice. On one node the lock does; volumes that
/// several nodes can mount at once are not for databases.
///
/// The lock ends with the value, or with the process.
///
/// # Errors
/// If the volume cannot be written to.
pub async fn lock() -> std::io::Result<Flock<File>> {
    let path = Path::new(VOLUME).join(LOCK);
    let mut told = false;
    loop {
        match Flock::lock(File::create(&path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, Errno::EWOULDBLOCK)) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("the agent of an earlier pod still has the volume; waiting for its end");
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
/// If the file system does not tell.
pub fn used() -> nix::Result<u8> {
    let volume = statvfs(VOLUME)?;
    Ok(percent(volume.blocks(), volume.blocks_available()))
}

fn percent(all: u64, free: u64) -> u8 {
    let used = all.saturating_sub(free).saturating_mul(100).checked_div(all).unwrap_or_default();
    u8::try_from(used).unwrap_or(100)
}

/// What is told of the use, in steps, so that the report does not change with every file: none
/// below the first.
fn told(before: Option<u8>, used: u8) -> Option<u8> {
    let now = (used >= FILLING_FROM).then(|| used / STEP * STEP);
    let lingers = before.is_some_and(|before| now < Some(before) && used.saturating_add(SLACK) >= before);
    if lingers { before } else { now }
}

/// Tells from now on when the volume is nearly full, and when it is full.
pub async fn follow(pod: String, reporter: Reporter) {
    loop {
        let trouble = match statvfs(VOLUME) {
            Ok(volume) => {
                let used = percent(volume.blocks(), volume.blocks_available());
                reporter.update(|report| report.volume_used_percent = told(report.volume_used_percent, used));
                let free = volume.blocks_available() * volume.fragment_size();
                (free < FULL_BELOW).then(|| {
                    let message = format!(
                        "the volume of {pod} is full ({} MiB of {} MiB are free): let spec.storage.size grow",
                        free >> 20,
                        (volume.blocks() * volume.fragment_size()) >> 20,
                    );
                    (reason::VOLUME_FULL, message)
                })
            }
            Err(error) => {
                tracing::debug!(%error, "the volume's free space is not known");
                None
            }
        };
        reporter.trouble(Area::Volume, trouble);
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{percent, told};

    #[test]
    fn a_filling_volume_is_told_in_steps_that_do_not_flicker() {
        assert_eq!(told(None, 79), None);
        assert_eq!(told(None, 80), Some(80));
        assert_eq!(told(Some(80), 84), Some(80));
        assert_eq!(told(Some(80), 85), Some(85));
        assert_eq!(told(Some(85), 84), Some(85), "it lingers");
        assert_eq!(told(Some(85), 82), Some(80));
        assert_eq!(told(Some(80), 78), Some(80));
        assert_eq!(told(Some(80), 77), None);
        assert_eq!(told(Some(95), 40), None);
        assert_eq!((percent(1000, 150), percent(0, 0), percent(10, 20)), (85, 0, 0));
    }
}
