use super::rehearsal::Progress;
use super::state::HOLD_PATIENCE;
use super::*;
use crate::api::ServiceDatabaseStatus;
use crate::api::names::Names;
use crate::contract::report::Role;
use crate::contract::upgrade::{Lineage, Rehearsed, UpgradeReport, UpgradeState};
use crate::operator::maintenance::windows::Opening;
use crate::operator::observe::pods::DatabasePod;
use crate::operator::validate::UpgradeRequest;

/// A database of two instances, whose upgrade is decided on step by step.
struct Scene {
    request: Option<UpgradeRequest>,
    upgrade_to: Option<u16>,
    major: u16,
    keep_former: Option<SignedDuration>,
    by_itself: ByItself,
    pods: Vec<DatabasePod>,
    leader: usize,
    backup: Option<&'static str>,
    job: Option<Progress>,
    adopts: bool,
    state: State,
    now: Timestamp,
}

impl Scene {
    fn new() -> Self {
        let mut pods = vec![DatabasePod::sample("chat-db-0"), DatabasePod::sample("chat-db-1")];
        for (pod, role) in pods.iter_mut().zip([Role::Primary, Role::Replica]) {
            let report = pod.report.as_mut().expect("a report");
            (report.role, report.majors) = (Some(role), vec![17, 18]);
        }
        Self {
            request: None,
            upgrade_to: Some(18),
            major: 17,
            keep_former: None,
            by_itself: ByItself::Never,
            pods,
            leader: 0,
            backup: None,
            job: None,
            adopts: false,
            state: State::default(),
            now: "2026-11-29T12:00:00Z".parse().expect("a time"),
        }
    }

    fn ask(&mut self, token: &str, action: UpgradeAction) {
        self.request = Some(UpgradeRequest { token: token.to_owned(), action: Ok(action) });
        self.step();
    }

    fn step(&mut self) {
        let (desired, lineage) = (self.state.desired.clone(), self.state.lineage.clone());
        let known = Known {
            request: self.request.as_ref(),
            names: &Names::new("messaging", "chat"),
            major: self.major,
            upgrade_to: self.upgrade_to,
            keep_former: self.keep_former,
            by_itself: self.by_itself,
            generation: 2,
            desired: desired.as_ref(),
            lineage: lineage.as_ref(),
            pods: &self.pods,
            primary: Some(&self.pods[self.leader]),
            busy: None,
            backup: self.backup.map(|label| (label, "main")),
            job_name: &format!("chat-db-rehearse-{}", self.now.as_second()),
            job: self.job.as_ref(),
            adopts: self.adopts,
            now: self.now,
        };
        self.state = decide(&known, self.state.clone());
    }

    fn report(&mut self, pod: usize, state: UpgradeState) {
        let id = self.state.desired.as_ref().expect("a stage").id.clone();
        self.pods[pod].report.as_mut().expect("a report").upgrade = Some(Box::new(UpgradeReport { id, state }));
        self.step();
    }

    fn rehearsed(&mut self) {
        self.report(
            self.leader,
            UpgradeState::Rehearsed(Rehearsed { seconds: 40, upgrade_seconds: 9, warnings: Vec::new() }),
        );
    }

    fn switched(&mut self, left: &str, current: &str) {
        let upgrade = self.state.desired.clone().expect("a stage");
        let lineage = Lineage {
            id: upgrade.id.clone(),
            at: self.now,
            left: left.to_owned(),
            current: current.to_owned(),
            major: upgrade.to,
            kept_by: (!upgrade.is_back()).then(|| upgrade.pod.clone()),
        };
        self.report(self.leader, UpgradeState::Switched(lineage));
    }

    fn upgraded() -> Self {
        let mut scene = Self::new();
        scene.ask("t", UpgradeAction::Start);
        scene.rehearsed();
        scene.report(1, UpgradeState::Held);
        scene.switched("7", "8");
        (scene.major, scene.upgrade_to) = (18, None);
        scene.now += SignedDuration::from_secs(60);
        scene.step();
        scene
    }

    fn stage(&self) -> Option<Stage> {
        self.state.desired.as_ref().map(|upgrade| upgrade.stage)
    }

    fn phase(&self) -> UpgradePhase {
        self.state.status.as_ref().expect("a status").phase
    }

    fn message(&self) -> String {
        self.state.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default()
    }

    fn result(&self) -> (RequestState, String) {
        let last = self.state.status.as_ref().and_then(|status| status.last_request.clone()).expect("a request");
        (last.state, last.message.unwrap_or_default())
    }
}

#[test]
fn a_higher_version_waits_for_a_request_and_says_so() {
    let mut scene = Scene::new();
    scene.step();
    assert_eq!((scene.stage(), scene.phase()), (None, UpgradePhase::Pending));
    let message = scene.state.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default();
    assert!(message.contains("kubectl servicedb upgrade chat -n messaging --check"), "{message}");
    scene.upgrade_to = None;
    scene.step();
    assert_eq!(scene.state.status, None, "withdrawn");
    scene.ask("t", UpgradeAction::Start);
    assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Failed), "to what?");
}

#[test]
fn a_check_is_the_rehearsal_alone() {
    let mut scene = Scene::new();
    scene.ask("t", UpgradeAction::Check);
    assert_eq!((scene.stage(), scene.phase()), (Some(Stage::Rehearse), UpgradePhase::Rehearsing));
    assert_eq!(scene.state.stops_instances(), None, "it serves");
    scene.rehearsed();
    assert_eq!((scene.stage(), scene.phase(), scene.result().0), (None, UpgradePhase::Pending, RequestState::Done));
    assert!(scene.result().1.contains("in 40 s, of which pg_upgrade took 9 s"), "{:?}", scene.result());
    scene.step();
    assert_eq!(scene.stage(), None, "once");
    scene.ask("u", UpgradeAction::Check);
    scene.report(0, UpgradeState::Failed { message: "the type abstime".into() });
    assert_eq!((scene.stage(), scene.phase(), scene.result().0), (None, UpgradePhase::Failed, RequestState::Failed));
    assert_eq!(scene.result().1, "the type abstime; nothing was changed");
}

#[test]
fn the_warnings_of_a_rehearsal_are_reported_and_stop_nothing() {
    for (action, stage) in [(UpgradeAction::Check, None), (UpgradeAction::Start, Some(Stage::Hold))] {
        let mut scene = Scene::new();
        scene.ask("t", action);
        let warnings = vec!["update public.article".to_owned()];
        scene.report(0, UpgradeState::Rehearsed(Rehearsed { seconds: 40, upgrade_seconds: 9, warnings }));
        assert_eq!(scene.stage(), stage);
        assert!(scene.result().1.contains("for about as long; update public.article; "), "{:?}", scene.result());
        if action == UpgradeAction::Start {
            // Now they are to be followed.
            scene.report(1, UpgradeState::Held);
            scene.switched("7", "8");
            assert!(scene.message().ends_with("--finish removes it; update public.article"), "{}", scene.message());
        }
    }
}

#[test]
fn a_refused_request_leaves_its_answer_and_no_upgrade() {
    for (major, says) in [(17, "set it first"), (18, "knows no higher one")] {
        let mut scene = Scene::new();
        (scene.major, scene.upgrade_to) = (major, None);
        for (token, action, says) in [
            ("a", UpgradeAction::Back, "keeps no data from before an upgrade"),
            ("b", UpgradeAction::Finish, "keeps no data from before an upgrade"),
            ("c", UpgradeAction::Start, says),
        ] {
            scene.ask(token, action);
            scene.step();
            assert_eq!(
                (scene.stage(), scene.phase(), scene.result().0),
                (None, UpgradePhase::None, RequestState::Failed)
            );
            assert!(scene.result().1.contains(says), "{:?}", scene.result());
        }
    }
    // One that is declared afterwards is offered, and withdrawn none is left.
    let mut scene = Scene::new();
    scene.upgrade_to = None;
    scene.ask("a", UpgradeAction::Start);
    for (upgrade_to, phase) in [(Some(18), UpgradePhase::Pending), (None, UpgradePhase::None)] {
        scene.upgrade_to = upgrade_to;
        scene.step();
        assert_eq!((scene.phase(), scene.result().0), (phase, RequestState::Failed));
    }
}

#[test]
fn a_request_is_answered_once_whatever_the_spec_says_afterwards() {
    let mut scene = Scene::new();
    scene.upgrade_to = None;
    scene.ask("t", UpgradeAction::Start);
    let answer = scene.result();
    assert_eq!((scene.stage(), answer.0), (None, RequestState::Failed));
    for upgrade_to in [None, None, Some(18), Some(18), None, Some(18)] {
        scene.upgrade_to = upgrade_to;
        scene.step();
        assert_eq!((scene.stage(), scene.result()), (None, answer.clone()), "{upgrade_to:?}");
    }
    // A rehearsal whose version is withdrawn.
    scene.ask("u", UpgradeAction::Check);
    scene.rehearsed();
    for upgrade_to in [None, None, Some(18), Some(18)] {
        scene.upgrade_to = upgrade_to;
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Done), "{upgrade_to:?}");
    }
}

#[test]
fn an_answered_request_does_not_end_an_upgrade_that_begins_by_itself() {
    let mut scene = Scene::new();
    scene.ask("t", UpgradeAction::Check);
    scene.rehearsed();
    scene.by_itself = ByItself::Now;
    scene.step();
    assert_eq!((scene.stage(), scene.result().0), (Some(Stage::Rehearse), RequestState::Running));
    scene.step();
    assert_eq!((scene.stage(), scene.result().0), (Some(Stage::Rehearse), RequestState::Running));
    scene.rehearsed();
    assert_eq!(scene.stage(), Some(Stage::Hold));
    scene.ask("u", UpgradeAction::Start);
    assert!(scene.result().1.contains("another one was requested"), "a new one does");
}

#[test]
fn the_way_back_is_refused_where_the_volume_has_nothing_any_more() {
    for (former, message) in [(Some(0), "--finish forgets it"), (Some(18), "--finish forgets it"), (Some(17), "")] {
        let mut scene = Scene::upgraded();
        scene.pods[0].report.as_mut().expect("a report").former_major = former;
        scene.ask("back", UpgradeAction::Back);
        let (stage, result) = (scene.stage(), scene.result());
        match message {
            "" => assert_eq!((stage, result.0), (Some(Stage::Hold), RequestState::Running)),
            message => assert!(stage.is_none() && result.1.contains(message), "{former:?}: {result:?}"),
        }
    }
}

#[test]
fn the_leader_rehearses_the_others_stop_and_then_it_switches() {
    let mut scene = Scene::new();
    scene.ask("t", UpgradeAction::Start);
    scene.rehearsed();
    assert_eq!((scene.stage(), scene.phase()), (Some(Stage::Hold), UpgradePhase::Stopping));
    assert_eq!(scene.state.desired.as_ref().map(|upgrade| upgrade.limit_seconds), Some(200));
    scene.step();
    assert_eq!(scene.stage(), Some(Stage::Hold), "chat-db-1 could still be promoted");
    assert!(scene.state.stops_instances().is_some());
    scene.report(1, UpgradeState::Held);
    assert_eq!((scene.stage(), scene.phase()), (Some(Stage::Switch), UpgradePhase::Switching));
    scene.switched("7", "8");
    assert_eq!((scene.stage(), scene.phase(), scene.result().0), (None, UpgradePhase::Upgraded, RequestState::Done));
    let lineage = scene.state.lineage.clone().expect("a lineage");
    assert_eq!((lineage.left.as_str(), lineage.current.as_str(), lineage.major), ("7", "8", 18));
    assert_eq!(lineage.kept_by.as_deref(), Some("chat-db-0"));
    // Status alone has it, too.
    let status = ServiceDatabaseStatus {
        upgrade: scene.state.status.clone().map(Box::new),
        postgres_major: Some(18),
        ..ServiceDatabaseStatus::default()
    };
    let recorded = State::recorded(&status).lineage.expect("a lineage");
    assert_eq!(Lineage { id: String::new(), ..lineage }, recorded);
}

#[test]
fn the_way_back_loses_what_was_written_and_only_where_the_data_is() {
    let mut scene = Scene::upgraded();
    assert_eq!((scene.stage(), scene.phase()), (None, UpgradePhase::Upgraded));
    scene.leader = 1;
    scene.ask("back", UpgradeAction::Back);
    assert_eq!(scene.result().0, RequestState::Failed);
    assert!(
        scene.result().1.contains("kubectl servicedb switchover chat -n messaging --to chat-db-0"),
        "{:?}",
        scene.result()
    );
    scene.leader = 0;
    scene.now += SignedDuration::from_mins(1);
    scene.ask("back again", UpgradeAction::Back);
    let upgrade = scene.state.desired.clone().expect("a stage");
    assert_eq!((upgrade.stage, upgrade.from, upgrade.to, upgrade.is_back()), (Stage::Hold, 18, 17, true));
    scene.report(1, UpgradeState::Held);
    scene.switched("8", "7");
    assert_eq!((scene.stage(), scene.phase(), scene.result().0), (None, UpgradePhase::TakenBack, RequestState::Done));
    let lineage = scene.state.lineage.clone().expect("a lineage");
    assert_eq!((lineage.left.as_str(), lineage.major, lineage.kept_by), ("8", 17, None));
    assert!(scene.result().1.contains("set spec.postgres.version to \"17\""), "{:?}", scene.result());
    let left: Vec<_> = scene
        .state
        .left
        .iter()
        .map(|left| (left.from, left.to, left.system_identifier.as_str(), left.continued_as.as_str()))
        .collect();
    assert_eq!(left, [(Some(17), 18, "7", "8"), (Some(18), 17, "8", "7")]);
    let before = scene.state.left.clone();
    scene.step();
    assert_eq!(scene.state.left, before, "each is noted once");
    assert!(
        scene.message().contains("set spec.postgres.version"),
        "the primary has not reported 17: {}",
        scene.message()
    );
    // The field is set back, and names 18 again.
    for (upgrade_to, says) in [(None, "from before the upgrade"), (Some(18), "otherwise an upgrade is pending again")] {
        (scene.major, scene.upgrade_to) = (17, upgrade_to);
        scene.step();
        assert!(scene.message().ends_with(says), "{upgrade_to:?}: {}", scene.message());
    }
    // The field still asks for it.
    (scene.major, scene.upgrade_to, scene.by_itself) = (17, Some(18), ByItself::Now);
    scene.step();
    assert_eq!((scene.stage(), scene.phase()), (None, UpgradePhase::TakenBack), "not by itself again");
    scene.ask("once more", UpgradeAction::Start);
    assert_eq!(scene.stage(), Some(Stage::Rehearse));
}

#[test]
fn the_former_data_is_given_up_by_a_word() {
    let mut scene = Scene::upgraded();
    scene.ask("f", UpgradeAction::Finish);
    assert_eq!((scene.phase(), scene.result().0), (UpgradePhase::Finished, RequestState::Done));
    assert_eq!(scene.state.lineage.as_ref().map(|lineage| lineage.kept_by.clone()), Some(None));
    let has = |scene: &mut Scene, pod: usize, former| {
        scene.pods[pod].report.as_mut().expect("a report").former_major = Some(former);
        scene.step();
        scene.message()
    };
    has(&mut scene, 1, 0);
    assert_eq!(has(&mut scene, 0, 17), "chat-db-0 removes the data from before the upgrade", "it still has it");
    assert_eq!(has(&mut scene, 0, 0), "chat-db-0 has removed the data from before the upgrade");
    scene.ask("b", UpgradeAction::Back);
    assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Failed));
    assert_eq!(scene.phase(), UpgradePhase::Finished);
}

#[test]
fn the_former_data_is_given_up_after_its_time_while_a_primary_serves() {
    let day = SignedDuration::from_hours(24);
    let mut scene = Scene::upgraded();
    let kept = |scene: &Scene| scene.state.lineage.as_ref().and_then(|lineage| lineage.kept_by.clone());
    scene.now += day * 400;
    scene.step();
    assert_eq!(kept(&scene).as_deref(), Some("chat-db-0"), "for ever, if nobody says for how long");
    let switched = scene.state.lineage.as_ref().expect("a lineage").at;
    scene.keep_former = Some(day * 7);
    scene.now = switched + day * 7 - SignedDuration::from_secs(1);
    scene.step();
    assert!(kept(&scene).is_some());
    scene.now += SignedDuration::from_secs(1);
    scene.step();
    assert_eq!((kept(&scene), scene.phase()), (None, UpgradePhase::Finished));
    let status = scene.state.status.clone().expect("a status");
    assert!(status.kept_by.is_none() && status.message.is_some_and(|message| message.contains("formerDataDays")));
}

#[test]
fn an_automatic_upgrade_begins_by_itself_and_is_not_repeated() {
    let mut scene = Scene { by_itself: ByItself::Now, ..Scene::new() };
    scene.step();
    assert_eq!(scene.stage(), Some(Stage::Rehearse));
    scene.report(0, UpgradeState::Failed { message: "no".into() });
    scene.step();
    assert_eq!((scene.stage(), scene.phase()), (None, UpgradePhase::Failed));
}

#[test]
fn a_window_begins_it_and_postpones_what_it_has_no_time_for() {
    let open = |scene: &Scene, minutes| {
        let until = scene.now + SignedDuration::from_mins(minutes);
        ByItself::InWindow(Some(Opening { from: scene.now, until }))
    };
    let mut scene = Scene { by_itself: ByItself::InWindow(None), ..Scene::new() };
    scene.step();
    assert_eq!((scene.stage(), scene.phase()), (None, UpgradePhase::Pending));
    let status = scene.state.status.clone().expect("a status");
    assert!(status.message.is_some_and(|message| message.contains("before the next maintenance window")));
    scene.by_itself = open(&scene, 1);
    scene.step();
    assert_eq!(scene.stage(), Some(Stage::Rehearse));
    // The copy took 40 s of this minute, and the upgrade takes as long.
    scene.now += SignedDuration::from_secs(40);
    scene.rehearsed();
    assert_eq!((scene.stage(), scene.phase(), scene.result().0), (None, UpgradePhase::Pending, RequestState::Failed));
    scene.step();
    assert_eq!(scene.stage(), None, "the rest of the window is too short");
    scene.by_itself = open(&scene, 1);
    scene.step();
    assert_eq!(scene.stage(), None, "so is all of the next one");
    scene.by_itself = open(&scene, 2);
    scene.step();
    scene.rehearsed();
    assert_eq!(scene.stage(), Some(Stage::Hold));
    // What has begun is finished.
    scene.by_itself = ByItself::InWindow(None);
    scene.report(1, UpgradeState::Held);
    assert_eq!(scene.stage(), Some(Stage::Switch));

    let mut scene = Scene { by_itself: ByItself::InWindow(None), ..Scene::new() };
    scene.ask("now", UpgradeAction::Start);
    scene.rehearsed();
    assert_eq!(scene.stage(), Some(Stage::Hold), "a request needs no window");
}

#[test]
fn an_instance_that_does_not_stop_or_another_leader_or_another_spec_ends_or_repeats_it() {
    let mut scene = Scene::new();
    scene.ask("t", UpgradeAction::Start);
    scene.rehearsed();
    scene.now += HOLD_PATIENCE + SignedDuration::from_secs(1);
    scene.step();
    assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Failed));
    assert!(scene.result().1.contains("chat-db-1 did not stop"), "{:?}", scene.result());

    let mut scene = Scene::new();
    scene.ask("t", UpgradeAction::Start);
    scene.rehearsed();
    scene.leader = 1;
    scene.step();
    let again = scene.state.desired.clone().expect("a stage");
    assert_eq!((again.stage, again.pod.as_str()), (Stage::Rehearse, "chat-db-1"), "it has rehearsed nothing");
    scene.upgrade_to = None;
    scene.step();
    assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Failed));

    let mut scene = Scene::new();
    scene.pods[1].report.as_mut().expect("a report").majors = vec![17];
    scene.ask("t", UpgradeAction::Start);
    assert!(scene.result().1.contains("the image of chat-db-1 has not both"), "{:?}", scene.result());
}

#[test]
fn an_operator_that_ended_before_status_was_written_goes_on_from_the_desired_state() {
    let mut scene = Scene::new();
    scene.ask("t", UpgradeAction::Start);
    scene.rehearsed();
    scene.report(1, UpgradeState::Held);
    let before = scene.state.clone();
    scene.now += SignedDuration::from_secs(3);
    scene.switched("7", "8");
    // The agents' document has the result, status does not.
    let lineage = scene.state.lineage.clone();
    scene.state = State { lineage, desired: None, ..before };
    scene.step();
    assert_eq!((scene.stage(), scene.phase()), (None, UpgradePhase::Upgraded), "and upgrades nothing once more");
}

#[test]
fn a_later_upgrade_hides_neither_the_data_that_is_kept_nor_what_is_known_of_the_last_one() {
    let mut scene = Scene::upgraded();
    scene.upgrade_to = Some(19);
    scene.step();
    let status = scene.state.status.clone().expect("a status");
    assert_eq!((status.phase, status.kept_by.as_deref()), (UpgradePhase::Upgraded, Some("chat-db-0")));
    assert_eq!((status.from, status.to), (17, 18), "the way back is that of this one");
    assert!(status.message.is_some_and(|message| message.contains("--finish")));
    scene.by_itself = ByItself::Now;
    scene.step();
    assert_eq!((scene.stage(), scene.phase()), (None, UpgradePhase::Upgraded), "not while data is kept");
    scene.by_itself = ByItself::Never;
    scene.ask("f", UpgradeAction::Finish);
    scene.step();
    let status = scene.state.status.clone().expect("a status");
    assert_eq!((status.phase, status.from, status.to), (UpgradePhase::Pending, 18, 19));
    assert_eq!(status.left_system_identifier.as_deref(), Some("7"), "in case that the agents' document is lost");
    assert_eq!((status.system_identifier.as_deref(), status.switched_at.is_some()), (Some("8"), true));
    scene.upgrade_to = None;
    scene.step();
    let status = scene.state.status.clone().expect("a status");
    assert_eq!((status.phase, status.left_system_identifier.as_deref()), (UpgradePhase::Finished, Some("7")));
}

#[test]
fn the_exchange_waits_for_the_pooler_and_not_for_ever() {
    let mut scene = Scene::new();
    scene.ask("t", UpgradeAction::Start);
    scene.rehearsed();
    let held = scene.state.desired.clone().expect("a stage");
    scene.report(1, UpgradeState::Held);
    assert_eq!(scene.stage(), Some(Stage::Switch));
    let exchange = |ordered| Some(Exchange { name: "upgrade of chat-db-0 to PostgreSQL 18".into(), ordered });
    assert_eq!(scene.state.exchange(Some(&held), 45), exchange(false));
    assert_eq!(scene.state.exchange(Some(&held), 39), None, "the rehearsal took 40 s");
    assert_eq!(scene.state.exchange(scene.state.desired.as_ref(), 45), exchange(true));
    // The agents learn nothing of it.
    let mut waiting = scene.state.clone();
    waiting.wait(&held, None, scene.now);
    assert_eq!(waiting.desired.as_ref(), Some(&held));
    assert_eq!(waiting.status.as_ref().map(|status| status.phase), Some(UpgradePhase::Stopping));
    assert_eq!(waiting.exchange(Some(&held), 45), None);
    // It is decided on again, and given up once the others have stood still for long.
    scene.state = waiting;
    scene.step();
    assert_eq!(scene.stage(), Some(Stage::Switch));
    scene.state.wait(&held, Some("transactions of pooler-1 did not end"), scene.now + SignedDuration::from_mins(4));
    assert_eq!((scene.stage(), scene.phase(), scene.result().0), (None, UpgradePhase::Failed, RequestState::Failed));
    assert!(scene.result().1.contains("pooler-1 did not end"), "{:?}", scene.result());
}

impl Scene {
    /// A database with a backup, whose upgrade was requested.
    fn with_backup(action: UpgradeAction) -> Self {
        let mut scene = Self { backup: Some("20261129-030000F"), ..Self::new() };
        scene.ask("t", action);
        scene
    }

    fn job(&mut self, progress: Progress) {
        self.job = Some(progress);
        self.now += SignedDuration::from_secs(90);
        self.step();
        // What a reconcile reads is of the Job that is desired.
        self.job = None;
    }

    fn named(&self) -> Option<(String, u32)> {
        let (_, run) = rehearsal::of(self.state.desired.as_ref())?;
        Some((run.job.clone(), run.attempt))
    }
}

fn by_job() -> Progress {
    let rehearsed = Rehearsed { seconds: 40, upgrade_seconds: 9, warnings: Vec::new() };
    Progress::Rehearsed { label: "20261129-030000F".to_owned(), rehearsed }
}

#[test]
fn with_a_backup_a_job_rehearses_and_its_times_are_the_announced_outage() {
    let mut scene = Scene::with_backup(UpgradeAction::Check);
    assert_eq!((scene.stage(), scene.phase()), (Some(Stage::Rehearse), UpgradePhase::Rehearsing));
    let (job, attempt) = scene.named().expect("a Job");
    assert_eq!((job.starts_with("chat-db-rehearse-"), attempt), (true, 1));
    assert!(scene.result().1.contains("restores the backup 20261129-030000F"), "{:?}", scene.result());
    scene.job(Progress::Runs(Some("no node has room".to_owned())));
    assert_eq!((scene.named(), scene.result().1.contains("no node has room")), (Some((job, 1)), true));
    // A node that is full would end the upgrade at the exchange.
    scene.job(by_job());
    assert_eq!(scene.stage(), Some(Stage::Rehearse));
    assert!(scene.result().1.contains("waiting for chat-db-0"), "{:?}", scene.result());
    scene.report(0, UpgradeState::HasRoom);
    scene.job(by_job());
    assert_eq!((scene.stage(), scene.phase(), scene.result().0), (None, UpgradePhase::Pending, RequestState::Done));
    let status = scene.state.status.clone().expect("a status");
    assert_eq!((status.rehearsal_seconds, status.rehearsal_job_seconds), (Some(40), Some(270)));
    assert_eq!(status.rehearsed_backup.as_deref(), Some("20261129-030000F"));
    assert!(
        scene.result().1.contains("the backup 20261129-030000F was restored, and upgraded to PostgreSQL 18 in 40 s")
    );

    let mut scene = Scene::with_backup(UpgradeAction::Start);
    scene.report(0, UpgradeState::HasRoom);
    scene.job(by_job());
    assert_eq!((scene.stage(), scene.named()), (Some(Stage::Hold), None));
    assert_eq!(scene.state.desired.as_ref().map(|upgrade| upgrade.limit_seconds), Some(200));
}

#[test]
fn what_a_rehearsal_found_is_not_lost_with_a_status_that_was_not_written() {
    let mut scene = Scene::with_backup(UpgradeAction::Start);
    scene.report(0, UpgradeState::HasRoom);
    let before = scene.state.status.clone();
    scene.job(by_job());
    let times = |scene: &Scene| {
        let status = scene.state.status.clone().expect("a status");
        (status.rehearsal_seconds, status.rehearsed_backup, status.rehearsal_job_seconds)
    };
    let told = times(&scene);
    assert_eq!(told, (Some(40), Some("20261129-030000F".to_owned()), Some(90)));
    // The agents have the next stage, and the operator ended before status had the result.
    scene.state.status = before.clone();
    scene.step();
    assert_eq!((times(&scene), scene.phase()), (told.clone(), UpgradePhase::Stopping));
    // The pooler holds the queries only if it knows for how long.
    scene.report(1, UpgradeState::Held);
    scene.state.status = before;
    scene.step();
    assert_eq!((times(&scene), scene.phase(), scene.stage()), (told, UpgradePhase::Switching, Some(Stage::Switch)));
    assert!(scene.state.exchange(None, 60).is_some());
}

#[test]
fn a_job_that_was_ended_is_repeated_once_and_a_failure_ends_the_stage() {
    let mut scene = Scene::with_backup(UpgradeAction::Start);
    let id = scene.state.desired.as_ref().map(|upgrade| upgrade.id.clone());
    let first = scene.named().expect("a Job").0;
    scene.report(0, UpgradeState::HasRoom);
    scene.job(Progress::Ended("the pod was stopped".to_owned()));
    let (second, attempt) = scene.named().expect("a Job");
    assert_eq!((second != first, attempt, scene.result().0), (true, 2, RequestState::Running));
    assert_eq!(scene.state.desired.as_ref().map(|upgrade| upgrade.id.clone()), id, "the pod has answered");
    scene.job(Progress::Ended("the pod was stopped".to_owned()));
    assert_eq!((scene.stage(), scene.phase(), scene.result().0), (None, UpgradePhase::Failed, RequestState::Failed));
    assert!(scene.result().1.contains("spec.backup.resources"), "{:?}", scene.result());

    let mut scene = Scene::with_backup(UpgradeAction::Check);
    scene.job(Progress::Failed("pg_upgrade: the type abstime".to_owned()));
    assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Failed));
    assert!(scene.result().1.contains("the type abstime; nothing was changed"), "{:?}", scene.result());

    let mut scene = Scene::with_backup(UpgradeAction::Start);
    scene.report(0, UpgradeState::Failed { message: "the volume has no room".to_owned() });
    assert_eq!((scene.stage(), scene.phase()), (None, UpgradePhase::Failed), "whatever the Job says");
}

#[test]
fn without_a_backup_that_can_be_restored_the_primary_rehearses() {
    let mut scene = Scene::new();
    scene.ask("t", UpgradeAction::Check);
    assert_eq!((scene.stage(), scene.named()), (Some(Stage::Rehearse), None));

    let mut scene = Scene::with_backup(UpgradeAction::Check);
    let by_job = scene.state.desired.clone().expect("a stage");
    scene.report(0, UpgradeState::HasRoom);
    scene.job(Progress::NotRestored("the store does not answer".to_owned()));
    let by_pod = scene.state.desired.clone().expect("a stage");
    assert_eq!((by_pod.stage, by_pod.rehearsal), (Stage::Rehearse, None));
    assert_ne!(by_pod.id, by_job.id, "the pod has answered the former one");
    assert!(
        scene.result().1.contains("(the store does not answer): chat-db-0 upgrades a copy"),
        "{:?}",
        scene.result()
    );
    scene.rehearsed();
    assert_eq!((scene.phase(), scene.result().0), (UpgradePhase::Pending, RequestState::Done));
    let status = scene.state.status.clone().expect("a status");
    assert_eq!(
        (status.rehearsal_seconds, status.rehearsed_backup, status.rehearsal_job_seconds),
        (Some(40), None, None)
    );
}

#[test]
fn the_time_in_which_a_job_waits_for_a_slot_does_not_count() {
    let mut scene = Scene::with_backup(UpgradeAction::Check);
    let named = scene.named();
    let since = |scene: &Scene| scene.state.desired.as_ref().expect("a stage").since;
    let begun = since(&scene);
    scene.job(Progress::Queued);
    assert_eq!((since(&scene), scene.result().1.contains("waits for a slot")), (begun, true));
    scene.now += SignedDuration::from_hours(2);
    scene.job(Progress::Queued);
    assert_eq!(
        (since(&scene), scene.named()),
        (scene.now, named),
        "a missing Job is none that was refused for two hours"
    );
    scene.report(0, UpgradeState::HasRoom);
    scene.job(by_job());
    let status = scene.state.status.clone().expect("a status");
    assert_eq!(status.rehearsal_job_seconds, Some(90));
}

#[test]
fn a_backup_is_of_no_pod_so_a_failover_repeats_no_job() {
    let mut scene = Scene::with_backup(UpgradeAction::Start);
    let job = scene.named();
    scene.report(0, UpgradeState::HasRoom);
    scene.leader = 1;
    scene.job(by_job());
    assert_eq!((scene.stage(), scene.named()), (Some(Stage::Rehearse), job));
    scene.job(by_job());
    assert!(scene.result().1.contains("waiting for chat-db-1"), "{:?}", scene.result());
    let id = scene.state.desired.as_ref().expect("a stage").id.clone();
    let has_room = UpgradeReport { id, state: UpgradeState::HasRoom };
    scene.pods[1].report.as_mut().expect("a report").upgrade = Some(Box::new(has_room));
    scene.job(by_job());
    let upgrade = scene.state.desired.clone().expect("a stage");
    assert_eq!((upgrade.stage, upgrade.pod.as_str()), (Stage::Hold, "chat-db-1"));
}

#[test]
fn a_window_has_the_time_of_the_job_and_of_the_upgrade() {
    let mut scene = Scene { backup: Some("20261129-030000F"), ..Scene::new() };
    let open = |scene: &Scene, seconds| {
        let until = scene.now + SignedDuration::from_secs(seconds);
        ByItself::InWindow(Some(Opening { from: scene.now, until }))
    };
    scene.by_itself = open(&scene, 100);
    scene.step();
    scene.report(0, UpgradeState::HasRoom);
    // It took 90 s, and the upgrade takes 40.
    scene.job(by_job());
    assert_eq!((scene.stage(), scene.phase()), (None, UpgradePhase::Pending));
    scene.by_itself = open(&scene, 125);
    scene.step();
    assert_eq!(scene.stage(), None, "twice 40 s are not enough");
    scene.by_itself = open(&scene, 135);
    scene.step();
    assert_eq!(scene.stage(), Some(Stage::Rehearse));
}

#[test]
fn an_adopted_database_knows_its_last_upgrade() {
    let lineage = Scene::upgraded().state.lineage.expect("a lineage");
    // A resource of the same name: neither status nor the agents' document has it.
    let adopting = |adopts, former: Option<u16>| {
        let mut scene = Scene { adopts, major: 18, upgrade_to: None, ..Scene::new() };
        let report = scene.pods[0].report.as_mut().expect("a report");
        (report.lineage, report.former_major) = (Some(Box::new(lineage.clone())), former);
        scene.step();
        scene
    };
    assert!(adopting(false, Some(17)).state.lineage.is_none(), "a restored database has the mark of another one");
    assert!(adopting(true, None).state.lineage.is_none(), "the pod has not said whether it has the former data");
    let mut scene = adopting(true, Some(17));
    assert_eq!(scene.state.lineage.as_ref(), Some(&lineage));
    let status = scene.state.status.clone().expect("a status");
    assert_eq!((status.from, status.to, status.phase), (17, 18, UpgradePhase::Upgraded));
    assert_eq!((status.left_system_identifier.as_deref(), status.kept_by.as_deref()), (Some("7"), Some("chat-db-0")));
    assert!(
        status.message.as_ref().is_some_and(|told| told.contains("kubectl servicedb upgrade chat -n messaging --back"))
    );
    // The operator was killed before it wrote status; the agents do not report the lineage any more.
    scene.state.status = None;
    scene.pods[0].report.as_mut().expect("a report").lineage = None;
    scene.step();
    assert_eq!(scene.state.status, Some(status.clone()));
    scene.ask("b", UpgradeAction::Back);
    let upgrade = scene.state.desired.clone().expect("a stage");
    assert_eq!((upgrade.stage, upgrade.from, upgrade.to), (Stage::Hold, 18, 17));

    let scene = adopting(true, Some(0));
    assert_eq!(
        scene.state.lineage.as_ref().map(|lineage| lineage.kept_by.clone()),
        Some(None),
        "it was given up before"
    );
    assert_eq!(scene.phase(), UpgradePhase::Finished);
    assert_eq!(scene.state.left_at(), Some(lineage.at), "and replicas with the data that was left are known");
}
