//! What `pg_control` says of a data directory, as `pg_controldata` prints it.

use std::path::Path;
use std::process::Stdio;

use crate::postgres::servers;

/// `pg_control` of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The timeline of the last checkpoint.
    pub timeline: u32,
    /// Whether the server was shut down: all WAL is on this volume, and nothing has to be recovered.
    pub is_shut_down: bool,
    /// The most prepared transactions, as recovery needs them.
    pub prepared_transactions: u32,
    /// The system identifier.
    pub system_identifier: String,
    /// The position of the last checkpoint in WAL.
    pub checkpoint: String,
}

/// Reads it.
///
/// # Errors
/// If `pg_controldata` cannot be run, or the folder is no data directory.
pub fn read(folder: &Path) -> Result<Control, String> {
    let output = std::process::Command::new(servers::program_of(folder, "pg_controldata"))
        .arg(folder)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("pg_controldata: {error}"))?;
    if !output.status.success() {
        return Err(format!("pg_controldata: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(text: &str) -> Result<Control, String> {
    let value = |label: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
        line.map(str::trim).ok_or_else(|| format!("pg_controldata prints no {label:?}"))
    };
    let number = |label: &str| value(label)?.parse().map_err(|_| format!("pg_controldata: {label} is no number"));
    Ok(Control {
        timeline: number("Latest checkpoint's TimeLineID")?,
        is_shut_down: value("Database cluster state")? == "shut down",
        prepared_transactions: number("max_prepared_xacts setting")?,
        system_identifier: value("Database system identifier")?.to_owned(),
        checkpoint: value("Latest checkpoint location")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
pg_control version number:            1700
Database system identifier:           7500000000000000000
Database cluster state:               shut down
Latest checkpoint location:           0/5000028
Latest checkpoint's REDO location:    0/5000028
Latest checkpoint's TimeLineID:       12
Latest checkpoint's PrevTimeLineID:   12
max_prepared_xacts setting:           7
";

    #[test]
    fn the_fields_are_read_by_their_labels() {
        let wanted = Control {
            timeline: 12,
            is_shut_down: true,
            prepared_transactions: 7,
            system_identifier: "7500000000000000000".to_owned(),
            checkpoint: "0/5000028".to_owned(),
        };
        assert_eq!(parse(PRINTED), Ok(wanted));
        let crashed = PRINTED.replace("shut down", "in production");
        assert_eq!(parse(&crashed).map(|control| control.is_shut_down), Ok(false));
        let standby = PRINTED.replace("shut down", "shut down in recovery");
        assert_eq!(parse(&standby).map(|control| control.is_shut_down), Ok(false), "a standby's WAL may be incomplete");
        assert!(parse("").is_err());
    }
}
