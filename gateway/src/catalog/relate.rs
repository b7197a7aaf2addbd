//! How collections belong together: by foreign keys.

use http::StatusCode;

use super::{Catalog, ForeignKey, Table};
use crate::problem::Problem;

/// A way from the rows of one collection to those of another.
#[derive(Debug)]
pub struct Relation<'a> {
    /// The other collection.
    pub target: &'a Table,
    /// Whether there may be several rows.
    pub many: bool,
    /// Pairs of columns that are equal: of the origin and of the target, or of the origin and of the junction.
    pub on: Vec<(&'a str, &'a str)>,
    /// The table between them.
    pub junction: Option<Junction<'a>>,
    /// Whether the origin has the foreign key.
    own: bool,
    /// The names that choose this way: its foreign keys, its columns, its junction.
    names: Vec<&'a str>,
    /// The column that its foreign key refers to, if that is one.
    referred: Option<&'a str>,
    /// The way in words.
    description: String,
}

/// A table that joins two others.
#[derive(Debug)]
pub struct Junction<'a> {
    /// The table.
    pub table: &'a Table,
    /// Pairs of columns that are equal: of the junction and of the target.
    pub on: Vec<(&'a str, &'a str)>,
}

impl Relation<'_> {
    /// Whether a request means this way by a collection, a foreign key or a column of one.
    fn is_named(&self, name: &str, hint: Option<&str>) -> bool {
        match hint.filter(|hint| *hint != name) {
            None => self.target.name == name || self.junction.is_none() && self.names.contains(&name),
            Some(hint) => self.target.name == name && self.names.contains(&hint),
        }
    }

    /// Whether a request means this way by the column that the foreign key refers to: as a hint, or for one row.
    fn is_named_by_target(&self, name: &str, hint: Option<&str>) -> bool {
        match hint {
            Some(hint) => self.target.name == name && self.referred == Some(hint),
            None => !self.many && self.referred == Some(name),
        }
    }
}

impl Catalog {
    /// The way from a collection to what a request names: a collection, a foreign key, or a column of one.
    ///
    /// # Errors
    /// If there is no way (400), or more than one (300).
    pub fn relation<'a>(&'a self, origin: &'a Table, name: &str, hint: Option<&str>) -> Result<Relation<'a>, Problem> {
        let mut found = self.relations(origin);
        found.retain(|relation| relation.is_named(name, hint));
        if found.is_empty() {
            found = self.relations(origin);
            found.retain(|relation| relation.is_named_by_target(name, hint));
        }
        // A column or key of the collection's own leads one way, unless a collection has the same name.
        if found.len() > 1 && found.iter().any(|relation| relation.target.name != name) {
            found.retain(|relation| !relation.many || relation.target.name == name);
            if found.len() > 1 && found.iter().any(|relation| relation.own && relation.target.name != name) {
                found.retain(|relation| relation.own);
            }
        }
        // By its own name, a collection embeds the rows that refer to its own.
        let refers = |relation: &Relation<'_>| !relation.own && relation.junction.is_none();
        if found.len() > 1 && origin.name == name && found.iter().any(refers) {
            found.retain(refers);
        }
        let mut found = found.into_iter();
        let (first, rest) = (found.next(), found.collect::<Vec<_>>());
        match first {
            None => Err(Problem::request(
                "PGRST200",
                format!("no foreign key leads from \"{}\" to \"{name}\"", origin.name),
            )
            .details(match hint {
                Some(hint) => format!("looked for one by the hint \"{hint}\""),
                None => "looked at the foreign keys of the exposed schemas".to_owned(),
            })),
            Some(only) if rest.is_empty() => Ok(only),
            Some(first) => {
                let ways: Vec<_> = std::iter::once(&first).chain(&rest).map(|way| way.description.clone()).collect();
                Err(Problem::new(
                    StatusCode::MULTIPLE_CHOICES,
                    "PGRST201",
                    format!("more than one way leads from \"{}\" to \"{name}\"", origin.name),
                )
                .details(ways.join("; "))
                .hint(format!("choose one by its foreign key: {name}!<foreign key>(…)")))
            }
        }
    }

    /// All ways that begin at a collection.
    fn relations<'a>(&'a self, origin: &Table) -> Vec<Relation<'a>> {
        let here = origin.key();
        let mut found = Vec::new();
        for key in &self.keys {
            if key.from == here {
                found.extend(self.to_one(key));
            }
            if key.to == here {
                found.extend(self.to_many(key));
                found.extend(self.through(key));
            }
        }
        found
    }

    fn to_one<'a>(&'a self, key: &'a ForeignKey) -> Option<Relation<'a>> {
        let target = self.tables.get(&key.to)?;
        Some(Relation {
            target,
            many: false,
            on: zip(&key.from_columns, &key.to_columns),
            junction: None,
            own: true,
            names: names(key, &key.from_columns),
            referred: only(&key.to_columns),
            description: format!("many-to-one by {} ({})", key.name, key.from_columns.join(", ")),
        })
    }

    fn to_many<'a>(&'a self, key: &'a ForeignKey) -> Option<Relation<'a>> {
        let target = self.tables.get(&key.from)?;
        Some(Relation {
            target,
            many: !key.unique,
            on: zip(&key.to_columns, &key.from_columns),
            junction: None,
            own: false,
            names: names(key, &key.from_columns),
            referred: only(&key.to_columns),
            description: format!("one-to-many by {} ({})", key.name, key.from_columns.join(", ")),
        })
    }

    /// Through the table that has this key, if its primary key has the columns of this one and of another.
    fn through<'a>(&'a self, key: &'a ForeignKey) -> Vec<Relation<'a>> {
        let Some(table) = self.tables.get(&key.from) else { return Vec::new() };
        let in_key = |key: &ForeignKey| key.from_columns.iter().all(|column| table.primary_key.contains(column));
        let others = self.keys.iter().filter(|other| other.from == key.from && other.name != key.name);
        others
            .filter(|other| in_key(key) && in_key(other))
            .filter_map(|other| {
                Some(Relation {
                    target: self.tables.get(&other.to)?,
                    many: true,
                    on: zip(&key.to_columns, &key.from_columns),
                    junction: Some(Junction { table, on: zip(&other.from_columns, &other.to_columns) }),
                    own: false,
                    names: vec![&key.name, &other.name, &table.name],
                    referred: None,
                    description: format!("many-to-many through {} ({}, {})", table.name, key.name, other.name),
                })
            })
            .collect()
    }
}

fn names<'a>(key: &'a ForeignKey, columns: &'a [String]) -> Vec<&'a str> {
    std::iter::once(key.name.as_str()).chain(only(columns)).collect()
}

/// The column, if it is one.
fn only(columns: &[String]) -> Option<&str> {
    match columns {
        [only] => Some(only),
        _ => None,
    }
}

fn zip<'a>(one: &'a [String], other: &'a [String]) -> Vec<(&'a str, &'a str)> {
    one.iter().map(String::as_str).zip(other.iter().map(String::as_str)).collect()
}
