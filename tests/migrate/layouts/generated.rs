//! Folders that the tools' own generators have made, with each of their options: recorded in `generated/`
//! by `dev/test-tools.sh`, which lets the tools run them, too.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use servicedb::api::MigrationFormat;
use servicedb::migrate::source::{self, MigrationSet};

use super::folders::Files;
use super::tools::{self, Folder};
use super::{CASES, Case, ORDER, prepared};
use crate::{query, run};

/// A tool's generator, and what it made.
struct Generator {
    /// The tool.
    tool: &'static str,
    /// The name of the record.
    name: &'static str,
    recorded: &'static str,
    program: &'static str,
    /// The arguments of each of its ways to make a file, in which FOLDER and NAME are replaced.
    ways: &'static [&'static [&'static str]],
    /// Behind these lines, or at the end of a file without them, belong the statements of either direction.
    up: &'static str,
    down: &'static str,
    /// The arguments of a last call, once the files have their statements.
    end: &'static [&'static str],
}

macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("generated/", $name, ".txt"))
    };
}

/// With one of its prefixes; it takes paths below its folder alone.
macro_rules! drizzle_kit {
    ($prefix:literal) => {
        &[
            "generate",
            "--custom",
            "--dialect",
            "postgresql",
            "--schema",
            "schema.ts",
            "--out",
            "migrations",
            "--prefix",
            $prefix,
            "--name",
            "NAME",
        ]
    };
}

/// How many files the ways of a generator make together.
const COUNT: usize = 24;

const GENERATORS: &[Generator] = &[
    Generator {
        tool: "goose",
        name: "goose",
        recorded: recorded!("goose"),
        program: "bin/goose",
        ways: &[&["-dir", "FOLDER", "-s", "create", "NAME", "sql"], &["-dir", "FOLDER", "create", "NAME", "sql"]],
        up: "SELECT 'up SQL query';\n",
        down: "SELECT 'down SQL query';\n",
        end: &[],
    },
    Generator {
        tool: "golang_migrate",
        name: "golang_migrate",
        recorded: recorded!("golang_migrate"),
        program: "bin/migrate",
        ways: &[
            &["create", "-ext", "sql", "-dir", "FOLDER", "-seq", "-digits", "4", "NAME"],
            &["create", "-ext", "pgsql", "-dir", "FOLDER", "-format", "unix", "NAME"],
            &["create", "-ext", "sql", "-dir", "FOLDER", "NAME"],
        ],
        up: "",
        down: "",
        end: &[],
    },
    Generator {
        tool: "dbmate",
        name: "dbmate",
        recorded: recorded!("dbmate"),
        program: "node/node_modules/.bin/dbmate",
        ways: &[&["--migrations-dir", "FOLDER", "new", "NAME"]],
        up: "-- migrate:up\n",
        down: "-- migrate:down\n",
        end: &[],
    },
    Generator {
        tool: "sql_migrate",
        name: "sql_migrate",
        recorded: recorded!("sql_migrate"),
        program: "bin/sql-migrate",
        ways: &[&["new", "-config", "FOLDER/../dbconfig.yml", "NAME"]],
        up: "-- +migrate Up\n",
        down: "-- +migrate Down\n",
        end: &[],
    },
    Generator {
        tool: "tern",
        name: "tern",
        recorded: recorded!("tern"),
        program: "bin/tern",
        ways: &[&["new", "--migrations", "FOLDER", "NAME"]],
        up: "-- Write your migrate up statements here\n",
        down: "-- Then delete the separator line above.\n",
        end: &[],
    },
    Generator {
        tool: "sqlx",
        name: "sqlx",
        recorded: recorded!("sqlx"),
        program: "bin/sqlx",
        ways: &[
            &["migrate", "add", "--source", "FOLDER", "--sequential", "NAME"],
            &["migrate", "add", "--source", "FOLDER", "--timestamp", "NAME"],
        ],
        up: "",
        down: "",
        end: &[],
    },
    Generator {
        tool: "sqlx",
        name: "sqlx_reversible",
        recorded: recorded!("sqlx_reversible"),
        program: "bin/sqlx",
        ways: &[
            &["migrate", "add", "--source", "FOLDER", "-r", "--sequential", "NAME"],
            &["migrate", "add", "--source", "FOLDER", "-r", "--timestamp", "NAME"],
        ],
        up: "",
        down: "",
        end: &[],
    },
    Generator {
        tool: "diesel",
        name: "diesel",
        recorded: recorded!("diesel"),
        program: "bin/diesel",
        ways: &[
            &["migration", "generate", "NAME", "--migration-dir", "FOLDER"],
            &["migration", "generate", "NAME", "--no-down", "--migration-dir", "FOLDER"],
        ],
        up: "",
        down: "",
        end: &[],
    },
    Generator {
        tool: "supabase",
        name: "supabase",
        recorded: recorded!("supabase"),
        program: "node/node_modules/.bin/supabase",
        ways: &[&["migration", "new", "NAME", "--workdir", "FOLDER/.."]],
        up: "",
        down: "",
        end: &[],
    },
    Generator {
        tool: "atlas",
        name: "atlas",
        recorded: recorded!("atlas"),
        program: "bin/atlas",
        ways: &[&["migrate", "new", "NAME", "--dir", "file://FOLDER"]],
        up: "",
        down: "",
        end: &["migrate", "hash", "--dir", "file://FOLDER"],
    },
    Generator {
        tool: "drizzle",
        name: "drizzle",
        recorded: recorded!("drizzle"),
        program: "node/node_modules/.bin/drizzle-kit",
        ways: &[
            // Of two that sort otherwise, it would take the wrong one for the newest, and make nothing more.
            drizzle_kit!("index"),
            drizzle_kit!("unix"),
            drizzle_kit!("timestamp"),
            drizzle_kit!("supabase"),
            drizzle_kit!("none"),
        ],
        up: "",
        down: "",
        end: &[],
    },
];

/// How a recorded file begins.
const FILE: &str = "==> ";

/// The files of a recorded folder, without its first line, which names the tool.
fn recorded(text: &str) -> Files {
    let mut files = Files::new();
    for line in text.split_inclusive('\n').skip(1) {
        match (line.strip_prefix(FILE), files.last_mut()) {
            (Some(path), _) => files.push((path.trim_end().to_owned(), String::new())),
            (None, Some((_, text))) => text.push_str(line),
            (None, None) => {}
        }
    }
    files
}

impl Generator {
    fn case(&self) -> &'static Case {
        CASES.iter().find(|case| case.name == self.tool).expect("a tool")
    }

    fn set(&self, files: &Files, format: MigrationFormat) -> MigrationSet {
        let files = files.iter().map(|(path, text)| (path.clone(), text.clone().into_bytes()));
        source::read(files, format).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Makes the files, and fills them.
    fn make(&self, tools: &Path, folder: &Path) -> Files {
        std::fs::create_dir_all(folder).expect("a folder");
        let path = folder.to_str().expect("text");
        let config = format!("development:\n  dialect: postgres\n  datasource: x\n  dir: {path}\n");
        let root = folder.parent().expect("a parent");
        std::fs::write(root.join("dbconfig.yml"), config).expect("a file");
        std::fs::write(root.join("schema.ts"), "").expect("a file");
        let _ = std::os::unix::fs::symlink(tools.join("node/node_modules"), root.join("node_modules"));
        tools::place_for_supabase(root, folder);
        let mut made: Vec<(String, usize)> = Vec::new();
        for n in 1..=COUNT {
            let way = self.ways[(n - 1) * self.ways.len() / COUNT];
            let name = format!("table_{n}");
            let arguments = way.iter().map(|argument| argument.replace("FOLDER", path).replace("NAME", &name));
            let mut command = Command::new(tools.join(self.program));
            let output = command.args(arguments).current_dir(root).output().expect(self.name);
            assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
            for file in walk(folder) {
                if made.iter().all(|(made, _)| *made != file) {
                    made.push((file, n));
                }
            }
            // Most names have seconds.
            std::thread::sleep(Duration::from_millis(1050));
        }
        // Some tools refuse to make another file beside one that was changed.
        for (file, n) in made.iter().filter(|(file, _)| file.ends_with("sql")) {
            let path = folder.join(file);
            let written = std::fs::read_to_string(&path).expect("text");
            std::fs::write(&path, self.fill(file, &written, *n)).expect("a file");
        }
        if !self.end.is_empty() {
            let arguments = self.end.iter().map(|argument| argument.replace("FOLDER", path));
            let output = Command::new(tools.join(self.program)).args(arguments).output().expect(self.name);
            assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        let text = |(file, _): (String, usize)| {
            let text = std::fs::read_to_string(folder.join(&file)).expect("text");
            (file, text)
        };
        made.into_iter().map(text).collect()
    }

    fn fill(&self, file: &str, written: &str, n: usize) -> String {
        let up = format!("CREATE TABLE t{n} (id int PRIMARY KEY);\nINSERT INTO ran (what) VALUES ('{n}');\n");
        let down = format!("DROP TABLE t{n};\n");
        let insert = |text: &str, mark: &str, sql: &str| match text.split_once(mark) {
            Some((before, after)) if !mark.is_empty() => format!("{before}{mark}{sql}{after}"),
            _ if text.is_empty() || text.ends_with('\n') => format!("{text}{sql}"),
            _ => format!("{text}\n{sql}"),
        };
        let directions = file.rsplit(['/', '.']).any(|part| part == "down");
        if directions {
            return insert(written, self.down, &down);
        }
        let text = insert(written, self.up, &up);
        if self.down.is_empty() { text } else { insert(&text, self.down, &down) }
    }
}

/// The files of a folder and its folders, by their paths in it.
fn walk(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = format!("{prefix}{}", entry.file_name().to_str().expect("text"));
            if entry.path().is_dir() {
                folders.push((entry.path(), format!("{path}/")));
            } else {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    files
}

fn in_the_order_made() -> Vec<String> {
    (1..=COUNT).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn folders_of_the_tools_generators_are_taken_as_they_are() {
    for generator in GENERATORS {
        let (name, format) = (generator.name, generator.case().format);
        let files = recorded(generator.recorded);
        let set = generator.set(&files, MigrationFormat::Auto);
        // Names with both directions are Servicedb's own, too, and plain ones are sqlx's.
        let same = [format, MigrationFormat::Servicedb, MigrationFormat::Sqlx];
        assert!(same.contains(&set.format), "{name}: {:?}", set.format);
        let database = prepared(&format!("generated_{name}")).await;
        assert_eq!(run(&database, &set).await.1, None, "{name}");
        assert_eq!(query(&database.superuser().await, ORDER).await, in_the_order_made(), "{name}");
    }
}

#[tokio::test]
#[ignore = "needs the programs of the tools: make test-tools"]
async fn the_tools_run_what_they_have_generated() {
    let tools = PathBuf::from(std::env::var_os("TOOLS").expect("TOOLS names the folder with the tools"));
    let only = std::env::var("ONLY").ok();
    for generator in GENERATORS.iter().filter(|one| only.as_deref().is_none_or(|only| only == one.tool)) {
        let name = generator.name;
        if !tools.join(generator.program).exists() {
            println!("{name}: not built");
            continue;
        }
        let root = std::env::temp_dir().join(format!("servicedb-generated-{name}-{}", std::process::id()));
        let files = generator.make(&tools, &root.join("migrations"));
        std::fs::remove_dir_all(&root).expect("removed");
        let set = generator.set(&files, generator.case().format);
        let expected = in_the_order_made();
        let result = tools::compare(
            &Folder { name: &format!("made_{name}"), case: generator.case(), files: &files, set },
            &tools,
        )
        .await;
        println!("{name}, generated: {}", result.as_ref().map_or_else(String::as_str, |_| "the same"));
        assert_eq!(result, Ok(expected), "{name}");
        if std::env::var_os("RECORD").is_some() {
            let version = std::env::var(format!("VERSION_{}", generator.tool)).unwrap_or_default();
            let mut text = format!("{version}\n");
            for (path, content) in &files {
                let newline = if content.ends_with('\n') { "" } else { "\n" };
                let _ = write!(text, "{FILE}{path}\n{content}{newline}");
            }
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migrate/layouts/generated");
            std::fs::write(folder.join(format!("{name}.txt")), text).expect("a file");
        }
    }
}
