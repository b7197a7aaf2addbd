//! The passphrase of a database's backups: made once, never replaced. Without it no backup can be
//! read.

use secrecy::ExposeSecret;

use crate::contract::backup::PASSPHRASE;
use crate::contract::records::Data;
use crate::postgres::generate_password;
use crate::vault::{Vault, VaultError};

/// Makes the record unless it exists; its content is never read here. One that was deleted is not
/// replaced: another passphrase would not open what was written with it. The agents report that it
/// is missing.
///
/// # Errors
/// Any error of Vault.
pub async fn ensure(vault: &dyn Vault, record: &str) -> Result<(), VaultError> {
    if vault.read_kv_metadata(record).await?.is_some_and(|metadata| metadata.version > 0) {
        return Ok(());
    }
    let data = Data::from([(PASSPHRASE.to_owned(), generate_password().expose_secret().to_owned())]);
    match vault.write_kv(record, &data, 0).await {
        // Another reconcile has made it meanwhile.
        Err(VaultError::CasMismatch { .. }) => Ok(()),
        result => result.map(|_| ()),
    }
}
