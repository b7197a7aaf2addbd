//! The database: connections as a role, a pool of them, a breaker, and running statements.

mod breaker;
mod connect;
mod outcome;
mod parameter;
mod pool;
mod run;
mod session;

pub use connect::{Connector, session};
pub use pool::{Caller, Lease, Pool, PoolState};
pub use run::{Answer, Frame, Rows, answer, exactly, plan_rows};
pub use session::Session;
