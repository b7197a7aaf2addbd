//! The state of a major upgrade: what status and the agents have, and what is told of it.

use jiff::{SignedDuration, Timestamp};

use super::history;
use crate::api::{
    LeftDatabase, RequestState, RequestStatus, ServiceDatabaseStatus, UpgradeAction, UpgradePhase, UpgradeStatus,
};
use crate::contract::upgrade::{Lineage, Stage, Upgrade};
use crate::operator::version;

/// How long the other instances may take to stop.
pub const HOLD_PATIENCE: SignedDuration = SignedDuration::from_mins(3);

/// The exchange of the data directories, during which nobody can connect.
#[derive(Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its name, for people.
    pub name: String,
    /// Whether the agents were told.
    pub ordered: bool,
}

/// The upgrade of one database in this reconcile.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The last or the pending one.
    pub status: Option<UpgradeStatus>,
    /// The stage for the agents.
    pub desired: Option<Upgrade>,
    /// The data that holds, for the agents.
    pub lineage: Option<Lineage>,
    /// The databases that upgrades and ways back have left.
    pub left: Vec<LeftDatabase>,
}

impl State {
    /// The state in status.
    pub fn recorded(status: &ServiceDatabaseStatus) -> Self {
        let major = version::pinned(status);
        let lineage = status.upgrade.as_deref().zip(major).and_then(|(upgrade, major)| recorded(upgrade, major));
        let mut left = status.backup.as_ref().map(|backup| backup.left_databases.clone()).unwrap_or_default();
        // That of an upgrade before status had the list.
        history::note(&mut left, lineage.as_ref(), status.upgrade.as_deref());
        Self { status: status.upgrade.as_deref().cloned(), desired: None, lineage, left }
    }

    /// Why the instances do not serve as declared; none if they do.
    pub fn stops_instances(&self) -> Option<String> {
        let upgrade = self.desired.as_ref().filter(|upgrade| upgrade.stage != Stage::Rehearse)?;
        let what = if upgrade.is_back() { "goes back" } else { "is being upgraded" };
        Some(format!("{} {what} from PostgreSQL {} to {} (status.upgrade)", upgrade.pod, upgrade.from, upgrade.to))
    }

    /// The exchange that was decided on, or is in progress. `known` is the stage that the agents know; none is named where
    /// the rehearsal took longer than `seconds`.
    pub fn exchange(&self, known: Option<&Upgrade>, seconds: u64) -> Option<Exchange> {
        let upgrade = self.desired.as_ref().filter(|upgrade| upgrade.stage == Stage::Switch)?;
        let ordered = known.is_some_and(|known| known.id == upgrade.id && known.stage == Stage::Switch);
        let Upgrade { pod, to, .. } = upgrade;
        if upgrade.is_back() {
            return Some(Exchange { name: format!("return of {pod} to PostgreSQL {to}"), ordered });
        }
        let needed = self.status.as_ref().and_then(|status| u64::try_from(status.rehearsal_seconds?).ok())?;
        (needed <= seconds).then(|| Exchange { name: format!("upgrade of {pod} to PostgreSQL {to}"), ordered })
    }

    /// Puts the exchange off: the stage that the agents know lasts. After a while the other instances must not stand
    /// still any longer.
    pub fn wait(&mut self, known: &Upgrade, why: Option<&str>, now: Timestamp) {
        let waited = now.duration_since(known.since);
        if let Some(why) = why.filter(|_| waited > HOLD_PATIENCE) {
            return fail(self, format!("for {} s the queries could not be held: {why}", waited.as_secs()));
        }
        self.desired = Some(known.clone());
        if let Some(status) = &mut self.status {
            status.phase = UpgradePhase::Stopping;
        }
        tell(self, why.unwrap_or("the other instances are stopped, and the pooler holds the queries").to_owned());
    }

    /// Adds to the message of the request that is in progress.
    pub fn tell(&mut self, message: String) {
        tell(self, message);
    }

    /// When the data became that of another system identifier: no earlier backup is continued.
    pub fn left_at(&self) -> Option<Timestamp> {
        self.lineage.as_ref().map(|lineage| lineage.at)
    }
}

/// The lineage as status has it, in case that the agents' document was lost.
fn recorded(status: &UpgradeStatus, major: u16) -> Option<Lineage> {
    Some(Lineage {
        id: String::new(),
        at: status.switched_at.as_ref()?.0,
        left: status.left_system_identifier.clone()?,
        current: status.system_identifier.clone()?,
        major,
        kept_by: status.kept_by.clone(),
    })
}

/// Records the result of the request.
pub fn answer(state: &mut State, result: RequestState, message: String) {
    let Some(status) = &mut state.status else { return };
    if let Some(last) = &mut status.last_request {
        (last.state, last.message) = (result, Some(message.clone()));
    }
    status.message = Some(message);
}

/// Adds to the message of the request that is in progress.
pub fn tell(state: &mut State, message: String) {
    answer(state, RequestState::Running, message);
}

/// Ends what is in progress: the phase before it holds again.
pub fn fail(state: &mut State, message: String) {
    state.desired = None;
    if let Some(status) = &mut state.status {
        status.phase = match status.action {
            Some(UpgradeAction::Back) => UpgradePhase::Upgraded,
            _ => UpgradePhase::Failed,
        };
    }
    answer(state, RequestState::Failed, format!("{message}; nothing was changed"));
}

/// What was requested last.
pub fn action(state: &State) -> Option<UpgradeAction> {
    state.status.as_ref()?.action
}

/// The last request.
pub fn token(state: &State) -> Option<&RequestStatus> {
    state.status.as_ref()?.last_request.as_ref()
}
