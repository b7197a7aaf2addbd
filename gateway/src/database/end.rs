//! The end of what a request does on a connection: of its transaction, and the restoration of the session for the next
//! request of the same caller. It is one message, which is sent behind the last statement and costs no round trip.

use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::problem::Problem;

/// Leaves nothing of one request to the next: functions, triggers and views may have changed role and settings, taken
/// advisory locks, listened, or created temporary tables.
macro_rules! restore {
    () => {
        "RESET ALL; RESET ROLE; CLOSE ALL; UNLISTEN *; \
         SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
    };
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It has no transaction.
    Restore,
    /// Its transaction is committed, or rolled back if a statement of it has failed.
    Commit,
    /// Its transaction is rolled back.
    Rollback,
}

impl End {
    fn sql(self) -> &'static str {
        match self {
            Self::Restore => restore!(),
            Self::Commit => concat!("COMMIT; ", restore!()),
            Self::Rollback => concat!("ROLLBACK; ", restore!()),
        }
    }
}

/// What came of it.
pub(super) struct Ended {
    /// Of the transaction.
    pub(super) transaction: Result<(), Problem>,
    /// Whether nothing of the request is left on the connection.
    pub(super) restored: bool,
}

/// Ends a request. The message is sent when this is polled first.
pub(super) async fn end(client: Arc<Client>, how: End) -> Ended {
    let mut over = how == End::Restore;
    let stream = match client.simple_query_raw(how.sql()).await {
        Ok(stream) => stream,
        Err(error) => return Ended { transaction: Err(error.into()), restored: false },
    };
    let mut stream = pin!(stream);
    loop {
        match stream.next().await {
            None => return Ended { transaction: Ok(()), restored: true },
            // The first command is the transaction's end: a restoration that fails is none of its.
            Some(Ok(SimpleQueryMessage::CommandComplete(_))) => over = true,
            Some(Ok(_)) => {}
            Some(Err(_)) if over => return Ended { transaction: Ok(()), restored: false },
            Some(Err(error)) => return Ended { transaction: Err(error.into()), restored: false },
        }
    }
}
