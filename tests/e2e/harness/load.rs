//! Clients that write through one host name, each transaction once: a failed one is counted, never repeated.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use servicedb::postgres::{ConnectError, Connection};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::postgres::{Credentials, column, login_at};
use super::sandbox::Sandbox;
use super::wait::until;
use super::{READY, SOON};

/// What the clients found.
#[derive(Default)]
struct Found {
    next: AtomicI64,
    done: AtomicUsize,
    logins: AtomicUsize,
    longest_micros: AtomicU64,
    acknowledged: Mutex<Vec<i64>>,
    failures: Mutex<BTreeMap<String, usize>>,
}

impl Found {
    fn failed(&self, what: &str, error: &dyn std::fmt::Display) {
        *self.failures.lock().expect("the failures").entry(format!("{what}: {error}")).or_default() += 1;
    }
}

/// The maximum number of logins that pauses may break off: see [`unexpected`].
const OF_PAUSES: usize = 2;

/// The failures that no documented limit explains. A login to PostgreSQL in the moment of a pause is refused by
/// PgBouncer (docs/pooler.md: known limits), which is rare: more than a few of them are a failure.
fn unexpected(mut failures: BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    let is_of_a_pause = |why: &str| why.contains("cached error: pause mode");
    let times: usize = failures.iter().filter(|(why, _)| is_of_a_pause(why)).map(|(_, times)| times).sum();
    if times <= OF_PAUSES {
        failures.retain(|why, _| !is_of_a_pause(why));
    }
    failures
}

/// The clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    found: Arc<Found>,
    tasks: Vec<JoinHandle<()>>,
}

/// What they found together.
#[derive(Debug)]
pub struct Result {
    /// Transactions that were acknowledged.
    pub acknowledged: Vec<i64>,
    /// Logins.
    pub logins: usize,
    /// Failed logins and transactions, each text with its number.
    pub failures: BTreeMap<String, usize>,
    /// The longest transaction or login.
    pub longest: Duration,
}

impl Load {
    /// Starts so many clients that stay connected, a third with each protocol, and one that connects for each
    /// transaction. They write into `notes (id, body)`.
    pub fn start(address: IpAddr, host: &str, credentials: &Credentials, clients: usize) -> Self {
        // Beyond the rows of a [`super::Writer`], and of another load.
        static LOADS: AtomicI64 = AtomicI64::new(1);
        let first = 10_000_000 * LOADS.fetch_add(1, Ordering::Relaxed);
        let found = Arc::new(Found { next: AtomicI64::new(first), ..Found::default() });
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..=clients).map(|number| {
            let client = One {
                address,
                host: host.to_owned(),
                credentials: credentials.clone(),
                stop: stop.clone(),
                found: found.clone(),
                number,
                stays: number < clients,
            };
            tokio::spawn(client.run())
        });
        let tasks = tasks.collect();
        Self { stop, found, tasks }
    }

    /// Waits for so many further transactions.
    pub async fn goes_on(&self, transactions: usize) {
        let wanted = self.found.done.load(Ordering::Relaxed) + transactions;
        until("the clients write", READY, || async {
            let done = self.found.done.load(Ordering::Relaxed);
            if done >= wanted { Ok(()) } else { Err(format!("{done} of {wanted}: {:?}", self.found.failures)) }
        })
        .await;
    }

    /// The failed logins and transactions so far.
    pub fn failures(&self) -> BTreeMap<String, usize> {
        self.found.failures.lock().expect("the failures").clone()
    }

    /// Those of them that are no known limit.
    pub fn unexpected(&self) -> BTreeMap<String, usize> {
        unexpected(self.failures())
    }

    /// The longest transaction or login since the last call.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.found.longest_micros.swap(0, Ordering::Relaxed))
    }

    /// Ends the clients.
    pub async fn stop(self) -> Result {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a client");
        }
        let found = &self.found;
        Result {
            acknowledged: std::mem::take(&mut *found.acknowledged.lock().expect("the rows")),
            logins: found.logins.load(Ordering::Relaxed),
            failures: std::mem::take(&mut *found.failures.lock().expect("the failures")),
            longest: Duration::from_micros(found.longest_micros.load(Ordering::Relaxed)),
        }
    }
}

impl Result {
    /// The failures that are no known limit.
    pub fn unexpected(&self) -> BTreeMap<String, usize> {
        unexpected(self.failures.clone())
    }

    /// Asserts that each acknowledged row is there once.
    pub async fn is_stored(&self, sandbox: &Sandbox, name: &str) {
        let connection = sandbox.connect(name).await;
        let stored = column(&connection, "SELECT id FROM notes").await.expect("the rows");
        let stored: std::collections::BTreeSet<i64> = stored.iter().map(|id| id.parse().expect("a number")).collect();
        let lost: Vec<_> = self.acknowledged.iter().filter(|id| !stored.contains(id)).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged rows are lost: {lost:?}", lost.len(), self.acknowledged.len());
    }
}

/// The address of the pooler, and its host name as the record in Vault has it.
pub async fn pooler_address(sandbox: &Sandbox) -> (IpAddr, String) {
    let path = sandbox.vault_names("shop").runtime();
    let host = std::sync::Mutex::new(String::new());
    until("the record names the pooler", SOON, || async {
        let record = sandbox.vault().record(&path).await.ok_or("no record")?;
        let named = record["SHOP_DB_POOLER_HOST"].as_str().ok_or_else(|| "no host of a pooler".to_owned())?;
        let url = record["SHOP_DB_POOLER_URL"].as_str().unwrap_or_default();
        assert!(url.contains(&format!("@{named}:5432/")), "the URL names another host than {named}");
        named.clone_into(&mut host.lock().expect("the host"));
        Ok::<_, String>(())
    })
    .await;
    (sandbox.address("shop-db-pooler").await, host.into_inner().expect("the host"))
}

struct One {
    address: IpAddr,
    host: String,
    credentials: Credentials,
    stop: Arc<AtomicBool>,
    found: Arc<Found>,
    number: usize,
    stays: bool,
}

impl One {
    async fn run(self) {
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let connection = match login_at(self.address, &self.host, &self.credentials).await {
                Ok(connection) => connection,
                // Held for longer than this client waits (docs/pooler.md).
                Err(ConnectError::Unanswered { .. }) => continue,
                Err(error) => {
                    self.found.failed("login", &error);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            self.found.logins.fetch_add(1, Ordering::Relaxed);
            self.note(began);
            let prepared = match connection.client.prepare("INSERT INTO notes VALUES ($1, 'prepared')").await {
                Ok(prepared) => prepared,
                Err(error) => {
                    self.found.failed("prepare", &servicedb::postgres::describe(&error));
                    continue;
                }
            };
            while !self.stop.load(Ordering::Relaxed) {
                let id = self.found.next.fetch_add(1, Ordering::Relaxed);
                let began = Instant::now();
                if let Err(error) = self.write(&connection, &prepared, id).await {
                    self.found.failed("transaction", &servicedb::postgres::describe(&error));
                    break;
                }
                self.note(began);
                self.found.acknowledged.lock().expect("the rows").push(id);
                self.found.done.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
                if !self.stays {
                    break;
                }
            }
        }
    }

    /// A transaction of one statement or two, by the simple, the extended or the prepared protocol.
    async fn write(
        &self,
        connection: &Connection,
        prepared: &tokio_postgres::Statement,
        id: i64,
    ) -> std::result::Result<(), tokio_postgres::Error> {
        let client = &connection.client;
        match self.number % 3 {
            0 => client.batch_execute(&format!("INSERT INTO notes VALUES ({id}, 'simple')")).await,
            1 => {
                client.batch_execute("BEGIN").await?;
                client.execute("INSERT INTO notes VALUES ($1, 'extended')", &[&id]).await?;
                client.batch_execute("COMMIT").await
            }
            _ => client.execute(prepared, &[&id]).await.map(drop),
        }
    }

    fn note(&self, began: Instant) {
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.found.longest_micros.fetch_max(micros, Ordering::Relaxed);
    }
}
