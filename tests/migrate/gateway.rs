//! The login of the data gateway, as the agent keeps it: against a test server.

use servicedb::agent::clients::{gateway, roles};
use servicedb::api::names::PostgresNames;
use servicedb::contract::clients::Client;
use servicedb::contract::desired::Gateway;

use crate::hostile::{owner, server, tenant};
use crate::query;
use crate::rights::{CLIENTS, client};

async fn keep(names: &PostgresNames, declared: Option<Gateway>, clients: &[Client]) {
    let own = server().connect("postgres", "postgres").await;
    own.client.batch_execute("SET search_path = pg_catalog").await.expect("a session");
    roles::admit(&own.client, names, clients).await.expect("the roles");
    gateway::keep(&own.client, server().socket(), names, (declared, clients)).await.expect("the gateway's login");
}

/// The roles that the login may become, each with whether it has their rights before.
async fn memberships() -> Vec<String> {
    let own = server().connect("postgres", "postgres").await;
    let sql = "SELECT g.rolname || CASE WHEN m.inherit_option OR m.admin_option THEN ' at once' ELSE '' END
               FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
               WHERE r.rolname = 'servicedb_gateway' AND m.set_option ORDER BY 1";
    query(&own, sql).await
}

/// What the login may do before it becomes somebody, in the tenant's database.
async fn rights(names: &PostgresNames) -> Vec<String> {
    let own = server().connect(&names.database, "postgres").await;
    let sql = "SELECT c.oid::regclass::text FROM pg_class c
               WHERE c.relnamespace IN ('public'::regnamespace, 'servicedb'::regnamespace)
                 AND c.relkind = 'r' AND has_table_privilege('servicedb_gateway', c.oid, 'SELECT') ORDER BY 1";
    query(&own, sql).await
}

#[tokio::test]
async fn the_gateway_becomes_its_callers_and_is_nobody_else() {
    let _alone = CLIENTS.lock().await;
    let (names, _) = tenant("gateway_db", &[]).await;
    let owner = owner(&names).await;
    owner.client.batch_execute("CREATE TABLE public.things (id int)").await.expect("a table");
    let read_only = || client("reader", serde_json::json!({"mode": "ReadOnly"}));

    keep(&names, Some(Gateway { shared: true }), &[read_only()]).await;
    assert_eq!(memberships().await, ["gateway_db_app", "gateway_db_c_reader"]);
    assert_eq!(rights(&names).await, ["servicedb.migrations"]);
    // The ledger may be younger than the login.
    let younger = "ALTER TABLE servicedb.migrations RENAME TO former; CREATE TABLE servicedb.migrations (version text)";
    owner.client.batch_execute(younger).await.expect("a ledger");
    assert_eq!(rights(&names).await, ["servicedb.former", "servicedb.migrations"]);

    // What somebody has changed is put back, and a caller that is gone is out.
    let own = server().connect("postgres", "postgres").await;
    let changed = "ALTER ROLE servicedb_gateway CREATEROLE PASSWORD 'x'; GRANT gateway_db_owner TO servicedb_gateway;
                   GRANT gateway_db_c_reader TO servicedb_gateway WITH INHERIT TRUE;
                   ALTER ROLE servicedb_gateway SET search_path = public";
    own.client.batch_execute(changed).await.expect("changes");
    keep(&names, Some(Gateway { shared: false }), &[read_only()]).await;
    assert_eq!(memberships().await, ["gateway_db_c_reader"]);
    let sql =
        "SELECT rolcanlogin || ' ' || (rolcreaterole OR rolinherit OR rolpassword IS NOT NULL) || ' ' || COALESCE(
                   (SELECT setconfig::text FROM pg_db_role_setting WHERE setrole = a.oid), '')
               FROM pg_authid a WHERE rolname = 'servicedb_gateway'";
    assert_eq!(query(&own, sql).await, ["true false "]);

    keep(&names, None, &[read_only()]).await;
    assert!(query(&own, "SELECT rolname::text FROM pg_roles WHERE rolname = 'servicedb_gateway'").await.is_empty());
}
