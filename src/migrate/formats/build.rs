//! Makes a set of migrations from the drafts of a layout: the order, the checks of every statement,
//! and how each file is run.

use super::{Draft, Layout, Part, Run};
use crate::api::MigrationFormat;
use crate::migrate::lexer::{self, LexError, Statement};
use crate::migrate::source::{
    Kind, Migration, MigrationFile, MigrationSet, Mode, SourceError, forbidden, mode, sha256, unix_lines,
};

/// Makes the set.
///
/// # Errors
/// If there is no migration, two have one version, or a statement is not allowed.
pub fn set(format: MigrationFormat, layout: Layout) -> Result<MigrationSet, SourceError> {
    let Layout { mut drafts, scheme, ignored } = layout;
    if drafts.is_empty() {
        let message = match format {
            MigrationFormat::Servicedb => "there are no migrations: expected files <version>_<name>.up.sql".to_owned(),
            other => format!("there are no migrations of {} among the files", other.name()),
        };
        return Err(SourceError::set(message));
    }
    drafts.sort_by(|one, other| one.version.ordinal.cmp(&other.version.ordinal).then(one.up.file.cmp(&other.up.file)));
    let mut by_number: Vec<&Draft> = drafts.iter().collect();
    by_number.sort_by_key(|draft| draft.version.number);
    for pair in by_number.windows(2) {
        if let [one, other] = pair
            && one.version == other.version
        {
            return Err(taken(&other.version.to_string(), &one.up.file, &other.up.file));
        }
    }
    let mut migrations = Vec::with_capacity(drafts.len());
    for draft in drafts {
        migrations.push(migration(format, draft)?);
    }
    if migrations.iter().all(|migration| migration.kind == Kind::Repeatable) {
        return Err(SourceError::set("there are only repeatable migrations: at least one needs a version"));
    }
    Ok(MigrationSet::new(format, scheme, migrations, ignored))
}

/// Two files of one version: a tool may run one of them and not say so.
pub fn taken(version: &str, first: &str, second: &str) -> SourceError {
    let (first, second) = if first <= second { (first, second) } else { (second, first) };
    SourceError::file(
        second,
        format!("version {version} is taken by {first}: give each migration a version of its own"),
    )
}

fn migration(format: MigrationFormat, draft: Draft) -> Result<Migration, SourceError> {
    let (up, mode) = file(format, draft.up)?;
    let (down, down_mode) = match draft.down {
        Some(part) => {
            let (file, mode) = file(format, part)?;
            (Some(file), mode)
        }
        None => (None, Mode::Transaction),
    };
    let Draft { version, name, kind, doubt, key, .. } = draft;
    Ok(Migration { version, name, kind, up, mode, down, down_mode, doubt, key })
}

fn file(format: MigrationFormat, part: Part) -> Result<(MigrationFile, Mode), SourceError> {
    let Part { file, mut sql, sum, run } = part;
    let checksum = sha256(unix_lines(sum.as_deref().unwrap_or(&sql)).as_bytes());
    let statements = lexer::statements(&sql).map_err(|error| unreadable(&file, &sql, &error))?;
    // A tool that begins no transaction of its own lets a file do so: then all of the file is one, as
    // it is here.
    let wrapped = format != MigrationFormat::Servicedb && is_wrapped(&statements);
    let inner = if wrapped { &statements[1..statements.len() - 1] } else { &statements[..] };
    for statement in inner {
        if let Some(problem) = forbidden(statement) {
            return Err(SourceError::line(&file, statement.line, problem));
        }
    }
    let mode = if wrapped { Mode::Transaction } else { how(&file, run, inner, &sql)? };
    if wrapped {
        let ends =
            [&statements[0], &statements[statements.len() - 1]].map(|one| one.offset..one.offset + one.text.len());
        for range in ends {
            let blank =
                sql[range.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect::<String>();
            sql.replace_range(range, &blank);
        }
    }
    Ok((MigrationFile { name: file, sql, checksum }, mode))
}

fn how(file: &str, run: Run, statements: &[Statement<'_>], sql: &str) -> Result<Mode, SourceError> {
    let bare = Mode::NoTransaction { idempotent: mode(sql) == Mode::NoTransaction { idempotent: true } };
    Ok(match run {
        Run::As(Mode::Transaction) => Mode::Transaction,
        Run::As(mode @ Mode::NoTransaction { idempotent: true }) => mode,
        Run::As(Mode::NoTransaction { idempotent: false }) => bare,
        Run::Query if statements.len() == 1 && needs_none(&statements[0]) => bare,
        Run::Query => Mode::Transaction,
        Run::Statements => {
            match (statements.iter().find(|one| needs_none(one)), statements.iter().find(|one| !needs_none(one))) {
                (Some(without), Some(_)) => {
                    let message = "no transaction can contain this statement, and the file has others that need one: move \
                               it to a migration of its own";
                    return Err(SourceError::line(file, without.line, message));
                }
                (Some(_), None) => bare,
                (None, _) => Mode::Transaction,
            }
        }
    })
}

/// Whether no transaction can contain a statement.
fn needs_none(statement: &Statement<'_>) -> bool {
    statement.starts_with(&["VACUUM"])
        || (statement.contains(&["CONCURRENTLY"]) && !statement.starts_with(&["REFRESH"]))
}

/// Whether the file begins a transaction with its first statement, and commits it with its last one.
fn is_wrapped(statements: &[Statement<'_>]) -> bool {
    let [first, .., last] = statements else { return false };
    let is = |statement: &Statement<'_>, words: &[&[&str]]| words.iter().any(|words| statement.is(words));
    is(first, &[&["BEGIN"], &["BEGIN", "WORK"], &["BEGIN", "TRANSACTION"], &["START", "TRANSACTION"]])
        && is(last, &[&["COMMIT"], &["COMMIT", "WORK"], &["COMMIT", "TRANSACTION"], &["END"], &["END", "TRANSACTION"]])
}

/// The lines of data below a COPY are no SQL, so the mistake is that line and not the one at which
/// they end to be readable.
fn unreadable(file: &str, sql: &str, error: &LexError) -> SourceError {
    let before = sql.lines().take(usize::try_from(error.line).unwrap_or(usize::MAX));
    let copy = before.enumerate().filter(|(_, line)| {
        let line = line.trim_start().to_ascii_uppercase();
        line.starts_with("COPY ") && line.contains(" FROM STDIN")
    });
    match copy.last() {
        Some((at, _)) => SourceError::line(
            file,
            u32::try_from(at + 1).unwrap_or(u32::MAX),
            "COPY with STDIN or STDOUT needs psql: use INSERT (pg_dump --inserts)",
        ),
        None => SourceError::line(file, error.line, error.message),
    }
}
