//! One right of a client, and its statements.

use std::fmt;

use crate::postgres::ident;

/// What a right is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A schema.
    Schema,
    /// A table or view.
    Table,
    /// A column of one.
    Column,
    /// A sequence.
    Sequence,
    /// A function; never declared.
    Function,
    /// The database; never declared.
    Database,
    /// Another role, as its member; never declared.
    Role,
    /// Objects that a role will create; never declared.
    Later,
    /// A large object; never declared.
    LargeObject,
    /// A foreign server; never declared.
    Server,
    /// An object that the client owns; never declared, and not taken back: what it would go to would run its code.
    Owned,
}

impl Kind {
    /// As the catalog query names it.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "schema" => Self::Schema,
            "table" => Self::Table,
            "column" => Self::Column,
            "sequence" => Self::Sequence,
            "function" => Self::Function,
            "database" => Self::Database,
            "role" => Self::Role,
            "later" => Self::Later,
            "large object" => Self::LargeObject,
            "server" => Self::Server,
            "owned" => Self::Owned,
            _ => return None,
        })
    }
}

/// A right, without the role that has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// What it is on.
    pub kind: Kind,
    /// The schema; empty outside of schemas.
    pub schema: String,
    /// The table, view, sequence, database, role or server; a function with its arguments; what is to come, as in a
    /// statement; the description of an owned object; empty for a schema.
    pub object: String,
    /// The column; empty for others.
    pub column: String,
    /// As in a statement.
    pub privilege: String,
}

impl Right {
    /// On a schema.
    pub fn usage(schema: &str) -> Self {
        Self {
            kind: Kind::Schema,
            schema: schema.to_owned(),
            object: String::new(),
            column: String::new(),
            privilege: "USAGE".to_owned(),
        }
    }

    /// On a table, view or sequence.
    pub fn on(kind: Kind, schema: &str, object: &str, privilege: &str) -> Self {
        Self {
            kind,
            schema: schema.to_owned(),
            object: object.to_owned(),
            column: String::new(),
            privilege: privilege.to_owned(),
        }
    }

    /// On a column.
    pub fn on_column(schema: &str, table: &str, column: &str, privilege: &str) -> Self {
        Self { column: column.to_owned(), ..Self::on(Kind::Column, schema, table, privilege) }
    }

    /// Whether a statement can take it back.
    pub fn is_revocable(&self) -> bool {
        self.kind != Kind::Owned
    }

    /// The statement that grants it to a role.
    pub fn grant(&self, role: &str) -> String {
        format!("GRANT {} TO {};", self.subject(), ident(role))
    }

    /// The statement that takes it back from a role, with what the role granted by it.
    pub fn revoke(&self, role: &str) -> String {
        format!("{}REVOKE {} FROM {} CASCADE;", self.prefix(), self.subject(), ident(role))
    }

    /// The statement that takes back the right to grant it.
    pub fn revoke_option(&self, role: &str) -> String {
        let option = if self.kind == Kind::Role { "ADMIN OPTION" } else { "GRANT OPTION" };
        format!("{}REVOKE {option} FOR {} FROM {} CASCADE;", self.prefix(), self.subject(), ident(role))
    }

    /// Of the role that grants it on what it will create.
    fn prefix(&self) -> String {
        match (self.kind, self.schema.as_str()) {
            (Kind::Later, "") => "ALTER DEFAULT PRIVILEGES ".to_owned(),
            (Kind::Later, schema) => format!("ALTER DEFAULT PRIVILEGES IN SCHEMA {} ", ident(schema)),
            _ => String::new(),
        }
    }

    fn subject(&self) -> String {
        let name = || format!("{}.{}", ident(&self.schema), ident(&self.object));
        let privilege = &self.privilege;
        match self.kind {
            Kind::Schema => format!("{privilege} ON SCHEMA {}", ident(&self.schema)),
            Kind::Table => format!("{privilege} ON TABLE {}", name()),
            Kind::Column => format!("{privilege} ({}) ON TABLE {}", ident(&self.column), name()),
            Kind::Sequence => format!("{privilege} ON SEQUENCE {}", name()),
            // The name and the arguments are quoted by PostgreSQL.
            Kind::Function => format!("{privilege} ON ROUTINE {}.{}", ident(&self.schema), self.object),
            Kind::Database => format!("{privilege} ON DATABASE {}", ident(&self.object)),
            Kind::Role => ident(&self.object),
            // `TABLES` or another word, and a number.
            Kind::Later => format!("{privilege} ON {}", self.object),
            Kind::LargeObject => format!("{privilege} ON LARGE OBJECT {}", self.object),
            Kind::Server => format!("{privilege} ON FOREIGN SERVER {}", ident(&self.object)),
            Kind::Owned => String::new(),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schema, object, column, privilege, .. } = self;
        match self.kind {
            Kind::Schema => write!(formatter, "{privilege} on the schema {schema}"),
            Kind::Table => write!(formatter, "{privilege} on {schema}.{object}"),
            Kind::Column => write!(formatter, "{privilege} on {schema}.{object} ({column})"),
            Kind::Sequence => write!(formatter, "{privilege} on the sequence {schema}.{object}"),
            Kind::Function => write!(formatter, "{privilege} on the function {schema}.{object}"),
            Kind::Database => write!(formatter, "{privilege} on the database {object}"),
            Kind::Role => write!(formatter, "membership in the role {object}"),
            Kind::Later if schema.is_empty() => write!(formatter, "{privilege} on all {object} to come"),
            Kind::Later => write!(formatter, "{privilege} on all {object} to come in the schema {schema}"),
            Kind::LargeObject => write!(formatter, "{privilege} on the large object {object}"),
            Kind::Server => write!(formatter, "{privilege} on the foreign server {object}"),
            Kind::Owned => write!(formatter, "ownership of the {object}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_come_is_taken_back_by_another_statement() {
        let right = |schema: &str| Right::on(Kind::Later, schema, "TABLES", "SELECT");
        assert_eq!(
            right("a b").revoke("r"),
            "ALTER DEFAULT PRIVILEGES IN SCHEMA \"a b\" REVOKE SELECT ON TABLES FROM \"r\" CASCADE;"
        );
        assert_eq!(
            right("").revoke_option("r"),
            "ALTER DEFAULT PRIVILEGES REVOKE GRANT OPTION FOR SELECT ON TABLES FROM \"r\" CASCADE;"
        );
    }
}
