//! `select=id,title,total:price.sum(),...directors(name),roles!inner(character)`.

use super::cursor::Cursor;
use super::{Aggregate, Bounds, Column, Embed, Field, Item, Problem, Query};

/// The members of a `select`.
pub(super) fn select(text: &str, bounds: &mut Bounds) -> Result<Vec<Item>, Problem> {
    let mut cursor = Cursor::new(text);
    let found = items(&mut cursor, bounds)?;
    if cursor.is_at_end() { Ok(found) } else { Err(cursor.unexpected("\",\"")) }
}

/// The names of `columns=a,b` and `on_conflict=a,b`.
pub fn columns(text: &str) -> Result<Vec<String>, Problem> {
    let mut cursor = Cursor::new(text);
    let mut found = vec![cursor.name()?];
    while cursor.skip(",") {
        found.push(cursor.name()?);
    }
    if cursor.is_at_end() { Ok(found) } else { Err(cursor.unexpected("\",\"")) }
}

fn items(cursor: &mut Cursor<'_>, bounds: &mut Bounds) -> Result<Vec<Item>, Problem> {
    let mut found = Vec::new();
    if cursor.is_at_end() || cursor.rest().starts_with(')') {
        return Ok(found);
    }
    loop {
        while cursor.skip(" ") || cursor.skip("\n") {}
        found.push(item(cursor, bounds)?);
        while cursor.skip(" ") || cursor.skip("\n") {}
        if !cursor.skip(",") {
            return Ok(found);
        }
    }
}

fn item(cursor: &mut Cursor<'_>, bounds: &mut Bounds) -> Result<Item, Problem> {
    if cursor.skip("*") {
        return Ok(Item::All);
    }
    let spread = cursor.skip("...");
    let mut name = cursor.name()?;
    let mut alias = None;
    // One colon names, two cast.
    if cursor.rest().starts_with(':') && !cursor.rest().starts_with("::") {
        cursor.skip(":");
        alias = Some(name);
        name = cursor.name()?;
    }
    if cursor.rest().starts_with('!')
        || cursor.rest().starts_with('(') && !(name == "count" && cursor.rest().starts_with("()"))
    {
        return embed(
            cursor,
            Embed { relation: name, alias, hint: None, inner: false, spread, query: Query::default() },
            bounds,
        );
    }
    if spread {
        return Err(cursor.unexpected("\"(\""));
    }
    if name == "count" && cursor.skip("()") {
        let aggregate_cast = cast(cursor)?;
        return Ok(Item::Column(Column {
            field: None,
            alias,
            cast: None,
            aggregate: Some(Aggregate::Count),
            aggregate_cast,
        }));
    }
    let field = Field { column: name, path: cursor.path()? };
    let mut column = Column { field: Some(field), alias, cast: cast(cursor)?, aggregate: None, aggregate_cast: None };
    if cursor.skip(".") {
        let function = cursor.name()?;
        cursor.expect("()")?;
        column.aggregate = Some(Aggregate::named(&function).ok_or_else(|| {
            Problem::request("PGRST100", format!("\"{function}\" is no aggregate"))
                .hint("count, sum, avg, min and max are")
        })?);
        column.aggregate_cast = cast(cursor)?;
    }
    Ok(Item::Column(column))
}

/// What follows the name of an embedded collection.
fn embed(cursor: &mut Cursor<'_>, mut embed: Embed, bounds: &mut Bounds) -> Result<Item, Problem> {
    // Each is a join: they count as conditions do.
    bounds.take()?;
    let mut inner = bounds.below()?;
    while cursor.skip("!") {
        match cursor.name()?.as_str() {
            "inner" => embed.inner = true,
            "left" => embed.inner = false,
            hint => embed.hint = Some(hint.to_owned()),
        }
    }
    cursor.expect("(")?;
    embed.query.select = items(cursor, &mut inner)?;
    bounds.conditions = inner.conditions;
    cursor.expect(")")?;
    Ok(Item::Embed(embed))
}

/// `::type`.
fn cast(cursor: &mut Cursor<'_>) -> Result<Option<String>, Problem> {
    if !cursor.skip("::") {
        return Ok(None);
    }
    let written = cursor.until(&['.', ',', ')', '(']);
    type_name(written).map(Some)
}

/// A type as SQL: quoted, so that nothing but a type's name can stand there.
fn type_name(written: &str) -> Result<String, Problem> {
    let (name, array) = match written.strip_suffix("[]") {
        Some(element) => (element, "[]"),
        None => (written, ""),
    };
    let lower = name.trim().to_ascii_lowercase();
    let known = match lower.as_str() {
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "real" => "float4",
        "double precision" | "float" => "float8",
        "decimal" => "numeric",
        "boolean" => "bool",
        "character varying" => "varchar",
        "character" | "char" => "bpchar",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        "time with time zone" => "timetz",
        "time without time zone" => "time",
        "bit varying" => "varbit",
        other => other,
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if known.is_empty() || !known.chars().all(allowed) {
        return Err(Problem::request("PGRST100", "the name of a type has letters, digits, \"_\" and \"[]\""));
    }
    Ok(format!("\"{known}\"{array}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { conditions: 50, depth: 4 };

    #[test]
    fn names_casts_paths_and_aggregates() {
        let found = select("a,b:c::text,d->e->>0,f.sum()::int,count(),*", &mut BOUNDS.clone()).expect("a select");
        let [Item::Column(a), Item::Column(b), Item::Column(d), Item::Column(f), Item::Column(count), Item::All] =
            found.as_slice()
        else {
            panic!("{found:?}")
        };
        assert_eq!(a.field.as_ref().map(|field| field.column.as_str()), Some("a"));
        assert_eq!((b.alias.as_deref(), b.cast.as_deref()), (Some("b"), Some("\"text\"")));
        assert_eq!(d.field.as_ref().map(|field| field.path.len()), Some(2));
        assert_eq!((f.aggregate, f.aggregate_cast.as_deref()), (Some(Aggregate::Sum), Some("\"int4\"")));
        assert_eq!((count.aggregate, count.field.is_none()), (Some(Aggregate::Count), true));
    }

    #[test]
    fn embedding() {
        let found =
            select("x:films!key!inner(id,roles(actors(name))),...directors(name),\"odd, name\"", &mut BOUNDS.clone())
                .expect("a select");
        let [Item::Embed(films), Item::Embed(directors), Item::Column(_)] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(
            (films.name(), films.hint.as_deref(), films.inner, films.query.select.len()),
            ("x", Some("key"), true, 2)
        );
        assert!(directors.spread);
        assert_eq!(select("a(b(c(d(e(f)))))", &mut BOUNDS.clone()).expect_err("too deep").code, "SDB102");
        let many = vec!["a(b())"; 26].join(",");
        assert_eq!(select(&many, &mut BOUNDS.clone()).expect_err("too many").code, "SDB101");
    }

    #[test]
    fn nothing_but_a_type_stands_in_a_cast() {
        for text in [
            "a::text)",
            "a::\"x\"",
            "a::int;",
            "a::int4 FROM x",
            "a::",
            "a::pg_catalog.text",
            "a.sum",
            "a.sleep()",
            "...a",
            "(a)",
            "a(",
            "a)",
        ] {
            assert_eq!(select(text, &mut BOUNDS.clone()).expect_err(text).code, "PGRST100", "{text}");
        }
        assert!(select("a::double precision,b::int[]", &mut BOUNDS.clone()).is_ok());
    }
}
