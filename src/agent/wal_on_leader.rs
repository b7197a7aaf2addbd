//! Which WAL the leader still has, asked as `pg_rewind` would ask it: a replica is told so by
//! nobody, but for a line in its log.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::api::names::PostgresNames;
use crate::contract::pod::{POSTGRES_PORT, TLS_DIR};
use crate::postgres::immune;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes a file: initdb's default, which `initialise` leaves as it is.
const SEGMENT: u64 = 16 << 20;
/// The files' names are timeline, and position, twice eight digits.
const QUERY: &str = "SELECT pg_catalog.min(pg_catalog.right(name, 16)) \
                     FROM pg_catalog.pg_ls_dir('pg_wal', false, false) AS name WHERE name ~ '^[0-9A-F]{24}$'";

/// The position from which on the leader has all WAL, in bytes as LSNs count them.
///
/// # Errors
/// If it cannot be asked; what is wrong.
pub async fn oldest(host: &str) -> Result<u64, String> {
    let role = PostgresNames::REWINDER;
    let target = format!(
        "host={host} port={POSTGRES_PORT} dbname=postgres user={role} sslmode=verify-ca gssencmode=disable \
         sslrootcert={TLS_DIR}/ca.crt sslcert={TLS_DIR}/{role}.crt sslkey={TLS_DIR}/{role}.key connect_timeout=3"
    );
    let asked = Command::new("psql")
        .env("PGOPTIONS", immune::ANY_LOGIN)
        .args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--no-password", "--command", QUERY, &target])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(|_| "psql does not end".to_owned())?
        .map_err(|error| format!("psql: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    position(said.trim()).ok_or_else(|| format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Where a file begins, by the last sixteen digits of its name.
fn position(name: &str) -> Option<u64> {
    let (high, low) = (name.get(..8)?, name.get(8..16)?);
    Some((u64::from_str_radix(high, 16).ok()? << 32) + u64::from_str_radix(low, 16).ok()? * SEGMENT)
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn a_file_begins_where_its_name_says() {
        assert_eq!(position("0000000000000001"), Some(0x0100_0000));
        assert_eq!(position("00000002000000FF"), Some(0x0002_FF00_0000));
        assert_eq!(position(""), None);
    }
}
