//! A tenant's code never runs as a superuser, wherever it is created: the operations of the agent,
//! the Job and the plugin in a tenant's database are run here against a test server.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use servicedb::agent::extensions::{Places, jobs, places};
use servicedb::agent::{ensure, ledger};
use servicedb::api::names::{Names, PostgresNames};
use servicedb::contract::extension::{Extension, Options};
use servicedb::contract::migration::LEDGER_DDL;
use servicedb::migrate::drift::catalog;
use servicedb::plugin::LEDGER_SCRIPT;

use crate::server::{Server, Session};
use crate::{query, set};

pub const TRAPS: &str = include_str!("traps.sql");

/// The server of these tests, found by its socket as the agent finds its own.
pub fn server() -> &'static Server {
    Server::on_socket()
}

fn names(database: &str) -> PostgresNames {
    Names::new("games", database.replace('_', "-")).postgres(database)
}

/// The logins of the socket are the server's: one promotion at a time changes them.
static ROLES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The agent's steps at a promotion; returns the problems of extensions.
pub async fn promote(names: &PostgresNames, extensions: &[&str]) -> Vec<String> {
    let extensions: Vec<_> = extensions.iter().map(|name| Extension::named(name)).collect();
    promote_with(names, &extensions).await
}

/// The same with options.
async fn promote_with(names: &PostgresNames, extensions: &[Extension]) -> Vec<String> {
    let _alone = ROLES.lock().await;
    let unmet = ensure::everything(server().socket(), names, extensions, &Places::new(), false).await;
    unmet.expect("roles and rights").problems
}

/// A database as the agent creates it, and a session of its owner.
pub async fn tenant(database: &str, extensions: &[&str]) -> (PostgresNames, Session) {
    static USED: std::sync::Mutex<std::collections::BTreeSet<String>> =
        std::sync::Mutex::new(std::collections::BTreeSet::new());
    assert!(USED.lock().expect("the names").insert(database.to_owned()), "another test has a database {database}");
    let names = names(database);
    assert_eq!(promote(&names, extensions).await, [""; 0]);
    let owner = owner(&names).await;
    owner.client.batch_execute(LEDGER_DDL).await.expect("a ledger");
    owner.client.batch_execute(ROWS).await.expect("rows of the ledger");
    (names, owner)
}

const ROWS: &str = "INSERT INTO servicedb.migrations (version, name, status, checksum, duration_ms)
                    VALUES (1, 'first', 'completed', 'c', 1), (2, 'second', 'pending', 'c', NULL);
                    INSERT INTO servicedb.revision (revision) VALUES ('r');";

pub async fn owner(names: &PostgresNames) -> Session {
    let session = server().connect(&names.database, PostgresNames::AS_OWNER).await;
    let statements = format!("SET ROLE {}; SET search_path = public", names.owner());
    session.client.batch_execute(&statements).await.expect("the owner's role");
    session
}

/// The log lines of the traps of a database.
pub fn sprung(names: &PostgresNames) -> Vec<String> {
    let marks = [format!("@{} ", names.database), "trap \"".to_owned()];
    server().log().lines().filter(|line| marks.iter().all(|mark| line.contains(mark))).map(str::to_owned).collect()
}

pub fn none_was_a_superuser(sprung: &[String]) {
    for line in sprung {
        assert!(line.ends_with("superuser: f"), "a tenant's code ran as a superuser: {line}");
    }
}

/// The plugin's statement in the primary's pod, with its login.
fn plugin(names: &PostgresNames) -> String {
    let mut psql = server().psql(&names.database);
    psql.args(["-U", PostgresNames::READER, "-A", "-t", "-f", "-"])
        .env("PGOPTIONS", "-c role=none -c search_path=pg_catalog");
    psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = psql.spawn().expect("psql");
    child.stdin.take().expect("its input").write_all(LEDGER_SCRIPT.as_bytes()).expect("the script");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn what_a_tenant_plants_on_the_ledger_never_runs_as_a_superuser() {
    let (names, owner) = tenant("planted_db", &["hstore", "dblink"]).await;
    owner.client.batch_execute(TRAPS).await.expect("the traps");
    for refused in [
        "CREATE FUNCTION traps.event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER trap ON ddl_command_start EXECUTE FUNCTION traps.event()",
        "CREATE FOREIGN DATA WRAPPER trap",
        "CREATE OPERATOR CLASS traps.trap DEFAULT FOR TYPE traps.pair USING btree AS OPERATOR 1 =",
        "CREATE TABLE servicedb_extensions.trap (id int)",
        "ALTER SCHEMA servicedb_extensions OWNER TO CURRENT_USER",
        "CREATE TABLE pg_catalog.trap (id int)",
    ] {
        let error = owner.client.batch_execute(refused).await.expect_err(refused);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{refused}: {error:?}");
    }
    // Of the one that connects, another role or path than it thinks.
    let settings = format!("ALTER DATABASE {} SET role = '{}'", names.database, names.owner());
    owner.client.batch_execute(&settings).await.expect("a setting");
    let before = sprung(&names).len();

    // Promotions, also with extensions that are new; the ledger, the plugin, drift, a migration.
    assert_eq!(promote(&names, &["hstore", "dblink", "pg_trgm", "earthdistance", "cube"]).await, [""; 0]);
    let read = ledger::look(server().socket(), &names.database).await.expect("the ledger");
    assert_eq!(
        (read.applied, read.pending, read.schema_version().as_deref(), read.revision.as_deref()),
        (1, 1, Some("1"), Some("r"))
    );
    assert_eq!(read.recent.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["second", "first"]);
    let rows: serde_json::Value = serde_json::from_str(&plugin(&names)).expect("rows");
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    catalog(&owner.client).await.expect("the catalog");
    assert_eq!(places(&owner.client).await.expect("their places")["dblink"], "servicedb_extensions");
    let migrator = self::owner(&names).await;
    migrator.client.batch_execute("RESET ROLE").await.expect("the login alone");
    let migrations = set(&[("1_first", "SELECT 1"), ("2_second", "CREATE TABLE notes (id int)")]);
    let (mut done, policy, limits) = Default::default();
    let (owner_role, stop) = (names.owner(), servicedb::migrate::stop().1);
    let run = servicedb::migrate::Run { owner: &owner_role, set: &migrations, revision: "r", policy: &policy };
    // The first has another checksum; the ledger was read for that.
    let refused = servicedb::migrate::migrate(&migrator.client, run, &limits, &stop, &mut done).await;
    assert!(refused.is_err());
    assert_eq!(promote(&names, &["hstore"]).await, [""; 0]);

    let sprung = sprung(&names).split_off(before);
    none_was_a_superuser(&sprung);
    for place in ["index expression", "index predicate", "policy", "index expression of revision"] {
        let mark = format!("trap \"{place}\" ran as servicedb_reader in a session of servicedb_reader");
        assert!(sprung.iter().any(|line| line.contains(&mark)), "{place}: {sprung:?}");
    }
    // And what it would be otherwise.
    let superuser = server().connect(&names.database, "postgres").await;
    let careless = "SET role = none; SET search_path = pg_catalog; SELECT count(*) FROM ONLY servicedb.migrations";
    superuser.client.batch_execute(careless).await.expect("the ledger");
    assert!(self::sprung(&names).iter().any(|line| line.ends_with("superuser: t")), "the traps do not work");
}

#[tokio::test]
async fn a_ledger_that_is_something_else_is_read_as_far_as_it_can_be() {
    let (names, owner) = tenant("replaced_db", &[]).await;
    owner.client.batch_execute(TRAPS).await.expect("the traps");
    let replaced = "
        DROP TABLE servicedb.migrations, servicedb.revision CASCADE;
        CREATE VIEW servicedb.migrations AS
            SELECT 7 AS version, ROW('a')::traps.pair AS name, 'completed'::traps.word AS status, now() AS started_at,
                   1 AS duration_ms, repeat('e', 100000) AS error, NULL AS down_sql
            WHERE traps.log('the view in its place');
        CREATE TABLE servicedb.revision (revision text) PARTITION BY LIST ((revision || traps.log('partition key')::text));
        CREATE TABLE servicedb.part PARTITION OF servicedb.revision DEFAULT;
        INSERT INTO servicedb.revision VALUES ('r');";
    owner.client.batch_execute(replaced).await.expect("something else");
    let before = sprung(&names).len();
    assert_eq!(promote(&names, &[]).await, [""; 0]);
    let read = ledger::look(server().socket(), &names.database).await.expect("the ledger");
    assert_eq!((read.schema_version().as_deref(), read.recent[0].name.as_str()), (Some("7"), "a"));
    assert_eq!(read.recent[0].error.as_ref().map(String::len), Some(500));
    assert!(plugin(&names).contains("\"version\":\"7\""));
    let sprung = sprung(&names).split_off(before);
    none_was_a_superuser(&sprung);
    for place in ["the view in its place", "cast"] {
        assert!(sprung.iter().any(|line| line.contains(place)), "{place}: {sprung:?}");
    }

    // What is none at all, and what the reader may not see, is an error and no more.
    for (statement, code) in [
        ("DROP VIEW servicedb.migrations; CREATE TABLE servicedb.migrations (version text)", "42703"),
        ("ALTER SCHEMA servicedb RENAME TO hidden", ""),
        ("CREATE SCHEMA servicedb; CREATE TABLE servicedb.migrations (id int)", "42501"),
    ] {
        owner.client.batch_execute(statement).await.expect(statement);
        let read = ledger::look(server().socket(), &names.database).await;
        match read {
            Ok(ledger) => assert_eq!((code, ledger.applied), ("", 0), "{statement}"),
            Err(error) => assert!(!code.is_empty() && error.to_string().contains(code), "{statement}: {error}"),
        }
    }
    // The right to read is granted again, and the other steps are done without `public`.
    owner.client.batch_execute("DROP SCHEMA public CASCADE").await.expect("public dropped");
    assert_eq!(promote(&names, &[]).await, [""; 0]);
    let error = ledger::look(server().socket(), &names.database).await.expect_err("no ledger");
    assert!(error.to_string().contains("42703"), "{error}");
}

#[tokio::test]
async fn a_ledger_without_an_end_takes_neither_time_nor_memory() {
    let (names, owner) = tenant("endless_db", &[]).await;
    let look = async |body: &str| {
        let trap = format!(
            "CREATE SCHEMA IF NOT EXISTS traps;
             CREATE OR REPLACE FUNCTION traps.endless() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
             CREATE OR REPLACE VIEW traps.ledger AS SELECT m.* FROM traps.migrations m WHERE traps.endless();"
        );
        owner.client.batch_execute(&trap).await.expect(body);
        let started = Instant::now();
        let result = ledger::look(server().socket(), &names.database).await;
        assert!(started.elapsed() < Duration::from_secs(30), "{body}: {:?}", started.elapsed());
        result.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let moved = "CREATE SCHEMA traps; ALTER TABLE servicedb.migrations SET SCHEMA traps";
    owner.client.batch_execute(moved).await.expect("moved");
    assert_eq!(look("RETURN true;").await, "");
    let replaced = "CREATE VIEW servicedb.migrations AS TABLE traps.ledger";
    owner.client.batch_execute(replaced).await.expect("a view in its place");
    let stubborn = "PERFORM pg_catalog.set_config('statement_timeout', '0', false);
        LOOP BEGIN PERFORM pg_catalog.pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;";
    assert!(look(stubborn).await.contains("longer than"));
    let flood = "PERFORM pg_catalog.set_config('client_min_messages', 'notice', false);
        FOR i IN 1..100 LOOP RAISE NOTICE '%', pg_catalog.repeat('n', 100000); END LOOP; RETURN true;";
    assert!(!look(flood).await.is_empty());
    // No session of it remains.
    let admin = server().connect("postgres", "postgres").await;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'endless_db' AND usename = 'servicedb_reader'";
    let deadline = Instant::now() + Duration::from_secs(10);
    while query(&admin, running).await != ["0"] {
        assert!(Instant::now() < deadline, "a session of the reader goes on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_a_reader_or_an_owners_login_is_given_is_taken_back() {
    let (names, owner) = tenant("given_db", &[]).await;
    let reader = server().connect(&names.database, PostgresNames::READER).await;
    for refused in [
        "CREATE TABLE public.trap (id int)",
        "CREATE TABLE servicedb.trap (id int)",
        "CREATE TEMPORARY TABLE trap (id int)",
        "UPDATE servicedb.migrations SET status = 'failed'",
        "SET ROLE given_db_owner",
        "SELECT * FROM pg_authid",
        "ALTER ROLE servicedb_reader CONNECTION LIMIT -1",
    ] {
        let error = reader.client.batch_execute(refused).await.expect_err(refused);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{refused}: {error:?}");
    }
    let alone = ROLES.lock().await;
    let settings = "ALTER ROLE servicedb_reader PASSWORD 'known'; ALTER ROLE servicedb_reader SET lock_timeout = 1;
                    ALTER ROLE servicedb_reader IN DATABASE given_db SET statement_timeout = 1";
    reader.client.batch_execute(settings).await.expect("a role may set its own");
    let settings = "RESET ROLE; ALTER ROLE servicedb_local PASSWORD 'known'; ALTER ROLE servicedb_local SET role = 'given_db_owner'";
    owner.client.batch_execute(settings).await.expect("a role may set its own");
    drop(alone);
    let refused = owner.client.batch_execute("SET ROLE postgres").await.expect_err("SET ROLE postgres");
    assert_eq!(refused.code().map(|code| code.code()), Some("42501"));
    assert_eq!(promote(&names, &[]).await, [""; 0]);
    let admin = server().connect("postgres", "postgres").await;
    let left = "SELECT rolname FROM pg_authid WHERE rolname LIKE 'servicedb%' AND (rolpassword IS NOT NULL OR rolsuper)
                UNION ALL SELECT r.rolname FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
                WHERE r.rolname LIKE 'servicedb%'
                      AND s.setconfig NOT IN ('{pgaudit.log=none}', '{temp_file_limit=256MB}')";
    assert_eq!(query(&admin, left).await, [""; 0]);
}

#[tokio::test]
async fn extensions_go_where_their_scripts_meet_nothing_of_a_tenants() {
    let extensions = ["hstore", "earthdistance", "cube", "dblink", "no_such_thing"];
    let names = names("extended_db");
    let problems = promote(&names, &extensions).await;
    assert!(problems.len() == 1 && problems[0].contains("no_such_thing"), "{problems:?}");
    let admin = server().connect(&names.database, "postgres").await;
    let where_they_are = "SELECT e.extname, n.nspname, pg_get_userbyid(e.extowner) FROM pg_extension e
                          JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname <> 'plpgsql' ORDER BY 1";
    assert_eq!(
        query(&admin, where_they_are).await,
        [
            "cube servicedb_extensions postgres",
            "dblink servicedb_extensions postgres",
            "earthdistance servicedb_extensions postgres",
            "hstore public extended_db_owner",
        ]
    );
    // Found by its name, by a migration, too.
    let owner = owner(&names).await;
    let used = "SET search_path = public, servicedb_extensions; SELECT earth(), 'a=>1'::hstore";
    owner.client.batch_execute(used).await.expect("extensions in use");

    // A database of an earlier version: they stay where they are, and what would be made with a
    // tenant's schema in its path is refused.
    let old = self::names("old_db");
    let (owner_role, app) = (old.owner(), old.app());
    let cluster = server().connect("postgres", "postgres").await;
    for statement in [
        format!("CREATE ROLE {owner_role} NOLOGIN"),
        format!("CREATE ROLE {app} NOLOGIN"),
        format!("CREATE DATABASE old_db OWNER {owner_role} TEMPLATE template0"),
    ] {
        cluster.client.batch_execute(&statement).await.expect(&statement);
    }
    let made = server().connect("old_db", "postgres").await;
    let before = format!(
        "CREATE SCHEMA servicedb AUTHORIZATION {owner_role}; CREATE EXTENSION dblink; CREATE EXTENSION cube;
         SET ROLE {owner_role}; {LEDGER_DDL}; {ROWS}; CREATE SCHEMA servicedb_extensions"
    );
    made.client.batch_execute(&before).await.expect("an old database");
    let problems = promote(&old, &["dblink", "cube", "earthdistance", "pgstattuple"]).await;
    assert_eq!(ledger::look(server().socket(), "old_db").await.expect("the ledger").applied, 1);
    assert!(
        problems.iter().any(|problem| problem.contains("earthdistance") && problem.contains("cube")),
        "{problems:?}"
    );
    assert!(
        problems.iter().any(|problem| problem.contains("pgstattuple") && problem.contains("RENAME")),
        "{problems:?}"
    );
    assert_eq!(problems.len(), 2, "{problems:?}");
    made.client.batch_execute("ALTER SCHEMA servicedb_extensions RENAME TO mine; RESET ROLE").await.expect("renamed");
    assert_eq!(promote(&old, &["dblink", "cube", "pgstattuple"]).await, [""; 0]);
    let made = query(&made, where_they_are).await;
    assert_eq!(made, ["cube public postgres", "dblink public postgres", "pgstattuple servicedb_extensions postgres"]);
}

#[tokio::test]
async fn declared_schemas_and_versions_are_kept_and_open_no_schema_to_a_superusers_script() {
    let with = |name: &str, version: Option<&str>, schema: Option<&str>| Extension {
        name: name.to_owned(),
        options: Options { version: version.map(str::to_owned), schema: schema.map(str::to_owned) },
    };
    let names = names("optioned_db");
    // The server's contrib modules have these versions in each of its major versions.
    let first = [with("hstore", Some("1.4"), Some("tools")), with("dblink", None, Some("links"))];
    assert_eq!(promote_with(&names, &first).await, [""; 0]);
    let owner = owner(&names).await;
    let where_they_are = "SELECT e.extname, e.extversion, n.nspname, pg_get_userbyid(n.nspowner) FROM pg_extension e
                          JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = ANY ('{hstore,dblink}') ORDER BY 1";
    assert_eq!(
        query(&owner, where_they_are).await,
        ["dblink 1.2 links postgres", "hstore 1.4 tools optioned_db_owner"]
    );
    let refused = owner.client.batch_execute("CREATE TABLE links.trap (id int)").await.expect_err("a guarded schema");
    assert_eq!(refused.code().map(|code| code.code()), Some("42501"));

    // A later version and another schema; the extension of the superuser stays out of the tenant's.
    let next = [with("hstore", Some("1.5"), Some("moved")), with("dblink", None, Some("tools"))];
    let problems = promote_with(&names, &next).await;
    assert!(problems.len() == 1 && problems[0].contains("dblink") && problems[0].contains("tools"), "{problems:?}");
    assert_eq!(
        query(&owner, where_they_are).await,
        ["dblink 1.2 links postgres", "hstore 1.5 moved optioned_db_owner"]
    );

    // Never back, and the versions of the image in the message.
    let problems = promote_with(&names, &[with("hstore", Some("1.4"), None), with("cube", Some("9"), None)]).await;
    assert!(problems.iter().any(|problem| problem.contains("hstore") && problem.contains("never")), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.contains("cube") && problem.contains("1.5")), "{problems:?}");
    assert_eq!(problems.len(), 2, "{problems:?}");
}

/// PostGIS's scripts append a schema to the path of the database, which they execute as a part of a statement.
#[tokio::test]
async fn an_extension_leaves_the_search_path_of_the_database_as_it_is() {
    let names = names("pathed_db");
    assert_eq!(promote(&names, &[]).await, [""; 0]);
    let owner = owner(&names).await;
    // PostgreSQL takes it for the name of one schema.
    let path = "x;ALTER/**/ROLE/**/pathed_db_owner/**/SUPERUSER;--";
    let set = format!(
        "SELECT set_config('search_path', '{path}', false); ALTER DATABASE pathed_db SET search_path FROM CURRENT"
    );
    owner.client.batch_execute(&set).await.expect("the owner's setting");
    let admin = server().connect("postgres", "postgres").await;
    let settings = "SELECT array_to_string(s.setconfig, ' ') FROM pg_db_role_setting s
                    JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = 'pathed_db' AND s.setrole = 0";
    assert_eq!(promote(&names, &["dblink", "hstore"]).await, [""; 0]);
    assert_eq!(query(&admin, settings).await, [format!("search_path={path}")]);
    owner.client.batch_execute("ALTER DATABASE pathed_db RESET search_path").await.expect("no setting");
    assert_eq!(promote(&names, &["dblink", "hstore", "pgstattuple"]).await, [""; 0]);
    assert_eq!(query(&admin, settings).await, [""; 0], "none of the agent's stays");
}

/// A table as pg_cron's, with triggers whose library is not loaded.
const JOBS: &str = "
    CREATE SCHEMA cron;
    CREATE TABLE cron.job (jobid bigint PRIMARY KEY, database text NOT NULL, username text NOT NULL,
                           active boolean NOT NULL DEFAULT true, jobname text, UNIQUE (jobname, username));
    INSERT INTO cron.job (jobid, database, username, jobname) VALUES
        (1, 'source_db', 'source_db_owner', 'tick'), (2, 'source_db', 'source_db_app', 'tick'),
        (3, 'source_db', 'copied_db_owner', 'tick'), (4, 'postgres', 'postgres', 'tick');
    CREATE FUNCTION cron.job_cache_invalidate() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'pg_cron is not loaded'; END $$;
    CREATE TRIGGER cron_job_cache_invalidate AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON cron.job
        FOR STATEMENT EXECUTE FUNCTION cron.job_cache_invalidate();";

#[tokio::test]
async fn the_jobs_of_a_copied_database_rest_under_its_names() {
    let (copied, _owner) = tenant("copied_db", &[]).await;
    let superuser = server().connect(&copied.database, "postgres").await;
    superuser.client.batch_execute(JOBS).await.expect("jobs");
    let listed = "SELECT jobid, database, username, active FROM cron.job ORDER BY 1";
    let rested = ["1 copied_db copied_db_owner f", "4 postgres postgres f"];
    superuser.client.batch_execute(&jobs::resting(&names("source_db"), &copied)).await.expect("they rest");
    assert_eq!(query(&superuser, listed).await, rested, "one of the former owner, none of a role that does not exist");

    // A copy may have the names of its source, in another namespace.
    let active = "SET session_replication_role = replica; UPDATE cron.job SET active = true";
    superuser.client.batch_execute(active).await.expect("active jobs");
    superuser.client.batch_execute(&jobs::resting(&copied, &copied)).await.expect("they rest");
    assert_eq!(query(&superuser, listed).await, rested);

    // Without the extension a schema of this name is the tenant's.
    superuser.client.batch_execute(active).await.expect("active jobs");
    jobs::rest(&superuser.client, &names("source_db"), &copied).await.expect("nothing to rest");
    let running = "SELECT count(*) FROM cron.job WHERE active";
    assert_eq!(query(&superuser, running).await, ["2"]);
}
