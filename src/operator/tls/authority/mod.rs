//! The life of a database's certificate authority: which step is next, from what the two Secrets
//! hold, what the instances have loaded and what clients can read. Pure: the driver is
//! [`crate::operator::tls::served`].
//!
//! An authority is replaced in this order, and each step is one write, so that a crash between
//! two of them is followed by the next one:
//!
//! 1. the new authority is made and kept beside the present one, which goes on signing;
//! 2. both are published: to the instances, to the records in Vault, to the Secret with the
//!    credentials;
//! 3. clients have time to read them; then the new one signs the certificates;
//! 4. once every instance has loaded these, and after the same time again, the former one goes.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::certificates::{LEAF_LIFETIME, Pair, not_after};
use crate::contract::certificates::Authorities;

/// How long before their end certificates are renewed. So long, too, before their end a lost
/// authority is replaced without being asked: that must not end in certificates that have ended.
pub const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(60 * 24);
/// How long before its end an authority is replaced: what it signs until then has its whole life.
const RENEW_AUTHORITY_BEFORE: SignedDuration = SignedDuration::from_hours(400 * 24);
/// How long clients have to read a new authority, unless they must read new credentials less
/// often, or a person says otherwise.
const OVERLAP: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A lost authority is replaced before the certificates end, however rarely clients read.
const LONGEST_OVERLAP: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Certificates that end so soon are replaced although not everybody knows the new authority.
const LAST_MOMENT: SignedDuration = SignedDuration::from_hours(24);
/// How long clients have where certificates and key are gone: no pod can start meanwhile.
const WITHOUT_CERTIFICATES: SignedDuration = SignedDuration::from_secs(60);
/// After so long a pod has the files, whose agent is of a version that does not report them.
const WITHOUT_REPORT: SignedDuration = SignedDuration::from_mins(5);

/// How long clients have to read a new authority: as long as they have for new credentials.
pub fn overlap(rotation_period: Option<SignedDuration>) -> SignedDuration {
    rotation_period.map_or(OVERLAP, |period| period.clamp(OVERLAP, LONGEST_OVERLAP))
}

/// What the two Secrets hold, as far as it is of use.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The authority that signs; none if there is none, or its key is lost.
    pub signer: Option<Pair>,
    /// The one that will sign.
    pub next: Option<Pair>,
    /// Others that are trusted: former ones, and one whose key is lost.
    pub others: Authorities,
    /// The change that is under way, and what was asked.
    pub notes: Notes,
    /// What the pods have.
    pub served: Served,
    /// What they had before that was lost: what the desired state says.
    pub remembered: Authorities,
}

/// What is noted beside the keys.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Notes {
    /// The change that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// The request that was done last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<String>,
}

/// A change of the authority.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The request that it answers, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// How long each of the two waits is, in seconds.
    pub overlap_seconds: i64,
    /// When it began.
    pub begun_at: Timestamp,
    /// Since when everybody can read the new authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
    /// Since when it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched_at: Option<Timestamp>,
    /// Since when every instance has loaded what it signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_at: Option<Timestamp>,
}

/// The content of the Secret that pods mount.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// The authorities in it.
    pub authorities: Authorities,
    /// Whether there is something else among them.
    pub blurred: bool,
    /// The certificates; none if one is missing, unreadable or without its key.
    pub leaves: Option<Leaves>,
    /// What identifies the content, as agents report it.
    pub fingerprint: String,
}

/// Certificates that are whole.
#[derive(Clone, Debug)]
pub struct Leaves {
    /// The authority that signed all of them; none if it is not known.
    pub authority: Option<String>,
    /// When the first of them ends.
    pub not_after: Timestamp,
}

/// The shortest time that a person may give clients.
const SHORTEST_OVERLAP: SignedDuration = SignedDuration::from_secs(30);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The token of the annotation.
    pub token: String,
    /// How long clients shall have.
    pub overlap: Option<SignedDuration>,
}

impl Request {
    /// A request, with a time that is neither too short for the steps between nor too long for
    /// the certificates.
    pub fn new(token: String, overlap: Option<SignedDuration>) -> Self {
        Self { token, overlap: overlap.map(|overlap| overlap.clamp(SHORTEST_OVERLAP, LONGEST_OVERLAP)) }
    }
}

/// An instance, and what it has loaded.
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
    /// What it holds; none if it is not there.
    pub authorities: Option<Authorities>,
}

/// What else the next step depends on.
pub struct Situation<'a> {
    /// Now.
    pub now: Timestamp,
    /// What is asked for.
    pub request: Option<&'a Request>,
    /// How long clients have, where the request does not say.
    pub overlap: SignedDuration,
    /// Whether the database is left as it is: only what would end is renewed.
    pub paused: bool,
    /// The instances that run.
    pub members: &'a [Member],
    /// What clients can read; none if that was not looked at, or could not be.
    pub published: Option<&'a [Published]>,
}

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the first authority.
    Create(Notes),
    /// Make the next authority.
    Announce(Change),
    /// Take the pair that signs, which nobody knows, for the next one.
    Introduce(Change),
    /// Write something down, such as that all know the next authority.
    Note(Notes),
    /// Let the next authority be the one that signs.
    Switch,
    /// Sign certificates, and trust these authorities.
    Sign(Authorities),
    /// Trust these authorities; the certificates stay.
    Trust(Authorities),
    /// Forget the former authorities.
    Retire,
    /// Nothing to be done now.
    Rest(Rest),
}

/// Why nothing is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Whether the authority's key is lost.
    pub lost: bool,
    /// When there is something to do.
    pub due: Option<Timestamp>,
    /// What is waited for that does not come with time.
    pub waits_for: Option<String>,
}

impl State {
    /// The authorities that are trusted.
    pub fn trusted(&self) -> Authorities {
        let pairs = [&self.signer, &self.next].into_iter().flatten();
        pairs.fold(self.others.clone(), |all, pair| all.and(&pair.authorities()))
    }

    /// The authorities that instances and clients know.
    pub fn known(&self) -> &Authorities {
        if self.served.authorities.is_empty() { &self.remembered } else { &self.served.authorities }
    }

    /// The state after a step that is written to the authority's own Secret. `fresh` is a new
    /// pair, for the steps that make one.
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
        // Where both Secrets were lost, it signs before it is in a file; it was announced all the same.
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
            // The first one answers whatever was asked before it.
            let answered = situation.request.map(|request| request.token.clone());
            return Step::Create(Notes { change: None, answered });
        }
        // Without certificates no pod starts.
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

    /// A next authority is there.
    fn while_announced(&self, next: &Pair, situation: &Situation<'_>) -> Step {
        let now = situation.now;
        let change = self.notes.change.clone().unwrap_or_else(|| self.change(situation, None));
        if let Some(request) = self.asked(situation).filter(|_| !situation.paused) {
            // Whoever asks meanwhile gets the one that is on its way, and sets its pace.
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
            return rest(None, Some("spec.paused, or a spec that cannot be planned".to_owned()));
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

    /// The authority that shall sign does.
    fn while_signing(&self, signer: &Pair, situation: &Situation<'_>) -> Step {
        let (now, own) = (situation.now, signer.authorities());
        // Trusted for no reason that is written down: somebody restored a Secret of another time.
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
                // The next one's key is gone before it has signed: it needs another one.
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

    /// The request, if nothing answers it yet.
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

    /// The first instance that has not loaded what the Secret holds.
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
        let Some(places) = situation.published else { return Some("a look at what clients can read".to_owned()) };
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
    /// The pair's certificate, as authorities are compared.
    pub fn authorities(&self) -> Authorities {
        Authorities::from_pem(&self.certificate)
    }
}

/// Whether certificates end soon, and new ones would end later.
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
