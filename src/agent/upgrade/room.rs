//! The room that an upgrade needs on the volume.

use std::path::Path;

use crate::agent::{archive, volume};
use crate::contract::pod::VOLUME;
use crate::files;

/// Whether the volume has room for so many bytes.
///
/// # Errors
/// What is missing.
pub fn has_room(bytes: u64) -> Result<(), String> {
    let free = files::free(Path::new(VOLUME)).map_err(|error| format!("the volume: {error}"))?;
    let size = volume::size().map_err(|error| format!("the volume: {error}"))?;
    let spare = archive::room(size);
    if free >= bytes.saturating_add(spare) {
        return Ok(());
    }
    Err(format!(
        "the volume has {free} bytes free, and an upgrade needs {bytes} bytes for a copy of the data beside it and {spare} \
         for WAL of the running database: set a larger spec.storage.size"
    ))
}

/// The size of a data directory on its volume, in bytes.
///
/// # Errors
/// What `du` wrote.
pub async fn size_of(folder: &Path) -> Result<u64, String> {
    let output = tokio::process::Command::new("du").args(["--summarize", "--block-size=1"]).arg(folder).output().await;
    let output = output.map_err(|error| format!("du: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).ok_or_else(|| format!("du: {text:?}"))
}
