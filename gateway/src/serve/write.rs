//! Writes of collections: `POST`, `PATCH` and `DELETE /{c}`, `PUT`, `PATCH` and `DELETE /{c}/{id}`. They run in a transaction
//! that the caller of these functions has begun.

use http::{Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;

use super::operation::{Media, Operation, Reply, bounds, changed};
use super::page::without_pages;
use super::read::{applied, frame, no_such, not_one, single};
use crate::catalog::{Catalog, Table};
use crate::config::Config;
use crate::database::{Rows, Session, exactly};
use crate::problem::Problem;
use crate::request::{Item, Missing, Pairs, Prefer, Query, Return, pairs};
use crate::sql::{self, Change, Charge, Form, Returning, Statement, Which};
use crate::validate::{Purpose, check};

/// What stays as it is in a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A write's common parts.
pub(super) struct Write<'a> {
    pub(super) catalog: &'a Catalog,
    config: &'a Config,
    pub(super) table: &'a Table,
    pub(super) collection: &'a str,
    media: Media,
    prefer: Prefer,
    pub(super) pairs: Pairs,
}

impl<'a> Write<'a> {
    pub(super) fn new(
        catalog: &'a Catalog,
        config: &'a Config,
        operation: &Operation,
        collection: &'a str,
    ) -> Result<Self, Problem> {
        let json = operation.headers.get(header::CONTENT_TYPE).is_none_or(|kind| {
            let kind = kind.to_str().unwrap_or_default().to_ascii_lowercase();
            kind.starts_with("application/json") || kind.starts_with("application/vnd.pgrst.")
        });
        if !json && !operation.body.is_empty() {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "PGRST102", "a body is application/json"));
        }
        let pairs = pairs(&operation.query, bounds(&config.limits), |_| false)?;
        without_pages(&pairs.query)?;
        Ok(Self {
            catalog,
            config,
            table: catalog.table(operation.schema(), collection)?,
            collection,
            media: operation.media()?,
            prefer: operation.prefer()?,
            pairs,
        })
    }

    /// Refuses a view that does not take this command.
    pub(super) fn allows(&self, event: i32, command: &str) -> Result<(), Problem> {
        if self.table.events & event == 0 {
            return Err(Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "SDB110",
                format!("\"{}\" does not take {command}", self.table.name),
            ));
        }
        Ok(())
    }

    fn wants_rows(&self) -> bool {
        self.prefer.returning == Some(Return::Representation)
    }

    /// What the statement returns.
    pub(super) fn returning(&self) -> Option<Query> {
        match self.prefer.returning {
            Some(Return::Representation) => Some(self.pairs.query.clone()),
            Some(Return::HeadersOnly) if !self.table.primary_key.is_empty() => Some(self.key_query()),
            _ => None,
        }
    }

    /// How it is returned. A caller that names columns may have no right to others, and so none to the rows' versions.
    pub(super) fn returned<'q>(&self, query: &'q Query) -> Returning<'q> {
        let named = !query.select.is_empty() && !query.select.contains(&Item::All);
        Returning { query, form: self.media.form, versions: !named || !self.wants_rows() }
    }

    /// The same with the version of each row.
    fn versioned<'q>(&self, query: &'q Query) -> Returning<'q> {
        Returning { query, form: self.media.form, versions: true }
    }

    /// The primary key's columns.
    fn key_query(&self) -> Query {
        let column = |name: &String| {
            Item::Column(crate::request::Column {
                field: Some(crate::request::Field { column: name.clone(), path: Vec::new() }),
                alias: None,
                cast: None,
                aggregate: None,
                aggregate_cast: None,
            })
        };
        Query { select: self.table.primary_key.iter().map(column).collect(), ..Query::default() }
    }

    /// Whether the change of one document can be committed with its statement: no version is asked for, and a row that is
    /// not reported was not there. Otherwise 404 could be the answer to something that was committed.
    fn is_last(&self, version: Option<&str>) -> bool {
        version.is_none() && !self.table.intercepts
    }

    /// Runs the write. Where nothing that comes of it can be refused any more, it is `last`: committed in the same round
    /// trip.
    pub(super) async fn run(&self, session: &mut Session, statement: &Statement, last: bool) -> Result<Rows, Problem> {
        let most = self.prefer.max_affected.filter(|_| self.prefer.strict);
        if last && most.is_none() && !self.wants_rows() && !self.media.singular {
            // What it returns is the key of one row at most.
            return session.last(statement, usize::MAX).await;
        }
        let found = exactly(session.lease().await?, statement, self.config.limits.write_answer_bytes).await?;
        match most {
            Some(most) if found.affected > most => Err(too_many(found.affected, most)),
            _ => Ok(found),
        }
    }

    /// The answer, with the rows where they are wanted.
    pub(super) fn reply(
        &self,
        statement: &Statement,
        found: &Rows,
        with: StatusCode,
        without: StatusCode,
    ) -> Result<Reply, Problem> {
        let mut reply = if self.wants_rows() {
            let texts: Vec<&str> = found.rows.iter().map(|(text, _)| text.as_str()).collect();
            let body = if self.media.singular {
                single(&texts).map_err(Problem::roll_back)?.to_owned()
            } else {
                let frame = frame(self.media.form, &statement.columns);
                format!("{}{}{}", frame.before, texts.join(frame.between), frame.after)
            };
            let mut reply = Reply::new(with);
            reply.body = body.into();
            reply.header(header::CONTENT_TYPE, self.media.content_type());
            reply
        } else if self.media.singular && found.affected != 1 {
            return Err(not_one(found.affected).roll_back());
        } else {
            Reply::new(without)
        };
        if let [(_, Some(version))] = found.rows.as_slice() {
            reply.header(header::ETAG, &format!("\"{version}\""));
        }
        applied(&mut reply, &self.prefer);
        reply.rows = found.affected;
        Ok(reply)
    }
}

/// The answer to a write that would change more rows than `max-affected` allows.
pub(super) fn too_many(rows: u64, most: u64) -> Problem {
    Problem::request("PGRST124", "more rows would be changed than max-affected allows")
        .details(format!("{rows} rows, at most {most}"))
        .roll_back()
}

/// The object of a body that is an object, or an array with one; an empty array is an empty object.
///
/// # Errors
/// If there are several.
pub(super) fn one_object(text: &str) -> Result<&str, Problem> {
    if !text.trim_start().starts_with('[') {
        return Ok(text);
    }
    let members: Vec<&RawValue> = serde_json::from_str(text)
        .map_err(|error| Problem::request("PGRST102", "the body is not JSON").details(error.to_string()))?;
    match members.as_slice() {
        [] => Ok("{}"),
        [only] => Ok(only.get()),
        _ => Err(Problem::request("PGRST102", "the body must be one object")),
    }
}

/// `POST /{c}`
///
/// # Errors
/// All faults of the body at once, and any error of the server.
pub async fn create(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
    collection: &str,
) -> Result<Reply, Problem> {
    let write = Write::new(catalog, config, operation, collection)?;
    write.allows(8, "INSERT")?;
    let defaults = write.prefer.missing == Some(Missing::Default);
    let accepted = check(write.table, &operation.body, Purpose::Create { defaults }, write.pairs.columns.as_deref())?;
    let text = operation.text()?;
    let rows = if accepted.array { text.to_owned() } else { format!("[{text}]") };
    let insert = sql::Insert {
        rows: &rows,
        count: accepted.rows,
        columns: &accepted.columns,
        on_conflict: write.pairs.on_conflict.as_deref(),
        resolution: write.prefer.resolution,
        defaults,
    };
    let returning = write.returning();
    let returned = returning.as_ref().map(|query| write.returned(query));
    let statement = sql::insert(catalog, write.table, &insert, returned.as_ref())?;
    let found = write.run(session, &statement, returning.is_none()).await?;
    let mut reply = write.reply(&statement, &found, StatusCode::CREATED, StatusCode::CREATED)?;
    // One object has a place. Its key is in what was returned, or else in the body: asking for it here would need a right
    // to read, which a caller that only creates may not have.
    if !accepted.array && !write.table.primary_key.is_empty() && write.media.form != Form::Csv {
        let row = found.rows.first().map_or(text, |(row, _)| row.as_str());
        if let Some(id) = id_of(write.table, row) {
            reply.header(header::LOCATION, &format!("/api/db/{}/{id}", utf8_percent_encode(write.collection, PLAIN)));
        }
    }
    reply.header(header::CONTENT_RANGE, &format!("*/{}", total(&write.prefer, &found)));
    Ok(reply)
}

/// The key of a row as a segment of a path.
pub(super) fn id_of(table: &Table, row: &str) -> Option<String> {
    let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(row).ok()?;
    let parts: Option<Vec<String>> = table
        .primary_key
        .iter()
        .map(|column| {
            let text = match row.get(column)? {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Some(utf8_percent_encode(&text, PLAIN).to_string())
        })
        .collect();
    parts.map(|parts| parts.join(","))
}

/// Refuses what a write of several rows does not have.
fn without_range(query: &Query) -> Result<(), Problem> {
    if query.limit.is_some() || query.offset.is_some() {
        return Err(
            Problem::request("PGRST109", "a write has no limit and no offset").hint("choose the rows by a filter")
        );
    }
    Ok(())
}

/// `PATCH /{c}`
///
/// # Errors
/// All faults of the body at once, and any error of the server.
pub async fn change(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
    collection: &str,
) -> Result<Reply, Problem> {
    let write = Write::new(catalog, config, operation, collection)?;
    write.allows(4, "UPDATE")?;
    without_range(&write.pairs.query)?;
    let text = one_object(operation.text()?)?;
    let accepted = check(write.table, text.as_bytes(), Purpose::Change, write.pairs.columns.as_deref())?;
    let (with, without) = (StatusCode::OK, StatusCode::NO_CONTENT);
    if accepted.columns.is_empty() {
        let nothing = Statement::plain(String::new(), Charge::Nothing);
        let mut reply = write.reply(&nothing, &Rows::default(), with, without)?;
        range(&mut reply, &write.prefer, &Rows::default());
        return Ok(reply);
    }
    let (defaults, columns): (Vec<_>, Vec<_>) = accepted
        .columns
        .into_iter()
        .partition(|column| write.prefer.missing == Some(Missing::Default) && accepted.absent.contains(column));
    let change = Change { object: text, columns: &columns, defaults: &defaults };
    let which = Which::Conditions(&write.pairs.query.conditions);
    let returning = write.returning();
    let returned = returning.as_ref().map(|query| write.returned(query));
    let statement = sql::update(catalog, write.table, &change, &which, returned.as_ref())?;
    let found = write.run(session, &statement, returning.is_none()).await?;
    let mut reply = write.reply(&statement, &found, with, without)?;
    range(&mut reply, &write.prefer, &found);
    Ok(reply)
}

/// `DELETE /{c}`
///
/// # Errors
/// Any error of the server.
pub async fn remove(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
    collection: &str,
) -> Result<Reply, Problem> {
    let write = Write::new(catalog, config, operation, collection)?;
    write.allows(16, "DELETE")?;
    without_range(&write.pairs.query)?;
    let which = Which::Conditions(&write.pairs.query.conditions);
    let returning = write.returning();
    let returned = returning.as_ref().map(|query| write.returned(query));
    let statement = sql::delete(catalog, write.table, &which, returned.as_ref())?;
    let found = write.run(session, &statement, returning.is_none()).await?;
    let mut reply = write.reply(&statement, &found, StatusCode::OK, StatusCode::NO_CONTENT)?;
    reply.header(header::CONTENT_RANGE, &format!("*/{}", total(&write.prefer, &found)));
    Ok(reply)
}

/// How many rows a write has changed, where that is asked for.
fn total(prefer: &Prefer, found: &Rows) -> String {
    if prefer.count.is_some() { found.affected.to_string() } else { "*".to_owned() }
}

/// `Content-Range` of a change of several rows.
fn range(reply: &mut Reply, prefer: &Prefer, found: &Rows) {
    let total = total(prefer, found);
    let rows = match found.affected {
        0 => "*".to_owned(),
        rows => format!("0-{}", rows - 1),
    };
    reply.header(header::CONTENT_RANGE, &format!("{rows}/{total}"));
}

/// `PUT /{c}/{id}`: the whole document; `PATCH /{c}/{id}`: some of its columns.
///
/// # Errors
/// 404 without such a row, 412 with another version, all faults of the body at once.
pub async fn change_item(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
    collection: &str,
    id: &[String],
) -> Result<Reply, Problem> {
    let write = Write::new(catalog, config, operation, collection)?;
    write.allows(4, "UPDATE")?;
    let purpose = if operation.method == Method::PUT { Purpose::Replace } else { Purpose::Change };
    let accepted = check(write.table, &operation.body, purpose, None)?;
    let text = operation.text()?;
    if purpose == Purpose::Replace && id_of(write.table, text).is_some_and(|given| given != path(id)) {
        return Err(Problem::request("SDB111", "the body has another key than the path"));
    }
    let version = version(operation, write.table)?;
    let which = Which::Key { id, version: version.as_deref() };
    if accepted.columns.is_empty() {
        return Err(Problem::request("SDB112", format!("the body changes no column of \"{collection}\"")));
    }
    let returning = write.returning().unwrap_or_else(|| write.key_query());
    let change = Change { object: text, columns: &accepted.columns, defaults: &[] };
    let statement = sql::update(catalog, write.table, &change, &which, Some(&write.versioned(&returning)))?;
    let found = write.run(session, &statement, write.is_last(version.as_deref())).await?;
    exists(session, &write, id, version.is_some(), &found).await?;
    one(&write, &statement, &found)
}

/// `DELETE /{c}/{id}`
///
/// # Errors
/// 404 without such a row, 412 with another version.
pub async fn remove_item(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
    collection: &str,
    id: &[String],
) -> Result<Reply, Problem> {
    let write = Write::new(catalog, config, operation, collection)?;
    write.allows(16, "DELETE")?;
    let version = version(operation, write.table)?;
    let which = Which::Key { id, version: version.as_deref() };
    let returning = write.returning();
    let returned = returning.as_ref().map(|query| write.versioned(query));
    let statement = sql::delete(catalog, write.table, &which, returned.as_ref())?;
    let found = write.run(session, &statement, write.is_last(version.as_deref())).await?;
    exists(session, &write, id, version.is_some(), &found).await?;
    let mut reply = one(&write, &statement, &found)?;
    reply.headers.remove(header::ETAG);
    Ok(reply)
}

/// The answer about one document: itself, and no array.
fn one(write: &Write<'_>, statement: &Statement, found: &Rows) -> Result<Reply, Problem> {
    let single = Write {
        media: Media { singular: write.wants_rows() && write.media.form != Form::Csv, ..write.media },
        prefer: write.prefer.clone(),
        pairs: write.pairs.clone(),
        ..*write
    };
    single.reply(statement, found, StatusCode::OK, StatusCode::NO_CONTENT)
}

pub(super) fn path(id: &[String]) -> String {
    id.iter().map(|part| utf8_percent_encode(part, PLAIN).to_string()).collect::<Vec<_>>().join(",")
}

pub(super) fn version(operation: &Operation, table: &Table) -> Result<Option<String>, Problem> {
    let version = operation.if_match()?;
    if version.is_some() && !table.has_versions() {
        return Err(Problem::request(
            "SDB113",
            format!("the rows of \"{}\" have no versions: it is a view", table.name),
        ));
    }
    Ok(version)
}

/// Tells a row that is not there from one with another version.
pub(super) async fn exists(
    session: &mut Session,
    write: &Write<'_>,
    id: &[String],
    versioned: bool,
    found: &Rows,
) -> Result<(), Problem> {
    if found.affected > 0 {
        return Ok(());
    }
    if versioned {
        let statement = sql::item(write.catalog, write.table, id, &write.key_query(), true)?;
        if !exactly(session.lease().await?, &statement, write.config.limits.write_answer_bytes).await?.rows.is_empty() {
            return Err(changed());
        }
    }
    Err(no_such(write.collection))
}
