//! The first names of a list, for a message, with the number of the others.

use std::fmt::{self, Display, Formatter};

/// Names in the order of the catalog's query, which reads only the first of them.
#[derive(Debug)]
pub struct Named {
    /// The first names, quoted as in a statement.
    pub names: Vec<String>,
    /// How many there are in all.
    pub count: i64,
}

impl Display for Named {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))?;
        match usize::try_from(self.count).unwrap_or_default().saturating_sub(self.names.len()) {
            0 => Ok(()),
            others => write!(f, " and {others} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_are_counted() {
        let named = |count| Named { names: vec!["public.a".into(), "public.b".into()], count }.to_string();
        assert_eq!(named(2), "public.a, public.b");
        assert_eq!(named(7), "public.a, public.b and 5 more");
    }
}
