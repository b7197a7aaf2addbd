//! The results, one JSON document per line: an interrupted run continues from there.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{Case, Counts};
use super::scenario::Scenario;
use super::snapshot::FORM;

/// The result of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The final state was that of the run without a fault.
    Passed,
    /// It gave up, by design: the final state was that from before the scenario.
    GaveUp,
    /// It differed.
    Failed,
    /// There were fewer calls than in the run without a fault, so the fault was not injected.
    NotReached,
}

/// A completed case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The commit of the code.
    pub commit: String,
    /// The case.
    #[serde(flatten)]
    pub case: Case,
    /// The result.
    pub verdict: Verdict,
    /// The call with the fault.
    pub call: Option<String>,
    /// The duration of the scenario.
    pub seconds: f64,
    /// The differences of the final state, or why the scenario gave up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A scenario without a fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Learned {
    /// The commit of the code.
    pub commit: String,
    /// The form of the state ([`FORM`]).
    #[serde(default)]
    pub form: u32,
    /// The scenario.
    pub scenario: Scenario,
    /// Its calls.
    pub counts: Counts,
    /// The requests of a restarted operator at the end.
    pub sent_again: Vec<String>,
    /// Its final state.
    pub end: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Learned(Learned),
    Entry(Entry),
}

/// The entries of one commit.
pub struct Journal {
    file: Option<PathBuf>,
    /// The commit.
    pub commit: String,
    /// The scenarios that were learned.
    pub learned: Vec<Learned>,
    /// The results so far.
    pub entries: Vec<Entry>,
}

impl Journal {
    /// Reads the entries of the present code from a file, if it exists. Uncommitted code has no
    /// commit, so it has no entries.
    pub fn open(file: Option<PathBuf>) -> Self {
        let (commit, committed) = commit();
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let mut journal = Self { file, commit, learned: Vec::new(), entries: Vec::new() };
        for line in text.lines().filter(|_| committed).filter_map(|line| serde_json::from_str(line).ok()) {
            match line {
                Line::Learned(learned) if learned.commit == journal.commit && learned.form == FORM => {
                    journal.learned.push(learned)
                }
                Line::Entry(entry) if entry.commit == journal.commit => journal.entries.push(entry),
                _ => {}
            }
        }
        journal
    }

    /// Whether a case was run.
    pub fn has(&self, case: &Case) -> bool {
        self.entries.iter().any(|entry| entry.case == *case)
    }

    /// Adds a case that was run.
    pub fn add(&mut self, entry: Entry) {
        self.write(&Line::Entry(entry.clone()));
        self.entries.push(entry);
    }

    /// Adds a scenario that was learned.
    pub fn learn(&mut self, learned: Learned) {
        self.write(&Line::Learned(learned.clone()));
        self.learned.push(learned);
    }

    fn write(&self, line: &Line) {
        let Some(path) = &self.file else { return };
        let line = serde_json::to_string(line).expect("a line as JSON");
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let written = opened.and_then(|mut file| writeln!(file, "{line}"));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// The newest commit that changed the product, and whether there are no uncommitted changes. A
/// change of the tests does not invalidate results.
fn commit() -> (String, bool) {
    const PRODUCT: [&str; 4] = ["src", "charts", "Dockerfile", "Cargo.lock"];
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).arg("--").args(PRODUCT).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match (git(&["log", "-1", "--format=%h"]), git(&["status", "--porcelain"])) {
        (Some(commit), Some(changes)) if changes.is_empty() => (commit, true),
        (Some(commit), _) => (format!("{commit} with changes"), false),
        _ => ("no commit".to_owned(), false),
    }
}
