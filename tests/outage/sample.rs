//! One fault, and the time without writes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::client::Way;
use crate::faults;
use crate::gaps::{Gap, gaps, longest};
use crate::harness::column;
use crate::kinds::Kind;
use crate::nodes::{self, Break, Broken};
use crate::prober::Prober;
use crate::subject::{Subject, WHOLE, node, report};

/// The time of undisturbed writes before the fault, which shows the machine's own delays.
const AT_REST: Duration = Duration::from_secs(3);
/// How long the fault may take to show: a primary that is being deleted writes on for a while.
const SHOWS: Duration = Duration::from_secs(5);
/// How long an API server that is back is left alone.
const LOOPS: Duration = Duration::from_secs(20);
/// How long writes may stay away before they never come back.
const BACK: Duration = Duration::from_secs(240);
/// From this length on a time without writes is reported, besides the longest.
const NOTABLE: f64 = 0.2;
/// So many connections in a row that find a server: nobody is sent to the dead address any more.
const IN_A_ROW: usize = 20;

/// What one fault cost. Times are in seconds since the fault.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// What happened.
    pub kind: Kind,
    /// The pod that it happened to, and its node.
    pub pod: String,
    /// The longest time without an acknowledged write.
    pub outage: f64,
    /// All that are notable.
    pub gaps: Vec<Gap>,
    /// The longest one before anything happened.
    pub at_rest: f64,
    /// Of a node that is cut off: when the Service sent nobody to it any more.
    pub service: Option<f64>,
    /// When the database had recovered, checked from five seconds on; for a node that is cut off,
    /// since its repair.
    pub whole: f64,
    /// Rows that were acknowledged and are not there.
    pub lost: Vec<u64>,
    /// Of an API server that hangs: the pods whose PostgreSQL was started again, which need not be.
    pub started_again: Vec<String>,
    /// What the client was told, and how often.
    pub refused: BTreeMap<String, usize>,
}

/// Breaks a database that is whole, and waits until it is whole again.
///
/// # Errors
/// If the fault cannot be brought about, or the database does not recover.
pub async fn take(subject: &Subject, kind: Kind, number: usize) -> Result<Sample, String> {
    subject.whole(WHOLE).await?;
    if kind == Kind::NodeCutOff {
        leave_the_first_node(subject).await?;
    }
    // At another moment of Patroni's loop each time.
    tokio::time::sleep(Duration::from_millis(rand::random_range(1000..6000))).await;
    let way = Way::into(&subject.place).await;
    let primary = subject.primary().await?;
    let target = if kind == Kind::StandbyKilled { standby(subject, &primary).await? } else { primary };
    // Who is connected to a stopped postmaster already notices nothing.
    let anew = kind == Kind::PostmasterStopped;
    let prober = if anew { Prober::anew(way.clone(), number) } else { Prober::start(way.clone(), number) };
    let started = started(subject).await?;
    prober.flows(BACK).await?;
    tokio::time::sleep(AT_REST).await;

    let fault = Instant::now();
    let mut broken = None;
    let mut service = None;
    match kind {
        Kind::PodDeleted => faults::delete(&subject.place, &target.name_any(), false).await?,
        Kind::PodForceDeleted | Kind::StandbyKilled => {
            faults::delete(&subject.place, &target.name_any(), true).await?;
        }
        Kind::PostmasterKilled => faults::signal_postmaster(&subject.place, &target.name_any(), "KILL").await?,
        Kind::PostmasterStopped => faults::signal_postmaster(&subject.place, &target.name_any(), "STOP").await?,
        Kind::Switchover => {
            let token = faults::ask_for_switchover(&subject.place, None).await?;
            faults::switched_over(&subject.place, &token).await?;
        }
        Kind::NodeCutOff => {
            broken = Some(Broken::begin(&node(&target), Break::Cut).await?);
            service = Some(tokio::spawn(nobody_is_sent_away(way.clone(), fault)));
        }
        Kind::ApiServerHangs => {
            nodes::hang_api_server(rand::random_range(40..=90)).await?;
            // It takes Patroni some loops to make of it what it makes.
            tokio::time::sleep(LOOPS).await;
        }
    }
    tokio::time::sleep_until(fault + SHOWS).await;
    prober.flows(BACK).await?;
    let service = match service {
        Some(looks) => Some(looks.await.map_err(|error| error.to_string())??),
        None => None,
    };
    let mut mended = fault;
    if let Some(broken) = broken {
        mended = Instant::now();
        broken.mend().await?;
        // Until the node is seen again, the status of its pod is outdated.
        tokio::time::sleep(SHOWS).await;
    }
    if matches!(kind, Kind::PodDeleted | Kind::PodForceDeleted | Kind::StandbyKilled) {
        faults::replaced(&subject.place, &target, WHOLE).await?;
    }
    subject.whole(WHOLE).await?;
    let now = self::started(subject).await?;
    let started_again = match kind {
        Kind::ApiServerHangs => now.iter().filter(|(pod, time)| started.get(*pod) != Some(*time)).collect(),
        _ => Vec::new(),
    };
    let started_again = started_again.into_iter().map(|(pod, _)| pod.clone()).collect();
    let whole = mended.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(1)).await;

    let (seen, end) = (prober.stop(), since(Instant::now(), fault));
    let times: Vec<_> = seen.acknowledged.iter().map(|(_, at)| since(*at, fault)).collect();
    let all = gaps(&times, (0.0, end));
    let before: Vec<_> = times.iter().copied().filter(|time| *time < 0.0).collect();
    let at_rest = longest(&gaps(&before, (-AT_REST.as_secs_f64(), before.last().copied().unwrap_or(0.0))));
    Ok(Sample {
        kind,
        pod: format!("{} on {}", target.name_any(), node(&target)),
        outage: longest(&all).map_or(0.0, |gap| gap.seconds()),
        gaps: all.into_iter().filter(|gap| gap.seconds() >= NOTABLE).collect(),
        at_rest: at_rest.map_or(0.0, |gap| gap.seconds()),
        service,
        whole,
        lost: lost(&way, number, seen.acknowledged.iter().map(|(id, _)| *id)).await?,
        refused: seen.refused,
        started_again,
    })
}

/// When the PostgreSQL of each pod was started, as its agent tells.
async fn started(subject: &Subject) -> Result<BTreeMap<String, Option<Timestamp>>, String> {
    let pods = subject.pods().await.map_err(|error| error.to_string())?;
    let time = |pod: &Pod| report(pod).and_then(|report| report.postgres_started_at);
    Ok(pods.iter().map(|pod| (pod.name_any(), time(pod))).collect())
}

fn since(moment: Instant, fault: Instant) -> f64 {
    if moment >= fault { (moment - fault).as_secs_f64() } else { -(fault - moment).as_secs_f64() }
}

/// A standby that commits wait for.
async fn standby(subject: &Subject, primary: &Pod) -> Result<Pod, String> {
    let names = report(primary).map(|report| report.synchronous_standbys).unwrap_or_default();
    let pods = subject.pods().await.map_err(|error| error.to_string())?;
    let found = pods.into_iter().find(|pod| names.contains(&pod.name_any()));
    found.ok_or_else(|| format!("{} reports no synchronous standby: {names:?}", primary.name_any()))
}

/// Moves the lead away from the node that cannot be cut off.
async fn leave_the_first_node(subject: &Subject) -> Result<(), String> {
    let primary = subject.primary().await?;
    if node(&primary) != nodes::FIRST {
        return Ok(());
    }
    let to = standby(subject, &primary).await?;
    if node(&to) == nodes::FIRST {
        return Err(format!("{} and its synchronous standby are both on {}", primary.name_any(), nodes::FIRST));
    }
    let token = faults::ask_for_switchover(&subject.place, Some(&to.name_any())).await?;
    faults::switched_over(&subject.place, &token).await?;
    subject.whole(WHOLE).await
}

/// When every new connection through the Service finds a server again: the moment of the first
/// of as many in a row as do.
async fn nobody_is_sent_away(way: Way, fault: Instant) -> Result<f64, String> {
    let (mut row, mut first) = (0, fault);
    while fault.elapsed() < BACK {
        let began = Instant::now();
        let address = SocketAddr::new(way.address, 5432);
        let connect = tokio::time::timeout(Duration::from_millis(250), from_new_port(address)).await;
        match connect {
            Ok(Ok(_)) => {
                if row == 0 {
                    first = began;
                }
                row += 1;
                if row == IN_A_ROW {
                    return Ok(since(first, fault));
                }
            }
            Ok(Err(_)) | Err(_) => row = 0,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("connections through the Service still fail {} s after the fault", BACK.as_secs()))
}

/// Connects from a port that was not used before. The kernel remembers for two minutes where it
/// sent a connection that got no answer, and would send the next one from that port there, too:
/// the prober leaves a thousand such ports, and the Service has no part in it.
async fn from_new_port(address: SocketAddr) -> std::io::Result<TcpStream> {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    let (socket, any) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
    };
    // Below those that the kernel gives out.
    while socket.bind(SocketAddr::new(any, NEXT.fetch_add(1, Ordering::Relaxed))).is_err() {}
    socket.connect(address).await
}

/// The acknowledged rows that are not there.
async fn lost(way: &Way, writer: usize, acknowledged: impl Iterator<Item = u64>) -> Result<Vec<u64>, String> {
    let connection = way.connect(Duration::from_secs(5)).await?;
    let rows = column(&connection, &format!("SELECT sequence FROM written WHERE writer = {writer}")).await;
    let rows: BTreeSet<_> = rows.map_err(|refusal| refusal.message)?.into_iter().collect();
    Ok(acknowledged.filter(|id| !rows.contains(&id.to_string())).collect())
}
