//! The database: connections as a role, a pool of them, a breaker, and running statements.

mod answer;
mod breaker;
mod cached;
mod connect;
mod end;
mod explain;
mod idempotency;
mod kept;
mod lease;
mod outcome;
mod parameter;
mod pool;
mod replica;
mod run;
mod session;
mod turns;
mod wait;

pub use answer::{Answer, Frame, Piece};
pub use connect::{Connector, session};
pub use idempotency::{Earlier, Kept, Key, claim, earlier, forget, keep};
pub use lease::Lease;
pub use pool::{Caller, Own, Pool, PoolState};
pub use replica::{Position, position};
pub use run::{Rows, exactly, plan_rows};
pub use session::Session;
