//! What the clients' declared access means for a database as it is: rights to grant and to take back, and what to tell.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{Catalog, Held, Relation};
use super::right::{Kind, Right};
use crate::api::{AccessMode, GrantSpec, Privilege};
use crate::contract::clients::{Client, RightsReport};

/// All tables of a schema.
const ALL: &str = "*";
/// How many lines of one kind are told of a client, and of each of many: the report of all is an annotation, which has at
/// most 256 KiB with all others.
const TOLD: usize = 8;
const TOLD_OF_MANY: usize = 2;
/// How many clients are many.
const MANY: usize = 8;
/// The longest line, in characters.
const LINE: usize = 256;

/// The declared state of one client.
#[derive(Debug, Default, PartialEq)]
pub struct Wanted {
    /// Its rights.
    pub rights: BTreeSet<Right>,
    /// Its row policies, by table and command.
    pub policies: BTreeMap<(String, String), BTreeMap<Privilege, String>>,
    /// What cannot be granted yet, or at all.
    pub report: RightsReport,
}

/// The changes of one client's rights: grantor and statement.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RightsChange {
    /// What is taken back, each by its grantor.
    pub revoke: Vec<(String, String)>,
    /// What is granted.
    pub grant: Vec<String>,
}

/// The declared state of a client in this database.
pub fn wanted(client: &Client, catalog: &Catalog) -> Wanted {
    let mut wanted = Wanted::default();
    let all = |table: &[&str], sequence: &[&str], wanted: &mut Wanted| {
        for schema in &catalog.schemas {
            wanted.rights.insert(Right::usage(schema));
        }
        for ((schema, name), relation) in catalog.relations.iter().filter(|(_, relation)| relation.is_tenants) {
            let (kind, privileges) =
                if relation.kind == 'S' { (Kind::Sequence, sequence) } else { (Kind::Table, table) };
            let is_reached = !relation.is_partition && !matches!(relation.kind, 'f');
            for privilege in privileges.iter().filter(|_| is_reached) {
                wanted.rights.insert(Right::on(kind, schema, name, privilege));
            }
        }
    };
    match client.access.mode {
        AccessMode::Shared => {}
        AccessMode::ReadOnly => all(&["SELECT"], &["SELECT"], &mut wanted),
        AccessMode::ReadWrite => {
            all(&["SELECT", "INSERT", "UPDATE", "DELETE"], &["USAGE", "SELECT", "UPDATE"], &mut wanted);
        }
        AccessMode::Custom => {
            for grant in &client.access.grants {
                custom(grant, catalog, &mut wanted);
            }
        }
    }
    wanted.report.notes = notes(&wanted, catalog);
    wanted
}

/// The ways around a row policy that the client has by its other rights.
fn notes(wanted: &Wanted, catalog: &Catalog) -> Vec<String> {
    let mut notes = Vec::new();
    let may =
        |schema: &str, name: &str| wanted.rights.iter().any(|right| right.schema == schema && right.object == name);
    for ((schema, name), relation) in &catalog.relations {
        for table in relation.reads_as_owner.iter().filter(|table| wanted.policies.contains_key(*table)) {
            if !may(schema, name) {
                continue;
            }
            let table = format!("{}.{}", table.0, table.1);
            notes.push(if relation.kind == 'm' {
                format!(
                    "the materialized view {schema}.{name} has a copy of {table}, which the row policy does not limit: \
                     grant a view instead"
                )
            } else {
                format!(
                    "the view {schema}.{name} reads {table} with the rights of its owner, so the row policy does not \
                     limit it: ALTER VIEW {schema}.{name} SET (security_invoker = true)"
                )
            });
        }
        let limited = wanted.policies.get(&(schema.clone(), name.clone()));
        if limited.is_some_and(|of| of.contains_key(&Privilege::Select) && !of.contains_key(&Privilege::Update))
            && wanted.rights.iter().any(|right| {
                right.schema == *schema && right.object == *name && right.privilege == Privilege::Update.as_str()
            })
        {
            notes.push(format!(
                "UPDATE on {schema}.{name} has no row policy, so it changes rows that the client cannot read, and may \
                 make them readable"
            ));
        }
        let is_limited = limited.is_some();
        for ancestor in &relation.ancestors {
            let (of, above) = ancestor;
            if is_limited && may(of, above) {
                notes.push(format!(
                    "the row policy on {schema}.{name} does not limit what is read through {of}.{above}, which includes \
                     it: declare the rowPolicy there"
                ));
            } else if !is_limited && wanted.policies.contains_key(ancestor) && may(schema, name) {
                notes.push(format!(
                    "the row policy on {of}.{above} does not limit {schema}.{name}, which is a part of it: declare the \
                     rowPolicy there, too"
                ));
            }
        }
    }
    notes
}

fn custom(grant: &GrantSpec, catalog: &Catalog, wanted: &mut Wanted) {
    let schema = &grant.schema;
    if !catalog.schemas.contains(schema) {
        wanted.report.pending.push(format!("the schema {schema} does not exist"));
        return;
    }
    wanted.rights.insert(Right::usage(schema));
    if grant.tables.iter().any(|table| table == ALL) {
        for ((_, name), relation) in catalog.relations.iter().filter(|((of, _), _)| of == schema) {
            if relation.is_tenants && !relation.is_partition && !matches!(relation.kind, 'S' | 'f') {
                table(grant, name, relation, wanted);
            }
        }
        return;
    }
    for name in &grant.tables {
        match catalog.relations.get(&(schema.clone(), name.clone())) {
            None => wanted.report.pending.push(format!("{schema}.{name} does not exist")),
            Some(relation) if relation.kind == 'S' => {
                wanted.report.failed.push(format!("{schema}.{name} is a sequence, not a table"));
            }
            Some(relation) if !relation.is_tenants => {
                wanted.report.failed.push(format!("{schema}.{name} belongs to an extension or to another role"));
            }
            Some(relation) => table(grant, name, relation, wanted),
        }
    }
}

fn table(grant: &GrantSpec, name: &str, relation: &Relation, wanted: &mut Wanted) {
    let schema = &grant.schema;
    if let Some(expression) = &grant.row_policy {
        if !matches!(relation.kind, 'r' | 'p') {
            wanted.report.failed.push(format!("{schema}.{name} is no table, so it has no row policies"));
            return;
        }
        if relation.has_other_policies && !relation.has_row_security {
            wanted.report.failed.push(format!(
                "{schema}.{name} has row policies that are not enabled, and a rowPolicy would enable them: enable or drop \
                 them in a migration"
            ));
            return;
        }
        let policies = wanted.policies.entry((schema.clone(), name.to_owned())).or_default();
        policies.extend(grant.privileges.iter().map(|privilege| (*privilege, expression.clone())));
    }
    for privilege in &grant.privileges {
        if grant.columns.is_empty() {
            wanted.rights.insert(Right::on(Kind::Table, schema, name, privilege.as_str()));
        }
        for column in &grant.columns {
            if relation.columns.contains(column) {
                wanted.rights.insert(Right::on_column(schema, name, column, privilege.as_str()));
                continue;
            }
            let lacks = format!("the column {column} of {schema}.{name} does not exist");
            if !wanted.report.pending.contains(&lacks) {
                wanted.report.pending.push(lacks);
            }
        }
    }
    if grant.privileges.contains(&Privilege::Insert) {
        for (schema, sequence) in &relation.sequences {
            wanted.rights.insert(Right::on(Kind::Sequence, schema, sequence, "USAGE"));
        }
    }
}

/// The tables that declarations name with columns.
pub fn named_with_columns(clients: &[Client]) -> Vec<String> {
    let grants = clients.iter().flat_map(|client| &client.access.grants).filter(|grant| !grant.columns.is_empty());
    grants.flat_map(|grant| grant.tables.clone()).collect()
}

/// The changes of a client's rights. `granted` are those that were granted before as declared: they are taken back where
/// they are not any more. Others that it has are told, and taken back if so declared.
pub fn rights(
    role: &str,
    wanted: &mut Wanted,
    held: &BTreeSet<Held>,
    granted: &BTreeSet<String>,
    revoke_undeclared: bool,
) -> RightsChange {
    let mut change = RightsChange::default();
    let mut touched = BTreeSet::new();
    for held in held {
        let is_wanted = wanted.rights.contains(&held.right);
        if is_wanted && !held.grantable {
            continue;
        }
        if !held.right.is_revocable() {
            wanted.report.undeclared.push(held.right.to_string());
            continue;
        }
        let was_declared = granted.contains(&held.right.to_string()) && !held.grantable;
        if !was_declared {
            let option = if held.grantable { ", with the right to grant it" } else { "" };
            wanted.report.undeclared.push(format!("{}{option} (granted by {})", held.right, held.grantor));
        }
        if was_declared || revoke_undeclared {
            let statement = if is_wanted { held.right.revoke_option(role) } else { held.right.revoke(role) };
            change.revoke.push((held.grantor.clone(), statement));
            // A right on a table takes those on its columns with it.
            touched.insert((held.right.schema.clone(), held.right.object.clone()));
        }
    }
    let has = |right: &Right| held.iter().any(|held| held.right == *right);
    let again = |right: &Right| touched.contains(&(right.schema.clone(), right.object.clone()));
    change.grant =
        wanted.rights.iter().filter(|right| !has(right) || again(right)).map(|right| right.grant(role)).collect();
    change
}

/// At most a few lines of each kind, and none that is long: `clients` is how many have a report.
pub fn shortened(mut report: RightsReport, clients: usize) -> RightsReport {
    let told = if clients > MANY { TOLD_OF_MANY } else { TOLD };
    for lines in [&mut report.pending, &mut report.undeclared, &mut report.failed, &mut report.notes] {
        lines.dedup();
        if lines.len() > told {
            let more = lines.len() - told;
            lines.truncate(told);
            lines.push(format!("and {more} more"));
        }
        for line in lines {
            if let Some((end, _)) = line.char_indices().nth(LINE) {
                line.truncate(end);
                line.push('…');
            }
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_is_missing_is_named_once_and_its_table_is_not_said_to_be_missing() {
        let columns = vec!["id".to_owned()];
        let relation = Relation { kind: 'r', is_tenants: true, columns, ..Relation::default() };
        let grant = |privileges: serde_json::Value| {
            let grant = serde_json::json!({"tables": ["a"], "privileges": privileges, "columns": ["id", "nocol"]});
            serde_json::from_value::<GrantSpec>(grant).expect("a grant")
        };
        let mut wanted = Wanted::default();
        table(&grant(serde_json::json!(["SELECT", "UPDATE"])), "a", &relation, &mut wanted);
        assert_eq!(wanted.report.pending, ["the column nocol of public.a does not exist"]);
        assert_eq!(wanted.rights.len(), 2, "those on the other column");
    }

    #[test]
    fn the_report_of_many_clients_fits_into_an_annotation() {
        let lines = |n: usize| (0..n).map(|n| format!("{n}{}", "x".repeat(400))).collect::<Vec<_>>();
        let report = RightsReport { pending: lines(90), undeclared: lines(90), failed: lines(90), notes: lines(90) };
        let shortened = shortened(report, 50);
        assert_eq!((shortened.failed.len(), shortened.failed[2].as_str()), (3, "and 88 more"));
        assert!(serde_json::to_string(&shortened).expect("JSON").len() * 50 < 200 << 10);
    }
}
