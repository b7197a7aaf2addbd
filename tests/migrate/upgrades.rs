//! The restore of a tenant's schema by the superuser, as `pg_upgrade` does it, on a real server: a tenant's functions run
//! meanwhile, and as nobody above the tenant. And the statistics that follow.

use std::process::{Command, Stdio};

use servicedb::agent::upgrade::functions::{DISARM, FINGERPRINT, RESTORE};
use servicedb::agent::upgrade::statistics;
use servicedb::api::names::{Names, PostgresNames};

use crate::hostile::{TRAPS, none_was_a_superuser, server, sprung, tenant};
use crate::query;
use crate::server::Session;

/// Places in which PostgreSQL evaluates a function while it restores a schema.
const RESTORED: &str = "
    CREATE TABLE traps.keyed (a int) PARTITION BY RANGE ((a + traps.log('partition key')::int));
    CREATE TABLE traps.keyed_part PARTITION OF traps.keyed FOR VALUES FROM (1) TO (9);
    CREATE TABLE traps.parent (a int) PARTITION BY RANGE (a);
    CREATE TABLE traps.checked (a int CHECK (a > 0 AND traps.log('check of a partition')));
    ALTER TABLE traps.parent ATTACH PARTITION traps.checked FOR VALUES FROM (1) TO (9);
    CREATE FUNCTION traps.grab() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        EXECUTE 'CREATE TABLE traps.grabbed ()';
        RETURN true;
    EXCEPTION WHEN OTHERS THEN RETURN true;
    END $$;
    CREATE FUNCTION traps.sly() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN traps.grab(); END $$;
    CREATE TABLE traps.generated (a int, b boolean GENERATED ALWAYS AS (a > 0 AND traps.sly()) STORED);
    DROP TABLE IF EXISTS traps.grabbed;
    CREATE FUNCTION traps.definer() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = traps SET work_mem = '8MB'
        AS 'SELECT 1';
    CREATE PROCEDURE traps.procedure() LANGUAGE plpgsql AS 'BEGIN END';
    CREATE AGGREGATE traps.aggregate (int) (sfunc = int4pl, stype = int);";

/// Restores the schema of a database in another one, as the superuser.
async fn restore(from: &str, to: &str) -> PostgresNames {
    let admin = server().connect("postgres", "postgres").await;
    admin.client.batch_execute(&format!("CREATE DATABASE {to} TEMPLATE template0")).await.expect("a database");
    let psql = server().psql(from);
    let program = std::path::Path::new(psql.get_program()).with_file_name("pg_dump");
    let [host, port] = ["-h", "-p"].map(|flag| {
        let mut arguments = psql.get_args().skip_while(|argument| *argument != flag);
        arguments.nth(1).expect("the server's address").to_owned()
    });
    let dump = Command::new(program)
        .args(["--schema-only", "-U", "postgres", "-d", from, "-h"])
        .arg(host)
        .arg("-p")
        .arg(port)
        .output()
        .expect("pg_dump");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let mut psql = server().psql(to);
    psql.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = psql.spawn().expect("psql");
    std::io::Write::write_all(&mut child.stdin.take().expect("its input"), &dump.stdout).expect("the dump");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Names::new("games", to.replace('_', "-")).postgres(to)
}

async fn functions(session: &Session) -> Vec<String> {
    let sql = "SELECT proname, prosecdef, provolatile, proconfig FROM pg_catalog.pg_proc
               WHERE pronamespace = 'traps'::pg_catalog.regnamespace ORDER BY oid::regprocedure::text";
    query(session, sql).await
}

async fn superuser(database: &str) -> Session {
    let session = server().connect(database, "postgres").await;
    let settings = "SET allow_system_table_mods = on; SET search_path = pg_catalog; SET role = none";
    session.client.batch_execute(settings).await.expect("settings");
    session
}

#[tokio::test]
async fn no_function_of_a_tenant_runs_as_the_superuser_who_restores_its_schema() {
    let (names, owner) = tenant("dumped_db", &[]).await;
    owner.client.batch_execute(TRAPS).await.expect("the traps");
    owner.client.batch_execute(RESTORED).await.expect("more traps");
    // What a function was is in a setting that only the superuser can attach to one.
    let forged = "ALTER FUNCTION traps.definer() SET \"servicedb.upgrade\" = 'iv'";
    let refused = owner.client.batch_execute(forged).await.expect_err("a mark of a tenant's");
    assert_eq!(refused.code().map(|code| code.code()), Some("42501"));
    drop(owner);
    let as_superuser = |names: &PostgresNames| {
        let lines = sprung(names);
        lines.into_iter().filter(|line| line.contains("ran as postgres ")).collect::<Vec<_>>()
    };
    // As it would be otherwise.
    let careless = restore(&names.database, "careless_db").await;
    assert!(!as_superuser(&careless).is_empty(), "the traps do not work");
    let grabbed = "SELECT pg_catalog.to_regclass('traps.grabbed') IS NOT NULL";
    assert_eq!(query(&superuser("careless_db").await, grabbed).await, ["t"]);

    let copy = superuser(&names.database).await;
    let (before, print) = (functions(&copy).await, query(&copy, FINGERPRINT).await);
    copy.client.batch_execute(DISARM).await.expect("disarmed");
    let restored = restore(&names.database, "disarmed_db").await;
    let upgraded = superuser("disarmed_db").await;
    assert_eq!(as_superuser(&restored), [""; 0]);
    let ran = sprung(&restored);
    for place in ["generated column", "partition key", "check of a partition"] {
        let mark = format!("trap \"{place}\" ran as dumped_db_owner in a session of postgres");
        assert!(ran.iter().any(|line| line.contains(&mark)), "{place}: {ran:?}");
    }
    assert_eq!(query(&upgraded, grabbed).await, ["f"], "a function that may only read has made a table");
    assert_ne!(query(&upgraded, FINGERPRINT).await, print);
    upgraded.client.batch_execute(RESTORE).await.expect("restored");
    assert_eq!(functions(&upgraded).await, before);
    let left = "SELECT count(*) FROM pg_catalog.pg_proc WHERE proconfig::text LIKE '%servicedb.upgrade%'";
    assert_eq!(query(&upgraded, left).await, ["0"]);
    assert_eq!(query(&upgraded, FINGERPRINT).await, print);
}

#[tokio::test]
async fn statistics_on_expressions_are_collected_by_no_superuser() {
    let (names, owner) = tenant("counted_db", &[]).await;
    owner.client.batch_execute(TRAPS).await.expect("the traps");
    let made = "CREATE TABLE public.seen (a int, b int);
                INSERT INTO public.seen SELECT n, n FROM generate_series(1, 100) n;
                CREATE INDEX seen_expression ON public.seen ((a + traps.log('analyzed')::int));
                CREATE STATISTICS public.seen_both ON a, b FROM public.seen;
                CREATE TABLE public.plain (a int); INSERT INTO public.plain VALUES (1)";
    owner.client.batch_execute(made).await.expect("tables");
    let before = sprung(&names).len();
    assert!(statistics::attempt(server().socket(), &names.database).await.expect("statistics") > 0);
    let sprung = sprung(&names).split_off(before);
    none_was_a_superuser(&sprung);
    assert!(sprung.iter().any(|line| line.contains("trap \"analyzed\"")), "{sprung:?}");
    let collected = "SELECT (SELECT count(*) FROM pg_catalog.pg_statistic_ext_data),
        (SELECT count(*) FROM pg_catalog.pg_statistic WHERE starelid = 'public.seen_expression'::regclass),
        (SELECT count(*) FROM pg_catalog.pg_statistic WHERE starelid = 'public.plain'::regclass)";
    let counts = query(&superuser(&names.database).await, collected).await;
    assert!(counts[0].ends_with(" 1 0") && !counts[0].starts_with('0'), "{counts:?}");
}
