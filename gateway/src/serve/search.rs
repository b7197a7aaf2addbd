//! `POST /search`: full text across collections.

use serde::Deserialize;

use super::operation::{Operation, Reply};
use super::read::array;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::database::Session;
use crate::problem::Problem;
use crate::sql;

/// The body of `POST /search`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Search {
    query: String,
    #[serde(default)]
    collections: Vec<String>,
    limit: Option<u32>,
    offset: Option<u32>,
}

/// `POST /search`
///
/// # Errors
/// Any error of the server; 400 about a collection without declared columns.
pub async fn search(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
) -> Result<Reply, Problem> {
    let search: Search = serde_json::from_slice(&operation.body)
        .map_err(|error| Problem::request("PGRST102", "the body could not be read").details(error.to_string()))?;
    if config.search.is_empty() {
        return Err(
            Problem::request("SDB109", "no collection is searched").hint("declare columns in the setting \"search\"")
        );
    }
    let names: Vec<&String> = if search.collections.is_empty() {
        config.search.keys().collect()
    } else {
        search.collections.iter().collect()
    };
    let mut members = Vec::new();
    for name in names {
        let columns = config.search.get(name).filter(|columns| !columns.is_empty()).ok_or_else(|| {
            Problem::request("SDB109", format!("\"{name}\" is not searched"))
                .hint("declare its columns in the setting \"search\"")
        })?;
        members.push((catalog.table(operation.schema(), name)?, columns.as_slice()));
    }
    let (limit, offset) = (u64::from(search.limit.unwrap_or(20)), u64::from(search.offset.unwrap_or(0)));
    let statement = sql::search(catalog, &members, &config.search_configuration, &search.query, limit, offset)?;
    array(session, config, &statement).await
}
