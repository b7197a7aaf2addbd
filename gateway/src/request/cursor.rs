//! Reading a text from its beginning to its end.

use super::{Field, Key, Step};
use crate::problem::Problem;

/// A position in a text.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Whether nothing is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    /// Steps over this text, if it comes next.
    pub(super) fn skip(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Steps over spaces.
    pub(super) fn spaces(&mut self) {
        while self.skip(" ") || self.skip("\t") || self.skip("\n") {}
    }

    /// Steps over this text, which must come next.
    pub(super) fn expect(&mut self, text: &str) -> Result<(), Problem> {
        if self.skip(text) { Ok(()) } else { Err(self.unexpected(&format!("\"{text}\""))) }
    }

    /// The text up to the first of these characters, or to the end.
    pub(super) fn until(&mut self, ends: &[char]) -> &'a str {
        let rest = self.rest();
        let found = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += found.len();
        found
    }

    /// The error that something else was expected here.
    pub(super) fn unexpected(&self, expected: &str) -> Problem {
        let found = match self.rest().chars().next() {
            Some(next) => format!("found \"{next}\""),
            None => "found the end".to_owned(),
        };
        Problem::request("PGRST100", format!("\"{}\" could not be read", shortened(self.text)))
            .details(format!("at position {}: expected {expected}, {found}", self.text[..self.at].chars().count() + 1))
    }

    /// A text in double quotes, in which a backslash takes the next character as it is.
    pub(super) fn quoted(&mut self) -> Result<String, Problem> {
        self.expect("\"")?;
        let mut found = String::new();
        let mut escaped = false;
        for (offset, next) in self.rest().char_indices() {
            if escaped {
                found.push(next);
                escaped = false;
            } else if next == '\\' {
                escaped = true;
            } else if next == '"' {
                self.at += offset + 1;
                return Ok(found);
            } else {
                found.push(next);
            }
        }
        self.at = self.text.len();
        Err(self.unexpected("\"\"\" at the end of a quoted text"))
    }

    /// A text in double quotes, if a comma, a parenthesis or the end follows it: otherwise the quotes are part of a text
    /// that ends at one of these.
    pub(super) fn quoted_or_plain(&mut self) -> String {
        let begin = self.at;
        if let Ok(found) = self.quoted()
            && self.rest().chars().next().is_none_or(|next| ",)".contains(next))
        {
            return found;
        }
        self.at = begin;
        self.until(&[',', ')']).to_owned()
    }

    /// A name: quoted, or up to a character that has a meaning.
    pub(super) fn name(&mut self) -> Result<String, Problem> {
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let rest = self.rest();
        // A hyphen belongs to a name unless an arrow begins with it.
        let end = rest
            .char_indices()
            .find(|(offset, next)| ".,():!\"".contains(*next) || rest[*offset..].starts_with("->"))
            .map_or(rest.len(), |(offset, _)| offset);
        if rest[..end].trim().is_empty() {
            return Err(self.unexpected("a name"));
        }
        self.at += end;
        Ok(rest[..end].trim().to_owned())
    }

    /// A column with its way into JSON.
    pub(super) fn field(&mut self) -> Result<Field, Problem> {
        let column = self.name()?;
        Ok(Field { column, path: self.path()? })
    }

    /// A way into JSON, which may be empty.
    pub(super) fn path(&mut self) -> Result<Vec<Step>, Problem> {
        let mut path = Vec::new();
        while self.skip("->") {
            let text = self.skip(">");
            path.push(Step { key: self.key()?, text });
        }
        Ok(path)
    }

    /// A key into JSON: quoted, an index, or a name up to a character that has a meaning here.
    fn key(&mut self) -> Result<Key, Problem> {
        let rest = self.rest();
        if rest.starts_with('"') {
            return Ok(Key::Name(self.quoted()?));
        }
        let end = rest
            .char_indices()
            .find(|(offset, next)| ".,():>".contains(*next) || rest[*offset..].starts_with("->"))
            .map_or(rest.len(), |(offset, _)| offset);
        let written = rest[..end].trim();
        let key = match written.parse() {
            Ok(index) if !written.starts_with('+') => Key::Index(index),
            _ if written.is_empty() || written.starts_with('-') => return Err(self.unexpected("a key or an index")),
            _ => Key::Name(written.to_owned()),
        };
        self.at += end;
        Ok(key)
    }
}

/// At most a hundred characters of a text, for a message.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
