//! The metrics that the agent reads from a server, by a login that may read statistics and nothing else.

use std::time::{Duration, Instant};

use servicedb::agent::clients::count::Logins;
use servicedb::agent::metrics::{Scraper, page_of, queries};
use servicedb::api::names::PostgresNames;
use servicedb::contract::clients::Client;

use crate::exposition::Page;
use crate::hostile::{none_was_a_superuser, server, sprung, tenant};
use crate::rights::CLIENTS;
use crate::{hostile, query};

/// What a server older than those of the image, or without its preloaded libraries, does not have.
const OF_THE_IMAGE: [&str; 1] = ["stat_statements"];

/// The sessions of scrapers are the server's: one test at a time has them, since one ends them.
static SCRAPERS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The collectors that failed.
fn failed(page: &Page) -> Vec<String> {
    let failed =
        page.samples.iter().filter(|((name, _), value)| name == "pg_scrape_collector_success" && **value != 1.0);
    let names = failed.filter_map(|((_, labels), _)| labels.get("collector").cloned());
    names.filter(|name| !OF_THE_IMAGE.contains(&name.as_str())).collect()
}

async fn read(scraper: &mut Scraper, names: &PostgresNames) -> Page {
    read_with(scraper, names, &[]).await
}

async fn read_with(scraper: &mut Scraper, names: &PostgresNames, clients: &[Client]) -> Page {
    Page::read(&page_of(scraper, &names.database, &Logins::of(names, clients)).await)
}

#[tokio::test]
async fn metrics_are_read_by_a_login_that_may_do_nothing_else() {
    let _alone = SCRAPERS.lock().await;
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
    let page = read(&mut scraper, &names).await;
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
async fn sessions_are_counted_by_client_whichever_way_they_came() {
    // The gateway's login is the server's.
    let (_alone, _scrapes) = (CLIENTS.lock().await, SCRAPERS.lock().await);
    let (names, _owner) = tenant("sessions_db", &[]).await;
    let admin = server().connect("postgres", "postgres").await;
    let bot = serde_json::json!({"name": "mail-bot", "generation": 1, "access": {"mode": "ReadOnly"}});
    let bot: Client = serde_json::from_value(bot).expect("a client");
    let (a, b) = (names.client_login("mail-bot", 1), names.client_login("mail-bot", 2));
    let mut open = Vec::new();
    for (login, acts_as) in [
        (names.login(2).as_str(), ""),
        (&a, ""),
        (&b, ""),
        // A name of an application is the client's own choice.
        (&b, names.app().as_str()),
        (&b, "servicedb agent"),
        (PostgresNames::GATEWAY, &names.client("mail-bot")),
        (PostgresNames::GATEWAY, &names.app()),
        (PostgresNames::GATEWAY, "servicedb-gateway"),
        (PostgresNames::GATEWAY, "'; DROP ROLE postgres"),
    ] {
        let create = format!(
            "DO $$ BEGIN CREATE ROLE {login} LOGIN; EXCEPTION WHEN duplicate_object THEN END $$;
             GRANT CONNECT ON DATABASE {} TO {login}",
            names.database
        );
        admin.client.batch_execute(&create).await.expect(login);
        let session = server().connect(&names.database, login).await;
        let set = format!("SET application_name = '{}'", acts_as.replace('\'', "''"));
        session.client.batch_execute(&set).await.expect("a name");
        open.push(session);
    }
    let page = read_with(&mut Scraper::new(server().socket()), &names, &[bot]).await;
    assert_eq!(failed(&page), [""; 0]);
    let of = |client: &str| page.labelled("servicedb_client_connections", "client", client);
    assert_eq!((of("shared"), of("mail-bot")), (vec![2.0], vec![4.0]));
    drop(open);
}

#[tokio::test]
async fn a_locked_table_keeps_no_metric_from_being_read() {
    let _alone = SCRAPERS.lock().await;
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
        page = read(&mut scraper, &names).await;
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
    let deadline = Instant::now() + Duration::from_secs(60);
    while !query(&admin, end).await.is_empty() {
        assert!(Instant::now() < deadline, "the sessions do not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The scraper may notice the end by a read that fails.
    for _ in 0..20 {
        page = read(&mut scraper, &names).await;
        if page.value("pg_up") == Some(1.0) && failed(&page).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((page.value("pg_up"), failed(&page)), (Some(1.0), Vec::new()));
}

#[tokio::test]
async fn a_tenant_cannot_make_the_page_as_large_as_it_likes() {
    let _alone = SCRAPERS.lock().await;
    let (names, owner) = tenant("many_db", &[]).await;
    let tables =
        "DO $$ BEGIN FOR i IN 1..330 LOOP EXECUTE pg_catalog.format('CREATE TABLE public.t%s ()', i); END LOOP; END $$";
    owner.client.batch_execute(tables).await.expect("tables");
    let page = read(&mut Scraper::new(server().socket()), &names).await;
    let counted = page.samples.keys().filter(|(name, _)| name == "pg_stat_user_tables_seq_scan").count();
    assert_eq!(counted, 300);
    // The ledger's are among them.
    assert_eq!(page.value("servicedb_tables"), Some(332.0));
}

/// A team's own queries, beside each other: good ones, and what must not harm them.
const QUERIES: &str = r#"
shop_orders:
  query: |
    SELECT state, count(*) AS count, bool_or(is_gift) AS has_gift, max(placed_at) AS newest, sum(price) AS price,
           'x' AS other
    FROM orders GROUP BY state ORDER BY state -- by state
    ;
  metrics:
  - state: {usage: LABEL}
  - count: {usage: GAUGE, description: "Orders"}
  - has_gift: {usage: GAUGE}
  - newest: {usage: GAUGE}
  - price: {usage: COUNTER}
  - other: {usage: DISCARD}
shop_wrong: {query: SELECT nothing FROM orders, metrics: [nothing: {usage: GAUGE}]}
shop_secret: {query: SELECT count(*) AS count FROM secrets, metrics: [count: {usage: GAUGE}]}
shop_value: {query: "SELECT card::int AS card FROM orders", metrics: [card: {usage: GAUGE}]}
shop_text: {query: "SELECT card FROM orders", metrics: [card: {usage: GAUGE}]}
shop_write: {query: "SELECT add_order() AS v", metrics: [v: {usage: GAUGE}]}
shop_two: {query: "SELECT 1 AS v; SELECT 2 AS v", metrics: [v: {usage: GAUGE}]}
shop_out: {query: "SELECT 1 AS v) AS q; COMMIT --", metrics: [v: {usage: GAUGE}]}
shop_commit: {query: COMMIT, metrics: [v: {usage: GAUGE}]}
shop_role: {query: "SELECT set_config('role', 'queried_db_owner', false) AS l, 1 AS v", metrics: [v: {usage: GAUGE}]}
shop_open: {query: "SELECT set_config('transaction_read_only', 'off', false) AS l, add_order() AS v", metrics: [l: {usage: LABEL}, v: {usage: GAUGE}]}
shop_rows: {query: "SELECT i::text AS i, 1 AS v FROM generate_series(1, 201) i", metrics: [i: {usage: LABEL}, v: {usage: GAUGE}]}
shop_same: {query: "SELECT 1 AS v FROM generate_series(1, 2)", metrics: [v: {usage: GAUGE}]}
shop_long: {query: "SELECT repeat('x', 5000000) AS l, 1 AS v", metrics: [l: {usage: LABEL}, v: {usage: GAUGE}]}
shop_none: {query: "SELECT NULL::int AS v", metrics: [v: {usage: GAUGE}]}
shop_zone: {query: "SELECT current_setting('transaction_read_only') AS l, 1 AS v", metrics: [l: {usage: LABEL}, v: {usage: GAUGE}]}
shop_slow: {query: "SELECT pg_sleep(60) IS NULL AS v", metrics: [v: {usage: GAUGE}]}
shop_deaf: {query: "SELECT deaf() AS v", metrics: [v: {usage: GAUGE}]}
"#;

const QUERIED: &str = "
CREATE TABLE orders (state text, is_gift boolean, placed_at timestamptz, price numeric, card text);
INSERT INTO orders VALUES ('new', true, 'epoch', 1.5, '4111'), ('new', false, '1970-01-02 UTC', 2, '4112'),
                          ('a\"b', false, NULL, NULL, 'card-of-somebody');
CREATE TABLE secrets (id int);
CREATE FUNCTION add_order() RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = public
    AS 'BEGIN INSERT INTO orders (state) VALUES (''added''); RETURN 1; END';
CREATE FUNCTION deaf() RETURNS int LANGUAGE plpgsql AS $$
    BEGIN LOOP BEGIN PERFORM pg_sleep(100); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$;
GRANT USAGE ON SCHEMA public TO servicedb_queries;
GRANT SELECT ON orders TO servicedb_queries";

#[tokio::test]
async fn a_teams_queries_read_what_it_granted_and_a_wrong_one_disturbs_no_other() {
    let (names, owner) = tenant("queried_db", &[]).await;
    owner.client.batch_execute(QUERIED).await.expect("tables");
    let begin = Instant::now();
    let (page, told) = queries::page_of(server().socket(), &names.database, QUERIES).await.expect("definitions");
    assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    let page_text = page;
    let page = Page::read(&page_text);
    assert_eq!(page.labelled("shop_orders_count", "state", "new"), [2.0]);
    assert_eq!(page.labelled("shop_orders_count", "state", "a\"b"), [1.0]);
    assert_eq!(page.labelled("shop_orders_has_gift", "state", "new"), [1.0]);
    assert_eq!(page.labelled("shop_orders_newest", "state", "new"), [86_400.0]);
    assert_eq!(page.labelled("shop_orders_price", "state", "new"), [3.5]);
    assert_eq!(page.labelled("shop_orders_price", "state", "a\"b"), [0.0; 0], "NULL is no sample");
    assert_eq!(page.types["shop_orders_price"], "counter");
    assert!(!page_text.contains("shop_orders_other"));
    let long = page.samples.keys().find(|(name, _)| name == "shop_long_v").expect("a long label");
    assert_eq!(long.1["l"].len(), 128);
    assert_eq!(page.labelled("shop_zone_v", "l", "on"), [1.0], "each transaction only reads");

    let failed: Vec<_> = page
        .samples
        .iter()
        .filter(|((name, _), value)| name == "servicedb_custom_query_success" && **value == 0.0)
        .map(|((_, labels), _)| labels["query"].clone())
        .collect();
    let expected = [
        "shop_commit",
        "shop_deaf",
        "shop_open",
        "shop_out",
        "shop_role",
        "shop_rows",
        "shop_same",
        "shop_secret",
        "shop_slow",
        "shop_text",
        "shop_two",
        "shop_value",
        "shop_write",
        "shop_wrong",
    ];
    assert_eq!(failed, expected, "{told:?}");
    for name in ["shop_orders", "shop_long", "shop_none", "shop_zone"] {
        assert_eq!(page.labelled("servicedb_custom_query_success", "query", name), [1.0], "{name}");
    }
    assert!(!page_text.contains("card-of-somebody") && !format!("{told:?}").contains("card-of-somebody"));
    let rows = query(&owner, "SELECT count(*)::text FROM orders").await;
    assert_eq!(rows, ["3"], "no query has written");
    let admin = server().connect("postgres", "postgres").await;
    let left = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = 'queried_db' AND query LIKE '%deaf%'
                AND usename = 'servicedb_queries'";
    assert_eq!(query(&admin, left).await, ["0"], "no session is left");
}

#[tokio::test]
async fn a_failed_query_is_told_by_its_name_and_without_a_value() {
    let (names, owner) = tenant("asked_db", &[]).await;
    owner.client.batch_execute(QUERIED).await.expect("tables");
    let told = async |name: &str| {
        let line = QUERIES.lines().find(|line| line.starts_with(&format!("{name}:"))).expect(name);
        let (_, told) = queries::page_of(server().socket(), &names.database, line).await.expect(name);
        told.into_iter().next().unwrap_or_else(|| panic!("{name} is not told")).1
    };
    for (name, part) in [
        ("shop_wrong", "column \"nothing\" does not exist"),
        ("shop_secret", "lacks a right to what it reads (SQLSTATE 42501)"),
        ("shop_value", "SQLSTATE 22P02"),
        ("shop_text", "is of the type text"),
        ("shop_write", "it would write (SQLSTATE 25006)"),
        ("shop_open", "SQLSTATE"),
        ("shop_two", "multiple commands"),
        ("shop_commit", "returns no rows"),
        ("shop_role", "SQLSTATE"),
        ("shop_rows", "more than 200 rows"),
        ("shop_same", "the same labels"),
    ] {
        let message = told(name).await;
        assert!(message.contains(part), "{name}: {message}");
        assert!(!message.contains("card-of-somebody"), "{name}: {message}");
    }
    // A login with no right of its own, whatever it tries by hand.
    let session = server().connect(&names.database, PostgresNames::QUERIES).await;
    session.client.batch_execute("SET default_transaction_read_only = off").await.expect("a setting");
    for refused in [
        "SELECT * FROM servicedb.migrations",
        "TABLE secrets",
        "INSERT INTO orders (state) VALUES ('x')",
        "CREATE TABLE public.trap (id int)",
        "CREATE TEMPORARY TABLE trap (id int)",
        "SET ROLE asked_db_owner",
        "SET temp_file_limit = -1",
        "SELECT pg_read_file('PG_VERSION')",
    ] {
        let error = session.client.batch_execute(refused).await.expect_err(refused);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{refused}: {error:?}");
    }
    assert_eq!(query(&session, "SHOW temp_file_limit").await, ["256MB"]);
    let admin = server().connect("postgres", "postgres").await;
    let member = "SELECT roleid::regrole FROM pg_auth_members WHERE member = 'servicedb_queries'::regrole";
    assert_eq!(query(&admin, member).await, [""; 0]);
}
