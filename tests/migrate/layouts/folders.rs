//! Folders as the tools lay them out: 24 migrations each, with every option that the tool has. Each
//! migration writes its file into the table `ran`, unless it can have one statement only.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// Files by path.
pub type Files = Vec<(String, String)>;

const COUNT: usize = 24;
/// The migration that builds an index concurrently, on the table of the first.
const INDEX: usize = 7;
/// The one with a function, whose body has semicolons at the ends of lines.
const FUNCTION: usize = 9;
/// The one with line ends of Windows.
const WINDOWS: usize = 11;
/// The one without a last newline.
const UNENDED: usize = 12;

const CONCURRENTLY: &str = "CREATE INDEX CONCURRENTLY t1_name ON t1 (name);\n";

fn ran(file: &str) -> String {
    format!("INSERT INTO ran (what) VALUES ('{file}');\n")
}

fn function() -> &'static str {
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$\nBEGIN\n  PERFORM 1;\n  RETURN 2;\nEND;\n$$;\n"
}

/// What the n-th migration does, without what reverts it.
fn up(n: usize, file: &str) -> String {
    let table = format!("CREATE TABLE t{n} (\n  id int PRIMARY KEY,\n  name text DEFAULT 'a;b'\n);\n");
    let text = format!("-- it''s {n}\n{table}{}", ran(file));
    match n {
        WINDOWS => text.replace('\n', "\r\n"),
        UNENDED => text.trim_end().to_owned(),
        _ => text,
    }
}

fn down(n: usize) -> String {
    match n {
        INDEX => "DROP INDEX t1_name;\n".to_owned(),
        FUNCTION => "DROP FUNCTION f();\n".to_owned(),
        _ => format!("DROP TABLE t{n};\n"),
    }
}

/// What `diesel setup` has made; folders with dashes, with `-0000` behind, without both, and with spaces
/// in the name; options that say something, and some that say nothing.
pub fn diesel() -> Files {
    let setup = include_str!("generated/diesel_setup.sql");
    let mut files = vec![
        ("00000000000000_diesel_initial_setup/up.sql".to_owned(), format!("{setup}\n{}", ran("00000000000000"))),
        ("00000000000000_diesel_initial_setup/down.sql".to_owned(), "SELECT 1;\n".to_owned()),
        (".diesel_lock".to_owned(), String::new()),
        ("README.md".to_owned(), "# no migration\n".to_owned()),
    ];
    for n in 1..COUNT {
        let folder = match n % 3 {
            0 => format!("2019-01-{n:02}-120000_t{n}"),
            1 => format!("2019-01-{n:02}-120000-0000_t{n}"),
            _ => format!("201901{n:02}120000_the table {n}"),
        };
        let (text, metadata) = match n {
            INDEX => (CONCURRENTLY.to_owned(), Some("run_in_transaction = false\n")),
            // Without the option, there is no transaction either.
            8 => (CONCURRENTLY.replace("t1_name", "t1_more"), Some("# run_in_transaction = true\n")),
            FUNCTION => (format!("{}{}", function(), ran(&folder)), Some("run_in_transaction = true\n")),
            _ => (up(n, &folder), None),
        };
        files.push((format!("{folder}/up.sql"), text));
        files.push((format!("{folder}/down.sql"), down(n)));
        files.extend(metadata.map(|text| (format!("{folder}/metadata.toml"), text.to_owned())));
    }
    files
}

/// Numbers without leading zeros, a file in a transaction of its own, another ending.
pub fn golang_migrate() -> Files {
    let mut files = vec![("README.md".to_owned(), "# no migration\n".to_owned())];
    for n in 1..=COUNT {
        let name = format!("{n}_t {n}");
        let file = format!("{name}.up.sql");
        let text = match n {
            INDEX => CONCURRENTLY.to_owned(),
            FUNCTION => format!("{}{}", function(), ran(&file)),
            5 => format!("BEGIN;\n{}COMMIT;\n", up(n, &file)),
            _ => up(n, &file),
        };
        files.push((file, text));
        files.push((format!("{name}.down.sql"), down(n)));
    }
    files
}

pub fn goose() -> Files {
    let mut files =
        vec![("README.md".to_owned(), "# no migration\n".to_owned()), ("data/x.sql".to_owned(), "x".to_owned())];
    for n in 1..=COUNT {
        let file = if n % 2 == 0 { format!("{n}_t.sql") } else { format!("{n:05}_t.sql") };
        let text = match n {
            INDEX => format!("-- +goose NO TRANSACTION\n-- +goose Up\n{CONCURRENTLY}{}", ran(&file)),
            FUNCTION => {
                format!("-- +goose Up\n-- +goose StatementBegin\n{}-- +goose StatementEnd\n{}", function(), ran(&file))
            }
            // goose sends what ends with a semicolon, also without a newline behind.
            _ => format!("-- +goose Up\n{}", up(n, &file)),
        };
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        files.push((file, format!("{text}{newline}\n-- +goose Down\n{}", down(n))));
    }
    files
}

/// Versions of different lengths, so that the order of the names is not that of the numbers.
pub fn dbmate() -> Files {
    let mut files = vec![("notes.txt".to_owned(), "no migration\n".to_owned())];
    for n in 1..=COUNT {
        let file = if n % 4 == 0 { format!("{n}_t.sql") } else { format!("201901{n:02}120000_t{n}.sql") };
        let text = match n {
            INDEX => format!("-- migrate:up transaction:false\n{CONCURRENTLY}"),
            FUNCTION => format!("-- a comment first\n\n-- migrate:up\n{}{}", function(), ran(&file)),
            _ => format!("-- migrate:up\n{}", up(n, &file)),
        };
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        files.push((file, format!("{text}{newline}\n-- migrate:down\n{}", down(n))));
    }
    // The index needs its table: the first by name has it.
    files.iter_mut().filter(|(file, _)| file == "12_t.sql").for_each(|(_, text)| {
        *text = text.replace("CREATE TABLE t12 ", "CREATE TABLE t1 ").replace("DROP TABLE t12", "DROP TABLE t1");
    });
    files.iter_mut().filter(|(file, _)| file == "20190101120000_t1.sql").for_each(|(_, text)| {
        *text = text.replace("CREATE TABLE t1 ", "CREATE TABLE t12 ").replace("DROP TABLE t1;", "DROP TABLE t12;");
    });
    files
}

/// Names with a number in front, and names without.
pub fn sql_migrate() -> Files {
    let mut files = vec![("README.md".to_owned(), "# no migration\n".to_owned())];
    for n in 1..=COUNT {
        let file = if n > 20 { format!("z{n}.sql") } else { format!("{n}-t.sql") };
        let text = match n {
            INDEX => format!("-- +migrate Up notransaction\n{CONCURRENTLY}{}", ran(&file)),
            FUNCTION => format!(
                "-- +migrate Up\n-- +migrate StatementBegin\n{}-- +migrate StatementEnd\n{}",
                function(),
                ran(&file)
            ),
            _ => format!("-- +migrate Up\n{}", up(n, &file)),
        };
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        files.push((file, format!("{text}{newline}\n-- +migrate Down\n{}", down(n))));
    }
    files
}

pub fn tern() -> Files {
    let mut files = vec![("README.md".to_owned(), "# no migration\n".to_owned())];
    for n in 1..=COUNT {
        let file = format!("{n:03}_t.sql");
        let text = match n {
            INDEX => format!("---- tern: disable-tx ----\n{CONCURRENTLY}{}", ran(&file)),
            FUNCTION => format!("{}{}", function(), ran(&file)),
            _ => up(n, &file),
        };
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        files.push((file, format!("{text}{newline}\n---- create above / drop below ----\n\n{}", down(n))));
    }
    files
}

/// Simple files, since those that can be reverted have the names of Servicedb's own.
pub fn sqlx() -> Files {
    let mut files = vec![("README.md".to_owned(), "# no migration\n".to_owned())];
    for n in 1..=COUNT {
        let file = format!("201901{n:02}120000_t {n}.sql");
        let text = match n {
            INDEX => format!("-- no-transaction\n{CONCURRENTLY}"),
            FUNCTION => format!("{}{}", function(), ran(&file)),
            _ => up(n, &file),
        };
        files.push((file, text));
    }
    files
}

/// Dotted and underscored versions, subfolders, a repeatable one and a file beside with options.
pub fn flyway() -> Files {
    let mut files = vec![("README.md".to_owned(), "# no migration\n".to_owned())];
    for n in 1..=COUNT {
        let version = match n % 4 {
            0 => format!("1.{n}"),
            1 => format!("1_{n}"),
            2 => format!("1.{n}.0.1"),
            _ => format!("01.{n:03}"),
        };
        let folder = if n % 5 == 0 { "more/" } else { "" };
        let ending = if n % 6 == 0 { "SQL" } else { "sql" };
        let file = format!("{folder}V{version}__the_table_{n}.{ending}");
        let text = match n {
            INDEX => CONCURRENTLY.to_owned(),
            FUNCTION => format!("{}{}", function(), ran(&file)),
            8 => {
                files.push((format!("{file}.conf"), "executeInTransaction=false\n".to_owned()));
                up(n, &file)
            }
            _ => up(n, &file),
        };
        files.push((file, text));
    }
    for name in ["R__b_view.sql", "R__a_view.sql"] {
        let view = &name[3..4];
        files.push((name.to_owned(), format!("CREATE OR REPLACE VIEW view_{view} AS SELECT 1 AS one;\n{}", ran(name))));
    }
    files
}

/// `V` and `U`, in subfolders too.
pub fn refinery() -> Files {
    let mut files = vec![("README.md".to_owned(), "# no migration\n".to_owned())];
    for n in 1..=COUNT {
        let (prefix, folder) = (if n % 5 == 0 { 'U' } else { 'V' }, if n % 7 == 0 { "more/" } else { "" });
        let file = format!("{folder}{prefix}{n}__t{n}.sql");
        let text = match n {
            FUNCTION => format!("{}{}", function(), ran(&file)),
            _ => up(n, &file),
        };
        files.push((file, text));
    }
    files
}

/// Two folders of one timestamp, in small and in large letters.
pub fn prisma() -> Files {
    let mut files = vec![("migration_lock.toml".to_owned(), "provider = \"postgresql\"\n".to_owned())];
    for n in 1..=COUNT {
        let folder = match n {
            20 => "20190120120000_Z".to_owned(),
            21 => "20190120120000_a".to_owned(),
            22 => "20190120120000_a_b".to_owned(),
            23 => "20190120120000_a1".to_owned(),
            _ => format!("201901{n:02}120000_t{n}"),
        };
        let text = match n {
            INDEX => CONCURRENTLY.to_owned(),
            FUNCTION => format!("{}{}", function(), ran(&folder)),
            5 => format!("BEGIN;\n{}COMMIT;\n", up(n, &folder)),
            _ => up(n, &folder),
        };
        files.push((format!("{folder}/migration.sql"), text));
    }
    files
}

/// Versions of different lengths, and an index between other statements.
pub fn supabase() -> Files {
    let mut files = vec![("README.md".to_owned(), "# no migration\n".to_owned())];
    for n in 1..=COUNT {
        let file = if n % 4 == 0 { format!("{n}_t {n}.sql") } else { format!("201901{n:02}120000_t{n}.sql") };
        let text = match n {
            INDEX => format!("CREATE TABLE t{n} (id int);\n{CONCURRENTLY}{}", ran(&file)),
            FUNCTION => format!("{}{}", function(), ran(&file)),
            5 => format!("BEGIN;\n{}COMMIT;\n", up(n, &file)),
            _ => up(n, &file),
        };
        files.push((file, text));
    }
    files
}

/// The second file is a checkpoint, in place of the first; further ones have other delimiters.
pub fn atlas() -> Files {
    let mut files = Files::new();
    for n in 1..=COUNT {
        let file = format!("201901{n:02}120000_t{n}.sql");
        let text = match n {
            INDEX => format!("-- atlas:txmode none\n\n{CONCURRENTLY}{}", ran(&file)),
            FUNCTION => format!("{}{}", function(), ran(&file)),
            5 => format!("-- atlas:delimiter \\n\\n\\n\n{}", up(n, &file).replace(");\nINSERT", ")\n\n\nINSERT")),
            6 => format!("-- atlas:delimiter -- end\n{}", up(n, &file).replace(";\nINSERT", "\n-- end\nINSERT")),
            _ => up(n, &file),
        };
        files.push((file, text));
        if n == 1 {
            let file = "20190101130000_all.sql".to_owned();
            let text = format!("-- atlas:checkpoint\n\n{}", up(1, &file));
            files.push((file, text));
        }
    }
    files.push(atlas_sum(&files));
    files.push(("README.md".to_owned(), "# no migration\n".to_owned()));
    files
}

/// The file with the sums of files that are in the order of their names.
pub fn atlas_sum(files: &Files) -> (String, String) {
    let (mut hasher, mut total) = (Sha256::new(), Sha256::new());
    let mut sums = String::new();
    for (file, text) in files {
        hasher.update(format!("{file}{text}"));
        let sum = STANDARD.encode(hasher.clone().finalize());
        total.update(format!("{file}{sum}"));
        let _ = writeln!(sums, "{file} h1:{sum}");
    }
    ("atlas.sum".to_owned(), format!("h1:{}\n{sums}", STANDARD.encode(total.finalize())))
}

/// The journal's order is not that of the names.
pub fn drizzle() -> Files {
    let mut entries = String::new();
    let mut files = Files::new();
    for n in 1..=COUNT {
        let tag = format!(
            "{:04}_t{n}",
            if n == 15 {
                16
            } else if n == 16 {
                15
            } else {
                n
            }
        );
        let file = format!("{tag}.sql");
        let text = match n {
            FUNCTION => format!("{}--> statement-breakpoint\n{}", function(), ran(&file)),
            // Without a semicolon before the break.
            _ => up(n, &file).replace(");\nINSERT", ")\n--> statement-breakpoint\nINSERT"),
        };
        let comma = if n == COUNT { "" } else { "," };
        let when = 1_700_000_000_000_usize + n;
        let _ = writeln!(
            entries,
            "{{\"idx\": {n}, \"version\": \"7\", \"when\": {when}, \"tag\": \"{tag}\", \"breakpoints\": true}}{comma}"
        );
        files.push((file, text));
    }
    let journal = format!("{{\"version\": \"7\", \"dialect\": \"postgresql\", \"entries\": [\n{entries}]}}\n");
    files.push(("meta/_journal.json".to_owned(), journal));
    files
}
