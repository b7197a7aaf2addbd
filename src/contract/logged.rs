//! The server's settings for `spec.monitoring` and `spec.audit`.

use std::collections::BTreeMap;

use crate::api::names::PostgresNames;
use crate::api::{AuditSpec, MonitoringSpec};

/// The setting that pgaudit goes by, which `spec.audit` owns where it is given.
pub const AUDIT: &str = "pgaudit.log";
/// The setting with the role whose rights name the audited relations, which `spec.audit` owns likewise.
pub const AUDIT_ROLE: &str = "pgaudit.role";

/// The settings; those of `spec.postgres.parameters` come over them.
pub fn settings(monitoring: &MonitoringSpec, audit: &AuditSpec) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    if let Some(seconds) = monitoring.slow_query_seconds {
        set("log_min_duration_statement", format!("{seconds}s"));
        set("log_parameter_max_length", "0".to_owned());
        set("log_lock_waits", "on".to_owned());
        set("log_temp_files", "10MB".to_owned());
    }
    if !audit.is_empty() {
        let mut classes: Vec<_> = audit.classes.iter().map(|class| class.name()).collect();
        classes.sort_unstable();
        if !classes.is_empty() {
            set(AUDIT, classes.join(","));
        }
        if audit.granted_relations {
            set(AUDIT_ROLE, PostgresNames::AUDIT.to_owned());
        }
        set("pgaudit.log_parameter", "off".to_owned());
        // Of a query on a tenant's table, not of those by which a driver learns its types.
        set("pgaudit.log_catalog", "off".to_owned());
        set("log_connections", "on".to_owned());
        // Under an agent of an earlier version, whose server writes no JSON: the address after login and database.
        set("log_line_prefix", "%m [%p] %q%u@%d %h ".to_owned());
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AuditClass;

    #[test]
    fn nothing_is_set_that_nobody_asked_for() {
        assert!(settings(&MonitoringSpec::default(), &AuditSpec::default()).is_empty());
    }

    #[test]
    fn values_of_parameters_stay_out_of_the_log() {
        let monitoring = MonitoringSpec { slow_query_seconds: Some(2), ..MonitoringSpec::default() };
        let audit = AuditSpec { classes: vec![AuditClass::Write, AuditClass::Ddl], ..AuditSpec::default() };
        let settings = settings(&monitoring, &audit);
        assert_eq!(settings["log_min_duration_statement"], "2s");
        assert_eq!(settings["log_parameter_max_length"], "0");
        assert_eq!(settings[AUDIT], "ddl,write");
        assert_eq!(settings["pgaudit.log_parameter"], "off");
        assert!(!settings.contains_key(AUDIT_ROLE));
    }

    #[test]
    fn relations_are_audited_by_a_role_with_classes_or_without() {
        let audit = AuditSpec { granted_relations: true, ..AuditSpec::default() };
        let settings = settings(&MonitoringSpec::default(), &audit);
        assert_eq!(settings[AUDIT_ROLE], "servicedb_audit");
        assert!(!settings.contains_key(AUDIT), "no class is logged");
        assert_eq!(settings["pgaudit.log_parameter"], "off");
        assert!(settings["log_line_prefix"].contains("%u@%d"));
    }
}
