//! Validation: refused specs, their reasons, and messages that name the field.

use std::time::Duration;

use super::fixtures::{FULL, MINIMAL, database, options, resource};
use crate::api::conditions::reason;
use crate::api::spec::RESERVED_PARAMETERS;
use crate::api::{
    AuditClass, AuditSpec, ExtensionSpec, MaintenanceWindow, PodMetadata, ServiceDatabase, ServiceDatabaseStatus,
    UpdatePolicy,
};
use crate::contract::migration::Policy;
use crate::operator::validate::{Invalid, Source, validate};

fn refused(change: impl FnOnce(&mut ServiceDatabase)) -> Invalid {
    let mut resource = resource(MINIMAL);
    change(&mut resource);
    validate(&resource, &options()).expect_err("a spec that cannot be planned")
}

fn accepted(change: impl FnOnce(&mut ServiceDatabase)) {
    let mut resource = resource(MINIMAL);
    change(&mut resource);
    validate(&resource, &options()).expect("a spec that can be planned");
}

#[test]
fn a_bad_name_is_refused_with_its_field() {
    let long = "s".repeat(41);
    for name in
        ["", "Chat", "9lives", "-chat", "pg-chat", "chat.db", "chat_db", "chat'; DROP TABLE users", "chät", &long]
    {
        let invalid = refused(|resource| resource.metadata.name = Some(name.to_owned()));
        assert_eq!(invalid.reason, reason::INVALID_SPEC, "{name}");
        assert!(invalid.message.contains("metadata.name"), "{name}: {}", invalid.message);
    }
    let longest = "s".repeat(40);
    for name in ["c", "chat", "match-maker", "a1", &longest] {
        accepted(|resource| resource.metadata.name = Some(name.to_owned()));
    }
}

#[test]
fn a_reserved_key_of_a_pod_is_refused_with_its_field() {
    let metadata =
        |key: &str| PodMetadata { labels: [(key.to_owned(), "x".to_owned())].into(), ..PodMetadata::default() };
    for key in ["servicedb.dev/role", "app.kubernetes.io/instance", "job-name"] {
        let invalid = refused(|resource| resource.spec.pod_metadata = Some(metadata(key)));
        assert_eq!(invalid.reason, reason::INVALID_SPEC);
        assert!(invalid.message.contains("spec.podMetadata.labels") && invalid.message.contains(key));
    }
    accepted(|resource| resource.spec.pod_metadata = Some(metadata("team")));
}

#[test]
fn the_options_of_an_extension_are_kept_and_no_schema_of_servicedb_is_taken() {
    let with = |resource: &mut ServiceDatabase, schema: &str| {
        let extension = |name: &str, schema: Option<&str>| ExtensionSpec {
            name: name.to_owned(),
            version: None,
            schema: schema.map(str::to_owned),
        };
        resource.spec.postgres.extensions = vec![extension("hstore", None), extension("pg_partman", Some(schema))];
    };
    for schema in ["servicedb", "pg_catalog", "information_schema"] {
        let invalid = refused(|resource| with(resource, schema));
        assert!(invalid.message.contains("pg_partman") && invalid.message.contains(schema), "{}", invalid.message);
    }
    let mut resource = resource(MINIMAL);
    with(&mut resource, "partman");
    let database = validate(&resource, &options()).expect("a spec that can be planned");
    let kept: Vec<_> = database.extension_options.iter().map(|(name, it)| (&**name, it.schema.as_deref())).collect();
    assert_eq!(kept, [("pg_partman", Some("partman"))]);
}

#[test]
fn a_bad_database_is_refused_with_its_field() {
    let long = "d".repeat(51);
    let names = [
        "",
        "Chat",
        "9lives",
        "chat-db",
        "chat db",
        "chat\"db",
        "chat'; DROP TABLE users; --",
        "dätabase",
        "pg_chat",
        "postgres",
        "template0",
        "template1",
        "a\0b",
        &long,
    ];
    for name in names {
        let invalid = refused(|resource| resource.spec.database = Some(name.to_owned()));
        assert_eq!(invalid.reason, reason::INVALID_SPEC, "{name}");
        assert!(invalid.message.contains("spec.database"), "{name}: {}", invalid.message);
    }
    let longest = "d".repeat(50);
    for name in ["d", "_d", "chat_db", "pgchat", &longest] {
        accepted(|resource| resource.spec.database = Some(name.to_owned()));
    }
}

#[test]
fn a_number_of_instances_out_of_bounds_is_refused_with_its_field() {
    for instances in [i32::MIN, -1, 0, 10, i32::MAX] {
        let invalid = refused(|resource| resource.spec.instances = instances);
        assert_eq!(invalid.reason, reason::INVALID_SPEC);
        assert!(invalid.message.contains("spec.instances"), "{}", invalid.message);
    }
    for instances in 1..=9 {
        accepted(|resource| resource.spec.instances = instances);
    }
}

#[test]
fn every_reserved_parameter_is_refused_by_its_name() {
    for name in RESERVED_PARAMETERS {
        let invalid = refused(|resource| {
            resource.spec.postgres.parameters.insert((*name).to_owned(), "x".to_owned());
        });
        assert_eq!(invalid.reason, reason::INVALID_SPEC);
        assert!(invalid.message.contains("spec.postgres.parameters"), "{}", invalid.message);
        assert!(invalid.message.contains(name), "{}", invalid.message);
    }
    accepted(|resource| {
        resource.spec.postgres.parameters.insert("work_mem".to_owned(), "8MB".to_owned());
    });
}

#[test]
fn a_raster_format_that_reads_files_is_refused() {
    let setting = |value: &'static str| {
        move |resource: &mut ServiceDatabase| {
            resource.spec.postgres.parameters.insert("postgis.gdal_enabled_drivers".to_owned(), value.to_owned());
        }
    };
    let invalid = refused(setting("PNG VRT"));
    assert_eq!(invalid.reason, reason::INVALID_SPEC);
    assert!(invalid.message.contains("enables VRT"), "{}", invalid.message);
    accepted(setting("PNG GTiff"));
}

#[test]
fn a_version_without_an_image_is_refused_and_the_others_are_named() {
    let mut options = options();
    options.postgres_images.push(("18".to_owned(), "registry.example/servicedb-postgres:18".to_owned()));
    let mut resource = resource(MINIMAL);
    resource.spec.postgres.version = Some("9".to_owned());
    let invalid = validate(&resource, &options).expect_err("no image");
    assert_eq!(invalid.reason, reason::UNSUPPORTED_VERSION);
    assert!(invalid.message.contains("spec.postgres.version"), "{}", invalid.message);
    assert!(invalid.message.contains("17, 18"), "{}", invalid.message);
    resource.spec.postgres.version = Some("18".to_owned());
    let database = validate(&resource, &options).expect("an image");
    assert_eq!(database.image, "registry.example/servicedb-postgres:18");
}

/// A renamed database would be a second one.
#[test]
fn the_database_cannot_be_renamed() {
    let pinned = |name: &str| Some(ServiceDatabaseStatus { database: Some(name.to_owned()), ..Default::default() });
    let invalid = refused(|resource| {
        resource.status = pinned("chat_db");
        resource.spec.database = Some("another".to_owned());
    });
    assert_eq!(invalid.reason, reason::INVALID_SPEC);
    assert!(invalid.message.contains("spec.database") && invalid.message.contains("chat_db"), "{}", invalid.message);
    let invalid = refused(|resource| resource.status = pinned("another"));
    assert!(invalid.message.contains("another"), "removed from the spec: {}", invalid.message);
    accepted(|resource| resource.status = pinned("chat_db"));
}

#[test]
fn defaults_are_resolved() {
    let minimal = database(MINIMAL);
    assert_eq!(minimal.postgres.database, "chat_db");
    assert_eq!(minimal.owner.uid, "uid-of-chat");
    assert_eq!(minimal.instances, 1);
    let document =
        crate::operator::plan::config::document(&minimal, &crate::operator::credentials::DesiredCredentials::first());
    assert!(document.synchronous, "the record of who may lead does not depend on the number of instances");
    assert!(minimal.migrations.is_none());
    let full = database(FULL);
    assert_eq!(full.postgres.database, "matches");
    assert_eq!((full.instances, full.synchronous, full.maximum_lag_bytes), (3, true, 1_048_576));
    assert_eq!(full.extensions, ["pg_trgm", "uuid-ossp"]);
    assert!(full.extension_options.is_empty());
    let migrations = full.migrations.expect("migrations");
    assert!(matches!(migrations.source, Source::ConfigMaps(names) if names == ["match-maker-migrations"]));
    assert_eq!((migrations.policy, migrations.drift_check), (Policy::default(), Some(Duration::from_secs(86400))));
}

#[test]
fn an_audit_that_two_fields_set_is_refused() {
    for (setting, field) in [("pgaudit.log", "spec.audit.classes"), ("pgaudit.role", "spec.audit.grantedRelations")] {
        let invalid = refused(|resource| {
            resource.spec.audit = AuditSpec { classes: vec![AuditClass::Ddl], granted_relations: true };
            resource.spec.postgres.parameters.insert(setting.to_owned(), "x".to_owned());
        });
        assert!(invalid.message.contains(field) && invalid.message.contains(setting), "{}", invalid.message);
    }
    accepted(|resource| {
        resource.spec.audit = AuditSpec { classes: vec![], granted_relations: true };
        resource.spec.postgres.parameters.insert("pgaudit.log".to_owned(), "ddl".to_owned());
    });
}

#[test]
fn a_bad_maintenance_is_refused_with_its_field() {
    let window = |schedule: &str, duration_minutes| MaintenanceWindow {
        schedule: schedule.to_owned(),
        duration_minutes,
        time_zone: None,
    };
    for (windows, field) in [
        (vec![window("0 3 * *", 60)], "spec.maintenance.windows[0].schedule"),
        (vec![window("0 3 * * *", 60), window("0 9 * * *", 0)], "spec.maintenance.windows[1].durationMinutes"),
        (vec![window("0 3 * * *", 60), window("30 3 * * *", 60)], "overlap"),
    ] {
        let invalid = refused(|resource| resource.spec.maintenance.windows = windows);
        assert_eq!(invalid.reason, reason::INVALID_SPEC);
        assert!(invalid.message.contains(field), "{}", invalid.message);
    }
    let invalid = refused(|resource| resource.spec.maintenance.reindex.bloat_percent = 5);
    assert!(invalid.message.contains("spec.maintenance.reindex.bloatPercent"), "{}", invalid.message);
    let invalid = refused(|resource| resource.spec.update_policy = UpdatePolicy::Window);
    assert!(invalid.message.contains("spec.maintenance.windows"), "{}", invalid.message);
    accepted(|resource| {
        resource.spec.update_policy = UpdatePolicy::Window;
        resource.spec.maintenance.windows = vec![window("H 3 * * SUN", 120)];
    });
}
