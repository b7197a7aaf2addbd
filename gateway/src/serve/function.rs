//! `GET` and `POST /rpc/{function}`.

use std::collections::BTreeMap;

use http::{Method, StatusCode, header};
use serde::de::IgnoredAny;

use super::operation::{Operation, Reply, bounds};
use super::page::without_pages;
use super::read::{applied, frame, single, within};
use super::write::too_many;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::database::{Session, exactly};
use crate::problem::Problem;
use crate::request::pairs;
use crate::sql::{self, Call, Form, Returned};

/// Calls a function. By GET, it runs in a transaction that only reads.
///
/// # Errors
/// 404 without such a function, and any error of the server.
pub async fn call(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
    name: &str,
) -> Result<Reply, Problem> {
    let (media, prefer) = (operation.media()?, operation.prefer()?);
    let schema = match operation.schema() {
        Some(schema) => catalog.exposed(schema)?,
        None => catalog.schemas.first().map_or("public", String::as_str),
    };
    let functions = catalog.functions.get(&(schema.to_owned(), name.to_owned()));
    let functions = functions.ok_or_else(|| {
        Problem::missing("PGRST202", format!("there is no function \"{name}\" in the exposed schemas"))
    })?;
    let reads = operation.method == Method::GET || operation.method == Method::HEAD;
    let is_argument = |key: &str| {
        reads && functions.iter().any(|function| function.arguments.iter().any(|argument| argument.name == key))
    };
    let mut given = pairs(&operation.query, bounds(&config.limits), is_argument)?;
    without_pages(&given.query)?;
    within(operation, config, &mut given.query)?;
    let text = if operation.body.is_empty() { "{}" } else { operation.text()? };
    let names: Vec<String>;
    let arguments = if reads {
        Call::Pairs(&given.arguments)
    } else {
        let members: BTreeMap<String, IgnoredAny> = serde_json::from_str(text).map_err(|error| {
            Problem::request("PGRST102", "the body must be an object of arguments").details(error.to_string())
        })?;
        names = members.into_keys().collect();
        Call::Object { names: &names, text }
    };
    let (statement, returned) = sql::call(catalog, functions, &arguments, &given.query, media.form)?;
    let bound = prefer.max_affected.filter(|_| prefer.strict && !reads);
    if bound.is_some() && returned != Returned::Set {
        return Err(Problem::request("PGRST128", "max-affected needs a function that returns rows"));
    }
    let most = config.limits.write_answer_bytes;
    let found = if reads {
        session.last(&statement, most).await?
    } else {
        // What it returns decides whether it is committed.
        exactly(session.lease().await?, &statement, most).await?
    };
    if let Some(bound) = bound.filter(|bound| found.affected > *bound) {
        return Err(too_many(found.affected, bound));
    }
    let texts: Vec<&str> = found.rows.iter().map(|(text, _)| text.as_str()).collect();
    let mut reply = match returned {
        Returned::Void => Reply::new(StatusCode::NO_CONTENT),
        Returned::Value | Returned::Row if media.form != Form::Csv => {
            Reply::json(StatusCode::OK, texts.first().map_or("null", |text| text).to_owned())
        }
        _ if media.singular => Reply::json(StatusCode::OK, single(&texts).map_err(Problem::roll_back)?.to_owned()),
        _ => {
            let frame = frame(media.form, &statement.columns);
            Reply::json(StatusCode::OK, format!("{}{}{}", frame.before, texts.join(frame.between), frame.after))
        }
    };
    if reply.status == StatusCode::OK {
        reply.header(header::CONTENT_TYPE, media.content_type());
        let offset = given.query.offset.unwrap_or(0);
        let rows = texts.len() as u64;
        let range = if rows == 0 { "*".to_owned() } else { format!("{offset}-{}", offset + rows - 1) };
        reply.header(
            header::CONTENT_RANGE,
            &format!("{range}/{}", if prefer.count.is_some() { rows.to_string() } else { "*".to_owned() }),
        );
    }
    applied(&mut reply, &prefer);
    reply.rows = texts.len() as u64;
    Ok(reply)
}
