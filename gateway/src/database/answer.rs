//! Answers that are sent row by row, as the rows arrive.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures::future::{MaybeDone, maybe_done};
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_postgres::RowStream;

use super::end::{End, Ended, end};
use super::lease::Lease;
use super::run::{begin, prepared, start, text, version_of};
use super::wait::in_time;
use crate::cache::Kept;
use crate::problem::{Problem, lost};
use crate::sql::Statement;

/// The size of a piece of an answer.
const PIECE: usize = 32 << 10;

/// What stands before, between and after the rows of an answer.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Before the first.
    pub before: String,
    /// Between two.
    pub between: &'static str,
    /// After the last.
    pub after: &'static str,
}

/// Some rows of an answer.
#[derive(Debug, Default)]
pub struct Piece {
    /// Their text, with the frame.
    pub bytes: Bytes,
    /// Where each row ends in it.
    pub ends: Vec<usize>,
    /// Whether nothing follows.
    pub last: bool,
}

impl Piece {
    /// All of an answer, without its rows' ends.
    pub fn whole(bytes: Bytes) -> Self {
        Self { bytes, ends: Vec::new(), last: true }
    }

    /// The rows, each for itself: without a frame.
    pub fn rows(mut self) -> impl Iterator<Item = Bytes> {
        let mut at = 0;
        self.ends.into_iter().map(move |end| {
            let row = self.bytes.split_to(end - at);
            at = end;
            row
        })
    }
}

/// An answer: its first piece, which may be all of it, and what follows.
pub struct Answer {
    /// Up to the size of the buffer.
    pub first: Piece,
    /// The number of its rows, if it is whole.
    pub rows: Option<u64>,
    /// The version of what a statement with one has read.
    pub(super) version: Option<String>,
    /// What follows.
    rest: Option<mpsc::Receiver<Result<Piece, Problem>>>,
}

impl Answer {
    /// One that is whole.
    pub fn whole(body: Bytes, rows: u64) -> Self {
        Self { first: Piece::whole(body), rows: Some(rows), version: None, rest: None }
    }

    /// One that was kept.
    pub(super) fn kept(kept: &Kept) -> Self {
        let first = Piece { bytes: kept.text.clone(), ends: kept.ends.clone(), last: true };
        Self { first, rows: Some(kept.rows), version: None, rest: None }
    }

    /// Its size, if it is whole.
    pub fn bytes(&self) -> Option<usize> {
        self.rest.is_none().then_some(self.first.bytes.len())
    }

    /// Its pieces. One that ends early ends with an error.
    pub fn pieces(self) -> impl Stream<Item = Result<Piece, Problem>> + Send {
        let rest = futures::stream::unfold(self.rest, |rest| async {
            let mut rest = rest?;
            match rest.recv().await {
                Some(Ok(piece)) if piece.last => Some((Ok(piece), None)),
                Some(Ok(piece)) => Some((Ok(piece), Some(rest))),
                Some(Err(problem)) => Some((Err(problem), None)),
                // Given up, since nobody took it.
                None => Some((Err(unread()), None)),
            }
        });
        futures::stream::iter([Ok(self.first)]).chain(rest)
    }

    /// It as a body. After an error the connection of the client is closed, so that it does not take a part for the
    /// whole.
    pub fn into_body(self) -> Body {
        if self.rest.is_none() {
            return Body::from(self.first.bytes);
        }
        Body::from_stream(self.pieces().map(|piece| piece.map(|piece| piece.bytes)))
    }
}

/// The end of an answer that was not read.
fn unread() -> Problem {
    Problem::new(http::StatusCode::REQUEST_TIMEOUT, "SDB407", "the answer was ended: it was not read for too long")
}

/// The rows of a statement as they arrive; up to `buffer` bytes they are sent whole. It is the last one of its connection's
/// request, whose end is sent with it.
///
/// # Errors
/// Any error of the server before the answer begins.
pub(super) async fn answer(
    mut lease: Lease,
    statement: &Statement,
    frame: Frame,
    buffer: usize,
    in_transaction: bool,
) -> Result<Answer, Problem> {
    lease.begin();
    let patience = lease.patience();
    let known = in_time(patience, async {
        let known = prepared(&mut lease, statement).await?;
        begin(&lease.client(), lease.take_opening()).await?;
        Ok(known)
    });
    let known = match known.await {
        Ok(known) => known,
        Err(problem) => {
            if !in_transaction && !problem.connection_lost {
                lease.end();
            }
            return Err(problem);
        }
    };
    let client = lease.client();
    let how = if in_transaction { End::Commit } else { End::Restore };
    let mut ending: Ending = Box::pin(maybe_done(end(Arc::clone(&client), how).boxed()));
    let started = in_time(patience, async {
        let mut start = pin!(start(&client, &known, statement));
        // Behind the statement, in one message.
        poll_fn(|context| {
            let started = start.as_mut().poll(context);
            let _ = ending.as_mut().poll(context);
            started
        })
        .await
    });
    let stream = match started.await {
        Ok(stream) => stream,
        Err(problem) => {
            settle(&mut lease, &mut ending, &problem).await;
            return Err(problem);
        }
    };
    let mut running = Running {
        text: BytesMut::from(frame.before.as_bytes()),
        ends: Vec::new(),
        lease,
        stream,
        ending,
        frame,
        rows: 0,
        versioned: statement.versioned,
        version: None,
        done: false,
    };
    while !running.done && running.text.len() <= buffer {
        if let Err(problem) = running.more(running.text.len() + PIECE).await {
            settle(&mut running.lease, &mut running.ending, &problem).await;
            return Err(problem);
        }
    }
    let (first, version) = (running.piece(), running.version.take());
    if running.done {
        return Ok(Answer { first, rows: Some(running.rows), version, rest: None });
    }
    let (sender, rest) = mpsc::channel(1);
    tokio::spawn(send(running, sender));
    Ok(Answer { first, rows: None, version, rest: Some(rest) })
}

/// Sends the rest of an answer. A client that takes nothing for too long keeps no connection to the database, and none
/// keeps it for what has left it.
async fn send(mut running: Running, sender: mpsc::Sender<Result<Piece, Problem>>) {
    let stall = running.lease.stall();
    loop {
        let more = tokio::select! {
            more = running.more(PIECE) => more,
            () = sender.closed() => return,
        };
        let piece = match more {
            Ok(()) if running.done => {
                let last = running.piece();
                drop(running);
                let _ = tokio::time::timeout(stall, sender.send(Ok(last))).await;
                return;
            }
            Ok(()) => running.piece(),
            Err(problem) => {
                tracing::warn!(code = problem.code, "an answer ended early");
                drop(running);
                let _ = tokio::time::timeout(stall, sender.send(Err(problem))).await;
                return;
            }
        };
        match tokio::time::timeout(stall, sender.send(Ok(piece))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                let caller = &*running.lease.caller().name;
                tracing::warn!(caller, "an answer that its client does not read was ended");
                return;
            }
        }
    }
}

/// After an error that the server reported, what was sent behind the statement ends the request all the same.
async fn settle(lease: &mut Lease, ending: &mut Ending, problem: &Problem) {
    if !problem.connection_lost && in_time(lease.patience(), ended(lease, ending)).await.is_ok() {
        lease.end();
    }
}

/// Waits for the end of the request.
async fn ended(lease: &mut Lease, ending: &mut Ending) -> Result<(), Problem> {
    ending.as_mut().await;
    let ended = ending.as_mut().take_output().ok_or_else(lost)?;
    lease.set_restored(ended.restored);
    ended.transaction
}

/// The end of a request, which was sent.
type Ending = Pin<Box<MaybeDone<Pin<Box<dyn Future<Output = Ended> + Send>>>>>;

/// A statement whose rows are sent.
struct Running {
    lease: Lease,
    stream: Pin<Box<RowStream>>,
    ending: Ending,
    frame: Frame,
    text: BytesMut,
    ends: Vec<usize>,
    rows: u64,
    versioned: bool,
    version: Option<String>,
    done: bool,
}

impl Running {
    /// Takes rows until there is as much text, or none is left.
    async fn more(&mut self, size: usize) -> Result<(), Problem> {
        in_time(self.lease.patience(), self.fill(size)).await
    }

    async fn fill(&mut self, size: usize) -> Result<(), Problem> {
        while self.text.len() < size {
            let Some(row) = self.stream.next().await else {
                self.text.put_slice(self.frame.after.as_bytes());
                ended(&mut self.lease, &mut self.ending).await?;
                self.lease.end();
                self.done = true;
                return Ok(());
            };
            let row = row?;
            if self.versioned {
                if self.rows == 0 {
                    self.version = version_of(&row)?;
                }
                // The version alone.
                if text(&row, 0)?.is_none() {
                    continue;
                }
            }
            if self.rows > 0 {
                self.text.put_slice(self.frame.between.as_bytes());
            }
            self.rows += 1;
            self.text.put_slice(text(&row, 0)?.unwrap_or("null").as_bytes());
            self.ends.push(self.text.len());
        }
        Ok(())
    }

    /// What it has taken.
    fn piece(&mut self) -> Piece {
        Piece { bytes: self.text.split().freeze(), ends: std::mem::take(&mut self.ends), last: self.done }
    }
}
