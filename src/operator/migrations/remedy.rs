//! The remedy in the message of a migration that failed.

use crate::api::conditions::reason;
use crate::api::names::Names;
use crate::contract::migration::Failure;
use crate::operator::validate::Source;

/// Reasons in the spec itself, which a changed spec resolves.
const BY_SPEC: [&str; 2] = [reason::ROLLBACK_REFUSED, reason::TARGET_VERSION_NOT_FOUND];
/// Reasons in the files, whose messages name the remedy: the same files would be refused again.
const BY_FILES: [&str; 4] =
    [reason::AHEAD_OF_SOURCE, reason::CHECKSUM_MISMATCH, reason::MIGRATIONS_MISSING, reason::OUT_OF_ORDER];

/// Whether the file that failed reverts a migration. A Job of an earlier version does not say so.
fn is_down(failure: &Failure) -> bool {
    failure.reverting || failure.file.as_ref().is_some_and(|file| file.ends_with("down.sql"))
}

/// The words after the failure of a Job that is not retried: what runs again automatically, and how to run the same again.
pub fn after(failure: &Failure, source: Option<&Source>, (names, job): (&Names, &str)) -> String {
    let again = || format!("kubectl delete job {job} -n {}", names.namespace);
    let other = match source {
        Some(Source::Image(_)) => "another image",
        Some(Source::Tool(_)) => "another image, command or argument",
        Some(Source::ConfigMaps(_)) | None => "a changed file",
    };
    if BY_SPEC.contains(&failure.reason.as_str()) {
        String::new()
    } else if is_down(failure) {
        format!(
            " (the ledger's copy was run: raise spec.migrations.targetVersion and revert it by a new migration, or \
             correct the copy, docs/migrations.md, and {})",
            again()
        )
    } else if BY_FILES.contains(&failure.reason.as_str()) {
        format!(" ({other} runs automatically)")
    } else {
        format!(" ({other} runs automatically; to run the same again, {})", again())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_are_run_again_only_where_that_can_help() {
        let files = Source::ConfigMaps(vec!["chat".to_owned()]);
        let names = Names::new("messaging", "chat");
        let of = |reason: &str, file: Option<&str>| {
            let failure = Failure { reason: reason.to_owned(), file: file.map(str::to_owned), ..Failure::default() };
            after(&failure, Some(&files), (&names, "chat-db-migrate-1"))
        };
        let command = "kubectl delete job chat-db-migrate-1 -n messaging)";
        assert!(of(reason::MIGRATION_FAILED, Some("1_a.up.sql")).ends_with(command));
        assert!(of(reason::MIGRATION_FAILED, Some("1_a.down.sql")).ends_with(command));
        assert_eq!(of(reason::CHECKSUM_MISMATCH, Some("1_a.up.sql")), " (a changed file runs automatically)");
        assert_eq!(of(reason::ROLLBACK_REFUSED, None), "");
    }
}
