//! The signals by which a closed terminal or a supervisor ends this program.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// They are received from its creation on, and no longer end the program by themselves.
pub struct Signals {
    #[cfg(unix)]
    hangup: Signal,
    #[cfg(unix)]
    terminate: Signal,
}

impl Signals {
    /// Receives them from now on.
    ///
    /// # Errors
    /// If the system refuses.
    #[cfg(unix)]
    pub fn receive() -> std::io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, terminate: signal(SignalKind::terminate())? })
    }

    /// There are none.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    pub fn receive() -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the first of them.
    #[cfg(unix)]
    pub async fn first(&mut self) {
        tokio::select! {
            _ = self.hangup.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits forever.
    #[cfg(not(unix))]
    pub async fn first(&mut self) {
        std::future::pending().await
    }
}
