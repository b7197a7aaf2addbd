//! The steps to the declared extensions. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::version::is_lower;
use crate::api::names::PostgresNames;
use crate::contract::extension::{Extension, Options};
use crate::postgres::ident;

/// The schema in which a tenant may create objects.
pub const PUBLIC: &str = "public";
/// The schema in which only the superuser may.
pub const GUARDED: &str = PostgresNames::EXTENSIONS_SCHEMA;

/// The schemas of extensions, by the extension's name.
pub type Places = BTreeMap<String, String>;

/// An extension of the image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Available {
    /// The version that is created by default; empty if its script is missing.
    pub default: String,
    /// The versions that can be created.
    pub versions: BTreeMap<String, Version>,
    /// The versions to which the database's can be updated; some of them cannot be created.
    pub updates: BTreeSet<String>,
}

/// A version's properties, from its control file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Version {
    /// Whether the owner of a database may create it.
    pub trusted: bool,
    /// The schema that its control file sets.
    pub schema: Option<String>,
    /// The extensions that it requires.
    pub requires: Vec<String>,
}

/// An extension that the database has.
#[derive(Clone, Debug, PartialEq)]
pub struct Installed {
    /// Its version.
    pub version: String,
    /// Its schema.
    pub schema: String,
    /// Whether only a superuser may create in that schema.
    pub guarded: bool,
    /// Whether a role that is no superuser owns it.
    pub by_owner: bool,
    /// Whether PostgreSQL can move it into another schema.
    pub relocatable: bool,
    /// Whether only a superuser may create in the schemas that its scripts have in their path: its own, and those of the
    /// extensions that it requires.
    pub closed: bool,
}

/// Where, and as whom, an extension is created.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// As the owner; into this schema unless its control file sets one.
    AsOwner(Option<String>),
    /// As the superuser, into a guarded schema.
    Guarded(String),
    /// As the superuser, into its schema in the database that this one is compared with.
    AsFound(String),
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Creates it, in this version if one is declared.
    Create(Place, Option<String>),
    /// Moves it into another schema: of the owner if the extension is the owner's, otherwise a guarded one.
    Move {
        /// The schema.
        schema: String,
        /// Whether the extension is the owner's.
        by_owner: bool,
    },
    /// Updates it to another version.
    Update {
        /// The version.
        version: String,
        /// Whether it is done as the owner.
        as_owner: bool,
    },
}

/// A step, or why there is none.
pub type Planned = (String, Result<Step, String>);

/// Whether the database has the extensions as declared.
pub fn is_met(declared: &[Extension], installed: &BTreeMap<String, Installed>) -> bool {
    declared.iter().all(|extension| {
        let Options { version, schema } = &extension.options;
        let is_as = |wanted: &Option<String>, now: &String| wanted.as_ref().is_none_or(|wanted| wanted == now);
        installed.get(&extension.name).is_some_and(|it| is_as(version, &it.version) && is_as(schema, &it.schema))
    })
}

/// The steps to the declared extensions and to those that they require, prerequisites first. It is
/// `CREATE EXTENSION … CASCADE` with a schema of its own for each: CASCADE would put a prerequisite
/// into the schema of the extension that requires it. `in_commands` is [`PostgresNames::in_commands`].
pub fn plan(
    declared: &[Extension],
    available: &BTreeMap<String, Available>,
    installed: &BTreeMap<String, Installed>,
    found: &Places,
    in_commands: &str,
) -> Vec<Planned> {
    let image = Image { declared, available, in_commands };
    // Depth first; a circle of requirements, which PostgreSQL refuses, ends here, too.
    fn visit<'a>(name: &'a String, image: &Image<'a>, all: &mut Vec<&'a String>) {
        if !all.contains(&name) {
            let at = all.len();
            all.push(name);
            if let Some(it) = image.version(name) {
                it.requires.iter().for_each(|needed| visit(needed, image, all));
            }
            all[at..].rotate_left(1);
        }
    }
    let (mut ordered, mut guarded) = (Vec::new(), Vec::new());
    declared.iter().for_each(|Extension { name, .. }| visit(name, &image, &mut ordered));
    // Also one that is only required, by an extension that is the owner's.
    for &name in &ordered {
        if image.version(name).is_some_and(|it| !it.trusted) {
            visit(name, &image, &mut guarded);
        }
    }
    let missing = ordered.into_iter().filter(|name| !installed.contains_key(*name));
    let mut steps: Vec<Planned> = missing
        .map(|name| (name.clone(), image.creation(name, guarded.contains(&name), installed, found.get(name))))
        .collect();
    for extension in declared {
        if let Some(now) = installed.get(&extension.name) {
            steps.extend(image.changes(extension, now).into_iter().map(|step| (extension.name.clone(), step)));
        }
    }
    steps
}

/// What the image has, and what is declared of it.
struct Image<'a> {
    declared: &'a [Extension],
    available: &'a BTreeMap<String, Available>,
    in_commands: &'a str,
}

impl<'a> Image<'a> {
    fn options(&self, name: &str) -> Options {
        let declared = self.declared.iter().find(|extension| extension.name == name);
        declared.map(|extension| extension.options.clone()).unwrap_or_default()
    }

    /// The version that is to be created.
    fn version(&self, name: &str) -> Option<&'a Version> {
        let it = self.available.get(name)?;
        it.versions.get(self.options(name).version.as_ref().unwrap_or(&it.default))
    }

    /// Names the versions, so that the spec can be corrected.
    fn lacks(&self, name: &str, version: Option<&str>) -> String {
        let versions = self.available.get(name).map(|it| {
            let versions: BTreeSet<_> = it.versions.keys().chain(&it.updates).map(String::as_str).collect();
            versions.into_iter().collect::<Vec<_>>()
        });
        match (versions, version) {
            (Some(versions), Some(version)) => {
                format!("the database's image does not have its version {version}, but {}", versions.join(", "))
            }
            _ => "the database's image does not contain it".to_owned(),
        }
    }

    fn creation(
        &self,
        name: &str,
        guarded: bool,
        installed: &BTreeMap<String, Installed>,
        found: Option<&String>,
    ) -> Result<Step, String> {
        let Options { version, schema } = self.options(name);
        let Some(it) = self.version(name) else { return Err(self.lacks(name, version.as_deref())) };
        if let (Some(fixed), Some(wanted)) = (&it.schema, &schema)
            && fixed != wanted
        {
            return Err(format!("it can only be in the schema {fixed}: declare that one, or none"));
        }
        if let Some(schema) = found.filter(|_| it.schema.is_none()) {
            return Ok(Step::Create(Place::AsFound(schema.clone()), version));
        }
        // The owner can create nothing there.
        if !guarded && schema.as_deref() != Some(GUARDED) {
            let schema = schema.unwrap_or_else(|| PUBLIC.to_owned());
            return Ok(Step::Create(Place::AsOwner(it.schema.is_none().then_some(schema)), version));
        }
        let open =
            it.requires.iter().find_map(|needed| Some((needed, installed.get(needed).filter(|it| !it.guarded)?)));
        match open {
            Some((needed, Installed { schema, .. })) => Err(format!(
                "it runs as the superuser and requires {needed}, which is in the schema {schema}, where other roles may \
                 create objects: move {needed} (kubectl servicedb psql {} --superuser: ALTER EXTENSION {} SET SCHEMA \
                 {GUARDED})",
                self.in_commands,
                ident(needed)
            )),
            None => {
                let schema = it.schema.clone().or(schema).unwrap_or_else(|| GUARDED.to_owned());
                Ok(Step::Create(Place::Guarded(schema), version))
            }
        }
    }

    /// What is changed of an extension that the database has.
    fn changes(&self, extension: &Extension, now: &Installed) -> Vec<Result<Step, String>> {
        let Extension { name, options: Options { version, schema } } = extension;
        let moved = schema.as_ref().filter(|wanted| **wanted != now.schema).map(|wanted| {
            // The owner may have added objects to its extension: they would get into the path of a superuser's scripts.
            let may_move = now.relocatable && !(now.by_owner && wanted == GUARDED);
            let step = Step::Move { schema: wanted.clone(), by_owner: now.by_owner };
            may_move.then_some(step).ok_or_else(|| {
                format!(
                    "it is in the schema {}, and cannot be moved to {wanted}: declare the present one; or drop it, \
                     and it is created in the other one",
                    now.schema
                )
            })
        });
        let updated = version.as_ref().filter(|wanted| **wanted != now.version);
        let updated = updated.map(|wanted| self.update(name, wanted, now));
        moved.into_iter().chain(updated).collect()
    }

    /// An update's script runs as a superuser unless the owner runs it, with the extension's schema in its path.
    fn update(&self, name: &str, wanted: &str, now: &Installed) -> Result<Step, String> {
        if is_lower(wanted, &now.version) {
            return Err(format!(
                "it has version {}, and an extension is never taken back to an earlier one ({wanted}): declare that \
                 version or none",
                now.version
            ));
        }
        let has = |it: &&Available| it.versions.contains_key(wanted) || it.updates.contains(wanted);
        let Some(it) = self.available.get(name).filter(has) else { return Err(self.lacks(name, Some(wanted))) };
        // The control file of a version that cannot be created is that of the extension.
        let version = it.versions.get(wanted).or_else(|| it.versions.get(&it.default));
        let as_owner = now.by_owner && version.is_some_and(|version| version.trusted);
        if !as_owner && !now.closed {
            return Err(format!(
                "the script of its update runs as the superuser, and other roles may create objects in its schema, or in \
                 that of an extension that it requires: move it (kubectl servicedb psql {} --superuser: ALTER EXTENSION \
                 {} SET SCHEMA {GUARDED})",
                self.in_commands,
                ident(name)
            ));
        }
        Ok(Step::Update { version: wanted.to_owned(), as_owner })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available() -> BTreeMap<String, Available> {
        let of = |trusted, schema: Option<&str>, requires: &[&str]| {
            let version = Version {
                trusted,
                schema: schema.map(str::to_owned),
                requires: requires.iter().map(|&name| name.to_owned()).collect(),
            };
            let versions = ["1.4", "1.6"].map(|name| (name.to_owned(), version.clone()));
            let updates = ["1.6", "1.7"].map(str::to_owned).into();
            Available { default: "1.6".to_owned(), versions: versions.into(), updates }
        };
        BTreeMap::from(
            [
                ("cube", of(true, None, &[])),
                ("earthdistance", of(false, None, &["cube"])),
                ("hstore", of(true, None, &[])),
                ("plpgsql", of(true, Some("pg_catalog"), &[])),
                ("tiger", of(false, Some("tiger"), &["earthdistance", "hstore"])),
                ("geocoder", of(true, Some("geocoder"), &["earthdistance", "hstore"])),
                ("one", of(false, None, &["other"])),
                ("other", of(false, None, &["one"])),
            ]
            .map(|(name, it)| (name.to_owned(), it)),
        )
    }

    fn has(guarded: bool) -> Installed {
        Installed {
            version: "1.5".to_owned(),
            schema: if guarded { GUARDED } else { PUBLIC }.to_owned(),
            guarded,
            by_owner: !guarded,
            relocatable: true,
            closed: guarded,
        }
    }

    fn with(name: &str, version: Option<&str>, schema: Option<&str>) -> Extension {
        let options = Options { version: version.map(str::to_owned), schema: schema.map(str::to_owned) };
        Extension { name: name.to_owned(), options }
    }

    fn steps_of(declared: &[Extension], installed: &[(&str, Installed)], found: &[(&str, &str)]) -> Vec<Planned> {
        let installed = installed.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect();
        let found = found.iter().map(|&(name, schema)| (name.to_owned(), schema.to_owned())).collect();
        plan(declared, &available(), &installed, &found, "chat -n messaging")
    }

    fn steps(declared: &[&str], installed: &[(&str, bool)], found: &[(&str, &str)]) -> Vec<Planned> {
        let declared: Vec<_> = declared.iter().map(|name| Extension::named(name)).collect();
        let installed: Vec<_> = installed.iter().map(|&(name, guarded)| (name, has(guarded))).collect();
        steps_of(&declared, &installed, found)
    }

    fn ok(name: &str, place: Place) -> Planned {
        (name.to_owned(), Ok(Step::Create(place, None)))
    }

    fn in_public() -> Place {
        Place::AsOwner(Some(PUBLIC.to_owned()))
    }

    fn guarded() -> Place {
        Place::Guarded(GUARDED.to_owned())
    }

    /// The only step for one declared extension.
    fn only(extension: Extension, now: Option<Installed>) -> Result<Step, String> {
        let installed: Vec<_> = now.into_iter().map(|now| (extension.name.clone(), now)).collect();
        let installed: Vec<_> = installed.iter().map(|(name, now)| (name.as_str(), now.clone())).collect();
        let mut steps = steps_of(std::slice::from_ref(&extension), &installed, &[]);
        steps.retain(|(name, _)| *name == extension.name);
        assert_eq!(steps.len(), 1, "{steps:?}");
        steps.remove(0).1
    }

    #[test]
    fn trusted_extensions_are_the_owners_and_others_never_meet_objects_of_a_tenant() {
        assert_eq!(
            steps(&["hstore", "earthdistance", "cube", "plpgsql"], &[], &[]),
            [
                ok("hstore", in_public()),
                // Trusted, and in the search path of one that is not.
                ok("cube", guarded()),
                ok("earthdistance", guarded()),
                ok("plpgsql", Place::AsOwner(None)),
            ]
        );
        let tiger = steps(&["tiger", "hstore", "cube", "earthdistance"], &[], &[]);
        assert_eq!(
            tiger[..3].iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["cube", "earthdistance", "hstore"]
        );
        assert_eq!(tiger[2], ok("hstore", guarded()));
        assert_eq!(tiger[3], ok("tiger", Place::Guarded("tiger".to_owned())));
    }

    #[test]
    fn a_required_extension_is_created_without_being_declared() {
        assert_eq!(steps(&["earthdistance"], &[], &[]), [ok("cube", guarded()), ok("earthdistance", guarded())]);
        // As the owner would create it, PostgreSQL would refuse the one that is not trusted.
        assert_eq!(
            steps(&["geocoder"], &[], &[]),
            [
                ok("cube", guarded()),
                ok("earthdistance", guarded()),
                ok("hstore", in_public()),
                ok("geocoder", Place::AsOwner(None))
            ]
        );
        // In a comparison it goes where the live database has it.
        let found = [("earthdistance", PUBLIC), ("cube", PUBLIC)];
        let as_found = || Place::AsFound(PUBLIC.to_owned());
        assert_eq!(steps(&["earthdistance"], &[], &found), [ok("cube", as_found()), ok("earthdistance", as_found())]);
    }

    #[test]
    fn an_installed_extension_stays_in_its_schema_and_its_version() {
        assert_eq!(
            steps(
                &["hstore", "earthdistance", "cube"],
                &[("hstore", false), ("cube", false), ("earthdistance", false)],
                &[]
            ),
            []
        );
        assert_eq!(steps(&["earthdistance"], &[("cube", true)], &[]), [ok("earthdistance", guarded())]);
        // Its script would have the tenant's schema in its path.
        let refused = steps(&["cube", "earthdistance"], &[("cube", false)], &[]).remove(0).1;
        let problem = refused.expect_err("a refusal");
        assert!(problem.contains("cube") && problem.contains(PUBLIC), "{problem}");
        assert!(problem.contains("kubectl servicedb psql chat -n messaging --superuser: ALTER EXTENSION"), "{problem}");
    }

    #[test]
    fn a_database_for_a_comparison_has_them_where_the_other_has_them() {
        let found = [("earthdistance", PUBLIC), ("cube", PUBLIC)];
        assert_eq!(
            steps(&["earthdistance", "cube", "hstore"], &[], &found),
            [
                ok("cube", Place::AsFound(PUBLIC.to_owned())),
                ok("earthdistance", Place::AsFound(PUBLIC.to_owned())),
                ok("hstore", in_public()),
            ]
        );
    }

    #[test]
    fn an_unknown_extension_and_a_circle_are_reported() {
        assert!(steps(&["nothing"], &[], &[])[0].1.is_err());
        assert_eq!(steps(&["one", "other"], &[], &[]).len(), 2, "a circle has an end");
    }

    #[test]
    fn a_declared_schema_and_version_are_those_of_the_creation() {
        let created = |place| Ok(Step::Create(place, Some("1.4".to_owned())));
        let trusted = only(with("hstore", Some("1.4"), Some("tools")), None);
        assert_eq!(trusted, created(Place::AsOwner(Some("tools".to_owned()))));
        let mut others = steps_of(&[with("earthdistance", Some("1.4"), Some("geo"))], &[], &[]);
        assert_eq!(others.remove(1).1, created(Place::Guarded("geo".to_owned())));
        assert_eq!(others.remove(0), ok("cube", guarded()), "a required one has its own");
        assert_eq!(only(with("hstore", None, Some(GUARDED)), None), Ok(Step::Create(guarded(), None)));
        let fixed = only(with("plpgsql", None, Some("tools")), None);
        assert!(fixed.is_err_and(|problem| problem.contains("pg_catalog")));
        let lacking = only(with("hstore", Some("9"), None), None);
        assert!(lacking.is_err_and(|problem| problem.contains("1.4, 1.6")), "the message has those of the image");
    }

    #[test]
    fn an_extension_is_updated_as_its_owner_or_where_no_tenant_can_create() {
        let update = |as_owner| Ok(Step::Update { version: "1.6".to_owned(), as_owner });
        assert_eq!(only(with("hstore", Some("1.6"), None), Some(has(false))), update(true));
        assert_eq!(only(with("hstore", Some("1.6"), None), Some(has(true))), update(false));
        let update_alone = Step::Update { version: "1.7".to_owned(), as_owner: true };
        assert_eq!(only(with("hstore", Some("1.7"), None), Some(has(false))), Ok(update_alone));
        let created = only(with("hstore", Some("1.7"), None), None);
        assert!(created.is_err(), "no script creates this version");
        // That of an earlier version of Servicedb belongs to the superuser.
        let in_public = Installed { by_owner: false, ..has(false) };
        let refused = only(with("hstore", Some("1.6"), None), Some(in_public));
        let problem = refused.expect_err("a refusal");
        assert!(problem.contains("psql chat -n messaging --superuser: ALTER EXTENSION"), "{problem}");
        let refused = only(with("earthdistance", Some("1.6"), None), Some(has(false)));
        assert!(refused.is_err(), "the owner may not run this script");
    }

    #[test]
    fn an_extension_is_never_taken_back_to_an_earlier_version() {
        let refused = only(with("hstore", Some("1.4"), None), Some(has(false)));
        assert!(refused.is_err_and(|problem| problem.contains("1.5") && problem.contains("never")));
        let lacking = only(with("hstore", Some("2.0"), None), Some(has(false)));
        assert!(lacking.is_err_and(|problem| problem.contains("1.4, 1.6")));
        let same = [with("hstore", Some("1.5"), None)];
        assert!(is_met(&same, &BTreeMap::from([("hstore".to_owned(), has(false))])), "the image need not have it");
        assert_eq!(steps_of(&same, &[("hstore", has(false))], &[]), []);
    }

    #[test]
    fn an_extension_is_moved_only_if_postgresql_can() {
        let moved = |schema: &str, by_owner| Ok(Step::Move { schema: schema.to_owned(), by_owner });
        assert_eq!(only(with("hstore", None, Some("tools")), Some(has(false))), moved("tools", true));
        let into_guarded = only(with("hstore", None, Some(GUARDED)), Some(has(false)));
        assert!(into_guarded.is_err(), "with what the owner has added to it");
        assert_eq!(only(with("earthdistance", None, Some("geo")), Some(has(true))), moved("geo", false));
        let fixed = Installed { relocatable: false, ..has(false) };
        let refused = only(with("hstore", None, Some("tools")), Some(fixed));
        assert!(refused.is_err_and(|problem| problem.contains("it is in the schema public")));
    }
}
