//! The thread that passes PostgreSQL's log on.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use super::files::{Chunk, Files, Kind};
use super::line::{self, LOGGER};
use crate::output::Output;
use crate::postgres::stray;

/// Interval between two looks for new lines.
const POLL: Duration = Duration::from_millis(200);

/// Passes the lines of some files on.
pub struct Tail {
    /// The files.
    pub files: Files,
    /// Where the lines go.
    pub output: Output,
    /// Closed when nothing more will be written.
    pub end: Receiver<()>,
}

impl Tail {
    /// Runs until `end` is closed and everything was passed on. The files keep their bound even while nobody reads the
    /// output.
    pub fn run(mut self) {
        let mut told = None;
        loop {
            // Before the look: what was written before the end is passed on.
            let is_over = self.end.try_recv() == Err(TryRecvError::Disconnected);
            let passed = self.step();
            let problem = passed.as_ref().err().map(ToString::to_string);
            if problem != told {
                let text = problem.as_ref().map(|problem| format!("PostgreSQL's log cannot be read: {problem}"));
                text.into_iter().for_each(|text| self.output.say(stray::wrapped("ERROR", "agent", &text)));
                told = problem;
            }
            if !matches!(passed, Ok(true)) {
                if is_over {
                    return;
                }
                // It ends early with the end.
                let _ = self.end.recv_timeout(POLL);
            }
        }
    }

    /// Passes the next lines on; returns whether there were any.
    fn step(&mut self) -> io::Result<bool> {
        self.tend()?;
        let chunk = self.files.next_chunk()?;
        let dropped = self.files.take_dropped();
        let mut text = Vec::new();
        if dropped > 0 {
            text.extend_from_slice(gap(dropped).as_bytes());
        }
        chunk.iter().for_each(|chunk| write(chunk, &mut text));
        if !text.is_empty() {
            self.pass(text);
        }
        self.files.save()?;
        Ok(chunk.is_some())
    }

    fn tend(&mut self) -> io::Result<()> {
        self.files.look()?;
        self.files.remove_passed()?;
        self.files.keep_bound()
    }

    /// Waits until the text is written.
    fn pass(&mut self, text: Vec<u8>) {
        let mut offered = self.output.offer(text);
        loop {
            match offered {
                Ok(written) => {
                    while written.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                        self.tend_meanwhile();
                    }
                    return;
                }
                Err(text) => {
                    std::thread::sleep(POLL);
                    self.tend_meanwhile();
                    offered = self.output.offer(text);
                }
            }
        }
    }

    /// What fails here fails again in the next step, which reports it.
    fn tend_meanwhile(&mut self) {
        let _ = self.tend();
    }
}

/// The line in place of those that were dropped.
fn gap(bytes: u64) -> String {
    let message = format!("{bytes} bytes of PostgreSQL's log were dropped, since the pod's output is read slowly");
    stray::wrapped("WARN", LOGGER, &message) + "\n"
}

fn write(chunk: &Chunk, text: &mut Vec<u8>) {
    let lines =
        if chunk.cut.is_some() { vec![&chunk.bytes[..]] } else { chunk.bytes.split(|byte| *byte == b'\n').collect() };
    for line in lines {
        let line = match chunk.kind {
            Kind::Json => line::marked(line, chunk.cut),
            // A tenant's session can write here, as by the notices of a server that `dblink` reaches.
            Kind::Stray => stray::as_message(line),
        };
        if let Some(line) = line {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::{BufRead, BufReader, Write};
    use std::path::{Path, PathBuf};
    use std::sync::mpsc::{Sender, channel};
    use std::thread::{self, JoinHandle};
    use std::time::Instant;

    use serde_json::Value;

    use super::*;
    use crate::agent::server_log::dropped_bytes;
    use crate::output::unread;

    const BOUND: u64 = 1 << 20;

    fn folder(test: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("servicedb-tail-{test}-{}", std::process::id()));
        crate::files::remove_tree(&folder).expect("no folder");
        folder
    }

    fn start(folder: &Path, output: Output) -> (Sender<()>, JoinHandle<()>) {
        let (running, end) = channel();
        let files = Files::open(folder, BOUND, Duration::from_secs(10)).expect("a folder");
        (running, thread::spawn(|| Tail { files, output, end }.run()))
    }

    fn append(folder: &Path, name: &str, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(folder.join(name)).expect("a file");
        file.write_all(text.as_bytes()).expect("a write");
    }

    fn line(message: &str) -> String {
        format!(
            "{{\"timestamp\":\"2026-11-30 17:39:29.314 UTC\",\"error_severity\":\"LOG\",\"message\":\"{message}\"}}\n"
        )
    }

    fn size(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").metadata().map_or(0, |metadata| metadata.len())).sum()
    }

    #[test]
    fn every_line_of_either_file_arrives_as_json_before_the_end() {
        let folder = folder("end");
        let (output, reader) = unread();
        let (running, tail) = start(&folder, output);
        for number in 0..1000 {
            append(&folder, "postgresql-1.json", &line(&number.to_string()));
        }
        append(&folder, "postgresql-1.log", "P00  ERROR: [032]: no store\n");
        append(
            &folder,
            "postgresql-1.log",
            &line("AUDIT: forged").replace('{', "{\"audit\":true,\"logger\":\"postgres\","),
        );
        append(&folder, "postgresql-2.json", &line("the last"));
        drop(running);
        let lines = BufReader::new(reader).lines().map(|line| line.expect("a line"));
        let lines: Vec<Value> = lines.map(|line| serde_json::from_str(&line).expect("JSON")).collect();
        tail.join().expect("no panic");
        let of = |logger: &str| lines.iter().filter(|line| line["logger"] == logger).collect::<Vec<_>>();
        let (postgres, stray) = (of("postgres"), of("stderr"));
        assert_eq!((postgres.len(), stray.len()), (1001, 2));
        assert!(lines.iter().all(|line| line.get("audit").is_none()), "a tenant's session can write an object there");
        let numbers: Vec<_> = postgres[..1000].iter().map(|line| line["message"].as_str().expect("text")).collect();
        assert_eq!(numbers, (0..1000).map(|number| number.to_string()).collect::<Vec<_>>(), "the order is kept");
        assert_eq!((&postgres[1000]["message"], &stray[0]["level"]), (&"the last".into(), &"ERROR".into()));
        fs::remove_dir_all(folder).expect("a folder");
    }

    #[test]
    fn the_bound_holds_while_nobody_reads() {
        let folder = folder("slow");
        let before = dropped_bytes();
        let (output, reader) = unread();
        let (running, tail) = start(&folder, output);
        let text = line(&"x".repeat(900)).repeat(400);
        let (files, started) = (12, Instant::now());
        for number in 10..10 + files {
            append(&folder, &format!("postgresql-{number}.json"), &text);
        }
        while size(&folder) > BOUND + 4096 {
            assert!(started.elapsed() < Duration::from_secs(60), "{} bytes", size(&folder));
            thread::sleep(Duration::from_millis(20));
        }
        // The alert must not wait for the reader.
        assert!(dropped_bytes() - before > 2 * BOUND, "{} bytes are counted", dropped_bytes() - before);
        append(&folder, "postgresql-99.json", &line("the last"));
        drop(running);
        let lines = BufReader::new(reader).lines().map(|line| line.expect("a line"));
        let lines: Vec<Value> = lines.map(|line| serde_json::from_str(&line).expect("JSON")).collect();
        tail.join().expect("no panic");
        assert_eq!(lines.last().map(|line| &line["message"]), Some(&"the last".into()));
        let (mut dropped, mut passed) = (0, 0);
        for line in &lines[..lines.len() - 1] {
            match line["message"].as_str().and_then(|text| text.split_once(" bytes of PostgreSQL's log were dropped")) {
                Some((bytes, _)) => dropped += bytes.parse::<usize>().expect("a number"),
                None => passed += text.len() / 400,
            }
        }
        assert!(dropped > 0 && passed > 0, "{dropped} and {passed} bytes");
        assert_eq!(dropped + passed, files * text.len(), "each line was passed on or counted");
        fs::remove_dir_all(folder).expect("a folder");
    }
}
