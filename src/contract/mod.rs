//! The documents between the parts: operator and agent, operator and migration Job, agent and
//! Vault. Every document has a version, and unknown fields are ignored, so that an operator and an
//! agent two versions apart are compatible.

pub mod backup;
pub mod backup_job;
pub mod capacity;
pub mod certificates;
pub mod clients;
pub mod desired;
pub mod extension;
pub mod gateway;
pub mod in_place;
pub mod logged;
pub mod maintenance;
pub mod memory;
pub mod migration;
pub mod order;
pub mod pack;
pub mod patroni;
pub mod pod;
pub mod pooler;
pub mod raster;
pub mod records;
pub mod recovery_window;
pub mod rehearsal;
pub mod report;
pub mod restore_store;
pub mod restore_target;
pub mod server_version;
pub mod setting;
pub mod shutdown;
pub mod time;
pub mod upgrade;
pub mod upgrade_step;
pub mod wal;
