//! The rights of clients that have a login of their own, as the agent keeps them: against a test server, with a tenant
//! that has planted its code.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use servicedb::agent::clients::{rights, roles};
use servicedb::api::names::PostgresNames;
use servicedb::contract::clients::{Client, RightsReport, Rules};
use servicedb::contract::pod::POSTGRES_PORT;
use servicedb::migrate::drift::catalog;
use tokio_postgres::{Config, NoTls};

use crate::hostile::{self, none_was_a_superuser, server, sprung, tenant};
use crate::query;
use crate::server::Session;

const TABLES: &str = "
    CREATE TABLE users (id int PRIMARY KEY, name text, password text);
    CREATE TABLE files (id serial PRIMARY KEY, path text, is_secret boolean NOT NULL DEFAULT false);
    CREATE VIEW paths AS SELECT path FROM files;
    CREATE TABLE events (at int) PARTITION BY RANGE (at);
    CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10);
    INSERT INTO users VALUES (1, 'ada', 'x');
    INSERT INTO files (path, is_secret) VALUES ('/open', false), ('/secret', true);";

/// All databases of the server have their clients in one table, and one login of the gateway: one test at a time changes
/// them.
pub static CLIENTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn client(name: &str, access: Value) -> Client {
    let client = json!({"name": name, "serviceAccount": name, "generation": 1, "access": access});
    serde_json::from_value(client).expect("a client")
}

fn custom(name: &str, grants: Value) -> Client {
    client(name, json!({"mode": "Custom", "grants": grants}))
}

async fn keep_with(names: &PostgresNames, clients: &[Client], rules: Rules) -> BTreeMap<String, RightsReport> {
    let own = server().connect("postgres", "postgres").await;
    own.client.batch_execute("SET search_path = pg_catalog").await.expect("a session");
    roles::admit(&own.client, names, clients).await.expect("the roles");
    let (reports, _) = rights::keep(&own.client, server().socket(), names, clients, rules, &mut Default::default())
        .await
        .expect("the rights");
    reports
}

async fn keep(names: &PostgresNames, clients: &[Client]) -> BTreeMap<String, RightsReport> {
    keep_with(names, clients, Rules::default()).await
}

async fn session(names: &PostgresNames, client: &str) -> Session {
    let session = server().connect(&names.database, "postgres").await;
    let become_it = format!("SET ROLE {}; SET search_path = public", names.client(client));
    session.client.batch_execute(&become_it).await.expect("the client's role");
    session
}

/// Whether the client may run a statement, which is rolled back.
async fn may(names: &PostgresNames, client: &str, sql: &str) -> bool {
    let session = session(names, client).await;
    match session.client.batch_execute(&format!("BEGIN; {sql}; ROLLBACK")).await {
        Ok(()) => true,
        Err(error) if error.code().is_some_and(|code| code.code() == "42501") => false,
        Err(error) => panic!("{client}: {sql}: {error:?}"),
    }
}

async fn check(names: &PostgresNames, client: &str, allowed: &[&str], refused: &[&str]) {
    for sql in allowed {
        assert!(may(names, client, sql).await, "{client} may not: {sql}");
    }
    for sql in refused {
        assert!(!may(names, client, sql).await, "{client} may: {sql}");
    }
}

#[tokio::test]
async fn each_mode_gives_its_rights_and_no_others() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("modes_db", &[]).await;
    owner.client.batch_execute(TABLES).await.expect("tables");
    let clients = [
        client("modes-reads", json!({"mode": "ReadOnly"})),
        client("modes-writes", json!({"mode": "ReadWrite"})),
        custom(
            "modes-some",
            json!([
                {"tables": ["users"], "columns": ["id", "name"], "privileges": ["SELECT"]},
                {"tables": ["files"], "privileges": ["INSERT"]},
                {"tables": ["later"], "privileges": ["SELECT"]},
                {"schema": "nowhere", "tables": ["*"], "privileges": ["SELECT"]},
            ]),
        ),
    ];
    let reports = keep(&names, &clients).await;
    assert_eq!(reports["modes-reads"], RightsReport::default());
    assert_eq!(reports["modes-writes"], RightsReport::default());
    assert_eq!(
        reports["modes-some"].pending,
        ["public.later does not exist", "the schema nowhere does not exist"],
        "{:?}",
        reports["modes-some"]
    );
    let never = [
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "SELECT lo_create(0)",
        "TRUNCATE files",
        "TABLE servicedb.migrations",
    ];
    let insert = "INSERT INTO files (path) VALUES ('/new')";
    check(
        &names,
        "modes-reads",
        &["TABLE users", "TABLE paths", "TABLE events"],
        &[&never[..], &[insert, "TABLE events_1", "SELECT nextval('files_id_seq')"]].concat(),
    )
    .await;
    check(&names, "modes-writes", &["TABLE users", insert, "DELETE FROM users"], &never).await;
    check(
        &names,
        "modes-some",
        &["SELECT id, name FROM users", insert],
        &[&never[..], &["TABLE users", "SELECT password FROM users", "TABLE files", "DELETE FROM files"]].concat(),
    )
    .await;
    // A later table, by name and by all.
    owner.client.batch_execute("CREATE TABLE later (id int)").await.expect("a table");
    let reports = keep(&names, &clients).await;
    assert_eq!(reports["modes-some"].pending, ["the schema nowhere does not exist"]);
    for client in &clients {
        check(&names, &client.name, &["TABLE later"], &[]).await;
    }
    // What is no longer declared is taken back, and is no drift.
    let less = [custom("modes-some", json!([{"tables": ["users"], "columns": ["id"], "privileges": ["SELECT"]}]))];
    let reports = keep(&names, &less).await;
    assert_eq!(reports["modes-some"], RightsReport::default());
    check(&names, "modes-some", &["SELECT id FROM users"], &["SELECT name FROM users", insert, "TABLE later"]).await;
}

#[tokio::test]
async fn a_row_policy_limits_its_client_and_nobody_else() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("rows_db", &[]).await;
    owner.client.batch_execute(TABLES).await.expect("tables");
    let grants = |expression: &str| {
        json!([{"tables": ["files"], "privileges": ["SELECT", "UPDATE"], "rowPolicy": expression},
               {"tables": ["paths"], "privileges": ["SELECT"]}])
    };
    let all = client("rows-all", json!({"mode": "ReadOnly"}));
    let reports = keep(&names, &[custom("rows-some", grants("NOT is_secret -- and no more")), all.clone()]).await;
    assert!(reports["rows-some"].failed.is_empty(), "{reports:?}");
    assert!(reports["rows-some"].notes[0].contains("the view public.paths reads public.files"), "{reports:?}");
    let visible = async |client: &str| {
        let session = session(&names, client).await;
        query(&session, "SELECT path FROM files ORDER BY path").await
    };
    assert_eq!(visible("rows-some").await, ["/open"]);
    assert_eq!(visible("rows-all").await, ["/open", "/secret"]);
    assert_eq!(query(&owner, "SELECT count(*) FROM files").await, ["2"]);
    let application = server().connect(&names.database, "postgres").await;
    application.client.batch_execute("SET ROLE rows_db_app; SET search_path = public").await.expect("the application");
    assert_eq!(query(&application, "SELECT count(*) FROM files").await, ["2"]);
    let session = session(&names, "rows-some").await;
    session.client.batch_execute("BEGIN").await.expect("a transaction");
    let hidden = session.client.execute("UPDATE files SET path = '/x' WHERE is_secret", &[]).await.expect("no row");
    assert_eq!(hidden, 0);
    let wider = session.client.execute("UPDATE files SET is_secret = true", &[]).await.expect_err("out of its rows");
    assert_eq!(wider.code().map(|code| code.code()), Some("42501"));
    drop(session);
    // Another expression replaces it; one that is not valid here withholds the rights.
    keep(&names, &[custom("rows-some", grants("path = '/secret'")), all.clone()]).await;
    assert_eq!(visible("rows-some").await, ["/secret"]);
    let reports = keep(&names, &[custom("rows-some", grants("no_such_column")), all.clone()]).await;
    assert!(reports["rows-some"].failed[0].contains("no_such_column"), "{reports:?}");
    check(&names, "rows-some", &["TABLE paths"], &["TABLE files", "UPDATE files SET path = 'x'"]).await;
    // Without declarations the table is as it was.
    keep(&names, &[all]).await;
    let left = "SELECT count(*) FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relname = 'files'
                UNION ALL SELECT count(*) FROM pg_class WHERE relname = 'files' AND relrowsecurity";
    assert_eq!(query(&owner, left).await, ["0", "0"]);
}

#[tokio::test]
async fn a_bad_row_policy_withholds_the_rights_of_its_client_alone() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("badrow_db", &[]).await;
    owner.client.batch_execute(TABLES).await.expect("tables");
    let some = |name: &str, expression: &str| {
        custom(name, json!([{"tables": ["files"], "privileges": ["SELECT"], "rowPolicy": expression}]))
    };
    // The last is refused by the function that reads a number, not by the parser.
    let clients = [
        some("badrow-a", "NOT is_secret"),
        some("badrow-b", "no_such_column"),
        some("badrow-c", "is_secret"),
        some("badrow-d", "id = 'one'"),
    ];
    let own = server().connect("postgres", "postgres").await;
    own.client.batch_execute("SET search_path = pg_catalog").await.expect("a session");
    roles::admit(&own.client, &names, &clients).await.expect("the roles");
    let mut refused = rights::Refused::new();
    for _ in 0..2 {
        let kept = rights::keep(&own.client, server().socket(), &names, &clients, Rules::default(), &mut refused).await;
        let (reports, complete) = kept.expect("the rights");
        assert!(complete, "another try would lock the table again");
        let failed: Vec<_> = reports.values().filter_map(|report| report.failed.first()).collect();
        let [parsed, read] = failed[..] else { panic!("{reports:?}") };
        assert!(parsed.contains("no_such_column") && read.contains("invalid input syntax"), "{reports:?}");
    }
    for (client, path) in [("badrow-a", "/open"), ("badrow-c", "/secret")] {
        let session = session(&names, client).await;
        assert_eq!(query(&session, "SELECT path FROM files").await, [path], "{client}");
    }
    for client in ["badrow-b", "badrow-d"] {
        check(&names, client, &[], &["TABLE files"]).await;
    }
}

/// A right without its policy would show all rows: of a table that a migration has renamed, or to the sessions of a
/// removed client in their grace.
#[tokio::test]
async fn a_row_policy_lasts_as_long_as_the_right_that_it_limits() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("lasts_db", &[]).await;
    owner.client.batch_execute(TABLES).await.expect("tables");
    let of = |table: &str| json!([{"tables": [table], "privileges": ["SELECT"], "rowPolicy": "NOT is_secret"}]);
    let reads = async |table: &str| {
        let session = session(&names, "lasts-some").await;
        query(&session, &format!("SELECT path FROM {table}")).await
    };
    keep(&names, &[custom("lasts-some", of("files"))]).await;
    assert_eq!(reads("files").await, ["/open"]);
    owner.client.batch_execute("ALTER TABLE files RENAME TO documents").await.expect("another name");
    let reports = keep(&names, &[custom("lasts-some", of("files"))]).await;
    let report = &reports["lasts-some"];
    assert_eq!((report.pending.len(), report.undeclared.len()), (1, 1), "{report:?}");
    assert_eq!(reads("documents").await, ["/open"], "the right went with the table, and so did its policy");
    let reports = keep(&names, &[custom("lasts-some", of("documents"))]).await;
    assert_eq!(reports["lasts-some"], RightsReport::default());
    assert_eq!(reads("documents").await, ["/open"]);
    // The removed one, while its sessions last.
    keep(&names, &[]).await;
    assert_eq!(reads("documents").await, ["/open"]);
    // Declared again without the table: the right goes, and the policy with it, at once.
    let reports = keep(&names, &[custom("lasts-some", json!([{"tables": ["users"], "privileges": ["SELECT"]}]))]).await;
    assert_eq!(reports["lasts-some"], RightsReport::default());
    check(&names, "lasts-some", &["TABLE users"], &["TABLE documents"]).await;
    let left = "SELECT count(*) FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relname = 'documents'
                UNION ALL SELECT count(*) FROM pg_class WHERE relname = 'documents' AND relrowsecurity";
    assert_eq!(query(&owner, left).await, ["0", "0"]);
}

#[tokio::test]
async fn a_locked_table_keeps_back_its_own_rights_alone() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("held_rights_db", &[]).await;
    owner.client.batch_execute(TABLES).await.expect("tables");
    let clients = [
        custom(
            "locked-some",
            json!([{"tables": ["files"], "privileges": ["SELECT"], "rowPolicy": "NOT is_secret"},
                   {"tables": ["users"], "privileges": ["SELECT"]}]),
        ),
        client("locked-all", json!({"mode": "ReadOnly"})),
    ];
    owner.client.batch_execute("BEGIN; TABLE files").await.expect("a long transaction");
    let own = server().connect("postgres", "postgres").await;
    own.client.batch_execute("SET search_path = pg_catalog").await.expect("a session");
    roles::admit(&own.client, &names, &clients).await.expect("the roles");
    let refused = &mut rights::Refused::new();
    let kept = rights::keep(&own.client, server().socket(), &names, &clients, Rules::default(), refused).await;
    let (reports, complete) = kept.expect("the rights of the others");
    assert!(!complete && reports["locked-some"].pending[0].contains("public.files"), "{reports:?}");
    check(&names, "locked-some", &["TABLE users"], &["TABLE files"]).await;
    check(&names, "locked-all", &["TABLE users", "TABLE files"], &[]).await;
    owner.client.batch_execute("COMMIT").await.expect("its end");
    assert_eq!(keep(&names, &clients).await["locked-some"], RightsReport::default());
    let session = session(&names, "locked-some").await;
    assert_eq!(query(&session, "SELECT path FROM files").await, ["/open"]);
}

/// What docs/clients.md says of the ways around a row policy, and of what it costs others.
#[tokio::test]
async fn the_ways_around_a_row_policy_are_told() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("around_db", &[]).await;
    owner.client.batch_execute(TABLES).await.expect("tables");
    let more = "
        CREATE VIEW inner_paths AS SELECT path FROM files;
        CREATE VIEW outer_paths AS SELECT path FROM inner_paths;
        CREATE MATERIALIZED VIEW copied_paths AS SELECT path FROM files;
        CREATE TABLE all_files (path text, is_secret boolean);
        ALTER TABLE files INHERIT all_files";
    owner.client.batch_execute(more).await.expect("views and a parent");
    let grants = json!([{"tables": ["files"], "privileges": ["SELECT"], "rowPolicy": "NOT is_secret"},
                        {"tables": ["files"], "columns": ["is_secret"], "privileges": ["UPDATE"]},
                        {"tables": ["outer_paths", "copied_paths", "all_files"], "privileges": ["SELECT"]}]);
    let clients = [custom("around-some", grants)];
    keep(&names, &clients).await;
    let notes = &keep(&names, &clients).await["around-some"].notes;
    for told in [
        "public.outer_paths reads public.files",
        "public.copied_paths has a copy",
        "through public.all_files",
        "UPDATE on public.files has no row policy",
    ] {
        assert!(notes.iter().any(|note| note.contains(told)), "{told}: {notes:?}");
    }
    assert_eq!(notes.len(), 4, "{notes:?}");
    // PostgreSQL copies into a table with row level security for its owner alone.
    let application = server().connect(&names.database, "postgres").await;
    application
        .client
        .batch_execute("SET ROLE around_db_app; SET search_path = public")
        .await
        .expect("the application");
    let copied = application.client.batch_execute("COPY files (path) FROM STDIN").await.expect_err("a COPY");
    assert_eq!(copied.code().map(|code| code.code()), Some("0A000"), "{copied:?}");
    application
        .client
        .batch_execute("BEGIN; INSERT INTO files (path) VALUES ('/x'); ROLLBACK")
        .await
        .expect("an INSERT");
}

#[tokio::test]
async fn the_teams_row_policies_stay_in_force() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("team_db", &[]).await;
    owner.client.batch_execute(TABLES).await.expect("tables");
    let own = "ALTER TABLE files ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON files USING (path <> '/open')";
    owner.client.batch_execute(own).await.expect("a policy of the team");
    let grants = json!([{"tables": ["files"], "privileges": ["SELECT"], "rowPolicy": "NOT is_secret"}]);
    keep(&names, &[custom("team-some", grants), client("team-all", json!({"mode": "ReadOnly"}))]).await;
    for (client, rows) in [("team-some", 0), ("team-all", 1)] {
        let session = session(&names, client).await;
        assert_eq!(query(&session, "SELECT count(*) FROM files").await, [rows.to_string()], "{client}");
    }
    let less = custom("team-some", json!([{"tables": ["users"], "privileges": ["SELECT"]}]));
    keep(&names, &[less, client("team-all", json!({"mode": "ReadOnly"}))]).await;
    let left = "SELECT polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relname = 'files'
                UNION ALL SELECT relrowsecurity::text FROM pg_class WHERE relname = 'files'";
    assert_eq!(query(&owner, left).await, ["own", "true"]);
}

#[tokio::test]
async fn rights_by_hand_are_told_and_taken_back_from_each_grantor() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("hand_db", &[]).await;
    owner.client.batch_execute(TABLES).await.expect("tables");
    let clients = [custom("hand-some", json!([{"tables": ["users"], "privileges": ["SELECT"]}]))];
    keep(&names, &clients).await;
    let role = names.client("hand-some");
    let superuser = server().connect(&names.database, "postgres").await;
    let by_hand = format!(
        "SET ROLE {owner}; GRANT DELETE ON public.users TO {app} WITH GRANT OPTION;
         SET ROLE {app}; GRANT DELETE ON public.users TO {role}; RESET ROLE;
         SET ROLE {owner}; GRANT UPDATE (name) ON public.users TO {role}; GRANT SELECT ON public.users TO {role} WITH GRANT OPTION;
         RESET ROLE; GRANT {app} TO {role}; GRANT CREATE ON SCHEMA public TO {role}",
        owner = names.owner(),
        app = names.app(),
    );
    superuser.client.batch_execute(&by_hand).await.expect("rights by hand");
    let reports = keep(&names, &clients).await;
    let told = &reports["hand-some"].undeclared;
    for line in [
        "CREATE on the schema public",
        "DELETE on public.users (granted by hand_db_app)",
        "UPDATE on public.users (name) (granted by hand_db_owner)",
        "SELECT on public.users, with the right to grant it",
        "membership in the role hand_db_app",
    ] {
        assert!(told.iter().any(|told| told.starts_with(line)), "{line}: {told:?}");
    }
    check(&names, "hand-some", &["DELETE FROM users"], &[]).await;
    keep_with(&names, &clients, Rules { revoke_undeclared: true, ..Rules::default() }).await;
    let reports = keep(&names, &clients).await;
    assert_eq!(reports["hand-some"], RightsReport::default());
    let refused = ["DELETE FROM users", "UPDATE users SET name = 'x'", "TABLE files", "CREATE TABLE x (id int)"];
    check(&names, "hand-some", &["TABLE users"], &refused).await;
}

/// What a client has by other means than rights on what exists.
#[tokio::test]
async fn rights_to_come_and_what_it_owns_are_told_and_its_code_gets_no_rights_with_its_removal() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("owns_db", &[]).await;
    owner.client.batch_execute(TABLES).await.expect("tables");
    let clients = [custom("owns-some", json!([{"tables": ["users"], "privileges": ["SELECT"]}]))];
    keep(&names, &clients).await;
    let role = names.client("owns-some");
    let by_hand = format!(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT DELETE ON TABLES TO {role};
         ALTER DEFAULT PRIVILEGES GRANT DELETE ON TABLES TO {role};
         GRANT CREATE ON SCHEMA public TO {role}"
    );
    owner.client.batch_execute(&by_hand).await.expect("rights by hand");
    let its = session(&names, "owns-some").await;
    let make =
        "CREATE FUNCTION secrets() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM public.files';
                CREATE TABLE mine (id int)";
    its.client.batch_execute(&format!("SET check_function_bodies = off; {make}")).await.expect("objects");
    drop(its);
    let told = keep(&names, &clients).await["owns-some"].undeclared.clone();
    for line in [
        "DELETE on all TABLES to come in the schema public (granted by owns_db_owner)",
        "DELETE on all TABLES to come (granted by owns_db_owner)",
        "ownership of the table",
        "ownership of the function",
    ] {
        assert!(told.iter().any(|told| told.starts_with(line)), "{line}: {told:?}");
    }
    keep_with(&names, &clients, Rules { revoke_undeclared: true, ..Rules::default() }).await;
    owner.client.batch_execute("CREATE TABLE later (id int)").await.expect("a table");
    check(&names, "owns-some", &[], &["DELETE FROM later", "CREATE TABLE more (id int)"]).await;
    removed(&names, &clients).await;
    let called = owner.client.batch_execute("SELECT secrets()").await.expect_err("the function of a removed client");
    assert_eq!(called.code().map(|code| code.code()), Some("42501"), "{called:?}");
    owner.client.batch_execute("DROP FUNCTION secrets(); DROP TABLE mine").await.expect("the owner of the schema");
}

#[tokio::test]
async fn a_tenants_code_does_not_run_as_a_superuser_for_it_and_the_schema_has_no_drift() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("trapped_db", &[]).await;
    owner.client.batch_execute(hostile::TRAPS).await.expect("the traps");
    let traps = "
        CREATE TABLE public.files (id int, word traps.word, pair traps.pair);
        CREATE INDEX trap ON public.files ((traps.log('index of a granted table')));
        CREATE VIEW public.seen AS SELECT traps.log('granted view') AS seen;
        ALTER TABLE public.files ADD CONSTRAINT trap CHECK (traps.log('check of a granted table'))";
    owner.client.batch_execute(traps).await.expect("more traps");
    let declared = catalog(&owner.client).await.expect("the catalog");
    let before = sprung(&names).len();
    let grants = json!([{"tables": ["files"], "privileges": ["SELECT"], "rowPolicy": "traps.log('row policy')"},
                        {"schema": "traps", "tables": ["*"], "privileges": ["SELECT"]}]);
    let clients = [custom("trapped-some", grants), client("trapped-all", json!({"mode": "ReadWrite"}))];
    let reports = keep(&names, &clients).await;
    assert!(reports.values().all(|report| report.failed.is_empty()), "{reports:?}");
    let live = catalog(&owner.client).await.expect("the catalog");
    let differences: Vec<_> = live.iter().filter(|(key, text)| declared.get(*key) != Some(*text)).collect();
    assert!(differences.is_empty(), "{differences:?}");
    assert!(declared.keys().all(|key| live.contains_key(key)));
    removed(&names, &clients).await;
    none_was_a_superuser(&sprung(&names).split_off(before));
}

/// A long transaction on a table with the row policy of a removed client.
#[tokio::test]
async fn a_removed_client_that_cannot_be_dropped_yet_is_refused_and_keeps_nothing_else_back() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("stuck_db", &[]).await;
    owner.client.batch_execute(TABLES).await.expect("tables");
    let grants = json!([{"tables": ["files"], "privileges": ["SELECT"], "rowPolicy": "NOT is_secret"}]);
    let clients = [custom("stuck-a", grants), client("stuck-b", json!({"mode": "ReadOnly"}))];
    keep(&names, &clients).await;
    let superuser = server().connect("postgres", "postgres").await;
    superuser.client.batch_execute("SET search_path = pg_catalog").await.expect("a session");
    for client in &clients {
        let login = names.client_login(&client.name, 1);
        superuser.client.batch_execute(&format!("CREATE ROLE {login} LOGIN")).await.expect("a login");
    }
    let setting = format!("ALTER ROLE {} SET search_path = elsewhere", names.client_login("stuck-a", 1));
    superuser.client.batch_execute(&setting).await.expect("a setting of a login for itself");
    owner.client.batch_execute("BEGIN; TABLE files").await.expect("a long transaction");
    let remove = async || {
        let kept = others(&superuser, &clients).await;
        roles::remove(&superuser.client, server().socket(), &names, &kept, Rules::default()).await.expect("a removal")
    };
    superuser.client.batch_execute("SET lock_timeout = '1s'").await.expect("a setting");
    assert_eq!(remove().await, roles::Removal { again_in: None, is_complete: false });
    let left = format!(
        "SELECT rolname || ' ' || rolcanlogin FROM pg_roles WHERE starts_with(rolname, '{}') ORDER BY rolname",
        names.client_prefix()
    );
    assert_eq!(query(&superuser, &left).await, ["stuck_db_c_stuck_a false", "stuck_db_c_stuck_a_a false"]);
    let settings = "SELECT count(*) FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
                    WHERE r.rolname = 'stuck_db_c_stuck_a_a'";
    assert_eq!(query(&superuser, settings).await, ["0"], "the next one to have the login has none of its settings");
    owner.client.batch_execute("COMMIT").await.expect("its end");
    assert_eq!(remove().await, roles::Removal { again_in: None, is_complete: true });
    assert_eq!(query(&superuser, &left).await, [""; 0]);
}

/// In a database that is named like its service, the login of one client has the name of the role of another.
#[tokio::test]
async fn a_new_client_never_takes_over_the_roles_of_a_removed_one() {
    let _alone = CLIENTS.lock().await;
    let (names, owner) = tenant("taken", &[]).await;
    owner.client.batch_execute(TABLES).await.expect("tables");
    let former = [client("bot", json!({"mode": "ReadWrite"}))];
    keep(&names, &former).await;
    let (role, login) = (names.client("bot"), names.client_login("bot", 1));
    assert_eq!(login, names.client("bot-a"));
    let superuser = server().connect("postgres", "postgres").await;
    let make = format!("SET search_path = pg_catalog; CREATE ROLE {login} LOGIN; GRANT {role} TO {login}");
    superuser.client.batch_execute(&make).await.expect("a login");
    let now = [custom("bot-a", json!([{"tables": ["users"], "privileges": ["SELECT"]}]))];
    let admission = roles::admit(&superuser.client, &names, &now).await.expect("an answer");
    assert!(admission.kept_out.contains_key("bot-a") && !admission.is_complete, "the former one is there");
    let kept: Vec<_> = others(&superuser, &former).await.into_iter().chain(now.clone()).collect();
    let grace = Rules { session_grace_seconds: 3600, ..Rules::default() };
    let removal = roles::remove(&superuser.client, server().socket(), &names, &kept, grace).await.expect("a removal");
    assert_eq!(removal, roles::Removal { again_in: None, is_complete: true }, "it does not wait for the grace");
    assert_eq!(keep(&names, &now).await["bot-a"], RightsReport::default());
    check(&names, "bot-a", &["TABLE users"], &["TABLE files"]).await;
    removed(&names, &now).await;
}

/// A gateway under load: whenever one of its sessions ends, it begins another one as this role. It ends with this value.
struct BusyGateway(Vec<tokio::task::JoinHandle<()>>);

impl Drop for BusyGateway {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl BusyGateway {
    /// Lets its login become the role, and begins.
    async fn start(superuser: &Session, names: &PostgresNames, role: &str) -> Self {
        let (login, database) = (PostgresNames::GATEWAY, &names.database);
        let grants = format!(
            "DO $$ BEGIN CREATE ROLE {login}; EXCEPTION WHEN duplicate_object THEN END $$;
             ALTER ROLE {login} LOGIN NOINHERIT; GRANT CONNECT ON DATABASE {database} TO {login};
             GRANT {role} TO {login};"
        );
        superuser.client.batch_execute(&grants).await.expect("the gateway's login");
        let mut config = Config::new();
        config.host(server().socket()).port(POSTGRES_PORT).user(login).dbname(database);
        config.application_name(role).options(format!("-c role={role}"));
        let busy = Self((0..4).map(|_| tokio::spawn(Self::keep_session(config.clone()))).collect());
        let deadline = Instant::now() + Duration::from_secs(30);
        // All of them: none is about to begin while the test acts.
        while Self::sessions(superuser, role).await != ["4"] {
            assert!(Instant::now() < deadline, "the gateway has not all its sessions as {role}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        busy
    }

    async fn keep_session(config: Config) {
        loop {
            match config.connect(NoTls).await {
                // Until the server ends it.
                Ok((_client, connection)) => drop(connection.await),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn sessions(superuser: &Session, role: &str) -> Vec<String> {
        let login = PostgresNames::GATEWAY;
        let sql =
            format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{login}' AND application_name = '{role}'");
        query(superuser, &sql).await
    }
}

/// Timeout of all rounds: in one, the agent waits two seconds for the end of a client's sessions.
const ROUNDS: Duration = Duration::from_secs(60);

/// Admits clients, in rounds as the agent does.
async fn admit_all(superuser: &Session, names: &PostgresNames, clients: &[Client]) -> roles::Admission {
    let deadline = Instant::now() + ROUNDS;
    loop {
        let admission = roles::admit(&superuser.client, names, clients).await.expect("an answer");
        if admission.is_complete || Instant::now() > deadline {
            return admission;
        }
    }
}

/// Removes all clients but these, in rounds as the agent does.
async fn remove_all(superuser: &Session, names: &PostgresNames, kept: &[Client]) -> roles::Removal {
    let deadline = Instant::now() + ROUNDS;
    loop {
        let removal = roles::remove(&superuser.client, server().socket(), names, kept, Rules::default()).await;
        let removal = removal.expect("a removal");
        if removal.is_complete || Instant::now() > deadline {
            return removal;
        }
    }
}

/// The sessions that end must not come back: neither while another ServiceAccount takes the client over, nor after the
/// client's role is gone.
#[tokio::test]
async fn a_busy_gateway_keeps_no_client_from_changing_or_going() {
    let _alone = CLIENTS.lock().await;
    let (names, _owner) = tenant("busy_db", &[]).await;
    let read_only = || json!({"mode": "ReadOnly"});
    keep(&names, &[client("busy-a", read_only())]).await;
    let superuser = server().connect("postgres", "postgres").await;
    superuser.client.batch_execute("SET search_path = pg_catalog").await.expect("a session");
    let role = names.client("busy-a");

    let busy = BusyGateway::start(&superuser, &names, &role).await;
    let changed = [Client { service_account: "another".to_owned(), ..client("busy-a", read_only()) }];
    let admission = admit_all(&superuser, &names, &changed).await;
    assert!(admission.kept_out.is_empty() && admission.is_complete, "{admission:?}");
    let account = "SELECT account FROM servicedb.clients WHERE client = 'busy-a'";
    assert_eq!(query(&superuser, account).await, ["another"]);
    assert_eq!(BusyGateway::sessions(&superuser, &role).await, ["0"]);
    drop(busy);

    // The gateway has the role again, as it has once the client is admitted.
    let busy = BusyGateway::start(&superuser, &names, &role).await;
    let kept = others(&superuser, &changed).await;
    let removal = remove_all(&superuser, &names, &kept).await;
    assert_eq!(removal, roles::Removal { again_in: None, is_complete: true });
    assert_eq!(BusyGateway::sessions(&superuser, &role).await, ["0"]);
    assert_eq!(query(&superuser, &format!("SELECT 1 FROM pg_roles WHERE rolname = '{role}'")).await, [""; 0]);
    drop(busy);
}

/// Existing logins last for the grace; each request through the gateway is a new use of the role.
#[tokio::test]
async fn the_gateway_has_no_grace() {
    let _alone = CLIENTS.lock().await;
    let (names, _owner) = tenant("grace_db", &[]).await;
    let clients = [client("grace-a", json!({"mode": "ReadOnly"}))];
    keep(&names, &clients).await;
    let superuser = server().connect("postgres", "postgres").await;
    superuser.client.batch_execute("SET search_path = pg_catalog").await.expect("a session");
    let role = names.client("grace-a");
    let busy = BusyGateway::start(&superuser, &names, &role).await;
    let kept = others(&superuser, &clients).await;
    let grace = Rules { session_grace_seconds: 3600, ..Rules::default() };
    let removal = roles::remove(&superuser.client, server().socket(), &names, &kept, grace).await.expect("a removal");
    assert!(removal.again_in.is_some(), "{removal:?}");
    let deadline = Instant::now() + Duration::from_secs(30);
    while BusyGateway::sessions(&superuser, &role).await != ["0"] {
        assert!(Instant::now() < deadline, "the gateway still acts as the client");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(busy);
    removed(&names, &clients).await;
}

#[tokio::test]
async fn a_client_that_cannot_be_admitted_keeps_no_other_back() {
    let _alone = CLIENTS.lock().await;
    let (names, _owner) = tenant("apart_db", &[]).await;
    let one = |name: &str| client(name, json!({"mode": "ReadOnly"}));
    keep(&names, &[one("apart-a"), one("apart-b")]).await;
    let superuser = server().connect("postgres", "postgres").await;
    let login = names.client_login("apart-a", 1);
    let prepare = format!("SET search_path = pg_catalog; SET lock_timeout = '300ms'; CREATE ROLE {login} LOGIN");
    superuser.client.batch_execute(&prepare).await.expect("a login");
    // Another session changes this login, and does not end.
    let other = server().connect("postgres", "postgres").await;
    let change = format!("BEGIN; ALTER ROLE {login} CONNECTION LIMIT 5");
    other.client.batch_execute(&change).await.expect("a change");

    let changed = Client { service_account: "another".to_owned(), ..one("apart-a") };
    let now = [changed, one("apart-b"), one("apart-c")];
    let admission = roles::admit(&superuser.client, &names, &now).await.expect("the others");
    assert_eq!(admission.kept_out.keys().map(String::as_str).collect::<Vec<_>>(), ["apart-a"]);
    assert!(!admission.is_complete);
    let accounts = "SELECT client, account FROM servicedb.clients WHERE starts_with(client, 'apart-') ORDER BY client";
    assert_eq!(query(&superuser, accounts).await, ["apart-a apart-a", "apart-b apart-b", "apart-c apart-c"]);

    other.client.batch_execute("ROLLBACK").await.expect("its end");
    let admission = admit_all(&superuser, &names, &now).await;
    assert!(admission.kept_out.is_empty() && admission.is_complete, "{admission:?}");
    assert_eq!(query(&superuser, accounts).await, ["apart-a another", "apart-b apart-b", "apart-c apart-c"]);
    removed(&names, &now).await;
}

/// The clients of other databases of this server, as if they were declared here: they are not removed.
async fn others(superuser: &Session, removed: &[Client]) -> Vec<Client> {
    let known = query(superuser, "SELECT client FROM servicedb.clients").await;
    known
        .iter()
        .filter(|name| removed.iter().all(|client| client.name != **name))
        .map(|name| client(name, json!({"mode": "ReadOnly"})))
        .collect()
}

/// Nothing is left of removed clients.
async fn removed(names: &PostgresNames, clients: &[Client]) {
    let own = server().connect("postgres", "postgres").await;
    own.client.batch_execute("SET search_path = pg_catalog").await.expect("a session");
    let session = session(names, &clients[0].name).await;
    let kept = others(&own, clients).await;
    drop(session);
    let removal = remove_all(&own, names, &kept).await;
    assert_eq!(removal, roles::Removal { again_in: None, is_complete: true });
    let left = format!("SELECT rolname FROM pg_roles WHERE starts_with(rolname, '{}')", names.client_prefix());
    assert_eq!(query(&own, &left).await, [""; 0]);
    rights::keep(&own.client, server().socket(), names, &[], Rules::default(), &mut Default::default())
        .await
        .expect("tidied");
    let tenant = server().connect(&names.database, "postgres").await;
    let policies = "SELECT polname FROM pg_policy WHERE starts_with(polname, 'servicedb_')";
    assert_eq!(query(&tenant, policies).await, [""; 0]);
}
