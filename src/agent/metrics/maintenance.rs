//! The maintenance: what is due, and the indexes with the largest unused part, as the leader's last survey found them;
//! and the bloat of tables, as the last run measured it.

use super::text::{Family, Kind};
use crate::agent::maintenance::Known;
use crate::agent::maintenance::bloat::Bloat;
use crate::agent::maintenance::plan::{Cause, Found};
use crate::contract::maintenance::MaintenanceReport;

/// How many indexes have metrics.
const INDEXES: usize = 20;

/// The metrics.
pub fn families(report: Option<&MaintenanceReport>, known: &Known) -> Vec<Family> {
    let mut families = Vec::new();
    if let Some(report) = report {
        let help = "Number of tables, indexes and extensions for which maintenance is due, by spec.maintenance";
        families.push(Family::single("servicedb_maintenance_due", Kind::Gauge, help, report.due_count as f64));
        let runs = report.run.as_ref().is_some_and(|run| !run.ended);
        let help = "Whether a maintenance window, or a requested run, is being worked on";
        families.push(Family::single("servicedb_maintenance_running", Kind::Gauge, help, f64::from(u8::from(runs))));
    }
    let help = "Bytes of an index that its rows do not need; the 20 indexes with most";
    let mut unused = Family::new("servicedb_index_unused_bytes", Kind::Gauge, help);
    let mut sizes: Vec<_> = known.found.iter().filter_map(size).collect();
    sizes.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
    for (index, bytes) in sizes.iter().take(INDEXES) {
        unused.sample([("index", *index), ("source", "estimate")], *bytes as f64);
    }
    families.push(unused);
    families.extend(known.bloat.iter().flat_map(of_tables));
    families
}

fn of_tables(bloat: &Bloat) -> [Family; 3] {
    let gauge = |name, help| Family::new(name, Kind::Gauge, help);
    let mut free = gauge("servicedb_table_free_bytes", "Free bytes in the pages of a table, as the last run measured");
    let mut dead = gauge("servicedb_table_dead_bytes", "Bytes of dead rows of a table, as the last run measured");
    for table in &bloat.tables {
        free.sample([("table", table.table.as_str())], table.free as f64);
        dead.sample([("table", table.table.as_str())], table.dead as f64);
    }
    let help = "When the free and the dead bytes of tables were measured";
    let at = bloat.measured_at.as_second() as f64;
    [free, dead, Family::single("servicedb_table_bloat_timestamp_seconds", Kind::Gauge, help, at)]
}

fn size(found: &Found) -> Option<(&str, i64)> {
    let Cause::Bloat(size) = &found.cause else { return None };
    Some((&found.object, (size.bytes - size.needed).max(0)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::agent::maintenance::bloat::TableBloat;
    use crate::agent::maintenance::plan::Size;

    #[test]
    fn the_most_wasteful_indexes_are_told_and_no_more() {
        let of = |number: i64| Found {
            object: format!("public.i{number}"),
            cause: Cause::Bloat(Size { bytes: number * 1000, needed: 0, rows: 1.0, measured: false }),
        };
        let found: Vec<_> = (1..=30).map(of).collect();
        let mut page = String::new();
        let report = MaintenanceReport { due_count: 7, ..MaintenanceReport::default() };
        let known = Known { found, bloat: None };
        families(Some(&report), &known).iter().for_each(|family| family.write(&mut page));
        assert!(page.contains("servicedb_maintenance_due 7\n"), "{page}");
        assert!(page.contains("{index=\"public.i30\",source=\"estimate\"} 30000\n"), "{page}");
        assert_eq!(page.matches("servicedb_index_unused_bytes{").count(), 20);
        assert!(!page.contains("\"public.i10\""), "{page}");
        assert!(!page.contains("servicedb_table_"), "nothing was measured: {page}");
    }

    #[test]
    fn the_bloat_of_tables_is_told_with_its_time() {
        let table = TableBloat { table: "public.visits".to_owned(), bytes: 9000, free: 4000, dead: 3 };
        let measured_at = Timestamp::from_second(1_800_000_000).expect("a time");
        let known = Known { found: Vec::new(), bloat: Some(Bloat { measured_at, tables: vec![table] }) };
        let mut page = String::new();
        families(None, &known).iter().for_each(|family| family.write(&mut page));
        for line in [
            "servicedb_table_free_bytes{table=\"public.visits\"} 4000\n",
            "servicedb_table_dead_bytes{table=\"public.visits\"} 3\n",
            "servicedb_table_bloat_timestamp_seconds 1800000000\n",
        ] {
            assert!(page.contains(line), "{line}: {page}");
        }
    }
}
