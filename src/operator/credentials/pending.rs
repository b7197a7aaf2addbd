//! New logins, and the bounds of their replacement: the same for the application and for clients with a login of their
//! own.

use jiff::SignedDuration;

use crate::contract::records::Login;
use crate::postgres::{generate_password, scram_verifier};

/// The minimum age of credentials that are replaced because of a damaged record.
pub const DAMAGE_COUNTS_AFTER: SignedDuration = SignedDuration::from_mins(5);
/// How many times `pending` is read and written before the reconcile yields to another writer.
pub const TRIES: usize = 3;

/// A login with a new password.
pub fn login(user: String) -> Login {
    let password = generate_password();
    let verifier = scram_verifier(&password);
    Login { user, password, verifier }
}
