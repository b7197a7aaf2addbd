//! Bodies of requests, bounded in size, in time, and all together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::problem::Problem;

/// How long a body may take to arrive.
const TIME: Duration = Duration::from_secs(30);
/// How long, and how many bytes of, a body that was refused for its size are read further: its client may see the answer
/// only when all is sent.
const REFUSED: (Duration, usize) = (Duration::from_secs(5), 64 << 20);
/// What one permit stands for.
const UNIT: usize = 1 << 10;

/// The room for bodies.
pub struct Bodies {
    largest: usize,
    room: Arc<Semaphore>,
}

/// A body with the room that it takes.
pub struct Received {
    /// All of it.
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// As the settings have it.
    pub fn new(limits: &Limits) -> Self {
        let units = limits.bodies_bytes.max(limits.body_bytes).div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self { largest: limits.body_bytes, room: Arc::new(Semaphore::new(units)) }
    }

    /// A body, if it arrives in time, is no larger than it may be, and there is room.
    ///
    /// # Errors
    /// 408, 413, 503, or 400 for one that ends early.
    pub async fn receive(&self, mut body: Body) -> Result<Received, Problem> {
        let slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "SDB115", "the body did not arrive in time");
        let received = tokio::time::timeout(TIME, self.whole(&mut body)).await.map_err(slow)?;
        if received.as_ref().is_err_and(|problem| problem.status == StatusCode::PAYLOAD_TOO_LARGE) {
            tokio::spawn(tokio::time::timeout(REFUSED.0, discard(body)));
        }
        received
    }

    async fn whole(&self, body: &mut Body) -> Result<Received, Problem> {
        let mut text = BytesMut::new();
        let (mut room, mut held) = (None::<OwnedSemaphorePermit>, 0);
        self.fits(usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX))?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Problem::request("SDB117", "the body ended early"))?;
            let Ok(data) = frame.into_data() else { continue };
            let size = text.len() + data.len();
            self.fits(size)?;
            let more = size.div_ceil(UNIT) - held;
            let permit = Arc::clone(&self.room).try_acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
            let permit = permit.map_err(|_| {
                Problem::unavailable("SDB119", "the bodies of other requests leave no room for this one")
            })?;
            held += more;
            match &mut room {
                Some(room) => room.merge(permit),
                None => room = Some(permit),
            }
            text.extend_from_slice(&data);
        }
        Ok(Received { bytes: text.freeze(), _room: room })
    }

    fn fits(&self, size: usize) -> Result<(), Problem> {
        if size <= self.largest {
            return Ok(());
        }
        let message = format!("the body is larger than {} bytes", self.largest);
        Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "SDB116", message))
    }
}

/// Reads what is left of a body, and keeps nothing of it.
async fn discard(mut body: Body) {
    let mut size = 0;
    while let Some(Ok(frame)) = body.frame().await {
        size += frame.data_ref().map_or(0, Buf::remaining);
        if size > REFUSED.1 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_have_room_together_until_their_requests_end() {
        let limits = Limits { body_bytes: 3 << 10, bodies_bytes: 4 << 10, ..Limits::default() };
        let bodies = Bodies::new(&limits);
        let body = |size: usize| {
            // In several frames, of an unknown length.
            let frames = vec![vec![b'x'; size / 2], vec![b'x'; size - size / 2]];
            Body::from_stream(futures::stream::iter(frames.into_iter().map(Ok::<_, std::io::Error>)))
        };
        let code = |result: Result<Received, Problem>| result.err().map(|problem| problem.code.clone());
        assert_eq!(code(bodies.receive(body(3 * 1024 + 1)).await).as_deref(), Some("SDB116"));
        assert_eq!(code(bodies.receive(Body::from(vec![0; 4096])).await).as_deref(), Some("SDB116"), "by its length");
        let first = bodies.receive(body(2500)).await.expect("room");
        assert_eq!(first.bytes.len(), 2500);
        assert_eq!(code(bodies.receive(body(1500)).await).as_deref(), Some("SDB119"));
        let second = bodies.receive(body(100)).await.expect("the last room");
        drop(first);
        bodies.receive(body(3072)).await.expect("room again");
        drop(second);
        assert_eq!(bodies.room.available_permits(), 4);
        assert!(bodies.receive(Body::empty()).await.expect("nothing").bytes.is_empty());
    }
}
