//! The metrics that the agent reads from a server, by a login that may read statistics and nothing else.

use std::time::{Duration, Instant};

use servicedb::agent::metrics::{Scraper, page_of};
use servicedb::api::names::PostgresNames;

use crate::exposition::Page;
use crate::hostile::{none_was_a_superuser, server, sprung, tenant};
use crate::{hostile, query};

/// What a server older than those of the image, or without its preloaded libraries, does not have.
const OF_THE_IMAGE: [&str; 1] = ["stat_statements"];

/// The collectors that failed.
fn failed(page: &Page) -> Vec<String> {
    let failed =
        page.samples.iter().filter(|((name, _), value)| name == "pg_scrape_collector_success" && **value != 1.0);
    let names = failed.filter_map(|((_, labels), _)| labels.get("collector").cloned());
    names.filter(|name| !OF_THE_IMAGE.contains(&name.as_str())).collect()
}

async fn read(scraper: &mut Scraper, database: &str) -> Page {
    Page::read(&page_of(scraper, database).await)
}

#[tokio::test]
async fn metrics_are_read_by_a_login_that_may_do_nothing_else() {
    let (names, owner) = tenant("metered_db", &[]).await;
    owner.client.batch_execute(hostile::TRAPS).await.expect("the traps");
    let named =
        "CREATE TABLE public.\"a\"\"}{\n\\=\" (id int PRIMARY KEY); INSERT INTO public.\"a\"\"}{\n\\=\" VALUES (1)";
    owner.client.batch_execute(named).await.expect("a table");
    let database = &names.database;
    let setting = format!("ALTER DATABASE {database} SET statement_timeout = 1");
    owner.client.batch_execute(&setting).await.expect("a setting");
    let before = sprung(&names).len();

    let mut scraper = Scraper::new(server().socket());
    let page = read(&mut scraper, database).await;
    assert_eq!(failed(&page), [""; 0]);
    assert_eq!(page.value("pg_up"), Some(1.0));
    assert!(page.labelled("pg_stat_user_tables_seq_scan", "relname", "a\"}{\n\\=").len() == 1, "its name is as it is");
    assert!(page.labelled("pg_stat_user_tables_table_size_bytes", "relname", "a\"}{\n\\=")[0] >= 8192.0);
    // The server's value, not that of the session that reads it.
    assert_eq!(page.value("pg_settings_statement_timeout_seconds"), Some(0.0));
    assert!(page.value("servicedb_connections_used").is_some_and(|used| used >= 2.0));
    assert_eq!(sprung(&names).split_off(before), [""; 0], "no code of a tenant runs for it");
    none_was_a_superuser(&sprung(&names));

    let session = server().connect(database, PostgresNames::MONITOR).await;
    session.client.batch_execute("SET statement_timeout = 0").await.expect("a setting");
    for refused in [
        "SELECT * FROM servicedb.migrations",
        "TABLE public.\"a\"\"}{\n\\=\"",
        "CREATE TABLE public.trap (id int)",
        "CREATE TEMPORARY TABLE trap (id int)",
        "SET ROLE metered_db_owner",
        "SELECT * FROM pg_authid",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
        "SELECT pg_reload_conf()",
    ] {
        let error = session.client.batch_execute(refused).await.expect_err(refused);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{refused}: {error:?}");
    }
    let admin = server().connect("postgres", "postgres").await;
    let member = "SELECT roleid::regrole FROM pg_auth_members WHERE member = 'servicedb_monitor'::regrole";
    assert_eq!(query(&admin, member).await, ["pg_monitor"]);
}

#[tokio::test]
async fn a_locked_table_keeps_no_metric_from_being_read() {
    let (names, owner) = tenant("locked_db", &[]).await;
    owner
        .client
        .batch_execute("CREATE TABLE held (id int PRIMARY KEY); CREATE TABLE free (id int)")
        .await
        .expect("tables");
    owner.client.batch_execute("BEGIN; LOCK TABLE held IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
    let waiting = hostile::owner(&names).await;
    let wait = tokio::spawn(async move { waiting.client.batch_execute("SELECT * FROM held").await });

    let mut scraper = Scraper::new(server().socket());
    let mut page = Page::default();
    let deadline = Instant::now() + Duration::from_secs(30);
    while page.value("servicedb_lock_waits").is_none_or(|waits| waits < 1.0) {
        assert!(Instant::now() < deadline, "nobody waits for the lock");
        let begin = Instant::now();
        page = read(&mut scraper, &names.database).await;
        assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    }
    assert_eq!(failed(&page), [""; 0]);
    assert_eq!(page.labelled("pg_stat_user_tables_seq_scan", "relname", "held").len(), 1);
    assert_eq!(page.labelled("pg_stat_user_tables_table_size_bytes", "relname", "held"), [0.0; 0], "nobody can tell");
    assert_eq!(page.labelled("pg_stat_user_tables_table_size_bytes", "relname", "free").len(), 1);
    owner.client.batch_execute("ROLLBACK").await.expect("the end");
    wait.await.expect("no panic").expect("the rows");

    // A session that the server ends is opened again.
    let admin = server().connect("postgres", "postgres").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'servicedb_monitor'
               AND application_name = 'servicedb monitoring'";
    query(&admin, end).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(failed(&read(&mut scraper, &names.database).await), [""; 0]);
}

#[tokio::test]
async fn a_tenant_cannot_make_the_page_as_large_as_it_likes() {
    let (names, owner) = tenant("many_db", &[]).await;
    let tables =
        "DO $$ BEGIN FOR i IN 1..330 LOOP EXECUTE pg_catalog.format('CREATE TABLE public.t%s ()', i); END LOOP; END $$";
    owner.client.batch_execute(tables).await.expect("tables");
    let page = read(&mut Scraper::new(server().socket()), &names.database).await;
    let counted = page.samples.keys().filter(|(name, _)| name == "pg_stat_user_tables_seq_scan").count();
    assert_eq!(counted, 300);
    // The ledger's are among them.
    assert_eq!(page.value("servicedb_tables"), Some(332.0));
}
