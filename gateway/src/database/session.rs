//! A session of one request or transaction: its connection is taken when the first statement needs it, so that a request
//! that is refused for its content occupies none.

use std::sync::Arc;

use super::end::{End, end};
use super::lease::Lease;
use super::outcome::{self, Claim};
use super::pool::{Caller, Pool};
use super::run::{Last, Rows, at_last, exactly};
use super::wait::in_time;
use crate::cache::Cache;
use crate::problem::{Problem, lost};
use crate::sql::Statement;

/// See the module.
pub struct Session {
    pool: Arc<Pool>,
    caller: Caller,
    begin: Option<String>,
    /// Whether several operations share it.
    shared: bool,
    /// Whether its end was sent with its last statement.
    ended: bool,
    lease: Option<Lease>,
    /// The record of its request, which is there if it was committed.
    claim: Option<Box<Claim>>,
}

impl Session {
    /// Of one operation, without a connection yet. Its first statement comes after `begin`, if there is one.
    pub fn new(pool: &Arc<Pool>, caller: &Caller, begin: Option<&str>) -> Self {
        let (pool, caller, begin) = (Arc::clone(pool), caller.clone(), begin.map(str::to_owned));
        Self { pool, caller, begin, shared: false, ended: false, lease: None, claim: None }
    }

    /// One that several operations share, or whose end is decided by what its last statement returns.
    pub fn shared(pool: &Arc<Pool>, caller: &Caller, begin: &str) -> Self {
        Self { shared: true, ..Self::new(pool, caller, Some(begin)) }
    }

    /// Whose it is.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether its statements are in a transaction.
    pub fn is_transaction(&self) -> bool {
        self.begin.is_some()
    }

    /// The kept answers, for a session that reads. One that several operations share sees what it has written itself, which
    /// no version tells.
    pub(super) fn cache(&self) -> Option<&Arc<Cache>> {
        let reads = !self.shared && (self.begin.is_none() || self.only_reads());
        self.pool.cache().filter(|_| reads)
    }

    /// The record of its request.
    pub(super) fn claim(&self) -> Option<&Claim> {
        self.claim.as_deref()
    }

    /// It has begun the record of its request.
    pub(super) fn set_claim(&mut self, claim: Claim) {
        self.claim = Some(Box::new(claim));
    }

    fn only_reads(&self) -> bool {
        self.begin.as_ref().is_some_and(|begin| begin.contains("READ ONLY"))
    }

    /// The connection.
    ///
    /// # Errors
    /// If none gets free in time, or the database cannot be reached.
    pub async fn lease(&mut self) -> Result<&mut Lease, Problem> {
        if self.lease.is_none() {
            let mut lease = self.pool.lease(&self.caller).await?;
            lease.begin();
            match &self.begin {
                // With the first statement.
                Some(begin) if !self.shared => lease.open_with(begin.clone()),
                Some(begin) => {
                    lease.set_restored(false);
                    let begun = async { Ok(lease.client().batch_execute(begin).await?) };
                    in_time(lease.patience(), begun).await?;
                }
                None => {}
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

    /// Runs a statement that is the last one, if the session is of one operation: its end is sent with it. All rows, if
    /// they are no larger than this.
    ///
    /// # Errors
    /// Any error of the server, of a commit too, and larger rows.
    pub async fn last(&mut self, statement: &Statement, most: usize) -> Result<Rows, Problem> {
        let last = match &self.begin {
            _ if self.shared => None,
            None => Some(Last::Read),
            Some(_) if self.only_reads() => Some(Last::ReadInTransaction),
            Some(_) => Some(Last::Write),
        };
        let lease = self.lease().await?;
        let Some(last) = last else { return exactly(lease, statement, most).await };
        let found = at_last(lease, statement, most, last).await;
        self.ended = true;
        found
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
        if result.as_ref().is_err_and(|problem| problem.connection_lost) {
            return result;
        }
        if self.ended || self.begin.is_none() || lease.is_unopened() {
            lease.end();
            return result;
        }
        let (client, patience) = (lease.client(), lease.patience());
        if result.is_ok() && !self.only_reads() {
            lease.commits();
        }
        let ended = match &result {
            Ok(_) if !self.only_reads() => outcome::commit(client, self.pool.connector(), patience, self.claim()).await,
            Ok(_) => in_time(patience, async { Ok(end(client, End::Commit).await) }).await,
            Err(_) => in_time(patience, async { Ok(end(client, End::Rollback).await) }).await,
        };
        let transaction = match ended {
            Ok(ended) => {
                lease.set_restored(ended.restored);
                ended.transaction
            }
            Err(problem) => Err(problem),
        };
        // A commit that the server refused (a deferred constraint) has ended the transaction, too.
        if let Err(problem) = transaction {
            if !problem.connection_lost {
                lease.end();
            }
            return result.and(Err(problem));
        }
        lease.end();
        result
    }
}
