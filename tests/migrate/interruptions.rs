//! Runs that are killed or stopped in the middle of a file.

use std::time::Duration;

use servicedb::contract::migration::Policy;
use servicedb::migrate::{Done, Run, migrate, stop};
use tokio_postgres::NoTls;

use crate::server::{Database, Session};
use crate::{database, ledger, limits, query, run, run_over, set, tables};

/// Waits until a migration sleeps.
pub async fn sleeping(database: &Database) -> Session {
    let admin = database.superuser().await;
    let sql =
        format!("SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND wait_event = 'PgSleep'", database.name);
    for _ in 0..2000 {
        if !query(&admin, &sql).await.is_empty() {
            return admin;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no migration came to its pg_sleep");
}

#[tokio::test]
async fn a_killed_run_leaves_nothing_and_the_next_one_applies_it_once() {
    let database = database("killed").await;
    let slow = "CREATE TABLE a (); INSERT INTO seen VALUES (1); SELECT pg_sleep(30); CREATE TABLE b ()";
    let first = ("1_seen", "CREATE TABLE seen (n int)");
    let slow_set = set(&[first, ("2_slow", slow)]);
    let session = database.migrator().await;
    let (kill, is_killed) = tokio::sync::oneshot::channel::<()>();
    let killed = {
        let driver = session.driver.abort_handle();
        let owner = database.owner();
        let slow_set = slow_set.clone();
        tokio::spawn(async move {
            let policy = Policy::default();
            let (mut done, stop, limits) = (Done::default(), stop().1, limits());
            let work = migrate(
                &session.client,
                Run { owner: &owner, set: &slow_set, revision: &slow_set.revision, policy: &policy },
                &limits,
                &stop,
                &mut done,
            );
            let cut = async {
                drop(is_killed.await);
                driver.abort();
                std::future::pending::<()>().await;
            };
            tokio::select! { result = work => result, () = cut => Ok(()) }
        })
    };
    let admin = sleeping(&database).await;
    assert_eq!(ledger(&admin).await, ["1 seen completed", "2 slow executing"]);
    kill.send(()).expect("it runs");
    let stopped = killed.await.expect("no panic").expect_err("the connection was cut");
    assert!(stopped.reconnect && stopped.failure.transient, "{stopped:?}");
    assert_eq!(stopped.failure.file.as_deref(), Some("2_slow.up.sql"));
    assert_eq!(tables(&admin).await, ["seen killed_owner"], "nothing of the second file is visible");

    // The server notices that its client is gone, and lets go of the lock.
    let mended = set(&[first, ("2_slow", "CREATE TABLE a (); INSERT INTO seen VALUES (1)")]);
    assert_eq!(run(&database, &mended).await, (1, None));
    assert_eq!(query(&admin, "SELECT count(*) FROM seen").await, ["1"]);
    assert_eq!(ledger(&admin).await, ["1 seen completed", "2 slow completed"]);
}

#[tokio::test]
async fn a_terminated_backend_is_worth_another_connection() {
    let database = database("terminated").await;
    let migrations = set(&[("1_slow", "CREATE TABLE a (); SELECT pg_sleep(6)")]);
    let terminate = async {
        let admin = sleeping(&database).await;
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = 'terminated'";
        assert_eq!(query(&admin, sql).await, ["t"]);
    };
    let session = database.migrator().await;
    let policy = Policy::default();
    let (mut done, stop) = (Done::default(), stop().1);
    let owner = database.owner();
    let limits = limits();
    let work = migrate(
        &session.client,
        Run { owner: &owner, set: &migrations, revision: &migrations.revision, policy: &policy },
        &limits,
        &stop,
        &mut done,
    );
    let (result, ()) = tokio::join!(work, terminate);
    let stopped = result.expect_err("the backend was terminated");
    assert!(stopped.reconnect && stopped.failure.transient, "{stopped:?}");
    assert_eq!(ledger(&database.superuser().await).await, ["1 slow executing"]);
    assert_eq!(run(&database, &migrations).await, (1, None));
    assert_eq!(ledger(&database.superuser().await).await, ["1 slow completed"]);
}

#[tokio::test]
async fn a_run_that_is_asked_to_end_gives_its_file_back() {
    let database = database("asked").await;
    let migrations =
        set(&[("1_a", "CREATE TABLE a ()"), ("2_slow", "CREATE TABLE b (); SELECT pg_sleep(30)"), ("3_c", "SELECT 1")]);
    let session = database.migrator().await;
    let (stopper, stop) = stop();
    let ask = async {
        let admin = sleeping(&database).await;
        stopper.request();
        session.client.cancel_token().cancel_query(NoTls).await.expect("asked");
        admin
    };
    let limits = limits();
    let (result, admin) = tokio::join!(run_over(&session, &database, &migrations, &limits, &stop), ask);
    let failure = result.1.expect("a stop was requested");
    assert_eq!((result.0, failure.transient), (1, true));
    assert_eq!(ledger(&admin).await, ["1 a completed", "2 slow pending", "3 c pending"]);
    assert_eq!(tables(&admin).await, ["a asked_owner"]);
    assert_eq!(query(&admin, "SELECT current_user").await, ["postgres"]);
}
