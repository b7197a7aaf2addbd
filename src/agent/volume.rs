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

/// Tells from now on when the volume is full.
pub async fn follow(pod: String, reporter: Reporter) {
    loop {
        let trouble = match statvfs(VOLUME) {
            Ok(volume) => {
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
