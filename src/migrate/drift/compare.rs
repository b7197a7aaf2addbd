//! Compares the catalog of a live database with that of a database built from the same
//! migrations. It does no I/O: `catalog.sql` reads both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The catalog of a database, by kind and identity.
pub type Catalog = BTreeMap<(String, String), String>;

/// The maximum length of a printed definition, in characters.
const SHOWN: usize = 120;

/// Kinds whose definitions are never printed: they are programs, or texts that may contain secrets,
/// such as another server's address or a key in a setting.
const HIDDEN: [&str; 12] = [
    "aggregate",
    "comment",
    "foreign data wrapper",
    "foreign server",
    "foreign table",
    "function",
    "materialized view",
    "procedure",
    "rule",
    "security label",
    "setting",
    "view",
];

/// Kinds with columns.
const RELATIONS: [&str; 4] = ["foreign table", "materialized view", "table", "view"];

/// Kinds that describe another object: the identity has that object's kind and identity.
const SAID_OF: [&str; 4] = ["comment", "owner", "privileges", "security label"];

/// Kinds outside of schemas.
const IN_NO_SCHEMA: [&str; 8] = [
    "cast",
    "default privileges",
    "extension",
    "foreign data wrapper",
    "foreign server",
    "publication",
    "schema",
    "setting",
];

/// One object that differs from the migrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The kind, such as `column`.
    pub kind: String,
    /// The identity, such as `public.users.email`, quoted as in SQL.
    pub identity: String,
    /// The difference.
    pub what: What,
}

/// The difference of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The migrations create it, and it does not exist.
    Missing,
    /// It exists, and the migrations do not create it.
    Unexpected,
    /// It exists and is different. A definition may contain a function's body: [`Difference`] prints
    /// only definitions without secrets.
    Changed {
        /// The definition according to the migrations.
        declared: String,
        /// The existing definition.
        live: String,
    },
}

/// Compares two catalogs, in the order of kind and identity. Consequences of another difference are
/// omitted: the parts of a missing table, the contents of such a schema, and the properties that a
/// partition inherits from its table.
pub fn differences(declared: &Catalog, live: &Catalog) -> Vec<Difference> {
    let mut found: BTreeMap<(&str, &str), What> = BTreeMap::new();
    for ((kind, identity), definition) in declared {
        let what = match live.get(&(kind.clone(), identity.clone())) {
            None => What::Missing,
            Some(other) if other != definition => What::Changed { declared: definition.clone(), live: other.clone() },
            Some(_) => continue,
        };
        found.insert((kind, identity), what);
    }
    for key @ (kind, identity) in live.keys() {
        if !declared.contains_key(key) {
            found.insert((kind, identity), What::Unexpected);
        }
    }

    let follows = Follows::new(&found, declared, live);
    let kept = found.iter().filter(|((kind, identity), what)| !follows.is_said_with_another(kind, identity, what));
    kept.map(|((kind, identity), what)| Difference {
        kind: (*kind).to_owned(),
        identity: (*identity).to_owned(),
        what: what.clone(),
    })
    .collect()
}

/// Finds the consequences of other differences.
struct Follows<'a> {
    found: &'a BTreeMap<(&'a str, &'a str), What>,
    /// The objects that are missing or unexpected as a whole.
    whole: BTreeSet<(&'a str, &'a str)>,
    /// The relations among them.
    relations: BTreeSet<&'a str>,
    /// The tables from which a table inherits columns, on either side.
    parents: BTreeMap<&'a str, BTreeSet<&'a str>>,
    declared: &'a Catalog,
    live: &'a Catalog,
}

impl<'a> Follows<'a> {
    fn new(found: &'a BTreeMap<(&'a str, &'a str), What>, declared: &'a Catalog, live: &'a Catalog) -> Self {
        let is_whole = |what: &What| matches!(what, What::Missing | What::Unexpected);
        let whole: BTreeSet<_> = found.iter().filter(|(_, what)| is_whole(what)).map(|(key, _)| *key).collect();
        let relations = whole.iter().filter(|(kind, _)| RELATIONS.contains(kind)).map(|(_, identity)| *identity);
        let mut parents: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (kind, identity) in declared.keys().chain(live.keys()) {
            if matches!(kind.as_str(), "partition" | "inheritance")
                && let Some((child, parent)) = split(identity, " of ")
            {
                parents.entry(child).or_default().insert(parent);
            }
        }
        Self { relations: relations.collect(), whole, parents, found, declared, live }
    }

    fn is_said_with_another(&self, kind: &str, identity: &str, what: &What) -> bool {
        self.is_part(kind, identity)
            || self.is_inherited(kind, identity, what)
            || self.is_of_identity(kind, identity, what)
    }

    /// Whether it is a part of an object that is missing or unexpected as a whole.
    fn is_part(&self, kind: &str, identity: &str) -> bool {
        if SAID_OF.contains(&kind) {
            return self.has_subject(identity);
        }
        if !IN_NO_SCHEMA.contains(&kind) && self.whole.contains(&("schema", first(identity))) {
            return true;
        }
        match kind {
            "column" => split(identity, ".").is_some_and(|(table, _)| self.relations.contains(table)),
            "partition" | "inheritance" => split(identity, " of ")
                .is_some_and(|(child, parent)| self.relations.contains(child) || self.relations.contains(parent)),
            // A serial's sequence: it exists only with its column.
            "sequence" => self.owner_of_sequence(identity).is_some_and(|column| {
                self.whole.contains(&("column", column))
                    || split(column, ".").is_some_and(|(table, _)| self.relations.contains(table))
            }),
            "default privileges" => {
                split(identity, " in schema ").is_some_and(|(_, schema)| self.whole.contains(&("schema", schema)))
            }
            _ => split(identity, " on ").is_some_and(|(_, table)| self.relations.contains(table)),
        }
    }

    /// Whether the described object is missing or unexpected itself.
    fn has_subject(&self, identity: &str) -> bool {
        if let Some(column) = identity.strip_prefix("sequence of ") {
            return self.whole.contains(&("column", column)) || self.is_part("column", column);
        }
        let spaces = identity.match_indices(' ').map(|(at, _)| at);
        spaces.map(|at| (&identity[..at], &identity[at + 1..])).any(|(kind, identity)| {
            self.whole.contains(&(kind, identity)) || (is_kind(kind) && self.is_part(kind, identity))
        })
    }

    fn owner_of_sequence(&self, identity: &str) -> Option<&str> {
        let key = ("sequence".to_owned(), identity.to_owned());
        let definition = self.declared.get(&key).or_else(|| self.live.get(&key))?;
        split(definition, " OWNED BY ").map(|(_, column)| column)
    }

    /// Whether it describes the sequence of a column that is no longer an identity column.
    fn is_of_identity(&self, kind: &str, identity: &str, what: &What) -> bool {
        let column = identity.strip_prefix("sequence of ").filter(|_| SAID_OF.contains(&kind));
        !matches!(what, What::Changed { .. })
            && column.is_some_and(|column| self.found.contains_key(&("column", column)))
    }

    /// Whether it is a column with the same difference in the table that it is inherited from.
    fn is_inherited(&self, kind: &str, identity: &str, what: &What) -> bool {
        if kind != "column" {
            return false;
        }
        let Some((table, column)) = split(identity, ".") else { return false };
        let parents = self.parents.get(table).into_iter().flatten();
        parents
            .map(|parent| format!("{parent}.{column}"))
            .any(|above| self.found.get(&(kind, above.as_str())) == Some(what))
    }
}

/// A text that is the name of a kind, and not the beginning of an identity.
fn is_kind(text: &str) -> bool {
    text.chars().all(|letter| letter.is_ascii_lowercase() || letter == ' ')
}

/// Splits at the last separator that is not in a quoted name.
fn split<'t>(text: &'t str, separator: &str) -> Option<(&'t str, &'t str)> {
    let outside = text.match_indices(separator).filter(|(at, _)| text[..*at].matches('"').count().is_multiple_of(2));
    outside.last().map(|(at, _)| (&text[..at], &text[at + separator.len()..]))
}

/// The schema of an identity, or of its table.
fn first(identity: &str) -> &str {
    let relation = split(identity, " on ").map_or(identity, |(_, table)| table);
    let mut quoted = false;
    let end = relation.find(|letter: char| {
        quoted ^= letter == '"';
        letter == '.' && !quoted
    });
    end.map_or(relation, |end| &relation[..end])
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A quoted name may contain any character, and a message is one line.
        let identity: String =
            self.identity.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
        let (subject, are) = match self.kind.as_str() {
            "owner" => (format!("the owner of {identity}"), "is"),
            "privileges" => (format!("the privileges on {identity}"), "are"),
            "comment" => (format!("the comment on {identity}"), "is"),
            "security label" => (format!("the security label of {identity}"), "is"),
            "default privileges" => (format!("the default privileges of {identity}"), "are"),
            "setting" => (format!("the database's setting {identity}"), "is"),
            "statistics" => (format!("statistics {identity}"), "are"),
            kind => (format!("{kind} {identity}"), "is"),
        };
        match &self.what {
            What::Missing => write!(formatter, "{subject} {are} missing"),
            What::Unexpected => write!(formatter, "{subject} {are} not in the migrations"),
            What::Changed { declared, live } if self.may_show(declared) && self.may_show(live) => {
                write!(formatter, "{subject} {are} {}; the migrations define {}", shown(live), shown(declared))
            }
            What::Changed { .. } => {
                let differ = if are == "are" { "differ" } else { "differs" };
                write!(formatter, "{subject} {differ} from the migrations")
            }
        }
    }
}

impl Difference {
    fn may_show(&self, definition: &str) -> bool {
        // A literal may be a secret.
        !HIDDEN.contains(&self.kind.as_str())
            && !definition.contains('\'')
            && definition.chars().count() <= SHOWN
            && !definition.contains(char::is_control)
    }
}

fn shown(definition: &str) -> &str {
    if definition.is_empty() { "nothing" } else { definition }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(rows: &[(&str, &str, &str)]) -> Catalog {
        rows.iter().map(|(kind, identity, text)| (((*kind).into(), (*identity).into()), (*text).into())).collect()
    }

    fn report(declared: &[(&str, &str, &str)], live: &[(&str, &str, &str)]) -> Vec<String> {
        differences(&catalog(declared), &catalog(live)).iter().map(ToString::to_string).collect()
    }

    /// A table with all kinds of parts.
    const TABLE: [(&str, &str, &str); 13] = [
        ("column", "public.users.email", "text"),
        ("column", "public.users.id", "integer NOT NULL"),
        ("comment", "column public.users.email", "a comment"),
        ("constraint", "users_pkey on public.users", "PRIMARY KEY (id)"),
        ("index", "public.users_email_idx on public.users", "CREATE INDEX ..."),
        ("owner", "table public.users", "a"),
        ("privileges", "column public.users.email", "b: SELECT"),
        ("privileges", "sequence of public.users.id", "b: USAGE"),
        ("privileges", "table public.users", "owner: ALL"),
        ("sequence", "public.users_id_seq", "integer OWNED BY public.users.id"),
        ("owner", "sequence public.users_id_seq", "a"),
        ("table", "public.users", "logged"),
        ("trigger", "touch on public.users", "CREATE TRIGGER ..."),
    ];

    #[test]
    fn the_same_is_no_difference() {
        assert_eq!(report(&TABLE, &TABLE), Vec::<String>::new());
        assert_eq!(report(&[], &[]), Vec::<String>::new());
    }

    #[test]
    fn a_change_is_reported_with_both_sides() {
        let declared = [("column", "public.users.email", "text"), ("owner", "table public.users", "a")];
        let live = [("column", "public.users.email", "text NOT NULL"), ("owner", "table public.users", "postgres")];
        assert_eq!(
            report(&declared, &live),
            [
                "column public.users.email is text NOT NULL; the migrations define text",
                "the owner of table public.users is postgres; the migrations define a"
            ]
        );
    }

    #[test]
    fn a_part_of_an_existing_table_is_reported() {
        let without = |kind: &str| TABLE.into_iter().filter(|row| row.0 != kind).collect::<Vec<_>>();
        assert_eq!(report(&TABLE, &without("index")), ["index public.users_email_idx on public.users is missing"]);
        assert_eq!(report(&without("trigger"), &TABLE), ["trigger touch on public.users is not in the migrations"]);
    }

    #[test]
    fn a_whole_table_is_one_line() {
        assert_eq!(report(&TABLE, &[]), ["table public.users is missing"]);
        assert_eq!(report(&[], &TABLE), ["table public.users is not in the migrations"]);
    }

    #[test]
    fn parts_of_a_missing_column_are_omitted() {
        let live: Vec<_> =
            TABLE.into_iter().filter(|row| !row.1.contains("users.id") && !row.1.contains("_id_seq")).collect();
        assert_eq!(report(&TABLE, &live), ["column public.users.id is missing"]);
    }

    #[test]
    fn a_column_that_is_no_identity_any_more_has_no_sequence() {
        let declared = [
            ("column", "public.users.id", "integer GENERATED ALWAYS AS IDENTITY"),
            ("privileges", "sequence of public.users.id", "owner: ALL"),
        ];
        let lines = report(&declared, &[("column", "public.users.id", "integer")]);
        assert_eq!(
            lines,
            ["column public.users.id is integer; the migrations define integer GENERATED ALWAYS AS IDENTITY"]
        );
        let mut live = declared;
        live[1].2 = "b: USAGE; owner: ALL";
        assert_eq!(
            report(&declared, &live),
            [
                "the privileges on sequence of public.users.id are b: USAGE; owner: ALL; the migrations define owner: ALL"
            ]
        );
    }

    #[test]
    fn a_whole_schema_is_one_line() {
        let mut live = TABLE.to_vec();
        live.extend([
            ("schema", "app", ""),
            ("owner", "schema app", "a"),
            ("table", "app.x", "logged"),
            ("function", "app.f(integer, text)", "CREATE ..."),
            ("owner", "function app.f(integer, text)", "a"),
            ("privileges", "function app.f(integer, text)", "PUBLIC: ALL"),
            ("constraint", "k on app.x", "CHECK (true)"),
            ("default privileges", "a on tables in schema app", "b: SELECT"),
        ]);
        assert_eq!(report(&TABLE, &live), ["schema app is not in the migrations"]);
    }

    #[test]
    fn a_partition_has_its_columns_from_the_table() {
        let declared = [
            ("column", "public.e.id", "integer"),
            ("column", "public.e1.id", "integer"),
            ("column", "public.e2.id", "integer"),
            ("partition", "public.e1 of public.e", "DEFAULT"),
            ("partition", "public.e2 of public.e1", "DEFAULT"),
        ];
        let live =
            declared.map(|(kind, identity, text)| (kind, identity, if kind == "column" { "bigint" } else { text }));
        assert_eq!(report(&declared, &live), ["column public.e.id is bigint; the migrations define integer"]);
        let mut one = declared;
        one[1].2 = "integer DEFAULT 1";
        assert_eq!(
            report(&declared, &one),
            ["column public.e1.id is integer DEFAULT 1; the migrations define integer"]
        );
    }

    #[test]
    fn programs_long_and_many_lined_texts_are_not_shown() {
        let long = "x".repeat(SHOWN + 1);
        let declared = [
            ("function", "public.f()", "secret one"),
            ("view", "public.v", "SELECT 1"),
            ("index", "public.i on public.t", "short"),
            ("policy", "p on public.t", "a\nb"),
            ("setting", "app.key", "secret two"),
        ];
        let live = [
            ("function", "public.f()", "secret three"),
            ("view", "public.v", "SELECT 2"),
            ("index", "public.i on public.t", long.as_str()),
            ("policy", "p on public.t", "c"),
            ("setting", "app.key", "secret four"),
        ];
        let lines = report(&declared, &live);
        assert_eq!(lines.len(), 5);
        assert!(lines.iter().all(|line| line.ends_with("differs from the migrations")), "{lines:?}");
    }

    #[test]
    fn quoted_names_are_not_split() {
        assert_eq!(split(r#"public."a.b"."c on d""#, "."), Some((r#"public."a.b""#, r#""c on d""#)));
        assert_eq!(split(r#""x on public.users""#, " on "), None);
        assert_eq!(split(r#""a"" on b" on public.c"#, " on "), Some((r#""a"" on b""#, "public.c")));
        assert_eq!(first(r#""my.schema".t"#), r#""my.schema""#);
        assert_eq!(first(r#"k on "my.schema".t"#), r#""my.schema""#);
        // A constraint of that name, on another table than the one that is missing.
        let odd = (r"constraint", r#""x on public.users" on public.t"#, "CHECK (true)");
        let mut declared = TABLE.to_vec();
        declared.push(odd);
        assert_eq!(
            report(&declared, &[]),
            [r#"constraint "x on public.users" on public.t is missing"#, "table public.users is missing"]
        );
    }

    #[test]
    fn a_line_is_one_line() {
        let lines = report(&[], &[("table", "public.\"a\nb\"", "logged")]);
        assert_eq!(lines, ["table public.\"a\u{fffd}b\" is not in the migrations"]);
    }

    #[test]
    fn no_privileges_are_nothing() {
        let declared = [("privileges", "table public.t", "owner: ALL")];
        let live = [("privileges", "table public.t", "")];
        assert_eq!(
            report(&declared, &live),
            ["the privileges on table public.t are nothing; the migrations define owner: ALL"]
        );
    }
}
