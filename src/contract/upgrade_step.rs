//! Why a requested step of a major upgrade is refused: the operator's answer, which `kubectl servicedb upgrade` gives before
//! anybody is asked to approve the step.

use super::server_version::NEWEST;
use crate::api::UpgradeAction;
use crate::api::names::Names;

/// The facts on which it depends.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The database's names.
    pub names: &'a Names,
    /// The major version of the data.
    pub major: u16,
    /// The higher one that the spec declares.
    pub upgrade_to: Option<u16>,
    /// The pod that keeps the data from before the last upgrade.
    pub kept_by: Option<&'a str>,
    /// The pod of the primary; none if there is none, or it is not known.
    pub primary: Option<&'a str>,
}

/// Why a step is refused, and the remedy; none if it is not.
pub fn refusal(action: UpgradeAction, facts: &Facts<'_>) -> Option<String> {
    let Facts { names, major, upgrade_to, kept_by, primary } = *facts;
    let name = names.in_commands();
    let nothing =
        |follows: &str| format!("{} keeps no data from before an upgrade: there is nothing {follows}", names.name);
    match (action, kept_by) {
        (UpgradeAction::Back, None) => Some(nothing("to return to")),
        (UpgradeAction::Finish, None) => Some(nothing("to remove")),
        (UpgradeAction::Finish, Some(_)) => None,
        (UpgradeAction::Back, Some(pod)) => primary.filter(|primary| *primary != pod).map(|primary| {
            format!(
                "the data from before the upgrade is on {pod}, which is not the primary ({primary} is): kubectl servicedb \
                 switchover {name} --to {pod}, and request it again"
            )
        }),
        (UpgradeAction::Check | UpgradeAction::Start, _) if upgrade_to.is_none() => Some(if major >= NEWEST {
            format!("the data is of PostgreSQL {major}, and this version of Servicedb knows no higher one")
        } else {
            format!(
                "the data is of PostgreSQL {major}, and spec.postgres.version names no higher version: set it first, \
                 such as with kubectl patch servicedatabase {name} --type merge -p \
                 '{{\"spec\":{{\"postgres\":{{\"version\":\"{NEWEST}\"}}}}}}'"
            )
        }),
        (UpgradeAction::Check | UpgradeAction::Start, Some(_)) => Some(format!(
            "the data from before the last upgrade is still kept: kubectl servicedb upgrade {name} --finish removes it"
        )),
        (UpgradeAction::Check | UpgradeAction::Start, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_impossible_is_refused_with_the_remedy() {
        let names = Names::new("messaging", "chat");
        let new = Facts { names: &names, major: 17, upgrade_to: None, kept_by: None, primary: Some("chat-db-1") };
        let said = |action, facts: Facts<'_>| refusal(action, &facts).unwrap_or_default();
        for action in [UpgradeAction::Back, UpgradeAction::Finish] {
            assert!(said(action, new).starts_with("chat keeps no data from before an upgrade"), "{action:?}");
        }
        let kept = Facts { kept_by: Some("chat-db-0"), ..new };
        for action in [UpgradeAction::Check, UpgradeAction::Start] {
            let first = said(action, new);
            assert!(first.contains("names no higher version: set it first"), "{first}");
            let patch = r#"chat -n messaging --type merge -p '{"spec":{"postgres":{"version":"18"}}}'"#;
            assert!(first.ends_with(&format!("kubectl patch servicedatabase {patch}")), "{first}");
            assert!(said(action, Facts { major: NEWEST, ..new }).contains("knows no higher one"), "{action:?}");
            let declared = Facts { upgrade_to: Some(18), ..new };
            assert_eq!(said(action, declared), "", "{action:?}");
            let kept = Facts { kept_by: kept.kept_by, ..declared };
            assert!(said(action, kept).contains("upgrade chat -n messaging --finish removes it"), "{action:?}");
        }
        assert!(said(UpgradeAction::Back, kept).contains("switchover chat -n messaging --to chat-db-0"));
        assert_eq!(said(UpgradeAction::Finish, kept), "");
        for primary in [Some("chat-db-0"), None] {
            assert_eq!(said(UpgradeAction::Back, Facts { primary, ..kept }), "", "{primary:?}");
        }
    }
}
