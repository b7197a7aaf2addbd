//! One connection of an agent to PostgreSQL, statement by statement (the protocol's version
//! 3.0, <https://www.postgresql.org/docs/current/protocol-message-formats.html>).

use std::collections::HashMap;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::agents::Agent;
use super::call::{Actor, Call};
use super::gate::{Fault, Gate};

/// The agents' application name.
const AGENT: &[u8] = b"application_name\0servicedb agent\0";
/// The beginnings of statements that change the compared state.
const CHANGES: [&str; 12] = [
    "ALTER", "COMMENT", "CREATE", "DELETE", "DO", "DROP", "GRANT", "INSERT", "REASSIGN", "REVOKE", "TRUNCATE", "UPDATE",
];
/// The equivalent of 409: a concurrent change.
const SERIALIZATION_FAILURE: &str = "40001";
/// The equivalent of 500.
const INTERNAL_ERROR: &str = "XX000";

/// A message: its type and what follows the length.
struct Message {
    kind: u8,
    body: Vec<u8>,
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len() + 4).expect("a length").to_be_bytes();
        [&[self.kind], &length[..], &self.body].concat()
    }

    /// The strings that it begins with.
    fn strings<const N: usize>(&self) -> [String; N] {
        let mut parts = self.body.split(|byte| *byte == 0);
        std::array::from_fn(|_| String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned())
    }
}

/// Copies a connection; one of the agent's passes the gate.
pub async fn relay(mut client: UnixStream, mut server: UnixStream, agent: &Agent, gate: &Gate) -> io::Result<()> {
    let length = client.read_u32().await?;
    let mut startup = vec![0; (length as usize).saturating_sub(4)];
    client.read_exact(&mut startup).await?;
    server.write_u32(length).await?;
    server.write_all(&startup).await?;
    if !startup.windows(AGENT.len()).any(|window| window == AGENT) {
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    let ((from_client, mut to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
    let (mut requests, mut answers) = (messages(from_client), messages(from_server));
    let mut known = Known::default();
    // A client does not wait for the end of what it closes: the server may have several to report, and an error belongs
    // to one of them. The first is that of the login.
    let mut outstanding = 1_u32;
    let mut error: Option<(&str, u32)> = None;
    loop {
        tokio::select! {
            // The end of one side is the end of both.
            request = requests.recv() => {
                let Some(request) = request else { return Ok(()) };
                let fault = known.change(&request).and_then(|call| gate.meet(Actor::AgentInPostgres, &call));
                let Some(fault) = fault else {
                    outstanding += u32::from(matches!(request.kind, b'Q' | b'S'));
                    to_server.write_all(&request.bytes()).await?;
                    continue;
                };
                match fault {
                    Fault::BeforeSend => {}
                    Fault::AfterCommit | Fault::LostReply => {
                        to_server.write_all(&request.bytes()).await?;
                        let mut whole = request.kind == b'Q';
                        while !whole && let Some(next) = requests.recv().await {
                            to_server.write_all(&next.bytes()).await?;
                            whole = next.kind == b'S';
                        }
                        while answers.recv().await.is_some_and(|answer| answer.kind != b'Z') {}
                    }
                    Fault::Conflict | Fault::ServerError => {
                        let state = if fault == Fault::Conflict { SERIALIZATION_FAILURE } else { INTERNAL_ERROR };
                        error = Some((state, outstanding));
                        if request.kind == b'Q' {
                            outstanding += 1;
                            // In its place, so that the server says that it is ready.
                            to_server.write_all(&Message { kind: b'S', body: Vec::new() }.bytes()).await?;
                        }
                        gate.passed();
                        continue;
                    }
                }
                if fault != Fault::LostReply {
                    agent.kill();
                }
                gate.passed();
                return Ok(());
            }
            answer = answers.recv() => {
                let Some(answer) = answer else { return Ok(()) };
                if answer.kind == b'Z' {
                    outstanding = outstanding.saturating_sub(1);
                    error = match error {
                        Some((state, 0)) => {
                            to_client.write_all(&refusal(state).bytes()).await?;
                            None
                        }
                        Some((state, before)) => Some((state, before - 1)),
                        None => None,
                    };
                }
                to_client.write_all(&answer.bytes()).await?;
            }
        }
    }
}

/// The messages of one direction, until it ends.
fn messages(mut from: impl AsyncRead + Send + Unpin + 'static) -> mpsc::Receiver<Message> {
    let (send, receive) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok(kind) = from.read_u8().await {
            let Ok(length) = from.read_u32().await else { return };
            let mut body = vec![0; (length as usize).saturating_sub(4)];
            if from.read_exact(&mut body).await.is_err() || send.send(Message { kind, body }).await.is_err() {
                return;
            }
        }
    });
    receive
}

fn refusal(state: &str) -> Message {
    let body = format!("SERROR\0VERROR\0C{state}\0Ma fault that a test ordered\0\0");
    Message { kind: b'E', body: body.into_bytes() }
}

/// Prepared statements and portals, by name.
#[derive(Default)]
struct Known {
    statements: HashMap<String, String>,
    portals: HashMap<String, String>,
}

impl Known {
    /// The change that a message has the server make; none if it has it make none.
    fn change(&mut self, message: &Message) -> Option<Call> {
        let sql = match message.kind {
            b'Q' => message.strings::<1>()[0].clone(),
            b'P' => {
                let [name, sql] = message.strings();
                self.statements.insert(name, sql);
                return None;
            }
            b'B' => {
                let [portal, statement] = message.strings();
                self.portals.insert(portal, statement);
                return None;
            }
            b'E' => self.statements.get(self.portals.get(&message.strings::<1>()[0])?)?.clone(),
            _ => return None,
        };
        change(&sql)
    }
}

fn change(sql: &str) -> Option<Call> {
    let first = |piece: &str| piece.split_whitespace().next().unwrap_or_default().to_uppercase();
    if !sql.split(';').any(|piece| CHANGES.contains(&first(piece).as_str())) {
        return None;
    }
    // What follows a literal differs from run to run, or is nobody's business.
    let shown = sql.split('\'').next().unwrap_or_default();
    let words: Vec<_> = shown.split_whitespace().take(6).collect();
    Some(Call { name: format!("SQL {}", words.join(" ")), can_conflict: true })
}

#[test]
fn statements_that_change_something_are_known() {
    let mut known = Known::default();
    let mut name = |kind: u8, body: &[u8]| known.change(&Message { kind, body: body.to_vec() }).map(|call| call.name);
    assert_eq!(name(b'Q', b"SELECT 1\0"), None);
    assert_eq!(
        name(b'Q', b"ALTER ROLE \"chat_a\" PASSWORD 'secret'\0").as_deref(),
        Some("SQL ALTER ROLE \"chat_a\" PASSWORD")
    );
    assert_eq!(
        name(b'Q', b"BEGIN; create TABLE t (); COMMIT\0").as_deref(),
        Some("SQL BEGIN; create TABLE t (); COMMIT")
    );
    assert_eq!(name(b'P', b"s1\0INSERT INTO t VALUES ($1)\0\0\0"), None);
    assert_eq!(name(b'B', b"\0s1\0\0\0"), None);
    assert_eq!(name(b'E', b"\0\0\0\0\0").as_deref(), Some("SQL INSERT INTO t VALUES ($1)"));
}
