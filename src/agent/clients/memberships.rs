//! The memberships of a login of Servicedb's own in the roles of clients, and of others in it.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::postgres::ident;

/// A membership of the login in another role, or of another role in the login.
pub struct Membership {
    pub role: String,
    pub member: String,
    pub grantor: String,
    /// Whether the login may become the role, has none of its rights before, and does not pass it on; and a superuser
    /// granted it.
    pub is_exact: bool,
}

/// Reads the memberships of a login.
///
/// # Errors
/// If the server refuses.
pub async fn read(client: &Client, login: &str) -> Result<Vec<Membership>, tokio_postgres::Error> {
    let query = "SELECT g.rolname::text, r.rolname::text, b.rolname::text,
                        m.set_option AND NOT m.inherit_option AND NOT m.admin_option AND b.oid = 10
                 FROM pg_catalog.pg_auth_members m
                 JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
                 JOIN pg_catalog.pg_roles r ON r.oid = m.member
                 JOIN pg_catalog.pg_roles b ON b.oid = m.grantor
                 WHERE $1 IN (g.rolname, r.rolname)";
    let read = |row: &tokio_postgres::Row| {
        Ok(Membership {
            role: row.try_get(0)?,
            member: row.try_get(1)?,
            grantor: row.try_get(2)?,
            is_exact: row.try_get(3)?,
        })
    };
    client.query(query, &[&login]).await?.iter().map(read).collect()
}

/// The statements that revoke what is not wanted, each from who granted it; and the roles whose membership is as it has
/// to be.
pub fn revocations(found: &[Membership], login: &str, is_wanted: impl Fn(&str) -> bool) -> (String, BTreeSet<String>) {
    let (mut statements, mut kept) = (String::new(), BTreeSet::new());
    for Membership { role, member, grantor, is_exact } in found {
        if member == login && *is_exact && is_wanted(role) {
            kept.insert(role.clone());
        } else {
            let (role, member, grantor) = (ident(role), ident(member), ident(grantor));
            statements += &format!("REVOKE {role} FROM {member} GRANTED BY {grantor} CASCADE;");
        }
    }
    (statements, kept)
}
