//! The wish to end, as SIGTERM brings it.

use std::time::Duration;

use tokio::sync::watch;

/// Tells whether the run shall end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Asks the run to end.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// A run's wish to end, and its hand.
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
    /// Whether the run shall end.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the run shall end; for ever if nobody can ask any more.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Sleeps, until the run shall end; whether it may go on.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            () = self.requested() => false,
            () = tokio::time::sleep(duration) => true,
        }
    }
}

/// Waits for SIGTERM or Ctrl-C, and passes it on.
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
                tracing::warn!(%error, "signals cannot be received");
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
