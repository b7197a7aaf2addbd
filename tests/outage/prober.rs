//! The client that measures the time without writes. It retries as fast as the machine allows, so
//! that the database is measured and not the client's delays.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use servicedb::postgres::Connection;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::{Way, write};

/// Between two writes that go well: some hundred a second tell the time well enough.
const PAUSE: Duration = Duration::from_millis(3);
/// Between two tries while none goes well.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_millis(250);
/// How long a statement may be without an answer before another connection is tried beside it.
const STATEMENT: Duration = Duration::from_millis(500);
/// How long an answer is waited for at all. It counts whenever it comes: a commit that waits for
/// a standby is acknowledged late, and no sooner by a second client.
const ANSWER: Duration = Duration::from_secs(14);
/// How many tries there are at once: the server has a hundred connections.
const AT_ONCE: usize = 30;

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// The writes that were acknowledged, and when.
    pub acknowledged: Vec<(u64, Instant)>,
    /// What was said of the others, and how often.
    pub refused: BTreeMap<String, usize>,
}

/// A client at work.
pub struct Prober {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// Starts writing rows of this writer.
    pub fn start(way: Way, writer: usize) -> Self {
        Self::with(way, writer, false)
    }

    /// The same, each on a connection of its own.
    pub fn anew(way: Way, writer: usize) -> Self {
        Self::with(way, writer, true)
    }

    fn with(way: Way, writer: usize, anew: bool) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let task = tokio::spawn(probe(Tries { way, writer, anew, next: 0, asked: Arc::default() }, seen.clone()));
        Self { seen, task }
    }

    /// How many writes were acknowledged since a moment.
    pub fn since(&self, moment: Instant) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.acknowledged.iter().rev().take_while(|(_, at)| *at > moment).count()
    }

    /// Waits until writes continue normally.
    ///
    /// # Errors
    /// If they do not in time.
    pub async fn flows(&self, bound: Duration) -> Result<(), String> {
        let started = Instant::now();
        while started.elapsed() < bound {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.since(Instant::now() - Duration::from_secs(1)) >= 10 {
                return Ok(());
            }
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Err(format!("nobody can write, {} s long: {:?}", bound.as_secs(), seen.refused))
    }

    /// Ends it; what it has seen.
    pub fn stop(self) -> Seen {
        self.task.abort();
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What tries share.
struct Tries {
    way: Way,
    writer: usize,
    /// Whether no connection is used twice.
    anew: bool,
    next: u64,
    /// When the last statement was sent that has no answer yet.
    asked: Arc<Mutex<Option<Instant>>>,
}

impl Tries {
    fn set_asked(&self, moment: Option<Instant>) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    /// One write, on this connection or a new one; the connection comes back if it was
    /// acknowledged.
    fn one(
        &mut self,
        open: Option<Connection>,
    ) -> impl Future<Output = Result<(Connection, u64, Instant), String>> + use<> {
        self.next += 1;
        let (way, writer, id, asked) = (self.way.clone(), self.writer, self.next, self.asked.clone());
        async move {
            let connection = match open {
                Some(connection) => connection,
                None => way.connect(CONNECT).await?,
            };
            *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            write(&connection, writer, id, ANSWER).await?;
            Ok((connection, id, Instant::now()))
        }
    }

    /// When the next connection is tried, beside what hangs.
    fn due(&self, last: Instant) -> Instant {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.map_or(last + AGAIN, |asked| (asked + STATEMENT).max(last + AGAIN))
    }
}

async fn probe(mut tries: Tries, seen: Arc<Mutex<Seen>>) {
    let mut running = FuturesUnordered::new();
    let mut last = Instant::now();
    running.push(tries.one(None));
    loop {
        tokio::select! {
            Some(done) = running.next() => {
                tries.set_asked(None);
                match done {
                    Ok((connection, id, at)) => {
                        seen.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.push((id, at));
                        // What still hangs, hangs at another server.
                        running.clear();
                        tokio::time::sleep(PAUSE).await;
                        last = Instant::now();
                        tries.set_asked(Some(last));
                        let kept = Some(connection).filter(|_| !tries.anew);
                        running.push(tries.one(kept));
                    }
                    Err(problem) => {
                        *seen.lock().unwrap_or_else(PoisonError::into_inner).refused.entry(problem).or_default() += 1;
                    }
                }
            }
            () = tokio::time::sleep_until(tries.due(last)) => {
                if Instant::now() < tries.due(last) {
                    // A statement was sent meanwhile: it has its time first.
                    continue;
                }
                last = Instant::now();
                if running.len() < AT_ONCE {
                    running.push(tries.one(None));
                }
            }
        }
    }
}
