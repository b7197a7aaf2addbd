//! Leader election by a Lease that is replaced with its resourceVersion: of two candidates with the
//! same version one gets 409, so only one can win.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::Instant;

use crate::operator::context::error::Error;

const LEASE: &str = "servicedb-operator";
/// How long another's Lease is valid after its last observed renewal.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews.
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// How long the holder continues without a renewal: less than [`DURATION`], so that it has stopped
/// before another can start.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// Timeout of a candidate's requests to the API server.
const ANSWER: Duration = Duration::from_secs(5);
/// The interval at which a candidate reads the Lease.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A candidate for the Lease, and later its holder.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// The last observed Lease and its time: other clocks are not trusted, only changes of the
    /// Lease.
    observed: Option<(Option<String>, Instant)>,
    /// When the last request that took or renewed the Lease was sent: others count from its
    /// execution, which is not earlier, even if the answer arrived late.
    renewed: Instant,
}

impl Candidate {
    /// A candidate; the identity is the pod's name.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, observed: None, renewed: Instant::now() }
    }

    /// Returns once this candidate holds the Lease.
    pub async fn acquire(&mut self) {
        loop {
            match tokio::time::timeout(ANSWER, self.attempt()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be read or taken; retrying"),
                Err(_) => tracing::warn!("the API server does not answer a request for the Lease; retrying"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Renews until the Lease is lost; returns then.
    pub async fn hold(&mut self) {
        loop {
            tokio::time::sleep_until(self.end().min(Instant::now() + RENEW_EVERY)).await;
            match tokio::time::timeout_at(self.end(), self.attempt()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return tracing::error!("another operator holds the Lease now"),
                Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be renewed"),
                Err(_) => return tracing::error!("the Lease could not be renewed in time"),
            }
            if Instant::now() >= self.end() {
                return tracing::error!("the Lease could not be renewed in time");
            }
        }
    }

    /// When the holder stops, unless it renews before.
    fn end(&self) -> Instant {
        self.renewed + GIVE_UP_AFTER
    }

    /// Releases the Lease, so that the next holder need not wait for its expiry.
    pub async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(LEASE).await else { return };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
        else {
            return;
        };
        spec.holder_identity = None;
        if let Err(error) = self.api.replace(LEASE, &PostParams::default(), &lease).await {
            tracing::warn!(%error, "the Lease could not be released");
        }
    }

    /// Takes or renews the Lease; returns whether this candidate holds it now.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let began = Instant::now();
        let holds = self.take_or_renew().await?;
        if holds {
            self.renewed = began;
        }
        Ok(holds)
    }

    async fn take_or_renew(&mut self) -> Result<bool, Error> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(LEASE).await? else {
            let spec = self.spec(&now, 0, now.clone());
            let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let mine = spec.holder_identity.as_ref() == Some(&self.identity);
        let free = spec.holder_identity.as_deref().is_none_or(str::is_empty);
        if !mine && !free && !self.expired(lease.metadata.resource_version.clone(), &spec) {
            return Ok(false);
        }
        let since = if mine { spec.acquire_time.unwrap_or_else(|| now.clone()) } else { now.clone() };
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!mine);
        lease.spec = Some(self.spec(&now, transitions, since));
        won(self.api.replace(LEASE, &PostParams::default(), &lease).await)
    }

    fn expired(&mut self, version: Option<String>, spec: &LeaseSpec) -> bool {
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(DURATION, Duration::from_secs);
        match &self.observed {
            Some((observed, at)) if *observed == version => at.elapsed() > duration,
            _ => {
                self.observed = Some((version, Instant::now()));
                false
            }
        }
    }

    fn spec(&self, now: &MicroTime, transitions: i32, since: MicroTime) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(since),
            renew_time: Some(now.clone()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

fn won(result: Result<Lease, kube::Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
