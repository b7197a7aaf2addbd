//! Complete lifecycles of an authority: the operator crashes after each step, and after each step
//! every client that has read the record can connect.

use std::collections::BTreeSet;

use super::*;
use crate::api::names::Names;
use crate::operator::tls::certificates;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A database from the view of the operator, the instances and the clients.
struct Life {
    state: State,
    now: Timestamp,
    paused: bool,
    request: Option<Request>,
    /// The authorities that each instance trusts, and the signer of its certificate.
    members: Vec<(Authorities, Option<String>, String)>,
    /// The authorities in the record, and since when.
    record: Authorities,
    /// Clients that read the record once, and never again.
    read_once: Vec<Authorities>,
    steps: Vec<&'static str>,
}

impl Life {
    /// A new database.
    fn new() -> Self {
        let now = "2026-06-01T00:00:00Z".parse().expect("a time");
        let mut life = Self {
            state: State::default(),
            now,
            paused: false,
            request: None,
            members: vec![Default::default(), Default::default()],
            record: Authorities::default(),
            read_once: vec![],
            steps: vec![],
        };
        life.work();
        life.everybody_reads();
        life.steps.clear();
        life
    }

    fn next_step(&self) -> Step {
        let member = |(index, (_, _, loaded)): (usize, &(_, _, String))| Member {
            name: format!("chat-db-{index}"),
            certificates: Some(loaded.clone()),
        };
        let members: Vec<_> = self.members.iter().enumerate().map(member).collect();
        let published = [Published { place: "the record".to_owned(), authorities: Some(self.record.clone()) }];
        self.state.next_step(&Situation {
            now: self.now,
            request: self.request.as_ref(),
            overlap: OVERLAP,
            paused: self.paused,
            members: &members,
            published: Some(&published),
        })
    }

    /// Executes one step, as the driver does; returns whether there was one.
    fn step(&mut self) -> bool {
        let step = self.next_step();
        let fresh = || certificates::authority(&Names::new("games", "chat"), self.now).expect("an authority");
        self.steps.push(match &step {
            Step::Create(_) => "create",
            Step::Announce(_) => "announce",
            Step::Introduce(_) => "introduce",
            Step::Note(_) => "note",
            Step::Switch => "switch",
            Step::Sign(_) => "sign",
            Step::Trust(_) => "trust",
            Step::Retire => "retire",
            Step::Rest(_) => return false,
        });
        match &step {
            Step::Sign(trusted) => {
                let signer = self.state.signer.as_ref().expect("a signer");
                let end = not_after(&signer.certificate).expect("an end").min(after(self.now, LEAF_LIFETIME));
                let leaves = Some(Leaves { authority: Some(signer.certificate.clone()), not_after: end });
                let fingerprint = format!("{} at {}", signer.certificate, self.now);
                self.state.served = Served { authorities: trusted.clone(), blurred: false, leaves, fingerprint };
            }
            Step::Trust(trusted) => {
                self.state.served.authorities = trusted.clone();
                self.state.served.fingerprint += &trusted.to_pem();
            }
            Step::Create(_) | Step::Announce(_) => {
                let fresh = fresh();
                self.state = self.state.clone().after(&step, Some(fresh), self.now);
            }
            step => self.state = self.state.clone().after(step, None, self.now),
        }
        true
    }

    /// The operator executes steps until no action is due.
    fn work(&mut self) {
        for _ in 0..20 {
            if !self.step() {
                return;
            }
            self.check();
        }
        panic!("the steps do not end: {:?}", self.steps);
    }

    /// One instance loads the Secret's content.
    fn load(&mut self, member: usize) {
        let served = &self.state.served;
        let signed_by = served.leaves.as_ref().and_then(|leaves| leaves.authority.clone());
        if signed_by.is_some() {
            self.members[member] = (served.authorities.clone(), signed_by, served.fingerprint.clone());
        }
        self.check();
    }

    /// The leader's agent writes the record, and every instance loads.
    fn everybody_reads(&mut self) {
        self.record = self.state.trusted();
        for member in 0..self.members.len() {
            self.load(member);
        }
    }

    fn pass(&mut self, time: SignedDuration) {
        self.now = after(self.now, time);
    }

    /// Every client that has read the record can connect to every instance, and the instances to
    /// one another.
    fn check(&self) {
        let presented: BTreeSet<_> = self.members.iter().filter_map(|(_, signed_by, _)| signed_by.clone()).collect();
        for authority in presented.iter().map(|authority| Authorities::from_pem(authority)) {
            let started = self.members.iter().enumerate().filter(|(_, (trusted, ..))| !trusted.is_empty());
            for (index, (trusted, ..)) in started {
                assert!(trusted.include(&authority), "chat-db-{index} refuses a member after {:?}", self.steps);
            }
            assert!(self.record.include(&authority), "a client is refused after {:?}", self.steps);
            for read in &self.read_once {
                assert!(read.include(&authority), "a client that has read in time is refused after {:?}", self.steps);
            }
        }
    }

    fn ask(&mut self, token: &str) {
        self.request = Some(Request::new(token.to_owned(), None));
    }

    fn lose_authority(&mut self) {
        let former = self.state.trusted();
        self.state = State {
            others: Authorities::default(),
            signer: None,
            next: None,
            notes: Notes::default(),
            ..self.state.clone()
        };
        assert!(self.state.known().include(&former));
    }

    fn signed_by(&self) -> String {
        self.state.served.leaves.as_ref().and_then(|leaves| leaves.authority.clone()).expect("an authority")
    }

    /// From the announcement of a new authority to the removal of the former one.
    fn see_through(&mut self, former: &str) {
        // One instance after the other, the record in between, and the operator at each point.
        self.load(0);
        self.work();
        self.record = self.record.and(&self.state.trusted());
        self.work();
        assert!(
            self.state.notes.change.as_ref().is_some_and(|change| change.published_at.is_none()),
            "one instance has not loaded"
        );
        self.load(1);
        self.work();
        self.read_once.push(self.record.clone());
        self.pass(OVERLAP - MINUTE);
        self.work();
        assert_eq!(self.signed_by(), former, "clients have the complete time");
        // The certificates may have been renewed meanwhile.
        (0..2).for_each(|member| self.load(member));
        self.pass(MINUTE);
        self.work();
        assert_ne!(self.signed_by(), former);
        self.load(1);
        self.work();
        self.pass(OVERLAP + DAY);
        self.work();
        assert!(self.state.trusted().include(&Authorities::from_pem(former)), "one presents the former's certificate");
        self.load(0);
        self.work();
        self.pass(OVERLAP);
        self.work();
        self.everybody_reads();
        self.work();
        assert_eq!(self.state.trusted().iter().count(), 1);
        assert_eq!(self.state.trusted(), self.state.served.authorities);
        assert_eq!(self.state.notes.change, None);
    }
}

#[test]
fn a_new_database_has_one_authority_and_rests() {
    let mut life = Life::new();
    life.work();
    assert_eq!(life.steps, Vec::<&str>::new());
    assert!(matches!(life.next_step(), Step::Rest(Rest { lost: false, waits_for: None, due: Some(_) })));
}

#[test]
fn a_requested_authority_is_introduced_without_an_outage() {
    let mut life = Life::new();
    let former = life.signed_by();
    life.ask("monday");
    life.work();
    assert_eq!(life.steps, ["announce", "trust"]);
    life.see_through(&former);
    assert_eq!(life.state.notes.answered.as_deref(), Some("monday"));
    life.work();
    let steps = ["announce", "trust", "note", "switch", "sign", "note", "trust", "retire"];
    assert_eq!(life.steps, steps, "the request is done once");
}

#[test]
fn an_authority_and_certificates_are_replaced_before_they_expire() {
    let mut life = Life::new();
    let former = life.signed_by();
    let mut years = 0;
    while !life.steps.contains(&"announce") {
        life.pass(DAY * 30);
        life.work();
        if !life.steps.contains(&"announce") {
            life.everybody_reads();
        }
        years += 30;
    }
    assert!((8 * 365..9 * 365).contains(&years), "after {years} days");
    assert!(life.steps.iter().filter(|step| **step == "sign").count() >= 8);
    life.see_through(&former);
}

#[test]
fn a_lost_authority_changes_nothing_until_a_new_one_is_requested() {
    let mut life = Life::new();
    let former = life.signed_by();
    life.lose_authority();
    life.work();
    life.pass(DAY * 200);
    life.work();
    assert_eq!(life.steps, Vec::<&str>::new());
    let Step::Rest(rest) = life.next_step() else { panic!("no action is due") };
    assert!(rest.lost);
    life.ask("monday");
    life.work();
    assert_eq!(life.steps, ["announce", "trust"]);
    life.see_through(&former);
}

#[test]
fn a_lost_authority_is_replaced_in_time_automatically() {
    for paused in [false, true] {
        let mut life = Life::new();
        let former = life.signed_by();
        life.paused = paused;
        life.lose_authority();
        life.pass(DAY * 306);
        life.work();
        assert_eq!(life.steps, ["announce", "trust"], "paused: {paused}");
        if paused {
            // Certificates that would expire are still renewed.
            life.everybody_reads();
            life.pass(DAY * 58 + SignedDuration::from_hours(1));
            life.work();
            assert_ne!(life.signed_by(), former);
        } else {
            life.see_through(&former);
        }
    }
}

#[test]
fn a_restored_authority_signs_again() {
    let mut life = Life::new();
    let whole = life.state.clone();
    life.lose_authority();
    life.work();
    life.state = whole;
    life.work();
    assert_eq!(life.steps, Vec::<&str>::new());
    assert!(matches!(life.next_step(), Step::Rest(Rest { lost: false, .. })));
}

/// An old Secret, or one from another source.
#[test]
fn an_unknown_authority_is_published_before_it_signs() {
    let mut life = Life::new();
    let former = life.signed_by();
    let other = certificates::authority(&Names::new("games", "chat"), life.now).expect("an authority");
    life.state.signer = Some(other.clone());
    life.work();
    assert_eq!(life.steps, ["introduce", "trust"]);
    life.see_through(&former);
    assert_eq!(life.signed_by(), other.certificate);
}

#[test]
fn an_authority_lost_during_a_change_is_still_trusted() {
    for (lost_after, asked_again) in [("announce", true), ("switch", true), ("note", true)] {
        let mut life = Life::new();
        life.ask("monday");
        while life.steps.last() != Some(&lost_after) {
            if !life.step() {
                life.everybody_reads();
                life.pass(OVERLAP);
            }
            life.check();
        }
        life.everybody_reads();
        life.work();
        life.everybody_reads();
        let former = life.signed_by();
        life.lose_authority();
        life.work();
        life.check();
        if asked_again {
            life.ask("tuesday");
        }
        life.work();
        life.see_through(&former);
    }
}

#[test]
fn missing_certificates_are_recreated_at_once() {
    let mut life = Life::new();
    let former = life.signed_by();
    life.state.served = Served::default();
    life.work();
    assert_eq!((life.steps.as_slice(), life.signed_by()), (&["sign"][..], former));
}

/// Both Secrets deleted: the agents have the authorities in the desired state, and the loaded
/// certificates are used until the record has the new authority, or for a minute.
#[test]
fn after_a_loss_of_both_secrets_clients_have_the_remaining_time() {
    let mut life = Life::new();
    let former = life.state.trusted();
    life.lose_authority();
    (life.state.recorded, life.state.served) = (former.clone(), Served::default());
    life.work();
    assert_eq!(life.steps, ["announce"]);
    life.record = life.state.trusted();
    assert!(life.record.include(&former));
    life.work();
    assert_eq!(life.steps, ["announce", "switch", "sign"], "the record has it");
    assert!(life.state.served.authorities.include(&former), "instances that have not loaded yet are trusted");

    let mut life = Life::new();
    life.lose_authority();
    (life.state.recorded, life.state.served) = (former, Served::default());
    life.record = Authorities::default();
    for member in &mut life.members {
        *member = Default::default();
    }
    life.work();
    life.pass(MINUTE);
    life.work();
    assert_eq!(life.steps, ["announce", "switch", "sign"], "Vault is unavailable, and pods must be able to start");
}

#[test]
fn a_pause_stops_a_requested_change() {
    let mut life = Life::new();
    life.paused = true;
    life.ask("monday");
    life.work();
    assert_eq!(life.steps, Vec::<&str>::new());
    life.paused = false;
    life.work();
    life.paused = true;
    life.everybody_reads();
    life.pass(OVERLAP * 2);
    life.work();
    assert_eq!(life.steps, ["announce", "trust"]);
}

#[test]
fn a_request_during_a_change_sets_its_overlap() {
    let mut life = Life::new();
    life.ask("monday");
    life.work();
    life.everybody_reads();
    life.work();
    let former = life.signed_by();
    life.request = Some(Request::new("tuesday".to_owned(), Some(MINUTE)));
    life.work();
    life.pass(MINUTE * 2);
    life.work();
    assert_ne!(life.signed_by(), former);
    life.everybody_reads();
    life.work();
    life.pass(MINUTE);
    life.work();
    assert_eq!(life.state.notes.answered.as_deref(), Some("tuesday"));
}

/// An agent whose version does not report its files is assumed to have them after some time.
#[test]
fn an_agent_that_does_not_report_gets_time() {
    let mut life = Life::new();
    life.ask("monday");
    life.work();
    let members = [Member { name: "chat-db-0".to_owned(), certificates: None }];
    let published = [Published { place: "the record".to_owned(), authorities: Some(life.state.trusted()) }];
    let next = |now| {
        let (members, published) = (&members[..], Some(&published[..]));
        life.state.next_step(&Situation { now, request: None, overlap: OVERLAP, paused: false, members, published })
    };
    assert!(matches!(next(life.now), Step::Rest(Rest { waits_for: Some(waits), .. }) if waits.contains("chat-db-0")));
    assert!(matches!(next(after(life.now, WITHOUT_REPORT)), Step::Note(_)));
}
