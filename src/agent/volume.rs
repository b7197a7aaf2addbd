//! The volume's free space: a full one ends PostgreSQL, and says so nowhere that people look.

use std::time::Duration;

use nix::sys::statvfs::statvfs;

use super::report::{Area, Reporter};
use crate::api::conditions::reason;
use crate::contract::pod::VOLUME;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(5);
/// Less free space than one WAL segment: PostgreSQL cannot go on writing.
const FULL_BELOW: u64 = 16 << 20;

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
