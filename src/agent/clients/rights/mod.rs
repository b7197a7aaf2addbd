//! The rights of clients that have a login of their own, kept as declared: at each promotion, after each migration, and
//! when a declaration or a right changes.
//!
//! Row policies are expressions of the tenant's schema, so the owner creates them. A policy comes before the right that it
//! limits, and goes after it. `GRANT` and `REVOKE` change catalogs
//! alone; they run as the superuser, or as the role that granted what is taken back: PostgreSQL takes back only what the
//! current role has granted.

mod catalog;
mod decide;
mod policies;
mod right;

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use crate::agent::as_owner::as_owner;
use crate::agent::ensure;
use crate::agent::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::clients::{self, RightsReport, Rules};
use crate::postgres::{describe, ident};
use catalog::{Catalog, Held};
use decide::{RightsChange, Wanted};
use policies::PolicyChange;
use right::{Kind, Right};

/// Functions with which a role creates large objects, which it then owns.
const LARGE_OBJECTS: &str =
    "pg_catalog.lo_creat(integer), pg_catalog.lo_create(oid), pg_catalog.lo_from_bytea(oid, bytea)";

/// Row policies that PostgreSQL refused, by their statements, and why.
pub type Refused = BTreeMap<String, String>;

/// Brings the rights of each declared client to the declared state; returns how they differ from it, by client, and
/// whether another run is needed. `own` is a session in the database `postgres`. Row policies that were `refused` are not
/// tried again, since each try locks the table: the caller forgets them when the schema or a declaration changes.
///
/// # Errors
/// If the server refuses; another run continues from there.
pub async fn keep(
    own: &Client,
    socket: &str,
    names: &PostgresNames,
    declared: &[clients::Client],
    rules: Rules,
    refused: &mut Refused,
) -> Result<(BTreeMap<String, RightsReport>, bool), EnsureError> {
    let tenant = ensure::connect_at(socket, &names.database).await?;
    let database = Databases { own, tenant: &tenant.client, socket, names };
    if !declared.is_empty() {
        large_objects(database.tenant, names).await?;
    }
    let first = database.bring(declared, rules, refused).await?;
    // A policy that was kept for a right that is now taken back.
    let last =
        if first.keeps_policies && first.took_back { database.bring(declared, rules, refused).await? } else { first };
    Ok((last.reports, last.is_complete))
}

/// The databases of a server.
struct Databases<'a> {
    /// A superuser's session in `postgres`.
    own: &'a Client,
    /// A superuser's session in the tenant's database.
    tenant: &'a Client,
    socket: &'a str,
    names: &'a PostgresNames,
}

/// The result of one comparison with the declared state.
struct Brought {
    reports: BTreeMap<String, RightsReport>,
    is_complete: bool,
    /// Whether a right was taken back.
    took_back: bool,
    /// Whether a row policy that is not declared was kept, because its client had the right that it limits.
    keeps_policies: bool,
}

impl Databases<'_> {
    async fn bring(
        &self,
        declared: &[clients::Client],
        rules: Rules,
        refused: &mut Refused,
    ) -> Result<Brought, EnsureError> {
        let Self { own, tenant, names, .. } = *self;
        let mut roles: Vec<_> = declared.iter().map(|client| names.client(&client.name)).collect();
        roles.extend(declared.iter().flat_map(|client| (1..=2).map(|turn| names.client_login(&client.name, turn))));
        let failed = |source| EnsureError::Statement { what: "the catalog of the clients' rights".to_owned(), source };
        let catalog =
            Catalog::read(tenant, names, &roles, &decide::named_with_columns(declared)).await.map_err(failed)?;
        let mut wanted: Vec<(String, Wanted)> =
            declared.iter().map(|client| (client.name.clone(), wanted_of(client, names, &catalog))).collect();
        let (changes, keeps_policies) = policies::changes(names, &wanted, &catalog);
        let (clients, mut is_complete, mut took_back) = (declared.len(), true, false);
        for change in changes {
            is_complete &= self.change_policies(&change, &mut wanted, &catalog, refused).await?;
        }
        let mut reports = BTreeMap::new();
        let nothing = BTreeSet::new();
        for (client, mut wanted) in wanted {
            let role = names.client(&client);
            let granted = granted(own, &client).await?;
            let held = catalog.held.get(&role).unwrap_or(&nothing);
            let change = decide::rights(&role, &mut wanted, held, &granted, rules.revoke_undeclared);
            let declared: BTreeSet<_> = wanted.rights.iter().map(ToString::to_string).collect();
            // Before they are granted: a run that is interrupted has granted them as declared.
            remember(own, &client, &granted, &granted.union(&declared).cloned().collect()).await?;
            let mut changes = vec![change];
            for turn in 1..=2 {
                let login = names.client_login(&client, turn);
                if let Some(held) = catalog.held.get(&login) {
                    changes.push(of_login(names, &client, &login, held, &mut wanted, rules));
                }
            }
            let before = wanted.report.failed.len();
            for change in changes {
                took_back |= !change.revoke.is_empty();
                if let Err(error) = apply(tenant, &client, &change).await {
                    wanted.report.failed.push(error.to_string());
                }
            }
            let is_applied = wanted.report.failed.len() == before;
            is_complete &= is_applied;
            if is_applied {
                remember(own, &client, &granted.union(&declared).cloned().collect(), &declared).await?;
            }
            reports.insert(client, decide::shortened(wanted.report, clients));
        }
        Ok(Brought { reports, is_complete, took_back, keeps_policies })
    }

    /// Row policies of one table, in one transaction for all clients; where an expression is refused, in one for each.
    /// The rights that a refused one limits are withheld from its client alone. Returns false if the table was locked by
    /// others for too long.
    async fn change_policies(
        &self,
        change: &PolicyChange,
        wanted: &mut [(String, Wanted)],
        catalog: &Catalog,
        refused: &mut Refused,
    ) -> Result<bool, EnsureError> {
        let mut of = |clients: &[&str], tell: &mut dyn FnMut(&str, &mut Wanted)| {
            for (client, wanted) in wanted.iter_mut().filter(|(client, _)| clients.contains(&client.as_str())) {
                tell(client, wanted);
            }
        };
        let all: Vec<&str> = change.declaring.iter().map(String::as_str).collect();
        if let Some(problem) = refused.get(&change.of_table) {
            of(&all, &mut |_, wanted| policies::withhold(wanted, &change.table, problem));
            return Ok(true);
        }
        let (mut changing, mut tries) = (Vec::new(), Vec::new());
        for (client, statements) in &change.of_clients {
            match refused.get(statements) {
                Some(problem) => of(&[client], &mut |_, wanted| policies::withhold(wanted, &change.table, problem)),
                None => changing.push(client.as_str()),
            }
        }
        let has_own = !change.of_table.is_empty();
        if changing.is_empty() && !has_own {
            return Ok(true);
        }
        tries.push((changing.clone(), has_own));
        let mut is_alone = changing.len() + usize::from(has_own) == 1;
        // The first is all of it; if that is refused, each part follows, that of the table first.
        while let Some((clients, of_table)) = tries.pop() {
            let what = format!("the row policies of {}.{}", change.table.0, change.table.1);
            match as_owner(self.socket, self.names, &what, &change.transaction(&clients, of_table)).await {
                Ok(()) => {
                    tracing::info!(table = ?change.table, ?clients, "the row policies of a table are as declared")
                }
                Err(EnsureError::Statement { source, .. }) if is_refusal(&source) && is_alone => {
                    let problem = describe(&source);
                    let depend = if of_table { &all } else { &clients };
                    of(depend, &mut |_, wanted| policies::withhold(wanted, &change.table, &problem));
                    if of_table {
                        refused.insert(change.of_table.clone(), problem);
                        return Ok(true);
                    }
                    for statements in clients.iter().filter_map(|client| change.of_clients.get(*client)) {
                        refused.insert(statements.clone(), problem.clone());
                    }
                }
                Err(EnsureError::Statement { source, .. }) if is_refusal(&source) => {
                    is_alone = true;
                    tries.extend(changing.iter().rev().map(|client| (vec![*client], false)));
                    tries.extend(has_own.then(|| (Vec::new(), true)));
                }
                // A table that others have locked keeps back its own rights, and no others.
                Err(error @ (EnsureError::Statement { .. } | EnsureError::TooLong { .. })) => {
                    tracing::warn!(%error, "the row policies of a table cannot be changed now; retrying");
                    let rest = tries.iter().flat_map(|(clients, _)| clients);
                    let depend: Vec<_> =
                        if of_table { all.clone() } else { clients.iter().chain(rest).copied().collect() };
                    of(&depend, &mut |client, wanted| {
                        let held = catalog.held.get(&self.names.client(client));
                        policies::postpone(wanted, &change.table, held, &error.to_string());
                    });
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Classes of errors that say nothing of the statement: a connection, a demotion, a conflict, a lock, a limit, an end of
/// the server.
const TRANSIENT: [&str; 8] = ["08", "25", "40", "53", "55", "57", "58", "XX"];

/// Whether an expression, or a right of the owner, is wrong: it is so again at the next try. A constant in an expression
/// is read by a function of its type, which may fail in any way.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| !TRANSIENT.iter().any(|class| code.code().starts_with(class)))
}

/// A client owns nothing, so it does not create large objects either.
async fn large_objects(tenant: &Client, names: &PostgresNames) -> Result<(), EnsureError> {
    let what = "the right to create large objects";
    let failed = |source| EnsureError::Statement { what: what.to_owned(), source };
    let query = "SELECT EXISTS (SELECT FROM pg_proc p, aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) x
                 WHERE p.oid = 'pg_catalog.lo_creat(integer)'::regprocedure AND x.grantee = 0)";
    if tenant.query_one(query, &[]).await.map_err(failed)?.try_get(0).map_err(failed)? {
        let (owner, app) = (ident(&names.owner()), ident(&names.app()));
        let statements = format!(
            "BEGIN; GRANT EXECUTE ON FUNCTION {LARGE_OBJECTS} TO {owner}, {app};
             REVOKE EXECUTE ON FUNCTION {LARGE_OBJECTS} FROM PUBLIC; COMMIT;"
        );
        execute(tenant, what, &statements).await?;
    }
    Ok(())
}

/// The right to connect to a database.
fn connect(database: &str) -> Right {
    Right::on(Kind::Database, "", database, "CONNECT")
}

/// The right to connect to a database, as `servicedb.clients` has what was granted.
pub fn noted_connect(database: &str) -> String {
    connect(database).to_string()
}

/// The declared rights of a client. With short-lived logins the right to connect is its role's, from which they have it: a
/// login with a right of its own could not be dropped.
fn wanted_of(client: &clients::Client, names: &PostgresNames, catalog: &Catalog) -> Wanted {
    let mut wanted = decide::wanted(client, catalog);
    if client.dynamic().is_some() {
        wanted.rights.insert(connect(&names.database));
    }
    wanted
}

/// A login has no rights but those of its client.
fn of_login(
    names: &PostgresNames,
    client: &str,
    login: &str,
    held: &BTreeSet<Held>,
    wanted: &mut Wanted,
    rules: Rules,
) -> RightsChange {
    let role = |name: &str| Right::on(Kind::Role, "", name, "MEMBER");
    let own = BTreeSet::from([role(&names.client(client)), role(&names.clients()), connect(&names.database)]);
    let mut of_login = Wanted { rights: own, ..Wanted::default() };
    let change = decide::rights(login, &mut of_login, held, &BTreeSet::new(), rules.revoke_undeclared);
    wanted.report.undeclared.extend(of_login.report.undeclared.into_iter().map(|line| format!("{login}: {line}")));
    // What it must have is granted with its password.
    RightsChange { grant: Vec::new(), ..change }
}

async fn apply(tenant: &Client, client: &str, change: &RightsChange) -> Result<(), EnsureError> {
    if change.revoke.is_empty() && change.grant.is_empty() {
        return Ok(());
    }
    let mut statements = String::from("BEGIN;");
    for (grantor, statement) in &change.revoke {
        statements += &format!("SET LOCAL ROLE {}; {statement} SET LOCAL ROLE NONE;", ident(grantor));
    }
    statements.extend(change.grant.iter().map(String::as_str));
    execute(tenant, &format!("the rights of the client {client}"), &(statements + "COMMIT;")).await?;
    tracing::info!(client, granted = change.grant.len(), revoked = change.revoke.len(), "the client's rights changed");
    Ok(())
}

/// The rights that were granted as declared.
async fn granted(own: &Client, client: &str) -> Result<BTreeSet<String>, EnsureError> {
    let failed = |source| EnsureError::Statement { what: "the granted rights".to_owned(), source };
    let row = own.query_opt("SELECT granted FROM servicedb.clients WHERE client = $1", &[&client]).await;
    let row = row.map_err(failed)?;
    let rights: Vec<String> = row.map(|row| row.try_get(0).map_err(failed)).transpose()?.unwrap_or_default();
    Ok(rights.into_iter().collect())
}

async fn remember(
    own: &Client,
    client: &str,
    before: &BTreeSet<String>,
    now: &BTreeSet<String>,
) -> Result<(), EnsureError> {
    if before == now {
        return Ok(());
    }
    let failed = |source| EnsureError::Statement { what: "the granted rights".to_owned(), source };
    let rights: Vec<&str> = now.iter().map(String::as_str).collect();
    let update = "UPDATE servicedb.clients SET granted = $2 WHERE client = $1";
    own.execute(update, &[&client, &rights]).await.map(drop).map_err(failed)
}
