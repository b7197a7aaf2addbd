//! The gateway's login and its table of idempotency keys, as the agent keeps them.

use servicedb::agent::clients::{cached, gateway};
use servicedb::api::names::PostgresNames;
use servicedb::contract::desired::{CachedCollections, Gateway};

use crate::hostile::{none_was_a_superuser, promote, server, sprung, tenant};
use crate::query;
use crate::rights::CLIENTS;
use crate::server::Session;

const TABLE: &str = "servicedb.gateway_requests";

async fn keep(names: &PostgresNames, gateway: Option<Gateway>) {
    let own = server().connect("postgres", "postgres").await;
    own.client.batch_execute("SET search_path = pg_catalog").await.expect("a session");
    gateway::keep(&own.client, server().socket(), names, (gateway, &[])).await.expect("the login");
}

/// Who has rights to the table, beside its owner, and which version of the catalog says so.
async fn rights(superuser: &Session) -> String {
    let sql = format!(
        "SELECT COALESCE(string_agg(DISTINCT format('%s %s', grantee::regrole, c.xmin), ','), '')
         FROM pg_class c, aclexplode(relacl) WHERE c.oid = '{TABLE}'::regclass AND grantee <> relowner"
    );
    superuser.client.query_one(&sql, &[]).await.expect("rights").get(0)
}

async fn is_there(superuser: &Session) -> bool {
    let sql = format!("SELECT to_regclass('{TABLE}') IS NOT NULL");
    superuser.client.query_one(&sql, &[]).await.expect("an answer").get(0)
}

#[tokio::test]
async fn the_table_of_keys_is_the_gateways_alone_and_goes_with_it() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("gateway_db", &[]).await;
    let superuser = server().connect(&names.database, "postgres").await;
    // A membership that only lets a login become the role is new in PostgreSQL 16.
    let version = query(&superuser, "SELECT current_setting('server_version_num')").await.concat();
    if version.parse::<u32>().expect("a number") < 160_000 {
        return;
    }
    let declared = Some(Gateway { shared: true });
    keep(&names, declared).await;
    let of_owner = format!("SELECT relowner::regrole::text FROM pg_class WHERE oid = '{TABLE}'::regclass");
    assert_eq!(query(&superuser, &of_owner).await, [names.owner()]);
    let first = rights(&superuser).await;
    assert!(first.starts_with("servicedb_gateway ") && !first.contains(','), "{first}");

    let insert =
        format!("INSERT INTO {TABLE} (caller, key, attempt, request) VALUES ('a/b', 'k', gen_random_uuid(), '')");
    let session = server().connect(&names.database, PostgresNames::GATEWAY).await;
    session.client.batch_execute(&insert).await.expect("a record");
    let refused = async |session: &Session, sql: &str| {
        let error = session.client.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{sql}: {error:?}");
    };
    for sql in [format!("TRUNCATE {TABLE}"), format!("DROP TABLE {TABLE}"), "CREATE TABLE servicedb.t ()".to_owned()] {
        refused(&session, &sql).await;
    }
    session.client.batch_execute(&format!("SET ROLE {}", names.app())).await.expect("the application's role");
    for sql in [format!("TABLE {TABLE}"), insert.clone()] {
        refused(&session, &sql).await;
    }
    let reader = server().connect(&names.database, PostgresNames::READER).await;
    refused(&reader, &format!("TABLE {TABLE}")).await;

    // Nothing is written that is so already, and a promotion gives nobody a right.
    keep(&names, declared).await;
    promote(&names, &[]).await;
    assert_eq!(rights(&superuser).await, first);
    // What the owner plants on it runs for nobody else, and what it grants is taken back.
    let app = names.app();
    let planted = format!(
        "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN RAISE LOG 'trap \"keys\" superuser: %', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
               RETURN NEW; END$$;
         CREATE TRIGGER trap BEFORE INSERT OR DELETE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION trap();
         GRANT SELECT ON {TABLE} TO PUBLIC; GRANT ALL ON {TABLE} TO {app}, servicedb_queries;"
    );
    owner.client.batch_execute(&planted).await.expect("a trap");
    keep(&names, declared).await;
    let after = rights(&superuser).await;
    assert!(after.starts_with("servicedb_gateway ") && !after.contains(','), "{after}");
    none_was_a_superuser(&sprung(&names));
    let records = format!("SELECT count(*)::text FROM {TABLE}");
    assert_eq!(query(&superuser, &records).await, ["1"], "the records stay");
    // One that the owner drops is made again.
    owner.client.batch_execute(&format!("DROP TABLE {TABLE}")).await.expect("the owner may");
    keep(&names, declared).await;
    assert_eq!(query(&superuser, &records).await, ["0"]);

    // It goes with the gateway, also where a run for that was interrupted.
    keep(&names, None).await;
    assert!(!is_there(&superuser).await);
    keep(&names, None).await;
    keep(&names, declared).await;
    assert!(is_there(&superuser).await);
    let interrupted = format!("ALTER ROLE servicedb_gateway NOLOGIN; REVOKE {app} FROM servicedb_gateway");
    superuser.client.batch_execute(&interrupted).await.expect("a part of the removal");
    keep(&names, None).await;
    assert!(!is_there(&superuser).await);
}

#[tokio::test]
async fn the_collections_of_a_cache_that_do_not_exist_are_named() {
    let (names, _owner) = tenant("cached_db", &[]).await;
    let superuser = server().connect(&names.database, "postgres").await;
    let objects = "CREATE TABLE public.here (id int); CREATE TABLE public.\"with.dot\" (id int);
        CREATE SCHEMA shop; CREATE VIEW shop.orders AS SELECT 1 AS id; CREATE SCHEMA hidden; CREATE TABLE hidden.t (id int);
        CREATE TABLE public.parts (id int) PARTITION BY LIST (id); CREATE TABLE public.part PARTITION OF public.parts DEFAULT;
        CREATE INDEX an_index ON public.here (id);";
    superuser.client.batch_execute(objects).await.expect("objects");
    let missing = async |collections: &[&str], schemas: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cached = CachedCollections { collections: owned(collections), schemas: owned(schemas) };
        cached::missing(server().socket(), &names, &cached).await.expect("an answer")
    };
    let all =
        ["there", "here", "public.here", "with.dot", "shop.orders", "orders", "hidden.t", "parts", "part", "an_index"];
    assert_eq!(missing(&all, &["public", "shop"]).await, ["there", "orders", "hidden.t", "part", "an_index"]);
    assert_eq!(missing(&["orders", "here", "public.here"], &["shop"]).await, ["here", "public.here"]);
    assert!(missing(&["orders", "public.here"], &["shop", "public"]).await.is_empty());
}
