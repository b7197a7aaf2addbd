//! What the clients' declared access means for a database as it is: rights to grant and to take back, row policies, and
//! what to tell. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{Catalog, Held, POLICY_PREFIX, Relation};
use super::right::{Kind, Right};
use crate::api::names::PostgresNames;
use crate::api::{AccessMode, GrantSpec, Privilege};
use crate::contract::clients::{Client, RightsReport};
use crate::contract::migration::hash;
use crate::postgres::{ident, literal};

/// The policy that keeps all rows visible to roles that no declared row policy limits.
pub const EVERYONE: &str = "servicedb_everyone";
/// All tables of a schema.
const ALL: &str = "*";
/// How many lines of one kind are told.
const TOLD: usize = 8;

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

/// Row policies of one table, changed in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyChange {
    /// The table.
    pub table: (String, String),
    /// Statements for the owner of the table.
    pub statements: String,
    /// The clients whose rights on the table depend on it.
    pub clients: BTreeSet<String>,
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
    let policies: BTreeSet<_> = wanted.policies.keys().cloned().collect();
    for ((schema, name), view) in &catalog.relations {
        let may_read = wanted.rights.iter().any(|right| right.schema == *schema && right.object == *name);
        for table in view.reads_as_owner.iter().filter(|table| may_read && policies.contains(table)) {
            wanted.report.notes.push(format!(
                "the view {schema}.{name} reads {}.{} with the rights of its owner, so the row policy does not limit it: \
                 ALTER VIEW {schema}.{name} SET (security_invoker = true)",
                table.0, table.1
            ));
        }
    }
    wanted
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
            } else if !wanted.report.pending.contains(&format!("{schema}.{name} ({column}) does not exist")) {
                wanted.report.pending.push(format!("{schema}.{name} ({column}) does not exist"));
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

/// The changes of row policies, table by table.
pub fn policies(names: &PostgresNames, wanted: &[(String, Wanted)], catalog: &Catalog) -> Vec<PolicyChange> {
    let mut changes = Vec::new();
    for (table, relation) in &catalog.relations {
        let mut declared = BTreeMap::new();
        let mut clients = BTreeSet::new();
        for (client, of_client) in wanted {
            for (privilege, expression) in of_client.policies.get(table).into_iter().flatten() {
                let (name, definition) = policy(&names.client(client), client, *privilege, expression);
                declared.insert(name, definition);
                clients.insert(client.clone());
            }
        }
        if declared.is_empty() && relation.policies.is_empty() {
            continue;
        }
        let statements = of_table(table, relation, &declared);
        if !statements.is_empty() {
            changes.push(PolicyChange { table: table.clone(), statements, clients });
        }
    }
    changes
}

/// Name and definition of a row policy: what follows `ON table`.
fn policy(role: &str, client: &str, privilege: Privilege, expression: &str) -> (String, String) {
    let command = privilege.as_str();
    // On lines of its own, so that a comment in it ends.
    let condition = match privilege {
        Privilege::Insert => format!("WITH CHECK (\n{expression}\n)"),
        Privilege::Update => format!("USING (\n{expression}\n) WITH CHECK (\n{expression}\n)"),
        _ => format!("USING (\n{expression}\n)"),
    };
    let name = format!("{POLICY_PREFIX}{}_{}", client.replace('-', "_"), command.to_lowercase());
    // Restrictive: it is added to the other policies that apply to the role.
    (name, format!("AS RESTRICTIVE FOR {command} TO {} {condition}", ident(role)))
}

fn of_table(table: &(String, String), relation: &Relation, declared: &BTreeMap<String, String>) -> String {
    let on = format!("{}.{}", ident(&table.0), ident(&table.1));
    let mut statements = String::new();
    let drop = |name: &str| format!("DROP POLICY IF EXISTS {} ON {on};", ident(name));
    for (name, definition) in declared {
        let comment = comment(definition);
        if relation.policies.get(name) != Some(&comment) {
            let (policy, comment) = (ident(name), literal(&comment));
            statements += &drop(name);
            statements += &format!("CREATE POLICY {policy} ON {on} {definition};");
            statements += &format!("COMMENT ON POLICY {policy} ON {on} IS {comment};");
        }
    }
    for name in relation.policies.keys().filter(|name| *name != EVERYONE && !declared.contains_key(*name)) {
        statements += &drop(name);
    }
    let has_everyone = relation.policies.contains_key(EVERYONE);
    // Where the team has row policies, those decide for all others.
    let is_ours = !relation.has_other_policies && (has_everyone || !relation.has_row_security);
    if declared.is_empty() {
        if has_everyone {
            statements += &drop(EVERYONE);
            if !relation.has_other_policies {
                statements += &format!("ALTER TABLE {on} DISABLE ROW LEVEL SECURITY;");
            }
        }
        return statements;
    }
    if is_ours && !has_everyone {
        statements += &format!("CREATE POLICY {} ON {on} USING (true) WITH CHECK (true);", ident(EVERYONE));
    }
    if has_everyone && !is_ours {
        statements += &drop(EVERYONE);
    }
    if !relation.has_row_security {
        statements += &format!("ALTER TABLE {on} ENABLE ROW LEVEL SECURITY;");
    }
    statements
}

/// The comment by which a declared policy is recognised.
fn comment(definition: &str) -> String {
    format!("servicedb {}", &hash(&[definition])[..32])
}

/// Without the rights on a table, for clients whose row policy there cannot be made: no right is granted wider than
/// declared.
pub fn withhold(wanted: &mut Wanted, table: &(String, String), problem: &str) {
    let Some(policies) = wanted.policies.get(table) else { return };
    let limited: Vec<&str> = policies.keys().map(|privilege| privilege.as_str()).collect();
    wanted.rights.retain(|right| {
        let is_on =
            matches!(right.kind, Kind::Table | Kind::Column) && right.schema == table.0 && right.object == table.1;
        !(is_on && limited.contains(&right.privilege.as_str()))
    });
    wanted.report.failed.push(format!("the row policy on {}.{}: {problem}", table.0, table.1));
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

/// At most a few lines of each kind.
pub fn shortened(mut report: RightsReport) -> RightsReport {
    for lines in [&mut report.pending, &mut report.undeclared, &mut report.failed, &mut report.notes] {
        lines.dedup();
        if lines.len() > TOLD {
            let more = lines.len() - TOLD;
            lines.truncate(TOLD);
            lines.push(format!("and {more} more"));
        }
    }
    report
}
