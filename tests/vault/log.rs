//! Everything that is logged in this process, at every level and from every crate.

use std::io;
use std::sync::{Mutex, OnceLock};

static LOG: OnceLock<&'static Log> = OnceLock::new();

/// Stores the log.
#[derive(Default)]
pub struct Log(Mutex<Vec<u8>>);

impl Log {
    /// The log so far.
    pub fn text(&self) -> String {
        super::server::text(&self.0.lock().unwrap())
    }
}

/// Begins to listen, once for the process.
pub fn listen() -> &'static Log {
    LOG.get_or_init(|| {
        let log: &'static Log = Box::leak(Box::default());
        let filter = tracing_subscriber::EnvFilter::new("trace");
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || log).with_ansi(false).init();
        log
    })
}

impl io::Write for &'static Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
