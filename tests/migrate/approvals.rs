//! A run that needs approval waits as a whole, and is approved by its exact id.

use servicedb::api::conditions::reason;
use servicedb::contract::migration::Policy;
use servicedb::migrate::source;

use crate::{database, ledger, run_as, set, tables};

#[tokio::test]
async fn nothing_runs_before_it_is_approved() {
    let database = database("approvals").await;
    let asked = Policy { manual_approval: true, ..Policy::default() };
    let files =
        [("1_a", "CREATE TABLE a (id int, old int)"), ("2_b", "CREATE TABLE b ();\nALTER TABLE a DROP COLUMN old")];
    let migrations = set(&files);
    let (done, failure) = run_as(&database, &migrations, &asked).await;
    let failure = failure.expect("the second file drops a column");
    assert_eq!((failure.reason.as_str(), failure.transient), (reason::APPROVAL_REQUIRED, false));
    let approval = done.approval.expect("what waits");
    assert_eq!((approval.count, approval.statements[0].line), (1, Some(2)));
    assert!(approval.statements[0].why.contains("drops the column old"), "{approval:?}");
    let admin = database.superuser().await;
    assert_eq!((tables(&admin).await, ledger(&admin).await), (Vec::<String>::new(), Vec::<String>::new()));

    // An approval of other files does not apply to these.
    let other = Policy { approved: Some("another".to_owned()), ..asked.clone() };
    assert!(run_as(&database, &migrations, &other).await.1.is_some());
    let approved = Policy { approved: Some(approval.id), ..asked.clone() };
    let (done, failure) = run_as(&database, &migrations, &approved).await;
    assert_eq!((done.applied, failure), (2, None));

    // A harmless run needs no approval; the rollback loses all data.
    let more = [files[0], files[1], ("3_c", "CREATE TABLE c ()")];
    let ups = more.iter().map(|(name, sql)| (format!("{name}.up.sql"), sql.as_bytes().to_vec()));
    let down = ("3_c.down.sql".to_owned(), b"DROP TABLE c".to_vec());
    let migrations = source::parse(ups.chain([down])).expect("valid migrations");
    assert_eq!(run_as(&database, &migrations, &asked).await.1, None);
    let back = Policy { target_version: Some(2.into()), allow_rollback: true, ..asked };
    let (done, failure) = run_as(&database, &migrations, &back).await;
    assert_eq!(failure.map(|failure| failure.reason).as_deref(), Some(reason::APPROVAL_REQUIRED));
    assert_eq!(done.approval.map(|approval| approval.statements[0].file.clone()).as_deref(), Some("3_c.down.sql"));
}
