//! The authority that signed Vault's certificate, for the pods: a file that may change while the
//! operator runs, such as a mounted ConfigMap.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Vault's authority, PEM.
pub struct VaultCa {
    file: Option<PathBuf>,
    /// The last content: a file that is being replaced must not remove it from the pods.
    last: Mutex<Option<String>>,
}

impl VaultCa {
    /// Reads the file for the first time; without a file the system's authorities are used.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(file: Option<PathBuf>) -> Result<Self, String> {
        let last = match &file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|error| format!("Vault's authority {} cannot be read: {error}", path.display()))?,
            ),
            None => None,
        };
        Ok(Self { file, last: Mutex::new(last) })
    }

    /// A fixed authority.
    #[cfg(test)]
    pub fn fixed(text: &str) -> Self {
        Self { file: None, last: Mutex::new(Some(text.to_owned())) }
    }

    /// The current authority.
    pub fn now(&self) -> Option<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = self.file.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) {
            *last = Some(text);
        }
        last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_updated_from_its_file_and_kept_without_it() {
        let file = std::env::temp_dir().join(format!("servicedb-vault-ca-{}", std::process::id()));
        std::fs::write(&file, "one").expect("a file");
        let ca = VaultCa::read(Some(file.clone())).expect("a readable file");
        std::fs::write(&file, "two").expect("a file");
        assert_eq!(ca.now().as_deref(), Some("two"));
        std::fs::remove_file(&file).expect("the file");
        assert_eq!(ca.now().as_deref(), Some("two"));
        assert!(VaultCa::read(Some(file)).is_err());
    }
}
