//! Recognises the tool by the names and marks of the files.

use std::collections::BTreeMap;

use super::folder::{Folder, base, is_sql, leading_digits};
use super::{atlas, dbmate, diesel, drizzle, flyway, golang_migrate, goose, prisma, read_as, sql_migrate, tern};
use crate::api::MigrationFormat;
use crate::migrate::source::{MigrationSet, SourceError};

/// What a file's name or mark says about its tool.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Claim {
    /// `.up.sql` or `.down.sql`.
    UpDown,
    /// `up.sql` or `down.sql` in a folder.
    InFolder,
    /// `V1__x.sql` and its like.
    Prefixed,
    /// A number in front, and nothing else.
    Plain,
    /// A mark of this tool.
    Marked(Marked),
    /// A folder with `migration.sql`.
    Prisma,
    /// SQL without a number or a mark: whether it is in the way depends on the tool of the others.
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Marked {
    Goose,
    Dbmate,
    SqlMigrate,
    Tern,
}

/// The digits of a version of Diesel.
const TIMESTAMP: usize = 14;

/// Reads a folder as the files of the tool that they are recognised by.
pub fn read(folder: &Folder) -> Result<MigrationSet, SourceError> {
    let claims = claims(folder);
    let kinds: Vec<Claim> = claims.keys().copied().collect();
    let own = [Claim::UpDown, Claim::InFolder, Claim::Prefixed, Claim::Unknown];
    let format = match kinds[..] {
        // Its names may have no number.
        _ if folder.has(drizzle::JOURNAL) && only(&kinds, &[Claim::Plain, Claim::Unknown]) => MigrationFormat::Drizzle,
        _ if folder.has(atlas::SUM) && only(&kinds, &[Claim::Plain]) => MigrationFormat::Atlas,
        [Claim::Prisma] => MigrationFormat::Prisma,
        [Claim::InFolder] if has_options(folder) => MigrationFormat::Diesel,
        [Claim::Marked(Marked::Goose)] => MigrationFormat::Goose,
        [Claim::Marked(Marked::Dbmate)] => MigrationFormat::Dbmate,
        [Claim::Marked(Marked::SqlMigrate)] => MigrationFormat::SqlMigrate,
        // One without a way back has no mark.
        [Claim::Marked(Marked::Tern)] | [Claim::Plain, Claim::Marked(Marked::Tern)] => MigrationFormat::Tern,
        [Claim::Plain] => return plain(folder),
        _ if only(&kinds, &own) => return own_or(folder, &kinds),
        _ => return Err(mixed(&claims)),
    };
    read_as(folder, format)
}

fn only(found: &[Claim], allowed: &[Claim]) -> bool {
    found.iter().all(|claim| allowed.contains(claim))
}

/// The claims, each with the first file that makes it.
fn claims(folder: &Folder) -> BTreeMap<Claim, String> {
    let mut claims = BTreeMap::new();
    for file in folder.names() {
        if let Some(claim) = claim(folder, file) {
            claims.entry(claim).or_insert_with(|| file.to_owned());
        }
    }
    if claims.len() > 1 {
        claims.remove(&Claim::Unknown);
    }
    claims
}

fn claim(folder: &Folder, file: &str) -> Option<Claim> {
    let name = base(file);
    let of_a_folder = file.matches('/').count() == 1;
    match name {
        "up.sql" | "down.sql" if of_a_folder => return Some(Claim::InFolder),
        prisma::FILE if of_a_folder => return Some(Claim::Prisma),
        _ => {}
    }
    if !is_sql(name) {
        let named = [".up.", ".down."].iter().any(|part| name.contains(part));
        return (named && !file.contains('/') && !leading_digits(name).0.is_empty()).then_some(Claim::UpDown);
    }
    if name.starts_with(['V', 'U', 'R', 'B', 'v', 'u', 'r', 'b']) && name.contains("__") {
        return Some(Claim::Prefixed);
    }
    if file.contains('/') {
        return None;
    }
    if name.ends_with(".up.sql") || name.ends_with(".down.sql") {
        return Some(Claim::UpDown);
    }
    let marks = [
        (goose::MARK, Marked::Goose),
        (dbmate::MARK, Marked::Dbmate),
        (sql_migrate::MARK, Marked::SqlMigrate),
        (tern::MARK, Marked::Tern),
    ];
    if let Some((_, marked)) = marks.iter().find(|(mark, _)| folder.mentions(file, mark)) {
        return Some(Claim::Marked(*marked));
    }
    Some(if leading_digits(name).0.is_empty() { Claim::Unknown } else { Claim::Plain })
}

/// Servicedb's own layout goes before the tools that have the same names, so that its folders are read
/// as ever.
fn own_or(folder: &Folder, kinds: &[Claim]) -> Result<MigrationSet, SourceError> {
    let own = read_as(folder, MigrationFormat::Servicedb);
    // golang-migrate leaves SQL without a number out, and does not say so.
    if *kinds == [Claim::UpDown] && folder.names().any(|file| claim(folder, file) == Some(Claim::Unknown)) {
        return own;
    }
    let other = match (kinds, &own) {
        ([Claim::InFolder], Ok(set)) if is_diesels(folder) && !in_order_of_texts(set) => MigrationFormat::Diesel,
        ([Claim::UpDown], _) if folder.names().any(|file| folder.mentions(file, golang_migrate::MORPH_BARE)) => {
            MigrationFormat::Morph
        }
        (_, Ok(_)) => return own.map(doubted),
        ([Claim::UpDown], Err(_)) => MigrationFormat::GolangMigrate,
        ([Claim::InFolder], Err(_)) => MigrationFormat::Diesel,
        ([Claim::Prefixed], Err(_)) => MigrationFormat::Flyway,
        (_, Err(_)) => return own,
    };
    match (read_as(folder, other), own) {
        (Ok(set), _) => Ok(set),
        // The message about the layout that comes closer.
        (Err(error), Err(_)) if matches!(other, MigrationFormat::Diesel | MigrationFormat::Flyway) => Err(error),
        (Err(error), own) => own.map_err(|_| error),
    }
}

/// Files of Servicedb's own may be Flyway's as well, which would replace a placeholder.
fn doubted(mut set: MigrationSet) -> MigrationSet {
    for migration in set.migrations.iter_mut().filter(|migration| migration.up.name.starts_with('V')) {
        migration.doubt = flyway::placeholder(&migration.up.name, &migration.up.sql, true);
    }
    set
}

/// Whether every folder has a timestamp in front, as Diesel writes it.
fn is_diesels(folder: &Folder) -> bool {
    folder.names().filter_map(|file| file.split_once('/')).all(|(name, _)| {
        let version = name.split_once('_').map_or(name, |(version, _)| version);
        version.bytes().filter(u8::is_ascii_digit).count() >= TIMESTAMP
    })
}

/// Whether a folder has options of Diesel, which Servicedb's own layout does not know.
fn has_options(folder: &Folder) -> bool {
    folder.names().any(|file| file.split_once('/').is_some_and(|(_, file)| file == diesel::METADATA))
}

fn in_order_of_texts(set: &MigrationSet) -> bool {
    set.migrations.windows(2).all(|pair| pair[0].version.text.as_str() < pair[1].version.text.as_str())
}

/// Files `<number>_<name>.sql` are sqlx's or Supabase's: the same to both, unless the order of the
/// numbers is another one than that of their texts.
fn plain(folder: &Folder) -> Result<MigrationSet, SourceError> {
    let set = read_as(folder, MigrationFormat::Sqlx)?;
    let digits = |at: usize| leading_digits(&set.migrations[at].up.name).0;
    if let Some(at) = (1..set.migrations.len()).find(|at| digits(at - 1) > digits(*at)) {
        let (one, other) = (set.migrations[at - 1].up.name.clone(), set.migrations[at].up.name.clone());
        let message = format!(
            "whether {one} or {other} is first depends on the tool (the order of numbers or of texts): name it in \
             spec.migrations.source.format, such as Sqlx or Supabase"
        );
        return Err(SourceError::file(&other, message));
    }
    Ok(set)
}

fn mixed(claims: &BTreeMap<Claim, String>) -> SourceError {
    let named: Vec<String> = claims.iter().take(3).map(|(claim, file)| format!("{file} ({})", tool(*claim))).collect();
    let message = format!(
        "the files are in the layouts of different tools: {}. Keep those of one tool in the folder, or name the tool in \
         spec.migrations.source.format if it ignores the others",
        named.join(", ")
    );
    SourceError { file: claims.values().next_back().cloned(), line: None, message }
}

fn tool(claim: Claim) -> &'static str {
    match claim {
        Claim::UpDown => "golang-migrate, sqlx or Servicedb",
        Claim::InFolder => "Diesel",
        Claim::Prefixed => "Flyway or refinery",
        Claim::Plain => "sqlx, Supabase, Drizzle or Atlas",
        Claim::Marked(Marked::Goose) => "goose",
        Claim::Marked(Marked::Dbmate) => "dbmate",
        Claim::Marked(Marked::SqlMigrate) => "sql-migrate",
        Claim::Marked(Marked::Tern) => "tern",
        Claim::Prisma => "Prisma",
        Claim::Unknown => "unknown",
    }
}
