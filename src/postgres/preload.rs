//! The libraries that a server loads when it starts.

use crate::contract::extension::{CRON, PRELOADED};

/// Those that every server of the database image loads, so that their extensions need no restart. Without an extension
/// the first counts statements and the second logs nothing.
pub const ALWAYS: &str = "pg_stat_statements,pgaudit";

/// The scheduler of pg_cron finds its jobs in the database, and PostgreSQL itself runs them, since a role of the tenant
/// has no login for this server. No job runs as the superuser, and the scheduler logs no text of a job, which may have a
/// secret; that PostgreSQL adds none to an error is a setting of the owner's role.
const OF_SCHEDULER: [(&str, &str); 3] =
    [("cron.use_background_workers", "on"), ("cron.enable_superuser_jobs", "off"), ("cron.log_statement", "off")];

/// The settings of a server for a database, with the libraries of the extensions that are loaded on demand.
pub fn settings(database: &str, is_loaded: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
    let on_demand: Vec<_> = PRELOADED.into_iter().filter(|extension| is_loaded(extension)).collect();
    let libraries = [vec![ALWAYS], on_demand.clone()].concat().join(",");
    let mut settings = vec![("shared_preload_libraries", libraries)];
    if on_demand.contains(&CRON) {
        settings.push(("cron.database_name", database.to_owned()));
        settings.extend(OF_SCHEDULER.map(|(name, value)| (name, value.to_owned())));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_with_a_process_of_its_own_is_loaded_only_where_it_is_declared() {
        let settings = |declared: &str| settings("chat_db", |extension| extension == declared);
        assert_eq!(settings("vector"), [("shared_preload_libraries", ALWAYS.to_owned())]);
        let with_cron = settings(CRON);
        assert_eq!(with_cron[0].1, "pg_stat_statements,pgaudit,pg_cron");
        assert!(with_cron.contains(&("cron.database_name", "chat_db".to_owned())), "{with_cron:?}");
        assert!(with_cron.contains(&("cron.enable_superuser_jobs", "off".to_owned())), "{with_cron:?}");
    }
}
