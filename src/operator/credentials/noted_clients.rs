//! The clients with a login of their own that have objects in Vault: their names in the custom metadata of the record
//! `runtime`. They are packed, several names a key: Vault allows 64 keys for a record, and 64 clients may be declared.

use std::collections::{BTreeMap, BTreeSet};

/// The custom metadata of a record.
pub type Metadata = BTreeMap<String, String>;

/// Before the number of a key with names.
const PACKED: &str = "servicedb-clients-";
/// Before the name of one client: the form of earlier versions, which had a key for each.
const SINGLE: &str = "servicedb-client-";
/// Between two names; no name contains it.
const SEPARATOR: char = ',';
/// The maximum length of a value in Vault, in bytes.
const MAXIMUM_VALUE: usize = 512;

/// The noted names, in either form.
pub fn names(metadata: &Metadata) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (key, value) in metadata {
        if let Some(name) = key.strip_prefix(SINGLE) {
            names.insert(name.to_owned());
        } else if key.starts_with(PACKED) {
            names.extend(value.split(SEPARATOR).filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    names
}

/// The metadata with these names noted, and no others; the rest is kept. The same names always give the same keys, so
/// that nothing is written at rest.
pub fn with(metadata: &Metadata, names: &BTreeSet<String>) -> Metadata {
    let is_other = |key: &str| !key.starts_with(SINGLE) && !key.starts_with(PACKED);
    let others = metadata.iter().filter(|(key, _)| is_other(key));
    let mut noted: Metadata = others.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut values: Vec<String> = Vec::new();
    for name in names {
        match values.last_mut() {
            Some(value) if value.len() + SEPARATOR.len_utf8() + name.len() <= MAXIMUM_VALUE => {
                value.push(SEPARATOR);
                value.push_str(name);
            }
            _ => values.push(name.clone()),
        }
    }
    noted.extend(values.into_iter().zip(1..).map(|(value, number)| (format!("{PACKED}{number}"), value)));
    noted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(entries: &[(&str, &str)]) -> Metadata {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_former_keys_are_read_and_replaced_and_those_of_others_are_kept() {
        let former = metadata(&[
            ("servicedb-client-bot", "login"),
            ("servicedb-client-s-1", "login"),
            ("servicedb-clients-1", "mail,reader"),
            ("servicedb-uid", "u"),
            ("team", "a"),
        ]);
        let known = names(&former);
        assert_eq!(known, set(&["bot", "mail", "reader", "s-1"]));
        let packed = with(&former, &known);
        let wanted = metadata(&[("servicedb-clients-1", "bot,mail,reader,s-1"), ("servicedb-uid", "u"), ("team", "a")]);
        assert_eq!(packed, wanted);
        assert_eq!(with(&packed, &known), packed, "nothing is left to write");
        assert_eq!(with(&packed, &set(&[])), metadata(&[("servicedb-uid", "u"), ("team", "a")]));
    }

    #[test]
    fn the_longest_names_of_64_clients_take_three_keys_that_vault_accepts() {
        let all: BTreeSet<String> = (0..64).map(|number| format!("long-{number:015}")).collect();
        let noted = with(&Metadata::new(), &all);
        assert_eq!(
            noted.keys().map(String::as_str).collect::<Vec<_>>(),
            ["servicedb-clients-1", "servicedb-clients-2", "servicedb-clients-3"]
        );
        assert!(noted.values().all(|value| value.len() <= MAXIMUM_VALUE), "{noted:?}");
        assert_eq!(names(&noted), all);
    }
}
