//! The gateway on a real PostgreSQL.

mod cache;
mod callers;
mod clients;
mod costs;
mod dialect;
mod edges;
mod ends;
mod grpc;
mod isolation;
mod limits;
mod load;
mod once;
mod pages;
mod paths;
mod peers;
mod random;
mod reads;
mod relay;
mod replicas;
mod server;
mod speed;
mod tls;
mod tokens;
mod transactions;
mod writes;

/// Collections of the tests.
const SCHEMA: &str = include_str!("schema.sql");
