//! What a store has of a database, from the output of `pgbackrest info`.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use crate::api::BackupType;
use crate::contract::pod::WAL_SEGMENT;

/// The segments of 4 GiB, as their names count them and pgBackRest's folders hold them.
const SEGMENTS_OF_A_FOLDER: u64 = (1 << 32) / WAL_SEGMENT;
/// The code of a stanza that does not exist.
const NO_STANZA: i32 = 1;
/// The code of a stanza without a backup.
const NO_BACKUP: i32 = 2;

/// What a store has of a database.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The newest segment in the archive, of the latest timeline.
    pub newest_segment: Option<String>,
    /// The number of the present incarnation of the database: a major upgrade begins another.
    pub incarnation: Option<u32>,
    /// The system identifier of each incarnation: after the way back from an upgrade two have the same.
    pub databases: BTreeMap<u32, String>,
    /// The backups that can be restored, the oldest first.
    pub backups: Vec<Backup>,
}

impl Info {
    /// The system identifier of the database that a backup is of.
    pub fn database_of(&self, backup: &Backup) -> Option<&str> {
        self.databases.get(&backup.incarnation).map(String::as_str)
    }

    /// The system identifier of the present database.
    pub fn present(&self) -> Option<&str> {
        self.databases.get(&self.incarnation?).map(String::as_str)
    }
}

/// A backup in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its name, such as `20261128-030000F`.
    pub label: String,
    /// Its type.
    pub kind: BackupType,
    /// The incarnation of the database that it is of.
    pub incarnation: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended: the first moment to which it can be recovered.
    pub finished_at: Timestamp,
    /// The size of the database, in bytes.
    pub database_bytes: u64,
    /// What it takes in the store beside the backups that it stands on, in bytes.
    pub stored_bytes: u64,
    /// The first WAL segment that it needs.
    pub first_segment: String,
    /// The position in WAL at its end, from which on it is consistent.
    pub last_position: String,
}

#[derive(Deserialize)]
struct Stanza {
    #[serde(default)]
    archive: Vec<Archive>,
    #[serde(default)]
    backup: Vec<RawBackup>,
    #[serde(default)]
    db: Vec<Incarnation>,
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    code: i32,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Archive {
    #[serde(default)]
    id: String,
    max: Option<String>,
}

#[derive(Deserialize)]
struct RawBackup {
    label: String,
    #[serde(rename = "type")]
    kind: String,
    timestamp: Times,
    info: Sizes,
    archive: Segments,
    lsn: Positions,
    #[serde(default)]
    database: Incarnation,
}

#[derive(Deserialize, Default)]
struct Incarnation {
    #[serde(default)]
    id: u32,
    #[serde(default, rename = "system-id")]
    system_identifier: Option<u64>,
}

#[derive(Deserialize)]
struct Positions {
    stop: Option<String>,
}

#[derive(Deserialize)]
struct Times {
    start: i64,
    stop: i64,
}

#[derive(Deserialize)]
struct Sizes {
    size: u64,
    repository: Repository,
}

#[derive(Deserialize)]
struct Repository {
    delta: u64,
}

#[derive(Deserialize)]
struct Segments {
    start: Option<String>,
}

/// Reads the output, in which pgBackRest reports a store that cannot be read, too.
///
/// # Errors
/// The store's, or what is not understood.
pub fn parse(text: &str) -> Result<Info, String> {
    let stanzas: Vec<Stanza> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Some(stanza) = stanzas.into_iter().next() else { return Ok(Info::default()) };
    if ![0, NO_STANZA, NO_BACKUP].contains(&stanza.status.code) {
        let message = stanza.status.message.split_whitespace().collect::<Vec<_>>().join(" ");
        return Err(message);
    }
    // Of the present incarnation: a major upgrade begins again with the first timeline.
    let number = |archive: &Archive| archive.id.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
    let newest = stanza.archive.into_iter().max_by_key(|archive| (number(archive), archive.max.clone()));
    let incarnation = stanza.db.iter().map(|incarnation| incarnation.id).max();
    let identifier = |incarnation: &Incarnation| Some((incarnation.id, incarnation.system_identifier?.to_string()));
    let databases = stanza.db.iter().filter_map(identifier).collect();
    let newest_segment = newest.and_then(|archive| archive.max);
    let mut backups = Vec::new();
    for raw in stanza.backup {
        let time = |seconds| Timestamp::from_second(seconds).map_err(|error| error.to_string());
        // Without its first segment, as after an aborted one, nothing can be restored.
        let (Some(first_segment), Some(last_position)) = (raw.archive.start, raw.lsn.stop) else { continue };
        backups.push(Backup {
            kind: if raw.kind == "full" { BackupType::Full } else { BackupType::Incremental },
            label: raw.label,
            incarnation: raw.database.id,
            started_at: time(raw.timestamp.start)?,
            finished_at: time(raw.timestamp.stop)?,
            database_bytes: raw.info.size,
            stored_bytes: raw.info.repository.delta,
            first_segment,
            last_position,
        });
    }
    backups.sort_by_key(|backup| backup.finished_at);
    Ok(Info { newest_segment, incarnation, databases, backups })
}

/// The position of a segment in WAL, in units of a segment, without its timeline; none if it is no segment.
pub fn position(segment: &str) -> Option<u64> {
    let is_segment = segment.len() == 24 && segment.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = |range| u64::from_str_radix(segment.get(range)?, 16).ok();
    is_segment.then(|| Some(number(8..16)? * SEGMENTS_OF_A_FOLDER + number(16..24)?))?
}

/// The name of the segment at this position of a timeline.
pub fn segment_at(timeline: u32, position: u64) -> String {
    format!("{timeline:08X}{:08X}{:08X}", position / SEGMENTS_OF_A_FOLDER, position % SEGMENTS_OF_A_FOLDER)
}

/// A position in WAL, such as `0/B0000A0`, in bytes.
pub fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    Some((number(high)? << 32) + number(low)?)
}

/// The segment of a file in the archive; none if it is a part of a segment, the label of a backup or a history.
pub fn segment_of(file: &str) -> Option<&str> {
    let (segment, _) = file.split_once('-')?;
    position(segment).map(|_| segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_segment_is_that_of_the_latest_timeline() {
        let info = r#"[{"archive": [
            {"database": {"id": 1}, "id": "17-1", "min": "000000010000000000000001", "max": "000000020000000000000004"},
            {"id": "17-1", "min": "000000010000000000000001", "max": "000000010000000000000009"}
        ], "status": {"code": 2, "message": "no valid backups"}}]"#;
        let found = parse(info).expect("JSON");
        assert_eq!(found.newest_segment.as_deref(), Some("000000020000000000000004"));
        assert!(found.backups.is_empty());
        let upgraded = info.replacen(
            "[{\"archive\": [",
            "[{\"archive\": [{\"id\": \"18-2\", \"max\": \"000000010000000000000005\"},",
            1,
        );
        let upgraded = upgraded.replacen(
            "\"status\"",
            r#""db": [{"id": 1, "system-id": 7569239123849665679}, {"id": 2}], "status""#,
            1,
        );
        let found = parse(&upgraded).expect("JSON");
        assert_eq!(found.newest_segment.as_deref(), Some("000000010000000000000005"), "of the upgraded database");
        assert_eq!(found.incarnation, Some(2));
        assert_eq!(found.databases, BTreeMap::from([(1, "7569239123849665679".to_owned())]));
        assert_eq!(found.present(), None, "it was not told");
        assert_eq!(parse("[]"), Ok(Info::default()));
        assert!(parse("").is_err());
    }

    #[test]
    fn a_store_that_cannot_be_read_is_no_empty_one() {
        let info = r#"[{"name": "db", "status": {"code": 99, "message": "other\n   unable to read"}}]"#;
        assert_eq!(parse(info), Err("other unable to read".to_owned()));
    }

    #[test]
    fn backups_are_in_the_order_of_their_ends() {
        let backup = |label: &str, kind: &str, stop: i64| {
            format!(
                r#"{{"label": "{label}", "type": "{kind}", "timestamp": {{"start": {}, "stop": {stop}}},
                    "info": {{"size": 31, "delta": 3, "repository": {{"delta": 4}}}},
                    "archive": {{"start": "000000010000000000000002", "stop": "000000010000000000000002"}},
                    "database": {{"id": 1, "repo-key": 1}}, "lsn": {{"start": "0/2000028", "stop": "0/2000158"}}}}"#,
                stop - 5
            )
        };
        let info = format!(
            r#"[{{"archive": [], "status": {{"code": 0}}, "backup": [{}, {}]}}]"#,
            backup("20261128-030000F_20261129-030000I", "incr", 200),
            backup("20261128-030000F", "full", 100)
        );
        let found = parse(&info).expect("JSON").backups;
        let kinds: Vec<_> = found.iter().map(|backup| (backup.kind, backup.finished_at.as_second())).collect();
        assert_eq!(kinds, [(BackupType::Full, 100), (BackupType::Incremental, 200)]);
        assert_eq!((found[0].incarnation, found[0].first_segment.as_str()), (1, "000000010000000000000002"));
        assert_eq!((found[0].started_at.as_second(), found[0].database_bytes, found[0].stored_bytes), (95, 31, 4));
    }
}
