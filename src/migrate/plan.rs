//! The plan of a run: compares a set of migrations, the ledger and the declared policy.

use std::collections::{HashMap, HashSet};

use super::ledger::{self, Ledger, Row};
use super::outcome::{Stopped, cut};
use super::source::{Kind, Migration, MigrationSet, Mode, Target, is_repeatable};
use super::version::Version;
use crate::api::conditions::reason;
use crate::api::{MigrationAction, MigrationPlan, MigrationState, PlannedMigration, SchemaVersion};
use crate::contract::migration::Policy;
use crate::postgres::literal;

/// How many steps of a plan are shown, and how long a name may be.
const STEPS: usize = 20;
const NAME: usize = 100;
/// How many versions a message names.
const SHOWN: usize = 5;

/// The plan, in execution order.
#[derive(Debug, PartialEq)]
pub struct Plan<'a> {
    /// The migrations to roll back, the newest first.
    pub reverts: Vec<&'a Row>,
    /// The migrations to record as already applied.
    pub baseline: Vec<&'a Migration>,
    /// The migrations to apply, in order.
    pub pending: Vec<&'a Migration>,
    /// Versions that are not in the ledger yet.
    unknown: Vec<&'a Migration>,
    /// Versions in the ledger that were never completed and are not declared any more.
    withdrawn: Vec<i64>,
    /// Completed versions that are kept, and whose rollback left only an error.
    whole: Vec<i64>,
    /// Versions whose place is another one than the ledger has.
    moved: Vec<&'a Version>,
}

/// Compares a set of migrations with the ledger, whose rows have the places of the set
/// ([`Ledger::arrange`]). `known` are the migrations that another tool has applied, by its own account.
///
/// # Errors
/// If the two contradict one another, or the declaration needs an operation that is not allowed:
/// then nothing may run.
pub fn plan_with<'a>(
    set: &'a MigrationSet,
    ledger: &'a Ledger,
    policy: &Policy,
    known: &HashSet<i64>,
) -> Result<Plan<'a>, Stopped> {
    let sources: HashMap<i64, &Migration> =
        set.migrations.iter().map(|migration| (migration.version.number, migration)).collect();
    let rows: HashMap<i64, &Row> = ledger.rows.iter().map(|row| (row.version.number, row)).collect();
    let in_source = |version: &Version| sources.get(&version.number).copied();
    let in_ledger = |version: &Version| rows.get(&version.number).copied();
    let target = set.target(policy).map_err(|declared| refuse_target(&declared, set))?;
    let completed = || ledger.rows.iter().filter(|row| row.state == MigrationState::Completed);
    let staying = || completed().filter(|row| target.wants(&row.version));

    // An idempotent down file can be run to its end, but cannot be reverted.
    let may_be_half = |row: &&Row| {
        row.half_reverted && (is_bare(row.down) || (target.wants(&row.version) && row.down != Some(Mode::Transaction)))
    };
    if let Some(row) = completed().find(may_be_half) {
        return Err(refuse_half_reverted(row));
    }
    let baseline = declared_baseline(set, policy, &target)?;
    let above = |migration: &&Migration| known.contains(&migration.version.number) && !target.wants(&migration.version);
    if let Some(migration) = set.migrations.iter().filter(|one| one.kind != Kind::Repeatable).find(above) {
        let message = format!(
            "spec.migrations.baseline is FromTool, and the tool has applied version {}, above \
             spec.migrations.targetVersion: raise or remove the target",
            migration.version
        );
        return Err(Stopped::refused(reason::INVALID_MIGRATIONS, None, message));
    }
    let reverts: Vec<&Row> =
        completed().rev().filter(|row| !target.wants(&row.version) && !is_repeatable(&row.version)).collect();
    may_revert(&reverts, policy)?;

    for row in staying() {
        let edited = |migration: &&Migration| !migration.up.has_checksum(&row.checksum);
        if let Some(migration) = in_source(&row.version).filter(|one| one.kind != Kind::Repeatable).filter(edited) {
            if migration.up.has_other_option(&row.checksum) {
                let message = "this migration was applied, and the options in the file beside it (metadata.toml, or the \
                               one that ends with .conf) were changed afterwards: restore them as they were";
                return Err(Stopped::refused(reason::CHECKSUM_MISMATCH, Some(&migration.up.name), message));
            }
            let message = format!(
                "this migration was applied and its file was edited afterwards: restore the file as it was applied \
                 (its SHA-256 then was {}, with LF line ends), and put the change into a new migration",
                row.checksum
            );
            return Err(Stopped::refused(reason::CHECKSUM_MISMATCH, Some(&migration.up.name), message));
        }
    }
    // A repeatable migration has no place among the versions.
    let versions = || staying().filter(|row| !is_repeatable(&row.version));
    let newest_staying = versions().next_back().map(|row| &row.version);
    let missing: Vec<&Row> = versions().filter(|row| in_source(&row.version).is_none()).collect();
    if !missing.is_empty() {
        return Err(refuse_missing(&missing, newest_staying, set, ledger));
    }

    // A schema that was migrated by another tool: only if the ledger has never had an entry.
    let untouched = ledger.is_untouched();
    let known_until = baseline.filter(|_| untouched);
    // A baseline migration replaces those up to it, if it is the first that runs.
    let begun = |migration: &&Migration| in_ledger(&migration.version).is_some();
    let candidates = || set.migrations.iter().rev().filter(|migration| migration.kind == Kind::Baseline);
    let first = candidates().find(begun).or_else(|| {
        candidates().find(|migration| {
            untouched && known_until.is_none() && known.is_empty() && target.wants(&migration.version)
        })
    });
    let replaced = |migration: &Migration| match (migration.kind, first) {
        (Kind::Baseline, Some(first)) => migration.version != first.version,
        (Kind::Baseline, None) => true,
        (_, Some(first)) => migration.version < first.version,
        (_, None) => false,
    };
    let (baseline, wanted): (Vec<&Migration>, Vec<&Migration>) =
        set.migrations.iter().filter(|migration| target.wants(&migration.version) && !replaced(migration)).partition(
            |migration| {
                known.contains(&migration.version.number)
                    || known_until.as_ref().is_some_and(|until| migration.version <= *until)
            },
        );
    let done = |migration: &Migration| {
        in_ledger(&migration.version).is_some_and(|row| {
            row.state == MigrationState::Completed
                && (migration.kind != Kind::Repeatable || migration.up.has_checksum(&row.checksum))
        })
    };
    let pending: Vec<&Migration> = wanted.into_iter().filter(|migration| !done(migration)).collect();
    let by_tool = baseline.iter().map(|migration| &migration.version).filter(|version| !is_repeatable(version)).max();
    let newest = newest_staying.max(by_tool);
    if let (Some(first), Some(newest), false) = (pending.first(), newest, policy.allow_out_of_order)
        && first.kind != Kind::Repeatable
        && first.version < *newest
    {
        let message = format!(
            "version {} was never applied, but the newer version {newest} was{}: give the migration a version above \
             {newest}, or set spec.migrations.outOfOrder: Allow to apply it now",
            first.version,
            set.late(&first.up.name)
        );
        return Err(Stopped::refused(reason::OUT_OF_ORDER, Some(&first.up.name), message));
    }
    // Those above the target, too: a partly applied one is not the target.
    let unknown = |migration: &&Migration| {
        !known.contains(&migration.version.number)
            && known_until.as_ref().is_none_or(|until| migration.version > *until)
    };
    for migration in set.migrations.iter().filter(unknown) {
        if let Some(row) = in_ledger(&migration.version).filter(|row| may_be_half_done(migration, row)) {
            return Err(refuse_half_done(migration, row));
        }
    }
    if let Some(doubt) = pending.iter().find_map(|migration| migration.doubt.clone()) {
        return Err(doubt.into());
    }
    let wanted = |version: &Version| target.wants(version) && in_source(version).is_some_and(|one| !replaced(one));
    Ok(Plan {
        unknown: pending.iter().copied().filter(|migration| in_ledger(&migration.version).is_none()).collect(),
        withdrawn: ledger
            .rows
            .iter()
            .filter(|row| row.state != MigrationState::Completed && !wanted(&row.version))
            .map(|row| row.version.number)
            .collect(),
        whole: staying().filter(|row| row.has_error).map(|row| row.version.number).collect(),
        moved: ledger.rows.iter().filter(|row| row.moved).map(|row| &row.version).collect(),
        reverts,
        baseline,
        pending,
    })
}

fn refuse_target(declared: &SchemaVersion, set: &MigrationSet) -> Stopped {
    let message = format!(
        "spec.migrations.targetVersion is {declared}, and no migration has this version; the newest is {}",
        set.newest_version()
    );
    Stopped::refused(reason::TARGET_VERSION_NOT_FOUND, None, message)
}

/// The version up to which another tool has applied the migrations, as declared.
fn declared_baseline(set: &MigrationSet, policy: &Policy, target: &Target) -> Result<Option<Version>, Stopped> {
    let Some(declared) = policy.baseline_version.as_ref().filter(|declared| !declared.is_none()) else {
        return Ok(None);
    };
    let refused = |message: String| Err(Stopped::refused(reason::INVALID_MIGRATIONS, None, message));
    let Some(baseline) = set.version(declared) else {
        return refused(format!(
            "spec.migrations.baselineVersion is {declared}, and no migration has this version; the newest is {}",
            set.newest_version()
        ));
    };
    if !target.wants(&baseline) {
        let target = policy.target_version.as_ref().map(ToString::to_string).unwrap_or_default();
        return refused(format!(
            "spec.migrations.baselineVersion is {declared}, above spec.migrations.targetVersion {target}: lower the \
             baseline or raise the target"
        ));
    }
    Ok(Some(baseline))
}

/// Nothing is rolled back without an explicit request, and no rollback is started that cannot be
/// completed.
fn may_revert(reverts: &[&Row], policy: &Policy) -> Result<(), Stopped> {
    let (Some(newest), Some(target)) = (reverts.first(), &policy.target_version) else { return Ok(()) };
    if !policy.allow_rollback {
        let message = format!(
            "the schema has version {}, above spec.migrations.targetVersion {target}: set spec.migrations.rollback: \
             Allow to roll back {}, or a higher target",
            newest.version,
            named(reverts)
        );
        return Err(Stopped::refused(reason::ROLLBACK_REFUSED, None, message));
    }
    let without: Vec<&Row> = reverts.iter().copied().filter(|row| row.down.is_none()).collect();
    if !without.is_empty() {
        let message = format!(
            "rolling back to version {target} needs the down files of {}, and they were applied without one; nothing \
             was run: write a new migration that undoes them",
            named(&without)
        );
        return Err(Stopped::refused(reason::ROLLBACK_IMPOSSIBLE, None, message));
    }
    Ok(())
}

fn named(rows: &[&Row]) -> String {
    let mut names: Vec<String> = rows.iter().take(SHOWN).map(|row| format!("{} ({})", row.version, row.name)).collect();
    if rows.len() > SHOWN {
        names.push(format!("and {} more", rows.len() - SHOWN));
    }
    names.join(", ")
}

fn refuse_missing(
    missing: &[&Row],
    newest_completed: Option<&Version>,
    set: &MigrationSet,
    ledger: &Ledger,
) -> Stopped {
    let names = named(missing);
    let before =
        ledger.source.as_ref().map(|source| source.format.as_str()).filter(|format| *format != set.format.name());
    if let Some(before) = before {
        let message = format!(
            "applied to the database and missing in the source: {names}. They were applied from files of {before}, and \
             these are read as files of {}: name the tool in spec.migrations.source.format, or put the files back",
            set.format.name()
        );
        return Stopped::refused(reason::MIGRATIONS_MISSING, None, message);
    }
    let newest_in_source = set.newest_version();
    let is_ahead = newest_completed > set.newest();
    if is_ahead {
        let message = format!(
            "the database is ahead of the source, whose newest version is {newest_in_source}; applied and not in the \
             source: {names}. Declare the migrations that belong to this database; to roll back, set \
             spec.migrations.targetVersion and rollback: Allow"
        );
        return Stopped::refused(reason::AHEAD_OF_SOURCE, None, message);
    }
    let message = format!("applied to the database and missing in the source: {names}. Put the files back");
    Stopped::refused(reason::MIGRATIONS_MISSING, None, message)
}

/// An interrupted file in a transaction leaves nothing. One without a transaction may be partly
/// applied: unless it is marked as idempotent, a person must inspect the result. After a reported
/// failure, an edited file shows that a person did.
fn may_be_half_done(migration: &Migration, row: &Row) -> bool {
    if migration.mode != (Mode::NoTransaction { idempotent: false }) {
        return false;
    }
    match row.state {
        MigrationState::Executing => true,
        MigrationState::Failed => migration.up.has_checksum(&row.checksum),
        MigrationState::Pending | MigrationState::Completed => false,
    }
}

fn refuse_half_done(migration: &Migration, row: &Row) -> Stopped {
    let happened = if row.state == MigrationState::Failed { "failed" } else { "was interrupted" };
    let message = format!(
        "this migration runs without a transaction and {happened}, so it may be half done. Inspect the result; then \
         make it safe to run again (IF NOT EXISTS, DROP INDEX CONCURRENTLY IF EXISTS first) with the first line \
         '-- no-transaction idempotent'; or, if all of it is there, run: \
         UPDATE servicedb.migrations SET status = 'completed' WHERE {}",
        of_version(&migration.version)
    );
    Stopped::refused(reason::MIGRATION_FAILED, Some(&migration.up.name), message)
}

/// The condition of a row of the ledger.
fn of_version(version: &Version) -> String {
    match version.text.number() {
        Some(number) => format!("version = {number}"),
        None => format!("version_text = {}", literal(version.text.as_str())),
    }
}

/// Whether a file may be partly applied: it runs without a transaction, and is not marked as
/// idempotent.
fn is_bare(mode: Option<Mode>) -> bool {
    mode == Some(Mode::NoTransaction { idempotent: false })
}

fn refuse_half_reverted(row: &Row) -> Stopped {
    let message = format!(
        "the down file of version {version} ({}) runs without a transaction and did not finish, so the \
         migration may be half reverted. Inspect the result; then complete or revert it by hand, and run: \
         UPDATE servicedb.migrations SET error = NULL WHERE {this} if the migration is there, or: DELETE \
         FROM servicedb.migrations WHERE {this} if it is gone",
        row.name,
        version = row.version,
        this = of_version(&row.version)
    );
    Stopped::refused(reason::MIGRATION_FAILED, None, message)
}

impl Plan<'_> {
    /// Whether there is nothing to run and nothing to record.
    pub fn is_empty(&self) -> bool {
        self.reverts.is_empty() && self.baseline.is_empty() && self.pending.is_empty()
    }

    /// The statements that record missing pending migrations in the ledger.
    pub fn announce(&self) -> Option<String> {
        let mut statements = String::new();
        if !self.is_empty() {
            statements += ledger::incomplete();
        }
        if !self.withdrawn.is_empty() {
            statements += &ledger::withdraw(&self.withdrawn);
        }
        if !self.moved.is_empty() {
            statements += &ledger::move_to(&self.moved);
        }
        if !self.whole.is_empty() {
            statements += &ledger::whole_again(&self.whole);
        }
        if !self.baseline.is_empty() {
            statements += &ledger::baseline(&self.baseline);
        }
        if !self.unknown.is_empty() {
            statements += &ledger::announce(&self.unknown);
        }
        (!statements.is_empty()).then(|| format!("{statements}{}", ledger::notify()))
    }

    /// A summary: the counts, and the first steps.
    pub fn shown(&self) -> MigrationPlan {
        let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let step = |version: &Version, name: &str, action| PlannedMigration {
            version: version.text.clone(),
            name: cut(name, NAME),
            action,
        };
        let reverts = self.reverts.iter().map(|row| step(&row.version, &row.name, MigrationAction::RollBack));
        let of = |action| move |migration: &&Migration| step(&migration.version, &migration.name, action);
        let baseline = self.baseline.iter().map(of(MigrationAction::Record));
        let pending = self.pending.iter().map(of(MigrationAction::Apply));
        MigrationPlan {
            apply: count(self.pending.len()),
            roll_back: count(self.reverts.len()),
            record: count(self.baseline.len()),
            steps: reverts.chain(baseline).chain(pending).take(STEPS).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use MigrationState::{Completed, Executing, Failed, Pending};

    use super::*;
    use crate::migrate::source;

    fn plan<'a>(set: &'a MigrationSet, ledger: &'a Ledger, policy: &Policy) -> Result<Plan<'a>, Stopped> {
        plan_with(set, ledger, policy, &HashSet::new())
    }

    fn set(files: &[(&str, &str)]) -> MigrationSet {
        let files = files.iter().map(|(name, sql)| (format!("{name}.up.sql"), sql.as_bytes().to_vec()));
        source::parse(files).expect("valid migrations")
    }

    /// A ledger of these states, with the checksums of the set.
    fn ledger(set: &MigrationSet, states: &[(i64, MigrationState)]) -> Ledger {
        let checksum =
            |version| set.migrations.iter().find(|m| m.version.number == version).map(|m| m.up.checksum.clone());
        let row = |(version, state): &(i64, MigrationState)| Row {
            version: Version::of_number(*version),
            moved: false,
            name: format!("m{version}"),
            state: *state,
            checksum: checksum(*version).unwrap_or_default(),
            down: Some(Mode::Transaction),
            half_reverted: false,
            has_error: false,
        };
        Ledger { rows: states.iter().map(row).collect(), ..Ledger::default() }
    }

    fn versions(plan: &Plan<'_>) -> Vec<i64> {
        plan.pending.iter().map(|migration| migration.version.number).collect()
    }

    #[test]
    fn migrations_that_are_not_completed_are_pending() {
        let set = set(&[("1_a", "1"), ("2_b", "2"), ("3_c", "3")]);
        for (states, expected) in [
            (vec![], vec![1, 2, 3]),
            (vec![(1, Completed)], vec![2, 3]),
            (vec![(1, Completed), (2, Failed), (3, Pending)], vec![2, 3]),
            (vec![(1, Completed), (2, Executing)], vec![2, 3]),
            (vec![(1, Completed), (2, Completed), (3, Completed)], vec![]),
            (vec![(1, Completed), (2, Completed), (9, Failed)], vec![3]),
        ] {
            let ledger = ledger(&set, &states);
            assert_eq!(
                versions(&plan(&set, &ledger, &Policy::default()).expect("no contradiction")),
                expected,
                "{states:?}"
            );
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let set = set(&[("1_a", "1"), ("3_c", "3")]);
        for (states, expected, word) in [
            (vec![(1, Completed), (2, Completed)], reason::MIGRATIONS_MISSING, "2 (m2)"),
            (vec![(1, Completed), (3, Completed), (4, Completed)], reason::AHEAD_OF_SOURCE, "4 (m4)"),
            (vec![(2, Completed), (9, Completed)], reason::AHEAD_OF_SOURCE, "2 (m2), 9 (m9)"),
            (vec![(3, Completed)], reason::OUT_OF_ORDER, "version above 3"),
            (vec![(1, Failed), (3, Completed)], reason::OUT_OF_ORDER, "version above 3"),
        ] {
            let refusal = plan(&set, &ledger(&set, &states), &Policy::default()).expect_err("a contradiction").failure;
            assert_eq!(refusal.reason, expected, "{states:?}");
            assert!(refusal.message.contains(word) && !refusal.transient, "{refusal:?}");
        }
        let mut edited = ledger(&set, &[(1, Completed), (2, Completed)]);
        edited.rows[0].checksum = "another".to_owned();
        let refusal = plan(&set, &edited, &Policy::default()).expect_err("edited").failure;
        assert_eq!((refusal.reason.as_str(), refusal.file.as_deref()), (reason::CHECKSUM_MISMATCH, Some("1_a.up.sql")));
    }

    #[test]
    fn a_failed_or_interrupted_file_is_run_again_unless_it_may_be_half_done() {
        let transaction = set(&[("1_a", "SELECT 1")]);
        let bare = set(&[("1_a", "-- no-transaction\nSELECT 1")]);
        let idempotent = set(&[("1_a", "-- no-transaction idempotent\nSELECT 1")]);
        for (set, state, runs) in [
            (&transaction, Executing, true),
            (&transaction, Failed, true),
            (&idempotent, Executing, true),
            (&bare, Pending, true),
            (&bare, Executing, false),
            (&bare, Failed, false),
        ] {
            let ledger = ledger(set, &[(1, state)]);
            let result = plan(set, &ledger, &Policy::default());
            assert_eq!(result.is_ok(), runs, "{state:?} {:?}", set.migrations[0].mode);
            if let Err(refusal) = result {
                assert!(refusal.failure.message.contains("half done") && !refusal.failure.transient);
            }
        }
        let mut failed = ledger(&bare, &[(1, Failed)]);
        failed.rows[0].checksum = "the file before it was corrected".to_owned();
        assert!(plan(&bare, &failed, &Policy::default()).is_ok());
    }

    #[test]
    fn announcing_removes_migrations_missing_in_the_source() {
        let set = set(&[("1_a", "1"), ("2_o-b", "2")]);
        let statements = |states: &[(i64, MigrationState)]| {
            let ledger = ledger(&set, states);
            plan(&set, &ledger, &Policy::default()).expect("no contradiction").announce()
        };
        let incomplete = statements(&[(1, Completed), (2, Pending)]).expect("no revision is complete");
        assert!(!incomplete.contains("INSERT") && incomplete.contains("SET revision = ''"), "{incomplete}");
        assert_eq!(statements(&[(1, Completed), (2, Completed)]), None);
        let sql = statements(&[(1, Completed), (7, Failed)]).expect("something to announce");
        assert!(sql.contains("version IN (7)") && sql.contains("(2, 'o-b', '") && !sql.contains("(1, "), "{sql}");
    }

    #[test]
    fn migrations_above_the_target_are_rolled_back_if_allowed_and_possible() {
        let set = set(&[("1_a", "1"), ("2_b", "2"), ("3_c", "3"), ("4_d", "4")]);
        let policy = |target: i64, allow| Policy {
            target_version: Some(target.into()),
            allow_rollback: allow,
            ..Policy::default()
        };
        let mut all = ledger(&set, &[(1, Completed), (2, Completed), (3, Completed), (9, Completed), (10, Failed)]);
        let newest_first = |plan: &Plan<'_>| plan.reverts.iter().map(|row| row.version.number).collect::<Vec<_>>();

        let refused = plan(&set, &all, &policy(2, false)).expect_err("not allowed").failure;
        assert_eq!(refused.reason, reason::ROLLBACK_REFUSED);
        assert!(refused.message.contains("roll back 9 (m9), 3 (m3)"), "{}", refused.message);
        let back = plan(&set, &all, &policy(2, true)).expect("the ledger has the down files");
        assert_eq!((newest_first(&back), versions(&back), back.withdrawn.clone()), (vec![9, 3], vec![], vec![10]));
        assert_eq!(newest_first(&plan(&set, &all, &policy(0, true)).expect("all")), [9, 3, 2, 1]);
        // Without a target nothing is rolled back.
        let kept = plan(&set, &all, &Policy { allow_rollback: true, ..Policy::default() });
        assert_eq!(kept.expect_err("9 is missing").failure.reason, reason::AHEAD_OF_SOURCE);
        let unknown = plan(&set, &all, &policy(7, true)).expect_err("no such version").failure;
        assert_eq!(unknown.reason, reason::TARGET_VERSION_NOT_FOUND);

        all.rows[2].down = None;
        let refused = plan(&set, &all, &policy(1, true)).expect_err("no down file").failure;
        assert_eq!(refused.reason, reason::ROLLBACK_IMPOSSIBLE);
        assert!(refused.message.contains("the down files of 3 (m3),"), "{}", refused.message);
        all.rows[2].down = Some(Mode::NoTransaction { idempotent: false });
        assert!(plan(&set, &all, &policy(2, true)).is_ok());
        all.rows[2].half_reverted = true;
        let refused = plan(&set, &all, &policy(4, true)).expect_err("half reverted").failure;
        assert!(refused.message.contains("half reverted"), "{}", refused.message);
    }

    #[test]
    fn a_target_a_baseline_and_an_order_that_is_allowed() {
        let set = set(&[("1_a", "1"), ("2_b", "2"), ("3_c", "3")]);
        let to_two = Policy { target_version: Some(2.into()), ..Policy::default() };
        assert_eq!(versions(&plan(&set, &Ledger::default(), &to_two).expect("a plan")), [1, 2]);

        let from_two = Policy { baseline_version: Some(2.into()), ..Policy::default() };
        let empty = Ledger::default();
        let first = plan(&set, &empty, &from_two).expect("a plan");
        assert_eq!((versions(&first), first.baseline.len()), (vec![3], 2));
        let shown = first.shown();
        assert_eq!((shown.apply, shown.record, shown.roll_back), (1, 2, 0));
        assert_eq!(shown.steps.iter().map(|step| step.action).collect::<Vec<_>>()[1], MigrationAction::Record);
        let known = ledger(&set, &[(1, Completed)]);
        let later = plan(&set, &known, &from_two).expect("a plan");
        assert_eq!((versions(&later), later.baseline.len()), (vec![2, 3], 0), "the ledger takes precedence");

        let hole = ledger(&set, &[(1, Completed), (3, Completed)]);
        let allowed = Policy { allow_out_of_order: true, ..Policy::default() };
        assert_eq!(versions(&plan(&set, &hole, &allowed).expect("allowed")), [2]);
    }

    #[test]
    fn a_partly_applied_migration_is_never_the_target() {
        let set = set(&[("1_a", "1"), ("2_b", "-- no-transaction\nSELECT 2")]);
        let to_one = Policy { target_version: Some(1.into()), ..Policy::default() };
        for state in [Executing, Failed] {
            let refused = plan(&set, &ledger(&set, &[(1, Completed), (2, state)]), &to_one).expect_err("half done");
            assert!(refused.failure.message.contains("half done"), "{:?}", refused.failure);
        }
        // Running an idempotent file again does not revert it.
        let mut begun = ledger(&set, &[(1, Completed)]);
        begun.rows[0].down = Some(Mode::NoTransaction { idempotent: true });
        begun.rows[0].half_reverted = true;
        let back = Policy { target_version: Some(0.into()), allow_rollback: true, ..Policy::default() };
        assert_eq!(plan(&set, &begun, &back).expect("it continues").reverts.len(), 1);
        assert!(plan(&set, &begun, &to_one).is_err());
    }

    #[test]
    fn a_baseline_is_for_a_schema_that_the_ledger_never_knew() {
        let set = set(&[("1_a", "1"), ("2_b", "2")]);
        let policy = Policy { baseline_version: Some(1.into()), ..Policy::default() };
        let rolled_back = Ledger { rows: Vec::new(), revision: Some(String::new()), ..Ledger::default() };
        assert_eq!(versions(&plan(&set, &rolled_back, &policy).expect("a plan")), [1, 2], "there is nothing to record");
        let by_tool = Ledger { by_tool: true, ..rolled_back };
        assert_eq!(versions(&plan(&set, &by_tool, &policy).expect("a plan")), [2], "the tool's part is recorded");
        // A first attempt without it has failed, which is how users notice.
        let failed = ledger(&set, &[(1, Failed), (2, Pending)]);
        assert_eq!(plan(&set, &failed, &policy).expect("a plan").baseline.len(), 1);
        let below = Policy { target_version: Some(0.into()), ..policy };
        assert!(plan(&set, &Ledger::default(), &below).is_err());
    }
}
