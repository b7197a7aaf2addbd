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
    /// The table, view, sequence, database or role; a function with its arguments; empty for a schema.
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

    /// The statement that grants it to a role.
    pub fn grant(&self, role: &str) -> String {
        format!("GRANT {} TO {};", self.subject(), ident(role))
    }

    /// The statement that takes it back from a role, with what the role granted by it.
    pub fn revoke(&self, role: &str) -> String {
        format!("REVOKE {} FROM {} CASCADE;", self.subject(), ident(role))
    }

    /// The statement that takes back the right to grant it.
    pub fn revoke_option(&self, role: &str) -> String {
        let option = if self.kind == Kind::Role { "ADMIN OPTION" } else { "GRANT OPTION" };
        format!("REVOKE {option} FOR {} FROM {} CASCADE;", self.subject(), ident(role))
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
        }
    }
}
