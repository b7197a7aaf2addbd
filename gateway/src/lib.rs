//! The data gateway: REST in PostgREST's dialect, and gRPC, in front of one PostgreSQL database.
//!
//! A request passes these, in reading order:
//!
//! 1. [`serve`]: HTTP, and [`grpc`], which makes the same operations of its messages. It authenticates the caller ([`auth`]: a ServiceAccount token and its role), finds the
//!    collection in the [`catalog`] as it is [`current`]ly, and turns an error of any part into an answer ([`problem`]).
//! 2. [`request`]: the query string, or a JSON tree, as a [`request::Query`]; [`validate`]: all faults of a body.
//! 3. [`sql`]: one statement. Names come from the catalogue, values are parameters only, and PostgreSQL makes the JSON.
//! 4. [`database`]: a connection as the caller's role, and the rows as they arrive. [`cost`] charges the caller for each
//!    statement, and refuses the requests of one that has spent too much. [`cache`] has the answers that are kept.

pub mod auth;
pub mod cache;
pub mod catalog;
pub mod config;
pub mod cost;
pub mod current;
pub mod database;
pub mod grpc;
pub mod problem;
pub mod request;
pub mod serve;
pub mod sql;
pub mod validate;
