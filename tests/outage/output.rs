//! The output of a run: a table and a JSON document, in target/dev.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use crate::harness::cluster::dev_file;
use crate::settings::say;

/// Rows as a table of Markdown; the first is its head.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
    let width = |column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, width) in widths.iter().enumerate() {
            let _ = write!(text, "| {:width$} ", cell(row, column));
        }
        text.push_str("|\n");
        if index == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Prints the text, and writes it and the document as `<name>.md` and `<name>.json`.
pub fn leave(name: &str, text: &str, document: &Value) {
    say(&format!("\n{text}"));
    let json = format!("{document:#}\n");
    for (file, content) in [(format!("{name}.md"), text), (format!("{name}.json"), json.as_str())] {
        let path = dev_file(&file);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
