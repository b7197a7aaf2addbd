//! The server's settings as `prometheus-postgres-exporter` has them: `pg_settings_NAME`, with the unit in the name.

use tokio_postgres::{Client, Statement};

use super::text::{Family, Kind};

/// What a session changed counts as it was before.
pub const SQL: &str =
    "SELECT name, CASE WHEN source = 'session' THEN reset_val ELSE setting END, coalesce(unit, ''), vartype
                       FROM pg_settings WHERE vartype IN ('bool', 'integer', 'real')";

/// Reads the settings.
///
/// # Errors
/// If the server refuses.
pub async fn read(client: &Client, statement: &Statement) -> Result<Vec<Family>, tokio_postgres::Error> {
    let rows = client.query(statement, &[]).await?;
    let mut families = Vec::with_capacity(rows.len());
    for row in &rows {
        let (name, setting): (&str, Option<&str>) = (row.try_get(0)?, row.try_get(1)?);
        let (unit, kind): (&str, &str) = (row.try_get(2)?, row.try_get(3)?);
        families.extend(setting.and_then(|setting| family(name, setting, unit, kind)));
    }
    Ok(families)
}

/// The metric of a setting; none for a value or a unit that PostgreSQL does not have today.
fn family(name: &str, setting: &str, unit: &str, kind: &str) -> Option<Family> {
    let mut metric = format!("pg_settings_{}", name.replace(['.', '-'], "_"));
    let mut help = format!("Server Parameter: {name}");
    let value = if kind == "bool" {
        f64::from(u8::from(setting == "on"))
    } else {
        let (suffix, factor) = normalised(unit)?;
        if !suffix.is_empty() {
            metric = format!("{metric}_{suffix}");
            help = format!("{help} [Units converted to {suffix}.]");
        }
        // -1 has a meaning of its own.
        match setting.parse().ok()? {
            -1.0 => -1.0,
            value => value * factor,
        }
    };
    let mut family = Family::new(metric, Kind::Gauge, help);
    family.sample([("server", "localhost:5432")], value);
    Some(family)
}

/// The base unit of a unit, and its factor.
fn normalised(unit: &str) -> Option<(&'static str, f64)> {
    let seconds = |factor| Some(("seconds", factor));
    match unit {
        "" => Some(("", 1.0)),
        "ms" => seconds(0.001),
        "s" => seconds(1.0),
        "min" => seconds(60.0),
        "h" => seconds(3600.0),
        "d" => seconds(86_400.0),
        _ => {
            // A number of pages or segments may precede the unit: `8kB`, `16MB`.
            let end = unit.find(|c: char| !c.is_ascii_digit())?;
            let (number, unit) = unit.split_at(end);
            let number = if number.is_empty() { 1.0 } else { number.parse().ok()? };
            let factor = match unit {
                "B" => 1.0,
                "kB" => 1024.0,
                "MB" => 1_048_576.0,
                "GB" => 1_073_741_824.0,
                "TB" => 1_099_511_627_776.0,
                _ => return None,
            };
            Some(("bytes", number * factor))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, setting: &str, unit: &str, kind: &str) -> String {
        let mut page = String::new();
        if let Some(family) = family(name, setting, unit, kind) {
            family.write(&mut page);
        }
        page.lines().last().unwrap_or_default().to_owned()
    }

    #[test]
    fn units_are_in_the_name_and_a_meaning_of_its_own_keeps_its_number() {
        let server = "{server=\"localhost:5432\"}";
        assert_eq!(
            written("shared_buffers", "16384", "8kB", "integer"),
            format!("pg_settings_shared_buffers_bytes{server} 134217728")
        );
        assert_eq!(
            written("wal_sender_timeout", "10000", "ms", "integer"),
            format!("pg_settings_wal_sender_timeout_seconds{server} 10")
        );
        assert_eq!(
            written("log_min_duration_statement", "-1", "ms", "integer"),
            format!("pg_settings_log_min_duration_statement_seconds{server} -1")
        );
        assert_eq!(written("pgaudit.log_level", "on", "", "bool"), format!("pg_settings_pgaudit_log_level{server} 1"));
        assert_eq!(written("a", "1", "parsec", "integer"), "", "a unit that nobody knows");
    }
}
