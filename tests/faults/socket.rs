//! A proxy in front of PostgreSQL's socket in the pods of a case: it replaces the socket from
//! outside, on the node, so that the pod is unchanged.

use std::fs::{File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::Uid;
use servicedb::contract::pod::{POSTGRES_PORT, SOCKET_DIR};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::agents::{Agent, Agents};
use super::gate::Gate;
use super::statements;

/// Between two looks for pods and their agents.
const PODS: Duration = Duration::from_millis(150);
/// Between two looks at a socket: an agent's first statement comes later than that.
const SOCKETS: Duration = Duration::from_millis(5);

/// Replaces the socket of every agent of a case, whenever there is a new one.
pub async fn watch(agents: Agents, gate: Arc<Gate>) {
    let mut known: Vec<Agent> = Vec::new();
    let mut stands = JoinSet::new();
    loop {
        for agent in agents.living() {
            if !known.contains(&agent) {
                known.push(agent.clone());
                stands.spawn(stand_before(agent, gate.clone()));
            }
        }
        tokio::time::sleep(PODS).await;
    }
}

/// For as long as the agent lives.
async fn stand_before(agent: Agent, gate: Arc<Gate>) {
    let folder = PathBuf::from(format!("/proc/{}/root{SOCKET_DIR}", agent.pid));
    // An agent that has just started may not have its root yet.
    let directory = loop {
        match File::open(&folder) {
            Ok(directory) => break Arc::new(directory),
            Err(_) if agent.lives() => tokio::time::sleep(SOCKETS).await,
            Err(_) => return,
        }
    };
    let (socket, behind) =
        (folder.join(format!(".s.PGSQL.{POSTGRES_PORT}")), folder.join(format!(".behind.{}", agent.pid)));
    let mut ours = None;
    let mut connections = JoinSet::new();
    loop {
        let there = std::fs::metadata(&socket).ok();
        let is_known = there.as_ref().is_some_and(|there| Some(there.ino()) == ours);
        // Another process may have its number.
        if !is_known && !agent.lives() {
            return;
        }
        // A starting server creates its own again.
        if let Some(there) = there.filter(|_| !is_known) {
            let _ = std::fs::remove_file(&behind);
            let listener = UnixListener::bind(&behind).expect("a socket beside the server's");
            std::fs::set_permissions(&behind, Permissions::from_mode(0o777)).expect("a socket for all");
            // The folder is sticky: the next server could not remove it if it were root's.
            lchown(&behind, Some(there.uid()), Some(there.gid())).expect("a socket that is the server's");
            ours = std::fs::metadata(&behind).ok().map(|found| found.ino());
            // At once, so that nobody finds none. A server that ended meanwhile is met again.
            if renameat_with(CWD, &behind, CWD, &socket, RenameFlags::EXCHANGE).is_err() {
                ours = None;
                continue;
            }
            let server = format!("/proc/self/fd/{}/.behind.{}", directory.as_raw_fd(), agent.pid);
            let (agent, gate, directory) = (agent.clone(), gate.clone(), directory.clone());
            connections.spawn(async move {
                let _directory = directory;
                serve(listener, server, agent, gate).await;
            });
        }
        tokio::time::sleep(SOCKETS).await;
    }
}

async fn serve(listener: UnixListener, server: String, agent: Agent, gate: Arc<Gate>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        let (server, agent, gate) = (server.clone(), agent.clone(), gate.clone());
        connections.spawn(async move {
            let Ok(peer) = client.peer_cred() else { return };
            // Who breaks off is killed or gone; the next connection will be whole.
            if let Ok(server) = connect_as(server, peer.uid()).await {
                let _ = statements::relay(client, server, &agent, &gate).await;
            }
        });
    }
}

/// Connects as the client would: the server asks the kernel who it is.
async fn connect_as(server: String, uid: u32) -> std::io::Result<UnixStream> {
    let connected = tokio::task::spawn_blocking(move || {
        let root = Uid::from_raw(0);
        // Of this thread alone, and for one call.
        rustix::thread::set_thread_res_uid(None, Uid::from_raw(uid), root)?;
        let stream = std::os::unix::net::UnixStream::connect(server);
        rustix::thread::set_thread_res_uid(None, root, root)?;
        stream
    });
    let stream = connected.await.map_err(std::io::Error::other)??;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
