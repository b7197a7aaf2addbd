//! The `Prefer` header.

use http::{HeaderMap, StatusCode};

use super::Problem;

/// What a caller prefers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prefer {
    /// What a write answers with.
    pub returning: Option<Return>,
    /// What becomes of a row that is there already.
    pub resolution: Option<Resolution>,
    /// How rows are counted.
    pub count: Option<Count>,
    /// What becomes of a column that a row of the body lacks.
    pub missing: Option<Missing>,
    /// Whether a preference that is not known is an error.
    pub strict: bool,
    /// Whether `handling=lenient` was written: it is what counts without it, too.
    lenient: bool,
    /// The largest number of rows that a write may change; counts with `handling=strict`.
    pub max_affected: Option<u64>,
    /// Whether everything is rolled back at the end: a trial.
    pub rollback: bool,
    /// Whether a replica may answer.
    pub replica: bool,
    /// Whether the answer to a write says from where on a replica has it.
    pub read_after: bool,
    /// Whether `tx=commit` was written: it is what counts without it, too.
    commit: bool,
}

/// `return=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the header")]
pub enum Return {
    Minimal,
    HeadersOnly,
    Representation,
}

/// `resolution=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the header")]
pub enum Resolution {
    MergeDuplicates,
    IgnoreDuplicates,
}

/// `count=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the header")]
pub enum Count {
    Exact,
    Planned,
    Estimated,
}

impl Count {
    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "exact" => Self::Exact,
            "planned" => Self::Planned,
            "estimated" => Self::Estimated,
            _ => return None,
        })
    }
}

/// `missing=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the header")]
pub enum Missing {
    Default,
    Null,
}

impl Prefer {
    /// Reads all `Prefer` headers. What is not known is ignored, unless `handling=strict` is among them.
    ///
    /// # Errors
    /// About unknown preferences, with `handling=strict`.
    pub fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let texts = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        Self::parse(texts.flat_map(|text| text.split([',', ';'])).map(str::trim).filter(|text| !text.is_empty()))
    }

    /// Reads preferences, each `name=value`.
    ///
    /// # Errors
    /// About unknown preferences, with `handling=strict`.
    pub fn parse<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, Problem> {
        let mut prefer = Self::default();
        let mut unknown = Vec::new();
        for text in texts {
            if prefer.wish(text) {
                continue;
            }
            if !prefer.take(text) {
                unknown.push(text.to_owned());
            }
        }
        if prefer.strict && !unknown.is_empty() {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "PGRST122",
                "a preference is not known, and handling=strict",
            )
            .details(format!("not known: {}", unknown.join(", "))));
        }
        Ok(prefer)
    }

    /// One preference that is applied only where it can be: whoever applies it says so.
    fn wish(&mut self, text: &str) -> bool {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match (name.trim(), value.trim()) {
            ("read", "replica") => self.replica = true,
            ("read-after", "") => self.read_after = true,
            _ => return false,
        }
        true
    }

    /// One preference; the first of several of a name counts.
    fn take(&mut self, text: &str) -> bool {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match (name.trim(), value.trim()) {
            ("return", "minimal") => set(&mut self.returning, Return::Minimal),
            ("return", "headers-only") => set(&mut self.returning, Return::HeadersOnly),
            ("return", "representation") => set(&mut self.returning, Return::Representation),
            ("resolution", "merge-duplicates") => set(&mut self.resolution, Resolution::MergeDuplicates),
            ("resolution", "ignore-duplicates") => set(&mut self.resolution, Resolution::IgnoreDuplicates),
            ("count", value) => Count::named(value).is_some_and(|count| set(&mut self.count, count)),
            ("missing", "default") => set(&mut self.missing, Missing::Default),
            ("missing", "null") => set(&mut self.missing, Missing::Null),
            ("handling", "strict") => {
                self.strict = true;
                true
            }
            ("handling", "lenient") => {
                self.lenient = true;
                true
            }
            ("max-affected", value) => value.parse().is_ok_and(|number| set(&mut self.max_affected, number)),
            ("tx", "commit") => {
                self.commit = true;
                true
            }
            ("tx", "rollback") => {
                self.rollback = true;
                true
            }
            _ => false,
        }
    }

    /// `Preference-Applied`, unless nothing was understood: each that counts, once.
    pub fn applied(&self) -> Option<String> {
        let fixed = [
            (self.resolution == Some(Resolution::MergeDuplicates), "resolution=merge-duplicates"),
            (self.resolution == Some(Resolution::IgnoreDuplicates), "resolution=ignore-duplicates"),
            (self.missing == Some(Missing::Default), "missing=default"),
            (self.missing == Some(Missing::Null), "missing=null"),
            (self.returning == Some(Return::Minimal), "return=minimal"),
            (self.returning == Some(Return::HeadersOnly), "return=headers-only"),
            (self.returning == Some(Return::Representation), "return=representation"),
            (self.count == Some(Count::Exact), "count=exact"),
            (self.count == Some(Count::Planned), "count=planned"),
            (self.count == Some(Count::Estimated), "count=estimated"),
            (self.rollback, "tx=rollback"),
            (self.commit && !self.rollback, "tx=commit"),
            (self.strict, "handling=strict"),
            (self.lenient && !self.strict, "handling=lenient"),
        ];
        let mut applied: Vec<_> =
            fixed.into_iter().filter(|(counts, _)| *counts).map(|(_, text)| text.to_owned()).collect();
        applied.extend(self.max_affected.filter(|_| self.strict).map(|most| format!("max-affected={most}")));
        (!applied.is_empty()).then(|| applied.join(", "))
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> bool {
    if place.is_none() {
        *place = Some(value);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_name_counts_and_unknown_ones_do_not() {
        let texts = ["return=minimal", "return=representation", "count=what", "max-affected=3", "max-affected=x"];
        let prefer = Prefer::parse(texts.into_iter()).expect("lenient");
        assert_eq!((prefer.returning, prefer.count, prefer.max_affected), (Some(Return::Minimal), None, Some(3)));
        let wishes = Prefer::parse(["handling=strict", "read = replica", "read-after"].into_iter()).expect("known");
        assert_eq!((wishes.replica, wishes.read_after), (true, true));
        assert_eq!(wishes.applied().as_deref(), Some("handling=strict"), "they are not applied yet");
        assert_eq!(prefer.applied().as_deref(), Some("return=minimal"), "max-affected counts with handling=strict");
        let bounded =
            Prefer::parse(["max-affected=3", "handling=strict", "tx=commit"].into_iter()).expect("known ones");
        assert_eq!(bounded.applied().as_deref(), Some("tx=commit, handling=strict, max-affected=3"));
        let strict = Prefer::parse(["handling=strict", "count=what"].into_iter()).expect_err("strict");
        assert_eq!((strict.code.as_str(), strict.details.as_deref()), ("PGRST122", Some("not known: count=what")));
    }
}
