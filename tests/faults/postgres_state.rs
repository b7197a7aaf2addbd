//! The roles in PostgreSQL, read with the logins in Vault, which also tests these.

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::scenario::NAME;
use crate::harness::postgres::Credentials;
use crate::harness::{Sandbox, column};

const ROLES: &str = "SELECT rolname || CASE WHEN rolcanlogin THEN ' logs in' ELSE '' END \
    || CASE WHEN rolsuper THEN ' superuser' ELSE '' END \
    || coalesce((SELECT ' of ' || string_agg(owner.rolname, ',' ORDER BY owner.rolname) FROM pg_auth_members m \
       JOIN pg_roles owner ON owner.oid = m.roleid WHERE m.member = r.oid), '') \
    FROM pg_roles r WHERE rolname !~ '^pg_' ORDER BY 1";
const DATABASES: &str = "SELECT datname || ' of ' || pg_get_userbyid(datdba) FROM pg_database ORDER BY 1";
const SETTINGS: &str = "SHOW work_mem";

/// What the application's login sees, and whether the migrator's works.
///
/// # Errors
/// The part that could not be read.
pub async fn read(sandbox: &Sandbox) -> Result<Value, String> {
    let (names, in_vault) = (sandbox.names(NAME), sandbox.vault_names(NAME));
    let vault = sandbox.vault();
    let runtime = vault.record(&in_vault.runtime()).await.ok_or("there is no runtime record")?;
    let migrator = vault.record(&in_vault.migrator_record()).await.ok_or("there is no migrator record")?;
    let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
    let app = Credentials {
        user: text(&runtime, "CHAT_DB_USER"),
        password: text(&runtime, "CHAT_DB_PASSWORD"),
        database: text(&runtime, "CHAT_DB_NAME"),
        host: text(&runtime, "CHAT_DB_HOST"),
        ca: text(&runtime, "CHAT_DB_CA"),
    };
    let migrates = Credentials { user: text(&migrator, "USER"), password: text(&migrator, "PASSWORD"), ..app.clone() };
    let connection = sandbox.login(NAME, &app).await.map_err(|error| format!("the runtime record: {error}"))?;
    sandbox.login(NAME, &migrates).await.map_err(|error| format!("the migrator record: {error}"))?;
    let ask = async |sql: &str| column(&connection, sql).await.map_err(|error| format!("{error:?}"));
    let authority = |secret: Secret| secret.data.and_then(|mut data| data.remove("ca.crt"));
    let read =
        async |name: String| sandbox.api::<Secret>().get(&name).await.map(authority).map_err(|error| error.to_string());
    let (own, served) = (read(names.ca_secret()).await?, read(names.tls_secret()).await?);
    Ok(json!({
        "app": app.user, "migrator": migrates.user, "database": app.database, "host": app.host,
        "roles": ask(ROLES).await?, "databases": ask(DATABASES).await?, "work_mem": ask(SETTINGS).await?,
        "one_authority": own.is_some() && own == served && own.is_some_and(|own| own.0 == app.ca.as_bytes()),
    }))
}
