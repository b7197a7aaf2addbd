//! Row policies: what the declared ones mean for each table, and what holds for a client whose policy cannot be made.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{Catalog, Held, POLICY_PREFIX, Relation};
use super::decide::Wanted;
use super::right::{Kind, Right};
use crate::api::Privilege;
use crate::api::names::PostgresNames;
use crate::contract::migration::hash;
use crate::postgres::{ident, literal};

/// The policy that keeps all rows visible to roles that no declared row policy limits.
pub const EVERYONE: &str = "servicedb_everyone";
/// How long a change waits for the lock on a table: all who use the table wait behind it.
const LOCK_TIMEOUT: &str = "'1s'";
/// Commands that a row policy limits.
const LIMITED: [Privilege; 4] = [Privilege::Select, Privilege::Insert, Privilege::Update, Privilege::Delete];

type Table = (String, String);

/// The changes of the row policies of one table, as statements for its owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// The table.
    pub table: Table,
    /// What is not of one client: row level security, the policy of everyone, policies that are no longer declared.
    pub of_table: String,
    /// Of each client whose policies change.
    pub of_clients: BTreeMap<String, String>,
    /// All clients with a declared policy on it: they depend on what is not of one client.
    pub declaring: BTreeSet<String>,
    /// Whether it holds only while the table has no row policies but those of Servicedb.
    pub is_alone: bool,
}

impl PolicyChange {
    /// One transaction with the statements of these clients, and with those of the table if `of_table`. Names in an
    /// expression are those of the table's schema.
    pub fn transaction(&self, clients: &[&str], of_table: bool) -> String {
        let on = on(&self.table);
        let mut text = format!(
            "BEGIN; SET LOCAL search_path = {}; SET LOCAL lock_timeout = {LOCK_TIMEOUT};
             LOCK TABLE ONLY {on} IN ACCESS EXCLUSIVE MODE;",
            ident(&self.table.0)
        );
        if of_table {
            if self.is_alone && !self.of_table.is_empty() {
                text += &guard(&on);
            }
            text += &self.of_table;
        }
        text.extend(clients.iter().filter_map(|client| self.of_clients.get(*client)).map(String::as_str));
        text + "COMMIT;"
    }
}

/// Fails if a migration has created a row policy since the catalog was read: what is decided about row level security
/// would switch that policy off. The table is locked, so none comes after it.
fn guard(on: &str) -> String {
    format!(
        "DO $guard$ BEGIN
             IF EXISTS (SELECT FROM pg_catalog.pg_policy WHERE polrelid = {}::pg_catalog.regclass
                        AND NOT pg_catalog.starts_with(polname::pg_catalog.text, '{POLICY_PREFIX}')) THEN
                 RAISE EXCEPTION 'a migration has just created a row policy' USING ERRCODE = 'serialization_failure';
             END IF;
         END $guard$;",
        literal(on)
    )
}

fn on(table: &Table) -> String {
    format!("{}.{}", ident(&table.0), ident(&table.1))
}

/// The changes, table by table, and whether a policy that is no longer declared is kept because its client still has the
/// right that it limits: its rights go first.
pub fn changes(names: &PostgresNames, wanted: &[(String, Wanted)], catalog: &Catalog) -> (Vec<PolicyChange>, bool) {
    let (mut changes, mut is_kept) = (Vec::new(), false);
    for (table, relation) in &catalog.relations {
        let mut declared = Declared::default();
        for (client, of_client) in wanted {
            for (privilege, expression) in of_client.policies.get(table).into_iter().flatten() {
                let definition = definition(&names.client(client), *privilege, expression);
                declared.policies.insert(name(client, *privilege), (client.clone(), definition));
            }
            declared.unlimited.extend(unlimited(of_client, table).map(|privilege| name(client, privilege)));
        }
        if declared.policies.is_empty() && relation.policies.is_empty() {
            continue;
        }
        let (change, kept) = of_table(table, relation, &declared);
        is_kept |= kept;
        if !change.of_table.is_empty() || !change.of_clients.is_empty() {
            changes.push(change);
        }
    }
    (changes, is_kept)
}

/// What is declared for one table.
#[derive(Default)]
struct Declared {
    /// The client and the definition, by the name of the policy.
    policies: BTreeMap<String, (String, String)>,
    /// The names of policies of rights that are declared without one.
    unlimited: BTreeSet<String>,
}

/// The rights on a table that a client shall have for all rows.
fn unlimited<'a>(wanted: &'a Wanted, table: &'a Table) -> impl Iterator<Item = Privilege> + 'a {
    let limited = wanted.policies.get(table);
    LIMITED.into_iter().filter(move |privilege| {
        !limited.is_some_and(|policies| policies.contains_key(privilege))
            && wanted.rights.iter().any(|right| is_on(right, table) && right.privilege == privilege.as_str())
    })
}

fn is_on(right: &Right, table: &Table) -> bool {
    matches!(right.kind, Kind::Table | Kind::Column) && right.schema == table.0 && right.object == table.1
}

fn name(client: &str, privilege: Privilege) -> String {
    format!("{POLICY_PREFIX}{}_{}", client.replace('-', "_"), privilege.as_str().to_lowercase())
}

/// What follows `ON table`.
fn definition(role: &str, privilege: Privilege, expression: &str) -> String {
    let command = privilege.as_str();
    // On lines of its own, so that a comment in it ends.
    let condition = match privilege {
        Privilege::Insert => format!("WITH CHECK (\n{expression}\n)"),
        Privilege::Update => format!("USING (\n{expression}\n) WITH CHECK (\n{expression}\n)"),
        _ => format!("USING (\n{expression}\n)"),
    };
    // Restrictive: it is added to the other policies that apply to the role.
    format!("AS RESTRICTIVE FOR {command} TO {} {condition}", ident(role))
}

fn of_table(table: &Table, relation: &Relation, declared: &Declared) -> (PolicyChange, bool) {
    let on = on(table);
    let drop = |name: &str| format!("DROP POLICY IF EXISTS {} ON {on};", ident(name));
    let mut change = PolicyChange { table: table.clone(), ..PolicyChange::default() };
    for (name, (client, definition)) in &declared.policies {
        change.declaring.insert(client.clone());
        let comment = comment(definition);
        if relation.policies.get(name).is_none_or(|policy| policy.comment != comment) {
            let (policy, comment) = (ident(name), literal(&comment));
            let statements = change.of_clients.entry(client.clone()).or_default();
            *statements += &drop(name);
            *statements += &format!("CREATE POLICY {policy} ON {on} {definition};");
            *statements += &format!("COMMENT ON POLICY {policy} ON {on} IS {comment};");
        }
    }
    let mut is_kept = false;
    for (name, policy) in &relation.policies {
        if name == EVERYONE || declared.policies.contains_key(name) {
            continue;
        }
        // Without its policy, a client that still has the right would see all rows: one that is being removed, or whose
        // table was renamed.
        if policy.is_in_use && !declared.unlimited.contains(name) {
            is_kept = true;
        } else {
            change.of_table += &drop(name);
        }
    }
    let has_everyone = relation.policies.contains_key(EVERYONE);
    change.is_alone = !relation.has_other_policies;
    // Where the team has row policies, those decide for all others.
    let is_ours = !relation.has_other_policies && (has_everyone || !relation.has_row_security);
    if declared.policies.is_empty() && !is_kept {
        if has_everyone {
            change.of_table += &drop(EVERYONE);
            if !relation.has_other_policies {
                change.of_table += &format!("ALTER TABLE {on} DISABLE ROW LEVEL SECURITY;");
            }
        }
        return (change, is_kept);
    }
    if is_ours && !has_everyone {
        change.of_table += &format!("CREATE POLICY {} ON {on} USING (true) WITH CHECK (true);", ident(EVERYONE));
    }
    if has_everyone && !is_ours {
        change.of_table += &drop(EVERYONE);
    }
    // A team that has policies and row level security off is not told apart from one that has just switched it off:
    // `decide` refuses it.
    if !relation.has_row_security && !relation.has_other_policies {
        change.of_table += &format!("ALTER TABLE {on} ENABLE ROW LEVEL SECURITY;");
    }
    (change, is_kept)
}

/// The comment by which a declared policy is recognised.
fn comment(definition: &str) -> String {
    format!("servicedb {}", &hash(&[definition])[..32])
}

/// Without the rights that a row policy limits, for a client whose policy cannot be made: no right is granted wider than
/// declared.
pub fn withhold(wanted: &mut Wanted, table: &Table, problem: &str) {
    if let Some(limited) = limited(wanted, table) {
        wanted.rights.retain(|right| !(is_on(right, table) && limited.contains(&right.privilege.as_str())));
        wanted.report.failed.push(format!("the row policy on {}.{}: {problem}", table.0, table.1));
    }
}

/// Only those of these rights that the client has, for one whose policy is made later: the former one holds meanwhile.
pub fn postpone(wanted: &mut Wanted, table: &Table, held: Option<&BTreeSet<Held>>, problem: &str) {
    if let Some(limited) = limited(wanted, table) {
        let has = |right: &Right| held.is_some_and(|held| held.iter().any(|held| held.right == *right));
        wanted
            .rights
            .retain(|right| !(is_on(right, table) && limited.contains(&right.privilege.as_str())) || has(right));
        wanted.report.pending.push(format!("the row policy on {}.{} is tried again: {problem}", table.0, table.1));
    }
}

fn limited(wanted: &Wanted, table: &Table) -> Option<Vec<&'static str>> {
    Some(wanted.policies.get(table)?.keys().map(|privilege| privilege.as_str()).collect())
}

#[cfg(test)]
mod tests {
    use super::super::catalog::Policy;
    use super::*;
    use crate::api::names::Names;

    const SELECT: Privilege = Privilege::Select;

    fn table() -> Table {
        ("public".to_owned(), "files".to_owned())
    }

    fn names() -> PostgresNames {
        Names::new("n", "files").postgres("files_db")
    }

    fn select() -> Right {
        Right::on(Kind::Table, "public", "files", "SELECT")
    }

    fn limited_to(expression: &str) -> Wanted {
        Wanted {
            rights: BTreeSet::from([select()]),
            policies: BTreeMap::from([(table(), BTreeMap::from([(SELECT, expression.to_owned())]))]),
            ..Wanted::default()
        }
    }

    fn with(relation: Relation) -> Catalog {
        Catalog { relations: BTreeMap::from([(table(), relation)]), ..Catalog::default() }
    }

    /// As after the changes for one client, with or without its right.
    fn limited(is_in_use: bool) -> Relation {
        let comment = comment(&definition("files_db_c_reader", SELECT, "a"));
        let policies = BTreeMap::from([
            (EVERYONE.to_owned(), Policy::default()),
            (name("reader", SELECT), Policy { comment, is_in_use }),
        ]);
        Relation { kind: 'r', is_tenants: true, has_row_security: true, policies, ..Relation::default() }
    }

    fn of(wanted: &[(&str, Wanted)], relation: Relation) -> (PolicyChange, bool) {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(client, of)| {
                let (rights, policies) = (of.rights.clone(), of.policies.clone());
                ((*client).to_owned(), Wanted { rights, policies, ..Wanted::default() })
            })
            .collect();
        let (mut changes, is_kept) = changes(&names(), &wanted, &with(relation));
        (changes.pop().unwrap_or_default(), is_kept)
    }

    #[test]
    fn a_policy_goes_after_the_right_that_it_limits() {
        let (change, is_kept) = of(&[], limited(true));
        assert_eq!((change, is_kept), (PolicyChange::default(), true), "all rows would be seen meanwhile");
        let (change, is_kept) = of(&[], limited(false));
        assert!(
            !is_kept && change.of_table.contains("DROP POLICY IF EXISTS \"servicedb_reader_select\""),
            "{change:?}"
        );
        assert!(change.of_table.contains("DISABLE ROW LEVEL SECURITY"), "{change:?}");
    }

    #[test]
    fn a_right_that_is_declared_for_all_rows_needs_no_policy() {
        let all = Wanted { rights: BTreeSet::from([select()]), ..Wanted::default() };
        let (change, is_kept) = of(&[("reader", all)], limited(true));
        assert!(!is_kept && change.of_table.contains("DISABLE ROW LEVEL SECURITY"), "{change:?}");
    }

    #[test]
    fn each_client_has_statements_of_its_own() {
        let (change, _) = of(&[("reader", limited_to("a")), ("bot", limited_to("b"))], limited(true));
        assert_eq!(change.of_clients.keys().collect::<Vec<_>>(), ["bot"], "the other has its policy");
        assert_eq!(change.declaring.len(), 2);
        assert!(change.of_table.is_empty(), "{change:?}");
        let both = of(&[("reader", limited_to("a")), ("bot", limited_to("b"))], Relation::default()).0;
        let alone = both.transaction(&["bot"], false);
        assert!(alone.contains("servicedb_bot_select") && !alone.contains("servicedb_reader"), "{alone}");
        assert!(!alone.contains("ENABLE ROW LEVEL SECURITY"), "{alone}");
        let all = both.transaction(&["bot", "reader"], true);
        assert!(all.find("$guard$") < all.find("CREATE POLICY") && all.contains("ENABLE ROW LEVEL SECURITY"), "{all}");
    }

    #[test]
    fn a_policy_of_the_team_ends_ours_for_everyone_and_row_level_security_stays() {
        let theirs = || Relation { has_other_policies: true, ..limited(false) };
        let change = of(&[("reader", limited_to("a"))], theirs()).0;
        assert!(change.of_table.contains("DROP POLICY IF EXISTS \"servicedb_everyone\""), "{change:?}");
        assert!(!change.transaction(&[], true).contains("$guard$"), "{change:?}");
        let change = of(&[], theirs()).0;
        assert!(!change.of_table.contains("DISABLE"), "{change:?}");
    }

    #[test]
    fn a_policy_that_cannot_be_made_withholds_and_one_that_waits_leaves_what_is() {
        let mut refused = limited_to("no_such_column");
        withhold(&mut refused, &table(), "column \"no_such_column\" does not exist");
        assert!(refused.rights.is_empty() && refused.report.failed.len() == 1, "{refused:?}");
        let held = BTreeSet::from([Held { right: select(), grantor: "files_db_owner".into(), grantable: false }]);
        for (held, rights) in [(None, 0), (Some(&held), 1)] {
            let mut waits = limited_to("a");
            postpone(&mut waits, &table(), held, "canceling statement due to lock timeout");
            assert_eq!((waits.rights.len(), waits.report.pending.len()), (rights, 1), "{waits:?}");
        }
    }
}
