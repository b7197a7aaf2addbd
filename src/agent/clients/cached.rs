//! The collections that the data gateway caches: which of them do not exist. The gateway has no way to status, and says it in
//! `/stats` and in its log alone.

use crate::agent::ensure;
use crate::agent::statement::EnsureError;
use crate::api::names::PostgresNames;
use crate::contract::desired::CachedCollections;

/// The declared collections that the exposed schemas do not have, in their order. A name is that of a relation in the first
/// schema, or has the schema before a dot: the gateway's catalogue has the same relations.
///
/// # Errors
/// If the server does not run or refuses.
pub async fn missing(
    socket: &str,
    names: &PostgresNames,
    cached: &CachedCollections,
) -> Result<Vec<String>, EnsureError> {
    let failed = |source| EnsureError::Statement { what: "the collections of spec.gateway.cache".to_owned(), source };
    let query = "SELECT w.name
                 FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS w(name, place)
                 WHERE NOT EXISTS (
                     SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p') AND NOT c.relispartition
                       AND n.nspname::text = ANY ($2::text[])
                       AND (n.nspname::text = ($2::text[])[1] AND c.relname::text = w.name
                            OR n.nspname::text = pg_catalog.split_part(w.name, '.', 1)
                               AND c.relname::text = pg_catalog.substr(w.name, pg_catalog.strpos(w.name, '.') + 1)
                               AND pg_catalog.strpos(w.name, '.') > 0))
                 ORDER BY w.place";
    let tenant = ensure::connect_at(socket, &names.database).await?;
    let rows = tenant.client.query(query, &[&cached.collections, &cached.schemas]).await.map_err(failed)?;
    rows.iter().map(|row| row.try_get(0).map_err(failed)).collect()
}
