//! Makes a set of migrations from the drafts of a layout: the order, the checks of every statement,
//! and how each file is run.

use std::ops::Range;

use super::{Draft, Layout, Part, Run};
use crate::api::MigrationFormat;
use crate::api::version::LONGEST as LONGEST_VERSION;
use crate::migrate::lexer::{self, LexError, Statement};
use crate::migrate::outcome::cut;
use crate::migrate::source::{
    Kind, Migration, MigrationFile, MigrationSet, Mode, SourceError, forbidden, mode, sha256, unix_lines,
};

/// How much of a long name a message has.
const NAME: usize = 100;

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
    if version.text.as_str().chars().count() > LONGEST_VERSION {
        let message = format!("its version has more than {LONGEST_VERSION} characters: give it a shorter name");
        return Err(SourceError::file(&cut(&up.name, NAME), message));
    }
    Ok(Migration { version, name, kind, up, mode, down, down_mode, doubt, key })
}

fn file(format: MigrationFormat, part: Part) -> Result<(MigrationFile, Mode), SourceError> {
    let Part { file, mut sql, sum, run } = part;
    let checksum = sha256(unix_lines(sum.as_deref().unwrap_or(&sql)).as_bytes());
    let found = survey(format, &file, &sql)?;
    let Some(ends) = found.wrapped else {
        let bare =
            || Mode::NoTransaction { idempotent: is_idempotent(&sql) || sum.as_deref().is_some_and(is_idempotent) };
        let mode = how(&file, run, &found, bare)?;
        return Ok((MigrationFile { name: file, sql, checksum, written: None }, mode));
    };
    let written = sql.clone();
    for range in ends {
        let blank = sql[range.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect::<String>();
        sql.replace_range(range, &blank);
    }
    Ok((MigrationFile { name: file, sql, checksum, written: Some(written) }, Mode::Transaction))
}

/// What the statements of a file are, in one pass.
#[derive(Default)]
struct Survey {
    count: usize,
    /// The line of the first statement that no transaction can contain.
    bare: Option<u32>,
    /// Whether there is another one.
    other: bool,
    /// The BEGIN and the COMMIT around all of the file.
    wrapped: Option<[Range<usize>; 2]>,
}

/// Checks every statement. A tool that begins no transaction of its own lets a file do so: then all of
/// the file is one, as it is here.
fn survey(format: MigrationFormat, file: &str, sql: &str) -> Result<Survey, SourceError> {
    type Problem = (u32, &'static str);
    let mut found = Survey::default();
    let mut begin: Option<(Range<usize>, Problem)> = None;
    let mut commit: Option<(Range<usize>, Problem)> = None;
    let mut refused: Option<Problem> = None;
    for statement in lexer::statements(sql) {
        let statement = statement.map_err(|error| unreadable(file, sql, &error))?;
        // What follows it shows that a COMMIT is not the end.
        if let Some((_, problem)) = commit.take() {
            refused.get_or_insert(problem);
        }
        if needs_none(&statement) {
            found.bare.get_or_insert(statement.line);
        } else {
            found.other = true;
        }
        if let Some(problem) = forbidden(&statement) {
            let place = (statement.offset..statement.offset + statement.text.len(), (statement.line, problem));
            match format {
                MigrationFormat::Servicedb => drop(refused.get_or_insert(place.1)),
                _ if found.count == 0 && begins(&statement) => begin = Some(place),
                _ if commits(&statement) => commit = Some(place),
                _ => drop(refused.get_or_insert(place.1)),
            }
        }
        found.count += 1;
    }
    let problem = match (begin, commit) {
        (Some((begin, _)), Some((commit, _))) => {
            found.wrapped = Some([begin, commit]);
            refused
        }
        (begin, commit) => begin.map(|(_, problem)| problem).or(refused).or(commit.map(|(_, problem)| problem)),
    };
    match problem {
        Some((line, problem)) => Err(SourceError::line(file, line, problem)),
        None => Ok(found),
    }
}

/// Whether the comments at the start of a text say that it may be run again. Tools have marks of their own there.
fn is_idempotent(text: &str) -> bool {
    let comments = text.lines().take_while(|line| line.trim().is_empty() || line.starts_with("--"));
    comments.map(mode).any(|mode| mode == Mode::NoTransaction { idempotent: true })
}

/// How a file is run; `bare` is how without a transaction.
fn how(file: &str, run: Run, found: &Survey, bare: impl Fn() -> Mode) -> Result<Mode, SourceError> {
    Ok(match run {
        Run::As(Mode::Transaction) => Mode::Transaction,
        Run::As(mode @ Mode::NoTransaction { idempotent: true }) => mode,
        Run::As(Mode::NoTransaction { idempotent: false }) => bare(),
        Run::Query if found.count == 1 && found.bare.is_some() => bare(),
        Run::Split if found.bare.is_some() => bare(),
        Run::Query | Run::Split => Mode::Transaction,
        Run::Statements => match (found.bare, found.other) {
            (Some(line), true) => {
                let message = "no transaction can contain this statement, and the file has others that need one: move \
                               it to a migration of its own";
                return Err(SourceError::line(file, line, message));
            }
            (Some(_), false) => bare(),
            (None, _) => Mode::Transaction,
        },
    })
}

/// Whether no transaction can contain a statement.
fn needs_none(statement: &Statement<'_>) -> bool {
    statement.starts_with(&["VACUUM"])
        || (statement.contains(&["CONCURRENTLY"]) && !statement.starts_with(&["REFRESH"]))
}

/// Whether a statement begins a transaction, and does nothing else.
fn begins(statement: &Statement<'_>) -> bool {
    [&["BEGIN"][..], &["BEGIN", "WORK"], &["BEGIN", "TRANSACTION"], &["START", "TRANSACTION"]]
        .iter()
        .any(|words| statement.is(words))
}

/// Whether a statement commits, and does nothing else.
fn commits(statement: &Statement<'_>) -> bool {
    [&["COMMIT"][..], &["COMMIT", "WORK"], &["COMMIT", "TRANSACTION"], &["END"], &["END", "TRANSACTION"]]
        .iter()
        .any(|words| statement.is(words))
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
