//! A restore in place, on request: its stages, and its result. Each stage is in the desired state of the agents, so
//! no state is lost with the operator; until the last one nothing of the running database is changed.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::names::{ANNOTATION_RESTORE, Names};
use crate::api::{BackupStatus, InPlaceRestore, LeftTimeline, RequestState, RequestStatus, ServiceDatabaseStatus};
use crate::contract::in_place::{Branch, InPlace, InPlaceState, Stage, Switched};
use crate::contract::restore_store::{self as store, Store};
use crate::contract::time::seconds;
use crate::operator::observe::pods::DatabasePod;
use crate::operator::validate::RestoreRequest;

/// How long the other instances may take to stop.
const HOLD_PATIENCE: SignedDuration = SignedDuration::from_mins(3);
/// How long the switch may take before status has the way out.
const SWITCH_PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// What follows in a message while the others stop, and not in the result.
const STOPPING: &str = "; the other instances are being stopped";
/// The number of left timelines that status keeps.
const KEPT: usize = 20;

/// The input of a decision.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The request.
    pub request: Option<&'a RestoreRequest>,
    /// The database's names.
    pub names: &'a Names,
    /// The backups in status.
    pub backup: Option<&'a BackupStatus>,
    /// The declared stores.
    pub stores: &'a [Store<'a>],
    /// The stage that the agents know.
    pub desired: Option<&'a InPlace>,
    /// The branch that the agents know.
    pub branch: Option<&'a Branch>,
    /// The pods.
    pub pods: &'a [DatabasePod],
    /// The primary.
    pub primary: Option<&'a DatabasePod>,
    /// Whether an agent executes an order.
    pub is_busy: bool,
    /// The migrations that are declared, as the ledger names them.
    pub migrations: Option<&'a str>,
    /// Now.
    pub now: Timestamp,
}

/// The restore in place of one database in this reconcile.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The last request, and its result.
    pub status: Option<InPlaceRestore>,
    /// The stage for the agents.
    pub desired: Option<InPlace>,
    /// The branch of history that holds, for the agents.
    pub branch: Option<Branch>,
    /// The timelines that restores in place have left.
    pub left: Vec<LeftTimeline>,
}

impl State {
    /// The state in status.
    pub fn recorded(status: &ServiceDatabaseStatus) -> Self {
        let left = status.backup.as_ref().map(|backup| backup.left_timelines.clone()).unwrap_or_default();
        Self { status: status.restore.clone(), desired: None, branch: left.last().and_then(recorded), left }
    }

    /// Why the instances do not serve as declared; none if they do.
    pub fn stops_instances(&self) -> Option<String> {
        let in_place = self.desired.as_ref().filter(|in_place| in_place.stage != Stage::Prepare)?;
        Some(format!("{} is being replaced by a state from the archive (status.restore)", in_place.pod))
    }

    /// Whether these migrations were applied before the restored state, and are not to be applied again by themselves.
    pub fn holds_migrations(&self, request: Option<&RestoreRequest>, migrations: &str) -> bool {
        let Some(status) = &self.status else { return false };
        status.run.state == RequestState::Done
            && request.is_some_and(|request| request.token == status.run.request)
            && status.migrations_before.as_deref() == Some(migrations)
    }
}

/// The branch as status has it, in case that the agents' document was lost.
fn recorded(left: &LeftTimeline) -> Option<Branch> {
    Some(Branch {
        id: String::new(),
        timeline: u32::try_from(left.continued_as).ok()?,
        left: u32::try_from(left.timeline).ok()?,
        at: left.left_at.0,
        system_identifier: None,
        store: left.store.clone(),
    })
}

/// Decides on the next stage.
pub fn decide(known: &Known<'_>, recorded: State) -> State {
    let branch = known.branch.cloned().or(recorded.branch);
    let mut state = State { desired: known.desired.cloned(), branch, ..recorded };
    let is_switching = state.desired.as_ref().is_some_and(|in_place| in_place.stage == Stage::Switch);
    let token = known.request.map(|request| request.token.as_str());
    let status = state.status.clone();
    match status.filter(|status| status.run.state == RequestState::Running) {
        // From the last stage on only the agent knows which state the volume has.
        Some(running) if is_switching || token == Some(&running.run.request) => {
            state.status = Some(running);
            advance(known, &mut state);
        }
        Some(_) => {
            state.desired = None;
            end(&mut state, RequestState::Failed, "the annotation was removed or changed".to_owned());
        }
        None => match (known.request, &state.status) {
            (Some(request), before) if before.as_ref().is_none_or(|before| before.run.request != request.token) => {
                state.status = Some(begun(request, known, state.status.take()));
                advance(known, &mut state);
            }
            // An operator that ended before status had the result, or status of another one.
            _ if is_switching => advance(known, &mut state),
            _ => state.desired = None,
        },
    }
    state
}

fn begun(request: &RestoreRequest, known: &Known<'_>, before: Option<InPlaceRestore>) -> InPlaceRestore {
    // A request that fails must not take the way back of the one before it.
    let last_done = before.and_then(|before| match before.run.state {
        RequestState::Done => before.run.message,
        RequestState::Running | RequestState::Failed => before.last_done,
    });
    InPlaceRestore {
        run: RequestStatus {
            request: request.token.clone(),
            state: RequestState::Running,
            started_at: Time(seconds(known.now)),
            message: None,
        },
        migrations_before: known.migrations.map(str::to_owned),
        last_done,
    }
}

fn end(state: &mut State, result: RequestState, message: String) {
    if let Some(status) = &mut state.status {
        (status.run.state, status.run.message) = (result, Some(message));
    }
}

fn tell(state: &mut State, message: String) {
    if let Some(status) = &mut state.status {
        status.run.message = Some(message);
    }
}

fn fail(state: &mut State, message: String) {
    state.desired = None;
    end(state, RequestState::Failed, message);
}

fn advance(known: &Known<'_>, state: &mut State) {
    let Some(current) = state.desired.clone() else {
        let token = state.status.as_ref().map(|status| format!("{} ", status.run.request)).unwrap_or_default();
        let started_at = state.status.as_ref().map(|status| status.run.started_at.0);
        let is_of_this =
            |branch: &Branch| branch.id.starts_with(&token) && started_at.is_some_and(|at| branch.at >= at);
        // An operator that ended before status had the result; or somebody removed the stage.
        let branch = state.branch.clone().filter(is_of_this);
        return match branch.or_else(|| known.pods.iter().find_map(switched).filter(is_of_this)) {
            Some(branch) => finish(known, state, branch),
            None => start(known, state),
        };
    };
    let pod = known.pods.iter().find(|pod| pod.name == current.pod);
    let reported = |pod: &DatabasePod| {
        let reported = pod.report.as_ref()?.in_place.clone()?;
        Some(reported.state).filter(|_| reported.id == current.id)
    };
    let answer = pod.and_then(reported);
    if let Some(InPlaceState::Failed { message }) = &answer {
        return fail(state, format!("{message}; nothing was changed"));
    }
    let leads = known.primary.map(|primary| primary.name.as_str());
    if current.stage != Stage::Switch
        && let Some(problem) = no_way_back(known, &current)
    {
        return fail(state, format!("{problem}; nothing was changed"));
    }
    // Until the switch, another primary has other WAL than what was prepared.
    if current.stage != Stage::Switch && leads.is_some_and(|leads| leads != current.pod) {
        state.desired = None;
        return start(known, state);
    }
    match (current.stage, answer) {
        (Stage::Prepare, Some(InPlaceState::Prepared(prepared))) => {
            let timeline = known.primary.and_then(|primary| primary.report.as_ref()?.timeline);
            if timeline.is_some_and(|timeline| prepared.timeline <= timeline) {
                // The instance was promoted again meanwhile, by a restart.
                state.desired = None;
                return start(known, state);
            }
            // The exchange would be refused after the stop, and the database would have been unavailable for nothing.
            if known.stores.iter().any(|store| store.name == current.store && store.fails) {
                let (summary, store) = (&prepared.summary, &current.store);
                return tell(
                    state,
                    format!(
                        "{summary}; waiting for the store {store}, which gets no WAL (see ContinuousArchiving), so there \
                         would be no way back; to withdraw the restore, remove the annotation {ANNOTATION_RESTORE}"
                    ),
                );
            }
            let stopping = if known.pods.len() > 1 { STOPPING } else { "" };
            tell(state, format!("{}{stopping}", prepared.summary));
            state.desired = Some(InPlace { stage: Stage::Hold, since: known.now, ..current });
        }
        (Stage::Prepare, _) => tell(state, restores(known, &current.pod, &current.store)),
        (Stage::Hold, _) => {
            let runs: Vec<_> = known
                .pods
                .iter()
                .filter(|pod| pod.name != current.pod && reported(pod) != Some(InPlaceState::Held))
                .map(|pod| pod.name.as_str())
                .collect();
            if runs.is_empty() && leads == Some(&current.pod) {
                state.desired = Some(InPlace { stage: Stage::Switch, since: known.now, ..current });
            } else if known.now.duration_since(current.since) > HOLD_PATIENCE {
                let who = if runs.is_empty() {
                    "no instance leads any more, ".to_owned()
                } else {
                    waits_for(&runs, &known.names.namespace)
                };
                fail(state, format!("{who}; nothing was changed"));
            }
        }
        (Stage::Switch, Some(InPlaceState::Switched(_))) if leads == Some(&current.pod) => {
            if let Some(mut branch) = pod.and_then(switched) {
                // An agent of an earlier version does not report it.
                branch.store.get_or_insert_with(|| current.store.clone());
                finish(known, state, branch);
            }
        }
        (Stage::Switch, answer) => {
            let since = known.now.duration_since(current.since);
            if since > SWITCH_PATIENCE {
                tell(state, stuck(&current, &known.names.namespace, answer.is_some(), since));
            }
        }
    }
}

/// Why what is left could not be restored from the store.
fn no_way_back(known: &Known<'_>, current: &InPlace) -> Option<String> {
    let Some(store) = known.stores.iter().find(|store| store.name == current.store) else {
        return Some(format!("spec.backup changed, and the restore began with the store {}", current.store));
    };
    let backup = known.backup?.stores().find(|backup| backup.store == current.store)?;
    store::open_gap(backup, store.given_up_at).map(store::lacks_way_back)
}

/// The progress of the first stage.
fn restores(known: &Known<'_>, pod: &str, store: &str) -> String {
    let from = if known.stores.len() > 1 { format!(", from the store {store}") } else { String::new() };
    format!("{pod} restores beside the running database{from}")
}

fn waits_for(runs: &[&str], namespace: &str) -> String {
    format!(
        "{} did not stop within {} s, and could continue with the state that is to be left: if its node is gone, delete \
         the pod (kubectl delete pod {} -n {namespace} --force), and request the restore again",
        runs.join(", "),
        HOLD_PATIENCE.as_secs(),
        runs.join(" ")
    )
}

/// The switch lasts, since its pod does not lead: only its volume has the answer.
fn stuck(current: &InPlace, namespace: &str, has_switched: bool, since: SignedDuration) -> String {
    let pod = &current.pod;
    let state = if has_switched {
        "its data directory is the restored one, and it does not lead"
    } else {
        "it has not reported since"
    };
    format!(
        "{pod} replaces its data directory since {} s: {state}; see kubectl logs {pod} -n {namespace} -c database. If \
         its volume is lost, delete its PersistentVolumeClaim and the pod: the other instances then continue with the state from before the \
         restore",
        since.as_secs()
    )
}

/// The branch that a pod began.
fn switched(pod: &DatabasePod) -> Option<Branch> {
    let reported = pod.report.as_ref()?.in_place.clone()?;
    let InPlaceState::Switched(Switched { at, left, timeline, system_identifier, store }) = reported.state else {
        return None;
    };
    Some(Branch { id: reported.id, timeline, left, at: rounded_up(at), system_identifier, store })
}

fn finish(known: &Known<'_>, state: &mut State, branch: Branch) {
    state.desired = None;
    state.branch = Some(branch.clone());
    done(known, state, &branch);
}

fn start(known: &Known<'_>, state: &mut State) {
    let target = match known.request.map(|request| request.target.clone()) {
        Some(Ok(target)) => target,
        Some(Err(message)) => return fail(state, message),
        None => return fail(state, "the annotation was removed".to_owned()),
    };
    let (target, timeline) = target;
    let named = known.request.and_then(|request| request.store.as_deref());
    let name = &known.names.name;
    let chosen = store::choose(known.stores, known.backup, named, (&target, timeline), name, known.now);
    let (store, timeline) = match chosen {
        Ok(chosen) => chosen,
        Err(message) => return fail(state, message),
    };
    let silent: Vec<_> = known.pods.iter().filter(|pod| pod.report.is_none()).map(|pod| pod.name.as_str()).collect();
    if !silent.is_empty() {
        let silent = silent.join(", ");
        return tell(state, format!("waiting for {silent}, which cannot be stopped: its agent does not report"));
    }
    let Some(primary) = known.primary.filter(|_| !known.is_busy) else {
        let waits = if known.is_busy { "an order that is in progress" } else { "a primary" };
        return tell(state, format!("waiting for {waits}"));
    };
    // An agent of an earlier version would restore from the first store, whichever is named.
    if known.stores.iter().skip(1).any(|second| second.name == store && !second.is_reported) {
        let pod = &primary.name;
        return tell(
            state,
            format!(
                "waiting for {pod}, which does not report the store {store}: it has just become the primary, or its agent \
                 is of an earlier version and a rollout waits for approval (RolloutPending)"
            ),
        );
    }
    let token = state.status.as_ref().map(|status| status.run.request.as_str()).unwrap_or_default();
    state.desired = Some(InPlace {
        // Another attempt has another id, so that no report of an earlier one counts.
        id: format!("{token} {}", known.now),
        pod: primary.name.clone(),
        target,
        timeline,
        stage: Stage::Prepare,
        since: known.now,
        store: store.to_owned(),
    });
    let message = restores(known, &primary.name, store);
    tell(state, message);
}

/// Status has whole seconds; starting the server takes longer than what is added.
fn rounded_up(at: Timestamp) -> Timestamp {
    let second = seconds(at);
    if second == at { at } else { second + SignedDuration::from_secs(1) }
}

fn done(known: &Known<'_>, state: &mut State, branch: &Branch) {
    let is_declared = |store: &str| known.stores.iter().any(|known| known.name == store);
    // Of a single store nothing has to be said, unless spec.backup has changed since the exchange.
    let store = branch.store.as_deref().filter(|store| known.stores.len() > 1 || !is_declared(store));
    let left = LeftTimeline {
        timeline: branch.left.into(),
        left_at: Time(branch.at),
        continued_as: branch.timeline.into(),
        store: store.map(str::to_owned),
    };
    let is_this = |before: &LeftTimeline| (before.timeline, &before.left_at) == (left.timeline, &left.left_at);
    if !state.left.last().is_some_and(is_this) {
        state.left.push(left);
        let surplus = state.left.len().saturating_sub(KEPT);
        state.left.drain(..surplus);
    }
    let what = state.status.as_ref().and_then(|status| status.run.message.clone()).unwrap_or_default();
    let what = what.strip_suffix(STOPPING).unwrap_or(&what);
    let undeclared = store.filter(|store| !is_declared(store));
    let before = undeclared.map(|store| format!("once spec.backup names the store {store} again, "));
    // Without its name the first one is used.
    let second = store.filter(|store| known.stores.first().is_none_or(|first| first.name != *store));
    let message = format!(
        "{what}; the way back: {}kubectl servicedb restore {} --to {}{} restores the state before the restore",
        before.unwrap_or_default(),
        known.names.in_commands(),
        branch.at,
        second.map(|store| format!(" --store {store}")).unwrap_or_default()
    );
    end(state, RequestState::Done, message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::backup::Target;
    use crate::contract::in_place::{InPlaceReport, Prepared};
    use crate::contract::report::Role;

    /// A database of two instances, whose restore is decided on step by step.
    struct Scene {
        request: Option<RestoreRequest>,
        pods: Vec<DatabasePod>,
        leader: usize,
        stores: Vec<Store<'static>>,
        state: State,
        now: Timestamp,
    }

    impl Scene {
        fn new() -> Self {
            let target = Target::Time("2026-11-29T11:00:00Z".parse().expect("a time"));
            let mut pods = vec![DatabasePod::sample("chat-db-0"), DatabasePod::sample("chat-db-1")];
            for (pod, role) in pods.iter_mut().zip([Role::Primary, Role::Replica]) {
                let report = pod.report.as_mut().expect("a report");
                (report.role, report.timeline) = (Some(role), Some(3));
            }
            Self {
                request: Some(RestoreRequest { token: "t".into(), target: Ok((target, None)), store: None }),
                pods,
                leader: 0,
                stores: vec![store_of("main")],
                state: State::default(),
                now: "2026-11-29T12:00:00Z".parse().expect("a time"),
            }
        }

        fn step(&mut self) -> &State {
            let backup: BackupStatus = serde_json::from_value(serde_json::json!({
                "store": "main", "path": "/x", "recoverableFrom": "2026-11-29T10:00:00Z",
                "second": {"store": "other", "path": "/x", "recoverableFrom": "2026-11-29T10:00:00Z"},
            }))
            .expect("a status");
            let (desired, branch) = (self.state.desired.clone(), self.state.branch.clone());
            let known = Known {
                request: self.request.as_ref(),
                names: &Names::new("messaging", "chat"),
                backup: Some(&backup),
                stores: &self.stores,
                desired: desired.as_ref(),
                branch: branch.as_ref(),
                pods: &self.pods,
                primary: Some(&self.pods[self.leader]),
                is_busy: false,
                migrations: Some("goal"),
                now: self.now,
            };
            self.state = decide(&known, self.state.clone());
            &self.state
        }

        fn report(&mut self, pod: usize, state: InPlaceState) {
            let id = self.state.desired.as_ref().expect("a stage").id.clone();
            self.pods[pod].report.as_mut().expect("a report").in_place = Some(InPlaceReport { id, state });
        }

        fn prepared(&mut self) {
            self.step();
            let prepared = Prepared { summary: "the state of 11:00 was restored".into(), timeline: 4 };
            self.report(self.leader, InPlaceState::Prepared(prepared));
        }

        fn stage(&self) -> Option<Stage> {
            self.state.desired.as_ref().map(|in_place| in_place.stage)
        }

        fn result(&self) -> (RequestState, String) {
            let run = &self.state.status.as_ref().expect("a result").run;
            (run.state, run.message.clone().unwrap_or_default())
        }
    }

    fn switched_now(at: Timestamp) -> InPlaceState {
        let system_identifier = Some("7".into());
        InPlaceState::Switched(Switched { at, left: 3, timeline: 4, system_identifier, store: None })
    }

    fn store_of(name: &str) -> Store<'_> {
        Store { name, is_reported: true, ..Store::default() }
    }

    #[test]
    fn the_leader_prepares_the_others_stop_and_then_it_switches() {
        let mut scene = Scene::new();
        scene.prepared();
        assert_eq!((scene.stage(), scene.state.stops_instances()), (Some(Stage::Prepare), None), "it serves");
        scene.step();
        assert_eq!(scene.stage(), Some(Stage::Hold));
        scene.step();
        assert_eq!(scene.stage(), Some(Stage::Hold), "chat-db-1 could still be promoted");
        assert!(scene.state.stops_instances().is_some());
        scene.report(1, InPlaceState::Held);
        scene.step();
        assert_eq!(scene.stage(), Some(Stage::Switch));
        scene.report(0, switched_now(scene.now));
        scene.pods[0].report.as_mut().expect("a report").timeline = Some(4);
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Done));
        assert!(
            scene.result().1.contains("kubectl servicedb restore chat -n messaging --to 2026-11-29T12:00:00Z"),
            "{:?}",
            scene.result()
        );
        assert_eq!(scene.state.branch.as_ref().map(|branch| (branch.left, branch.timeline)), Some((3, 4)));
        let of = scene.state.branch.as_ref().and_then(|branch| branch.system_identifier.as_deref());
        assert_eq!(of, Some("7"), "an upgraded database has other timelines");
        assert_eq!((scene.state.left[0].timeline, scene.state.left[0].continued_as), (3, 4));
        assert!(scene.state.holds_migrations(scene.request.as_ref(), "goal"));
        assert!(!scene.state.holds_migrations(scene.request.as_ref(), "another goal"), "a changed source is applied");
        assert!(!scene.state.holds_migrations(None, "goal"), "the annotation was removed");
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Done), "once");
    }

    #[test]
    fn a_restore_from_the_second_store_while_the_first_is_away_names_it_for_the_way_back() {
        let mut scene = Scene::new();
        scene.stores = vec![Store { fails: true, ..store_of("main") }, store_of("other")];
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Failed), "none is taken without its name");
        assert!(scene.result().1.contains("--store other"), "{:?}", scene.result());

        let request = scene.request.as_mut().expect("a request");
        (request.token, request.store) = ("u".into(), Some("other".into()));
        scene.prepared();
        assert_eq!(scene.state.desired.as_ref().expect("a stage").store, "other");
        assert!(scene.result().1.ends_with("from the store other"), "{:?}", scene.result());
        scene.step();
        scene.report(1, InPlaceState::Held);
        scene.step();
        scene.report(0, switched_now(scene.now));
        scene.step();
        assert_eq!(scene.result().0, RequestState::Done);
        assert!(scene.result().1.contains("12:00:00Z --store other restores"), "{:?}", scene.result());
        assert_eq!(scene.state.left[0].store.as_deref(), Some("other"), "the first one lacks the end");

        let mut scene = Scene { request: scene.request, stores: scene.stores, ..Scene::new() };
        scene.prepared();
        scene.stores.pop();
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Failed), "it is not declared any more");
        assert!(scene.result().1.contains("spec.backup changed"), "{:?}", scene.result());
    }

    /// The agent that exchanged the directories knows the store; the annotation may have changed since.
    #[test]
    fn the_store_of_what_was_left_is_the_one_that_the_agent_has_checked() {
        let mut scene = Scene::new();
        scene.stores = vec![store_of("main"), store_of("other")];
        scene.request.as_mut().expect("a request").store = Some("other".into());
        scene.prepared();
        scene.step();
        scene.report(1, InPlaceState::Held);
        scene.step();
        let InPlaceState::Switched(switched) = switched_now(scene.now) else { panic!("an exchange") };
        scene.report(0, InPlaceState::Switched(Switched { store: Some("other".into()), ..switched }));
        let before = scene.state.clone();
        // An operator that ended before status had the result, after the agents' document had it.
        let branch = scene.step().branch.clone();
        for stores in [scene.stores.clone(), vec![store_of("main")]] {
            let is_declared = stores.len() > 1;
            scene.request.as_mut().expect("a request").store = None;
            scene.stores = stores;
            scene.state = State { branch: branch.clone(), desired: None, ..before.clone() };
            scene.step();
            let (state, message) = scene.result();
            assert_eq!((scene.stage(), state), (None, RequestState::Done));
            assert_eq!(scene.state.left[0].store.as_deref(), Some("other"));
            assert!(message.contains(" --store other restores"), "{message}");
            assert_eq!(message.contains("once spec.backup names the store other again"), !is_declared, "{message}");
        }
    }

    #[test]
    fn nothing_stops_while_the_store_gets_no_wal() {
        let mut scene = Scene::new();
        scene.prepared();
        scene.stores[0].fails = true;
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (Some(Stage::Prepare), RequestState::Running));
        assert!(scene.result().1.contains("waiting for the store main"), "{:?}", scene.result());
        scene.stores[0].fails = false;
        scene.step();
        assert_eq!(scene.stage(), Some(Stage::Hold));
        assert!(!scene.result().1.contains("waiting"), "{:?}", scene.result());
    }

    #[test]
    fn a_gap_that_the_primary_reports_ends_it_before_status_has_it() {
        let mut scene = Scene::new();
        scene.prepared();
        scene.step();
        scene.report(1, InPlaceState::Held);
        scene.stores[0].given_up_at = Some(scene.now);
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Failed));
        assert!(scene.result().1.contains("lacks WAL at 2026-11-29T12:00:00Z"), "{:?}", scene.result());
    }

    #[test]
    fn an_agent_that_knows_one_store_is_not_asked_to_restore_from_the_second() {
        let mut scene = Scene::new();
        scene.stores = vec![store_of("main"), Store { is_reported: false, ..store_of("other") }];
        scene.request.as_mut().expect("a request").store = Some("other".into());
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Running));
        assert!(scene.result().1.contains("does not report the store other"), "{:?}", scene.result());
        scene.stores[1].is_reported = true;
        scene.step();
        assert_eq!(scene.stage(), Some(Stage::Prepare));
    }

    #[test]
    fn a_failover_before_the_switch_begins_again_on_the_new_primary() {
        let mut scene = Scene::new();
        scene.prepared();
        scene.step();
        let first = scene.state.desired.clone().expect("a stage");
        scene.leader = 1;
        scene.step();
        let second = scene.state.desired.clone().expect("a stage");
        assert_eq!((second.stage, second.pod.as_str()), (Stage::Prepare, "chat-db-1"));
        scene.now += SignedDuration::from_secs(1);
        assert_eq!(first.stage, Stage::Hold);
    }

    #[test]
    fn a_primary_that_was_promoted_again_prepares_again() {
        let mut scene = Scene::new();
        scene.prepared();
        scene.pods[0].report.as_mut().expect("a report").timeline = Some(4);
        scene.now += SignedDuration::from_secs(1);
        let before = scene.state.desired.clone().expect("a stage").id;
        scene.step();
        assert_eq!(scene.stage(), Some(Stage::Prepare), "the database took the prepared timeline itself");
        assert_ne!(scene.state.desired.as_ref().expect("a stage").id, before);
    }

    #[test]
    fn an_instance_that_does_not_stop_ends_it_and_so_does_a_removed_annotation_until_the_switch() {
        let mut scene = Scene::new();
        scene.prepared();
        scene.step();
        scene.now += HOLD_PATIENCE + SignedDuration::from_secs(1);
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Failed));
        assert!(scene.result().1.contains("chat-db-1 did not stop"), "{:?}", scene.result());

        let mut scene = Scene::new();
        scene.prepared();
        scene.step();
        let request = scene.request.take();
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Failed));

        let mut scene = Scene { request, ..Scene::new() };
        scene.prepared();
        scene.step();
        scene.report(1, InPlaceState::Held);
        scene.step();
        scene.request = None;
        scene.step();
        assert_eq!(scene.stage(), Some(Stage::Switch), "only the agent knows which state the volume has");
        scene.report(0, InPlaceState::Failed { message: "no".into() });
        scene.step();
        assert_eq!((scene.stage(), scene.result()), (None, (RequestState::Failed, "no; nothing was changed".into())));
    }

    #[test]
    fn a_failed_request_keeps_the_result_of_the_last_one_that_succeeded() {
        let mut scene = Scene::new();
        scene.prepared();
        scene.step();
        scene.report(1, InPlaceState::Held);
        scene.step();
        scene.report(0, switched_now(scene.now));
        scene.step();
        let last_done = |scene: &Scene| scene.state.status.as_ref().and_then(|status| status.last_done.clone());
        let (state, done) = scene.result();
        assert_eq!((state, last_done(&scene)), (RequestState::Done, None), "it has its own message");
        for token in ["u", "v"] {
            let target = Err("not one".into());
            scene.request = Some(RestoreRequest { token: token.into(), target, store: None });
            scene.step();
            assert_eq!(scene.result().0, RequestState::Failed);
            assert_eq!(last_done(&scene).as_ref(), Some(&done), "{token}");
        }
        assert!(done.contains("the way back: kubectl servicedb restore"), "{done}");
    }

    #[test]
    fn one_instance_is_not_told_of_others() {
        for (instances, is_told) in [(1, false), (2, true)] {
            let mut scene = Scene::new();
            scene.pods.truncate(instances);
            scene.prepared();
            scene.step();
            assert_eq!(scene.result().1.contains("other instances"), is_told, "{:?}", scene.result());
        }
    }

    #[test]
    fn a_target_outside_of_the_window_or_that_is_none_begins_nothing() {
        let mut scene = Scene::new();
        let early = Target::Time("2026-11-29T09:00:00Z".parse().expect("a time"));
        scene.request = Some(RestoreRequest { token: "t".into(), target: Ok((early, None)), store: None });
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Failed));
        assert!(scene.result().1.contains("2026-11-29T10:00:00Z"), "{:?}", scene.result());
        scene.request = Some(RestoreRequest { token: "u".into(), target: Err("not one".into()), store: None });
        scene.step();
        assert_eq!(scene.result(), (RequestState::Failed, "not one".into()));
    }

    #[test]
    fn an_operator_that_ended_before_status_was_written_goes_on_from_the_desired_state() {
        let mut scene = Scene::new();
        scene.prepared();
        scene.step();
        scene.report(1, InPlaceState::Held);
        scene.step();
        scene.state = State { desired: scene.state.desired.clone(), ..State::default() };
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (Some(Stage::Switch), RequestState::Running));
        let before = scene.state.clone();
        scene.report(0, switched_now(scene.now));
        scene.pods[0].report.as_mut().expect("a report").timeline = Some(4);
        let branch = scene.step().branch.clone();
        scene.state = State { branch, desired: None, ..before };
        scene.step();
        assert_eq!((scene.stage(), scene.result().0), (None, RequestState::Done), "and restores nothing once more");
        assert_eq!(scene.state.left.len(), 1);
    }
}
