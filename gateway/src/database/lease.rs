//! A connection in use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio_postgres::{Client, Statement};

use super::connect::Connector;
use super::outcome::MARK;
use super::pool::{Caller, Pool};
use super::turns::Turn;
use crate::cost::Ask;
use crate::problem::Problem;
use crate::sql;

/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 200;
/// How many questions for the cost of a statement a lease keeps: a transaction may have any number of statements.
const ASKS: usize = 100;
/// The most bytes that the statements of these questions have together.
const ASKED: usize = 1 << 20;
/// The longest text of a statement that is kept.
const KEPT: usize = 16 << 10;

/// An open connection.
pub(super) struct Connection {
    pub(super) client: Arc<Client>,
    /// The task that has its socket.
    task: AbortHandle,
    pub(super) opened: Instant,
    /// When its last request ended.
    pub(super) used: Instant,
    statements: HashMap<String, Statement>,
    /// The settings of the database that it began with, where answers are kept.
    settings: Arc<str>,
    /// The catalogue's fingerprint that its statements were prepared under.
    generation: u64,
}

impl Connection {
    pub(super) fn new((client, task): (Client, AbortHandle), settings: Arc<str>, generation: u64) -> Self {
        let (client, now) = (Arc::new(client), Instant::now());
        Self { client, task, opened: now, used: now, statements: HashMap::new(), settings, generation }
    }

    /// Ends what it runs, and closes it. Where the server is not asked for it, it finds the socket closed.
    pub(super) async fn cut(self, connector: &Connector) {
        connector.cancel(self.client.cancel_token()).await;
        self.task.abort();
    }
}

/// A connection in use. It returns to the pool if nothing is left open on it; otherwise what it runs is cancelled, and
/// it is closed.
pub struct Lease {
    connection: Option<Connection>,
    caller: Caller,
    pool: Arc<Pool>,
    turn: Option<Turn>,
    /// The questions for the costs of its statements.
    asks: Vec<Ask>,
    /// What begins the transaction, if it was not sent yet: it goes with the first statement.
    opening: Option<String>,
    clean: bool,
    restored: bool,
    /// Whether a commit is under way.
    commits: bool,
}

impl Lease {
    pub(super) fn new(connection: Connection, caller: Caller, pool: Arc<Pool>, turn: Turn) -> Self {
        let (connection, turn, asks) = (Some(connection), Some(turn), Vec::new());
        Self { connection, caller, pool, turn, asks, opening: None, clean: true, restored: true, commits: false }
    }

    /// The client.
    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.connection.as_ref().expect("a lease has its connection until it ends").client)
    }

    /// A commit is sent. If nobody waits for its end, it is not cancelled: one that waits for its synchronous standby
    /// would be visible at once, and could be confirmed by its idempotency key although no standby has it.
    pub(super) fn commits(&mut self) {
        self.commits = true;
    }

    /// The pool that it belongs to.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Whose it is.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The settings of the database that its session began with, where answers are kept.
    pub(super) fn settings(&self) -> Arc<str> {
        Arc::clone(&self.connection.as_ref().expect("a lease has its connection until it ends").settings)
    }

    /// Something begins on it that must be ended.
    pub fn begin(&mut self) {
        self.clean = false;
    }

    /// Nothing is open on it.
    pub fn end(&mut self) {
        self.clean = true;
    }

    /// The next statement comes after this one.
    pub(super) fn open_with(&mut self, opening: String) {
        self.opening = Some(opening);
    }

    /// What comes before the next statement.
    pub(super) fn take_opening(&mut self) -> Option<String> {
        self.opening.take()
    }

    /// Whether its transaction was not begun.
    pub(super) fn is_unopened(&self) -> bool {
        self.opening.is_some()
    }

    /// Whether nothing of its statements so far is left on it.
    pub(super) fn set_restored(&mut self, restored: bool) {
        self.restored = restored;
    }

    /// How long an answer of the server is waited for.
    pub fn patience(&self) -> Duration {
        self.pool.patience()
    }

    /// How long a client may take nothing of an answer that is being sent.
    pub fn stall(&self) -> Duration {
        self.pool.stall()
    }

    /// A prepared statement, which is about to run.
    ///
    /// # Errors
    /// Any error of the server.
    pub(super) async fn prepare(&mut self, sql: &str) -> Result<Statement, Problem> {
        self.restored = false;
        let generation = self.pool.generation();
        let connection = self.connection.as_mut().expect("a lease has its connection until it ends");
        if connection.generation != generation || connection.statements.len() >= STATEMENTS {
            connection.statements.clear();
            connection.generation = generation;
        }
        if let Some(known) = connection.statements.get(sql) {
            return Ok(known.clone());
        }
        let statement = connection.client.prepare(sql).await?;
        if sql.len() <= KEPT {
            connection.statements.insert(sql.to_owned(), statement.clone());
        }
        Ok(statement)
    }

    /// Charges the caller for a statement that is about to run.
    pub(super) fn charge(&mut self, statement: &sql::Statement) {
        let Some(costs) = self.pool.costs() else { return };
        let Some(ask) = costs.charge(&self.caller.name, statement, self.pool.generation()) else { return };
        let bytes: usize = self.asks.iter().map(|ask| ask.sql().len()).sum();
        if self.asks.len() < ASKS && bytes + ask.sql().len() <= ASKED {
            self.asks.push(ask);
        } else {
            ask.presume();
        }
    }

    /// The statement that marks a transaction.
    ///
    /// # Errors
    /// Any error of the server.
    pub(super) async fn mark(&mut self) -> Result<Statement, Problem> {
        self.prepare(MARK).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(connection), Some(turn)) = (self.connection.take(), self.turn.take()) else { return };
        if connection.client.is_closed() {
            self.pool.forget_idle();
            return;
        }
        let asks = std::mem::take(&mut self.asks);
        if self.clean && self.restored && asks.is_empty() {
            self.pool.keep(self.caller.clone(), connection);
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (pool, caller) = (Arc::clone(&self.pool), self.caller.clone());
        if self.clean {
            runtime.spawn(pool.restore(caller, connection, (turn, self.restored, asks)));
        } else if !self.commits {
            runtime.spawn(async move {
                connection.cut(pool.connector()).await;
                // Who leaves early pays all the same, and in this turn: there may be no other one.
                if asks.is_empty() {
                    drop(turn);
                } else {
                    pool.settle(caller, turn, asks).await;
                }
            });
        }
    }
}
