//! Tests of the operator's pure steps, by tables and snapshots.

mod fixtures;
mod plan;
mod pod_security;
mod status;
mod status_findings;
mod validation;
