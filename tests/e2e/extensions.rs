//! Extensions with a version and a schema, and pg_cron: its library comes by a planned restart, its jobs run as the owner,
//! and nothing of the tenant's runs in its scheduler.

use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

use crate::harness::{READY, SOON, Sandbox, column, database, plugin, shared, until};

const STARTED: &str = "SELECT pg_postmaster_start_time()::text";
/// Where the extensions are, and whose their schemas are.
const PLACES: &str = "SELECT concat_ws(' ', e.extname, n.nspname, pg_get_userbyid(n.nspowner)) FROM pg_extension e \
                      JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = ANY ('{EXTENSIONS}') ORDER BY 1";

async fn declare(sandbox: &Sandbox, extensions: Value) {
    let patch = json!({"spec": {"postgres": {"extensions": extensions}}});
    sandbox.patch::<ServiceDatabase>("shop", &patch).await;
}

/// Statements as the owner, as a migration would run them; the output, or the error.
async fn as_owner(sandbox: &Sandbox, sql: &str) -> Result<String, String> {
    let output = plugin(sandbox, &["psql", "shop", "--", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql]).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Statements as the superuser.
async fn as_superuser(sandbox: &Sandbox, sql: &str) -> Result<String, String> {
    let output = sandbox.exec("shop-db-0", &format!("psql -XqAtd shop_db <<'END'\n{sql}\nEND")).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let error = text(&output.stderr);
    if output.status.success() && error.is_empty() { Ok(text(&output.stdout)) } else { Err(error) }
}

async fn started(sandbox: &Sandbox) -> String {
    column(&sandbox.connect("shop").await, STARTED).await.expect("a time").concat()
}

/// The declared versions and schemas. The image's versions are read from the message about one that it lacks.
async fn versions_and_schemas(sandbox: &Sandbox) -> String {
    let told = sandbox.condition("shop", "Stalled", "True", "InvalidSpec", READY).await;
    let versions = told.message.split_once("does not have its version 0.1.9, but ").expect("the image's versions").1;
    let is_of_version = |c: char| c.is_ascii_digit() || c == '.';
    let vector: String = versions.chars().take_while(|c| is_of_version(*c)).collect();
    let vector = vector.trim_end_matches('.');
    let partman = json!({"name": "pg_partman", "schema": "partman"});
    let with = |hstore: &str| {
        json!([{"name": "vector", "version": vector, "schema": "vectors"}, partman.clone(),
               {"name": "hstore", "version": hstore}])
    };
    declare(sandbox, with("1.5")).await;
    until("the later version is there", SOON, || async {
        let query = "SELECT extversion FROM pg_extension WHERE extname = 'hstore'";
        match as_owner(sandbox, query).await?.as_str() {
            "1.5" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    sandbox.ready("shop", SOON).await;
    let places = as_owner(sandbox, &PLACES.replace("EXTENSIONS", "vector,pg_partman")).await.expect("the extensions");
    assert_eq!(places, "pg_partman partman shop_db_owner\nvector vectors postgres");
    let nearest = "CREATE TABLE places (at vectors.vector(2)); INSERT INTO places VALUES ('[1,2]'); \
                   SELECT at FROM places ORDER BY at OPERATOR(vectors.<->) '[1,1]'";
    assert_eq!(as_owner(sandbox, nearest).await.expect("a vector"), "[1,2]");
    let partitions = "CREATE TABLE events (at timestamptz NOT NULL) PARTITION BY RANGE (at); \
                      SELECT partman.create_parent(p_parent_table := 'public.events', p_control := 'at', \
                                                   p_interval := '1 day'); \
                      SELECT count(*) > 2 FROM pg_inherits WHERE inhparent = 'events'::regclass";
    assert_eq!(as_owner(sandbox, partitions).await.expect("partitions"), "t\nt");

    // Back is an error of the spec, and the database keeps its version.
    declare(sandbox, with("1.4")).await;
    let told = sandbox.condition("shop", "Stalled", "True", "InvalidSpec", SOON).await;
    assert!(told.message.contains("hstore") && told.message.contains("never"), "{}", told.message);
    declare(sandbox, with("1.5")).await;
    sandbox.ready("shop", SOON).await;
    vector.to_owned()
}

/// The number of runs of the job, each by whom.
async fn ticks(sandbox: &Sandbox) -> Result<usize, String> {
    let by_whom = as_owner(sandbox, "SELECT count(*) || ' ' || min(who) || ' ' || max(who) FROM ticks").await?;
    match by_whom.split_once(' ') {
        Some((count, "shop_db_owner shop_db_owner")) => count.parse().map_err(|_| by_whom.clone()),
        _ => Err(by_whom),
    }
}

async fn ticks_go_on(sandbox: &Sandbox, what: &str) {
    let before = ticks(sandbox).await.unwrap_or_default();
    until(what, SOON, || async {
        let now = ticks(sandbox).await?;
        if now > before + 1 { Ok(()) } else { Err(format!("{now} runs")) }
    })
    .await;
}

/// A job of the owner runs, as the owner, with whom nobody can log in.
async fn jobs_of_the_owner(sandbox: &Sandbox) {
    let schedule = "CREATE TABLE ticks (who text DEFAULT session_user); \
                    SELECT cron.schedule('tick', '1 second', 'INSERT INTO public.ticks DEFAULT VALUES') > 0";
    assert_eq!(as_owner(sandbox, schedule).await.expect("a job"), "t");
    ticks_go_on(sandbox, "the owner's job runs").await;

    let refused = column(&sandbox.connect("shop").await, "SELECT cron.schedule('* * * * *', 'SELECT 1')").await;
    assert_eq!(refused.expect_err("the application schedules nothing").sqlstate.as_deref(), Some("42501"));
    let alter = as_owner(sandbox, "SELECT cron.alter_job(1, active := false)").await;
    assert!(alter.expect_err("a statement of the superuser").contains("permission denied"));
    let of_superuser = as_superuser(sandbox, "SELECT cron.schedule('* * * * *', 'SELECT 1');").await;
    assert!(of_superuser.expect_err("no superuser's job").contains("cannot schedule jobs as superuser"));

    let inserted = "INSERT INTO cron.job (schedule, command, nodeport, username) \
                    VALUES ('@hourly', 'SELECT 1', 5432, 'postgres');";
    let inserted = as_superuser(sandbox, inserted).await.expect_err("a row of the superuser's crashes pg_cron 1.6.5");
    assert!(inserted.contains("servicedb_no_superuser"), "{inserted}");
    let unlogged = "SELECT 'log_min_error_statement=panic' = ANY (setconfig) FROM pg_db_role_setting \
                    WHERE setrole = 'shop_db_owner'::regrole";
    assert_eq!(as_owner(sandbox, unlogged).await.as_deref(), Ok("t"), "the log has no text of a job");

    as_owner(sandbox, "ALTER ROLE shop_db_owner PASSWORD 'known'").await.expect("a role may set its own");
    let login =
        "PGPASSWORD=known psql -XAtc 'SELECT 1' 'host=127.0.0.1 user=shop_db_owner dbname=shop_db sslmode=require'";
    let output = sandbox.exec("shop-db-0", login).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("rejects"), "{error}");
}

/// The scheduler is a superuser's process: the search path of the database would give it the tenant's operators.
async fn nothing_of_the_tenants_runs_in_the_scheduler(sandbox: &Sandbox) {
    let trap = "CREATE SCHEMA trap; CREATE TABLE trap.log (who name, superuser bool); \
        CREATE FUNCTION trap.eq(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN \
            INSERT INTO trap.log SELECT rolname, rolsuper FROM pg_catalog.pg_roles \
            WHERE rolname OPERATOR(pg_catalog.=) current_user; \
            RETURN $1 OPERATOR(pg_catalog.=) $2; END $$; \
        CREATE OPERATOR trap.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.eq); \
        ALTER DATABASE shop_db SET search_path = trap, pg_catalog, public";
    as_owner(sandbox, trap).await.expect("a trap");
    let end =
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher';";
    assert_eq!(as_superuser(sandbox, end).await.as_deref(), Ok("1"));
    ticks_go_on(sandbox, "jobs run with another search path").await;
    let sprung = as_owner(sandbox, "SELECT count(*) FROM trap.log WHERE superuser").await;
    assert_eq!(sprung.as_deref(), Ok("0"), "the tenant's operator ran as the superuser");
    as_owner(sandbox, "SELECT 1::bigint OPERATOR(trap.=) 1::bigint").await.expect("the trap");
    assert_eq!(as_owner(sandbox, "SELECT count(*) > 0 FROM trap.log").await.as_deref(), Ok("t"), "the trap works");
    as_owner(sandbox, "ALTER DATABASE shop_db RESET search_path; DROP SCHEMA trap CASCADE").await.expect("removed");
}

#[test]
fn extensions_are_as_declared_and_jobs_run_as_their_owner() {
    shared("extensions", async |sandbox| {
        let extensions = json!([{"name": "vector", "version": "0.1.9", "schema": "vectors"},
                                {"name": "pg_partman", "schema": "partman"}, {"name": "hstore", "version": "1.4"}]);
        sandbox.create(database("shop", json!({"postgres": {"extensions": extensions}}))).await;
        let vector = versions_and_schemas(&sandbox).await;

        // The library is loaded by a restart, after which the extension is created.
        let before = started(&sandbox).await;
        let without = [
            json!({"name": "vector", "version": vector, "schema": "vectors"}),
            json!({"name": "pg_partman", "schema": "partman"}),
        ];
        declare(&sandbox, json!([without[0], without[1], {"name": "pg_cron"}])).await;
        until("pg_cron is there", READY, || async {
            match as_owner(&sandbox, "SELECT count(*) FROM pg_extension WHERE extname = 'pg_cron'").await?.as_str() {
                "1" => Ok(()),
                _ => Err("not yet".to_owned()),
            }
        })
        .await;
        sandbox.ready("shop", READY).await;
        assert_ne!(started(&sandbox).await, before, "PostgreSQL was restarted");
        jobs_of_the_owner(&sandbox).await;
        nothing_of_the_tenants_runs_in_the_scheduler(&sandbox).await;

        // Without the declaration the library goes, by a restart again; the extension stays, and its jobs rest.
        declare(&sandbox, json!(without)).await;
        until("the library is not loaded", READY, || async {
            let shown = as_superuser(&sandbox, "SHOW shared_preload_libraries").await?;
            if shown.contains("pg_cron") { Err(shown) } else { Ok(()) }
        })
        .await;
        sandbox.ready("shop", READY).await;
        let kept = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_cron'";
        assert_eq!(as_owner(&sandbox, kept).await.as_deref(), Ok("1"));
        assert_eq!(
            as_owner(&sandbox, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'shop_db_owner'").await.as_deref(),
            Ok("f")
        );
    });
}
