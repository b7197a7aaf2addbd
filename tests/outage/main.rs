//! The time without writes after a fault, and data loss under repeated faults: a measurement and a
//! soak, on real databases in a real cluster.
//!
//! Neither is a part of `make test`: times depend on the machine, and a soak takes long. The
//! assertions hold on every machine: no acknowledged row is lost or duplicated, all instances have
//! the same content.

mod changes;
mod client;
mod faults;
mod gaps;
mod kinds;
mod logs;
mod machine;
mod memory;
mod nodes;
mod outage;
mod output;
mod place;
mod plan;
mod prober;
mod sample;
mod settings;
mod soak;
mod subject;
mod verdict;
mod writers;

#[allow(dead_code, unused_imports, reason = "the ground that the end-to-end tests stand on")]
#[path = "../e2e/harness/mod.rs"]
mod harness;

/// Each kind of fault some times; the table is target/dev/outage.md.
#[test]
#[ignore = "takes long: make bench"]
fn write_outages_are_measured() {
    outage::measure();
}

/// A fault every few seconds while clients write; the table is target/dev/soak.md.
#[test]
#[ignore = "takes long: make soak"]
fn faults_one_after_another_lose_nothing() {
    soak::run();
}

/// The spec changed once a second while clients write; the table is target/dev/changes.md.
#[test]
#[ignore = "takes long: make changes"]
fn changes_once_a_second_lose_nothing() {
    changes::run();
}
