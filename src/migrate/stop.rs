//! The stop request, on SIGTERM.

use std::time::Duration;

use tokio::sync::watch;

/// Receives the stop request.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Asks the run to end.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// A run's stop request: receiver and sender.
pub fn stop() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Asks the run to end.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether a stop was requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the stop request; forever if the sender is gone.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Sleeps, at most until the stop request; returns whether the run may continue.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            () = self.requested() => false,
            () = tokio::time::sleep(duration) => true,
        }
    }
}

/// Waits for SIGTERM or Ctrl-C, and sends the stop request.
pub async fn listen(stopper: Stopper) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            },
            Err(error) => {
                tracing::warn!(%error, "failed to listen for signals");
                return;
            }
        }
    }
    #[cfg(not(unix))]
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    stopper.request();
}
