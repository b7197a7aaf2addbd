//! The files for one psql, in a folder that only the user can read, and that is removed at the end.

use std::io::Write;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

/// The folder.
pub struct Files(PathBuf);

impl Files {
    /// Creates it, with the authority and the password.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(authority: &str, password: &SecretString) -> std::io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("kubectl-servicedb-{:016x}", rand::random::<u64>()));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        // It fails if it exists: nobody else has prepared it.
        builder.create(&folder)?;
        let files = Self(folder);
        write(&files.authority(), authority)?;
        write(&files.password(), &format!("*:*:*:*:{}\n", escaped(password.expose_secret())))?;
        Ok(files)
    }

    /// The authority, PEM.
    pub fn authority(&self) -> PathBuf {
        self.0.join("ca.crt")
    }

    /// The password, as libpq's `passfile`.
    pub fn password(&self) -> PathBuf {
        self.0.join("pgpass")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("warning: {} has a password and cannot be removed: {error}", self.0.display());
        }
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

/// A field of a `passfile`.
fn escaped(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_the_users_alone_and_go_with_the_value() {
        let files = Files::create("pem", &"a:b\\c".to_owned().into()).expect("files");
        let (authority, password) = (files.authority(), files.password());
        assert_eq!(std::fs::read_to_string(&authority).expect("the authority"), "pem");
        assert_eq!(std::fs::read_to_string(&password).expect("the password"), "*:*:*:*:a\\:b\\\\c\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&password).expect("metadata").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        drop(files);
        assert!(!authority.exists() && !password.exists());
    }
}
