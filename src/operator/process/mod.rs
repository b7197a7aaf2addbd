//! The process: its start, its lease, its watches, its HTTP endpoints.

pub mod checks;
mod controller;
mod definition;
mod http;
pub mod leader;
pub mod nodes;
mod selection;
pub mod startup;
mod vault_probe;
mod watches;
