//! Clients that write during faults. The result of a write without an answer is unknown, so its id
//! is never used again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::{Way, Written, write};

/// How many there are.
pub const WRITERS: usize = 4;
/// Between two writes of one: some hundred a second of all leave the machine to the database.
const PAUSE: Duration = Duration::from_millis(15);
/// Between two connections that are tried.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(5);

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// Its number, of its writer's.
    pub sequence: u64,
    /// When it was sent.
    pub asked: Instant,
    /// When it was acknowledged.
    pub at: Instant,
    /// By whom.
    pub by: Written,
}

/// What one writer did.
#[derive(Default)]
pub struct Account {
    /// What it sent: every number from 1 up to this.
    pub sent: u64,
    /// What was acknowledged of it, in its order.
    pub acknowledged: Vec<Acknowledged>,
}

/// The writers at work.
pub struct Writers {
    stop: Arc<AtomicBool>,
    accounts: Vec<Arc<Mutex<Account>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Writers {
    /// Starts them.
    pub fn start(way: &Way) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let accounts: Vec<_> = (0..WRITERS).map(|_| Arc::<Mutex<Account>>::default()).collect();
        let begin = |(writer, account): (usize, &Arc<Mutex<Account>>)| {
            tokio::spawn(work(way.clone(), writer, account.clone(), stop.clone()))
        };
        let tasks = accounts.iter().enumerate().map(begin).collect();
        Self { stop, accounts, tasks }
    }

    /// How many rows were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.accounts.iter().map(|account| lock(account).acknowledged.len()).sum()
    }

    /// Ends them, with the answers that they still wait for; what each did.
    pub async fn stop(mut self) -> Vec<Account> {
        self.stop.store(true, Ordering::Relaxed);
        for ended in join_all(std::mem::take(&mut self.tasks)).await {
            ended.unwrap_or_else(|error| panic!("a writing client: {error}"));
        }
        self.accounts.iter().map(|account| std::mem::take(&mut *lock(account))).collect()
    }
}

fn lock(account: &Mutex<Account>) -> std::sync::MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn work(way: Way, writer: usize, account: Arc<Mutex<Account>>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(connection) = way.connect(CONNECT).await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let sequence = {
                let mut account = lock(&account);
                account.sent += 1;
                account.sent
            };
            let asked = Instant::now();
            let Ok(by) = write(&connection, writer, sequence, ANSWER).await else {
                // A server that only refuses is asked no more often than one that is not there.
                tokio::time::sleep(AGAIN).await;
                break;
            };
            lock(&account).acknowledged.push(Acknowledged { sequence, asked, at: Instant::now(), by });
            tokio::time::sleep(PAUSE).await;
        }
    }
}
