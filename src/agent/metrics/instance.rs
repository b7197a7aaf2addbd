//! What the agent itself knows of its instance: without PostgreSQL's help, so that it is there while the server is not.

use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};
use x509_parser::pem::Pem;

use super::clients;
use super::text::{Family, Kind};
use crate::agent::probes::Readiness;
use crate::contract::backup::Nth;
use crate::contract::certificates::FILES;
use crate::contract::report::{ArchiveReport, Phase, Report, Role};

/// The state that the metrics are made from.
pub struct Instance<'a> {
    /// The agent's report.
    pub report: &'a Report,
    /// The answer to the readiness probe.
    pub ready: &'a Readiness,
    /// How often this agent saw its replica become the primary.
    pub promotions: u64,
    /// The bytes of PostgreSQL's log that were dropped since the agent started.
    pub log_dropped: u64,
    /// The folder of the certificates.
    pub certificates: &'a Path,
    /// The volume's size and free space, in bytes, where they can be read.
    pub volume: Option<(u64, u64)>,
}

impl Instance<'_> {
    /// The metrics.
    pub fn families(&self) -> Vec<Family> {
        let report = self.report;
        let flag = |value: bool| f64::from(u8::from(value));
        let gauge = |name, help, value| Family::single(name, Kind::Gauge, help, value);
        let mut families = Vec::new();

        let mut info = Family::new("servicedb_instance_info", Kind::Gauge, "Versions of the agent and of PostgreSQL");
        let postgres = report.postgres_version.as_deref().unwrap_or_default();
        info.sample([("version", env!("CARGO_PKG_VERSION")), ("postgres_version", postgres)], 1.0);
        families.push(info);
        families.push(gauge(
            "servicedb_up",
            "Whether PostgreSQL answers the agent",
            flag(report.phase == Phase::Running),
        ));
        families.push(gauge("servicedb_ready", "Whether the instance is ready", flag(self.ready.is_none())));
        let help = "Whether the instance is the primary";
        families.push(gauge("servicedb_primary", help, flag(report.role == Some(Role::Primary))));
        families.push(Family::single(
            "servicedb_promotions_total",
            Kind::Counter,
            "How often this instance became the primary after it was a replica, since the agent started",
            self.promotions as f64,
        ));
        if let Some(timeline) = report.timeline {
            families.push(gauge("servicedb_timeline", "PostgreSQL's timeline", f64::from(timeline)));
        }
        families.push(Family::single(
            "servicedb_log_dropped_bytes_total",
            Kind::Counter,
            "PostgreSQL's log that was dropped since the pod's output was read slowly, since the agent started",
            self.log_dropped as f64,
        ));
        let help = "Whether a changed setting waits for a restart";
        families.push(gauge("servicedb_restart_pending", help, flag(report.restart_pending)));
        if let Some(trouble) = &report.trouble {
            let mut family = Family::new("servicedb_trouble", Kind::Gauge, "The instance's problem, by its reason");
            family.sample([("reason", trouble.reason.as_str())], 1.0);
            families.push(family);
        }
        if let Some(vault) = &report.vault {
            let help = "Whether the agent's last access to Vault succeeded";
            families.push(gauge("servicedb_vault_reachable", help, flag(vault.ok)));
        }
        if report.role == Some(Role::Primary) {
            self.of_primary(&mut families);
        }
        if let Some((size, free)) = self.volume {
            families.push(gauge("servicedb_volume_size_bytes", "Size of the volume", size as f64));
            let help = "Space of the volume that PostgreSQL may still use";
            families.push(gauge("servicedb_volume_available_bytes", help, free as f64));
        }
        families.push(expiries(self.certificates));
        families.extend(process());
        families
    }

    fn of_primary(&self, families: &mut Vec<Family>) {
        let report = self.report;
        let gauge = |name, help, value| Family::single(name, Kind::Gauge, help, value);
        let help = "Of the primary: standbys that each commit waits for, one of them";
        families.push(gauge("servicedb_synchronous_standbys", help, report.synchronous_standbys.len() as f64));
        if let Some(credentials) = &report.credentials {
            let help = "Generation of the credentials in Vault that a login proved";
            families.push(gauge("servicedb_credentials_generation", help, credentials.generation as f64));
            let at = credentials.rotated_at.as_second() as f64;
            let help = "When these credentials were put into Vault";
            families.push(gauge("servicedb_credentials_rotated_timestamp_seconds", help, at));
        }
        families.extend(clients::credentials(report.clients.as_deref().unwrap_or_default()));
        if let Some(ledger) = &report.ledger {
            families.push(gauge("servicedb_migrations_applied", "Completed migrations", ledger.applied as f64));
            let help = "Migrations that were recorded and not completed";
            families.push(gauge("servicedb_migrations_pending", help, ledger.pending as f64));
            families.push(gauge("servicedb_migrations_failed", "Failed migrations", ledger.failed as f64));
        }
        families.extend(archives(report));
    }
}

/// The WAL archive, by store.
fn archives(report: &Report) -> Vec<Family> {
    let mut families = Vec::new();
    let mut add = |name: &'static str, help: &'static str, value: fn(&ArchiveReport) -> Option<f64>| {
        let values = Nth::ALL.into_iter().filter_map(|nth| {
            let archive = report.archive_in(nth)?;
            Some((archive.store.as_str(), value(archive)?))
        });
        let values: Vec<_> = values.collect();
        if !values.is_empty() {
            let mut family = Family::new(name, Kind::Gauge, help);
            values.into_iter().for_each(|(store, value)| family.sample([("store", store)], value));
            families.push(family);
        }
    };
    add("servicedb_archive_failing", "Whether WAL cannot be archived", |archive| {
        Some(f64::from(u8::from(archive.failure.is_some())))
    });
    add(
        "servicedb_archive_last_success_timestamp_seconds",
        "When a segment of WAL was last archived, at most five minutes behind",
        |archive| Some(archive.archived_at?.as_second() as f64),
    );
    add(
        "servicedb_archive_given_up_timestamp_seconds",
        "When WAL was last given up because it filled the volume",
        |archive| Some(archive.given_up_at?.as_second() as f64),
    );
    families
}

/// When the mounted certificates expire: the last one of a file, since an authority that is being replaced is in it
/// beside its successor.
fn expiries(folder: &Path) -> Family {
    let help = "When a mounted certificate expires";
    let mut family = Family::new("servicedb_certificate_expiry_timestamp_seconds", Kind::Gauge, help);
    for file in FILES {
        let Ok(content) = std::fs::read(folder.join(file)) else { continue };
        let expiry = Pem::iter_from_buffer(&content)
            .filter_map(Result::ok)
            .filter_map(|pem| Some(pem.parse_x509().ok()?.validity().not_after.timestamp()))
            .max();
        if let Some(expiry) = expiry {
            family.sample([("certificate", file.trim_end_matches(".crt"))], expiry as f64);
        }
    }
    family
}

/// The agent's own memory and time.
fn process() -> Vec<Family> {
    let number = |variable| sysconf(variable).ok().flatten().map(|number| number as f64);
    let (Some(page), Some(ticks)) = (number(SysconfVar::PAGE_SIZE), number(SysconfVar::CLK_TCK)) else {
        return Vec::new();
    };
    let mut families = Vec::new();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    if let Some(resident) = statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()) {
        let help = "Resident memory of the agent";
        families.push(Family::single("process_resident_memory_bytes", Kind::Gauge, help, resident * page));
    }
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may have spaces.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect())
        .unwrap_or_default();
    if let (Some(user), Some(system)) = (fields.get(11), fields.get(12)) {
        let help = "CPU time of the agent";
        families.push(Family::single("process_cpu_seconds_total", Kind::Counter, help, (user + system) / ticks));
    }
    families
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn page(report: &Report, ready: Readiness) -> String {
        let instance = Instance {
            report,
            ready: &ready,
            promotions: 2,
            log_dropped: 7,
            certificates: Path::new("/nonexistent"),
            volume: Some((100, 40)),
        };
        let mut page = String::new();
        instance.families().iter().for_each(|family| family.write(&mut page));
        page
    }

    #[test]
    fn an_instance_whose_server_is_down_still_has_metrics() {
        let report = Report::starting("u".into(), Timestamp::UNIX_EPOCH);
        let page = page(&report, Some("starting"));
        for line in [
            "servicedb_up 0\n",
            "servicedb_ready 0\n",
            "servicedb_primary 0\n",
            "servicedb_promotions_total 2\n",
            "servicedb_log_dropped_bytes_total 7\n",
            "servicedb_volume_available_bytes 40\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        assert!(!page.contains("servicedb_credentials"), "only a primary reports these");
        assert!(page.contains("\nprocess_resident_memory_bytes "), "{page}");
    }

    #[test]
    fn no_message_is_in_a_metric() {
        let mut report = Report::starting("u".into(), Timestamp::UNIX_EPOCH);
        report.trouble = Some(crate::contract::report::Trouble {
            reason: "VolumeFull".into(),
            message: "the volume of chat-db-0 is full".into(),
        });
        let page = page(&report, None);
        assert!(page.contains("servicedb_trouble{reason=\"VolumeFull\"} 1\n"), "{page}");
        assert!(!page.contains("the volume of"), "a message has no bounds");
    }
}
