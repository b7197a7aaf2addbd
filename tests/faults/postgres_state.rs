//! The roles in PostgreSQL, read with the logins in Vault, which also tests these.

use k8s_openapi::api::core::v1::{Secret, Service};
use serde_json::{Map, Value, json};
use servicedb::api::ServiceDatabase;

use super::scenario::NAME;
use crate::harness::postgres::Credentials;
use crate::harness::{Sandbox, column, login_at};

/// Without short-lived logins, of which this look makes one. Which of the two logins of Vault's is valid depends on how
/// often it was proved.
const ROLES: &str = "SELECT rolname \
    || CASE WHEN rolcanlogin AND rolname !~ '^servicedb_vault' THEN ' logs in' ELSE '' END \
    || CASE WHEN rolsuper THEN ' superuser' ELSE '' END \
    || coalesce((SELECT ' of ' || string_agg(owner.rolname, ',' ORDER BY owner.rolname) FROM pg_auth_members m \
       JOIN pg_roles owner ON owner.oid = m.roleid WHERE m.member = r.oid), '') \
    FROM pg_roles r WHERE rolname !~ '^(pg_|servicedb[.])' ORDER BY 1";
const DATABASES: &str = "SELECT datname || ' of ' || pg_get_userbyid(datdba) FROM pg_database ORDER BY 1";
const SETTINGS: &str = "SHOW work_mem";
const VERSION: &str = "SHOW server_version";
const ROWS: &str = "SELECT id FROM notes ORDER BY id";
/// Rights on everything that is not PostgreSQL's own, row policies, and limits of roles, but not of Vault's own and of
/// those that it makes.
const RIGHTS: &str = "SELECT what || ': ' || item FROM ( \
    SELECT c.oid::regclass::text, item::text FROM pg_class c, unnest(c.relacl) item WHERE c.oid >= 16384 \
    UNION ALL SELECT attrelid::regclass || '.' || attname, item::text FROM pg_attribute, unnest(attacl) item \
        WHERE attrelid >= 16384 \
    UNION ALL SELECT 'schema ' || nspname, item::text FROM pg_namespace, unnest(nspacl) item \
        WHERE nspname !~ '^(pg_|information_schema)' \
    UNION ALL SELECT 'database ' || datname, item::text FROM pg_database, unnest(datacl) item \
    UNION ALL SELECT 'default of ' || pg_get_userbyid(defaclrole) || ' ' || defaclobjtype::text, item::text \
        FROM pg_default_acl, unnest(defaclacl) item \
    UNION ALL SELECT 'row security', oid::regclass::text FROM pg_class WHERE relrowsecurity \
    UNION ALL SELECT 'policy ' || policyname || ' of ' || tablename, \
        concat_ws(' ', permissive, roles::text, cmd, qual, with_check) FROM pg_policies \
    UNION ALL SELECT 'connections of ' || rolname, rolconnlimit::text FROM pg_roles \
        WHERE rolconnlimit <> -1 AND rolname !~ '^servicedb([.]|_vault)' \
    UNION ALL SELECT 'settings of ' || rolname, rolconfig::text FROM pg_roles \
        WHERE rolconfig IS NOT NULL AND rolname !~ '^servicedb([.]|_vault)' \
    ) found (what, item) ORDER BY 1";
/// The limits of the login itself.
const LIMITS: &str = "SELECT rolconnlimit || ' ' || current_setting('statement_timeout') FROM pg_roles \
    WHERE rolname = session_user";

/// What the application's login sees, and whether those of the migrator and of each client work, directly and through
/// the pooler, if there is one.
///
/// # Errors
/// The part that could not be read.
pub async fn read(sandbox: &Sandbox) -> Result<Value, String> {
    let (names, in_vault) = (sandbox.names(NAME), sandbox.vault_names(NAME));
    let vault = sandbox.vault();
    let runtime = vault.record(&in_vault.runtime()).await.ok_or("there is no runtime record")?;
    let migrator = vault.record(&in_vault.migrator_record()).await.ok_or("there is no migrator record")?;
    let app = credentials(&runtime);
    let text = |key: &str| migrator[key].as_str().unwrap_or_default().to_owned();
    let migrates = Credentials { user: text("USER"), password: text("PASSWORD"), ..app.clone() };
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
        "version": ask(VERSION).await?, "rows": ask(ROWS).await?, "rights": ask(RIGHTS).await?,
        "clients": clients(sandbox, &app).await?, "pooler": through_pooler(sandbox, &app).await?,
        "one_authority": own.is_some() && own == served && own.is_some_and(|own| own.0 == app.ca.as_bytes()),
    }))
}

/// The credentials in a record.
fn credentials(record: &Value) -> Credentials {
    let text = |key: &str| record[format!("CHAT_DB_{key}")].as_str().unwrap_or_default().to_owned();
    Credentials {
        user: text("USER"),
        password: text("PASSWORD"),
        database: text("NAME"),
        host: text("HOST"),
        ca: text("CA"),
    }
}

/// The clients that have a login of their own: as what their sessions act, which limits they have, which rows they see,
/// and whether their Secrets have what is in Vault.
async fn clients(sandbox: &Sandbox, app: &Credentials) -> Result<Value, String> {
    let found = sandbox.api::<ServiceDatabase>().get(NAME).await.map_err(|error| error.to_string())?;
    let in_vault = sandbox.vault_names(NAME);
    let mut all = Map::new();
    for client in found.status.map(|status| status.clients).unwrap_or_default() {
        let own = if client.dynamic.is_some() {
            sandbox.try_leased(NAME, &client.name, app).await?
        } else {
            let path = in_vault.client_runtime(&client.name);
            let record = sandbox.vault().record(&path).await.ok_or_else(|| format!("there is no {path}"))?;
            credentials(&record)
        };
        let connection = sandbox.login(NAME, &own).await.map_err(|error| format!("{}: {error}", own.user))?;
        let ask = async |sql: &str| column(&connection, sql).await.map_err(|refusal| format!("{refusal:?}"));
        let (acts_as, limits) = (ask("SELECT current_user").await?, ask(LIMITS).await?);
        let rows = column(&connection, ROWS).await.map_err(|refusal| refusal.sqlstate);
        let secret = match &client.secret {
            Some(name) => sandbox.api::<Secret>().get(name).await.map_err(|error| error.to_string())?.data,
            None => None,
        };
        let has = |key: &str, value: &str| {
            secret.as_ref().is_some_and(|data| data.get(key).is_some_and(|bytes| bytes.0 == value.as_bytes()))
        };
        let login = if client.dynamic.is_some() { "a short-lived one" } else { own.user.as_str() };
        let told = json!({
            "login": login, "acts_as": acts_as, "limits": limits, "rows": rows,
            "secret": has("username", &own.user) && has("password", &own.password),
        });
        all.insert(client.name, told);
    }
    Ok(all.into())
}

/// Whether the application logs in through the pooler; null without one.
async fn through_pooler(sandbox: &Sandbox, app: &Credentials) -> Result<Value, String> {
    let names = sandbox.names(NAME);
    let pooler = names.pooler();
    let found = sandbox.api::<Service>().get_opt(&pooler).await.map_err(|error| error.to_string())?;
    if found.is_none() {
        return Ok(Value::Null);
    }
    let (address, host) = (sandbox.address(&pooler).await, names.pooler_host(&pooler));
    let connection = login_at(address, &host, app).await.map_err(|error| format!("through the pooler: {error}"))?;
    column(&connection, ROWS).await.map(Value::from).map_err(|refusal| format!("through the pooler: {refusal:?}"))
}
