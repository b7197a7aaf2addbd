//! The tools themselves, on the same folders: what they leave, and in which order they ran it. Their
//! programs are in the folder that TOOLS names (`dev/test-tools.sh` builds them).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use servicedb::contract::migration::Policy;
use servicedb::migrate::drift::catalog;
use servicedb::migrate::drift::compare::differences;
use servicedb::migrate::source::MigrationSet;

use super::folders::Files;
use super::{CASES, Case, ORDER, fresh, prepared};
use crate::{Database, query, run, run_as};

/// Prisma makes its table in an empty schema alone, and there is the one that the migrations write into.
const PRISMAS_TABLE: &str = "CREATE TABLE _prisma_migrations (
    id varchar(36) PRIMARY KEY NOT NULL, checksum varchar(64) NOT NULL, finished_at timestamptz,
    migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0)";

/// A program with its arguments; the first part of a table's name that is the tool's own.
struct Tool {
    command: Command,
    table: &'static str,
}

/// How a tool runs all migrations of a folder.
fn tool(case: &Case, tools: &Path, folder: &Path, database: &Database) -> Tool {
    let url = database.server.url(&database.name, &format!("{}_migrator_a", database.name));
    let plain = format!("{url}?sslmode=disable");
    let of = |program: &str| Command::new(tools.join(program));
    let (mut command, table) = match case.name {
        "diesel" => (of("bin/diesel"), "__diesel_schema_migrations"),
        "golang_migrate" => (of("bin/migrate"), "schema_migrations"),
        "goose" => (of("bin/goose"), "goose_db_version"),
        "dbmate" => (of("node/node_modules/.bin/dbmate"), "schema_migrations"),
        "sql_migrate" => (of("bin/sql-migrate"), "gorp_migrations"),
        "tern" => (of("bin/tern"), "schema_version"),
        "sqlx" => (of("bin/sqlx"), "_sqlx_migrations"),
        "flyway" => (Command::new("java"), "flyway_schema_history"),
        "refinery" => (of("bin/refinery"), "refinery_schema_history"),
        "prisma" => (of("node/node_modules/.bin/prisma"), "_prisma_migrations"),
        "supabase" => (of("node/node_modules/.bin/supabase"), "supabase_migrations"),
        "atlas" => (of("bin/atlas"), "atlas_schema_revisions"),
        _ => (Command::new("node"), "__drizzle_migrations"),
    };
    let folder_text = folder.to_str().expect("a path of text");
    match case.name {
        "diesel" => command.args(["migration", "run", "--migration-dir", folder_text]).env("DATABASE_URL", &url),
        "golang_migrate" => command.args(["-path", folder_text, "-database", &plain, "up"]),
        "goose" => command.args(["-dir", folder_text, "postgres", &plain, "up"]),
        "dbmate" => command.args(["--url", &plain, "--migrations-dir", folder_text, "--no-dump-schema", "migrate"]),
        "sql_migrate" => {
            let config = format!("development:\n  dialect: postgres\n  datasource: {plain}\n  dir: {folder_text}\n");
            std::fs::write(folder.join("../dbconfig.yml"), config).expect("a file");
            command.arg("up").current_dir(folder.join(".."))
        }
        "tern" => {
            let config = format!("[database]\nconn_string = {plain}\n");
            std::fs::write(folder.join("../tern.conf"), config).expect("a file");
            command.args(["migrate", "--migrations", folder_text, "--config"]).arg(folder.join("../tern.conf"))
        }
        "sqlx" => command.args(["migrate", "run", "--source", folder_text, "--database-url", &plain]),
        "flyway" => command
            .args(["-cp", &format!("{}/flyway/*", tools.display())])
            .arg(source("dev/tools/Migrate.java"))
            .args([
                &format!("jdbc:{plain}").replace("postgres://", "postgresql://").replace(&credentials(database), ""),
                &format!("{}_migrator_a", database.name),
                folder_text,
            ]),
        "refinery" => command.args(["migrate", "-e", "DATABASE_URL", "-p", folder_text]).env("DATABASE_URL", &plain),
        "prisma" => {
            std::fs::write(folder.join("../schema.prisma"), "datasource db {\n  provider = \"postgresql\"\n}\n")
                .expect("a file");
            let config = "import { defineConfig, env } from 'prisma/config';\nexport default defineConfig({ schema: 'schema.prisma', migrations: { path: 'migrations' }, datasource: { url: process.env.DATABASE_URL } });\n";
            std::fs::write(folder.join("../prisma.config.ts"), config).expect("a file");
            let modules = folder.join("../node_modules");
            let _ = std::fs::remove_file(&modules);
            std::os::unix::fs::symlink(tools.join("node/node_modules"), modules).expect("a link");
            command
                .args(["migrate", "deploy"])
                .env("DATABASE_URL", &plain)
                // Prisma downloads its engine, which is not possible everywhere; its package has the same.
                .env("PRISMA_SCHEMA_ENGINE_BINARY", source("dev/tools/prisma-engine.cjs"))
                .env("NODE_PATH", tools.join("node/node_modules"))
                .env("CHECKPOINT_DISABLE", "1")
                .current_dir(folder.join(".."))
        }
        "supabase" => {
            let root = folder.join("..");
            place_for_supabase(&root, folder);
            command.args(["db", "push", "--yes", &format!("--remote={plain}"), "--workdir"]).arg(root)
        }
        "atlas" => {
            // The table that the migrations write into is there.
            let folder = format!("file://{folder_text}");
            command.args(["migrate", "apply", "--allow-dirty", "--dir", &folder, "--url", &plain])
        }
        _ => command
            .arg(source("dev/tools/drizzle.cjs"))
            .args([&plain, folder_text])
            .env("NODE_PATH", tools.join("node/node_modules")),
    };
    Tool { command, table }
}

/// A file of this repository.
fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Lets the folder be where Supabase looks for it below its working directory.
pub fn place_for_supabase(root: &Path, folder: &Path) {
    let parent = root.join("supabase");
    std::fs::create_dir_all(&parent).expect("a folder");
    std::os::unix::fs::symlink(folder, parent.join("migrations")).expect("a link");
}

fn credentials(database: &Database) -> String {
    format!("{}_migrator_a@", database.name)
}

/// Whether its program was built.
fn is_there(case: &Case, tools: &Path) -> bool {
    let path = match case.name {
        "diesel" => "bin/diesel",
        "golang_migrate" => "bin/migrate",
        "goose" => "bin/goose",
        "dbmate" => "node/node_modules/.bin/dbmate",
        "sql_migrate" => "bin/sql-migrate",
        "tern" => "bin/tern",
        "sqlx" => "bin/sqlx",
        "flyway" => "flyway",
        "refinery" => "bin/refinery",
        "prisma" => "node/node_modules/.bin/prisma",
        "supabase" => "node/node_modules/.bin/supabase",
        "atlas" => "bin/atlas",
        _ => "node/node_modules/drizzle-orm",
    };
    tools.join(path).exists()
}

#[tokio::test]
#[ignore = "needs the programs of the tools: make test-tools"]
async fn the_tools_leave_the_same_and_their_tables_are_taken_over() {
    let tools = PathBuf::from(std::env::var_os("TOOLS").expect("TOOLS names the folder with the tools"));
    let only = std::env::var("ONLY").ok();
    let mut seen = BTreeMap::new();
    for case in CASES.iter().filter(|case| only.as_deref().is_none_or(|only| only == case.name)) {
        if !is_there(case, &tools) {
            seen.insert(case.name, "not built".to_owned());
            continue;
        }
        let folder = Folder { name: case.name, case, files: &(case.folder)(), set: case.set() };
        let result = match compare(&folder, &tools).await {
            Ok(order) => recorded(case, &order),
            Err(problem) => problem,
        };
        seen.insert(case.name, result);
    }
    for (name, result) in &seen {
        println!("{name}: {result}");
    }
    assert!(seen.values().all(|result| result == "the same"), "{seen:?}");
}

/// Records the order of a tool, or compares it with that of the record.
fn recorded(case: &Case, order: &[String]) -> String {
    if std::env::var_os("RECORD").is_some() {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/migrate/layouts/expected/{}.txt", case.name));
        let version = std::env::var(format!("VERSION_{}", case.name)).unwrap_or_default();
        std::fs::write(file, format!("{version}\n{}\n", order.join("\n"))).expect("a file");
    } else if order != case.expected() {
        return format!("it ran another order than was recorded: {order:?}");
    }
    "the same".to_owned()
}

/// A folder, and how Servicedb reads it.
pub struct Folder<'a> {
    /// A part of the names of databases.
    pub name: &'a str,
    /// The tool.
    pub case: &'a Case,
    pub files: &'a Files,
    pub set: MigrationSet,
}

/// Lets the tool and Servicedb run a folder: the order of both, or how they differ.
pub async fn compare(folder: &Folder<'_>, tools: &Path) -> Result<Vec<String>, String> {
    let Folder { name, case, files, set } = folder;
    let theirs = prepared(&format!("tool_{name}")).await;
    let admin = theirs.superuser().await;
    let owner = theirs.owner();
    // What the tool creates belongs to the owner, as with Servicedb.
    let role = format!(
        "ALTER ROLE {}_migrator_a SET role = {owner}; GRANT CREATE ON DATABASE {} TO {owner}",
        theirs.name, theirs.name
    );
    admin.client.batch_execute(&role).await.expect("the role");
    if case.name == "prisma" {
        let table = format!("SET ROLE {owner}; {PRISMAS_TABLE}; RESET ROLE");
        admin.client.batch_execute(&table).await.expect("the table");
    }
    let root = std::env::temp_dir().join(format!("servicedb-tools-{name}-{}", std::process::id()));
    let folder = root.join("migrations");
    for (path, text) in files.iter() {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    let Tool { mut command, table } = tool(case, tools, &folder, &theirs);
    let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let _ = std::fs::remove_dir_all(&root);
    if !output.status.success() {
        return Err(format!("{}: {words}", output.status));
    }
    let order = query(&admin, ORDER).await;
    let ours = prepared(&format!("servicedb_{name}")).await;
    let (_, failure) = run(&ours, set).await;
    if let Some(failure) = failure {
        return Err(format!("Servicedb: {failure:?}"));
    }
    let (left, right) = (catalog(&admin.client).await, catalog(&ours.superuser().await.client).await);
    let found = differences(&right.expect("a catalog"), &left.expect("a catalog"));
    let found: Vec<String> =
        found.iter().map(ToString::to_string).map(|line| line.replace(&theirs.name, &ours.name)).collect();
    let own = ["drizzle", table];
    // The owners have the names of their databases.
    let renamed = |line: &str| {
        let parts = line.split_once(" is ").and_then(|(_, rest)| rest.split_once("; the migrations define "));
        parts.is_some_and(|(one, other)| one == other)
    };
    let found: Vec<&String> =
        found.iter().filter(|line| !renamed(line) && !own.iter().any(|own| line.contains(own))).collect();
    if !found.is_empty() {
        return Err(format!("the catalogs differ: {found:?}"));
    }
    let here = query(&ours.superuser().await, ORDER).await;
    if here != order {
        return Err(format!("Servicedb ran them in the order {here:?}, and the tool in the order {order:?}"));
    }
    // The tool's own table says what it has applied: nothing is left to run.
    let policy = Policy { baseline_from_tool: true, ..Policy::default() };
    let (done, failure) = run_as(&theirs, set, &policy).await;
    let rows = query(&admin, "SELECT count(*) FROM servicedb.migrations WHERE status = 'completed'").await;
    if (done.applied, &failure, rows) != (0, &None, vec![fresh(set).to_string()]) {
        return Err(format!("taken over: {} applied, {failure:?}", done.applied));
    }
    Ok(order)
}
