//! A single instance whose lease is not renewed (docs/decisions/0096). The lease keeps two members from leading at once.
//! Where no other member may lead, a Patroni that has no CPU time is no reason to stop PostgreSQL: so the agent reads
//! Patroni's record itself before it acts.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::environment::Environment;
use super::lease;

/// Timeout of a reading.
const PATIENCE: Duration = Duration::from_secs(3);
/// The pause after a reading.
const PAUSE: Duration = Duration::from_millis(500);
/// The age at which a proof is replaced by another one.
const AGAIN: Duration = Duration::from_secs(5);
/// How long PostgreSQL continues after the limit, once, so that the record is read: this process may have had no CPU
/// time itself until now. With the limit and the time of a stop it is within the lease of a single instance.
const REPRIEVE: Duration = Duration::from_secs(6);

/// A reading of Patroni's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When it was requested.
    sent: Instant,
    /// Whether no other member may lead; none if the API server did not answer.
    alone: Option<bool>,
}

/// Reads Patroni's record while that is wanted.
pub struct Reader {
    wanted: watch::Sender<bool>,
    readings: mpsc::Receiver<Reading>,
}

impl Reader {
    /// Starts it; no reading is wanted yet.
    pub fn start(environment: Environment, client: kube::Client) -> Self {
        let (wanted, wants) = watch::channel(false);
        let (sender, readings) = mpsc::channel(1);
        tokio::spawn(read(environment, client, wants, sender));
        Self { wanted, readings }
    }

    /// Sets whether readings are wanted.
    pub fn want(&self, wanted: bool) {
        self.wanted.send_if_modified(|before| std::mem::replace(before, wanted) != wanted);
    }

    /// The next reading.
    pub async fn reading(&mut self) -> Reading {
        match self.readings.recv().await {
            Some(reading) => reading,
            // The task ends only with this value.
            None => std::future::pending().await,
        }
    }
}

async fn read(
    environment: Environment,
    client: kube::Client,
    mut wants: watch::Receiver<bool>,
    sender: mpsc::Sender<Reading>,
) {
    while wants.wait_for(|wanted| *wanted).await.is_ok() {
        let sent = Instant::now();
        let alone = match tokio::time::timeout(PATIENCE, lease::is_alone(&client, &environment)).await {
            Ok(Ok(alone)) => Some(alone),
            Ok(Err(error)) => {
                tracing::debug!(%error, "Patroni's record cannot be read");
                None
            }
            Err(_) => None,
        };
        if sender.send(Reading { sent, alone }).await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The proof that no other member may lead, and the reprieve until there is one.
///
/// A proof counts like a renewal of the lease at the time of its request: another member may lead only after this
/// pod's Patroni has recorded it, which is a renewal, and after the lease that begins with it.
#[derive(Default)]
pub struct Lone {
    /// When the last reading with this result was requested.
    proved: Option<Instant>,
    /// The end of the reprieve, once it is granted; another one is granted only after a sign or a proof.
    reprieve: Option<Instant>,
}

impl Lone {
    /// Takes up the present state: whether the desired state has a single instance, the last sign of a renewal, and
    /// how long none may come.
    pub fn settle(&mut self, single: bool, sign: Instant, limit: Duration, now: Instant) {
        if !single {
            *self = Self::default();
        }
        if now < self.signed(sign) + limit {
            self.reprieve = None;
        }
    }

    /// Takes up a reading. Returns whether it is the first proof since the last sign.
    pub fn receive(&mut self, reading: Reading, sign: Instant) -> bool {
        match reading.alone {
            Some(true) => {
                let is_first = !self.is_proved(sign);
                self.proved = Some(reading.sent);
                is_first && self.is_proved(sign)
            }
            Some(false) => {
                // The answer for which the reprieve was granted.
                (self.proved, self.reprieve) = (None, Some(reading.sent));
                false
            }
            None => false,
        }
    }

    /// Whether a proof is more recent than the last sign.
    pub fn is_proved(&self, sign: Instant) -> bool {
        self.proved.is_some_and(|proved| proved > sign)
    }

    /// Whether a reading is due.
    pub fn is_due(&self, sign: Instant, limit: Duration, now: Instant) -> bool {
        let from = self.proved.filter(|proved| *proved > sign).map_or(sign + limit / 2, |proved| proved + AGAIN);
        now >= from
    }

    /// When PostgreSQL has to stop.
    pub fn deadline(&self, sign: Instant, limit: Duration) -> Instant {
        let end = self.signed(sign) + limit;
        self.reprieve.map_or(end, |reprieve| reprieve.max(end))
    }

    /// Grants the reprieve. Returns false if it is over.
    pub fn grant(&mut self, now: Instant) -> bool {
        let is_new = self.reprieve.is_none();
        self.reprieve.get_or_insert(now + REPRIEVE);
        is_new
    }

    fn signed(&self, sign: Instant) -> Instant {
        self.proved.map_or(sign, |proved| proved.max(sign))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::desired::Desired;
    use crate::contract::patroni::timings;

    const LIMIT: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_reprieve_is_within_the_lease_of_a_single_instance() {
        let (ttl, loop_wait, _) = timings(&Desired { instances: 1, ..Desired::sample() });
        let limit = Duration::from_secs(ttl - loop_wait);
        assert_eq!(limit, LIMIT);
        // An immediate shutdown has three seconds.
        assert!(limit + REPRIEVE + 3 * SECOND < Duration::from_secs(ttl));
    }

    #[test]
    fn a_proof_counts_from_its_request() {
        let sign = Instant::now();
        let mut lone = Lone::default();
        assert_eq!(lone.deadline(sign, LIMIT), sign + LIMIT);
        assert!(!lone.is_due(sign, LIMIT, sign + 14 * SECOND), "a lease that is renewed is not read");
        assert!(lone.is_due(sign, LIMIT, sign + 15 * SECOND));
        let reading = |seconds: u32, alone| Reading { sent: sign + seconds * SECOND, alone };
        assert!(!lone.receive(reading(16, None), sign));
        assert_eq!(lone.deadline(sign, LIMIT), sign + LIMIT, "no answer proves nothing");
        assert!(lone.receive(reading(17, Some(true)), sign));
        assert_eq!(lone.deadline(sign, LIMIT), sign + 47 * SECOND);
        assert!(!lone.is_due(sign, LIMIT, sign + 21 * SECOND) && lone.is_due(sign, LIMIT, sign + 22 * SECOND));
        assert!(!lone.receive(reading(22, Some(true)), sign), "it is logged once");
        let later = sign + 25 * SECOND;
        assert!(!lone.is_proved(later) && lone.deadline(later, LIMIT) == later + LIMIT, "a sign counts as before");
    }

    #[test]
    fn another_member_ends_a_proof_and_a_reprieve() {
        let sign = Instant::now();
        let mut lone = Lone::default();
        lone.receive(Reading { sent: sign + 40 * SECOND, alone: Some(true) }, sign);
        assert_eq!(lone.deadline(sign, LIMIT), sign + 70 * SECOND);
        lone.receive(Reading { sent: sign + 45 * SECOND, alone: Some(false) }, sign);
        assert!(lone.deadline(sign, LIMIT) <= sign + 45 * SECOND);
        assert!(!lone.grant(sign + 45 * SECOND), "the answer is known");
    }

    #[test]
    fn an_agent_that_did_not_run_reads_the_record_once_before_it_acts() {
        let sign = Instant::now();
        let mut lone = Lone::default();
        // It was stopped for a minute.
        let now = sign + 60 * SECOND;
        lone.settle(true, sign, LIMIT, now);
        assert!(lone.is_due(sign, LIMIT, now) && lone.grant(now));
        assert_eq!(lone.deadline(sign, LIMIT), now + REPRIEVE);
        lone.settle(true, sign, LIMIT, now + SECOND);
        assert!(!lone.grant(now + REPRIEVE), "without an answer it acts");
        lone.receive(Reading { sent: now + SECOND, alone: Some(true) }, sign);
        lone.settle(true, sign, LIMIT, now + 2 * SECOND);
        assert_eq!(lone.deadline(sign, LIMIT), now + SECOND + LIMIT);
        assert!(lone.grant(now + SECOND + LIMIT), "the next silence is another one");
    }

    #[test]
    fn several_instances_have_neither_proof_nor_reprieve() {
        let sign = Instant::now();
        let mut lone = Lone::default();
        lone.receive(Reading { sent: sign + 20 * SECOND, alone: Some(true) }, sign);
        assert!(lone.is_proved(sign));
        lone.settle(false, sign, LIMIT / 2, sign + 21 * SECOND);
        assert!(!lone.is_proved(sign));
        assert_eq!(lone.deadline(sign, LIMIT / 2), sign + LIMIT / 2);
    }
}
