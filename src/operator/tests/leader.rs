//! The Lease: one of two candidates leads, and stops before another can start.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::api_server::{ApiServer, client, key};
use super::faults::{Fault, Faults};
use crate::operator::process::leader::Candidate;

const NAMESPACE: &str = "servicedb-system";

fn candidate(server: &ApiServer, identity: &str) -> Candidate {
    Candidate::new(client(server), NAMESPACE, identity.to_owned())
}

fn holder(server: &ApiServer) -> Value {
    let lease = server.store().get(&key("leases", NAMESPACE, "servicedb-operator")).expect("a Lease");
    lease["spec"]["holderIdentity"].clone()
}

#[tokio::test(start_paused = true)]
async fn of_two_candidates_one_wins_and_the_other_waits() {
    let server = ApiServer::new(Faults::default());
    let (mut one, mut other) = (candidate(&server, "one"), candidate(&server, "other"));
    let (mut one_won, mut other_won) = (false, false);
    let _ = tokio::join!(
        timeout(Duration::from_secs(1), async {
            one.acquire().await;
            one_won = true;
        }),
        timeout(Duration::from_secs(1), async {
            other.acquire().await;
            other_won = true;
        }),
    );
    assert!(one_won != other_won, "one: {one_won}, other: {other_won}");
    let posts = server.take_requests().iter().filter(|request| request.verb == "POST").count();
    assert_eq!(posts, 2, "both observed that there was none");
    let (mut leads, mut waits) = if one_won { (one, other) } else { (other, one) };
    let both = futures::future::join(leads.hold(), waits.acquire());
    assert!(timeout(Duration::from_secs(600), both).await.is_err(), "while one renews, the other waits");
}

/// Both observed the expiry of the same Lease, so both try to replace the same version.
#[tokio::test(start_paused = true)]
async fn of_two_that_replace_the_same_lease_one_gets_409() {
    let server = ApiServer::new(Faults::default());
    candidate(&server, "the one before").acquire().await;
    let (mut one, mut other) = (candidate(&server, "one"), candidate(&server, "other"));
    server.take_requests();
    let started = Instant::now();
    let winner = tokio::select! {
        () = one.acquire() => "one",
        () = other.acquire() => "other",
    };
    assert!(started.elapsed() >= Duration::from_secs(15), "not before the Lease has expired");
    assert_eq!(holder(&server), winner);
    let mut loser = if winner == "one" { other } else { one };
    assert!(timeout(Duration::from_secs(10), loser.acquire()).await.is_err());
    assert_eq!(holder(&server), winner);
    let puts = server.take_requests().into_iter().filter(|request| request.verb == "PUT");
    let versions: Vec<_> = puts.map(|put| put.body["metadata"]["resourceVersion"].clone()).collect();
    assert_eq!(versions.len(), 2, "the loser tried the same version once");
    assert_eq!(versions[0], versions[1]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_another_starts() {
    let faults = Faults::default();
    let cut_off = ApiServer::new(faults.clone());
    let mut leader = candidate(&cut_off, "leader");
    leader.acquire().await;
    let acquired = Instant::now();
    faults.crash_at(1, Fault::BeforeSend);
    leader.hold().await;
    let held = acquired.elapsed();
    assert!(held <= Duration::from_secs(10), "{held:?}");
    assert_eq!(holder(&cut_off), "leader", "the Lease was not changed");

    faults.recover();
    let mut successor = candidate(&cut_off, "successor");
    let looked = Instant::now();
    successor.acquire().await;
    assert!(looked.elapsed() >= Duration::from_secs(15), "a complete term after the first observation");
    assert_eq!(holder(&cut_off), "successor");
    leader.hold().await;
    assert_eq!(holder(&cut_off), "successor", "the former leader has lost the Lease");
}

/// Other candidates count from the write of the Lease, not from the answer to its holder.
#[tokio::test(start_paused = true)]
async fn a_renewal_with_a_late_answer_counts_from_its_request() {
    let faults = Faults::default();
    let server = ApiServer::new(faults.clone());
    let mut leader = candidate(&server, "leader");
    leader.acquire().await;
    let acquired = Instant::now();
    server.answer_changes_after(Duration::from_millis(5900));
    faults.crash_at(2, Fault::BeforeSend);
    leader.hold().await;
    let puts = server.take_requests().iter().filter(|request| request.verb == "PUT").count();
    assert!(puts >= 2, "the first was executed four seconds after the start, and none after it");
    let after_renewal = acquired.elapsed().saturating_sub(Duration::from_secs(4));
    assert!(after_renewal <= Duration::from_secs(10), "another can start 15 s after it: {after_renewal:?}");
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_free_at_once() {
    let server = ApiServer::new(Faults::default());
    let (mut leader, mut successor) = (candidate(&server, "leader"), candidate(&server, "successor"));
    leader.acquire().await;
    assert!(timeout(Duration::from_secs(5), successor.acquire()).await.is_err());
    leader.release().await;
    let released = Instant::now();
    successor.acquire().await;
    assert!(released.elapsed() <= Duration::from_secs(2));
    assert_eq!(holder(&server), "successor");

    leader.release().await;
    assert_eq!(holder(&server), "successor", "a Lease of another holder is not released");
}

/// An answer that never arrives, as over a connection that was dropped silently.
#[tokio::test(start_paused = true)]
async fn a_candidate_does_not_wait_forever_for_an_answer() {
    let server = ApiServer::new(Faults::default());
    server.answer_changes_after(Duration::from_secs(300));
    let mut one = candidate(&server, "one");
    let started = Instant::now();
    let heals = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        server.answer_changes_after(Duration::ZERO);
    };
    tokio::join!(one.acquire(), heals);
    assert!(started.elapsed() <= Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(holder(&server), "one");
}
