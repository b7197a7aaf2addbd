//! Fault injection on real components: the operator's binary as a process, the real API server,
//! the real Vault and real database pods, with proxies between them that number every mutating
//! request and inject a fault at one of them. In each case the final state must be that of the run
//! without a fault. See docs/faults.md.
//!
//! The product contains no code for this: it is a black box to these tests.

mod agents;
mod bench;
mod call;
mod case;
mod compare;
mod gate;
mod installed;
mod journal;
mod kubernetes_state;
mod plan;
mod postgres_state;
mod process;
mod proxy;
mod run;
mod scenario;
mod snapshot;
mod socket;
mod statements;
mod store;
mod table;
mod vault_state;

#[allow(dead_code, unused_imports, reason = "the ground that the end-to-end tests stand on")]
#[path = "../e2e/harness/mod.rs"]
mod harness;

/// A fixed sample, for `make test`.
#[test]
fn a_part_of_all_faults_leaves_the_end_as_it_is() {
    run::sample();
}

/// All of them, or one shard: `make test-faults`.
#[test]
#[ignore = "takes long: make test-faults"]
fn all_faults_leave_the_end_as_it_is() {
    run::all();
}
