//! The lifecycle of a database's certificate authority: computes the next step from the content of
//! the two Secrets, the certificates that instances have loaded and the authorities that clients can
//! read. Pure: the driver is [`crate::operator::tls::served`].
//!
//! An authority is replaced in these steps, each a single write, so that after a crash the next step
//! follows:
//!
//! 1. the new authority is created and stored beside the present one, which keeps signing;
//! 2. both are published: to the instances, to the records in Vault, to the Secret with the
//!    credentials;
//! 3. clients have time to read them; then the new one signs the certificates;
//! 4. once every instance has loaded these, and after the same time again, the former one is removed.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::certificates::{LEAF_LIFETIME, Pair, not_after};
use crate::contract::certificates::Authorities;

/// How long before their expiry certificates are renewed. At this time, too, a lost authority is
/// replaced without a request, so that the certificates do not expire.
pub const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(60 * 24);
/// How long before its expiry an authority is replaced: certificates signed until then have their
/// full lifetime.
const RENEW_AUTHORITY_BEFORE: SignedDuration = SignedDuration::from_hours(400 * 24);
/// How long clients have to read a new authority, unless they must read new credentials less often,
/// or the request sets another time.
const OVERLAP: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A lost authority is replaced before the certificates expire, however rarely clients read.
const LONGEST_OVERLAP: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Certificates that expire this soon are replaced even if not all clients know the new authority.
const LAST_MOMENT: SignedDuration = SignedDuration::from_hours(24);
/// How long clients have if certificates and key are missing: no pod can start meanwhile.
const WITHOUT_CERTIFICATES: SignedDuration = SignedDuration::from_secs(60);
/// After this time a pod whose agent does not report its files is assumed to have them.
const WITHOUT_REPORT: SignedDuration = SignedDuration::from_mins(5);

/// How long clients have to read a new authority: the same time as for new credentials.
pub fn overlap(rotation_period: Option<SignedDuration>) -> SignedDuration {
    rotation_period.map_or(OVERLAP, |period| period.clamp(OVERLAP, LONGEST_OVERLAP))
}

/// The valid content of the two Secrets.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The authority that signs; none if there is none, or its key is lost.
    pub signer: Option<Pair>,
    /// The one that will sign.
    pub next: Option<Pair>,
    /// Other trusted authorities: former ones, and one whose key is lost.
    pub others: Authorities,
    /// The current change, and the last request.
    pub notes: Notes,
    /// The content of the pods' Secret.
    pub served: Served,
    /// The authorities in the desired state, in case the Secrets are lost.
    pub recorded: Authorities,
}

/// The state that is stored beside the keys.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Notes {
    /// The current change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// The last completed request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<String>,
}

/// A change of the authority.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The request that it answers, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The length of each of the two waits, in seconds.
    pub overlap_seconds: i64,
    /// When it started.
    pub begun_at: Timestamp,
    /// Since when all instances and clients can read the new authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
    /// Since when it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched_at: Option<Timestamp>,
    /// Since when every instance has loaded the certificates that it signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_at: Option<Timestamp>,
}

/// The content of the Secret that pods mount.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// The authorities in it.
    pub authorities: Authorities,
    /// Whether there is other content among them.
    pub blurred: bool,
    /// The certificates; none if one is missing, unreadable or without its key.
    pub leaves: Option<Leaves>,
    /// The fingerprint of the content, as agents report it.
    pub fingerprint: String,
}

/// A complete set of certificates.
#[derive(Clone, Debug)]
pub struct Leaves {
    /// The authority that signed all of them; none if it is unknown.
    pub authority: Option<String>,
    /// When the first of them expires.
    pub not_after: Timestamp,
}

/// The shortest time that a request may set for clients.
const SHORTEST_OVERLAP: SignedDuration = SignedDuration::from_secs(30);

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The token of the annotation.
    pub token: String,
    /// How long clients have.
    pub overlap: Option<SignedDuration>,
}

impl Request {
    /// A request, with a time that is neither too short for the steps in between nor too long for the
    /// certificates.
    pub fn new(token: String, overlap: Option<SignedDuration>) -> Self {
        Self { token, overlap: overlap.map(|overlap| overlap.clamp(SHORTEST_OVERLAP, LONGEST_OVERLAP)) }
    }
}

/// An instance, and the certificates that it has loaded.
#[derive(Clone, Debug)]
pub struct Member {
    /// The pod.
    pub name: String,
    /// The certificates; none if its agent does not report them.
    pub certificates: Option<String>,
}

/// A place from which clients read the authorities.
#[derive(Clone, Debug)]
pub struct Published {
    /// Such as `the Vault record …`.
    pub place: String,
    /// Its content; none if it does not exist.
    pub authorities: Option<Authorities>,
}

/// The other inputs of the next step.
pub struct Situation<'a> {
    /// Now.
    pub now: Timestamp,
    /// The request.
    pub request: Option<&'a Request>,
    /// How long clients have, if the request does not set it.
    pub overlap: SignedDuration,
    /// Whether the database is not to be changed: then only expiring certificates are renewed.
    pub paused: bool,
    /// The running instances.
    pub members: &'a [Member],
    /// The authorities that clients can read; none if that was not or could not be read.
    pub published: Option<&'a [Published]>,
}

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create the first authority.
    Create(Notes),
    /// Create the next authority.
    Announce(Change),
    /// Publish the present signer, which is not trusted yet, as the next authority.
    Introduce(Change),
    /// Record a state, such as the complete publication of the next authority.
    Note(Notes),
    /// Make the next authority the signer.
    Switch,
    /// Sign certificates, and trust these authorities.
    Sign(Authorities),
    /// Trust these authorities; the certificates are kept.
    Trust(Authorities),
    /// Remove the former authorities.
    Retire,
    /// No action is due.
    Rest(Rest),
}

/// Why no action is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Whether the authority's key is lost.
    pub lost: bool,
    /// When an action is due.
    pub due: Option<Timestamp>,
    /// The awaited event, besides time.
    pub waits_for: Option<String>,
}

impl State {
    /// The trusted authorities.
    pub fn trusted(&self) -> Authorities {
        let pairs = [&self.signer, &self.next].into_iter().flatten();
        pairs.fold(self.others.clone(), |all, pair| all.and(&pair.authorities()))
    }

    /// The authorities that instances and clients know.
    pub fn known(&self) -> &Authorities {
        if self.served.authorities.is_empty() { &self.recorded } else { &self.served.authorities }
    }

    /// The state after a step that is written to the authority's own Secret. `fresh` is a new pair,
    /// for the steps that create one.
    #[must_use]
    pub fn after(mut self, step: &Step, fresh: Option<Pair>, now: Timestamp) -> Self {
        match step {
            Step::Create(notes) => (self.signer, self.notes) = (fresh, notes.clone()),
            Step::Announce(change) => {
                self.others = self.others.and(self.known());
                (self.next, self.notes.change) = (fresh, Some(change.clone()));
            }
            Step::Introduce(change) => {
                self.others = self.others.and(self.known());
                (self.next, self.notes.change) = (self.signer.take(), Some(change.clone()));
            }
            Step::Note(notes) => self.notes = notes.clone(),
            Step::Switch => {
                let former = self.signer.take().map(|pair| pair.authorities()).unwrap_or_default();
                self.others = self.others.and(&former);
                self.signer = self.next.take();
                if let Some(change) = &mut self.notes.change {
                    change.switched_at = Some(now);
                }
            }
            Step::Retire => {
                self.others = Authorities::default();
                let done = self.notes.change.take().and_then(|change| change.request);
                self.notes.answered = done.or(self.notes.answered.take());
            }
            Step::Sign(_) | Step::Trust(_) | Step::Rest(_) => {}
        }
        self
    }

    /// The next step.
    pub fn next_step(&self, situation: &Situation<'_>) -> Step {
        let known = self.known();
        if let Some(next) = &self.next {
            return self.while_announced(next, situation);
        }
        let Some(signer) = &self.signer else { return self.while_lost(situation) };
        // If both Secrets were lost, it signs before it is in a file, but after it was announced.
        let announced = self.notes.change.as_ref().is_some_and(|change| change.switched_at.is_some());
        let is_known = known.include(&signer.authorities()) || (announced && self.others.include(known));
        if !known.is_empty() && !is_known {
            return Step::Introduce(self.change(situation, None));
        }
        self.while_signing(signer, situation)
    }

    /// There is no key to sign with.
    fn while_lost(&self, situation: &Situation<'_>) -> Step {
        if self.known().is_empty() && self.others.is_empty() {
            // The first one answers all earlier requests.
            let answered = situation.request.map(|request| request.token.clone());
            return Step::Create(Notes { change: None, answered });
        }
        // Without certificates no pod can start.
        let Some(leaves) = &self.served.leaves else { return Step::Announce(self.change(situation, None)) };
        let trusted = self.known().and(&self.others);
        if !self.served.trusts(&trusted) {
            return Step::Trust(trusted);
        }
        let renew_at = before(leaves.not_after, RENEW_BEFORE);
        match self.asked(situation) {
            Some(request) if !situation.paused => Step::Announce(self.change(situation, Some(request))),
            _ if situation.now >= renew_at => Step::Announce(self.change(situation, None)),
            _ => Step::Rest(Rest { lost: true, due: Some(renew_at), waits_for: None }),
        }
    }

    /// A next authority exists.
    fn while_announced(&self, next: &Pair, situation: &Situation<'_>) -> Step {
        let now = situation.now;
        let change = self.notes.change.clone().unwrap_or_else(|| self.change(situation, None));
        if let Some(request) = self.asked(situation).filter(|_| !situation.paused) {
            // A request during the change is answered by it, and sets its overlap.
            let asked = self.change(situation, Some(request));
            let change = Change { request: asked.request, overlap_seconds: asked.overlap_seconds, ..change };
            return Step::Note(Notes { change: Some(change), ..self.notes.clone() });
        }
        let trusted = self.trusted();
        let Some(leaves) = &self.served.leaves else {
            if self.signer.is_some() {
                return Step::Sign(trusted);
            }
            let until = after(change.begun_at, WITHOUT_CERTIFICATES);
            return match self.unpublished(situation) {
                Some(waits_for) if now < until => {
                    Step::Rest(Rest { lost: true, due: Some(until), waits_for: Some(waits_for) })
                }
                _ => Step::Switch,
            };
        };
        if let Some(signer) = &self.signer
            && (leaves.authority.as_ref() != Some(&signer.certificate) || ends_soon(leaves, signer, now))
        {
            return Step::Sign(trusted);
        }
        if !self.served.trusts(&trusted) {
            return Step::Trust(trusted);
        }
        let last_moment = before(leaves.not_after, LAST_MOMENT);
        if now >= last_moment && not_after(&next.certificate).is_some_and(|end| end > leaves.not_after) {
            return Step::Switch;
        }
        let rest = |due: Option<Timestamp>, waits_for: Option<String>| {
            let due = due.map_or(last_moment, |due| due.min(last_moment));
            Step::Rest(Rest { lost: self.signer.is_none(), due: Some(due), waits_for })
        };
        if situation.paused {
            return rest(None, Some("spec.paused to be false, or a valid spec".to_owned()));
        }
        let lagging = self.lagging(situation, change.begun_at);
        match change.published_at {
            None => match lagging.or_else(|| self.unpublished(situation)) {
                Some(waits_for) => rest(None, Some(waits_for)),
                None => {
                    let change = Change { published_at: Some(now), ..change };
                    Step::Note(Notes { change: Some(change), ..self.notes.clone() })
                }
            },
            Some(published_at) => {
                let due = after(published_at, change.overlap());
                match lagging {
                    _ if now < due => rest(Some(due), None),
                    Some(waits_for) => rest(None, Some(waits_for)),
                    None => Step::Switch,
                }
            }
        }
    }

    /// The intended authority signs.
    fn while_signing(&self, signer: &Pair, situation: &Situation<'_>) -> Step {
        let (now, own) = (situation.now, signer.authorities());
        // Trusted without a recorded reason: an old Secret was restored.
        let strays = self.trusted().and(&self.served.authorities).without(&own);
        let switched = self.notes.change.as_ref();
        let leaves_at = switched.and_then(|change| Some(after(change.loaded_at?, change.overlap())));
        let leaves_now = !situation.paused && leaves_at.is_some_and(|at| now >= at);
        let trusted = if leaves_now { own } else { own.and(&strays) };
        let whole = |leaves: &&Leaves| {
            leaves.authority.as_ref() == Some(&signer.certificate) && !ends_soon(leaves, signer, now)
        };
        let Some(leaves) = self.served.leaves.as_ref().filter(whole) else { return Step::Sign(trusted) };
        if !self.served.trusts(&trusted) {
            return Step::Trust(trusted);
        }
        let renew_at = before(leaves.not_after, RENEW_BEFORE);
        let rest = |due: Timestamp, waits_for: Option<String>| {
            Step::Rest(Rest { lost: false, due: Some(due.min(renew_at)), waits_for })
        };
        if leaves_now {
            return Step::Retire;
        }
        let note = |change| Step::Note(Notes { change: Some(change), ..self.notes.clone() });
        match switched {
            Some(change) => match (change.switched_at, leaves_at) {
                (_, Some(at)) => rest(at, None),
                (Some(switched_at), None) => match self.lagging(situation, switched_at) {
                    Some(waits_for) => rest(renew_at, Some(waits_for)),
                    None => note(Change { loaded_at: Some(now), ..change.clone() }),
                },
                // The next one's key was lost before it signed: another one is needed.
                (None, None) => Step::Announce(Change { begun_at: now, published_at: None, ..change.clone() }),
            },
            None if !strays.is_empty() => note(Change { switched_at: Some(now), ..self.change(situation, None) }),
            None => {
                let ends = not_after(&signer.certificate).unwrap_or(Timestamp::MAX);
                let replace_at = before(ends, RENEW_AUTHORITY_BEFORE);
                match self.asked(situation) {
                    _ if situation.paused => rest(renew_at, None),
                    Some(request) => Step::Announce(self.change(situation, Some(request))),
                    None if now >= replace_at => Step::Announce(self.change(situation, None)),
                    None => rest(replace_at, None),
                }
            }
        }
    }

    /// The request, if it is not answered yet.
    fn asked<'a>(&self, situation: &Situation<'a>) -> Option<&'a Request> {
        let of_change = self.notes.change.as_ref().and_then(|change| change.request.as_ref());
        situation.request.filter(|request| ![of_change, self.notes.answered.as_ref()].contains(&Some(&request.token)))
    }

    fn change(&self, situation: &Situation<'_>, request: Option<&Request>) -> Change {
        let overlap = request.and_then(|request| request.overlap).unwrap_or(situation.overlap);
        Change {
            request: request.map(|request| request.token.clone()),
            overlap_seconds: overlap.as_secs(),
            begun_at: situation.now,
            published_at: None,
            switched_at: None,
            loaded_at: None,
        }
    }

    /// The first instance that has not loaded the Secret's content.
    fn lagging(&self, situation: &Situation<'_>, since: Timestamp) -> Option<String> {
        let has_it = |member: &&Member| match &member.certificates {
            Some(loaded) => *loaded == self.served.fingerprint,
            None => situation.now >= after(since, WITHOUT_REPORT),
        };
        let member = situation.members.iter().find(|member| !has_it(member))?;
        Some(format!("{} to load the present certificates", member.name))
    }

    /// The first place from which clients cannot read all authorities.
    fn unpublished(&self, situation: &Situation<'_>) -> Option<String> {
        let Some(places) = situation.published else {
            return Some("the authorities that clients can read to be checked".to_owned());
        };
        let trusted = self.trusted();
        let holds = |place: &&Published| place.authorities.as_ref().is_some_and(|held| held.include(&trusted));
        let place = places.iter().find(|place| !holds(place))?;
        Some(format!("{} to hold the new authority", place.place))
    }
}

impl Served {
    fn trusts(&self, authorities: &Authorities) -> bool {
        self.authorities == *authorities && !self.blurred
    }
}

impl Change {
    fn overlap(&self) -> SignedDuration {
        SignedDuration::from_secs(self.overlap_seconds)
    }
}

impl Pair {
    /// The pair's certificate, in the form in which authorities are compared.
    pub fn authorities(&self) -> Authorities {
        Authorities::from_pem(&self.certificate)
    }
}

/// Whether certificates expire soon, and new ones would expire later.
fn ends_soon(leaves: &Leaves, signer: &Pair, now: Timestamp) -> bool {
    let renewed = after(now, LEAF_LIFETIME).min(not_after(&signer.certificate).unwrap_or(Timestamp::MAX));
    now >= before(leaves.not_after, RENEW_BEFORE) && before(renewed, LAST_MOMENT) > leaves.not_after
}

fn after(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn before(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_sub(duration).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;
