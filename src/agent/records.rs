//! The records of this ServiceDatabase in Vault, as its pods may use them.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::contract::records::{Pending, RecordError, VaultAccess};
use crate::vault::pod::{self, PodVaultError};
use crate::vault::{Vault, VaultError};

/// Vault and the folder in it; cheap to clone.
#[derive(Clone)]
pub struct Records {
    /// Vault, logged in as this ServiceDatabase's AppRole when first needed.
    pub vault: Arc<dyn Vault>,
    folder: String,
}

/// The error of an access to the records.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The file with the access to Vault.
    #[error(transparent)]
    Access(#[from] PodVaultError),
    /// Vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A record's content.
    #[error(transparent)]
    Content(#[from] RecordError),
}

impl Records {
    /// The records in a folder of a Vault.
    pub fn new(vault: Arc<dyn Vault>, folder: String) -> Self {
        Self { vault, folder }
    }

    /// The record that applications read.
    pub fn runtime(&self) -> String {
        format!("{}/runtime", self.folder)
    }

    /// The record that a client with a login of its own reads.
    pub fn client_runtime(&self, client: &str) -> String {
        format!("{}/clients/{client}/runtime", self.folder)
    }

    /// The record of its credentials that are not proved yet.
    pub fn client_pending(&self, client: &str) -> String {
        format!("{}/clients/{client}/pending", self.folder)
    }

    /// The record that the migration Job reads.
    pub fn migrator(&self) -> String {
        format!("{}/migrator", self.folder)
    }

    /// The record of the credentials that are not proved yet.
    pub fn pending(&self) -> String {
        format!("{}/pending", self.folder)
    }

    /// The credentials that are not proved yet, and the record's version that holds them.
    ///
    /// # Errors
    /// If Vault refuses or does not answer, or the record is not readable.
    pub async fn read_pending(&self) -> Result<Option<(Pending, u64)>, RecordsError> {
        match self.vault.read_kv(&self.pending()).await? {
            Some(record) => Ok(Some((Pending::from_data(&record.data)?, record.version))),
            None => Ok(None),
        }
    }
}

/// Opens the records when they are needed. The client is kept, and with it its token, until
/// the file with the access to Vault changes.
#[derive(Clone, Default)]
pub struct Source {
    opened: Arc<Mutex<Option<(VaultAccess, Records)>>>,
}

impl Source {
    /// The records.
    ///
    /// # Errors
    /// If the access to Vault cannot be read. Nothing is sent.
    pub async fn open(&self) -> Result<Records, RecordsError> {
        let access = pod::access()?;
        let mut opened = self.opened.lock().await;
        if let Some((known, records)) = &*opened
            && *known == access
        {
            return Ok(records.clone());
        }
        let client = pod::client_for(&access)?;
        let records = Records::new(Arc::new(client), access.folder.clone());
        *opened = Some((access, records.clone()));
        Ok(records)
    }
}
