//! Changes to files that a crash must not leave half done.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Removes a folder with its content. A missing folder is no error.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a file. A missing file is no error.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes everything under `new` durable, then renames it to `name`.
pub fn commit_tree(new: &Path, name: &Path) -> io::Result<()> {
    write_out(new)?;
    rename(new, name)
}

/// Renames a folder within its parent, durably.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    if let Some(parent) = to.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Flushes the volume of a path. One call for all: an fsync of each of initdb's thousand files takes
/// longer.
pub fn write_out(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::syncfs(&File::open(path)?)?)
}

/// The space of the volume of a path that may still be used, in bytes.
///
/// # Errors
/// If the file system cannot be read.
pub fn free(path: &Path) -> nix::Result<u64> {
    let volume = statvfs(path)?;
    Ok(volume.blocks_available().saturating_mul(volume.fragment_size()))
}

/// Closes PGDATA to its group: fsGroup opens it at every mount, and PostgreSQL refuses it then.
pub fn close_to_group(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
}
