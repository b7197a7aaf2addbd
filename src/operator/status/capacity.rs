//! How the database grows, as the primary's agent reports it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{CapacityStatus, TableCapacity};
use crate::contract::report::Report;

/// `status.capacity`; what was known stays where nothing is reported.
pub fn status(report: Option<&Report>, previous: Option<CapacityStatus>) -> Option<CapacityStatus> {
    let Some(capacity) = report.and_then(|report| report.capacity.as_ref()) else { return previous };
    let tables = capacity.tables.iter().map(|(name, growth)| TableCapacity {
        name: name.clone(),
        bytes: growth.bytes,
        day_bytes: growth.day,
        week_bytes: growth.week,
    });
    let mut tables: Vec<_> = tables.collect();
    tables.sort_by(|a, b| (b.bytes, &a.name).cmp(&(a.bytes, &b.name)));
    tables.truncate(10);
    Some(CapacityStatus {
        measured_at: Some(Time(capacity.at)),
        database_bytes: Some(capacity.database.bytes),
        database_day_bytes: capacity.database.day,
        database_week_bytes: capacity.database.week,
        wal_day_bytes: capacity.wal.day,
        wal_week_bytes: capacity.wal.week,
        volume_full_in_days: capacity.full_in_days,
        tables,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::contract::capacity::{Capacity, Growth};

    #[test]
    fn the_largest_tables_come_first_and_what_was_known_stays() {
        let mut report = Report::starting("u".into(), Timestamp::UNIX_EPOCH);
        assert_eq!(status(Some(&report), None), None);
        let of = |bytes| Growth { bytes, day: Some(1), week: None };
        let tables = [("public.a".to_owned(), of(1)), ("public.b".to_owned(), of(2))].into();
        let database = of(7);
        report.capacity = Some(Capacity { at: Timestamp::UNIX_EPOCH, database, tables, ..Capacity::default() });
        let known = status(Some(&report), None).expect("a capacity");
        assert_eq!((known.database_bytes, known.database_day_bytes), (Some(7), Some(1)));
        assert_eq!(known.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["public.b", "public.a"]);
        assert_eq!(status(None, Some(known.clone())), Some(known));
    }
}
