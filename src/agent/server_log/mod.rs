//! PostgreSQL's log. Its collector writes files of JSON lines in the pod's memory, which the agent passes on to the pod's
//! standard output and removes. PostgreSQL never waits for whoever reads that output: beyond a bound the oldest lines are
//! dropped, and a line says how many bytes.

mod files;
mod line;
mod long;
mod tail;

use std::io;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::contract::pod::LOG_DIR;
use crate::output::Output;
use files::{Files, PREFIX};
use tail::Tail;

pub use files::dropped_bytes;

/// The size at which the collector begins another file.
const ROTATES_AT: &str = "1MB";
/// The size of all files together, in bytes.
const BOUND: u64 = 16 << 20;
/// How long a file that has a successor must have been at rest until it counts as ended.
const RESTS: Duration = Duration::from_secs(10);
/// How long the rest may take to be passed on when the agent ends.
const DRAINS: Duration = Duration::from_secs(2);

/// The settings of the collector. They are the agent's own, beside those of the operator: a server whose agent does not
/// pass its files on would fill them.
pub fn settings() -> [(&'static str, String); 8] {
    [
        ("logging_collector", "on".to_owned()),
        ("log_destination", "jsonlog".to_owned()),
        ("log_directory", LOG_DIR.to_owned()),
        ("log_filename", format!("{PREFIX}%Y%m%dT%H%M%S.log")),
        ("log_rotation_size", ROTATES_AT.to_owned()),
        ("log_rotation_age", "0".to_owned()),
        // The agent reads them, as the same user.
        ("log_file_mode", "0600".to_owned()),
        // The names of other zones are ambiguous: PST, CST and IST name several each.
        ("log_timezone", "UTC".to_owned()),
    ]
}

/// The log that is passed on.
pub struct ServerLog {
    output: Output,
    running: Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl ServerLog {
    /// Begins to pass it on.
    ///
    /// # Errors
    /// If the folder cannot be used, or no thread can be started.
    pub fn start() -> io::Result<Self> {
        let output = Output::of_process()?;
        let (running, end) = channel();
        let (ends, ended) = oneshot::channel();
        let files = Files::open(Path::new(LOG_DIR), BOUND, RESTS)?;
        let tail = Tail { files, output: output.clone(), end };
        thread::Builder::new().name("server-log".to_owned()).spawn(move || {
            tail.run();
            // The agent may have ended first.
            let _ = ends.send(());
        })?;
        Ok(Self { output, running, ended })
    }

    /// Where other lines go.
    pub fn output(&self) -> Output {
        self.output.clone()
    }

    /// Passes on what is left; the server has ended.
    pub async fn end(self) {
        drop(self.running);
        if tokio::time::timeout(DRAINS, self.ended).await.is_err() {
            tracing::warn!("the end of PostgreSQL's log was not passed on in time");
        }
    }
}
