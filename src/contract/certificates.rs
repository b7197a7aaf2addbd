//! Certificates as operator and agents compare them: the trusted authorities of a database, and the
//! certificates that a pod has loaded.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

/// The certificates in `contract::pod::TLS_DIR`, in the order of [`fingerprint`].
pub const FILES: [&str; 5] = ["ca.crt", "server.crt", "replicator.crt", "rewinder.crt", "patroni.crt"];

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The content of a `ca.crt`: one certificate authority or, while one replaces another, several.
/// The same authorities are always the same text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities(BTreeSet<String>);

impl Authorities {
    /// Reads the certificates of a PEM text; other content is skipped.
    pub fn from_pem(text: &str) -> Self {
        let blocks = text.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(END));
        Self(blocks.map(|(body, _)| block(body)).collect())
    }

    /// The certificates as one PEM text.
    pub fn to_pem(&self) -> String {
        self.0.iter().map(String::as_str).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it contains all of these.
    pub fn include(&self, others: &Self) -> bool {
        others.0.is_subset(&self.0)
    }

    /// The union of both.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        Self(self.0.union(&others.0).cloned().collect())
    }

    /// The difference of both.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        Self(self.0.difference(&others.0).cloned().collect())
    }

    /// Each certificate, PEM.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// One certificate, with normalised line breaks and indentation.
fn block(body: &str) -> String {
    let lines: Vec<_> = body.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"))
}

/// Identifies the content of [`FILES`]. The keys are exchanged together with their certificates.
pub fn fingerprint<'a>(contents: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for content in contents {
        // Lengths prevent the end of one file from counting as the beginning of the next.
        hash.update(content.len().to_be_bytes());
        hash.update(content);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(body: &str) -> String {
        format!("{BEGIN}\n{body}\n{END}\n")
    }

    #[test]
    fn the_same_authorities_are_the_same_text_in_any_order_and_form() {
        let (one, two) = (certificate("AAAA"), certificate("BBBB"));
        let bundle = Authorities::from_pem(&format!("{two}\r\nsome words\r\n{}", one.replace('\n', "\r\n")));
        assert_eq!(bundle, Authorities::from_pem(&format!("{one}{two}{one}")));
        assert_eq!(bundle.to_pem(), format!("{one}{two}"));
        assert_eq!(Authorities::from_pem(&one).to_pem(), one, "one authority's file stays as it is");
        assert!(bundle.include(&Authorities::from_pem(&one)) && !Authorities::from_pem(&one).include(&bundle));
        assert!(Authorities::from_pem("nonsense").is_empty());
    }

    #[test]
    fn contents_are_told_apart_by_where_they_end() {
        let print = |contents: [&'static str; 2]| fingerprint(contents.map(str::as_bytes));
        assert_ne!(print(["ab", "c"]), print(["a", "bc"]));
        assert_eq!(print(["ab", "c"]), print(["ab", "c"]));
    }
}
