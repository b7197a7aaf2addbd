//! `kubectl servicedb migrations push`: a folder as a tool has made it, without an image and without a ConfigMap
//! written by hand.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{READY, Sandbox, column, database, plugin, shared};

/// A folder of one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = Self(std::env::temp_dir().join(format!("servicedb-e2e-{name}-{}", std::process::id())));
        files.iter().for_each(|(path, text)| folder.write(path, text));
        folder
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Pushes a folder; the names of its ConfigMaps.
async fn push(sandbox: &Sandbox, folder: &Path) -> Vec<String> {
    let output = plugin(sandbox, &["migrations", "push", "shop", folder.to_str().expect("text")]).await;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{text}");
    let names = text.lines().next().and_then(|line| line.split_once(": ")).expect("the names").1;
    names.split(", ").map(str::to_owned).collect()
}

/// The ConfigMaps that the resource names.
fn named(database: &ServiceDatabase) -> Vec<String> {
    let source = database.spec.migrations.iter().map(|migrations| &migrations.source);
    source.flat_map(|source| source.references().map(|reference| reference.name.clone())).collect()
}

async fn existing(sandbox: &Sandbox) -> Vec<String> {
    let pushed = ListParams::default().labels("servicedb.dev/pushed-for=shop");
    let found = sandbox.api::<ConfigMap>().list(&pushed).await.expect("the ConfigMaps");
    found.items.into_iter().filter_map(|config_map| config_map.metadata.name).collect()
}

#[test]
fn a_folder_is_pushed_again_and_again_also_by_two_at_once() {
    shared("pushed", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        let folder = Folder::new(
            "diesel",
            &[
                ("00000000000000_diesel_initial_setup/up.sql", "-- Diesel's own\nSELECT 1;\n"),
                ("00000000000000_diesel_initial_setup/down.sql", ""),
                ("2019-01-02-120000-0000_the notes/up.sql", "CREATE TABLE notes (id bigint PRIMARY KEY);\n"),
                ("2019-01-02-120000-0000_the notes/down.sql", "DROP TABLE notes;\n"),
                ("20190103120000_index/up.sql", "CREATE INDEX CONCURRENTLY notes_id ON notes (id);\n"),
                ("20190103120000_index/metadata.toml", "run_in_transaction = false\n"),
                ("README.md", "# of the team\n"),
                (".git/HEAD", "a link to nothing\n"),
            ],
        );
        let first = push(&sandbox, &folder.0).await;
        let at = async |version: &str| {
            let is = |found: &ServiceDatabase| {
                found.status.as_ref().and_then(|status| status.schema_version.as_deref()) == Some(version)
            };
            sandbox.wait(&format!("version {version}"), "shop", READY, is).await
        };
        let applied = at("20190103120000").await;
        assert_eq!(named(&applied), first);
        let migrations = applied.status.and_then(|status| status.migrations).expect("migrations");
        assert_eq!((migrations.format.as_deref(), migrations.applied), (Some("Diesel"), 3));
        assert_eq!(migrations.ignored, ["README.md"]);

        // The former ConfigMap is kept for an operator that still reads the former spec.
        folder.write("2019-02-01-120000-0000_more/up.sql", "CREATE TABLE more (id bigint);\n");
        let second = push(&sandbox, &folder.0).await;
        at("201902011200000000").await;
        assert!(first != second && first.iter().chain(&second).all(|name| name.starts_with("shop-migrations-")));
        let kept = existing(&sandbox).await;
        assert!(first.iter().chain(&second).all(|name| kept.contains(name)), "{kept:?}");

        // Two releases at once: the resource names the folder of one of them, and that is there.
        let other = Folder::new("diesel-other", &[]);
        for (path, text) in [
            ("00000000000000_diesel_initial_setup/up.sql", "-- Diesel's own\nSELECT 1;\n"),
            ("00000000000000_diesel_initial_setup/down.sql", ""),
            ("2019-01-02-120000-0000_the notes/up.sql", "CREATE TABLE notes (id bigint PRIMARY KEY);\n"),
            ("20190103120000_index/up.sql", "CREATE INDEX CONCURRENTLY notes_id ON notes (id);\n"),
            ("20190103120000_index/metadata.toml", "run_in_transaction = false\n"),
            ("2019-02-01-120000-0000_more/up.sql", "CREATE TABLE more (id bigint);\n"),
            ("2019-03-01-120000-0000_last/up.sql", "CREATE TABLE last (id bigint);\n"),
        ] {
            other.write(path, text);
            folder.write(path, text);
        }
        folder.write("notes.txt", "another folder with the same migrations\n");
        let (one, two) = tokio::join!(push(&sandbox, &folder.0), push(&sandbox, &other.0));
        assert_ne!(one, two);
        let done = at("201903011200000000").await;
        let (named, kept) = (named(&done), existing(&sandbox).await);
        assert!(named == one || named == two, "{named:?}");
        assert!(named.iter().all(|name| kept.contains(name)), "{named:?} of {kept:?}");
        let connection = sandbox.connect("shop").await;
        let tables = "SELECT relname FROM pg_class WHERE relname IN ('notes', 'more', 'last', 'notes_id') ORDER BY 1";
        assert_eq!(column(&connection, tables).await.expect("a query"), ["last", "more", "notes", "notes_id"]);
    });
}

/// The text of the migration is the same before and after.
#[test]
fn a_corrected_option_beside_a_file_is_another_run() {
    shared("options", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        let folder = Folder::new("flyway", &[("V1.1__texts.sql", "CREATE TABLE texts (x text DEFAULT '${name}');\n")]);
        push(&sandbox, &folder.0).await;
        let refused = sandbox.condition("shop", "MigrationsApplied", "False", "InvalidMigrations", READY).await;
        assert!(refused.message.contains("V1.1__texts.sql"), "{}", refused.message);
        folder.write("V1.1__texts.sql.conf", "placeholderReplacement=false\n");
        push(&sandbox, &folder.0).await;
        let ready = sandbox.ready("shop", READY).await;
        assert_eq!(ready.status.and_then(|status| status.schema_version).as_deref(), Some("1.1"));
    });
}
