//! The oldest WAL of the leader, queried as `pg_rewind` queries it: a replica learns it otherwise only from a
//! line in its log.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::api::names::PostgresNames;
use crate::contract::pod::{POSTGRES_PORT, TLS_DIR, WAL_SEGMENT};
use crate::postgres::immune;

/// Timeout of the query.
const PATIENCE: Duration = Duration::from_secs(10);
/// A file's name is the timeline, eight digits, and the position, twice eight digits.
const QUERY: &str = "SELECT pg_catalog.min(pg_catalog.right(name, 16)) \
                     FROM pg_catalog.pg_ls_dir('pg_wal', false, false) AS name \
                     WHERE name ~ '^[0-9A-F]{24}$' AND NOT pg_catalog.pg_is_in_recovery()";

/// The position from which on the leader has all WAL, in bytes as LSNs count them.
///
/// # Errors
/// If it does not answer, or is itself a replica.
pub async fn oldest(host: &str) -> Result<u64, String> {
    let role = PostgresNames::REWINDER;
    let target = format!(
        "host={host} port={POSTGRES_PORT} dbname=postgres user={role} sslmode=verify-ca gssencmode=disable \
         sslrootcert={TLS_DIR}/ca.crt sslcert={TLS_DIR}/{role}.crt sslkey={TLS_DIR}/{role}.key connect_timeout=3"
    );
    let query = Command::new("psql")
        .env("PGOPTIONS", immune::ANY_LOGIN)
        .args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--no-password", "--command", QUERY, &target])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, query)
        .await
        .map_err(|_| "psql timed out".to_owned())?
        .map_err(|error| format!("psql: {error}"))?;
    let output_text = String::from_utf8_lossy(&output.stdout);
    position(output_text.trim()).ok_or_else(|| format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The position at which a file begins, from the last sixteen digits of its name.
fn position(name: &str) -> Option<u64> {
    let (high, low) = (name.get(..8)?, name.get(8..16)?);
    Some((u64::from_str_radix(high, 16).ok()? << 32) + u64::from_str_radix(low, 16).ok()? * WAL_SEGMENT)
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
