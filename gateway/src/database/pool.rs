//! The pool: connections as the role of a caller, bounded in all, with a bounded queue in front, in which callers take
//! turns.
//!
//! A connection belongs to one caller: role and claims are set when it is opened, so that a read is one statement.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::types::FromSqlOwned;

use super::breaker::Breaker;
use super::connect::{Connector, DEFAULTS, ROLE, session};
use super::end::{End, end};
use super::explain::explain;
use super::kept::Room;
use super::lease::{Connection, Lease};
use super::turns::{Turn, Turns};
use super::wait::in_time;
use crate::cache::Cache;
use crate::catalog::SETTINGS;
use crate::config::Limits;
use crate::cost::{Ask, Costs};
use crate::problem::Problem;

/// How long a connection is used. New ones see renewed certificates and changed rights to log in.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// The same to a replica: new ones go to instances that were added, and to none that lags too far behind.
const REPLICA_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// How long a connection to a replica stays open unused. A replica may become the primary, which has its own pool.
const REPLICA_UNUSED: Duration = Duration::from_secs(10);
/// How long a request waits for a connection to a replica, at most: the primary answers it otherwise.
const REPLICA_WAIT_MILLISECONDS: u64 = 200;

/// How much longer than its own limit for a statement the server is waited for. One that hangs keeps no limit.
const GRACE: Duration = Duration::from_secs(5);
/// How long a connection may take to be restored, and to tell what its statements cost.
const RESTORING: Duration = Duration::from_secs(5);

/// Who waits for a connection as the gateway's login.
const OWN: &str = "";

/// Who calls: a ServiceAccount and its role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// `<namespace>/<name>`.
    pub name: Arc<str>,
    /// The role in the database.
    pub role: Arc<str>,
}

/// See the module.
pub struct Pool {
    connector: Connector,
    limits: Limits,
    schemas: Vec<String>,
    turns: Arc<Turns>,
    costs: Option<Arc<Costs>>,
    kept: Room,
    cache: Option<Arc<Cache>>,
    waiting: AtomicUsize,
    /// Connections that are restored after a request.
    restoring: AtomicUsize,
    idle: Mutex<HashMap<Caller, Vec<Connection>>>,
    breaker: Breaker,
    /// How long a connection is used.
    lifetime: Duration,
    /// A number that changes with the catalogue.
    generation: AtomicU64,
}

/// Numbers for metrics and `/connections`.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct PoolState {
    /// The largest number of connections.
    pub limit: usize,
    /// In use.
    pub active: usize,
    /// Open and unused.
    pub idle: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Whether requests fail at once since the database cannot be reached.
    pub breaker_open: bool,
}

impl Pool {
    /// A pool without connections.
    pub fn new(connector: Connector, limits: Limits, schemas: Vec<String>, cache: Option<Arc<Cache>>) -> Arc<Self> {
        let costs = Costs::new(&limits);
        Self::with(connector, limits, schemas, (LIFETIME, costs, cache))
    }

    /// One of connections to the replicas, without connections: callers have one account in both pools.
    /// [`Self::close_unused`] belongs to it.
    pub fn of_replicas(&self, connector: Connector) -> Arc<Self> {
        let wait_milliseconds = self.limits.wait_milliseconds.min(REPLICA_WAIT_MILLISECONDS);
        let limits = Limits { wait_milliseconds, ..self.limits.clone() };
        Self::with(connector, limits, self.schemas.clone(), (REPLICA_LIFETIME, self.costs.clone(), None))
    }

    fn with(
        connector: Connector,
        limits: Limits,
        schemas: Vec<String>,
        (lifetime, costs, cache): (Duration, Option<Arc<Costs>>, Option<Arc<Cache>>),
    ) -> Arc<Self> {
        Arc::new(Self {
            turns: Turns::new(limits.connections),
            costs,
            kept: Room::new(limits.kept_answers_bytes),
            cache,
            connector,
            limits,
            schemas,
            waiting: AtomicUsize::new(0),
            restoring: AtomicUsize::new(0),
            idle: Mutex::default(),
            breaker: Breaker::default(),
            lifetime,
            generation: AtomicU64::new(0),
        })
    }

    /// Prepared statements of before count no longer.
    pub fn catalog_changed(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes with the catalogue.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The limits by cost, if there are any.
    pub fn costs(&self) -> Option<&Arc<Costs>> {
        self.costs.as_ref()
    }

    /// The answers that are kept, if there are any; none for replicas, whose rows have no version.
    pub fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// Whether a request of this caller may begin.
    ///
    /// # Errors
    /// 429, if its requests have cost too much.
    pub fn admit(&self, caller: &Caller) -> Result<(), Problem> {
        self.costs.as_ref().map_or(Ok(()), |costs| costs.admit(&caller.name))
    }

    /// The room for answers that are kept.
    pub(super) fn kept(&self) -> &Room {
        &self.kept
    }

    /// How long a client may take nothing of an answer that is being sent.
    pub(super) fn stall(&self) -> Duration {
        Duration::from_secs(self.limits.stall_seconds)
    }

    /// Makes its connections.
    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Its numbers.
    pub fn state(&self) -> PoolState {
        PoolState {
            limit: self.limits.connections,
            active: self.limits.connections.saturating_sub(self.turns.free() + self.restoring.load(Ordering::Relaxed)),
            idle: self.lock().values().map(Vec::len).sum(),
            waiting: self.waiting.load(Ordering::Relaxed),
            breaker_open: self.breaker.is_open(Instant::now()),
        }
    }

    /// A connection as this caller.
    ///
    /// # Errors
    /// If none gets free in time, too many wait, or the database cannot be reached.
    pub async fn lease(self: &Arc<Self>, caller: &Caller) -> Result<Lease, Problem> {
        let turn = self.turn(&caller.name).await?;
        let connection = self.connection(caller).await?;
        Ok(Lease::new(connection, caller.clone(), Arc::clone(self), turn))
    }

    /// A connection as the gateway's login, one of the pool's number.
    ///
    /// # Errors
    /// As [`Self::lease`].
    pub async fn own(&self) -> Result<Own, Problem> {
        let turn = self.turn(&OWN.into()).await?;
        self.make_room(&mut self.lock());
        let client = self.connected(self.connector.connect(SETTINGS)).await?;
        Ok(Own { client, patience: self.patience(), _turn: turn })
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.limits.statement_milliseconds) + GRACE
    }

    async fn turn(&self, caller: &Arc<str>) -> Result<Turn, Problem> {
        if let Some(turn) = self.turns.take() {
            return Ok(turn);
        }
        let turn = self.turns.wait(caller, self.limits.waiting).ok_or_else(busy)?;
        let _waits = Waits::new(&self.waiting);
        match tokio::time::timeout(Duration::from_millis(self.limits.wait_milliseconds), turn).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(busy()),
        }
    }

    /// An idle connection of this caller, or a new one.
    async fn connection(&self, caller: &Caller) -> Result<Connection, Problem> {
        match self.take(caller) {
            Some(connection) => Ok(connection),
            None => self.open(caller).await,
        }
    }

    /// An idle connection of this caller. Where there is none, one of another caller makes room.
    fn take(&self, caller: &Caller) -> Option<Connection> {
        let mut idle = self.lock();
        while let Some(connection) = idle.get_mut(caller).and_then(Vec::pop) {
            if !connection.client.is_closed() && connection.opened.elapsed() < self.lifetime {
                return Some(connection);
            }
        }
        self.make_room(&mut idle);
        None
    }

    /// Closes an idle connection, if there are too many with the one that the caller of this is about to open.
    fn make_room(&self, idle: &mut HashMap<Caller, Vec<Connection>>) {
        let open = idle.values().map(Vec::len).sum::<usize>() + self.limits.connections - self.turns.free();
        let other = idle.values_mut().find(|connections| !connections.is_empty());
        if let Some(other) = other.filter(|_| open > self.limits.connections) {
            other.remove(0);
        }
        idle.retain(|_, connections| !connections.is_empty());
    }

    async fn open(&self, caller: &Caller) -> Result<Connection, Problem> {
        let claims = serde_json::json!({"role": &*caller.role, "sub": &*caller.name}).to_string();
        let options = session(&caller.role, &self.schemas, self.limits.statement_milliseconds, &claims);
        let opened = self.connected(self.connector.connect_as(&caller.role, &options)).await?;
        let settings = self.settings(&opened.0).await?;
        Ok(Connection::new(opened, settings, self.generation()))
    }

    /// The settings of a new session, by which kept answers are told apart; of no use where none are kept.
    async fn settings(&self, client: &Client) -> Result<Arc<str>, Problem> {
        if self.cache.is_none() {
            return Ok(Arc::from(""));
        }
        let found = async { Ok(client.query_one(DEFAULTS, &[]).await?.try_get::<_, String>(0)?) };
        Ok(in_time(self.patience(), found).await?.into())
    }

    /// Connects, if the breaker allows it.
    async fn connected<T>(&self, connecting: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        if let Err(wait) = self.breaker.allows(Instant::now()) {
            let mut problem = Problem::unavailable("08001", "the database cannot be reached");
            problem.retry_after = Some(wait.as_secs() + 1);
            return Err(problem);
        }
        let connected = connecting.await;
        match &connected {
            Err(problem) if problem.code != ROLE => self.breaker.failed(Instant::now()),
            _ => self.breaker.succeeded(),
        }
        connected
    }

    /// Keeps a connection for its caller's next request: nothing of this one is left on it.
    pub(super) fn keep(&self, caller: Caller, mut connection: Connection) {
        connection.used = Instant::now();
        self.lock().entry(caller).or_default().push(connection);
    }

    /// Keeps a connection once nothing of its last request is left on it, and once the planner has told what the
    /// statements of that cost. The connection has the role that they ran as, and no request waits for it yet.
    pub(super) fn restore(
        self: Arc<Self>,
        caller: Caller,
        connection: Connection,
        (turn, restored, asks): (Turn, bool, Vec<Ask>),
    ) -> impl Future<Output = ()> + Send {
        // Counted from now on: nobody uses it any more.
        self.restoring.fetch_add(1, Ordering::Relaxed);
        async move {
            let client = &connection.client;
            let restore = async {
                let restored = restored || end(Arc::clone(client), End::Restore).await.restored;
                if !restored || asks.is_empty() {
                    return restored;
                }
                explain(client, asks).await;
                // A planner runs functions, too.
                end(Arc::clone(client), End::Restore).await.restored
            };
            if tokio::time::timeout(RESTORING, restore).await.is_ok_and(|restored| restored) {
                self.keep(caller, connection);
            } else {
                tracing::debug!("a connection that could not be restored is closed");
                // In its turn: what it may still run occupies the server.
                connection.cut(&self.connector).await;
            }
            drop(turn);
            self.restoring.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Asks for the costs of statements whose connection was cut, on another one of their caller. Without one, they are
    /// charged as the least.
    pub(super) async fn settle(self: Arc<Self>, caller: Caller, turn: Turn, asks: Vec<Ask>) {
        let Ok(connection) = self.connection(&caller).await else { return };
        self.restore(caller, connection, (turn, true, asks)).await;
    }

    /// Closes all unused connections: one was found broken, and the others may be.
    pub(super) fn forget_idle(&self) {
        self.lock().clear();
    }

    /// Closes connections to replicas that nobody uses, for as long as the gateway runs.
    pub async fn close_unused(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut idle = self.lock();
            idle.values_mut().for_each(|connections| connections.retain(|one| one.used.elapsed() < REPLICA_UNUSED));
            idle.retain(|_, connections| !connections.is_empty());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Caller, Vec<Connection>>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Counts a waiting request.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn busy() -> Problem {
    Problem::unavailable("PGRST003", "all connections to the database are in use")
}

/// A connection as the gateway's login.
pub struct Own {
    client: Client,
    patience: Duration,
    _turn: Turn,
}

impl Own {
    /// The first value of a statement's only row.
    ///
    /// # Errors
    /// Any error of the server.
    pub async fn value<T: FromSqlOwned>(&self, statement: &str) -> Result<T, Problem> {
        in_time(self.patience, async { Ok(self.client.query_one(statement, &[]).await?.try_get(0)?) }).await
    }

    /// Runs a statement: how many rows it changed.
    ///
    /// # Errors
    /// Any error of the server.
    pub(super) async fn execute(&self, statement: &str) -> Result<u64, Problem> {
        in_time(self.patience, async { Ok(self.client.execute(statement, &[]).await?) }).await
    }
}
