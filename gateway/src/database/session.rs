//! A session of one request or transaction: its connection is taken when the first statement needs it, so that a request
//! that is refused for its content occupies none.

use std::sync::Arc;

use super::outcome;
use super::pool::{Caller, Lease, Pool};
use super::wait::in_time;
use crate::problem::{Problem, lost};

/// See the module.
pub struct Session {
    pool: Arc<Pool>,
    caller: Caller,
    begin: Option<String>,
    lease: Option<Lease>,
}

impl Session {
    /// Without a connection yet. Its first statement comes after `begin`, if there is one.
    pub fn new(pool: &Arc<Pool>, caller: &Caller, begin: Option<&str>) -> Self {
        let (pool, caller) = (Arc::clone(pool), caller.clone());
        Self { pool, caller, begin: begin.map(str::to_owned), lease: None }
    }

    /// Whether its statements are in a transaction.
    pub fn is_transaction(&self) -> bool {
        self.begin.is_some()
    }

    /// The connection.
    ///
    /// # Errors
    /// If none gets free in time, or the database cannot be reached.
    pub async fn lease(&mut self) -> Result<&mut Lease, Problem> {
        if self.lease.is_none() {
            let mut lease = self.pool.lease(&self.caller).await?;
            lease.begin();
            if let Some(begin) = &self.begin {
                execute(&lease, begin).await?;
            }
            self.lease = Some(lease);
        }
        self.lease.as_mut().ok_or_else(lost)
    }

    /// The connection, for a stream.
    ///
    /// # Errors
    /// As [`Self::lease`].
    pub async fn into_lease(mut self) -> Result<Lease, Problem> {
        self.lease().await?;
        self.lease.take().ok_or_else(lost)
    }

    /// Rolls it back.
    pub async fn abandon(self) {
        // The failure stands for any: its result is not used.
        drop(self.finish::<()>(Err(Problem::request("", "rolled back"))).await);
    }

    /// Ends it: commits after success, rolls back after a failure, and gives the connection back.
    ///
    /// # Errors
    /// The failure, or that of the commit.
    pub async fn finish<T>(mut self, result: Result<T, Problem>) -> Result<T, Problem> {
        let Some(mut lease) = self.lease.take() else { return result };
        let ended = match (&result, &self.begin) {
            (Err(problem), _) if problem.connection_lost => return result,
            (_, None) => Ok(()),
            (Ok(_), Some(begin)) if begin.contains("READ ONLY") => execute(&lease, "COMMIT").await,
            (Ok(_), Some(_)) => outcome::commit(lease.client(), self.pool.connector(), lease.patience()).await,
            (Err(_), Some(_)) => execute(&lease, "ROLLBACK").await,
        };
        // A commit that the server refused (a deferred constraint) has ended the transaction, too.
        if let Err(problem) = ended {
            if !problem.connection_lost {
                lease.end();
            }
            return result.and(Err(problem));
        }
        lease.end();
        result
    }
}

async fn execute(lease: &Lease, statement: &str) -> Result<(), Problem> {
    in_time(lease.patience(), async { Ok(lease.client().batch_execute(statement).await?) }).await
}
