//! Reads the folder with the migrations: a ConfigMap's volume, or a folder from an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::outcome::Stopped;
use super::source::{self, MigrationSet};
use crate::api::MigrationFormat;
use crate::api::conditions::reason;
use crate::contract::pack;
use crate::contract::pod::IMAGE_DIR;

/// The size limit of a folder, in bytes: a larger one does not contain only migrations.
const LIMIT: u64 = 64 << 20;
/// How deep folders may be in one another: a link may lead in a circle.
const DEPTH: usize = 8;

/// Reads a folder's files, and those in its folders, as migrations; a packed folder is unpacked first.
/// Names that start with a dot are skipped: the kubelet's own entries (each file of a ConfigMap is a
/// symbolic link into one of them), and `.gitkeep`.
///
/// # Errors
/// If a file cannot be read, or is not a migration.
pub fn read(folder: &Path, format: MigrationFormat) -> Result<MigrationSet, Stopped> {
    // A folder that is itself a link cannot lead out of its image.
    let mount = Path::new(IMAGE_DIR);
    let root = if folder.starts_with(mount) { mount } else { folder };
    let root = root.canonicalize().map_err(|error| failed(folder, &error))?;
    let mut files = BTreeMap::new();
    let mut left = LIMIT;
    let mut folders = vec![(folder.to_path_buf(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        for (name, path) in entries(&folder)? {
            let name = format!("{prefix}{name}");
            if !path.is_dir() {
                files.insert(name, content(&root, &path, &mut left)?);
            } else if depth < DEPTH {
                folders.push((path, format!("{name}/"), depth + 1));
            }
        }
    }
    let files = pack::unpack(files).map_err(|error| {
        Stopped::refused(reason::INVALID_MIGRATIONS, None, format!("the packed folder cannot be read: {error}"))
    })?;
    Ok(source::read(files, format)?)
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, Stopped> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
        let entry = entry.map_err(|error| failed(folder, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            entries.push((name, entry.path()));
        }
    }
    Ok(entries)
}

fn content(root: &Path, path: &Path, left: &mut u64) -> Result<Vec<u8>, Stopped> {
    let target = path.canonicalize().map_err(|error| failed(path, &error))?;
    // A link out of the folder would make this process read its own files.
    if !target.starts_with(root) || !target.is_file() {
        let message = "it is neither a file nor a link to one in the folder: put the file itself there";
        return Err(Stopped::refused(reason::INVALID_MIGRATIONS, path.to_str(), message));
    }
    let size = target.metadata().map_err(|error| failed(path, &error))?.len();
    *left = left.checked_sub(size).ok_or_else(|| {
        let message = format!("the folder has more than {} MiB: keep data out of the migrations", LIMIT >> 20);
        Stopped::refused(reason::INVALID_MIGRATIONS, path.to_str(), message)
    })?;
    std::fs::read(&target).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Stopped {
    let message = format!("the migrations folder {} cannot be read: {error}", path.display());
    Stopped::later(reason::INVALID_MIGRATIONS, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder of one test, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("servicedb-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }

        fn write(&self, file: &str, sql: &str) {
            let path = self.0.join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, sql).expect("a file");
        }

        fn names(&self) -> Vec<String> {
            read(&self.0, MigrationFormat::Auto)
                .expect("migrations")
                .migrations
                .into_iter()
                .map(|migration| migration.up.name)
                .collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_kubelets_own_entries_are_no_migrations() {
        let folder = Folder::new("kubelet");
        folder.write("..2026_01_02/1_a.up.sql", "SELECT 1");
        symlink("..2026_01_02", folder.0.join("..data")).expect("a link");
        symlink("..data/1_a.up.sql", folder.0.join("1_a.up.sql")).expect("a link");
        assert_eq!(folder.names(), ["1_a.up.sql"]);
    }

    #[test]
    fn folders_are_read_as_migrations() {
        let folder = Folder::new("folders");
        folder.write("2_b/up.sql", "SELECT 2");
        folder.write("2_b/down.sql", "SELECT -2");
        folder.write("1_a.up.sql", "SELECT 1");
        folder.write(".gitkeep", "");
        assert_eq!(folder.names(), ["1_a.up.sql", "2_b/up.sql"]);
    }

    #[test]
    fn a_link_out_of_the_folder_is_not_followed() {
        let folder = Folder::new("links");
        symlink("/etc/hostname", folder.0.join("1_a.up.sql")).expect("a link");
        let stopped = read(&folder.0, MigrationFormat::Auto).expect_err("refused");
        assert!(stopped.failure.message.contains("neither a file nor a link"), "{}", stopped.failure.message);
        assert!(!stopped.failure.transient);
    }
}
