//! Passwords and the verifiers that PostgreSQL stores for them.

use rand::Rng;
use rand::distr::Alphanumeric;
use secrecy::{ExposeSecret, SecretString};

/// Letters and digits in a password: 32 of 62 are 190 bits, and never need escaping.
const PASSWORD_LENGTH: usize = 32;

/// A new random password from the system's generator.
pub fn generate_password() -> SecretString {
    rand::rng().sample_iter(Alphanumeric).take(PASSWORD_LENGTH).map(char::from).collect::<String>().into()
}

/// The SCRAM-SHA-256 verifier of a password, hashed here so that the password itself is never
/// in a statement. Each call uses a new salt: keep the result.
pub fn scram_verifier(password: &SecretString) -> SecretString {
    postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_what_postgres_stores_and_hides_the_password() {
        let password = generate_password();
        let verifier = scram_verifier(&password);
        assert!(verifier.expose_secret().starts_with("SCRAM-SHA-256$4096:"));
        assert!(!verifier.expose_secret().contains(password.expose_secret()));
        assert_eq!(password.expose_secret().len(), PASSWORD_LENGTH);
    }
}
