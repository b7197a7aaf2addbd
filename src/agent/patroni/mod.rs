//! Patroni: its configuration, its process, its REST API.

pub mod config;
pub mod process;
pub mod rest;
