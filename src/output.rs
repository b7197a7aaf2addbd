//! The standard output of an agent: one thread writes it, so that nobody else waits for whoever reads it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Child;

use crate::postgres::stray;

/// Texts that wait, at most.
const QUEUE: usize = 256;
/// The length at which a line of another program is divided, in bytes.
const LONGEST: u64 = 64 << 10;
/// The pause between two attempts to add to a full queue.
const RETRY: Duration = Duration::from_millis(5);

/// That of this process.
static OF_PROCESS: OnceLock<Output> = OnceLock::new();

/// Lines, in whole.
struct Text {
    bytes: Vec<u8>,
    written: Option<SyncSender<()>>,
}

/// Where lines for the pod's standard output are given; cheap to clone.
#[derive(Clone)]
pub struct Output {
    queue: SyncSender<Text>,
    lost: Arc<AtomicU64>,
}

impl Output {
    /// That of this process, which is begun with the first call.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn of_process() -> io::Result<Self> {
        if let Some(output) = OF_PROCESS.get() {
            return Ok(output.clone());
        }
        let output = Self::start(File::from(io::stdout().as_fd().try_clone_to_owned()?))?;
        // If another thread was faster, this one ends with its queue.
        Ok(OF_PROCESS.get_or_init(|| output).clone())
    }

    /// Begins to write.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(mut sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, texts) = sync_channel::<Text>(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            for text in texts {
                let count = counted.swap(0, Ordering::Relaxed);
                let mut bytes = text.bytes;
                if count > 0 {
                    let message = format!(
                        "{count} lines of the agent, Patroni and other programs were dropped, since the pod's output is read slowly"
                    );
                    bytes = [format!("{}\n", stray::wrapped("WARN", "agent", &message)).into_bytes(), bytes].concat();
                }
                // Nobody reads it any more if this fails, and there is nobody to tell.
                let _ = sink.write_all(&bytes).and_then(|()| sink.flush());
                if let Some(written) = text.written {
                    let _ = written.send(());
                }
            }
        })?;
        Ok(Self { queue, lost })
    }

    /// Writes a line, or drops it if too many wait: the caller never waits.
    pub fn say(&self, line: String) {
        let mut bytes = line.into_bytes();
        bytes.push(b'\n');
        self.pass(bytes);
    }

    /// The same with a line that has its end.
    pub fn pass(&self, bytes: Vec<u8>) {
        if self.queue.try_send(Text { bytes, written: None }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes lines, and tells when they are written.
    ///
    /// # Errors
    /// The lines, if too many wait.
    pub fn offer(&self, bytes: Vec<u8>) -> Result<Receiver<()>, Vec<u8>> {
        let (written, told) = sync_channel(1);
        match self.queue.try_send(Text { bytes, written: Some(written) }) {
            Ok(()) => Ok(told),
            Err(TrySendError::Full(text) | TrySendError::Disconnected(text)) => Err(text.bytes),
        }
    }

    /// Writes a line that has its end, or nothing, and waits so long at most until it and all before it are written; returns
    /// whether they are.
    pub fn insist(&self, mut bytes: Vec<u8>, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            match self.offer(bytes) {
                Ok(written) => return written.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok(),
                Err(refused) if Instant::now() < until => bytes = refused,
                Err(refused) => {
                    self.lost.fetch_add(u64::from(!refused.is_empty()), Ordering::Relaxed);
                    return false;
                }
            }
            thread::sleep(RETRY);
        }
    }

    /// Passes on what a program writes to its piped standard output and error, and whatever it starts there: it is
    /// read at once in any case, so that none of them waits.
    pub fn follow(&self, child: &mut Child) {
        if let Some(stdout) = child.stdout.take() {
            self.follow_stream(stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            self.follow_stream(stderr);
        }
    }

    fn follow_stream(&self, stream: impl AsyncRead + Unpin + Send + 'static) {
        let output = self.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            loop {
                line.clear();
                match (&mut reader).take(LONGEST).read_until(b'\n', &mut line).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {
                        if let Some(line) = stray::as_json(&line) {
                            output.say(line);
                        }
                    }
                }
            }
        });
    }
}

/// Writes a line of a server that this process runs. An agent does not wait for it; a Job, which has no such output, writes
/// it to its standard error.
pub fn line(line: String) {
    match OF_PROCESS.get() {
        Some(output) => output.say(line),
        None => eprintln!("{line}"),
    }
}

/// An output whose reader has read nothing yet.
#[cfg(test)]
pub fn unread() -> (Output, std::os::unix::net::UnixStream) {
    let (sink, reader) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    (Output::start(sink).expect("a thread"), reader)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn nobody_waits_for_the_reader_and_the_gap_is_told() {
        let (output, mut reader) = unread();
        let line = "x".repeat(64 << 10);
        let mut said = 0;
        while output.lost.load(Ordering::Relaxed) < 20 {
            output.say(line.clone());
            said += 1;
        }
        let mut offered = output.offer(b"batch\n".to_vec());
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        while let Err(bytes) = offered {
            thread::sleep(Duration::from_millis(5));
            offered = output.offer(bytes);
        }
        offered.expect("it is taken").recv().expect("it is written");
        drop(output);
        let text = reading.join().expect("no panic").expect("text");
        assert!(text.ends_with("batch\n"), "the order is kept");
        let mut dropped = 0;
        for gap in text.lines().filter(|line| line.contains("were dropped")) {
            let told: serde_json::Value = serde_json::from_str(gap).expect("JSON");
            assert_eq!(told["level"], "WARN");
            let count = told["message"].as_str().and_then(|text| text.split(' ').next());
            dropped += count.and_then(|count| count.parse::<usize>().ok()).expect("a number");
        }
        let written = text.lines().filter(|line| line.starts_with('x')).count();
        assert!(dropped >= 20, "{dropped}");
        assert_eq!(written + dropped, said);
    }

    #[test]
    fn the_last_line_is_written_within_a_deadline_or_given_up() {
        let (output, reader) = unread();
        output.say("one".to_owned());
        assert!(output.insist(b"two\n".to_vec(), Duration::from_secs(60)), "the socket has room");
        let line = "x".repeat(64 << 10);
        while output.lost.load(Ordering::Relaxed) == 0 {
            output.say(line.clone());
        }
        let began = Instant::now();
        assert!(!output.insist(b"three\n".to_vec(), Duration::from_millis(50)), "nobody reads");
        assert!(!output.insist(Vec::new(), Duration::from_millis(50)));
        assert!(began.elapsed() < Duration::from_secs(30));
        drop(reader);
        assert!(output.insist(Vec::new(), Duration::from_secs(60)), "without a reader nothing is in the way");
    }

    #[tokio::test]
    async fn what_a_program_writes_becomes_lines_of_json() {
        let (output, mut reader) = unread();
        let script = "echo plain; echo >&2 '{\"logger\":\"patroni\"}'; printf 'no end'";
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        output.follow(&mut child);
        drop(output);
        child.wait().await.expect("its end");
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        let text = read.await.expect("no panic").expect("text");
        let mut found: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        found.sort_by_key(|line| line["message"].to_string());
        let messages: Vec<_> = found.iter().map(|line| line["message"].as_str()).collect();
        assert_eq!(messages, [Some("no end"), Some("plain"), None]);
    }
}
