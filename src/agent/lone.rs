//! A single instance whose lease is not renewed (docs/decisions/0094). The lease keeps two members from leading at once.
//! Where no other member may lead, a Patroni that has no CPU time is no reason to stop PostgreSQL: so the agent reads
//! Patroni's record itself before it acts.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::environment::Environment;
use super::lease;

/// The pause after a reading.
const PAUSE: Duration = Duration::from_millis(500);
/// The age at which a reading that was answered is replaced by another one.
const AGAIN: Duration = Duration::from_secs(5);
/// How long PostgreSQL continues after its time is over, once, so that the record is read first.
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
        let alone = match lease::is_alone(&client, &environment).await {
            Ok(alone) => Some(alone),
            Err(error) => {
                tracing::debug!(%error, "Patroni's record cannot be read");
                None
            }
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
///
/// A reprieve has no such reason: the last sign may be as much later than the last renewal as the limit is shorter than
/// the lease. So it needs a database that was known to have no other member since a single instance is desired, which
/// excludes one that is scaled down.
#[derive(Default)]
pub struct Lone {
    /// Whether the last answer was that no other member may lead.
    known: bool,
    /// When the last reading was requested, whether or not it was answered.
    tried: Option<Instant>,
    /// The same of the last one that was answered.
    read: Option<Instant>,
    /// When the last reading with this result was requested.
    proved: Option<Instant>,
    /// The end of the reprieve, once it is granted; another one is granted only after a sign or a proof.
    reprieve: Option<Instant>,
}

impl Lone {
    /// Takes up the present state: whether the desired state has a single instance, since when Patroni reports that
    /// its lease is over, the last sign of a renewal, and how long none may come.
    pub fn settle(&mut self, single: bool, lapsed: Option<Instant>, sign: Instant, limit: Duration, now: Instant) {
        if !single {
            *self = Self::default();
        }
        if self.proved.zip(lapsed).is_some_and(|(proved, lapsed)| proved <= lapsed) {
            // What was read before that is outdated.
            (self.proved, self.read) = (None, None);
        }
        if now < self.signed(sign) + limit {
            self.reprieve = None;
        }
    }

    /// Takes up a reading. Returns whether it is the first proof since then.
    pub fn receive(&mut self, reading: Reading, since: Instant) -> bool {
        self.tried = Some(reading.sent);
        let Some(alone) = reading.alone else { return false };
        let is_first = !self.is_proved(since);
        (self.known, self.read) = (alone, Some(reading.sent));
        self.proved = alone.then_some(reading.sent);
        if !alone {
            // The answer for which it was granted.
            self.reprieve = None;
        }
        is_first && self.is_proved(since)
    }

    /// Whether a proof is more recent than the last sign.
    pub fn is_proved(&self, sign: Instant) -> bool {
        self.proved.is_some_and(|proved| proved > sign)
    }

    /// Whether a reading is due: until there is a first proof, and while no sign of a renewal comes.
    pub fn is_due(&self, sign: Instant, limit: Duration, now: Instant) -> bool {
        let is_wanted = self.proved.is_none() || now >= sign + limit / 2;
        is_wanted && self.read.is_none_or(|read| now >= read + AGAIN)
    }

    /// Whether this process has requested none in the half of the limit that is for it: it did not run then.
    pub fn is_untried(&self, sign: Instant, limit: Duration) -> bool {
        self.tried.is_none_or(|tried| tried < sign + limit / 2)
    }

    /// When PostgreSQL has to stop.
    pub fn deadline(&self, sign: Instant, limit: Duration) -> Instant {
        let end = self.signed(sign) + limit;
        self.reprieve.map_or(end, |reprieve| reprieve.max(end))
    }

    /// Grants the reprieve. Returns false if it is over, or another member may lead.
    pub fn grant(&mut self, now: Instant) -> bool {
        let is_granted = self.known && self.reprieve.is_none();
        if is_granted {
            self.reprieve = Some(now + REPRIEVE);
        }
        is_granted
    }

    fn signed(&self, sign: Instant) -> Instant {
        self.proved.map_or(sign, |proved| proved.max(sign))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    fn alone(sent: Instant) -> Reading {
        Reading { sent, alone: Some(true) }
    }

    /// A database that was known to have no other member before the last sign.
    fn known(sign: Instant) -> Lone {
        let mut lone = Lone::default();
        assert!(lone.is_due(sign, LIMIT, sign), "the first reading does not wait for a silence");
        assert!(!lone.receive(alone(sign), sign), "there is a sign");
        lone
    }

    #[test]
    fn a_proof_counts_from_its_request() {
        let sign = Instant::now();
        let mut lone = known(sign);
        assert_eq!(lone.deadline(sign, LIMIT), sign + LIMIT);
        assert!(!lone.is_due(sign, LIMIT, sign + 14 * SECOND), "a lease that is renewed is not read");
        assert!(lone.is_due(sign, LIMIT, sign + 15 * SECOND));
        assert!(lone.is_untried(sign, LIMIT), "the one from before the silence does not count");
        assert!(!lone.receive(Reading { sent: sign + 16 * SECOND, alone: None }, sign));
        assert!(!lone.is_untried(sign, LIMIT));
        assert_eq!(lone.deadline(sign, LIMIT), sign + LIMIT, "no answer proves nothing");
        assert!(lone.is_due(sign, LIMIT, sign + 17 * SECOND), "and is not waited for");
        assert!(lone.receive(alone(sign + 17 * SECOND), sign));
        assert_eq!(lone.deadline(sign, LIMIT), sign + 47 * SECOND);
        assert!(!lone.is_due(sign, LIMIT, sign + 21 * SECOND) && lone.is_due(sign, LIMIT, sign + 22 * SECOND));
        assert!(!lone.receive(alone(sign + 22 * SECOND), sign), "it is logged once");
        let later = sign + 25 * SECOND;
        assert!(!lone.is_proved(later) && lone.deadline(later, LIMIT) == later + LIMIT, "a sign counts as before");
    }

    #[test]
    fn another_member_ends_a_proof_and_a_reprieve() {
        let sign = Instant::now();
        let mut lone = known(sign);
        lone.receive(alone(sign + 40 * SECOND), sign);
        assert_eq!(lone.deadline(sign, LIMIT), sign + 70 * SECOND);
        assert!(lone.grant(sign + 72 * SECOND));
        lone.receive(Reading { sent: sign + 72 * SECOND, alone: Some(false) }, sign);
        assert_eq!(lone.deadline(sign, LIMIT), sign + LIMIT);
        assert!(!lone.grant(sign + 73 * SECOND), "the answer is known");
        assert!(!lone.is_due(sign, LIMIT, sign + 73 * SECOND), "a pause follows every answer");
    }

    #[test]
    fn an_agent_that_did_not_run_reads_the_record_once_before_it_acts() {
        let sign = Instant::now();
        let mut lone = known(sign);
        // It was stopped for a minute.
        let now = sign + 60 * SECOND;
        lone.settle(true, None, sign, LIMIT, now);
        assert!(lone.is_due(sign, LIMIT, now) && lone.grant(now));
        assert_eq!(lone.deadline(sign, LIMIT), now + REPRIEVE);
        lone.settle(true, None, sign, LIMIT, now + SECOND);
        assert!(!lone.grant(now + REPRIEVE), "without an answer it acts");
        lone.receive(alone(now + SECOND), sign);
        lone.settle(true, None, sign, LIMIT, now + 2 * SECOND);
        assert_eq!(lone.deadline(sign, LIMIT), now + SECOND + LIMIT);
        assert!(lone.grant(now + SECOND + LIMIT), "the next silence is another one");
    }

    #[test]
    fn a_database_that_is_not_known_to_be_alone_has_no_reprieve() {
        let now = Instant::now();
        let mut lone = Lone::default();
        assert!(!lone.grant(now), "nothing was read yet");
        lone.receive(Reading { sent: now, alone: Some(false) }, now);
        assert!(!lone.grant(now), "it is being scaled down");
        lone.receive(alone(now), now);
        assert!(lone.grant(now));
    }

    #[test]
    fn a_proof_from_before_the_end_of_the_lease_does_not_count() {
        let sign = Instant::now();
        let mut lone = known(sign);
        lone.receive(alone(sign + 20 * SECOND), sign);
        // Patroni renewed it, and reports its end; the last sign is a second before the limit then.
        let (lapsed, lowered) = (sign + 23 * SECOND, sign + 24 * SECOND - LIMIT);
        lone.settle(true, Some(lapsed), lowered, LIMIT, lapsed);
        assert_eq!(lone.deadline(lowered, LIMIT), lapsed + SECOND);
        assert!(lone.is_due(lowered, LIMIT, lapsed) && lone.grant(lapsed + SECOND), "it is read at once");
        lone.receive(alone(lapsed + 2 * SECOND), lowered);
        lone.settle(true, Some(lapsed), lowered, LIMIT, lapsed + 2 * SECOND);
        assert_eq!(lone.deadline(lowered, LIMIT), lapsed + 2 * SECOND + LIMIT);
    }

    #[test]
    fn several_instances_have_neither_proof_nor_reprieve() {
        let sign = Instant::now();
        let mut lone = known(sign);
        lone.receive(alone(sign + 20 * SECOND), sign);
        assert!(lone.is_proved(sign));
        lone.settle(false, None, sign, LIMIT / 2, sign + 21 * SECOND);
        assert!(!lone.is_proved(sign) && !lone.grant(sign + 21 * SECOND));
        assert_eq!(lone.deadline(sign, LIMIT / 2), sign + LIMIT / 2);
    }
}
