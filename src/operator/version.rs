//! The major version of a database: that of its data, once there is any.

use kube::ResourceExt;

use crate::api::conditions::reason;
use crate::api::names::Names;
use crate::api::{ServiceDatabase, ServiceDatabaseStatus};
use crate::contract::server_version::NEWEST;
use crate::postgres::servers;

/// The resolved version.
#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    /// The major version of the data, or of the first initialisation.
    pub major: u16,
    /// The higher one that the spec declares.
    pub upgrade_to: Option<u16>,
    /// The image of the first.
    pub image: String,
}

/// Why a version cannot be resolved: a reason of `api::conditions::reason`, and a message.
pub type Refusal = (&'static str, String);

/// The major version of the data, as status has it.
pub fn pinned(status: &ServiceDatabaseStatus) -> Option<u16> {
    let of_server = || servers::major(status.postgres_version.as_deref()?);
    status.postgres_major.and_then(|major| u16::try_from(major).ok()).or_else(of_server)
}

/// Resolves the version of a resource with the installation's images.
///
/// # Errors
/// If there is no image for it, or the spec declares a lower one than that of the data.
pub fn resolve(resource: &ServiceDatabase, images: &[(String, String)]) -> Result<Version, Refusal> {
    let declared = resource.spec.postgres.version.as_deref();
    let pinned = resource.status.as_ref().and_then(pinned);
    let known = || images.iter().map(|(version, _)| version.as_str()).collect::<Vec<_>>().join(", ");
    let unsupported = |version: &str| {
        let message = format!("spec.postgres.version is {version}, and this installation has images for: {}", known());
        (reason::UNSUPPORTED_VERSION, message)
    };
    let wanted = match declared {
        Some(declared) => Some(servers::major(declared).ok_or_else(|| unsupported(declared))?),
        None => None,
    };
    let newest = || {
        let offered = images.iter().filter_map(|(version, _)| servers::major(version));
        offered.filter(|major| *major <= NEWEST).max().unwrap_or(NEWEST)
    };
    let major = pinned.or(wanted).unwrap_or_else(newest);
    let image_of = |major: u16| {
        let version = major.to_string();
        let image = images.iter().find(|(offered, _)| *offered == version);
        image.map(|(_, image)| image.clone()).ok_or_else(|| unsupported(&version))
    };
    let upgrade_to = match wanted {
        Some(wanted) if wanted < major => {
            let message = format!(
                "spec.postgres.version is {wanted}, and the data is of PostgreSQL {major}, which cannot go back: set the \
                 field to \"{major}\" or remove it; to move to {wanted}, {}dump the database and load it into a new \
                 ServiceDatabase",
                way_back(resource, wanted).unwrap_or_default()
            );
            return Err((reason::INVALID_SPEC, message));
        }
        Some(wanted) if wanted > major => {
            image_of(wanted)?;
            Some(wanted)
        }
        _ => None,
    };
    Ok(Version { major, upgrade_to, image: image_of(major)? })
}

/// The way back from an upgrade from this version, as the beginning of a list; none where its data is not kept.
fn way_back(resource: &ServiceDatabase, wanted: u16) -> Option<String> {
    let upgrade = resource.status.as_ref()?.upgrade.as_deref()?;
    upgrade.kept_by.as_ref().filter(|_| upgrade.from == i32::from(wanted))?;
    let names = Names::new(resource.namespace().unwrap_or_default(), resource.name_any());
    let name = names.in_commands();
    Some(format!(
        "then run kubectl servicedb upgrade {name} --back, which loses what was written since the upgrade, or "
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::UpgradeStatus;
    use crate::operator::tests::fixtures::{MINIMAL, resource};

    fn images() -> Vec<(String, String)> {
        [("17", "image:a"), ("18", "image:b")].map(|(version, image)| (version.to_owned(), image.to_owned())).to_vec()
    }

    fn resolved(declared: Option<&str>, status: Option<(Option<i32>, Option<&str>)>) -> Result<Version, Refusal> {
        let mut resource = resource(MINIMAL);
        resource.spec.postgres.version = declared.map(str::to_owned);
        resource.status = status.map(|(postgres_major, version)| ServiceDatabaseStatus {
            postgres_major,
            postgres_version: version.map(str::to_owned),
            ..ServiceDatabaseStatus::default()
        });
        resolve(&resource, &images())
    }

    fn is(major: u16, upgrade_to: Option<u16>) -> Result<Version, Refusal> {
        let image = if major == 17 { "image:a" } else { "image:b" };
        Ok(Version { major, upgrade_to, image: image.to_owned() })
    }

    #[test]
    fn a_new_database_is_of_the_newest_version_unless_the_spec_names_one() {
        assert_eq!(resolved(None, None), is(18, None));
        assert_eq!(resolved(Some("17"), None), is(17, None));
        assert!(resolved(Some("16"), None).expect_err("no image").1.contains("17, 18"));
        let old = vec![("17".to_owned(), "image:a".to_owned())];
        let mut resource = resource(MINIMAL);
        resource.spec.postgres.version = None;
        assert_eq!(resolve(&resource, &old), is(17, None), "an installation that offers 17 alone");
    }

    #[test]
    fn data_keeps_its_version_whatever_the_field_says() {
        assert_eq!(resolved(None, Some((Some(17), None))), is(17, None), "a replace without the field");
        assert_eq!(resolved(None, Some((None, Some("17.12")))), is(17, None), "status of an earlier operator");
        assert_eq!(resolved(Some("17"), Some((None, Some("17.12")))), is(17, None));
        assert_eq!(resolved(Some("18"), Some((Some(17), Some("17.12")))), is(17, Some(18)));
        assert_eq!(resolved(Some("19"), Some((Some(17), None))).expect_err("no image").0, reason::UNSUPPORTED_VERSION);
    }

    #[test]
    fn a_lower_version_is_refused_with_the_way_out() {
        let refused = resolved(Some("17"), Some((Some(18), None))).expect_err("down");
        assert!(refused.1.contains("set the field to \"18\" or remove it"), "{}", refused.1);
        assert!(refused.1.contains("to move to 17, dump the database"), "{}", refused.1);
    }

    #[test]
    fn a_lower_version_is_refused_with_the_way_back_while_its_data_is_kept() {
        let refused = |from: i32, kept_by: Option<&str>| {
            let mut resource = resource(MINIMAL);
            resource.spec.postgres.version = Some("17".to_owned());
            let upgrade = UpgradeStatus { kept_by: kept_by.map(str::to_owned), ..UpgradeStatus::pending(from, 18) };
            resource.status = Some(ServiceDatabaseStatus {
                postgres_major: Some(18),
                upgrade: Some(Box::new(upgrade)),
                ..ServiceDatabaseStatus::default()
            });
            resolve(&resource, &images()).expect_err("down").1
        };
        let back = "to move to 17, then run kubectl servicedb upgrade chat -n messaging --back, which loses";
        assert!(refused(17, Some("chat-db-0")).contains(back), "{}", refused(17, Some("chat-db-0")));
        assert!(!refused(17, None).contains("--back"), "it was given up");
        assert!(!refused(16, Some("chat-db-0")).contains("--back"), "it is of another version");
    }
}
