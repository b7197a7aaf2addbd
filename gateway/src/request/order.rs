//! `order=age.desc.nullslast,directors(name)`.

use super::cursor::Cursor;
use super::{Order, Problem};

/// The members of an `order`.
pub(super) fn order(text: &str) -> Result<Vec<Order>, Problem> {
    let mut cursor = Cursor::new(text);
    let mut found = Vec::new();
    loop {
        found.push(member(&mut cursor)?);
        if !cursor.skip(",") {
            break;
        }
    }
    if cursor.is_at_end() {
        Ok(found)
    } else {
        Err(cursor.unexpected("\",\", \"asc\", \"desc\", \"nullsfirst\" or \"nullslast\""))
    }
}

fn member(cursor: &mut Cursor<'_>) -> Result<Order, Problem> {
    let first = cursor.field()?;
    let mut order = if first.path.is_empty() && cursor.skip("(") {
        let field = cursor.field()?;
        cursor.expect(")")?;
        Order { relation: Some(first.column), field, descending: false, nulls_first: None }
    } else {
        Order { relation: None, field: first, descending: false, nulls_first: None }
    };
    while cursor.skip(".") {
        match cursor.until(&['.', ',']) {
            "asc" => order.descending = false,
            "desc" => order.descending = true,
            "nullsfirst" => order.nulls_first = Some(true),
            "nullslast" => order.nulls_first = Some(false),
            _ => return Err(cursor.unexpected("\"asc\", \"desc\", \"nullsfirst\" or \"nullslast\"")),
        }
    }
    Ok(order)
}
