//! Steps on files that a crash must not find half done.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Removes a folder with all in it; none is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes everything under `new` durable, then gives it its name.
pub fn commit_tree(new: &Path, name: &Path) -> io::Result<()> {
    write_out(new)?;
    std::fs::rename(new, name)?;
    if let Some(parent) = name.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Makes the volume of a path durable, as far as it is written. One call for all: a fsync for
/// each of initdb's thousand files takes longer.
pub fn write_out(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::syncfs(&File::open(path)?)?)
}

/// Closes PGDATA to its group, which fsGroup opens at every mount and PostgreSQL refuses.
pub fn close_to_group(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
}
