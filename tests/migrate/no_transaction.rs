//! Files that run without a transaction: they may be partly applied, which is reported.

use crate::{database, ledger, query, run, set};

const TABLE: (&str, &str) = ("1_t", "CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 1), (1, 2)");

#[tokio::test]
async fn an_index_is_built_concurrently() {
    let database = database("indexes").await;
    let sql = "-- no-transaction\n-- two statements; each by itself\n\
               CREATE INDEX CONCURRENTLY t_a ON t (a);\nCREATE INDEX CONCURRENTLY t_b ON t (b);\n";
    assert_eq!(run(&database, &set(&[TABLE, ("2_indexes", sql), ("3_more", "CREATE TABLE u ()")])).await, (3, None));
    let admin = database.superuser().await;
    let indexes = "SELECT relname, pg_get_userbyid(relowner), indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid \
                   WHERE relname LIKE 't\\_%' ORDER BY 1";
    assert_eq!(query(&admin, indexes).await, ["t_a indexes_owner t", "t_b indexes_owner t"]);
    assert_eq!(ledger(&admin).await, ["1 t completed", "2 indexes completed", "3 more completed"]);
}

#[tokio::test]
async fn a_failure_tells_what_is_done_and_only_an_edited_file_goes_on() {
    let database = database("half").await;
    let broken =
        "-- no-transaction\nCREATE INDEX CONCURRENTLY t_b ON t (b);\n\nCREATE UNIQUE INDEX\nCONCURRENTLY t_a ON t (a);";
    let (applied, failure) = run(&database, &set(&[TABLE, ("2_indexes", broken)])).await;
    let failure = failure.expect("a is not unique");
    assert_eq!((applied, failure.line, failure.sqlstate.as_deref()), (1, Some(4), Some("23505")));
    assert!(failure.message.contains("the previous statements were applied and are kept"), "{}", failure.message);
    let admin = database.superuser().await;
    assert_eq!(ledger(&admin).await, ["1 t completed", "2 indexes failed"]);

    let (applied, failure) = run(&database, &set(&[TABLE, ("2_indexes", broken)])).await;
    let failure = failure.expect("the same file again");
    assert!(applied == 0 && !failure.transient && failure.message.contains("may be half done"), "{failure:?}");
    assert_eq!(ledger(&admin).await, ["1 t completed", "2 indexes failed"]);

    let mended = "-- no-transaction\nDROP INDEX CONCURRENTLY IF EXISTS t_a;\n\
                  CREATE INDEX CONCURRENTLY IF NOT EXISTS t_b ON t (b);\nCREATE INDEX CONCURRENTLY t_a ON t (a)";
    assert_eq!(run(&database, &set(&[TABLE, ("2_indexes", mended)])).await, (1, None));
    assert_eq!(ledger(&admin).await, ["1 t completed", "2 indexes completed"]);
}

#[tokio::test]
async fn an_interrupted_file_needs_somebody_to_look_or_to_say_that_it_is_safe() {
    let database = database("crashed").await;
    assert_eq!(run(&database, &set(&[TABLE])).await, (1, None));
    let admin = database.superuser().await;
    let crash =
        "INSERT INTO servicedb.migrations (version, name, status, checksum) VALUES (2, 'index', 'executing', 'x')";
    admin.client.batch_execute(crash).await.expect("as a crash leaves it");

    let bare = "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS t_a ON t (a)";
    let (applied, failure) = run(&database, &set(&[TABLE, ("2_index", bare)])).await;
    let failure = failure.expect("nobody has looked");
    assert!(applied == 0 && !failure.transient);
    assert!(failure.message.contains("WHERE version = 2") && failure.message.contains("-- no-transaction idempotent"));
    assert_eq!(ledger(&admin).await, ["1 t completed", "2 index executing"]);

    let safe = bare.replace("no-transaction", "no-transaction idempotent");
    assert_eq!(run(&database, &set(&[TABLE, ("2_index", &safe)])).await, (1, None));
    assert_eq!(ledger(&admin).await, ["1 t completed", "2 index completed"]);
}
