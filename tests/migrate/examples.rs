//! The example system's migrations, as its README applies them.

use std::path::Path;

use servicedb::migrate::source;

use crate::{database, query, run};

#[tokio::test]
async fn every_example_applies_and_applies_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/game-platform");
    for service in ["auth", "chat", "game", "notification", "user"] {
        let entries = std::fs::read_dir(folder.join(service).join("migrations")).expect(service);
        let files = entries.map(|entry| {
            let entry = entry.expect(service);
            let content = std::fs::read(entry.path()).expect(service);
            (entry.file_name().into_string().expect("a name"), content)
        });
        let set = source::parse(files).expect(service);
        let database = database(&format!("{service}_db")).await;
        let count = i64::try_from(set.migrations.len()).expect("a few");
        assert_eq!(run(&database, &set).await, (count, None), "{service}");
        assert_eq!(run(&database, &set).await, (0, None), "{service}");
        let admin = database.superuser().await;
        let foreign = format!(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tableowner <> '{service}_db_owner'"
        );
        assert_eq!(query(&admin, &foreign).await, Vec::<String>::new(), "{service}");
    }
}
