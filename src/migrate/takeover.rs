//! The migrations that another tool has applied, from its own table (`baseline: FromTool`). The table
//! is read once, while the ledger is empty, and never written.

use std::collections::HashSet;

use flate2::Crc;
use sha2::{Digest, Sha384};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::outcome::Stopped;
use super::session::unavailable;
use super::source::{Kind, Migration, MigrationSet, REPEATABLE};
use super::version::Scheme;
use crate::api::MigrationFormat;
use crate::api::conditions::reason;
use crate::postgres::{ident, literal};

/// How many names a message has.
const SHOWN: usize = 5;

/// The type of the row of `atlas migrate apply --baseline`: all up to its version were there.
const ATLAS_BASELINE: &str = "1";

/// A person may have said with `atlas migrate set` that a migration counts as applied (4 in its type).
const ATLAS_COLUMNS: &str = "version, applied >= total OR type & 4 <> 0, type";

/// What a tool keeps: its table, and the columns as text that are read of it.
struct Table {
    name: &'static str,
    columns: &'static str,
    order: &'static str,
    /// The schema that the tool makes for it; with `alone`, it has the table in no other.
    schema: Option<&'static str>,
    alone: bool,
    /// By these columns, tables of one name tell their tool.
    has: &'static [&'static str],
    lacks: &'static [&'static str],
}

/// What most tools have: a table in the schema of the session.
const PLAIN: Table =
    Table { name: "", columns: "", order: "1", schema: None, alone: false, has: &["version"], lacks: &[] };

/// The table of a tool; none if it has none that says what it applied.
fn table(format: MigrationFormat) -> Option<Table> {
    let table = |name, columns| Some(Table { name, columns, ..PLAIN });
    match format {
        MigrationFormat::Diesel => table("__diesel_schema_migrations", "version"),
        // The names of its files are those of golang-migrate.
        MigrationFormat::GolangMigrate | MigrationFormat::Servicedb => {
            Some(Table { has: &["version", "dirty"], ..table("schema_migrations", "version, dirty")? })
        }
        MigrationFormat::Goose => Some(Table {
            order: "id",
            has: &["version_id", "is_applied"],
            ..table("goose_db_version", "version_id, is_applied")?
        }),
        MigrationFormat::Dbmate => Some(Table {
            lacks: &["dirty", "inserted_at", "statements", "name"],
            ..table("schema_migrations", "version")?
        }),
        // Its services have tables of this name in their own schemas.
        MigrationFormat::Supabase => {
            Some(Table { schema: Some("supabase_migrations"), alone: true, ..table("schema_migrations", "version")? })
        }
        MigrationFormat::SqlMigrate => Some(Table { has: &["id"], ..table("gorp_migrations", "id")? }),
        MigrationFormat::Tern => table("schema_version", "version"),
        MigrationFormat::Sqlx => table("_sqlx_migrations", "version, success, encode(checksum, 'hex')"),
        MigrationFormat::Flyway => Some(Table {
            order: "installed_rank",
            ..table("flyway_schema_history", "version, success, type, description, checksum")?
        }),
        MigrationFormat::Refinery => table("refinery_schema_history", "version"),
        MigrationFormat::Prisma => Some(Table {
            order: "started_at",
            has: &["migration_name"],
            ..table("_prisma_migrations", "migration_name, finished_at IS NOT NULL, rolled_back_at IS NOT NULL")?
        }),
        MigrationFormat::Drizzle => Some(Table {
            schema: Some("drizzle"),
            has: &["created_at"],
            ..table("__drizzle_migrations", "created_at")?
        }),
        MigrationFormat::Atlas => {
            Some(Table { schema: Some("atlas_schema_revisions"), ..table("atlas_schema_revisions", ATLAS_COLUMNS)? })
        }
        MigrationFormat::Auto | MigrationFormat::Morph => None,
    }
}

/// The numbers of the migrations that the tool has applied; none if it has no table here.
///
/// # Errors
/// If it left one unfinished, has applied one that the source lacks, or the connection is lost.
pub async fn applied(client: &Client, set: &MigrationSet) -> Result<HashSet<i64>, Stopped> {
    let Some(table) = table(set.format) else {
        let message = format!(
            "spec.migrations.baseline is FromTool, and {} has no table that is known: use baselineVersion",
            set.format.name()
        );
        return Err(Stopped::refused(reason::INVALID_MIGRATIONS, None, message));
    };
    let Some(place) = find(client, &table, set.format).await? else {
        tracing::info!(table = table.name, "the tool has no table in this database: nothing was applied by it");
        return Ok(HashSet::new());
    };
    let query = format!("SELECT {} FROM {place} ORDER BY {}", table.columns, table.order);
    let rows = rows(client, &query).await.map_err(|error| unreadable(&place, error))?;
    let mut read = Read { set, table: &place, applied: HashSet::new(), missing: Vec::new() };
    for row in &rows {
        read.row(row)?;
    }
    read.end()
}

/// The table: in the tool's own schema, or wherever it is.
async fn find(client: &Client, table: &Table, format: MigrationFormat) -> Result<Option<String>, Stopped> {
    let name = table.name;
    let query = format!(
        "SELECT n.nspname, (SELECT pg_catalog.string_agg(a.attname::pg_catalog.text, ',') FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relname = {} AND c.relkind IN ('r', 'p') AND n.nspname <> 'servicedb' ORDER BY 1",
        literal(name)
    );
    let found = rows(client, &query).await.map_err(unavailable)?;
    let mut all: Vec<(&str, Vec<&str>)> = found
        .iter()
        .filter_map(|row| Some((row.get(0)?, row.get(1).unwrap_or_default().split(',').collect())))
        .collect();
    let own = |schema: &str| table.schema == Some(schema);
    if table.alone || all.iter().any(|(schema, _)| own(schema)) {
        all.retain(|(schema, _)| own(schema));
    }
    let is_the_tools = |columns: &[&str]| {
        table.has.iter().all(|column| columns.contains(column))
            && !table.lacks.iter().any(|column| columns.contains(column))
    };
    let fitting: Vec<&str> =
        all.iter().filter(|(_, columns)| is_the_tools(columns)).map(|(schema, _)| *schema).collect();
    let refused = |message| Err(Stopped::refused(reason::INVALID_MIGRATIONS, None, message));
    match (&fitting[..], &all[..]) {
        ([], []) => Ok(None),
        ([schema], _) => Ok(Some(format!("{}.{}", ident(schema), ident(name)))),
        ([], [(schema, columns), ..]) => refused(format!(
            "spec.migrations.baseline is FromTool, and {schema}.{name} is not the table of {}, by its columns ({}): name \
             the tool that made it in spec.migrations.source.format, or rename it if it is no tool's",
            format.name(),
            columns.join(", ")
        )),
        _ => refused(format!(
            "spec.migrations.baseline is FromTool, and there are tables {name} in the schemas {}: drop or rename all but \
             that of these migrations",
            fitting.join(", ")
        )),
    }
}

fn unreadable(place: &str, error: tokio_postgres::Error) -> Stopped {
    match error.as_db_error() {
        None => unavailable(error),
        Some(db) => {
            let message = format!(
                "spec.migrations.baseline is FromTool, and the tool's table {place} cannot be read: {}; it must belong to \
                 the role that migrations run as, and have the columns of the tool",
                db.message()
            );
            Stopped::refused(reason::INVALID_MIGRATIONS, None, message)
        }
    }
}

async fn rows(client: &Client, query: &str) -> Result<Vec<SimpleQueryRow>, tokio_postgres::Error> {
    let messages = client.simple_query(query).await?;
    let row = |message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None };
    Ok(messages.into_iter().filter_map(row).collect())
}

struct Read<'a> {
    set: &'a MigrationSet,
    table: &'a str,
    applied: HashSet<i64>,
    /// What the tool has applied and the source lacks.
    missing: Vec<String>,
}

impl Read<'_> {
    fn row(&mut self, row: &SimpleQueryRow) -> Result<(), Stopped> {
        let key = row.get(0);
        // Not every table has as many columns.
        let column = |at: usize| row.try_get(at).ok().flatten();
        let (second, third) = (column(1), column(2));
        match (self.set.format, key) {
            (MigrationFormat::Flyway, key) => return self.flyway(row, key),
            (_, None) => {}
            (MigrationFormat::GolangMigrate | MigrationFormat::Servicedb, Some(version)) => {
                if second == Some("t") {
                    return Err(self.unfinished(version, "migrate force sets its state when you have"));
                }
                // The table has the last version alone: all before it count as applied.
                self.one(version);
                self.up_to(version);
            }
            (MigrationFormat::Tern, Some("0")) => {}
            (MigrationFormat::Tern, Some(version)) => {
                self.one(version);
                self.up_to(version);
            }
            // The last row of a version counts; the first of all is version 0.
            (MigrationFormat::Goose, Some(version)) if version != "0" => match (second, self.number(version)) {
                (Some("t"), _) => drop(self.one(version)),
                (_, Some(number)) => drop(self.applied.remove(&number)),
                _ => {}
            },
            (MigrationFormat::Goose, _) => {}
            (MigrationFormat::Sqlx, Some(version)) => {
                if second != Some("t") {
                    return Err(self.unfinished(version, "correct or delete its row when you have"));
                }
                let migration = self.one(version).and_then(|number| self.set.of(number));
                if let Some(migration) = migration.filter(|migration| !has_sha384(migration, third)) {
                    return Err(edited(migration, "sqlx"));
                }
            }
            (MigrationFormat::Prisma, Some(name)) => match (second, third) {
                (_, Some("t")) => {}
                (Some("t"), _) => drop(self.one(name)),
                _ => return Err(self.unfinished(name, "prisma migrate resolve sets its state when you have")),
            },
            (MigrationFormat::Atlas, Some(version)) if second != Some("t") => {
                return Err(self.unfinished(version, "atlas migrate set sets its state when you have"));
            }
            // Its own first row.
            (MigrationFormat::Atlas, Some(".atlas_cloud_identifier")) => {}
            // Where the schema stood when Atlas came.
            (MigrationFormat::Atlas, Some(version)) if third == Some(ATLAS_BASELINE) => self.up_to(version),
            (MigrationFormat::SqlMigrate, Some(file)) => drop(self.one(file.strip_suffix(".sql").unwrap_or(file))),
            (MigrationFormat::Drizzle, Some(when)) => {
                match self.set.migrations.iter().find(|migration| migration.key.as_deref() == Some(when)) {
                    Some(migration) => drop(self.applied.insert(migration.version.number)),
                    None => self.missing.push(format!("the one of created_at {when}")),
                }
            }
            (_, Some(version)) => drop(self.one(version)),
        }
        Ok(())
    }

    fn flyway(&mut self, row: &SimpleQueryRow, version: Option<&str>) -> Result<(), Stopped> {
        let (kind, description) = (row.get(2).unwrap_or_default(), row.get(3).unwrap_or_default());
        if row.get(1) != Some("t") {
            return Err(self.unfinished(version.unwrap_or(description), "flyway repair removes its row when you have"));
        }
        let Some(version) = version else {
            // A repeatable migration is run again if its text has changed since.
            let number = super::version::Version::new(format!("{REPEATABLE}{description}"), String::new()).number;
            let same = self.set.of(number).is_some_and(|migration| has_crc(migration, row.get(4)));
            if same {
                self.applied.insert(number);
            } else {
                self.applied.remove(&number);
            }
            return Ok(());
        };
        match kind {
            "UNDO_SQL" | "DELETE" => drop(self.number(version).map(|number| self.applied.remove(&number))),
            "BASELINE" => self.up_to(version),
            "SQL_BASELINE" => {
                self.up_to(version);
                if let Some(of) = Scheme::Parts.version(version) {
                    self.one(&format!("B{of}"));
                }
            }
            _ => {
                let migration = self.one(version).and_then(|number| self.set.of(number));
                if let Some(migration) = migration.filter(|migration| !has_crc(migration, row.get(4))) {
                    return Err(edited(migration, "Flyway"));
                }
            }
        }
        Ok(())
    }

    /// The number of a version that the source has.
    fn number(&self, text: &str) -> Option<i64> {
        self.set.exact(text)
    }

    /// Records one version as applied; with a baseline, all up to it.
    fn one(&mut self, text: &str) -> Option<i64> {
        match self.number(text) {
            Some(number) => {
                self.applied.insert(number);
                if self.set.of(number).is_some_and(|migration| migration.kind == Kind::Baseline) {
                    self.up_to(text);
                }
                Some(number)
            }
            None => {
                self.missing.push(text.to_owned());
                None
            }
        }
    }

    /// Records all versions up to one.
    fn up_to(&mut self, text: &str) {
        let Some(last) = self.set.version(&text.to_owned().into()) else {
            self.missing.push(text.to_owned());
            return;
        };
        let versioned = self.set.migrations.iter().filter(|migration| migration.kind == Kind::Versioned);
        self.applied
            .extend(versioned.map(|migration| &migration.version).filter(|one| **one <= last).map(|one| one.number));
    }

    fn unfinished(&self, version: &str, then: &str) -> Stopped {
        let message = format!(
            "spec.migrations.baseline is FromTool, and {} has {version} as begun and not finished: the tool was stopped or \
             failed in it. Inspect the schema, and complete or revert it; {then}",
            self.table
        );
        Stopped::refused(reason::MIGRATION_FAILED, None, message)
    }

    fn end(self) -> Result<HashSet<i64>, Stopped> {
        if self.missing.is_empty() {
            return Ok(self.applied);
        }
        let more = self.missing.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let shown: Vec<&str> = self.missing.iter().take(SHOWN).map(String::as_str).collect();
        let message = format!(
            "spec.migrations.baseline is FromTool, and according to {} the tool has applied migrations that the source \
             lacks: {}{more}. Put the files back",
            self.table,
            shown.join(", ")
        );
        Err(Stopped::refused(reason::MIGRATIONS_MISSING, None, message))
    }
}

fn edited(migration: &Migration, tool: &str) -> Stopped {
    let message = format!(
        "{tool} has applied this migration with another content, by the checksum in its table: restore the file as it was \
         applied, and put the change into a new migration"
    );
    Stopped::refused(reason::CHECKSUM_MISMATCH, Some(&migration.up.name), message)
}

/// The text as the tool reads it.
fn as_read(migration: &Migration) -> &str {
    migration.up.written.as_deref().unwrap_or(&migration.up.sql)
}

/// The texts that a file may have had: with each way to end lines, and with or without the last.
fn written(migration: &Migration) -> Vec<String> {
    let unix = as_read(migration).replace("\r\n", "\n");
    let bare = unix.trim_end_matches('\n').to_owned();
    let windows = |text: &str| text.replace('\n', "\r\n");
    vec![windows(&unix), format!("{}\r\n", windows(&bare)), windows(&bare), format!("{bare}\n"), bare, unix]
}

/// sqlx has the checksum of the bytes.
fn has_sha384(migration: &Migration, checksum: Option<&str>) -> bool {
    let of = |text: &str| Sha384::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    written(migration).iter().any(|text| Some(of(text).as_str()) == checksum)
        || Some(of(as_read(migration)).as_str()) == checksum
}

/// Flyway has that of the lines without their ends; none for what has no text.
fn has_crc(migration: &Migration, checksum: Option<&str>) -> bool {
    let Some(checksum) = checksum else { return true };
    let mut crc = Crc::new();
    as_read(migration).lines().for_each(|line| crc.update(line.as_bytes()));
    checksum.parse() == Ok(crc.sum().cast_signed())
}
