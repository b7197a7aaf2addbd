//! Conditions: `gte.18`, `not.in.(1,2)`, `or=(a.eq.1,and(b.gt.2,c.is.null))`.

use super::cursor::Cursor;
use super::{Bounds, Condition, Field, Is, Operator, Quantifier, Test, TextForm};
use crate::problem::Problem;

/// The condition of a column: everything after the `=` of the query string.
pub(super) fn condition(field: Field, text: &str, bounds: &mut Bounds) -> Result<Condition, Problem> {
    bounds.take()?;
    let mut cursor = Cursor::new(text);
    let condition = test(field, &mut cursor, false)?;
    if cursor.is_at_end() { Ok(condition) } else { Err(cursor.unexpected("the end")) }
}

/// The members of `and=(…)` or `or=(…)`.
pub(super) fn members(text: &str, bounds: &mut Bounds) -> Result<Vec<Condition>, Problem> {
    let mut cursor = Cursor::new(text);
    let found = list(&mut cursor, bounds)?;
    if cursor.is_at_end() { Ok(found) } else { Err(cursor.unexpected("the end")) }
}

/// Conditions in parentheses.
fn list(cursor: &mut Cursor<'_>, bounds: &mut Bounds) -> Result<Vec<Condition>, Problem> {
    let mut inner = bounds.below()?;
    cursor.spaces();
    cursor.expect("(")?;
    let mut found = Vec::new();
    loop {
        cursor.spaces();
        found.push(member(cursor, &mut inner)?);
        cursor.spaces();
        if !cursor.skip(",") {
            break;
        }
    }
    cursor.expect(")")?;
    cursor.spaces();
    bounds.conditions = inner.conditions;
    Ok(found)
}

/// One condition in a list.
fn member(cursor: &mut Cursor<'_>, bounds: &mut Bounds) -> Result<Condition, Problem> {
    let rest = cursor.rest();
    let named = rest.strip_prefix("not.").unwrap_or(rest);
    let begins = |name: &str| named.strip_prefix(name).is_some_and(|rest: &str| rest.trim_start().starts_with('('));
    if begins("and") || begins("or") {
        let negated = cursor.skip("not.");
        let condition = if cursor.skip("and") {
            Condition::All(list(cursor, bounds)?)
        } else {
            cursor.skip("or");
            Condition::Any(list(cursor, bounds)?)
        };
        return Ok(if negated { Condition::Not(Box::new(condition)) } else { condition });
    }
    bounds.take()?;
    let field = cursor.field()?;
    cursor.expect(".")?;
    test(field, cursor, true)
}

/// `[not.]operator.value`.
fn test(field: Field, cursor: &mut Cursor<'_>, nested: bool) -> Result<Condition, Problem> {
    let negated = cursor.skip("not.");
    let name = cursor.until(&['.', '(']);
    let test = if name == "in" {
        cursor.expect(".")?;
        Test::In(values(cursor)?)
    } else if name == "is" {
        cursor.expect(".")?;
        let value = value(cursor, nested)?;
        Test::Is(is(&value)?)
    } else if let Some(form) = TextForm::named(name) {
        let configuration = parenthesised(cursor)?;
        cursor.expect(".")?;
        Test::Text { form, configuration, query: value(cursor, nested)? }
    } else if let Some(operator) = Operator::named(name) {
        let quantifier = match parenthesised(cursor)?.as_deref() {
            None => None,
            Some("any") if operator.is_quantifiable() => Some(Quantifier::Any),
            Some("all") if operator.is_quantifiable() => Some(Quantifier::All),
            Some(other) => return Err(Problem::request("PGRST100", format!("\"{name}({other})\" is no operator"))),
        };
        cursor.expect(".")?;
        Test::Compare { operator, quantifier, value: value(cursor, nested)? }
    } else {
        return Err(unknown_operator(name));
    };
    let condition = Condition::Test { field, test };
    Ok(if negated { Condition::Not(Box::new(condition)) } else { condition })
}

/// The error about an operator that does not exist.
pub(super) fn unknown_operator(name: &str) -> Problem {
    Problem::request("PGRST100", format!("\"{}\" is no operator", super::cursor::shortened(name)))
        .details("a condition has the form operator.value")
        .hint("eq, neq, gt, gte, lt, lte, like, ilike, match, imatch, in, is, isdistinct, fts, plfts, phfts, wfts, cs, cd, ov, sl, sr, nxr, nxl, adj")
}

/// What `is` tests for.
pub(super) fn is(value: &str) -> Result<Is, Problem> {
    // Within a group, spaces may follow.
    Ok(match value.trim_end().to_ascii_lowercase().as_str() {
        "null" => Is::Null,
        "not_null" => Is::NotNull,
        "true" => Is::True,
        "false" => Is::False,
        "unknown" => Is::Unknown,
        _ => {
            return Err(Problem::request("PGRST100", "\"is\" takes null, not_null, true, false or unknown"));
        }
    })
}

/// `(…)` after an operator.
fn parenthesised(cursor: &mut Cursor<'_>) -> Result<Option<String>, Problem> {
    if !cursor.skip("(") {
        return Ok(None);
    }
    let inner = cursor.until(&[')']).to_owned();
    cursor.expect(")")?;
    Ok(Some(inner))
}

/// A value: the whole rest; in a list, a quoted text, an array or range, or a text up to the next comma or parenthesis.
fn value(cursor: &mut Cursor<'_>, nested: bool) -> Result<String, Problem> {
    if !nested {
        return Ok(cursor.until(&[]).to_owned());
    }
    for (open, close) in [("{", '}'), ("[", ']')] {
        if cursor.rest().starts_with(open) {
            return braced(cursor, close);
        }
    }
    Ok(cursor.quoted_or_plain())
}

/// An array, object or range: up to the brace that ends it, quoted texts taken as they are.
fn braced(cursor: &mut Cursor<'_>, close: char) -> Result<String, Problem> {
    let rest = cursor.rest();
    let open = rest.chars().next().unwrap_or('{');
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (offset, next) in rest.char_indices() {
        match next {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            // A range may end in a parenthesis, and begins no other one.
            ')' if close == ']' && depth == 1 => return Ok(taken(cursor, offset + 1)),
            _ if next == open => depth += 1,
            _ if next == close => {
                depth -= 1;
                if depth == 0 {
                    return Ok(taken(cursor, offset + 1));
                }
            }
            _ => {}
        }
    }
    cursor.until(&[]);
    Err(cursor.unexpected(&format!("\"{close}\"")))
}

/// Steps over this many bytes.
fn taken(cursor: &mut Cursor<'_>, length: usize) -> String {
    let found = cursor.rest()[..length].to_owned();
    cursor.skip(&found);
    found
}

/// The values of `in.(…)`.
fn values(cursor: &mut Cursor<'_>) -> Result<Vec<String>, Problem> {
    cursor.expect("(")?;
    cursor.spaces();
    let mut found = Vec::new();
    if cursor.skip(")") {
        return Ok(found);
    }
    loop {
        found.push(cursor.quoted_or_plain());
        if !cursor.skip(",") {
            break;
        }
    }
    cursor.expect(")")?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { conditions: 50, depth: 8 };

    fn of(text: &str) -> Result<Condition, Problem> {
        condition(Field { column: "a".to_owned(), path: Vec::new() }, text, &mut BOUNDS.clone())
    }

    fn compare(operator: Operator, value: &str) -> Test {
        Test::Compare { operator, quantifier: None, value: value.to_owned() }
    }

    fn tests(condition: &Condition) -> Vec<(String, Test)> {
        match condition {
            Condition::Test { field, test } => vec![(field.column.clone(), test.clone())],
            Condition::All(members) | Condition::Any(members) => members.iter().flat_map(tests).collect(),
            Condition::Not(inner) => tests(inner),
        }
    }

    #[test]
    fn a_value_is_the_whole_rest() {
        for value in ["18", "", "a,b)", "\"x\"", "(1", "is.null", "a.b"] {
            let found = of(&format!("eq.{value}")).expect(value);
            assert_eq!(tests(&found)[0].1, compare(Operator::Eq, value));
        }
        assert!(matches!(of("not.eq.1"), Ok(Condition::Not(_))));
    }

    #[test]
    fn lists_and_quotes() {
        let values = |text: &str| match tests(&of(text).expect(text))[0].1.clone() {
            Test::In(values) => values,
            other => panic!("{other:?}"),
        };
        assert_eq!(values("in.(1,2)"), ["1", "2"]);
        assert_eq!(values("in.()"), Vec::<String>::new());
        assert_eq!(values("in.(  )"), Vec::<String>::new());
        assert_eq!(values("in.( 1, 2)"), ["1", " 2"]);
        assert_eq!(values("in.(\"a,b\",\"c\\\"d\",e)"), ["a,b", "c\"d", "e"]);
        // Quotes in the middle are the text's own.
        assert_eq!(values("in.(\"a\"b,c)"), ["\"a\"b", "c"]);
        assert_eq!(values("in.(\"a)"), ["\"a"]);
        for text in ["in.1", "in.(1", "in.(1)2", "in"] {
            assert_eq!(of(text).expect_err(text).code, "PGRST100", "{text}");
        }
    }

    #[test]
    fn values_in_a_group_end_where_they_must() {
        let text = "(a.eq.1,b.in.(2,3),not.or(c.like.*x*,d.cs.{\"y,z\",w}),e.ov.[1,5),f.eq.\"q,)\",g->k->>0.gt.7)";
        let found = Condition::All(members(text, &mut BOUNDS.clone()).expect("a group"));
        let found = tests(&found);
        let values: Vec<String> = found
            .iter()
            .map(|(column, test)| match test {
                Test::Compare { value, .. } => format!("{column} {value}"),
                Test::In(values) => format!("{column} {}", values.join(" ")),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(values, ["a 1", "b 2 3", "c *x*", "d {\"y,z\",w}", "e [1,5)", "f q,)", "g 7"]);
        let spaced = "( and ( a.eq.1 , b.eq.2 ) , not.or (c.in.( 3 ), d.is.null ) )";
        assert_eq!(members(spaced, &mut BOUNDS.clone()).expect("a group").len(), 2);
        for text in ["()", "(a)", "(a.eq.1", "a.eq.1", "(a.eq.1))", "(a.eq.1,)", "(or(a.eq.1)", "(a.eq)"] {
            assert!(members(text, &mut BOUNDS.clone()).is_err(), "{text}");
        }
    }

    #[test]
    fn quantifiers_belong_to_some_operators() {
        for (text, fine) in [
            ("eq(any).{1}", true),
            ("like(all).{a}", true),
            ("neq(any).{1}", false),
            ("cs(any).{1}", false),
            ("eq(some).{1}", false),
        ] {
            assert_eq!(of(text).is_ok(), fine, "{text}");
        }
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        let mut bounds = Bounds { conditions: 2, depth: 2 };
        assert_eq!(members("(a.eq.1,b.eq.2,c.eq.3)", &mut bounds).expect_err("too many").code, "SDB101");
        let mut bounds = Bounds { conditions: 9, depth: 2 };
        assert_eq!(members("(and(or(a.eq.1)))", &mut bounds).expect_err("too deep").code, "SDB102");
        let deep = "(and".repeat(100_000);
        assert_eq!(members(&deep, &mut BOUNDS.clone()).expect_err("too deep").code, "SDB102");
    }
}
