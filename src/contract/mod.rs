//! What the parts tell each other: operator and agent, operator and migration Job, agent
//! and Vault. Every document is versioned, and an unknown field is ignored, so that an
//! operator and an agent two versions apart understand one another.

pub mod certificates;
pub mod desired;
pub mod memory;
pub mod migration;
pub mod order;
pub mod patroni;
pub mod pod;
pub mod records;
pub mod report;
pub mod setting;
pub mod wal;
