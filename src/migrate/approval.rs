//! The statements of a run that need an approval.

use super::classify;
use super::outcome::cut;
use crate::api::{HeldStatement, PendingApproval};

/// How many statements are shown, and how much of each: the result must fit into a termination
/// message.
const SHOWN: usize = 12;
const FILE: usize = 80;
const WHY: usize = 120;

/// The statements of these files, names and texts in execution order, that need an approval; `id` is
/// the id of the approval.
pub fn needed<'a>(files: impl Iterator<Item = (&'a str, &'a str)>, id: &str) -> Option<PendingApproval> {
    let mut count = 0;
    let mut statements = Vec::new();
    for (file, sql) in files {
        for held in classify::held(sql) {
            count += 1;
            if statements.len() < SHOWN {
                let (file, why) = (cut(file, FILE), cut(&held.why, WHY));
                statements.push(HeldStatement { file, line: Some(held.line), why });
            }
        }
    }
    (count > 0).then(|| PendingApproval { id: id.to_owned(), count, statements })
}

/// The same for a team's own tool, whose effect is unknown.
pub fn of_tool(image: &str, id: &str) -> PendingApproval {
    let why = "a team's own tool can do anything".to_owned();
    let statements = vec![HeldStatement { file: image.to_owned(), line: None, why }];
    PendingApproval { id: id.to_owned(), count: 1, statements }
}

/// The message.
pub fn message(approval: &PendingApproval) -> String {
    let first = approval.statements.first().map(ToString::to_string).unwrap_or_default();
    let more = match approval.count {
        ..=1 => String::new(),
        count => format!(", and {} more", count - 1),
    };
    format!("waits for approval: {first}{more} (status.migrations.approval)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_files_need_no_approval() {
        let files = [("1_a.up.sql", "CREATE TABLE a (id int);\nCREATE INDEX ON a (id);")];
        assert_eq!(needed(files.into_iter(), "id"), None);
    }

    #[test]
    fn all_statements_are_counted_and_some_are_shown() {
        let many = "DROP TABLE a;\n".repeat(30);
        let files =
            [("2_b.up.sql", "CREATE TABLE b ();\n-- gone\nALTER TABLE a DROP COLUMN id;"), ("3_c.up.sql", &*many)];
        let approval = needed(files.into_iter(), "id").expect("some wait");
        assert_eq!((approval.count, approval.statements.len()), (31, SHOWN));
        let first = &approval.statements[0];
        assert_eq!((first.file.as_str(), first.line), ("2_b.up.sql", Some(3)));
        let message = message(&approval);
        assert!(message.starts_with("waits for approval: 2_b.up.sql, line 3: "), "{message}");
        assert!(message.contains("and 30 more"), "{message}");
    }
}
