//! How long a thousand files of each layout take to read and plan, beside Servicedb's own.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use servicedb::api::MigrationFormat;
use servicedb::contract::migration::Policy;
use servicedb::migrate::{source, stop};

use crate::server::Database;
use crate::{database, limits, run_with};

const COUNT: usize = 1000;
/// The limit of the ratio to Servicedb's own layout.
const LIMIT: f64 = 1.2;
const ROUNDS: u32 = 15;

type Files = Vec<(String, Vec<u8>)>;

fn sql(n: usize) -> String {
    format!(
        "CREATE TABLE t{n} (\n  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n  name text NOT NULL DEFAULT 'a;b'\n);\n\
         CREATE INDEX t{n}_name ON t{n} (name);\nINSERT INTO t{n} (name) VALUES ('{n}');\n"
    )
}

fn down(n: usize) -> String {
    format!("DROP TABLE t{n};\n")
}

/// Two files of each migration, up and down.
fn pairs(name: impl Fn(usize, &str) -> String) -> Files {
    (1..=COUNT).flat_map(|n| [(name(n, "up"), sql(n).into_bytes()), (name(n, "down"), down(n).into_bytes())]).collect()
}

/// One file of each migration.
fn files(one: impl Fn(usize) -> (String, String)) -> Files {
    (1..=COUNT).map(one).map(|(name, text)| (name, text.into_bytes())).collect()
}

fn layouts() -> Vec<(MigrationFormat, bool, Files)> {
    let own = || pairs(|n, side| format!("{n:05}_t.{side}.sql"));
    let marked = |up: &'static str, below: &'static str| {
        files(move |n| (format!("{n:05}_t.sql"), format!("{up}\n{}\n{below}\n{}", sql(n), down(n))))
    };
    let mut drizzle =
        files(|n| (format!("{n:04}_t.sql"), sql(n).replace(";\nCREATE", ";\n--> statement-breakpoint\nCREATE")));
    let entries: Vec<String> = (1..=COUNT).map(|n| format!("{{\"tag\": \"{n:04}_t\", \"when\": {n}}}")).collect();
    drizzle.push((
        "meta/_journal.json".to_owned(),
        format!("{{\"entries\": [\n{}\n]}}", entries.join(",\n")).into_bytes(),
    ));
    let mut sums: super::folders::Files = (1..=COUNT).map(|n| (format!("{n:014}_t.sql"), sql(n))).collect();
    sums.push(super::folders::atlas_sum(&sums));
    let atlas = sums.into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
    let undo = |n, side: &str| format!("{}1.{n}__t.sql", if side == "up" { 'V' } else { 'U' });
    vec![
        // Each with as much text as the layout that it is compared with: both directions, or up alone.
        (MigrationFormat::Servicedb, true, own()),
        (MigrationFormat::Diesel, true, pairs(|n, side| format!("2019-01-01-{n:06}_t/{side}.sql"))),
        (MigrationFormat::GolangMigrate, true, own()),
        (MigrationFormat::Goose, true, marked("-- +goose Up", "-- +goose Down")),
        (MigrationFormat::Dbmate, true, marked("-- migrate:up", "-- migrate:down")),
        (MigrationFormat::SqlMigrate, true, marked("-- +migrate Up", "-- +migrate Down")),
        (MigrationFormat::Tern, true, marked("", "---- create above / drop below ----")),
        (MigrationFormat::Flyway, true, pairs(undo)),
        (MigrationFormat::Servicedb, false, files(|n| (format!("{n:05}_t.up.sql"), sql(n)))),
        (MigrationFormat::Sqlx, false, files(|n| (format!("{n:05}_t.sql"), sql(n)))),
        (MigrationFormat::Refinery, false, files(|n| (format!("V{n}__t.sql"), sql(n)))),
        (MigrationFormat::Prisma, false, files(|n| (format!("{n:014}_t/migration.sql"), sql(n)))),
        (MigrationFormat::Supabase, false, files(|n| (format!("{n:014}_t.sql"), sql(n)))),
        (MigrationFormat::Atlas, false, atlas),
        (MigrationFormat::Drizzle, false, drizzle),
    ]
}

/// The time that this thread was given by a processor.
fn given() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("Linux");
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(u64::try_from(time.num_microseconds()).expect("not negative"))
}

/// What files take to read, as those of a tool or recognised, and to plan in an empty database; none if they are
/// recognised as those of another tool.
async fn took(
    files: &Files,
    format: MigrationFormat,
    as_format: MigrationFormat,
    database: &Database,
) -> Option<Duration> {
    let files = files.clone();
    let session = database.migrator().await;
    let policy = Policy { dry_run: true, ..Policy::default() };
    let started = given();
    let set = source::read(files, as_format).ok()?;
    let (done, failure) = run_with(&session, database, &set, &policy, &limits(), &stop().1).await;
    let took = given() - started;
    let planned = done.plan.map(|plan| plan.apply);
    (set.format == format).then(|| assert_eq!((planned, failure), (i64::try_from(COUNT).ok(), None), "{format:?}"))?;
    Some(took)
}

/// A measurement: `cargo test --release --test migrate -- --ignored --nocapture thousand_files`.
#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn a_thousand_files_of_each_layout_beside_servicedbs_own() {
    let layouts = layouts();
    let database = database("speed").await;
    let mut over = Vec::new();
    for recognised in [false, true] {
        // All in each round, so that a busy moment does not fall on one of them.
        let mut sums: Vec<Option<Duration>> = vec![Some(Duration::ZERO); layouts.len()];
        for _ in 0..ROUNDS {
            for (sum, (format, _, files)) in sums.iter_mut().zip(&layouts) {
                let as_format = if recognised { MigrationFormat::Auto } else { *format };
                let now = if sum.is_some() { took(files, *format, as_format, &database).await } else { None };
                *sum = sum.zip(now).map(|(sum, now)| sum + now);
            }
        }
        let own = |both| {
            let own = |one: &(MigrationFormat, bool, Files)| one.0 == MigrationFormat::Servicedb && one.1 == both;
            sums[layouts.iter().position(own).expect("it is there")].expect("it is recognised")
        };
        println!("{}", if recognised { "recognised:" } else { "named:" });
        for (took, (format, both, _)) in sums.iter().zip(&layouts) {
            let Some(took) = took else { continue };
            let ratio = took.as_secs_f64() / own(*both).as_secs_f64();
            println!(
                "{:<14} {:>8.2} ms, ratio {ratio:.2}",
                format.name(),
                took.as_secs_f64() * 1000.0 / f64::from(ROUNDS)
            );
            if ratio > LIMIT {
                over.push(format.name());
            }
        }
    }
    assert_eq!(over, Vec::<&str>::new(), "above {LIMIT}");
}

/// The most memory that this process has used since the last call, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is there");
    std::fs::write("/proc/self/clear_refs", "5").expect("it can be set back");
    peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

/// A measurement: `cargo test --test migrate -- --ignored --nocapture memory_of`.
#[test]
#[ignore = "a measurement, not a test"]
fn memory_of_files_with_a_million_statements() {
    const MIB: usize = 1 << 20;
    // What a resource can name at most, and a file of an image.
    for (name, count, size) in [("16 ConfigMaps", 16, MIB), ("an image's file", 1, 16 * MIB)] {
        let text = "a;".repeat(size / 2).into_bytes();
        let files: Files = (1..=count).map(|n| (format!("{n}_t.up.sql"), text.clone())).collect();
        drop(text);
        let before = peak().min(peak());
        let set = source::read(files, MigrationFormat::Auto).expect("valid");
        let used = peak() - before;
        println!("{name}, {} MiB of {} statements: {used} MiB more", count * size / MIB, count * size / 2);
        assert_eq!(set.migrations.len(), count);
        // A copy of each text, and two of one while it is read.
        let texts = u64::try_from((count + 2) * size / MIB).expect("small");
        assert!(used <= texts + 16, "{used} MiB");
    }
}
