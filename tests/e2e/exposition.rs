//! Pages in Prometheus' text format.

use std::collections::BTreeMap;

/// A sample's name and its labels; a label without a value counts as absent.
pub type Series = (String, BTreeMap<String, String>);

/// A page.
#[derive(Debug, Default)]
pub struct Page {
    /// The types of the metrics.
    pub types: BTreeMap<String, String>,
    /// The samples.
    pub samples: BTreeMap<Series, f64>,
}

impl Page {
    /// Reads a page.
    pub fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                let known = page.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(known, None, "the samples of {name} are in two places");
            } else if !line.starts_with('#') {
                let (series, value) = sample(line);
                let known = page.samples.insert(series.clone(), value);
                assert_eq!(known, None, "twice: {series:?}");
            }
        }
        page
    }

    /// The value of the only sample of this name.
    pub fn value(&self, name: &str) -> Option<f64> {
        let mut found = self.samples.iter().filter(|((of, _), _)| of == name).map(|(_, value)| *value);
        found.next().filter(|_| found.next().is_none())
    }

    /// The values of a metric with this label.
    pub fn labelled(&self, name: &str, label: &str, content: &str) -> Vec<f64> {
        let matches = |(of, labels): &Series| of == name && labels.get(label).is_some_and(|have| have == content);
        self.samples.iter().filter(|(series, _)| matches(series)).map(|(_, value)| *value).collect()
    }
}

fn sample(line: &str) -> (Series, f64) {
    let mut labels = BTreeMap::new();
    let end = line.find(['{', ' ']).expect("a sample");
    let (name, mut rest) = line.split_at(end);
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.trim_start_matches(',').split_once("=\"").expect("a label");
            let mut content = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next().expect("the end of a label") {
                    (at, '"') => break at + 1,
                    (_, '\\') => content.push(match characters.next().expect("an escaped character").1 {
                        'n' => '\n',
                        other => other,
                    }),
                    (_, other) => content.push(other),
                }
            };
            if !content.is_empty() {
                labels.insert(label.to_owned(), content);
            }
            rest = &after[end..];
        }
        rest = &rest[1..];
    }
    let value = rest.trim().parse().unwrap_or_else(|_| panic!("no number: {line}"));
    ((name.to_owned(), labels), value)
}
