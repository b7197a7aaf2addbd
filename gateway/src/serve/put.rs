//! `PUT /{c}?key=eq.…`: one row gets all columns of a body, and is created with this key if it is not there.

use http::StatusCode;

use super::operation::{Operation, Reply};
use super::read::{no_such, not_one};
use super::write::{Write, exists, id_of, one_object, path, version};
use crate::catalog::{Catalog, Table};
use crate::config::Config;
use crate::database::Session;
use crate::problem::Problem;
use crate::request::{Condition, Operator, Query, Resolution, Test};
use crate::sql::{self, Change, Which};
use crate::validate::{Purpose, check};

/// Changes the row, or else creates it: 201.
///
/// # Errors
/// 405 if the filter is not the primary key, 406 if the row was not created all the same, all faults of the body at once,
/// and any error of the server.
pub async fn put(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
    collection: &str,
) -> Result<Reply, Problem> {
    let write = Write::new(catalog, config, operation, collection)?;
    write.allows(4, "UPDATE")?;
    write.allows(8, "INSERT")?;
    let id = key(write.table, &write.pairs.query)?;
    let text = one_object(operation.text()?)?;
    let accepted = check(write.table, text.as_bytes(), Purpose::Replace, None)?;
    if id_of(write.table, text) != Some(path(&id)) {
        return Err(Problem::request("PGRST115", "the body has another key than the filter"));
    }
    let version = version(operation, write.table)?;
    let returning = write.returning();
    let returned = returning.as_ref().map(|query| write.returned(query));
    let change = Change { object: text, columns: &accepted.columns, defaults: &[] };
    let which = Which::Key { id: &id, version: version.as_deref() };
    let statement = sql::update(catalog, write.table, &change, &which, returned.as_ref())?;
    let found = write.run(session, &statement, false).await?;
    if found.affected > 0 {
        return write.reply(&statement, &found, StatusCode::OK, StatusCode::NO_CONTENT);
    }
    if version.is_some() {
        exists(session, &write, &id, true, &found).await?;
    }
    let computed = |column: &String| write.table.column(column).is_none_or(|found| found.is_read_only());
    if write.table.primary_key.iter().any(computed) {
        // A row with this key cannot be created.
        return Err(no_such(collection));
    }
    let insert = sql::Insert {
        rows: &format!("[{text}]"),
        count: 1,
        columns: &accepted.columns,
        on_conflict: None,
        // Another request may have created it by now.
        resolution: Some(Resolution::MergeDuplicates),
        defaults: false,
    };
    let statement = sql::insert(catalog, write.table, &insert, returned.as_ref())?;
    let found = write.run(session, &statement, false).await?;
    if found.affected != 1 {
        // A trigger or a rule has kept the row out.
        return Err(not_one(found.affected).roll_back());
    }
    write.reply(&statement, &found, StatusCode::CREATED, StatusCode::CREATED)
}

/// The primary key that a filter has, and nothing else.
fn key(table: &Table, query: &Query) -> Result<Vec<String>, Problem> {
    if query.limit.is_some() || query.offset.is_some() {
        return Err(Problem::request("PGRST114", "PUT has no limit and no offset"));
    }
    let value = |wanted: &String| {
        query.conditions.iter().find_map(|condition| match condition {
            Condition::Test { field, test: Test::Compare { operator: Operator::Eq, quantifier: None, value } }
                if field.column == *wanted && field.path.is_empty() =>
            {
                Some(value.clone())
            }
            _ => None,
        })
    };
    let id: Option<Vec<String>> = table.primary_key.iter().map(value).collect();
    id.filter(|id| !id.is_empty() && id.len() == query.conditions.len()).ok_or_else(|| {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "PGRST105",
            "PUT needs the primary key as its filter, and no other",
        )
        .hint(format!("eq of each of: {}", table.primary_key.join(", ")))
    })
}
