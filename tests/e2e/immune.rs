//! A tenant's settings for sessions affect only its own sessions, not those of the agent, of Patroni
//! and of migrations.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

use crate::harness::{NOTES, READY, Sandbox, condition, config_map, database, describe, plugin, shared};

const TAGS: (&str, &str) = ("2_tags.up.sql", "CREATE TABLE tags (id bigint PRIMARY KEY);");

/// Each of them ends, cancels, refuses or misleads a session that inherits it.
fn hostile() -> Value {
    json!({
        "statement_timeout": "1ms",
        "lock_timeout": "1ms",
        "idle_in_transaction_session_timeout": "1ms",
        "idle_session_timeout": "1ms",
        "transaction_timeout": "5s",
        "default_transaction_read_only": "on",
        "default_transaction_isolation": "serializable",
        "default_transaction_deferrable": "on",
        "row_security": "off",
        "session_replication_role": "replica",
        "search_path": "nowhere, public",
        "client_min_messages": "debug1",
        "datestyle": "SQL, DMY",
        "intervalstyle": "sql_standard",
        "timezone": "Asia/Kathmandu",
        "bytea_output": "escape",
        "quote_all_identifiers": "on",
        "jit_above_cost": "0",
    })
}

/// The same by the owner of the database and by the logins themselves, who need no superuser for it.
const BY_THE_TENANT: &str = "\
ALTER DATABASE shop_db SET statement_timeout = '1ms';
ALTER DATABASE shop_db SET transaction_timeout = '1ms';
ALTER DATABASE shop_db SET idle_session_timeout = '1ms';
ALTER DATABASE shop_db SET default_transaction_read_only = on;
ALTER DATABASE shop_db SET search_path = nowhere, public;
ALTER DATABASE shop_db SET role = 'shop_db_app';
ALTER ROLE shop_a SET statement_timeout = '1ms';
ALTER ROLE shop_b SET default_transaction_read_only = on;
ALTER ROLE shop_b IN DATABASE shop_db SET role = none;
ALTER ROLE shop_migrator_b SET statement_timeout = '1ms';
ALTER ROLE shop_migrator_b IN DATABASE shop_db SET transaction_timeout = '1ms';";

/// A session that is not immune would see nothing.
async fn psql(sandbox: &Sandbox, pod: &str, sql: &str) -> String {
    let options = "-c statement_timeout=0 -c transaction_timeout=0 -c idle_session_timeout=0 \
                   -c idle_in_transaction_session_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off \
                   -c client_min_messages=error";
    let script = format!("PGOPTIONS='{options}' psql -XqAt -v ON_ERROR_STOP=1 <<'SQL'\n{sql}\nSQL");
    let output = sandbox.exec(pod, &script).await;
    assert!(output.status.success(), "{pod}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn ask(sandbox: &Sandbox, arguments: &[&str]) {
    let output = plugin(sandbox, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn version(database: &ServiceDatabase) -> Option<&str> {
    database.status.as_ref()?.schema_version.as_deref()
}

#[test]
fn no_setting_of_a_tenant_reaches_a_session_of_ours() {
    shared("immune", async |sandbox| {
        // Provisioned and migrated with them, a replica cloned and streaming.
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({
            "instances": 2,
            "postgres": {"parameters": hostile()},
            "migrations": {"source": {"configMap": {"name": "migrations"}}},
        });
        sandbox.create(database("shop", spec)).await;
        let ready = sandbox.ready("shop", READY).await;
        assert_eq!(version(&ready), Some("1"));
        let primary = sandbox.primary("shop").await;
        assert_eq!(
            psql(&sandbox, &primary, "SELECT reset_val FROM pg_settings WHERE name = 'DateStyle'").await,
            "SQL, DMY"
        );

        // Two rotations with what the tenant sets besides, so that each login has its turn.
        for (token, setting) in [("first", BY_THE_TENANT), ("second", "SELECT 1")] {
            if token == "first" {
                // The logins of the next generation, as an earlier rotation would have left them.
                let made = "CREATE ROLE shop_b NOLOGIN; CREATE ROLE shop_migrator_b NOLOGIN;";
                psql(&sandbox, &primary, made).await;
            }
            psql(&sandbox, &primary, setting).await;
            ask(&sandbox, &["rotate", "shop"]).await;
        }
        // A changed role of a login is reverted, a team's settings for its own sessions are not.
        let roles = "SELECT count(*) FROM pg_db_role_setting WHERE setconfig::text LIKE '%role=none%'";
        assert_eq!(psql(&sandbox, &primary, roles).await, "0");
        let kept = "SELECT count(*) FROM pg_db_role_setting WHERE setconfig::text LIKE '%statement_timeout=1ms%'";
        assert_eq!(psql(&sandbox, &primary, kept).await, "3");

        // Migrated, switched over, restarted.
        sandbox.patch::<ConfigMap>("migrations", &json!({"data": {TAGS.0: TAGS.1}})).await;
        sandbox.wait("the next migration is applied", "shop", READY, |found| version(found) == Some("2")).await;
        sandbox.ready("shop", READY).await;
        ask(&sandbox, &["switchover", "shop"]).await;
        sandbox.ready("shop", READY).await;
        ask(&sandbox, &["restart", "shop"]).await;
        sandbox.ready("shop", READY).await;

        // And a corrected spec comes to all of them.
        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"postgres": {"parameters": null}}})).await;
        crate::harness::until("both have the server's own defaults", READY, || async {
            let mut found = Vec::new();
            for pod in ["shop-db-0", "shop-db-1"] {
                let query = "SELECT boot_val = reset_val FROM pg_settings WHERE name = 'row_security'";
                found.push(psql(&sandbox, pod, query).await);
            }
            if found == ["t", "t"] { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        sandbox.ready("shop", READY).await;
    });
}

#[test]
fn parameters_that_nobody_has_the_memory_for_are_refused_by_name() {
    shared("memory", async |sandbox| {
        // Where nothing is said of memory the agent finds out what its node has.
        let greedy = json!({"postgres": {"parameters": {"shared_buffers": "800GB"}}, "resources": null});
        sandbox.create(database("greedy", greedy)).await;
        let limits = json!({"limits": {"memory": "512Mi"}});
        sandbox.create(database("shop", json!({"resources": limits}))).await;
        let told = sandbox.condition("greedy", "Ready", "False", "InvalidSpec", READY).await;
        for word in ["shared_buffers = 800GB", "spec.resources.limits.memory", "node's memory"] {
            assert!(told.message.contains(word), "{word}: {}", told.message);
        }
        sandbox.patch::<ServiceDatabase>("greedy", &json!({"spec": {"postgres": {"parameters": null}}})).await;
        sandbox.ready("greedy", READY).await;

        // A serving database is not changed. The operator can find the first, only
        // PostgreSQL the second.
        sandbox.ready("shop", READY).await;
        for (name, value) in [("shared_buffers", "1GB"), ("max_locks_per_transaction", "100000")] {
            sandbox
                .patch::<ServiceDatabase>("shop", &json!({"spec": {"postgres": {"parameters": {name: value}}}}))
                .await;
            let told = sandbox.condition("shop", "Ready", "False", "InvalidSpec", READY).await;
            assert!(told.message.contains(&format!("{name} = {value}")), "{}", told.message);
            let found = sandbox.get("shop").await;
            let available = condition(&found, "DatabaseAvailable").expect("a condition");
            assert_eq!(available.status, "True", "{}", describe(&found));
            sandbox
                .patch::<ServiceDatabase>("shop", &json!({"spec": {"postgres": {"parameters": {name: null}}}}))
                .await;
            sandbox.ready("shop", READY).await;
        }
    });
}
