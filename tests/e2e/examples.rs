//! The folders of `examples` that are systems: their databases, their migrations, their
//! queries, and what their databases refuse.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Caller, SOON, Sandbox, column, config_map, dump_command, plugin, run, shared, until};

const SERVICES: [&str; 5] = ["auth", "user", "chat", "game", "notification"];
/// Several databases at once, each with its migrations.
const ALL_READY: Duration = Duration::from_secs(360);

#[test]
fn the_game_platform_is_ready_and_its_queries_run() {
    shared("platform", async |sandbox| {
        let examples = SERVICES.map(|service| (format!("game-platform/{service}"), service));
        for object in documents("game-platform/serviceaccounts.yaml") {
            sandbox.create(here(object, &sandbox)).await;
        }
        for (folder, service) in &examples {
            create(&sandbox, folder, service).await;
        }
        for (folder, service) in &examples {
            serves(&sandbox, folder, service).await;
        }
        crate::isolation::services_are_apart(&sandbox).await;
    });
}

/// The examples of one service each.
const SINGLE: [&str; 4] = ["autoinstall", "files", "openvpn-certtransparency", "openvpn-frontend"];

#[test]
fn the_single_examples_are_ready_and_their_queries_run() {
    shared("single", async |sandbox| {
        for service in SINGLE {
            for object in documents(&format!("{service}/serviceaccount.yaml")) {
                sandbox.create(here(object, &sandbox)).await;
            }
            create(&sandbox, service, service).await;
        }
        for service in SINGLE {
            serves(&sandbox, service, service).await;
        }
        consumers_call(&sandbox).await;
    });
}

/// What the services of examples/autoinstall may read, of what each of them asks for.
const CONSUMERS: [(&str, &[&str]); 5] = [
    (
        "autoinstall",
        &[
            "systems",
            "systems?select=id,hostname",
            "configurations",
            "file_metadata",
            "users",
            "users?select=id,username",
            "certificates",
        ],
    ),
    ("configuration", &["systems", "systems?select=id,hostname", "configurations"]),
    ("file-editor", &["systems?select=id,hostname", "file_metadata", "users?select=id,username"]),
    ("webserver", &["systems", "systems?select=id,hostname", "users", "users?select=id,username"]),
    ("cert-issuer", &["systems?select=id,hostname", "certificates"]),
];

/// Each service reads by the gateway what its rights allow, and nothing else.
async fn consumers_call(sandbox: &Sandbox) {
    for (account, may) in CONSUMERS {
        let caller = Caller::of(sandbox, "autoinstall", account).await;
        // The role of a client may be younger than Ready.
        until("the service may call", SOON, || async {
            let (status, body) = caller.ask(Method::GET, may[0], None).await?;
            if status == StatusCode::OK { Ok(()) } else { Err(format!("{account}: {status} {body}")) }
        })
        .await;
        for path in CONSUMERS[0].1 {
            let (status, body) = caller.get(path).await;
            let wanted = if may.contains(path) { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(status, wanted, "{account}: {path}: {body}");
        }
    }
    let caller = Caller::of(sandbox, "autoinstall", "configuration").await;
    let system = json!({"mac_address": "02:00:00:00:00:01", "hostname": "by-another", "status": "configured"});
    let (status, body) = caller.post("systems", system.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    let all = Caller::of(sandbox, "autoinstall", "autoinstall").await;
    let (status, body) = all.post("systems", system).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let search = json!({"query": "by-another", "collections": ["systems"]});
    let (status, found) = caller.post("search", search).await;
    assert_eq!(status, StatusCode::OK, "{found}");
    assert!(found.to_string().contains("by-another"), "{found}");
}

/// An example's migrations and its ServiceDatabase.
async fn create(sandbox: &Sandbox, folder: &str, service: &str) {
    let files = files(&format!("{folder}/migrations"));
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    sandbox.create(config_map(&format!("{service}-migrations"), &files)).await;
    for object in documents(&format!("{folder}/servicedatabase.yaml")) {
        sandbox.create(here(object, sandbox)).await;
    }
}

/// It is Ready with every migration, and answers and refuses as its files say.
async fn serves(sandbox: &Sandbox, folder: &str, service: &str) {
    let ready = sandbox.ready(service, ALL_READY).await;
    let status = ready.status.expect("a status");
    let declared = files(&format!("{folder}/migrations")).iter().filter(|(name, _)| name.ends_with(".up.sql")).count();
    assert_eq!(status.schema_version, Some(declared.to_string()), "the schema of {service}");
    let migrations = status.migrations.expect("migrations");
    let declared = i64::try_from(declared).expect("a count");
    assert_eq!((migrations.applied, migrations.pending, migrations.failed), (declared, 0, 0), "{service}");
    assert_eq!(status.database, Some(database_of(service)));
    queries_run(sandbox, folder, service).await;
    refused_is_refused(sandbox, folder, service).await;
    dump_loads(sandbox, service).await;
}

/// Relations of the schema with their rows, constraints, functions and triggers.
const CONTENT: &str = "\
    SELECT c.relkind::text || ' ' || c.relname || COALESCE(' ' || (xpath('/row/n/text()', query_to_xml(
        format('SELECT count(*) AS n FROM %s', c.oid::regclass), false, true, '')))[1]::text, '')
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
    UNION ALL SELECT 'index ' || relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('i', 'I')
    UNION ALL SELECT 'constraint ' || conname || ' ' || contype::text FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT 'trigger ' || t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal
    ORDER BY 1";

/// `pg_dump` as the application gives a dump that loads as documented (docs/migrations.md) into an
/// empty schema, with the same content.
async fn dump_loads(sandbox: &Sandbox, service: &str) {
    let as_owner = async |arguments: &[&str]| {
        let output =
            plugin(sandbox, &[&["psql", service, "--", "-XqAt", "-v", "ON_ERROR_STOP=1"], arguments].concat()).await;
        assert!(output.status.success(), "{service}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let before = as_owner(&["-c", CONTENT]).await;
    assert!(before.lines().count() > 5, "{service}: {before}");
    let dump = dump_command(&sandbox.credentials(service).await);
    let dump = format!("{dump} >/tmp/dump.sql && sed -i '/^COMMENT ON EXTENSION /d' /tmp/dump.sql");
    let dumped = sandbox.exec(&sandbox.primary(service).await, &dump).await;
    assert!(dumped.status.success(), "{service}: {}", String::from_utf8_lossy(&dumped.stderr));
    as_owner(&["-c", "ALTER SCHEMA public RENAME TO before; CREATE SCHEMA public"]).await;
    as_owner(&["-f", "/tmp/dump.sql"]).await;
    assert_eq!(as_owner(&["-c", CONTENT]).await, before, "{service}");
    as_owner(&["-c", "DROP SCHEMA public CASCADE; ALTER SCHEMA before RENAME TO public"]).await;
}

fn database_of(service: &str) -> String {
    format!("{}_db", service.replace('-', "_"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn text(path: &str) -> String {
    let path = folder().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a YAML file.
pub fn documents(path: &str) -> Vec<Value> {
    let text = text(path);
    let documents = text.split("\n---\n").filter(|document| !document.trim().is_empty());
    documents.map(|document| serde_yaml::from_str(document).unwrap_or_else(|error| panic!("{path}: {error}"))).collect()
}

/// The files of a folder, by name.
fn files(path: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let mut files: Vec<_> = names.map(|name| (name.clone(), text(&format!("{path}/{name}")))).collect();
    files.sort();
    files
}

/// An object of the example in the test's namespace.
pub fn here(mut object: Value, sandbox: &Sandbox) -> Value {
    object["metadata"]["namespace"] = json!(sandbox.namespace);
    object
}

/// One statement of `queries.sql` or `refused.sql`: `-- name:`, other `-- key: value` lines,
/// and the statement.
struct Block {
    name: String,
    keys: Vec<(String, String)>,
    sql: String,
}

impl Block {
    fn get(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in text.lines() {
        let keyed = line.strip_prefix("-- ").and_then(|comment| comment.split_once(": "));
        match (keyed, blocks.last_mut()) {
            (Some(("name", name)), _) => {
                blocks.push(Block { name: name.to_owned(), keys: Vec::new(), sql: String::new() });
            }
            (Some((key, value)), Some(block)) if block.sql.trim().is_empty() => {
                block.keys.push((key.to_owned(), value.to_owned()));
            }
            (_, Some(block)) if !line.starts_with("--") => {
                block.sql.push_str(line);
                block.sql.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

/// Every query of the service, with its example values, as the application's login: it gives
/// as many rows as the file says.
async fn queries_run(sandbox: &Sandbox, folder: &str, service: &str) {
    let connection = sandbox.connect(service).await;
    let blocks = blocks(&text(&format!("{folder}/queries.sql")));
    assert!(blocks.len() >= 10, "{service}/queries.sql has {} queries", blocks.len());
    for (number, block) in blocks.iter().enumerate() {
        let wanted: u64 = block
            .get("rows")
            .and_then(|rows| rows.parse().ok())
            .unwrap_or_else(|| panic!("{service}: {} says no rows", block.name));
        // A prepared statement, as a service's driver makes it: the types come from the query.
        let statement = block.sql.trim().trim_end_matches(';');
        let values = block.get("with").map(|values| format!("({values})")).unwrap_or_default();
        let sql = format!("PREPARE query_{number} AS {statement}; EXECUTE query_{number}{values}");
        let rows =
            run(&connection, &sql).await.unwrap_or_else(|refusal| panic!("{service}: {}: {refusal:?}", block.name));
        assert_eq!(rows, wanted, "{service}: rows of {} with {values}", block.name);
    }
    let owner = column(&connection, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").await;
    assert_eq!(
        owner.expect("a query"),
        [format!("{}_owner", database_of(service))],
        "who owns the tables of {service}"
    );
}

/// Every statement of `refused.sql` is refused, with the SQLSTATE and by the constraint that
/// the file says.
async fn refused_is_refused(sandbox: &Sandbox, folder: &str, service: &str) {
    let connection = sandbox.connect(service).await;
    let blocks = blocks(&text(&format!("{folder}/refused.sql")));
    assert!(blocks.len() >= 5, "{service}/refused.sql has {} statements", blocks.len());
    for block in blocks {
        let mut wanted =
            block.get("refused").unwrap_or_else(|| panic!("{service}: {} says no SQLSTATE", block.name)).split(' ');
        let refusal = match run(&connection, &block.sql).await {
            Ok(rows) => panic!("{service}: {} was not refused ({rows} rows)", block.name),
            Err(refusal) => refusal,
        };
        assert_eq!(refusal.sqlstate.as_deref(), wanted.next(), "{service}: {}: {refusal:?}", block.name);
        if let Some(constraint) = wanted.next() {
            assert_eq!(refusal.constraint.as_deref(), Some(constraint), "{service}: {}: {refusal:?}", block.name);
        }
    }
}
