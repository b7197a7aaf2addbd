//! The major version of databases whose tests name none.
//!
//! `E2E_POSTGRES` chooses it: `17` or `18` for all tests; `mixed-0` or `mixed-1` for half of them each, by their names, so
//! that both runs together have every test on both; without it, it is the default of a new database. `dev/test.sh` takes
//! the first, and a failed test prints the value that repeats it.

use std::future::Future;

/// The versions that the two mixed values distribute.
const MAJORS: [&str; 2] = ["17", "18"];
/// How such a value begins: the number of the turn follows.
const MIXED: &str = "mixed-";

tokio::task_local! {
    /// The version of the test that runs; none for the default of a new database.
    static MAJOR: Option<String>;
}

fn setting() -> String {
    std::env::var("E2E_POSTGRES").unwrap_or_default()
}

/// The version for a test; none for the default of a new database.
///
/// # Panics
/// If the setting is neither a version nor a turn.
fn chosen(setting: &str, test: &str) -> Option<String> {
    let Some(turn) = setting.strip_prefix(MIXED) else {
        let is_version = setting.bytes().all(|digit| digit.is_ascii_digit());
        assert!(is_version, "E2E_POSTGRES is {setting}, which is neither a version nor {MIXED}0 or {MIXED}1");
        return (!setting.is_empty()).then(|| setting.to_owned());
    };
    let turn: usize = turn.parse().unwrap_or_else(|_| panic!("E2E_POSTGRES is {setting}: a number follows {MIXED}"));
    // FNV-1a: the standard library's hash may change with it.
    let hash = test
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The lowest bits depend on few bits of the name.
    let half = usize::from((hash >> 40) & 1 == 1);
    Some(MAJORS[(half + turn) % 2].to_owned())
}

/// Runs a test, whose databases are of the version that the setting gives it.
pub async fn scoped<T>(test: &str, work: impl Future<Output = T>) -> T {
    MAJOR.scope(chosen(&setting(), test), work).await
}

/// The major version of databases whose tests name none; none for the default of a new database.
pub fn postgres_major() -> Option<String> {
    // Outside of a test that `scoped` runs, there is no name to distribute by.
    MAJOR.try_with(Clone::clone).unwrap_or_else(|_| {
        let setting = setting();
        (!setting.starts_with(MIXED)).then(|| chosen(&setting, "")).flatten()
    })
}

/// How to run a test again with the versions that it had.
pub fn described(test: &str) -> String {
    let setting = setting();
    match chosen(&setting, test) {
        Some(major) => format!("databases without a version were of PostgreSQL {major}: E2E_POSTGRES={setting}"),
        None => "databases without a version were of the default: E2E_POSTGRES is not set".to_owned(),
    }
}

#[test]
fn two_turns_have_each_test_on_both_versions() {
    let tests = ["restores", "backups", "metrics", "clients", "scaling", "archive", "hostile", "matrix"];
    let of = |turn: &str| tests.map(|test| chosen(turn, test).expect("a version"));
    let (first, second) = (of("mixed-0"), of("mixed-1"));
    assert_eq!(first, of("mixed-0"), "the same again");
    assert!(first.iter().zip(&second).all(|(first, second)| first != second), "{first:?} and {second:?}");
    assert!(MAJORS.iter().all(|major| first.iter().any(|chosen| chosen == major)), "{first:?}");
    assert_eq!(chosen("17", "restores").as_deref(), Some("17"));
    assert_eq!(chosen("", "restores"), None);
}
