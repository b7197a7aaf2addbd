//! The search path of the database around the script of an extension. Scripts of PostGIS (`postgis_topology`,
//! `postgis_tiger_geocoder`) append their schema to it with `ALTER DATABASE … SET`. That setting would override
//! `spec.postgres.parameters` from then on, and it may lack the schema of the extensions. The scripts also execute the
//! present path as a part of a statement, although the owner of the database can set a text that is no list of schemas:
//! in a superuser's session that would run a statement of the tenant's.

use tokio_postgres::Client;

use crate::postgres::{ident, literal};

/// The path that the database sets, in a session that resolves names in `pg_catalog`.
const OF_DATABASE: &str = "SELECT substr(setting, length('search_path=') + 1)
     FROM pg_db_role_setting AS own, unnest(own.setconfig) AS setting
     WHERE own.setrole = 0 AND starts_with(setting, 'search_path=')
       AND own.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// The path that the database of this session sets for sessions in it; none if it sets none.
///
/// # Errors
/// If the server fails the query.
pub async fn of_database(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    client.query_opt(OF_DATABASE, &[]).await?.map(|row| row.try_get(0)).transpose()
}

/// A statement as one message, which is one transaction: in it the database sets a harmless path, and after it this one.
pub fn keeping(database: &str, path: Option<&str>, statement: &str) -> String {
    let database = ident(database);
    let restore = match path {
        None => format!("ALTER DATABASE {database} RESET search_path"),
        // As a value: in the statement itself the text would be parsed.
        Some(path) => format!(
            "SELECT pg_catalog.set_config('search_path', {}, true); \
             ALTER DATABASE {database} SET search_path FROM CURRENT",
            literal(path)
        ),
    };
    format!("ALTER DATABASE {database} SET search_path = pg_catalog; {statement}; {restore}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_no_path_is_never_a_part_of_a_statement() {
        let kept = keeping("shop_db", Some("a';DROP/**/TABLE/**/t;--"), "CREATE EXTENSION x");
        assert!(kept.contains("set_config('search_path', 'a'';DROP/**/TABLE/**/t;--', true)"), "{kept}");
        let (before, after) = kept.split_once("CREATE EXTENSION x; ").expect("the statement");
        assert!(before.ends_with("SET search_path = pg_catalog; "), "{before}");
        assert!(after.ends_with("SET search_path FROM CURRENT"), "{after}");
    }

    #[test]
    fn a_database_without_a_path_has_none_afterwards() {
        assert!(keeping("shop-db", None, "x").ends_with("x; ALTER DATABASE \"shop-db\" RESET search_path"));
    }
}
