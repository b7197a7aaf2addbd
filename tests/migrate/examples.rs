//! The examples' migrations: up, down, and up again.

use std::path::Path;

use servicedb::contract::migration::Policy;
use servicedb::migrate::drift::catalog;
use servicedb::migrate::drift::compare::differences;
use servicedb::migrate::source::{self, MigrationSet};

use crate::{Database, database, query, run, run_as};

/// Folder and database.
const EXAMPLES: [(&str, &str); 9] = [
    ("game-platform/auth", "auth_db"),
    ("game-platform/chat", "chat_db"),
    ("game-platform/game", "game_db"),
    ("game-platform/notification", "notification_db"),
    ("game-platform/user", "user_db"),
    ("autoinstall", "autoinstall_db"),
    ("files", "files_db"),
    ("openvpn-certtransparency", "openvpn_certtransparency_db"),
    ("openvpn-frontend", "openvpn_frontend_db"),
];

fn read(folder: &str) -> MigrationSet {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(folder).join("migrations");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries.map(|entry| {
        let entry = entry.expect("an entry");
        (entry.file_name().into_string().expect("a name"), std::fs::read(entry.path()).expect("a file"))
    });
    source::parse(files).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

#[tokio::test]
async fn every_example_applies_rolls_back_a_version_at_a_time_and_applies_again() {
    for (folder, name) in EXAMPLES {
        let (set, database) = (read(folder), database(name).await);
        assert_eq!(run(&database, &set).await, (count(&set), None), "{folder}");
        assert_eq!(run(&database, &set).await, (0, None), "{folder}");
        let admin = database.superuser().await;
        let foreign =
            format!("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tableowner <> '{name}_owner'");
        assert_eq!(query(&admin, &foreign).await, Vec::<String>::new(), "{folder}");

        let whole = catalog(&admin.client).await.expect("the catalog");
        let below =
            set.migrations.iter().rev().skip(1).map(|migration| migration.version.text.clone()).chain([0.into()]);
        for target in below {
            let policy = Policy { target_version: Some(target.clone()), allow_rollback: true, ..Policy::default() };
            let (done, failure) = run_as(&database, &set, &policy).await;
            assert_eq!((done.rolled_back, failure), (1, None), "{folder} back to {target}");
        }
        assert_eq!(schema(&database).await, Vec::<String>::new(), "{folder}: what its down files leave");
        assert_eq!(run(&database, &set).await, (count(&set), None), "{folder}");
        let again = catalog(&admin.client).await.expect("the catalog");
        assert_eq!(differences(&whole, &again), [], "{folder}: applied again");
    }
}

fn count(set: &MigrationSet) -> i64 {
    i64::try_from(set.migrations.len()).expect("a few")
}

/// The objects in the schema `public`, one line each.
async fn schema(database: &Database) -> Vec<String> {
    let objects = "SELECT pg_describe_object(classid, objid, 0) FROM pg_depend \
                   WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'public'::regnamespace ORDER BY 1";
    query(&database.superuser().await, objects).await
}
