//! The schemas of other databases that migrations wait for.

use std::collections::BTreeSet;

use kube::Api;

use super::progress::Progress;
use crate::api::conditions::reason;
use crate::api::{SchemaDependency, SchemaVersion, ServiceDatabase};
use crate::migrate::source;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::validate::Database;

/// The maximum number of databases that are read to find a cycle: each needs a request.
const MAX_DATABASES: usize = 64;

/// The schema that the migrations wait for, or none if every required schema exists.
///
/// # Errors
/// Any error of the API server.
pub async fn unmet(
    context: &Context,
    database: &Database,
    depends_on: &[SchemaDependency],
) -> Result<Option<Progress>, Error> {
    if depends_on.is_empty() {
        return Ok(None);
    }
    let api: Api<ServiceDatabase> = Api::namespaced(context.client.clone(), &database.names().namespace);
    if let Some(cycle) = cycle(&api, &database.names().name, depends_on).await? {
        let message = format!("spec.migrations.dependsOn is a cycle: {cycle}; remove one of these dependencies");
        return Ok(Some(Progress::Failed { reason: reason::DEPENDENCY_CYCLE.to_owned(), message }));
    }
    for SchemaDependency { name, minimum_version } in depends_on {
        let found = api.get_opt(name).await?;
        let status = found.as_ref().and_then(|found| found.status.as_ref());
        let version = status.and_then(|status| status.schema_version.clone());
        let format = status.and_then(|status| status.migrations.as_ref()?.format.as_deref());
        if found.is_some() && reaches(version.as_deref(), minimum_version, format) {
            continue;
        }
        let has = match (&found, version) {
            (None, _) => "which does not exist in this namespace".to_owned(),
            (Some(_), None) => "which has none yet".to_owned(),
            (Some(_), Some(version)) => format!("which is at {version}"),
        };
        let message = format!("the migrations wait for version {minimum_version} of the schema of {name}, {has}");
        return Ok(Some(Progress::Waiting { reason: reason::DEPENDENCY_NOT_READY, message }));
    }
    Ok(None)
}

/// Whether a schema has a minimum version, in the order of the tool whose files it is made from. The
/// minimum may leave out a name that is part of the version.
fn reaches(version: Option<&str>, minimum: &SchemaVersion, format: Option<&str>) -> bool {
    // A schema without migrations has version 0.
    let Some(version) = version else { return minimum.is_none() };
    let is_number = minimum.as_str().bytes().all(|byte| byte.is_ascii_digit());
    let named = |rest: &str| rest.is_empty() || (format.is_some() && is_number && rest.starts_with(['_', '-']));
    if minimum.is_none() || version.strip_prefix(minimum.as_str()).is_some_and(named) {
        return true;
    }
    match (source::place(format, &SchemaVersion::new(version)), source::place(format, minimum)) {
        (Some(has), Some(minimum)) => has >= minimum,
        _ => false,
    }
}

/// A path from this database back to itself, if there is one.
async fn cycle(
    api: &Api<ServiceDatabase>,
    own: &str,
    depends_on: &[SchemaDependency],
) -> Result<Option<String>, Error> {
    let mut ways: Vec<Vec<String>> =
        depends_on.iter().map(|dependency| vec![own.to_owned(), dependency.name.clone()]).collect();
    let mut visited = BTreeSet::new();
    while let Some(way) = ways.pop() {
        let Some(last) = way.last() else { continue };
        if last == own {
            return Ok(Some(way.join(" → ")));
        }
        if visited.len() >= MAX_DATABASES || !visited.insert(last.clone()) {
            continue;
        }
        let found = api.get_opt(last).await?;
        let next = found.and_then(|found| found.spec.migrations).map(|migrations| migrations.depends_on);
        for dependency in next.unwrap_or_default() {
            ways.push(way.iter().cloned().chain([dependency.name]).collect());
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimum_is_reached_in_the_order_of_the_tool() {
        let cases = [
            (None, "3", "2", true),
            (None, "9", "10", false),
            (None, "1f0c5a", "2", false),
            (Some("Flyway"), "1.10", "1.9", true),
            (Some("Diesel"), "20190101000000", "00000000000000", true),
            (Some("SqlMigrate"), "10-t", "2-users", true),
            (Some("SqlMigrate"), "2-t", "10", false),
            (Some("SqlMigrate"), "2-users", "2", true),
            (Some("SqlMigrate"), "b", "10-t", true),
            (Some("SqlMigrate"), "a-b", "a", false),
            (Some("Prisma"), "20190101000000_Z", "20190101000000_a", true),
            (Some("Drizzle"), "0003_users", "0003", true),
            (Some("Drizzle"), "0002_users", "0003", false),
        ];
        for (format, version, minimum, expected) in cases {
            let minimum = SchemaVersion::new(minimum);
            assert_eq!(reaches(Some(version), &minimum, format), expected, "{format:?}: {version}, {minimum}");
        }
        assert!(reaches(None, &0.into(), None) && !reaches(None, &1.into(), None));
    }
}
