//! Tests of the operator as a whole: the pure steps by tables and snapshots, the driver
//! against an API server and a Vault in memory.
//!
//! Reading order: [`api_server`] and [`memory_vault`] are the environment, [`faults`] makes them
//! fail, [`world`] runs an operator with them and simulates the other components (the StatefulSet
//! controller, the agents, the Job controller); the others are tests.

mod adoption;
mod api_server;
mod archive;
mod authority;
mod backups;
mod binding;
mod clients;
mod crashes;
mod deletion;
mod drift;
mod faults;
pub mod fixtures;
mod gateway;
mod leader;
mod memory_vault;
mod migrations;
mod model;
mod objects;
mod other_namespaces;
mod plan;
mod pod_security;
mod pooler;
mod provisioning;
mod rehearsals;
mod rolling;
mod rotation;
mod secret_ids;
mod settings;
mod short_lived;
mod status;
mod status_findings;
mod template;
mod validation;
mod vault_outage;
mod volumes;
mod world;
