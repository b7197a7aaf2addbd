//! The order of versions. PostgreSQL knows none: a version is a text for it, and an update script may lead back.

/// A part of a version. A word is lower than the end, and the end than a number: 3.6.0beta1, 3.6.0, 3.6.0.1.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    Word(&'a str),
    End,
    Number(u64),
}

/// Whether a version is lower than another one.
pub fn is_lower(one: &str, other: &str) -> bool {
    parts(one).into_iter().chain([Part::End]).lt(parts(other).into_iter().chain([Part::End]))
}

fn parts(version: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for text in version.split(|c: char| !c.is_ascii_alphanumeric()) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let is_same = |c: char| c.is_ascii_digit() == first.is_ascii_digit();
            let end = rest.find(|c: char| !is_same(c)).unwrap_or(rest.len());
            let (part, after) = rest.split_at(end);
            parts.push(part.parse().map_or(Part::Word(part), Part::Number));
            rest = after;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_of_their_numbers() {
        let ordered = ["0.8.0", "0.8.7", "0.10", "1.4", "1.4-1", "1.5", "3.6.0beta1", "3.6.0", "3.6.0.1", "3.6.4"];
        for (at, one) in ordered.iter().enumerate() {
            for (other_at, other) in ordered.iter().enumerate() {
                assert_eq!(is_lower(one, other), at < other_at, "{one} {other}");
            }
        }
    }
}
