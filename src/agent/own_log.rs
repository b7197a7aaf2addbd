//! The log of an agent itself. Its lines go to the pod's standard output the way of all others there: nobody waits for
//! whoever reads it. An agent that waited would renew no lease, watch no primary and answer no probe.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic;
use std::time::Duration;

use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::output::Output;
use crate::postgres::stray;

/// How long the last lines may take to be written when the process ends.
const LAST: Duration = Duration::from_secs(1);
/// How long a panic waits until its line is written: the process may end with it.
const PANIC: Duration = Duration::from_millis(200);

/// The log. Dropped at the end of the process, it writes the last lines.
pub struct OwnLog(Output);

impl OwnLog {
    /// Begins to write, also of panics.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start() -> io::Result<Self> {
        let output = Output::of_process()?;
        let told = output.clone();
        panic::set_hook(Box::new(move |panic| {
            let trace = Backtrace::capture();
            let trace = if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
            let line = stray::wrapped("ERROR", "agent", &format!("{panic}{trace}"));
            told.insist((line + "\n").into_bytes(), PANIC);
        }));
        Ok(Self(output))
    }

    /// Where its lines go.
    pub fn writer(&self) -> BoxMakeWriter {
        let output = self.0.clone();
        BoxMakeWriter::new(move || Lines(output.clone()))
    }
}

impl Drop for OwnLog {
    fn drop(&mut self) {
        self.0.insist(Vec::new(), LAST);
    }
}

/// Writes the last lines before another program takes the place of this one.
pub fn flush() {
    if let Ok(output) = Output::of_process() {
        output.insist(Vec::new(), LAST);
    }
}

/// Takes lines, each in one call, and never waits.
struct Lines(Output);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.pass(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use serde_json::Value;

    use super::*;
    use crate::output::unread;

    #[test]
    fn the_agent_does_not_wait_for_the_reader_of_its_log() {
        let (output, mut reader) = unread();
        let log = OwnLog(output.clone());
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(log.writer()).finish();
        let text = "x".repeat(4096);
        // More than the queue and the socket take: this ends only because nobody waits.
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..2000 {
                tracing::info!(number, text = text.as_str());
            }
        });
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        assert!(output.insist(b"{\"number\":2000}\n".to_vec(), Duration::from_secs(60)));
        drop((log, output));
        let text = reading.join().expect("no panic").expect("text");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let numbers: Vec<_> = lines.iter().filter_map(|line| line["number"].as_u64()).collect();
        assert!(numbers.is_sorted() && numbers.len() < 2000, "{} lines", numbers.len());
        assert_eq!((numbers.first(), numbers.last()), (Some(&0), Some(&2000)));
        let told = lines.iter().filter_map(|line| line["message"].as_str());
        let dropped = told.filter_map(|told| told.split_once(" lines of the agent")?.0.parse::<usize>().ok());
        assert_eq!(dropped.sum::<usize>() + numbers.len(), 2001, "each line was written or counted");
    }
}
